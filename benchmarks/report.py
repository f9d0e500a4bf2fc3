"""From measurements to RESULTS.md: JSON is kept beside it, and the page is made of all JSON that lies there.

Each benchmark is a module of this folder with `measure`, which returns what JSON can hold, and `table`, which makes a
section of it. What their tables have in common is here as well: ratios, and the sentence on the machine.
"""

import importlib
import json
import statistics
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from errors import MissingDependency
from utils import write_text

NAMES = ("generate", "finetune", "prompt", "optimizer", "load", "grade", "train")  # the order of the page
ON_GPU = ("generate", "finetune", "prompt", "optimizer")  # those that have `--device cuda`
HEAD = """# Results

Contenders took turns in one run, and a figure is the median of its rounds. Made by the commands in
[README.md](README.md), which says how to read it: do not edit.
"""


def write(folder: Path, name: str, result: dict[str, Any], device: str = "cpu") -> None:
    """Keep a result as JSON and, where the module can `draw` one, a picture; make RESULTS.md anew, print the section.

    Without matplotlib there is no picture.
    """
    path = _json(folder, name, device)
    write_text(path, json.dumps(result, indent=1) + "\n")
    path.with_suffix(".png").unlink(missing_ok=True)  # of an older result
    with suppress(MissingDependency):
        if draw := getattr(_module(name), "draw", None):
            draw(result, path.with_suffix(".png"))
    write_text(folder / "RESULTS.md", page(folder))
    print(section(name, result))
    print(f"wrote {folder / 'RESULTS.md'} and {path}")


def page(folder: Path) -> str:
    """Return RESULTS.md, made of the JSON files in the folder."""
    parts = [HEAD]
    for device in ("cpu", "cuda"):
        for name in NAMES:
            path = _json(folder, name, device)
            if path.is_file():
                parts.append(section(name, json.loads(path.read_text(encoding="utf-8"))))
                if (picture := path.with_suffix(".png")).is_file():
                    parts.append(f"![{name}]({picture.name})\n")
    if missing := [name for name in ON_GPU if not _json(folder, name, "cuda").is_file()]:
        commands = ", ".join(f"`python -m benchmarks {name} --device cuda`" for name in missing)
        parts.append(f"## On a GPU\n\nNot measured: there was none. To measure: {commands}.\n")
    return "\n".join(parts)


def section(name: str, result: dict[str, Any]) -> str:
    """Return a benchmark's section, with what the host took of the machine meanwhile."""
    text: str = _module(name).table(result)
    stolen = result.get("stolen")
    if stolen is None:
        return text
    return f"{text}\nThe host kept {stolen:.0%} of the processor time that was asked for meanwhile.\n"


def _module(name: str) -> Any:
    """Return the module of a benchmark."""
    return importlib.import_module(f"benchmarks.{name}")


def _json(folder: Path, name: str, device: str) -> Path:
    """Return where a result is kept."""
    return folder / (f"{name}.json" if device == "cpu" else f"{name}-{device}.json")


# ---------------------------------------------------------------------------------------------------- in tables


def grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def machine(result: dict[str, Any]) -> str:
    """Return the sentence on the machine, the versions and the rounds."""
    m = result["machine"]
    where = f"{m['gpu']}; {m['processor']}" if "gpu" in m else m["processor"]
    threads, rounds = (
        f"{number} {what}{'s' * (number != 1)}"
        for number, what in ((m["threads"], "thread"), (result["rounds"], "round"))
    )
    peers = "".join(f", {name} {m[name]}" for name in ("transformers", "xllamacpp") if name in m)
    return (
        f"{where}, {m['cores']} cores, {threads}, {m['system']}; Python {m['python']}, "
        f"PyTorch {m['torch']}{peers}. {rounds}."
    )


def ratio(rounds: Sequence[float], others: Sequence[float]) -> str:
    """Return how many times as fast as another a contender is: the median of the rounds, and their quartiles."""
    low, median, high = quartiles([theirs / ours for ours, theirs in zip(rounds, others, strict=True)])
    return f"{median:.2f}" if len(rounds) < 2 else f"{median:.2f} ({low:.2f} to {high:.2f})"


def share(limit: Sequence[float], taken: Sequence[float]) -> str:
    """Return the share of the time that a limit needs: the median of the rounds."""
    return f"{quartiles([least / ours for least, ours in zip(limit, taken, strict=True)])[1]:.0%}"


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the values below which a quarter, a half and three quarters of `values` lie."""
    if len(values) < 2:
        return (values[0],) * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high

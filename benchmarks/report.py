"""From measurements to RESULTS.md: JSON is kept beside it, and the page is made of all JSON that lies there."""

import json
import statistics
from pathlib import Path
from typing import Any

from utils import write_text

HEAD = """# Results

Made by `python -m benchmarks train`; a figure is the median of alternating rounds in one process. Do not edit.
"""


def write(folder: Path, name: str, result: dict[str, Any]) -> None:
    """Keep a result as JSON, make RESULTS.md anew, and print the new table."""
    write_text(folder / f"{name}.json", json.dumps(result, indent=1) + "\n")
    write_text(folder / "RESULTS.md", page(folder))
    print(TABLES[name](result))
    print(f"wrote {folder / 'RESULTS.md'} and {folder / f'{name}.json'}")


def page(folder: Path) -> str:
    """Return RESULTS.md, made of the JSON files in the folder."""
    parts = [HEAD]
    for name, table in TABLES.items():
        file = folder / f"{name}.json"
        if file.is_file():
            parts.append(table(json.loads(file.read_text(encoding="utf-8"))))
    return "\n".join(parts)


def train_table(result: dict[str, Any]) -> str:
    """Return the section on training."""
    lines = ["## Training from scratch", "", _machine(result), ""]
    lines += ["| size | precision | who | ms a step | tokens/s | ratio to transformers | of the matrix products |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in result["rows"]:
        lines.append(
            f"| {row['size']} | {row['precision']} | {row['contender']} | {1000 * row['median']:.0f} "
            f"| {row['tokens_per_second']:,.0f} | {_ratio(row, result['rows'])} | {row['share_of_peak']:.0%} |"
        )
    lines += [
        "",
        "The ratio is to transformers' own time, eager to eager and compiled to compiled, round by round: the median, "
        "and between which values the middle half lies; above 1 is faster. Without a note, the optimizer is torch's "
        "fused AdamW. The first step of what is compiled took "
        f"{_first_steps(result['rows'])}.",
    ]
    if any(row["share_of_peak"] > 1 for row in result["rows"]):
        lines += [
            "",
            "**Shares above 100 % cannot be**: the machine did other work while its matrix products were measured. The "
            "ratios are paired and stand; for the other columns, measure again on a quiet machine.",
        ]
    for size, columns in result["parts"].items():
        lines += ["", *_parts_table(size, columns)]
    return "\n".join(lines) + "\n"


def _parts_table(size: str, columns: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines on where the time goes at one size."""
    lines = [
        f"Where the time goes, {size}, eager, in milliseconds a step (under the profiler, which slows it down):",
        "",
    ]
    lines += ["| | " + " | ".join(columns) + " |", "|---|" + "---|" * len(columns)]
    for part in next(iter(columns.values())):
        cells = (
            f"{1000 * seconds[part]:.0f} ({seconds[part] / sum(seconds.values()):.0%})" for seconds in columns.values()
        )
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return lines


def _first_steps(rows: list[dict[str, Any]]) -> str:
    """Return how long it takes to compile, as part of a sentence."""
    compiled = [row for row in rows if row["contender"].endswith("compiled")]
    return ", ".join(f"{row['first']:.0f} s ({row['size']}, {row['contender']})" for row in compiled) or "no time here"


def _ratio(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return how many times as fast as transformers a contender is: the median of the rounds, and their quartiles."""
    peer = "transformers, compiled" if row["contender"].endswith("compiled") else "transformers"
    same = (other for other in rows if (other["size"], other["precision"]) == (row["size"], row["precision"]))
    theirs = next(other["rounds"] for other in same if other["contender"] == peer)
    ratios = [their_time / our_time for our_time, their_time in zip(row["rounds"], theirs, strict=True)]
    if len(ratios) < 2 or row["contender"] == peer:
        return f"{ratios[0]:.2f}"
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive")
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def _machine(result: dict[str, Any]) -> str:
    """Return the sentence on the machine and the versions."""
    m = result["machine"]
    peaks = {row["precision"]: row["peak_gflops"] for row in result["rows"]}
    speed = ", ".join(f"{peak:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
    return (
        f"{m['processor']}, {m['cores']} cores, {m['threads']} threads, {m['system']}; Python {m['python']}, "
        f"PyTorch {m['torch']}, transformers {m['transformers']}. A large matrix product reaches {speed}. "
        f"{result['rounds']} rounds."
    )


TABLES = {"train": train_table}

"""Start-up: how long one waits for `--help`, for imports, and from a checkpoint to the first logits.

Everything is timed in a process of its own, from files that the system has just read: what the disk takes is not
measured. A process says itself what it took, and what memory at most.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks import report
from benchmarks.machine import describe, own_seconds, take_turns
from benchmarks.material import CONFIGS, random_llama, tokenizer_of
from checkpoint import write_checkpoint, write_directory
from errors import MinLlamaError, UsageError
from hf_format import config_to, tensors_to
from llama import Llama
from pretrain import export_llama2c
from safetensors_file import write_safetensors
from utils import write_text

ROOT = Path(__file__).resolve().parent.parent
PEER, LIMIT = "transformers, safetensors", "reading the file"
HELP, IMPORTS = "python run_llama.py --help", "importing what generation needs"

# What a process does: what it imports, what is loaded of {path}, and the first logits of it.
TEMPLATE = """
import json, resource, time
start = time.perf_counter()
{imports}
imported = time.perf_counter()
{load}
loaded = time.perf_counter()
{logits}
end = time.perf_counter()
try:
    with open("/proc/self/status") as file:  # Linux: ru_maxrss counts the parent before it as well
        peak = next(int(line.split()[1]) / 2**10 for line in file if line.startswith("VmHWM"))
except OSError:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps(dict(imports=imported - start, load=loaded - imported, logits=end - loaded, peak=peak)))
"""
OURS = ("import torch\nfrom llama import load_pretrained", "model = load_pretrained({path!r})")
SIMPLE = "with torch.inference_mode():\n    model(torch.arange(16)[None])"
FAST = "model.prefill([list(range(16))])"
PLAIN = """content = torch.load({path!r}, weights_only=True)
model = Llama(LlamaConfig(**content["model_args"]))
model.load_state_dict(content["model"])"""
# By name: the file, the imports, the loading, the logits.
CONTENDERS = {
    "ours, .pt": ("pt", *OURS, SIMPLE),
    "ours, .bin": ("bin", *OURS, SIMPLE),
    "ours, directory": ("directory", *OURS, SIMPLE),
    "ours, .pt, --fast": (
        "pt",
        f"{OURS[0]}\nfrom inference.engine import Engine",
        "model = Engine(load_pretrained({path!r}))",
        FAST,
    ),
    "torch.load, load_state_dict": (
        "pt",
        "import torch\nfrom config import LlamaConfig\nfrom llama import Llama",
        PLAIN,
        SIMPLE,
    ),
    PEER: (
        "hf",
        "import torch\nfrom transformers import LlamaForCausalLM",
        "model = LlamaForCausalLM.from_pretrained({path!r})",
        SIMPLE,
    ),
    LIMIT: (
        "pt",
        "import os",
        "room = bytearray(os.path.getsize({path!r}))\nwith open({path!r}, 'rb', buffering=0) as file:\n"
        "    assert file.readinto(room) == len(room)",
        "",
    ),
}
COMMANDS = {
    HELP: ["run_llama.py", "--help"],
    "python alone": ["-c", ""],
    IMPORTS: ["-c", "import run_llama, tasks, llama, tokenizer"],
    "the same with --fast": ["-c", "import run_llama, inference.tasks, llama, tokenizer"],
    "importing torch": ["-c", "import torch"],
    "importing transformers' Llama": ["-c", "from transformers import LlamaForCausalLM"],
}


def measure(*, sizes: Sequence[str], rounds: int) -> dict[str, Any]:
    """Time commands, imports and loading; return the machine and a row each.

    Raises UsageError if one of the processes fails.
    """
    commands = take_turns({name: _command(arguments) for name, arguments in COMMANDS.items()}, rounds, warm_up=1)
    result: dict[str, Any] = {
        "machine": describe(),
        "rounds": rounds,
        "notes": [],
        "commands": [{"command": name} | asdict(timing) for name, timing in commands.items()],
        "rows": [],
    }
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            files = _write(Path(folder), size, result["notes"])
            result["rows"] += _rows(size, files, rounds)
    return result


def _command(arguments: list[str]) -> Callable[[], object]:
    """Return a call that runs Python with these arguments."""
    return lambda: _run(arguments)


def _run(arguments: list[str]) -> str:
    """Run Python in the project's root, with as many threads as here; return what it prints. Raises UsageError."""
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.splitlines() or ["it says nothing"])[-1]
        raise UsageError(f"a process that is timed has failed: {last}. Run `./setup.sh --dev` if it lacks a package")
    return done.stdout


def _write(folder: Path, size: str, notes: list[str]) -> dict[str, Path]:
    """Write a model in every form, and return the files; what has no tokenizer here is left out with a note."""
    llama, config = random_llama(size), CONFIGS[size]
    tensors = llama.state_dict()
    files = {"pt": folder / "llama.pt", "directory": folder / "ours", "hf": folder / "theirs"}
    write_checkpoint(files["pt"], config, tensors)
    write_directory(files["directory"], config, tensors)
    _write_theirs(files["hf"], llama)
    try:
        export_llama2c.write(folder / "llama.bin", config, tensors, tokenizer_of(size))
        files["bin"] = folder / "llama.bin"
    except MinLlamaError as error:
        notes.append(f"The .bin of {size} was left out: {error}.")
    return files


def _write_theirs(folder: Path, llama: Llama) -> None:
    """Write a folder as transformers' `save_pretrained` would."""
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors_to(llama.state_dict(), llama.config), {"format": "pt"})
    write_text(folder / "config.json", json.dumps(config_to(llama.config) | {"dtype": "float32"}))


def _rows(size: str, files: dict[str, Path], rounds: int) -> list[dict[str, Any]]:
    """Let all load in turns; return a row each."""
    told: dict[str, list[dict[str, float]]] = {}

    def loading(name: str, code: str) -> Callable[[], float]:
        def load() -> float:
            told.setdefault(name, []).append(json.loads(_run(["-c", code])))
            return told[name][-1]["load"] + told[name][-1]["logits"]

        return load

    calls = {
        name: loading(name, TEMPLATE.format(imports=imports, load=load.format(path=str(files[file])), logits=logits))
        for name, (file, imports, load, logits) in CONTENDERS.items()
        if file in files
    }
    timings = take_turns(calls, rounds, warm_up=1, timer=own_seconds)
    return [
        {"size": size, "contender": name, "megabytes": _size(files[CONTENDERS[name][0]])}
        | {part: median(facts[part] for facts in told[name][1:]) for part in ("imports", "load", "logits", "peak")}
        | asdict(timing)
        for name, timing in timings.items()
    ]


def _size(path: Path) -> float:
    """Return the size of a file, or of a folder's, in MB."""
    files = [path] if path.is_file() else list(path.iterdir())
    return sum(file.stat().st_size for file in files) / 1e6


# ---------------------------------------------------------------------------------------------------- the table


def table(result: dict[str, Any]) -> str:
    """Return the section on start-up."""
    lines = ["## Start-up", "", report.machine(result), ""]
    cells = [
        (row["command"], f"{row['median']:.3f}", f"{row['fastest']:.3f}", f"{row['slowest']:.3f}")
        for row in result["commands"]
    ]
    lines += report.grid(("command, from its start to its end", "s", "best", "worst"), cells)
    for size in dict.fromkeys(row["size"] for row in result["rows"]):
        rows = [row for row in result["rows"] if row["size"] == size]
        lines += ["", f"### From a checkpoint to the first logits, {size}", ""]
        head = ("who", "MB", "imports, s", "load, ms", "first logits, ms", "both, best", "ratio to transformers")
        lines += report.grid((*head, "of the limit", "memory, MiB"), (_cells(row, rows) for row in rows))
    lines += [
        "",
        "Each in a process of its own; the files are in the system's cache. The ratio is that of loading and first "
        "logits together, round by round: the median, and between which values the middle half lies; above 1 is "
        "faster. The limit is to read the file once into memory; a file that is mapped into memory needs less, and is "
        "read when it is used: the first logits pay for some of the loading. The memory is the most that the process "
        "had, PyTorch's code and the mapped pages of the file included.",
    ]
    return "\n".join([*lines, *(f"\n{note}" for note in result["notes"])]) + "\n"


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells of a row of a size's table."""
    by_name = {other["contender"]: other["rounds"] for other in rows}
    ratio = {PEER: "1.00", LIMIT: ""}.get(row["contender"], report.ratio(row["rounds"], by_name[PEER]))
    share = "" if row["contender"] == LIMIT else report.share(by_name[LIMIT], row["rounds"])
    times = (f"{row['imports']:.2f}", f"{1000 * row['load']:.0f}", f"{1000 * row['logits']:.0f}")
    return (
        *(row["contender"], f"{row['megabytes']:.0f}", *times, f"{1000 * row['fastest']:.0f}"),
        *(ratio, share, f"{row['peak']:.0f}"),
    )

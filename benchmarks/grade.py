"""How long grading takes: one submission, and a class that `simulate` made, beside what no grading can do without.

Everything runs as a user runs it, each command in a process of its own. Importing torch is the least that a submission
costs, since each is graded in a new sandbox; `sanity_check.py` is what students run on their own work.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.machine import describe, own_seconds, take_turns
from errors import GraderError

ROOT = Path(__file__).resolve().parent.parent
IMPORT, SANITY, GRADE = "import torch", "sanity_check.py", "autograder grade"
SEED = "1"  # of the class
WEIGHTS = ("--checkpoint", "storybook")  # what the outputs of a simulated class come from


@dataclass(frozen=True)
class Usage:
    """What a command took."""

    seconds: float
    processor_seconds: float  # of its processes, and of theirs


def measure(*, rounds: int = 3, submissions: int = 12) -> dict[str, Any]:
    """Time the commands in turns, and a class of `submissions` once. Raises GraderError if a command fails."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "class")
        _run(*_autograder("simulate", submissions, "--seed", SEED, "-o", made))
        rows = _rows(made / _a_right_one(made), Path(folder), rounds)
        graded = Path(folder, "out")
        batch = _run(*_autograder("batch", made, "-o", graded, *WEIGHTS))
        _run(*_autograder("truth", made, graded))  # which fails if a grade is not what it must be
    return {
        "machine": describe(),
        "rounds": rounds,
        "rows": rows,
        "batch": {"submissions": submissions} | asdict(batch),
    }


def _autograder(*arguments: object) -> list[str]:
    """Return the command line of a verb of the autograder."""
    return ["-m", "autograder", *map(str, arguments)]


def _a_right_one(made: Path) -> str:
    """Return the name of a submission in which nothing is wrong, or of the first if there is none."""
    entries = json.loads(made.with_name(f"{made.name}.truth.json").read_text(encoding="utf-8"))["entries"]
    return str(next((entry["name"] for entry in entries if entry["kind"] == "right"), entries[0]["name"]))


def _rows(submission: Path, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each of the commands that take turns."""
    number = count()
    lines: dict[str, Callable[[], list[str]]] = {
        IMPORT: lambda: ["-c", "import torch"],
        SANITY: lambda: ["sanity_check.py"],
        GRADE: lambda: _autograder("grade", submission, "-o", folder / f"out-{next(number)}", *WEIGHTS),
    }
    processor_seconds: dict[str, list[float]] = {name: [] for name in lines}

    def turn(name: str) -> float:
        usage = _run(*lines[name]())
        processor_seconds[name].append(usage.processor_seconds)
        return usage.seconds

    timings = take_turns({name: partial(turn, name) for name in lines}, rounds, 1, own_seconds)
    return [
        {"command": name, "rounds": timing.rounds, "processor_rounds": processor_seconds[name][1:]}
        for name, timing in timings.items()
    ]


def _run(*arguments: str) -> Usage:
    """Run Python with these arguments in the root. Raises GraderError if its status is not 0."""
    import resource  # which Windows has not, and neither can anything be graded there

    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).rpartition("\n")[2]
        raise GraderError(f"`python {' '.join(arguments)}` ended with status {done.returncode}: {last}")
    return Usage(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def table(result: dict[str, Any]) -> str:
    """Return the section on grading."""
    rows, batch = result["rows"], result["batch"]
    bare = next(row["rounds"] for row in rows if row["command"] == IMPORT)
    number = batch["submissions"]
    each = batch["seconds"] / number, batch["processor_seconds"] / number
    cells = [
        (
            row["command"],
            *(f"{statistics.median(row[kind]):.1f}" for kind in ("rounds", "processor_rounds")),
            "1.00" if row["command"] == IMPORT else f"{report.quartiles(_quotients(row['rounds'], bare))[1]:.2f}",
        )
        for row in rows
    ]
    share = f"{each[0] / statistics.median(bare):.2f}"
    cells.append((f"autograder batch, each of {number}", *(f"{seconds:.1f}" for seconds in each), share))
    return "\n".join(
        [
            "## Grading",
            "",
            report.machine(result),
            "",
            *report.grid(("command", "seconds", "seconds of a processor", "times import torch"), cells),
            "",
            f"A class of {number} that `autograder simulate` made went through `autograder batch` once, at "
            f"{60 / each[0]:.1f} submissions a minute, and every grade was what it must be. Each command is a process "
            "of its own and starts from nothing. What a submission costs at least is importing torch in a new sandbox; "
            "`sanity_check.py` is what students run on their own work.",
            "",
        ]
    )


def _quotients(rounds: Sequence[float], others: Sequence[float]) -> list[float]:
    """Return how many times as long as another a command took, round by round."""
    return [ours / theirs for ours, theirs in zip(rounds, others, strict=True)]

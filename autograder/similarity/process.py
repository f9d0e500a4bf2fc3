"""Starts the limited process that compares programs, and reads what it says."""

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.similarity.sources import Source
from autograder.similarity.worker import MOST_ANSWER, READY
from errors import GraderError, MissingDependency

ROOT = Path(__file__).resolve().parents[2]
MEMORY = 2 << 30  # bytes of address space; 200 submissions of usual size take a tenth
CPU_SECONDS = 1800  # 200 submissions of usual size take a minute
SECONDS = 3600.0  # of the clock
SECONDS_EACH = 20.0  # for one submission; the usual is read in less than one

Place = tuple[int, int, int]  # file, first character, one past the last


@dataclass(frozen=True)
class Shared:
    """A fragment: where it stands in the two submissions, its tokens, and how many of them are the same text."""

    one: Place
    two: Place
    tokens: int
    same: int


@dataclass(frozen=True)
class Match:
    """A pair that is shown: the numbers of two sources, how alike they are, and what they share."""

    one: int
    two: int
    score: float
    share: float
    shared: tuple[Shared, ...]


@dataclass(frozen=True)
class Comparison:
    """What the process found: the best matches, the scores of all pairs, given code by source, who was not read."""

    matches: tuple[Match, ...]
    scores: tuple[float, ...]
    given: dict[int, tuple[Place, ...]]
    unread: dict[int, str]


def check_packages() -> None:
    """Raise MissingDependency where a package is missing that a comparison needs."""
    if missing := [name for name in ("compare50", "jinja2") if importlib.util.find_spec(name) is None]:
        raise MissingDependency("similarity", *missing)


def compare(sources: Sequence[Source], current: int, given: Sequence[str], most: int) -> Comparison:
    """Compare the first `current` sources with each other, and with all others; the best `most` pairs are shown.

    `given` are the texts that everybody has. Raises GraderError if the process fails or exceeds its limits.
    """
    with tempfile.TemporaryDirectory(prefix="similarity-", ignore_cleanup_errors=True) as private:
        folder = Path(private)  # the names in it are ours
        texts = {f"given/{number}.py": text for number, text in enumerate(given)}
        files = [
            {f"{number}/{place}.py": text for place, text in enumerate(source.texts.values())}
            for number, source in enumerate(sources)
        ]
        for named in (texts, *files):
            for name, text in named.items():
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8", newline="\n")
        request = {
            "folder": str(folder),
            "handout": list(texts),
            "submissions": [list(named) for named in files],
            "current": current,
            "most": most,
            "memory": MEMORY,
            "seconds": CPU_SECONDS,
            "seconds_each": SECONDS_EACH,
        }
        return _comparison(_answer(request))


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run the process, and return what it says. Raises GraderError if that is nothing."""
    environment = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PATH": os.defpath, "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complaints:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-P", "-B", "-W", "ignore", "-m", "autograder.similarity.worker"],
            cwd=ROOT,
            env=environment,
            stdin=asked,
            stdout=told,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            status = process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            raise GraderError(f"comparing takes more than {SECONDS:.0f} seconds: compare fewer at once") from None
        finally:
            process.kill()
            process.wait()
        for file in (told, complaints):
            file.seek(0)
        line, document = told.readline(), told.read(MOST_ANSWER)
        reason = complaints.read()[-2000:].decode(errors="replace").strip().rpartition("\n")[2] or f"status {status}"
    if line.decode(errors="replace").strip() != READY:
        raise GraderError(f"the process that compares does not start ({reason}): install compare50 again")
    if status:
        raise GraderError(f"the process that compares ended early ({reason}): leave out the largest submissions")
    answer: dict[str, Any] = json.loads(document)
    return answer


def _comparison(answer: dict[str, Any]) -> Comparison:
    """Return the answer in types."""
    matches = tuple(
        Match(one, two, score, share, tuple(Shared(tuple(a), tuple(b), *counts) for a, b, *counts in shared))
        for one, two, score, share, shared in answer["pairs"]
    )
    given = {int(number): tuple((a, b, c) for a, b, c in places) for number, places in answer["given"].items()}
    return Comparison(matches, tuple(answer["scores"]), given, dict(answer["unread"]))

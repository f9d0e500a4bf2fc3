"""What is right to say about each submission of a made-up class, and where did a grading say something else?

for sentence in compare_with_truth(Path("class"), out):
    print(sentence)
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import current_rows
from autograder.batch.records import Entry, Row
from errors import UsageError
from utils import write_text

FORMAT = 1


@dataclass(frozen=True)
class Truth:
    """The truth about one entry.

    A `letter` of None is not foreseen. Of a region in `failing` at least one check that runs it alone must not pass,
    of one in `passing` all must. `counts` is false where the student has handed in again.
    """

    name: str  # of the entry
    kind: str
    what: str  # in words: which bugs, which oddity
    student_id: str
    student_name: str
    email: str
    platform_id: str
    styles: Mapping[str, str]  # file -> whose hand it is from
    status: str = "graded"
    letter: str | None = None
    failing: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    attempt: int = 0
    counts: bool = True
    is_late: bool = False
    days_late: int | None = 0  # None: Canvas does not say how late it is
    submitted_at: str = ""


def truth_file(folder: Path) -> Path:
    """Return where the truth about a class lies: beside it, so that nothing in it gives it away."""
    folder = Path(folder).absolute()
    return folder.with_name(f"{folder.name}.truth.json")


def write_truth(folder: Path, entries: list[Truth], about: Mapping[str, Any]) -> None:
    """Write the truth about a class."""
    content = {"format": FORMAT, **about, "entries": [asdict(entry) for entry in entries]}
    write_text(truth_file(folder), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_truth(folder: Path) -> dict[str, Truth]:
    """Return the truth about each entry of a class. Raises UsageError if it is not there, or damaged."""
    path = truth_file(folder)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UsageError(f"{path} has format {content['format']}, expected {FORMAT}: simulate the class again")
        return {row["name"]: _from_dict(row) for row in content["entries"]}
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): `simulate` writes it") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is damaged ({error}): simulate the class again") from error


def _from_dict(data: Mapping[str, Any]) -> Truth:
    """Return the truth of plain data."""
    return Truth(**dict(data) | {name: tuple(data[name]) for name in ("failing", "passing")})


def compare_with_truth(folder: Path, out: Path) -> list[str]:
    """Return a sentence for all that a grading of a made-up class says and that is not the truth.

    Raises UsageError if the class was not made up, or not graded.
    """
    truths = read_truth(folder)
    results = ClassFolder(Path(out))
    entries = {entry.name: entry for entry in results.read_entries()[0]}
    rows = current_rows(results)
    wrong = [f"{name}: it was found, and nobody handed it in" for name in entries if name not in truths]
    for name, truth in truths.items():
        if name not in entries:
            wrong.append(f"{name}: it was not found")
        elif name not in rows:
            wrong.append(f"{name}: it was not graded")
        else:
            complaints = _of_entry(truth, entries[name]) + _of_row(truth, rows[name])
            wrong += [f"{name} ({truth.kind}: {truth.what}): {complaint}" for complaint in complaints]
    return wrong


def _of_entry(truth: Truth, entry: Entry) -> list[str]:
    """Return what was found that is not so."""
    pairs = {
        "Canvas' or the university's number": (entry.platform_id, truth.platform_id),
        "attempt": (entry.attempt, truth.attempt),
        "late": (entry.is_late, truth.is_late and not truth.submitted_at),  # where there is a time, that tells
        "time": (entry.submitted_at, truth.submitted_at),
    }
    return [f"{what} is {found!r}, not {right!r}" for what, (found, right) in pairs.items() if found != right]


def _of_row(truth: Truth, row: Row) -> list[str]:
    """Return what a grading says that is not so."""
    if row.status != truth.status:
        return [f"{row.status}, not {truth.status} ({row.reason})"]
    if row.summary is None:
        return []
    wrong = []
    if truth.letter is not None and row.summary.letter != truth.letter:
        wrong.append(f"{row.summary.letter}, not {truth.letter}: {'; '.join(row.summary.reasons)}")
    alone = _component_checks()
    for region in (*truth.failing, *truth.passing):
        states = {name: row.summary.checks[name] for name in alone.get(region, ()) if name in row.summary.checks}
        passed = all(state == "pass" for state in states.values())
        if passed is (region in truth.failing):
            wrong.append(f"{region} {'passes' if passed else 'fails'}: {states}")
    return wrong


def _component_checks() -> dict[str, list[str]]:
    """Return the names of the checks that run a region alone."""
    from autograder.checks.hidden import CHECKS  # imports torch

    names: dict[str, list[str]] = {}
    for check in CHECKS:
        if not check.needs:
            names.setdefault(check.region, []).append(check.name)
    return names

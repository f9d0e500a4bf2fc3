"""Whose grade changes between two gradings of a class, and because of what?

    print(differences(Path("out-before"), Path("out")))

It compares the two grades.csv, and what the journals say of the checks.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import read_journal
from autograder.batch.records import Row
from autograder.gradebook.tables import GRADES, cell
from autograder.report.plain import one_line
from errors import UsageError

FINAL = ("letter", "points", "status")
LONGEST = 500  # characters of a reason
HEAD = ("student", "before", "now", "because")


@dataclass(frozen=True)
class _Class:
    """The gradebook of one OUT."""

    out: Path
    lines: Mapping[str, Mapping[str, str]]  # of grades.csv, by student
    rows: Mapping[str, Row]  # by the cell of the entry

    def row(self, student: str) -> Row | None:
        """Return what became of a student's submission."""
        return self.rows.get(self.lines[student]["entry"])


def differences(one: Path, two: Path) -> str:
    """Return who gets another grade in the folder `two` than in `one`, as a table; raises UsageError without grades."""
    before, now = _read(one), _read(two)
    both = [student for student in before.lines if student in now.lines]
    changed = [student for student in both if _final(before, student) != _final(now, student)]
    table = [
        (student, _final(before, student), _final(now, student), _why(before, now, student)) for student in changed
    ]
    parts = [_columns([HEAD, *table])] if table else []
    for mine, other in ((before, now), (now, before)):
        if alone := [student for student in mine.lines if student not in other.lines]:
            parts.append(f"only in {cell(str(mine.out))}: {', '.join(alone)}")
    if changed:
        parts.append(f"{len(changed)} of {len(both)} grades change")
    else:
        parts.append(f"no grade changes, of {len(both)} students")
    return "\n".join(parts)


def _read(out: Path) -> _Class:
    """Return the gradebook in OUT."""
    path = out / "grades.csv"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read ({error}): make it with `python -m autograder gradebook`") from error
    if any(set(line) != set(GRADES) or None in line.values() for line in lines):
        raise UsageError(f"{path} has other columns than {', '.join(GRADES)}: make it anew with the verb gradebook")
    rows = {cell(name): row for name, row in read_journal(ClassFolder(out).journal).items()}
    return _Class(out, {line["id"]: line for line in lines}, rows)


def _final(book: _Class, student: str) -> str:
    """Return a student's grade in a few words."""
    letter, points, status = (book.lines[student][column] for column in FINAL)
    return ", ".join(
        part for part in (letter, points and f"{points} points", "" if status == "graded" else status) if part
    )


def _why(before: _Class, now: _Class, student: str) -> str:
    """Return what a student's grade changes because of."""
    one, two = before.row(student), now.row(student)
    reasons = []
    if before.lines[student]["entry"] != now.lines[student]["entry"]:
        reasons.append(f"another entry counts: {now.lines[student]['entry'] or 'none'}")
    elif one and two and one.sha256 != two.sha256:
        reasons.append("the submission is another")
    reasons += _of_results(one, two)
    steps = [book.lines[student]["steps"] for book in (before, now)]
    if steps[0] != steps[1]:
        reasons.append(f"steps: {steps[1] or 'none'} (before: {steps[0] or 'none'})")
    return "; ".join(reasons) or "the results are the same: see both reports"


def _of_results(one: Row | None, two: Row | None) -> list[str]:
    """Return which checks end otherwise; if none does, which reasons of the letter are new."""
    if not (one and two and one.summary and two.summary):
        return [one_line(two.reason, LONGEST)] if two and two.reason else []
    was, now = one.summary.checks, two.summary.checks
    names = [*was, *(name for name in now if name not in was)]
    pairs = [(name, was.get(name, "not run"), now.get(name, "not run")) for name in names]
    changed = [f"{name}: {old} -> {new}" for name, old, new in pairs if old != new]
    return changed or [one_line(reason, LONGEST) for reason in two.summary.reasons if reason not in one.summary.reasons]


def _columns(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns, the last of them as wide as it wants to be."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(text.ljust(width) for text, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    )

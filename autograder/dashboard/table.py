"""What does the class table show? A row of plain text for each grade, and the filters that choose among the rows.

Nothing here is escaped: the template does that. Everything that a stranger may have written is one clean line.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from autograder.batch.records import Entry, Row
from autograder.gradebook.grades import FinalGrade
from autograder.report.plain import one_line
from autograder.result import Status

NAME, LINE = 120, 600  # characters of a stranger's text that the page has room for

FOLDER = re.compile(r"results/[A-Za-z0-9_-][A-Za-z0-9._-]*")  # of a submission's results
CRASHED: tuple[Status, ...] = ("error", "timeout", "memory")
FAILING: tuple[Status, ...] = ("fail", *CRASHED, "missing")
CHECK_WORDS: dict[Status, str] = {
    "fail": "wrong result",
    "error": "stopped with an error",
    "timeout": "took too long",
    "memory": "needed too much memory",
    "missing": "not written yet",
}
STATUS_WORDS = {
    "graded": "graded",
    "unreadable": "unreadable",
    "ungraded": "grader failed",
    "waiting": "not graded yet",
    "absent": "nothing handed in",
}
FLAG_WORDS = {
    "review": "waiting for review",
    "late": "late",
    "crashed": "crashed in a check",
    "unmatched": "not in the roster",
}
NO_LETTER = "none"
JUST_LATE = 0.001  # days, to sort by, where nobody knows how many


@dataclass(frozen=True)
class Option:
    """A value that a filter can choose, and how many rows have it. `link` is the view that it alone gives."""

    value: str
    label: str
    count: int
    link: str


@dataclass(frozen=True)
class Filter:
    """A list to choose from, above the table. `places` are each row's options, counted from 1 since 0 is all rows."""

    name: str
    label: str
    options: tuple[Option, ...]
    places: tuple[str, ...]

    def link(self, value: str) -> str:
        """Return the link to the view of this value, empty if no row has it."""
        return next((option.link for option in self.options if option.value == value), "")


@dataclass(frozen=True)
class RowView:
    """What the table shows of a grade: texts, and numbers to sort by (None sorts last)."""

    student: str
    name: str
    letter: str
    points: str
    points_number: float | None
    status: str
    days_late: str
    days_number: float
    failing: int
    failures: tuple[str, ...]  # the checks that fail, by what became of them
    misconceptions: tuple[str, ...]
    to_review: int
    link: str
    why: tuple[str, ...]  # from what the grader found to what is entered, in order
    open_items: tuple[str, ...]
    facts: tuple[str, ...]  # where it comes from


def line(text: str, limit: int = LINE) -> str:
    """Return a stranger's text as one line that is safe to show once it is escaped."""
    return one_line(text, limit)


def number(value: float) -> str:
    """Return a number as a person writes it: 7, 7.5, 7.25."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def view_link(name: str, value: str) -> str:
    """Return the link to the table with one filter set."""
    return "#" + urlencode({name: value})


def student_of(grade: FinalGrade) -> str:
    """Return what a student is called where there is room for one word."""
    return line(grade.student_id, NAME) or line(grade.student_name, NAME) or "unknown"


def status_of(grade: FinalGrade) -> str:
    """Return what became of a submission, one of STATUS_WORDS."""
    if grade.row:
        return grade.row.status
    return "waiting" if grade.entry else "absent"


def is_late(grade: FinalGrade) -> bool:
    """Say whether a submission came late: after grace and extensions, or marked so by the platform."""
    if grade.days_late is None:
        return bool(grade.entry and grade.entry.is_late)
    return grade.days_late > 0


def checks_with(grade: FinalGrade, statuses: Sequence[Status]) -> list[tuple[str, Status]]:
    """Return the checks of a graded submission that ended in one of these ways."""
    summary = grade.row and grade.row.summary
    return (
        [(line(name, NAME), status) for name, status in summary.checks.items() if status in statuses] if summary else []
    )


def grouped(checks: Sequence[tuple[str, Status]]) -> list[str]:
    """Return checks by how they ended, a line for each way."""
    names = {
        status: [name for name, how in checks if how == status] for status in dict.fromkeys(how for _, how in checks)
    }
    return [f"{CHECK_WORDS[status]}: {', '.join(of_status)}" for status, of_status in names.items()]


def misconceptions_of(grade: FinalGrade) -> list[str]:
    """Return the misconceptions that a submission shows, each with its region."""
    summary = grade.row and grade.row.summary
    return [f"{line(region, NAME)}: {line(text)}" for region, text in summary.misconceptions] if summary else []


def flags_of(grade: FinalGrade) -> list[str]:
    """Return what is special about a grade, some of FLAG_WORDS."""
    flags = {
        "review": bool(grade.open_items),
        "late": is_late(grade),
        "crashed": bool(checks_with(grade, CRASHED)),
        "unmatched": not grade.matched,
    }
    return [name for name, is_set in flags.items() if is_set]


def letter_order(letter: str) -> tuple[bool, str, int, str]:
    """Return what letters are sorted by: the best first, no letter last."""
    return letter == NO_LETTER, letter[:1], {"+": 0, "": 1, "-": 2}.get(letter[1:], 3), letter


def make_filters(grades: Sequence[FinalGrade]) -> tuple[Filter, ...]:
    """Return the filters of a class: only what some row has can be chosen."""
    letters = [[line(grade.letter, NAME) if grade.letter else NO_LETTER] for grade in grades]
    statuses, flags = [[status_of(grade)] for grade in grades], [flags_of(grade) for grade in grades]
    failing = [[name for name, _ in checks_with(grade, FAILING)] for grade in grades]
    wrong = [misconceptions_of(grade) for grade in grades]
    return (
        _filter("letter", "Letter", letters, lambda value, count: letter_order(value), {NO_LETTER: "no letter"}),
        _filter("status", "Status", statuses, lambda value, count: list(STATUS_WORDS).index(value), STATUS_WORDS),
        _filter("only", "Only", flags, lambda value, count: list(FLAG_WORDS).index(value), FLAG_WORDS),
        _filter("check", "Failing check", failing, lambda value, count: (-count, value)),
        _filter("misconception", "Misconception", wrong, lambda value, count: (-count, value)),
    )


def _filter(
    name: str,
    label: str,
    values: Sequence[Sequence[str]],
    order: Callable[[str, int], Any],
    words: dict[str, str] | None = None,
) -> Filter:
    """Return the filter for what each row has."""
    counts = Counter(value for of_row in values for value in dict.fromkeys(of_row))
    known = sorted(counts, key=lambda value: order(value, counts[value]))
    place = {value: str(number) for number, value in enumerate(known, 1)}
    return Filter(
        name,
        label,
        tuple(Option(value, (words or {}).get(value, value), counts[value], view_link(name, value)) for value in known),
        tuple(" ".join(place[value] for value in of_row) for of_row in values),
    )


def row_view(grade: FinalGrade, private: bool) -> RowView:
    """Return what the table shows of a grade. Unless `private`, nothing that could say whose it is but its ID.

    Reasons, review items and steps are free text, where a file's name or a decision's reason may hold a name.
    """
    entry, row = grade.entry, grade.row
    return RowView(
        student=student_of(grade),
        name=line(grade.student_name, NAME),
        letter=line(grade.letter or "", NAME),
        points="" if grade.points is None else number(grade.points),
        points_number=grade.points,
        status=status_of(grade),
        days_late=_days_late(grade),
        days_number=(JUST_LATE if grade.days_late is None else grade.days_late) if is_late(grade) else 0.0,
        failing=len(checks_with(grade, FAILING)),
        failures=tuple(grouped(checks_with(grade, FAILING))),
        misconceptions=tuple(misconceptions_of(grade)),
        to_review=len(grade.open_items),
        link=f"{row.folder}/report.html" if private and row and FOLDER.fullmatch(row.folder) else "",
        why=tuple(_why(grade)) if private else (),
        open_items=tuple(map(line, grade.open_items)) if private else (),
        facts=tuple(_facts(grade, entry, row)) if private else (),
    )


def _days_late(grade: FinalGrade) -> str:
    """Return how late a submission is; only `late` where the platform does not say by how much."""
    if not is_late(grade):
        return ""
    return "late" if grade.days_late is None else number(grade.days_late)


def _why(grade: FinalGrade) -> list[str]:
    """Return the steps from what the grader found to what is entered."""
    row = grade.row
    if row and row.summary:
        worth = f"{number(row.summary.points)} of {number(row.summary.max_points)} points"
        first = [f"The grader gives {line(row.summary.letter, NAME)}, {worth}.", *map(line, row.summary.reasons)]
    else:
        reason = (row and row.reason) or (grade.entry and grade.entry.problem)
        first = [line(reason)] if reason else []
    points = "" if grade.points is None else f", {number(grade.points)} points"
    last = [f"Entered: {line(grade.letter, NAME)}{points}."] if grade.letter else []
    return [*first, *map(line, grade.steps), *last]


def _facts(grade: FinalGrade, entry: Entry | None, row: Row | None) -> list[str]:
    """Return where a grade comes from."""
    told = row.student_id if row and row.student_id != grade.student_id else ""
    facts = (
        ("Submission", entry.name if entry else ""),
        ("Handed in", entry.submitted_at if entry else ""),
        ("Attempt", str(entry.attempt) if entry and entry.attempt else ""),
        ("Its own student ID", told),
        ("Section", grade.section),
        ("Roster", "" if grade.matched else FLAG_WORDS["unmatched"]),
    )
    return [f"{name}: {line(value, NAME)}" for name, value in facts if value]

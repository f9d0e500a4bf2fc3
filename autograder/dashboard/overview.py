"""What does a class look like as a whole? Headline counts, letters, checks from the worst, misconceptions."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from autograder.dashboard.table import (
    CRASHED,
    FAILING,
    Filter,
    Option,
    checks_with,
    grouped,
    number,
    status_of,
    student_of,
)
from autograder.gradebook.grades import FinalGrade


@dataclass(frozen=True)
class Count:
    """One of the numbers at the top; a link if there is something to show."""

    label: str
    number: int
    link: str = ""


@dataclass(frozen=True)
class CheckRate:
    """How a check went: of those that were `judged`, not skipped, and how many."""

    name: str
    passed: int
    judged: int
    skipped: int
    link: str

    @property
    def rate(self) -> float:
        """Which share passed."""
        return self.passed / self.judged


def headline(grades: Sequence[FinalGrade], filters: dict[str, Filter]) -> list[Count]:
    """Return the numbers at the top. Those that are mostly nought are left out when they are.

    Where something is counted that was handed in, a group's counts once; else students are.
    """
    handed = {grade.entry.name: status_of(grade) for grade in grades if grade.entry}
    statuses = Counter([*handed.values(), *(status_of(grade) for grade in grades if not grade.entry)])
    flags = {option.value: option.count for option in filters["only"].options}
    status, only = filters["status"], filters["only"]
    always = [
        Count("submissions", len(handed)),
        Count("graded", statuses["graded"], status.link("graded")),
        Count("unreadable", statuses["unreadable"], status.link("unreadable")),
        Count("ungraded: grader failed", statuses["ungraded"], status.link("ungraded")),
        Count("waiting for review", flags.get("review", 0), only.link("review")),
        Count("late", flags.get("late", 0), only.link("late")),
    ]
    sometimes = [
        Count("not graded yet", statuses["waiting"], status.link("waiting")),
        Count("nothing handed in", statuses["absent"], status.link("absent")),
        Count("not in the roster", flags.get("unmatched", 0), only.link("unmatched")),
    ]
    return always + [count for count in sometimes if count.number]


def points_sentence(grades: Sequence[FinalGrade]) -> str:
    """Return how the points lie, in a sentence; empty without any."""
    points = [grade.points for grade in grades if grade.points is not None]
    if not points:
        return ""
    most = {grade.max_points for grade in grades if grade.points is not None and grade.max_points}
    of = f" of {number(most.pop())}" if len(most) == 1 else ""
    return f"Points{of}: median {number(median(points))}, from {number(min(points))} to {number(max(points))}."


def check_rates(grades: Sequence[FinalGrade], filters: dict[str, Filter]) -> list[CheckRate]:
    """Return how each check went, the worst first. What was skipped, or met a fault of the grader, is not judged."""
    passed = Counter(name for grade in grades for name, _ in checks_with(grade, ("pass",)))
    failed = Counter(name for grade in grades for name, _ in checks_with(grade, FAILING))
    skipped = Counter(name for grade in grades for name, _ in checks_with(grade, ("skipped",)))
    link = filters["check"].link
    rates = [
        CheckRate(name, passed[name], passed[name] + failed[name], skipped[name], link(name))
        for name in passed + failed
    ]
    return sorted(rates, key=lambda check: (check.rate, -check.judged, check.name))


def split_misconception(option: Option) -> tuple[str, str, Option]:
    """Return the region, the sentence, and how many show it."""
    region, _, sentence = option.value.partition(": ")
    return region, sentence, option


def crashes(grades: Sequence[FinalGrade]) -> list[tuple[str, list[str]]]:
    """Return who crashed in which checks, the most checks first."""
    found = [(student_of(grade), checks_with(grade, CRASHED)) for grade in grades]
    worst = sorted((item for item in found if item[1]), key=lambda item: -len(item[1]))
    return [(student, grouped(checks)) for student, checks in worst]

"""What does lateness cost? The policy is the edition's table `[late]`; nothing here reads a clock."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from autograder.editions import Late
from autograder.rubric import LOWEST

# Every letter that a person may give, from the best; a third of a letter is one step.
LADDER = ("A+", "A", "A-", "B+", "B", "B-", "C+", "C", "C-", "D+", "D", "D-", "F")
LETTERS = (*LADDER, LOWEST)
DAY = timedelta(days=1)


@dataclass(frozen=True)
class Standing:
    """A letter and points (None: there are none yet), and the sentences that led to them."""

    letter: str | None
    points: float | None
    steps: tuple[str, ...] = ()


def days_begun(submitted: datetime, due: datetime, free_days: float) -> int:
    """Return how many days have begun between the due date, moved by `free_days`, and the submission."""
    return max(0, -(-(submitted - due - timedelta(days=free_days)) // DAY))


def penalised(before: Standing, max_points: float, late: Late, days: int) -> Standing:
    """Return a standing after what so many days of lateness cost."""
    if not days or not late.costs or (before.letter is None and before.points is None):
        return before
    when = f"{_count(days, 'day')} late"
    if late.max_days is not None and days > late.max_days:
        step = f"{when}: nothing is accepted after {late.max_days:g}"
        return Standing(LADDER[-1], before.points and 0.0, (*before.steps, step))
    if late.kind == "thirds":
        return _lower_letter(before, int(late.a_day) * days, when)
    return _fewer_points(before, max_points, late.a_day * days, when)


def worst(letters: list[str]) -> str:
    """Return the lowest of some letters; "B or below" lies between a B and a B-."""
    return max(letters, key=lambda letter: LADDER.index("B") + 0.5 if letter == LOWEST else LADDER.index(letter))


def _lower_letter(before: Standing, thirds: int, when: str) -> Standing:
    """Take thirds of a letter off."""
    if not thirds or before.letter is None:
        return before
    what = f"{when}: {_count(thirds, 'third')} of a letter"
    if before.letter == LOWEST:
        step = f"{what}, which a person takes off what '{LOWEST}' comes to"
        return Standing(LOWEST, before.points, (*before.steps, step))
    letter = LADDER[min(LADDER.index(before.letter) + thirds, len(LADDER) - 1)]
    return Standing(letter, before.points, (*before.steps, f"{what}: {before.letter} becomes {letter}"))


def _fewer_points(before: Standing, max_points: float, percent: float, when: str) -> Standing:
    """Take points off, in per cent of the maximum; the letter stays."""
    if not percent or not before.points:
        return before
    points = min(before.points, round(max(0.0, before.points - max_points * percent / 100), 6))
    step = f"{when}: {percent:g} % of {max_points:g} points: {before.points:g} become {points:g}"
    return Standing(before.letter, points, (*before.steps, step))


def _count(number: int, noun: str) -> str:
    """Return a number and its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

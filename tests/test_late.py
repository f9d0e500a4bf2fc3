"""What lateness costs: a table of literal cases, and the laws that hold for every policy."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.editions import Late
from autograder.gradebook.late import LADDER, LETTERS, Standing, days_begun, penalised, worst
from autograder.rubric import BELOW, LOWEST

DUE = datetime(2026, 11, 20, 23, 59, tzinfo=UTC)
PERCENT = Late(kind="percent", a_day=10)
THIRDS = Late(kind="thirds", a_day=1)


@pytest.mark.parametrize(
    ("hours", "free", "days"),
    [
        (-5, 0, 0),
        (0, 0, 0),
        (0.01, 0, 1),
        (24, 0, 1),
        (24.01, 0, 2),
        (24, 1, 0),
        (30, 1, 1),
        (11, 0.5, 0),
        (13, 0.5, 1),
    ],
)
def test_a_day_counts_when_it_has_begun(hours: float, free: float, days: int) -> None:
    assert days_begun(DUE + timedelta(hours=hours), DUE, free) == days


@pytest.mark.parametrize(
    ("late", "days", "letter", "points", "after", "left"),
    [
        (PERCENT, 0, "A", 90, "A", 90),
        (PERCENT, 1, "A", 90, "A", 80),
        (PERCENT, 3, "B+", 25, "B+", 0),
        (THIRDS, 1, "A+", 90, "A", 90),
        (THIRDS, 1, "A", 90, "A-", 90),
        (THIRDS, 2, "A", 90, "B+", 90),
        (THIRDS, 3, "B+", 90, "C+", 90),
        (THIRDS, 99, "B", 90, "F", 90),
        (THIRDS, 2, LOWEST, 90, LOWEST, 90),
        (Late(kind="thirds", a_day=2), 1, "A", 90, "B+", 90),
        (Late(), 9, "A", 90, "A", 90),
        (Late(max_days=2), 2, "A", 90, "A", 90),
        (Late(max_days=2), 3, "A", 90, "F", 0),
        (Late(kind="thirds", a_day=1, max_days=2), 3, LOWEST, 90, "F", 0),
    ],
)
def test_lateness_costs_what_the_edition_says(
    late: Late, days: int, letter: str, points: float, after: str, left: float
) -> None:
    standing = penalised(Standing(letter, points), 100, late, days)
    assert (standing.letter, standing.points) == (after, left)
    changed = (after, left) != (letter, points) or (letter == LOWEST and days)
    assert bool(standing.steps) == bool(changed)


def test_thirds_of_the_lowest_letter_are_left_to_a_person() -> None:
    (step,) = penalised(Standing(LOWEST, 30), 100, THIRDS, 2).steps
    assert step == "2 days late: 2 thirds of a letter, which a person takes off what 'B or below' comes to"


def test_the_step_says_how_the_points_came_about() -> None:
    (step,) = penalised(Standing("A", 90), 80, PERCENT, 1).steps
    assert step == "1 day late: 10 % of 80 points: 90 become 82"


def test_no_grade_stays_none() -> None:
    assert penalised(Standing(None, None), 100, Late(a_day=10, max_days=1), 5) == Standing(None, None)


def test_the_ladder_goes_down_as_the_rubric_does() -> None:
    for above, below in BELOW.items():
        assert LADDER.index(below) == LADDER.index(above) + 1


@pytest.mark.parametrize(
    ("letters", "lowest"), [(["A", "B+"], "B+"), ([LOWEST, "B"], LOWEST), ([LOWEST, "B-"], "B-"), (["A+"], "A+")]
)
def test_the_worst_of_several_letters(letters: list[str], lowest: str) -> None:
    assert worst(letters) == lowest


policies = st.one_of(
    st.builds(Late, kind=st.just("percent"), a_day=st.floats(0, 100), max_days=st.none() | st.integers(0, 10)),
    st.builds(Late, kind=st.just("thirds"), a_day=st.integers(0, 5), max_days=st.none() | st.integers(0, 10)),
)
standings = st.builds(Standing, st.sampled_from(LETTERS), st.floats(0, 100))
seconds = st.integers(-(10**6), 10**7)


def rank(standing: Standing) -> tuple[int, float]:
    """Return how good a standing is, in letters and in points."""
    letter = {LOWEST: "B"}.get(standing.letter or "", standing.letter or "")
    return -LADDER.index(letter), standing.points or 0.0


@given(standings, policies, st.integers(0, 20), st.integers(0, 20))
def test_later_is_never_better(before: Standing, late: Late, days: int, more: int) -> None:
    early, later = (rank(penalised(before, 100, late, number)) for number in (days, days + more))
    assert later[0] <= early[0]
    assert later[1] <= early[1]
    assert early <= rank(before)


@given(standings, standings, policies, st.integers(0, 20))
def test_who_was_better_is_not_worse_afterwards(one: Standing, two: Standing, late: Late, days: int) -> None:
    after = [rank(penalised(standing, 100, late, days)) for standing in (one, two)]
    for place in (0, 1):
        if rank(one)[place] <= rank(two)[place]:
            assert after[0][place] <= after[1][place] + 1e-6


@given(seconds, st.floats(0, 30))
def test_within_grace_nothing_is_late(late: int, grace: float) -> None:
    submitted = DUE + timedelta(seconds=late)
    assert (days_begun(submitted, DUE, grace) == 0) == (submitted - DUE <= timedelta(days=grace))


@given(seconds, st.integers(0, 30), st.integers(0, 3))
def test_an_extension_equals_submitting_so_much_earlier(late: int, extension: int, grace: int) -> None:
    submitted = DUE + timedelta(seconds=late)
    earlier = submitted - timedelta(days=extension)
    assert days_begun(submitted, DUE, grace + extension) == days_begun(earlier, DUE, grace)


@given(seconds, st.integers(0, 10**6))
def test_days_do_not_become_fewer(late: int, more: int) -> None:
    early, later = (days_begun(DUE + timedelta(seconds=number), DUE, 0) for number in (late, late + more))
    assert early <= later


def test_nothing_is_ever_rounded_up() -> None:
    assert penalised(Standing("A", 99.1234567), 100, Late(a_day=1e-12), 1).points == 99.1234567


def test_points_without_a_letter_are_lowered_as_well() -> None:
    assert penalised(Standing(None, 50.0), 100, PERCENT, 1).points == 40.0

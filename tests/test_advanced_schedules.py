"""The learning rate of a step, and when to stop: python -m pytest tests/test_advanced_schedules.py"""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from advanced.schedules import Cosine, EarlyStopping, Linear
from advanced.training import Check
from errors import UsageError
from tests.tiny_advanced import tiny_training

# Of ten steps, four of warm-up.
COSINE = [0.25, 0.5, 0.75, 1.0, 1.0, 0.9045085, 0.6545085, 0.3454915, 0.0954915, 0.0]
LINEAR = [0.25, 0.5, 0.75, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]


def history(*accuracies: float) -> list[Check]:
    return [Check(float(i), 1.0, value) for i, value in enumerate(accuracies, start=1)]


def test_cosine_warms_up_and_falls_by_half_a_cosine() -> None:
    assert [Cosine(0.4).rate(step, 10) for step in range(10)] == pytest.approx(COSINE, abs=1e-6)


def test_cosine_ends_at_the_lowest_rate() -> None:
    assert Cosine(0.1, lowest=0.2).rate(9, 10) == pytest.approx(0.2)


def test_linear_warms_up_and_falls_along_a_line() -> None:
    assert [Linear(0.4).rate(step, 10) for step in range(10)] == pytest.approx(LINEAR)


@pytest.mark.slow
def test_linear_is_that_of_transformers_without_its_first_step_of_rate_0() -> None:
    pytest.importorskip("transformers")
    from transformers.optimization import get_linear_schedule_with_warmup

    schedule = get_linear_schedule_with_warmup(torch.optim.SGD([torch.zeros(1)], lr=1.0), 4, 10)
    (theirs,) = schedule.lr_lambdas
    ours = [Linear(0.4).rate(step, 10) for step in range(10)]
    assert ours[:4] == [theirs(step + 1) for step in range(4)]
    assert ours[4:] == pytest.approx([theirs(step) for step in range(4, 10)])


@given(st.integers(1, 60), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_rates_stay_between_0_and_1_and_fall_after_the_warm_up(steps: int, warm_up: float, lowest: float) -> None:
    for method in (Cosine(warm_up, lowest), Linear(warm_up)):
        rates = [method.rate(step, steps) for step in range(steps)]
        assert all(0.0 <= rate <= 1.0 for rate in rates)
        fall = rates[round(warm_up * steps) :]
        assert fall == sorted(fall, reverse=True)


def test_without_warm_up_the_first_step_is_the_largest() -> None:
    assert Linear(0.0).rate(0, 10) == Cosine(0.0).rate(0, 10) == 1.0


@pytest.mark.parametrize(
    ("accuracies", "finished"),
    [
        ((0.5,), False),
        ((0.5, 0.4), False),
        ((0.5, 0.4, 0.3), True),
        ((0.5, 0.4, 0.6), False),
        ((0.5, 0.5, 0.5), True),  # equal is no improvement
        ((0.3, 0.5, 0.4, 0.45), True),
        ((0.3, 0.5, 0.4, 0.51, 0.2), False),
    ],
)
def test_patience_of_two_checks(accuracies: tuple[float, ...], finished: bool) -> None:
    assert EarlyStopping(2).is_finished(history(*accuracies)) == finished


def test_a_training_stops_early(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, EarlyStopping(1), epochs=50, lr=0.0)
    training.run()
    assert len(training.history) == 2


def test_options_outside_their_range_are_refused() -> None:
    for value in (-0.1, 1.1):
        with pytest.raises(UsageError, match=r"cosine: warm_up must be in \[0, 1\], got"):
            Cosine(warm_up=value)
        with pytest.raises(UsageError, match=r"cosine: lowest must be in \[0, 1\], got"):
            Cosine(lowest=value)
        with pytest.raises(UsageError, match=r"linear: warm_up must be in \[0, 1\], got"):
            Linear(value)
    with pytest.raises(UsageError, match="early-stopping: patience must be at least 1, got 0"):
        EarlyStopping(0)

"""The learning rate: python -m pytest tests/test_pretrain_schedule.py"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pretrain.schedule import learning_rate

# Four steps of warm-up, then (1 + cos(π k / 4)) / 2 for k = 0 .. 4, between 1.0 and 0.2.
TABLE = [0.25, 0.5, 0.75, 1.0, 1.0, 0.882843, 0.6, 0.317157, 0.2]


@pytest.mark.parametrize(("step", "expected"), list(enumerate(TABLE)))
def test_it_warms_up_in_a_line_and_decays_by_half_a_cosine(step: int, expected: float) -> None:
    rate = learning_rate(step, steps=9, warmup_steps=4, highest=1.0, lowest=0.2)
    assert rate == pytest.approx(expected, abs=1e-6)


@given(st.integers(1, 200), st.integers(0, 250), st.floats(0.0, 1.0))
def test_it_never_leaves_its_bounds_and_falls_after_the_warm_up(steps: int, warmup: int, lowest: float) -> None:
    rates = [learning_rate(i, steps=steps, warmup_steps=warmup, highest=1.0, lowest=lowest) for i in range(steps)]
    assert all(0.0 <= rate <= 1.0 for rate in rates)
    assert all(before >= after for before, after in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    if steps > warmup:
        assert rates[-1] == pytest.approx(lowest)


def test_the_first_step_is_not_wasted() -> None:
    assert learning_rate(0, steps=10, warmup_steps=5, highest=1.0, lowest=0.0) == pytest.approx(0.2)

"""inference/sampling.py: run with `pytest tests/test_sampling.py`."""

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from inference import sampling as module
from inference.sampling import GREEDY, Sampling, draw, probabilities

Filter = Callable[[torch.Tensor], torch.Tensor]

# A distribution over eight tokens that sums to one, unsorted, and what each filter must keep of it.
TABLE = [0.05, 0.30, 0.02, 0.25, 0.10, 0.20, 0.03, 0.05]
LOGITS = torch.tensor(TABLE).log()


def kept(logits: torch.Tensor) -> list[int]:
    """Return the ids whose logits are still there."""
    return logits.isfinite().nonzero().flatten().tolist()


# ---------------------------------------------------------------------------------------------------- literal tables


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.0, [0.2, 0.8]), (0.5, [0.04 / 0.68, 0.64 / 0.68]), (2.0, [1 / 3, 2 / 3]), (1e6, [0.5, 0.5])],
)
def test_temperature_raises_each_probability_to_its_inverse(value: float, expected: list[float]) -> None:
    logits = module.temperature(torch.tensor([0.2, 0.8]).log(), value)
    torch.testing.assert_close(F.softmax(logits, -1), torch.tensor(expected), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("k", "expected"), [(1, [1]), (2, [1, 3]), (4, [1, 3, 4, 5]), (5, [0, 1, 3, 4, 5]), (99, [*range(8)])]
)
def test_top_k_keeps_the_most_likely_and_of_ties_the_smaller_ids(k: int, expected: list[int]) -> None:
    assert kept(module.top_k(LOGITS, k)) == expected


@pytest.mark.parametrize(
    ("p", "expected"),
    # from the top: 1 has .30, with 3 it is .55, with 5 .75, with 4 .85, with 0 and 7 .95, with 6 .98, with 2 1.0
    [(0.01, [1]), (0.29, [1]), (0.31, [1, 3]), (0.7, [1, 3, 5]), (0.8, [1, 3, 4, 5]), (0.87, [0, 1, 3, 4, 5])],
)
def test_top_p_keeps_the_smallest_nucleus(p: float, expected: list[int]) -> None:
    assert kept(module.top_p(LOGITS, p)) == expected


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.0, [*range(8)]), (0.15, [0, 1, 3, 4, 5, 7]), (0.3, [1, 3, 4, 5]), (0.5, [1, 3, 5]), (0.9, [1]), (1.0, [1])],
)
def test_min_p_keeps_a_share_of_the_largest_probability(share: float, expected: list[int]) -> None:
    assert kept(module.min_p(LOGITS, share)) == expected


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.0, [*range(8)]), (0.04, [0, 1, 3, 4, 5, 7]), (0.15, [1, 3, 5]), (0.28, [1]), (0.5, [1])],
)
def test_epsilon_keeps_what_is_probable_enough_or_the_most_likely(threshold: float, expected: list[int]) -> None:
    assert kept(module.epsilon(LOGITS, threshold)) == expected


@pytest.mark.parametrize(
    ("mass", "expected"),
    # The entropy is 1.748 nats. |surprise - entropy|: token 5 (1.609) 0.138, token 3 (1.386) 0.361, token 1 (1.204)
    # 0.544, token 4 (2.303) 0.555, tokens 0 and 7 (2.996) 1.248, token 6 (3.507) 1.759, token 2 (3.912) 2.164.
    [(0.1, [5]), (0.21, [3, 5]), (0.5, [1, 3, 5]), (0.8, [1, 3, 4, 5]), (0.87, [0, 1, 3, 4, 5]), (1.0, [*range(8)])],
)
def test_typical_keeps_the_tokens_of_expected_surprise(mass: float, expected: list[int]) -> None:
    assert kept(module.typical(LOGITS, mass)) == expected


@pytest.mark.parametrize("name", ["top_p", "typical"])
def test_a_mass_that_is_reached_exactly_is_enough_and_of_ties_the_smaller_ids_stay(name: str) -> None:
    logits = torch.zeros(64)  # each token has 1/64, and the sums of those are exact
    assert kept(getattr(module, name)(logits, 0.5)) == [*range(32)]


def test_typical_may_drop_the_most_likely_token() -> None:
    logits = torch.tensor([0.4] + [0.6 / 60] * 60).log()  # surprises of 0.92 and 4.61 nats, an entropy of 3.13
    assert 0 not in kept(module.typical(logits, 0.5))


def test_each_filter_sees_what_the_one_before_left() -> None:
    # Of all, .75 is reached by three tokens; of the four that top_k leaves (.85 in all), the first two are .647.
    assert kept(probabilities(LOGITS, Sampling(top_k=4, top_p=0.64)).log()) == [1, 3]
    assert kept(probabilities(LOGITS, Sampling(top_p=0.64)).log()) == [1, 3, 5]
    # At temperature 0.5 the probabilities are squared: token 1 alone is 0.09 of 0.2108.
    assert kept(probabilities(LOGITS, Sampling(temperature=0.5, top_p=0.42)).log()) == [1]


def test_the_filters_are_applied_in_the_documented_order(monkeypatch: pytest.MonkeyPatch) -> None:
    called = []

    def spy(name: str) -> Callable[[torch.Tensor, float], torch.Tensor]:
        return lambda logits, value: called.append((name, value)) or logits  # type: ignore[func-returns-value]

    order = {"temperature": 0.7, "top_k": 5, "top_p": 0.9, "min_p": 0.1, "typical": 0.8, "epsilon": 0.01}
    for name in order:
        monkeypatch.setattr(module, name, spy(name))
    probabilities(LOGITS, Sampling(**order))  # type: ignore[arg-type]
    assert called == list(order.items())
    assert ", ".join(order) in str(module.__doc__)


# ---------------------------------------------------------------------------------------------------- properties

VOCABULARY = 12
rows = st.lists(
    st.lists(st.floats(-30, 30, width=32), min_size=VOCABULARY, max_size=VOCABULARY), min_size=1, max_size=3
)
masses = st.floats(0, 1, exclude_min=True)
samplings = st.builds(
    Sampling,
    temperature=st.just(0.0) | st.floats(1e-6, 100),
    top_k=st.none() | st.integers(1, 2 * VOCABULARY),
    top_p=st.none() | masses,
    min_p=st.none() | st.floats(0, 1),
    epsilon=st.none() | st.floats(0, 1, exclude_max=True),
    typical=st.none() | masses,
)


@given(rows, samplings)
def test_probabilities_sum_to_one_and_never_empty(logits: list[list[float]], sampling: Sampling) -> None:
    result = probabilities(torch.tensor(logits), sampling)
    assert result.shape == (len(logits), VOCABULARY)
    assert (result >= 0).all()
    torch.testing.assert_close(result.sum(-1), torch.ones(len(logits)))
    if sampling.top_k is not None:
        assert ((result > 0).sum(-1) <= sampling.top_k).all()


@given(rows, samplings)
def test_a_row_is_filtered_as_if_it_were_alone(logits: list[list[float]], sampling: Sampling) -> None:
    together = probabilities(torch.tensor(logits), sampling)
    alone = torch.stack([probabilities(torch.tensor(row), sampling) for row in logits])
    torch.testing.assert_close(together, alone)


@given(rows, samplings)
def test_only_a_token_that_was_kept_is_drawn(logits: list[list[float]], sampling: Sampling) -> None:
    ids = draw(torch.tensor(logits), sampling, torch.Generator().manual_seed(0))
    assert ids.shape == (len(logits),)
    chosen = probabilities(torch.tensor(logits), sampling).gather(-1, ids[:, None])
    assert (chosen > 0).all()


@given(rows, samplings)
def test_top_k_of_one_equals_greedy(logits: list[list[float]], sampling: Sampling) -> None:
    one = Sampling(sampling.temperature, 1, sampling.top_p, sampling.min_p, sampling.epsilon, sampling.typical)
    tensor = torch.tensor(logits)
    scaled = module.temperature(tensor, one.temperature or 1.0)  # a high temperature can make logits tie
    assert torch.equal(draw(scaled, one), draw(scaled, GREEDY))
    assert torch.equal(draw(tensor, GREEDY), tensor.argmax(dim=-1))


OFF: dict[str, Filter] = {
    "temperature 1": lambda logits: module.temperature(logits, 1.0),
    "top_k of all": lambda logits: module.top_k(logits, VOCABULARY),
    "top_p 1": lambda logits: module.top_p(logits, 1.0),
    "min_p 0": lambda logits: module.min_p(logits, 0.0),
    "epsilon 0": lambda logits: module.epsilon(logits, 0.0),
    "typical 1": lambda logits: module.typical(logits, 1.0),
}


@pytest.mark.parametrize("name", OFF)
@given(rows)
def test_a_filter_that_is_open_changes_nothing(name: str, logits: list[list[float]]) -> None:
    tensor = torch.tensor(logits)
    filtered = OFF[name](tensor)
    if name == "temperature 1":
        torch.testing.assert_close(F.softmax(filtered, -1), F.softmax(tensor, -1))
    else:
        assert torch.equal(filtered, tensor)


@pytest.mark.parametrize("name", ["top_k", "top_p", "min_p", "epsilon", "typical"])
@given(rows, masses)
def test_a_stricter_value_keeps_no_other_token(name: str, logits: list[list[float]], value: float) -> None:
    tensor = torch.tensor(logits)
    cut: Callable[[torch.Tensor, Any], torch.Tensor] = getattr(module, name)
    narrow, wide = (3, 7) if name == "top_k" else (value / 2, value)
    if name in ("min_p", "epsilon"):
        narrow, wide = wide, narrow  # a higher threshold keeps less
    assert not (cut(tensor, narrow).isfinite() & ~cut(tensor, wide).isfinite()).any()


def test_hardly_any_temperature_and_enormous_logits_stay_finite() -> None:
    logits = torch.tensor([3e38, -3e38, 0.0])
    assert probabilities(logits, Sampling(temperature=1e-6)).tolist() == [1.0, 0.0, 0.0]
    assert probabilities(logits.bfloat16(), Sampling(temperature=1e-6)).dtype == torch.float32


# ---------------------------------------------------------------------------------------------------- oracles


def their_warper(name: str, value: float) -> Any:
    """Return transformers' filter of the same kind."""
    from transformers.generation import logits_process as theirs

    classes = {
        "temperature": theirs.TemperatureLogitsWarper,
        "top_k": theirs.TopKLogitsWarper,
        "top_p": theirs.TopPLogitsWarper,
        "min_p": theirs.MinPLogitsWarper,
        "epsilon": theirs.EpsilonLogitsWarper,
        "typical": theirs.TypicalLogitsWarper,
    }
    return classes[name](value)


def random_logits(bs: int = 16, vocab_size: int = 300, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(bs, vocab_size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [0.3, 0.8, 1.7]),
        ("top_k", [1, 7, 299]),
        ("top_p", [0.1, 0.8, 0.95]),
        ("min_p", [0.01, 0.1, 0.9]),
        ("epsilon", [1e-4, 0.01, 0.2]),
        ("typical", [0.1, 0.6, 0.95]),
    ],
)
def test_each_filter_equals_that_of_transformers(name: str, values: list[float]) -> None:
    pytest.importorskip("transformers", reason="skipped: needs transformers")
    logits = random_logits()
    for value in values:
        ours: torch.Tensor = getattr(module, name)(logits, value)
        theirs: torch.Tensor = their_warper(name, value)(None, logits)
        assert torch.equal(ours.isfinite(), theirs.isfinite())
        torch.testing.assert_close(F.softmax(ours, -1), F.softmax(theirs, -1))


def test_all_filters_in_a_row_equal_those_of_transformers() -> None:
    pytest.importorskip("transformers", reason="skipped: needs transformers")
    values = {"temperature": 0.9, "top_k": 60, "top_p": 0.97, "min_p": 0.02, "typical": 0.9, "epsilon": 0.02}
    theirs = random_logits()
    for name, value in values.items():  # the order of transformers' own generation
        theirs = their_warper(name, value)(None, theirs)
    ours = probabilities(random_logits(), Sampling(**values))  # type: ignore[arg-type]
    torch.testing.assert_close(ours, F.softmax(theirs, -1))


# ---------------------------------------------------------------------------------------------------- the draw


def test_tokens_are_drawn_as_often_as_their_probabilities_say() -> None:
    count = 20_000
    ids = draw(LOGITS.expand(count, -1), Sampling(), torch.Generator().manual_seed(0)).tolist()
    for token, probability in enumerate(TABLE):
        deviation = math.sqrt(count * probability * (1 - probability))
        assert abs(Counter(ids)[token] - count * probability) < 5 * deviation  # one in a million falls outside


def test_the_same_seed_draws_the_same_and_another_seed_something_else() -> None:
    def drawn(seed: int) -> list[int]:
        ids: list[int] = draw(random_logits(), Sampling(), torch.Generator().manual_seed(seed)).tolist()
        return ids

    assert drawn(1) == drawn(1) != drawn(2)


def test_with_a_generator_a_row_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = random_logits()
    together = draw(logits, Sampling(), [torch.Generator().manual_seed(seed) for seed in range(16)])
    alone = [draw(logits[[i]], Sampling(), [torch.Generator().manual_seed(i)]).item() for i in range(16)]
    assert together.tolist() == alone


def test_any_leading_shape_is_drawn_from() -> None:
    assert draw(LOGITS, Sampling()).shape == ()
    assert draw(LOGITS.expand(2, 3, -1), Sampling()).shape == (2, 3)
    assert draw(LOGITS.expand(2, 3, -1), GREEDY).tolist() == [[1, 1, 1]] * 2


# ---------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("temperature", [-0.1, 1e-7, math.nan, math.inf, True, "1"]),
        ("top_k", [0, -1, 1.5, True]),
        ("top_p", [0, -0.1, 1.1, math.nan, True]),
        ("min_p", [-0.1, 1.1, math.nan, "0.1"]),
        ("epsilon", [-0.1, 1, math.nan]),
        ("typical", [0, 1.1, math.nan]),
    ],
)
def test_a_value_outside_its_range_is_refused_by_name(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{name} must be .*, got {value!r}$"):
            Sampling(**{name: value})


def test_logits_that_are_no_numbers_are_refused() -> None:
    for sampling in (GREEDY, Sampling(), Sampling(top_p=0.5)):
        with pytest.raises(ValueError, match="no token can be drawn"):
            draw(torch.tensor([0.0, math.nan]), sampling)
    with pytest.raises(ValueError, match="no token can be drawn"):
        draw(torch.full((3,), -math.inf), Sampling())


def test_too_few_generators_are_refused() -> None:
    with pytest.raises(ValueError, match=r"1 generators, but logits of shape \(2, 8\): one for each row"):
        draw(LOGITS.expand(2, -1), Sampling(), [torch.Generator()])

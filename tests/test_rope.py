"""rope.py: run with `pytest tests/test_rope.py`."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rope import apply_rotary_emb, reshape_for_broadcast


def rotated_by_complex_numbers(x: torch.Tensor, theta: float = 10000.0) -> torch.Tensor:
    """Rotate as the paper's equation 12 does: a pair is a complex number, a turn is a product. In float64."""
    seqlen, head_dim = x.shape[1], x.shape[3]
    frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angles = torch.outer(torch.arange(seqlen, dtype=torch.float64), frequencies)
    turns = torch.polar(torch.ones_like(angles), angles)[:, None, :]  # (seqlen, 1, head_dim / 2)
    pairs = torch.view_as_complex(x.double().reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs * turns).flatten(-2)


def random_heads(seqlen: int, n_heads: int, head_dim: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(2, seqlen, n_heads, head_dim, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("theta", [10000.0, 500000.0, 100.0])
@pytest.mark.parametrize("seqlen", [1, 2, 3, 7, 31])
@pytest.mark.parametrize("head_dim", [2, 6, 8, 64])
def test_a_rotation_is_a_complex_product(seqlen: int, head_dim: int, theta: float) -> None:
    query, key = random_heads(seqlen, 4, head_dim), random_heads(seqlen, 2, head_dim, seed=1)
    ours = apply_rotary_emb(query, key, head_dim, max_seq_len=31, theta=theta)
    for rotated, x in zip(ours, (query, key), strict=True):
        assert rotated.shape == x.shape
        torch.testing.assert_close(rotated.double(), rotated_by_complex_numbers(x, theta), atol=1e-5, rtol=1e-5)


def test_far_positions_are_as_exact_as_near_ones() -> None:
    query = random_heads(1024, 1, 64)
    ours, _ = apply_rotary_emb(query, query, 64, max_seq_len=1024)
    # float32 holds an angle of 1000 rad to 6e-5
    torch.testing.assert_close(ours.double(), rotated_by_complex_numbers(query), atol=5e-4, rtol=0)


def test_a_worked_example_of_two_pairs() -> None:
    """At position 2 with theta 10000, pair 0 turns by 2 rad and pair 1 by 2 / 100 rad."""
    query = torch.tensor([1.0, 0.0, 0.0, 1.0]).expand(1, 3, 1, 4)
    rotated, _ = apply_rotary_emb(query, query, head_dim=4, max_seq_len=3)
    expected = torch.tensor([math.cos(2), math.sin(2), -math.sin(0.02), math.cos(0.02)])
    torch.testing.assert_close(rotated[0, 2, 0], expected)


def test_the_first_position_does_not_turn() -> None:
    query, key = random_heads(5, 4, 8), random_heads(5, 2, 8, seed=1)
    rotated_query, rotated_key = apply_rotary_emb(query, key, 8, max_seq_len=5)
    assert torch.equal(rotated_query[:, 0], query[:, 0])
    assert torch.equal(rotated_key[:, 0], key[:, 0])


def test_adjacent_pairs_turn_and_not_the_two_halves_of_a_head() -> None:
    query = torch.zeros(1, 2, 1, 8)
    query[..., 2] = 1.0  # the first of pair 1
    rotated, _ = apply_rotary_emb(query, query, 8, max_seq_len=2)
    assert rotated[0, 1, 0].nonzero().flatten().tolist() == [2, 3]


@given(
    head_dim=st.sampled_from([2, 4, 8, 16]),
    seqlen=st.integers(2, 20),
    theta=st.sampled_from([10.0, 10000.0, 500000.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_score_depends_on_the_distance_of_two_tokens_only(
    head_dim: int, seqlen: int, theta: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key = (torch.randn(head_dim, generator=generator).expand(1, seqlen, 1, head_dim) for _ in range(2))
    query, key = apply_rotary_emb(query, key, head_dim, max_seq_len=seqlen, theta=theta)
    scores = query[0, :, 0] @ key[0, :, 0].T
    torch.testing.assert_close(scores[1:, 1:], scores[:-1, :-1], atol=1e-4, rtol=1e-4)


@given(seqlen=st.integers(1, 33), seed=st.integers(0, 2**32 - 1))
def test_a_rotation_keeps_the_length_of_every_vector(seqlen: int, seed: int) -> None:
    query = random_heads(seqlen, 3, 8, seed)
    rotated, _ = apply_rotary_emb(query, query, 8, max_seq_len=33)
    torch.testing.assert_close(rotated.norm(dim=-1), query.norm(dim=-1))


def test_a_position_turns_alike_in_short_and_long_sequences() -> None:
    query = random_heads(16, 2, 8)
    long, _ = apply_rotary_emb(query, query, 8, max_seq_len=16)
    short, _ = apply_rotary_emb(query[:, :5], query[:, :5], 8, max_seq_len=64)
    assert torch.equal(short, long[:, :5])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_goes_out_as_it_came_in(dtype: torch.dtype) -> None:
    query, key = random_heads(5, 4, 8).to(dtype), random_heads(5, 2, 8).to(dtype)
    rotated_query, rotated_key = apply_rotary_emb(query, key, 8, max_seq_len=5)
    assert rotated_query.dtype == rotated_key.dtype == dtype
    torch.testing.assert_close(rotated_key.double(), rotated_by_complex_numbers(key), atol=1e-2, rtol=1e-2)


def test_the_inputs_stay_as_they_were() -> None:
    query, key = random_heads(5, 4, 8), random_heads(5, 2, 8)
    before = query.clone(), key.clone()
    apply_rotary_emb(query, key, 8, max_seq_len=5)
    assert torch.equal(query, before[0])
    assert torch.equal(key, before[1])


def test_queries_of_a_transposed_view_turn_as_copies_do() -> None:
    query = random_heads(5, 4, 8).transpose(1, 2).contiguous().transpose(1, 2)
    assert not query.is_contiguous()
    rotated, _ = apply_rotary_emb(query, query, 8, max_seq_len=5)
    assert torch.equal(rotated, apply_rotary_emb(query.contiguous(), query, 8, max_seq_len=5)[0])


def test_gradients_turn_back_to_queries_and_keys() -> None:
    query, key = random_heads(4, 2, 4).requires_grad_(), random_heads(4, 1, 4).requires_grad_()
    rotated_query, rotated_key = apply_rotary_emb(query, key, 4, max_seq_len=4)
    (rotated_query.square().sum() + rotated_key.square().sum()).backward()
    # the sum of squares does not see a rotation, so its gradient is 2x
    torch.testing.assert_close(query.grad, 2 * query.detach())
    torch.testing.assert_close(key.grad, 2 * key.detach())


def test_as_many_positions_as_the_model_has_are_fine_and_one_more_is_an_error() -> None:
    query = random_heads(9, 1, 4)
    apply_rotary_emb(query, query, 4, max_seq_len=9)
    with pytest.raises(ValueError, match="9 positions, but the model has max_seq_len = 8"):
        apply_rotary_emb(query, query, 4, max_seq_len=8)


def test_a_table_is_viewed_so_that_it_multiplies_every_row_and_head() -> None:
    table, x = torch.randn(5, 4), torch.randn(2, 5, 3, 4)
    viewed = reshape_for_broadcast(table, x)
    assert viewed.shape == (1, 5, 1, 4)
    assert torch.equal((viewed * x)[1, :, 2], table * x[1, :, 2])


@pytest.mark.parametrize("shape", [(4, 4), (5, 8), (4, 5), (5,)])
def test_a_table_of_another_shape_is_an_error_with_both_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"freqs_cis has shape .* \(2, 5, 3, 4\) needs \(5, 4\)"):
        reshape_for_broadcast(torch.zeros(shape), torch.zeros(2, 5, 3, 4))

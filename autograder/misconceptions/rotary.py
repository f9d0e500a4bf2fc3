"""Wrong variants of `apply_rotary_emb`."""

from collections.abc import Callable

import torch
from torch import Tensor

from autograder.misconceptions.base import Catalogue

# llama.py imported the function by name, so it is replaced there as well
ROPE = Catalogue("rope", "rope.apply_rotary_emb", "llama.apply_rotary_emb")

# Turns (bs, seqlen, n_heads, head_dim) for a theta.
Turn = Callable[[Tensor, float], Tensor]
Rotation = Callable[..., tuple[Tensor, Tensor]]


def _both(turn_query: Turn, turn_key: Turn | None = None) -> Rotation:
    """Make a whole `apply_rotary_emb` of what turns one tensor."""

    def apply_rotary_emb(
        query: Tensor, key: Tensor, head_dim: int, max_seq_len: int, theta: float = 10000.0
    ) -> tuple[Tensor, Tensor]:
        return turn_query(query, theta), (turn_key or turn_query)(key, theta)

    return apply_rotary_emb


def _frequencies(x: Tensor, theta: float) -> Tensor:
    """Return the angle a position of each pair. Shape: (head_dim / 2,)."""
    head_dim = x.shape[-1]
    return theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)


def _angles(x: Tensor, frequencies: Tensor, first: int = 0) -> Tensor:
    """Return the angle of each position, counted from `first`, and pair. Shape: (seqlen, 1, head_dim / 2)."""
    positions = torch.arange(first, first + x.shape[1], dtype=torch.float32)
    return torch.outer(positions, frequencies).unsqueeze(1)


def _pairs(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the elements with an even and those with an odd index."""
    return x[..., 0::2], x[..., 1::2]


def _turned(x: Tensor, angles: Tensor) -> Tensor:
    """Turn adjacent pairs by the angles, which is right."""
    a, b = _pairs(x)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def _right(x: Tensor, theta: float) -> Tensor:
    """Turn as it should be."""
    return _turned(x, _angles(x, _frequencies(x, theta)))


@ROPE.add("RoPE that rotates halves instead of adjacent pairs", _both)
def _halves(x: Tensor, theta: float) -> Tensor:
    a, b = x.chunk(2, dim=-1)
    angles = _angles(x, _frequencies(x, theta))
    return torch.cat((a * angles.cos() - b * angles.sin(), a * angles.sin() + b * angles.cos()), dim=-1)


@ROPE.add("RoPE that puts the turned pairs back as two halves instead of side by side", _both)
def _put_back_as_halves(x: Tensor, theta: float) -> Tensor:
    return torch.cat(_pairs(_right(x, theta)), dim=-1)


@ROPE.add("RoPE whose turned pairs stay in a dimension of their own, which is still to be flattened", _both)
def _pairs_apart(x: Tensor, theta: float) -> Tensor:
    return _right(x, theta).reshape(*x.shape[:-1], -1, 2)


@ROPE.add(
    "RoPE whose turned pairs stay in a dimension of their own in the queries; the keys are right",
    lambda turn: _both(turn, _right),
)
def _query_pairs_apart(x: Tensor, theta: float) -> Tensor:
    return _pairs_apart(x, theta)


@ROPE.add("RoPE that turns in the opposite direction", _both)
def _opposite(x: Tensor, theta: float) -> Tensor:
    return _turned(x, -_angles(x, _frequencies(x, theta)))


@ROPE.add("RoPE that adds b sin φ in the first element instead of subtracting it", _both)
def _plus_sine(x: Tensor, theta: float) -> Tensor:
    (a, b), angles = _pairs(x), _angles(x, _frequencies(x, theta))
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((a * cos + b * sin, a * sin + b * cos), dim=-1).flatten(-2)


@ROPE.add("RoPE that subtracts b cos φ in the second element instead of adding it", _both)
def _minus_cosine(x: Tensor, theta: float) -> Tensor:
    (a, b), angles = _pairs(x), _angles(x, _frequencies(x, theta))
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((a * cos - b * sin, a * sin - b * cos), dim=-1).flatten(-2)


@ROPE.add(
    "RoPE that adds b sin φ in the first element of the queries instead of subtracting it; the keys are right",
    lambda turn: _both(turn, _right),
)
def _query_plus_sine(x: Tensor, theta: float) -> Tensor:
    return _plus_sine(x, theta)


@ROPE.add(
    "RoPE that adds b sin φ in the first element of the keys instead of subtracting it; the queries are right",
    lambda turn: _both(_right, turn),
)
def _key_plus_sine(x: Tensor, theta: float) -> Tensor:
    return _plus_sine(x, theta)


@ROPE.add(
    "RoPE that subtracts b cos φ in the second element of the queries instead of adding it; the keys are right",
    lambda turn: _both(turn, _right),
)
def _query_minus_cosine(x: Tensor, theta: float) -> Tensor:
    return _minus_cosine(x, theta)


@ROPE.add(
    "RoPE that subtracts b cos φ in the second element of the keys instead of adding it; the queries are right",
    lambda turn: _both(_right, turn),
)
def _key_minus_cosine(x: Tensor, theta: float) -> Tensor:
    return _minus_cosine(x, theta)


@ROPE.add("RoPE with sine and cosine swapped", _both)
def _swapped_functions(x: Tensor, theta: float) -> Tensor:
    return _turned(x, torch.pi / 2 - _angles(x, _frequencies(x, theta)))


@ROPE.add("RoPE that turns the second element with the first one as already changed", _both)
def _overwritten(x: Tensor, theta: float) -> Tensor:
    (a, b), angles = _pairs(x), _angles(x, _frequencies(x, theta))
    cos, sin = angles.cos(), angles.sin()
    a = a * cos - b * sin
    return torch.stack((a, a * sin + b * cos), dim=-1).flatten(-2)


@ROPE.add("RoPE that turns the second element by the angle, and leaves the first as it is", _both)
def _second_only(x: Tensor, theta: float) -> Tensor:
    return torch.stack((_pairs(x)[0], _pairs(_right(x, theta))[1]), dim=-1).flatten(-2)


@ROPE.add("RoPE with positions counted from 1", _both)
def _from_one(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta), first=1))


@ROPE.add("RoPE with positions counted from the end", _both)
def _from_the_end(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta)).flip(0))


@ROPE.add("RoPE that turns by the index of the head instead of the position", _both)
def _by_head(x: Tensor, theta: float) -> Tensor:
    return _right(x.transpose(1, 2), theta).transpose(1, 2)


@ROPE.add("RoPE with the same angle for every pair", _both)
def _same_angle(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, torch.ones(x.shape[-1] // 2)))


@ROPE.add("RoPE with theta^(-i / head_dim) instead of theta^(-2i / head_dim)", _both)
def _half_exponent(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta).sqrt()))


@ROPE.add("RoPE with theta^(-4i / head_dim) instead of theta^(-2i / head_dim)", _both)
def _double_exponent(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta).square()))


@ROPE.add("RoPE whose pairs are counted from 1 instead of 0", _both)
def _pairs_from_one(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta) * theta ** (-2 / x.shape[-1])))


@ROPE.add("RoPE with a positive exponent: theta^(2i / head_dim)", _both)
def _positive_exponent(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, 1.0 / _frequencies(x, theta)))


@ROPE.add("RoPE with the slowest pair first", _both)
def _slowest_first(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, theta).flip(0)))


@ROPE.add("RoPE that ignores theta and always takes 10000", _both)
def _fixed_theta(x: Tensor, theta: float) -> Tensor:
    return _turned(x, _angles(x, _frequencies(x, 10000.0)))


@ROPE.add("RoPE that turns the queries and leaves the keys as they are", lambda same: _both(_right, same))
def _query_only(x: Tensor, theta: float) -> Tensor:
    return x


@ROPE.add("RoPE that turns the keys and leaves the queries as they are", lambda same: _both(same, _right))
def _key_only(x: Tensor, theta: float) -> Tensor:
    return x


@ROPE.add("RoPE that turns the keys in the opposite direction", lambda turn: _both(_right, turn))
def _opposite_keys(x: Tensor, theta: float) -> Tensor:
    return _turned(x, -_angles(x, _frequencies(x, theta)))


@ROPE.add("RoPE that changes nothing", _both)
def _nothing(x: Tensor, theta: float) -> Tensor:
    return x

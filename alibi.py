"""Attention with linear biases (ALiBi): the further back a token lies, the less it counts, by a fixed slope a head.

Press, Smith & Lewis 2022, "Train Short, Test Long" (arXiv 2108.12409), section 3. A model with these has no other
sense of position, so it reads texts longer than those it was trained on.
"""

import torch


def alibi_slopes(n_heads: int) -> torch.Tensor:
    """Return the slope of each head, of shape (n_heads,), in float32.

    For a power of two, the geometric sequence 2^(-8 i / n_heads), i = 1 .. n_heads. For another number, the slopes of
    the next lower power of two c, followed by the first, third, fifth ... of those of 2c heads, as many as are missing
    (the authors' reference code). Raises ValueError if `n_heads` is less than 1.
    """
    if n_heads < 1:
        raise ValueError(f"n_heads must be at least 1, got {n_heads}")
    lower = 1 << (n_heads.bit_length() - 1)  # the largest power of two that is not above n_heads
    slopes = _geometric(lower) + _geometric(2 * lower)[0::2][: n_heads - lower]
    return torch.tensor(slopes)


def alibi_bias(n_heads: int, seqlen: int, device: torch.device | str | None = None) -> torch.Tensor:
    """Return what is added to the scaled scores, of shape (n_heads, seqlen, seqlen), in float32.

    Entry [h, q, k] is slope_h · (k - q) for a key k that is not after the query q. Later keys lose by their distance
    as well; only a model without the causal mask sees those. Raises ValueError if `n_heads` is less than 1.
    """
    position = torch.arange(seqlen, dtype=torch.float32, device=device)
    distance = (position[:, None] - position[None, :]).abs()  # (seqlen, seqlen)
    return alibi_slopes(n_heads).to(device)[:, None, None] * -distance


def _geometric(n_heads: int) -> list[float]:
    """Return the slopes of a number of heads that is a power of two."""
    return [2.0 ** (-8.0 * i / n_heads) for i in range(1, n_heads + 1)]

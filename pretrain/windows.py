"""The next-token data set: windows over the token stream, drawn without replacement, in an order without memory."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from errors import DataError

Tokens = npt.NDArray[np.unsignedinteger]
MASK = 0xFFFFFFFF
ROUNDS = 4


class Windows:
    """Pairs (x[i : i + T], x[i + 1 : i + T + 1]) of a token stream x that lies in shards; i goes up by `stride`.

    A window never crosses from one shard into the next. Raises DataError if no shard holds a single window.
    """

    def __init__(self, shards: Sequence[Tokens], context: int, stride: int, *, name: str = "") -> None:
        """Index the windows; nothing is read yet. `context` is T, in tokens, and so is `stride`.

        `name` says in errors what the shards are, such as "runs/laptop/data: the validation split".
        """
        self.shards, self.context, self.stride = shards, context, stride
        counts = [max(0, (len(shard) - context - 1) // stride + 1) for shard in shards]
        self.first = np.cumsum([0, *counts])  # the number of the first window of each shard
        if len(self) == 0:
            longest = max((len(shard) for shard in shards), default=0)
            raise DataError(
                f"{name}{': ' if name else ''}a context of {context} tokens needs {context + 1} in a row, and the "
                f"longest shard has {longest}: take a shorter context (model.max_seq_len), or prepare more text, or "
                "another share of it for this split (--validation of prepare)"
            )

    def __len__(self) -> int:
        """Return the number of windows."""
        return int(self.first[-1])

    def batch(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and the targets of these windows, each (len(numbers), context), int64."""
        rows = torch.from_numpy(np.stack([self._window(number) for number in numbers]))  # (bs, context + 1)
        return rows[:, :-1], rows[:, 1:]

    def _window(self, number: int) -> npt.NDArray[np.int64]:
        """Return the `context + 1` tokens of a window."""
        shard = int(np.searchsorted(self.first, number, side="right")) - 1
        start = (number - int(self.first[shard])) * self.stride
        return self.shards[shard][start : start + self.context + 1].astype(np.int64)


def draw(position: int, count: int, seed: int) -> int:
    """Return which of `count` windows stands at `position` of an endless stream of shuffled epochs.

    Each epoch holds every window once, in an order of its own. Any position is computed from nothing but these three
    numbers: that is what makes a run resumable, and the same on one process or many.
    """
    epoch, index = divmod(position, count)
    return _permute(index, count, _mix(seed, epoch))


def _permute(index: int, count: int, key: int) -> int:
    """Return where a fixed shuffle of range(count) sends `index`: a Feistel cipher, repeated until it lands inside.

    Black & Rogaway 2002, "Ciphers with arbitrary finite domains", section 4 (cycle walking).
    """
    half_bits = max(1, ((count - 1).bit_length() + 1) // 2)
    mask = (1 << half_bits) - 1
    while True:
        left, right = index >> half_bits, index & mask
        for round_number in range(ROUNDS):
            left, right = right, left ^ (_mix(key + round_number, right) & mask)
        index = left << half_bits | right
        if index < count:
            return index


def _mix(key: int, value: int) -> int:
    """Hash two numbers to 32 bits (the finaliser of MurmurHash3, public domain)."""
    bits = (key * 0x9E3779B1 + value * 0x85EBCA77 + (value >> 32) * 0xC2B2AE3D) & MASK
    bits = (bits ^ bits >> 16) * 0x85EBCA6B & MASK
    bits = (bits ^ bits >> 13) * 0xC2B2AE35 & MASK
    return bits ^ bits >> 16

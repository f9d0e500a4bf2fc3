"""Reading texts token by token, with the keys and values of what was read kept: the KV cache.

Each step costs one token, however long the text is, where `Llama.generate` reads all of it again. Texts of different
lengths are aligned at their ends, so that a step writes to the same place of the cache in every row:

    . . Once upon a          a dot is padding, which no token sees
    Lily had a red ball      the next tokens all go here ->
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from inference.matrix import Quantization
from inference.packed import PackedLlama, attend_all, distance_bias
from llama import Llama


class Engine:
    """Predicts the next tokens of texts that grow: `prefill` reads their beginnings, `decode` a token more of each."""

    def __init__(self, llama: Llama, quantize: Quantization | None = None) -> None:
        """Arrange the weights of `llama`. Raises UsageError as `PackedLlama` does."""
        self.model = PackedLlama(llama, quantize)
        self.config = self.model.config
        self.used = 0  # tokens in the cache, padding included
        # Keys and values of each layer: (n_layers, bs, 2, n_kv_heads, capacity, head_dim)
        self._cache = self.model.embedding.new_empty(len(self.model.layers), 0, 2, self.model.n_kv_heads, 0, 1)
        self._starts = torch.zeros(0, dtype=torch.int64)  # (bs,): how much padding stands before each row
        self._padded = False

    @property
    def capacity(self) -> int:
        """How many tokens the cache has room for."""
        return self._cache.shape[4]

    def prefill(self, rows: Sequence[Sequence[int]], room: int | None = None) -> torch.Tensor:
        """Forget everything, read `rows`, and return the logits behind the end of each: (bs, vocab_size).

        The cache then has room for `room` more tokens, at most for as many as the model reads (None).
        Raises ValueError if there are no rows, one is empty or longer than the model's `max_seq_len`, or `room` is
        negative.
        """
        return self.model.logits(self.prefill_hidden(rows, room, only_last=True)[:, 0])

    @torch.inference_mode()
    def prefill_hidden(
        self, rows: Sequence[Sequence[int]], room: int | None = None, *, only_last: bool = False
    ) -> torch.Tensor:
        """Do what `prefill` does, and return the hidden states after the last norm: (bs, longest row or 1, dim).

        The rows end at the last of them; what stands at the padding before a shorter row means nothing. With
        `only_last` that of each row's last token is all that is computed. `self.model.logits` makes logits of them.
        """
        longest, limit = max(map(len, rows), default=0), self.config.max_seq_len
        if not rows or not all(rows) or longest > limit:
            raise ValueError(f"rows of {sorted(map(len, rows))} tokens: there must be some, each of 1 to {limit}")
        if room is not None and room < 0:
            raise ValueError(f"room for {room} more tokens: it must be 0 or more")
        self._allocate(len(rows), limit if room is None else min(longest + room, limit))
        device = self.model.device
        self._starts = torch.tensor([longest - len(row) for row in rows], device=device)
        self._padded = any(len(row) < longest for row in rows)
        tokens = torch.tensor([[*[0] * (longest - len(row)), *row] for row in rows], device=device)  # (bs, longest)
        positions = (torch.arange(longest, device=device) - self._starts[:, None]).clamp(
            min=0
        )  # padding's count for nothing
        self.used = longest
        mask = self._prefill_mask(positions, longest)

        kept = self._cache[..., :longest, :].flatten(2, 3).unbind()  # each (bs, 2 n_kv_heads, longest, head_dim)

        def attend(layer: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            kept[layer].copy_(key_value.transpose(1, 2))
            return attend_all(query, key_value, mask)

        return self.model.run(tokens, positions, attend, only_last=only_last)

    def decode(self, ids: torch.Tensor) -> torch.Tensor:
        """Read one more token of each row, and return the logits behind it. Shapes: (bs,) -> (bs, vocab_size).

        Raises ValueError if the cache is full.
        """
        return self.model.logits(self.decode_hidden(ids))

    @torch.inference_mode()
    def decode_hidden(self, ids: torch.Tensor) -> torch.Tensor:
        """Do what `decode` does, and return the hidden states after the last norm. Shapes: (bs,) -> (bs, dim)."""
        slot = self.used
        if slot >= self.capacity:
            raise ValueError(f"the cache is full: it has room for {self.capacity} tokens")
        self.used += 1
        positions = slot - self._starts[:, None]  # (bs, 1)
        mask = self._decode_mask(positions)
        # Views of all layers at once, which is less work than of each in turn: its own place, and all that it sees.
        places = self._cache[..., slot, :].flatten(2, 3).unbind()  # each (bs, 2 n_kv_heads, head_dim)
        keys, values = (part.unbind() for part in self._cache[..., : self.used, :].unbind(2))

        def attend(layer: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            places[layer].copy_(key_value[:, 0])
            # The query heads that share a key head stand as so many positions of one head: no key is copied.
            grouped = query.view(len(ids), self.model.n_kv_heads, -1, self.model.head_dim)
            # (bs, n_kv_heads, n_rep, head_dim) on (bs, n_kv_heads, used, head_dim)
            return F.scaled_dot_product_attention(grouped, keys[layer], values[layer], attn_mask=mask)

        return self.model.run(ids[:, None], positions, attend)[:, 0]

    @torch.inference_mode()
    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows alone, in this order; one may come again. Raises ValueError if there are none."""
        if not rows:
            raise ValueError("no rows to go on with")
        chosen = torch.tensor(rows, device=self.model.device)
        self._starts = self._starts[chosen]
        self._cache = self._cache[:, chosen]

    def _allocate(self, rows: int, capacity: int) -> None:
        """Make an empty cache, unless there is one of this size."""
        model = self.model
        shape = (len(model.layers), rows, 2, model.n_kv_heads, capacity, model.head_dim)
        if self._cache.shape != shape:
            self._cache = model.embedding.new_empty(shape)

    def _prefill_mask(self, positions: torch.Tensor, seqlen: int) -> torch.Tensor | None:
        """Return what each token sees, or None if that is all before it. Padding sees itself, so as to be a number."""
        if not self._padded and self.model.slopes is None:
            return None
        here = torch.arange(seqlen, device=self.model.device)
        is_text = here >= self._starts[:, None, None]  # (bs, 1, seqlen): of the keys
        mask = (here <= here[:, None]) & is_text | torch.eye(seqlen, dtype=torch.bool, device=self.model.device)
        mask = mask[:, None]  # (bs, 1, seqlen, seqlen)
        return mask if self.model.slopes is None else distance_bias(self.model.slopes, positions, positions, mask)

    def _decode_mask(self, positions: torch.Tensor) -> torch.Tensor | None:
        """Return what the newest tokens see of the cache, in the shape (bs, n_kv_heads or 1, n_rep or 1, used)."""
        here = torch.arange(self.used, device=self.model.device)
        mask = (here >= self._starts[:, None])[:, None, None] if self._padded else None  # (bs, 1, 1, used)
        if self.model.slopes is None:
            return mask
        keys = here - self._starts[:, None]
        bias = distance_bias(self.model.slopes, positions, keys, mask)  # (bs, n_heads, 1, used)
        return bias.view(len(bias), self.model.n_kv_heads, -1, self.used)

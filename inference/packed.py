"""A Llama's weights, arranged to be read: fewer and larger products, and nothing computed that nobody needs.

Query, key and value are one matrix, gate and up another, and the weights of the norms in front of them are multiplied
into both. What `llama.Llama` computes comes out, to rounding; the attention itself is the caller's.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F

from alibi import alibi_slopes
from errors import UsageError
from inference.fast_modules import cos_and_sin
from inference.matrix import Matrix, Quantization, make_matrix
from llama import Llama, LlamaLayer, RMSNorm

# (layer, queries, keys and values) -> mixed values. Shapes: (bs, seqlen, n_heads, head_dim), and the heads of the keys
# followed by those of the values (bs, seqlen, 2 n_kv_heads, head_dim) -> (bs, seqlen, n_heads, head_dim), or any shape
# with the same elements in this order.
Attend = Callable[[int, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class _Layer:
    """The matrices of a layer."""

    query_key_value: Matrix
    output: Matrix
    gate_up: Matrix
    down: Matrix


class PackedLlama:
    """A Llama that is only read: no gradients, no dropout.

    Matrices that need no fusing stay shared with its model: when that has changed, make another.
    """

    def __init__(self, llama: Llama, quantize: Quantization | None = None) -> None:
        """Arrange the weights of `llama`; `quantize` "int8" rounds every matrix but the embedding.

        Raises UsageError for a model without the causal mask: what was read of a text would change with its next token.
        """
        config = llama.config
        if not config.causal:
            raise UsageError("this model has no causal mask: what is kept of a text would change with its next token")
        self.config = replace(config)
        self.n_heads, self.n_kv_heads = config.n_heads, config.n_kv_heads or config.n_heads
        self.head_dim = config.dim // config.n_heads
        with torch.inference_mode():
            self.embedding = llama.tok_embeddings.weight.detach()
            self.device = self.embedding.device
            self.layers = [_pack_layer(cast(LlamaLayer, layer), quantize) for layer in llama.layers]
            self.norm_weight = llama.norm.weight.detach()
            self.output = make_matrix(llama.output.weight.detach(), quantize)
            self._eps = torch.tensor(config.layer_norm_eps, device=self.device)
            has_alibi = config.position_embedding_type == "alibi"
            self.slopes = alibi_slopes(self.n_heads).to(self.device) if has_alibi else None  # (n_heads,)
            self._rotations = None if has_alibi else self._rotation_table()

    @torch.inference_mode()
    def run(
        self, tokens: torch.Tensor, positions: torch.Tensor, attend: Attend, *, only_last: bool = False
    ) -> torch.Tensor:
        """Return the hidden states after the last norm. `positions` are those of the tokens in their texts.

        With `only_last`, that of the last token alone: the last layer then has no other to compute, and `attend` gets
        one query there. Shapes: tokens (bs, seqlen), positions (bs or 1, seqlen) -> (bs, seqlen or 1, dim).
        """
        bs, seqlen = tokens.shape
        h = F.embedding(tokens, self.embedding).view(bs * seqlen, -1)
        rotation = None if self._rotations is None else self._rotations[positions]  # (bs or 1, seqlen, 1, head_dim / 2)
        for number, layer in enumerate(self.layers):
            projected = layer.query_key_value(self._normed(h)).contiguous().view(bs, seqlen, -1, self.head_dim)
            if rotation is not None:
                self._rotate(projected[:, :, : self.n_heads + self.n_kv_heads], rotation)
            query, key_value = torch.split(projected, [self.n_heads, 2 * self.n_kv_heads], dim=2)
            if only_last and number == len(self.layers) - 1:
                h, query, seqlen = h.view(bs, seqlen, -1)[:, -1], query[:, -1:], 1
            mixed = attend(number, query, key_value)
            h += layer.output(mixed.reshape(bs * seqlen, -1))
            gate, up = layer.gate_up(self._normed(h)).chunk(2, dim=-1)
            h += layer.down(F.silu(gate).mul_(up))
        return self._normed(h).mul_(self.norm_weight).view(bs, seqlen, -1)

    @torch.inference_mode()
    def hidden(self, tokens: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the hidden states of texts read at once, each token seeing what `mask` lets it see (True).

        Shapes: tokens and positions (bs, seqlen), mask (bs or 1, 1, seqlen, seqlen) -> (bs, seqlen, dim). A token must
        see at least one, itself for example.
        """
        bias = mask if self.slopes is None else distance_bias(self.slopes, positions, positions, mask)

        def attend(_: int, query: torch.Tensor, key_value: torch.Tensor) -> torch.Tensor:
            return attend_all(query, key_value, bias)

        return self.run(tokens, positions, attend)

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token. Shapes: (..., dim) -> (..., vocab_size)."""
        return self.output(hidden.reshape(-1, hidden.shape[-1])).reshape(*hidden.shape[:-1], -1)

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        """Divide each row by its root mean square. Shapes: (rows, dim) -> (rows, dim)."""
        length = torch.linalg.vector_norm(x.float(), dim=-1, keepdim=True)  # (rows, 1)
        return (x * torch.addcmul(self._eps, length, length, value=1 / x.shape[-1]).rsqrt_()).type_as(x)

    def _rotation_table(self) -> torch.Tensor:
        """Return cos + i sin of each position's angles: (max_seq_len, 1, head_dim / 2), complex."""
        table = cos_and_sin(self.config.max_seq_len, self.head_dim, self.config.rope_theta)
        return torch.view_as_complex(table).to(self.device)

    @staticmethod
    def _rotate(heads: torch.Tensor, rotation: torch.Tensor) -> None:
        """Turn each pair of the queries and keys in place by its position's angle (RoPE; see rope.py).

        Shapes: heads (bs, seqlen, n_heads + n_kv_heads, head_dim), rotation (bs or 1, seqlen, 1, head_dim / 2).
        """
        pairs = heads.float().view(*heads.shape[:-1], -1, 2)  # float32 is not copied
        turned = torch.view_as_complex(pairs).mul_(rotation)  # (a + ib) · (cos + i sin)
        if heads.dtype != torch.float32:
            heads.copy_(torch.view_as_real(turned).flatten(-2))


def attend_all(query: torch.Tensor, key_value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attend among tokens that are read at once; without a `mask`, each sees itself and those before it.

    `mask` is True where a token may see another, or is added to the scores. Of the queries the last alone may be given.
    Shapes: query (bs, seqlen or 1, n_heads, head_dim), key_value (bs, seqlen, 2 n_kv_heads, head_dim), mask (bs or 1,
    n_heads or 1, seqlen, seqlen) -> as query.
    """
    query = query.transpose(1, 2)  # (bs, n_heads, seqlen, head_dim)
    key, value = key_value.transpose(1, 2).chunk(2, dim=1)  # (bs, n_kv_heads, seqlen, head_dim)
    is_grouped, is_causal = query.shape[1] != key.shape[1], mask is None and query.shape[2] > 1
    mask = None if mask is None else mask[..., -query.shape[2] :, :]
    mixed = F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=is_causal, enable_gqa=is_grouped
    )
    return mixed.transpose(1, 2)


def distance_bias(
    slopes: torch.Tensor, queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Return ALiBi's bias of tokens at the positions `queries` on those at `keys`, -inf where `mask` is False.

    Shapes: slopes (n_heads,), queries (bs, q), keys (bs, k), mask (bs or 1, 1, q, k) -> (bs, n_heads, q, k).
    """
    distance = (queries[:, None, :, None] - keys[:, None, None, :]).abs()  # (bs, 1, q, k)
    bias = slopes[:, None, None] * -distance
    return bias if mask is None else bias.masked_fill(~mask, float("-inf"))


def _pack_layer(layer: LlamaLayer, quantize: Quantization | None) -> _Layer:
    """Fuse the matrices of a layer that read the same vectors, and the norm's weight in front of them into both."""
    attention, feed_forward = layer.attention, layer.feed_forward
    projections = (attention.compute_query, attention.compute_key, attention.compute_value)
    return _Layer(
        query_key_value=make_matrix(_fused(layer.attention_norm, *projections), quantize),
        output=make_matrix(attention.compute_output.weight.detach(), quantize),
        gate_up=make_matrix(_fused(layer.ffn_norm, feed_forward.w1, feed_forward.w3), quantize),
        down=make_matrix(feed_forward.w2.weight.detach(), quantize),
    )


def _fused(norm: RMSNorm, *projections: torch.nn.Linear) -> torch.Tensor:
    """Return W · diag(norm) of all projections, one below the other: (sum of their outputs, dim)."""
    return torch.cat([projection.weight.detach() for projection in projections]) * norm.weight.detach()

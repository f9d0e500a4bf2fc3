"""Wrong variants of attention: its scores, and the repetition of heads in `Attention.forward`."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import llama
from autograder.misconceptions.base import Catalogue
from llama import Attention

ATTENTION = Catalogue("attention", "llama.Attention.compute_query_key_value_scores")


def _scores(self: Attention, query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Return the scaled scores with their bias. Shape: (bs, n_heads, seqlen, seqlen)."""
    scores = query @ key.transpose(-2, -1) / (math.sqrt(self.head_dim) if scale is None else scale)
    return scores if self.attention_bias is None else scores + self.attention_bias


def _future(self: Attention, scores: Tensor, diagonal: int = 1) -> Tensor:
    """Return where a score is to be masked: nowhere if the attention is not causal. Shape: (seqlen, seqlen)."""
    seqlen = scores.shape[-1]
    return torch.ones(seqlen, seqlen, dtype=torch.bool).triu(diagonal) & self.causal


def _masked(self: Attention, scores: Tensor) -> Tensor:
    """Hide the later positions, which is right."""
    return scores.masked_fill(_future(self, scores), float("-inf"))


def _mixed(self: Attention, scores: Tensor, value: Tensor) -> Tensor:
    """Turn masked scores into weights and mix, which is right."""
    out: Tensor = self.attn_dropout(F.softmax(scores, dim=-1)) @ value
    return out


@ATTENTION.add("attention without scaling")
def _no_scaling(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _masked(self, _scores(self, query, key, scale=1.0)), value)


@ATTENTION.add("attention scaled by head_dim instead of its root")
def _scaled_by_head_dim(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _masked(self, _scores(self, query, key, scale=self.head_dim)), value)


@ATTENTION.add("attention scaled by the root of dim instead of head_dim")
def _scaled_by_dim(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    dim = self.n_local_heads * self.head_dim
    return _mixed(self, _masked(self, _scores(self, query, key, scale=math.sqrt(dim))), value)


@ATTENTION.add("attention scaled by the root of seqlen instead of head_dim")
def _scaled_by_seqlen(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _masked(self, _scores(self, query, key, scale=math.sqrt(query.shape[-2]))), value)


@ATTENTION.add("attention scaled by the root of n_heads instead of head_dim")
def _scaled_by_heads(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _masked(self, _scores(self, query, key, scale=math.sqrt(self.n_local_heads))), value)


@ATTENTION.add("attention that multiplies by the root of head_dim instead of dividing")
def _multiplied(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _masked(self, _scores(self, query, key, scale=1 / math.sqrt(self.head_dim))), value)


@ATTENTION.add("attention scaled after the softmax instead of before")
def _scaled_after_softmax(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _masked(self, _scores(self, query, key, scale=1.0))
    return _mixed(self, scores, value) / math.sqrt(self.head_dim)


@ATTENTION.add("attention without a softmax")
def _no_softmax(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out: Tensor = self.attn_dropout(_masked(self, _scores(self, query, key))) @ value
    return out


@ATTENTION.add("attention with the softmax over the queries instead of the keys")
def _softmax_over_queries(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out: Tensor = self.attn_dropout(F.softmax(_masked(self, _scores(self, query, key)), dim=-2)) @ value
    return out


@ATTENTION.add("attention with the softmax over the heads instead of the keys")
def _softmax_over_heads(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out: Tensor = self.attn_dropout(F.softmax(_masked(self, _scores(self, query, key)), dim=1)) @ value
    return out


@ATTENTION.add("attention whose weights are transposed before they mix the values")
def _transposed_weights(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = F.softmax(_masked(self, _scores(self, query, key)), dim=-1)
    out: Tensor = self.attn_dropout(weights).transpose(-2, -1) @ value
    return out


@ATTENTION.add("attention without a causal mask")
def _no_mask(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _mixed(self, _scores(self, query, key), value)


@ATTENTION.add("attention with a causal mask even where causal is False")
def _always_masked(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), float("-inf")), value)


@ATTENTION.add("a causal mask that hides the token itself too")
def _hides_itself(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(_future(self, scores, diagonal=0), float("-inf")), value)


@ATTENTION.add("a causal mask that hides the token itself too, with a large negative number instead of -inf")
def _hides_itself_finitely(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(_future(self, scores, diagonal=0), -1e9), value)


@ATTENTION.add("a causal mask that lets each token see the next one")
def _sees_the_next(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(_future(self, scores, diagonal=2), float("-inf")), value)


@ATTENTION.add("a causal mask the wrong way round: each token sees itself and what follows")
def _mask_transposed(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(_future(self, scores).transpose(0, 1), float("-inf")), value)


@ATTENTION.add("a causal mask with 0 instead of -inf")
def _mask_of_zeros(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    return _mixed(self, scores.masked_fill(_future(self, scores), 0.0), value)


@ATTENTION.add("a causal mask after the softmax, so that the weights no longer add up to one")
def _masked_after_softmax(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key)
    weights = F.softmax(scores, dim=-1).masked_fill(_future(self, scores), 0.0)
    out: Tensor = self.attn_dropout(weights) @ value
    return out


@ATTENTION.add("attention that ignores attention_bias")
def _no_bias(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim)
    return _mixed(self, _masked(self, scores), value)


@ATTENTION.add("attention with attention_bias added before the scaling")
def _bias_before_scaling(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _scores(self, query, key, scale=1.0) / math.sqrt(self.head_dim)
    return _mixed(self, _masked(self, scores), value)


@ATTENTION.add("attention with attention_bias added after the softmax")
def _bias_after_softmax(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim)
    weights = F.softmax(_masked(self, scores), dim=-1)
    if self.attention_bias is not None:
        weights = weights + self.attention_bias
    out: Tensor = self.attn_dropout(weights) @ value
    return out


@ATTENTION.add("attention with attention_bias subtracted instead of added")
def _bias_subtracted(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim)
    if self.attention_bias is not None:
        scores = scores - self.attention_bias
    return _mixed(self, _masked(self, scores), value)


@ATTENTION.add("attention without dropout")
def _no_dropout(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.softmax(_masked(self, _scores(self, query, key)), dim=-1) @ value


@ATTENTION.add("attention with dropout on the scores, before the softmax")
def _dropout_on_scores(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    scores = _masked(self, self.attn_dropout(_scores(self, query, key)))
    return F.softmax(scores, dim=-1) @ value


@ATTENTION.add("attention with dropout on its output instead of its weights")
def _dropout_on_output(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out: Tensor = self.attn_dropout(F.softmax(_masked(self, _scores(self, query, key)), dim=-1) @ value)
    return out


@ATTENTION.add("attention with dropout in evaluation too")
def _dropout_always(self: Attention, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    weights = F.softmax(_masked(self, _scores(self, query, key)), dim=-1)
    return F.dropout(weights, p=self.dropout, training=True) @ value


GQA = Catalogue("gqa", "llama.Attention.forward")

Share = Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]


def _forward_with(share: Share) -> Callable[[Attention, Tensor], Tensor]:
    """Make a whole `Attention.forward` of what repeats the heads of key and value n_rep times."""

    def forward(self: Attention, x: Tensor) -> Tensor:
        bs, seqlen, _ = x.shape
        query = self.compute_query(x).view(bs, seqlen, self.n_local_heads, self.head_dim)
        key = self.compute_key(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        value = self.compute_value(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        rotate = llama.apply_rotary_emb  # type: ignore[attr-defined]  # as llama.py knows it, also where it is replaced
        query, key = rotate(query, key, self.head_dim, self.max_seq_len, self.rope_theta)
        key, value = share(key, value, self.n_rep)
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        mixed = self.compute_query_key_value_scores(query, key, value).transpose(1, 2).reshape(bs, seqlen, -1)
        out: Tensor = self.resid_dropout(self.compute_output(mixed))
        return out

    return forward


def _side_by_side(tensor: Tensor, n_rep: int) -> Tensor:
    """Repeat each head n_rep times, which is right: 0 0 1 1."""
    return tensor.repeat_interleave(n_rep, dim=2)


def _in_turn(tensor: Tensor, n_rep: int) -> Tensor:
    """Repeat the row of heads n_rep times: 0 1 0 1."""
    return tensor.repeat(1, 1, n_rep, 1)


@GQA.add("grouped queries whose heads are repeated in turn (0 1 0 1) instead of side by side (0 0 1 1)", _forward_with)
def _tiled(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return _in_turn(key, n_rep), _in_turn(value, n_rep)


@GQA.add("grouped queries whose keys are repeated in turn (0 1 0 1), the values side by side", _forward_with)
def _keys_tiled(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return _in_turn(key, n_rep), _side_by_side(value, n_rep)


@GQA.add("grouped queries whose values are repeated in turn (0 1 0 1), the keys side by side", _forward_with)
def _values_tiled(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return _side_by_side(key, n_rep), _in_turn(value, n_rep)


@GQA.add("grouped queries whose values are made from the keys", _forward_with)
def _values_from_keys(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return _side_by_side(key, n_rep), _side_by_side(key, n_rep)


@GQA.add("grouped queries whose values are made from the keys after those were repeated", _forward_with)
def _values_from_repeated_keys(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    repeated = _side_by_side(key, n_rep)
    return repeated, _side_by_side(repeated, n_rep)


@GQA.add("keys and values whose positions are repeated (dim 1) instead of their heads (dim 2)", _forward_with)
def _positions_repeated(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return key.repeat_interleave(n_rep, dim=1), value.repeat_interleave(n_rep, dim=1)


@GQA.add("grouped queries that all read the first key and value head", _forward_with)
def _first_head(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    heads = key.shape[2] * n_rep
    return _side_by_side(key[:, :, :1], heads), _side_by_side(value[:, :, :1], heads)


@GQA.add("grouped queries with the repetition made by a reshape that mixes the elements of the heads", _forward_with)
def _reshaped(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    bs, seqlen, heads, head_dim = key.shape
    shape = (bs, seqlen, heads * n_rep, head_dim)
    return tuple(tensor.repeat_interleave(n_rep, dim=-1).reshape(shape) for tensor in (key, value))  # type: ignore[return-value]


@GQA.add("key and value heads that are not repeated", _forward_with)
def _not_repeated(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return key, value


@GQA.add("grouped queries whose keys are repeated and whose values are not", _forward_with)
def _keys_only(key: Tensor, value: Tensor, n_rep: int) -> tuple[Tensor, Tensor]:
    return _side_by_side(key, n_rep), value

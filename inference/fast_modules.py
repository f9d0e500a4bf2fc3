"""Attention, dropout and norms in fewer passes over memory: what the root's simple modules compute, for training.

    speed_up(model)

`llama.py` is written to be read. Here the same numbers come from fewer operations: one projection for queries, keys and
values; RoPE as one multiplication of complex numbers by a table that is computed once; key and value heads that are
shared instead of copied; PyTorch's fused attention where that is faster; dropout from 16 random bits a number.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from alibi import alibi_bias
from llama import Attention, Llama, RMSNorm

# Up to this length, a CPU is faster in bfloat16 with all scores in memory than with PyTorch's fused attention.
SHORT = 512  # tokens
LEVELS = 2**16  # dropout's probability is rounded to a multiple of 1 / LEVELS


class FastAttention(Attention):
    """An `Attention` with the same weights under the same names, and another `forward`. Made by `speed_up`."""

    longest: int  # tokens that the two tables are made for
    turn: torch.Tensor | None  # (longest, 1, head_dim / 2, 2): cos and sin of each pair's angle at each position
    bias: torch.Tensor  # (n_heads or 1, longest, longest): what ALiBi and the causal mask add to the scores

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what `Attention.forward` returns. Shapes: (bs, seqlen, dim) -> (bs, seqlen, dim)."""
        bs, seqlen, _ = x.shape
        if seqlen > self.longest or (self.attention_bias is not None and self.turn is None):
            return super().forward(x)
        query_key_value = self._project(x).view(bs, seqlen, -1, self.head_dim)
        rotated = self.n_local_heads + self.n_local_kv_heads
        query_key, value = torch.split(query_key_value, [rotated, self.n_local_kv_heads], dim=2)
        if self.turn is not None:
            query_key = _rotate(query_key, self.turn[:seqlen].to(x.device))
        query, key = torch.split(query_key, [self.n_local_heads, self.n_local_kv_heads], dim=2)
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        bias = self.bias[:, :seqlen, :seqlen].to(x.device, value.dtype)
        if self.attention_bias is not None:
            bias = bias + self.attention_bias.to(x.device, value.dtype)
        is_short = value.device.type == "cpu" and value.dtype == torch.bfloat16 and seqlen <= SHORT
        in_memory = is_short and self.attention_bias is None
        mixed = self._mix_in_memory(query, key, value, bias) if in_memory else self._mix_fused(query, key, value, bias)
        projected = self.compute_output(mixed.transpose(1, 2).reshape(bs, seqlen, -1))
        dropped: torch.Tensor = self.resid_dropout(projected)
        return dropped

    def _project(self, x: torch.Tensor) -> torch.Tensor:
        """Return queries, keys and values behind each other: (bs, seqlen, dim) -> (bs, seqlen, rows of all three)."""
        projections = (self.compute_query, self.compute_key, self.compute_value)
        if all(type(projection) is nn.Linear for projection in projections):
            return F.linear(x, torch.cat([projection.weight for projection in projections]))
        return torch.cat([projection(x) for projection in projections], dim=-1)  # one computes more than its weight

    def _mix_fused(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Attend without ever holding all scores (FlashAttention, Dao et al. 2022, arXiv 2205.14135).

        Shapes: query (bs, n_heads, seqlen, head_dim), key and value (bs, n_kv_heads, seqlen, head_dim) -> as query.
        """
        only_causal = self.causal and self.turn is not None and self.attention_bias is None
        mixed: torch.Tensor = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if only_causal else bias,
            dropout_p=self.attn_dropout.p if self.training else 0.0,
            is_causal=only_causal,
            enable_gqa=self.n_rep > 1,
        )
        return mixed

    def _mix_in_memory(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bias: torch.Tensor
    ) -> torch.Tensor:
        """Attend as `_mix_fused` does: the queries that read one key head stand below each other in one matrix."""
        bs, n_heads, seqlen, head_dim = query.shape
        rows = self.n_rep * seqlen
        query = query.reshape(-1, rows, head_dim)  # (bs · n_kv_heads, n_rep · seqlen, head_dim)
        key, value = (tensor.reshape(-1, seqlen, head_dim) for tensor in (key, value))
        if len(bias) == 1:
            bias = bias.repeat(1, self.n_rep, 1)  # (1, n_rep · seqlen, seqlen)
        else:
            bias = bias.reshape(-1, rows, seqlen).repeat(bs, 1, 1)
        scores = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=1 / math.sqrt(head_dim))
        weights = self.attn_dropout(F.softmax(scores, dim=-1))
        return torch.bmm(weights, value).view(bs, n_heads, seqlen, head_dim)


class FastDropout(nn.Dropout):
    """Dropout for a CPU, where PyTorch draws its numbers one by one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Set each number to 0 with probability `p`, and scale up the others (Srivastava et al. 2014, section 10)."""
        if not self.training or self.p == 0 or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        fours = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)  # four numbers' bits each
        bits = fours.view(torch.int16)[: x.numel()].view(x.shape)
        kept = (bits >= dropped - LEVELS // 2).view(torch.uint8).to(x.dtype)
        return x * kept.mul_(LEVELS / (LEVELS - dropped))


class FastRMSNorm(RMSNorm):
    """An `RMSNorm` whose gradient is written out."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return what `RMSNorm.forward` returns. Shapes: (..., dim) -> (..., dim)."""
        if x.dtype != torch.float32 or self.weight.dtype != torch.float32:
            return super().forward(x)
        normed: torch.Tensor = _Norm.apply(x, self.weight, self.eps)  # type: ignore[no-untyped-call]
        return normed


class _Norm(torch.autograd.Function):
    """y = r · x · w with r = 1 / sqrt(mean(x²) + eps), and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        """Return y in float32. Shapes: x (..., dim), weight (dim,) -> (..., dim)."""
        scale = (torch.linalg.vector_norm(x, dim=-1, keepdim=True).square() / x.shape[-1] + eps).rsqrt()
        ctx.save_for_backward(x, scale, weight)
        normed: torch.Tensor = (x * scale).mul_(weight)
        return normed

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        """Return the gradients of x and w: r · w · g - x · r³ · mean(g · w · x), and the sum of r · g · x."""
        x, scale, weight = ctx.saved_tensors
        product = (grad * x).flatten(0, -2)  # (rows, dim)
        weight_grad = product.t() @ scale.flatten()
        towards_x = (product @ weight).view_as(scale) * scale.pow(3) / -x.shape[-1]
        x_grad: torch.Tensor = (x * towards_x).add_((grad * weight).mul_(scale))
        return x_grad, weight_grad, None


def speed_up(model: Llama) -> None:
    """Let the modules of `model` compute the same faster. Names and values of its weights stay as they are.

    Call it when the model is on its device. Sequences longer than the model's `max_seq_len` take the simple way.
    """
    config, device = model.config, model.tok_embeddings.weight.device
    seqlen, head_dim = config.max_seq_len, config.dim // config.n_heads
    has_alibi = config.position_embedding_type == "alibi"
    turn = None if has_alibi else cos_and_sin(seqlen, head_dim, config.rope_theta).to(device)
    bias = alibi_bias(config.n_heads, seqlen) if has_alibi else torch.zeros(1, seqlen, seqlen)
    if config.causal:
        bias = bias.masked_fill(torch.ones(seqlen, seqlen, dtype=torch.bool).triu(diagonal=1), float("-inf"))
    bias = bias.to(device)
    # The same objects with the same weights get another class, and with it another `forward`.
    for module in model.modules():
        if type(module) is Attention:
            module.__class__ = FastAttention
            assert isinstance(module, FastAttention)
            module.longest, module.turn, module.bias = seqlen, turn, bias
        elif type(module) is nn.Dropout:
            module.__class__ = FastDropout
        elif type(module) is RMSNorm:
            module.__class__ = FastRMSNorm


def cos_and_sin(seqlen: int, head_dim: int, theta: float) -> torch.Tensor:
    """Return cos and sin of m · theta^(-2i / head_dim) for position m and pair i, as (seqlen, 1, head_dim / 2, 2)."""
    pair = torch.arange(0, head_dim, 2, dtype=torch.float32)  # 2i
    angle = torch.outer(torch.arange(seqlen, dtype=torch.float32), theta ** (-pair / head_dim))
    return torch.stack((angle.cos(), angle.sin()), dim=-1)[:, None]


def _rotate(x: torch.Tensor, turn: torch.Tensor) -> torch.Tensor:
    """Turn the pairs of `x` in float32. Shapes: x (bs, seqlen, heads, head_dim), turn (seqlen, 1, head_dim / 2, 2)."""
    pairs = x.float().view(*x.shape[:-1], -1, 2)
    if torch.compiler.is_compiling():  # torch.compile writes no code for complex numbers
        (a, b), (cos, sin) = pairs.unbind(-1), turn.unbind(-1)
        turned = torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1)
    else:  # (a + ib) · (cos + i sin): one pass over memory
        turned = torch.view_as_real(torch.view_as_complex(pairs) * torch.view_as_complex(turn))
    return turned.flatten(-2).type_as(x)

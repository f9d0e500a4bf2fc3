"""Llama 2, from its parts: RMSNorm, attention with grouped queries, SwiGLU, the layer, the model and its generation.

Touvron et al. 2023 (arXiv 2307.09288) and 2302.13971, section 2.2. Check your work: python sanity_check.py
Shapes are written in one vocabulary: bs, seqlen, dim = n_heads · head_dim, and n_kv_heads for keys and values.
"""

import math
import os

import torch
import torch.nn.functional as F
from torch import nn

from alibi import alibi_bias
from base_llama import LlamaPreTrainedModel, SkipInit
from checkpoint import read_checkpoint
from config import LlamaConfig, feed_forward_width
from rope import apply_rotary_emb


class RMSNorm(nn.Module):
    """Root mean square normalisation with a learned weight an element."""

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        """Start with a weight of one for each of the `dim` elements."""
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def _norm(self, x: torch.Tensor) -> torch.Tensor:
        """Divide each vector of `x` by its root mean square (Zhang & Sennrich 2019, arXiv 1910.07467, equation 4).

            RMS(x) = sqrt(mean of x_i² over the last dimension + eps)

        `eps` stands under the root, so that a vector of zeros stays finite. The weight is applied in `forward`.
        Shapes: (..., dim) -> (..., dim).
        """
        ### BEGIN SOLUTION rmsnorm
        return x * torch.rsqrt(x.pow(2).mean(dim=-1, keepdim=True) + self.eps)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalise in float32, go back to the dtype of `x`, and weight. Shapes: (..., dim) -> (..., dim)."""
        return self._norm(x.float()).type_as(x) * self.weight


class Attention(nn.Module):
    """Causal self-attention in which groups of query heads share one key and value head.

    Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; grouped queries: Ainslie et al. 2023 (arXiv 2305.13245),
    section 2.2.
    """

    def __init__(self, config: LlamaConfig) -> None:
        """Build the four projections and the two dropouts."""
        super().__init__()
        self.n_kv_heads = config.n_heads if config.n_kv_heads is None else config.n_kv_heads
        self.n_local_heads = config.n_heads  # "local" to this process, which holds all of them
        self.n_local_kv_heads = self.n_kv_heads
        self.n_rep = self.n_local_heads // self.n_local_kv_heads
        self.head_dim = config.dim // config.n_heads
        self.max_seq_len = config.max_seq_len
        self.rope_theta = config.rope_theta
        self.position_embedding_type = config.position_embedding_type
        self.causal = config.causal
        # None, or a tensor (n_heads, seqlen, seqlen) that is added to the scaled scores
        self.attention_bias: torch.Tensor | None = None
        self.compute_query = nn.Linear(config.dim, config.n_heads * self.head_dim, bias=False)
        self.compute_key = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_value = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_output = nn.Linear(config.n_heads * self.head_dim, config.dim, bias=False)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.dropout = config.dropout

    def compute_query_key_value_scores(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        """Mix the values by scaled dot-product attention, for all heads at once (arXiv 1706.03762, section 3.2.1).

            softmax(query · keyᵀ / sqrt(head_dim) + attention_bias + mask) · value

        - `self.attention_bias`, if it is not None, is added to the scaled scores.
        - If `self.causal`, a token sees itself and the tokens before it: the score of every later position is -inf
          before the softmax.
        - `self.attn_dropout` is applied to the attention weights, after the softmax.

        Shapes: query, key and value (bs, n_heads, seqlen, head_dim) -> (bs, n_heads, seqlen, head_dim).
        """
        ### BEGIN SOLUTION attention
        scores = query @ key.transpose(-2, -1) / math.sqrt(self.head_dim)  # (bs, n_heads, seqlen, seqlen)
        if self.attention_bias is not None:
            scores = scores + self.attention_bias
        if self.causal:
            seqlen = scores.shape[-1]
            future = torch.ones(seqlen, seqlen, dtype=torch.bool, device=scores.device).triu(diagonal=1)
            scores = scores.masked_fill(future, float("-inf"))
        weights = self.attn_dropout(F.softmax(scores, dim=-1))
        return weights @ value  # (bs, n_heads, seqlen, head_dim)
        ### END SOLUTION

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project, rotate queries and keys, share keys and values among the query heads, attend, project back.

        With position_embedding_type "alibi", nothing is rotated: `attention_bias` tells the positions (see alibi.py).

        Query head h reads key and value head h // n_rep: each key and value head is repeated n_rep times, and the
        repetitions stand next to each other (arXiv 2305.13245, figure 2).

        Shapes: (bs, seqlen, dim) -> (bs, seqlen, dim).
        """
        bs, seqlen, _ = x.shape
        query = self.compute_query(x).view(bs, seqlen, self.n_local_heads, self.head_dim)
        key = self.compute_key(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        value = self.compute_value(x).view(bs, seqlen, self.n_local_kv_heads, self.head_dim)
        has_alibi = self.position_embedding_type == "alibi"
        if has_alibi:
            self.attention_bias = alibi_bias(self.n_local_heads, seqlen, x.device).to(query.dtype)
        else:
            query, key = apply_rotary_emb(query, key, self.head_dim, self.max_seq_len, self.rope_theta)

        # key and value: (bs, seqlen, n_kv_heads, head_dim) -> (bs, seqlen, n_heads, head_dim)
        ### BEGIN SOLUTION gqa
        key = torch.repeat_interleave(key, repeats=self.n_rep, dim=2)
        value = torch.repeat_interleave(value, repeats=self.n_rep, dim=2)
        ### END SOLUTION

        # (bs, seqlen, n_heads, head_dim) -> (bs, n_heads, seqlen, head_dim)
        query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
        mixed = self.compute_query_key_value_scores(query, key, value)
        if has_alibi:
            self.attention_bias = None  # n_heads · seqlen² numbers that no layer needs to keep
        mixed = mixed.transpose(1, 2).reshape(bs, seqlen, -1)  # (bs, seqlen, n_heads · head_dim)
        return self.resid_dropout(self.compute_output(mixed))


class FeedForward(nn.Module):
    """The position-wise part of a layer, with a gate: SwiGLU (Shazeer 2020, arXiv 2002.05202, equation 6)."""

    def __init__(self, dim: int, hidden_dim: int | None, multiple_of: int, dropout: float) -> None:
        """Build the three projections; `hidden_dim=None` means two thirds of 4 · dim, rounded up to `multiple_of`."""
        super().__init__()
        hidden_dim = feed_forward_width(dim, multiple_of) if hidden_dim is None else hidden_dim
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def SwiGLU(self, x: torch.Tensor) -> torch.Tensor:
        """Compute SiLU(w1 x) ⊙ (w3 x). Shapes: (..., dim) -> (..., hidden_dim)."""
        return F.silu(self.w1(x)) * self.w3(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Project the gated hidden layer back. Shapes: (..., dim) -> (..., dim)."""
        return self.dropout(self.w2(self.SwiGLU(x)))


class LlamaLayer(nn.Module):
    """One layer: attention and feed-forward, each normalised before and added to what came in."""

    def __init__(self, layer_id: int, config: LlamaConfig) -> None:
        """Build the two sublayers and the norm in front of each."""
        super().__init__()
        self.layer_id = layer_id
        self.dim = config.dim
        self.n_heads = config.n_heads
        self.head_dim = config.dim // config.n_heads
        self.attention = Attention(config)
        self.feed_forward = FeedForward(config.dim, config.hidden_dim, config.multiple_of, config.dropout)
        self.attention_norm = RMSNorm(config.dim, eps=config.layer_norm_eps)
        self.ffn_norm = RMSNorm(config.dim, eps=config.layer_norm_eps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the layer in Llama's pre-norm form (arXiv 2302.13971, section 2.2).

        1. normalise `x` with `attention_norm`, apply `attention`, add the result to `x`;
        2. normalise that sum with `ffn_norm`, apply `feed_forward`, add the result to that sum.

        Shapes: (bs, seqlen, dim) -> (bs, seqlen, dim).
        """
        ### BEGIN SOLUTION layer
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))
        ### END SOLUTION


class Llama(LlamaPreTrainedModel):
    """The language model: embedding, layers, a last norm, and an output matrix that is the embedding again."""

    def __init__(self, config: LlamaConfig) -> None:
        """Build and initialise a Llama of the sizes in `config`."""
        super().__init__(config)
        self.params = config
        self.vocab_size = config.vocab_size
        self.n_layers = config.n_layers
        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(LlamaLayer(layer_id, config) for layer_id in range(config.n_layers))
        self.norm = RMSNorm(config.dim, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)
        self.tie_weights()
        self.init_weights()

    def tie_weights(self) -> None:
        """Make the output matrix the embedding itself (Press & Wolf 2017, arXiv 1608.05859), if `config` says so."""
        if self.config.tie_word_embeddings:
            self.output.weight = self.tok_embeddings.weight

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits of the next token, and the hidden states after the last norm.

        Shapes: tokens (bs, seqlen) -> logits (bs, 1, vocab_size) at the last position only, as generation needs, or
        (bs, seqlen, vocab_size) when `targets` (bs, seqlen) is given; hidden states (bs, seqlen, dim).
        Raises ValueError if seqlen exceeds the model's `max_seq_len`.
        """
        seqlen = tokens.shape[1]
        if seqlen > self.params.max_seq_len:
            raise ValueError(f"{seqlen} tokens are more than the model's context of {self.params.max_seq_len}")
        h = self.dropout(self.tok_embeddings(tokens))
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)
        logits = self.output(h if targets is not None else h[:, [-1], :])
        return logits, h

    @torch.inference_mode()
    def generate(self, idx: torch.Tensor, max_new_tokens: int, temperature: float = 1.0) -> torch.Tensor:
        """Append `max_new_tokens` tokens to each row of `idx`, one at a time, without dropout.

        - `temperature` 0.0: always the most likely token.
        - otherwise: divide the logits by `temperature`, turn them into probabilities, and draw one token from them.

        The simplest generation that works: it reads the whole row again for every token (its last `max_seq_len`
        tokens, once it is longer), and does not stop at the end of a sentence.

        Shapes: idx (bs, seqlen) -> (bs, seqlen + max_new_tokens). Raises ValueError if `temperature` is negative.
        """
        if temperature < 0.0:
            raise ValueError(f"temperature must be 0.0 or more, got {temperature}")
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.params.max_seq_len :])
            logits = logits[:, -1, :]  # (bs, vocab_size)
            ### BEGIN SOLUTION generate
            if temperature == 0.0:
                idx_next = logits.argmax(dim=-1, keepdim=True)  # (bs, 1)
            else:
                probabilities = F.softmax(logits / temperature, dim=-1)
                idx_next = torch.multinomial(probabilities, num_samples=1)  # (bs, 1)
            ### END SOLUTION
            idx = torch.cat((idx, idx_next), dim=1)
        self.train(was_training)
        return idx


def load_pretrained(path: str | os.PathLike[str]) -> Llama:
    """Load a Llama from a checkpoint: llama2.c's `.pt` or `.bin`, one that this project saved, or a directory.

    The model is on the CPU, in float32 and in evaluation mode. Raises CheckpointError (see `read_checkpoint`).
    """
    config, tensors = read_checkpoint(path)
    with SkipInit():  # memory that is never touched: the checkpoint's tensors become the weights
        model = Llama(config)
    buffers = dict(model.named_buffers())  # none in this model; whoever keeps a mask in one has it saved nowhere
    kept = {name: tensor for name, tensor in model.state_dict().items() if name in buffers}
    model.load_state_dict(tensors | kept, strict=True, assign=True)
    model.tie_weights()
    return model.eval()

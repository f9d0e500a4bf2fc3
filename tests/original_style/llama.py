from contextlib import nullcontext
from typing import Optional, Tuple

import math
import torch
from torch import nn
import torch.nn.functional as F

from base_llama import LlamaPreTrainedModel, LlamaConfig
from rope import apply_rotary_emb
from utils import *


class RMSNorm(torch.nn.Module):
    def __init__(self, dim: int, eps: float = 1e-6):
        """
        dim: size of the last dimension
        eps: keeps the division finite
        """
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def _norm(self, x):
        mean_square = torch.mean(x ** 2, dim=-1, keepdim=True)
        return x / torch.sqrt(mean_square + self.eps)

    def forward(self, x):
        output = self._norm(x.float()).type_as(x)
        return output * self.weight


class Attention(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.n_kv_heads = config.n_kv_heads if config.n_kv_heads is not None else config.n_heads
        assert config.n_heads % self.n_kv_heads == 0
        model_parallel_size = 1
        self.n_local_heads = config.n_heads // model_parallel_size
        self.n_local_kv_heads = self.n_kv_heads // model_parallel_size
        self.n_rep = self.n_local_heads // self.n_local_kv_heads
        self.head_dim = config.dim // config.n_heads
        self.max_seq_len = config.max_seq_len
        self.compute_query = nn.Linear(config.dim, config.n_heads * self.head_dim, bias=False)
        self.compute_key = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_value = nn.Linear(config.dim, self.n_kv_heads * self.head_dim, bias=False)
        self.compute_output = nn.Linear(config.n_heads * self.head_dim, config.dim, bias=False)
        self.attn_dropout = nn.Dropout(config.dropout)
        self.resid_dropout = nn.Dropout(config.dropout)
        self.dropout = config.dropout

    def compute_query_key_value_scores(self,
                                       query: torch.Tensor,
                                       key: torch.Tensor,
                                       value: torch.Tensor) -> torch.Tensor:
        '''
        All three are (bs, n_local_heads, seqlen, head_dim), and so is the result.
        Dropout is used on the attention weights.
        '''
        d_k = query.size(-1)
        att = torch.einsum('bhqd,bhkd->bhqk', query, key) / math.sqrt(d_k)
        att = torch.softmax(att, dim=-1)
        att = self.attn_dropout(att)
        return torch.einsum('bhqk,bhkd->bhqd', att, value)

    def forward(self, x: torch.Tensor):
        '''
        Grouped query attention: query heads in groups share one head of keys and values.
        '''
        batch_size, seqlen, _ = x.shape

        query = self.compute_query(x)
        key = self.compute_key(x)
        value = self.compute_value(x)
        query = query.view(batch_size, seqlen, self.n_local_heads, self.head_dim)
        key = key.view(batch_size, seqlen, self.n_local_kv_heads, self.head_dim)
        value = value.view(batch_size, seqlen, self.n_local_kv_heads, self.head_dim)

        # relative positions
        query, key = apply_rotary_emb(query, key, self.head_dim, self.max_seq_len)

        # each head of keys and values once for every query head of its group
        key = torch.repeat_interleave(key, dim=2, repeats=self.n_rep)
        value = torch.repeat_interleave(value, dim=2, repeats=self.n_rep)

        # heads become a batch dimension
        query = query.transpose(1, 2)
        key = key.transpose(1, 2)
        value = value.transpose(1, 2)
        output = self.compute_query_key_value_scores(query, key, value)

        # and come back
        output = output.transpose(1, 2).contiguous().view(batch_size, seqlen, -1)
        output = self.resid_dropout(self.compute_output(output))
        return output


class FeedForward(nn.Module):
    def __init__(self, dim: int, hidden_dim: int, multiple_of: int, dropout: float):
        super().__init__()
        if hidden_dim is None:
            hidden_dim = int(2 * 4 * dim / 3)
            while hidden_dim % multiple_of != 0:
                hidden_dim += 1
        self.w1 = nn.Linear(dim, hidden_dim, bias=False)
        self.w2 = nn.Linear(hidden_dim, dim, bias=False)
        self.w3 = nn.Linear(dim, hidden_dim, bias=False)
        self.dropout = nn.Dropout(dropout)

    def SwiGLU(self, x: torch.Tensor) -> torch.Tensor:
        '''
        The gated activation of Shazeer (2020).
        '''
        return F.silu(self.w1(x)) * self.w3(x)

    def forward(self, x):
        return self.dropout(self.w2(self.SwiGLU(x)))


class LlamaLayer(nn.Module):
    def __init__(self, layer_id: int, config: LlamaConfig):
        super().__init__()
        self.n_heads = config.n_heads
        self.dim = config.dim
        self.head_dim = config.dim // config.n_heads
        self.attention = Attention(config)
        self.feed_forward = FeedForward(
            dim=config.dim,
            hidden_dim=config.hidden_dim,
            multiple_of=config.multiple_of,
            dropout=config.dropout,
        )
        self.layer_id = layer_id
        self.attention_norm = RMSNorm(config.dim, eps=config.layer_norm_eps)
        self.ffn_norm = RMSNorm(config.dim, eps=config.layer_norm_eps)

    def forward(self, x):
        # 1) norm, 2) attention, 3) residual
        residual = x
        x = self.attention(self.attention_norm(x))
        x = residual + x
        # 4) norm, 5) feed forward, 6) residual
        residual = x
        x = self.feed_forward(self.ffn_norm(x))
        return residual + x


class Llama(LlamaPreTrainedModel):
    def __init__(self, config: LlamaConfig):
        super().__init__(config)
        self.params = config
        self.vocab_size = config.vocab_size
        self.n_layers = config.n_layers

        self.tok_embeddings = nn.Embedding(config.vocab_size, config.dim)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList([LlamaLayer(i, config) for i in range(config.n_layers)])
        self.norm = RMSNorm(config.dim, eps=config.layer_norm_eps)
        self.output = nn.Linear(config.dim, config.vocab_size, bias=False)

        # embedding and output are one matrix
        self.output.weight = self.tok_embeddings.weight

        self.init_weights()

    def forward(self, tokens: torch.Tensor, targets: Optional[torch.Tensor] = None) -> Tuple[torch.Tensor, torch.Tensor]:
        h = self.dropout(self.tok_embeddings(tokens))
        for layer in self.layers:
            h = layer(h)
        h = self.norm(h)

        if targets is None:
            # generation needs the last position only
            logits = self.output(h[:, [-1], :])
        else:
            logits = self.output(h)

        return logits, h

    @torch.inference_mode()
    def generate(self, idx, max_new_tokens, temperature=1.0):
      """
      idx: (bs, seqlen) with the indices of the prompt. Appends max_new_tokens tokens, one after the other;
      the most likely one if the temperature is 0, otherwise one that is drawn.
      """
      for _ in range(max_new_tokens):
        # a prompt that grows too long loses its beginning
        window = idx
        if window.size(1) > self.params.max_seq_len:
          window = window[:, -self.params.max_seq_len:]
        logits, _ = self(window)
        logits = logits[:, -1, :]

        if temperature == 0.0:
          _, idx_next = torch.topk(logits, k=1, dim=-1)
        else:
          probs = torch.softmax(logits / temperature, dim=-1)
          idx_next = torch.multinomial(probs, num_samples=1)

        idx = torch.cat([idx, idx_next], dim=1)

      return idx


def load_pretrained(checkpoint):
  device = 'cuda' if torch.cuda.is_available() else 'cpu'
  dtype = "float32"

  torch.backends.cuda.matmul.allow_tf32 = True
  torch.backends.cudnn.allow_tf32 = True
  device_type = 'cuda' if 'cuda' in device else 'cpu'
  ptdtype = {'float32': torch.float32, 'bfloat16': torch.bfloat16, 'float16': torch.float16}[dtype]
  ctx = nullcontext() if device_type == 'cpu' else torch.amp.autocast(device_type=device_type, dtype=ptdtype)

  saved = torch.load(checkpoint, map_location=device)
  config = LlamaConfig(**saved['model_args'])
  model = Llama(config)
  weights = saved['model']
  for name in list(weights):
    # torch.compile puts a prefix in front of the names
    if name.startswith('_orig_mod.'):
      weights[name.replace('_orig_mod.', '', 1)] = weights.pop(name)
  model.load_state_dict(weights, strict=False)
  return model

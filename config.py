"""The two configurations: of a Llama, and of a classifier on top of one."""

import math
from dataclasses import dataclass

POSITION_EMBEDDINGS = ("rotary", "alibi")


@dataclass
class LlamaConfig:
    """The sizes and choices that define a Llama; the names are those of Meta's checkpoints.

    `n_kv_heads=None` means as many as `n_heads`. `hidden_dim=None` means `feed_forward_width`.
    `pad_id` is the id that fills short rows of a batch: readers of hidden states skip it at the end of a row.
    Raises ValueError if the sizes do not fit each other.
    """

    vocab_size: int = 32000
    dim: int = 512
    dropout: float = 0.0
    n_layers: int = 8
    n_heads: int = 8
    n_kv_heads: int | None = 8
    max_seq_len: int = 1024  # tokens
    layer_norm_eps: float = 1e-5
    multiple_of: int = 32  # the hidden layer's width is rounded up to a multiple of this
    hidden_dim: int | None = None
    position_embedding_type: str = "rotary"  # or "alibi", see alibi.py
    use_cache: bool = True  # read by code written for the original; this project's model keeps no cache
    causal: bool = True
    rope_theta: float = 10000.0
    pad_id: int = 3
    tie_word_embeddings: bool = True  # the input embedding is the output matrix

    def __post_init__(self) -> None:
        """Fill in `n_kv_heads` and check that the sizes fit each other."""
        if self.n_kv_heads is None:
            self.n_kv_heads = self.n_heads
        for name in ("vocab_size", "dim", "n_layers", "n_heads", "n_kv_heads", "max_seq_len", "multiple_of"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        if not isinstance(self.pad_id, int):
            raise ValueError(f"pad_id must be a whole number, got {self.pad_id!r}")
        for name in ("use_cache", "causal", "tie_word_embeddings"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        if self.hidden_dim is not None and (not isinstance(self.hidden_dim, int) or self.hidden_dim < 1):
            raise ValueError(f"hidden_dim must be at least 1 or None, got {self.hidden_dim!r}")
        for name in ("layer_norm_eps", "rope_theta"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} must be a number above 0, got {value!r}")
        if self.position_embedding_type not in POSITION_EMBEDDINGS:
            raise ValueError(
                f"position_embedding_type must be 'rotary' or 'alibi', got {self.position_embedding_type!r}"
            )
        if self.position_embedding_type == "rotary" and self.dim % (2 * self.n_heads):
            raise ValueError(
                f"dim ({self.dim}) must be an even multiple of n_heads ({self.n_heads}): RoPE rotates pairs"
            )
        if self.dim % self.n_heads:
            raise ValueError(f"dim ({self.dim}) must be a multiple of n_heads ({self.n_heads})")
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({self.n_kv_heads})")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")


def feed_forward_width(dim: int, multiple_of: int) -> int:
    """Return the width of the hidden layer when none is given: two thirds of 4 · dim, rounded up to `multiple_of`."""
    width = 2 * (4 * dim) // 3
    return multiple_of * math.ceil(width / multiple_of)


@dataclass
class ClassifierConfig:
    """What the classifiers need; any object with these attributes will do.

    `option` is "finetune" (the whole Llama is trained) or "pretrain" (the Llama is frozen, only the head is trained).
    """

    num_labels: int
    pretrained_model_path: str
    option: str = "finetune"
    hidden_dropout_prob: float = 0.3

"""What the tests share: models that fit a millisecond, files of weights, and tokenizers that need no download.

Each helper is seeded by its arguments and leaves the global random numbers where they were.
"""

import io
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint import write_checkpoint
from config import LlamaConfig
from llama import Llama, LlamaLayer
from tokenizer import Tokenizer

# Text to train a tokenizer on; any English will do, it only has to stay the same.
SENTENCES = (
    "Once upon a time, there was a little girl named Lily. She liked to play in the park.",
    "The film is slow, but the ending is good and the music is better than good.",
    "A bad plot, an awful script, and an average hero: this movie is not excellent.",
    "One day, Tom saw a big dog with a red ball. The dog wanted to play with Tom.",
    "I have wanted to see this movie for a while, and it is bad, bad, bad!",
)
TOKENIZERS = ("bpe", "unigram", "char", "byte-bpe")  # kinds of tokenizer


def tiny_config(**changes: Any) -> LlamaConfig:
    """Return the sizes of a tiny Llama with grouped queries, after `changes`."""
    sizes = {"vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 24}
    return LlamaConfig(**({**sizes, "multiple_of": 8} | changes))


def random_llama(seed: int = 0, **changes: Any) -> Llama:
    """Return a tiny Llama in evaluation mode, whose weights are large enough for every part to be seen in the logits.

    As training starts with weights near zero, a fresh `Llama` answers nearly the same to everything.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Llama(tiny_config(**changes))
        with torch.no_grad():
            for parameter in model.parameters():
                start = 1.0 if parameter.dim() == 1 else 0.0  # a norm's weight scatters around one
                parameter.copy_(start + 0.3 * torch.randn(parameter.shape))
    return model.eval()


def layer_of(model: Llama, layer_id: int) -> LlamaLayer:
    """Return a layer as what it is: to a type checker, the items of a ModuleList are modules of any kind."""
    layer = model.layers[layer_id]
    assert isinstance(layer, LlamaLayer)
    return layer


def random_tokens(bs: int, seqlen: int, vocab_size: int = 40, seed: int = 0) -> torch.Tensor:
    """Return ids of shape (bs, seqlen), none of them special or padding."""
    return torch.randint(4, vocab_size, (bs, seqlen), generator=torch.Generator().manual_seed(seed))


def padded(rows: Sequence[Sequence[int]], pad_id: int = 3, width: int | None = None) -> torch.Tensor:
    """Return the rows as one tensor, padded at their right to the longest of them or to `width`."""
    width = width or max(map(len, rows))
    return torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows])


def save_llama(path: Path, model: Llama) -> Path:
    """Save a model as a checkpoint of this project, and return the path."""
    write_checkpoint(path, model.config, model.state_dict())
    return path


def write_bin(path: Path, model: Llama) -> Path:
    """Write llama2.c's export of version 0 as its C program reads it, and return the path.

    This stands apart from `checkpoint.py` on purpose: a mistake there must not repeat itself here.
    """
    config, weights = model.config, model.state_dict()
    tied = model.output.weight is model.tok_embeddings.weight
    hidden_dim = layer_of(model, 0).feed_forward.w1.out_features
    vocab_size = config.vocab_size if tied else -config.vocab_size
    layers = [f"layers.{i}" for i in range(config.n_layers)]
    head_dim = config.dim // config.n_heads

    def numbers(*names: str) -> bytes:
        return b"".join(weights[f"{name}.weight"].contiguous().numpy().astype("<f4").tobytes() for name in names)

    with path.open("wb") as file:
        file.write(
            struct.pack(
                *("<7i", config.dim, hidden_dim, config.n_layers, config.n_heads),
                *(config.n_kv_heads, vocab_size, config.max_seq_len),
            )
        )
        file.write(numbers("tok_embeddings"))
        file.write(numbers(*(f"{layer}.attention_norm" for layer in layers)))
        for projection in ("compute_query", "compute_key", "compute_value", "compute_output"):
            file.write(numbers(*(f"{layer}.attention.{projection}" for layer in layers)))
        file.write(numbers(*(f"{layer}.ffn_norm" for layer in layers)))
        for projection in ("w1", "w2", "w3"):
            file.write(numbers(*(f"{layer}.feed_forward.{projection}" for layer in layers)))
        file.write(numbers("norm"))
        # RoPE's tables, which every reader skips: values that would be noticed
        file.write(struct.pack("<f", 7.5) * (config.max_seq_len * head_dim // 2 * 2))
        if not tied:
            file.write(numbers("output"))
    return path


def train_tokenizer(path: Path, vocab_size: int = 400, **options: Any) -> Path:
    """Train a SentencePiece model of Llama's kind (byte-pair encoding with byte fallback), and return the path."""
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    kind: dict[str, Any] = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity"}
    kind |= {"remove_extra_whitespaces": False, "vocab_size": vocab_size} | options
    SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 3),
        model_writer=model,
        num_threads=1,
        minloglevel=2,  # errors only
        **kind,
    )
    path.write_bytes(model.getvalue())
    return path


@cache
def tokenizer_of(kind: str, folder: Path) -> Tokenizer:
    """Return a tiny tokenizer of one of the kinds TOKENIZERS: their texts behave differently at spaces and at bytes."""
    if kind == "char":
        return Tokenizer(
            tokenizer_model=train_tokenizer(folder / "char.model", 40, model_type="char", byte_fallback=False)
        )
    if kind != "byte-bpe":
        return Tokenizer(tokenizer_model=train_tokenizer(folder / f"{kind}.model", 330, model_type=kind))
    tokenizers = pytest.importorskip("tokenizers", reason="skipped: needs tokenizers")
    model = tokenizers.Tokenizer(tokenizers.models.BPE())
    model.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(SENTENCES, trainer)
    model.save(str(folder / "tokenizer.json"))
    return Tokenizer(tokenizer_model=folder / "tokenizer.json")


class WordTokenizer:
    """A stub that gives each new word the next id: joint tokenisation never changes a word before."""

    bos_id, eos_id, pad_id = 1, 2, 3

    def __init__(self) -> None:
        """Start with no words."""
        self.ids: dict[str, int] = {}

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Return an id a word."""
        ids = [self.ids.setdefault(word, 4 + len(self.ids)) for word in s.split()]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos

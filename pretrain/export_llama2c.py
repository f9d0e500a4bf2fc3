"""llama2.c's `.bin`, version 0 (github.com/karpathy/llama2.c, export.py, `legacy_export`), and its tokenizer.bin.

Its program has some numbers built in (run.c); what differs from them is refused.
"""

import struct
import tempfile
from pathlib import Path

import torch

from checkpoint import Tensors, bin_layout
from config import LlamaConfig, feed_forward_width
from errors import CheckpointError, TokenizerError, UsageError
from pretrain.pieces import BYTE_PIECES, read_pieces
from tokenizer import Tokenizer
from utils import atomic_path

# What run.c has built in.
NORM_EPS, ROPE_THETA = 1e-5, 10000.0
FIRST_BYTE_ID = 3  # the pieces of the 256 bytes stand behind unknown, begin and end
TOKENIZER_NAME = "tokenizer.bin"  # the name that run.c looks for


def write(out: Path, config: LlamaConfig, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Write the weights to `out`, and tokenizer.bin beside it.

    Raises CheckpointError or TokenizerError for what llama2.c cannot run, and UsageError if another tokenizer.bin is
    in the way.
    """
    _check_model(config)
    content = _tokenizer_bin(tokenizer)
    target = out.with_name(TOKENIZER_NAME)
    if target.exists() and (not target.is_file() or target.read_bytes() != content):
        raise UsageError(f"{target} is there already, and is another model's: name a file in another folder")
    try:
        with atomic_path(out) as temporary, temporary.open("wb") as file:
            file.write(_header(config))
            for tensor in _in_order(config, tensors):
                file.write(tensor.to(torch.float32).contiguous().numpy().astype("<f4", copy=False).data)
        with atomic_path(target) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"{out} cannot be written ({error.strerror}): check the disk.") from error


def _check_model(config: LlamaConfig) -> None:
    """Raise CheckpointError if run.c would compute something else."""
    built_in = {"layer_norm_eps": NORM_EPS, "rope_theta": ROPE_THETA}
    for name, value in built_in.items():
        if getattr(config, name) != value:
            raise CheckpointError(
                f"llama2.c has {name} = {value} built in, and this model has {getattr(config, name)}. "
                "Use --format gguf or hf, which store it."
            )


def _tokenizer_bin(tokenizer: Tokenizer) -> bytes:
    """Return the content of tokenizer.bin; raise TokenizerError if run.c would give other ids."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.export(Path(folder, TOKENIZER_NAME))  # refuses kinds that run.c does not have
        content = Path(folder, TOKENIZER_NAME).read_bytes()
    pieces = read_pieces(tokenizer)
    if not pieces.space_in_front:
        raise TokenizerError(f"{tokenizer.path}: llama2.c puts a space before a text, and this tokenizer has none")
    first, last = FIRST_BYTE_ID, FIRST_BYTE_ID + len(BYTE_PIECES) - 1
    if tuple(pieces.texts[first : last + 1]) != BYTE_PIECES:
        raise TokenizerError(
            f"{tokenizer.path}: llama2.c spells unknown characters with the ids {first} to {last}, and this tokenizer "
            "has other pieces there. Train one with --type bpe"
        )
    return content


def _header(config: LlamaConfig) -> bytes:
    """Return the seven sizes; a negative vocabulary says that the output matrix is not the embedding."""
    hidden_dim = config.hidden_dim or feed_forward_width(config.dim, config.multiple_of)
    n_kv_heads = config.n_kv_heads or config.n_heads
    vocab_size = config.vocab_size if config.tie_word_embeddings else -config.vocab_size
    sizes = (config.dim, hidden_dim, config.n_layers, config.n_heads, n_kv_heads, vocab_size, config.max_seq_len)
    return struct.pack("<7i", *sizes)


def _in_order(config: LlamaConfig, tensors: Tensors) -> list[torch.Tensor]:
    """Return what the file holds after its header: one matrix of all layers after the other, and RoPE's tables."""
    head_dim = config.dim // config.n_heads
    frequency = ROPE_THETA ** (-torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    angle = torch.outer(torch.arange(config.max_seq_len, dtype=torch.float32), frequency)
    every = tensors | {"freqs_cos": angle.cos(), "freqs_sin": angle.sin()}
    return [every[name.format(layer)] for name, count, _ in bin_layout(config) for layer in range(count)]

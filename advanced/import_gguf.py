"""A Llama from llama.cpp's GGUF (github.com/ggml-org/ggml, docs/gguf.md): weights, sizes and tokenizer, as a directory.

    python -m advanced import-gguf MODEL.gguf --out DIR

The package `gguf` reads the file and turns its quantised numbers into floats. What `pretrain/export_gguf.py` says of
the way out holds for the way in: llama.cpp's Llama rotates adjacent pairs, as ours does, so that the weights stay as
they stand. Of its tokenizers one kind is read, "gpt2": a byte-level BPE, which becomes a `tokenizer.json`.

A file is used as a whole or refused: whatever in it would change what the model computes, and has no place in
`LlamaConfig`, is an error and not left out.
"""

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import numpy as np
import torch

from checkpoint import Tensors, check_finite, tensor_shapes, write_directory
from config import LlamaConfig, feed_forward_width
from errors import CheckpointError, MissingDependency, TokenizerError
from pretrain.export_gguf import LAYER_NAMES, NAMES, SPLITS
from pretrain.pieces import CONTROL, NORMAL
from tokenizer import TOKENIZER_CONFIG
from utils import sha256_of

T = TypeVar("T")

# inference/fast_modules.py keeps a table of context² numbers: 268 MB for the 8,192 tokens that SmolLM2 was made for,
# and a sixteenth of that for these, which hold any review. With RoPE, the model computes the same within either.
CONTEXT = 2048  # tokens
READ_TYPES = ("F32", "F16", "Q8_0", "Q4_1")  # how numbers may be stored; each is tested
# LlamaConfig's name of a size -> GGUF's. They are required.
SIZES = {
    "max_seq_len": "llama.context_length",
    "dim": "llama.embedding_length",
    "n_layers": "llama.block_count",
    "hidden_dim": "llama.feed_forward_length",
    "n_heads": "llama.attention.head_count",
}
KV_HEADS, VOCAB_SIZE = "llama.attention.head_count_kv", "llama.vocab_size"
EPSILON, THETA = "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"
# Widths of a head: here, all of them are dim / n_heads.
HEAD_DIMS = ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length")
# Settings that would change what the model computes, and the value under which they do not.
HARMLESS: dict[str, Any] = {
    "llama.rope.scaling.type": "none",
    "llama.expert_count": 0,
    "llama.expert_used_count": 0,
    "llama.attention.causal": True,
}
KNOWN = {*SIZES.values(), KV_HEADS, VOCAB_SIZE, EPSILON, THETA, *HEAD_DIMS, *HARMLESS}
END_OF_TEXT = "<|endoftext|>"


def import_gguf(path: Path, out: Path, context: int = CONTEXT, *, exact: bool = False) -> None:
    """Turn the GGUF file `path` into the checkpoint directory `out`, with its tokenizer.

    The model's context is cut to `context` tokens. What the file holds in float32 is stored so, anything coarser in
    float16, unless a number is too large for that: half the space, and the rounding is far below that of 4 or 8 bits.
    `exact` stores float32 in any case: the very numbers of the file.

    Raises CheckpointError for a file that is no GGUF, is damaged, or holds no Llama that could be used here;
    TokenizerError for a tokenizer that could not be, MissingDependency without `gguf` or `tokenizers`, and ValueError
    for a `context` below 1.
    """
    if context < 1:
        raise ValueError(f"context must be at least 1, got {context}")
    config, tensors, metadata = _read(path, context)
    dtype = torch.float32 if exact else _storage(metadata, tensors)
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _write_tokenizer(metadata, config, Path(folder))
        write_directory(out, config, tensors, tokenizer, readme=_readme(metadata, config, dtype), dtype=dtype)


def read_gguf(path: Path, context: int = CONTEXT) -> tuple[LlamaConfig, Tensors]:
    """Return the configuration and the tensors of a GGUF file, under the names of `llama.Llama`, in float32.

    Raises CheckpointError and MissingDependency as `import_gguf` does.
    """
    config, tensors, _ = _read(path, context)
    return config, tensors


@dataclass(frozen=True)
class _Metadata:
    """What a GGUF file says of its model, and the types in which it stores the matrices."""

    path: Path
    values: dict[str, Any]
    matrix_types: tuple[str, ...]

    def take(self, key: str, kind: type[T]) -> T:
        """Return a value that must be there and of this type."""
        if key not in self.values:
            self.refuse(f"it does not say {key}")
        value = self.values[key]
        if not isinstance(value, kind) or type(value) is not kind:  # True is an int to isinstance
            self.refuse(f"{key} must be of type {kind.__name__}, and is {str(value)[:60]!r}")
        return value

    def get(self, key: str, default: T) -> T:
        """Return a value that may be absent, of the type of its default."""
        return self.take(key, type(default)) if key in self.values else default

    def take_list(self, key: str, kind: type[T]) -> list[T]:
        """Return a list that must be there, all of one type."""
        values: list[T] = self.take(key, list)
        if any(type(value) is not kind for value in values):
            self.refuse(f"{key} must hold values of type {kind.__name__} alone")
        return values

    def token_id(self, key: str, default: int | None = None) -> int:
        """Return the id of a token, which must be in the vocabulary."""
        token_id = self.take(key, int) if default is None else self.get(key, default)
        size = len(self.take("tokenizer.ggml.tokens", list))
        if not 0 <= token_id < size:
            self.refuse(f"{key} is {token_id}, and there are {size:,} tokens")
        return token_id

    def refuse(self, what: str) -> NoReturn:
        """Raise the error for a file that can be read and holds something else than is needed."""
        raise CheckpointError(
            f"{self.path}: {what}. Fetch it again, or name another: a model that llama.cpp calls 'llama'."
        )

    def refuse_tokenizer(self, what: str) -> NoReturn:
        """Raise the error for a tokenizer whose ids would be others here."""
        raise TokenizerError(f"{self.path}: {what}. Name another: its ids would be others here.")


# --------------------------------------------------------------------------------------------- the file and its numbers


def _read(path: Path, context: int) -> tuple[LlamaConfig, Tensors, _Metadata]:
    """Read all of a file but its tokenizer: nothing is computed before names, shapes and types have been checked."""
    _require_packages()
    _check_magic(path)
    try:
        reader = _open(path)
        values = {name: field.contents() for name, field in reader.fields.items()}
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    except Exception as error:  # a damaged file can fail in any way at all
        raise CheckpointError(f"{path} is damaged or cut short ({error}): fetch it again.") from error
    matrices = tuple(sorted({tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1}))
    metadata = _Metadata(path, values, matrices)
    names = {_own_name(tensor.name): tensor for tensor in reader.tensors}
    config = _config(metadata, context, n_tensors=len(names), tied="output.weight" not in names)
    shapes = tensor_shapes(config)
    if config.tie_word_embeddings:
        del shapes["output.weight"]
    _check_tensors(metadata, shapes, names)
    tensors = {name: _floats(names[name]) for name in shapes}
    check_finite(path, tensors)
    if config.tie_word_embeddings:
        tensors["output.weight"] = tensors["tok_embeddings.weight"]
    return config, tensors, metadata


def _require_packages() -> None:
    """Raise MissingDependency, for both packages at once."""
    try:
        import gguf  # noqa: F401
        import tokenizers  # noqa: F401
    except ImportError as error:
        raise MissingDependency("importing a GGUF file", "gguf", "tokenizers") from error


def _check_magic(path: Path) -> None:
    """Raise CheckpointError unless there is a file that begins as GGUF files do."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}: name a .gguf file. `./setup.sh --only smollm2` fetches one.")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    if start != b"GGUF":
        raise CheckpointError(f"{path} is no GGUF file: it begins with {start!r}. Fetch it again, or name another.")


def _open(path: Path) -> Any:
    """Return the package's reader, which maps the file into memory."""
    from gguf import GGUFReader

    class Reader(GGUFReader):  # type: ignore[misc]  # the package has no complete types
        """A reader that notices the end of the file: the package's own takes what is there, for ever if need be."""

        def _get(self, offset: int, dtype: Any, count: int = 1, *order: Any, **more: Any) -> Any:
            found = super()._get(offset, dtype, count, *order, **more)
            if len(found) < int(count):
                raise ValueError(f"it ends before byte {offset + int(count) * np.dtype(dtype).itemsize:,}")
            return found

    return Reader(path)


def _own_name(name: str) -> str:
    """Translate the name of a tensor; of one that no Llama here has, it comes back as it is."""
    ours = {f"{theirs}.weight": f"{our}.weight" for our, theirs in NAMES.items()}
    in_layers = {theirs: our for our, theirs in LAYER_NAMES.items()}
    if found := re.fullmatch(r"blk\.([0-9]+)\.(\w+)\.weight", name):
        return f"layers.{found[1]}.{in_layers[found[2]]}.weight" if found[2] in in_layers else name
    return ours.get(name, name)


def _config(metadata: _Metadata, context: int, *, n_tensors: int, tied: bool) -> LlamaConfig:
    """Translate the sizes. Raises CheckpointError for a model that this Llama cannot be."""
    _check_settings(metadata)
    sizes: dict[str, Any] = {ours: metadata.take(theirs, int) for ours, theirs in SIZES.items()}
    if not 0 < sizes["n_layers"] <= n_tensors:  # keeps an absurd number from building an absurd list
        metadata.refuse(f"{SIZES['n_layers']} is {sizes['n_layers']:,}, and there are {n_tensors} tensors")
    sizes["vocab_size"] = metadata.get(VOCAB_SIZE, len(metadata.take("tokenizer.ggml.tokens", list)))
    sizes["n_kv_heads"] = metadata.get(KV_HEADS, sizes["n_heads"])
    sizes["max_seq_len"] = min(context, sizes["max_seq_len"])
    sizes["layer_norm_eps"] = _shortest(metadata.take(EPSILON, float))
    sizes["rope_theta"] = _shortest(metadata.get(THETA, LlamaConfig.rope_theta))
    if sizes["dim"] > 0 and sizes["hidden_dim"] == feed_forward_width(sizes["dim"], LlamaConfig.multiple_of):
        del sizes["hidden_dim"]
    pad_id = metadata.token_id("tokenizer.ggml.padding_token_id", metadata.token_id("tokenizer.ggml.eos_token_id"))
    try:
        config = LlamaConfig(**sizes, pad_id=pad_id, tie_word_embeddings=tied)
    except ValueError as error:
        metadata.refuse(f"it does not describe a Llama: {error}")
    head_dim = config.dim // config.n_heads
    for key in HEAD_DIMS:
        if (width := metadata.get(key, head_dim)) != head_dim:
            metadata.refuse(f"{key} is {width}, and here it is dim / n_heads = {head_dim}")
    return config


def _check_settings(metadata: _Metadata) -> None:
    """Raise CheckpointError for another architecture, or a setting that the Llama here does not have."""
    if (architecture := metadata.take("general.architecture", str)) != "llama":
        metadata.refuse(f"it holds a model of architecture {architecture!r}")
    if unknown := sorted(key for key in metadata.values if key.startswith("llama.") and key not in KNOWN):
        metadata.refuse(f"it sets {', '.join(unknown)}, and the Llama here has no such thing")
    for key, harmless in HARMLESS.items():
        if (value := metadata.get(key, harmless)) != harmless:
            metadata.refuse(f"{key} is {value!r}, and the Llama here has no such thing")


def _shortest(value: float) -> float:
    """Return what was meant by a number that the file stores in float32: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _check_tensors(metadata: _Metadata, shapes: dict[str, tuple[int, ...]], tensors: dict[str, Any]) -> None:
    """Raise CheckpointError unless the tensors are those of the configuration, in its shapes and in types we read."""
    if missing := [name for name in shapes if name not in tensors]:
        metadata.refuse(f"{len(missing)} tensors are missing, the first is {missing[0]}")
    if unexpected := [tensor.name for name, tensor in tensors.items() if name not in shapes]:
        metadata.refuse(f"{len(unexpected)} tensors belong to no Llama here, the first is {unexpected[0]}")
    for name, expected in shapes.items():
        tensor = tensors[name]
        shape = tuple(map(int, reversed(tensor.shape)))  # GGUF counts from the innermost dimension
        if shape != expected:
            metadata.refuse(f"{tensor.name} has shape {shape}, its sizes ask for {expected}")
        if (kind := tensor.tensor_type.name) not in READ_TYPES:
            metadata.refuse(f"{tensor.name} is stored as {kind}, and not as {', '.join(READ_TYPES)}")


def _floats(tensor: Any) -> torch.Tensor:
    """Return the numbers of a tensor in float32, in memory of their own."""
    from gguf.quants import dequantize

    return torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))


def _storage(metadata: _Metadata, tensors: Tensors) -> torch.dtype:
    """Return the dtype in which a directory keeps the weights: float16 wherever that loses nothing to speak of."""
    if "F32" in metadata.matrix_types:
        return torch.float32
    largest = max(float(tensor.abs().max()) for tensor in tensors.values())
    return torch.float16 if largest <= torch.finfo(torch.float16).max else torch.float32


# -------------------------------------------------------------------------------------------------------- the tokenizer


def _write_tokenizer(metadata: _Metadata, config: LlamaConfig, folder: Path) -> Path:
    """Write the tokenizer's two files into a folder, and return the path of its `tokenizer.json`."""
    from tokenizers import AddedToken, decoders
    from tokenizers import Tokenizer as JsonTokenizer

    if (kind := metadata.take("tokenizer.ggml.model", str)) != "gpt2":
        metadata.refuse_tokenizer(f"its tokenizer is llama.cpp's {kind!r}, and what is read here is 'gpt2'")
    tokens, special = _tokens(metadata, config)
    tokenizer = JsonTokenizer(_merges(metadata, tokens))
    tokenizer.pre_tokenizer = _splitter(metadata)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    path = folder / "tokenizer.json"
    path.write_text(tokenizer.to_str(pretty=True), encoding="utf-8")
    end = metadata.token_id("tokenizer.ggml.eos_token_id")
    roles = {"bos_token": _begin(metadata, special), "eos_token": tokens[end], "pad_token": tokens[config.pad_id]}
    path.with_name(TOKENIZER_CONFIG).write_text(json.dumps(roles, indent=2) + "\n", encoding="utf-8")
    return path


def _tokens(metadata: _Metadata, config: LlamaConfig) -> tuple[list[str], list[str]]:
    """Return the tokens by id, and those of them that no text holds."""
    tokens = metadata.take_list("tokenizer.ggml.tokens", str)
    types = metadata.take_list("tokenizer.ggml.token_type", int)
    if not len(tokens) == len(types) == config.vocab_size:
        counts = f"{len(tokens)} tokens, {len(types)} types of tokens and {config.vocab_size} embeddings"
        metadata.refuse_tokenizer(f"it has {counts}, which must be as many")
    if len(set(tokens)) < len(tokens):
        metadata.refuse_tokenizer("it has a token twice")
    if others := sorted(set(types) - {NORMAL, CONTROL}):
        token = tokens[types.index(others[0])]
        metadata.refuse_tokenizer(f"its token {token!r} is of type {others[0]}, neither text nor special")
    return tokens, [token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL]


def _merges(metadata: _Metadata, tokens: list[str]) -> Any:
    """Return the model that merges bytes."""
    from tokenizers import models

    parts = (merge.partition(" ") for merge in metadata.take_list("tokenizer.ggml.merges", str))
    merges = [(left, right) for left, _, right in parts]
    try:
        return models.BPE({token: i for i, token in enumerate(tokens)}, merges)
    except Exception as error:  # the package raises nothing narrower
        raise TokenizerError(f"{metadata.path}: its merges do not fit its tokens ({error}). Fetch it again.") from error


def _splitter(metadata: _Metadata) -> Any:
    """Return how text is cut before bytes are merged. Raises TokenizerError for a way that is not known here."""
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence, Split

    name = metadata.take("tokenizer.ggml.pre", str)
    if name == "smollm":  # each digit by itself, the rest as GPT-2 does, whose rule is ByteLevel's own
        return Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)])
    patterns = {theirs: pattern for pattern, theirs in reversed(SPLITS.items())}  # the first of a name, not the last
    if name not in patterns:
        known = ", ".join(["smollm", *patterns])
        metadata.refuse_tokenizer(f"its text is cut into words by llama.cpp's rule {name!r}, and known here is {known}")
    split = Split(Regex(patterns[name]), "isolated")
    return Sequence([split, ByteLevel(add_prefix_space=False, use_regex=False)])


def _begin(metadata: _Metadata, special: list[str]) -> str:
    """Return the token that begins a text.

    Where the file asks for a token in front of each text (`add_bos_token`), that one does. SmolLM2's does not: the bos
    of its metadata, `<|im_start|>`, opens a turn of a conversation, and llama.cpp puts nothing in front. Yet something
    must stand there, since the first token is predicted from it, and the token between the documents of its training is
    `<|endoftext|>`. Measured on 100 sentences of SST, mean loss of the next token in nats, the first token included:
    5.40 behind `<|endoftext|>`, 5.52 behind `<|im_start|>`; without the first token 5.27, 5.33, and 5.47 behind none.
    """
    tokens: list[str] = metadata.take_list("tokenizer.ggml.tokens", str)
    begin = metadata.token_id("tokenizer.ggml.bos_token_id", metadata.token_id("tokenizer.ggml.eos_token_id"))
    asked = metadata.get("tokenizer.ggml.add_bos_token", False)
    return END_OF_TEXT if not asked and END_OF_TEXT in special else tokens[begin]


def _readme(metadata: _Metadata, config: LlamaConfig, dtype: torch.dtype) -> str:
    """Say what the folder holds, where it comes from, and under which licence."""
    name = metadata.get("general.name", metadata.path.stem)
    maker = metadata.get("general.organization", "a maker that the file does not name")
    licence = metadata.get("general.license", "not stated in the file; ask where you got it")
    whole = metadata.take(SIZES["max_seq_len"], int)
    cut = f"; the model was made for {whole:,}" if whole > config.max_seq_len else ""
    return (
        f"# {name}\n\n"
        f"A Llama by {maker}, imported from `{metadata.path.name}` (GGUF).\n\n"
        f"- SHA-256 of that file: {sha256_of(metadata.path)}\n"
        f"- licence: {licence}\n"
        f"- the file stores the matrices as {', '.join(metadata.matrix_types)}; this folder in {str(dtype)[6:]}\n"
        f"- context: {config.max_seq_len:,} tokens{cut}\n"
    )

"""Files of weights: what is in them, checked to the last shape before any of it is used.

Three kinds are read, told apart by their content: training checkpoints of llama2.c (`.pt`, with its names
`wq wk wv wo` or this assignment's `compute_*`), checkpoints that this project saved, and llama2.c's exported `.bin`
(version 0). Directories are read as well: this project's own, which `write_directory` makes, with everything that a
model needs, and those of Hugging Face's `LlamaForCausalLM`.
"""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from config import LlamaConfig, feed_forward_width
from errors import CheckpointError
from hf_format import config_from, is_llama, tensors_from
from safetensors_file import read_safetensors, write_safetensors
from tokenizer import TOKENIZER_CONFIG
from utils import atomic_path, write_text

Tensors = dict[str, torch.Tensor]

# Meta's name of a projection -> this assignment's.
ATTENTION_NAMES = {"wq": "compute_query", "wk": "compute_key", "wv": "compute_value", "wo": "compute_output"}
# What llama2.c calls a size -> what LlamaConfig calls it.
RENAMED_SIZES = {"norm_eps": "layer_norm_eps"}
REQUIRED_SIZES = ("dim", "n_layers", "n_heads", "vocab_size", "multiple_of", "max_seq_len")
# What every reader of llama2.c's checkpoints expects to find in `model_args`.
LLAMA2C_SIZES = (*REQUIRED_SIZES, "n_kv_heads")

# The header of llama2.c's export, each an int32.
BIN_SIZES = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "max_seq_len")
BIN_MAGIC = 0x616B3432  # "ak42": llama2.c's exports of version 1 and later start with it

# What a checkpoint directory holds, besides a tokenizer.
CONFIG_FILE, WEIGHTS_FILE, README_FILE = "config.json", "model.safetensors", "README.md"
INDEX_FILE = "model.safetensors.index.json"  # Hugging Face's, where the weights are in several files
FORMAT = "min-llama"  # the "format" in the config.json of our own directories
TOKENIZER_NAMES = {".model": "tokenizer.model", ".json": "tokenizer.json"}
# The weights that setup.sh fetches, by the names of their files; of others nobody here knows where they come from.
FETCHED_WEIGHTS = ("stories42M", "stories15M", "stories260K")


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[LlamaConfig, Tensors]:
    """Return the configuration and the tensors of a checkpoint, under the names of `llama.Llama`, in float32.

    The tensors are exactly those that the configuration asks for, in its shapes; tied embeddings come as one tensor
    under two names. Raises CheckpointError, which names the file, what is wrong with it, and what to do.
    """
    path = Path(path)
    if path.is_dir():
        return _read_directory(path)
    _require_file(path)
    is_torch_file = path.suffix != ".bin" or _is_zip(path)
    config, tensors = _read_torch(path) if is_torch_file else _read_bin(path)
    _check_shapes(path, config, tensors)
    return config, tensors


def write_checkpoint(
    path: str | os.PathLike[str], config: LlamaConfig, tensors: Mapping[str, torch.Tensor], **extra: Any
) -> None:
    """Save a checkpoint atomically, in the form of llama2.c's training checkpoints with this assignment's names.

    `extra` is saved beside the weights; it may hold numbers, strings, lists, dicts and tensors, nothing else.
    """
    defaults = asdict(LlamaConfig())
    sizes = {name: value for name, value in asdict(config).items() if name in LLAMA2C_SIZES or value != defaults[name]}
    save_torch_file(path, {"model_args": sizes, "model": dict(tensors), **extra})


def write_directory(
    folder: str | os.PathLike[str],
    config: LlamaConfig,
    tensors: Mapping[str, torch.Tensor],
    tokenizer_file: str | os.PathLike[str] | None = None,
    readme: str = "",
    dtype: torch.dtype = torch.float32,
) -> None:
    """Save a checkpoint as a directory that needs nothing else: weights, config.json, tokenizer and README.md.

    The weights are stored in `dtype`, in full also where modules share them; only a tied output matrix is left out.
    `tokenizer_file` is a SentencePiece `.model` or a `tokenizer.json`. Each file is written atomically, and config.json
    last: whenever the writer is killed, the folder is the old checkpoint, the new one, or refused by
    `read_checkpoint`; of one model's checkpoints over another (same config and tokenizer) it is always the old or
    the new. Raises CheckpointError if the tensors are not those of `config`, do not fit `dtype`, or the disk is full.
    """
    folder = Path(folder)
    tensors = _directory_tensors(folder, config, tensors, dtype)
    text = json.dumps({"format": FORMAT, **asdict(config)}, indent=2) + "\n"
    tokenizer = _tokenizer_files(tokenizer_file)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not _describes_the_same(folder, text, tokenizer):
            (folder / CONFIG_FILE).unlink(missing_ok=True)
        for name in (*TOKENIZER_NAMES.values(), TOKENIZER_CONFIG):
            if name not in tokenizer:
                (folder / name).unlink(missing_ok=True)
        for name, source in tokenizer.items():
            if not _same_bytes(folder / name, source):
                with atomic_path(folder / name) as temporary:
                    shutil.copyfile(source, temporary)
        write_safetensors(folder / WEIGHTS_FILE, tensors)
        write_text(folder / README_FILE, readme)
        write_text(folder / CONFIG_FILE, text)
    except OSError as error:
        hint = "is the disk full?" if error.errno == errno.ENOSPC else "check the path and its permissions"
        raise CheckpointError(f"{folder} cannot be written ({error.strerror}): {hint}") from error


def save_torch_file(path: str | os.PathLike[str], content: dict[str, Any]) -> None:
    """Save a dictionary of plain data and tensors, atomically. Raises CheckpointError if there is no room for it."""
    try:
        with atomic_path(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:  # PyTorch's word for a full disk
        raise CheckpointError(f"{path} cannot be written: is the disk full?") from error


def load_torch_file(path: str | os.PathLike[str], *, memory_map: bool = False) -> dict[str, Any]:
    """Return the dictionary in a file that `torch.save` wrote; nothing in the file can run code.

    With `memory_map`, tensors are read from the disk when they are first used: the file must stay until then.
    Raises CheckpointError if the file is damaged, no torch file, or holds anything but plain data and tensors.
    """
    path = Path(path)
    _require_file(path)
    try:
        memory_map = memory_map and _is_zip(path)  # files of PyTorch before 1.6 are no zip and cannot be mapped
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=memory_map)
    except Exception as error:  # a damaged file can fail in any way at all
        raise CheckpointError(_why_unreadable(path, error)) from error
    if not isinstance(content, dict):
        raise _not_a_llama(path, f"holds a {type(content).__name__}, not the dictionary that a checkpoint is")
    return content


def check_finite(path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError if a tensor holds a NaN or an infinity."""
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise CheckpointError(f"{path}: tensor {name} holds values that are not finite. Fetch the file again.")


def tensor_shapes(config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and the shape of every tensor of a Llama with this configuration."""
    dim, kv_dim = config.dim, config.dim // config.n_heads * (config.n_kv_heads or config.n_heads)
    hidden_dim = config.hidden_dim or feed_forward_width(dim, config.multiple_of)
    layer = {
        "attention.compute_query.weight": (dim, dim),
        "attention.compute_key.weight": (kv_dim, dim),
        "attention.compute_value.weight": (kv_dim, dim),
        "attention.compute_output.weight": (dim, dim),
        "feed_forward.w1.weight": (hidden_dim, dim),
        "feed_forward.w2.weight": (dim, hidden_dim),
        "feed_forward.w3.weight": (hidden_dim, dim),
        "attention_norm.weight": (dim,),
        "ffn_norm.weight": (dim,),
    }
    shapes: dict[str, tuple[int, ...]] = {"tok_embeddings.weight": (config.vocab_size, dim)}
    for layer_id in range(config.n_layers):
        shapes |= {f"layers.{layer_id}.{name}": shape for name, shape in layer.items()}
    return shapes | {"norm.weight": (dim,), "output.weight": (config.vocab_size, dim)}


def _read_directory(folder: Path) -> tuple[LlamaConfig, Tensors]:
    """Read a checkpoint directory, ours or Hugging Face's."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{folder} is a folder, not a file of weights, and without {CONFIG_FILE} no checkpoint directory either. "
            + _how_to_get(folder)
        )
    content = _read_json(path)
    is_ours = content.get("format") == FORMAT
    if is_ours:
        config = _own_config(path, content)
    elif is_llama(content):
        config = _hf_config(path, content)
    else:
        kind = content.get("model_type") or content.get("architectures") or content.get("format")
        raise _not_a_llama(path, f"describes a model of type {kind!r}, neither {FORMAT!r} nor a LlamaForCausalLM")
    weights = folder / WEIGHTS_FILE
    found = read_safetensors(weights) if is_ours or weights.is_file() else _read_shards(folder)
    if not is_ours:
        found = tensors_from(found, config)
    tensors = _as_floats(weights, found)
    if config.tie_word_embeddings:
        _share_embedding(weights, tensors)
    _check_shapes(weights, config, tensors, asking=CONFIG_FILE)
    return config, tensors


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    except (ValueError, RecursionError) as error:
        raise _not_a_llama(path, f"is no JSON ({error})") from error
    if not isinstance(content, dict):
        raise _not_a_llama(path, f"holds a {type(content).__name__}, not the object that describes a model")
    return content


def _own_config(path: Path, content: dict[str, Any]) -> LlamaConfig:
    """Build the configuration from the config.json of our own directories, whose every key must be known."""
    sizes = {name: value for name, value in content.items() if name != "format"}
    if unknown := sorted(sizes.keys() - asdict(LlamaConfig()).keys()):
        raise _not_a_llama(path, f"has keys that no Llama here knows: {', '.join(unknown)}")
    if missing := [name for name in REQUIRED_SIZES if name not in sizes]:
        raise _not_a_llama(path, f"lacks {', '.join(missing)}")
    try:
        return LlamaConfig(**sizes)
    except (ValueError, TypeError) as error:
        raise _not_a_llama(path, f"does not describe a Llama: {error}") from error


def _hf_config(path: Path, content: dict[str, Any]) -> LlamaConfig:
    """Translate Hugging Face's config.json."""
    try:
        return config_from(content)
    except (ValueError, TypeError) as error:
        raise _not_a_llama(path, f"does not describe a Llama that can be read here: {error}") from error


def _read_shards(folder: Path) -> Tensors:
    """Read Hugging Face's weights in several files, which an index lists: each tensor must be where it says."""
    index = folder / INDEX_FILE
    if not index.is_file():
        raise _not_a_llama(folder, f"holds neither {WEIGHTS_FILE} nor {INDEX_FILE}, and other forms are not read")
    places = _read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(file, str) for file in places.values()):
        raise _not_a_llama(index, "has no weight_map of names and files")
    tensors: Tensors = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:
            raise _not_a_llama(index, f"names {file!r}, which is no file of this folder")
        shard = read_safetensors(folder / file)
        expected = {name for name, place in places.items() if place == file}
        if wrong := sorted(shard.keys() ^ expected):
            where = "in the file and not in the index" if wrong[0] in shard else "in the index and not in the file"
            raise _not_a_llama(folder / file, f"does not fit its index: {wrong[0]} is {where}")
        tensors |= shard
    return tensors


def _as_floats(path: Path, tensors: Tensors) -> Tensors:
    """Return tensors of any floating dtype in float32."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise _not_a_llama(path, f"{name} is of {tensor.dtype}, and weights are floating-point numbers")
    return {name: tensor.float() for name, tensor in tensors.items()}


def _share_embedding(path: Path, tensors: Tensors) -> None:
    """Let the output matrix be the embedding; the file may hold it a second time, but no other one."""
    embedding, output = tensors.get("tok_embeddings.weight"), tensors.get("output.weight")
    if embedding is None:
        return  # the check of names reports it
    if output is not None and not _are_equal(embedding, output):
        raise _not_a_llama(path, f"its output matrix is not its embedding, and {CONFIG_FILE} ties the two")
    tensors["output.weight"] = embedding


def _directory_tensors(
    folder: Path, config: LlamaConfig, tensors: Mapping[str, torch.Tensor], dtype: torch.dtype
) -> Tensors:
    """Return what a directory stores of a model: checked, in `dtype`, and without a tied output matrix."""
    path = folder / WEIGHTS_FILE
    found = {_own_name(name): tensor.detach().cpu() for name, tensor in tensors.items()}
    if config.tie_word_embeddings:
        _share_embedding(path, found)
    _check_shapes(path, config, found, asking="its configuration")
    if config.tie_word_embeddings:
        del found["output.weight"]
    stored = {name: tensor.to(dtype) for name, tensor in found.items()}
    for name, tensor in stored.items():
        if not torch.equal(tensor.isfinite(), found[name].isfinite()):
            raise CheckpointError(f"{path}: {name} holds values too large for {dtype}. Save it in torch.float32.")
    return stored


def _tokenizer_files(tokenizer_file: str | os.PathLike[str] | None) -> dict[str, Path]:
    """Return which files hold a tokenizer, by the names that they get in a checkpoint directory."""
    if tokenizer_file is None:
        return {}
    path = Path(tokenizer_file)
    if path.suffix not in TOKENIZER_NAMES or not path.is_file():
        raise CheckpointError(
            f"{path} cannot go into a checkpoint directory: name a SentencePiece .model or a tokenizer.json."
        )
    config = path.with_name(TOKENIZER_CONFIG)
    has_config = path.suffix == ".json" and config.is_file()
    return {TOKENIZER_NAMES[path.suffix]: path} | ({TOKENIZER_CONFIG: config} if has_config else {})


def _describes_the_same(folder: Path, config: str, tokenizer: dict[str, Path]) -> bool:
    """Say whether a folder holds a checkpoint with this config.json and this tokenizer already."""
    path = folder / CONFIG_FILE
    if not path.is_file() or path.read_bytes() != config.encode():
        return False
    old = {name for name in (*TOKENIZER_NAMES.values(), TOKENIZER_CONFIG) if (folder / name).exists()}
    return old == set(tokenizer) and all(_same_bytes(folder / name, source) for name, source in tokenizer.items())


def _same_bytes(first: Path, second: Path) -> bool:
    """Say whether two files hold the same; one that is not there differs from every other."""
    return first.is_file() and first.read_bytes() == second.read_bytes()


def _is_zip(path: Path) -> bool:
    """Say whether the file starts as a zip archive does, the container that `torch.save` writes."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _read_torch(path: Path) -> tuple[LlamaConfig, Tensors]:
    """Read a `.pt` checkpoint: `model_args` and `model`."""
    content = load_torch_file(path, memory_map=True)
    sizes, model = content.get("model_args"), content.get("model")
    if not isinstance(sizes, dict) or not isinstance(model, dict):
        keys = ", ".join(sorted(map(str, content))[:8])
        raise _not_a_llama(
            path, f"is no Llama checkpoint: it needs 'model_args' and 'model', it holds {keys or 'nothing'}"
        )
    tensors: Tensors = {}
    for name, tensor in model.items():
        if not isinstance(tensor, torch.Tensor):
            raise _not_a_llama(path, f"'model' holds a {type(tensor).__name__} under {name!r}, not a tensor")
        if tensor.layout != torch.strided or (tensor.is_complex() and not _own_name(str(name)).startswith("freqs_")):
            raise _not_a_llama(path, f"{name} is {tensor.layout} of {tensor.dtype}, not an array of real numbers")
        own_name = _own_name(str(name))
        if own_name in tensors:
            raise _not_a_llama(path, f"two tensors stand for {own_name}")
        if not own_name.startswith("freqs_"):  # old checkpoints hold RoPE's tables, which we compute
            tensors[own_name] = tensor.float()
    tied = _tie(tensors)
    return _config_from(path, {**sizes, "tie_word_embeddings": tied}), tensors


def _config_from(path: Path, sizes: dict[Any, Any]) -> LlamaConfig:
    """Build the configuration from `model_args`, whose every key must be known."""
    sizes = {RENAMED_SIZES.get(name, name): value for name, value in sizes.items()}
    known = {field.name for field in fields(LlamaConfig)}
    if unknown := sorted(str(name) for name in sizes if name not in known):
        raise _not_a_llama(path, f"model_args has keys that no Llama here knows: {', '.join(unknown)}")
    if missing := [name for name in REQUIRED_SIZES if name not in sizes]:
        raise _not_a_llama(path, f"model_args lacks {', '.join(missing)}")
    sizes.setdefault("n_kv_heads", None)  # llama2.c: as many as n_heads
    try:
        return LlamaConfig(**sizes)
    except (ValueError, TypeError) as error:
        raise _not_a_llama(path, f"model_args do not describe a Llama: {error}") from error


def _own_name(name: str) -> str:
    """Translate a tensor's name: without `torch.compile`'s prefix, and with this assignment's attention names."""
    name = name.removeprefix("_orig_mod.")
    return re.sub(r"\.attention\.(w[qkvo])\.", lambda match: f".attention.{ATTENTION_NAMES[match[1]]}.", name)


def _tie(tensors: Tensors) -> bool:
    """Say whether the output matrix is the embedding; if so, let both names share one tensor."""
    embedding, output = tensors.get("tok_embeddings.weight"), tensors.get("output.weight")
    if embedding is None or (output is not None and not _are_equal(embedding, output)):
        return False
    tensors["output.weight"] = embedding
    return True


def _are_equal(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Say whether two tensors hold the same; of one that a file has under two names, nothing is read for that."""
    is_one = first.data_ptr() == second.data_ptr() and first.shape == second.shape and first.stride() == second.stride()
    return (is_one and first.dtype == second.dtype) or torch.equal(first, second)


def _read_bin(path: Path) -> tuple[LlamaConfig, Tensors]:
    """Read llama2.c's export, version 0: seven sizes, then float32 weights, each matrix for all layers in turn."""
    if text := _why_no_weights(path):
        raise CheckpointError(text)
    config = _config_from(path, _read_bin_sizes(path))
    actual = path.stat().st_size
    if actual < 4 * config.n_layers * config.dim:  # also keeps an absurd header from building an absurd layout
        raise CheckpointError(_cut_short(path))
    layout = bin_layout(config)
    expected = 4 * (len(BIN_SIZES) + sum(count * math.prod(shape) for _, count, shape in layout))
    if actual < expected:
        raise CheckpointError(_cut_short(path, expected))
    if actual > expected:
        raise _not_a_llama(path, f"is no export of version 0: its sizes ask for {expected:,} bytes, not {actual:,}")
    # A private memory map: weights are read from disk when they are first used, and never written back.
    floats = torch.from_file(str(path), shared=False, size=actual // 4, dtype=torch.float32)
    return config, _cut_into_tensors(floats[len(BIN_SIZES) :], layout, config.tie_word_embeddings)


def _read_bin_sizes(path: Path) -> dict[str, Any]:
    """Read the header, as `model_args` would state it."""
    header = np.fromfile(path, dtype="<i4", count=len(BIN_SIZES))
    if len(header) and header[0] == BIN_MAGIC:
        raise CheckpointError(f"{path} is an export of llama2.c of version 1 or later: export it with --version 0.")
    if len(header) < len(BIN_SIZES):
        raise CheckpointError(_cut_short(path))
    sizes: dict[str, Any] = dict(zip(BIN_SIZES, map(int, header), strict=True))
    sizes["tie_word_embeddings"] = sizes["vocab_size"] > 0  # a negative vocabulary marks an output matrix of its own
    sizes["vocab_size"] = abs(sizes["vocab_size"])
    sizes["multiple_of"] = LlamaConfig.multiple_of  # not in the file; the width of the hidden layer is
    if sizes["dim"] > 0 and sizes["hidden_dim"] == feed_forward_width(sizes["dim"], LlamaConfig.multiple_of):
        del sizes["hidden_dim"]
    return sizes


def bin_layout(config: LlamaConfig) -> list[tuple[str, int, tuple[int, ...]]]:
    """Return what stands in the file, in order: name (with {} for the layer), number of layers, shape in one layer."""
    shapes, n_layers = tensor_shapes(config), config.n_layers
    in_layers = (
        *("attention_norm", "attention.compute_query", "attention.compute_key", "attention.compute_value"),
        *("attention.compute_output", "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"),
    )
    rope_table = (config.max_seq_len, config.dim // config.n_heads // 2)
    layout = [("tok_embeddings.weight", 1, shapes["tok_embeddings.weight"])]
    layout += [(f"layers.{{}}.{name}.weight", n_layers, shapes[f"layers.0.{name}.weight"]) for name in in_layers]
    layout += [("norm.weight", 1, shapes["norm.weight"]), ("freqs_cos", 1, rope_table), ("freqs_sin", 1, rope_table)]
    return layout if config.tie_word_embeddings else [*layout, ("output.weight", 1, shapes["output.weight"])]


def _cut_into_tensors(floats: torch.Tensor, layout: list[tuple[str, int, tuple[int, ...]]], tied: bool) -> Tensors:
    """Cut the run of floats into named tensors, without copying it."""
    tensors: Tensors = {}
    for name, count, shape in layout:
        size = math.prod(shape)
        for layer_id in range(count):
            tensors[name.format(layer_id)] = floats[:size].view(shape)
            floats = floats[size:]
    del tensors["freqs_cos"], tensors["freqs_sin"]
    if tied:
        tensors["output.weight"] = tensors["tok_embeddings.weight"]
    return tensors


def _check_shapes(path: Path, config: LlamaConfig, tensors: Tensors, asking: str = "model_args") -> None:
    """Raise CheckpointError unless the tensors are those of the configuration, no more, no fewer.

    `asking` is what the configuration stands in.
    """
    ask = "ask" if asking == "model_args" else "asks"
    if config.n_layers > len(tensors):
        raise _not_a_llama(path, f"{asking} {ask} for {config.n_layers} layers, the file has {len(tensors)} tensors")
    shapes = tensor_shapes(config)
    if missing := [name for name in shapes if name not in tensors]:
        raise _not_a_llama(path, f"{len(missing)} tensors are missing, the first is {missing[0]}")
    if unexpected := [name for name in tensors if name not in shapes]:
        raise _not_a_llama(path, f"{len(unexpected)} tensors belong to no Llama, the first is {unexpected[0]}")
    for name, shape in shapes.items():
        if tuple(tensors[name].shape) != shape:
            raise _not_a_llama(path, f"{name} has shape {tuple(tensors[name].shape)}, {asking} {ask} for {shape}")


def _not_a_llama(path: Path, what: str) -> CheckpointError:
    """Return the error for a file that can be read and holds something else than a Llama."""
    return CheckpointError(f"{path}: {what}. {_how_to_get(path)}")


def _how_to_get(path: Path) -> str:
    """Say what to do about weights that are missing or of no use; never to delete what cannot be fetched again."""
    if path.stem in FETCHED_WEIGHTS:
        return f"Fetch it with `./setup.sh --only {path.stem}` (delete the old file first, if there is one)."
    return "Check the path, or how the file was made and copied."


def _require_file(path: Path) -> None:
    """Raise CheckpointError unless there is a file that can be opened."""
    if not path.is_file():
        what = "is a folder, not a file of weights" if path.is_dir() else "does not exist"
        raise CheckpointError(f"{path} {what}. {_how_to_get(path)}")
    try:
        path.open("rb").close()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error


def _cut_short(path: Path, expected: int | None = None) -> str:
    """Describe a file that ends too early."""
    size = f"{path.stat().st_size:,} bytes" + (f" of {expected:,}" if expected else "")
    return f"{path} is cut short: it has {size}. {_how_to_get(path)}"


def _why_no_weights(path: Path) -> str | None:
    """Say what a download left instead of weights, or None."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return f"{path} is a web page, not a checkpoint: a download went wrong. {_how_to_get(path)}"
    if start.startswith(b"version https://git-lfs"):
        return f"{path} is a Git LFS pointer, not the checkpoint itself. {_how_to_get(path)}"
    return None


def _why_unreadable(path: Path, error: Exception) -> str:
    """Say what is wrong with a file that `torch.load` could not read, in the reader's terms."""
    if text := _why_no_weights(path):
        return text
    with path.open("rb") as file:
        start = file.read(2).lower()
    if start.startswith(b"pk"):
        if "weights_only" in str(error).lower() or "unpickl" in type(error).__name__.lower():
            return f"{path} holds objects besides tensors and plain data, which could run code: it is not read."
        size = f"{path.stat().st_size:,} bytes"
        return f"{path} is damaged or cut short ({size}): was a download not finished? {_how_to_get(path)}"
    return f"{path} is no checkpoint ({path.stat().st_size:,} bytes, {type(error).__name__}). {_how_to_get(path)}"

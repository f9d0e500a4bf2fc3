"""A prepared corpus: token ids in flat files, the shards, which training maps into memory.

    DATA/manifest.json            what the other files are; written last, so that a folder without it is not finished
    DATA/train-00000.bin          the ids of one document after the other, in little-endian uint16, or in uint32 where
                                  the vocabulary has more than 65,536 entries
    DATA/train-00000.starts.bin   at which token each of these documents starts, in little-endian uint64
    DATA/validation-00000.bin     and so on for the other split
    DATA/tokenizer.model          the tokenizer that made the ids, or tokenizer.json

A document is its begin token, the ids of its text, and its end token; the begin token is left out where one token is
both. A document stands in one shard as a whole. `python -m pretrain prepare` writes such a folder (see `prepare.py`).
"""

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, get_args, get_origin

import numpy as np
import numpy.typing as npt

from errors import DataError
from utils import sha256_of

FORMAT = 1
MANIFEST = "manifest.json"
SPLITS = ("train", "validation")
TOKENIZERS = ("tokenizer.model", "tokenizer.json")
SHARD_TOKENS = 2**26  # unless one document has more
STARTS = np.dtype("<u8")
SHARD_NAME = re.compile(rf"({'|'.join(SPLITS)})-[0-9]{{5,}}\.bin")
AGAIN = "delete the folder, and make it again with `python -m pretrain prepare`"

Ids = npt.NDArray[np.unsignedinteger[Any]]


@dataclass(frozen=True)
class Shard:
    """A file of token ids, and how many tokens and documents are in it."""

    file: str
    tokens: int
    documents: int
    sha256: str

    @property
    def starts_file(self) -> str:
        """The name of the file that says where the documents start."""
        return self.file.removesuffix(".bin") + ".starts.bin"


@dataclass(frozen=True)
class Split:
    """The documents to train on, or those kept for validation; `text_bytes` counts their text in UTF-8."""

    tokens: int
    documents: int
    text_bytes: int
    shards: tuple[Shard, ...]

    def bits_per_byte(self, loss: float) -> float:
        """Turn a loss in nats a token into bits a byte of text, which can be compared across tokenizers."""
        return loss * self.tokens / self.text_bytes / math.log(2)


@dataclass(frozen=True)
class TokenizerFile:
    """The tokenizer in the folder."""

    file: str
    sha256: str
    vocab_size: int
    bos_id: int
    eos_id: int


@dataclass(frozen=True)
class Settings:
    """The options of `prepare` that decide what is in the shards."""

    validation: float
    shard_tokens: int
    clean: bool


@dataclass(frozen=True)
class Source:
    """A text file that the shards were made from."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Manifest:
    """What is in a folder of shards. `dtype` is `uint16` or `uint32`; `splits` has `train` and `validation`."""

    format: int
    dtype: str
    tokenizer: TokenizerFile
    settings: Settings
    sources: tuple[Source, ...]
    splits: dict[str, Split]


def id_dtype(vocab_size: int) -> np.dtype[Any]:
    """Return the type in which the ids of a vocabulary are stored."""
    return np.dtype("<u2") if vocab_size <= 2**16 else np.dtype("<u4")


# ---------------------------------------------------------------------------------------------------- the manifest


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of shards, and see that what it lists is there.

    Raises DataError, which names the file: if the folder is not prepared or its preparation was not finished, if the
    manifest is none or of another version, if a shard is missing or has another size than the manifest says, and if
    the tokenizer is not the one that made the ids.
    """
    manifest = parse_manifest(folder)
    _check_files(folder, manifest)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read the manifest of a folder of shards, and check it alone; raises DataError as `read_manifest` does."""
    path = folder / MANIFEST
    try:
        content: object = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(
            f"{folder} has no {MANIFEST}: it was not prepared, or not to the end. Run `python -m pretrain prepare`"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check its permissions") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not JSON ({error}): {AGAIN}") from error
    version = content.get("format") if isinstance(content, dict) else None
    if version != FORMAT:
        raise DataError(f"{path}: 'format' is {version!r}, and only {FORMAT} is known here: {AGAIN}")
    manifest: Manifest = _parse(Manifest, content, f"{path}: ")
    for problem in _contradictions(manifest):
        raise DataError(f"{path}: {problem}: {AGAIN}")
    return manifest


def _parse(kind: Any, value: Any, where: str) -> Any:
    """Turn parsed JSON into `kind`: a dataclass, a tuple or a dictionary of such, or a plain value."""
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        types = {field.name: field.type for field in dataclasses.fields(kind)}
        if odd := sorted(types.keys() ^ value.keys()):
            raise DataError(f"{where}{'no' if odd[0] in types else 'unknown'} key '{odd[0]}': {AGAIN}")
        return kind(**{name: _parse(types[name], value[name], f"{where}{name}: ") for name in types})  # type: ignore[operator]
    if get_origin(kind) is tuple and isinstance(value, list):
        return tuple(_parse(get_args(kind)[0], item, f"{where}{number}: ") for number, item in enumerate(value))
    if get_origin(kind) is dict and isinstance(value, dict):
        return {key: _parse(get_args(kind)[1], item, f"{where}{key}: ") for key, item in value.items()}
    if type(value) is not kind:
        raise DataError(f"{where}{value!r:.40} is of the wrong type: {AGAIN}")
    return value


def _contradictions(manifest: Manifest) -> Iterator[str]:
    """Yield what cannot be in a manifest that `prepare` wrote; file names among it, which must not lead elsewhere."""
    if manifest.dtype != id_dtype(manifest.tokenizer.vocab_size).name:
        yield f"'dtype' is {manifest.dtype!r:.40}, which is not that of {manifest.tokenizer.vocab_size} ids"
    if manifest.tokenizer.file not in TOKENIZERS:
        yield f"the tokenizer's file is {manifest.tokenizer.file!r:.40}, not {' or '.join(TOKENIZERS)}"
    if set(manifest.splits) != set(SPLITS):
        yield f"'splits' must be {' and '.join(SPLITS)}"
    for name, split in manifest.splits.items():
        if not all(SHARD_NAME.fullmatch(shard.file) and shard.tokens >= shard.documents > 0 for shard in split.shards):
            yield f"'{name}' has a shard that no preparation makes"
        for count in ("tokens", "documents"):
            if getattr(split, count) != sum(getattr(shard, count) for shard in split.shards) or not split.shards:
                yield f"the {count} of '{name}' are not the sum of those of its shards"


def _check_files(folder: Path, manifest: Manifest) -> None:
    """Raise DataError if a shard is missing or cut short, or if the tokenizer has changed."""
    for split in manifest.splits.values():
        for shard in split.shards:
            _check_size(folder / shard.file, shard.tokens * np.dtype(manifest.dtype).itemsize)
            _check_size(folder / shard.starts_file, shard.documents * STARTS.itemsize)
    tokenizer = folder / manifest.tokenizer.file
    if not tokenizer.is_file() or sha256_of(tokenizer) != manifest.tokenizer.sha256:
        state = "is not the tokenizer that made the shards" if tokenizer.is_file() else "is missing"
        raise DataError(f"{tokenizer} {state}: put that one back, or {AGAIN}")


def _check_size(path: Path, size: int) -> None:
    """Raise DataError unless the file is there and has `size` bytes."""
    found = path.stat().st_size if path.is_file() else None
    if found != size:
        state = "is missing" if found is None else f"has {found:,} bytes, and should have {size:,}"
        raise DataError(f"{path} {state}: {AGAIN}")


# ---------------------------------------------------------------------------------------------------- the ids


def open_split(folder: Path, manifest: Manifest, split: str) -> list["np.memmap[Any, Any]"]:
    """Map the shards of a split into memory, read-only: an array of ids for each, shape (tokens,)."""
    dtype = id_dtype(manifest.tokenizer.vocab_size)
    return [np.memmap(folder / shard.file, dtype=dtype, mode="r") for shard in manifest.splits[split].shards]


def check_contents(folder: Path, manifest: Manifest) -> None:
    """Read all shards, and raise DataError, which names the file, if one differs from what was written."""
    for split in manifest.splits.values():
        for shard in split.shards:
            if sha256_of(folder / shard.file) != shard.sha256:
                raise DataError(f"{folder / shard.file} is damaged: {AGAIN}")


# ---------------------------------------------------------------------------------------------------- writing


class SplitWriter:
    """Writes the shards of one split into a folder, a document at a time. Its methods raise OSError on a full disk."""

    def __init__(self, folder: Path, split: str, shard_tokens: int = SHARD_TOKENS) -> None:
        """Write nothing yet; a shard is closed before it has more than `shard_tokens` tokens, if it can be."""
        self.folder, self.split, self.shard_tokens = folder, split, shard_tokens
        self.shards: list[Shard] = []
        self.documents = self.text_bytes = 0
        self._files: list[IO[bytes]] = []  # of the shard that is being written: ids and starts
        self._tokens = self._shard_documents = 0
        self._checksum = hashlib.sha256()

    def add(self, ids: Ids, text_bytes: int) -> None:
        """Append the ids of a document, shape (tokens,), whose text has `text_bytes` bytes in UTF-8."""
        if self._tokens and self._tokens + len(ids) > self.shard_tokens:
            self._finish_shard()
        if not self._files:
            self._begin_shard()
        content = ids.tobytes()
        for file, data in zip(self._files, (content, self._tokens.to_bytes(STARTS.itemsize, "little")), strict=True):
            file.write(data)
        self._checksum.update(content)
        self._tokens += len(ids)
        self._shard_documents += 1
        self.documents += 1
        self.text_bytes += text_bytes

    def finish(self) -> Split:
        """Complete the last shard; return what the split holds."""
        if self._files:
            self._finish_shard()
        return Split(sum(shard.tokens for shard in self.shards), self.documents, self.text_bytes, tuple(self.shards))

    def close(self) -> None:
        """Let go of files that an error has left open."""
        for file in self._files:
            with suppress(OSError):  # what is still in its buffer finds no room either
                file.close()
        self._files = []

    def _begin_shard(self) -> None:
        """Open the files of the next shard."""
        shard = self._shard()
        for name in (shard.file, shard.starts_file):
            self._files.append((self.folder / name).open("wb"))

    def _finish_shard(self) -> None:
        """Bring the shard to the disk, and note what is in it."""
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        self.shards.append(self._shard())
        self._files, self._tokens, self._shard_documents, self._checksum = [], 0, 0, hashlib.sha256()

    def _shard(self) -> Shard:
        """Return the manifest's entry for the shard, as far as it is written."""
        name = f"{self.split}-{len(self.shards):05}.bin"
        return Shard(name, self._tokens, self._shard_documents, self._checksum.hexdigest())

"""Files of the safetensors format, read and written without the package of that name.

The format (github.com/huggingface/safetensors, README, "Format"): eight bytes with the length of the header, the header
as JSON (for each tensor its dtype, shape and place), then the numbers, without a gap and to the last byte of the file.
Nothing in such a file can run code. A file that breaks any of the format's rules is refused as a whole.
"""

import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from errors import CheckpointError
from utils import atomic_path

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000  # bytes; the format's own limit
ALIGNMENT = 8  # bytes; the header is filled up with spaces to a multiple of this

Entries = dict[str, tuple[torch.dtype, list[int], int, int]]  # name: dtype, shape, first byte, byte after the last


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Return the tensors of a file, by name, in the file's dtypes.

    They are memory-mapped: numbers are read from the disk when they are first used, and changing a tensor leaves the
    file alone. Raises CheckpointError, which names the file and the rule that it breaks.
    """
    path = Path(path)
    header, start, size = _open(path)
    entries = _check_entries(path, header, size - start)
    if start == size:
        return {name: torch.empty(shape, dtype=dtype) for name, (dtype, shape, _, _) in entries.items()}
    numbers = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)[start:]
    return {name: _cut(numbers[begin:end], dtype, shape) for name, (dtype, shape, begin, end) in entries.items()}


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return the strings that a file holds about itself. Raises CheckpointError if it is no safetensors file."""
    path = Path(path)
    header, _, _ = _open(path)
    return _take_metadata(path, header)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors to a file, atomically; tensors that share their numbers are written in full, each.

    `metadata` holds strings about the file, which readers may ignore. Raises CheckpointError if the disk is full, and
    ValueError for a dtype that the format does not have.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    if unknown := sorted({str(tensor.dtype) for tensor in tensors.values() if tensor.dtype not in names}):
        raise ValueError(f"no safetensors file can hold {', '.join(unknown)}")
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    ordered = sorted(tensors, key=lambda name: -tensors[name].itemsize)  # wide numbers first: all are aligned then
    end = 0
    for name in ordered:
        begin, end = end, end + tensors[name].numel() * tensors[name].itemsize
        shape = list(tensors[name].shape)
        header[name] = {"dtype": names[tensors[name].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name in ordered:
                flat = tensors[name].detach().cpu().contiguous().reshape(-1)
                file.write(flat.view(torch.uint8).numpy().data)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror}): check the disk.") from error


def _open(path: Path) -> tuple[dict[str, Any], int, int]:
    """Return a file's header, where the numbers begin, and the size of the file. Raises CheckpointError."""
    try:
        size = path.stat().st_size
        header, start = _read_header(path, size)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}): check the path.") from error
    return header, start, size


def _read_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Return the header of a file of `size` bytes, and the place of the first byte after it."""
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise _broken(path, f"it has {size} bytes, and the length of the header alone takes 8")
        (length,) = struct.unpack("<Q", start)
        if length > MAX_HEADER:
            raise _broken(path, f"its header would have {length:,} bytes, and {MAX_HEADER:,} are the most")
        if length > size - 8:
            raise _broken(path, f"its header should have {length:,} bytes, and {size - 8:,} are left of the file")
        text = file.read(length)
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_no_name_twice)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise _broken(path, f"its header is no JSON ({error})") from error
    if not isinstance(header, dict) or not text.startswith(b"{"):
        raise _broken(path, "its header is no JSON object")
    return header, 8 + length


def _take_metadata(path: Path, header: dict[str, Any]) -> dict[str, str]:
    """Remove from a header what it says about the file, which is no tensor, and return it."""
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _broken(path, "its __metadata__ holds something else than strings")
    return metadata


def _check_entries(path: Path, header: dict[str, Any], data_size: int) -> Entries:
    """Return what the header says of each tensor, once every rule of the format has been checked."""
    _take_metadata(path, header)
    entries = {name: _check_entry(path, name, entry) for name, entry in header.items()}
    at = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != at:
            what = "overlaps the tensor before it" if begin < at else "leaves a gap before it"
            raise _broken(path, f"{name!r} {what}: it begins at byte {begin:,}, not {at:,}")
        at = end
    if at > data_size:
        raise _broken(path, f"it is cut short: its tensors take {at:,} bytes, and {data_size:,} are there")
    if at < data_size:
        raise _broken(path, f"{data_size - at:,} bytes follow the last tensor")
    return entries


def _check_entry(path: Path, name: str, entry: Any) -> tuple[torch.dtype, list[int], int, int]:
    """Return dtype, shape, first byte and byte after the last of one tensor."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise _broken(path, f"the entry of {name!r} is not a dtype, a shape and data_offsets")
    dtype, shape, offsets = (entry[key] for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _broken(path, f"{name!r} has the dtype {dtype!r}; what can be read is {', '.join(DTYPES)}")
    if not _are_sizes(shape):
        raise _broken(path, f"{name!r} has no shape of whole numbers, but {shape!r}")
    if not _are_sizes(offsets) or len(offsets) != 2:
        raise _broken(path, f"{name!r} has no two data_offsets, but {offsets!r}")
    begin, end = offsets
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != needed:
        raise _broken(path, f"{name!r} of {dtype} and shape {shape} takes {needed:,} bytes, not {end - begin:,}")
    return DTYPES[dtype], shape, begin, end


def _are_sizes(values: Any) -> bool:
    """Say whether a value from the header is a list of whole numbers of at least 0."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


def _cut(numbers: torch.Tensor, dtype: torch.dtype, shape: list[int]) -> torch.Tensor:
    """View a run of bytes as a tensor; copy it first if it does not begin where such a number may begin."""
    if not numbers.numel():
        return torch.empty(shape, dtype=dtype)
    if numbers.storage_offset() % dtype.itemsize:
        numbers = numbers.clone()
    return numbers.view(dtype).view(shape)


def _no_name_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object of the header; raise ValueError if a name stands in it twice."""
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"the name {name!r} stands in it twice")
        content[name] = value
    return content


def _broken(path: Path, what: str) -> CheckpointError:
    """Return the error for a file that breaks a rule of the format."""
    return CheckpointError(
        f"{path} is no safetensors file, or damaged: {what}. Check how the file was made and copied."
    )

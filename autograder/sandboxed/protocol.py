"""How do the judge and the sandbox talk? Frames of a JSON header and raw arrays, nothing that could run code.

    frame: b"MLF1", length of the head (4 bytes), head, the bytes of the arrays, one after the other
    head:  {"header": {...}, "arrays": [[name, dtype, shape, number of bytes], ...]}

On a pipe each frame is preceded by its length (8 bytes). Numbers are little-endian. Whoever reads does not trust the
writer: any bytes at all give a frame or a ProtocolError.
"""

import json
import math
import os
import select
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAGIC = b"MLF1"
MAX_HEAD = 4 << 20  # bytes
MAX_ARRAYS = 4096
MAX_NAME = 300
MAX_DIMS = 16
MAX_NUMEL = 1 << 40

# Bytes an element, by the name of a dtype of torch: those that are sent.
SIZES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "complex64": 8,
    "complex128": 16,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}


class ProtocolError(Exception):
    """Bytes that are no frame, or did not come in time."""


@dataclass(frozen=True)
class Array:
    """A tensor on its way: the name of its dtype, its shape, and its elements in C order."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


@dataclass(frozen=True)
class Failure:
    """What the submission's code raised, as it says itself.

    `file`, `line` and `function` are the last ones in the submission's files ("" and 0 if there is none); `raised`: a
    `raise` stands there; `importing`: that file was being imported.
    """

    kind: str
    message: str
    file: str
    line: int
    function: str
    raised: bool
    importing: bool
    traceback: str


def encode(header: Mapping[str, Any], arrays: Mapping[str, Array] | None = None) -> bytes:
    """Return the frame of a header (plain JSON data) and arrays. Raises TypeError for a header that is not JSON."""
    arrays = arrays or {}
    entries = [[name, array.dtype, list(array.shape), len(array.data)] for name, array in arrays.items()]
    head = json.dumps({"header": dict(header), "arrays": entries}).encode("ascii")
    return b"".join([MAGIC, struct.pack("<I", len(head)), head, *(array.data for array in arrays.values())])


def decode(data: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the header and the arrays of a frame. Raises ProtocolError for anything else, whatever it is."""
    if len(data) < 8 or data[:4] != MAGIC:
        raise ProtocolError("this is no frame")
    (length,) = struct.unpack_from("<I", data, 4)
    if length > MAX_HEAD or 8 + length > len(data):
        raise ProtocolError("the head is longer than the frame")
    head = _json(data[8 : 8 + length])
    header, entries = head.get("header"), head.get("arrays")
    if not isinstance(header, dict) or not isinstance(entries, list) or len(entries) > MAX_ARRAYS:
        raise ProtocolError("the head has no header, or too many arrays")
    arrays: dict[str, Array] = {}
    position = 8 + length
    for entry in entries:
        name, dtype, shape, size = _entry(entry)
        if name in arrays or position + size > len(data):
            raise ProtocolError("an array is there twice, or longer than the frame")
        arrays[name] = Array(dtype, shape, data[position : position + size])
        position += size
    if position != len(data):
        raise ProtocolError("the frame is longer than its arrays")
    return header, arrays


def _json(data: bytes) -> dict[str, Any]:
    """Parse the head."""
    try:
        head = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ProtocolError("the head is no JSON") from error
    if not isinstance(head, dict):
        raise ProtocolError("the head is no object")
    return head


def _entry(entry: object) -> tuple[str, str, tuple[int, ...], int]:
    """Check one array's name, dtype, shape and number of bytes against each other."""
    if not isinstance(entry, list) or len(entry) != 4:
        raise ProtocolError("an array is not described by four things")
    name, dtype, shape, size = entry
    if not isinstance(name, str) or len(name) > MAX_NAME or not isinstance(dtype, str) or dtype not in SIZES:
        raise ProtocolError("an array has no proper name or dtype")
    if not isinstance(shape, list) or len(shape) > MAX_DIMS or not all(type(n) is int and n >= 0 for n in shape):
        raise ProtocolError("an array has no proper shape")
    if math.prod(max(n, 1) for n in shape) > MAX_NUMEL or type(size) is not int:
        raise ProtocolError("an array is too large")
    if size != math.prod(shape) * SIZES[dtype]:
        raise ProtocolError("an array's shape does not fit its bytes")
    return name, dtype, tuple(shape), size


# --- pipes ---


def send(descriptor: int, frame: bytes, deadline: float | None = None) -> None:
    """Write a frame, preceded by its length, until `deadline` on the monotonic clock.

    Raises OSError if nobody reads any more, and TimeoutError if nobody reads in time.
    """
    write_all(descriptor, struct.pack("<Q", len(frame)) + frame, deadline)


def write_all(descriptor: int, data: bytes, deadline: float | None = None) -> None:
    """Write all bytes to a pipe. Raises what `send` raises."""
    view = memoryview(data)
    while view:
        _wait(descriptor, deadline, to_write=True)
        # at most what fits a pipe that is ready: more would block
        view = view[os.write(descriptor, view[: select.PIPE_BUF if deadline is not None else len(view)]) :]


def _wait(descriptor: int, deadline: float | None, to_write: bool = False) -> None:
    """Wait until a pipe can be read or written. Raises TimeoutError at the deadline."""
    if deadline is None:
        return
    left = deadline - time.monotonic()
    pipes: tuple[list[int], list[int]] = ([], [descriptor]) if to_write else ([descriptor], [])
    if left <= 0 or not any(select.select(*pipes, [], left)):
        raise TimeoutError("the other side took too long")


def receive(descriptor: int, max_bytes: int, deadline: float | None = None) -> bytes:
    """Read one frame of at most `max_bytes`, until `deadline` on the monotonic clock.

    Raises EOFError at the end of the pipe before the first byte, ProtocolError for a frame that is broken off or too
    long, and TimeoutError.
    """
    first = _read(descriptor, 8, deadline)
    if not first:
        raise EOFError("the other side has closed the pipe")
    if len(first) < 8:
        raise ProtocolError("the length is broken off")
    (length,) = struct.unpack("<Q", first)
    if length > max_bytes:
        raise ProtocolError(f"a frame of {length} bytes is longer than {max_bytes}")
    data = _read(descriptor, length, deadline)
    if len(data) < length:
        raise ProtocolError("the frame is broken off")
    return data


def _read(descriptor: int, size: int, deadline: float | None) -> bytes:
    """Read `size` bytes, or fewer at the end of the pipe."""
    parts: list[bytes] = []
    while size:
        _wait(descriptor, deadline)
        part = os.read(descriptor, min(size, 1 << 20))
        if not part:
            break
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def clean(value: object, most: int) -> str:
    """Return a string of an untrusted process without control characters, at most `most` long; "" for no string."""
    if not isinstance(value, str):
        return ""
    half = most // 2
    # cut first: the whole may be very long
    parts = [value] if len(value) <= most else [value[:half], value[-half:]]
    parts = [_printable(part) for part in parts]
    return f"\n[... {len(value) - 2 * half} characters left out ...]\n".join(parts)


def _printable(text: str) -> str:
    """Return a text with U+FFFD for every control character but the end of a line and a tab."""
    text = text.encode("utf-8", "replace").decode("utf-8").replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)

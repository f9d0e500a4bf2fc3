"""Text files as a stream of documents: one of them at a time is in memory, and never the file.

| file                      | its documents                                                                       |
|---------------------------|-------------------------------------------------------------------------------------|
| `.txt` `.md`, no suffix   | what stands between the markers `<|endoftext|>`; in a file without any, and only in |
|                           | such a file, what stands between blank lines                                        |
| `.jsonl`                  | the `text` of the object on each line                                               |
| `.tar.gz` `.tgz`          | the `story` of each object in the lists of its `.json` files: TinyStories' archive  |
| `.gz`                     | those of the file inside, by the rest of its name                                   |

Every file is UTF-8, and a marker ends a document in all of them. Spaces and line breaks around a document are dropped,
and so are documents that are empty then; "\\r\\n" becomes "\\n".
"""

import codecs
import gzip
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import IO, Any

from errors import DataError

MARKER = "<|endoftext|>"
PLAIN = (".txt", ".text", ".md", "")
LONGEST = 2**26  # bytes of a document; what is longer is a file that nobody parted
CHUNK = 2**20  # bytes read at a time
NOT_PRINTABLE = re.compile(r"[^\t-\r -~]")  # all but ASCII's printable characters and white space
NO_TEXT = re.compile("[\0\ud800-\udfff]")  # NUL, and half of a surrogate pair, which JSON can spell
NEXT_ITEM = re.compile(r"\s*,\s*")
END_OF_LIST = re.compile(r"\s*,?\s*\]\s*")
DECODER = json.JSONDecoder()


def read_documents(path: Path, *, clean: bool = False, on_read: Callable[[int], object] | None = None) -> Iterator[str]:
    """Yield the documents of a text file in its order, stripped, none of them empty.

    With `clean`, a document with any character outside printable ASCII is left out: Alilama's cleaning. (Its stories
    also begin with a word of their own, ` STARTSTORY `; here the begin and end tokens do what that does.)
    `on_read` is called with the number of bytes of the file that have been read so far.
    Raises DataError, with `file:line` where there are lines, for a file that is missing, of an unknown kind, damaged or
    not UTF-8, for JSON that is none or holds no text, and for a document of more than 64 MiB.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"{path}: no regular file: name a text file")
    try:
        with path.open("rb") as file:
            for text in _texts(path, file):
                if on_read is not None:
                    on_read(file.tell())
                for part in text.replace("\r\n", "\n").split(MARKER):
                    document = part.strip()
                    if document and not (clean and NOT_PRINTABLE.search(document)):
                        yield document
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
        raise DataError(f"{path}: damaged or cut short ({error}): fetch or pack it again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}): check the path") from error


def read_all(paths: Sequence[Path], task: str, *, clean: bool = False) -> Iterator[str]:
    """Yield the documents of several files, as `read_documents` does of each.

    Where the output is a terminal, a bar called `task` shows how many of the files' bytes have been read.
    """
    from tqdm import tqdm

    sizes = [path.stat().st_size if path.is_file() else 0 for path in paths]
    with tqdm(total=sum(sizes), desc=task, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        for path, before in zip(paths, accumulate(sizes, initial=0), strict=False):
            yield from read_documents(path, clean=clean, on_read=partial(_show, bar, before))


def _show(bar: Any, before: int, read: int) -> None:
    """Move the bar to where the reading has got: so many bytes of a file, after the files before it."""
    bar.update(before + read - bar.n)


def _texts(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield the texts in a file; its name says how they stand in it."""
    name = path.name.lower()
    if name.endswith((".tar.gz", ".tgz")):
        return _stories(path, _unzipped(file))
    suffix = Path(name.removesuffix(".gz")).suffix
    content = _unzipped(file) if name.endswith(".gz") else file
    if suffix == ".jsonl":
        return _json_lines(path, content)
    if suffix in PLAIN:
        return _plain_texts(path, content)
    raise DataError(
        f"{path}: a file of unknown kind: known are .txt and .jsonl, with or without .gz, and .tar.gz with JSON "
        "stories. If it is plain text, give it a name that ends in .txt"
    )


def _unzipped(file: IO[bytes]) -> IO[bytes]:
    """Return what a gzip file holds; its checksum is verified where it ends."""
    return gzip.GzipFile(fileobj=file)  # type: ignore[return-value]  # typeshed has it as no IO


# ---------------------------------------------------------------------------------------------------- plain text


def _plain_texts(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield what stands between the markers, or between blank lines if there is no marker in the whole file."""
    blocks = _split_at_markers if _has_marker(file) else _split_at_blank_lines
    file.seek(0)
    for line, block in blocks(path, file):
        yield _decode(path, line, block.removeprefix(codecs.BOM_UTF8) if line == 1 else block)


def _has_marker(file: IO[bytes]) -> bool:
    """Say whether the marker occurs in the file; reads it up to there."""
    marker, end = MARKER.encode(), b""
    while chunk := file.read(CHUNK):
        if marker in end + chunk:
            return True
        end = (end + chunk)[1 - len(marker) :]
    return False


def _split_at_markers(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks between the markers, each with the number of the line that it begins on."""
    marker, line, buffer = MARKER.encode(), 1, bytearray()
    while chunk := file.read(CHUNK):
        search, start = max(len(buffer) - len(marker) + 1, 0), 0
        buffer += chunk
        while (end := buffer.find(marker, max(search, start))) >= 0:
            yield line, bytes(buffer[start:end])
            line += buffer.count(b"\n", start, end)
            start = end + len(marker)
        del buffer[:start]
        _check_size(path, line, len(buffer))
    yield line, bytes(buffer)


def _split_at_blank_lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks between blank lines, each with the number of the line that it begins on."""
    first, size, lines = 1, 0, list[bytes]()
    for number, line in _lines(path, file):
        if not line.strip():
            yield first, b"".join(lines)
            first, size, lines = number + 1, 0, []
            continue
        lines.append(line)
        size += len(line)
        _check_size(path, first, size)
    yield first, b"".join(lines)


def _lines(path: Path, file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a file with their numbers, from 1."""
    for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), start=1):
        _check_size(path, number, len(line))
        yield number, line


def _check_size(path: Path, line: int, size: int) -> None:
    """Raise DataError if a document is so long that the file cannot have been parted."""
    if size > LONGEST:
        raise DataError(
            f"{path}:{line}: the document that begins here has more than {LONGEST:,} bytes: "
            f"end each document with a line `{MARKER}`"
        )


def _decode(path: Path, first_line: int, block: bytes) -> str:
    """Decode a block of a file, which begins on line `first_line`."""
    try:
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        line = first_line + block.count(b"\n", 0, error.start)
        problem = f"byte 0x{block[error.start]:02x} is not UTF-8"
        raise DataError(f"{path}:{line}: {problem}: save the file as UTF-8") from error
    if "\0" in text:  # a sign of UTF-16, or of a file that is no text
        line = first_line + text.count("\n", 0, text.index("\0"))
        raise DataError(f"{path}:{line}: a NUL byte is not text: save the file as UTF-8")
    return text


# ---------------------------------------------------------------------------------------------------- JSON


def _json_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    """Yield the `text` of the object on each line that is not blank."""
    for number, line in _lines(path, file):
        text = _decode(path, number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
        if not text.strip():
            continue
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{path}:{number}: not JSON ({error}): write one object with `text` on each line"
            ) from error
        yield _member(value, "text", f"{path}:{number}")


def _stories(path: Path, content: IO[bytes]) -> Iterator[str]:
    """Yield the `story` of each object in the `.json` files of an archive.

    The archive is read from front to back and nothing of it is written anywhere, so that a name in it is only a name.
    """
    found = False
    with tarfile.open(fileobj=content, mode="r|") as archive:
        for entry in archive:
            name = Path(entry.name).name
            file = archive.extractfile(entry) if entry.isreg() else None
            if file is None or not name.endswith(".json") or name.startswith("."):  # macOS adds a ._NAME to each file
                continue
            found = True
            where = f"{path}: {name!a}"
            for number, value in enumerate(_list_items(file, where), start=1):
                yield _member(value, "story", f"{where}: item {number}")
    while content.read(CHUNK):  # up to the checksum: tarfile takes a damaged header for the end
        pass
    if not found:
        raise DataError(f"{path}: no .json file in the archive: it must hold lists of objects with a `story`")


def _list_items(file: IO[bytes], where: str) -> Iterator[object]:
    """Yield the items of the JSON list that a file holds, reading a piece of the file at a time."""
    rest, number = "", 0
    # Of an item that goes on, as much is read as there is already, so that it is not parsed again too often.
    pieces = codecs.iterdecode(iter(lambda: file.read(max(CHUNK, len(rest))), b""), "utf-8-sig")
    try:
        while not rest and (piece := next(pieces, "")):
            rest = piece.lstrip()
        if not rest.startswith("["):
            raise DataError(f"{where}: no JSON list: it must hold a list of objects with a `story`")
        piece, rest = "," + rest[1:], ""  # from here on, a comma stands before every item
        while piece and len(rest) <= LONGEST:
            items, rest = _leading_items(rest + piece)
            yield from items
            number += len(items)
            piece = next(pieces, "")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: not UTF-8 somewhere after item {number}: take that out") from error
    if not END_OF_LIST.fullmatch(rest):
        raise DataError(f"{where}: item {number + 1}: not JSON, or cut short: mend it, or take it out")


def _leading_items(text: str) -> tuple[list[object], str]:
    """Return the items at the beginning of `text`, each after a comma, and what follows the last complete one."""
    items, at = list[object](), 0
    while start := NEXT_ITEM.match(text, at):
        try:
            item, at = DECODER.raw_decode(text, start.end())
        except (ValueError, RecursionError):  # it goes on in what has not been read, or is wrong
            break
        items.append(item)
    return items, text[at:]


def _member(value: object, key: str, where: str) -> str:
    """Return the text under `key` of an object. Raises DataError if there is none, or it is no valid Unicode."""
    text = value.get(key) if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise DataError(f"{where}: no object with a text under `{key}`: add one, or take the item out")
    if wrong := NO_TEXT.search(text):
        raise DataError(f"{where}: U+{ord(wrong[0]):04X} is no character of a text: take it out")
    return text

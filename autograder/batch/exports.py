"""Unpacks the zip that a platform exported, or somebody made of a class. Every name in it may come from a stranger.

    problems = unpack_export(Path("submissions.zip"), out / "submissions")

What is unsafe is not written and told; the rest is there afterwards, or, if the unpacking was interrupted, nothing is.
The same zip gives the same folder, so unpacking it again does no harm.
"""

import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from errors import SubmissionError, UsageError

# What no entry of a submission's zip may be, no entry of a class's may be either.
from submission_check import (
    CHUNK,
    DATA_RULES,
    NAME_RULES,
    UNREADABLE,
    EntryRule,
    collision_key,
    is_mac_junk,
    open_file,
    parts_of,
    shown,
)
from submission_rules import SUBMISSION

MAX_ENTRIES = 100_000
MAX_FILE_BYTES = 200_000_000  # twenty times what a submission may have: its own check says that it is too large
MAX_BYTES = 20_000_000_000
MAX_PATH_BYTES = 1000  # well below what a system can open, wherever the folder is
TOLD = 3  # names of one problem that are told


def unpack_export(archive: Path, target: Path) -> dict[str, str]:
    """Unpack a zip as the private folder `target`, in the place of what was there; return what was left out, and why.

    The keys of what is returned are names at the top of the zip, or what stands in place of one. Raises UsageError if
    it is no zip, has too many entries, or the folder cannot be written.
    """
    beside = target.with_name(f".{target.name}.tmp")
    try:
        shutil.rmtree(beside, ignore_errors=True)  # of one that was interrupted
        beside.mkdir(mode=0o700, parents=True)
        problems = _unpacked(archive, beside)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
    except OSError as error:
        raise UsageError(f"cannot unpack into {target} ({error.strerror}): make room there, or name another") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return problems


@contextmanager
def _opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Yield a zip of no more entries than a class can have. Raises UsageError if it is none, or cannot be read."""
    mend = "export it again, or unpack it yourself and name the folder"
    try:
        raw = open_file(archive)
    except SubmissionError as error:
        raise UsageError(str(error)) from error
    with raw:
        try:
            file = zipfile.ZipFile(raw)
        except UNREADABLE as error:
            raise UsageError(f"{archive} is no zip, or a damaged one ({shown(str(error))}): {mend}") from error
        if (number := len(file.infolist())) > MAX_ENTRIES:
            raise UsageError(f"{archive} holds {number} entries, at most {MAX_ENTRIES} are unpacked: {mend}")
        yield file


@dataclass
class _Unpacking:
    """How far an unpacking is."""

    root: Path
    bytes_left: int = field(default_factory=lambda: MAX_BYTES)
    # What is there by its key (names that are one file on some system have one), with its spelling and what it is.
    taken: dict[str, tuple[str, bool]] = field(default_factory=dict)
    problems: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # by what is at the top: name and reason


def _unpacked(archive: Path, root: Path) -> dict[str, str]:
    """Unpack what is safe into an empty folder and return what is not."""
    state = _Unpacking(root)
    with _opened(archive) as file:
        for entry in file.infolist():
            reason = _unsafe(entry, state)
            if not reason and not is_mac_junk(parts_of(entry.filename)):
                reason = _write(file, entry, state)
            if reason:
                top = entry.orig_filename.lstrip("/").split("/")[0]
                state.problems.setdefault(top, []).append((entry.orig_filename, reason))
    return {top: _told(top, found) for top, found in state.problems.items()}


def _unsafe(entry: zipfile.ZipInfo, state: _Unpacking) -> str:
    """Return why an entry is not unpacked; nothing if it may be. Notes its name and size as taken if so."""
    rules: tuple[EntryRule, ...] = (*NAME_RULES, *DATA_RULES)
    if rule := next((rule for rule in rules if rule.broken(entry, SUBMISSION)), None):
        return rule.what
    if len(entry.filename.encode()) > MAX_PATH_BYTES:
        return f"a path of more than {MAX_PATH_BYTES} bytes"
    if entry.file_size > MAX_FILE_BYTES:
        return f"it has {entry.file_size} bytes, more than {MAX_FILE_BYTES}"
    if entry.file_size > state.bytes_left:
        return f"all entries together have more than {MAX_BYTES} bytes"
    if entry.is_dir() and entry.file_size:
        return "a folder with bytes of its own"
    wanted = {collision_key(name): (name, is_folder) for name, is_folder in _places(entry)}
    for key, (name, is_folder) in wanted.items():
        # a folder may be named again, by itself and by each entry in it; anything else only once
        if key in state.taken and (state.taken[key] != (name, is_folder) or not is_folder):
            return "its name is taken, in the same or another spelling"
    state.taken |= wanted
    state.bytes_left -= entry.file_size
    return ""


def _places(entry: zipfile.ZipInfo) -> Iterator[tuple[str, bool]]:
    """Yield the folders that an entry lies in, then the entry itself, each with whether it is a folder."""
    parts = parts_of(entry.filename)
    for depth in range(1, len(parts)):
        yield "/".join(parts[:depth]), True
    yield "/".join(parts), entry.is_dir()


def _write(file: zipfile.ZipFile, entry: zipfile.ZipInfo, state: _Unpacking) -> str:
    """Write an entry that is safe; return why it cannot be read, or nothing. Raises OSError for what is our fault."""
    path = state.root.joinpath(*parts_of(entry.filename))
    for name, is_folder in _places(entry):
        if is_folder:
            (state.root / name).mkdir(mode=0o700, exist_ok=True)
    if entry.is_dir():
        return ""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    reason, written = "", 0
    with open(os.open(path, flags, 0o600), "wb") as target:  # noqa: PTH123 - a descriptor
        for chunk in _chunks(file, entry):
            if isinstance(chunk, str) or written + len(chunk) > entry.file_size:
                reason = chunk if isinstance(chunk, str) else "it unpacks to more than it declares"
                break
            written += target.write(chunk)
    if reason:
        path.unlink()
    return reason


def _chunks(file: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes | str]:
    """Yield an entry's bytes piece by piece, and at last why there are no more, if that is the zip's fault."""
    try:
        with file.open(entry) as stream:
            while chunk := stream.read(CHUNK):
                yield chunk
    except UNREADABLE as error:
        yield f"it cannot be unpacked: {shown(str(error))}"


def _told(top: str, found: list[tuple[str, str]]) -> str:
    """Return what was left out of one thing at the top of the zip, as a sentence for the person who grades."""
    if len(found) == 1 and found[0][0].rstrip("/") == top:
        return f"not unpacked: {found[0][1]}"
    first = "; ".join(f"{shown(name)}: {reason}" for name, reason in found[:TOLD])
    more = f"; and {len(found) - TOLD} more" if len(found) > TOLD else ""
    return f"not unpacked: {first}{more}"

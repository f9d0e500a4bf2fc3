"""Which submissions of a class are done? One line of JSON for each, which is only ever appended.

    journal = Journal(folder.journal)
    journal.append(row)
    rows = read_journal(folder.journal)       # the latest row of each entry, by its name
    rows = current_rows(folder)               # without those of bytes that are not there any more

A line is one write to the disk, and is there for good when `append` returns. A last line without its end (the power
failed, somebody killed the batch) was never written, as far as anybody is concerned.
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from autograder.batch.folder import ClassFolder
from autograder.batch.records import Row, RowStatus
from errors import UsageError


class LineFile:
    """A file of lines that one process at a time appends to; what is left of a torn line goes when it is opened."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises UsageError if another process has it open, or if it cannot be written."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UsageError(f"{path} cannot be written ({error.strerror}): name another folder with -o") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._file)
            what = f"another batch is writing into {path.parent}"
            raise UsageError(f"{what}: wait until it has ended, or interrupt it, or name another folder") from error
        os.ftruncate(self._file, _whole_lines(self._file))

    def append(self, line: str) -> None:
        """Add a line, all of it or nothing. Raises OSError if the disk is full."""
        data, before = line.encode() + b"\n", os.fstat(self._file).st_size
        if os.write(self._file, data) != len(data):
            os.ftruncate(self._file, before)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def sync(self) -> None:
        """Return when all lines are on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Let others write."""
        os.close(self._file)


def _whole_lines(file: int) -> int:
    """Return where the last whole line of a file ends."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - 65536)
        if (last := os.pread(file, end - start, start).rfind(b"\n")) >= 0:
            return start + last + 1
        end = start
    return 0


class State(NamedTuple):
    """As much of a row as a batch needs for every submission of a large class."""

    key: str
    status: RowStatus


class Journal:
    """The journal of a class, opened for writing."""

    def __init__(self, path: Path) -> None:
        """Open or make it. Raises UsageError if another batch has it open, or if it cannot be written."""
        self._lines = LineFile(path)

    def rows(self) -> dict[str, Row]:
        """Return the latest row of each entry, by its name. They are read anew, not held."""
        return read_journal(self._lines.path)

    def states(self) -> dict[str, State]:
        """Return what the latest row of each entry says, by its name: little memory, however much a row holds."""
        return {row.name: State(row.key, row.status) for row in _rows(self._lines.path)}

    def append(self, row: Row) -> None:
        """Add a row; it is on the disk when this returns. Raises OSError if the disk is full."""
        self._lines.append(json.dumps(row.to_dict(), sort_keys=True))
        self._lines.sync()

    def close(self) -> None:
        """Let others write."""
        self._lines.close()


def read_journal(path: Path) -> dict[str, Row]:
    """Return the latest row of each entry, by its name; none if there is no journal.

    Raises UsageError, which names the line, for a journal that something else has written into.
    """
    return {row.name: row for row in _rows(path)}


def current_rows(folder: ClassFolder) -> dict[str, Row]:
    """Return the row of each entry of the last batch, if it has one that is of this entry's key, by its name.

    What was handed in again since, or is to be graded by another edition, has none until it is graded again. Raises
    UsageError if there was no batch, or what it has written is damaged.
    """
    keys = folder.read_keys()
    return {name: row for name, row in read_journal(folder.journal).items() if keys.get(name) in ("", row.key)}


def _rows(path: Path) -> Iterator[Row]:
    """Yield all rows, one at a time; later ones replace earlier ones of the same name."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.endswith(b"\n"):  # else it is torn, or is being written
                    yield _row(line, path, number)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): mend its permissions") from error


def _row(line: bytes, path: Path, number: int) -> Row:
    """Return the row of a line. Raises UsageError if it is none."""
    try:
        row = Row.from_dict(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{path}:{number}: this line is no row of a journal ({error})"
        mend = "remove the line and run the same batch again, which grades that submission again"
        raise UsageError(f"{what}: {mend}") from error
    return row

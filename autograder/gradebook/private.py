"""How is a file written that holds grades? As a whole, and readable for its owner alone."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import UsageError
from utils import atomic_path


@contextmanager
def private_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path; what is written there becomes `path`, with mode 0600. Raises UsageError if it cannot."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path) as temporary:
            yield temporary
        path.chmod(0o600)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): make room, or allow it") from error


def write_private(path: Path, text: str) -> None:
    """Write a text as UTF-8."""
    with private_path(path) as temporary:
        temporary.write_bytes(text.encode())


def replace_private(path: Path, before: bytes | None, content: bytes) -> bool:
    """Write a content in place of `before` (None: no file); say False, and write nothing, if that is there no more.

    Who else writes the file has to do so between two steps of this process to be overwritten: all that takes long is
    done before the look at what is there.
    """
    target = path.resolve()  # where it is a link, what it leads to
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{path.name}.", suffix=".tmp")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            if (target.read_bytes() if target.exists() else None) != before:
                return False
            Path(name).replace(target)
            return True
        finally:
            Path(name).unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): make room, or allow it") from error

"""How is a file written that holds grades? As a whole, and readable for its owner alone."""

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

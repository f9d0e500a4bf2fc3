"""Small helpers that several files need: seeding, choosing a device, atomic writing, checksums, progress bars."""

import hashlib
import os
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from errors import UsageError

if TYPE_CHECKING:  # torch takes a second to import; `--help` and the packaging tools do without it
    import torch
    from torch import nn

Item = TypeVar("Item")


def seed_everything(seed: int) -> None:
    """Make Python's, NumPy's and PyTorch's random numbers start from `seed`."""
    import numpy as np
    import torch

    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # seeds every CUDA device as well


def pick_device(name: str) -> "torch.device":
    """Return the device called `name`: `cpu`, `cuda`, `mps`, or `auto` for the fastest that is there.

    Raises UsageError if that device is not available on this machine.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if name not in available:
        raise UsageError(f"unknown device '{name}': choose one of auto, {', '.join(available)}")
    if not available[name]:
        raise UsageError(f"device '{name}' is not available on this machine: leave it out to use the CPU")
    return torch.device(name)


def get_parameter_dtype(module: "nn.Module") -> "torch.dtype":
    """Return the dtype of the module's parameters (of the first one, where they differ)."""
    return next(module.parameters()).dtype


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well, the file written there becomes `path`.

    A reader therefore sees the old file or the new one and never half of one, whenever the writer is killed. Where
    `path` is a link, the file that it leads to is replaced. Raises UsageError if it is a folder or a device.
    """
    target = Path(path).resolve()
    if target.exists() and not target.is_file():
        raise UsageError(f"{path} is no regular file: name another")
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("r+b") as written:
            os.fsync(written.fileno())  # the bytes reach the disk before the name does
        temporary.chmod(0o666 & ~_umask())  # mkstemp makes private files
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def progress(items: Iterable[Item], description: str, total: int | None = None) -> Iterable[Item]:
    """Wrap `items` in a progress bar, or leave it as it is where the output is not a terminal."""
    from tqdm import tqdm

    bar: Iterable[Item] = tqdm(items, desc=description, total=total, disable=None, leave=False)
    return bar


def _umask() -> int:
    """Return the process's umask; the system offers no way to read it without setting it."""
    umask = os.umask(0)
    os.umask(umask)
    return umask

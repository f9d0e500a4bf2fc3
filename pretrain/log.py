"""What a run tells: a line on the screen, a row in log.jsonl, TensorBoard's files, and a progress bar on a terminal."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from errors import MissingDependency

Row = Mapping[str, float | int]


class RunLog:
    """Writes the rows of one run; only the main process has one."""

    def __init__(self, file: Path, steps: int, done: int, tensorboard: bool) -> None:
        """Go on with the log in `file` after step `done`, the bar with it. Raises MissingDependency."""
        self._board = (
            require_tensorboard()(str(file.parent / "tensorboard"), purge_step=done + 1) if tensorboard else None
        )
        self._file = file.open("a", encoding="utf-8")
        self._bar = tqdm(total=steps, initial=done, unit="step", disable=None, leave=False, dynamic_ncols=True)

    def write(self, row: Row, steps: int) -> None:
        """Write a row everywhere. It reaches the disk at once: a kill loses no row that was shown."""
        self._bar.update(row["step"] - self._bar.n)
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()
        self.say(describe(row, steps))
        if self._board is not None:
            for name, value in row.items():
                if name != "step":
                    self._board.add_scalar(name, value, row["step"])

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        tqdm.write(text)

    def close(self) -> None:
        """Close the files."""
        self._bar.close()
        self._file.close()
        if self._board is not None:
            self._board.close()


def describe(row: Row, steps: int) -> str:
    """Return a row as the line for the screen."""
    if "validation_loss" in row:
        return (
            f"step {row['step']}/{steps}: validation loss {row['validation_loss']:.4f} "
            f"({row['validation_bits_per_byte']:.4f} bits per byte)"
        )
    return (
        f"step {row['step']}/{steps}: loss {row['loss']:.4f}, learning rate {row['lr']:.2e}, "
        f"gradient norm {row['grad_norm']:.2f}, {row['tokens_per_second']:,.0f} tokens/s "
        f"({row['mfu']:.0%} of the matrix products it could do), {row['memory_mb']:,.0f} MiB"
    )


def require_tensorboard() -> Any:
    """Return TensorBoard's writer, as PyTorch has it. Raises MissingDependency if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependency("report.tensorboard", "tensorboard") from error
    return SummaryWriter

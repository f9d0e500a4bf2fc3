"""`python -m pretrain plot`: the loss curves of runs, as a picture."""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from errors import DataError
from plots import empty_figure, require_png, save_figure

LOG = "log.jsonl"
PICTURE = "curves.png"
MEASURED = ("loss", "validation_loss", "validation_bits_per_byte", "lr")  # what is read of the log
SMOOTHING = 25  # a point of the smooth curve is the mean of about so large a part of the run: a twenty-fifth
Points = list[tuple[int, float]]  # step, value


@dataclass(frozen=True)
class Curves:
    """What a run has measured: points of step and value."""

    name: str
    loss: Points  # nats a token, of the batches that were trained on
    validation_loss: Points  # nats a token
    validation_bits_per_byte: Points  # of text
    lr: Points


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plot` to a parser."""
    add = parser.add_argument
    add("runs", type=Path, nargs="+", metavar="RUN", help=f"a folder that `train` has written, with its {LOG}")
    add("-o", "--out", type=Path, metavar="FILE.png", help=f"default: {PICTURE} in the first RUN")


def run(args: argparse.Namespace) -> int:
    """Draw the curves of the runs. Raises a MinLlamaError for a log that cannot be read."""
    out = args.out or _log_of(args.runs[0]).parent / PICTURE
    require_png(out)
    plot_runs(args.runs, out)
    print(f"wrote {out}")
    return 0


def plot_runs(runs: Sequence[Path], out: Path) -> None:
    """Write the picture of the runs' curves to `out`, as PNG.

    Raises DataError if a log is missing or broken, and MissingDependency if matplotlib is not installed.
    """
    save_figure(draw_runs(runs), out)


def draw_runs(runs: Sequence[Path]) -> Any:
    """Return a matplotlib figure with the loss and the learning rate of the runs by step; errors as `plot_runs`.

    The strong line is the smoothed training loss, the pale one behind it the loss as it was logged, and the points are
    the validation loss. Bits a byte, which unlike losses compare runs with different tokenizers, stand beside it.
    """
    figure = empty_figure(width=10.0, height=5.0)
    curves = [read_log(run, name) for run, name in zip(runs, _names(runs), strict=True)]
    has_bits = any(run.validation_bits_per_byte for run in curves)
    mosaic = [["loss", "lr"], ["loss", "bits" if has_bits else "lr"]]
    axes: dict[str, Any] = figure.subplot_mosaic(mosaic, width_ratios=[2, 1])
    for number, run in enumerate(curves):
        _draw_run(axes, run, f"C{number}")
    axes["loss"].set(title="Loss", xlabel="step", ylabel="nats a token")
    axes["lr"].set(title="Learning rate", xlabel="step", ylim=(0, None))
    if has_bits:
        axes["bits"].set(title="Validation", xlabel="step", ylabel="bits a byte of text")
    axes["loss"].set_ylim(*_range_of_loss(curves))
    axes["loss"].legend()
    for panel in axes.values():
        panel.grid(alpha=0.3)
    return figure


def _draw_run(axes: dict[str, Any], run: Curves, colour: str) -> None:
    """Draw the curves of one run in its colour."""
    steps, losses = _columns(run.loss)
    axes["loss"].plot(steps, losses, color=colour, alpha=0.25, linewidth=0.8)
    axes["loss"].plot(steps, smooth(losses), color=colour, label=f"{run.name}: training")
    if run.validation_loss:
        label = f"{run.name}: validation"
        axes["loss"].plot(*_columns(run.validation_loss), color=colour, marker="o", linestyle=":", label=label)
    if run.validation_bits_per_byte:
        axes["bits"].plot(*_columns(run.validation_bits_per_byte), color=colour, marker="o", linestyle=":")
    axes["lr"].plot(*_columns(run.lr), color=colour)


def smooth(values: Sequence[float]) -> list[float]:
    """Return the mean of each value and its neighbours on both sides, over about a twenty-fifth of the curve.

    At the ends the neighbours that are there are enough.
    """
    reach = len(values) // (2 * SMOOTHING)  # neighbours on each side
    sums = [0.0, *accumulate(values)]
    windows = [(max(0, i - reach), min(len(values), i + reach + 1)) for i in range(len(values))]
    return [(sums[end] - sums[start]) / (end - start) for start, end in windows]


def read_log(run: Path, name: str | None = None) -> Curves:
    """Read the log of a run, a folder or the file itself; a last line that is only half written is left out.

    Where a step comes again after a later one, the run went on from an earlier state: the rows before it that are not
    older are replaced. Raises DataError for a log that is missing, has no row with a loss, or has a broken line.
    """
    path = _log_of(run)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): name a folder that `python -m pretrain train` has written"
        ) from error
    rows: list[dict[str, float]] = []
    complete, last = lines[:-1], lines[-1]  # what follows the last line break is still being written
    for number, line in enumerate(complete, start=1):
        row = _parse_row(line, f"{path}:{number}")
        while rows and rows[-1]["step"] > row["step"]:
            rows.pop()
        rows.append(row)
    if not any("loss" in row for row in rows):
        what = "only a line that is not finished" if last and not rows else "no row with a loss"
        raise DataError(f"{path}:1: the log holds {what}: wait for the run's first report")
    return Curves(name or path.parent.name, **{key: _points(rows, key) for key in MEASURED})


def _log_of(run: Path) -> Path:
    """Return the path of a run's log."""
    return run if run.name.endswith(".jsonl") else run / LOG


def _parse_row(line: bytes, place: str) -> dict[str, float]:
    """Parse a line of the log. Raises DataError, which begins with `place`."""
    rule = 'a row is a JSON object such as {"step": 10, "loss": 3.5}'
    try:
        row = json.loads(line)
    except ValueError as error:  # no JSON, or no UTF-8
        raise DataError(f"{place}: not JSON: {rule}") from error
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise DataError(f"{place}: no step: {rule}")
    for key in MEASURED:
        if not isinstance(row.get(key, 0.0), int | float):
            raise DataError(f"{place}: {key} is {row[key]!r}, not a number: {rule}")
    return row


def _points(rows: Sequence[dict[str, float]], key: str) -> Points:
    """Return step and value of the rows that have a finite value."""
    return [(int(row["step"]), row[key]) for row in rows if key in row and math.isfinite(row[key])]


def _columns(points: Points) -> tuple[list[int], list[float]]:
    """Return the steps and the values."""
    return [step for step, _ in points], [value for _, value in points]


def _names(runs: Sequence[Path]) -> list[str]:
    """Return what to call each run: its folder's name, or the whole path where two have the same."""
    names = [_log_of(run).resolve().parent.name for run in runs]
    return [str(run) if names.count(name) > 1 else name for run, name in zip(runs, names, strict=True)]


def _range_of_loss(curves: Sequence[Curves]) -> tuple[float, float]:
    """Return limits that show the curves after their steep beginning: the first twentieth may leave the picture."""
    shown = []
    for run in curves:
        losses = _columns(run.loss)[1]
        shown += smooth(losses)[len(losses) // 20 :] + _columns(run.validation_loss)[1]
    low, high = min(shown), max(shown)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin

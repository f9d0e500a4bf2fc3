"""`python -m advanced plot`: what each training gained over plain finetuning, as a picture.

The rows are those of the tables, and so are the numbers: each gain is the mean over the seeds, with its standard error.
The picture carries them as text as well, for who cannot see it and for the test that it shows the rows of today.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advanced.report import Group, beside, gain, groups_of
from advanced.rows import Row
from advanced.task import Part
from errors import DataError
from plots import empty_figure, require_png, save_figure

MARKS: dict[Part, tuple[str, float]] = {"dev": ("o", -0.15), "test": ("s", 0.15)}  # and how far below the line
Gain = tuple[float, float]  # mean and standard error, as shares of sentences


@dataclass(frozen=True)
class Line:
    """What a combination of methods gained on each part."""

    name: str
    gains: Mapping[Part, Gain]

    def __str__(self) -> str:
        """Return the line as text."""
        numbers = (f"{part} {mean:+.3f} ± {error:.3f}" for part, (mean, error) in self.gains.items())
        return f"{self.name}: {', '.join(numbers)}"


def lines_of(rows: Iterable[Row], task: str) -> dict[str, list[Line]]:
    """Return the lines of each checkpoint on a task, the one that gained most on dev first.

    A line has a plain finetuning as long beside it, and both have two seeds or more.
    """
    groups = [group for group in groups_of(rows) if group.first["task"] == task and group.kind == "finetuning"]
    found: dict[str, list[Line]] = {}
    for group in groups:
        reference = beside(group, groups)
        gains = _gains(group, reference) if reference else {}
        if "dev" in gains:
            found.setdefault(group.first["checkpoint"], []).append(Line(_name(group), gains))
    return {name: sorted(lines, key=lambda line: -line.gains["dev"][0]) for name, lines in found.items()}


def plot_gains(rows: Iterable[Row], task: str, path: Path) -> None:
    """Write the picture to `path`, as PNG.

    Raises DataError if there is nothing to compare, UsageError if `path` is no PNG, and MissingDependency if matplotlib
    is not installed.
    """
    require_png(path)
    lines = lines_of(rows, task)
    save_figure(draw(lines, task), path, description=as_text(lines))


def as_text(lines: Mapping[str, Iterable[Line]]) -> str:
    """Return what the picture shows as text."""
    return "\n".join(f"{checkpoint}, {line}" for checkpoint, own in lines.items() for line in own)


def draw(lines: Mapping[str, list[Line]], task: str) -> Any:
    """Return a matplotlib figure with a panel for each checkpoint; errors as `plot_gains`."""
    if not lines:
        raise DataError(f"{task}: no training has a plain one beside it, with two seeds each: do those runs first")
    figure = empty_figure(width=6.0 * len(lines), height=1.2 + 0.28 * max(map(len, lines.values())))
    for axes, (checkpoint, own) in zip(figure.subplots(1, len(lines), squeeze=False)[0], lines.items(), strict=True):
        _draw_panel(axes, own)
        axes.set(title=f"{task}, {checkpoint}", xlabel="accuracy − plain finetuning's")
    return figure


def _draw_panel(axes: Any, lines: list[Line]) -> None:
    """Draw the gains from top to bottom, dev a little above test."""
    for part, (marker, below) in MARKS.items():
        shown = [(place, line.gains[part]) for place, line in enumerate(lines) if part in line.gains]
        axes.errorbar(
            [mean for _, (mean, _) in shown],
            [place + below for place, _ in shown],
            xerr=[error for _, (_, error) in shown],
            fmt=marker,
            markersize=4,
            label=part,
        )
    axes.axvline(0.0, color="grey", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [line.name for line in lines])
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper left")


def _gains(group: Group, reference: Group) -> dict[Part, Gain]:
    """Return the gains on the parts where they are known and have an error."""
    found = {part: gain(group, reference, part) for part in MARKS}
    return {part: (value[0], value[1]) for part, value in found.items() if value and value[1] is not None}


def _name(group: Group) -> str:
    """Return the methods, and the epochs if there are several."""
    epochs = group.first["recipe"]["epochs"]
    return " + ".join(group.methods) + (f", {epochs} epochs" if epochs > 1 else "")

"""The tables of the README: the methods, and the results, made of the rows.

For each data set and checkpoint: what every combination of methods reached, as mean and deviation over the seeds,
beside plain finetuning with the same seeds; what it cost; and whether it beats a bag of words.
"""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from advanced.catalogue import METHODS, Kind
from advanced.decoding import table
from advanced.rows import Row, read_rows
from advanced.task import Part
from errors import DataError
from utils import write_text

# What stands between two marks in the README is written here.
METHODS_MARKS = ("<!-- methods: written by `python -m advanced table` -->", "<!-- end of the methods -->")
DECODING_MARKS = ("<!-- decoding: written by `python -m advanced table` -->", "<!-- end of the decoding -->")
RESULTS_MARKS = ("<!-- results: written by `python -m advanced table` -->", "<!-- end of the results -->")
KINDS: tuple[Kind, ...] = ("baseline", "zero-shot", "finetuning")
PLAIN = ("plain",)
HEADS = (
    "method",
    "epochs",
    "lr",
    "seeds",
    "dev",
    "test",
    "dev − plain",
    "trained",
    "to keep",
    "memory",
    "processor",
    "",
)
RULE = "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|"
MEGABYTE = 2**20


class Key(NamedTuple):
    """What the rows of a line share."""

    task: str
    checkpoint: str
    name: str
    epochs: int
    lr: float


@dataclass(frozen=True)
class Group:
    """The rows of a line: they differ in their seed."""

    key: Key
    rows: list[Row]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of all these runs."""
        return tuple(self.rows[0]["methods"])

    @property
    def kind(self) -> Kind:
        """The kind of all these methods."""
        return METHODS[self.methods[0]].kind

    def accuracies(self, part: Part) -> dict[int, float]:
        """Return the accuracy on a part of each seed; nothing where the labels are placeholders."""
        found = {row["seed"]: row["accuracy"][part] for row in self.rows}
        return {seed: value for seed, value in found.items() if value is not None}


def update(readme: Path, rows: Path) -> None:
    """Write the methods, the results in `rows`, and what `decode` wrote beside them into `readme`.

    Raises DataError if the marks are not there, or the rows are none.
    """
    contents = {
        METHODS_MARKS: methods_table(),
        RESULTS_MARKS: tables(read_rows(rows)),
        DECODING_MARKS: decoding_table(rows.with_name("decoding.json")),
    }
    text = readme.read_text(encoding="utf-8")
    for (begin, end), content in contents.items():
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            raise DataError(f"{readme}: the marks {begin} and {end} are not there: put them where the table belongs")
        text = f"{before}{begin}\n\n{content}\n{end}{after}"
    write_text(readme, text)


def decoding_table(path: Path) -> str:
    """Return the measures in `path`, which `decode` wrote; nothing if it is not there. Raises DataError for others."""
    if not path.exists():
        return ""
    try:
        return f"```text\n{table(json.loads(path.read_text(encoding='utf-8'))['rows'])}\n```\n"
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not what `decode --rows` writes ({error!r}): write it again") from error


def methods_table() -> str:
    """Return a line for each method: what it changes, where its code is, and where it comes from."""
    lines = ["| method | what it changes | file | source |", "|---|---|---|---|"]
    for name, entry in METHODS.items():
        module = entry.place.partition(":")[0].removeprefix("advanced.")
        lines.append(f"| `{name}` | {entry.what} | `{module}.py` | {entry.source} |")
    return "\n".join(lines) + "\n"


def tables(rows: Iterable[Row]) -> str:
    """Return a table for each data set and checkpoint, in the order of their first rows."""
    groups = groups_of(rows)
    places = dict.fromkeys((group.key.task, group.key.checkpoint) for group in groups if group.kind != "baseline")
    texts = []
    for task, checkpoint in places:
        own = [group for group in groups if (group.key.task, group.key.checkpoint) == (task, checkpoint)]
        baselines = [group for group in groups if group.kind == "baseline" and group.key.task == task]
        texts.append(f"### {task}, {checkpoint}\n\n{_table(own, baselines)}")
    return "\n".join(texts)


def groups_of(rows: Iterable[Row]) -> list[Group]:
    """Return the groups of rows in the order of the catalogue's methods, those of few methods first."""
    found: dict[Key, Group] = {}
    for row in rows:
        recipe = row["recipe"]
        key = Key(row["task"], row["checkpoint"], _name(row), recipe["epochs"], recipe["lr"])
        found.setdefault(key, Group(key, [])).rows.append(row)
    order = list(METHODS)

    def place(group: Group) -> tuple[int, int, list[int]]:
        numbers = [order.index(name) for name in group.methods]
        return KINDS.index(group.kind), len(numbers), numbers

    return sorted(found.values(), key=place)


def _name(row: Row) -> str:
    """Return what a combination of methods is called: their names, and the options that are not the defaults."""
    parts = []
    for name in row["methods"]:
        options = ", ".join(f"{option} {value}" for option, value in row["options"].get(name, {}).items())
        parts.append(f"{name} ({options})" if options else name)
    return " + ".join(parts)


def _table(groups: Sequence[Group], baselines: Sequence[Group]) -> str:
    """Return one table: the bags of words first."""
    plain = {group.key.epochs: group for group in groups if group.methods == PLAIN}
    bar = max((statistics.mean(group.accuracies("dev").values()) for group in baselines), default=0.0)
    lines = [f"| {' | '.join(HEADS)} |", RULE]
    lines += [_line(group, plain, bar) for group in (*baselines, *groups)]
    return "\n".join(lines) + "\n"


def _line(group: Group, plain: Mapping[int, Group], bar: float) -> str:
    """Return a group's line; `plain` is plain finetuning by epochs, `bar` what the better bag of words has on dev."""
    rows, key = group.rows, group.key
    dev = group.accuracies("dev")
    trained = statistics.mean(row["parameters"]["trained"] for row in rows)
    beside = plain.get(key.epochs) or next(iter(plain.values()), None)
    is_compared = group.kind != "baseline" and group is not beside and beside is not None
    cells = [
        key.name,
        str(key.epochs) if trained else "",
        f"{key.lr:g}" if trained else "",
        str(len(rows)),
        _mean(dev.values()),
        _mean(group.accuracies("test").values()),
        _difference(dev, beside.accuracies("dev")) if is_compared and beside else "",
        f"{trained:,.0f}" if trained else "",
        _megabytes([row["saved_bytes"] for row in rows]),
        _megabytes([row["peak_bytes"] for row in rows]),
        f"{statistics.mean(row['cpu_seconds'] for row in rows):.0f} s",
        "below a bag of words" if statistics.mean(dev.values()) < bar and group.kind != "baseline" else "",
    ]
    return f"| {' | '.join(cells)} |"


def _mean(values: Iterable[float]) -> str:
    """Return mean and deviation over the seeds, the latter where there are several."""
    found = list(values)
    if not found:
        return "–"
    return f"{statistics.mean(found):.3f}" + (f" ({statistics.stdev(found):.3f})" if len(found) > 1 else "")


def _difference(ours: dict[int, float], plain: dict[int, float]) -> str:
    """Return how much more is right than plainly, seed by seed, with the standard error of that mean."""
    differences = [value - plain[seed] for seed, value in ours.items() if seed in plain]
    if not differences and plain and ours:  # another seed, or none that matters
        differences = [statistics.mean(ours.values()) - statistics.mean(plain.values())]
    if not differences:
        return ""
    mean = f"{statistics.mean(differences):+.3f}".replace("-", "−")
    if len(differences) < 2:
        return mean
    return f"{mean} ± {statistics.stdev(differences) / math.sqrt(len(differences)):.3f}"


def _megabytes(sizes: Sequence[int | None]) -> str:
    """Return the mean of sizes in MiB, nothing where there are none."""
    known = [size for size in sizes if size]
    return f"{statistics.mean(known) / MEGABYTE:.1f} MiB" if known else ""

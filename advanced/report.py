"""The tables of the README: the methods, and the results, made of the rows.

For each data set and checkpoint: what every combination of methods reached, as mean and deviation over the seeds, and
beside plain finetuning; what it cost; and whether it beats a bag of words.
"""

import json
import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from advanced.catalogue import METHODS, Kind
from advanced.decoding import table
from advanced.rows import Row, identity, read_rows
from advanced.task import SCORED, Part
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
    "selection",
    "dev",
    "test",
    "dev − plain",
    "trained",
    "to keep",
    "held",
    "peak",
    "processor",
    "",
)
RULE = f"|---|{'--:|' * (len(HEADS) - 2)}---|"
MEGABYTE = 2**20


@dataclass(frozen=True)
class Group:
    """The rows of a line: they are of the same weights, and differ in nothing but their seed."""

    rows: list[Row]

    @property
    def first(self) -> Row:
        """One of the rows, for what all of them share."""
        return self.rows[0]

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of all these runs."""
        return tuple(self.first["methods"])

    @property
    def kind(self) -> Kind:
        """The kind of all these methods."""
        return METHODS[self.methods[0]].kind

    @property
    def training(self) -> tuple[object, ...]:
        """What a training shares with the plain one that it is compared with; the weights come first."""
        recipe = self.first["recipe"]
        return self.first.get("checkpoint_sha256"), recipe["epochs"], recipe["batch_size"]

    def accuracies(self, part: Part) -> dict[int, float]:
        """Return the accuracy on a part of each seed; nothing where the labels are placeholders."""
        found = {row["seed"]: row["accuracy"].get(part) for row in self.rows}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, part: Part) -> float | None:
        """Return the mean accuracy on a part, None if there is none."""
        values = self.accuracies(part).values()
        return statistics.mean(values) if values else None


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
    places = dict.fromkeys(_place(group) for group in groups if group.kind != "baseline")
    texts = []
    for task, checkpoint in places:
        own = [group for group in groups if _place(group) == (task, checkpoint) and group.kind != "baseline"]
        baselines = [group for group in groups if group.kind == "baseline" and group.first["task"] == task]
        texts.append(f"### {task}, {checkpoint}\n\n{_table(own, baselines)}")
    return "\n".join(texts)


def groups_of(rows: Iterable[Row]) -> list[Group]:
    """Return the groups of rows in the order of the catalogue's methods, those of few methods and epochs first.

    Rows of some sentences only, and those without dev, are none of a table. Of several rows of a run, the last counts.
    """
    whole = [row for row in rows if "dev" in row["accuracy"] and row.get("limit") is None]
    found: dict[tuple[str, str | None], Group] = {}
    for row in {identity(row): row for row in whole}.values():
        key = identity({**row, "seed": None}), row.get("checkpoint_sha256")
        found.setdefault(key, Group([])).rows.append(row)
    order = list(METHODS)

    def place(group: Group) -> tuple[int, int, list[int], int]:
        numbers = [order.index(name) for name in group.methods]
        return KINDS.index(group.kind), len(numbers), numbers, group.first["recipe"]["epochs"]

    return sorted(found.values(), key=place)


def _place(group: Group) -> tuple[str, str]:
    """Return the data set and the checkpoint of a group: it stands in their table."""
    return group.first["task"], group.first["checkpoint"]


def _name(row: Row) -> str:
    """Return what a combination of methods is called: their names, and the options that are not the defaults."""
    parts = []
    for name in row["methods"]:
        options = ", ".join(f"{option} {value}" for option, value in row["options"].get(name, {}).items())
        parts.append(f"{name} ({options})" if options else name)
    return " + ".join(parts)


def _table(groups: Sequence[Group], baselines: Sequence[Group]) -> str:
    """Return one table: the bags of words first, and in bold what is best on the selection part."""
    bar = max((group.mean("dev") or 0.0 for group in baselines), default=0.0)
    best = max(groups, key=lambda group: group.mean("selection") or 0.0)
    lines = [f"| {' | '.join(HEADS)} |", RULE]
    for group in (*baselines, *groups):
        name = f"**{_name(group.first)}**" if group is best else _name(group.first)
        mean = group.mean("dev")
        verdict = "below a bag of words" if group not in baselines and mean is not None and mean < bar else ""
        lines.append(f"| {' | '.join([name, *_cells(group, beside(group, groups)), verdict])} |")
    return "\n".join(lines) + "\n"


def beside(group: Group, groups: Iterable[Group]) -> Group | None:
    """Return the plain finetuning among `groups` that one is compared with: as long, in batches as large, same weights.

    Asking has no length: it is compared with the first. Plain finetuning and baselines are compared with none.
    """
    if group.kind == "baseline" or group.methods == PLAIN:
        return None
    shared = 1 if group.kind == "zero-shot" else None  # the weights alone, or all
    plain = (other for other in groups if other.methods == PLAIN)
    return next((other for other in plain if other.training[:shared] == group.training[:shared]), None)


def _cells(group: Group, plain: Group | None) -> list[str]:
    """Return a group's cells between its name and the verdict."""
    rows, recipe = group.rows, group.first["recipe"]
    is_trained = group.kind == "finetuning"
    trained = statistics.mean(row["parameters"]["trained"] for row in rows)
    return [
        str(recipe["epochs"]) if is_trained else "",
        f"{recipe['lr']:g}" if is_trained else "",
        str(len({row["seed"] for row in rows})),
        *(_mean(group.accuracies(part).values()) for part in SCORED),
        _difference(group, plain) if plain else "",
        f"{trained:,.0f}" if trained else "",
        *(_megabytes([row.get(size) for row in rows]) for size in ("saved_bytes", "held_bytes", "peak_bytes")),
        f"{statistics.mean(row['cpu_seconds'] for row in rows):.0f} s",
    ]


def _mean(values: Iterable[float]) -> str:
    """Return mean and deviation over the seeds, the latter where there are several."""
    found = list(values)
    if not found:
        return "–"
    return f"{statistics.mean(found):.3f}" + (f" ({statistics.stdev(found):.3f})" if len(found) > 1 else "")


def gain(group: Group, plain: Group, part: Part) -> tuple[float, float | None] | None:
    """Return how much more of a part is right than plainly, and the standard error where both have two seeds or more.

    With the same seeds, it is the mean of the differences seed by seed; with others, the difference of the means. It is
    None where a label is a placeholder.
    """
    ours, others = group.accuracies(part), plain.accuracies(part)
    if not ours or not others:
        return None
    mean = statistics.mean(ours.values()) - statistics.mean(others.values())
    if min(len(ours), len(others)) < 2:
        return mean, None
    if ours.keys() == others.keys():
        return mean, _standard_error([value - others[seed] for seed, value in ours.items()])
    return mean, math.hypot(_standard_error(ours.values()), _standard_error(others.values()))


def _difference(group: Group, plain: Group) -> str:
    """Return what a group gained on dev, with its standard error if it has one."""
    found = gain(group, plain, "dev")
    if found is None:
        return ""
    mean, error = found
    text = f"{mean:+.3f}".replace("-", "−")
    return text if error is None else f"{text} ± {error:.3f}"


def _standard_error(values: Collection[float]) -> float:
    """Return the standard error of the mean of two values or more."""
    return statistics.stdev(values) / math.sqrt(len(values))


def _megabytes(sizes: Sequence[int | None]) -> str:
    """Return the mean of sizes in MiB, nothing where there are none."""
    known = [size for size in sizes if size]
    return f"{statistics.mean(known) / MEGABYTE:.1f} MiB" if known else ""

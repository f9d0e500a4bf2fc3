"""The results: a JSON object a line, one for each run, added when the run is finished and never changed."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from errors import DataError

Row = dict[str, Any]
ROWS, TUNING = (Path(__file__).with_name(name) for name in ("results.jsonl", "tuning.jsonl"))  # of the project's plans
# What two runs must share to be the same run.
IDENTITY = ("task", "checkpoint", "methods", "options", "recipe", "dropout", "limit", "seed")


def identity(row: Mapping[str, Any]) -> str:
    """Return what makes a run this run and no other, as one string; a row without a limit had none."""
    found = {"limit": None, **row}
    return json.dumps({name: found[name] for name in IDENTITY}, sort_keys=True)


def read_rows(path: Path) -> list[Row]:
    """Return all rows of a file, none if it is not there.

    A last line without its end is what a killed writer left, and does not count. Raises DataError for any other line
    that is no row.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), start=1):
        try:
            row = json.loads(line)
            identity(row)
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}:{number}: no row of results ({error!r}): delete the line, and run it again"
            ) from error
        rows.append(row)
    return rows


def add_row(path: Path, row: Row) -> None:
    """Add a row, on the disk when this returns; half a line that a killed writer left is cut off first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        if content and not content.endswith(b"\n"):  # else nothing is cut: another process may be adding a row
            file.truncate(content.rfind(b"\n") + 1)
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())

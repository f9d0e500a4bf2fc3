"""Where does a submission lie? In a plain folder, or as Canvas or Gradescope export it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal, Protocol

from autograder.simulate.people import Person
from autograder.simulate.work import Work
from utils import write_text

Layout = Literal["plain", "canvas", "gradescope"]
DUE = datetime.fromisoformat("2026-03-02T23:59:00-08:00")
FOLDERS = 0.2  # share of the submissions that are a folder where that is usual


@dataclass(frozen=True)
class Placed:
    """Where a submission lies and what the platform says of it: the fields of an entry, and how late it is."""

    name: str
    student_name: str = ""
    email: str = ""
    platform_id: str = ""
    attempt: int = 0
    is_late: bool = False
    days_late: int | None = 0
    submitted_at: str = ""


class Platform(Protocol):
    """Writes the submissions of a class, one by one."""

    def place(self, person: Person, work: Work, rng: Random, attempt: int = 0, days_late: int = 0) -> Placed:
        """Write a submission and return where."""

    def finish(self) -> None:
        """Write what the platform adds when all submissions are there."""


class Plain:
    """Zips, and some folders, named by the students' IDs."""

    def __init__(self, folder: Path) -> None:
        """Remember where."""
        self.folder = folder

    def place(self, person: Person, work: Work, rng: Random, attempt: int = 0, days_late: int = 0) -> Placed:
        """Write a zip or folder."""
        if work.ordinary and rng.random() < FOLDERS:
            work.write_files(self.folder / person.student_id)
            return Placed(person.student_id)
        name = f"{person.student_id}.zip"
        (self.folder / name).write_bytes(work.packed())
        return Placed(name)

    def finish(self) -> None:
        """Nobody adds anything."""


class Canvas:
    """Zips with the name, the number of the user, and whether it was late, in their names."""

    def __init__(self, folder: Path) -> None:
        """Remember where."""
        self.folder = folder

    def place(self, person: Person, work: Work, rng: Random, attempt: int = 0, days_late: int = 0) -> Placed:
        """Write a zip."""
        late, again = "_LATE" if days_late else "", f"-{attempt}" if attempt else ""
        file = f"{person.student_id}{again}.zip"
        name = f"{person.run_together}{late}_{person.user}_{rng.randrange(10**6, 10**7)}_{file}"
        (self.folder / name).write_bytes(work.packed())
        return Placed(
            name,
            student_name=person.run_together,
            platform_id=str(person.user),
            attempt=attempt,
            is_late=bool(days_late),
            days_late=None if days_late else 0,
        )

    def finish(self) -> None:
        """Canvas adds nothing."""


class Gradescope:
    """A folder for each submission, with a zip or loose files in it, and one file that says whose they are."""

    def __init__(self, folder: Path) -> None:
        """Remember where."""
        self.folder = folder
        self.records: dict[int, str] = {}

    def place(self, person: Person, work: Work, rng: Random, attempt: int = 0, days_late: int = 0) -> Placed:
        """Write a submission's folder."""
        number = rng.randrange(10**8, 10**9)
        target = self.folder / f"submission_{number}"
        created = DUE + timedelta(days=days_late) - timedelta(seconds=rng.randrange(60, 80_000))
        words = {":name": person.name, ":sid": person.number, ":email": person.email}
        people = "\n    ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in words.items())
        self.records[number] = (
            f"{target.name}:\n  :submitters:\n  - {people}\n"
            f"  :created_at: {created:%Y-%m-%d %H:%M:%S}.000000000 -08:00\n  :score:\n  :status: processed\n"
        )
        name = target.name
        if work.ordinary and rng.random() < FOLDERS:
            work.write_files(target)
        else:
            target.mkdir()
            name = f"{name}/{person.student_id}.zip"
            (self.folder / name).write_bytes(work.packed())
        return Placed(
            name,
            student_name=person.name,
            email=person.email,
            platform_id=person.number,
            is_late=bool(days_late),
            days_late=days_late,
            submitted_at=created.isoformat(),
        )

    def finish(self) -> None:
        """Write the file about all submissions."""
        records = (record for _, record in sorted(self.records.items()))
        write_text(self.folder / "submission_metadata.yml", "---\n" + "".join(records))


LAYOUTS: dict[Layout, Callable[[Path], Platform]] = {"plain": Plain, "canvas": Canvas, "gradescope": Gradescope}

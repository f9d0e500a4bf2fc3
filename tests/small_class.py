"""A small made-up class that was graded already: what tests of the gradebook start from.

school = SmallClass(tmp_path)
school.add("abc123.zip", letter="A-", points=87.0)
grades = school.grades()
"""

import csv
import json
from pathlib import Path
from typing import Any

from autograder.batch.folder import ClassFolder
from autograder.batch.records import Entry, Row, RowStatus, Summary
from autograder.editions import EDITIONS
from autograder.gradebook.book import make_gradebook
from autograder.gradebook.grades import FinalGrade

HEADER = "Student,ID,SIS User ID,SIS Login ID,Section,Min-LLaMA (777),Quiz (778)\n"
ROSTER = (
    f"\ufeff{HEADER},,,,,Manual Posting,\n    Points Possible,,,,,100,10\n"
    '"Ada, Lovelace",101,9001,ada1,CSE 1,,\n'
    '"Bo, Grace",102,9002,bo22,CSE 1,,\n'
    '"Curie, Marié",103,9003,curie,CSE 2,,\n'
)
CANVAS = 'roster = "roster.csv"\n[canvas]\nassignment = "Min-LLaMA (777)"\nenter = "points"\n'


class SmallClass:
    """A class in a temporary folder."""

    def __init__(self, top: Path) -> None:
        self.top, self.out = top, top / "out"
        self.folder = ClassFolder(self.out)
        self.folder.make()
        self.entries: list[Entry] = []
        self.rows: list[Row] = []
        self.edition = "minllama"
        (top / "roster.csv").write_text(ROSTER, encoding="utf-8")
        self.class_file = top / "class.toml"

    def add(
        self,
        name: str,
        letter: str = "A",
        points: float = 100.0,
        *,
        own_id: str | None = None,
        to_confirm: tuple[str, ...] = (),
        checks: dict[str, Any] | None = None,
        status: RowStatus | None = "graded",
        sha256: str = "ab" * 32,
        **entry: Any,
    ) -> None:
        """Add a submission, and with a status, its row. `own_id` is the ID that it says itself."""
        self.entries.append(Entry(name=name, path=f"/nowhere/{name}", **entry))
        if status is None:
            return
        student_id = own_id or entry.get("student_id") or Path(name).stem
        folder = self.folder.result_folder(name) if status == "graded" else ""
        summary = Summary(letter, points, 100.0, ("because",), to_confirm, checks or {}, (), "bwrap")
        reason = "" if status == "graded" else "the disk is full"
        given = summary if status == "graded" else None
        self.rows.append(Row(name, "key", status, student_id, sha256, reason, folder, given))
        if folder:
            report = self.out / folder / "report.html"
            report.parent.mkdir(parents=True, exist_ok=True)
            report.write_text(f"<p>the report of {student_id}", encoding="utf-8")

    def late(self, table: str) -> None:
        """Grade by an edition with such a table `[late]`."""
        path = self.top / "course.toml"
        path.write_text(f'extends = "minllama"\n[late]\n{table}\n', encoding="utf-8")
        assert (EDITIONS / "minllama.toml").exists()
        self.edition = str(path)

    def says(self, text: str) -> None:
        """Write class.toml."""
        self.class_file.write_text(text, encoding="utf-8")

    def overrides(self, text: str) -> None:
        """Write overrides.toml."""
        (self.out / "overrides.toml").write_text(text, encoding="utf-8")

    def write(self) -> None:
        """Write what a batch leaves behind."""
        self.folder.write_entries(self.entries, self.edition, {})
        lines = "".join(json.dumps(row.to_dict()) + "\n" for row in self.rows)
        self.folder.journal.write_text(lines, encoding="utf-8")

    def grades(self, anonymous: bool = False) -> dict[str, FinalGrade]:
        """Make the gradebook, and return it by student."""
        self.write()
        file = self.class_file if self.class_file.exists() else None
        return {grade.student_id: grade for grade in make_gradebook(self.folder, file, anonymous)}

    def table(self, name: str) -> list[dict[str, str]]:
        """Return the lines of a table in OUT."""
        with (self.out / name).open(newline="", encoding="utf-8-sig") as file:
            return list(csv.DictReader(file))

    def review(self) -> str:
        """Return the content of review.toml."""
        return (self.out / "review.toml").read_text(encoding="utf-8")

    def decide(self, decision: str, reason: str = "", question: str = "", points: float | None = None) -> None:
        """Write a decision about the question that holds this text, as a TA does with an editor."""
        blocks = self.review().split("\n\n")
        (index,) = [number for number, block in enumerate(blocks) if "decision = " in block and question in block]
        more = "" if points is None else f"\npoints = {points}"
        block = blocks[index].replace('decision = ""', f'decision = "{decision}"{more}')
        blocks[index] = block.replace('reason = ""', f'reason = "{reason}"')
        (self.out / "review.toml").write_text("\n\n".join(blocks), encoding="utf-8")

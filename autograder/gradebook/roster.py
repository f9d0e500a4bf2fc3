"""Who is in the class? The CSV that Canvas exports from its gradebook, or one with some of the same columns."""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autograder.report.plain import one_line
from errors import UsageError

COLUMNS = ("Student", "ID", "SIS User ID", "SIS Login ID", "Section")
LONGEST = 200  # characters of a name
TOTAL, TESTER = "Points Possible", "Student, Test"  # rows of Canvas' that are nobody's
READ_ONLY = "(read only)"  # in the row of the points: a column that Canvas computes
NUMBERED = re.compile(r".*\([0-9]+\)", re.DOTALL)  # the title of an assignment


@dataclass(frozen=True)
class Student:
    """Somebody of the roster, or (not `known`) somebody that only the platform or a submission knows."""

    id: str  # in all tables of ours: unique
    name: str = ""
    canvas_id: str = ""  # the roster's column ID
    sis_id: str = ""
    login: str = ""
    section: str = ""
    known: bool = True

    def names(self) -> frozenset[str]:
        """Return what names this student: each ID, and the first part of one that is an e-mail address."""
        every = (self.id, self.canvas_id, self.sis_id, self.login)
        return frozenset(key(part) for name in every for part in (name, name.partition("@")[0]) if part)


@dataclass(frozen=True)
class Roster:
    """The students of a class in the file's order, and the assignments that the file has columns for.

    `points` are what can be had for an assignment at most, by its title, as the file says it: "100".
    """

    students: tuple[Student, ...]
    assignments: tuple[str, ...] = ()
    points: Mapping[str, str] = field(default_factory=dict)


def key(text: str) -> str:
    """Return what is compared of an ID: capitals and space around it are none of anybody's business."""
    return text.strip().casefold()


def read_roster(path: Path) -> Roster:
    """Return the class in a CSV. Raises UsageError, with the line, for one that does not say who is who."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            header = [name or "" for name in rows.fieldnames or ()]
            if "Student" not in header or not {"ID", "SIS Login ID"} & set(header):
                mend = "export the gradebook from Canvas, or give the columns Student and SIS Login ID"
                if len(header) == 1 and {";", "\t"} & set(header[0]):
                    mend = "separate them by commas: in Excel, save it as CSV UTF-8 (comma delimited)"
                raise UsageError(f"{path}:1: the columns are {', '.join(header) or 'none'}: {mend}")
            lines = [(rows.line_num, row) for row in rows]
    except OSError as error:
        raise UsageError(f"the roster {path} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"the roster {path} is no CSV in UTF-8: {error}") from error
    students = [_student(row, f"{path}:{line}") for line, row in lines if _is_a_person(row)]
    if not students:
        raise UsageError(f"{path}: no student is in it: export the gradebook from Canvas once students are enrolled")
    _each_once(path, students)
    total: Mapping[str, str | None] = next((row for _, row in lines if (row["Student"] or "").strip() == TOTAL), {})
    points = {title: (total.get(title) or "").strip() for title in header if NUMBERED.fullmatch(title.strip())}
    assignments = tuple(title for title in points if points[title].lower() != READ_ONLY)
    return Roster(tuple(students), assignments, {title: points[title] for title in assignments})


def _is_a_person(row: Mapping[str, str | None]) -> bool:
    """Say whether a row is about somebody: Canvas puts one or two others below the header, and its test student."""
    return (row["Student"] or "").strip() not in ("", TOTAL, TESTER)


def _student(row: Mapping[str, str | None], where: str) -> Student:
    """Return the student of a row."""
    name, canvas_id, sis_id, login, section = (one_line(row.get(column) or "", LONGEST) for column in COLUMNS)
    if not (canvas_id or login):
        raise UsageError(f"{where}: {name} has neither an ID nor a SIS Login ID: give one of them")
    return Student(login or canvas_id, name, canvas_id, sis_id, login, section)


def _each_once(path: Path, students: Sequence[Student]) -> None:
    """Raise UsageError if two rows have the same ID of a kind."""
    for column, kind in (("ID", "canvas_id"), ("SIS User ID", "sis_id"), ("SIS Login ID", "login"), ("ID", "id")):
        seen: dict[str, Student] = {}
        for student in students:
            value = key(getattr(student, kind))
            if value and value in seen:
                names = f"{seen[value].name} and {student.name}"
                raise UsageError(f"{path}: {names} have the same {column} {value}: each student has one line")
            seen[value] = student

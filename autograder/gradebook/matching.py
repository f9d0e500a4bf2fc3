"""Whose is this submission? The platform's word counts; what a submission says of itself only where there is none.

A student can name a zip after somebody else. On Canvas and Gradescope that changes nothing, and is told.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import PurePosixPath

from autograder.batch.found import CANVAS
from autograder.batch.records import Entry, Row
from autograder.gradebook.roster import Roster, Student, key
from autograder.report.plain import one_line

LONGEST = 200  # characters of a name or an ID


@dataclass(frozen=True)
class Handed:
    """An entry, what became of it, whose it is (several: a group), and what is doubtful about that."""

    entry: Entry
    row: Row | None
    students: tuple[Student, ...]
    doubts: tuple[str, ...] = ()


def match(entries: Iterable[Entry], rows: dict[str, Row], roster: Roster | None) -> list[Handed]:
    """Return each entry with its students, those of the roster where it knows them."""
    index = _Index(roster.students if roster else ())
    return [_handed(entry, rows.get(entry.name), index) for entry in entries]


def has_platform(entry: Entry) -> bool:
    """Say whether a platform tells whose an entry is."""
    return any(text.strip(" ;") for text in (entry.platform_id, entry.email))


def is_canvas(entry: Entry) -> bool:
    """Say whether an entry has the name that Canvas gives to what somebody uploaded."""
    found = CANVAS.fullmatch(base_name(entry))
    return bool(entry.platform_id and found and found["user"] == entry.platform_id)


def base_name(entry: Entry) -> str:
    """Return the name of an entry without the folders that it lies in."""
    return PurePosixPath(entry.name).name


def stem(entry: Entry) -> str:
    """Return the name of an entry without folders and without `.zip`."""
    name = base_name(entry)
    return name[:-4] if name.lower().endswith(".zip") else name


class _Index:
    """The roster's students by what names them."""

    def __init__(self, students: Sequence[Student]) -> None:
        self.canvas = {key(student.canvas_id): student for student in students if student.canvas_id}
        self.sis = {key(student.sis_id): student for student in students if student.sis_id}
        self.login = {key(student.login): student for student in students if student.login}
        self.local, self.named = defaultdict[str, list[Student]](list), defaultdict[str, list[Student]](list)
        for student in students:
            self.local[key(student.login).partition("@")[0]].append(student)
            for name in student.names():
                self.named[name].append(student)
        self.strangers: dict[str, Student] = {}

    def stranger(self, own: str, name: str) -> Student:
        """Return the one student of this ID that the roster does not know; the ID is nobody's in the roster."""
        own = own or "unnamed"
        while key(own) in self.named:
            own += " (unmatched)"
        return self.strangers.setdefault(key(own), Student(own, name, known=False))

    def by_email(self, email: str) -> Student | None:
        """Return the student with a login that is this address, or its first part and nobody else's."""
        address = key(email)
        alike = self.alike(email)
        is_clear = len(alike) == 1 and "@" not in alike[0].login
        return self.login.get(address) or (alike[0] if is_clear else None)

    def alike(self, email: str) -> list[Student]:
        """Return the students with a login that begins as this address does: others may have the same at home."""
        first = key(email).partition("@")[0]
        return self.local.get(first, []) if first else []

    def by_itself(self, own: str) -> Student | None:
        """Return the one student whom an ID names, of any kind."""
        found = self.named.get(key(own), [])
        return self.login.get(key(own)) or (found[0] if len(found) == 1 else None)


@dataclass(frozen=True)
class _Person:
    """What a platform says of one of those who handed an entry in."""

    number: str
    email: str
    name: str


def _handed(entry: Entry, row: Row | None, index: _Index) -> Handed:
    """Return an entry with its students."""
    parts = zip_longest(*(text.split(";") for text in (entry.platform_id, entry.email, entry.student_name)))
    people = [_Person(*(one_line(text or "", LONGEST) for text in part)) for part in parts]
    if not has_platform(entry):
        return Handed(entry, row, (_by_itself(entry, row, people[0], index),))
    students, doubts = [], []
    for person in people:
        found = _by_platform(entry, person, index)
        if len(found) > 1:
            names = " and ".join(student.id for student in found)
            doubts.append(f"{_shown(entry)}: number and e-mail belong to two students, {names}: it is given to neither")
        elif not found and (alike := [] if is_canvas(entry) else index.alike(person.email)):
            names = " or ".join(student.id for student in alike)
            doubts.append(f"{_shown(entry)}: {person.email} is not in the roster: is it {names}, or somebody else?")
        students.append(found[0] if len(found) == 1 else _stranger(entry, person, index))
    return Handed(entry, row, tuple(dict.fromkeys(students)), (*doubts, *_other_id(entry, row, students, index)))


def _by_itself(entry: Entry, row: Row | None, person: _Person, index: _Index) -> Student:
    """Return the student that an entry names where no platform says anything."""
    own = entry.student_id or (row.student_id if row else "") or key(stem(entry))
    own = one_line(own, LONGEST)
    return index.by_itself(own) or index.stranger(own, person.name)


def _by_platform(entry: Entry, person: _Person, index: _Index) -> list[Student]:
    """Return the students of the roster that the platform's number and e-mail belong to."""
    if is_canvas(entry):
        candidates = [index.canvas.get(key(person.number))]
    else:
        candidates = [index.sis.get(key(person.number)), index.by_email(person.email)]
    return list(dict.fromkeys(student for student in candidates if student))


def _stranger(entry: Entry, person: _Person, index: _Index) -> Student:
    """Return the student that the platform knows and the roster does not."""
    own = person.number if is_canvas(entry) else person.email or person.number or person.name
    return index.stranger(own or one_line(entry.name, LONGEST), person.name)


def _other_id(entry: Entry, row: Row | None, students: Sequence[Student], index: _Index) -> list[str]:
    """Return the doubt about a submission that says another ID than the platform, where both are known."""
    expected = frozenset[str]().union(*(student.names() for student in students))
    if entry.student_id:
        expected |= {key(entry.student_id)}
    elif all(not student.known for student in students) and not entry.email:
        return []  # there is but a number of the platform
    if row is None or row.summary is None or key(row.student_id) in expected:
        return []
    if _is_unnamed(entry, row) and key(row.student_id) not in index.named:
        return []
    whose = " and ".join(student.id for student in students)
    return [f"{_shown(entry)} is {whose}'s, but calls itself {one_line(row.student_id, LONGEST)}"]


def _is_unnamed(entry: Entry, row: Row) -> bool:
    """Say whether a submission names nobody: a zip without a folder is graded under the name that Canvas gave it."""
    name, own = (re.sub(r"[\W_]", "", text.casefold()) for text in (stem(entry), row.student_id))
    return is_canvas(entry) and bool(own) and name.startswith(own)


def _shown(entry: Entry) -> str:
    """Return the name of an entry as a sentence has it."""
    return one_line(entry.name, LONGEST)

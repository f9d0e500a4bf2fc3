"""What did the TA say about whom? The names in `class.toml` and `overrides.toml`, each led to one student."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from autograder.gradebook.course import Course, Override
from autograder.gradebook.roster import Student, key
from errors import UsageError

Said = TypeVar("Said")


@dataclass(frozen=True)
class Counting:
    """The entry that counts, and where the TA says so."""

    entry: str
    where: str


@dataclass
class Words:
    """A TA's words, by the ID of the student in our tables."""

    extra_days: dict[str, float] = field(default_factory=dict)
    why: dict[str, list[str]] = field(default_factory=dict)  # those days were given
    submitted: dict[str, datetime] = field(default_factory=dict)
    overrides: dict[str, Override] = field(default_factory=dict)
    groups: list[frozenset[str]] = field(default_factory=list)
    counts: dict[str, Counting] = field(default_factory=dict)

    def team(self, student: Student) -> frozenset[str]:
        """Return the IDs of those who share a submission with a student, with the student's own."""
        return next((group for group in self.groups if student.id in group), frozenset({student.id}))


class Names:
    """Students by what names them."""

    def __init__(self, students: Iterable[Student], is_complete: bool = True) -> None:
        """Take the students of a class; where they are not complete, an unknown name is nobody's yet, and no error."""
        self.students = tuple(students)
        self.is_complete = is_complete
        self.by_id: dict[str, Student] = {}
        self.by_key: dict[str, list[Student]] = {}
        for student in self.students:
            self.by_id[key(student.id)] = student
            for name in student.names():
                self.by_key.setdefault(name, []).append(student)

    def find(self, name: str, where: str) -> str | None:
        """Return the ID of the student of this name. Raises UsageError, beginning with `where`, for nobody or two."""
        own = self.by_id.get(key(name))
        found = [own] if own else self.by_key.get(key(name), [])
        found = [student for student in found if student.known] or found
        if len(found) > 1:
            names = ", ".join(student.id for student in found)
            raise UsageError(f"{where}: '{name}' may be any of {names}: write one of these")
        if not found and self.is_complete:
            raise UsageError(f"{where}: nobody knows a student '{name}': write an ID as in grades.csv or the roster")
        return found[0].id if found else None


def resolve(course: Course, overrides: Sequence[Override], names: Names, course_file: Path, out: Path) -> Words:
    """Return what was said about whom. Raises UsageError, which names file and entry, for a student nobody knows."""
    words = Words()
    for number, extension in enumerate(course.extensions, 1):
        where = f"{course_file}: extensions.{number}"
        if found := names.find(extension.student, where):
            _more_days(words, found, extension.days, f"extension of {extension.days:g}", extension.reason, where)
    for number, accommodation in enumerate(course.accommodations, 1):
        where = f"{course_file}: accommodations.{number}"
        if found := names.find(accommodation.student, where):
            _more_days(words, found, accommodation.days, f"accommodation of {accommodation.days:g}", "", where)
    for name, time in course.submitted.items():
        where = f"{course_file}: submitted.{name}"
        if found := names.find(name, where):
            _once(words.submitted, found, time, where)
    for name, entry in course.counts.items():
        where = f"{course_file}: counts.{name}"
        if found := names.find(name, where):
            _once(words.counts, found, Counting(entry, where), where)
    for number, group in enumerate(course.groups, 1):
        _add_group(words, group.members, names, f"{course_file}: groups.{number}")
    for number, override in enumerate(overrides, 1):
        where = f"{out / 'overrides.toml'}: overrides.{number}"
        if found := names.find(override.student, where):
            _once(words.overrides, found, override, where)
    return words


def because(reason: str) -> str:
    """Return a reason as the end of a step."""
    return f" ({reason})" if reason else ""


def _once(said: dict[str, Said], student: str, word: Said, where: str) -> None:
    """Note what was said about a student. Raises UsageError if something was: under another ID, perhaps."""
    if student in said:
        raise UsageError(f"{where}: {student} has one already: make them one")
    said[student] = word


def _more_days(words: Words, student: str, days: float, what: str, reason: str, where: str) -> None:
    """Move a student's due date. Raises UsageError if the same kind of list did it before."""
    kind = what.partition(" ")[0]
    if any(text.startswith(kind) for text in words.why.get(student, ())):
        raise UsageError(f"{where}: {student} has one already: make them one")
    words.extra_days[student] = words.extra_days.get(student, 0.0) + days
    words.why.setdefault(student, []).append(what + because(reason))


def _add_group(words: Words, members: Sequence[str], names: Names, where: str) -> None:
    """Note who shares a submission. Raises UsageError for somebody who does so with two groups."""
    group = frozenset(found for name in members if (found := names.find(name, where)))
    if twice := sorted(member for other in words.groups for member in group & other):
        raise UsageError(f"{where}: in another group, too: {', '.join(twice)}: make the groups one")
    words.groups.append(group)

"""Which submission counts for whom? Of each student's, or of those of a group, the highest attempt."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from autograder.batch.records import Entry
from autograder.gradebook.matching import LONGEST, Handed, has_platform
from autograder.gradebook.roster import Student
from autograder.gradebook.words import Words
from autograder.report.plain import one_line


@dataclass(frozen=True)
class Share:
    """A submission that counts (None: there is none), for whom, and what is doubtful about that."""

    handed: Handed | None
    students: tuple[Student, ...]
    doubts: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The ID that stands for all students of the share in the review."""
        return self.students[0].id


def choose(handed: Sequence[Handed], students: Iterable[Student], words: Words) -> list[Share]:
    """Return what counts for each of the students, in the order of their IDs; a group's members share."""
    by_student: dict[str, list[Handed]] = {}
    for item in handed:
        for student in item.students:
            by_student.setdefault(student.id, []).append(item)
    shares: dict[str, Share] = {}
    for student in sorted(students, key=lambda student: student.id):
        own = {item.entry.name: item for member in words.team(student) for item in by_student.get(member, [])}
        best = max(own.values(), key=_rank, default=None)
        name = f"entry {best.entry.name}" if best else f"student {student.id}"
        before = shares.get(name, Share(best, ()))
        doubts = dict.fromkeys((*before.doubts, *(_others(best, list(own.values())) if best else ())))
        shares[name] = Share(best, (*before.students, student), tuple(doubts))
    return list(shares.values())


def time_of(entry: Entry) -> datetime | None:
    """Return when an entry was handed in; None if nobody knows, or if the text is no time with an offset."""
    try:
        time = datetime.fromisoformat(entry.submitted_at)
    except ValueError:
        return None
    return time if time.tzinfo else None


def _rank(handed: Handed) -> tuple[bool, int, float, str]:
    """Return what decides between submissions of one student: the higher one counts."""
    entry = handed.entry
    time = time_of(entry)
    return has_platform(entry), entry.attempt, time.timestamp() if time else 0.0, entry.name


def _others(best: Handed, own: Sequence[Handed]) -> list[str]:
    """Return the doubt about submissions that might count as well: another's, or of no lower attempt."""
    rivals = [
        item
        for item in own
        if item is not best and (item.students != best.students or item.entry.attempt >= best.entry.attempt)
    ]
    if not rivals:
        return []
    names = ", ".join(sorted(one_line(item.entry.name, LONGEST) for item in rivals))
    return [f"{one_line(best.entry.name, LONGEST)} counts; handed in as well: {names}"]

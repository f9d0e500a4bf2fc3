"""Which submission counts for whom? Of each student's, or of those of a group, the highest attempt that can be read.

What a platform has counts before what lies beside it; of the rest, what is called as its student is. A student can
call a submission's folder after somebody else: where that may be so, nothing counts until the TA names the entry.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from autograder.batch.records import Entry
from autograder.gradebook.matching import LONGEST, Handed, has_platform, stem
from autograder.gradebook.roster import Student, key
from autograder.gradebook.words import Words
from autograder.report.plain import one_line
from errors import UsageError


@dataclass(frozen=True)
class Share:
    """A submission that counts (None: there is none), for whom, and what is doubtful about that."""

    handed: Handed | None
    students: tuple[Student, ...]
    doubts: tuple[str, ...] = ()
    contested: str = ""  # what to do before anything is entered, if somebody else may have called it after the student

    @property
    def owner(self) -> str:
        """The ID that stands for all students of the share in the review."""
        return self.students[0].id


def choose(handed: Sequence[Handed], students: Iterable[Student], words: Words) -> list[Share]:
    """Return what counts for each of the students, in the order of their IDs; a group's members share.

    Raises UsageError, with file and key, where the TA names an entry that is not the student's.
    """
    by_student: dict[str, list[Handed]] = {}
    for item in handed:
        for student in item.students:
            by_student.setdefault(student.id, []).append(item)
    shares: dict[str, Share] = {}
    for student in sorted(students, key=lambda student: student.id):
        own = {item.entry.name: item for member in words.team(student) for item in by_student.get(member, [])}
        told = _told(words, student, own, handed)
        best = told or max(own.values(), key=_rank, default=None)
        rivals = [item for item in own.values() if item is not best] if best and not told else []
        name = f"entry {best.entry.name}" if best else f"student {student.id}"
        before = shares.get(name, Share(best, ()))
        doubts = dict.fromkeys((*before.doubts, *(_others(best, rivals) if best else ())))
        contested = before.contested or (_contested(best, rivals) if best else "")
        shares[name] = Share(best, (*before.students, student), tuple(doubts), contested)
    return list(shares.values())


def time_of(entry: Entry) -> datetime | None:
    """Return when an entry was handed in; None if nobody knows, or if the text is no time with an offset."""
    try:
        time = datetime.fromisoformat(entry.submitted_at)
    except ValueError:
        return None
    return time if time.tzinfo else None


def _told(words: Words, student: Student, own: Mapping[str, Handed], handed: Sequence[Handed]) -> Handed | None:
    """Return the one of these that the TA says counts, for the student or for a member of the group."""
    said = [words.counts[member] for member in sorted(words.team(student)) if member in words.counts]
    if not said:
        return None
    entry, where = said[0].entry, said[0].where
    if any(other.entry != entry for other in said):
        raise UsageError(f"{where}: another member of the group has another entry: name one for the group")
    if entry in own:
        return own[entry]
    if any(item.entry.name == entry and item.row is None for item in handed):
        return None  # it may say whose it is when it is graded
    known = ", ".join(one_line(name, LONGEST) for name in sorted(own)) or "there is none"
    raise UsageError(f"{where}: '{entry}' is no entry of {student.id}: choose from {known}")


def _rank(handed: Handed) -> tuple[bool, bool, bool, int, float, str]:
    """Return what decides between submissions of one student: the higher one counts."""
    entry = handed.entry
    is_sound = not entry.problem and (handed.row is None or handed.row.status != "unreadable")
    time = time_of(entry)
    when = time.timestamp() if time else 0.0
    return has_platform(entry), _is_called_so(handed), is_sound, entry.attempt, when, entry.name


def _is_called_so(handed: Handed) -> bool:
    """Say whether a submission that no platform knows has its student's ID for a name."""
    name = key(stem(handed.entry))
    return not has_platform(handed.entry) and any(name in student.names() for student in handed.students)


def _others(best: Handed, rivals: Sequence[Handed]) -> list[str]:
    """Return the doubt about submissions that might count as well: another's, or of no lower attempt."""
    named = [item for item in rivals if item.students != best.students or item.entry.attempt >= best.entry.attempt]
    if not named:
        return []
    names = ", ".join(sorted(one_line(item.entry.name, LONGEST) for item in named))
    return [f"{one_line(best.entry.name, LONGEST)} counts; handed in as well: {names}"]


def _contested(best: Handed, rivals: Sequence[Handed]) -> str:
    """Return what a person has to say if nothing but their own words tells two submissions of one student apart."""
    same = [
        item
        for item in rivals
        if item.students == best.students
        and not has_platform(item.entry)
        and _is_called_so(item) == _is_called_so(best)
    ]
    if has_platform(best.entry) or not same:
        return ""
    names = " or ".join(sorted(one_line(item.entry.name, LONGEST) for item in (best, *same)))
    return f"which one is it, {names}? write it in class.toml below [counts]"

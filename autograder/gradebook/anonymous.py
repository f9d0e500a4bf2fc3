"""How are grades shown without names? Students become student-001, student-002, ..., in an order that tells nothing.

The order follows from a secret in OUT: the same each time, and nobody else's to find out. What a text says of names and
IDs is crossed out; where a student lies, when a submission came and from which bytes it was made is left out.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from autograder.batch.records import Entry, Row
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.matching import base_name, stem
from autograder.gradebook.private import write_private
from autograder.gradebook.roster import Student
from errors import UsageError

CROSSED = "[...]"
SHORTEST = 3  # letters of a name: a shorter one is a part of too many words
LONG = 5  # letters of an ID that is looked for inside of words, too
WORD = re.compile(r"[^\W_]+")


def anonymised(grades: Sequence[FinalGrade], students: Iterable[Student], key_file: Path) -> list[FinalGrade]:
    """Return grades without names, in their new order. The secret is in `key_file`, and made if it is not there."""
    secret = _secret(key_file)
    order = sorted(grades, key=lambda grade: hmac.digest(secret, grade.student_id.encode(), hashlib.sha256))
    pen = _Pen(grades, students)
    return [_hidden(grade, f"student-{number:03}", pen) for number, grade in enumerate(order, 1)]


class _Pen:
    """Crosses out what names a student."""

    def __init__(self, grades: Iterable[FinalGrade], students: Iterable[Student]) -> None:
        names, ids, self.files = set[str](), set[str](), set[str]()
        for student in students:
            names.add(student.name)
            ids |= {student.id, student.canvas_id, student.sis_id, *student.names()}
        for grade in grades:
            names.add(grade.student_name)
            ids |= set(_ids(grade))
            if grade.entry:
                names.add(grade.entry.student_name)
                self.files |= {grade.entry.name, base_name(grade.entry), stem(grade.entry)}
        self.files = {name for name in self.files if len(name) >= LONG}
        self.words = {part.casefold() for text in names | ids for part in WORD.findall(text) if len(part) >= SHORTEST}
        self.inside = {text.casefold() for text in ids if len(text) >= LONG}
        self.seen: dict[str, str] = {}

    def cross_out(self, text: str) -> str:
        """Return a text with names and IDs crossed out."""
        for name in self.files:
            text = text.replace(name, CROSSED)
        return WORD.sub(lambda match: self._word(match[0]), text)

    def _word(self, word: str) -> str:
        """Return a word, or what stands in its place."""
        if word not in self.seen:
            low = word.casefold()
            is_named = low in self.words or (len(low) > LONG and any(text in low for text in self.inside))
            self.seen[word] = CROSSED if is_named else word
        return self.seen[word]


def _ids(grade: FinalGrade) -> Iterator[str]:
    """Yield the IDs in a grade; of an e-mail address, what stands before the @."""
    yield from (grade.student_id, grade.student_id.partition("@")[0])
    if grade.row:
        yield grade.row.student_id
    if grade.entry:
        yield grade.entry.student_id or ""
        yield from grade.entry.platform_id.split(";")
        yield from (email.partition("@")[0] for email in grade.entry.email.split(";"))


def _hidden(grade: FinalGrade, name: str, pen: _Pen) -> FinalGrade:
    """Return a grade of nobody."""
    return replace(
        grade,
        student_id=name,
        student_name="",
        section="",
        entry=grade.entry and Entry(name=name, path="", is_late=grade.entry.is_late),
        row=grade.row and _hidden_row(grade.row, name, pen),
        steps=tuple(pen.cross_out(text) for text in grade.steps),
        open_items=tuple(pen.cross_out(text) for text in grade.open_items),
    )


def _hidden_row(row: Row, name: str, pen: _Pen) -> Row:
    """Return what became of nobody's submission."""
    summary = row.summary and replace(
        row.summary,
        reasons=tuple(pen.cross_out(text) for text in row.summary.reasons),
        to_confirm=tuple(pen.cross_out(text) for text in row.summary.to_confirm),
    )
    return Row(name, key="", status=row.status, student_id=name, reason=pen.cross_out(row.reason), summary=summary)


def _secret(path: Path) -> bytes:
    """Return the secret in a file, which is made if it is not there."""
    if not path.exists():
        write_private(path, secrets.token_hex(32))
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): allow it, or remove it") from error

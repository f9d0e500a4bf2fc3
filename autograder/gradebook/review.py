"""What has a person to decide? The queue `review.toml` in OUT: we write the questions, a TA the decisions.

A decision holds for one question about the same bytes of one entry, whoever they belong to, and is kept under
`[[settled]]` when that is not asked. A file that is broken is an error, and is not written over.
"""

import hashlib
import json
from codecs import BOM_UTF8
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, model_validator

from autograder.gradebook.course import Points, known_letter
from autograder.gradebook.private import replace_private, write_private
from autograder.report.plain import one_line
from autograder.toml_file import Table, parsed_toml, validated
from errors import UsageError

KEEP = "keep"
LONGEST = 2000  # characters of a question
FIRST = "# What a person has to decide."
HEAD = f"""\
{FIRST} Write in each item's decision "{KEEP}": the grade stays as the grader gave it,
# or a letter, such as "A+", and where points are entered, a line `points = 90`, too: the student gets that, before
# lateness. If several items of a student say something, the lowest counts. The reason is yours to give. Then run
# `python -m autograder gradebook OUT`.
# Questions are written anew each time; decisions, points and reasons are kept, comments are not.
"""


def known_decision(decision: str) -> str:
    """Return a decision that can be made. Raises ValueError for any other text."""
    return decision if decision in ("", KEEP) else known_letter(decision)


@dataclass(frozen=True)
class Question:
    """What is asked about the bytes of an entry, and whose it is now."""

    student: str
    entry: str
    sha256: str
    text: str

    @property
    def id(self) -> str:
        """What a decision holds for: not the student, whose ID changes when a roster or a group comes later."""
        return hashlib.sha256(f"{self.entry}\n{self.sha256}\n{self.text}".encode()).hexdigest()[:12]


class Item(Table):
    """One question about one student's submission."""

    id: str
    student: str  # of a group, the first
    question: str
    decision: Annotated[str, AfterValidator(known_decision)] = ""
    points: Points | None = None
    reason: str = ""

    @model_validator(mode="after")
    def _says_one_thing(self) -> Self:
        if self.decision == KEEP and self.points is not None:
            raise ValueError(f"'{KEEP}' keeps the points as well: write a letter, or leave the points out")
        return self

    @property
    def letter(self) -> str | None:
        """The letter that was decided."""
        return None if self.decision in ("", KEEP) else self.decision

    @property
    def is_decided(self) -> bool:
        """Whether a person decided something."""
        return bool(self.decision) or self.points is not None

    @property
    def is_answered(self) -> bool:
        """Whether a person wrote something that must not be lost."""
        return self.is_decided or bool(self.reason)


class Review(Table):
    """`review.toml`: what is asked now, and what was decided about questions that are not asked any more."""

    items: tuple[Item, ...] = ()
    settled: tuple[Item, ...] = ()

    def of(self, student: str) -> tuple[Item, ...]:
        """Return what is asked about a student."""
        return tuple(item for item in self.items if item.student == student)


def read_review(path: Path) -> Review:
    """Return the queue in a file, an empty one without it. Raises UsageError, with line or key, for a broken one."""
    return _review(_content(path), path)


def renew_review(path: Path, questions: Iterable[Question]) -> Review:
    """Return the queue of these questions with the decisions in a file, and write it there; the old one is kept beside.

    What somebody saves meanwhile is read as well. Raises UsageError for a file that is broken, or cannot be written.
    """
    asked = tuple(questions)
    while True:
        before = _content(path)
        review = renewed(_review(before, path), asked)
        content = review_text(review).encode()
        if _content(path) == before if content == before else _replaced(path, before, content):
            return review


def renewed(old: Review, questions: Iterable[Question]) -> Review:
    """Return the queue of these questions, with the decisions of the old one."""
    before = {item.id: item for item in (*old.items, *old.settled)}
    items = {}
    for asked in questions:
        question = replace(asked, text=one_line(asked.text, LONGEST))
        answer = before.get(question.id)
        items[question.id] = Item(
            id=question.id,
            student=question.student,
            question=question.text,
            decision=answer.decision if answer else "",
            points=answer.points if answer else None,
            reason=answer.reason if answer else "",
        )
    settled = [item for item in before.values() if item.is_answered and item.id not in items]
    return Review(items=tuple(items.values()), settled=tuple(sorted(settled, key=lambda item: (item.student, item.id))))


def review_text(review: Review) -> str:
    """Return the content of the file."""
    blocks = [_block("items", item) for item in review.items]
    if review.settled:
        blocks += ["# What was decided about questions that are not asked any more.\n"]
        blocks += [_block("settled", item) for item in review.settled]
    return "\n".join([HEAD, *blocks])


def quoted(text: str) -> str:
    """Return a text as a TOML string on one line: as in JSON, but for one character that TOML forbids."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _block(name: str, item: Item) -> str:
    """Return an item as it stands in the file."""
    values = item.model_dump(exclude_none=True).items()
    lines = [f"{key} = {quoted(value) if isinstance(value, str) else value}" for key, value in values]
    return "\n".join([f"[[{name}]]", *lines]) + "\n"


def _content(path: Path) -> bytes | None:
    """Return what is in a file; None if there is none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): allow it, or move it away") from error


def _review(content: bytes | None, path: Path) -> Review:
    """Return the queue of a file's content. Raises UsageError for a broken one."""
    if content is None:
        return Review()
    if not content.removeprefix(BOM_UTF8).startswith(FIRST.encode()):  # an editor that saves empties a file first
        mend = f"save it again, take {path.name}.bak, or remove it if nothing was decided"
        raise UsageError(f"{path} does not begin with '{FIRST}', as we wrote it: {mend}")
    review = validated(Review, parsed_toml(content, path), path)
    seen = set()
    for item in (*review.items, *review.settled):
        if item.id in seen:
            raise UsageError(f"{path}: two items have the id {item.id}, of {item.student}: keep one of them")
        seen.add(item.id)
    return review


def _replaced(path: Path, before: bytes | None, content: bytes) -> bool:
    """Write a content in place of what was before; say False, and write nothing, if that is not there any more."""
    if before is not None:
        write_private(path.with_name(f"{path.name}.bak"), before.decode())
    return replace_private(path, before, content)

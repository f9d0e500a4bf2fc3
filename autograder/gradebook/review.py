"""What has a person to decide? The queue `review.toml` in OUT: we write the questions, a TA the decisions.

A decision stays as long as its question is asked, and is kept under `[[settled]]` when it is not. A file that is
broken is an error, and is not written over.
"""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from autograder.gradebook.course import known_letter
from autograder.report.plain import one_line
from autograder.toml_file import Table, read_toml, validated
from errors import UsageError

KEEP = "keep"
LONGEST = 2000  # characters of a question
HEAD = f"""\
# What a person has to decide. Write in each item's decision "{KEEP}": the grade stays as the grader gave it,
# or a letter, such as "A+": the student gets that, before lateness. If several items of a student have a letter, the
# lowest counts. The reason is yours to give. Then run `python -m autograder gradebook OUT`.
# Questions are written anew each time; decisions and reasons are kept, comments are not.
"""


def known_decision(decision: str) -> str:
    """Return a decision that can be made. Raises ValueError for any other text."""
    return decision if decision in ("", KEEP) else known_letter(decision)


class Item(Table):
    """One question about one student's submission."""

    id: str
    student: str  # of a group, the first
    question: str
    decision: Annotated[str, AfterValidator(known_decision)] = ""
    reason: str = ""

    @property
    def is_answered(self) -> bool:
        """Whether a person wrote something that must not be lost."""
        return bool(self.decision or self.reason)


class Review(Table):
    """`review.toml`: what is asked now, and what was decided about questions that are not asked any more."""

    items: tuple[Item, ...] = ()
    settled: tuple[Item, ...] = ()

    def of(self, student: str) -> tuple[Item, ...]:
        """Return what is asked about a student."""
        return tuple(item for item in self.items if item.student == student)


def read_review(path: Path) -> Review:
    """Return the queue in a file, an empty one without it. Raises UsageError, with line or key, for a broken one."""
    if not path.exists():
        return Review()
    review = validated(Review, read_toml(path), path)
    seen = set()
    for item in (*review.items, *review.settled):
        if item.id in seen:
            raise UsageError(f"{path}: two items have the id {item.id}, of {item.student}: keep one of them")
        seen.add(item.id)
    return review


def renewed(old: Review, questions: Iterable[tuple[str, str]]) -> Review:
    """Return the queue of these questions (student and text), with the decisions of the old one."""
    before = {item.id: item for item in (*old.items, *old.settled)}
    items = {}
    for student, text in questions:
        question = one_line(text, LONGEST)
        name = hashlib.sha256(f"{student}\n{question}".encode()).hexdigest()[:12]
        answer = before.get(name)
        items[name] = Item(
            id=name,
            student=student,
            question=question,
            decision=answer.decision if answer else "",
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
    lines = [f"{key} = {quoted(value)}" for key, value in item.model_dump().items()]
    return "\n".join([f"[[{name}]]", *lines]) + "\n"

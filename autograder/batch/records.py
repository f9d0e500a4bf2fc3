"""What is known of a class: what was found in its folder, and what became of each submission.

An `Entry` is written down when a batch begins, a `Row` when a submission is done. Neither holds a clock's reading:
the same class, edition, seed and grader give the same records. Everything here may come from a stranger, even names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from autograder.report.plain import one_line
from autograder.result import Result, Status

# graded: there is a result. unreadable: nothing of it could be read, which is the submission's fault.
# ungraded: the grader failed, which is never a score; the next run tries it again.
RowStatus = Literal["graded", "unreadable", "ungraded"]
LONGEST = 2000  # characters of a text that a summary keeps


@dataclass(frozen=True)
class Entry:
    """One submission of a class, as the folder or the platform's export names it.

    `student_id` is whose the platform says it is; None where only the submission itself says that. `submitted_at` is
    in ISO 8601 with an offset, empty if nobody knows it. `days_late` is None if the platform only marks it as late.
    `problem` says why it cannot be graded at all: it is no zip and no folder. Of a group that handed in together,
    `student_name`, `email` and `platform_id` hold all members, in one order, with `;` between them.
    """

    name: str  # unique in the class: the path below the folder, with forward slashes
    path: str  # the zip or folder, absolute
    student_id: str | None = None
    student_name: str = ""
    email: str = ""
    platform_id: str = ""  # Canvas' number of the user (`? NAME` if it gives none), or Gradescope's student ID
    attempt: int = 0  # the higher one counts
    is_late: bool = False
    submitted_at: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Summary:
    """What the tables show of a result; all the rest is in its `result.json`."""

    letter: str
    points: float
    max_points: float
    reasons: tuple[str, ...]
    to_confirm: tuple[str, ...]
    checks: Mapping[str, Status]  # by name; a note of the edition counts as passed
    misconceptions: tuple[tuple[str, str], ...]  # region and sentence, each once
    sandbox: str


@dataclass(frozen=True)
class Row:
    """What became of one entry. `key` says of which bytes, edition, grader and options."""

    name: str  # of the entry
    key: str
    status: RowStatus
    student_id: str
    sha256: str = ""
    reason: str = ""  # why there is no grade
    folder: str = ""  # of its result.json and report.html, below OUT
    summary: Summary | None = field(default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Row":
        """Return the row of plain data. Raises TypeError or KeyError for data of another shape."""
        kept = data["summary"]
        summary = kept and Summary(
            **kept
            | {name: tuple(kept[name]) for name in ("reasons", "to_confirm")}
            | {"misconceptions": tuple((region, sentence) for region, sentence in kept["misconceptions"])}
        )
        return cls(**dict(data) | {"summary": summary})


def summarise(result: Result) -> Summary:
    """Return what the tables show of a result."""
    sentences = [(check.region, text) for check in result.checks if not check.is_note for text in check.misconceptions]
    return Summary(
        letter=result.grade.letter,
        points=result.points,
        max_points=result.max_points,
        reasons=tuple(one_line(text, LONGEST) for text in result.grade.reasons),
        to_confirm=tuple(one_line(text, LONGEST) for text in result.grade.to_confirm),
        checks={check.name: "pass" if check.is_note else check.status for check in result.checks},
        misconceptions=tuple(dict.fromkeys(sentences)),
        sandbox=result.sandbox,
    )

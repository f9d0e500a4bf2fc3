"""What does the TA say about this class? Three small files, of which `review.toml` is in review.py.

`class.toml` is this year's class, `overrides.toml` in OUT is a person's last word on a grade. Both are written by hand
and never by us.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from autograder.gradebook.late import LETTERS
from autograder.toml_file import Table, read_toml, validated
from errors import UsageError

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Days = Annotated[float, Field(strict=True, gt=0.0, le=365.0)]
Time = Annotated[AwareDatetime, Field(strict=True)]


def known_letter(letter: str) -> str:
    """Return a letter that a person may give. Raises ValueError for any other text."""
    if letter not in LETTERS:
        raise ValueError(f"'{letter}' is no letter: choose from {', '.join(LETTERS)}")
    return letter


Letter = Annotated[str, AfterValidator(known_letter)]


class Canvas(Table):
    """The column of Canvas' gradebook that grades are entered in."""

    assignment: Text  # as in the header of Canvas' export, with its number
    enter: Literal["letter", "points"]


class Extension(Table):
    """A later due date for one student, this time."""

    student: Text
    days: Days
    reason: Text


class Accommodation(Table):
    """More days for one student in each assignment; why is nobody's business here."""

    student: Text
    days: Days


class Group(Table):
    """Students who share one submission and its grade."""

    members: Annotated[tuple[Text, ...], Field(min_length=2)]


class Course(Table):
    """`class.toml`: a class of one year."""

    due: Time | None = None
    roster: Text | None = None  # a path; relative to the file
    canvas: Canvas | None = None
    extensions: tuple[Extension, ...] = ()
    accommodations: tuple[Accommodation, ...] = ()
    groups: tuple[Group, ...] = ()
    submitted: dict[str, Time] = Field(default={})  # by student, where the platform does not tell, or is wrong

    @model_validator(mode="after")
    def _canvas_needs_a_roster(self) -> Self:
        if self.canvas and not self.roster:
            raise ValueError("canvas needs roster: export the gradebook from Canvas and name that file")
        return self


class Override(Table):
    """What a student gets, whatever the grader, the review and the calendar say."""

    student: Text
    letter: Letter | None = None
    points: Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)] | None = None
    reason: Text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.letter is None and self.points is None:
            raise ValueError("give a letter, points, or both")
        return self


class Overrides(Table):
    """`overrides.toml`."""

    overrides: tuple[Override, ...] = ()


def read_course(path: Path | None, out: Path) -> Course:
    """Return the class in a file; without one, in `class.toml` in OUT, or one of which nothing is known.

    The path of the roster in it is absolute. Raises UsageError, which names file and key.
    """
    default = out / "class.toml"
    if path is None and not default.exists():
        return Course()
    path = path or default
    course = validated(Course, read_toml(path), path)
    if course.roster is None:
        return course
    return course.model_copy(update={"roster": str(path.absolute().parent / course.roster)})


def read_overrides(out: Path) -> tuple[Override, ...]:
    """Return the overrides of a class, none if there is no such file. Raises UsageError, which names file and key."""
    path = out / "overrides.toml"
    if not path.exists():
        return ()
    overrides = validated(Overrides, read_toml(path), path).overrides
    for number, override in enumerate(overrides, 1):
        if any(earlier.student == override.student for earlier in overrides[: number - 1]):
            raise UsageError(f"{path}: overrides.{number}: {override.student} has one already: make them one")
    return overrides

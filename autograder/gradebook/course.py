"""What does the TA say about this class? Three small files, of which `review.toml` is in review.py.

`class.toml` is this year's class, `overrides.toml` in OUT is a person's last word on a grade. Both are written by hand
and never by us.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, model_validator

from autograder.gradebook.late import LETTERS
from autograder.gradebook.private import write_private
from autograder.toml_file import Table, read_toml, validated
from errors import UsageError

REMEMBERED = "class-file"  # in OUT: the path of the file that was named last with --class

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Days = Annotated[float, Field(strict=True, gt=0.0, le=365.0)]
Time = Annotated[AwareDatetime, Field(strict=True)]


def known_letter(letter: str) -> str:
    """Return a letter that a person may give. Raises ValueError for any other text."""
    if letter not in LETTERS:
        raise ValueError(f"'{letter}' is no letter: choose from {', '.join(LETTERS)}")
    return letter


Letter = Annotated[str, AfterValidator(known_letter)]


Points = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]


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
    counts: dict[str, Text] = Field(default={})  # by student, the name of the entry, where several may count

    @model_validator(mode="after")
    def _canvas_needs_a_roster(self) -> Self:
        if self.canvas and not self.roster:
            raise ValueError("canvas needs roster: export the gradebook from Canvas and name that file")
        return self


class Override(Table):
    """What a student gets, whatever the grader, the review and the calendar say."""

    student: Text
    letter: Letter | None = None
    points: Points | None = None
    reason: Text

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.letter is None and self.points is None:
            raise ValueError("give a letter, points, or both")
        return self


class Overrides(Table):
    """`overrides.toml`."""

    overrides: tuple[Override, ...] = ()


def find_class(path: Path | None, out: Path) -> Path | None:
    """Return the file that a class is in: `path`, or the one remembered in OUT, or `class.toml` there, if there is one.

    Raises UsageError if the one remembered is gone: without it, grades would silently be others.
    """
    if path is not None:
        return path
    memory, default = out / REMEMBERED, out / "class.toml"
    try:
        remembered = Path(memory.read_text(encoding="utf-8").rstrip("\n"))
    except FileNotFoundError:
        return default if default.exists() else None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{memory} cannot be read ({error}): remove it, and name the class with --class") from error
    if not remembered.is_file():
        raise UsageError(f"{remembered} is gone, the class file named before: name it with --class, or remove {memory}")
    return remembered


def remember_class(path: Path, out: Path) -> None:
    """Note in OUT which file the class is in, for the commands that do not name it."""
    write_private(out / REMEMBERED, f"{path.absolute()}\n")


def read_course(path: Path | None, out: Path) -> Course:
    """Return the class in a file; without one, in the file that find_class finds, or one of which nothing is known.

    The path of the roster in it is absolute. Raises UsageError, which names file and key.
    """
    path = find_class(path, out)
    if path is None:
        return Course()
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

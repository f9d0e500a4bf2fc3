"""Who gets which grade? Entries, results, roster and a TA's words become one line a student, and the files of it.

    grades = make_gradebook(ClassFolder(Path("out")), Path("class.toml"))

Everything here is made anew from what lies in OUT; the same content gives the same bytes. A grade is, in this order:
what the grader gave, what a person decided in the review, less what lateness costs, or in the end an override.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import read_journal
from autograder.batch.records import Row
from autograder.editions import Edition, read_edition
from autograder.gradebook.anonymous import anonymised
from autograder.gradebook.choosing import Share, choose, time_of
from autograder.gradebook.course import Course, Override, read_course, read_overrides
from autograder.gradebook.feedback import write_feedback
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.late import Standing, days_begun, penalised, worst
from autograder.gradebook.matching import LONGEST, Handed, match
from autograder.gradebook.private import write_private
from autograder.gradebook.review import KEEP, Item, Review, read_review, renewed, review_text
from autograder.gradebook.roster import Roster, Student, read_roster
from autograder.gradebook.tables import write_canvas, write_grades, write_unmatched
from autograder.gradebook.words import Names, Words, because, resolve
from autograder.report.plain import one_line
from autograder.rubric import LOWEST
from errors import UsageError


@dataclass(frozen=True)
class _Book:
    """All that the grades of a class follow from, but for the review."""

    edition: Edition
    course: Course
    roster: Roster | None
    handed: list[Handed]
    shares: list[Share]
    words: Words

    @property
    def max_points(self) -> float:
        """The points of somebody who passes every check."""
        return sum(check.points for check in self.edition.checks.run)


def make_gradebook(folder: ClassFolder, class_file: Path | None = None, anonymous: bool = False) -> list[FinalGrade]:
    """Return the grade of each student, by ID, and write the gradebook's files into OUT.

    With `anonymous`, nobody's name or ID is in what is returned, and OUT/anonymous/grades.csv is the only file.
    Raises UsageError for a file of a TA that is broken or names somebody unknown; then no file is written.
    """
    book = _read(folder, class_file, anonymous)
    path = folder.out / "review.toml"
    while True:
        before = path.read_bytes() if path.exists() else b""
        review = renewed(read_review(path), _questions(book))
        text = review_text(review)
        if before == (path.read_bytes() if path.exists() else b""):  # else somebody saved a decision just now
            break
    if anonymous:
        return _write_anonymous(folder, book, review)
    if text.encode() != before:
        write_private(path, text)
    grades = _grades(book, review)
    write_grades(folder.out / "grades.csv", grades)
    write_canvas(folder.out / "canvas.csv", grades, book.course.canvas, book.roster, book.max_points)
    write_unmatched(folder.out / "unmatched.csv", grades, book.course.canvas)
    write_feedback(folder.out / "feedback.zip", grades, folder.out)
    return grades


def check_class(out: Path, class_file: Path | None, edition: Edition) -> None:
    """Raise UsageError if a file of the TA is broken: before a long batch, rather than after it."""
    course = read_course(class_file, out)
    _check_canvas(course, read_roster(Path(course.roster)) if course.roster else None, edition, class_file, out)
    read_overrides(out)
    read_review(out / "review.toml")


def _write_anonymous(folder: ClassFolder, book: _Book, review: Review) -> list[FinalGrade]:
    """Write and return the grades without anybody's name."""
    unexplained = [item.model_copy(update={"reason": ""}) for item in review.items]
    grades = _grades(book, Review(items=tuple(unexplained)))
    hidden = anonymised(grades, book.roster.students if book.roster else (), folder.out / "anonymous.key")
    write_grades(folder.out / "anonymous" / "grades.csv", hidden)
    return hidden


# --- What is there? ---------------------------------------------------------------------------------------------------


def _read(folder: ClassFolder, class_file: Path | None, anonymous: bool) -> _Book:
    """Read everything and find out whose is what."""
    entries, edition_name = folder.read_entries()
    edition = read_edition(edition_name)
    course, overrides = read_course(class_file, folder.out), read_overrides(folder.out)
    roster = read_roster(Path(course.roster)) if course.roster else None
    _check_canvas(course, roster, edition, class_file, folder.out)
    if anonymous:
        course, overrides = _without_reasons(course, overrides)
    rows = read_journal(folder.journal)
    handed = match(entries, rows, roster)
    students = dict.fromkeys([*(roster.students if roster else ()), *(one for item in handed for one in item.students)])
    # Without a roster, a submission that waits may be of anybody.
    names = Names(students, is_complete=roster is not None or all(item.row for item in handed))
    words = resolve(course, overrides, names, _file(class_file, folder.out), folder.out)
    return _Book(edition, course, roster, handed, choose(handed, students, words), words)


def _file(class_file: Path | None, out: Path) -> Path:
    """Return the file that the class is in."""
    return class_file or out / "class.toml"


def _check_canvas(course: Course, roster: Roster | None, edition: Edition, class_file: Path | None, out: Path) -> None:
    """Raise UsageError if what is to be entered in Canvas cannot be right."""
    if course.canvas is None:
        return
    path, title = _file(class_file, out), course.canvas.assignment
    if roster and roster.assignments and title not in roster.assignments:
        known = ", ".join(one_line(name, LONGEST) for name in roster.assignments)
        why = "Canvas would make a new assignment"
        raise UsageError(f"{path}: canvas.assignment: the roster has no column '{title}', {why}: choose from {known}")
    kind = edition.late.kind
    if edition.late.a_day and (kind == "thirds") != (course.canvas.enter == "letter"):
        what = "points" if kind == "percent" else "letter"
        raise UsageError(
            f"{path}: canvas.enter is '{course.canvas.enter}', but edition {edition.name} takes lateness off the "
            f"{what}: enter the {what}, or change late.kind there"
        )


def _without_reasons(course: Course, overrides: Sequence[Override]) -> tuple[Course, tuple[Override, ...]]:
    """Return a TA's words without the reasons, which are private."""
    extensions = tuple(extension.model_copy(update={"reason": ""}) for extension in course.extensions)
    bare = tuple(override.model_copy(update={"reason": ""}) for override in overrides)
    return course.model_copy(update={"extensions": extensions}), bare


# --- What is doubtful? ------------------------------------------------------------------------------------------------


def _questions(book: _Book) -> Iterator[tuple[str, str]]:
    """Yield whom a person has to decide about, and the question."""
    for share in book.shares:
        if share.handed:
            for question in (*share.doubts, *share.handed.doubts, *_of_result(share.handed, book)):
                yield share.owner, question
            if book.edition.late.costs and _days_late(share, share.students[0], book) is None:
                name = one_line(share.handed.entry.name, LONGEST)
                yield share.owner, f"{name} is late, but nobody knows when: write it in class.toml below [submitted]"


def _of_result(handed: Handed, book: _Book) -> Iterator[str]:
    """Yield the questions about a result."""
    row = handed.row
    if row is None:
        return
    if row.status != "graded" or row.summary is None:
        what = "the grader failed" if row.status == "ungraded" else "it cannot be read"
        yield f"{one_line(row.name, LONGEST)} has no grade: {what}"  # the reason is a step: it may read otherwise later
        return
    yield from row.summary.to_confirm
    if book.course.canvas and book.course.canvas.enter == "letter" and row.summary.letter == LOWEST:
        yield f"'{LOWEST}' is no letter that Canvas knows: which one is it?"


# --- What does each get? ----------------------------------------------------------------------------------------------


def _grades(book: _Book, review: Review) -> list[FinalGrade]:
    """Return the grade of each student, by ID."""
    grades = [
        _grade(share, student, review.of(share.owner), book) for share in book.shares for student in share.students
    ]
    return sorted(grades, key=lambda grade: grade.student_id)


def _grade(share: Share, student: Student, items: Sequence[Item], book: _Book) -> FinalGrade:
    """Return what a student gets for a submission, or for none."""
    row = share.handed.row if share.handed else None
    summary = row.summary if row else None
    max_points = summary.max_points if summary else book.max_points
    standing = _decided(_given(row), items)
    days = _days_late(share, student, book)
    standing = penalised(_granted(standing, share, student, book), max_points, book.edition.late, int(days or 0))
    standing = _overridden(standing, book.words.overrides.get(student.id))
    return FinalGrade(
        student_id=student.id,
        student_name=student.name,
        entry=share.handed.entry if share.handed else None,
        row=row,
        letter=standing.letter,
        points=standing.points,
        max_points=max_points,
        days_late=days,
        steps=standing.steps,
        open_items=tuple(item.question for item in items if not item.decision),
        matched=student.known or book.roster is None,
        section=student.section,
    )


def _given(row: Row | None) -> Standing:
    """Return what the grader gave, or why it gave nothing."""
    if row is None:
        return Standing(None, None)
    if row.status != "graded" or row.summary is None:
        return Standing(None, None, (f"no grade: {one_line(row.reason, LONGEST)}",))
    return Standing(row.summary.letter, row.summary.points)


def _decided(standing: Standing, items: Sequence[Item]) -> Standing:
    """Return a standing after a person's decisions."""
    letters = [item for item in items if item.decision not in ("", KEEP)]
    if not letters:
        return standing
    letter = worst([item.decision for item in letters])
    reasons = "; ".join(one_line(item.reason, LONGEST) for item in letters if item.reason)
    step = f"decided: {letter} in place of {standing.letter or 'no letter'}{because(reasons)}"
    return Standing(letter, standing.points, (*standing.steps, step))


def _days_late(share: Share, student: Student, book: _Book, extra: bool = True) -> float | None:
    """Return how many days late have begun, after grace and what a student was granted; None if nobody knows."""
    if share.handed is None:
        return 0.0
    entry, due = share.handed.entry, book.course.due
    told = [book.words.submitted[one.id] for one in share.students if one.id in book.words.submitted]
    time = told[0] if told else time_of(entry)
    if due and time:
        granted = book.words.extra_days.get(student.id, 0.0) if extra else 0.0
        return float(days_begun(time, due, book.edition.late.grace_days + granted))
    return None if entry.is_late or (due and entry.submitted_at) else 0.0


def _granted(standing: Standing, share: Share, student: Student, book: _Book) -> Standing:
    """Return a standing with the days that a student was granted as a step, if that student needed them."""
    why = book.words.why.get(student.id)
    if not why or not book.edition.late.costs or not _days_late(share, student, book, extra=False):
        return standing
    days = book.words.extra_days[student.id]
    reasons = ", ".join(one_line(text, LONGEST) for text in why)
    step = f"due {days:g} {'day' if days == 1 else 'days'} later: {reasons}"
    return Standing(standing.letter, standing.points, (*standing.steps, step))


def _overridden(standing: Standing, override: Override | None) -> Standing:
    """Return a standing after a person's last word."""
    if override is None:
        return standing
    letter = override.letter or standing.letter
    points = standing.points if override.points is None else override.points
    was, now = (" and ".join(_shown(value) for value in pair) for pair in _changed(standing, override))
    step = f"overridden: {now} in place of {was}{because(one_line(override.reason, LONGEST))}"
    return Standing(letter, points, (*standing.steps, step))


def _changed(standing: Standing, override: Override) -> tuple[list[str | float | None], list[str | float | None]]:
    """Return what an override replaces, and by what."""
    pairs = [(standing.letter, override.letter), (standing.points, override.points)]
    kept = [(was, now) for was, now in pairs if now is not None]
    return [was for was, _ in kept], [now for _, now in kept]


def _shown(value: str | float | None) -> str:
    """Return a letter or points as a step has it."""
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else f"{value:g} points"

"""Who gets which grade? Entries, results, roster and a TA's words become one line a student, and the files of it.

    grades = make_gradebook(ClassFolder(Path("out")), Path("class.toml"))

Everything here is made anew from what lies in OUT; the same content gives the same bytes. A grade is, in this order:
what the grader gave, what a person decided in the review, less what lateness costs, or in the end an override.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import current_rows
from autograder.batch.records import Row
from autograder.editions import Edition, read_edition
from autograder.gradebook.anonymous import anonymised
from autograder.gradebook.choosing import Share, choose, time_of
from autograder.gradebook.course import (
    Canvas,
    Course,
    Override,
    find_class,
    read_course,
    read_overrides,
    remember_class,
)
from autograder.gradebook.feedback import write_feedback
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.late import Standing, days_begun, penalised, worst
from autograder.gradebook.matching import LONGEST, Handed, match
from autograder.gradebook.review import Item, Question, Review, read_review, renew_review, renewed
from autograder.gradebook.roster import Roster, Student, read_roster
from autograder.gradebook.tables import FREE_TEXT, number, write_canvas, write_grades, write_unmatched
from autograder.gradebook.words import Names, Words, because, resolve
from autograder.report.plain import one_line
from autograder.rubric import LOWEST
from errors import UsageError

EXAMPLE = "due = 2026-11-20T23:59:00-08:00"


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
        return _max_points(self.edition)


def make_gradebook(folder: ClassFolder, class_file: Path | None = None, anonymous: bool = False) -> list[FinalGrade]:
    """Return the grade of each student, by ID, and write the gradebook's files into OUT.

    The class file is remembered there: without one, the last one counts, or class.toml in OUT, if it is there.
    With `anonymous`, nobody's name or ID is in what is returned, and OUT/anonymous/grades.csv is the only file.
    Raises UsageError for a file of a TA that is broken or names somebody unknown; then no file is written.
    """
    book = _read(folder, class_file, anonymous)
    path = folder.out / "review.toml"
    if anonymous:
        return _write_anonymous(folder, book, renewed(read_review(path), _questions(book)))
    if class_file:
        remember_class(class_file, folder.out)
    grades = _grades(book, renew_review(path, _questions(book)))
    write_grades(folder.out / "grades.csv", grades)
    write_canvas(folder.out / "canvas.csv", grades, book.course.canvas, book.roster, book.max_points)
    write_unmatched(folder.out / "unmatched.csv", grades, book.course.canvas)
    write_feedback(folder.out / "feedback.zip", grades, folder.out)
    return grades


def check_class(out: Path, class_file: Path | None, edition: Edition) -> None:
    """Raise UsageError if a file of the TA is broken: before a long batch, rather than after it."""
    class_file = find_class(class_file, out)
    course, overrides = read_course(class_file, out), read_overrides(out)
    roster = read_roster(Path(course.roster)) if course.roster else None
    _check_course(course, roster, edition, class_file)
    read_review(out / "review.toml")
    if roster:
        handed = _handed_before(ClassFolder(out), roster)  # some of whom the roster may not know
        names = _names(handed, roster)
        resolve(course, overrides if handed else (), names, _shown_file(class_file, out), out)


def _handed_before(folder: ClassFolder, roster: Roster) -> list[Handed]:
    """Return whose is what of the last batch, nothing if there was none, or if the next one has to mend it."""
    try:
        return match(folder.read_entries()[0], current_rows(folder), roster)
    except UsageError:
        return []


def _write_anonymous(folder: ClassFolder, book: _Book, review: Review) -> list[FinalGrade]:
    """Write and return the grades without anybody's name."""
    unexplained = [item.model_copy(update={"reason": ""}) for item in review.items]
    grades = _grades(book, Review(items=tuple(unexplained)))
    hidden = anonymised(grades, book.roster.students if book.roster else (), folder.out / "anonymous.key")
    write_grades(folder.out / "anonymous" / "grades.csv", hidden, without=FREE_TEXT)
    return hidden


# --- What is there? ---------------------------------------------------------------------------------------------------


def _read(folder: ClassFolder, class_file: Path | None, anonymous: bool) -> _Book:
    """Read everything and find out whose is what."""
    entries, edition_name = folder.read_entries()
    edition, class_file = read_edition(edition_name), find_class(class_file, folder.out)
    course, overrides = read_course(class_file, folder.out), read_overrides(folder.out)
    roster = read_roster(Path(course.roster)) if course.roster else None
    _check_course(course, roster, edition, class_file)
    if anonymous:
        course, overrides = _without_reasons(course, overrides)
    handed = match(entries, current_rows(folder), roster)
    names = _names(handed, roster)
    words = resolve(course, overrides, names, _shown_file(class_file, folder.out), folder.out)
    return _Book(edition, course, roster, handed, choose(handed, names.students, words), words)


def _names(handed: Sequence[Handed], roster: Roster | None) -> Names:
    """Return all students by what names them."""
    students = [*(roster.students if roster else ()), *(one for item in handed for one in item.students)]
    # Without a roster, a submission that waits may be of anybody.
    return Names(dict.fromkeys(students), is_complete=roster is not None or all(item.row for item in handed))


def _shown_file(class_file: Path | None, out: Path) -> Path:
    """Return the class file as an error names it, even where there is none."""
    return class_file or out / "class.toml"


def _check_course(course: Course, roster: Roster | None, edition: Edition, path: Path | None) -> None:
    """Raise UsageError if what the class file says cannot be right with this edition and roster."""
    if path is None:
        return
    if course.canvas:
        _check_canvas(course.canvas, roster, edition, path)
    if edition.late.costs and course.due is None:
        mend = f"write, before the first table, such as: {EXAMPLE}"
        raise UsageError(f"{path}: due: edition {edition.name} takes something off for lateness: {mend}")


def _check_canvas(canvas: Canvas, roster: Roster | None, edition: Edition, path: Path) -> None:
    """Raise UsageError if what is to be entered in Canvas cannot be right."""
    title = canvas.assignment
    if roster and roster.assignments and title not in roster.assignments:
        known = ", ".join(one_line(name, LONGEST) for name in roster.assignments)
        why = "Canvas would make a new assignment"
        raise UsageError(f"{path}: canvas.assignment: the roster has no column '{title}', {why}: choose from {known}")
    kind = edition.late.kind
    if edition.late.a_day and (kind == "thirds") != (canvas.enter == "letter"):
        what = "points" if kind == "percent" else "letter"
        raise UsageError(
            f"{path}: canvas.enter is '{canvas.enter}', but edition {edition.name} takes lateness off the "
            f"{what}: enter the {what}, or change late.kind there"
        )
    there, here = roster.points.get(title, "") if roster else "", number(_max_points(edition))
    if canvas.enter == "points" and re.fullmatch(r"[0-9.]+", there) and number(float(there)) != here:
        raise UsageError(
            f"{path}: canvas.assignment: '{title}' has {one_line(there, LONGEST)} points in Canvas, but edition "
            f"{edition.name} gives {here}: set the assignment's points to {here} there, and export the roster again"
        )


def _max_points(edition: Edition) -> float:
    """Return the points of somebody who passes every check."""
    return sum(check.points for check in edition.checks.run)


def _without_reasons(course: Course, overrides: Sequence[Override]) -> tuple[Course, tuple[Override, ...]]:
    """Return a TA's words without the reasons, which are private."""
    extensions = tuple(extension.model_copy(update={"reason": ""}) for extension in course.extensions)
    bare = tuple(override.model_copy(update={"reason": ""}) for override in overrides)
    return course.model_copy(update={"extensions": extensions}), bare


# --- What is doubtful? ------------------------------------------------------------------------------------------------


def _questions(book: _Book) -> Iterator[Question]:
    """Yield what a person has to decide."""
    for share in book.shares:
        if share.handed:
            entry, row = share.handed.entry, share.handed.row
            for text in (*share.doubts, *share.handed.doubts, *_of_result(share.handed, book), *_of_time(share, book)):
                yield Question(share.owner, entry.name, row.sha256 if row else "", text)


def _of_time(share: Share, book: _Book) -> Iterator[str]:
    """Yield the question about when a submission came."""
    if share.handed is None or not book.edition.late.costs:
        return
    name, told, due = one_line(share.handed.entry.name, LONGEST), _told_time(share, book), book.course.due
    if _days_late(share, share.students[0], book) is None:
        yield f"{name} is late, but nobody knows when: write it in class.toml below [submitted]"
    elif told and due and told <= due and share.handed.entry.is_late:
        yield f"{name} is marked as late, but [submitted] in class.toml says that it was not: is it another submission?"


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
    override = book.words.overrides.get(student.id)
    if override:
        reason = one_line(override.reason, LONGEST)
        standing = _replaced(standing, "overridden", override.letter, override.points, reason)
    canvas = book.course.canvas
    return FinalGrade(
        student_id=student.id,
        student_name=student.name,
        entry=share.handed.entry if share.handed else None,
        row=row,
        letter=None if share.contested else standing.letter,
        points=None if share.contested else standing.points,
        max_points=max_points,
        days_late=days,
        steps=(*standing.steps, *([f"nothing is entered: {share.contested}"] if share.contested else [])),
        open_items=tuple(item.question for item in items if not item.is_decided or _lacks(item, canvas)),
        matched=student.known or book.roster is None,
        section=student.section,
        withheld=share.contested or _withheld(items, override, canvas),
    )


def _withheld(items: Sequence[Item], override: Override | None, canvas: Canvas | None) -> str:
    """Return what a person has to add to what they decided before anything is entered; an override is the last word."""
    words: Sequence[Item | Override] = (override,) if override else items
    return next((lack for word in words if (lack := _lacks(word, canvas))), "")


def _lacks(word: Item | Override, canvas: Canvas | None) -> str:
    """Return what a person's word lacks that says nothing of what is entered in Canvas."""
    if canvas and canvas.enter == "points" and word.letter is not None and word.points is None:
        return "decided by letter, points are entered: add points"
    if canvas and canvas.enter == "letter" and word.points is not None and word.letter is None:
        return "decided by points, letters are entered: add a letter"
    return ""


def _given(row: Row | None) -> Standing:
    """Return what the grader gave, or why it gave nothing."""
    if row is None:
        return Standing(None, None)
    if row.status != "graded" or row.summary is None:
        return Standing(None, None, (f"no grade: {one_line(row.reason, LONGEST)}",))
    return Standing(row.summary.letter, row.summary.points)


def _decided(standing: Standing, items: Sequence[Item]) -> Standing:
    """Return a standing after a person's decisions."""
    changes = [item for item in items if item.letter is not None or item.points is not None]
    if not changes:
        return standing
    letters = [item.letter for item in changes if item.letter is not None]
    points = [item.points for item in changes if item.points is not None]
    reasons = "; ".join(one_line(item.reason, LONGEST) for item in changes if item.reason)
    return _replaced(standing, "decided", worst(letters) if letters else None, min(points) if points else None, reasons)


def _days_late(share: Share, student: Student, book: _Book, extra: bool = True) -> float | None:
    """Return how many days late have begun, after grace and what a student was granted; None if nobody knows."""
    if share.handed is None:
        return 0.0
    entry, due = share.handed.entry, book.course.due
    time = _told_time(share, book) or time_of(entry)
    if due and time:
        granted = book.words.extra_days.get(student.id, 0.0) if extra else 0.0
        return float(days_begun(time, due, book.edition.late.grace_days + granted))
    return None if entry.is_late or (due and entry.submitted_at) else 0.0


def _told_time(share: Share, book: _Book) -> datetime | None:
    """Return when a submission came, as the TA says."""
    return next((book.words.submitted[one.id] for one in share.students if one.id in book.words.submitted), None)


def _granted(standing: Standing, share: Share, student: Student, book: _Book) -> Standing:
    """Return a standing with the days that a student was granted as a step, if that student needed them."""
    why = book.words.why.get(student.id)
    if not why or not book.edition.late.costs or not _days_late(share, student, book, extra=False):
        return standing
    days = book.words.extra_days[student.id]
    reasons = ", ".join(one_line(text, LONGEST) for text in why)
    step = f"due {days:g} {'day' if days == 1 else 'days'} later: {reasons}"
    return Standing(standing.letter, standing.points, (*standing.steps, step))


def _replaced(standing: Standing, how: str, letter: str | None, points: float | None, reason: str) -> Standing:
    """Return a standing after a person's word: a letter, points, or both."""
    pairs: list[tuple[str | float | None, str | float | None]] = [(standing.letter, letter), (standing.points, points)]
    kept = [(was, now) for was, now in pairs if now is not None]
    was, now = (" and ".join(_shown(pair[place]) for pair in kept) for place in (0, 1))
    step = f"{how}: {now} in place of {was}{because(reason)}"
    return Standing(letter or standing.letter, standing.points if points is None else points, (*standing.steps, step))


def _shown(value: str | float | None) -> str:
    """Return a letter or points as a step has it."""
    if value is None:
        return "nothing"
    return value if isinstance(value, str) else f"{value:g} points"

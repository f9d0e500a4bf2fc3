"""What does a student get to read? `feedback.zip` has one report a submission, named as its student is.

For a submission from Canvas it has the name of what was uploaded there, and `.html`: Canvas' "Upload submissions"
finds the student by it. For any other it is `ID.html`. Where what is entered is not what the grader gave, the report
begins with that; why is for the course staff to say. Where nothing is entered yet, the report waits as well.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from autograder.batch.records import Entry
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.matching import is_canvas, stem
from autograder.gradebook.private import private_path
from autograder.report.plain import one_line
from errors import UsageError

DATE = (1980, 1, 1, 0, 0, 0)  # of all files, so that the same reports give the same bytes
LONGEST = 200  # characters of a name
PLACE = "<!-- what is entered -->\n"  # in report.html
NOTICE = """<p class="alert"><strong>Entered for you: {entered}.</strong>{late} The grader gave: {given}.
Ask the course staff if you do not know why.</p>
"""


def write_feedback(path: Path, grades: Sequence[FinalGrade], out: Path) -> None:
    """Write the reports of `grades`, which lie in OUT. Raises UsageError if one is gone."""
    with private_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, report, notice in _reports(grades, out):
            info = zipfile.ZipInfo(name, DATE)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system, info.external_attr = 3, 0o600 << 16  # a file of Unix, for its owner
            try:
                page = report.read_text(encoding="utf-8")
            except OSError as error:
                mend = "grade that submission again with --regrade"
                raise UsageError(f"the report {report} cannot be read ({error.strerror}): {mend}") from error
            archive.writestr(info, page.replace(PLACE, PLACE + notice, 1))


def _reports(grades: Sequence[FinalGrade], out: Path) -> Iterator[tuple[str, Path, str]]:
    """Yield the name of each report in the zip, where it lies, and what is to be put into it."""
    taken: set[str] = set()
    on_canvas: set[str] = set()  # a group has one upload there, and so one report
    notices: dict[str, set[str]] = {}
    for grade in grades:
        if grade.entry:
            notices.setdefault(grade.entry.name, set()).add(_notice(grade))
    for grade in grades:
        if grade.entry is None or grade.row is None or grade.row.status != "graded" or grade.withheld:
            continue
        notice = _notice(grade)
        if is_canvas(grade.entry):
            if grade.entry.name in on_canvas:
                continue
            on_canvas.add(grade.entry.name)
            if len(notices[grade.entry.name]) > 1:
                notice = ""  # members of a group who get different grades read the same report
        name = _free(_wanted(grade.entry, grade.student_id), taken)
        yield name, out / grade.row.folder / "report.html", notice


def _notice(grade: FinalGrade) -> str:
    """Return what is entered, as HTML, if it is not what the grader gave."""
    given = grade.row.summary if grade.row else None
    if given is None or (grade.letter, grade.points) == (given.letter, given.points):
        return ""
    late = f" It was {grade.days_late:g} {'day' if grade.days_late == 1 else 'days'} late." if grade.days_late else ""
    return NOTICE.format(
        entered=escape(_shown(grade.letter, grade.points)), late=late, given=escape(_shown(given.letter, given.points))
    )


def _shown(letter: str | None, points: float | None) -> str:
    """Return a letter and points as a person writes them."""
    return f"{letter or 'no letter'}, {'no points' if points is None else f'{points:g} points'}"


def _wanted(entry: Entry, student_id: str) -> str:
    """Return what a report is called, without `.html`: nothing in it that is special for any system."""
    text = one_line(stem(entry) if is_canvas(entry) else student_id, LONGEST)
    return re.sub(r"[^\w.()@+ -]", "_", text).strip(". ") or "student"


def _free(name: str, taken: set[str]) -> str:
    """Return a name that no other report has, on no system, with `.html`."""
    wanted, count = name, 2
    while name.casefold() in taken:
        name, count = f"{wanted}-{count}", count + 1
    taken.add(name.casefold())
    return f"{name}.html"

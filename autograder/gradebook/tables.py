"""What is entered where? `grades.csv` holds everything, `canvas.csv` is imported, `unmatched.csv` is for a person.

Cells may come from strangers: none of them is a formula for a spreadsheet, and none holds a control character. Only
what Canvas wrote itself, and has to find again, is in canvas.csv as it was: IDs, logins, sections and the title.
"""

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from autograder.gradebook.course import Canvas
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.late import LADDER
from autograder.gradebook.private import write_private
from autograder.gradebook.roster import COLUMNS, Roster
from autograder.report.plain import one_line

LONGEST = 8000  # characters of a cell; a spreadsheet takes four times that
FORMULA = tuple("=+-@＝＋－＠\t\r\n")  # what a cell begins with that a spreadsheet computes, some of them wide
GRADES = (
    *("id", "name", "section", "status", "letter", "points", "max points", "days late"),
    *("steps", "open items", "entry", "report"),
)
FREE_TEXT = ("steps", "open items")  # columns of grades.csv where a sentence may say whose it is
UNMATCHED = ("what", "id", "name", "entry", "why")
MARK = "\ufeff"  # tells Excel that this is UTF-8; Canvas needs none
NOTHING = "nothing handed in"


def cell(text: str) -> str:
    """Return a text as a cell that is nothing but text: on one line, and no formula."""
    shown = one_line(text, LONGEST)
    return f"'{shown}" if shown.startswith(FORMULA) else shown


def number(value: float | None) -> str:
    """Return a number as a cell, without needless zeros; nothing for none."""
    return "" if value is None else f"{value:.2f}".rstrip("0").rstrip(".")


def status_of(grade: FinalGrade) -> str:
    """Return what became of a student's submission, if there is one."""
    if grade.entry is None:
        return NOTHING
    return grade.row.status if grade.row else "not graded yet"


def write_grades(path: Path, grades: Iterable[FinalGrade], without: Collection[str] = ()) -> None:
    """Write everything, a line a student, but for some columns."""
    rows = [GRADES, *(_line(grade) for grade in grades)]
    kept = [index for index, column in enumerate(GRADES) if column not in without]
    _write(path, [[cell(row[index]) for index in kept] for row in rows], MARK)


def write_canvas(
    path: Path, grades: Iterable[FinalGrade], canvas: Canvas | None, roster: Roster | None, max_points: float
) -> None:
    """Write what Canvas imports: the students of the roster who have a grade. Nobody else's grade changes there.

    Without a roster and a column to enter grades in, there is no such file.
    """
    if roster is None or canvas is None:
        path.unlink(missing_ok=True)
        return
    students = {student.id: student for student in roster.students}
    rows: list[Sequence[str]] = [(*COLUMNS, canvas.assignment), ("Points Possible", "", "", "", "", number(max_points))]
    for grade in grades:
        student = students.get(grade.student_id)
        entered = entry_for(grade, canvas)
        if student and entered:
            one = student
            # Canvas knows a student by the IDs, so the name, which students choose, can be changed; the IDs cannot.
            rows.append((cell(one.name), one.canvas_id, one.sis_id, one.login, one.section, entered))
    _write(path, rows)


def entry_for(grade: FinalGrade, canvas: Canvas) -> str:
    """Return what is entered for a student; empty if there is nothing that Canvas takes."""
    if grade.withheld:
        return ""
    if canvas.enter == "points":
        return number(grade.points)
    return grade.letter if grade.letter in LADDER else ""


def write_unmatched(path: Path, grades: Iterable[FinalGrade], canvas: Canvas | None) -> None:
    """Write who and what needs a person: nobody of the roster, nothing handed in, nothing to enter."""
    rows: list[Sequence[str]] = [UNMATCHED]
    for grade in grades:
        entry = grade.entry.name if grade.entry else ""
        if grade.entry is None:
            what, why = "student", NOTHING
        elif not grade.matched:
            what, why = "entry", "the roster does not know whose it is"
        elif grade.withheld:
            what, why = "student", grade.withheld
        elif canvas and not entry_for(grade, canvas):
            what, why = "student", f"nothing to enter: {grade.letter or status_of(grade)}"
        else:
            continue
        rows.append([cell(text) for text in (what, grade.student_id, grade.student_name, entry, why)])
    _write(path, rows, MARK)


def _line(grade: FinalGrade) -> Sequence[str]:
    """Return a student's line of grades.csv."""
    return (
        *(grade.student_id, grade.student_name, grade.section, status_of(grade)),
        *(grade.letter or "", number(grade.points), number(grade.max_points)),
        number(grade.days_late) if grade.days_late is not None else "late, unknown",
        *("; ".join(grade.steps), "; ".join(grade.open_items)),
        grade.entry.name if grade.entry else "",
        f"{grade.row.folder}/report.html" if grade.row and grade.row.folder else "",
    )


def _write(path: Path, rows: Iterable[Sequence[str]], mark: str = "") -> None:
    """Write rows as CSV. Each cell is safe already: see `cell`."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_private(path, mark + text.getvalue())

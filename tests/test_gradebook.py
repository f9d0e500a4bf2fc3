"""The gradebook: from results, roster and a TA's words to what is entered."""

import csv
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.batch.records import Entry
from autograder.editions import read_edition
from autograder.gradebook.book import check_class, make_gradebook
from autograder.gradebook.feedback import write_feedback
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.tables import FORMULA, cell, number
from errors import UsageError
from tests.small_class import CANVAS, HEADER, SmallClass

DUE = "due = 2026-11-20T23:59:00-08:00\n"
ON_TIME, ONE_LATE, THREE_LATE = (f"2026-11-{day}T12:00:00-08:00" for day in (20, 21, 23))
TABLES = ("grades.csv", "canvas.csv", "unmatched.csv", "review.toml", "feedback.zip")


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.says(CANVAS)
    return found


def test_a_grade_is_what_the_grader_gave(school: SmallClass) -> None:
    school.add("ada1.zip", "A-", 87.25)
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points, grade.max_points, grade.days_late) == ("A-", 87.25, 100.0, 0.0)
    assert (grade.steps, grade.open_items, grade.matched) == ((), (), True)


def test_canvas_gets_exactly_its_columns_and_only_students_with_a_grade(school: SmallClass) -> None:
    school.add("ada1.zip", "A-", 87.25)
    school.add("eve.zip")
    school.add("bo22.zip", status="ungraded")
    school.grades()
    assert (school.out / "canvas.csv").read_text(encoding="utf-8") == (
        "Student,ID,SIS User ID,SIS Login ID,Section,Min-LLaMA (777)\n"
        "Points Possible,,,,,100\n"
        '"Ada, Lovelace",101,9001,ada1,CSE 1,87.25\n'
    )


def test_every_student_of_the_roster_is_entered_or_told(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.add("bo22.zip", status="unreadable")
    school.add("eve.zip")
    school.grades()
    entered = {line["SIS Login ID"] for line in school.table("canvas.csv")} - {""}
    told = {line["id"]: line["why"] for line in school.table("unmatched.csv")}
    assert entered == {"ada1"}
    assert told == {
        "bo22": "nothing to enter: unreadable",
        "curie": "nothing handed in",
        "eve": "the roster does not know whose it is",
    }


def test_letters_are_entered_but_for_the_one_that_canvas_does_not_know(school: SmallClass) -> None:
    school.says(CANVAS.replace('"points"', '"letter"'))
    school.add("ada1.zip", "A-")
    school.add("bo22.zip", "B or below", 31)
    assert school.grades()["bo22"].open_items == ("'B or below' is no letter that Canvas knows: which one is it?",)
    assert [line["Min-LLaMA (777)"] for line in school.table("canvas.csv")] == ["100", "A-"]
    school.decide("C+")
    school.grades()
    assert [line["Min-LLaMA (777)"] for line in school.table("canvas.csv")] == ["100", "A-", "C+"]


def test_without_a_roster_there_is_nothing_for_canvas(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.grades()
    school.says("")
    school.grades()
    assert not (school.out / "canvas.csv").exists()
    assert school.table("unmatched.csv") == []


@pytest.mark.parametrize(
    ("status", "question"),
    [
        ("ungraded", "ada1.zip has no grade: the grader failed"),
        ("unreadable", "ada1.zip has no grade: it cannot be read"),
    ],
)
def test_what_has_no_grade_is_a_question_with_its_reason_as_a_step(
    status: str, question: str, school: SmallClass
) -> None:
    school.add("ada1.zip", status=status)  # type: ignore[arg-type]
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points, grade.open_items) == (None, None, (question,))
    assert grade.steps == ("no grade: the disk is full",)


def test_a_submission_that_waits_is_told_as_such(school: SmallClass) -> None:
    school.add("ada1.zip", status=None)
    assert school.grades()["ada1"].letter is None
    lines = {line["id"]: line["status"] for line in school.table("grades.csv")}
    assert lines == {"ada1": "not graded yet", "bo22": "nothing handed in", "curie": "nothing handed in"}


# --- lateness and overrides ---


def test_late_points_extensions_and_accommodations(school: SmallClass) -> None:
    school.late('kind = "percent"\na_day = 10')
    school.says(
        DUE + CANVAS + '[[extensions]]\nstudent = "bo22"\ndays = 1\nreason = "ill"\n'
        '[[accommodations]]\nstudent = "bo22"\ndays = 1\n[[extensions]]\nstudent = "ada1"\ndays = 9\nreason = "x"'
    )
    for name, time in (("ada1", ON_TIME), ("bo22", THREE_LATE), ("curie", THREE_LATE)):
        school.add(f"{name}.zip", "A", 90, submitted_at=time)
    grades = school.grades()
    assert [(grade.points, grade.days_late) for grade in grades.values()] == [(90, 0), (80, 1), (60, 3)]
    assert grades["ada1"].steps == (), "an extension that nobody needed changes nothing"
    assert grades["bo22"].steps == (
        "due 2 days later: extension of 1 (ill), accommodation of 1",
        "1 day late: 10 % of 100 points: 90 become 80",
    )


def test_a_decision_comes_before_lateness_and_an_override_after_it(school: SmallClass) -> None:
    school.late('kind = "thirds"\na_day = 1')
    school.says(DUE + CANVAS.replace('"points"', '"letter"'))
    school.add("ada1.zip", "A", to_confirm=("A+?",), submitted_at=ONE_LATE)
    school.grades()
    school.decide("A+")
    assert school.grades()["ada1"].steps == (
        "decided: A+ in place of A",
        "1 day late: 1 third of a letter: A+ becomes A",
    )
    school.overrides('[[overrides]]\nstudent = "ada1"\nletter = "B"\npoints = 50\nreason = "oral exam"')
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points) == ("B", 50.0)
    assert grade.steps[2] == "overridden: B and 50 points in place of A and 100 points (oral exam)"


def test_an_override_gives_a_grade_to_somebody_who_handed_nothing_in(school: SmallClass) -> None:
    school.overrides('[[overrides]]\nstudent = "101"\npoints = 0\nreason = "nothing came"')
    school.add("bo22.zip")
    assert school.grades()["ada1"].steps == ("overridden: 0 points in place of nothing (nothing came)",)
    assert [line["Min-LLaMA (777)"] for line in school.table("canvas.csv")] == ["100", "0", "100"]
    assert (school.out / "overrides.toml").read_text(encoding="utf-8").startswith("[[overrides]]")


def test_late_without_a_time_is_a_question_until_the_time_is_told(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(DUE + CANVAS)
    school.add("ada1.zip", is_late=True)
    grade = school.grades()["ada1"]
    assert (grade.days_late, grade.points) == (None, 100.0)
    assert grade.open_items == ("ada1.zip is late, but nobody knows when: write it in class.toml below [submitted]",)
    assert school.table("grades.csv")[0]["days late"] == "late, unknown"
    school.says(f"{DUE}{CANVAS}[submitted]\nada1 = {ONE_LATE}")
    grade = school.grades()["ada1"]
    assert (grade.days_late, grade.points, grade.open_items) == (1.0, 90.0, ())


@pytest.mark.parametrize("time", ["yesterday", "2026-11-20T12:00:00"])
def test_a_time_that_is_none_is_a_question(time: str, school: SmallClass) -> None:
    school.late("max_days = 3")
    school.says(DUE + CANVAS)
    school.add("ada1.zip", submitted_at=time)
    assert school.grades()["ada1"].days_late is None


def test_where_lateness_costs_nothing_nobody_is_asked_about_it(school: SmallClass) -> None:
    school.add("ada1.zip", is_late=True)
    assert school.grades()["ada1"].open_items == ()


def test_a_time_for_one_member_is_the_groups(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(f'{DUE}{CANVAS}[[groups]]\nmembers = ["ada1", "bo22"]\n[submitted]\nbo22 = {ONE_LATE}')
    school.add("ada1.zip")
    assert [grade.points for grade in school.grades().values()] == [90, 90, None]


# --- files ---


def fill(school: SmallClass) -> None:
    """Add something of everything."""
    school.late('kind = "percent"\na_day = 10')
    school.says(DUE + CANVAS)
    school.add("lovelaceada_101_5_Ada 1.zip", "A", platform_id="101", to_confirm=("x?", "y?"), own_id="bo22")
    school.add("bo22.zip", "B", is_late=True)
    school.add("eve.zip", status="unreadable")


def test_the_same_class_gives_the_same_bytes_in_private_files(school: SmallClass) -> None:
    fill(school)
    school.grades()
    before = {name: (school.out / name).read_bytes() for name in TABLES}
    assert {stat.S_IMODE((school.out / name).stat().st_mode) for name in TABLES} == {0o600}
    school.entries.reverse()
    school.rows.reverse()
    school.grades()
    assert {name: (school.out / name).read_bytes() for name in TABLES} == before


def test_grades_csv_has_all_of_it(school: SmallClass) -> None:
    fill(school)
    school.grades()
    line = school.table("grades.csv")[0]
    assert line | {"open items": ""} == {
        "id": "ada1",
        "name": "Ada, Lovelace",
        "section": "CSE 1",
        "status": "graded",
        "letter": "A",
        "points": "100",
        "max points": "100",
        "days late": "0",
        "steps": "",
        "open items": "",
        "entry": "lovelaceada_101_5_Ada 1.zip",
        "report": f"{school.rows[0].folder}/report.html",
    }
    assert line["open items"].endswith("calls itself bo22; x?; y?")


@given(st.text(), st.sampled_from(["", "=", "+", "-", "@", "\t=", "\r=", " =", "\u200b=", "＝"]))
def test_no_cell_is_a_formula_or_holds_a_control_character(text: str, start: str) -> None:
    shown = cell(start + text)
    assert not shown.startswith(FORMULA)
    assert shown.isprintable() or not any(ord(character) < 32 or ord(character) == 127 for character in shown)


@pytest.mark.parametrize(
    ("value", "shown"), [(None, ""), (0.0, "0"), (100.0, "100"), (87.5, "87.5"), (33.333333, "33.33"), (10.0, "10")]
)
def test_a_number_has_no_needless_zeros(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_formulas_of_strangers_reach_no_table(school: SmallClass) -> None:
    school.says("")
    school.add("=1+1.zip", student_name='=HYPERLINK("http://evil.example")\r\n@x', to_confirm=("=cmd|' /C calc'!A0",))
    school.add("\x1b[31m-2+3.zip", student_name="\t=2")
    school.grades()
    for name in ("grades.csv", "unmatched.csv"):
        with (school.out / name).open(newline="", encoding="utf-8-sig") as file:
            for line in csv.reader(file):
                assert not any(value.startswith(FORMULA) for value in line)
        assert b"\x1b" not in (school.out / name).read_bytes()


def test_a_class_that_was_never_graded_is_an_error(school: SmallClass) -> None:
    with pytest.raises(UsageError, match="no class was graded into"):
        make_gradebook(school.folder, None)


def test_a_file_that_cannot_be_written_is_an_error(school: SmallClass) -> None:
    school.add("ada1.zip")
    (school.out / "grades.csv").mkdir()
    with pytest.raises(UsageError, match="grades.csv is no regular file"):
        school.grades()


def test_a_full_disk_is_an_error_that_names_the_file(school: SmallClass, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    school.add("ada1.zip")
    school.write()
    monkeypatch.setattr("utils.os.fsync", full)
    with pytest.raises(UsageError, match=r"review.toml cannot be written \(No space left on device\)"):
        make_gradebook(school.folder)


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("class.toml", "due = 1", "class.toml: due"),
        ("class.toml", CANVAS, "roster.csv cannot be read"),
        ("overrides.toml", "[[override]]", "overrides.toml: override: Extra"),
        ("review.toml", "items = [", "review.toml does not begin with"),
    ],
)
def test_a_broken_file_is_told_before_a_long_batch(
    name: str, text: str, complaint: str, tmp_path: Path, school: SmallClass
) -> None:
    check_class(school.out, None, read_edition("minllama"))
    check_class(school.out, school.class_file, read_edition("minllama"))
    (school.out / name).write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=complaint):
        check_class(school.out, None, read_edition("minllama"))


def test_a_report_that_is_gone_is_an_error(school: SmallClass) -> None:
    school.add("ada1.zip")
    (school.out / school.rows[0].folder / "report.html").unlink()
    with pytest.raises(UsageError, match=r"report.html cannot be read .*--regrade"):
        school.grades()
    assert not (school.out / "feedback.zip").exists()


def test_who_handed_nothing_in_gets_no_report(tmp_path: Path) -> None:
    write_feedback(tmp_path / "feedback.zip", [FinalGrade("a", "", None, None, None, None, None, 0.0)], tmp_path)
    entry = Entry(name="a.zip", path="a.zip")
    write_feedback(tmp_path / "feedback.zip", [FinalGrade("a", "", entry, None, None, None, None, 0.0)], tmp_path)
    assert (tmp_path / "feedback.zip").stat().st_size == 22, "an empty zip"


# --- points or letters ---


def entered(school: SmallClass) -> dict[str, str]:
    """Return what canvas.csv has, by login."""
    return {line["SIS Login ID"]: line["Min-LLaMA (777)"] for line in school.table("canvas.csv")[1:]}


@pytest.mark.parametrize(
    ("enter", "wrong", "right", "why"),
    [
        ("points", ("F", None), ("F", 10.0), "decided by letter, points are entered: add points"),
        ("letter", ("", 10.0), ("F", 10.0), "decided by points, letters are entered: add a letter"),
    ],
)
def test_a_decision_that_says_nothing_of_what_is_entered_is_told_and_nothing_is_entered(
    enter: str, wrong: tuple[str, float | None], right: tuple[str, float | None], why: str, school: SmallClass
) -> None:
    school.says(CANVAS.replace('"points"', f'"{enter}"'))
    school.add("ada1.zip", to_confirm=("static: copied?",))
    school.grades()
    asked = school.review()
    school.decide(wrong[0], points=wrong[1])
    grade = school.grades()["ada1"]
    assert (grade.open_items, grade.withheld, entered(school)) == (("static: copied?",), why, {})
    assert school.table("unmatched.csv")[0] | {"why": ""} == {
        "what": "student", "id": "ada1", "name": "Ada, Lovelace", "entry": "ada1.zip", "why": "",
    }  # fmt: skip
    assert school.table("unmatched.csv")[0]["why"] == why
    (school.out / "review.toml").write_text(asked, encoding="utf-8")
    school.decide(right[0], points=right[1])
    assert school.grades()["ada1"].open_items == ()
    assert entered(school) == {"ada1": {"points": "10", "letter": "F"}[enter]}


def test_an_override_is_the_last_word_and_has_to_say_what_is_entered(school: SmallClass) -> None:
    school.add("ada1.zip", to_confirm=("static: copied?",))
    school.overrides('[[overrides]]\nstudent = "ada1"\nletter = "F"\nreason = "cheated"')
    assert school.grades()["ada1"].withheld == "decided by letter, points are entered: add points"
    assert entered(school) == {}
    school.decide("B")
    school.overrides('[[overrides]]\nstudent = "ada1"\npoints = 7\nreason = "oral exam"')
    assert school.grades()["ada1"].withheld == ""
    assert entered(school) == {"ada1": "7"}


def test_the_reason_of_an_override_is_one_clean_line(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.overrides('[[overrides]]\nstudent = "ada1"\nletter = "B"\nreason = "oral\\nexam\\u001b[2J"')
    assert school.grades()["ada1"].steps == ("overridden: B in place of A (oral exam)",)


def test_points_that_were_decided_for_what_cannot_be_read_are_lowered_if_late(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(DUE + CANVAS)
    school.add("ada1.zip", status="unreadable", submitted_at=ONE_LATE)
    school.grades()
    school.decide("", points=50)
    assert school.grades()["ada1"].points == 40


def test_what_was_graded_with_other_points_is_measured_by_them(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(DUE + CANVAS)
    school.add("ada1.zip", "A", 60, submitted_at=ONE_LATE)
    summary = school.rows[0].summary
    assert summary is not None
    school.rows[0] = replace(school.rows[0], summary=replace(summary, max_points=80.0))
    grade = school.grades()["ada1"]
    assert (grade.points, grade.max_points) == (52, 80)


def test_ids_and_titles_of_canvas_reach_it_as_they_were_and_names_as_text(school: SmallClass) -> None:
    text = HEADER.replace("Min", "@Min") + '"-Ada, X",101,=9001,@ada1,+S1,,\n'
    (school.top / "roster.csv").write_text(text, encoding="utf-8")
    school.says(CANVAS.replace("Min", "@Min"))
    school.add("x_101_5_ada1.zip", platform_id="101")
    school.grades()
    assert (school.out / "canvas.csv").read_text(encoding="utf-8").splitlines()[::2] == [
        "Student,ID,SIS User ID,SIS Login ID,Section,@Min-LLaMA (777)",
        '"\'-Ada, X",101,=9001,@ada1,+S1,100',
    ]


# --- lateness that nobody can count ---


def test_the_time_that_the_ta_tells_counts_before_the_platforms(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(f"{DUE}{CANVAS}[submitted]\nada1 = {ON_TIME}")
    school.add("ada1.zip", submitted_at=THREE_LATE)
    assert school.grades()["ada1"].points == 100


def test_a_time_that_was_told_of_an_earlier_submission_is_a_question(school: SmallClass) -> None:
    school.late("a_day = 10")
    school.says(f"{DUE}{CANVAS}[submitted]\nada1 = {ON_TIME}")
    school.add("ada_LATE_101_5_x.zip", platform_id="101", is_late=True, own_id="ada1")
    (question,) = school.grades()["ada1"].open_items
    assert question.startswith("ada_LATE_101_5_x.zip is marked as late, but [submitted] in class.toml says")
    school.says(f"{DUE}{CANVAS}[submitted]\nada1 = {ONE_LATE}")
    assert school.grades()["ada1"].open_items == ()


@pytest.mark.parametrize("table", ["a_day = 10", "max_days = 3"])
def test_lateness_without_a_due_date_is_an_error(table: str, school: SmallClass) -> None:
    school.late(table)
    school.add("ada1.zip")
    with pytest.raises(UsageError, match=r"class.toml: due: edition .* takes something off for lateness: write"):
        school.grades()
    with pytest.raises(UsageError, match="class.toml: due"):
        check_class(school.out, school.class_file, read_edition(school.edition))
    school.class_file.unlink()
    assert school.grades()["ada1"].points == 100


# --- the class file ---


def test_the_class_file_is_remembered(school: SmallClass, monkeypatch: pytest.MonkeyPatch) -> None:
    (school.out / "class.toml").write_text("due = 1", encoding="utf-8")
    school.add("ada1.zip")
    school.write()
    monkeypatch.chdir(school.top)
    make_gradebook(school.folder, Path("class.toml"))
    before = {name: (school.out / name).read_bytes() for name in TABLES}
    monkeypatch.chdir("/")
    make_gradebook(school.folder)
    assert {name: (school.out / name).read_bytes() for name in TABLES} == before
    assert (school.out / "class-file").read_text(encoding="utf-8") == f"{school.class_file}\n"
    assert stat.S_IMODE((school.out / "class-file").stat().st_mode) == 0o600


def test_another_class_file_takes_the_place_of_the_one_remembered(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.grades()
    other = school.top / "other.toml"
    other.write_text("", encoding="utf-8")
    make_gradebook(school.folder, other)
    make_gradebook(school.folder)
    assert not (school.out / "canvas.csv").exists()


def test_a_class_file_that_is_gone_or_was_never_read_is_not_forgotten_silently(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.grades()
    tables = (school.out / "grades.csv").read_bytes()
    broken = school.top / "broken.toml"
    broken.write_text("due = 1", encoding="utf-8")
    with pytest.raises(UsageError, match=r"broken.toml: due"):
        make_gradebook(school.folder, broken)
    school.class_file.unlink()
    for use in (lambda: make_gradebook(school.folder), lambda: check_class(school.out, None, read_edition("minllama"))):
        with pytest.raises(UsageError, match=r"class.toml is gone, .*--class, or remove .*class-file"):
            use()
    assert (school.out / "grades.csv").read_bytes() == tables
    (school.out / "class-file").write_bytes(b"\xff")
    with pytest.raises(UsageError, match="class-file cannot be read"):
        make_gradebook(school.folder)


def test_names_in_the_class_are_checked_before_a_long_batch(school: SmallClass) -> None:
    for text, complaint in (
        ('[[extensions]]\nstudent = "dropped"\ndays = 3\nreason = "ill"', "extensions.1: nobody knows a student 'dr"),
        ('[[groups]]\nmembers = ["ada1", "eve"]', "groups.1: nobody knows a student 'eve'"),
    ):
        school.says(CANVAS + text)
        with pytest.raises(UsageError, match=complaint):
            check_class(school.out, school.class_file, read_edition("minllama"))
    school.add("eve.zip")
    school.write()
    check_class(school.out, school.class_file, read_edition("minllama"))
    (school.out / "class.json").write_text("{", encoding="utf-8")  # the batch that comes writes it anew
    school.says(CANVAS)
    check_class(school.out, school.class_file, read_edition("minllama"))


def test_a_submission_that_was_handed_in_again_has_no_grade_until_it_is_graded(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.write()
    school.folder.write_entries(school.entries, school.edition, {}, {"ada1.zip": "of other bytes"})
    assert {grade.student_id: grade.letter for grade in make_gradebook(school.folder, school.class_file)} == {
        "ada1": None, "bo22": None, "curie": None,
    }  # fmt: skip


def test_a_mistake_is_told_of_the_file_that_was_named(school: SmallClass) -> None:
    other = school.top / "this-year.toml"
    other.write_text('[counts]\neve = "eve.zip"', encoding="utf-8")
    school.add("ada1.zip")
    school.write()
    with pytest.raises(UsageError, match=r"this-year.toml: counts.eve: nobody knows a student 'eve'"):
        make_gradebook(school.folder, other)

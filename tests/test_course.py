"""The TA's files: what may be written, and how a mistake is named."""

import re
from pathlib import Path

import pytest

from autograder.gradebook.course import Course, read_course, read_overrides
from autograder.gradebook.roster import read_roster
from errors import UsageError
from tests.small_class import CANVAS, HEADER, SmallClass

FULL = """
due = 2026-11-20T23:59:00-08:00
roster = "roster.csv"

[canvas]
assignment = "Min-LLaMA (777)"
enter = "points"

[[extensions]]
student = "ada1"
days = 3
reason = "ill"

[[accommodations]]
student = "bo22"
days = 2

[[groups]]
members = ["ada1", "bo22"]

[submitted]
curie = 2026-11-21T08:00:00-08:00
"""


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.add("ada1.zip")
    return found


def test_a_full_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "class.toml"
    path.write_text(FULL, encoding="utf-8")
    course = read_course(path, tmp_path)
    assert course.roster == str(tmp_path / "roster.csv")
    assert course.extensions[0].reason == "ill"
    assert read_course(None, tmp_path) == course, "class.toml in OUT is the default"


def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert read_course(None, tmp_path) == Course()
    assert read_overrides(tmp_path) == ()


@pytest.mark.parametrize(
    ("was", "now", "complaint"),
    [
        ("due =", "dew =", "dew: Extra inputs are not permitted"),
        ("curie =", "jo.doe =", 'put quotes around a name with a dot in it: "jo.doe" = ...'),
        ("due = 2026-11-20T23:59:00-08:00", "due = 2026-11-20", "due: Input should be a valid datetime: write day, "),
        ("00-08:00", "00", "Input should have timezone info: write day, time and offset, without quotes, such as 2026"),
        (
            'student = "ada1"',
            "student = 123",
            "extensions.1.student: Input should be a valid string: put quotes around",
        ),
        ("[[extensions]]", "[extensions]", "extensions: Input should be a valid tuple: write [[extensions]], in two"),
        ("00-08:00", "00", "due: Input should have timezone info"),
        ("due = 2026-11-20T23:59:00-08:00", "due = 5", "due: Input should be a valid datetime"),
        ("days = 3", "days = -1", "extensions.1.days: Input should be greater than 0"),
        ("days = 3", "days = inf", "extensions.1.days: Input should be less than or equal to 365"),
        ("days = 3", "days = true", "extensions.1.days: Input should be a valid number"),
        ('reason = "ill"', 'reason = " "', "extensions.1.reason: String should have at least 1 character"),
        ('["ada1", "bo22"]', '["ada1"]', "groups.1.members: Tuple should have at least 2 items"),
        ('enter = "points"', 'enter = "stars"', "canvas.enter: Input should be 'letter' or 'points'"),
        ('roster = "roster.csv"', "", "the file: Value error, canvas needs roster"),
        ("[canvas]", "[canvas", "is no TOML: Expected ']'"),
    ],
)
def test_a_mistake_in_the_class_is_named(was: str, now: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "class.toml"
    path.write_text(FULL.replace(was, now, 1), encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_course(path, tmp_path)
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)


def test_a_class_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="class.toml cannot be read: No such file"):
        read_course(tmp_path / "class.toml", tmp_path)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[[overrides]]\nstudent = "ada1"\nletter = "A"', "overrides.1.reason: Field required"),
        ('[[overrides]]\nstudent = "ada1"\nreason = "x"', "overrides.1: Value error, give a letter, points, or both"),
        ('[[overrides]]\nstudent = "ada1"\nreason = "x"\nletter = "E"', "overrides.1.letter: Value error, 'E' is no"),
        ('[[overrides]]\nstudent = "ada1"\nreason = "x"\npoints = nan', "overrides.1.points: Input should be"),
        (2 * '[[overrides]]\nstudent = "ada1"\nreason = "x"\nletter = "A"\n', "overrides.2: ada1 has one already"),
        ('[[overrides]]\nstudent = "eve"\nreason = "x"\nletter = "A"', "overrides.1: nobody knows a student 'eve'"),
        (
            '[[overrides]]\nstudent = "ada1"\nreason = "x"\nletter = "A"\n'
            '[[overrides]]\nstudent = "ADA1 "\nreason = "x"\nletter = "A"',
            "overrides.2: ada1 has one already",
        ),
    ],
)
def test_a_mistake_in_an_override_is_named(text: str, complaint: str, school: SmallClass) -> None:
    school.overrides(text)
    with pytest.raises(UsageError) as caught:
        school.grades()
    assert str(caught.value).startswith(str(school.out / "overrides.toml"))
    assert complaint in str(caught.value)
    assert not (school.out / "grades.csv").exists()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('[[extensions]]\nstudent = "eve"\ndays = 1\nreason = "x"', "extensions.1"),
        ('[[accommodations]]\nstudent = "eve"\ndays = 1', "accommodations.1"),
        ('[[groups]]\nmembers = ["ada1", "eve"]', "groups.1"),
        ("[submitted]\neve = 2026-11-21T08:00:00-08:00", "submitted.eve"),
    ],
)
def test_a_student_whom_nobody_knows_is_an_error(text: str, where: str, school: SmallClass) -> None:
    school.says(text)
    with pytest.raises(UsageError, match=f"class.toml: {where}: nobody knows a student 'eve'"):
        school.grades()
    school.add("waits.zip", status=None)
    school.grades()  # it may be hers


def test_a_name_of_two_students_is_an_error(school: SmallClass) -> None:
    text = f"{HEADER}Ada,1,,x@one.edu,,\nBo,2,,x@two.edu,,\n"
    (school.top / "roster.csv").write_text(text, encoding="utf-8")
    school.says('roster = "roster.csv"')
    school.overrides('[[overrides]]\nstudent = "x"\nletter = "A"\nreason = "r"')
    with pytest.raises(UsageError, match=r"overrides.1: 'x' may be any of x@one.edu, x@two.edu"):
        school.grades()


def test_nobody_is_in_two_groups(school: SmallClass) -> None:
    for name in ("bo22.zip", "curie.zip"):
        school.add(name)
    school.says('[[groups]]\nmembers = ["ada1", "bo22"]\n[[groups]]\nmembers = ["curie", "ada1"]')
    with pytest.raises(UsageError, match=r"groups.2: in another group, too: ada1"):
        school.grades()


def test_a_column_that_canvas_does_not_have_is_an_error(school: SmallClass) -> None:
    school.says(CANVAS.replace("777", "77"))
    with pytest.raises(UsageError, match=re.escape("choose from Min-LLaMA (777), Quiz (778)")):
        school.grades()


@pytest.mark.parametrize(("kind", "enter", "mend"), [("percent", "letter", "points"), ("thirds", "points", "letter")])
def test_lateness_has_to_reach_what_is_entered(kind: str, enter: str, mend: str, school: SmallClass) -> None:
    school.late(f'kind = "{kind}"\na_day = 1')
    school.says(CANVAS.replace('"points"', f'"{enter}"'))
    with pytest.raises(UsageError, match=f"canvas.enter is '{enter}', but edition minllama .*: enter the {mend}"):
        school.grades()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"Name,Mail\nAda,x\n", "roster.csv:1: the columns are Name, Mail"),
        (b"", "roster.csv:1: the columns are none"),
        (b"Student;ID\nAda;1\n", "the columns are Student;ID: separate them by commas: in Excel, save it as CSV UTF-8"),
        (b"Student,ID\n Points Possible,\n", "no student is in it: export the gradebook"),
        (b'Student,ID\n"Student, Test",9\n', "no student is in it: export the gradebook"),
        (b"Student,ID\nAda,1\nBo,\n", "roster.csv:3: Bo has neither an ID nor a SIS Login ID"),
        (b"Student,ID\nAda,1\nBo,1\n", "Ada and Bo have the same ID 1"),
        (b"Student,SIS Login ID\nAda,x\nBo,X\n", "Ada and Bo have the same SIS Login ID x"),
        (b"Student,ID,SIS Login ID\nAda,1,\nBo,2,1\n", "Ada and Bo have the same ID 1"),
        (b"Student,ID\n\xff,1\n", "is no CSV in UTF-8"),
        (b'Student,ID\n"Ada,1\n', "is no CSV in UTF-8: unexpected end of data"),
    ],
)
def test_a_roster_that_does_not_say_who_is_who_is_an_error(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "roster.csv"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=re.escape(complaint)):
        read_roster(path)


def test_a_roster_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="roster.csv cannot be read: No such file"):
        read_roster(tmp_path / "roster.csv")


def test_a_roster_as_canvas_writes_it(school: SmallClass) -> None:
    roster = read_roster(school.top / "roster.csv")
    assert [student.id for student in roster.students] == ["ada1", "bo22", "curie"]
    assert roster.students[2].name == "Curie, Marié"
    assert roster.assignments == ("Min-LLaMA (777)", "Quiz (778)")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (2 * '[[extensions]]\nstudent = "{}"\ndays = 3\nreason = "x"\n', "extensions.2: ada1 has one already"),
        (2 * '[[accommodations]]\nstudent = "{}"\ndays = 3\n', "accommodations.2: ada1 has one already"),
        ("[submitted]\n{} = 2026-11-21T08:00:00-08:00\n{} = 2026-11-21T08:00:00-08:00", "submitted.101: ada1 has"),
        ('[counts]\n{} = "ada1.zip"\n{} = "ada1.zip"', "counts.101: ada1 has one already"),
    ],
)
def test_what_is_said_twice_of_one_person_is_an_error_under_any_id(
    text: str, complaint: str, school: SmallClass
) -> None:
    school.says('roster = "roster.csv"\n' + text.format("ada1", "101"))
    with pytest.raises(UsageError, match=f"class.toml: {complaint}"):
        school.grades()


def test_only_assignments_that_can_be_changed_are_offered(school: SmallClass) -> None:
    path = school.top / "roster.csv"
    text = path.read_text(encoding="utf-8").replace("Quiz (778)", "Final Score").replace(",10\n", ",(read only)\n")
    path.write_text(text, encoding="utf-8")
    assert read_roster(path).assignments == ("Min-LLaMA (777)",)
    path.write_text(text.replace("Final Score", "Final Score (12)"), encoding="utf-8")
    assert read_roster(path).assignments == ("Min-LLaMA (777)",)
    school.says(CANVAS.replace("Min-LLaMA (777)", "Final Score (12)"))
    with pytest.raises(UsageError, match=r"choose from Min-LLaMA \(777\)$"):
        school.grades()


@pytest.mark.parametrize(("points", "is_right"), [("100", True), ("100.00", True), ("", True), ("10", False)])
def test_an_assignment_with_other_points_in_canvas_is_an_error(points: str, is_right: bool, school: SmallClass) -> None:
    path = school.top / "roster.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("100,10", f"{points},10"), encoding="utf-8")
    school.says(CANVAS.replace('"points"', '"letter"'))
    school.grades()
    school.says(CANVAS)
    if is_right:
        school.grades()
        return
    with pytest.raises(UsageError, match=r"'Min-LLaMA \(777\)' has 10 points in Canvas, but edition .* gives 100"):
        school.grades()


def test_canvas_test_student_is_nobody(school: SmallClass) -> None:
    path = school.top / "roster.csv"
    path.write_text(f'{path.read_text(encoding="utf-8")}"Student, Test",9,,a1b2c3,,,\n', encoding="utf-8")
    assert [student.id for student in read_roster(path).students] == ["ada1", "bo22", "curie"]

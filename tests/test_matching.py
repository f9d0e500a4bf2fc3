"""Whose a submission is: the platform's word before the submission's, and a doubt where they differ."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from errors import UsageError
from tests.small_class import CANVAS, SmallClass

NOBODY = "nothing handed in"


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.says('roster = "roster.csv"')
    return found


def letters(school: SmallClass) -> dict[str, str | None]:
    """Return the letters of all students."""
    return {student: grade.letter for student, grade in school.grades().items()}


def test_canvas_number_is_the_rosters_id(school: SmallClass) -> None:
    school.add("lovelaceada_101_5_ada1.zip", "B", platform_id="101", own_id="ada1")
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.student_name, grade.section) == ("B", "Ada, Lovelace", "CSE 1")
    assert not grade.open_items


def test_a_zip_named_after_somebody_else_stays_its_owners(school: SmallClass) -> None:
    school.add("lovelaceada_101_5_bo22.zip", "B", platform_id="101", own_id="bo22")
    grades = school.grades()
    assert (grades["ada1"].letter, grades["bo22"].letter) == ("B", None)
    assert grades["ada1"].open_items == ("lovelaceada_101_5_bo22.zip is ada1's, but calls itself bo22",)


@pytest.mark.parametrize("own_id", ["lovelaceada_late_101_5_my-work", "lovelaceada_late_101_5_my", "unreadable"])
def test_a_submission_that_names_nobody_is_no_question(own_id: str, school: SmallClass) -> None:
    status = "unreadable" if own_id == "unreadable" else "graded"
    school.add("lovelaceada_LATE_101_5_my work.zip", platform_id="101", own_id=own_id, status=status)  # type: ignore[arg-type]
    assert not any("calls itself" in text for text in school.grades()["ada1"].open_items)


def test_a_zip_of_somebody_outside_named_after_a_student_gives_the_student_nothing(school: SmallClass) -> None:
    school.add("eve_666_5_bo22.zip", "A", platform_id="666", own_id="bo22")
    school.add("bo22_7_5_x.zip", "A", platform_id="7", own_id="bo22")
    grades = school.grades()
    assert grades["bo22"].entry is None
    assert not grades["666"].matched
    lines = {(line["what"], line["id"], line["why"]) for line in school.table("unmatched.csv")}
    assert ("entry", "666", "the roster does not know whose it is") in lines
    assert ("student", "bo22", NOBODY) in lines


def test_a_canvas_number_that_is_another_students_login_is_not_that_student(school: SmallClass) -> None:
    text = (school.top / "roster.csv").read_text(encoding="utf-8") + '"Digits",104,9004,666,,,\n'
    (school.top / "roster.csv").write_text(text, encoding="utf-8")
    school.add("eve_666_5_x.zip", "A", platform_id="666")
    grades = school.grades()
    assert grades["666"].entry is None
    assert grades["666 (unmatched)"].letter == "A"


@pytest.mark.parametrize(
    ("number", "email"), [("9001", ""), ("", "ADA1@ucsc.edu"), ("9001", "ada1@ucsc.edu"), ("9001", "ada@home.example")]
)
def test_gradescopes_number_or_address_finds_the_student(number: str, email: str, school: SmallClass) -> None:
    school.add("submission_1", "B+", platform_id=number, email=email, own_id="ada1")
    assert letters(school)["ada1"] == "B+"


def test_a_gradescope_number_is_no_canvas_number(school: SmallClass) -> None:
    school.add("submission_1", platform_id="101", email="eve@evil.example", own_id="ada1")
    assert letters(school) == {"ada1": None, "bo22": None, "curie": None, "eve@evil.example": "A"}


def test_a_number_and_an_address_of_two_students_go_to_neither(school: SmallClass) -> None:
    school.add("submission_1", platform_id="9001", email="bo22@ucsc.edu", own_id="ada1")
    grades = school.grades()
    assert (grades["ada1"].entry, grades["bo22"].entry) == (None, None)
    assert any("number and e-mail belong to two students" in text for text in grades["bo22@ucsc.edu"].open_items)


def test_a_group_on_gradescope_shares_its_grade(school: SmallClass) -> None:
    school.add(
        "submission_1", "A-", platform_id="9001;9002", email="a@x;b@x", student_name="Ada;Bo", own_id="bo22",
        to_confirm=("look at it",),
    )  # fmt: skip
    grades = school.grades()
    assert (grades["ada1"].letter, grades["bo22"].letter, grades["curie"].letter) == ("A-", "A-", None)
    assert grades["ada1"].open_items == grades["bo22"].open_items == ("look at it",)
    school.decide("B")
    assert letters(school) == {"ada1": "B", "bo22": "B", "curie": None}


def test_a_group_of_the_class_shares_what_one_member_hands_in(school: SmallClass) -> None:
    school.says('roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "9002"]')
    school.add("ada1.zip", "B+")
    assert letters(school) == {"ada1": "B+", "bo22": "B+", "curie": None}


def test_two_entries_of_a_group_are_a_question(school: SmallClass) -> None:
    school.says('roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "bo22"]')
    school.add("ada1.zip", "B+")
    school.add("bo22.zip", "A")
    grades = school.grades()
    assert grades["ada1"].letter == grades["bo22"].letter == "A"
    assert grades["ada1"].open_items == ("bo22.zip counts; handed in as well: ada1.zip",)


def test_the_highest_attempt_counts(school: SmallClass) -> None:
    for attempt, letter in ((2, "B"), (10, "A-"), (0, "A")):
        name = f"lovelaceada_101_{attempt}_ada1-{attempt}.zip"
        school.add(name, letter, platform_id="101", attempt=attempt, own_id="ada1")
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.open_items) == ("A-", ())


def test_two_entries_of_one_attempt_are_a_question_and_the_later_one_counts(school: SmallClass) -> None:
    for name, letter, offset in (("one.zip", "A", "00:00"), ("two.zip", "B", "02:00")):
        time = f"2026-11-02T00:00:00+{offset}"
        school.add(name, letter, student_id="ada1", email="ada1@ucsc.edu", submitted_at=time)
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.open_items) == ("A", ("one.zip counts; handed in as well: two.zip",))


def test_a_plain_zip_beside_the_platforms_takes_nobodys_place(school: SmallClass) -> None:
    school.add("lovelaceada_101_5_ada1.zip", "B", platform_id="101", own_id="ada1")
    school.add("zz_mine.zip", "A", own_id="ada1")
    grade = school.grades()["ada1"]
    assert grade.letter == "B"
    assert "handed in as well: zz_mine.zip" in grade.open_items[0]


def test_without_a_roster_everybody_is_matched(tmp_path: Path) -> None:
    school = SmallClass(tmp_path)
    school.add("doe_12_5_ada1.zip", platform_id="12", own_id="ada1")
    school.add("roe_13_5_ada1.zip", platform_id="13", own_id="ada1")
    school.add("ada1.zip")
    school.add("submission_4", platform_id="9", email="eve@x.example", own_id="ada1")
    grades = school.grades()
    assert set(grades) == {"12", "13", "ada1", "eve@x.example"}
    assert all(grade.matched for grade in grades.values())
    assert [bool(grades[name].open_items) for name in sorted(grades)] == [False, False, False, True]


def test_an_entry_without_any_name_has_one_all_the_same(school: SmallClass) -> None:
    school.add("\u202e.zip", status=None)
    school.add("a;b", status=None, platform_id=";", email=";")
    assert {"unnamed", "a;b"} <= set(school.grades())


def rosters(school: SmallClass, *lines: str) -> None:
    """Replace the roster by one with these lines: name, ID, SIS User ID and login."""
    text = "Student,ID,SIS User ID,SIS Login ID\n" + "\n".join(lines)
    (school.top / "roster.csv").write_text(text, encoding="utf-8")


@pytest.mark.parametrize("own_id", ["ada1", "9001", "101"])
def test_a_plain_zip_is_found_by_any_id_of_the_roster(own_id: str, school: SmallClass) -> None:
    school.add("hw.zip", "B", own_id=own_id)
    school.overrides(f'[[overrides]]\nstudent = "{own_id}"\npoints = 5\nreason = "r"')
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points) == ("B", 5.0)


def test_an_id_of_two_students_is_neithers(school: SmallClass) -> None:
    rosters(school, "Ada,1,,x@one.edu", "Bo,2,,x@two.edu")
    school.add("x.zip")
    assert letters(school) == {"x@one.edu": None, "x@two.edu": None, "x (unmatched)": "A"}


def test_a_stranger_takes_no_name_of_a_student_away(school: SmallClass) -> None:
    school.add("submission_1", "B", email="9002@evil.example", own_id="9002")
    school.overrides('[[overrides]]\nstudent = "9002"\nletter = "A"\nreason = "r"')
    assert letters(school)["bo22"] == "A"


@pytest.mark.parametrize(
    ("login", "found"),
    [(["bo22"], True), (["bo22@ucsc.edu"], False), (["bo22", "bo22@ucsc.edu"], False), (["bo22@evil.example"], True)],
)
def test_the_first_part_of_an_address_is_a_login_that_nobody_else_has_or_a_question(
    login: list[str], found: bool, school: SmallClass
) -> None:
    rosters(school, *(f"Bo,{number},,{name}" for number, name in enumerate(login, 1)))
    school.add("submission_1", email="bo22@evil.example", own_id="bo22")
    grades = school.grades()
    assert (grades[login[0]].entry is not None) == found
    if not found:
        (question,) = [text for text in grades["bo22@evil.example"].open_items if "roster" in text]
        assert question.endswith(f"is not in the roster: is it {' or '.join(login)}, or somebody else?")


@pytest.mark.parametrize("own_id", ["curie", "9003", "\u674e"])
def test_another_students_id_or_one_in_another_script_is_a_question(own_id: str, school: SmallClass) -> None:
    rosters(school, "Ada,101,,ada1", "Marie,103,9003,curie")
    school.add("curielovelace_101_5_x.zip", platform_id="101", own_id=own_id)
    assert school.grades()["ada1"].open_items == (f"curielovelace_101_5_x.zip is ada1's, but calls itself {own_id}",)


@pytest.mark.parametrize("status", ["unreadable", "graded"])
def test_what_cannot_be_graded_takes_no_grade_away(status: str, school: SmallClass) -> None:
    school.add("lovelaceada_101_5_ada1.zip", "B", platform_id="101", own_id="ada1")
    problem = "" if status == "unreadable" else "it is neither a zip nor a folder"
    school.add("lovelaceada_101_6_notes.pdf", platform_id="101", status=status, problem=problem, attempt=1)  # type: ignore[arg-type]
    grade = school.grades()["ada1"]
    assert grade.letter == "B"
    assert grade.open_items[0].endswith("counts; handed in as well: lovelaceada_101_6_notes.pdf")


def test_what_the_grader_failed_with_keeps_its_place(school: SmallClass) -> None:
    school.add("lovelaceada_101_5_ada1.zip", "B", platform_id="101", own_id="ada1")
    school.add("lovelaceada_101_6_ada1-1.zip", platform_id="101", status="ungraded", attempt=1)
    assert letters(school)["ada1"] is None


def test_the_entry_that_the_class_names_counts_and_nobody_is_asked(school: SmallClass) -> None:
    school.says('roster = "roster.csv"\n[counts]\n"9001" = "one_101_5_x.zip"')
    school.add("one_101_5_x.zip", "B", platform_id="101", own_id="ada1")
    school.add("two_101_6_y-3.zip", "A", platform_id="101", own_id="ada1", attempt=3)
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.open_items) == ("B", ())


def test_an_entry_that_is_not_the_students_cannot_count(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.says('roster = "roster.csv"\n[counts]\nbo22 = "ada1.zip"')
    with pytest.raises(UsageError, match=r"counts.bo22: 'ada1.zip' is no entry of bo22: choose from there is none"):
        school.grades()
    school.says('roster = "roster.csv"\n[counts]\nbo22 = "hw.zip"')
    school.add("hw.zip", status=None)
    school.grades()  # it may be hers
    school.says(
        'roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "bo22"]\n[counts]\nada1 = "ada1.zip"\nbo22 = "x.zip"'
    )
    with pytest.raises(UsageError, match=r"counts.ada1: another member of the group has another entry"):
        school.grades()


def test_a_folder_that_calls_itself_somebody_else_takes_nothing_from_a_zip_of_that_name(school: SmallClass) -> None:
    school.add("bo22.zip", "A")
    school.add("zz.zip", "B", own_id="bo22")
    grade = school.grades()["bo22"]
    assert (grade.letter, grade.open_items) == ("A", ("bo22.zip counts; handed in as well: zz.zip",))
    school.rows[0] = replace(school.rows[0], status="unreadable", summary=None)
    assert letters(school)["bo22"] is None, "not even from a broken one"


@pytest.mark.parametrize("names", [("hw1.zip", "zz.zip"), ("bo22.zip", "folder/bo22")])
def test_where_names_do_not_decide_nothing_is_entered_until_the_class_says_what_counts(
    names: tuple[str, str], school: SmallClass
) -> None:
    school.says(CANVAS)
    for name, letter in zip(names, ("A", "B"), strict=True):
        school.add(name, letter, own_id="bo22")
    grade = school.grades()["bo22"]
    assert (grade.letter, grade.points) == (None, None)
    assert school.table("canvas.csv")[1:] == []
    told = {line["id"]: line["why"] for line in school.table("unmatched.csv")}
    assert told["bo22"] == f"which one is it, {names[0]} or {names[1]}? write it in class.toml below [counts]"
    with zipfile.ZipFile(school.out / "feedback.zip") as archive:
        assert archive.namelist() == []
    school.says(f'{CANVAS}[counts]\nbo22 = "{names[0]}"')
    grade = school.grades()["bo22"]
    assert (grade.letter, grade.withheld, grade.open_items) == ("A", "", ())


def test_an_older_submission_of_another_member_is_a_question_too(school: SmallClass) -> None:
    school.says('roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "bo22"]')
    school.add("lovelaceada_101_5_x-2.zip", platform_id="101", own_id="ada1", attempt=2)
    school.add("bograce_102_6_y.zip", platform_id="102", own_id="bo22", attempt=0)
    assert "handed in as well: bograce_102_6_y.zip" in school.grades()["ada1"].open_items[0]


def test_the_name_of_an_upload_counts_as_canvas_only_with_the_number_in_it(school: SmallClass) -> None:
    school.add("lovelaceada_101_5_ada1.zip", platform_id="102", own_id="curie")
    assert school.grades()["bo22"].entry is None, "the number is not Canvas' but another platform's"


def test_the_id_that_the_platform_takes_from_an_address_is_no_question(school: SmallClass) -> None:
    school.add("submission_1", platform_id="9001", email="home@x.example", student_id="home", own_id="home")
    assert school.grades()["ada1"].open_items == ()

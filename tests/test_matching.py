"""Whose a submission is: the platform's word before the submission's, and a doubt where they differ."""

from pathlib import Path

import pytest

from tests.small_class import SmallClass

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
    school.add("one.zip", "A", student_id="ada1", submitted_at="2026-11-02T00:00:00+00:00")
    school.add("two.zip", "B", student_id="ada1", submitted_at="2026-11-02T00:00:00+02:00")
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

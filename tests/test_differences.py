"""Whose grade changes between two gradings, and why."""

from pathlib import Path

import pytest

from autograder.gradebook.differences import differences
from errors import UsageError
from tests.small_class import SmallClass

PASSED = {"RMSNorm": "pass", "RoPE": "pass"}


@pytest.fixture
def schools(tmp_path: Path) -> tuple[SmallClass, SmallClass]:
    """Return a class that was graded twice."""
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
    one, two = (SmallClass(folder) for folder in folders)
    for school in (one, two):
        school.add("ada1.zip", "A", checks=PASSED)
    return one, two


def compare(schools: tuple[SmallClass, SmallClass]) -> list[str]:
    """Return the lines of the comparison."""
    for school in schools:
        school.grades()
    return differences(schools[0].out, schools[1].out).splitlines()


def test_the_same_class_has_no_differences(schools: tuple[SmallClass, SmallClass]) -> None:
    assert compare(schools) == ["no grade changes, of 1 students"]


def test_a_changed_check_is_the_reason(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("bo22.zip", "A", 100, checks=PASSED)
    schools[1].add("bo22.zip", "B or below", 95, checks=PASSED | {"RoPE": "fail", "GQA": "pass"})
    assert compare(schools) == [
        "student  before         now                    because",
        "bo22     A, 100 points  B or below, 95 points  RoPE: pass -> fail; GQA: not run -> pass",
        "1 of 2 grades change",
    ]


def test_another_submission_and_steps_are_reasons(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("bo22.zip", "A")
    schools[1].add("bo22.zip", "A", sha256="cd" * 32)
    schools[1].overrides('[[overrides]]\nstudent = "bo22"\nletter = "B"\nreason = "r"')
    assert compare(schools)[1].endswith(
        "the submission is another; steps: overridden: B in place of A (r) (before: none)"
    )


def test_another_entry_and_a_lost_grade_are_reasons(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("bo22.zip", "A")
    schools[1].add("x.zip", student_id="bo22", status="ungraded")
    line = compare(schools)[1]
    assert line.startswith("bo22     A, 100 points  ungraded  another entry counts: x.zip; the disk is full")


def test_new_reasons_of_the_letter_are_told_where_no_check_changed(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("bo22.zip", "A", checks=PASSED)
    schools[1].add("bo22.zip", "A-", checks=PASSED)
    line = compare(schools)[1]
    assert line.endswith("the results are the same: see both reports")


def test_who_is_only_in_one_is_told(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("bo22.zip")
    schools[1].add("curie.zip")
    assert compare(schools) == [
        f"only in {schools[0].out}: bo22",
        f"only in {schools[1].out}: curie",
        "no grade changes, of 1 students",
    ]


def test_an_entry_with_a_formula_for_a_name_is_found_all_the_same(schools: tuple[SmallClass, SmallClass]) -> None:
    schools[0].add("=x.zip", "A", checks=PASSED)
    schools[1].add("=x.zip", "B", checks=PASSED | {"RoPE": "fail"})
    assert compare(schools)[1].endswith("RoPE: pass -> fail")


def test_a_folder_without_grades_is_an_error(schools: tuple[SmallClass, SmallClass]) -> None:
    compare(schools)
    path = schools[1].out / "grades.csv"
    path.write_text("id,letter\nada1,A\n", encoding="utf-8")
    with pytest.raises(UsageError, match="grades.csv has other columns than id, name"):
        differences(schools[0].out, schools[1].out)
    path.unlink()
    with pytest.raises(UsageError, match="grades.csv cannot be read .*autograder gradebook"):
        differences(schools[0].out, schools[1].out)

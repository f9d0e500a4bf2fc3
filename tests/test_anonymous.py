"""Grades without names: no ID, no name and no address is left anywhere, and the order tells nothing."""

import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from autograder.gradebook.anonymous import anonymised
from errors import UsageError
from tests.small_class import CANVAS, SmallClass

# What must not be found, in any spelling: of the roster, of the platform, of what a submission says.
SECRETS = (
    *("ada1", "bo22", "curie", "lovelace", "grace", "marié", "9001", "9002", "cse 1", "zork", "secretly", "hospital"),
    *("eve", "evil.example", "nowhere", "abab"),
)


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.late("a_day = 10")
    found.says(
        f'due = 2026-11-20T23:59:00-08:00\n{CANVAS}[[extensions]]\nstudent = "ada1"\ndays = 1\nreason = "hospital"'
    )
    found.add(
        "submission_1/zork.zip", platform_id="9001;9002", email="ada1@evil.example;bo22@evil.example",
        student_name="Ada Lovelace;Grace Bo", own_id="zork99", submitted_at="2026-11-23T23:59:00-08:00",
        to_confirm=("format: ada1-report.pdf is too long", "static: my_lovelace.py:3", "look into xzork99x/llama.py"),
    )  # fmt: skip
    found.add("submission_2", email="eve@evil.example", platform_id="77", status="unreadable")
    found.overrides('[[overrides]]\nstudent = "bo22"\nletter = "B"\nreason = "secretly"')
    return found


def test_nothing_names_anybody(school: SmallClass) -> None:
    school.grades()
    school.decide("A-", "secretly", "report.pdf")
    grades = school.grades(anonymous=True)
    files = [path for path in (school.out / "anonymous").rglob("*") if path.is_file()]
    assert [path.name for path in files] == ["grades.csv"]
    text = files[0].read_text(encoding="utf-8-sig") + "".join(str(asdict(grade)) for grade in grades.values())
    for secret in SECRETS:
        assert secret not in text.lower(), secret
    assert "[...]-report.pdf is too long" in text
    assert "due 1 day later: extension of 1" in text
    assert "overridden: B in place of A-" in text
    assert "steps" not in school.table("anonymous/grades.csv")[0], "no free text"
    assert "open items" not in school.table("anonymous/grades.csv")[0]
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600


def test_the_grades_are_those_of_the_class(school: SmallClass) -> None:
    named, hidden = school.grades(), school.grades(anonymous=True)
    assert list(hidden) == ["student-001", "student-002", "student-003", "student-004"]
    pairs = [sorted((grade.letter or "", grade.points or 0) for grade in grades.values()) for grades in (named, hidden)]
    assert pairs[0] == pairs[1]


def test_only_the_anonymous_folder_changes(school: SmallClass) -> None:
    school.grades()
    before = {path: path.read_bytes() for path in school.out.glob("*.*") if path.is_file()}
    school.rows = school.rows[:1]
    school.write()
    del before[school.folder.journal]
    school.grades(anonymous=True)
    assert {path: path.read_bytes() for path in before} == before


def test_the_order_is_the_same_each_time_and_another_with_another_secret(tmp_path: Path) -> None:
    school = SmallClass(tmp_path)
    for number in range(30):
        school.add(f"stud{number:02}.zip", points=float(number))
    grades = list(school.grades().values())
    orders = [[grade.points for grade in anonymised(grades, (), tmp_path / name)] for name in ("one", "one", "two")]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0], key=lambda points: points or 0)
    assert stat.S_IMODE((tmp_path / "one").stat().st_mode) == 0o600


def test_short_words_and_common_ones_stay(tmp_path: Path) -> None:
    school = SmallClass(tmp_path)
    school.says('roster = "roster.csv"')
    school.add("ada1.zip", to_confirm=("a note on Bo, not on 101 dalmatians",))
    grades = school.grades(anonymous=True).values()
    (question,) = [text for grade in grades for text in grade.open_items]
    assert question == "a note on Bo, not on [...] dalmatians"


def test_a_secret_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "key").mkdir()
    with pytest.raises(UsageError, match="key cannot be read"):
        anonymised([], (), tmp_path / "key")

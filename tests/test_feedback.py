"""The reports for students, in one zip that a platform takes."""

import zipfile
from pathlib import Path

import pytest

from autograder.gradebook import feedback as feedback_module
from autograder.gradebook.feedback import PLACE
from tests.small_class import SmallClass


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.says('roster = "roster.csv"')
    return found


def feedback(school: SmallClass) -> dict[str, str]:
    """Return the reports in the zip, by name."""
    school.grades()
    with zipfile.ZipFile(school.out / "feedback.zip") as archive:
        assert archive.testzip() is None
        assert {info.date_time for info in archive.infolist()} <= {(1980, 1, 1, 0, 0, 0)}
        return {name: archive.read(name).decode() for name in archive.namelist()}


def test_a_report_from_canvas_has_the_name_of_the_upload(school: SmallClass) -> None:
    school.add("lovelaceada_LATE_101_55_ada 1-2.zip", platform_id="101", own_id="ada1")
    school.add("bo22.zip")
    assert feedback(school) == {
        "lovelaceada_LATE_101_55_ada 1-2.html": "<p>the report of ada1",
        "bo22.html": "<p>the report of bo22",
    }


def test_each_member_of_a_group_gets_the_report_and_a_group_on_canvas_one(school: SmallClass) -> None:
    school.says('roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "bo22"]')
    school.add("ada1.zip")
    assert set(feedback(school)) == {"ada1.html", "bo22.html"}
    school.entries, school.rows = [], []
    school.add("lovelaceada_101_55_ada1.zip", platform_id="101", own_id="ada1")
    assert set(feedback(school)) == {"lovelaceada_101_55_ada1.html"}


def test_only_a_grade_has_a_report(school: SmallClass) -> None:
    school.add("ada1.zip", status="ungraded")
    school.add("bo22.zip", status="unreadable")
    school.add("curie.zip", status=None)
    assert feedback(school) == {}


def test_no_name_leads_out_of_the_folder_or_takes_anothers_place(school: SmallClass) -> None:
    for name in ("..", "...", "CON/..", "a:b", "a?b", "A*b", "x\ny"):
        school.add(f"folder/{len(school.entries)}", student_id=name, own_id=name)
    names = list(feedback(school))
    assert len(names) == len({name.casefold() for name in names}) == 7
    for name in names:
        assert not set(name) & set('/\\:?\n"<>|*')
        assert name.strip(".") and not name.startswith(".")
    assert {"student.html", "student-2.html", "a_b.html", "a_b-2.html"} <= {name.lower() for name in names}


def test_a_report_begins_with_what_is_entered_if_a_person_changed_it(school: SmallClass) -> None:
    school.add("ada1.zip")
    school.add("bo22.zip")
    school.grades()
    for report in school.out.glob("results/*/report.html"):
        report.write_text(f"<h2>Your grade</h2>\n{PLACE}<p>A", encoding="utf-8")
    (school.out / "overrides.toml").write_text('[[overrides]]\nstudent = "ada1"\nletter = "B"\nreason = "<private>"\n')
    reports = feedback(school)
    assert "<strong>Entered for you: B, " in reports["ada1.html"] and "The grader gave: A, " in reports["ada1.html"]
    assert "private" not in reports["ada1.html"]
    assert "Entered" not in reports["bo22.html"]


def test_the_students_report_has_the_place_for_it() -> None:
    page = (Path(feedback_module.__file__).parents[1] / "report" / "report.html").read_text(encoding="utf-8")
    assert page.count(PLACE) == 1

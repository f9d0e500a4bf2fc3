"""Which changes make another grader?"""

from pathlib import Path

import pytest

from autograder import version


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the names that matter, which the version is taken of."""
    for name in ("llama.py", "autograder/judge.py", "autograder/checks/hidden.py", "autograder/gradebook/late.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one = 1\n")
    monkeypatch.setattr(version, "ROOT", tmp_path)
    return tmp_path


def grader() -> str:
    version.grader_version.cache_clear()
    try:
        return version.grader_version()
    finally:
        version.grader_version.cache_clear()


@pytest.mark.parametrize("name", ["llama.py", "autograder/judge.py", "autograder/checks/hidden.py"])
def test_a_change_that_can_change_a_result_makes_another_grader(tree: Path, name: str) -> None:
    before = grader()
    (tree / name).write_text("one = 2\n")
    assert grader() != before
    (tree / name).rename(tree / "moved.py")
    assert grader() != before


def test_a_change_to_what_is_done_with_results_grades_nobody_again(tree: Path) -> None:
    before = grader()
    (tree / "autograder/gradebook/late.py").write_text("one = 2\n")
    (tree / "README.md").write_text("two\n")
    assert grader() == before


def test_what_lies_around_the_grading_is_there() -> None:
    assert all((version.ROOT / "autograder" / name).is_dir() for name in version.AROUND)

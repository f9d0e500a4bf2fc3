"""What runs in the sandbox: whose copy of each file, and what is left out."""

import marshal
import sys
from pathlib import Path

import pytest

from autograder.editions import Edition, read_edition
from autograder.workspace import build_workspace, given_files

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    """Return a folder with files that are the student's, given, extra, a library's name, and no module."""
    folder = tmp_path / "submission"
    folder.mkdir()
    for name in ("llama.py", "config.py", "lora.py", "torch.py", "json.py", "sitecustomize.py", "notes.txt"):
        (folder / name).write_text(f"# the student's {name}\n", encoding="utf-8")
    (folder / "weights.pt").write_bytes(b"a pickle")
    (folder / "link.py").symlink_to("/etc/passwd")
    return folder


def build(submission: Path, edition: Edition, tmp_path: Path) -> tuple[dict[str, str], list[str]]:
    target = tmp_path / "workspace"
    target.mkdir()
    left_out = build_workspace(submission, edition, {"torch", "numpy"}, target)
    return {path.name: path.read_text(encoding="utf-8") for path in target.glob("*.*")}, left_out


def test_given_files_are_the_masters_and_own_ones_the_students(submission: Path, tmp_path: Path) -> None:
    files, left_out = build(submission, read_edition("minllama"), tmp_path)
    assert files["llama.py"] == "# the student's llama.py\n"
    assert files["lora.py"] == "# the student's lora.py\n"
    assert files["config.py"] == (ROOT / "config.py").read_text(encoding="utf-8")
    assert "rope.py" not in files  # the student's to bring: the master's is the solution
    assert "config.py" in left_out


def test_in_a_course_with_files_of_its_own_the_students_copies_win(submission: Path, tmp_path: Path) -> None:
    files, left_out = build(submission, read_edition("nlp244"), tmp_path)
    assert files["config.py"] == "# the student's config.py\n"
    assert files["utils.py"] == (ROOT / "utils.py").read_text(encoding="utf-8")
    assert "config.py" not in left_out


@pytest.mark.parametrize("name", ["minllama", "nlp244"])
def test_nothing_takes_the_place_of_a_library_and_no_weights_or_links_come_along(
    name: str, submission: Path, tmp_path: Path
) -> None:
    files, left_out = build(submission, read_edition(name), tmp_path)
    assert {"torch.py", "json.py", "sitecustomize.py"} <= set(left_out)
    assert not {"torch.py", "json.py", "sitecustomize.py", "weights.pt", "link.py"} & set(files)


@pytest.mark.parametrize("name", ["minllama", "nlp244"])
def test_no_solution_is_ever_given(name: str) -> None:
    given = given_files(read_edition(name))
    assert not {"llama.py", "rope.py", "optimizer.py", "classifier.py"} & set(given)
    assert {"config.py", "utils.py", "tokenizer.py"} <= set(given)


def test_given_files_come_compiled_and_are_what_their_source_says(submission: Path, tmp_path: Path) -> None:
    build(submission, read_edition("minllama"), tmp_path)
    compiled = {path.name.split(".")[0] for path in (tmp_path / "workspace" / "__pycache__").iterdir()}
    assert (
        "config" in compiled and not {"llama", "lora"} & compiled
    )  # a student's file is compiled in the sandbox alone
    cached = (tmp_path / "workspace" / "__pycache__" / f"errors.{sys.implementation.cache_tag}.pyc").read_bytes()
    names: dict[str, object] = {}
    exec(marshal.loads(cached[16:]), names)
    assert issubclass(names["UsageError"], names["MinLlamaError"])  # type: ignore[arg-type]


def test_what_a_submissions_modules_were_compiled_to_lies_where_python_looks(submission: Path, tmp_path: Path) -> None:
    target = tmp_path / "workspace"
    target.mkdir()
    caches = {"llama.py": b"whatever it is", "torch.py": b"left out with its file", "gone.py": b"no such file"}
    build_workspace(submission, read_edition("minllama"), {"torch"}, target, caches)
    written = {path.name.partition(".")[0]: path.read_bytes() for path in (target / "__pycache__").iterdir()}
    assert written["llama"] == b"whatever it is"
    assert not {"torch", "gone", "lora"} & set(written)

"""The commands for a class, from the command line on."""

import csv
import os
from pathlib import Path

import pytest

from autograder.__main__ import build_parser, main
from autograder.isolation.sandbox import usable_backends
from autograder.options import positive
from tests.small_class import CANVAS, SmallClass


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", ""])
def test_a_number_of_jobs_is_at_least_one(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["batch", "folder", "-o", "out", "--jobs", text])
    assert "no whole number from 1 on" in capsys.readouterr().err
    assert positive("3") == 3


def test_jobs_and_a_cluster_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["batch", "folder", "-o", "out", "--jobs", "2", "--dask", "tcp://127.0.0.1:1"])
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [["gradebook", "{}/nothing"], ["diff", "{}/nothing", "{}/nothing"], ["batch", "{}/nothing", "-o", "{}/out"]],
    ids=lambda argv: argv[0],
)
def test_a_folder_that_is_not_there_is_one_clear_error(
    argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word.format(tmp_path) for word in argv]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "nothing" in error and error.count("\n") == 1


@pytest.fixture(scope="module")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, list[str]]:
    """Return a simulated class, where it was graded as strangers' code is, and the command that did it."""
    reason = usable_backends()["bwrap"]
    if reason and os.environ.get("CI") != "true":
        pytest.skip(f"skipped: {reason}")
    top = tmp_path_factory.mktemp("class")
    submissions, out = top / "submissions", top / "out"
    assert main(["simulate", "12", "--seed", "3", "--layout", "gradescope", "-o", str(submissions)]) == 0
    command = ["batch", str(submissions), "-o", str(out), "--checkpoint", "storybook", "--seed", "s", "--jobs", "2"]
    if (top / "submissions.data").exists():  # the official data is not on this machine
        command += ["--data", str(top / "submissions.data")]
    assert main(command) == 0
    return submissions, out, command


@pytest.mark.slow
def test_every_grade_of_a_simulated_class_equals_the_truth(
    graded: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    submissions, out, _ = graded
    assert main(["truth", str(submissions), str(out)]) == 0, capsys.readouterr().out
    with (out / "grades.csv").open(newline="", encoding="utf-8-sig") as file:
        assert len(list(csv.DictReader(file))) == 12


@pytest.mark.slow
def test_the_same_command_again_grades_nothing_and_changes_no_table(graded: tuple[Path, Path, list[str]]) -> None:
    _, out, command = graded
    names = ("journal.jsonl", "timings.jsonl", "grades.csv", "canvas.csv", "review.toml", "feedback.zip")
    before = {name: (out / name).read_bytes() for name in names if (out / name).exists()}
    assert main(command) == 0
    assert {name: (out / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_similarity_joins_the_dashboard_and_diff_finds_no_change(
    graded: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    submissions, out, _ = graded
    assert main(["similarity", str(submissions), "-o", str(out)]) == 0
    assert "similarity/pair-001.html" in (out / "index.html").read_text(encoding="utf-8")
    assert main(["gradebook", str(out), "--anonymous"]) == 0
    capsys.readouterr()
    assert main(["diff", str(out), str(out)]) == 0
    assert "no grade changes" in capsys.readouterr().out


def test_gradebook_remembers_the_class_file_and_says_what_it_wrote(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    school = SmallClass(tmp_path)
    school.add("ada1.zip")
    school.write()
    out = str(school.out)
    assert main(["gradebook", out]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "class: no file, so no due date and no roster",
        f"wrote into {out}: grades.csv, unmatched.csv, review.toml, feedback.zip, index.html",
    ]
    school.says(CANVAS)
    for command in (["gradebook", out, "--class", str(school.class_file)], ["gradebook", out]):
        assert main(command) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"class: {school.class_file}",
            f"wrote into {out}: grades.csv, canvas.csv, unmatched.csv, review.toml, feedback.zip, index.html",
        ]
    assert main(["gradebook", out, "--anonymous"]) == 0
    assert f"class: {school.class_file}" in capsys.readouterr().out


def test_lateness_that_nobody_can_count_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    school = SmallClass(tmp_path)
    school.late("a_day = 10")
    school.write()
    assert main(["gradebook", str(school.out)]) == 0
    assert "takes something off for lateness, but no due date is known" in capsys.readouterr().out

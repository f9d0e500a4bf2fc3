"""A judge process, and how it can be lost: `pytest tests/test_batch_judging.py`."""

import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from autograder.batch import judging
from autograder.batch.judging import JudgeProcess, JudgeStopped, Task, close_judges, judge_entry, stop_judges
from autograder.batch.keys import digest
from autograder.batch.temporary import SharedFolder
from autograder.editions import read_edition
from autograder.version import grader_version
from errors import SandboxError
from tests.batch_stub import JUDGE

ROOT = Path(__file__).resolve().parent.parent
PLACE = f"test-{os.getpid()}"
OPTIONS = {"student_id": None, "seed": "s", "data": "data"}


@pytest.fixture(autouse=True)
def no_judge_left() -> "object":
    """End the processes of a test."""
    yield
    close_judges(PLACE)


def task(folder: Path, words: str, **changes: object) -> Task:
    """Write a submission and return the task to grade it."""
    path = folder / "ann.zip"
    path.write_text(words, encoding="utf-8")
    edition = read_edition("minllama").model_dump_json()
    made = Task("ann.zip", str(path), digest(path), PLACE, grader_version(), edition, OPTIONS, 60.0, JUDGE)
    return replace(made, **changes)  # type: ignore[arg-type]


def is_running(process: int) -> bool:
    """Return whether a process is there and has not ended."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text(encoding="utf-8")
    except OSError:
        return False


def ends(process: int) -> bool:
    """Wait for the end of a process; return whether it came."""
    deadline = time.monotonic() + 30
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_running(process)


def test_one_process_grades_many_in_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANVAS_TOKEN", "a secret")
    seen = [judge_entry(task(tmp_path, words)).timings["seen"] for words in ("good", "fail")]
    assert seen[0] == seen[1]
    assert "CANVAS_TOKEN" not in seen[0]["environment"]
    assert f"minllama-batch-{os.getuid()}-{PLACE}" in seen[0]["temporary"]
    assert seen[0]["pid"] != os.getpid()


def test_what_a_submission_does_costs_only_itself(tmp_path: Path) -> None:
    found = [judge_entry(task(tmp_path, words)) for words in ("unreadable", "fault", "bug x", "broken", "good")]
    assert [(judged.status, judged.reason) for judged in found] == [
        ("unreadable", "nothing of it can be read"),
        ("ungraded", "no sandbox today"),
        ("ungraded", "the grader failed with KeyError: 'x'"),
        ("ungraded", "the grader failed in RoPE: its report says how"),
        ("graded", ""),
    ]


@pytest.mark.slow
def test_a_process_that_dies_costs_one_try(tmp_path: Path) -> None:
    assert judge_entry(task(tmp_path, f"once {tmp_path / 'tried'}")).status == "graded"
    assert (tmp_path / "tried").exists()


@pytest.mark.slow
def test_a_process_that_dies_twice_costs_this_submission(tmp_path: Path) -> None:
    judged = judge_entry(task(tmp_path, "crash"))
    assert judged.status == "ungraded"
    assert judged.reason == "the judge process ended with status 7 (out of order); it was tried 2 times"
    assert judge_entry(task(tmp_path, "good")).status == "graded"


@pytest.mark.slow
def test_a_process_that_is_killed_is_told_so(tmp_path: Path) -> None:
    assert (
        "was killed by signal 9: perhaps the machine had no memory left" in judge_entry(task(tmp_path, "killed")).reason
    )


def test_a_process_that_hangs_is_ended(tmp_path: Path) -> None:
    judged = judge_entry(task(tmp_path, "hang", seconds=1.5))
    assert (judged.status, judged.reason) == ("ungraded", "there was no verdict after 0.025 minutes")


def test_other_bytes_than_the_batch_saw_are_not_graded(tmp_path: Path) -> None:
    assert "other bytes are there" in judge_entry(task(tmp_path, "good", sha256="ab" * 32)).reason
    judged = judge_entry(task(tmp_path, "good", path=str(tmp_path / "missing.zip")))
    assert judged.status == "ungraded"
    assert "cannot be read here (No such file or directory): workers must see the same files" in judged.reason


def test_another_grader_than_the_batch_has_does_not_grade(tmp_path: Path) -> None:
    judged = judge_entry(task(tmp_path, "good", grader="0123456789ab"))
    assert judged.status == "ungraded"
    assert "the grader's files are not those that the batch began with" in judged.reason


def test_the_secret_of_a_task_is_not_told_in_logs(tmp_path: Path) -> None:
    assert "a secret" not in repr(task(tmp_path, "good", options={"seed": "a secret"}))


@pytest.mark.slow
def test_a_process_is_replaced_when_it_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "MOST", 1)
    processes = [judge_entry(task(tmp_path, "good")).timings["seen"]["pid"] for _ in range(2)]
    assert processes[0] != processes[1]
    assert ends(processes[0])


@pytest.mark.slow
def test_a_batch_that_is_interrupted_waits_for_nobody(tmp_path: Path) -> None:
    stopper = threading.Timer(1.5, stop_judges, [PLACE])
    stopper.start()
    with pytest.raises(JudgeStopped):
        judge_entry(task(tmp_path, "hang"))
    stopper.join()


def test_only_the_processes_of_a_class_are_ended(tmp_path: Path) -> None:
    process = JudgeProcess(task(tmp_path, "good"))
    stop_judges("another")
    close_judges("another")
    assert process.is_usable(task(tmp_path, "good"))


@pytest.mark.slow
def test_a_process_that_nobody_asks_ends(tmp_path: Path) -> None:
    code = f"from autograder.batch import grading; grading.IDLE = 0.05; grading.main('{JUDGE}')"
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.wait(60) == 0


def test_a_process_ends_with_all_it_has_started_when_its_driver_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "child"
    code = (
        "import subprocess, pathlib, os, sys, threading, time;"
        f"sys.path.insert(0, {str(ROOT)!r}); from autograder.batch import grading;"
        "child = subprocess.Popen(['sleep', '600'], start_new_session=True);"
        f"pathlib.Path({str(path)!r}).write_text(str(child.pid));"
        f"grading.main({JUDGE!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.stdin
        while not path.exists() or not path.read_text(encoding="utf-8"):
            time.sleep(0.02)
        process.stdin.close()
        assert process.wait(60) == -9
    assert ends(int(path.read_text(encoding="utf-8")))


# --- the temporary folder ---


def test_the_first_to_come_finds_an_empty_folder_and_the_last_to_leave_removes_it() -> None:
    first = SharedFolder(f"{PLACE}-folder")
    (first.path / "left").mkdir()
    second = SharedFolder(f"{PLACE}-folder")
    assert (second.path / "left").exists()
    first.leave()
    assert (second.path / "left").exists()
    second.leave()
    assert not first.path.exists()


def test_what_a_killed_batch_has_left_is_removed() -> None:
    first = SharedFolder(f"{PLACE}-killed")
    (first.path / "grade-1").mkdir()
    os.close(first._lock)  # as the kernel does
    second = SharedFolder(f"{PLACE}-killed")
    assert list(second.path.iterdir()) == []
    second.leave()


def test_a_folder_that_anybody_may_write_to_is_refused() -> None:
    path = SharedFolder(f"{PLACE}-open").path
    path.chmod(0o777)
    try:
        with pytest.raises(SandboxError, match="belongs to somebody else: remove it"):
            SharedFolder(f"{PLACE}-open")
    finally:
        path.rmdir()

"""What is graded, what is not graded again, what is written down: `pytest tests/test_batch.py`.

Judging happens in this process here; the processes are in test_batch_judging.py, the rest in test_batch_killed.py.
"""

import io
import json
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import wait as really_wait
from pathlib import Path
from typing import Any

import pytest

from autograder.batch import judging, progress, run
from autograder.batch.folder import ClassFolder
from autograder.batch.grading import answer
from autograder.batch.journal import current_rows, read_journal
from autograder.batch.judging import Judged, Task, judge_entry
from autograder.batch.records import Row
from autograder.batch.workers import Workers
from autograder.isolation import sandbox
from errors import SandboxError, UsageError
from tests.batch_stub import grade, grade_class, options, write_class, write_table

ROOT = Path(__file__).resolve().parent.parent
KINDS = {"ann.zip": "good", "ben.zip": "fail", "cem.zip": "unreadable", "dee.zip": "broken", "eve.zip": "fault"}


@pytest.fixture(autouse=True)
def graded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Judge in this process, and note who is judged."""
    names: list[str] = []

    def in_place(task: Task) -> dict[str, Any]:
        names.append(task.name)
        request = {"path": task.path, "grader": task.grader, "options": task.options}
        return {"reason": ""} | answer(request, grade)

    monkeypatch.setattr(judging, "_answer", in_place)
    return names


@pytest.fixture
def school(tmp_path: Path) -> Path:
    """Write a class of three."""
    return write_class(tmp_path / "class", {"ann.zip": "good", "ben.zip": "fail", "cem.zip": "unreadable"})


def rows(out: Path) -> dict[str, Row]:
    return read_journal(out / "journal.jsonl")


# --- what is written ---


def test_every_submission_gets_a_row_whatever_becomes_of_it(tmp_path: Path) -> None:
    assert grade_class(write_class(tmp_path / "class", KINDS), tmp_path / "out") == run.UNGRADED
    found = {name: (row.status, row.reason) for name, row in rows(tmp_path / "out").items()}
    assert found == {
        "ann.zip": ("graded", ""),
        "ben.zip": ("graded", ""),
        "cem.zip": ("unreadable", "nothing of it can be read"),
        "dee.zip": ("ungraded", "the grader failed in RoPE: its report says how"),
        "eve.zip": ("ungraded", "no sandbox today"),
    }


def test_where_there_is_a_result_its_files_are_there(tmp_path: Path) -> None:
    out = tmp_path / "out"
    grade_class(write_class(tmp_path / "class", KINDS), out)
    folders = {name: row.folder for name, row in rows(out).items()}
    for name, folder in folders.items():
        assert bool(folder) == (name in ("ann.zip", "ben.zip", "dee.zip"))
        assert not folder or {path.name for path in (out / folder).iterdir()} == {"result.json", "report.html"}


def test_a_grader_that_failed_gives_no_score(tmp_path: Path) -> None:
    grade_class(write_class(tmp_path / "class", KINDS), tmp_path / "out")
    assert {name for name, row in rows(tmp_path / "out").items() if row.summary} == {"ann.zip", "ben.zip"}


def test_the_status_is_0_if_all_are_graded_or_unreadable(school: Path, tmp_path: Path) -> None:
    assert grade_class(school, tmp_path / "out") == 0


def test_the_folder_is_private_and_tells_no_secret(school: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grade_class(school, out, seed=None)
    secret = (out / "secret").read_text(encoding="utf-8")
    assert (out.stat().st_mode & 0o777, (out / "secret").stat().st_mode & 0o777) == (0o700, 0o600)
    assert secret not in (out / "class.json").read_text(encoding="utf-8")
    assert secret not in (out / "journal.jsonl").read_text(encoding="utf-8")


def test_what_is_no_submission_is_unreadable_without_a_judge(school: Path, tmp_path: Path, graded: list[str]) -> None:
    (school / "notes.txt").write_text("hello", encoding="utf-8")
    assert grade_class(school, tmp_path / "out") == 0
    assert rows(tmp_path / "out")["notes.txt"].status == "unreadable"
    assert "notes.txt" not in graded


def test_what_cannot_be_read_here_is_our_fault(school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(run, "digest", digest)
    assert grade_class(school, tmp_path / "out") == run.UNGRADED
    row = rows(tmp_path / "out")["ann.zip"]
    assert row.status == "ungraded"
    assert row.reason.endswith("ann.zip cannot be read (Permission denied): mend its permissions")


def test_timings_are_kept_apart(school: Path, tmp_path: Path) -> None:
    grade_class(school, tmp_path / "out")
    lines = (tmp_path / "out" / "timings.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(json.loads(line)["name"] for line in lines) == ["ann.zip", "ben.zip", "cem.zip"]
    assert "seconds" not in (tmp_path / "out" / "journal.jsonl").read_text(encoding="utf-8")


# --- what is graded again ---


def test_nothing_is_graded_twice(school: Path, tmp_path: Path, graded: list[str]) -> None:
    assert grade_class(school, tmp_path / "out", seed=None) == 0
    graded.clear()
    assert grade_class(school, tmp_path / "out", seed=None) == 0
    assert graded == []


def test_what_the_grader_failed_with_is_tried_again(tmp_path: Path, graded: list[str]) -> None:
    folder = write_class(tmp_path / "class", KINDS)
    grade_class(folder, tmp_path / "out")
    graded.clear()
    grade_class(folder, tmp_path / "out")
    assert sorted(graded) == ["dee.zip", "eve.zip"]


def test_a_submission_that_changed_is_graded_again_alone(school: Path, tmp_path: Path, graded: list[str]) -> None:
    grade_class(school, tmp_path / "out")
    graded.clear()
    write_class(school, {"cem.zip": "good", "dan.zip": "good"})
    grade_class(school, tmp_path / "out")
    assert sorted(graded) == ["cem.zip", "dan.zip"]
    assert rows(tmp_path / "out")["cem.zip"].status == "graded"


def test_the_files_of_an_older_result_do_not_stay(school: Path, tmp_path: Path) -> None:
    grade_class(school, tmp_path / "out")
    folder = tmp_path / "out" / rows(tmp_path / "out")["ann.zip"].folder
    assert folder.exists()
    write_class(school, {"ann.zip": "unreadable"})
    grade_class(school, tmp_path / "out")
    assert not folder.exists()


def test_what_a_killed_batch_has_left_half_written_does_not_stay(school: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    grade_class(school, out)
    torn = out / rows(out)["ann.zip"].folder / ".report.html.x1y2.tmp"
    torn.write_text("<p>go", encoding="utf-8")
    grade_class(school, out, regrade=("ann.zip",))
    assert not torn.exists()


@pytest.mark.parametrize(
    "changes", [{"seed": "another"}, {"rerun_arguments": ("--lr", "1")}, {"data": ROOT / "tests" / "original_style"}]
)
def test_another_option_grades_everybody_again(
    school: Path, tmp_path: Path, graded: list[str], changes: dict[str, Any]
) -> None:
    grade_class(school, tmp_path / "out")
    graded.clear()
    grade_class(school, tmp_path / "out", **changes)
    assert sorted(graded) == ["ann.zip", "ben.zip", "cem.zip"]


def test_an_edition_that_changed_grades_everybody_again(school: Path, tmp_path: Path, graded: list[str]) -> None:
    course = tmp_path / "course.toml"
    for title in ("One", "Two", "Two"):
        course.write_text(f'extends = "minllama"\ntitle = "{title}"\n', encoding="utf-8")
        run.run_batch(school, str(course), tmp_path / "out", options(), write_table)
    assert len(graded) == 6
    assert ClassFolder(tmp_path / "out").read_entries()[1] == str(course)


@pytest.mark.parametrize(("name", "again"), [("ann.zip", ["ann.zip"]), ("ben", ["ben.zip"]), ("RoPE", ["ben.zip"])])
def test_regrade_names_a_submission_a_student_or_a_check(
    school: Path, tmp_path: Path, graded: list[str], name: str, again: list[str]
) -> None:
    grade_class(school, tmp_path / "out")
    graded.clear()
    grade_class(school, tmp_path / "out", regrade=(name,))
    assert graded == again


def test_regrade_refuses_a_name_that_nobody_has(school: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--regrade zoe: no submission, student or check of this class is called so"):
        grade_class(school, tmp_path / "out", regrade=("zoe",))


# --- which rows are of what is there now ---


def current(out: Path) -> dict[str, str]:
    return {
        name: row.summary.letter if row.summary else row.status for name, row in current_rows(ClassFolder(out)).items()
    }


def stop_before_any_is_graded(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*arguments: Any, **named: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "Threads", lambda place, jobs: Idle())
    monkeypatch.setattr(run, "wait", interrupted)


@pytest.mark.parametrize(
    ("what", "left"),
    [
        ("nothing", {"ann.zip", "ben.zip", "cem.zip"}),
        ("it was handed in again", {"ben.zip", "cem.zip"}),
        ("it was taken away", {"ben.zip", "cem.zip"}),
        ("all are graded otherwise", set()),
        ("it is asked for again", {"ann.zip", "ben.zip", "cem.zip"}),
    ],
)
def test_an_old_row_counts_until_its_submission_is_another(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, left: set[str]
) -> None:
    out, changes = tmp_path / "out", dict[str, Any]()
    grade_class(school, out)
    assert current(out) == {"ann.zip": "A", "ben.zip": "A", "cem.zip": "unreadable"}
    stop_before_any_is_graded(monkeypatch)
    if what == "it was handed in again":
        write_class(school, {"ann.zip": "fail", "new.zip": "good"})
    elif what == "it was taken away":
        (school / "ann.zip").unlink()
    elif what == "all are graded otherwise":
        changes = {"seed": "another"}
    elif what == "it is asked for again":
        changes = {"regrade": ("ann.zip",)}
    grade_class(school, out, **changes)
    assert set(current(out)) == left
    assert "ann.zip" in rows(out)


def test_the_new_row_counts_as_soon_as_it_is_there(school: Path, tmp_path: Path) -> None:
    grade_class(school, tmp_path / "out")
    write_class(school, {"cem.zip": "good"})
    grade_class(school, tmp_path / "out")
    assert current(tmp_path / "out")["cem.zip"] == "A"


def test_what_changes_while_it_waits_is_no_grade(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graded: list[str]
) -> None:
    def changing(task: Task, asked: int) -> bool:
        write_class(school, {"ben.zip": "good"})
        return False

    monkeypatch.setattr(run, "Threads", lambda place, jobs: Stub(changing))
    assert grade_class(school, tmp_path / "out") == run.UNGRADED
    assert current(tmp_path / "out")["ben.zip"] == "ungraded"
    assert grade_class(school, tmp_path / "out") == 0
    assert graded == ["ann.zip", "cem.zip", "ben.zip"]


# --- what goes wrong with the class as a whole ---


def test_a_class_without_a_sandbox_is_not_begun(school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sandbox.REASONS, "bwrap", lambda: "it is not installed")
    with pytest.raises(SandboxError, match="no sandbox of kind 'bwrap': it is not installed"):
        grade_class(school, tmp_path / "out", backend=None)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_nobody_knows_is_refused(school: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no reference results of 'stories1T'"):
        grade_class(school, tmp_path / "out", checkpoint="stories1T")


def test_tables_that_cannot_be_made_now_are_made_in_the_end(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []

    def remake(folder: ClassFolder) -> None:
        calls.append(len(read_journal(folder.journal)))
        if len(calls) == 1:
            raise UsageError("class.toml:3: no date")

    monkeypatch.setattr(run, "TABLES", 0.0)
    assert run.run_batch(school, "minllama", tmp_path / "out", options(), remake) == 0
    assert "the tables cannot be made yet: class.toml:3: no date" in capsys.readouterr().err
    assert calls[-1] == 3


def test_interrupted_it_keeps_what_is_done_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graded: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    school = write_class(tmp_path / "class", {f"s{number}.zip": "good" for number in range(20)})
    turns: list[int] = []

    def interrupted(*arguments: Any, **named: Any) -> Any:
        turns.append(1)
        if len(turns) == 3:
            raise KeyboardInterrupt
        return really_wait(*arguments, **named)

    monkeypatch.setattr(run, "wait", interrupted)
    assert grade_class(school, tmp_path / "out", jobs=1) == run.INTERRUPTED
    done = set(rows(tmp_path / "out"))
    assert 0 < len(done) < 20
    assert len(json.loads((tmp_path / "out" / "table.json").read_text(encoding="utf-8"))) == len(done)
    assert "the same command goes on" in capsys.readouterr().err
    graded.clear()
    assert grade_class(school, tmp_path / "out", jobs=1) == 0
    assert done.isdisjoint(graded)
    assert len(rows(tmp_path / "out")) == 20


# --- progress ---


class Terminal(io.StringIO):
    """A stream that somebody watches."""

    def isatty(self) -> bool:
        return True


def row(name: str, status: Any, reason: str = "") -> Row:
    return Row(name, "0", status, name, reason=reason)


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_progress_counts_and_names_what_failed(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    told = progress.Progress(9, 2, stream)
    told.add(row("a.zip", "graded"))
    for number in range(5):
        told.add(row(f"\x1b[2Jb{number}", "ungraded", "no \x1b]0;x\x07sandbox"))
    told.look("slow\nest.zip")
    told.close()
    text = stream.getvalue()
    assert "2 of 9 are graded already" in text
    assert "in this run: 1 graded, 0 unreadable, 5 ungraded" in text
    assert "ungraded: no sandbox\n    b0, b1, b2 and 2 others" in text
    assert "\x1b]0" not in text
    assert "\x1b[2J" not in text
    if not stream.isatty():
        assert "8 of 9; in this run 1 graded, 0 unreadable, 5 ungraded, " in text
        assert "longest at work: slow est.zip" in text


def test_of_many_reasons_the_most_common_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(progress, "TOLD", 1)
    told = progress.Progress(3, 0, stream)
    for name, reason in (("a", "one"), ("b", "two"), ("c", "two")):
        told.add(row(name, "unreadable", reason))
    told.close()
    assert "unreadable: two\n    b, c\nand 1 other reasons: they are in journal.jsonl" in stream.getvalue()


# --- workers ---


class Stub(Workers):
    """One worker, some of whose tasks are lost."""

    def __init__(self, is_lost: Callable[[Task, int], bool]) -> None:
        self.is_lost, self.asked, self.waiting, self.most = is_lost, {}, 0, 0  # type: ignore[var-annotated]

    def submit(self, task: Task) -> "Future[Judged]":
        self.asked[task.name] = self.asked.get(task.name, 0) + 1
        future: Future[Judged] = Future()
        if self.is_lost(task, self.asked[task.name]):
            future.set_exception(RuntimeError("the worker is gone"))
        else:
            future.set_result(judge_entry(task))
        return future

    def count(self) -> int:
        return 1

    def stop(self, running: Any) -> None:
        self.is_stopped = True


class Idle(Stub):
    """Workers who never come to anything."""

    def __init__(self) -> None:
        super().__init__(lambda task, asked: False)

    def submit(self, task: Task) -> "Future[Judged]":
        return Future()


def test_a_task_whose_worker_is_lost_is_handed_out_once_more(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = Stub(lambda task, asked: task.name == "ann.zip" and asked == 1)
    monkeypatch.setattr(run, "Threads", lambda place, jobs: workers)
    assert grade_class(school, tmp_path / "out") == 0
    assert (workers.asked, workers.is_stopped) == ({"ann.zip": 2, "ben.zip": 1, "cem.zip": 1}, True)


def test_a_task_whose_workers_are_all_lost_costs_only_itself(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Threads", lambda place, jobs: Stub(lambda task, asked: task.name == "ann.zip"))
    assert grade_class(school, tmp_path / "out") == run.UNGRADED
    found = rows(tmp_path / "out")
    assert found["ann.zip"].reason == "its worker was lost: RuntimeError: the worker is gone"
    assert {found[name].status for name in ("ben.zip", "cem.zip")} == {"graded", "unreadable"}


def test_a_cluster_that_is_gone_leaves_what_is_done(
    school: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying(Stub):
        def count(self) -> int:
            if len(self.asked) >= 2:
                raise UsageError("the cluster is gone")
            return 1

    monkeypatch.setattr(run, "Threads", lambda place, jobs: Dying(lambda task, asked: False))
    with pytest.raises(UsageError, match="the cluster is gone"):
        grade_class(school, tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 2


def test_few_tasks_are_handed_out_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out: dict[str, int] = {"now": 0, "most": 0}

    class Slow(Stub):
        def submit(self, task: Task) -> "Future[Judged]":
            out["now"] += 1
            out["most"] = max(out["now"], out["most"])
            return super().submit(task)

    def counting(running: Any, **named: Any) -> Any:
        out["now"] -= len(running)
        return really_wait(running, **named)

    monkeypatch.setattr(run, "wait", counting)
    monkeypatch.setattr(run, "Threads", lambda place, jobs: Slow(lambda task, asked: False))
    grade_class(write_class(tmp_path / "class", {f"s{number}.zip": "good" for number in range(30)}), tmp_path / "out")
    assert out["most"] == run.AHEAD

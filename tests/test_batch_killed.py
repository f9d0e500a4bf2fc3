"""A batch that is interrupted or killed, and begun again: `pytest tests/test_batch_killed.py`."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autograder.batch.journal import read_journal
from autograder.isolation.memory import descendants
from tests.batch_stub import write_class

ROOT = Path(__file__).resolve().parent.parent
WORDS = ("good", "fail", "unreadable", "sleep 0.05", "good", "sleep 0.15")


def start(folder: Path, out: Path, jobs: int = 2) -> "subprocess.Popen[bytes]":
    """Start a batch of stubs in a process of its own."""
    command = [sys.executable, "-P", "-m", "tests.batch_stub", str(folder), str(out), str(jobs)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder.parent)}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, start_new_session=True)


def wait_for_rows(out: Path, count: int, batch: "subprocess.Popen[bytes]") -> None:
    """Wait until so many submissions are done, or the batch has ended."""
    deadline = time.monotonic() + 60
    while len(read_journal(out / "journal.jsonl")) < count and batch.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def judges_left(processes: list[int]) -> list[int]:
    """Return which of these processes are still there, after a while in which they may end."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        left = [process for process in processes if Path(f"/proc/{process}/exe").exists()]
        if not left:
            return []
        time.sleep(0.02)
    return left


def outcome(out: Path) -> dict[str, object]:
    """Return all that the tables are made of, and the table."""
    files = [out / "class.json", out / "table.json", *sorted((out / "results").rglob("*"))]
    content: dict[str, object] = {str(path.relative_to(out)): path.read_bytes() for path in files if path.is_file()}
    return content | {"rows": sorted(set((out / "journal.jsonl").read_text(encoding="utf-8").splitlines()))}


@pytest.mark.slow
def test_ctrl_c_ends_at_once_and_keeps_what_is_done(tmp_path: Path) -> None:
    words = {f"s{number}.zip": "good" for number in range(3)} | {f"t{number}.zip": "hang" for number in range(3)}
    folder, out = write_class(tmp_path / "class", words), tmp_path / "out"
    with start(folder, out) as batch:
        wait_for_rows(out, 3, batch)
        family = descendants(batch.pid)
        batch.send_signal(signal.SIGINT)
        _, said = batch.communicate(timeout=30)
    assert batch.returncode == 130
    assert b"the same command goes on" in said
    assert sorted(read_journal(out / "journal.jsonl")) == ["s0.zip", "s1.zip", "s2.zip"]
    assert b"s2.zip" in (out / "table.json").read_bytes()
    assert len(family) > 2
    assert judges_left(family) == []


@pytest.mark.slow
def test_two_batches_into_one_folder_are_refused(tmp_path: Path) -> None:
    folder, out = write_class(tmp_path / "class", {"a.zip": "good", "b.zip": "hang"}), tmp_path / "out"
    with start(folder, out) as first:
        wait_for_rows(out, 1, first)
        with start(folder, out) as second:
            _, said = second.communicate(timeout=60)
        first.kill()
    assert second.returncode == 1
    assert b"UsageError: another batch is writing into" in said


@pytest.mark.slow
def test_killed_at_any_moment_it_comes_to_the_same_in_the_end(tmp_path: Path) -> None:
    folder = write_class(tmp_path / "class", {f"s{number:02}.zip": WORDS[number % 6] for number in range(60)})
    with start(folder, tmp_path / "whole") as batch:
        assert batch.wait(120) == 0
    expected = outcome(tmp_path / "whole")
    moments, out, kills = random.Random(1), tmp_path / "killed", 0
    while kills < 20:
        with start(folder, out) as batch:
            if kills % 2:  # while it writes, else while it starts
                wait_for_rows(out, len(read_journal(out / "journal.jsonl")) + 1, batch)
            time.sleep(moments.uniform(0.0, 0.3 if kills % 2 else 0.6))
            family = descendants(batch.pid)
            batch.kill()
        kills += 1
        assert judges_left(family) == []
        if kills == 10:  # the tables lose half of what they have, as if the disk were an older one
            lines = (out / "journal.jsonl").read_bytes()
            (out / "journal.jsonl").write_bytes(lines[: len(lines) // 2])
    with start(folder, out) as batch:
        assert batch.wait(120) == 0
    assert outcome(out) == expected


@pytest.mark.slow
def test_memory_does_not_grow_with_the_class(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from tests import batch_stub;"
        "status = batch_stub.grade_class(Path(sys.argv[1]), Path(sys.argv[2]));"
        "print(status, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    sizes = []
    for count in (50, 500):
        folder = write_class(tmp_path / f"class{count}", {f"s{number}.zip": "good" for number in range(count)})
        command = [sys.executable, "-P", "-c", code, str(folder), str(tmp_path / f"out{count}")]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        told = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
        status, size = map(int, told.split())
        assert status == 0
        sizes.append(size)
    assert sizes[1] - sizes[0] < 16 * 1024  # kilobytes: ten times the submissions, all rows of a table once in memory

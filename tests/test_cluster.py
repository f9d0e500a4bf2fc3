"""A class that is graded by a cluster, and what becomes of it when that breaks: `pytest tests/test_cluster.py`."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from autograder.batch import cluster
from autograder.batch.cluster import Cluster, connect
from autograder.batch.journal import read_journal
from errors import MissingDependency, UsageError
from tests.batch_stub import grade_class, write_class

ROOT = Path(__file__).resolve().parent.parent
Start = Callable[..., "subprocess.Popen[bytes]"]


class FakeClient:
    """A cluster that says what a test wants."""

    def __init__(self, answers: Any = None, threads: Any = None) -> None:
        self.answers, self.threads, self.is_closed = answers, threads, False
        self.scheduler = self
        self.ncores = None

    def get_executor(self) -> None:
        pass

    def close(self, timeout: float = 0) -> None:
        self.is_closed = True

    def run(self, *arguments: Any, **named: Any) -> Any:
        return told(self.answers)

    def sync(self, *arguments: Any, **named: Any) -> Any:
        return told(self.threads)


def told(what: Any) -> Any:
    if isinstance(what, Exception):
        raise what
    return what


def test_a_cluster_needs_dask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingDependency, match="a cluster needs distributed: run `pip install distributed`"):
        connect("tcp://127.0.0.1:8786")


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cluster, "ANSWER", 0.5)
    for address in ("tcp://127.0.0.1:9", "no address at all", str(tmp_path / "missing.json")):
        with pytest.raises(UsageError, match="no scheduler answers at .*: start one with `dask scheduler`"):
            connect(address)


@pytest.mark.parametrize(
    ("address", "warns"),
    [
        ("tcp://10.0.0.7:8786", True),
        ("tcp://head.example.org:8786", True),
        ("tcp://127.0.0.1:8786", False),
        ("tcp://[::1]:8786", False),
        ("tcp://localhost:8786", False),
        ("tls://10.0.0.7:8786", False),
    ],
)
def test_ports_that_everybody_reaches_are_warned_of(
    address: str, warns: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster._warn_of_open_ports(address)
    assert ("whoever reaches its port runs code as you: use tls://" in capsys.readouterr().err) == warns


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ({}, "has no workers: start some with `dask worker`"),
        ({"w1": ("0123", "3.11.7")}, "the worker w1 has another grader or another Python"),
        ({"w1": ModuleNotFoundError("autograder")}, "with PYTHONPATH"),
        (TimeoutError(), "the cluster does not answer"),
    ],
)
def test_workers_that_would_grade_otherwise_are_refused(
    monkeypatch: pytest.MonkeyPatch, answers: Any, said: str
) -> None:
    client = FakeClient(answers)
    monkeypatch.setattr(cluster, "connect", lambda address: client)
    with pytest.raises(UsageError, match=said):
        Cluster("tcp://127.0.0.1:8786", "place")
    assert client.is_closed


def test_a_cluster_that_is_gone_ends_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    client = FakeClient({"w1": cluster._who()}, {"w1": 2, "w2": 1})
    monkeypatch.setattr(cluster, "connect", lambda address: client)
    workers = Cluster("tcp://127.0.0.1:8786", "place")
    assert workers.count() == 3
    client.threads = OSError()
    with pytest.raises(UsageError, match="the scheduler of the cluster is gone .* what is graded is kept"):
        workers.count()
    client.threads = {}
    assert workers.count() == 0
    monkeypatch.setattr(cluster, "PATIENCE", -1.0)
    with pytest.raises(UsageError, match="all workers of the cluster have been gone"):
        workers.count()
    client.answers = OSError()
    workers._executor = client  # type: ignore[assignment]
    client.shutdown = lambda wait: None  # type: ignore[attr-defined]
    workers.stop([])
    assert client.is_closed


# --- a real one, on this machine ---


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts a scheduler or a worker; all are ended with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(kind: str, *options: str) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "dask", kind, "--no-dashboard", "--interface", "lo", *options]
        command += ["--scheduler-file", str(tmp_path / "scheduler.json")]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
        with (tmp_path / f"{kind}-{len(started)}.log").open("wb") as log:
            started.append(subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=log, stdout=log))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


def wait_until(is_so: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def small_cluster(start: Start, file: Path) -> "list[subprocess.Popen[bytes]]":
    """Start a scheduler and two workers, and wait until they are there."""
    processes = [start("scheduler", "--port", "0")]
    wait_until(lambda: file.exists() and file.read_bytes().endswith(b"}"))  # it is there before it is written
    processes += [start("worker", "--nthreads", "1", "--no-nanny") for _ in range(2)]
    with connect(str(file)) as client:
        wait_until(lambda: len(client.ncores()) == 2)
    return processes


@pytest.mark.slow
def test_a_worker_that_dies_costs_nothing(tmp_path: Path, start: Start) -> None:
    file, out = tmp_path / "scheduler.json", tmp_path / "out"
    folder = write_class(tmp_path / "class", {f"s{number:02}.zip": "sleep 0.2" for number in range(40)})
    processes = small_cluster(start, file)

    def kill_one() -> None:
        wait_until(lambda: len(read_journal(out / "journal.jsonl")) >= 8)
        processes[1].kill()

    killer = threading.Thread(target=kill_one)
    killer.start()
    assert grade_class(folder, out, jobs=None, dask=str(file)) == 0
    killer.join()
    assert len(read_journal(out / "journal.jsonl")) == 40
    assert processes[1].wait() == -9


@pytest.mark.slow
def test_a_scheduler_that_dies_leaves_what_is_done(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "scheduler.json", tmp_path / "out"
    folder = write_class(tmp_path / "class", {f"s{number:02}.zip": "sleep 0.2" for number in range(40)})
    processes = small_cluster(start, file)
    monkeypatch.setattr(cluster, "ANSWER", 3.0)  # nobody will

    def kill_all() -> None:
        wait_until(lambda: len(read_journal(out / "journal.jsonl")) >= 4)
        for process in processes:
            process.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    with pytest.raises(UsageError, match="run the same command again"):
        grade_class(folder, out, jobs=None, dask=str(file))
    killer.join()
    found = read_journal(out / "journal.jsonl")
    assert 4 <= len(found) < 40
    assert {row.status for row in found.values()} == {"graded"}
    assert grade_class(folder, out) == 0

"""How is one submission of a class graded, whatever happens to it? In a judge process, which can be lost.

    judged = judge_entry(task)

That works alike in a thread of this process and in a worker of a cluster. Every thread has a judge process of its own,
which stays for many submissions. What crashes it, or hangs, costs this one submission and no other.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autograder.batch.keys import digest
from autograder.batch.records import RowStatus
from autograder.batch.temporary import SharedFolder
from autograder.isolation.memory import kill_family
from autograder.report.plain import one_line
from autograder.result import Result
from autograder.rubric import UNGRADED

ROOT = Path(__file__).resolve().parents[2]
JUDGE = "autograder.batch.grading:grade_entry"
MOST = 100  # submissions, after which a judge process is replaced: a leak stays small
TRIES = 2  # of a submission that a judge process dies of
NOT_SHARED = "workers must see the same files as the batch: use a shared file system, and leave FOLDER as it is"


@dataclass(frozen=True)
class Task:
    """All that grading one submission needs, as plain data: it may travel to another machine."""

    name: str
    path: str
    sha256: str  # of what lies there
    place: str  # name of the temporary folder, one for each class
    grader: str  # version
    edition: str  # in JSON
    options: Mapping[str, Any] = field(repr=False)  # of `grade.Options`, for JSON; with the secret, so not for logs
    seconds: float  # by the clock, after which there is no verdict; limits of what it may use are inside
    judge: str = JUDGE


@dataclass(frozen=True)
class Judged:
    """What became of a submission: a reason, or the texts of its files, or both if the grader failed on the way."""

    status: RowStatus
    reason: str = ""
    result: str = ""
    report: str = ""
    timings: Mapping[str, Any] = field(default_factory=dict)


class JudgeLost(Exception):
    """A judge process ended before it answered; the text says how."""


class JudgeStopped(Exception):
    """The batch was interrupted: nothing follows about the submission."""


class JudgeProcess:
    """One judge process, from its start to its end."""

    def __init__(self, task: Task) -> None:
        """Start it, for tasks such as this one."""
        self.kind = _kind(task)
        self.asked = 0
        self._is_stopped = False
        self._is_late = False
        self._folder = SharedFolder(task.place)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "autograder.batch.grading", task.judge],
            cwd=ROOT,
            env=_environment(self._folder.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # ctrl-C is for us
        )
        with _lock:
            _judges.add(self)

    def is_usable(self, task: Task) -> bool:
        """Return whether it can be asked this: it lives, is of the right kind, and is not too old."""
        return self.kind == _kind(task) and self.asked < MOST and self._process.poll() is None

    def ask(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Return the answer to a request, or that there was none in time.

        Raises JudgeLost or JudgeStopped if it has ended without one.
        """
        assert self._process.stdin and self._process.stdout
        self.asked += 1
        timer = threading.Timer(seconds, self._expire)
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        finally:
            timer.cancel()
        # killed with all that it has started, child by child, it may have answered that its sandbox is gone
        if line.endswith(b"\n") and not self._is_stopped and not self._is_late:
            return dict(json.loads(line))
        reason = self._why_lost()
        self.close()
        if self._is_late:
            return {"status": "ungraded", "reason": f"there was no verdict after {seconds / 60:.3g} minutes"}
        raise JudgeStopped if self._is_stopped else JudgeLost(reason)

    def _expire(self) -> None:
        """Kill it for its time."""
        self._is_late = True
        self._kill()

    def _kill(self) -> None:
        """Kill it and all that it has started."""
        if self._process.poll() is None:
            kill_family(self._process.pid)

    def _why_lost(self) -> str:
        """Return how it ended, in words."""
        self._kill()
        status = self._process.wait()
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        said = self._errors.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        how = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        memory = ": perhaps the machine had no memory left" if status == -9 else ""
        return f"the judge process {how}{memory}" + (f" ({one_line(said, 500)})" if said else "")

    def stop(self) -> None:
        """End it at once, whatever it does; whoever waits for its answer is told so."""
        self._is_stopped = True
        self._kill()

    def close(self) -> None:
        """Kill it and give everything back; a second time does nothing."""
        with _lock:
            if self not in _judges:
                return
            _judges.remove(self)
        self._kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        self._errors.close()
        self._folder.leave()


_judges: set[JudgeProcess] = set()  # all that live, in all threads
_lock = threading.Lock()
_own = threading.local()


def _kind(task: Task) -> tuple[str, str, str]:
    """Return what tasks have in common that one judge process can do."""
    return task.place, task.grader, task.judge


def _environment(temporary: Path) -> dict[str, str]:
    """Return all the environment variables of a judge process."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LD_LIBRARY_PATH") if name in os.environ}
    fixed = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "LANG": "C.UTF-8", "TMPDIR": str(temporary)}
    return kept | fixed | {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}


def stop_judges(place: str) -> None:
    """End the judge processes of a class at once, in all threads."""
    with _lock:
        found = [judge for judge in _judges if judge.kind[0] == place]
    for judge in found:
        judge.stop()


def close_judges(place: str) -> None:
    """End the judge processes of a class that nobody waits for any more, and clear up."""
    with _lock:
        found = [judge for judge in _judges if judge.kind[0] == place]
    for judge in found:
        judge.close()


def judge_entry(task: Task) -> Judged:
    """Grade one submission. Raises JudgeStopped if the batch was interrupted meanwhile."""
    try:
        if digest(Path(task.path)) != task.sha256:
            return Judged("ungraded", f"other bytes are there than when the batch began: {NOT_SHARED}")
    except OSError as error:
        return Judged("ungraded", f"it cannot be read here ({error.strerror}): {NOT_SHARED}")
    started = time.monotonic()
    answer = _answer(task)
    if answer["status"] != "graded":
        return Judged(answer["status"], answer["reason"])
    timings = {"seconds": round(time.monotonic() - started, 3), **answer["timings"]}
    reason = why_no_grade(Result.from_json(answer["result"]))
    return Judged("ungraded" if reason else "graded", reason, answer["result"], answer["report"], timings)


def _answer(task: Task) -> dict[str, Any]:
    """Return the answer of this thread's judge process, or why there is none."""
    request = {"path": task.path, "grader": task.grader, "edition": task.edition, "options": dict(task.options)}
    for _ in range(TRIES):
        judge: JudgeProcess | None = getattr(_own, "judge", None)
        if judge is None or not judge.is_usable(task):
            if judge:
                judge.close()
            judge = _own.judge = JudgeProcess(task)
        try:
            return judge.ask(request, task.seconds)
        except JudgeLost as error:
            reason = str(error)
    return {"status": "ungraded", "reason": f"{reason}; it was tried {TRIES} times"}


def why_no_grade(result: Result) -> str:
    """Return why a result is no grade, though there is one: the grader has failed. Empty if it is one."""
    broken = [check.name for check in result.checks if check.status == "grader_error"]
    if broken:
        return one_line(f"the grader failed in {', '.join(broken)}: its report says how", 500)
    return one_line("; ".join(result.grade.reasons), 500) if result.grade.letter == UNGRADED else ""

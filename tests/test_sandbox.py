"""The sandbox: what it sends, gets back, limits and leaves behind. Attacks are in test_attacks.py."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autograder.editions import Limits
from autograder.isolation import backends, sandbox
from autograder.isolation.backends import Box
from autograder.isolation.environment import build_environment
from autograder.isolation.sandbox import Backend, Call, Reply, Sandbox, Script, open_sandbox, usable_backends
from component_checks import Case
from errors import GraderError, SandboxError, UsageError
from tests.attacks.driver import expected, make_case
from tests.test_attacks import require

ENVIRONMENT = ["torch", "numpy"]
LIMITS = Limits(memory_mb=1500.0, rerun_memory_mb=1500.0, file_mb=32.0, rerun_file_mb=32.0, output_kb=8.0)
NORM = """import torch
from torch import nn


class RMSNorm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.eps, self.weight = eps, nn.Parameter(torch.ones(dim))

    def _norm(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)

    def forward(self, x):
        LINE
        return self._norm(x) * self.weight
"""
LINE = NORM.splitlines().index("        LINE") + 1


class Submission:
    """A folder of files and a sandbox around it."""

    def __init__(self, backend: Backend, folder: Path) -> None:
        self.backend, self.folder = backend, folder
        self.box = open_sandbox(backend, folder, ENVIRONMENT, LIMITS)

    def write(self, name: str, text: str) -> None:
        for folder in [self.folder, *([self.box._worker.workspace] if self.box._worker else [])]:
            (folder / name).write_text(text)

    def norm(self, line: str = "pass", seconds: float = 20.0) -> Reply:
        self.write("llama.py", NORM.replace("LINE", line))
        return self.box.call(Call("rms_norm", make_case(), seconds))


@pytest.fixture(scope="module", params=["none", "bwrap"])
def submission(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Submission]:
    require(usable_backends()[request.param])
    found = Submission(request.param, tmp_path_factory.mktemp("submission"))
    yield found
    found.box.close()


# --- calls ---


def test_a_call_brings_tensors_back(submission: Submission) -> None:
    reply = submission.norm("print('hello')")
    assert (reply.status, reply.printed, reply.failure) == ("ok", "hello\n", None)
    output = reply.outputs["forward(x)"]
    assert isinstance(output, torch.Tensor)
    torch.testing.assert_close(output, expected(make_case()))
    assert 0.0 < reply.seconds < 20.0


def together(submission: Submission, line: str, seconds: float = 20.0) -> list[str]:
    """Return how each of three calls in one process ended; the line runs in each."""
    submission.write("llama.py", NORM.replace("LINE", line))
    replies = submission.box.call_all([Call("rms_norm", make_case(), 20.0)] * 3, seconds)
    for reply in replies:
        if reply:
            output = reply.outputs["forward(x)"]
            assert reply.status == "ok" and isinstance(output, torch.Tensor)
            torch.testing.assert_close(output, expected(make_case()))
    return ["ok" if reply else "none" for reply in replies]


def test_calls_in_one_process_each_have_a_reply(submission: Submission) -> None:
    assert together(submission, "pass") == ["ok"] * 3
    assert submission.box.call_all([], 1.0) == []


@pytest.mark.parametrize(
    ("line", "ended"),
    [
        ("global count; count = globals().get('count', 0) + 1; assert count != 2", ["ok", "none", "ok"]),
        (
            "import random; global first; r = random.random(); first = globals().get('first', r); assert first == r",
            ["ok"] * 3,
        ),
        ("print('hello')", ["none"] * 3),
        ("import os; os._exit(0)", ["none"] * 3),
        ("import time; time.sleep(60)", ["none"] * 3),
    ],
    ids=["an error in the second", "random numbers", "printing", "an early end", "a wait"],
)
def test_calls_in_one_process_share_its_fate(submission: Submission, line: str, ended: list[str]) -> None:
    assert together(submission, line, 2.0) == ended
    assert submission.norm().status == "ok"  # alone, and after all of that


def test_an_error_says_where_it_arose(submission: Submission) -> None:
    failure = submission.norm("raise ValueError('no')").failure
    assert failure is not None
    place = (failure.file, failure.line, failure.function)
    assert place == ("llama.py", LINE, "RMSNorm.forward")
    assert (failure.kind, failure.message, failure.raised, failure.importing) == ("ValueError", "no", True, False)
    assert failure.traceback.startswith("Traceback") and "component_checks" not in failure.traceback


def test_what_is_not_implemented_yet_can_be_told_from_an_error_in_a_library(submission: Submission) -> None:
    missing = submission.norm("raise NotImplementedError").failure
    inside = submission.norm("torch.sparse_coo_tensor((2, 2)).numpy_() or x.map_(x, None)").failure
    assert missing is not None and inside is not None
    assert missing.kind == "NotImplementedError" and missing.raised
    assert not inside.raised and inside.line == LINE


def test_an_error_while_importing_names_the_file(submission: Submission) -> None:
    submission.write("llama.py", "import rope\n")
    submission.write("rope.py", "x = 1\ny = x / 0\n")
    failure = submission.box.call(Call("rms_norm", make_case(), 20.0)).failure
    assert failure is not None
    assert (failure.kind, failure.file, failure.line, failure.importing) == ("ZeroDivisionError", "rope.py", 2, True)
    submission.write("rope.py", "def f(:\n")
    failure = submission.box.call(Call("rms_norm", make_case(), 20.0)).failure
    assert failure is not None
    assert (failure.kind, failure.file, failure.line, failure.importing) == ("SyntaxError", "rope.py", 1, True)


def test_a_file_that_is_not_there_is_named(submission: Submission) -> None:
    failure = submission.box.call(
        Call(
            "adamw",
            Case(
                {"start": torch.ones(1), "gradients": torch.ones(1, 1)},
                {"groups": [{"params": [0]}], "options": {}, "skips": []},
                {},
            ),
            20.0,
        )
    ).failure
    assert failure is not None
    assert (failure.kind, failure.file) == ("ModuleNotFoundError", "")
    assert "'optimizer'" in failure.message


def test_a_crash_costs_one_call(submission: Submission) -> None:
    assert submission.norm("import os; os._exit(3)").exit_status == 3
    # in a namespace of its own nothing can kill the first process
    assert submission.norm("import os; os.kill(os.getppid(), 9)").status == ("ok" if is_walled(submission) else "crash")
    assert submission.norm().status == "ok"


def is_walled(submission: Submission) -> bool:
    return submission.backend == "bwrap"


def test_what_is_printed_is_cut_in_the_middle(submission: Submission) -> None:
    printed = submission.norm("print('first' + 'x' * 100_000 + 'last')").printed
    assert printed.startswith("first") and printed.endswith("last\n") and "bytes left out" in printed
    assert len(printed) < 2 * LIMITS.output_kb * 1024


def test_every_call_starts_from_the_same_state(submission: Submission) -> None:
    line = "import random, os; print(random.random(), torch.rand(1), hash('x'), sorted(os.environ))"
    first, second = submission.norm(line).printed, submission.norm(line).printed
    assert first == second
    assert "MINLLAMA" not in first and "PYTEST" not in first


def test_a_worker_that_answers_nonsense_is_a_crash(submission: Submission, monkeypatch: pytest.MonkeyPatch) -> None:
    assert submission.norm().status == "ok"
    monkeypatch.setattr("autograder.isolation.sandbox.protocol.receive", lambda *_: b"nonsense")
    assert submission.norm().status == "crash"
    monkeypatch.undo()
    assert submission.norm().status == "ok"


def test_a_worker_that_says_nothing_is_stopped_by_the_judge(
    submission: Submission, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "GRACE", 1.0)
    started = time.monotonic()
    reply = submission.norm("import os, time; os.kill(os.getppid(), 19); time.sleep(60)", seconds=0.5)
    assert reply.status == "timeout"
    assert time.monotonic() - started < 60


@pytest.mark.slow
def test_a_sandbox_outlives_the_thread_that_opened_it(tmp_path: Path) -> None:
    require(usable_backends()["bwrap"])
    opened: list[Submission] = []
    thread = threading.Thread(target=lambda: opened.append(Submission("bwrap", tmp_path)))
    thread.start()
    thread.join()
    with opened[0].box:
        assert opened[0].norm().status == "ok"
        time.sleep(0.2)
        assert opened[0].norm().status == "ok"


@pytest.mark.slow
def test_a_sandbox_dies_with_the_judge(tmp_path: Path) -> None:
    require(usable_backends()["bwrap"])
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "llama.py").write_text(NORM.replace("LINE", "import time; time.sleep(600)"))
    code = (
        "import os, threading; from pathlib import Path; from autograder.isolation.sandbox import *;"
        "from autograder.isolation.memory import descendants; from tests.attacks.driver import LIMITS, make_case;"
        f"box = open_sandbox('bwrap', Path({str(folder)!r}), ['torch', 'numpy'], LIMITS);"
        "end = lambda: (print(*descendants(box._worker._process.pid), flush=True), os.kill(os.getpid(), 9));"
        "box._worker._wait_until_ready(); threading.Timer(1, end).start();"
        "box.call(Call('rms_norm', make_case(), 500.0))"
    )
    command = [sys.executable, "-c", code]
    left = tmp_path / "left"  # what a judge that is killed cannot remove
    left.mkdir()
    environ = os.environ | {"TMPDIR": str(left)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=backends.ROOT, env=environ)
    family = [Path("/proc", pid) for pid in done.stdout.split()]
    assert len(family) >= 3, done.stderr  # bubblewrap, the worker, its child
    deadline = time.monotonic() + 10
    while any(map(is_alive, family)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_alive, family))


def is_alive(process: Path) -> bool:
    try:
        return "State:\tZ" not in (process / "status").read_text()
    except OSError:
        return False


# --- scripts ---

PROGRAM = """
import os, sys, tokenizer_stub
print("arguments", sys.argv[1:])
text = open("data/in.txt").read()
open("out.txt", "w").write(text.upper())
os.mkdir("sub")
open("sub/deep.txt", "w").write("deep")
os.symlink("out.txt", "link.txt")
os.symlink("sub", "folder")
os.mkfifo("pipe.txt")
open("large.txt", "w").write("x" * 3_000_000)
if sys.argv[1:] == ["fail"]:
    sys.exit("it failed")
if sys.argv[1:] == ["raise"]:
    raise ValueError("no")
"""


def run(submission: Submission, tmp_path: Path, argument: str, **more: float) -> Reply:
    submission.write("run_llama.py", PROGRAM)
    submission.write("tokenizer_stub.py", "")
    given = tmp_path / "given.txt"
    given.write_text("abc")
    files_out = ("out.txt", "sub/deep.txt", "link.txt", "folder/deep.txt", "pipe.txt", "large.txt", "none.txt")
    script = Script(("run_llama.py", argument), {"data/in.txt": given}, files_out, 30.0, max_bytes=1 << 20)
    return submission.box.run(replace(script, **more))  # type: ignore[arg-type]


def test_a_script_reads_and_writes_files(submission: Submission, tmp_path: Path) -> None:
    reply = run(submission, tmp_path, "well")
    assert (reply.status, reply.exit_status, reply.printed) == ("ok", 0, "arguments ['well']\n")
    assert reply.files == {"out.txt": b"ABC", "sub/deep.txt": b"deep"}  # no links, no pipes, nothing too large
    assert (tmp_path / "given.txt").read_text() == "abc"
    assert not (submission.folder / "out.txt").exists()


@pytest.mark.slow
def test_a_script_that_fails_says_how(submission: Submission, tmp_path: Path) -> None:
    reply = run(submission, tmp_path, "fail")
    assert (reply.status, reply.exit_status) == ("ok", 1)
    assert "it failed" in reply.printed
    reply = run(submission, tmp_path, "raise")
    assert reply.failure is not None
    assert (reply.status, reply.failure.kind, reply.failure.file) == ("error", "ValueError", "run_llama.py")
    assert reply.failure.raised and not reply.failure.importing and reply.exit_status == 1


@pytest.mark.slow
def test_a_script_is_stopped_after_its_time(submission: Submission, tmp_path: Path) -> None:
    submission.write("endless.py", "while True: pass")
    reply = submission.box.run(Script(("endless.py",), {}, (), 0.5))
    assert reply.status == "timeout"


def test_a_script_that_is_asked_for_impossible_files_is_our_fault(submission: Submission, tmp_path: Path) -> None:
    with pytest.raises(GraderError, match="no relative name"):
        submission.box.run(Script(("x.py",), {}, ("../secret",), 1.0))
    with pytest.raises(GraderError, match="is not there"):
        submission.box.run(Script(("x.py",), {"a": tmp_path / "none"}, (), 1.0))


# --- errors of ours ---


def test_an_unknown_call_or_case_is_our_fault(submission: Submission) -> None:
    with pytest.raises(GraderError, match="no call is named 'nothing'"):
        submission.box.call(Call("nothing", make_case(), 1.0))
    with pytest.raises(GraderError, match="no plain data"):
        submission.box.call(Call("rms_norm", Case({}, {"x": object()}, {}), 1.0))


def test_a_sandbox_that_does_not_start_is_our_fault(tmp_path: Path) -> None:
    environment = replace(build_environment(ENVIRONMENT), python=Path("/bin/ls"))
    with (
        Sandbox("none", tmp_path, environment, LIMITS) as box,
        pytest.raises(GraderError, match=r"(?s)did not start .*ls"),
    ):
        box.call(Call("rms_norm", make_case(), 1.0))


def test_an_unknown_sandbox_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from bwrap, uid, none"):
        open_sandbox("docker", tmp_path, ENVIRONMENT, LIMITS)  # type: ignore[arg-type]


def fake_bwrap(folder: Path, version: str, rest: str) -> None:
    program = folder / "bwrap"
    program.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "bubblewrap {version}"; exit 0; fi\n{rest}\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "rest", "says"),
    [
        ("", "", "not installed: run `apt-get install bubblewrap`"),
        ("0.6.1", "exit 0", "bubblewrap 0.6.1 is too old: install bubblewrap 0.8"),
        ("0.8.0", "echo 'No permissions to create a new namespace' >&2; exit 1", "No permissions .* allow user namesp"),
    ],
)
def test_grading_without_a_usable_bubblewrap_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, rest: str, says: str
) -> None:
    if version:
        fake_bwrap(tmp_path, version, rest)
    setpriv = tmp_path / "setpriv"
    setpriv.write_text("")
    setpriv.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SandboxError, match=says):
        open_sandbox(None, tmp_path, ENVIRONMENT, LIMITS)


def test_another_user_needs_root_and_a_closed_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "only root" in usable_backends()["uid"]
    monkeypatch.setattr(os, "getuid", lambda: 0)
    monkeypatch.setattr(backends, "_others_may_enter", lambda path: True)
    assert f"chmod 700 {backends.ROOT}" in usable_backends()["uid"]
    monkeypatch.setattr(backends, "_others_may_enter", lambda path: False)
    assert "cannot read" in usable_backends()["uid"]
    open_places = (Path(sys.base_prefix).resolve(), Path(torch.__file__).parent)
    monkeypatch.setattr(backends, "_others_may_enter", lambda path: path in open_places)
    assert "TMPDIR" in usable_backends()["uid"]


# --- users ---


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backends, "LOCKS", tmp_path)
    return tmp_path


def test_two_sandboxes_have_different_users(temporary: Path) -> None:
    first, second = backends.User(), backends.User()
    assert first.number != second.number
    first.close()
    third = backends.User()
    assert third.number == first.number
    second.close()
    third.close()


def test_when_every_user_is_taken_it_says_so(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "USERS", range(60600, 60601))
    user = backends.User()
    with pytest.raises(SandboxError, match="every user from 60600 to 60600 is taken"):
        backends.User()
    user.close()


def test_a_folder_of_locks_that_others_may_open_is_refused(temporary: Path) -> None:
    (temporary / f"minllama-users-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(SandboxError, match="belongs to somebody else"):
        backends.User()


# --- what a sandbox sees ---


def box(tmp_path: Path) -> Box:
    return Box(tmp_path, build_environment(ENVIRONMENT), 1 << 30, 1 << 20, 1 << 10, 10)


def test_bubblewrap_hides_the_repository_if_python_lies_above_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = replace(build_environment(ENVIRONMENT), prefix=backends.ROOT.parent)
    options = backends._system_mounts(environment)
    assert ["--tmpfs", str(backends.ROOT)] == options[options.index(str(backends.ROOT)) - 1 :][:2]
    assert "--tmpfs" not in backends._system_mounts(replace(environment, prefix=tmp_path))


def test_a_private_folder_has_copies_and_is_removed(tmp_path: Path) -> None:
    (tmp_path / "llama.py").write_text("x = 1")
    (tmp_path / "link.py").symlink_to("/etc/hostname")
    place = backends.Own(box(tmp_path))
    assert (place.workspace / "llama.py").read_text() == "x = 1"
    assert [path.name for path in place.workspace.iterdir()] == ["llama.py"]
    assert Path(place.inside.libraries, "torch").is_symlink()
    place.close()
    assert not place.folder.exists()


def test_which_sandboxes_there_are_is_known_before_torch_is_imported() -> None:
    code = (
        "import sys; from autograder.isolation.sandbox import usable_backends; found = usable_backends();"
        " assert 'torch' not in sys.modules; print(sorted(found))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout == "['bwrap', 'none', 'uid']\n"

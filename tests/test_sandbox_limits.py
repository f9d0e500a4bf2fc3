"""What a sandbox may use: libraries, memory, disk."""

import importlib.metadata
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autograder.isolation import environment, memory
from autograder.isolation.disk import DiskWatch, used_bytes
from autograder.isolation.environment import build_environment, closure, installed_beside
from autograder.isolation.memory import Group, Watchdog, descendants, make_guard, resident_bytes
from errors import SandboxError

MB = 1 << 20
GROW = (
    "import time; kept = bytearray({}); kept[::4096] = bytes([1]) * len(kept[::4096]);"
    "print(1, flush=True); time.sleep(60)"
)


def wait_for(condition: Callable[[], bool], seconds: float = 15.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


# --- libraries ---


def test_the_environment_holds_what_is_named_and_needed_and_no_more() -> None:
    found = build_environment(["torch", "protobuf"])
    assert {"torch", "sympy", "typing_extensions.py", "google/protobuf"} <= set(found.entries)
    assert not {"transformers", "pytest", "hypothesis", "google"} & set(found.entries)
    assert {"torch", "google", "sympy"} <= found.modules and "pytest" not in found.modules
    assert all(path.exists() for path in found.entries.values())
    assert found.python.is_file() and not found.python.is_symlink()
    assert (found.prefix / "lib").is_dir()


def test_a_distribution_that_is_not_installed_is_named() -> None:
    with pytest.raises(SandboxError, match=r"names no-such-thing, which is not installed: run `pip install no-such"):
        build_environment(["no-such-thing"])


def test_a_distribution_without_a_record_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_recorded", lambda distribution: None)
    with pytest.raises(SandboxError, match="the files of tqdm are not recorded"):
        build_environment(["tqdm"])


def test_a_distribution_without_a_list_of_its_files_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.distribution("tqdm")
    assert "tqdm/__init__.py" in (environment._recorded(found) or [])
    monkeypatch.setattr(type(found), "read_text", lambda self, name: None)  # of another class where Dask was imported
    assert environment._recorded(found) is None


def test_what_another_machine_needs_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    requires = ["tqdm", "no-such-thing; sys_platform == 'win32'", "pytest; extra == 'dev'", "also-missing>=2"]
    monkeypatch.setattr(type(importlib.metadata.distribution("tqdm")), "requires", requires)
    assert {entry.metadata["Name"] for entry in closure(["numpy"])} == {"numpy", "tqdm"}
    monkeypatch.setitem(sys.modules, "packaging.requirements", None)  # as if it were not installed
    assert {entry.metadata["Name"] for entry in closure(["numpy"])} == {"numpy", "tqdm"}


def test_a_namespace_is_taken_apart_and_a_package_is_not() -> None:
    packages = ["pkg/__init__.py", "pkg/sub/__init__.py", "pkg/data/x.txt", "ns/one/__init__.py", "ns/two.so"]
    others = ["mod.py", "start.pth", "../../bin/tool", "pkg-1.dist-info/METADATA", "pkg.libs/lib.so"]
    files = [*packages, *others, "__pycache__/mod.pyc"]
    found = environment._entries(files)
    assert found == ["pkg", "ns/one", "ns/two.so", "mod.py", "pkg-1.dist-info", "pkg.libs"]


def test_libraries_beside_python_are_found(tmp_path: Path) -> None:
    folder = tmp_path / "lib/python3.11/site-packages"
    folder.mkdir(parents=True)
    assert installed_beside(tmp_path) == [folder]


# --- memory ---


@pytest.fixture
def hungry() -> Iterator[Callable[[int], "subprocess.Popen[str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(size: int) -> "subprocess.Popen[str]":
        process = subprocess.Popen([sys.executable, "-c", GROW.format(size)], stdout=subprocess.PIPE, text=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def tree(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def filled(monkeypatch: pytest.MonkeyPatch, names: dict[str, str]) -> None:
    """Let a new folder have files at once, as in a file system of control groups."""
    real = Path.mkdir

    def mkdir(self: Path, *args: object, **more: object) -> None:
        real(self, *args, **more)  # type: ignore[arg-type]
        if self.name.startswith("minllama-"):
            for name, text in names.items():
                (self / name).write_text(text)

    monkeypatch.setattr(Path, "mkdir", mkdir)


def test_a_group_of_version_2_is_made_where_it_is_delegated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount, mine = tmp_path / "cgroup", tmp_path / "mine"
    mine.write_text("0::/user/app/own\n")
    tree(mount, {
        "cgroup.procs": "", "cgroup.subtree_control": "memory pids",
        "user/cgroup.procs": "", "user/cgroup.subtree_control": "cpu memory pids",
        "user/app/cgroup.procs": "", "user/app/cgroup.subtree_control": "cpu",
        "user/app/own/cgroup.procs": "", "user/app/own/cgroup.subtree_control": "",
    })  # fmt: skip
    filled(monkeypatch, {"cgroup.procs": "", "memory.swap.max": "max", "memory.events": "low 0\noom_kill 0\n"})
    guard = make_guard(5 * MB, 7, mount, mine)
    assert isinstance(guard, Group) and guard.description == "cgroup v2"
    (group,) = guard.folders
    assert group.parent == mount / "user"
    assert [(group / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max")] == [
        str(5 * MB), "0", "11"]  # fmt: skip
    assert guard.joins == (group / "cgroup.procs",)
    assert not guard.has_killed()
    (group / "memory.events").write_text("low 0\noom_kill 2\n")
    assert guard.has_killed() and not guard.has_killed()


def test_groups_of_version_1_are_made_where_there_is_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount, mine = tmp_path / "cgroup", tmp_path / "mine"
    mine.write_text("4:memory:/own\n8:pids:/\n0::/\n")
    tree(mount, {"memory/cgroup.procs": "", "memory/own/cgroup.procs": "", "pids/cgroup.procs": ""})
    filled(monkeypatch, {"cgroup.procs": "", "memory.oom_control": "under_oom 0\noom_kill 1\n"})
    guard = make_guard(5 * MB, 7, mount, mine)
    assert isinstance(guard, Group) and guard.description == "cgroup v1"
    assert [folder.parent for folder in guard.folders] == [mount / "memory/own", mount / "pids"]
    assert (guard.folders[0] / "memory.limit_in_bytes").read_text() == str(5 * MB)
    assert not (guard.folders[0] / "memory.memsw.limit_in_bytes").exists()  # a kernel that does not count swap
    assert not guard.has_killed()


def test_a_group_that_cannot_be_set_up_is_removed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mount, mine = tmp_path / "cgroup", tmp_path / "mine"
    mine.write_text("4:memory:/\n")
    tree(mount, {"memory/cgroup.procs": ""})
    (mount / "memory/minllama-99999999-ab").mkdir()  # of a judge that is gone
    assert isinstance(make_guard(MB, 1, mount, mine), Watchdog)  # nothing fills the new folder: it cannot be joined
    assert isinstance(make_guard(MB, 1, tmp_path / "none", mine), Watchdog)
    assert [path.name for path in (mount / "memory").iterdir() if path.name.startswith("minllama-99999999-")] == []


def test_the_guard_of_this_machine_stops_a_hungry_process() -> None:
    guard = make_guard(200 * MB, 10)
    joins = "".join(f"echo 0 > {path}; " for path in guard.joins)
    command = ["/bin/sh", "-c", f'{joins}exec "$@"', "sh", sys.executable, "-c", GROW.format(600 * MB)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    guard.watch(process.pid)
    try:
        assert process.wait(30) == -9
        assert guard.has_killed()
    finally:
        guard.close()
        process.kill()
    if isinstance(guard, Group):
        assert not any(folder.exists() for folder in guard.folders)


def test_the_watchdog_kills_a_family_that_holds_too_much(hungry: Callable[[int], "subprocess.Popen[str]"]) -> None:
    small, large = hungry(MB), hungry(400 * MB)
    patient, strict = Watchdog(300 * MB), Watchdog(300 * MB)
    patient.watch(small.pid)
    strict.watch(large.pid)
    assert large.wait(30) == -9
    assert wait_for(strict.has_killed) and not patient.has_killed()
    assert small.poll() is None
    patient.close()
    strict.close()
    assert small.wait(10) == -9


def test_memory_is_that_of_the_process_and_its_descendants(hungry: Callable[[int], "subprocess.Popen[str]"]) -> None:
    process = hungry(100 * MB)
    assert process.stdout is not None and process.stdout.readline() == "1\n"
    assert 100 * MB <= resident_bytes(process.pid) < 200 * MB
    assert process.pid in descendants(os.getpid())
    assert descendants(process.pid) == [process.pid]
    assert resident_bytes(2**22 + 1) == 0
    memory.kill_family(process.pid)
    assert process.wait(10) == -9


# --- disk ---


def test_disk_is_counted_with_files_that_have_no_name_and_cannot_be_hidden(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/file").write_bytes(bytes(MB))
    assert MB <= used_bytes([tmp_path], os.getuid(), os.getpid()) < 3 * MB
    assert used_bytes([tmp_path], os.getuid() + 1, os.getpid()) == 0
    with (tmp_path / "gone").open("wb") as file:
        file.write(bytes(8 * MB))
        file.flush()
        Path(file.name).unlink()
        assert used_bytes([tmp_path], os.getuid(), os.getpid()) >= 9 * MB
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    assert used_bytes([tmp_path], os.getuid(), os.getpid()) == sys.maxsize


def test_a_watch_kills_once_when_there_is_too_much(tmp_path: Path) -> None:
    kills: list[int] = []
    watch = DiskWatch([tmp_path], os.getuid(), 4 * MB, os.getpid(), lambda: kills.append(1))
    (tmp_path / "file").write_bytes(bytes(8 * MB))
    assert wait_for(lambda: watch.has_killed)
    time.sleep(0.5)
    watch.close()
    assert kills == [1]

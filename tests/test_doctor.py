"""What a machine lacks for grading, on machines that are made up: `pytest tests/test_doctor.py`."""

import importlib.metadata
import importlib.util
import io
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from autograder import doctor
from autograder.doctor import DoctorFinding, bwrap_remedy, findings, run
from autograder.isolation import memory, sandbox

WORKS = {"bwrap": "", "uid": "only root can start a process as another user: use bwrap", "none": ""}


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make up a machine on which grading works, with the files of its system and of its repository in a folder."""
    proc, cgroups, root, temporary = (tmp_path / name for name in ("proc", "cgroup", "root", "tmp"))
    for folder in (proc / "sys/kernel/seccomp", cgroups, temporary):
        folder.mkdir(parents=True)
    (proc / "meminfo").write_text("MemTotal:       16384000 kB\nMemAvailable:    8192000 kB\n")
    (proc / "sys/kernel/seccomp/actions_avail").write_text("kill_process errno trap allow\n")
    names = [f"data/{name}-{split}.txt" for name in doctor.DATA for split in ("train", "dev", "test")]
    names += [file for files in doctor.WEIGHTS.values() for file in files]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    versions = {name: importlib.metadata.version(name).partition("+")[0] for name in doctor.PACKAGES}
    (root / "constraints.txt").write_text("".join(f"{name}=={version}\n" for name, version in versions.items()))
    (root / "editions").mkdir()
    (root / "editions/course.toml").write_text('name = "course"\nenvironment = ["torch", "numpy"]\n')
    for name in doctor.MASTER:
        (root / f"{name}.py").touch()
    specs = {name: SimpleNamespace(origin=str(root / f"{name}.py")) for name in doctor.MASTER}
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    for name, path in (("PROC", proc), ("CGROUPS", cgroups), ("ROOT", root)):
        monkeypatch.setattr(doctor, name, path)
    monkeypatch.setattr(doctor, "CONTAINER_MARKS", {tmp_path / "dockerenv": "Docker", tmp_path / "podman": "Podman"})
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(temporary))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=9_000_000_000))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(sandbox, "usable_backends", lambda: WORKS)
    guard = SimpleNamespace(description="cgroup v2", close=lambda: None)
    monkeypatch.setattr(memory, "make_guard", lambda memory_bytes, processes: guard)
    return tmp_path


def told(out: Path | None = None) -> tuple[int, str]:
    """Return the exit status and what is printed."""
    stream = io.StringIO()
    return run(stream, out), stream.getvalue()


def the(name: str, found: Iterator[DoctorFinding] | list[DoctorFinding] | None = None) -> DoctorFinding:
    """Return the one finding of this name."""
    (finding,) = [finding for finding in found or findings() if finding.name == name]
    return finding


def test_a_machine_that_can_grade_is_told_so() -> None:
    status, text = told()
    assert status == 0
    lines = text.splitlines()
    assert lines[-1] == "Grading works here."
    assert all(line.startswith("ok      ") for line in lines[:-2])
    assert "ok      bubblewrap: works" in lines
    assert "ok      memory limit: cgroup v2" in lines
    assert "ok      memory: 8,000 MB usable" in lines
    assert "ok      sst: sst-train.txt, sst-dev.txt, sst-test.txt in data" in lines
    assert "ok      edition course: torch, numpy" in lines


def test_what_is_missing_is_told_with_the_line_to_type(machine: Path) -> None:
    (machine / "root/data/sst-dev.txt").unlink()
    status, text = told()
    assert status == 1
    assert "MISSING sst: missing in data: sst-dev.txt\n          ./setup.sh --only sst\n" in text
    assert text.endswith("\nGrading does not work here. Mend first: sst.\n")


def test_weights_are_needed_only_if_there_are_none(machine: Path) -> None:
    (machine / "root/stories42M.pt").unlink()
    status, text = told()
    assert status == 0
    assert (
        "note    stories42M: missing: stories42M.pt\n          ./setup.sh --only stories42M --only tokenizer\n" in text
    )
    (machine / "root/weights/stories260K/tok512.bin").unlink()
    (machine / "root/checkpoints/storybook/model.safetensors").unlink()
    status, text = told()
    assert status == 1
    assert (
        "MISSING stories260K: missing: weights/stories260K/tok512.bin\n          ./setup.sh --only stories260K\n"
        in text
    )
    assert "git checkout checkpoints/storybook" in text
    assert text.endswith("Mend first: stories42M, storybook, stories260K.\n")


def test_another_system_cannot_grade(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert the("system") == DoctorFinding(
        "system", False, "Darwin", "the sandbox needs Linux: grade in a virtual machine, or in WSL 2"
    )


@pytest.mark.parametrize(
    ("version", "ok"), [((3, 10, 12), False), ((3, 11, 0), True), ((3, 13, 9), True), ((3, 14), False)]
)
def test_only_a_tested_python_will_do(version: tuple[int, ...], ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    finding = the("Python")
    assert (finding.ok, finding.mend) == (ok, "PYTHON=python3.12 ./setup.sh")


def test_a_package_that_is_missing_or_another_one_than_tested(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = importlib.metadata.version

    def without(name: str) -> str:
        if name in ("jinja2", "scikit-learn"):
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.0" if name == "numpy" else version(name)

    numpy = version("numpy")
    (machine / "root/editions/course.toml").write_text('environment = ["torch", "scikit-learn"]')
    monkeypatch.setattr(importlib.metadata, "version", without)
    pip = "python -m pip install --constraint constraints.txt"
    assert the("packages") == DoctorFinding("packages", False, "missing: jinja2", f"{pip} jinja2")
    assert the("versions") == DoctorFinding(
        "versions", False, f"numpy 1.0 (tested: {numpy})", f"{pip} numpy", needed=False
    )
    what = "a submission's libraries that are missing: scikit-learn"
    assert the("edition course") == DoctorFinding("edition course", False, what, f"{pip} scikit-learn", needed=False)
    assert told()[0] == 1


def test_a_judge_that_would_import_the_students_code_is_found(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {name: SimpleNamespace(origin=str(machine / "root" / f"{name}.py")) for name in doctor.MASTER}
    specs["llama"] = SimpleNamespace(origin=str(machine / "submission/llama.py"))
    del specs["rope"]
    monkeypatch.setattr(importlib.util, "find_spec", specs.get)
    finding = the("trusted modules")
    assert not finding.ok and finding.needed
    assert finding.what == f"not the repository's: llama from {machine}/submission/llama.py, rope from nowhere"
    assert finding.mend == f"cd {machine}/root && python -m autograder doctor"


def test_bubblewrap_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "usable_backends", lambda: WORKS | {"bwrap": "bubblewrap is not installed"})
    monkeypatch.setattr(shutil, "which", lambda name: None)
    finding = the("bubblewrap")
    assert finding == DoctorFinding(
        "bubblewrap", False, "bubblewrap is not installed", "sudo apt-get install -y bubblewrap", needed=True
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert the("bubblewrap").mend == "apt-get install -y bubblewrap"
    assert the("setpriv") == DoctorFinding("setpriv", False, "not installed", "apt-get install -y util-linux")


@pytest.mark.parametrize(
    ("setting", "bad", "good"),
    [
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("user.max_user_namespaces", "0", "15000"),
    ],
)
def test_a_kernel_that_keeps_namespaces_from_users(setting: str, bad: str, good: str, machine: Path) -> None:
    file = machine / "proc/sys" / setting.replace(".", "/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{bad}\n")
    assert bwrap_remedy(None) == (
        f"{setting} is {bad}, so ordinary users get no namespaces. Until the machine is started again:\n"
        f"sudo sysctl -w {setting}={good}"
    )


def test_a_container_that_forbids_namespaces(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine / "dockerenv").touch()
    monkeypatch.setattr(sandbox, "usable_backends", lambda: WORKS | {"bwrap": "bubblewrap cannot start here"})
    assert the("bubblewrap") == DoctorFinding(
        "bubblewrap",
        False,
        "bubblewrap cannot start here",
        "Docker forbids namespaces unless the container is started with\ndocker run --security-opt seccomp=unconfined"
        " --security-opt apparmor=unconfined --cap-add SYS_ADMIN ...",
    )
    assert told()[0] == 1
    monkeypatch.setattr(sandbox, "usable_backends", lambda: {"bwrap": "it cannot start here", "uid": "", "none": ""})
    status, text = told()
    assert status == 0
    assert (
        "note    bubblewrap: it cannot start here. In this container, which should be thrown away afterwards,"
        " `--sandbox uid` works in its place\n"
    ) in text
    (machine / "dockerenv").rename(machine / "podman")
    assert "\npodman run " in the("bubblewrap").mend


def test_uid_is_no_way_out_of_a_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "usable_backends", lambda: {"bwrap": "too old", "uid": "", "none": ""})
    finding = the("bubblewrap")
    assert finding.needed and finding.what == "too old"


@pytest.mark.parametrize(
    ("answer", "remedy"),
    [
        (subprocess.CompletedProcess([], 1, "", "bwrap: No permissions\n"), "bwrap says: bwrap: No permissions"),
        (subprocess.CompletedProcess([], 0, "", ""), ""),
        (OSError("no exec"), "bwrap cannot be run: no exec"),
        (subprocess.TimeoutExpired("bwrap", 20), "bwrap cannot be run: Command 'bwrap' timed out after 20 seconds"),
    ],
)
def test_where_nothing_stands_against_it_bubblewrap_is_asked(
    answer: object, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answered(*args: object, **options: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(subprocess, "run", answered)
    assert bwrap_remedy(None) == remedy


def test_without_a_cgroup_there_is_only_a_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    guard = SimpleNamespace(description="a watchdog", close=lambda: closed.append(True))
    monkeypatch.setattr(memory, "make_guard", lambda memory_bytes, processes: guard)
    status, text = told()
    assert status == 0 and closed == [True]
    assert "note    memory limit: a watchdog\n" in text
    assert "          systemd-run --user --scope -p Delegate=yes python -m autograder doctor\n" in text


def test_a_kernel_without_seccomp_is_told(machine: Path) -> None:
    (machine / "proc/sys/kernel/seccomp/actions_avail").unlink()
    finding = the("seccomp")
    assert (finding.ok, finding.needed, finding.what) == (False, False, "this kernel does not offer it")


@pytest.mark.parametrize(
    ("free", "word"), [(100_000_000, "MISSING"), (1_000_000_000, "note   "), (3_000_000_000, "ok     ")]
)
def test_the_disk_must_have_room(free: int, word: str, machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    status, text = told(machine / "not/there/yet")
    assert status == (1 if word == "MISSING" else 0)
    assert f"{word} temporary folder: {machine}/tmp: {free // 1_000_000:,} MB free\n" in text
    assert f"{word} output folder: {machine}/not/there/yet: {free // 1_000_000:,} MB free\n" in text
    assert ("export TMPDIR=/path/with/room" in text, "-o /path/with/room" in text) == (word != "ok     ",) * 2


def test_a_folder_that_may_not_be_written_to(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    finding = the("temporary folder")
    assert not finding.ok and finding.needed
    assert finding.what == f"{machine}/tmp: 9,000 MB free, and it may not be written to"


@pytest.mark.parametrize(
    ("limit", "usable", "ok", "needed"),
    [("max", 8000, True, False), ("2147483648", 2048, False, False), ("805306368", 768, False, True)],
)
def test_the_memory_of_the_container_counts(limit: str, usable: int, ok: bool, needed: bool, machine: Path) -> None:
    (machine / "cgroup/memory.max").write_text(f"{limit}\n")
    finding = the("memory")
    assert (finding.what, finding.ok, finding.needed) == (f"{usable:,} MB usable", ok, needed)


def test_this_machine_is_looked_at_without_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    names = [finding.name for finding in findings(Path("out"))]
    assert {"system", "Python", "packages", "bubblewrap", "memory limit", "sst", "storybook"} <= set(names)
    assert the("Python").ok and the("trusted modules").ok and the("storybook").ok

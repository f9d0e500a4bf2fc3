"""Runs the driver as somebody else: an ordinary user, or root in a container whose judge is closed to others.

Both need root: mounts of their own make Python readable although it may lie in a home that nobody else may enter.
"""

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
NOBODY = 65534
COPIED = ("autograder", "editions", "tests")
# where a machine may hold other copies of the solution, which a grader's container has not
ELSEWHERE = ("/autograder", "/env", "/grader", "/home", "/mnt", "/opt", "/root", "/srv", "/usr/src", "/work")


def reachable() -> list[Path]:
    """Return what the driver reads besides the repository: Python and its libraries."""
    return sorted({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve()})


def mounts(folder: Path, hidden: list[Path], kept: list[Path]) -> list[str]:
    """Return the commands that cover folders, except for what is kept in them."""
    lines = []
    for i, path in enumerate(kept):
        lines += [f"mkdir -p {folder}/kept/{i}", f"mount --bind {shlex.quote(str(path))} {folder}/kept/{i}"]
    lines += [f"mount -t tmpfs -o mode=755 none {shlex.quote(str(path))}" for path in hidden]
    for i, path in enumerate(kept):
        quoted = shlex.quote(str(path))
        lines += [f"mkdir -p {quoted}", f"mount --bind {folder}/kept/{i} {quoted}"]
    return lines


def closed_above(path: Path) -> Path | None:
    """Return the first folder on the way to a path that others may not enter."""
    return next((p for p in [*reversed(path.parents), path] if not p.stat().st_mode & 0o001), None)


def outermost(folders: set[Path]) -> list[Path]:
    """Return the folders that lie in no other one."""
    return sorted(folder for folder in folders if not any(folder.is_relative_to(other) for other in folders - {folder}))


def run_as_nobody(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the driver with bubblewrap as an ordinary user; `folder` lies where everybody may go."""
    kept = [*reachable(), ROOT]
    hidden = sorted({closed for path in kept if (closed := closed_above(path))})
    kept = [path for path in kept if any(path.is_relative_to(top) for top in hidden)]
    own = folder / "own"
    own.mkdir()
    os.chown(own, NOBODY, NOBODY)
    user = f"setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups"
    return _run(folder, mounts(folder, hidden, kept), user, ROOT, "bwrap", own, *options)


def run_as_other_user(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the driver with the backend uid, on a copy of the repository that is closed to others."""
    judge = folder / "judge"
    judge.mkdir()
    for path in ROOT.glob("*.py"):
        shutil.copyfile(path, judge / path.name)
    shutil.copyfile(ROOT / "sanity_check.data", judge / "sanity_check.data")
    for name in COPIED:
        shutil.copytree(ROOT / name, judge / name, ignore=shutil.ignore_patterns("__pycache__"))
    judge.chmod(0o700)
    closed = {top for path in reachable() if (top := closed_above(path))}
    others = {path for name in ELSEWHERE if (path := Path(name)).is_dir() and not judge.is_relative_to(path)}
    hidden = outermost({ROOT} | closed | others)
    kept = [path for path in reachable() if any(path.is_relative_to(top) for top in hidden)]
    own = folder / "own"
    own.mkdir(mode=0o711)
    return _run(folder, mounts(folder, hidden, kept), "env", judge, "uid", own, *options)


def _run(
    folder: Path, lines: list[str], user: str, judge: Path, backend: str, own: Path, *options: str
) -> subprocess.CompletedProcess[str]:
    """Run the driver in mounts of its own."""
    # by the way through the links of a virtual environment that may be covered: its own interpreter
    python = f"{shlex.quote(sys.prefix)}/bin/python"
    command = f"exec {user} {python} -B -m tests.attacks.driver {backend} {own}/secrets {' '.join(options)}"
    script = "\n".join(["set -e", *lines, f"cd {shlex.quote(str(judge))}", command])
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "TMPDIR": str(own), "OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
    )

"""How much memory may a whole sandbox use? A limit of a process does not bind several, so all of them are counted.

By a control group where the judge may make one: version 2 in a subtree that is delegated to it, or version 1. Elsewhere
a thread adds up what the processes hold and kills the sandbox when it is too much. The description says which.
"""

import contextlib
import os
import secrets
import signal
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")
MINE = Path("/proc/self/cgroup")
INTERVAL = 0.05  # seconds between two looks of the watchdog
PATIENCE = 2.0  # seconds until killed processes must have left a group


class Guard(ABC):
    """Limits the memory of a sandbox, and the number of its processes where it can."""

    description: str
    joins: tuple[Path, ...] = ()  # files into which the first process writes "0" before it starts anything else

    def watch(self, process: int) -> None:  # noqa: B027 - a control group need not be told
        """Begin to count: `process` is the one that the judge has started; its descendants count too."""

    @abstractmethod
    def has_killed(self) -> bool:
        """Return whether a process was killed for its memory since the last call."""

    @abstractmethod
    def close(self) -> None:
        """Kill what is left and remove the guard."""


def make_guard(memory_bytes: int, processes: int, mount: Path = MOUNT, mine: Path = MINE) -> Guard:
    """Return the best guard of this machine."""
    for kind in (_unified, _separate):
        guard = kind(memory_bytes, processes, mount, mine)
        if guard:
            return guard
    return Watchdog(memory_bytes)


# --- control groups ---


class Group(Guard):
    """A control group of one hierarchy or of two."""

    def __init__(self, description: str, folders: tuple[Path, ...], counter: Path) -> None:
        """Guard by groups that exist; `counter` is the file with a line `oom_kill N`."""
        self.description = description
        self.folders = folders
        self.joins = tuple(folder / "cgroup.procs" for folder in folders)
        self._counter = counter
        self._seen = self._kills()

    def _kills(self) -> int:
        """Return how many processes of the group the kernel has killed."""
        with contextlib.suppress(OSError, ValueError):
            for line in self._counter.read_text(encoding="ascii").splitlines():
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
        return 0

    def has_killed(self) -> bool:
        """Return whether the kernel has killed a process of the group since the last call."""
        before, self._seen = self._seen, self._kills()
        return self._seen > before

    def close(self) -> None:
        """Kill what is left in the groups and remove them."""
        deadline = time.monotonic() + PATIENCE
        while (left := self._members()) and time.monotonic() < deadline:
            for process in left:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.005)
        for folder in self.folders:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _members(self) -> list[int]:
        """Return the processes in the groups."""
        found: list[int] = []
        for file in self.joins:
            with contextlib.suppress(OSError, ValueError):
                found += [int(line) for line in file.read_text(encoding="ascii").split() if int(line) > 0]
        return found


def _unified(memory_bytes: int, processes: int, mount: Path, mine: Path) -> Guard | None:
    """Return a group of version 2, below this process's own group or below one of those above it."""
    settings = {
        "memory.max": memory_bytes,
        "memory.swap.max": 0,
        "pids.max": processes + 4,  # what starts the sandbox, and its first process
        "memory.oom.group": 0,
    }
    for folder in _own_groups(mount, mine, ""):
        with contextlib.suppress(OSError):
            if not {"memory", "pids"} <= set((folder / "cgroup.subtree_control").read_text(encoding="ascii").split()):
                continue
            if group := _make(folder, settings, ("memory.swap.max",)):
                return Group("cgroup v2", (group,), group / "memory.events")
    return None


def _separate(memory_bytes: int, processes: int, mount: Path, mine: Path) -> Guard | None:
    """Return groups of version 1: of memory, and of pids where there is that."""
    memory = _first(mount / "memory", mine, "memory", _version_1(memory_bytes))
    if memory is None:
        return None
    pids = _first(mount / "pids", mine, "pids", {"pids.max": processes + 4})
    folders = (memory, pids) if pids else (memory,)
    return Group("cgroup v1", folders, memory / "memory.oom_control")


def _version_1(memory_bytes: int) -> dict[str, int]:
    """Return the settings of version 1; memory with swap can only be limited after memory."""
    return {"memory.limit_in_bytes": memory_bytes, "memory.memsw.limit_in_bytes": memory_bytes}


def _first(mount: Path, mine: Path, controller: str, settings: dict[str, int]) -> Path | None:
    """Make a group in the first place of a hierarchy of version 1 that allows it."""
    for folder in _own_groups(mount, mine, controller):
        if group := _make(folder, settings, ("memory.memsw.limit_in_bytes",)):
            return group
    return None


def _own_groups(mount: Path, mine: Path, controller: str) -> Iterator[Path]:
    """Yield this process's group in a hierarchy and those above it, up to the mount."""
    own = "/"
    with contextlib.suppress(OSError):
        for line in mine.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(",") and ".." not in path:
                own = path
    folder = mount / own.lstrip("/")
    while folder.is_relative_to(mount):
        if (folder / "cgroup.procs").is_file():
            yield folder
        folder = folder.parent


def _make(parent: Path, settings: dict[str, int], may_lack: tuple[str, ...]) -> Path | None:
    """Make a group with these settings below another one; None where that is not allowed."""
    group = parent / f"minllama-{os.getpid()}-{secrets.token_hex(4)}"
    for old in parent.glob("minllama-*-*"):  # of a judge that was killed
        if not Path("/proc", old.name.split("-")[1]).exists():
            with contextlib.suppress(OSError):
                old.rmdir()
    try:
        group.mkdir()
    except OSError:
        return None
    try:
        for name, value in settings.items():
            if name in may_lack and not (group / name).exists():
                continue
            (group / name).write_text(str(value), encoding="ascii")
        if not os.access(group / "cgroup.procs", os.W_OK):
            raise PermissionError(f"{group} cannot be joined")
    except OSError:
        with contextlib.suppress(OSError):
            group.rmdir()
        return None
    return group


# --- where there is no group ---


class Watchdog(Guard):
    """A thread that adds up the resident memory of a process and its descendants, and kills them all."""

    description = "a watchdog"

    def __init__(self, memory_bytes: int) -> None:
        """Guard by looking every INTERVAL seconds."""
        self._most = memory_bytes
        self._killed = threading.Event()
        self._closed = threading.Event()
        self._process: int | None = None

    def watch(self, process: int) -> None:
        """Begin to look."""
        self._process = process
        threading.Thread(target=self._look, daemon=True, name="memory").start()

    def _look(self) -> None:
        """Add up until the guard is closed or there is too much."""
        assert self._process is not None
        while not self._closed.wait(INTERVAL):
            family = descendants(self._process)
            if sum(resident_bytes(process) for process in family) > self._most:
                self._killed.set()
                kill_family(self._process)
                return

    def has_killed(self) -> bool:
        """Return whether the sandbox was killed. A killed one is not started again, so that stays."""
        return self._killed.is_set()

    def close(self) -> None:
        """Stop looking, and kill what is left."""
        self._closed.set()
        if self._process is not None:
            kill_family(self._process)
            self._process = None


def descendants(process: int) -> list[int]:
    """Return a process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "stat").read_text(encoding="ascii", errors="replace")
                children.setdefault(int(line.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found


def resident_bytes(process: int) -> int:
    """Return how much memory of its own, and shared without a file, a process holds; 0 if it is gone."""
    total = 0
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                total += int(line.split()[1]) * 1024
    return total


def kill_family(process: int) -> None:
    """Kill a process and all that descend from it, children first."""
    for member in reversed(descendants(process)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signal.SIGKILL)

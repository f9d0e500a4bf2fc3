"""Who starts the student's code, and cleans up after it? The sandbox's first process; it imports no student's file.

It imports torch once, gives up what it can, and then forks a child for each request. Once that child has ended, or its
time is over, every other process of the sandbox is killed and what was written is removed.
"""

import contextlib
import errno
import gc
import importlib
import json
import os
import select
import signal
import stat
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autograder.sandboxed import lockdown, protocol
from autograder.sandboxed.child import run_request, work_folder
from autograder.sandboxed.cleaning import empty_folder
from autograder.sandboxed.protocol import Array
from autograder.sandboxed.quick import forget_seeds, import_rest, needs_rest, skip_compiler
from autograder.sandboxed.settings import Settings

MAX_REQUEST = 1 << 30  # bytes
COMMON = ("numpy.random", "sentencepiece", "tempfile", "tqdm")  # what nearly every child would import anew
IDLE = 5  # looks in a row, a hundredth of a second apart, at which a child that is late does nothing


def main() -> None:
    """Serve requests from standard input until it is closed; answers go to standard output."""
    settings = Settings(**json.loads(sys.argv[1]))
    requests, answers = os.dup(0), os.dup(1)
    with open(os.devnull) as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    torch.set_num_threads(1)
    skip_compiler()
    forget_seeds()
    if needs_rest(Path(settings.workspace).glob("*.py")):
        import_rest()
    for library in COMMON:
        with contextlib.suppress(ImportError):
            importlib.import_module(library)
    gc.freeze()  # a child's collector need not look through all of that, and copy it by looking
    gc.enable()
    lockdown.limit_resources(settings.file_bytes, settings.processes if settings.own_user else None)
    lockdown.adopt_orphans()
    lockdown.drop_privileges()
    seccomp = lockdown.filter_system_calls()
    protocol.send(answers, protocol.encode({"ready": True, "seccomp": seccomp}))
    while True:
        try:
            frame = protocol.receive(requests, MAX_REQUEST)
        except EOFError:
            return
        protocol.send(answers, _serve(frame, settings, requests))


def _serve(frame: bytes, settings: Settings, judge: int) -> bytes:
    """Run one request in a child, clean up, and return the frame that tells the judge.

    If the judge ends meanwhile, which closes its pipe, so does everything here.
    """
    header, arrays = protocol.decode(frame)
    if header["kind"] == "script":
        import_rest()
    log, log_end = os.pipe()
    answer, answer_end = os.pipe()
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        run_request(header, arrays, settings, log_end, answer_end)
    os.close(log_end)
    os.close(answer_end)
    watch = _Watch(child, log, answer, header["max_bytes"], settings.output_bytes)
    status = watch.until(started + header["seconds"], started + header["patience"], judge)
    seconds = time.monotonic() - started
    if watch.exit == -signal.SIGKILL and status == "ended" and seconds >= header["seconds"]:
        status = "timeout"  # the kernel's word for it, to those that ignore the first one
    kill_others(settings.own_user)
    if status == "alone":
        os._exit(0)  # at once: nothing is left to do
    files = _files(work_folder(settings), header) if header["kind"] == "script" else {}
    is_clean = empty_folder(Path(settings.temporary))
    told = {"status": status, "exit": watch.exit, "seconds": seconds, "clean": is_clean}
    return protocol.encode(
        told, {"answer": _bytes(bytes(watch.answered)), "printed": _bytes(watch.printed.bytes()), **files}
    )


def _bytes(data: bytes) -> Array:
    """Return bytes as an array."""
    return Array("uint8", (len(data),), data)


@dataclass
class _HeadAndTail:
    """Keeps the first and the last half of a stream, and forgets what lies between."""

    most: int
    head: bytearray = field(default_factory=bytearray)
    tail: bytearray = field(default_factory=bytearray)
    dropped: int = 0

    def add(self, data: bytes) -> None:
        """Take the next part."""
        room = self.most // 2 - len(self.head)
        self.head += data[: max(room, 0)]
        self.tail += data[max(room, 0) :]
        surplus = len(self.tail) - self.most // 2
        if surplus > 0:
            del self.tail[:surplus]
            self.dropped += surplus

    def bytes(self) -> bytes:
        """Return what was kept."""
        gap = f"\n[... {self.dropped} bytes left out ...]\n".encode() if self.dropped else b""
        return bytes(self.head) + gap + bytes(self.tail)


class _Watch:
    """Reads what a child sends until it ends."""

    def __init__(self, child: int, log: int, answer: int, max_bytes: int, output_bytes: int) -> None:
        self.child = child
        self.pipes = {log: self._log, answer: self._answer}
        self.max_bytes = max_bytes
        self.answered = bytearray()
        self.printed = _HeadAndTail(output_bytes)
        self.exit: int | None = None

    def until(self, deadline: float, latest: float, judge: int) -> str:
        """Return "ended", "timeout", "flood" for an answer that is too long, or "alone" if the judge has gone.

        A child that waits is stopped at `deadline`; one that works, on a machine that has much else to do, has until
        `latest`, and its limit of processor time. It has ended after that.
        """
        status, idle = "", 0
        while not status:
            now = time.monotonic()
            wait = 0.01 if self.pipes else 0.001  # without them its end is near
            ready, _, _ = select.select([judge, *self.pipes], [], [], max(0.0, min(deadline - now, wait)))
            for pipe in self.pipes.keys() & ready:
                self._read(pipe)
            if judge in ready:  # it sends nothing during a request: this is the end of the pipe
                status = "alone"
            # a child that floods its log does not keep us from looking at the clock
            if self._has_ended():
                status = status or "ended"
            elif len(self.answered) > self.max_bytes:
                status = "flood"
            elif now >= deadline:
                idle = idle + 1 if _is_waiting(self.child) else 0
                status = "timeout" if idle >= IDLE or now >= latest else ""
                time.sleep(0.01)
        if self.exit is None:
            os.kill(self.child, signal.SIGKILL)
            self.exit = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self._drain()
        del self.answered[self.max_bytes :]
        return status

    def _has_ended(self) -> bool:
        """Return whether the child has ended, and keep how."""
        pid, status = os.waitpid(self.child, os.WNOHANG)
        if pid:
            self.exit = os.waitstatus_to_exitcode(status)
        return bool(pid)

    def _read(self, pipe: int) -> None:
        """Take what has come through a pipe."""
        data = os.read(pipe, 1 << 16)
        if data:
            self.pipes[pipe](data)
        else:
            os.close(pipe)
            del self.pipes[pipe]

    def _drain(self) -> None:
        """Take what is left in the pipes, and close them: a daemon may hold the other ends and go on writing."""
        taken = 0
        while self.pipes and taken < 64 and (ready := select.select(list(self.pipes), [], [], 0)[0]):
            taken += 1
            for pipe in ready:
                self._read(pipe)
        for pipe in self.pipes:
            os.close(pipe)
        self.pipes.clear()

    def _log(self, data: bytes) -> None:
        self.printed.add(data)

    def _answer(self, data: bytes) -> None:
        if len(self.answered) <= self.max_bytes:
            self.answered += data


def kill_others(own_user: bool) -> None:
    """Kill every other process of the sandbox and wait for its end.

    If the user belongs to the sandbox alone, all of its processes are killed at once; else the descendants are, which
    become children of this process when their parents end.
    """
    while True:
        for pid in [-1] if own_user else _children():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, 0 if own_user else os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.001)


def _is_waiting(pid: int) -> bool:
    """Return whether a process sleeps, rather than runs or waits for its turn."""
    try:
        stat_line = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return True
    return stat_line.rpartition(")")[2].split()[0] not in ("R", "D")


def _children() -> list[int]:
    """Return the processes whose parent is this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                line = (entry / "stat").read_text(encoding="ascii", errors="replace")
                if int(line.rpartition(")")[2].split()[1]) == os.getpid():
                    found.append(int(entry.name))
    return found


# --- files of a script ---


def _files(folder: Path, header: Mapping[str, Any]) -> dict[str, Array]:
    """Return the files that a script was to write, by `file:` and their names, if they are there and not too large."""
    left = header["max_bytes"]
    files = {}
    for name in header["files_out"]:
        data = read_plainly(folder, name, left)
        if data is not None:
            files[f"file:{name}"] = _bytes(data)
            left -= len(data)
    return files


def read_plainly(folder: Path, name: str, most: int) -> bytes | None:
    """Return a regular file's bytes, without following a link anywhere below `folder`; None if there is no such file.

    A file of more than `most` bytes is none either.
    """
    opened = []
    try:
        opened.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW))
        *folders, last = Path(name).parts
        for part in folders:
            opened.append(os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=opened[-1]))
        # O_NONBLOCK: a named pipe would keep us waiting for a writer
        opened.append(os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=opened[-1]))
        facts = os.fstat(opened[-1])
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > most:
            return None
        with open(opened.pop(), "rb") as file:  # noqa: PTH123
            data = file.read(most + 1)
        return data if len(data) <= most else None
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    finally:
        for descriptor in opened:
            os.close(descriptor)

"""How does a stranger's code run? In a process that is shut in, one request at a time, which sends back plain arrays.

    with open_sandbox(None, workspace, edition.environment, edition.limits) as sandbox:
        reply = sandbox.call(Call("RMSNorm", case, seconds=10.0))

What comes back is data of an untrusted process: names, numbers and texts are checked and cut, nothing is unpickled, and
whatever the process sends, a Reply is made of it.
"""

import contextlib
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from autograder import editions
from autograder.isolation.backends import PLACES, Backend, Box, why_no_bwrap, why_no_uid
from autograder.isolation.environment import Environment, build_environment
from autograder.isolation.memory import Guard, make_guard
from autograder.sandboxed import protocol
from autograder.sandboxed.protocol import Array, Failure, ProtocolError
from errors import GraderError, SandboxError, UsageError

if TYPE_CHECKING:  # torch takes seconds to import, in which the sandbox can start
    import torch

    from component_checks import Case

__all__ = ["Backend", "Call", "Failure", "Reply", "Sandbox", "Script", "open_sandbox", "usable", "usable_backends"]

MB = 1 << 20
STARTING = 60.0  # seconds that a worker may take until it is ready: it imports torch
PATIENCE = 6.0  # times its limit, by the clock, that a function may take which works, on a machine that is busy
GRACE = 5.0  # seconds after a request's own limit until the sandbox is killed as a whole
ROOM = 16 * MB  # bytes of a reply beyond the answer: heads, and what was printed
SIGXCPU = 24
Status = Literal["ok", "error", "timeout", "memory", "crash"]


@dataclass(frozen=True)
class Call:
    """One student function, called once. `name` is a key of `autograder.sandboxed.calls.CALLS`.

    `seconds` are of processor time, and of waiting.
    """

    name: str
    case: "Case"
    seconds: float
    max_bytes: int = 64 * MB  # of the answer


@dataclass(frozen=True)
class Script:
    """A program of the submission with its arguments, run in a writable copy of the submission's folder.

    `files_in` are put there under relative names; `files_out` are brought back if they are regular files, and not
    longer than `max_bytes` together.
    """

    argv: tuple[str, ...]
    files_in: Mapping[str, Path]
    files_out: tuple[str, ...]
    seconds: float
    max_bytes: int = 64 * MB


@dataclass(frozen=True)
class Reply:
    """How a request ended.

    `outputs` (of a call, status ok) are tensors, and for what is no plain tensor the name of its type. `files` and
    `exit_status` belong to a script; after a crash `exit_status` is that of the process, a signal as a negative number.
    """

    status: Status
    outputs: dict[str, "torch.Tensor | str"] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    failure: Failure | None = None
    exit_status: int | None = None
    printed: str = ""
    seconds: float = 0.0
    lost: bool = False  # the whole sandbox went down with it; the next request gets a fresh one


# Why each backend is not usable here; asking starts a process.
REASONS: dict[Backend, Callable[[], str]] = {"bwrap": why_no_bwrap, "uid": why_no_uid, "none": str}


def usable_backends() -> dict[Backend, str]:
    """Return, for each backend, why it is not usable here and the remedy; nothing if it is."""
    return {backend: reason() for backend, reason in REASONS.items()}


def usable(backend: Backend | None) -> Backend:
    """Return a backend, bwrap for None. Raises SandboxError, with the remedy, if this machine cannot have it."""
    chosen: Backend = backend or "bwrap"
    if chosen not in PLACES:
        raise UsageError(f"no sandbox is called '{chosen}': choose from {', '.join(PLACES)}")
    if reason := REASONS[chosen]():
        raise SandboxError(f"no sandbox of kind '{chosen}': {reason}")
    return chosen


def open_sandbox(
    backend: Backend | None, workspace: Path, environment: Sequence[str], limits: editions.Limits
) -> "Sandbox":
    """Return a sandbox for one submission; None is bwrap.

    `workspace` is the folder of its files, which none of its processes can change. Raises SandboxError, which names the
    remedy, if this machine has no such sandbox or lacks a distribution of `environment`.
    """
    return Sandbox(usable(backend), workspace, build_environment(environment), limits)


class Sandbox:
    """The sandbox of one submission. After a crash the next request gets a fresh one."""

    def __init__(self, backend: Backend, workspace: Path, environment: Environment, limits: editions.Limits) -> None:
        """Start a worker; it gets ready while the judge prepares its first request."""
        self._backend = backend
        self._limits = limits
        self._calls = Box(
            workspace,
            environment,
            memory_bytes=int(limits.memory_mb * MB),
            file_bytes=int(limits.file_mb * MB),
            output_bytes=int(limits.output_kb * 1024),
            processes=limits.processes,
        )
        self._worker: _Worker | None = _Worker(backend, self._calls)
        self.description = self._worker.description

    def __enter__(self) -> "Sandbox":
        """Return this sandbox; leaving the block closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Kill everything in the sandbox and remove it."""
        if self._worker:
            self._worker.close()
            self._worker = None

    def call(self, call: Call) -> Reply:
        """Call one function of the submission. Raises GraderError if the sandbox itself fails."""
        return self._ask([call], call.seconds, call.max_bytes)

    def call_all(self, calls: Sequence[Call], seconds: float) -> list[Reply | None]:
        """Make calls in one process, one after the other: much faster than each in its own, but they share its fate.

        There is a reply only to a call that came to its end in silence; to none if the process printed anything, or did
        not end in `seconds`. Who needs to know more makes the call again, alone. Raises GraderError as `call` does.
        """
        reply = self._ask(calls, seconds, sum(call.max_bytes + ROOM for call in calls)) if len(calls) > 1 else None
        if reply is None or reply.status != "ok" or reply.printed:
            return [None] * len(calls)
        return [_part(reply.outputs.get(str(i))) for i in range(len(calls))]

    def _ask(self, calls: Sequence[Call], seconds: float, max_bytes: int) -> Reply:
        """Have one process make calls, and return what it answers."""
        try:
            frame = _request(calls, seconds, max_bytes)
        except TypeError as error:
            names = ", ".join(call.name for call in calls)
            raise GraderError(f"the case of {names} cannot be sent: its settings are no plain data") from error
        if self._worker is None:
            self._worker = _Worker(self._backend, self._calls)
        reply = self._worker.ask(frame, PATIENCE * seconds, max_bytes)
        self.description = self._worker.description
        if not self._worker.is_sound:
            self.close()
        return reply

    def run(self, script: Script) -> Reply:
        """Run a program of the submission, in a sandbox with the limits of reruns, from which nothing remains.

        Raises GraderError if the sandbox itself fails or an input file is not there.
        """
        for name in (*script.files_in, *script.files_out):
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise GraderError(f"{name} is no relative name of a file")
        for path in script.files_in.values():
            if not path.exists():
                raise GraderError(f"{path} is not there: a program of the submission was to read it")
        sources = {str(i): path for i, path in enumerate(script.files_in.values())}
        header = {
            "kind": "script",
            "argv": list(script.argv),
            "files_in": dict(zip(script.files_in, sources, strict=True)),
            "files_out": list(script.files_out),
            "seconds": script.seconds,
            "patience": script.seconds,
            "max_bytes": script.max_bytes,
        }
        box = Box(
            self._calls.workspace,
            self._calls.environment,
            memory_bytes=int(self._limits.rerun_memory_mb * MB),
            file_bytes=int(self._limits.rerun_file_mb * MB),
            output_bytes=self._calls.output_bytes,
            processes=self._calls.processes,
            inputs=sources,
        )
        worker = _Worker(self._backend, box)
        try:
            return worker.ask(protocol.encode(header), script.seconds, script.max_bytes, script.files_out)
        finally:
            worker.close()


class _Worker:
    """One sandbox with its first process, from its start to its end."""

    def __init__(self, backend: Backend, box: Box) -> None:
        """Start it, without waiting until it is ready."""
        self._box = box
        self._place = PLACES[backend](box)
        self.workspace = self._place.workspace  # the copy of the submission that this worker reads
        self._guard: Guard = make_guard(box.memory_bytes, box.processes)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        self._process = self._place.start(self._guard, self._errors)
        self._guard.watch(self._process.pid)
        self._started = time.monotonic()
        self._is_ready = False
        self.is_sound = True
        self._is_closed = False
        self.description = f"{self._place.description}, memory by {self._guard.description}"

    def ask(self, frame: bytes, seconds: float, max_bytes: int, files: Sequence[str] = ()) -> Reply:
        """Send a request and return what comes of it. Afterwards `is_sound` says whether the worker can go on."""
        self._wait_until_ready()
        started = time.monotonic()
        try:
            self._send(frame, started + seconds + GRACE)
            answer = protocol.receive(self._output(), 2 * max_bytes + ROOM, time.monotonic() + seconds + GRACE)
            told, arrays = protocol.decode(answer)
            return self._reply(told, arrays, files)
        except TimeoutError:
            return self._lost("timeout", started)
        except (EOFError, OSError, ProtocolError):
            return self._lost("crash", started)

    def _send(self, frame: bytes, deadline: float) -> None:
        """Send a frame. A worker that does not read is killed at the deadline by whoever reads the answer."""
        assert self._process.stdin is not None
        protocol.send(self._process.stdin.fileno(), frame, deadline)

    def _output(self) -> int:
        """Return the descriptor that answers come from."""
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _wait_until_ready(self) -> None:
        """Wait for the worker's first frame. Raises GraderError, with what it said, if there is none."""
        if self._is_ready:
            return
        try:
            # it may be ready for long when it is first looked at
            deadline = max(self._started + STARTING, time.monotonic() + GRACE)
            told, _ = protocol.decode(protocol.receive(self._output(), MB, deadline))
        except (EOFError, OSError, TimeoutError, ProtocolError) as error:
            self._process.kill()
            self._errors.seek(0)
            said = protocol.clean(self._errors.read(1 << 16).decode("utf-8", "replace"), 2000).strip()
            self.close()
            raise GraderError(f"the sandbox did not start ({error}): {said}") from error
        self._is_ready = True
        if told.get("seccomp") is not True:
            self.description += ", no seccomp"

    def _lost(self, status: Status, started: float) -> Reply:
        """Return the reply for a worker that does not answer: everything is killed."""
        self.is_sound = False
        if self._kill():
            status = "memory"
        seconds = time.monotonic() - started
        facts: dict[str, Any] = {"exit_status": self._process.returncode, "seconds": seconds, "lost": True}
        return Reply(status, printed=self._place.what_killed(), **facts)

    def _kill(self) -> bool:
        """Kill everything. Return whether the guard had killed something before, for its memory."""
        self._place.kill(self._process)
        was_memory = self._guard.has_killed()
        self._guard.close()  # before the process is waited for: afterwards its number may be another's
        with contextlib.suppress(subprocess.TimeoutExpired):  # one that hangs in the kernel ends when the system can
            self._process.wait(GRACE)
        return was_memory

    def _reply(self, told: Mapping[str, Any], arrays: Mapping[str, Array], files: Sequence[str]) -> Reply:
        """Make a reply of what the worker says about its child, and of what the child has answered."""
        self.is_sound = told.get("clean") is True
        printed = _plain(_data(arrays.get("printed")).decode("utf-8", "replace"), 2 * self._box.output_bytes)
        seconds = told.get("seconds")
        facts: dict[str, Any] = {"printed": printed, "seconds": float(seconds) if type(seconds) is float else 0.0}
        exit_status = told["exit"] if type(told.get("exit")) is int else None
        if self._guard.has_killed():
            return Reply("memory", exit_status=exit_status, **facts)
        if told.get("status") == "timeout" or exit_status == -SIGXCPU:
            return Reply("timeout", **facts)
        if told.get("status") != "ended" or exit_status != 0:
            return Reply("crash", exit_status=exit_status, **facts)
        found = {name: _data(arrays[f"file:{name}"]) for name in files if f"file:{name}" in arrays}
        try:
            return _understood(*protocol.decode(_data(arrays.get("answer"))), found, facts)
        except ProtocolError:
            return Reply("crash", exit_status=exit_status, **facts)

    def close(self) -> None:
        """Kill everything and remove it; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._process.returncode is None:
            self._kill()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # the other end may be gone
                if pipe:
                    pipe.close()
        self._errors.close()
        self._place.close()


def _request(calls: Sequence[Call], seconds: float, max_bytes: int) -> bytes:
    """Return the frame that asks for calls. Raises TypeError for settings that are no plain data, and GraderError."""
    from autograder.sandboxed.calls import CALLS
    from autograder.sandboxed.tensors import to_array

    arrays: dict[str, Array] = {}
    told = []
    for i, call in enumerate(calls):
        if call.name not in CALLS:
            raise GraderError(f"no call is named '{call.name}': choose from {', '.join(CALLS)}")
        groups = {"inputs": call.case.inputs, "weights": call.case.weights}
        for group, tensors in groups.items():
            arrays |= {f"{i}/{group}/{name}": to_array(tensor) for name, tensor in tensors.items()}
        told.append({"name": call.name, "settings": call.case.settings, "max_bytes": call.max_bytes})
    header = {
        "kind": "calls",
        "calls": told,
        "seconds": seconds,
        "patience": PATIENCE * seconds,
        "max_bytes": max_bytes,
    }
    return protocol.encode(header, arrays)


def _part(answer: "torch.Tensor | str | None") -> Reply | None:
    """Return the reply to one of several calls, if it was made in full and makes sense."""
    if answer is None or isinstance(answer, str):
        return None
    try:
        reply = _understood(*protocol.decode(answer.numpy().tobytes()), {}, {})
    except (ProtocolError, TypeError):
        return None
    return reply if reply.status == "ok" else None


def _data(array: Array | None) -> bytes:
    """Return the bytes that came as an array; none if there was none."""
    return array.data if array else b""


def _understood(
    answer: Mapping[str, Any], arrays: Mapping[str, Array], files: dict[str, bytes], facts: Mapping[str, Any]
) -> Reply:
    """Make a reply of the answer of the submission's process. Raises ProtocolError if it makes no sense."""
    from autograder.sandboxed.tensors import to_tensor

    status = answer.get("status")
    exit_status = answer["exit"] if type(answer.get("exit")) is int else None
    if status == "memory":
        return Reply("memory", **facts)
    if status == "error" and isinstance(answer.get("failure"), dict):
        return Reply("error", failure=_failure(answer["failure"]), files=files, exit_status=exit_status, **facts)
    others = answer.get("others", {})
    if status != "ok" or not isinstance(others, dict):
        raise ProtocolError("an answer of no known kind")
    outputs: dict[str, torch.Tensor | str] = {name: to_tensor(array) for name, array in arrays.items()}
    outputs |= {_plain(name, 200): _plain(kind, 200) or "object" for name, kind in others.items()}
    return Reply("ok", outputs, files, exit_status=exit_status, **facts)


def _failure(told: Mapping[str, Any]) -> Failure:
    """Make a Failure of what an untrusted process says, each part of its type and not too long."""
    line = told.get("line")
    return Failure(
        kind=" ".join(_plain(told.get("kind"), 100).split()) or "an error",
        message=" ".join(_plain(told.get("message"), 1000).split()),
        file=PurePosixPath(_plain(told.get("file"), 200)).name,
        line=line if type(line) is int and 0 <= line < 1 << 31 else 0,
        function=" ".join(_plain(told.get("function"), 200).split()),
        raised=told.get("raised") is True,
        importing=told.get("importing") is True,
        traceback=_plain(told.get("traceback"), 16_000),
    )


def _plain(value: object, most: int) -> str:
    """Return an untrusted text without control characters, cut, and without addresses, which differ from run to run."""
    return re.sub(r"0x[0-9a-f]{6,}", "0x...", protocol.clean(value, most))

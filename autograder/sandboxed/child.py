"""What does one request do? Runs in a process of its own, forked for it: imports the student's files, calls, answers.

Everything that a student wrote runs here and nowhere else. The answer is one frame on a pipe; whatever else this
process prints or returns counts for nothing.
"""

import contextlib
import importlib
import linecache
import os
import random
import runpy
import shutil
import sys
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from autograder.sandboxed import lockdown, protocol, tensors
from autograder.sandboxed.calls import CALLS
from autograder.sandboxed.protocol import Array, Failure
from autograder.sandboxed.settings import Settings
from component_checks import Case

ANSWER = 3  # the descriptor that the answer goes to
MAX_TRACE = 16_000  # characters
MAX_TEXT = 2_000
NO_MEMORY = ("can't allocate memory", "not enough memory", "Cannot allocate memory")


def run_request(header: dict[str, Any], arrays: dict[str, Array], settings: Settings, log: int, answer: int) -> None:
    """Do what a request says, send the answer, and end this process. Never returns."""
    status = 1
    try:
        _settle(settings, log, answer, header)
        frame = _script(header, settings) if header["kind"] == "script" else _calls(header, arrays, settings)
        with contextlib.suppress(Exception):  # they may be anything by now
            sys.stdout.flush()
            sys.stderr.flush()
        protocol.write_all(ANSWER, frame)
        status = 0
    finally:
        os._exit(status)


def _settle(settings: Settings, log: int, answer: int, header: Mapping[str, Any]) -> None:
    """Keep three descriptors and the answer's, and lower the limits."""
    os.setsid()
    os.dup2(log, 1)
    os.dup2(log, 2)
    if answer != ANSWER:
        os.dup2(answer, ANSWER)
    os.set_inheritable(ANSWER, False)
    os.closerange(ANSWER + 1, 4096)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    lockdown.limit_time_and_memory(header["seconds"], settings.memory_bytes)
    sys.argv = [""]


def _same_random_numbers() -> None:
    """Start from the same random numbers, as each call does."""
    random.seed(0)
    torch.manual_seed(0)
    if "numpy" in sys.modules:
        importlib.import_module("numpy.random").seed(0)


def _calls(header: Mapping[str, Any], arrays: Mapping[str, Array], settings: Settings) -> bytes:
    """Make calls one after the other; return the frame that answers one, or a frame that holds those of several."""
    os.chdir(settings.workspace)
    sys.path.append(settings.workspace)
    frames = []
    for i, call in enumerate(header["calls"]):
        _same_random_numbers()
        start = f"{i}/"
        own = {name.removeprefix(start): array for name, array in arrays.items() if name.startswith(start)}
        frames.append(_call(call, own, settings))
    if len(frames) == 1:
        return frames[0]
    packed = {str(i): Array("uint8", (len(frame),), frame) for i, frame in enumerate(frames)}
    return protocol.encode({"status": "ok"}, packed)


def _call(header: Mapping[str, Any], arrays: Mapping[str, Array], settings: Settings) -> bytes:
    """Call one function on its case and return the frame that answers."""
    try:
        outputs = CALLS[header["name"]](_case(header, arrays))
        packed, others = tensors.pack(outputs, header["max_bytes"])
        return protocol.encode({"status": "ok", "others": others}, packed)
    except BaseException as error:  # SystemExit and KeyboardInterrupt too: they are the student's
        return _failed(error, settings.workspace)


def _case(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> Case:
    """Rebuild the case that the judge sent."""
    groups: dict[str, dict[str, torch.Tensor]] = {"inputs": {}, "weights": {}}
    for name, array in arrays.items():
        group, _, rest = name.partition("/")
        groups[group][rest] = tensors.to_tensor(array)
    return Case(groups["inputs"], header["settings"], groups["weights"])


def _script(header: Mapping[str, Any], settings: Settings) -> bytes:
    """Run a program of the submission in a copy of its folder and return the frame that answers."""
    _same_random_numbers()
    folder = prepare_folder(settings, header["files_in"])
    os.chdir(folder)
    sys.path.append(str(folder))
    sys.argv = list(header["argv"])
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        code = error.code
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr)
        return protocol.encode({"status": "ok", "exit": code if isinstance(code, int) else int(code is not None)})
    except BaseException as error:
        return _failed(error, str(folder))
    return protocol.encode({"status": "ok", "exit": 0})


def work_folder(settings: Settings) -> Path:
    """Return the folder in which scripts run."""
    return Path(settings.temporary, "work")


def prepare_folder(settings: Settings, files_in: Mapping[str, str]) -> Path:
    """Copy the submission to a folder that can be written to, and link the input files into it."""
    folder = work_folder(settings)
    shutil.copytree(settings.workspace, folder)
    folder.chmod(0o700)
    for name, source in files_in.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(Path(settings.inputs, source))
    return folder


# --- errors ---


def _failed(error: BaseException, folder: str) -> bytes:
    """Return the frame that says how the student's code failed."""
    if _is_memory(error):
        return protocol.encode({"status": "memory"})
    failure = describe(error, Path(folder))
    return protocol.encode({"status": "error", "exit": 1, "failure": asdict(failure)})


def _is_memory(error: BaseException) -> bool:
    """Return whether an error means that there was not enough memory."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(text in _text(error) for text in NO_MEMORY)


def describe(error: BaseException, folder: Path) -> Failure:
    """Say what an error is and where in the files of `folder` it arose: the last line there that was running."""
    kind, trace = type(error).__name__[:MAX_TEXT], _trace(error, folder)
    if isinstance(error, SyntaxError) and error.filename:
        message = str(error.msg)[:MAX_TEXT]
        return Failure(kind, message, Path(error.filename).name, error.lineno or 0, "", False, True, trace)
    frames = list(traceback.walk_tb(error.__traceback__))
    own = [(frame, line) for frame, line in frames if _is_in(frame, folder)]
    if not own:
        return Failure(kind, _text(error), "", 0, "", False, False, trace)
    frame, line = own[-1]
    code = frame.f_code
    raised = frame is frames[-1][0] and linecache.getline(code.co_filename, line).lstrip().startswith("raise")
    importing = any(frame.f_code.co_name == "<module>" for frame, _ in own if not _is_main(frame))
    return Failure(kind, _text(error), Path(code.co_filename).name, line, code.co_qualname, raised, importing, trace)


def _is_in(frame: FrameType, folder: Path) -> bool:
    """Return whether a frame runs a file of the folder."""
    file = frame.f_code.co_filename
    # "<frozen importlib>" and the like would be relative names
    return not file.startswith("<") and Path(file).resolve().parent == folder.resolve()


def _is_main(frame: FrameType) -> bool:
    """Return whether a frame is the top of a program that was started as such."""
    return frame.f_globals.get("__name__") == "__main__"


def _text(error: BaseException) -> str:
    """Return the text of an error, whatever its class makes of that."""
    try:
        return str(error)[:MAX_TEXT]
    except BaseException:
        return ""


def _trace(error: BaseException, folder: Path) -> str:
    """Return the traceback from the first line in the student's files on; a file is named without its folder."""
    try:
        trace = error.__traceback__
        while trace is not None and not _is_in(trace.tb_frame, folder):
            trace = trace.tb_next
        lines: Iterable[str] = traceback.format_exception(type(error), error, trace)
        return protocol.clean("".join(lines).replace(f"{folder}{os.sep}", ""), MAX_TRACE)
    except BaseException:  # formatting runs the student's __str__
        return ""

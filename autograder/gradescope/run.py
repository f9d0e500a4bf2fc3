"""What runs on Gradescope: finds the submission, has it graded in time, and writes `results.json`.

    PYTHONPATH=/autograder/source/minllama python -P -m autograder.gradescope.run /autograder

`run_autograder` starts it. The grader is a process of its own, with a deadline below the platform's: when that one
strikes, `results.json` is thrown away. What an instructor needs and a student should not see goes to standard output,
which the platform shows to instructors only.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from autograder.gradescope.settings import SETTINGS, Settings, read_settings
from autograder.report.plain import plain
from autograder.result import Result
from errors import GraderError, MinLlamaError, UsageError
from submission_check import check_student_id
from utils import write_text

ROOT = Path(__file__).resolve().parents[2]
PRIVATE = "results-private"  # beside results/; the platform does not collect it
LOG_CHARACTERS = 20_000  # of the grader's own output that instructors see
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")  # what systems add to folders and zips


# Before the deadline, so long no further check is begun: one may still run, and the reports have to be written.
LAST_SECONDS = 25.0


@dataclass(frozen=True)
class Submission:
    """Where the submission lies, and whose it is."""

    path: Path
    student_id: str


def find_submission(folder: Path, metadata: Path) -> Submission:
    """Return the submission among what the platform put into `folder`.

    A student may upload the files, the folder that they are in, or the zip of it, which the platform may have unpacked.
    A lone folder or zip gives the ID by its name; for loose files it is what stands before the @ of the address in
    `metadata`. Raises UsageError if nothing was handed in.
    """
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name not in JUNK and not entry.is_symlink()]
    if not entries:
        raise UsageError(f"{folder} holds no submission")
    path = folder
    if len(entries) == 1 and (entries[0].is_dir() or entries[0].suffix.lower() == ".zip"):
        path = entries[0]
    names = [] if path == folder else [path.stem if path.is_file() else path.name]
    names += [address.partition("@")[0] for address in _addresses(metadata)]
    for name in names:
        try:
            check_student_id(name.lower())
        except UsageError:
            continue
        return Submission(path, name.lower())
    return Submission(path, "submission")


def grade_command(submission: Submission, settings: Settings, out: Path) -> list[str]:
    """Return the command that grades the submission into `out`."""
    command = [sys.executable, "-P", "-m", "autograder", "grade", str(submission.path)]
    command += ["--edition", settings.edition, "--sandbox", settings.sandbox, "--id", submission.student_id]
    command += ["-o", str(out), "--deadline", f"{settings.deadline - LAST_SECONDS:g}"]
    return command + (["--checkpoint", settings.checkpoint] if settings.checkpoint else [])


def run_with_deadline(command: list[str], seconds: float, log: IO[bytes]) -> int | None:
    """Run the command in the repository and return its exit status; None if it had to be killed at the deadline."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill_group(process.pid)
        process.wait()


def main(argv: list[str] | None = None) -> int:
    """Grade what lies below the platform's folder; return 0 if there is a score."""
    arguments = sys.argv[1:] if argv is None else argv
    if len(arguments) != 1:
        print("usage: python -P -m autograder.gradescope.run /autograder", file=sys.stderr)
        return 2
    base = Path(arguments[0])
    text, reason = _results(base)
    write_text(base / "results" / "results.json", text)
    if reason:
        print(f"error: {reason}")
    return 0 if "score" in json.loads(text) else 1


def _results(base: Path) -> tuple[str, str]:
    """Grade, and return the content of `results.json`, and why there is no score if there is none."""
    started = time.monotonic()
    try:
        settings = read_settings(base / "source" / SETTINGS)
        result = _grade(base, settings, base / PRIVATE)
        # imports PyTorch, which is no burden once the grader and its sandbox have ended
        from autograder.editions import read_edition
        from autograder.gradescope.results import results_json

        edition = read_edition(settings.edition)
        return results_json(result, edition, time.monotonic() - started, settings.visibility), ""
    except (_TooLateError, MinLlamaError, OSError, ValueError) as error:
        from autograder.gradescope.results import failure_json

        if isinstance(error, _TooLateError):
            return failure_json(time.monotonic() - started, str(error)), str(error)
        return failure_json(time.monotonic() - started), f"{type(error).__name__}: {error}"


class _TooLateError(Exception):
    """The grader was still busy at the deadline."""


def _grade(base: Path, settings: Settings, out: Path) -> Result:
    """Run the grader and return its result; what it printed goes to standard output."""
    submission = find_submission(base / "submission", base / "submission_metadata.json")
    print(f"grading {plain(submission.path.name, 100)!r} as {submission.student_id}, edition {settings.edition}")
    out.mkdir(mode=0o700, exist_ok=True)
    (out / "result.json").unlink(missing_ok=True)
    log = out / "grader.log"
    with log.open("wb") as file:
        status = run_with_deadline(grade_command(submission, settings, out), settings.deadline, file)
    print(plain(log.read_text(encoding="utf-8", errors="replace"), LOG_CHARACTERS), end="", flush=True)
    if status is None:
        raise _TooLateError(f"It was still busy after {settings.deadline:g} seconds, which is all the time it had.")
    if status != 0 or not (out / "result.json").is_file():
        raise GraderError(f"the grader ended with status {status}: see what it printed")
    result = Result.from_json((out / "result.json").read_text(encoding="utf-8"))
    print(f"seed {result.seed}, sandbox {result.sandbox}, grader {result.grader}")
    if (out / "secret").is_file():
        print(f"secret {(out / 'secret').read_text(encoding='utf-8').strip()} (for --seed, to grade it again alike)")
    return result


def _addresses(metadata: Path) -> list[str]:
    """Return the e-mail addresses of those who handed in; none if the platform's file says nothing."""
    try:
        content: Any = json.loads(metadata.read_text(encoding="utf-8"))
        return [str(user["email"]) for user in content["users"] if user.get("email")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _kill_group(pid: int) -> None:
    """Kill what a process left of its group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    sys.exit(main())

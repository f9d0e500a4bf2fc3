"""Grades one submission: intake, checks in the sandbox, outputs, reruns if asked for, rubric, reports.

    python -m autograder grade abc123.zip --edition minllama -o out/abc123

Nothing of the submission runs in this process, and OUT is written when everything is known. What needs torch is
imported when the sandbox has been started, which imports it as well.
"""

import hashlib
import hmac
import json
import math
import os
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autograder.editions import Edition
from autograder.intake.reader import Intake, take_in
from autograder.isolation.backends import Backend
from autograder.isolation.environment import build_environment
from autograder.isolation.sandbox import Sandbox, open_sandbox
from autograder.result import CheckResult, Finding, Grade, OutputResult, Result
from autograder.version import grader_version
from autograder.workspace import build_workspace
from errors import SubmissionError, UsageError
from utils import write_text

if TYPE_CHECKING:
    from autograder.outputs.coherence import TextReader

ROOT = Path(__file__).resolve().parent.parent
SECRET = "secret"  # the file in OUT that keeps what inputs are drawn from, if --seed does not say it
# Where the weights of a checkpoint may lie, below the repository.
WEIGHTS = ("{name}.pt", "checkpoints/{name}", "weights/{name}/{name}.bin", "weights/{name}/{name}.pt", "weights/{name}")


@dataclass(frozen=True)
class Options:
    """What an instructor may choose; the rest is in the edition."""

    student_id: str | None = None  # by default the name of the zip or folder
    backend: Backend | None = None  # of the sandbox; by default bwrap
    seed: str | None = None  # the secret; by default one is drawn and kept in OUT
    checkpoint: str | None = None  # by default the edition's
    data: Path = ROOT / "data"
    rerun: tuple[str, ...] = ()
    rerun_arguments: tuple[str, ...] = ()  # in place of the reference command's
    deadline: float = math.inf  # seconds from now, after which no further check is begun
    say: Callable[[str], None] = print


@dataclass
class Opened:
    """A submission that is unpacked, and the sandbox that its code runs in."""

    intake: Intake
    files: Path  # as they were submitted
    sandbox: Sandbox


@dataclass
class _Progress:
    """What is known so far, and how long each stage took, in seconds."""

    checks: list[CheckResult] = field(default_factory=list)
    outputs: list[OutputResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    each: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    def lap(self, stage: str) -> None:
        """Note the time since the last call as that of a stage."""
        now = time.monotonic()
        self.stages[stage] = round(now - self.started, 3)
        self.started = now


def find_weights(name: str) -> Path | None:
    """Return where the weights of a checkpoint lie, or None if they are not on this machine."""
    candidates = (ROOT / pattern.format(name=name) for pattern in WEIGHTS)
    return next((path for path in candidates if path.exists()), None)


@contextmanager
def opened(
    submission: Path, edition: Edition, student_id: str | None = None, backend: Backend | None = None
) -> Iterator[Opened]:
    """Unpack a submission into a private folder and start a sandbox for it; both are gone after the block.

    Raises MinLlamaError for what is wrong on our side.
    """
    modules = build_environment(edition.environment).modules
    with tempfile.TemporaryDirectory(prefix="grade-", ignore_cleanup_errors=True) as private:
        files, workspace = Path(private, "submission"), Path(private, "workspace")
        intake = take_in(submission, student_id, edition, files, modules)
        if not intake.readable:
            what = "; ".join(finding.what for finding in intake.findings if finding.severity == "error")
            raise SubmissionError(f"nothing of {submission} can be read: {what or 'it holds no files'}")
        workspace.mkdir()
        build_workspace(files, edition, modules, workspace, intake.caches)
        with open_sandbox(backend, workspace, edition.environment, edition.limits) as sandbox:
            yield Opened(intake, files, sandbox)


def grade_submission(submission: Path, edition: Edition, out: Path, options: Options | None = None) -> Result:
    """Grade a zip or a folder, and write `result.json`, `timings.json` and `report.html` into `out`.

    Raises MinLlamaError for what is wrong on our side: a submission that is not there, no usable sandbox, missing data.
    Whatever is wrong with the submission is part of the result.
    """
    options = options or Options()
    check_checkpoint(edition, options)
    deadline = time.monotonic() + options.deadline
    progress = _Progress()
    with opened(submission, edition, options.student_id, options.backend) as found:
        progress.findings += found.intake.findings
        progress.lap("format and static")
        seed = seed_for(options.seed or kept_secret(out), found.intake.sha256)
        reader = _read_outputs(found, edition, options, progress)
        _run_checks(found, edition, seed, deadline, progress)
        if options.rerun:
            _rerun(found, edition, seed, options, reader, progress)
        result = _result(found, edition, seed, options, progress)
    progress.lap("rubric")
    _write(result, progress, out)
    return result


def check_checkpoint(edition: Edition, options: Options) -> None:
    """Raise UsageError for a checkpoint that the edition knows nothing of, or whose weights a rerun needs and lacks."""
    name = options.checkpoint or edition.checkpoint
    if edition.reference(name) is None:
        known = ", ".join(reference.checkpoint for reference in edition.references)
        raise UsageError(f"edition {edition.name} has no reference results of '{name}': choose from {known}")
    if options.rerun and not find_weights(name):
        raise UsageError(f"a rerun needs the weights of {name}, which are not here: ./setup.sh fetches them")


def _read_outputs(found: Opened, edition: Edition, options: Options, progress: _Progress) -> "TextReader | None":
    """Look at the submitted outputs, and return the reader of texts, if the checkpoint's weights are here."""
    from autograder.outputs.coherence import text_reader  # imports torch, while the sandbox does the same
    from autograder.outputs.files import check_outputs

    progress.lap("import")
    checkpoint = options.checkpoint or edition.checkpoint
    weights = find_weights(checkpoint)
    reader = text_reader(weights, edition.causal) if weights and edition.reference(checkpoint) else None
    outputs, findings = check_outputs(found.files, edition, options.data, reader, checkpoint)
    progress.outputs += outputs
    progress.findings += findings
    progress.lap("outputs")
    return reader


def _run_checks(found: Opened, edition: Edition, seed: str, deadline: float, progress: _Progress) -> None:
    """Run the hidden checks."""
    from autograder.judge import assert_master, judge_checks

    assert_master()
    for timed in judge_checks(found.sandbox, edition, seed, deadline):
        progress.checks.append(timed.result)
        progress.each[timed.result.name] = round(timed.seconds, 3)
    progress.lap("checks")


def _rerun(
    found: Opened, edition: Edition, seed: str, options: Options, reader: "TextReader | None", progress: _Progress
) -> None:
    """Let the submission make its outputs again."""
    from autograder.outputs.rerun import rerun

    checkpoint = options.checkpoint or edition.checkpoint
    weights = find_weights(checkpoint)
    assert weights  # grade_submission has looked
    outputs, findings = rerun(
        found.sandbox,
        edition,
        found.files,
        options.rerun,
        weights,
        options.data,
        seed=seed,
        checkpoint=checkpoint,
        reader=reader,
        arguments=options.rerun_arguments,
        say=options.say,
    )
    progress.outputs += outputs
    progress.findings += findings
    progress.lap("rerun")


def _result(found: Opened, edition: Edition, seed: str, options: Options, progress: _Progress) -> Result:
    """Put together what is known."""
    from autograder.rubric import grade

    student_id = found.intake.student_id
    has_report = f"{student_id}-report.pdf" in found.intake.files
    letter: Grade = grade(edition, progress.checks, progress.outputs, progress.findings, has_report)
    return Result(
        submission=student_id,
        submission_sha256=found.intake.sha256,
        edition=edition.name,
        grader=grader_version(),
        sandbox=found.sandbox.description,
        seed=seed,
        checkpoint=options.checkpoint or edition.checkpoint,
        grade=letter,
        points=round(sum(check.points for check in progress.checks), 6),
        max_points=round(sum(check.max_points for check in progress.checks), 6),
        checks=tuple(progress.checks),
        outputs=tuple(progress.outputs),
        findings=tuple(progress.findings),
    )


def _write(result: Result, progress: _Progress, out: Path) -> None:
    """Write the files of a result; `result.json` comes last, so that where it is, the others are too."""
    from autograder.report.page import write_report

    _make_private(out)
    timings = {"stages": progress.stages, "checks": progress.each}
    write_report(result, out / "report.html")
    write_text(out / "timings.json", json.dumps(timings, indent=2) + "\n")
    write_text(out / "result.json", result.to_json())
    for name in ("report.html", "timings.json", "result.json"):
        (out / name).chmod(0o600)


def _make_private(out: Path) -> None:
    """Make OUT, readable for its owner alone; a folder that is there already stays as open as it was."""
    out.mkdir(parents=True, exist_ok=True, mode=0o700)


def seed_for(secret: str, submission_sha256: str) -> str:
    """Return the seed of a submission's inputs: nobody can compute it from the submission alone. 64 hex digits."""
    return hmac.new(secret.encode(), submission_sha256.encode(), hashlib.sha256).hexdigest()


def kept_secret(out: Path) -> str:
    """Return the secret in OUT, drawn the first time: graded again, a submission gets the same inputs.

    Makes OUT, readable for its owner alone. Raises UsageError if that cannot be done.
    """
    path = out / SECRET
    try:
        _make_private(out)
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): name another folder with -o") from error

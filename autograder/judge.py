"""Runs the hidden checks: sends inputs into the sandbox, compares what comes back, and turns it into results.

What the submission's process returns, prints or exits with is not evidence: it is compared with what the master gives
on the same inputs, in this process.
"""

import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from autograder.checks.hidden import (
    CHECKS,
    Answer,
    Course,
    HiddenCheck,
    Prepared,
    checks_for,
    compare,
    equals,
    prepare,
    refutes,
)
from autograder.editions import Edition
from autograder.isolation.sandbox import Call, Failure, Reply, Sandbox
from autograder.report.plain import listed
from autograder.result import CheckResult, Status
from autograder.sandboxed.quick import forget_seeds, skip_compiler
from errors import GraderError, UsageError
from submission_rules import FILES

ROOT = Path(__file__).resolve().parent.parent
MASTER = ("llama", "rope", "optimizer", "classifier", "component_checks")
MOST_LATE = 3  # checks of one file that run out of time, or end the sandbox: the others would take as long
TOGETHER = 8.0  # seconds of processor time in which all checks are tried in one process; right code needs about one
ROOM = 1 << 20  # bytes that an answer may have beyond the tensors that are expected


@dataclass(frozen=True)
class Timed:
    """A result, and how long the submission's code took for it, in seconds."""

    result: CheckResult
    seconds: float


def assert_master() -> None:
    """Raise GraderError if one of the modules that the judge trusts comes from anywhere but the repository.

    Started in a submission's folder without `-P`, Python would import the student's `llama.py` instead.
    """
    for name in MASTER:
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None) or ""
        if module is not None and Path(file).resolve().parent != ROOT:
            raise GraderError(f"{name} was imported from {file}, not from {ROOT}: start the grader with `python -P`")


def judge_checks(sandbox: Sandbox, edition: Edition, seed: str, deadline: float = math.inf) -> list[Timed]:
    """Run the edition's checks and return their results, in the order in which they ran.

    At `deadline` (of the monotonic clock, in seconds) no further one is begun. Raises UsageError if the
    edition names a check that does not exist for it.
    """
    skip_compiler()
    forget_seeds()
    judging = _Judging(sandbox, edition, seed, deadline)
    points = {entry.name: entry.points for entry in edition.checks.run}
    known = {check.name: check for check in checks_for(judging.course)}
    if unknown := set(points) - set(known):
        raise UsageError(f"edition {edition.name}: no check is called {', '.join(sorted(unknown))}")
    timed = []
    judging.try_all([check for name, check in known.items() if name in points])
    for name, check in known.items():
        if name in points:
            start = time.monotonic()
            result = judging.run(check)
            result = replace(result, points=_points(result.status, points[name], edition), max_points=points[name])
            judging.done[name] = result
            timed.append(Timed(result, time.monotonic() - start))
    decided = _decided(judging.done, edition)
    return [replace(entry, result=_as_note(judging.believed(entry.result), decided)) for entry in timed]


@dataclass
class _Judging:
    """What is known of one submission while its checks run."""

    sandbox: Sandbox
    edition: Edition
    seed: str
    deadline: float
    done: dict[str, CheckResult] = field(default_factory=dict)
    answers: dict[str, tuple[HiddenCheck, Prepared, Answer]] = field(default_factory=dict)
    late: dict[str, list[str]] = field(default_factory=dict)  # by file: out of time, or the sandbox went down
    inputs: dict[str, Prepared] = field(default_factory=dict)
    right: dict[str, Reply] = field(default_factory=dict)  # what needs no process of its own

    @property
    def course(self) -> Course:
        """What of the edition matters to the inputs."""
        return Course(self.edition.causal)

    def run(self, check: HiddenCheck) -> CheckResult:
        """Return a check's result, without points; run it unless something stands against that."""
        if not self.edition.checks.decided_by:
            broken = [name for name in check.needs if name in self.done and self.done[name].status != "pass"]
            if broken:
                return _result(check, "skipped", f"needs {listed(broken)}, which did not pass")
        if time.monotonic() > self.deadline:
            return _result(check, "timeout", "not tried: the time for all of the submission was over")
        if len(self.late.get(check.file, [])) >= MOST_LATE:
            message = f"not tried: {listed(self.late[check.file])} ran out of time or ended the sandbox ({check.file})"
            return _result(check, "timeout", message)
        try:
            return self.ask(check)
        except Exception as error:  # ours, whatever it is: the submission's code ran elsewhere
            return _result(check, "grader_error", f"{type(error).__name__}: {error}")

    def try_all(self, checks: Sequence[HiddenCheck]) -> None:
        """Make the calls of all checks in one process, and keep what came out right: most of most submissions.

        Whatever did not is asked for again, alone, so that no check has to answer for what another one has done.
        """
        if time.monotonic() > self.deadline:
            return
        with contextlib.suppress(Exception):  # ours: it shows where it belongs, in the check that it concerns
            prepared = [self.prepared(check) for check in checks]
            calls = [_call(check, one) for check, one in zip(checks, prepared, strict=True)]
            replies = self.sandbox.call_all(calls, TOGETHER)
            for check, one, reply in zip(checks, prepared, replies, strict=True):
                if reply and equals(check, one, reply.outputs):
                    self.right[check.name] = reply

    def prepared(self, check: HiddenCheck) -> Prepared:
        """Return a check's inputs, and what the master makes of them."""
        if check.name not in self.inputs:
            self.inputs[check.name] = prepare(check, bytes.fromhex(self.seed), self.course)
        return self.inputs[check.name]

    def ask(self, check: HiddenCheck) -> CheckResult:
        """Run a check in the sandbox, unless that was done, and compare."""
        prepared = self.prepared(check)
        reply = self.right.get(check.name) or self.sandbox.call(_call(check, prepared))
        if reply.status == "ok":
            self.answers[check.name] = (check, prepared, reply.outputs)
        elif reply.lost or reply.status == "timeout":
            self.late.setdefault(check.file, []).append(check.name)
        return explain(check, prepared, reply)

    def believed(self, result: CheckResult) -> CheckResult:
        """Return a result without the misconceptions that as many checks of the region refute as show them.

        One check alone may refute the right name: a mistake can make rounding errors large.
        """
        others = [answer for answer in self.answers.values() if answer[0].region == result.region]
        believed = []
        for sentence in result.misconceptions:
            showing = {name for name, other in self.done.items() if sentence in other.misconceptions}
            against = [other for other in others if other[0].name not in showing and refutes(*other, sentence)]
            if len(showing) > len(against):
                believed.append(sentence)
        return replace(result, misconceptions=tuple(believed))


def _call(check: HiddenCheck, prepared: Prepared) -> Call:
    """Return what the sandbox is asked for."""
    return Call(check.call, prepared.case, check.seconds, most_bytes(prepared))


def most_bytes(prepared: Prepared) -> int:
    """Return how large an answer may be."""
    return sum(tensor.numel() * 8 for tensor in prepared.expected.values()) + prepared.raw_bytes + ROOM


def explain(check: HiddenCheck, prepared: Prepared, reply: Reply) -> CheckResult:
    """Return what a reply of the sandbox means for a check."""
    if reply.status == "ok":
        verdict = compare(check, prepared, reply.outputs)
        status: Status = "pass" if verdict.passed else "fail"
        result = _result(check, status, verdict.message, verdict.details)
        return replace(result, misconceptions=verdict.misconceptions, output=reply.printed)
    details = (f"called {prepared.called}",)
    if reply.status == "error" and reply.failure:
        status, message = _of_failure(reply.failure)
        trace = () if status == "missing" or not reply.failure.traceback else (reply.failure.traceback,)
        return replace(_result(check, status, message, details + trace), output=reply.printed)
    status, message = _of_end(reply, check.seconds)
    return replace(_result(check, status, message, details), output=reply.printed)


def _of_end(reply: Reply, seconds: float) -> tuple[Status, str]:
    """Say in one line how a process ended that gave no answer."""
    if reply.status == "timeout":
        return "timeout", f"it was stopped after {seconds:g} seconds: is there a loop that never ends?"
    if reply.status == "memory":
        return "memory", "it asked for more memory than it may have: look for tensors that grow, and their shapes"
    if reply.lost:
        return "error", "it ended the sandbox that it ran in"
    return "error", _crash(reply.exit_status)


def _of_failure(failure: Failure) -> tuple[Status, str]:
    """Say in one line what an error in the submission means."""
    if failure.kind == "NotImplementedError" and failure.raised:
        return "missing", f"not implemented yet: {failure.file}, {failure.function}"
    own = {file.removesuffix(".py"): file for file in FILES.values()}
    if failure.kind == "ModuleNotFoundError" and not failure.file:
        missing = next((file for name, file in own.items() if f"'{name}'" in failure.message), None)
        if missing:
            return "missing", f"{missing} is not in the submission"
    if failure.kind == "AttributeError" and not failure.file:
        return "missing", f"it is not there: {failure.message}"
    text = f"{failure.kind}: {failure.message}" if failure.message else failure.kind
    return "error", f"{text} ({failure.file}:{failure.line})" if failure.file else text


def _crash(exit_status: int | None) -> str:
    """Say how a process ended that did not answer."""
    if exit_status is None:
        return "the process that ran it ended without an answer"
    if exit_status < 0:
        return f"the process that ran it was killed by signal {-exit_status}"
    return f"the process that ran it ended itself with status {exit_status}"


def _result(check: HiddenCheck, status: Status, message: str, details: tuple[str, ...] = ()) -> CheckResult:
    """Return a result without points."""
    return CheckResult(check.name, check.region, status, 0.0, 0.0, check.sentence, message, details)


def _points(status: Status, most: float, edition: Edition) -> float:
    """Return what an outcome is worth."""
    return {"pass": most, "skipped": most * edition.checks.skipped_share}.get(status, 0.0)


def _decided(done: Mapping[str, CheckResult], edition: Edition) -> set[str]:
    """Return the regions whose deciding checks all passed."""
    return {
        region
        for region, deciding in edition.checks.decided_by.items()
        if all(name in done and done[name].status == "pass" for name in deciding)
    }


def _as_note(result: CheckResult, decided: set[str]) -> CheckResult:
    """Return a finding about a region that is decided already as a note, which costs nothing."""
    if result.region not in decided or result.status in ("pass", "grader_error"):
        return result
    return replace(result, is_note=True, points=result.max_points)


def check_named(name: str, edition: Edition) -> HiddenCheck:
    """Return the edition's check of this name. Raises UsageError if there is none."""
    names = [entry.name for entry in edition.checks.run]
    if name not in names:
        raise UsageError(f"edition {edition.name} has no check '{name}': choose from {', '.join(names)}")
    return next(check for check in CHECKS if check.name == name)

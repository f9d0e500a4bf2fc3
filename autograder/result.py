"""What grading one submission gives: the content of `result.json`, whose schema this file is.

Nothing here depends on a clock or on the machine's speed: the same submission, edition, seed and grader give the same
bytes. Times are kept apart, in `timings.json`.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from errors import UsageError

FORMAT = 1  # of result.json; raised when a field changes its name or its meaning

# grader_error is our fault, and never a score.
Status = Literal["pass", "fail", "error", "timeout", "memory", "missing", "skipped", "grader_error"]
Stage = Literal["format", "static", "checks", "outputs", "rerun"]
# error: costs something by the rubric. flag: a person judges. warning and note: told, cost nothing.
Severity = Literal["error", "flag", "warning", "note"]


@dataclass(frozen=True)
class CheckResult:
    """How one check ended.

    `sentence` says what is checked. `message` is one line on the outcome; `details` are what was called, the shapes,
    the differences. `misconceptions` are the wrong variants that give exactly this output. `is_note` marks a finding
    that costs nothing in this edition. `output` is what the code printed meanwhile, its head and tail.
    """

    name: str
    region: str
    status: Status
    points: float
    max_points: float
    sentence: str
    message: str = ""
    details: tuple[str, ...] = ()
    misconceptions: tuple[str, ...] = ()
    is_note: bool = False
    output: str = ""


@dataclass(frozen=True)
class Finding:
    """Something that a stage noticed, and what to do about it; file and line where there are any."""

    stage: Stage
    severity: Severity
    what: str
    mend: str = ""
    file: str = ""
    line: int = 0


@dataclass(frozen=True)
class OutputResult:
    """What is known of one output file of the submission.

    `accuracy` is recomputed from the gold labels (None: no gold labels, or a broken file), `reference` and `margin` are
    the edition's for the checkpoint. `nats` is what a generated text costs the reference model, a token, and
    `limit` the most that still counts as coherent. `reaches` is the verdict; None if there is nothing to compare with.
    """

    name: str
    present: bool
    accuracy: float | None = None
    reference: float | None = None
    margin: float | None = None
    nats: float | None = None
    limit: float | None = None
    reaches: bool | None = None
    agreement: float | None = None  # share of rows that a rerun predicts too; 1.0 for a text that it repeats


@dataclass(frozen=True)
class Grade:
    """The letter, the sentences that lead to it, and whether a person has to confirm it."""

    letter: str
    reasons: tuple[str, ...]
    to_confirm: tuple[str, ...] = ()


@dataclass(frozen=True)
class Result:
    """One graded submission."""

    submission: str  # the student's ID
    submission_sha256: str
    edition: str
    grader: str  # its version
    sandbox: str  # the backend, and how memory was limited
    seed: str  # that this submission's inputs came from, in hexadecimal; the secret does not follow from it
    checkpoint: str  # that the outputs are compared with
    grade: Grade
    points: float
    max_points: float
    checks: tuple[CheckResult, ...] = ()
    outputs: tuple[OutputResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    format: int = field(default=FORMAT)

    def to_json(self) -> str:
        """Return the content of `result.json`."""
        return json.dumps(asdict(self), indent=2, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Result":
        """Return the result in a `result.json` of this format. Raises ValueError for another one."""
        data: dict[str, Any] = json.loads(text)
        if data.get("format") != FORMAT:
            raise ValueError(f"this is format {data.get('format')} of result.json, expected {FORMAT}")
        grade = data["grade"]
        return cls(
            **data
            | {
                "grade": Grade(grade["letter"], tuple(grade["reasons"]), tuple(grade["to_confirm"])),
                "checks": tuple(
                    CheckResult(**check | {name: tuple(check[name]) for name in ("details", "misconceptions")})
                    for check in data["checks"]
                ),
                "outputs": tuple(OutputResult(**output) for output in data["outputs"]),
                "findings": tuple(Finding(**finding) for finding in data["findings"]),
            }
        )


def read_result(path: Path) -> Result:
    """Return the result in a file. Raises UsageError if it is not there, or no `result.json` of this format."""
    try:
        return Result.from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{path} is no result.json of this grader: {error}") from error

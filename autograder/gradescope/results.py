"""A result as Gradescope reads it: `results.json`, by the platform's contract.

    text = results_json(result, edition, seconds=41.7)

What the contract leaves to us is decided so:
- `score` is the points of the checks, so the assignment's total points on the platform are the edition's. The letter
  stands in the text above the tests.
- A check is a test with a score. Output files and findings are tests without one, which the platform shows and does
  not count.
- A fault of the grader is never a score: `results.json` then has neither `score` nor tests, which the platform reports
  as a failure of the autograder, and the command's exit status is not 0.
- The platform cuts a text after 100,000 characters, and may cut the whole file there, which would leave no JSON. We
  stay below that ourselves.
"""

import json
from collections.abc import Sequence
from typing import Any

from autograder.editions import Edition
from autograder.gradescope.settings import check_visibility
from autograder.report.page import (
    SEVERITY_WORDS,
    STAGE_TITLES,
    STATUS_WORDS,
    is_judged,
    is_worth_telling,
    next_step,
    number_text,
    verdict_of,
    yours_and_needed,
)
from autograder.report.plain import cut, one_line, plain
from autograder.result import CheckResult, Finding, OutputResult, Result
from errors import GraderError

MOST_CHARACTERS = 90_000  # of the file; the platform cuts at 100,000
TEXT_LIMITS = (
    8000,
    4000,
    2000,
    1000,
    500,
    200,
    60,
)  # of one test's text; a smaller one where the file would be too long
MOST_FINDINGS = 40  # of one stage

_FAILED = (
    "The grader itself failed, so there is no score. This is no fault of your submission: the course staff has it "
    "graded again, and you need not hand it in anew."
)


def results_json(result: Result, edition: Edition, seconds: float, visibility: str = "visible") -> str:
    """Return the content of `results.json`.

    `seconds` is how long grading took; `visibility` is that of the hidden checks. Raises UsageError for a visibility
    that the platform does not know, GraderError for more checks than its file has room for.
    """
    check_visibility(visibility)
    if not is_judged(result):
        return failure_json(seconds)
    content = _content(result, edition, seconds, visibility)
    for limit in TEXT_LIMITS:
        content["tests"] = [test | {"output": cut(test["output"], limit)} for test in content["tests"]]
        text = _dumped(content)
        if len(text) <= MOST_CHARACTERS:
            return text
    raise GraderError(f"results.json would have {len(text)} characters: run fewer checks")


def failure_json(seconds: float | None = None, reason: str = "") -> str:
    """Return the content of `results.json` after a fault of ours: a text, and no score anywhere."""
    content: dict[str, Any] = {"output": f"{_FAILED} {reason}".strip(), "output_format": "text", "tests": []}
    if seconds is not None:
        content["execution_time"] = round(float(seconds), 3)
    return _dumped(content)


def _dumped(content: dict[str, Any]) -> str:
    """Return JSON in ASCII: no byte of it depends on an encoding, and NaN, which is no JSON, is an error."""
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _content(result: Result, edition: Edition, seconds: float, visibility: str) -> dict[str, Any]:
    """Return the fields of `results.json`."""
    tests = _check_tests(result.checks, visibility)
    tests += [_output_test(output) for output in result.outputs if is_worth_telling(output)]
    tests += _finding_tests(result.findings, visibility)
    return {
        "score": _number(result.points),
        "execution_time": round(float(seconds), 3),
        "output": plain(_summary(result, edition, visibility), TEXT_LIMITS[0]),
        "output_format": "text",
        "test_output_format": "text",
        "test_name_format": "text",
        "visibility": "visible",
        "stdout_visibility": "hidden",
        "extra_data": {
            "edition": one_line(result.edition, 100),
            "grader": one_line(result.grader, 100),
            "sandbox": one_line(result.sandbox, 200),
            "submission_sha256": one_line(result.submission_sha256, 64),
        },
        "tests": tests,
    }


def _summary(result: Result, edition: Edition, visibility: str) -> str:
    """Return the text above the tests. Where the checks are not shown, nothing that follows from them is either."""
    lines = [edition.title, ""]
    if visibility == "visible":
        lines += [f"Grade: {result.grade.letter}", *(f"- {reason}" for reason in result.grade.reasons)]
        if result.grade.to_confirm:
            lines += ["", "Before this is final, a person looks at:"]
            lines += [f"- {item}" for item in result.grade.to_confirm]
        lines += ["", f"Points of the checks: {number_text(result.points)} of {number_text(result.max_points)}"]
    else:
        count = len(result.checks)
        lines += [
            f"{count} hidden check{'' if count == 1 else 's'} ran. Their results, and with them the grade, are not"
            " shown yet: what you see here says nothing about them."
        ]
    lines += ["", f"Graded with {result.grader}, sandbox: {result.sandbox}"]
    return "\n".join(lines)


def _check_tests(checks: Sequence[CheckResult], visibility: str) -> list[dict[str, Any]]:
    """Return a test for every check, numbered by the part that it belongs to."""
    regions = list(dict.fromkeys(check.region for check in checks))
    counts = dict.fromkeys(regions, 0)
    tests = []
    for check in checks:
        counts[check.region] += 1
        passed = check.status == "pass" or check.is_note
        tests.append(
            {
                "score": _number(check.points),
                "max_score": _number(check.max_points),
                "status": "passed" if passed else "failed",
                "name": one_line(check.name, 120),
                "number": f"{regions.index(check.region) + 1}.{counts[check.region]}",
                "output": plain(_check_text(check), TEXT_LIMITS[0]),
                "tags": [one_line(check.region, 60)],
                "visibility": visibility,
            }
        )
    return tests


def _check_text(check: CheckResult) -> str:
    """Return what a student reads about a check."""
    lines = [f"Checked: {check.sentence}"] if check.sentence else []
    if check.status == "pass":
        return "\n".join(lines)
    lines.append(f"Outcome: {STATUS_WORDS[check.status]}" + (f": {check.message}" if check.message else ""))
    if check.is_note:
        lines.append("This is a note: it costs no points in this course.")
    lines += [f"A likely reason: what your code gives equals {sentence}." for sentence in check.misconceptions]
    lines += check.details
    step, command = next_step(check)
    if step:
        lines.append(f"Next: {step}")
    if command:
        lines.append(f"Then try it at home: {command}")
    if check.output.strip():
        lines += ["", "Your code printed meanwhile:", check.output.strip("\n")]
    return "\n".join(lines)


def _output_test(output: OutputResult) -> dict[str, Any]:
    """Return a test without a score for an output file."""
    yours, needed = yours_and_needed(output)
    lines = [f"Verdict: {verdict_of(output)}"]
    lines += [f"Yours: {yours}"] if yours else []
    lines += [f"Needed: {needed}"] if needed else []
    test: dict[str, Any] = {
        "name": one_line(output.name, 120),
        "output": plain("\n".join(lines), 500),
        "tags": ["outputs"],
    }
    good = output.reaches if output.present else False
    if good is not None:
        test["status"] = "passed" if good else "failed"
    return test


def _finding_tests(findings: Sequence[Finding], visibility: str) -> list[dict[str, Any]]:
    """Return a test without a score for each stage that found something."""
    tests = []
    for stage, title in STAGE_TITLES.items():
        found = [finding for finding in findings if finding.stage == stage]
        if not found:
            continue
        lines = [_finding_line(finding) for finding in found[:MOST_FINDINGS]]
        if len(found) > MOST_FINDINGS:
            lines.append(f"and {len(found) - MOST_FINDINGS} more of this kind")
        is_bad = any(finding.severity == "error" for finding in found)
        text = plain("\n".join(lines), TEXT_LIMITS[0])
        test = {"name": title, "status": "failed" if is_bad else "passed", "output": text, "tags": [stage]}
        tests.append(test | ({"visibility": visibility} if stage == "checks" else {}))
    return tests


def _finding_line(finding: Finding) -> str:
    """Return a finding as one line."""
    where = f"{finding.file}:{finding.line}: " if finding.file and finding.line else ""
    where = where or (f"{finding.file}: " if finding.file else "")
    mend = f" What to do: {finding.mend}" if finding.mend else ""
    return one_line(f"{SEVERITY_WORDS[finding.severity]}: {where}{finding.what}{mend}", 1000)


def _number(points: float) -> float:
    """Return points as a JSON number without the dust of binary fractions."""
    return round(float(points), 4)

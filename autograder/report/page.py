"""The page that a student reads: what was graded, what is wrong, what that means, and what to do next.

    write_report(result, Path("out/report.html"))

The page is one file that loads nothing and runs nothing. It shows only the fields that the views below take over from
the result, so nothing that a student should not see (the seed, for one) can slip in with a new field.
"""

import functools
import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.report.plain import one_line, plain
from autograder.report.templates import environment
from autograder.result import CheckResult, Finding, OutputResult, Result, Severity, Stage, Status
from component_checks import CHECKS
from submission_rules import FILES, SUBMISSION
from utils import write_text

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

TEMPLATES = Path(__file__).resolve().parent

# Characters of a stranger's text that the page has room for.
NAME, LINE, BLOCK = 120, 1000, 6000
MOST_DETAILS, MOST_FINDINGS = 20, 100

PLACE = re.compile(r"\(\S+\.py:\d+\)$")  # where an error was raised, at the end of its message

STATUS_WORDS: dict[Status, str] = {
    "pass": "passed",
    "fail": "wrong result",
    "error": "stopped with an error",
    "timeout": "took too long",
    "memory": "needed too much memory",
    "missing": "not written yet",
    "skipped": "waits for another check",
    "grader_error": "not judged: a fault of the grader",
}
STAGE_TITLES: dict[Stage, str] = {
    "format": "The format of your submission",
    "static": "What your code uses",
    "checks": "While the checks ran",
    "outputs": "Your output files",
    "rerun": "Running your program again",
}
SEVERITY_WORDS: dict[Severity, str] = {
    "error": "Error",
    "flag": "A person looks at this",
    "warning": "Warning",
    "note": "Note",
}


@dataclass(frozen=True)
class CheckView:
    """What the page shows of a check."""

    anchor: str
    name: str
    status: Status
    word: str
    points: str
    sentence: str
    message: str
    misconceptions: tuple[str, ...]
    details: tuple[str, ...]  # of one line
    blocks: tuple[str, ...]  # of several, such as a traceback
    output: str
    is_note: bool
    next_step: str
    command: str
    also: tuple[str, ...] = ()  # other checks that show the same, a line each


@dataclass(frozen=True)
class OutputView:
    """What the page shows of an output file: a row of a table."""

    name: str
    yours: str
    needed: str
    verdict: str
    good: bool | None


@dataclass(frozen=True)
class FindingView:
    """What the page shows of a finding."""

    word: str
    severity: Severity
    what: str
    where: str
    mend: str


def write_report(result: Result, target: Path) -> None:
    """Write the student's page to `target`. Raises MissingDependency where Jinja2 is not installed."""
    write_text(target, render(result))


def render(result: Result) -> str:
    """Return the student's page as HTML. Raises MissingDependency where Jinja2 is not installed."""
    return _template().render(page_of(result))


@functools.cache
def _template() -> "Template":
    """Return the page's template, compiled once. Raises MissingDependency where Jinja2 is not installed."""
    templates = environment(TEMPLATES, "the student's page")
    templates.filters["marked"] = _marked
    return templates.get_template("report.html")


def page_of(result: Result) -> dict[str, Any]:
    """Return all that the template is given: plain text, numbers already written out."""
    checks = [_check_view(number, check) for number, check in enumerate(result.checks, 1)]
    failed = [check for check in result.checks if check.status not in ("pass", "skipped")]
    to_mend = [check for check in failed if not check.is_note]
    return {
        "student": one_line(result.submission, NAME),
        "judged": is_judged(result),
        "letter": one_line(result.grade.letter, 10),
        "reasons": _lines(result.grade.reasons),
        "to_confirm": _lines(result.grade.to_confirm),
        "points": number_text(result.points),
        "max_points": number_text(result.max_points),
        "has_points": result.max_points > 0,
        "total": len(checks),
        "failed": len(to_mend),
        "noted": len(failed) - len(to_mend),
        "to_mend": _by_cause(to_mend, checks, result.checks),
        "notes": _by_cause([check for check in failed if check.is_note], checks, result.checks),
        "waiting": [check for check in checks if check.status == "skipped"],
        "passed": [check for check in checks if check.status == "pass"],
        "outputs": [_output_view(output) for output in result.outputs if is_worth_telling(output)],
        "stages": _stages(result.findings),
        "facts": _facts(result),
    }


def is_judged(result: Result) -> bool:
    """Say whether there is a grade at all: a fault of the grader's own is none."""
    return all(check.status != "grader_error" for check in result.checks)


def number_text(value: float) -> str:
    """Return points as a person writes them: 7, 7.5, 7.25."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def is_worth_telling(output: OutputResult) -> bool:
    """Say whether an output file belongs in a report: not if it is absent and nobody asks for it."""
    optional = {known.name for known in SUBMISSION.outputs if known.command is None}
    return output.present or output.name not in optional


def yours_and_needed(output: OutputResult) -> tuple[str, str]:
    """Return what an output file reached and what it should reach, in words; empty where nothing is known."""
    yours, needed = [], ""
    if output.accuracy is not None:
        yours.append(f"accuracy {output.accuracy:.3f}")
    if output.nats is not None:
        yours.append(f"{output.nats:.2f} nats a token")
    if output.agreement is not None:
        yours.append(f"running it again agrees on {100 * output.agreement:.1f} %")
    if output.reference is not None:
        margin = output.margin or 0.0
        needed = f"at least {output.reference - margin:.3f} (reference {output.reference:.3f}, margin {margin:g})"
    elif output.limit is not None:
        needed = f"at most {output.limit:.2f} nats a token"
    return ", ".join(yours), needed


def verdict_of(output: OutputResult) -> str:
    """Return in words what an output file is worth."""
    if not output.present:
        return "missing"
    is_text = output.nats is not None or output.limit is not None
    if output.reaches is None:
        return "nothing to compare with"
    if is_text:
        return "coherent" if output.reaches else "not coherent"
    return "reaches the reference" if output.reaches else "below the reference by more than the margin"


def next_step(check: CheckResult) -> tuple[str, str]:
    """Return what the student should do about a check that did not pass, and the command to do it with (or none)."""
    file = FILES.get(check.region, "your code")
    mended = f"In {file}, find where your code does that, and compare it with the docstring."
    closer = f"In {file}, compare one step at a time with the docstring: the shapes first, then the first values."
    steps: dict[Status, str] = {
        "missing": f"Write this part: its docstring in {file} says what it computes.",
        "fail": mended if check.misconceptions else closer,
        "error": f"The lines above say where in your code it happened. Run that part of {file} yourself and print"
        " the shapes just before that line.",
        "timeout": "Look for a loop that never ends, or for Python loops over positions where one operation on whole"
        " tensors does the same.",
        "memory": "Look at the shapes of the tensors that you make. Two that should be combined element by element and"
        " broadcast instead give one that is far larger than both.",
        "grader_error": "You need not do anything. This is no fault of your code, and it costs you nothing: the course"
        " staff has this check run again.",
    }
    text = steps.get(check.status, "")
    return text, "" if check.status in ("pass", "skipped", "grader_error") else home_command(check.region)


def home_command(region: str) -> str:
    """Return the command that runs a student's own check of a region, or none."""
    name = next((check.name for check in CHECKS if check.regions[-1] == region), None)
    return f"python sanity_check.py {shlex.quote(name)}" if name else ""


def _check_view(number: int, check: CheckResult) -> CheckView:
    """Take over what the page shows of a check."""
    details = [plain(detail, BLOCK).strip("\n") for detail in check.details[:MOST_DETAILS]]
    step, command = next_step(check)
    return CheckView(
        anchor=f"check-{number}",
        name=one_line(check.name, NAME),
        status=check.status,
        word=STATUS_WORDS[check.status],
        points=_points_text(check) if check.max_points else "",
        sentence=one_line(check.sentence, LINE),
        message=one_line(check.message, LINE),
        misconceptions=_lines(check.misconceptions),
        details=tuple(detail for detail in details if detail and "\n" not in detail),
        blocks=tuple(detail for detail in details if "\n" in detail),
        output=plain(check.output, BLOCK).strip("\n"),
        is_note=check.is_note,
        next_step=step,
        command=command,
    )


def _by_cause(
    chosen: Sequence[CheckResult], views: Sequence[CheckView], results: Sequence[CheckResult]
) -> list[CheckView]:
    """Return the views of the chosen checks, those that show one and the same cause as one."""
    first: dict[tuple[object, ...], CheckView] = {}
    for result, view in zip(results, views, strict=True):
        if result not in chosen:
            continue
        cause = _cause(result, view)
        if cause in first:
            line = " · ".join(text for text in (view.name, view.sentence, view.points) if text)
            first[cause] = replace(first[cause], also=(*first[cause].also, line))
        else:
            first[cause] = view
    return list(first.values())


def _cause(result: CheckResult, view: CheckView) -> tuple[object, ...]:
    """Return what is equal for two checks that did not pass for one and the same reason."""
    if result.status == "error" and (place := PLACE.search(result.message)):
        return (result.status, place.group())
    if result.status in ("missing", "error"):
        return (result.status, result.region, result.message)
    return (result.status, result.region, result.misconceptions or view.anchor)


def _marked(text: str) -> "Markup":
    """Return text as HTML with what stands between backticks as code; all of it is escaped."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:  # one is alone
        return escape(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if place % 2 else escape(part) for place, part in enumerate(parts))


def _points_text(check: CheckResult) -> str:
    """Return what a check gave, of what it is worth."""
    worth = number_text(check.max_points)
    return f"{number_text(check.points)} of {worth} point{'' if worth == '1' else 's'}"


def _output_view(output: OutputResult) -> OutputView:
    """Take over what the page shows of an output file."""
    yours, needed = yours_and_needed(output)
    return OutputView(
        name=one_line(output.name, NAME),
        yours=yours or "-",
        needed=needed or "-",
        verdict=verdict_of(output),
        good=output.reaches if output.present else False,
    )


def _stages(findings: Sequence[Finding]) -> list[tuple[str, list[FindingView], int]]:
    """Return, for each stage that found something, its title, its findings and how many more there are."""
    stages = []
    for stage, title in STAGE_TITLES.items():
        found = [finding for finding in findings if finding.stage == stage]
        if found:
            shown = [_finding_view(finding) for finding in found[:MOST_FINDINGS]]
            stages.append((title, shown, len(found) - len(shown)))
    return stages


def _finding_view(finding: Finding) -> FindingView:
    """Take over what the page shows of a finding."""
    where = one_line(finding.file, NAME)
    if finding.what.startswith(finding.file) and not finding.line:
        where = ""  # it names the file itself
    return FindingView(
        word=SEVERITY_WORDS[finding.severity],
        severity=finding.severity,
        what=one_line(finding.what, LINE),
        where=f"{where}:{finding.line}" if where and finding.line else where,
        mend=one_line(finding.mend, LINE),
    )


def _facts(result: Result) -> list[tuple[str, str]]:
    """Return how the submission was graded. Not the seed: instructors find it in `result.json`."""
    facts = (
        ("Edition", result.edition),
        ("Grader", result.grader),
        ("Sandbox", result.sandbox),
        ("Compared with the results of", result.checkpoint),
        ("Your submission (SHA-256, its beginning)", result.submission_sha256[:16]),
    )
    return [(name, one_line(value, LINE)) for name, value in facts if value]


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    """Return texts as lines that are safe to show."""
    return tuple(one_line(text, LINE) for text in texts)

"""From what was found to a letter, by the course's rubric, with the sentence that justifies each step.

Nothing here decides what a person should: flags of the static stage, an A+, a result that cannot be compared with
anything. Those go to `Grade.to_confirm`.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from math import sqrt

from autograder.editions import Edition
from autograder.report.plain import listed
from autograder.result import CheckResult, Finding, Grade, OutputResult
from submission_rules import FILES

UNGRADED = "ungraded"
LOWEST = "B or below"
# The parts whose tests a B+ asks for: "llama and optimizer tests pass".
CORE = tuple(region for region, file in FILES.items() if file != "classifier.py")
# One third down, each step.
BELOW = {"A": "A-", "A-": "B+", "B+": "B"}
BROKEN = ("fail", "error", "timeout", "memory")
# What costs a third of a letter: the format, and a program that does not end in time or ends in an error.
COSTLY = ("format", "rerun")
# An improvement is proposed for an A+ if it is larger than so many standard errors of the difference of two accuracies.
STANDARD_ERRORS = 2.0


def grade(
    edition: Edition,
    checks: Sequence[CheckResult],
    outputs: Sequence[OutputResult],
    findings: Sequence[Finding],
    has_report: bool,
) -> Grade:
    """Return the letter that the edition's rubric gives, why, and what a person has to confirm.

    `outputs` may hold a file twice, as it was submitted and as a rerun made it: both have to be right. A submission
    whose checks met an error of ours is not graded at all.
    """
    if ours := [check.name for check in checks if check.status == "grader_error"]:
        return Grade(UNGRADED, (f"no letter: the grader itself failed in {listed(ours)}",), ("grade it again",))
    if not checks:
        return Grade(UNGRADED, ("no letter: no check was run",), ("grade it again",))
    minor = {entry.name for entry in edition.checks.run if not (entry.letter and entry.points)}
    costly = [check for check in checks if not check.is_note and (check.status == "missing" or check.name not in minor)]
    letter, reasons, doubts = _of_checks(edition, costly)
    if letter == "A":
        letter, more, unclear = _of_outputs(edition, outputs)
        reasons, doubts = reasons + more, doubts + unclear
    if letter == "A":
        doubts += _a_plus(edition, outputs, has_report)
    lower = _third_down(edition, outputs, findings)
    if lower and letter in BELOW:
        letter, reasons = BELOW[letter], [*reasons, lower]
    elif lower:
        reasons.append(f"{lower}; the letter is the lowest that is given here already")
    doubts += [_flag(finding) for finding in findings if finding.severity == "flag"]
    return Grade(letter, tuple(reasons), tuple(doubts))


def _of_checks(edition: Edition, checks: Sequence[CheckResult]) -> tuple[str, list[str], list[str]]:
    """Return the best letter that the checks allow, the reasons, and doubts."""
    rubric = edition.rubric
    missing = _regions(check for check in checks if check.status == "missing")
    if missing:
        return LOWEST, [f"{LOWEST}: {rubric.b_or_below}: not implemented yet: {listed(missing)}"], []
    broken = [check for check in checks if check.status in BROKEN]
    core = _regions(check for check in broken if check.region in CORE)
    if core:
        return LOWEST, [f"{LOWEST}: {rubric.b_or_below}: checks of {listed(core)} do not pass"], []
    if broken:
        return "B+", [f"B+: {rubric.b_plus}, but checks of {listed(_regions(broken))} do not pass"], []
    skipped = [check.name for check in checks if check.status == "skipped"]
    doubts = [f"{listed(skipped)} could not be run: what they wait for costs nothing here"] if skipped else []
    return "A", [], doubts


def _of_outputs(edition: Edition, outputs: Sequence[OutputResult]) -> tuple[str, list[str], list[str]]:
    """Return A or A-, the reasons, and what could not be compared with anything."""
    rubric = edition.rubric
    counted = [output for output in outputs if _counts(edition, output.name)]
    known = {output.name for output in counted if output.present}
    absent = [name for name in _counted_names(edition) if name not in known]
    below = list(dict.fromkeys(output.name for output in counted if output.present and output.reaches is False))
    reasons = [f"A-: not as good as it has to be: {listed(below)} ({rubric.a_minus})"] if below else []
    if absent:
        reasons.append(f"A-: not handed in: {listed(absent)} ({rubric.a_minus})")
    open_ends = list(dict.fromkeys(output.name for output in counted if output.present and output.reaches is None))
    doubts = [f"not decided here, judge by hand: {listed(open_ends)}"] if open_ends else []
    if reasons:
        return "A-", reasons, doubts
    return "A", [f"A, if a person finds the results right: {rubric.a}" if open_ends else f"A: {rubric.a}"], doubts


def _counted_names(edition: Edition) -> list[str]:
    """Return the files that the letter depends on: the texts, and those with a margin."""
    outputs = edition.rules().outputs
    return [output.name for output in outputs if not output.labels] + list(edition.margins)


def _counts(edition: Edition, name: str) -> bool:
    """Say whether the letter depends on an output file."""
    return name in _counted_names(edition)


def _a_plus(edition: Edition, outputs: Sequence[OutputResult], has_report: bool) -> list[str]:
    """Return what a person needs to decide on an A+: nothing if there is neither a report nor an advanced output."""
    advanced = [output for output in outputs if output.name.endswith("-advanced-output.txt") and output.present]
    better = [text for output in advanced if (text := _improvement(edition, output, outputs))]
    if has_report and better:
        return [f"A+ is proposed ({edition.rubric.a_plus}): {'; '.join(better)}. Read the report"]
    if has_report:
        why = "the advanced outputs are no clear improvement" if advanced else "there are no advanced outputs"
        return [f"there is a report, but {why}: an A+ only if it is exceptionally creative ({edition.rubric.a_plus})"]
    if advanced:
        return [f"there are advanced outputs, but no report: no A+ ({edition.rubric.a_plus})"]
    return []


def _improvement(edition: Edition, advanced: OutputResult, outputs: Sequence[OutputResult]) -> str:
    """Say by how much an advanced output beats a plain one of the same data; empty if it beats none clearly."""
    rows = edition.output(advanced.name).rows
    start = advanced.name.removesuffix("advanced-output.txt")
    for method in ("finetuning", "prompting"):
        plain = next((output for output in outputs if output.name == f"{start}{method}-output.txt"), None)
        if advanced.accuracy is None or plain is None or plain.accuracy is None:
            continue
        variance = sum(share * (1 - share) / rows for share in (advanced.accuracy, plain.accuracy))
        if advanced.accuracy - plain.accuracy > STANDARD_ERRORS * sqrt(variance):
            return f"{advanced.name} has {advanced.accuracy:.3f}, {method} {plain.accuracy:.3f}"
    return ""


def _third_down(edition: Edition, outputs: Sequence[OutputResult], findings: Sequence[Finding]) -> str:
    """Return why the letter goes down by a third, once for all reasons together; empty if it does not."""
    counted = set(_counted_names(edition))  # what is wrong with these has cost an A already
    absent = {output.name for output in outputs if output.name in counted and not output.present}
    costly = [
        finding.what
        for finding in findings
        if finding.severity == "error"
        and not _only_missing(finding, absent)
        and (finding.stage in COSTLY or (finding.stage == "outputs" and finding.file not in counted))
    ]
    return f"one third down: {'; '.join(costly)} ({edition.rubric.third_down})" if costly else ""


def _only_missing(finding: Finding, absent: Collection[str]) -> bool:
    """Return whether a finding says no more than that these files are missing."""
    match = re.fullmatch(r"(.+) (is|are) missing", finding.what)
    return match is not None and set(match[1].split(", ")) <= set(absent)


def _flag(finding: Finding) -> str:
    """Return a flag as a line for the person who judges it."""
    line = f":{finding.line}" if finding.line else ""
    is_told = not finding.file or finding.what.startswith(finding.file)
    return f"{finding.stage}: {finding.what if is_told else f'{finding.file}{line}: {finding.what}'}"


def _regions(checks: Iterable[CheckResult]) -> list[str]:
    """Return the parts that checks belong to, each once, with its file."""
    regions = dict.fromkeys(check.region for check in checks)
    return [f"{region} ({FILES[region]})" if region in FILES else region for region in regions]

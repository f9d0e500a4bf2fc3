"""From findings to a letter, one row a case: pytest tests/test_rubric.py"""

from typing import Any

import pytest

from autograder.result import CheckResult, Finding, Grade, OutputResult, Severity, Stage, Status
from autograder.rubric import grade
from tests.tiny_grading import edition

EDITION = edition(
    margins={"sst-dev-finetuning-output.txt": 0.05, "sst-test-finetuning-output.txt": 0.05},
)
COUNTED = (
    "generated-sentence-temp-0.txt",
    "generated-sentence-temp-1.txt",
    "sst-dev-finetuning-output.txt",
    "sst-test-finetuning-output.txt",
)


def checks(note: bool = False, **regions: Status) -> list[CheckResult]:
    """Return one check a region: passed, but for those that are named."""
    names = ("rmsnorm", "rope", "adamw", "embedding_head", "zero_shot_head")
    return [
        CheckResult(f"check of {name}", name, regions.get(name, "pass"), 0.0, 1.0, "", is_note=note) for name in names
    ]


def outputs(reaches: bool | None = True, **changes: bool | None) -> list[OutputResult]:
    """Return the files that count; `changes` are verdicts by the first letters of a file's name, with underscores."""
    results = []
    for name in COUNTED:
        mine = [value for key, value in changes.items() if name.startswith(key.replace("_", "-"))]
        results.append(OutputResult(name, present=True, accuracy=0.41, reaches=mine[0] if mine else reaches))
    return results


def absent(*names: str) -> list[OutputResult]:
    """Return the files that count, all right but those that are not there."""
    return [
        OutputResult(name, present=name not in names, reaches=True if name not in names else None) for name in COUNTED
    ]


def finding(stage: Stage, severity: Severity, what: str = "odd", file: str = "") -> Finding:
    """Return a finding."""
    return Finding(stage, severity, what, file=file)


def advanced(accuracy: float, split: str = "dev") -> list[OutputResult]:
    """Return files that are all right, and an advanced one with this accuracy, beside plain ones of 0.41."""
    return [*outputs(), OutputResult(f"sst-{split}-advanced-output.txt", present=True, accuracy=accuracy)]


def graded(given: dict[str, Any]) -> Grade:
    """Return the grade of a submission that is all right but for what is given."""
    case: dict[str, Any] = {"checks": checks(), "outputs": outputs(), "findings": [], "has_report": False} | given
    return grade(EDITION, case["checks"], case["outputs"], case["findings"], case["has_report"])


@pytest.mark.parametrize(
    ("given", "letter", "reason"),
    [
        # --- the checks
        ({}, "A", "A: all is right"),
        ({"checks": checks(rmsnorm="missing")}, "B or below", "not implemented yet: rmsnorm (llama.py)"),
        (
            {"checks": checks(rmsnorm="missing", rope="missing", adamw="error")},
            "B or below",
            "not implemented yet: rmsnorm (llama.py) and rope (rope.py)",
        ),
        ({"checks": checks(zero_shot_head="missing")}, "B or below", "zero_shot_head (classifier.py)"),
        ({"checks": checks(rmsnorm="fail")}, "B or below", "checks of rmsnorm (llama.py) do not pass"),
        ({"checks": checks(rope="error", embedding_head="fail")}, "B or below", "checks of rope (rope.py) do not"),
        ({"checks": checks(adamw="timeout")}, "B or below", "adamw (optimizer.py)"),
        ({"checks": checks(adamw="memory")}, "B or below", "adamw (optimizer.py)"),
        ({"checks": checks(embedding_head="fail")}, "B+", "but checks of embedding_head (classifier.py) do not pass"),
        ({"checks": checks(embedding_head="fail"), "outputs": outputs(False)}, "B+", "Llama and optimizer are right"),
        ({"checks": checks(note=True, rmsnorm="fail", adamw="missing")}, "A", "A: all is right"),
        # --- the outputs
        (
            {"outputs": outputs(sst_dev=False)},
            "A-",
            "not as good as it has to be: sst-dev-finetuning-output.txt (a result",
        ),
        ({"outputs": outputs(generated=False)}, "A-", "generated-sentence-temp-0.txt and generated-sentence-temp-1"),
        (
            {"outputs": absent("sst-dev-finetuning-output.txt")},
            "A-",
            "A-: not handed in: sst-dev-finetuning-output.txt",
        ),
        (
            {"outputs": absent(*COUNTED[:2])},
            "A-",
            "not handed in: generated-sentence-temp-0.txt and generated-sentence-temp-1.txt",
        ),
        ({"outputs": []}, "A-", "not handed in: "),
        ({"outputs": outputs(None)}, "A", "A, if a person finds the results right: all is right"),
        ({"outputs": [*outputs(), *outputs(sst_dev=False)]}, "A-", "sst-dev-finetuning-output.txt"),  # a rerun
        ({"outputs": [*outputs(), OutputResult("cfimdb-test-prompting-output.txt", False)]}, "A", "A: all is right"),
        # --- one third down
        ({"findings": [finding("format", "error", "no zip")]}, "A-", "one third down: no zip (the results stand)"),
        ({"findings": [finding("format", "error", "no zip")] * 3}, "A-", "no zip; no zip; no zip"),
        ({"findings": [finding("format", "warning")]}, "A", "A: all is right"),
        ({"findings": [finding("rerun", "error", "too slow")]}, "A-", "one third down: too slow"),
        (
            {"findings": [finding("format", "error")], "outputs": outputs(sst_dev=False)},
            "B+",
            "one third down",
        ),
        ({"findings": [finding("format", "error")], "checks": checks(embedding_head="fail")}, "B", "one third down"),
        (
            {"findings": [finding("format", "error")], "checks": checks(adamw="missing")},
            "B or below",
            "the letter is the lowest that is given here already",
        ),
        # a file that counts has cost the A; another one is a matter of the format
        (
            {"findings": [finding("outputs", "error", file=COUNTED[2])], "outputs": outputs(sst_dev=False)},
            "A-",
            "not as good as it has to be",
        ),
        # a counted file that is missing costs the A and not a third more; another one is a matter of the format
        (
            {"findings": [finding("format", "error", f"{COUNTED[2]} is missing")], "outputs": absent(COUNTED[2])},
            "A-",
            "A-",
        ),
        ({"findings": [finding("format", "error", "x.txt is missing")], "outputs": absent(COUNTED[2])}, "B+", "x.txt"),
        (
            {"findings": [finding("outputs", "error", "other rows", "cfimdb-test-prompting-output.txt")]},
            "A-",
            "one third down: other rows",
        ),
        # --- what never costs anything
        ({"findings": [finding("static", "flag", "uses transformers")]}, "A", "A: all is right"),
        ({"findings": [finding("rerun", "flag"), finding("outputs", "warning")]}, "A", "A: all is right"),
        ({"has_report": True, "outputs": advanced(0.9)}, "A", "A: all is right"),
        # --- our own fault
        ({"checks": checks(rope="grader_error", adamw="missing")}, "ungraded", "the grader itself failed in check of"),
        ({"checks": checks(note=True, rope="grader_error")}, "ungraded", "the grader itself failed in check of rope"),
        ({"checks": []}, "ungraded", "no check was run"),
    ],
)
def test_each_row_gives_its_letter_and_its_reason(given: dict[str, Any], letter: str, reason: str) -> None:
    result = graded(given)
    assert result.letter == letter
    assert reason in "\n".join(result.reasons)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, None),
        ({"findings": [Finding("static", "flag", "SDPA", file="llama.py", line=7)]}, "static: llama.py:7: SDPA"),
        ({"findings": [Finding("static", "flag", "a cycle", file="llama.py")]}, "static: llama.py: a cycle"),
        ({"findings": [Finding("rerun", "flag", "x.txt differs", file="x.txt", line=3)]}, "rerun: x.txt differs"),
        ({"outputs": outputs(sst_test=None)}, "not decided here, judge by hand: sst-test-finetuning-output.txt"),
        ({"checks": checks(embedding_head="skipped")}, "check of embedding_head could not be run"),
        # an A+ is proposed: a report, and an advanced output that is clearly better than a plain one
        ({"has_report": True, "outputs": advanced(0.60)}, "A+ is proposed (an A and more): sst-dev-advanced"),
        ({"has_report": True, "outputs": advanced(0.42)}, "no clear improvement: an A+ only if it is exceptionally"),
        ({"has_report": True}, "there is a report, but there are no advanced outputs"),
        ({"has_report": False, "outputs": advanced(0.60)}, "there are advanced outputs, but no report: no A+"),
        ({"has_report": True, "outputs": [*outputs(sst_dev=False), *advanced(0.9)[-1:]]}, None),  # no A, no A+
        ({"has_report": True, "outputs": outputs(), "checks": checks(rmsnorm="fail")}, None),
    ],
)  # fmt: skip
def test_what_a_person_has_to_confirm(given: dict[str, Any], wanted: str | None) -> None:
    result = graded(given)
    if wanted is None:
        assert not result.to_confirm
    else:
        assert wanted in "\n".join(result.to_confirm)


def test_a_better_zero_shot_result_is_compared_with_prompting_where_finetuning_is_better_still() -> None:
    plain = OutputResult("sst-test-prompting-output.txt", present=True, accuracy=0.22)
    result = grade(EDITION, checks(), [*advanced(0.30, "test"), plain], [], has_report=True)
    assert "A+ is proposed" in result.to_confirm[0]
    assert "0.300, prompting 0.220" in result.to_confirm[0]


def test_every_letter_comes_with_a_reason() -> None:
    for status in ("pass", "fail", "error", "timeout", "memory", "missing", "skipped", "grader_error"):
        for region in ("rmsnorm", "embedding_head"):
            result = grade(EDITION, checks(**{region: status}), outputs(), [], has_report=False)  # type: ignore[arg-type]
            assert result.reasons
            assert result.letter in ("A", "A-", "B+", "B or below", "ungraded")


def test_checks_that_the_letter_does_not_need_cost_points_alone() -> None:
    run = [{"name": "check of rope", "points": 1.0, "letter": False}, {"name": "check of adamw", "points": 0.0}]
    course = edition(checks={"run": run})
    assert grade(course, checks(rope="fail", adamw="error"), outputs(), [], False).letter == "A"
    assert grade(course, checks(rope="missing"), outputs(), [], False).letter == "B or below"
    assert grade(course, checks(rmsnorm="fail"), outputs(), [], False).letter == "B or below"

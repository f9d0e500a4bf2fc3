"""The table of bugs: how results are sorted, what is counted, and real bugs through the real checks."""

from pathlib import Path
from typing import Any

import pytest

from autograder.editions import Edition, read_edition
from autograder.mutations import table as mutation_table
from autograder.mutations.bugs import BY_NAME, Mutation
from autograder.mutations.table import Outcome, outcome_of, render, run_mutations, summary, told, try_mutation
from autograder.result import CheckResult, Status
from errors import GraderError

ROPE = BY_NAME["rope: positions from one"]
GQA = BY_NAME["gqa: heads tiled"]
LAYER = BY_NAME["layer: norms behind"]
DIFFERENCE = "query: the largest difference is 3.1 at [0, 0]"


@pytest.fixture(scope="module")
def edition() -> Edition:
    return read_edition("minllama")


def result(name: str, status: Status, message: str = "", *misconceptions: str) -> CheckResult:
    return CheckResult(name, "", status, 0.0, 1.0, "A sentence.", message, misconceptions=misconceptions)


def test_results_are_sorted_by_what_the_checks_run() -> None:
    outcome = outcome_of(
        ROPE,
        [
            result("RMSNorm", "pass"),
            result("RoPE", "fail", DIFFERENCE, "RoPE that counts from 1"),
            result("RoPE batch", "error", "ValueError: no", "RoPE that counts from 1", "another"),
            result("hidden states", "skipped"),
            result("logits", "fail", DIFFERENCE),
            result("zero-shot", "fail", DIFFERENCE),
        ],
    )
    assert outcome == Outcome(
        ROPE,
        at_home=("RoPE", "RoPE batch"),
        beyond=("logits",),
        skipped=("hidden states",),
        strays=("zero-shot",),
        named=("RoPE that counts from 1", "another"),
        said="ValueError: no",
    )
    assert outcome.failed == ("RoPE", "RoPE batch", "logits")
    assert outcome.problems == ["logits should have been skipped", "zero-shot did not pass"]


def test_a_skipped_check_of_another_part_is_a_stray() -> None:
    assert outcome_of(ROPE, [result("RoPE", "fail"), result("AdamW 1000 steps", "skipped")]).strays == (
        "AdamW 1000 steps",
    )


def test_a_bug_that_no_component_check_finds_is_a_problem() -> None:
    assert Outcome(ROPE).problems == ["found by no check only"]
    assert Outcome(ROPE, beyond=("logits",)).problems == ["found by logits only"]
    assert Outcome(ROPE, at_home=("RoPE",), skipped=("logits",)).problems == []


def test_a_fault_of_ours_is_an_error_that_names_check_and_bug() -> None:
    with pytest.raises(GraderError, match="RoPE, with the bug 'positions from one': KeyError: 'x'"):
        outcome_of(ROPE, [result("RoPE", "grader_error", "KeyError: 'x'")])


@pytest.mark.parametrize(
    ("outcome", "text"),
    [
        (Outcome(ROPE, named=("RoPE from 1", "RoPE | 2"), said="no"), "this equals RoPE from 1; this equals RoPE | 2"),
        (Outcome(ROPE, said="ValueError: (1, 2) (rope.py:41)"), "`ValueError: (1, 2)`"),
        (Outcome(ROPE, said="query: wrong shape, expected (1, 2)"), "`query: wrong shape, expected (1, 2)`"),
        (Outcome(ROPE), "the difference only"),
    ],
)
def test_what_the_student_reads_has_no_line_numbers(outcome: Outcome, text: str) -> None:
    assert told(outcome) == text


def test_the_summary_counts_each_bug_once() -> None:
    outcomes = [
        Outcome(ROPE, at_home=("RoPE",), skipped=("hidden states", "logits"), named=("RoPE from 1",), said="an error"),
        Outcome(GQA, at_home=("GQA",), said="an error"),
        Outcome(LAYER, at_home=("layer",)),
        Outcome(LAYER),
    ]
    text = summary(outcomes)
    assert text.startswith(
        "3 of 4 bugs fail at a component check of their own part. 1 are named; 1 more raise an error"
    )
    assert "(50% together). 2 results of integration checks are skipped" in text
    assert text.endswith(f"Not as it should be:\n\n- {LAYER.what}: found by no check only")
    assert "Not as it should be" not in summary(outcomes[:3])


def test_the_table_has_a_row_for_each_bug_under_its_part() -> None:
    lines = render(
        [Outcome(ROPE, at_home=("RoPE", "RoPE batch"), named=("a | b",)), Outcome(GQA, said="an error")], "mine"
    ).splitlines()
    assert "the edition mine" in " ".join(lines)
    rope, gqa = lines.index("## rope"), lines.index("## gqa")
    assert lines[rope + 4] == f"| {ROPE.what} | RoPE, RoPE batch | this equals a \\| b |"
    assert lines[gqa + 4] == f"| {GQA.what} | nothing | `an error` |"


@pytest.mark.parametrize(("at_home", "status"), [(("RoPE",), 0), ((), 1)])
def test_the_status_says_whether_every_bug_was_noticed(
    at_home: tuple[str, ...],
    status: int,
    edition: Edition,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tried: list[Mutation] = []

    def note(mutation: Mutation, *_: Any) -> Outcome:
        tried.append(mutation)
        return Outcome(mutation, at_home=at_home)

    monkeypatch.setattr(mutation_table, "try_mutation", note)
    assert run_mutations(edition, "none", tmp_path / "table.md", ["rope: p", "gqa: heads tiled"]) == status
    assert [mutation.name for mutation in tried] == ["positions from one", "pairs not joined", "heads tiled"]
    assert "rope: positions from one: " in capsys.readouterr().out
    written = (tmp_path / "table.md").read_text("utf-8")
    assert run_mutations(edition, "none", None, ["rope: p", "gqa: heads tiled"]) == status
    assert capsys.readouterr().out.endswith(written)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("rope: positions from one", True),
        ("attention: next token seen", True),
        ("gqa: reshaped instead of repeated", False),
        ("adamw: decay in the gradient", True),
        ("zero_shot_head: first token only", True),
    ],
)
def test_a_bug_fails_at_the_checks_of_its_part_and_nowhere_else(name: str, named: bool, edition: Edition) -> None:
    outcome = try_mutation(BY_NAME[name], edition, "none")
    assert outcome.problems == []
    assert bool(outcome.named) == named
    assert named or outcome.said.startswith("RuntimeError: shape ")

"""The table of bugs: how results are sorted, what is counted, and real bugs through the real checks."""

from pathlib import Path
from typing import Any

import pytest

from autograder.editions import Edition, read_edition
from autograder.misconceptions import MISCONCEPTIONS
from autograder.mutations import table as mutation_table
from autograder.mutations.bugs import BY_NAME, MUTATIONS, Mutation
from autograder.mutations.table import (
    LEARNT_FROM_BUGS,
    Outcome,
    figures,
    learnt_sentences,
    outcome_of,
    render,
    run_mutations,
    told,
    try_mutation,
)
from autograder.result import CheckResult, Status
from errors import GraderError

ROPE = BY_NAME["rope: positions from one"]
GQA = BY_NAME["gqa: heads tiled"]
LAYER = BY_NAME["layer: norms behind"]
TABLE = Path(mutation_table.__file__).parent / "MUTATIONS.md"
LATER = next(entry for entry in MISCONCEPTIONS if entry.name == "rope.pairs_apart").sentence
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
            result("RoPE lengths", "fail", "key: wrong shape, expected (1, 2), got (2, 1)"),
            result("RoPE batch", "error", "ValueError: no (rope.py:41)", "RoPE that counts from 1", "another"),
            result("hidden states", "skipped"),
            result("logits", "fail", DIFFERENCE),
            result("zero-shot", "fail", DIFFERENCE),
        ],
    )
    assert outcome == Outcome(
        ROPE,
        at_home=("RoPE", "RoPE lengths", "RoPE batch"),
        beyond=("logits",),
        skipped=("hidden states",),
        strays=("zero-shot",),
        named=("RoPE that counts from 1", "another"),
        error="ValueError: no (rope.py:41)",
        malformed="key: wrong shape, expected (1, 2), got (2, 1)",
    )
    assert outcome.failed == ("RoPE", "RoPE lengths", "RoPE batch", "logits")
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
    "message",
    [DIFFERENCE, "share of zeros: expected 0.3, got 0.5", "tokens drawn: after prompt 0, token 1 has the share 0.2"],
)
def test_a_difference_in_numbers_is_no_error(message: str) -> None:
    outcome = outcome_of(ROPE, [result("RoPE", "fail", message)])
    assert (outcome.error, outcome.malformed, outcome.told_by) == ("", "", "difference")


def test_an_error_without_a_line_of_the_submission_tells_nothing() -> None:
    assert outcome_of(ROPE, [result("RoPE", "error", "RuntimeError: somewhere (in torch)")]).error == ""


@pytest.mark.parametrize(
    ("outcome", "by", "text"),
    [
        (
            Outcome(ROPE, named=("RoPE from 1", "RoPE | 2"), error="ValueError: no (rope.py:41)"),
            "name",
            "this equals RoPE from 1; this equals RoPE | 2",
        ),
        (Outcome(ROPE, error="ValueError: `(1, 2)` (rope.py:41)"), "error", "`ValueError: '(1, 2)' (rope.py)`"),
        (
            Outcome(ROPE, malformed="query: wrong shape, expected (1, 2)"),
            "malformed",
            "`query: wrong shape, expected (1, 2)`",
        ),
        (Outcome(ROPE), "difference", "nothing"),
    ],
)
def test_what_the_student_reads_has_no_line_numbers(outcome: Outcome, by: str, text: str) -> None:
    assert outcome.told_by == by
    assert told(outcome) == text


def test_the_figures_count_each_bug_once() -> None:
    outcomes = [
        Outcome(
            ROPE, at_home=("RoPE",), skipped=("hidden states", "logits"), named=(LATER,), error="E: no (rope.py:1)"
        ),
        Outcome(ROPE, at_home=("RoPE",), strays=("GQA",), named=(LATER, "RoPE from 1")),
        Outcome(GQA, at_home=("GQA",), error="E: no (llama.py:1)", malformed="key: wrong shape"),
        Outcome(GQA, at_home=("GQA",), malformed="key: wrong shape"),
        Outcome(LAYER),
    ]
    assert list(dict(figures(outcomes)).values()) == [
        "5",
        "4 of 5 (80%)",
        "2 of 5 (40%)",
        "2 of 4 (50%)",
        "1 of 5 (20%)",
        "3 of 5 (60%)",
        "1 of 5 (20%)",
        "1 of 5 (20%)",
        "1 of 5 (20%)",
        "1",
        "2",
    ]
    assert figures([])[1][1] == "0 of 0 (0%)"


def test_what_was_named_before_does_without_the_misconceptions_that_came_later() -> None:
    assert len(learnt_sentences()) == len(LEARNT_FROM_BUGS)
    assert not Outcome(ROPE).was_named_before
    assert not Outcome(ROPE, named=(LATER,)).was_named_before
    assert Outcome(ROPE, named=(LATER, "RoPE from 1")).was_named_before


def test_the_table_has_a_row_for_each_bug() -> None:
    outcomes = [Outcome(ROPE, at_home=("RoPE", "RoPE batch"), named=("a | b",)), Outcome(GQA, malformed="no tensor")]
    text = render(outcomes, "mine")
    assert "the edition mine" in text
    assert text.endswith(
        f"\n\nNot as it should be: {GQA.what}: found by no check only.\n\n"
        "| part | bug | fails first at | what the student reads beyond the difference in numbers |\n|---|---|---|---|\n"
        f"| rope | {ROPE.what} | RoPE | this equals a \\| b |\n"
        f"| gqa | {GQA.what} | nothing | `no tensor` |\n"
    )
    assert "Not as it should be" not in render(outcomes[:1], "mine")


def test_the_table_in_the_documents_is_of_these_bugs_and_misconceptions() -> None:
    again = "run python -m autograder mutations -o autograder/mutations/MUTATIONS.md"
    rows = [line.split(" | ") for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    bugs = [row for row in rows if len(row) == 4][1:]
    assert [(row[0][2:], row[1]) for row in bugs] == [(bug.region, bug.what) for bug in MUTATIONS], again
    sentences = {entry.sentence for entry in MISCONCEPTIONS}
    for *_, last in bugs:
        if last.startswith("this equals "):
            assert {part.removeprefix("this equals ") for part in last[:-2].split("; this equals ")} <= sentences, again


def test_the_table_in_the_documents_shows_what_is_asked_for() -> None:
    rows = [line.strip("| ").split(" | ") for line in TABLE.read_text("utf-8").splitlines() if line.startswith("| ")]
    shown = {name: figure for name, figure, *rest in (row for row in rows if len(row) == 2) if not rest}
    assert shown["caught by a component check of their own part"].endswith("(100%)")
    assert int(shown["named, or told by such an error"].split()[0]) >= 0.9 * len(MUTATIONS)
    assert shown["component checks of other parts that did not pass"] == "0"
    assert "Not as it should be" not in TABLE.read_text("utf-8")


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
    assert named or outcome.error.startswith("RuntimeError: shape ")

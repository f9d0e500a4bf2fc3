"""The judge: what each way for a check to end means, what it is worth, and what waits for what."""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import ModuleType
from unittest import mock

import pytest
import torch

from autograder.checks.hidden import CHECKS, Course, checks_for, prepare
from autograder.editions import Edition, read_edition
from autograder.grade import seed_for
from autograder.isolation.sandbox import Call, Failure, Reply
from autograder.judge import assert_master, check_named, explain, judge_checks
from autograder.misconceptions import MISCONCEPTIONS, applied
from autograder.sandboxed.calls import CALLS
from errors import GraderError, UsageError

SEED = seed_for("a secret", "0" * 64)
RMSNORM = next(check for check in CHECKS if check.name == "RMSNorm")


def master(call: Call) -> Reply:
    return Reply("ok", dict(CALLS[call.name](call.case)), printed="hello")


@dataclass
class FakeSandbox:
    """Answers each call as `answer` says, in this process."""

    answer: Callable[[Call], Reply] = master
    together: Callable[[Call], Reply | None] = lambda call: None
    asked: list[str] = field(default_factory=list)

    def call_all(self, calls: Sequence[Call], seconds: float) -> list[Reply | None]:
        return [self.together(call) for call in calls]

    def call(self, call: Call) -> Reply:
        self.asked.append(call.name)
        return self.answer(call)


def with_misconception(name: str) -> Callable[[Call], Reply]:
    wrong = next(entry for entry in MISCONCEPTIONS if entry.name == name)

    def answer(call: Call) -> Reply:
        with applied(wrong):
            return master(call)

    return answer


@pytest.fixture(scope="module")
def minllama() -> Edition:
    return read_edition("minllama")


def statuses(sandbox: FakeSandbox, edition: Edition) -> dict[str, str]:
    return {timed.result.name: timed.result.status for timed in judge_checks(sandbox, edition, SEED)}  # type: ignore[arg-type]


def test_the_master_passes_everything_and_gets_all_points(minllama: Edition) -> None:
    results = [timed.result for timed in judge_checks(FakeSandbox(), minllama, SEED)]  # type: ignore[arg-type]
    assert {result.status for result in results} == {"pass"}
    assert sum(result.points for result in results) == sum(result.max_points for result in results) == 100
    assert {result.output for result in results} == {"hello"}


def test_what_is_right_in_company_is_not_asked_for_again(minllama: Edition) -> None:
    sandbox = FakeSandbox(together=master)
    assert set(statuses(sandbox, minllama).values()) == {"pass"}
    assert sandbox.asked == []


def test_what_is_wrong_in_company_or_has_no_reply_is_judged_alone(minllama: Edition) -> None:
    wrong = with_misconception("rope.halves")
    sandbox = FakeSandbox(together=lambda call: wrong(call) if call.name != "swiglu" else None)
    assert set(statuses(sandbox, minllama).values()) == {"pass"}
    assert {"rope", "hidden_states"} <= set(sandbox.asked) and "rms_norm" not in sandbox.asked


def test_a_round_in_company_that_fails_costs_nothing(minllama: Edition) -> None:
    def broken(call: Call) -> Reply:
        raise GraderError("the sandbox does not start")

    assert set(statuses(FakeSandbox(together=broken), minllama).values()) == {"pass"}


def test_one_mistake_fails_its_own_checks_is_named_and_what_builds_on_it_is_skipped(minllama: Edition) -> None:
    sandbox = FakeSandbox(with_misconception("rope.halves"))
    results = {timed.result.name: timed.result for timed in judge_checks(sandbox, minllama, SEED)}  # type: ignore[arg-type]
    assert results["RoPE"].status == "fail"
    assert results["RoPE"].misconceptions == ("RoPE that rotates halves instead of adjacent pairs",)
    assert results["RoPE"].points == 0 < results["RoPE"].max_points
    integration = [check.name for check in checks_for(Course(True)) if check.needs and "rope" in check.regions]
    assert {name: results[name].status for name in integration} == dict.fromkeys(integration, "skipped")
    assert results["hidden states"].message == "needs RoPE, which did not pass"
    assert {
        result.status for result in results.values() if result.region != "rope" and result.name not in integration
    } == {"pass"}
    assert "hidden_states" not in sandbox.asked


def test_a_name_that_another_check_of_the_part_contradicts_is_not_given(minllama: Edition) -> None:
    halves = with_misconception("rope.halves")

    def answer(call: Call) -> Reply:
        """Rotate halves in one check and right in the others: no misconception does that."""
        return halves(call) if call.name == "rope" and call.case.inputs["query"].shape[0] > 1 else master(call)

    results = {timed.result.name: timed.result for timed in judge_checks(FakeSandbox(answer), minllama, SEED)}  # type: ignore[arg-type]
    assert (results["RoPE"].status, results["RoPE lengths"].status) == ("fail", "pass")
    assert results["RoPE"].misconceptions == ()
    assert "the largest difference is" in results["RoPE"].message


def test_a_name_that_most_checks_show_is_given_though_one_contradicts_it(minllama: Edition) -> None:
    """Angles that grow instead of falling are so large that float32 gives every implementation its own."""

    def answer(call: Call) -> Reply:
        with mock.patch("rope.apply_rotary_emb", growing_angles):
            return master(call)

    results = {timed.result.name: timed.result for timed in judge_checks(FakeSandbox(answer), minllama, SEED)}  # type: ignore[arg-type]
    assert results["RoPE"].misconceptions == ("RoPE with a positive exponent: theta^(2i / head_dim)",)


def growing_angles(
    query: torch.Tensor, key: torch.Tensor, head_dim: int, max_seq_len: int, theta: float = 10000.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn by m · theta^(2i / head_dim), by complex numbers."""
    angle = torch.outer(torch.arange(query.shape[1]), theta ** (torch.arange(0, head_dim, 2) / head_dim))
    turn = torch.polar(torch.ones_like(angle), angle).view(1, len(angle), 1, -1)
    pairs = (torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2)) for x in (query, key))
    first, second = (torch.view_as_real(pair * turn).flatten(-2) for pair in pairs)
    return first, second


def test_skipped_checks_are_worth_the_editions_share(minllama: Edition) -> None:
    checks = minllama.checks.model_copy(update={"skipped_share": 0.5})
    edition = minllama.model_copy(update={"checks": checks})
    results = [timed.result for timed in judge_checks(FakeSandbox(with_misconception("rope.halves")), edition, SEED)]  # type: ignore[arg-type]
    for result in results:
        assert result.points == {"pass": 1.0, "skipped": 0.5}.get(result.status, 0.0) * result.max_points


def test_where_the_deciding_checks_pass_everything_else_is_a_note() -> None:
    edition = read_edition("nlp244")

    def answer(call: Call) -> Reply:
        return Reply("timeout") if call.name == "rms_norm_dtypes" else master(call)

    results = {timed.result.name: timed.result for timed in judge_checks(FakeSandbox(answer), edition, SEED)}  # type: ignore[arg-type]
    note = results["RMSNorm dtype"]
    assert (note.status, note.is_note, note.points) == ("timeout", True, note.max_points)
    assert sum(result.points for result in results.values()) == 100


def test_what_the_tests_of_2024_let_pass_costs_nothing_in_that_course() -> None:
    edition = read_edition("nlp244")
    sandbox = FakeSandbox(with_misconception("adamw.decay_before"))
    results = {timed.result.name: timed.result for timed in judge_checks(sandbox, edition, SEED)}  # type: ignore[arg-type]
    assert results["AdamW as in 2024"].status == "pass"
    assert (results["AdamW weight decay"].status, results["AdamW weight decay"].is_note) == ("fail", True)
    assert sum(result.points for result in results.values()) == 100


def test_where_a_deciding_check_fails_nothing_is_a_note() -> None:
    edition = read_edition("nlp244")
    sandbox = FakeSandbox(with_misconception("rope.halves"))
    results = [timed.result for timed in judge_checks(sandbox, edition, SEED)]  # type: ignore[arg-type]
    assert not any(result.is_note for result in results)
    assert not any(result.status == "skipped" for result in results)  # here they run all the same
    assert {result.name for result in results if result.status == "fail"} >= {"RoPE", "hidden states", "logits"}


def test_a_fault_of_the_sandbox_is_ours(minllama: Edition) -> None:
    def answer(call: Call) -> Reply:
        raise GraderError("no room for it")

    results = [timed.result for timed in judge_checks(FakeSandbox(answer), minllama, SEED)]  # type: ignore[arg-type]
    assert {(result.status, result.points) for result in results if result.status != "skipped"} == {
        ("grader_error", 0.0)
    }
    assert results[0].message == "GraderError: no room for it"


@pytest.mark.parametrize("reply", [Reply("timeout"), Reply("crash", lost=True)], ids=["timeout", "lost"])
def test_after_three_checks_that_hang_the_others_of_their_file_are_not_tried(reply: Reply, minllama: Edition) -> None:
    def answer(call: Call) -> Reply:
        return reply if call.name.startswith(("rms_norm", "rope")) else master(call)

    sandbox = FakeSandbox(answer)
    results = {timed.result.name: timed.result for timed in judge_checks(sandbox, minllama, SEED)}  # type: ignore[arg-type]
    assert sum(name.startswith("rms_norm") for name in sandbox.asked) == 3
    assert sum(name.startswith("rope") for name in sandbox.asked) == 3  # of four
    tired = results["attention"]  # of the file whose first three checks hang
    assert tired.status == "timeout"
    assert tired.message == (
        "not tried: RMSNorm, RMSNorm dtype and RMSNorm scale ran out of time or ended the sandbox (llama.py)"
    )
    assert results["AdamW"].status == "pass"


def test_after_the_deadline_no_check_is_begun(minllama: Edition) -> None:
    sandbox = FakeSandbox()
    results = [timed.result for timed in judge_checks(sandbox, minllama, SEED, time.monotonic() - 1)]  # type: ignore[arg-type]
    assert sandbox.asked == []
    assert {(result.status, result.points) for result in results if not result.message.startswith("needs")} == {
        ("timeout", 0.0)
    }


def failure(kind: str, message: str = "", file: str = "llama.py", *, raised: bool = False) -> Reply:
    return Reply("error", failure=Failure(kind, message, file, 7, "RMSNorm._norm", raised, False, "the traceback"))


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (failure("NotImplementedError", raised=True), "missing", "not implemented yet: llama.py, RMSNorm._norm"),
        (failure("NotImplementedError"), "error", "NotImplementedError (llama.py:7)"),
        (failure("ValueError", "no"), "error", "ValueError: no (llama.py:7)"),
        (failure("ModuleNotFoundError", "No module named 'llama'", ""), "missing", "llama.py is not in the submission"),
        (
            failure("ModuleNotFoundError", "No module named 'pandas'", ""),
            "error",
            "ModuleNotFoundError: No module named 'pandas'",
        ),
        (
            failure("AttributeError", "module 'llama' has no attribute 'RMSNorm'", ""),
            "missing",
            "it is not there: module 'llama' has no attribute 'RMSNorm'",
        ),
        (failure("SystemExit", "0"), "error", "SystemExit: 0 (llama.py:7)"),
        (Reply("timeout"), "timeout", "it was stopped after 10 seconds: is there a loop that never ends?"),
        (
            Reply("memory"),
            "memory",
            "it asked for more memory than it may have: look for tensors that grow, and their shapes",
        ),
        (Reply("crash", exit_status=-11), "error", "the process that ran it was killed by signal 11"),
        (Reply("crash", exit_status=3), "error", "the process that ran it ended itself with status 3"),
        (Reply("crash"), "error", "the process that ran it ended without an answer"),
        (Reply("crash", exit_status=-9, lost=True), "error", "it ended the sandbox that it ran in"),
        (Reply("ok", {"_norm(x)": "NoneType"}), "fail", None),
        (Reply("ok"), "fail", None),
    ],
)
def test_each_way_to_end_has_a_status_and_a_sentence(reply: Reply, status: str, message: str | None) -> None:
    result = explain(RMSNORM, prepare(RMSNORM, bytes.fromhex(SEED), Course(True)), reply)
    assert result.status == status
    if message is not None:
        assert result.message == message
    assert result.sentence == RMSNORM.sentence
    assert result.details[0].startswith("called RMSNorm(dim=")


def test_the_seed_needs_the_secret_and_the_submission() -> None:
    assert seed_for("a", "0") == seed_for("a", "0")
    assert len({seed_for("a", "0"), seed_for("b", "0"), seed_for("a", "1")}) == 3
    assert len(bytes.fromhex(seed_for("a", "0"))) == 32


def test_a_judge_that_imported_the_students_files_refuses_to_work(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_master()
    theirs = ModuleType("llama")
    theirs.__file__ = "/tmp/submission/llama.py"
    monkeypatch.setitem(sys.modules, "llama", theirs)
    with pytest.raises(GraderError, match="llama was imported from /tmp/submission/llama.py, not from"):
        assert_master()


def test_an_unknown_check_is_named(minllama: Edition) -> None:
    with pytest.raises(UsageError, match="edition minllama has no check 'Rope': choose from RMSNorm, "):
        check_named("Rope", minllama)
    run = (*minllama.checks.run, minllama.checks.run[0].model_copy(update={"name": "Rope"}))
    edition = minllama.model_copy(update={"checks": minllama.checks.model_copy(update={"run": run})})
    with pytest.raises(UsageError, match="edition minllama: no check is called Rope"):
        statuses(FakeSandbox(), edition)

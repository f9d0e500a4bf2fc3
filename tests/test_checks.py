"""The hidden checks: the master passes, each misconception is caught and named, and chance fails nobody."""

import ast
import functools
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from scipy import stats  # type: ignore[import-untyped]  # comes with scikit-learn
from torch import nn

import classifier
import llama
import optimizer
from autograder.checks import drawn, measures
from autograder.checks import hidden as checks
from autograder.checks.cases import Course, Draws
from autograder.checks.hidden import CHECKS, HiddenCheck, Prepared, Verdict, checks_for, compare, prepare
from autograder.misconceptions import MISCONCEPTIONS, Misconception, applied
from autograder.sandboxed.calls import CALLS
from checking import distance
from component_checks import Case, Outputs, raw_outputs
from submission_rules import FILES

ROOT = Path(__file__).resolve().parent.parent
CAUSAL, PLAIN = Course(), Course(causal=False)
SEEDS = (b"one", b"two", b"three")
COMPONENTS = [check for check in CHECKS if not check.needs]
RANDOM = ("attention dropout", "classifier dropout", "sampled generation")
# Where nothing is masked or padded, and each label is one token, these mistakes change nothing.
NO_MISTAKE_2024 = {
    *(entry.name for entry in MISCONCEPTIONS if entry.name.startswith("attention.") and "bias" in entry.name),
    *("attention.no_mask", "attention.hides_itself", "attention.hides_itself_finitely", "attention.sees_the_next"),
    *("attention.mask_transposed", "attention.mask_of_zeros", "attention.masked_after_softmax"),
    *("embedding_head.last_column", "embedding_head.one_behind", "embedding_head.counted"),
    *("embedding_head.first_pad", "embedding_head.zero_is_padding"),
    *("zero_shot_head.first_label_token", "zero_shot_head.last_label_token", "zero_shot_head.at_one_position"),
    *("zero_shot_head.per_token", "zero_shot_head.product", "zero_shot_head.last_column_score"),
}


@functools.cache
def made(name: str, seed: bytes = b"one", course: Course = CAUSAL) -> Prepared:
    """Prepare a check with the right code in place."""
    return prepare(check_called(name), seed, course)


def check_called(name: str) -> HiddenCheck:
    return next(check for check in CHECKS if check.name == name)


def verdict_on(check: HiddenCheck, prepared: Prepared, outputs: Outputs) -> Verdict:
    """Compare without naming misconceptions, which takes longer."""
    return compare(replace(check, regions=()), prepared, outputs)


def outputs_under(check: HiddenCheck, prepared: Prepared, misconception: Misconception) -> Outputs | None:
    with applied(misconception):
        return checks._attempt(lambda: CALLS[check.call](prepared.case))


def apart(check: HiddenCheck, prepared: Prepared, one: Outputs | None, two: Outputs | None) -> float:
    """Return how far apart two raw outputs lie, in tolerances; None stands for an error."""
    if one is None or two is None:
        return 0.0 if one is two else float("inf")
    if checks.malformed_outputs(one, two):
        return float("inf")
    pair = [checks.measured(check, prepared.case, raw) for raw in (one, two)]
    if check.draws_tokens:
        tables = [measures.chi_squared(pair[0][name], pair[1][name]) for name in pair[0]]
        limit = measures.largest_by_chance(sum(freedom for _, freedom in tables))
        return sum(statistic for statistic, _ in tables) / limit
    return min(distance(pair[0], pair[1], prepared.tolerances), distance(pair[1], pair[0], prepared.tolerances))


# --- the master, and the list ---


@pytest.mark.parametrize("seed", SEEDS, ids=bytes.decode)
@pytest.mark.parametrize("course", [CAUSAL, PLAIN], ids=["causal", "2024"])
def test_master_passes_every_check(course: Course, seed: bytes) -> None:
    for check in checks_for(course):
        prepared = made(check.name, seed, course)
        assert compare(check, prepared, CALLS[check.call](prepared.case)) == Verdict(True), check.name


def test_list_is_in_order_and_uses_every_call() -> None:
    names = [check.name for check in CHECKS]
    assert len(set(names)) == len(names) >= 35
    for i, check in enumerate(CHECKS):
        assert set(check.needs) <= set(names[:i])
        assert check.sentence.endswith(".")
        assert (ROOT / check.file).is_file()
        assert 0 < check.seconds <= 30
    assert {check.call for check in CHECKS} == set(CALLS)
    assert {check.region for check in COMPONENTS} == {*FILES, "given"}


def test_without_a_mask_no_check_asks_for_one() -> None:
    left_out = {check.name for check in CHECKS} - {check.name for check in checks_for(PLAIN)}
    assert left_out == {"causal mask", "attention bias", "causality"}
    for check in checks_for(PLAIN):
        assert prepare(check, b"one", PLAIN).case.settings.get("config", {}).get("causal", False) is False, check.name


@pytest.mark.parametrize("course", [CAUSAL, PLAIN], ids=["causal", "2024"])
def test_inputs_depend_on_the_seed_alone_and_survive_json(course: Course) -> None:
    fixed = {"AdamW sparse gradient"}  # the same outcome for all inputs
    for check in checks_for(course):
        one, other = (made(check.name, seed, course) for seed in (b"one", b"two"))
        again = prepare(check, b"one", course)
        assert same_case(one.case, again.case), check.name
        assert not same_case(one.case, other.case), check.name
        if check.name not in fixed:
            assert distance(one.raw, other.raw, dict.fromkeys(one.raw, (1e-5, 1e-3))) > 1.0, check.name
        assert json.loads(json.dumps(one.case.settings)) == one.case.settings, check.name
        for tensor in (*one.case.inputs.values(), *one.case.weights.values(), *one.raw.values()):
            assert type(tensor) in (torch.Tensor, nn.Parameter), check.name
            assert not tensor.requires_grad, check.name
            assert torch.isfinite(tensor).all(), check.name
        assert one.raw_bytes < 2_000_000, check.name


def same_case(one: Case, two: Case) -> bool:
    if one.settings != two.settings:
        return False
    tensors = [
        case.inputs | {f"weights {name}": weight for name, weight in case.weights.items()} for case in (one, two)
    ]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(tensors[0][name], tensors[1][name]) for name in tensors[0]
    )


def test_checks_of_one_seed_share_no_random_numbers() -> None:
    assert not torch.equal(Draws.of(b"seed", "one").normal(5), Draws.of(b"seed", "two").normal(5))


def test_what_runs_in_the_sandbox_imports_nothing_of_the_judge() -> None:
    tree = ast.parse((ROOT / "autograder/sandboxed/calls.py").read_text("utf-8"))
    imported = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert {name.split(".")[0] for name in imported} <= {"torch", "component_checks", *sys.stdlib_module_names}


# --- misconceptions ---


@pytest.mark.parametrize("region", FILES)
def test_each_misconception_is_caught_and_no_two_look_alike(region: str) -> None:
    assert_told_apart(region, b"one", CAUSAL, missed=set())


@pytest.mark.slow
@pytest.mark.parametrize("region", FILES)
def test_each_misconception_is_caught_for_other_seeds_too(region: str) -> None:
    for number in range(12):
        assert_told_apart(region, f"other {number}".encode(), CAUSAL, missed=set())


@pytest.mark.slow
@pytest.mark.parametrize("region", FILES)
def test_in_2024_only_mistakes_about_masks_padding_and_long_labels_pass(region: str) -> None:
    missed = {entry.name for entry in MISCONCEPTIONS if entry.region == region} & NO_MISTAKE_2024
    for seed in SEEDS:
        assert_told_apart(region, seed, PLAIN, missed)


def assert_told_apart(region: str, seed: bytes, course: Course, missed: set[str]) -> None:
    """Fail unless every pair of a region's outputs differs clearly in some check, but those that are right then."""
    entries = [entry for entry in MISCONCEPTIONS if entry.region == region]
    furthest: dict[tuple[str, str], float] = {}
    caught, named = set(), set()
    for check in checks_for(course):
        if check.regions == (region,) and not check.needs:
            prepared = prepare(check, seed, course)
            outputs = {entry.name: outputs_under(check, prepared, entry) for entry in entries}
            for name, out in outputs.items():
                if out is None or not verdict_on(check, prepared, out).passed:
                    caught.add(name)
            everything = {"expected": prepared.raw} | outputs
            far = {
                pair: apart(check, prepared, everything[pair[0]], everything[pair[1]])
                for pair in itertools.combinations(everything, 2)
            }
            for pair, distance_of_pair in far.items():
                asked = 2.0 if check.name in RANDOM else 5.0
                furthest[pair] = max(distance_of_pair / asked, furthest.get(pair, 0.0))
            named |= {name for name in outputs if all(far[pair] > 1.0 for pair in far if name in pair)}
    assert {entry.name for entry in entries} - caught == missed
    if course.causal:
        assert not {pair: far for pair, far in furthest.items() if far < 1.0}
        assert named == caught  # each is the only one that gives its output, in some check


@pytest.mark.parametrize("region", FILES)
def test_last_misconception_of_a_region_is_named_alone_somewhere(region: str) -> None:
    assert_named([entry for entry in MISCONCEPTIONS if entry.region == region][-1])


@pytest.mark.slow
@pytest.mark.parametrize("entry", MISCONCEPTIONS, ids=lambda entry: entry.name)
def test_each_misconception_is_named_alone_somewhere(entry: Misconception) -> None:
    assert_named(entry)


def assert_named(entry: Misconception) -> None:
    named = []
    for check in COMPONENTS:
        if check.regions == (entry.region,):
            prepared = made(check.name)
            outputs = outputs_under(check, prepared, entry)
            assert outputs is not None
            verdict = compare(check, prepared, outputs)
            assert verdict.passed or entry.sentence in verdict.misconceptions
            named.append(verdict.misconceptions)
            if verdict.misconceptions == (entry.sentence,):
                return
    pytest.fail(f"{entry.name} is never named alone: {named}")


@pytest.mark.parametrize("region", FILES)
def test_a_mistake_in_one_part_leaves_the_components_of_others_alone(region: str) -> None:
    first = next(entry for entry in MISCONCEPTIONS if entry.region == region)
    assert_others_pass(first)


@pytest.mark.slow
@pytest.mark.parametrize("entry", MISCONCEPTIONS, ids=lambda entry: entry.name)
def test_no_mistake_changes_the_components_of_other_parts(entry: Misconception) -> None:
    assert_others_pass(entry)


def assert_others_pass(entry: Misconception) -> None:
    for check in COMPONENTS:
        if entry.region not in check.regions:
            prepared = made(check.name)
            outputs = outputs_under(check, prepared, entry)
            assert outputs is not None, check.name
            assert verdict_on(check, prepared, outputs).passed, check.name


# --- mistakes that are no variants of a region ---


@contextmanager
def replaced(target: object, name: str, value: object) -> Iterator[None]:
    with mock.patch.object(target, name, value):
        yield


def ask(name: str, course: Course = CAUSAL) -> Verdict:
    """Compare what the code gives that is in place now with what the right code gave."""
    check, prepared = check_called(name), made(name, b"one", course)
    return verdict_on(check, prepared, CALLS[check.call](prepared.case))


@pytest.fixture(scope="module", autouse=True)
def prepared_with_the_right_code() -> None:
    """Prepare what `ask` asks for before anything is replaced."""
    for check in CHECKS:
        made(check.name)
    made("classifier log-probabilities", b"one", PLAIN)


RIGHT_FORWARD = classifier.LlamaEmbeddingClassifier.forward


def test_a_model_that_sees_the_future_fails_causality() -> None:
    unmasked = next(entry for entry in MISCONCEPTIONS if entry.name == "attention.no_mask")
    with applied(unmasked):
        verdict = ask("causality")
    assert not verdict.passed
    assert verdict.message.startswith("hidden states before the change, how far they moved: the largest difference is")


def test_a_model_that_mixes_rows_fails() -> None:
    check = check_called("batch rows")
    prepared = made(check.name)
    mixed = prepared.raw | {"hidden states": prepared.raw["hidden states"].roll(1, dims=0)}
    assert verdict_on(check, prepared, mixed).message.startswith("the batch's, minus those: ")


def dense_step(self: Any, closure: Any = None) -> None:
    """Take a sparse gradient for a dense one, and never look at the closure."""
    for group in self.param_groups:
        for p in group["params"]:
            p.data.sub_(group["lr"] * p.grad.to_dense())


def test_sparse_gradient_that_raises_nothing_fails() -> None:
    with replaced(optimizer.AdamW, "step", dense_step):
        verdict = ask("AdamW sparse gradient")
    assert verdict.message.endswith("2: another error): expected 1, got 0")


def test_sparse_gradient_that_raises_another_error_fails() -> None:
    def step(self: Any, closure: Any = None) -> None:
        raise ValueError

    with replaced(optimizer.AdamW, "step", step):
        assert ask("AdamW sparse gradient").message.endswith("2: another error): expected 1, got 2")


def test_step_that_is_not_written_yet_says_so_for_a_sparse_gradient_too() -> None:
    def step(self: Any, closure: Any = None) -> None:
        raise NotImplementedError

    with replaced(optimizer.AdamW, "step", step), pytest.raises(NotImplementedError):
        ask("AdamW sparse gradient")


RIGHT_STEP: Callable[..., Any] = optimizer.AdamW.step


def closure_twice(self: Any, closure: Any) -> Any:
    closure()
    return RIGHT_STEP(self, closure)


def closure_without_gradients(self: Any, closure: Any) -> Any:
    with torch.no_grad():
        loss = closure()
    RIGHT_STEP(self)
    return loss


def closure_loss_lost(self: Any, closure: Any) -> None:
    RIGHT_STEP(self, closure)


def closure_loss_as_number(self: Any, closure: Any) -> float:
    return float(RIGHT_STEP(self, closure).detach())


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (closure_twice, "how often the closure was called: expected 1, got 2"),
        (closure_without_gradients, "how often with gradients enabled: expected 1, got 0"),
        (
            closure_loss_lost,
            "loss that step returns: expected a tensor of shape (), got NoneType (is a `return` missing?)",
        ),
        (closure_loss_as_number, ""),
    ],
)
def test_closure_is_called_once_with_gradients_and_its_loss_returned(step: Any, message: str) -> None:
    check = check_called("AdamW closure")
    prepared = made(check.name)
    with replaced(optimizer.AdamW, "step", step):
        outputs = CALLS[check.call](prepared.case)
    answer = {name: out if isinstance(out, torch.Tensor) else type(out).__name__ for name, out in outputs.items()}
    assert compare(check, prepared, answer).message == message


def test_gradients_that_stop_before_the_llama_fail() -> None:
    def detached(self: Any, input_ids: torch.Tensor) -> torch.Tensor:
        forward = self.llama.forward
        self.llama.forward = lambda tokens: tuple(tensor.detach() for tensor in forward(tokens))
        return RIGHT_FORWARD(self, input_ids)

    with replaced(classifier.LlamaEmbeddingClassifier, "forward", detached):
        verdict = ask("classifier gradients")
    assert verdict.message.startswith("gradient of the Llama's embedding, finetune: the largest difference is")


def test_a_llama_that_is_not_frozen_fails() -> None:
    check = check_called("classifier gradients")
    prepared = made(check.name)
    with replaced(nn.Module, "requires_grad_", lambda self, requires_grad=True: self):
        verdict = verdict_on(check, prepared, CALLS[check.call](prepared.case))
    assert verdict.message.startswith("gradient of the Llama's embedding, pretrain: the largest difference is")


def test_weights_that_stay_where_they_were_fail() -> None:
    check = check_called("loading weights")
    prepared = made(check.name)
    right = llama.load_pretrained

    def load(path: str) -> llama.Llama:
        model = right(path)
        model.norm.weight.data.fill_(1.0)
        return model

    with replaced(llama, "load_pretrained", load):
        verdict = verdict_on(check, prepared, CALLS[check.call](prepared.case))
    assert verdict.message.startswith("norm.weight: the largest difference is")
    assert any(line.startswith("logits: ") for line in verdict.details)


def test_logarithms_of_a_softmax_overflow() -> None:
    def forward(self: Any, input_ids: torch.Tensor) -> torch.Tensor:
        return RIGHT_FORWARD(self, input_ids).exp().log()

    with replaced(classifier.LlamaEmbeddingClassifier, "forward", forward):
        assert "are NaN or infinite" in ask("classifier log-probabilities").message
        assert ask("classifier log-probabilities", course=PLAIN).passed


def test_the_relative_shift_is_a_property_that_other_rotations_have_and_the_identity_has_not() -> None:
    outcomes = {}
    for entry in MISCONCEPTIONS:
        if entry.region == "rope":
            with applied(entry):
                check = check_called("RoPE relative shift")
                outcomes[entry.name] = CALLS[check.call](made(check.name).case)
    check = check_called("RoPE relative shift")
    prepared = made(check.name)
    passed = {name for name, outputs in outcomes.items() if verdict_on(check, prepared, outputs).passed}
    assert {"rope.halves", "rope.opposite", "rope.from_one", "rope.fixed_theta"} <= passed
    assert passed.isdisjoint(
        {"rope.nothing", "rope.query_only", "rope.opposite_keys", "rope.plus_sine", "rope.by_head"}
    )


# --- what a submission's process may answer ---


@pytest.mark.parametrize("fill", [0.0, float("nan"), float("inf"), -1e30], ids=str)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.name)
def test_nonsense_fails_and_breaks_nothing(check: HiddenCheck, fill: float) -> None:
    prepared = made(check.name)
    whole = -(2**62) if fill < 0 else int(fill) if fill == 0.0 else 2**62
    outputs = {
        name: torch.full_like(tensor, max(fill, torch.finfo(tensor.dtype).min) if tensor.is_floating_point() else whole)
        for name, tensor in prepared.raw.items()
    }
    verdict = verdict_on(check, prepared, outputs)
    assert not verdict.passed
    assert verdict.message


def test_malformed_answers_say_what_is_wrong() -> None:
    check = check_called("RoPE")
    prepared = made(check.name)
    query, key = prepared.raw["query"], prepared.raw["key"]
    shape, other = tuple(key.shape), tuple(key[1:].shape)
    rows: list[tuple[dict[str, Any], str]] = [
        ({"query": query}, f"key: expected a tensor of shape {shape}, got nothing"),
        (
            {"query": query, "key": "NoneType"},
            f"key: expected a tensor of shape {shape}, got NoneType (is a `return` missing?)",
        ),
        ({"query": query, "key": "list"}, f"key: expected a tensor of shape {shape}, got list"),
        ({"query": query, "key": key[1:]}, f"key: wrong shape, expected {shape}, got {other}"),
        ({"query": query, "key": key.double()}, "key: wrong dtype, expected torch.float32, got torch.float64"),
    ]
    for outputs, message in rows:
        verdict = compare(check, prepared, outputs)
        assert verdict.message == message
        assert verdict.misconceptions == ()
    assert compare(check, prepared, {"query": query, "key": key, "verdict": torch.ones(1)}).passed


def test_failure_says_what_was_called_and_where_the_difference_is() -> None:
    check = check_called("RoPE")
    prepared = made(check.name)
    wrong = {name: tensor.clone() for name, tensor in prepared.raw.items()}
    wrong["key"][1, 3, 0, 5] += 1.0
    wrong["query"][0, 2, 1, 4] += 1.0
    verdict = compare(check, prepared, wrong)
    assert verdict.message.startswith("query: the largest difference is 1 at [0, 2, 1, 4]: expected ")
    settings = prepared.case.settings
    assert verdict.details[0] == f"called {prepared.called}"
    assert f"head_dim={settings['head_dim']}" in prepared.called
    assert verdict.details[1] == f"shapes: query {tuple(wrong['query'].shape)}, key {tuple(wrong['key'].shape)}"
    assert verdict.details[2].startswith("key: the largest difference is 1 at [1, 3, 0, 5]: ")


def test_many_differences_are_not_all_listed() -> None:
    check = check_called("loading weights")
    prepared = made(check.name)
    verdict = verdict_on(check, prepared, {name: tensor + 1 for name, tensor in prepared.raw.items()})
    assert verdict.details[-1] == f"and {len(prepared.raw) - checks.MAX_LINES} more"


def test_variant_of_another_shape_is_named_too() -> None:
    check = check_called("GQA")
    prepared = made(check.name)
    entry = next(entry for entry in MISCONCEPTIONS if entry.name == "gqa.not_repeated")
    outputs = outputs_under(check, prepared, entry)
    assert outputs is not None
    verdict = compare(check, prepared, outputs)
    assert "wrong shape" in verdict.message
    assert verdict.misconceptions == (entry.sentence,)


# --- chance ---


def sampled_cases() -> list[Prepared]:
    return [made("sampled generation", seed) for seed in SEEDS]


def test_limit_of_the_chi_squared_test_is_that_of_scipy() -> None:
    for freedom in (4, 12, 16):
        limit = measures.largest_by_chance(freedom)
        assert limit == pytest.approx(float(stats.chi2.isf(measures.LEAST_P, freedom)), rel=1e-6)
        assert measures.p_value(limit, freedom) == pytest.approx(measures.LEAST_P, rel=1e-3)


def test_right_sampling_fails_less_than_once_in_a_million_classes_of_a_thousand() -> None:
    rng = np.random.default_rng(0)
    for prepared in sampled_cases():
        tables = measures.token_distribution(prepared.case)
        rows = [row[:-1].numpy() for table in tables.values() for row in table]
        assert min(row.min() for row in rows) > measures.LEAST_COUNT  # no cells are put together
        freedom = sum(len(row) - 1 for row in rows)
        limit = measures.largest_by_chance(freedom)
        # The tail of a single cell, exactly: what is longer than chi-squared's comes from the smallest cells.
        draws, cells = prepared.case.settings["rows"], np.concatenate(rows)
        beyond = np.sqrt(limit * cells)
        exact = stats.binom.sf(np.ceil(cells + beyond) - 1, draws, cells / draws)
        exact += stats.binom.cdf(np.floor(cells - beyond), draws, cells / draws)
        assert 1000 * exact.sum() < 1e-6
        # The whole statistic, by simulation: where it can be counted, its tail is chi-squared's.
        statistic = sum(
            ((rng.multinomial(draws, row / draws, size=100_000) - row) ** 2 / row).sum(axis=1) for row in rows
        )
        for share in (1e-2, 1e-3):
            assert (statistic > stats.chi2.isf(share, freedom)).mean() == pytest.approx(share, rel=0.5)
    assert 1000 * 30 * measures.LEAST_P < 1e-6


def test_each_sampling_misconception_is_found_as_good_as_always() -> None:
    for prepared in sampled_cases()[:1]:
        check = check_called("sampled generation")
        tables = measures.token_distribution(prepared.case)
        freedom = sum(table.shape[1] - 2 for table in tables.values() for _ in table)
        limit = measures.largest_by_chance(freedom)
        found = 0
        for entry in MISCONCEPTIONS:
            outputs = outputs_under(check, prepared, entry) if entry.region == "generate" else None
            if outputs is not None and not verdict_on(check, prepared, outputs).passed:
                statistic = sum(
                    measures.chi_squared(counts, tables[name])[0]
                    for name, counts in measures.token_counts(prepared.case, outputs).items()
                )
                # what was counted is near the mean of a noncentral chi-squared distribution
                assert stats.ncx2.sf(limit, freedom, statistic - freedom) > 1 - 1e-9, entry.name
                found += 1
        assert found == 10


def test_a_temperature_that_is_a_quarter_off_is_found() -> None:
    check = check_called("sampled generation")
    for prepared in sampled_cases():
        for which in range(2):
            temperatures = list(prepared.case.settings["temperatures"])
            wrong = [t * 1.25 if i == which else t for i, t in enumerate(temperatures)]
            case = Case(prepared.case.inputs, prepared.case.settings | {"temperatures": wrong}, {})
            raw = CALLS[check.call](case)
            outputs = dict(zip(prepared.raw, raw.values(), strict=True))
            verdict = verdict_on(check, prepared, outputs)
            assert not verdict.passed
            assert verdict.message.startswith(f"tokens drawn at temperature {temperatures[which]}: after prompt ")
            assert re.search(r"has the share 0\.\d{3} of 20,000, expected 0\.\d{3} \(chi-squared", verdict.message)


def test_ids_outside_the_vocabulary_are_found() -> None:
    check = check_called("sampled generation")
    prepared = made(check.name)
    for bad in (-1, 5, 2**62):
        outputs = {name: ids.clone() for name, ids in prepared.raw.items()}
        next(iter(outputs.values()))[7] = bad
        assert not verdict_on(check, prepared, outputs).passed


def test_small_cells_are_counted_together() -> None:
    expected = torch.tensor([[19_900.0, 60.0, 30.0, 10.0, 0.0]])
    assert measures.chi_squared(torch.tensor([[19_900, 30, 60, 10, 0]]), expected) == (0.0, 0)
    expected = torch.tensor([[10_000.0, 9_800.0, 160.0, 40.0, 0.0]])
    statistic, freedom = measures.chi_squared(torch.tensor([[10_000, 9_800, 100, 100, 0]]), expected)
    assert (statistic, freedom) == (0.0, 2)


@pytest.mark.parametrize("name", ["attention dropout", "classifier dropout"])
def test_right_dropout_fails_less_than_once_in_a_million_classes_of_a_thousand(name: str) -> None:
    prepared = made(name)
    (share,) = [output for output in prepared.expected if "that are zero" in output]
    dropped, (tolerance, _) = float(prepared.expected[share]), prepared.tolerances[share]
    settings, inputs = prepared.case.settings, prepared.case.inputs
    draws = inputs["input_ids"].shape[0] * len(inputs["bias"]) if "bias" in inputs else 0
    draws = draws or settings["times"] * inputs["value"].shape[1] * inputs["value"].shape[2] ** 2
    exact = stats.binom.sf(draws * (dropped + tolerance), draws, dropped)
    exact += stats.binom.cdf(draws * (dropped - tolerance), draws, dropped)
    assert 1000 * exact < 1e-6


def test_random_checks_hold_for_other_random_numbers() -> None:
    for name in RANDOM:
        check = check_called(name)
        prepared = made(check.name)
        for other in range(10):
            case = prepared.case
            again = Case(case.inputs, case.settings | {"random_seed": other}, case.weights)
            assert verdict_on(check, prepared, CALLS[check.call](again)).passed


def test_greedy_ids_are_the_same_on_every_machine() -> None:
    for seed, course in itertools.product(SEEDS, (CAUSAL, PLAIN)):
        assert drawn.smallest_lead(made("model generation", seed, course).case) > drawn.LEAST_LEAD


# --- code that was written for the original hand-out ---

RUN_CALLS = """
import sys
sys.path[:0] = [{grader!r}]
sys.path.append({submission!r})
import torch
from autograder.sandboxed.calls import CALLS
from autograder.sandboxed.quick import skip_compiler
from component_checks import Case
skip_compiler()
cases = torch.load({cases!r}, weights_only=True)
torch.save({{name: CALLS[call](Case(*case)) for name, (call, *case) in cases.items()}}, {outputs!r})
"""


def test_calls_work_with_code_written_for_the_original(tmp_path: Path) -> None:
    grader = tmp_path / "grader"
    shutil.copytree(ROOT / "autograder/sandboxed", grader / "autograder/sandboxed")
    for name in ("component_checks.py", "submission_rules.py"):
        shutil.copy(ROOT / name, grader)
    prepared = {check.name: prepare(check, b"one", PLAIN) for check in checks_for(PLAIN)}
    cases = {
        check.name: [check.call, case.inputs, case.settings, case.weights]
        for check in checks_for(PLAIN)
        if (case := prepared[check.name].case)
    }
    torch.save(cases, tmp_path / "cases.pt")
    names = {"grader": grader, "submission": ROOT / "tests/original_style"}
    names |= {"cases": tmp_path / "cases.pt", "outputs": tmp_path / "outputs.pt"}
    code = RUN_CALLS.format(**{name: str(path) for name, path in names.items()})
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path, check=True, timeout=120)
    outputs = torch.load(tmp_path / "outputs.pt", weights_only=True)
    for check in checks_for(PLAIN):
        assert compare(check, prepared[check.name], outputs[check.name]) == Verdict(True), check.name


def test_settings_that_a_config_does_not_take_are_set_on_it() -> None:
    class Strict:
        def __init__(self, dim: int, n_heads: int) -> None:
            self.dim, self.n_heads = dim, n_heads

    import config
    from component_checks import config_of

    with replaced(config, "LlamaConfig", Strict):
        made = config_of(Case({}, {"config": {"dim": 8, "n_heads": 2, "causal": False}}, {}))
    assert (made.dim, made.n_heads, made.causal) == (8, 2, False)


def test_a_module_may_hold_tables_of_its_own_but_must_have_every_weight() -> None:
    from component_checks import load

    norm = llama.RMSNorm(4)
    norm.register_buffer("table", torch.zeros(3))
    load(norm, {"weight": torch.full((4,), 2.0)})
    assert norm.weight.tolist() == [2.0] * 4
    with pytest.raises(RuntimeError, match="RMSNorm has no scale"):
        load(norm, {"scale": torch.ones(4)})


def test_calls_get_copies_and_the_same_random_numbers_each_time() -> None:
    def call(case: Case) -> Outputs:
        case.inputs["x"] += 1.0
        return {"x": case.inputs["x"] + torch.rand(2)}

    case = Case({"x": torch.zeros(2)}, {"random_seed": 5}, {})
    state = torch.random.get_rng_state()
    assert torch.equal(raw_outputs(call, case)["x"], raw_outputs(call, case)["x"])
    assert case.inputs["x"].tolist() == [0.0, 0.0]
    assert torch.equal(torch.random.get_rng_state(), state)

"""Runs, their rows, and what they cost: run with `pytest tests/test_advanced_runner.py`."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from advanced import cost, runner
from advanced.cost import Meter, live_bytes
from advanced.rows import add_row, identity, read_rows
from advanced.runner import Run, checkpoint_name, checksum, run, write_outputs
from advanced.training import Recipe
from errors import CheckpointError, DataError, UsageError
from llama import load_pretrained
from sentiment_data import accuracy
from tests.tiny_advanced import tiny_checkpoint, tiny_task

RECIPE = Recipe(epochs=2, batch_size=4, lr=3e-3, seed=1)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def test_a_run_gives_a_row_and_scores_that_agree(checkpoint: Path) -> None:
    task = tiny_task()
    single = Run("toy", checkpoint, ("cosine", "lora"), {"lora": {"rank": 2}}, RECIPE)
    row, scores = run(single, task)
    assert row["methods"] == ["lora", "cosine"]  # in the catalogue's order
    assert (row["checkpoint"], row["options"], row["seed"]) == ("toy", {"lora": {"rank": 2}}, 1)
    for part, value in row["accuracy"].items():
        assert value == accuracy(scores[part].argmax(dim=1).tolist(), task.labels(part))
    # rank 2 · (in + out) of each projection, in both layers, and the head
    kv_dim, hidden = 16, 88
    sizes = [(32, 32), (32, kv_dim), (32, kv_dim), (32, 32), (32, hidden), (hidden, 32), (32, hidden)]
    expected = 2 * sum(2 * (a + b) for a, b in sizes) + 2 * 32 + 2
    assert row["parameters"] == {"trained": expected, "added": expected}
    assert row["saved_bytes"] == 4 * expected
    assert [check["epoch"] for check in row["history"]] == [1.0, 2.0]
    json.dumps(row)


def test_of_plain_finetuning_only_the_head_is_added(checkpoint: Path) -> None:
    row, _ = run(Run("toy", checkpoint, ("plain",), {}, RECIPE), tiny_task())
    given = sum(parameter.numel() for parameter in load_pretrained(checkpoint).parameters())
    assert row["parameters"] == {"trained": given + 2 * 32 + 2, "added": 2 * 32 + 2}


def test_the_same_run_gives_the_same_scores_and_another_seed_others(checkpoint: Path) -> None:
    single = Run("toy", checkpoint, ("plain",), {}, replace(RECIPE, epochs=1))
    first, again = (run(single, tiny_task())[1]["dev"] for _ in range(2))
    other = run(replace(single, recipe=replace(single.recipe, seed=2)), tiny_task())[1]["dev"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_only_the_parts_that_are_asked_for_are_scored(checkpoint: Path) -> None:
    for methods in (("plain",), ("zero-shot",), ("tfidf-logreg",)):
        row, scores = run(Run("toy", checkpoint, methods, {}, RECIPE), tiny_task(32), parts=("selection",))
        assert set(row["accuracy"]) == set(scores) == {"selection"}


def test_a_hybrid_comes_after_whatever_it_is_combined_with(checkpoint: Path) -> None:
    task = tiny_task(32)
    for first in ("zero-shot", "plain"):
        row, _ = run(Run("toy", checkpoint, ("hybrid", first), {}, RECIPE), task)
        alone, _ = run(Run("toy", checkpoint, (first,), {}, RECIPE), task)
        assert row["methods"] == [first, "hybrid"]
        assert 0 <= row["chosen"]["tfidf_share"] <= 1
        assert row["accuracy"]["selection"] >= alone["accuracy"]["selection"]


def test_what_needs_a_checkpoint_says_so() -> None:
    for methods in (("plain",), ("zero-shot",)):
        with pytest.raises(UsageError, match="needs a checkpoint"):
            run(Run("toy", None, methods, {}, RECIPE), tiny_task())
    assert checkpoint_name(None) == "none"


def test_placeholders_have_no_accuracy(checkpoint: Path) -> None:
    task = tiny_task(32)
    unknown = [replace(example, label=0) for example in task.parts["test"]]
    row, _ = run(Run("toy", None, ("tfidf-svm",), {}, RECIPE), replace(task, parts={**task.parts, "test": unknown}))
    assert row["accuracy"]["test"] is None
    assert row["checkpoint_sha256"] is None


def test_predictions_have_the_form_of_a_submission(tmp_path: Path) -> None:
    task = tiny_task()
    scores = {"dev": torch.eye(2).repeat(4, 1), "test": torch.eye(2).repeat(4, 1)}
    dev, test = write_outputs(tmp_path, task, scores)  # type: ignore[arg-type]
    assert (dev.name, test.name) == ("toy-dev-advanced-output.txt", "toy-test-advanced-output.txt")
    lines = dev.read_text(encoding="utf-8").splitlines()
    assert lines[:2] == [f"0 ||| {task.sentences('dev')[0]}", f"1 ||| {task.sentences('dev')[1]}"]


# ---------------------------------------------------------------------------------------------------- rows


def a_row(seed: int = 1) -> dict[str, object]:
    return {**Run("toy", None, ("plain",), {}, replace(RECIPE, seed=seed)).identity(), "accuracy": {}}


def test_rows_come_back_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "rows.jsonl"
    assert read_rows(path) == []
    for seed in (2, 1):
        add_row(path, a_row(seed))
    assert [row["seed"] for row in read_rows(path)] == [2, 1]


def test_half_a_line_of_a_killed_writer_does_not_count_and_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    add_row(path, a_row(1))
    whole = path.read_bytes()
    for length in (1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole + whole[:length])
        assert [row["seed"] for row in read_rows(path)] == [1]
        add_row(path, a_row(2))
        assert [row["seed"] for row in read_rows(path)] == [1, 2]


@pytest.mark.parametrize("line", ["", "no json", "[1]", '{"task": "sst"}'])
def test_a_line_that_is_no_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    add_row(path, a_row())
    with path.open("a") as file:
        file.write(f"{line}\n")
    with pytest.raises(DataError, match=r"rows\.jsonl:2: no row of results"):
        read_rows(path)


def test_runs_are_the_same_only_if_all_their_settings_are() -> None:
    base = Run("sst", Path("a/toy.pt"), ("lora", "cosine"), {"lora": {"rank": 4}}, RECIPE)
    same = replace(
        base, checkpoint=Path("b/toy.pt"), methods=("cosine", "lora"), options={"lora": {"rank": 4}, "r3f": {}}
    )
    others = [
        replace(base, task="cfimdb"),
        replace(base, checkpoint=Path("a/other.pt")),
        replace(base, methods=("lora",)),
        replace(base, options={"lora": {"rank": 8}}),
        replace(base, recipe=replace(RECIPE, lr=1e-4)),
        replace(base, recipe=replace(RECIPE, seed=2)),
        replace(base, dropout=0.1),
        replace(base, limit=12),
    ]
    key = identity(base.identity())
    assert identity(same.identity()) == key
    assert len({identity(other.identity()) for other in others} | {key}) == 1 + len(others)


def test_a_row_from_before_there_were_limits_is_that_of_a_run_without_one() -> None:
    row = a_row()
    old = {name: value for name, value in row.items() if name != "limit"}
    assert identity(old) == identity({**row, "limit": None})
    assert identity(old) != identity({**row, "limit": 12})


# ---------------------------------------------------------------------------------------------------- cost


def test_memory_and_time_of_a_run_are_its_own() -> None:
    held = torch.ones(30_000_000)  # before: it does not count
    meter = Meter(torch.device("cpu"))
    torch.ones(10_000_000).add_(1)
    found = meter.stop()
    assert found["seconds"] is not None
    assert found["cpu_seconds"] is not None
    if cost.STATUS.exists():
        assert found["peak_bytes"] is not None
        assert 38_000_000 < found["peak_bytes"] < 60_000_000
    del held


def test_without_linux_the_peak_is_that_of_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("resource")
    monkeypatch.setattr(cost, "STATUS", tmp_path / "none")
    monkeypatch.setattr(cost, "CLEAR", tmp_path / "none" / "none")
    peak = Meter(torch.device("cpu")).stop()["peak_bytes"]
    assert peak is not None
    assert peak >= 0


def test_live_tensors_count_once_with_their_gradients() -> None:
    before = live_bytes()
    weight = torch.nn.Parameter(torch.zeros(1000, 10))
    view = weight.detach()[:500]
    assert live_bytes() - before == 40_000
    (weight.sum() * 2).backward()
    assert live_bytes() - before == 80_000
    del weight, view
    assert live_bytes() == before


def test_what_a_training_holds_is_weights_gradients_moments_and_copies(checkpoint: Path) -> None:
    """In float32, with n numbers trained of m: m weights, n gradients, 2 n moments, and what a method keeps."""
    task = tiny_task()
    held = {
        name: run(Run("toy", checkpoint, (name,), {}, RECIPE), task)[0]
        for name in ("plain", "lora", "wise-ft", "smart")
    }
    trained = {name: 4 * row["parameters"]["trained"] for name, row in held.items()}
    rest = {name: row["held_bytes"] - 4 * trained[name] for name, row in held.items()}
    assert 0 <= rest["plain"] < 120_000  # the fast modules' tables
    # of lora's Llama nothing but the weights is held
    frozen = trained["plain"] - 4 * (2 * 32 + 2)
    assert rest["lora"] == pytest.approx(rest["plain"] + frozen, abs=2_000)
    for name in ("wise-ft", "smart"):  # a copy of what is trained
        assert rest[name] == pytest.approx(rest["plain"] + trained[name], abs=6_000)  # smart: random states


def test_a_run_needs_methods_of_one_kind() -> None:
    with pytest.raises(UsageError, match="cannot be combined"):
        runner.run(Run("toy", None, ("plain", "pmi"), {}, RECIPE), tiny_task())


def test_a_checkpoint_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert checksum(None) is None
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        checksum(tmp_path / "none.pt")


def test_a_baseline_says_how_many_weights_it_has() -> None:
    row, _ = run(Run("toy", None, ("tfidf-svm",), {}, RECIPE), tiny_task(32))
    assert row["parameters"]["trained"] > 10
    assert row["saved_bytes"] == 8 * row["parameters"]["trained"]

"""The benchmarks, at toy size: python -m pytest tests/test_benchmarks.py"""

import inspect
import json
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import breakdown, machine, report, train
from pretrain.recipe import ModelRecipe

ROOT = Path(__file__).resolve().parent.parent
TINY = train.Size(ModelRecipe(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, max_seq_len=8), vocab_size=32, rows=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.SIZES, "storybook", TINY)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    timings = machine.take_turns({name: partial(order.append, name) for name in "ab"}, rounds=3, warm_up=1)
    assert order == ["a", "b", *"ab" * 3]
    assert all(0 <= timing.fastest <= timing.median <= timing.slowest for timing in timings.values())
    assert all(len(timing.rounds) == 3 and timing.median in timing.rounds for timing in timings.values())


def test_both_models_start_with_the_same_loss_and_learn() -> None:
    pytest.importorskip("transformers")
    losses = []
    for step in (train._ours(TINY, torch.float32, "torch"), train._theirs(TINY, torch.float32)):
        weights = list(inspect.getclosurevars(step).nonlocals["model"].parameters())
        before = weights[0].detach().clone()
        losses.append([step(), step()])
        assert not torch.equal(before, weights[0])
        assert sum(weight.numel() for weight in weights) == 32 * 16 + 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 64 + 3 * 16
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_run_writes_json_and_a_page_that_is_made_of_it(
    tiny: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    arguments = ["train", "--size", "storybook", "--no-compile", "--rounds", "2", "--out", str(tmp_path)]
    assert command.main(arguments) == 0
    result = json.loads((tmp_path / "train.json").read_text(encoding="utf-8"))
    names = {row["contender"] for row in result["rows"]}
    assert names == {"ours", "ours, the assignment's AdamW", "transformers"}
    for row in result["rows"]:
        assert row["tokens_per_second"] == pytest.approx(2 * 8 / row["median"])
    assert list(result["parts"]) == ["storybook"]
    for seconds in result["parts"]["storybook"].values():
        assert set(seconds) == set(breakdown.GROUPS)
        assert all(seconds[group] > 0 for group in breakdown.GROUPS)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page == report.page(tmp_path)
    assert page.count("| storybook |") == len(result["rows"])
    assert "| storybook | float32 | transformers |" in capsys.readouterr().out


@dataclass
class Event:
    """What the profiler tells of an operator: microseconds without those inside it, and the number of its gradient."""

    name: str
    self_cpu_time_total: float
    sequence_nr: int = -1
    cpu_children: list["Event"] = field(default_factory=list)
    start: int = 0

    @property
    def time_range(self) -> "Event":
        return self


def test_operators_count_for_the_part_they_are_in_and_gradients_for_that_of_their_operator() -> None:
    backward = "autograd::engine::evaluate_function: MulBackward0"
    events = [
        Event(backward, 2, sequence_nr=7, cpu_children=[Event("aten::mul", 30)], start=4),
        Event("part: RoPE", 1, cpu_children=[Event("aten::mul", 10, sequence_nr=7)], start=1),
        Event("aten::mm", 100, sequence_nr=8, start=2),
        Event("aten::mul", 200, sequence_nr=9, start=3),
        Event(backward, 5, sequence_nr=9, cpu_children=[Event("aten::mul", 300)], start=5),
        Event("Optimizer.step#AdamW.step", 1, cpu_children=[Event("aten::copy_", 400)], start=6),
        Event("aten::copy_", 1000, start=7),
    ]
    seconds = dict.fromkeys(breakdown.GROUPS, 0.0)
    for group, duration in breakdown._attribute(events):
        seconds[group] += duration
    assert {group: duration for group, duration in seconds.items() if duration} == {
        "RoPE": 1 + 10 + 2 + 30,
        "matrix products": 100,
        "SwiGLU, sums": 200 + 300,
        "Python, unseen": 5,
        "optimizer": 401,
        "copies": 1000,
    }


def test_the_ratio_is_to_the_peer_of_the_same_kind_round_by_round() -> None:
    def row(contender: str, *rounds: float) -> dict[str, Any]:
        return {"size": "s", "precision": "p", "contender": contender, "rounds": rounds}

    ours, ours_compiled = row("ours", 1.0, 4.0, 1.0), row("ours, compiled", 1.0, 1.0, 1.0)
    theirs, theirs_compiled = row("transformers", 2.0, 8.0, 4.0), row("transformers, compiled", 0.5, 0.5, 0.5)
    rows = [ours, theirs, ours_compiled, theirs_compiled]
    shown = [report._ratio(each, rows) for each in rows]
    assert shown == ["2.00 (2.00 to 3.00)", "1.00", "0.50 (0.50 to 0.50)", "1.00"]


def test_the_results_that_ship_are_those_of_the_json() -> None:
    folder = ROOT / "benchmarks"
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == report.page(folder)

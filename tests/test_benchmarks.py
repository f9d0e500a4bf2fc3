"""The benchmarks, at toy size: python -m pytest tests/test_benchmarks.py"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import machine, report, train
from pretrain.recipe import ModelRecipe

ROOT = Path(__file__).resolve().parent.parent
TINY = train.Size(ModelRecipe(dim=16, n_layers=1, n_heads=2, n_kv_heads=1, max_seq_len=8), vocab_size=32, rows=2)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(train.SIZES, "storybook", TINY)


def test_contenders_take_turns() -> None:
    order: list[str] = []
    timings = machine.take_turns({name: lambda name=name: order.append(name) for name in "ab"}, rounds=3, warm_up=1)
    assert order == ["a", "b", *"ab" * 3]
    assert all(0 <= timing.fastest <= timing.median <= timing.slowest for timing in timings.values())


def test_both_models_are_the_same_size_and_learn() -> None:
    pytest.importorskip("transformers")
    for step in (train._ours(TINY, torch.float32, "torch"), train._theirs(TINY, torch.float32)):
        closure = dict(zip(step.__code__.co_freevars, (cell.cell_contents for cell in step.__closure__), strict=True))
        weights = list(closure["model"].parameters())
        before = weights[0].detach().clone()
        step()
        assert not torch.equal(before, weights[0])
        assert sum(weight.numel() for weight in weights) == 32 * 16 + 2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 64 + 3 * 16


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
    for shares in result["parts"].values():
        assert sum(shares.values()) == pytest.approx(1.0)
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert page == report.page(tmp_path)
    assert page.count("| storybook |") == len(result["rows"])
    assert "| storybook | float32 | transformers |" in capsys.readouterr().out


def test_the_ratio_is_to_the_peer_of_the_same_kind() -> None:
    def row(contender: str, median: float) -> dict[str, Any]:
        return {"size": "s", "precision": "p", "contender": contender, "median": median}

    rows = [row("ours", 1.0), row("transformers", 2.0), row("ours, compiled", 1.0), row("transformers, compiled", 0.5)]
    assert [report._ratio(each, rows) for each in rows] == ["2.00", "1.00", "0.50", "1.00"]


def test_the_results_that_ship_are_those_of_the_json() -> None:
    folder = ROOT / "benchmarks"
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == report.page(folder)

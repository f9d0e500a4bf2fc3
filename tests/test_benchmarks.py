"""The benchmarks, at toy size: python -m pytest tests/test_benchmarks.py"""

import importlib
import inspect
import json
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import breakdown, machine, report, train
from errors import MissingDependency, UsageError
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
        assert all(seconds[group] > 0 for group in breakdown.GROUPS if group != breakdown.DRAWING)
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
    shown = [train._ratio(each, rows) for each in rows]
    assert shown == ["2.00 (2.00 to 3.00)", "1.00", "0.50 (0.50 to 0.50)", "1.00"]


def test_a_part_that_is_static_stays_so_and_is_itself_again_afterwards() -> None:
    class Owner:
        @staticmethod
        def doubled(x: int) -> int:
            return 2 * x

    owner, before = Owner(), Owner.doubled
    with breakdown._labelled([("RoPE", Owner, "doubled")]):
        assert owner.doubled(2) == 4
        assert Owner.doubled is not before
    assert Owner.doubled is before


def test_parts_that_take_no_time_are_left_out_and_short_steps_have_decimals() -> None:
    columns = {
        "ours": {"RoPE": 0.001, "loss": 0.0, "norms": 0.003},
        "theirs": {"RoPE": 0.0, "loss": 0.0, "norms": 0.01},
    }
    assert breakdown.parts_table("toy", columns)[2:] == [
        "|  | ours | theirs |",
        "| --- | --- | --- |",
        "| RoPE | 1.00 (25%) | 0.00 (0%) |",
        "| norms | 3.00 (75%) | 10.00 (100%) |",
    ]
    assert "| RoPE | 1000 (100%) |" in breakdown.parts_table("toy", {"ours": {"RoPE": 1.0}})


# ---------------------------------------------------------------------------------------------- the machine


def test_a_contender_may_time_itself() -> None:
    timings = machine.take_turns({"a": lambda: 3.0, "b": lambda: 1.5}, rounds=2, warm_up=1, timer=machine.own_seconds)
    assert [(timing.first, timing.rounds) for timing in timings.values()] == [(3.0, [3.0, 3.0]), (1.5, [1.5, 1.5])]
    with pytest.raises(TypeError, match="a contender that times itself returns seconds, got None"):
        machine.own_seconds(lambda: None)


def test_what_is_read_has_the_size_that_was_asked_for() -> None:
    product = machine.reading(4 * 10 * machine.COLUMNS)()
    assert isinstance(product, torch.Tensor)
    assert product.tolist() == [machine.COLUMNS] * 10
    assert isinstance(few := machine.reading(12, dtype=torch.bfloat16)(), torch.Tensor)
    assert (few.dtype, few.tolist()) == (torch.bfloat16, [6.0])
    assert machine.bandwidth(size=2**20) > 0


def test_matrix_products_are_measured_afresh() -> None:
    assert len({machine.matmul_rate() for _ in range(3)}) > 1


STAT = "cpu  100 10 20 1000 50 3 2 {stolen} 7 8\ncpu0 1 2 3\n"


def test_stolen_time_is_the_share_of_what_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stat"
    file.write_text(STAT.format(stolen=5))
    assert machine._ticks(file) == (5, 140)
    for text in ("intr 1 2 3\n", "cpu 1 2 3\n"):
        file.write_text(text)
        assert machine._ticks(file) is None
    assert machine._ticks(tmp_path / "none") is None
    ticks = iter([(5, 140), (30, 240), (30, 140), (30, 140), None, (1, 2)])
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    assert [machine.StolenTime().share() for _ in range(3)] == [0.25, 0.0, None]


# ---------------------------------------------------------------------------------------------- the page


def test_tables_ratios_and_quartiles() -> None:
    assert report.grid(("a", "b"), [("1", "2")]) == ["| a | b |", "| --- | --- |", "| 1 | 2 |"]
    assert report.quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)
    assert report.quartiles([7.0]) == (7.0, 7.0, 7.0)
    assert report.ratio([1.0, 2.0, 1.0], [2.0, 2.0, 3.0]) == "2.00 (1.50 to 2.50)"
    assert report.ratio([2.0], [3.0]) == "1.50"


def test_the_sentence_on_the_machine_names_a_card_and_the_peers() -> None:
    facts = {"processor": "P", "cores": 2, "threads": 1, "system": "S", "python": "3", "torch": "2"}
    plain = report.machine({"machine": facts, "rounds": 3})
    assert plain == "P, 2 cores, 1 thread, S; Python 3, PyTorch 2. 3 rounds."
    more = facts | {"gpu": "G", "threads": 2, "transformers": "5"}
    text = report.machine({"machine": more, "rounds": 3})
    assert text == "G; P, 2 cores, 2 threads, S; Python 3, PyTorch 2, transformers 5. 3 rounds."
    assert report.machine({"machine": facts, "rounds": 1}).endswith(" 1 round.")
    assert {"processor", "cores", "threads", "torch", "transformers"} <= machine.describe().keys()


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a stub in the place of every benchmark."""
    module = SimpleNamespace(table=lambda result: f"## Stub {result['value']}\n", measure=lambda **_: {"value": 1})
    for name in report.NAMES:
        monkeypatch.setitem(sys.modules, f"benchmarks.{name}", module)
    return module


def test_the_page_shows_what_was_stolen_pictures_and_what_was_not_measured(
    verb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report.write(tmp_path, "train", {"value": 1, "stolen": 0.125})
    assert "## Stub 1\n\nThe host kept 12% of the processor time" in report.page(tmp_path)
    assert "train.png" not in report.page(tmp_path)
    assert "Not measured: there was none. To measure: `python -m benchmarks generate --device cuda`, " in report.page(
        tmp_path
    )

    verb.draw = lambda result, path: path.write_bytes(b"a picture")
    report.write(tmp_path, "train", {"value": 2, "stolen": None})
    page = report.page(tmp_path)
    assert "## Stub 2\n\n![train](train.png)\n" in page
    assert "The host kept" not in page

    def without_matplotlib(result: dict[str, Any], path: Path) -> None:
        raise MissingDependency("drawing", "matplotlib")

    verb.draw = without_matplotlib
    report.write(tmp_path, "train", {"value": 3})
    assert "train.png" not in report.page(tmp_path)  # nor the picture of the result before
    for name in report.ON_GPU:
        report.write(tmp_path, name, {"value": 4}, "cuda")
    assert "Not measured" not in report.page(tmp_path)
    assert (tmp_path / "generate-cuda.json").is_file()


# ---------------------------------------------------------------------------------------------- the command line


def test_every_verb_is_on_the_page_and_takes_the_options_that_it_is_given() -> None:
    assert set(report.NAMES) == set(command.VERBS)
    assert set(report.ON_GPU) == {name for name, verb in command.VERBS.items() if verb.has_gpu}
    for name, verb in command.VERBS.items():
        options = vars(command.build_parser().parse_args([name, *verb.example.split("    ")[0].split()]))
        module = importlib.import_module(f"benchmarks.{name}")
        assert options.keys() - set(command.GENERAL) <= inspect.signature(module.measure).parameters.keys()
        assert callable(module.table)


def test_help_imports_no_torch() -> None:
    code = "import sys, benchmarks.__main__ as m; m.build_parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_options_reach_the_benchmark(verb: Any, tmp_path: Path) -> None:
    seen: dict[str, Any] = {}
    verb.measure = lambda **options: seen.update(options, number=torch.get_num_threads()) or {"value": 1}
    command.main(["train", "--size", "storybook", "--rounds", "2", "--threads", "2", "--out", str(tmp_path / "new")])
    assert seen == {"sizes": ["storybook"], "rounds": 2, "compiled": True, "number": 2}
    result = json.loads((tmp_path / "new" / "train.json").read_text(encoding="utf-8"))
    assert result.keys() == {"value", "stolen"}


def raising(error: BaseException) -> Any:
    """Return a `measure` that fails."""

    def measure(**_: Any) -> dict[str, Any]:
        raise error

    return measure


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UsageError("no such thing"), 2, "error: no such thing\n"),
        (OSError("the disk is full"), 2, "error: the disk is full: check the path, its permissions, and the space on"),
        (KeyboardInterrupt(), 130, "\ninterrupted: nothing was written\n"),
    ],
)
def test_what_fails_writes_nothing(
    verb: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], error: BaseException, status: int, text: str
) -> None:
    verb.measure = raising(error)
    assert command.main(["train", "--out", str(tmp_path)]) == status
    assert text in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_nothing_is_measured(
    verb: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb.measure = raising(AssertionError("it was measured"))
    (tmp_path / "file").touch()
    assert command.main(["train", "--out", str(tmp_path / "file")]) == 2
    assert "File exists" in capsys.readouterr().err


def test_the_results_that_ship_are_those_of_the_json() -> None:
    folder = ROOT / "benchmarks"
    assert (folder / "RESULTS.md").read_text(encoding="utf-8") == report.page(folder)

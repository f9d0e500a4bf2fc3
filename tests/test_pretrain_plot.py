"""pretrain/plot.py: run with `pytest tests/test_pretrain_plot.py`."""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError, MissingDependency, UsageError
from pretrain.plot import add_arguments, draw_runs, plot_runs, read_log, run, smooth


def write_log(folder: Path, *rows: dict[str, Any], end: str = "") -> Path:
    """Write the log of a run, and return the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + end, encoding="utf-8")
    return folder


def training(step: int, loss: float = 3.0, lr: float = 1e-3) -> dict[str, Any]:
    return {"step": step, "tokens": 100 * step, "loss": loss, "lr": lr, "mfu": None}


def validation(step: int, loss: float = 3.5) -> dict[str, Any]:
    return {"step": step, "validation_loss": loss, "validation_bits_per_byte": loss / 4}


ROWS = (training(10, 5.0), training(20, 4.0), validation(20, 4.2), training(30, 3.0), validation(30, 3.3))


def lines_of(figure: Any) -> dict[str, list[tuple[list[float], list[float]]]]:
    """Return the points of every line, by the title of its panel."""
    return {
        axes.get_title(): [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]
        for axes in figure.axes
    }


# ---------------------------------------------------------------------------------------------------- reading


def test_a_log_holds_the_rows_of_training_and_of_evaluation(tmp_path: Path) -> None:
    curves = read_log(write_log(tmp_path / "laptop", *ROWS))
    assert curves.name == "laptop"
    assert curves.loss == [(10, 5.0), (20, 4.0), (30, 3.0)]
    assert curves.validation_loss == [(20, 4.2), (30, 3.3)]
    assert curves.validation_bits_per_byte == [(20, 4.2 / 4), (30, 3.3 / 4)]
    assert curves.lr == [(10, 1e-3), (20, 1e-3), (30, 1e-3)]
    assert read_log(tmp_path / "laptop" / "log.jsonl") == curves


@pytest.mark.parametrize("end", ['{"step": 40, "lo', "\xff", '{"step": 40, "loss": 2.0}'])
def test_a_last_line_that_is_half_written_is_left_out(end: str, tmp_path: Path) -> None:
    assert read_log(write_log(tmp_path, *ROWS, end=end)).loss[-1] == (30, 3.0)


def test_rows_that_a_resumed_run_wrote_again_replace_the_old_ones(tmp_path: Path) -> None:
    rows = (training(10, 5.0), training(20, 4.0), validation(20), training(15, 4.5), training(20, 4.1), validation(20))
    curves = read_log(write_log(tmp_path, *rows))
    assert curves.loss == [(10, 5.0), (15, 4.5), (20, 4.1)]
    assert len(curves.validation_loss) == 1


def test_a_loss_that_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    curves = read_log(write_log(tmp_path, training(1), training(2, math.nan), training(3, math.inf), training(4)))
    assert [step for step, _ in curves.loss] == [1, 4]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"step": 2, "lo', ":2: not JSON: a row is a JSON object such as"),
        ("", ":2: not JSON"),
        ("[1]", ":2: no step: a row is a JSON object such as"),
        ('{"loss": 1.0}', ":2: no step"),
        ('{"step": "2"}', ":2: no step"),
        ('{"step": 2, "loss": "low"}', ":2: loss is 'low', not a number"),
    ],
)
def test_a_broken_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", training(1), end=f"{line}\n{json.dumps(training(3))}\n")
    with pytest.raises(DataError) as caught:
        read_log(folder)
    assert str(caught.value).startswith(f"{folder / 'log.jsonl'}{message}")


def test_a_folder_without_a_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"log.jsonl cannot be read \(No such file or directory\): name a folder that"):
        read_log(tmp_path)


@pytest.mark.parametrize(
    ("rows", "end", "what"),
    [
        ([], "", "no row with a loss"),
        ([validation(5)], "", "no row with a loss"),
        ([], '{"st', "a line that is not finished"),
    ],
)
def test_a_log_without_a_loss_is_refused(rows: list[dict[str, Any]], end: str, what: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"log.jsonl:1: the log holds .*{what}: wait for the run's first report"):
        read_log(write_log(tmp_path, *rows, end=end))


# ---------------------------------------------------------------------------------------------------- smoothing


def test_a_smooth_curve_is_the_mean_of_neighbours_on_both_sides() -> None:
    values = [float(i * i) for i in range(100)]  # two neighbours on each side: the mean is i² + 2
    smoothed = smooth(values)
    assert smoothed[2:-2] == pytest.approx([value + 2 for value in values[2:-2]])
    assert smoothed[0] == pytest.approx((0 + 1 + 4) / 3)
    assert smoothed[-1] == pytest.approx((97**2 + 98**2 + 99**2) / 3)


@given(st.lists(st.floats(0, 20), max_size=200))
def test_a_smooth_curve_stays_between_the_values(values: list[float]) -> None:
    smoothed = smooth(values)
    assert len(smoothed) == len(values)
    assert all(min(values) - 1e-9 <= value <= max(values) + 1e-9 for value in smoothed)
    if len(values) < 50:
        assert smoothed == pytest.approx(values, abs=1e-9)


# ---------------------------------------------------------------------------------------------------- the picture


def test_every_run_has_its_lines_in_every_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    runs = [write_log(tmp_path / "a", *ROWS), write_log(tmp_path / "b", training(10, 6.0), training(20, 5.5))]
    figure = draw_runs(runs)
    lines = lines_of(figure)
    assert set(lines) == {"Loss", "Learning rate", "Validation"}
    # a: as logged, smoothed (too few points to change), validation; b: as logged, smoothed
    assert lines["Loss"] == [
        ([10, 20, 30], [5.0, 4.0, 3.0]),
        ([10, 20, 30], [5.0, 4.0, 3.0]),
        ([20, 30], [4.2, 3.3]),
        ([10, 20], [6.0, 5.5]),
        ([10, 20], [6.0, 5.5]),
    ]
    assert lines["Learning rate"] == [([10, 20, 30], [1e-3] * 3), ([10, 20], [1e-3] * 2)]
    assert lines["Validation"] == [([20, 30], [1.05, 0.825])]
    (loss,) = (axes for axes in figure.axes if axes.get_title() == "Loss")
    labels = [text.get_text() for text in loss.get_legend().get_texts()]
    assert labels == ["a: training", "a: validation", "b: training"]


def test_without_evaluations_there_is_no_empty_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    assert set(lines_of(draw_runs([write_log(tmp_path, training(1))]))) == {"Loss", "Learning rate"}


def test_runs_in_folders_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    runs = [write_log(tmp_path / parent / "run", *ROWS[:1]) for parent in ("x", "y")]
    labels = [text.get_text() for text in draw_runs(runs).axes[0].get_legend().get_texts()]
    assert labels == [f"{path}: training" for path in runs]


def test_the_picture_is_a_png_beside_the_first_log_or_where_it_is_wanted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    runs = [str(write_log(tmp_path / name, *ROWS)) for name in ("a", "b")]
    for arguments, out in (
        ([], tmp_path / "a" / "curves.png"),
        (["-o", str(tmp_path / "new" / "c.png")], tmp_path / "new" / "c.png"),
    ):
        assert run(parser.parse_args([*runs, *arguments])) == 0
        assert out.read_bytes().startswith(b"\x89PNG")
        assert capsys.readouterr().out == f"wrote {out}\n"
    with pytest.raises(UsageError, match=r"c.pdf: the picture is a PNG, name a file that ends in .png"):
        run(parser.parse_args([*runs, "-o", "c.pdf"]))


def test_nothing_is_written_for_a_broken_log(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        plot_runs([write_log(tmp_path / "a", *ROWS), tmp_path / "missing"], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_a_missing_matplotlib_is_named_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match="pip install matplotlib"):
        plot_runs([write_log(tmp_path, *ROWS)], tmp_path / "curves.png")

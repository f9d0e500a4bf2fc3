"""advanced/plot.py: run with `pytest tests/test_advanced_plot.py`."""

import json
from pathlib import Path

import pytest

from advanced import plot
from advanced.__main__ import main
from advanced.plot import Line, as_text, draw, lines_of, plot_gains
from advanced.rows import ROWS, Row, read_rows
from advanced.runner import Run
from advanced.training import Recipe
from errors import DataError, UsageError

pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")


def row_of(*methods: str, seed: int, dev: float, epochs: int = 1) -> Row:
    run = Run("sst", Path("tiny.pt"), methods, recipe=Recipe(epochs=epochs, seed=seed))
    return {**run.identity(), "accuracy": {"selection": 0.5, "dev": dev, "test": dev / 2}}


PLAIN = [row_of("plain", seed=1, dev=0.30), row_of("plain", seed=2, dev=0.34)]
LORA = [row_of("lora", seed=1, dev=0.28), row_of("lora", seed=2, dev=0.36)]
POOLED = [row_of("mean-pooling", "cosine", seed=1, dev=0.40), row_of("mean-pooling", "cosine", seed=2, dev=0.46)]


def test_a_line_has_the_mean_gain_and_its_standard_error_and_the_best_stands_first() -> None:
    (lines,) = lines_of([*LORA, *PLAIN, *POOLED], "sst").values()
    assert [line.name for line in lines] == ["mean-pooling + cosine", "lora"]
    assert lines[0].gains["dev"] == pytest.approx((0.11, 0.01))
    assert lines[0].gains["test"] == pytest.approx((0.055, 0.005))
    assert lines[1].gains["dev"] == pytest.approx((0.0, 0.02))


def test_only_trainings_with_an_error_and_a_plain_one_as_long_are_shown() -> None:
    longer = [row_of("cosine", seed=seed, dev=0.5, epochs=3) for seed in (1, 2)]
    single = [row_of("linear", seed=1, dev=0.5)]
    asked = [row_of("zero-shot", seed=seed, dev=0.5) for seed in (1, 2)]
    other = [{**row, "task": "cfimdb"} for row in POOLED]
    assert list(lines_of([*longer, *single, *asked, *other, *PLAIN, *LORA], "sst")) == ["tiny"]
    assert [line.name for line in lines_of([*longer, *single, *asked, *PLAIN, *LORA], "sst")["tiny"]] == ["lora"]
    longer_plain = [row_of("plain", seed=seed, dev=0.4, epochs=3) for seed in (1, 2)]
    lines = lines_of([*longer, *longer_plain], "sst")["tiny"]
    assert [str(line) for line in lines] == ["cosine, 3 epochs: dev +0.100 ± 0.000, test +0.050 ± 0.000"]


def test_a_part_without_labels_is_left_out() -> None:
    rows = [{**row, "accuracy": {**row["accuracy"], "test": None}} for row in (*PLAIN, *LORA)]
    assert list(lines_of(rows, "sst")["tiny"][0].gains) == ["dev"]


def test_each_checkpoint_has_a_panel_with_its_gains() -> None:
    lines = {
        "small": [Line("lora", {"dev": (0.1, 0.01), "test": (0.2, 0.02)})],
        "large": [Line("cosine", {"dev": (0.3, 0.03)}), Line("ia3", {"dev": (-0.1, 0.02)})],
    }
    figure = draw(lines, "sst")
    assert [axes.get_title() for axes in figure.axes] == ["sst, small", "sst, large"]
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert names == [["lora"], ["cosine", "ia3"]]
    means = [[list(bars[0].get_xdata()) for bars in axes.containers] for axes in figure.axes]
    assert means == [[[0.1], [0.2]], [[0.3, -0.1], []]]


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sst: no training has a plain one beside it"):
        plot_gains(PLAIN, "sst", tmp_path / "gains.png")
    assert not (tmp_path / "gains.png").exists()


def test_the_verb_writes_a_png_that_carries_its_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in (*PLAIN, *LORA)), encoding="utf-8")
    out = tmp_path / "gains.png"
    assert main(["plot", "--rows", str(rows), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"wrote {out}\n"
    assert description(out) == "tiny, lora: dev +0.000 ± 0.020, test +0.000 ± 0.010"
    with pytest.raises(UsageError, match=r"gains.pdf: the picture is a PNG"):
        plot_gains(read_rows(rows), "sst", tmp_path / "gains.pdf")


def test_the_picture_of_the_readme_shows_the_rows_that_are_committed() -> None:
    picture = Path(plot.__file__).with_name("gains.png")
    assert description(picture) == as_text(lines_of(read_rows(ROWS), "sst")), "python -m advanced plot"


def description(picture: Path) -> str:
    """Return the text that a PNG carries."""
    from PIL import Image  # comes with matplotlib

    with Image.open(picture) as image:
        return str(image.info["Description"])

"""What the pictures show: pytest tests/test_plots.py"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from errors import MissingDependency
from finetune import EpochResult
from plots import plot_confusion, plot_learning_curves, require_matplotlib

pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")


def test_rows_of_the_confusion_matrix_are_gold_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.metrics import ConfusionMatrixDisplay

    shown = []
    draw = ConfusionMatrixDisplay.from_predictions

    def spy(*args: Any, **options: Any) -> object:
        display = draw(*args, **options)
        shown.append((display.confusion_matrix.tolist(), list(display.display_labels)))
        return display

    monkeypatch.setattr(ConfusionMatrixDisplay, "from_predictions", spy)
    plot_confusion([0, 0, 0, 1], [0, 1, 1, 1], ["bad", "good", "unseen"], tmp_path / "confusion.png")
    assert shown == [([[1, 2, 0], [0, 1, 0], [0, 0, 0]], ["bad", "good", "unseen"])]
    assert (tmp_path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_learning_curves_have_a_line_a_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    lines: dict[str, Any] = {}
    save = Figure.savefig

    def spy(figure: Figure, *args: Any, **options: Any) -> None:
        for axes in figure.axes:
            for line in axes.lines:
                lines[f"{axes.get_title()}: {line.get_label()}"] = np.asarray(line.get_ydata()).tolist()
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", spy)
    history = [EpochResult(0, 1.5, 0.25, 0.5), EpochResult(1, 1.0, 0.75, 0.625)]
    plot_learning_curves(history, tmp_path / "curves.png")
    assert list(lines.values()) == [[1.5, 1.0], [0.25, 0.75], [0.5, 0.625]]
    assert [name for name in lines if "dev" in name] == ["Accuracy: dev"]


def test_a_missing_package_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependency, match="pip install matplotlib scikit-learn"):
        require_matplotlib()

"""Pictures of a run, for `run_llama.py --plots DIR`: learning curves and a confusion matrix, as PNG."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from errors import MissingDependency, UsageError
from utils import atomic_path

if TYPE_CHECKING:
    from finetune import EpochResult


def require_matplotlib() -> None:
    """Raise MissingDependency unless plots can be drawn; called before the work that they would show."""
    try:
        import matplotlib  # noqa: F401 - only whether it is there
        import sklearn  # noqa: F401
    except ImportError as error:
        raise MissingDependency("--plots", "matplotlib", "scikit-learn") from error


def plot_learning_curves(history: Sequence["EpochResult"], path: Path) -> None:
    """Draw loss and accuracies by epoch."""
    figure, (left, right) = new_figure(columns=2)
    epochs = [result.epoch for result in history]
    left.plot(epochs, [result.train_loss for result in history], marker="o")
    left.set(title="Training loss", xlabel="epoch", ylabel="nats a sentence", xticks=epochs)
    right.plot(epochs, [result.train_acc for result in history], marker="o", label="train (while training)")
    right.plot(epochs, [result.dev_acc for result in history], marker="o", label="dev")
    right.set(title="Accuracy", xlabel="epoch", ylabel="share of sentences", xticks=epochs, ylim=(0, 1))
    right.legend()
    save_figure(figure, path)


def plot_confusion(gold: Sequence[int], predicted: Sequence[int], label_names: Sequence[str], path: Path) -> None:
    """Draw how often each label was predicted for each gold label."""
    from sklearn.metrics import ConfusionMatrixDisplay

    figure, (axes,) = new_figure(columns=1)
    labels = range(len(label_names))
    ConfusionMatrixDisplay.from_predictions(
        gold, predicted, labels=labels, display_labels=label_names, cmap="Blues", colorbar=False, ax=axes
    )
    axes.set(xlabel="predicted", ylabel="gold", title=f"{path.stem} ({len(gold)} sentences)")
    save_figure(figure, path)


def new_figure(columns: int) -> tuple[Any, Any]:
    """Return a figure and its axes in a row. Raises MissingDependency without matplotlib."""
    figure = empty_figure(width=5.0 * columns, height=4.0)
    return figure, figure.subplots(1, columns, squeeze=False)[0]


def empty_figure(width: float, height: float) -> Any:
    """Return a figure that belongs to no window, with sides in inches. Raises MissingDependency without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency("drawing", "matplotlib") from error
    return Figure(figsize=(width, height), layout="constrained")


def require_png(path: Path) -> None:
    """Raise UsageError unless a picture's file is named .png; called before the work that it would show."""
    if path.suffix != ".png":
        raise UsageError(f"{path}: the picture is a PNG, name a file that ends in .png")


def save_figure(figure: Any, path: Path, description: str = "") -> None:
    """Write the figure as PNG, atomically; what it shows can be described in a text that the file carries."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Description": description} if description else None)

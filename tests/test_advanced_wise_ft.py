"""Mixtures of the weights of one training: python -m pytest tests/test_advanced_wise_ft.py"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.optim.swa_utils import AveragedModel

from advanced.method import Method
from advanced.regularise import Mixout
from advanced.schedules import EarlyStopping
from advanced.training import Training
from advanced.wise_ft import Averaging, WiseFt, mixture
from errors import UsageError
from tests.tiny_advanced import tiny_training

Weights = dict[str, torch.Tensor]


def same(one: Weights, other: Weights) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def plan_accuracies(monkeypatch: pytest.MonkeyPatch, training: Training, *values: float) -> list[Weights]:
    """Let the selection part say these values in turn, and return the list that the weights asked about go to."""
    planned: Iterator[float] = iter(values)
    seen: list[Weights] = []

    def accuracy(part: str) -> float:
        seen.append(training.trained_state())
        return next(planned)

    monkeypatch.setattr(training, "accuracy", accuracy)
    return seen


@given(st.floats(-1e6, 1e6, width=32), st.floats(-1e6, 1e6, width=32), st.floats(0.0, 1.0))
def test_a_mixture_lies_between_its_ends_and_the_ends_are_exact(start: float, end: float, alpha: float) -> None:
    ends = {"w": torch.tensor(start)}, {"w": torch.tensor(end)}
    assert mixture(*ends, 0.0)["w"] == start
    assert mixture(*ends, 1.0)["w"] == end
    expected = (1 - alpha) * start + alpha * end
    assert mixture(*ends, alpha)["w"].item() == pytest.approx(expected, abs=1e-6 * max(abs(start), abs(end)))


def test_wise_ft_goes_from_the_trained_weights_to_those_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training = tiny_training(tmp_path, WiseFt(2))
    start = training.trained_state()
    seen = plan_accuracies(monkeypatch, training, 0.5, *(0.1, 0.2, 0.3))  # the one check, then the mixtures
    training.run()
    trained, whole, half, none = seen
    assert same(whole, trained)
    assert same(half, mixture(start, trained, 0.5))
    assert same(none, start)
    assert not same(start, trained)


@pytest.mark.parametrize(
    ("accuracies", "alpha"),
    [
        ((0.1, 0.2, 0.3, 0.2, 0.1), 0.5),
        ((0.3, 0.3, 0.3, 0.3, 0.3), 1.0),  # among equals, the most trained
        ((0.1, 0.3, 0.2, 0.3, 0.3), 0.75),
        ((0.1, 0.1, 0.1, 0.1, 0.2), 0.0),
    ],
)
def test_wise_ft_keeps_the_best_mixture(
    accuracies: tuple[float, ...], alpha: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = WiseFt(4)
    training = tiny_training(tmp_path, method)
    seen = plan_accuracies(monkeypatch, training, 0.5, *accuracies)
    training.run()
    assert method.chosen == {"alpha": alpha}
    assert same(training.trained_state(), seen[1 + round(4 * (1 - alpha))])


def test_wise_ft_is_never_worse_on_the_selection_part(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, WiseFt(4), epochs=2)
    training.run()
    assert training.accuracy("selection") >= max(check.accuracy for check in training.history)


def test_wise_ft_starts_from_the_weights_and_not_from_those_that_mixout_mixed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_training(tmp_path, Mixout(0.5), WiseFt(1))
    start = training.trained_state()
    seen = plan_accuracies(monkeypatch, training, 0.5, *(0.1, 0.2))
    training.run()
    assert same(seen[-1], start)


class TorchAverage(Method):
    """Averages by PyTorch's own class, over the steps from `first` on."""

    def __init__(self, first: int) -> None:
        self.first, self.step = first, 0
        self.model: AveragedModel | None = None

    def after_step(self, training: Training) -> None:
        if self.step >= self.first:
            self.model = self.model or AveragedModel(training.classifier)
            self.model.update_parameters(training.classifier)
        self.step += 1


# Two epochs of four steps.
@pytest.mark.parametrize(("share", "first"), [(0.5, 4), (1.0, 0), (0.01, 7), (0.8, 2)])
def test_averaging_is_what_pytorch_averages(
    share: float, first: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, ours = TorchAverage(first), Averaging(share)
    training = tiny_training(tmp_path, theirs, ours, epochs=2)
    plan_accuracies(monkeypatch, training, 0.4, 0.5, 0.5)  # two checks, and the mean
    training.run()
    assert ours.chosen == {"selection_of_the_mean": 0.5, "kept": "mean"}
    assert theirs.model is not None
    assert theirs.model.n_averaged == 8 - first
    for name, parameter in theirs.model.module.named_parameters():
        torch.testing.assert_close(training.classifier.trained[name], parameter, atol=1e-6, rtol=1e-5)


def test_a_mean_that_does_worse_than_the_best_check_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = Averaging()
    training = tiny_training(tmp_path, method, epochs=2)
    seen = plan_accuracies(monkeypatch, training, 0.6, 0.5, 0.59)
    training.run()
    assert method.chosen == {"selection_of_the_mean": 0.59, "kept": "best check"}
    assert same(training.trained_state(), seen[0])


def test_a_training_that_stops_before_the_last_part_keeps_its_best_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_training(tmp_path, EarlyStopping(1), Averaging(0.1), epochs=20)
    seen = plan_accuracies(monkeypatch, training, 0.5, 0.4)
    training.run()
    assert same(training.trained_state(), seen[0])


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(UsageError, match="wise-ft: steps must be at least 1, got 0"):
        WiseFt(0)
    for share in (0.0, 1.5):
        with pytest.raises(UsageError, match=r"averaging: share must be in \(0, 1\], got"):
            Averaging(share)

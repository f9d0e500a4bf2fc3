"""Methods that mix weights of one training: what lies between them can be better than either end.

wise-ft (Wortsman et al. 2022, arXiv 2109.01903, section 3): between the weights before the finetuning, θ0, and those
after it, θ1, lies (1 - α) · θ0 + α · θ1. Of α = 0, 1 / steps, ..., 1 the one is kept that does best on the selection
part; among equals the largest, so that a mixture has to earn its place. A head that started at random numbers is mixed
as well: alpha = 0 is then no classifier yet, as it is with a head that `prompt-finetune` made. Cost: a copy of the
trained weights while training, another one and steps + 1 passes over the selection part at the end.

averaging (Izmailov et al. 2018, arXiv 1803.05407, section 3): the weights are the mean of those after each step in the
last part of the run. Early in that part the steps are as large as ever: it is meant for a learning rate that does not
fall to 0. The mean is kept if it does at least as well on the selection part as the best check. Cost: a copy of the
trained weights, a pass over them for each of those steps, and one over the selection part.

Both mix weights of matrices. The product of two mixed matrices is not the mixture of their products, so neither can be
combined with lora.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from advanced.method import Method
from errors import UsageError

if TYPE_CHECKING:
    from advanced.training import Training

Weights = Mapping[str, torch.Tensor]  # the trained ones, by name


def mixture(start: Weights, end: Weights, alpha: float) -> dict[str, torch.Tensor]:
    """Return (1 - alpha) · start + alpha · end for weights of the same names; 0 and 1 give the ends exactly."""
    return {name: torch.lerp(start[name], end[name], alpha) for name in start}


@dataclass
class WiseFt(Method):
    """Takes the best mixture of the weights before the finetuning and those after it."""

    steps: int = 10
    chosen: dict[str, float | str] = field(default_factory=dict, init=False)
    _start: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError if the way is not divided at all."""
        if self.steps < 1:
            raise UsageError(f"wise-ft: steps must be at least 1, got {self.steps}")

    def begin(self, training: "Training") -> None:
        """Remember where the training starts."""
        self._start = training.trained_state()

    def finish(self, training: "Training") -> None:
        """Leave the mixture in the classifier that does best on the selection part, and say which in `chosen`."""
        end = training.trained_state()
        best, best_alpha = -1.0, 1.0
        for i in range(self.steps, -1, -1):  # from the trained end: the first among equals stays
            training.load_state(mixture(self._start, end, i / self.steps))
            right = training.accuracy("selection")
            if right > best:
                best, best_alpha = right, i / self.steps
        training.load_state(mixture(self._start, end, best_alpha))
        self.chosen = {"alpha": best_alpha}


@dataclass
class Averaging(Method):
    """Takes the mean of the weights after each step in the last part of the run."""

    share: float = 0.5
    chosen: dict[str, float | str] = field(default_factory=dict, init=False)
    _mean: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)
    _steps_averaged: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError if `share` is no part of the run."""
        if not 0.0 < self.share <= 1.0:
            raise UsageError(f"averaging: share must be in (0, 1], got {self.share}")

    @torch.no_grad()
    def after_step(self, training: "Training") -> None:
        """Take the new weights into the mean."""
        if training.step < training.steps - max(1, round(self.share * training.steps)):
            return
        self._steps_averaged += 1
        if self._steps_averaged == 1:
            self._mean = training.trained_state()
            return
        for name, parameter in training.classifier.trained.items():
            self._mean[name].lerp_(parameter, 1 / self._steps_averaged)

    def finish(self, training: "Training") -> None:
        """Leave the mean in the classifier, if there is one and no check did better on the selection part."""
        if not self._mean:
            return  # the training was stopped before the last part of the run
        best = training.trained_state()
        training.load_state(self._mean)
        of_the_mean = training.accuracy("selection")
        is_kept = of_the_mean >= max(check.accuracy for check in training.history)
        if not is_kept:
            training.load_state(best)
        self.chosen = {"selection_of_the_mean": of_the_mean, "kept": "mean" if is_kept else "best check"}

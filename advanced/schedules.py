"""How long the steps are, and when they end.

cosine (Loshchilov & Hutter 2017, arXiv 1608.03983, equation 5, without restarts) and linear (Devlin et al. 2019, arXiv
1810.04805, appendix A.2): the learning rate rises along a line over the first steps, as the optimizer's moments know
little yet, and falls from then on. No step is wasted on a rate of 0, unless cosine's `lowest` asks for one at the end.

early-stopping (Prechelt 1998, doi 10.1007/3-540-49430-8_3; like its criterion UP, but counted from the best check):
training ends when the selection part has not improved for some checks. The weights of the best check are kept with or
without it: it saves time.

None of them costs anything.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from advanced.method import Method
from errors import UsageError
from pretrain.schedule import learning_rate

if TYPE_CHECKING:
    from advanced.training import Check


@dataclass
class Cosine(Method):
    """The learning rate warms up, then falls along half a cosine."""

    warm_up: float = 0.1
    lowest: float = 0.0

    def __post_init__(self) -> None:
        """Raise UsageError for what is no share."""
        _require_share("cosine", warm_up=self.warm_up, lowest=self.lowest)

    def rate(self, step: int, steps: int) -> float:
        """Return the step's share of the learning rate: `lowest` at the last step."""
        warmup_steps = round(self.warm_up * steps)
        return learning_rate(step, steps=steps, warmup_steps=warmup_steps, highest=1.0, lowest=self.lowest)


@dataclass
class Linear(Method):
    """The learning rate warms up, then falls along a line."""

    warm_up: float = 0.1

    def __post_init__(self) -> None:
        """Raise UsageError for what is no share."""
        _require_share("linear", warm_up=self.warm_up)

    def rate(self, step: int, steps: int) -> float:
        """Return the step's share of the learning rate: w steps of warm-up go up by 1 / w each, from 1 / w.

        The others go down by 1 / (steps - w) each, from 1, so that the step behind the last would have a rate of 0.
        """
        warmup_steps = round(self.warm_up * steps)
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return (steps - step) / (steps - warmup_steps)


@dataclass
class EarlyStopping(Method):
    """Training ends when the selection part has not improved for a while."""

    patience: int = 2

    def __post_init__(self) -> None:
        """Raise UsageError if it would stop whatever happens."""
        if self.patience < 1:
            raise UsageError(f"early-stopping: patience must be at least 1, got {self.patience}")

    def is_finished(self, history: Sequence["Check"]) -> bool:
        """Say whether `patience` checks have come after the best; of equals, the first is the best."""
        accuracies = [check.accuracy for check in history]
        return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= self.patience


def _require_share(method: str, **options: float) -> None:
    """Raise UsageError for an option outside [0, 1]."""
    for name, value in options.items():
        if not 0.0 <= value <= 1.0:
            raise UsageError(f"{method}: {name} must be in [0, 1], got {value}")

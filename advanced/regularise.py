"""Methods that hold the finetuning back: it has many weights and few sentences, and the pretrained weights know much.

mixout (Lee, Cho & Kang 2020, arXiv 1909.11299, section 3): in each step a random part M of the weights W, each with
probability p, is replaced by the pretrained weights W0, and the rest scaled such that the expectation is W:

    ((1 - M) ∘ W + M ∘ W0 - p · W0) / (1 - p)  =  W0 + D ∘ (W - W0)     with D = (1 - M) / (1 - p)

So it is dropout of what the finetuning changed. It changes the matrices of the Llama's layers. Cost: a copy of W0, and
during a step one of W and one of D; a random number a weight and some passes over the weights, twice a step.

llrd (Howard & Ruder 2018, arXiv 1801.06146, section 3.2): each layer's learning rate is a share of that of the layer
above it. It costs nothing.

label-smoothing (Szegedy et al. 2016, arXiv 1512.00567, section 7): the target gives the right label a probability of
1 - share, and all labels equal parts of the rest. It costs nothing.

The two methods that hold the model's answers in place are in `smoothness.py`.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from advanced.method import Groups, Method
from errors import UsageError
from inference.fast_modules import FastDropout

if TYPE_CHECKING:
    from advanced.training import Training

LAYERS = "llama.layers."
EMBEDDING = "llama.tok_embeddings."

Matrices = dict[str, torch.Tensor]  # by the names that they have in the Llama's layers


@dataclass
class Mixout(Method):
    """In each step, random weights are those that the training started with; evaluation reads the trained ones."""

    p: float = 0.3
    _pretrained: Matrices = field(default_factory=dict, init=False, repr=False)
    _trained: Matrices = field(default_factory=dict, init=False, repr=False)  # kept aside while they are mixed
    _dropout: Matrices = field(default_factory=dict, init=False, repr=False)  # D of the step

    def __post_init__(self) -> None:
        """Raise UsageError if `p` is no probability below 1."""
        if not 0.0 <= self.p < 1.0:
            raise UsageError(f"mixout: p must be in [0, 1), got {self.p}")

    def adapt(self, training: "Training") -> None:
        """Keep a copy of the matrices as the training finds them."""
        self._pretrained = {name: matrix.detach().clone() for name, matrix in _trained_matrices(training).items()}

    @torch.no_grad()
    def before_forward(self, training: "Training") -> None:
        """Mix the pretrained weights into the trained ones, which are kept aside."""
        if self.p == 0.0:
            return
        dropout = FastDropout(self.p)
        for name, matrix in _trained_matrices(training).items():
            pretrained = self._pretrained[name]
            self._trained[name] = matrix.detach().clone()
            self._dropout[name] = dropout(torch.ones_like(matrix))
            torch.addcmul(pretrained, self._dropout[name], matrix - pretrained, out=matrix.detach())

    @torch.no_grad()
    def after_backward(self, training: "Training") -> None:
        """Put the trained weights back, and turn the gradients of the mixed ones into theirs."""
        if self.p == 0.0:
            return
        for name, matrix in _trained_matrices(training).items():
            matrix.copy_(self._trained.pop(name))
            dropout = self._dropout.pop(name)
            if matrix.grad is not None:
                matrix.grad.mul_(dropout)


def _trained_matrices(training: "Training") -> dict[str, nn.Parameter]:
    """Return the matrices of the Llama's layers that are trained."""
    named = training.classifier.llama.layers.named_parameters()
    return {name: parameter for name, parameter in named if parameter.requires_grad and parameter.dim() >= 2}


@dataclass
class LayerwiseDecay(Method):
    """Lower layers take smaller steps, so that what is general in them stays."""

    decay: float = 0.8

    def __post_init__(self) -> None:
        """Raise UsageError if `decay` is not in (0, 1]."""
        if not 0.0 < self.decay <= 1.0:
            raise UsageError(f"llrd: decay must be in (0, 1], got {self.decay}")

    def parameter_groups(self, training: "Training", groups: Groups) -> Groups:
        """Part each group by depth: the rate of what lies d layers below the head is multiplied by decay^d."""
        names = {id(parameter): name for name, parameter in training.classifier.named_parameters()}
        n_layers = len(training.classifier.llama.layers)
        parted: Groups = []
        for group in groups:
            by_depth: dict[int, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                by_depth.setdefault(layers_below_head(names[id(parameter)], n_layers), []).append(parameter)
            for depth, params in sorted(by_depth.items()):
                parted.append({**group, "params": params, "rate": group["rate"] * self.decay**depth})
        return parted


def layers_below_head(name: str, n_layers: int) -> int:
    """Return how far below the head a weight of the classifier lies, by its name.

    The head and the last norm, and what a method put beside them: 0. The top layer: 1. The embedding: n_layers + 1.
    """
    if name.startswith(EMBEDDING):
        return n_layers + 1
    if name.startswith(LAYERS):
        return n_layers - int(name.removeprefix(LAYERS).partition(".")[0])
    return 0


@dataclass
class LabelSmoothing(Method):
    """The label asked for gets less than all of the probability, so that the model need not be certain."""

    share: float = 0.1

    def __post_init__(self) -> None:
        """Raise UsageError if `share` is not in [0, 1)."""
        if not 0.0 <= self.share < 1.0:
            raise UsageError(f"label-smoothing: share must be in [0, 1), got {self.share}")

    def loss(self, log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean cross-entropy with smoothed targets. Shapes: log_probs (bs, num_labels), labels (bs,)."""
        of_the_label = log_probs.gather(1, labels.unsqueeze(1)).mean()
        return -(1 - self.share) * of_the_label - self.share * log_probs.mean()

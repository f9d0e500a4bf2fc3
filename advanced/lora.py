"""Finetuning with few trained numbers: the pretrained weights stay, and something small is put beside each of them.

LoRA (Hu et al. 2021, arXiv 2106.09685, section 4.1) adds to a projection W, of shape (out, in), a product of two narrow
matrices: W x + alpha / rank · B A x, with A of shape (rank, in) and B of shape (out, rank). B starts at zero, so that
the training starts at the pretrained model.

IA3 (Liu et al. 2022, arXiv 2205.05638, section 3.3) multiplies keys, values and the hidden layer of the feed-forward
part by a learned vector each, which starts at ones.

Cost: rank · (in + out) numbers a projection, or 2 · n_kv_heads · head_dim + hidden_dim a layer. Gradients and the
optimizer's state exist for those only, and no gradient of a pretrained matrix is computed: a backward pass does about
half of its matrix products. After the training, `merge_adapters` puts all into the weights: a merged model is an
ordinary Llama, of the same size and speed.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from advanced.method import Method
from errors import UsageError
from llama import Attention, FeedForward, Llama

if TYPE_CHECKING:
    from advanced.training import Training

ATTENTION = ("compute_query", "compute_key", "compute_value", "compute_output")
FEED_FORWARD = ("w1", "w2", "w3")
GROUPS = {"attention": ATTENTION, "feed_forward": FEED_FORWARD, "all": ATTENTION + FEED_FORWARD}


class Adapter(nn.Linear):
    """A projection with a frozen weight, which it shares with the one whose place it takes, and something beside it."""

    def __init__(self, linear: nn.Linear) -> None:
        """Take over the weight, under its name, and freeze it."""
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")  # fills no memory
        self.weight = linear.weight.requires_grad_(False)
        self.is_merged = False

    def merge(self) -> None:
        """Put what stands beside the weight into it. Raises RuntimeError if it is there already."""
        raise NotImplementedError

    def _set_merged(self, is_merged: bool) -> None:
        """Note a merge, or that it was taken back; a second one in a row would change the model."""
        if self.is_merged == is_merged:
            raise RuntimeError(f"the projection is {'merged already' if is_merged else 'not merged'}")
        self.is_merged = is_merged


class LoraLinear(Adapter):
    """A projection with a product of two narrow matrices beside it (arXiv 2106.09685, section 4.1)."""

    def __init__(self, linear: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        """Draw A from ±1 / sqrt(in), as Hugging Face's peft does, and let B be zero."""
        super().__init__(linear)
        self.scaling = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.lora_a = nn.Parameter(self.weight.new_empty(rank, self.in_features))
        self.lora_b = nn.Parameter(self.weight.new_zeros(self.out_features, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return W x + alpha / rank · B A dropout(x). Shapes: (..., in) -> (..., out)."""
        projected = F.linear(input, self.weight)
        if self.is_merged:
            return projected
        return projected + self.scaling * F.linear(F.linear(self.dropout(input), self.lora_a), self.lora_b)

    @torch.no_grad()
    def merge(self) -> None:
        """Let W be W + alpha / rank · B A. Raises RuntimeError if it is already."""
        self._set_merged(True)
        self.weight += self.scaling * (self.lora_b @ self.lora_a)

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take `merge` back, to rounding. Raises RuntimeError if there was none."""
        self._set_merged(False)
        self.weight -= self.scaling * (self.lora_b @ self.lora_a)


class ScaledLinear(Adapter):
    """A projection whose output, or input, is multiplied by a learned vector (arXiv 2205.05638, section 3.3)."""

    def __init__(self, linear: nn.Linear, scales_input: bool) -> None:
        """Start with a vector of ones."""
        super().__init__(linear)
        self.scales_input = scales_input
        self.scale = nn.Parameter(self.weight.new_ones(self.in_features if scales_input else self.out_features))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return W (scale ⊙ x), or scale ⊙ W x. Shapes: (..., in) -> (..., out)."""
        if self.is_merged:
            return F.linear(input, self.weight)
        if self.scales_input:
            return F.linear(input * self.scale, self.weight)
        return F.linear(input, self.weight) * self.scale

    @torch.no_grad()
    def merge(self) -> None:
        """Multiply the columns of W, or its rows, by the vector. Raises RuntimeError if they are already."""
        self._set_merged(True)
        self.weight *= self.scale if self.scales_input else self.scale.unsqueeze(1)


@dataclass
class Lora(Method):
    """Trains the narrow matrices and the head, in place of the whole Llama."""

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    targets: str = "all"

    def __post_init__(self) -> None:
        """Check the options. Raises UsageError."""
        if self.rank < 1:
            raise UsageError(f"lora: rank must be at least 1, got {self.rank}")
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"lora: dropout must be in [0, 1), got {self.dropout}")
        parse_targets(self.targets)

    def adapt(self, training: "Training") -> None:
        """Freeze the Llama and put the narrow matrices in. Raises UsageError if it has adapters already."""
        llama = training.classifier.llama
        chosen = _trained_projections(llama, parse_targets(self.targets))
        llama.requires_grad_(False)
        for block, name, linear in chosen:
            setattr(block, name, LoraLinear(linear, self.rank, self.alpha, self.dropout))


@dataclass
class Ia3(Method):
    """Trains the scales and the head, in place of the whole Llama."""

    def adapt(self, training: "Training") -> None:
        """Freeze the Llama and put the scales in. Raises UsageError if it has adapters already."""
        llama = training.classifier.llama
        chosen = _trained_projections(llama, ("compute_key", "compute_value", "w2"))
        llama.requires_grad_(False)
        for block, name, linear in chosen:
            setattr(block, name, ScaledLinear(linear, scales_input=name == "w2"))


def parse_targets(text: str) -> tuple[str, ...]:
    """Return the projections that `text` names, by names or groups joined by +. Raises UsageError for others."""
    known = GROUPS | {name: (name,) for name in GROUPS["all"]}
    if unknown := [part for part in text.split("+") if part not in known]:
        raise UsageError(f"lora: there is no target '{unknown[0]}': name {', '.join(known)}, or some joined by +")
    chosen = {name for part in text.split("+") for name in known[part]}
    return tuple(name for name in GROUPS["all"] if name in chosen)


@torch.no_grad()
def merge_adapters(llama: Llama) -> None:
    """Merge all adapters of a Llama and put plain projections in their places: its weights are an ordinary model's."""
    for block, name in _projections(llama, GROUPS["all"]):
        adapter = getattr(block, name)
        if isinstance(adapter, Adapter):
            if not adapter.is_merged:
                adapter.merge()
            plain = nn.Linear(adapter.in_features, adapter.out_features, bias=False, device="meta")
            plain.weight = adapter.weight
            setattr(block, name, plain)


def _projections(llama: Llama, names: tuple[str, ...]) -> Iterator[tuple[nn.Module, str]]:
    """Yield each module that has a projection of one of `names`, with that name; shared layers once."""
    for block in list(llama.modules()):
        if isinstance(block, Attention | FeedForward):
            yield from ((block, name) for name in names if hasattr(block, name))


def _trained_projections(llama: Llama, names: tuple[str, ...]) -> list[tuple[nn.Module, str, nn.Linear]]:
    """Return what is to be adapted: of layers that another method has frozen, nothing.

    Raises UsageError for a Llama that has adapters: the second method would freeze those of the first.
    """
    if any(isinstance(module, Adapter) for module in llama.modules()):
        raise UsageError("lora and ia3 each freeze all but their own weights: name one of them")
    found = [(block, name, getattr(block, name)) for block, name in _projections(llama, names)]
    return [(block, name, linear) for block, name, linear in found if linear.weight.requires_grad]

"""Other ways to read a sentence off the hidden states: the mean of all tokens, a learned mean, and sight of both sides.

The assignment's head reads the last token alone, the only one that has seen the whole sentence.

- `MeanPooling` (Reimers & Gurevych 2019, arXiv 1908.10084, section 3) gives it the mean over the tokens.
- `AttentionPooling` (Yang et al. 2016, doi 10.18653/v1/N16-1174, section 2.2) weights that mean by how well each token
  fits a learned vector, here the hidden states themselves and no further layer over them.
- `Bidirectional` (BehnamGhader et al. 2024, arXiv 2404.05961, section 2) takes the causal mask away. Theirs then trains
  the model to fill gaps in text before it learns a task; here it learns the task at once.

Cost: no parameters but the `dim` numbers of the learned vector, and seqlen · dim products a sentence. Without the
causal mask attention computes twice as many scores; at a sentence's length they are a small part of a layer's work.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from advanced.method import Method
from advanced.model import text_mask
from errors import UsageError
from llama import Attention, Llama

if TYPE_CHECKING:
    from advanced.training import Training


class MeanPool(nn.Module):
    """Reads the mean of a row's hidden states, padding apart."""

    def forward(self, hidden: torch.Tensor, input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return a vector for each row. Shapes: hidden (bs, seqlen, dim), input_ids (bs, seqlen) -> (bs, dim)."""
        return _mix(self.weights(hidden, input_ids, pad_id), hidden)

    def weights(self, hidden: torch.Tensor, input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return the share of each token, 0 for padding; a row's sum is 1. Shape: (bs, seqlen)."""
        mask = text_mask(input_ids, pad_id).to(hidden.dtype)
        return mask / mask.sum(dim=1, keepdim=True)


class AttentionPool(nn.Module):
    """Reads a weighted mean of a row's hidden states; it starts as their mean."""

    def __init__(self, dim: int) -> None:
        """Start with a vector of `dim` zeros, to which all tokens fit the same."""
        super().__init__()
        self.query = nn.Parameter(torch.zeros(dim))

    def forward(self, hidden: torch.Tensor, input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return a vector for each row. Shapes: hidden (bs, seqlen, dim), input_ids (bs, seqlen) -> (bs, dim)."""
        return _mix(self.weights(hidden, input_ids, pad_id), hidden)

    def weights(self, hidden: torch.Tensor, input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return softmax(hidden · query) over a row's tokens, 0 for padding. Shape: (bs, seqlen)."""
        scores = hidden @ self.query  # (bs, seqlen)
        return scores.masked_fill(~text_mask(input_ids, pad_id), float("-inf")).softmax(dim=1)


@dataclass
class MeanPooling(Method):
    """Lets the head read the mean over all tokens."""

    def adapt(self, training: "Training") -> None:
        """Exchange the classifier's pooling."""
        training.classifier.pool = MeanPool()


@dataclass
class AttentionPooling(Method):
    """Lets the head read a mean with learned weights, which is trained with everything else."""

    def adapt(self, training: "Training") -> None:
        """Exchange the classifier's pooling."""
        classifier = training.classifier
        classifier.pool = AttentionPool(classifier.llama.config.dim).to(classifier.classifier_head.weight.device)


@dataclass
class Bidirectional(Method):
    """Lets every token see the whole sentence, and no padding."""

    def adapt(self, training: "Training") -> None:
        """Take the causal mask away, and let a mask over each row's padding be set before each forward pass.

        Raises UsageError for ALiBi: what it adds to a score says how far back a token lies, and nothing of those ahead.
        """
        llama = training.classifier.llama
        if llama.config.position_embedding_type == "alibi":
            raise UsageError(
                "bidirectional: this Llama has ALiBi, which knows no positions ahead. Take one with rotary positions"
            )
        llama.config.causal = False
        for module in llama.modules():
            if isinstance(module, Attention):
                module.causal = False
        llama.register_forward_pre_hook(hide_padding)


def hide_padding(llama: nn.Module, arguments: tuple[Any, ...]) -> None:
    """Set each attention's bias to -inf at the padding of a batch, the first of `arguments`: (bs, 1, 1, seqlen)."""
    assert isinstance(llama, Llama)
    is_text = text_mask(arguments[0], llama.config.pad_id)
    bias = torch.zeros(is_text.shape, dtype=llama.dtype, device=is_text.device)
    bias = bias.masked_fill(~is_text, float("-inf"))[:, None, None]
    for module in llama.modules():
        if isinstance(module, Attention):
            module.attention_bias = bias


def _mix(weights: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
    """Return the weighted sum of each row's hidden states. Shapes: (bs, seqlen), (bs, seqlen, dim) -> (bs, dim)."""
    return (weights.unsqueeze(-1) * hidden).sum(dim=1)

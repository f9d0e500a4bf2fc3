"""The classifier that the methods change: the assignment's own, with its reading of the hidden states as a module."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from classifier import LlamaEmbeddingClassifier, last_token_positions
from config import ClassifierConfig


class LastToken(nn.Module):
    """Reads the hidden state of a row's last real token, as the assignment does."""

    def forward(self, hidden: torch.Tensor, input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
        """Return a vector for each row. Shapes: hidden (bs, seqlen, dim), input_ids (bs, seqlen) -> (bs, dim)."""
        last = last_token_positions(input_ids, pad_id)  # (bs,)
        return hidden[torch.arange(len(input_ids), device=input_ids.device), last]


class Classifier(LlamaEmbeddingClassifier):
    """A `LlamaEmbeddingClassifier` that reads the hidden states by `self.pool`, which a method may replace."""

    def __init__(self, checkpoint: Path, num_labels: int, dropout: float) -> None:
        """Load the Llama. Raises CheckpointError."""
        config = ClassifierConfig(num_labels, str(checkpoint), option="finetune", hidden_dropout_prob=dropout)
        super().__init__(config)
        self.pool: nn.Module = LastToken()
        self.about = ""  # which methods have adapted it, with their options
        self.is_rewritten = False  # whether weights that are not trained are others than the checkpoint's

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the labels. Shapes: input_ids (bs, seqlen) -> (bs, num_labels)."""
        _, hidden = self.llama(input_ids)  # (bs, seqlen, dim)
        sentence = self.pool(hidden, input_ids, self.llama.config.pad_id)  # (bs, dim)
        return F.log_softmax(self.classifier_head(self.dropout(sentence)), dim=-1)

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    @property
    def kept(self) -> dict[str, nn.Parameter]:
        """What has to be saved beside the checkpoint: what is trained, or all if more than that was changed."""
        return dict(self.named_parameters()) if self.is_rewritten else self.trained


def text_mask(input_ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Return which tokens are no padding behind a row's end. Shapes: (bs, seqlen) -> (bs, seqlen), bool."""
    positions = torch.arange(input_ids.shape[1], device=input_ids.device)
    return positions <= last_token_positions(input_ids, pad_id).unsqueeze(1)

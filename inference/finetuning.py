"""Finetuning in less time: a classifier of the assignment whose Llama computes the same by faster modules.

    classifier = LlamaEmbeddingClassifier(config)
    speed_up_classifier(classifier)
    Finetuner(classifier, best_path, optimizer=FastAdamW, ...)

The classifier's own code stays as it is, and so do the weights, their names, and what is saved.
"""

import torch
from torch import nn

from classifier import LlamaEmbeddingClassifier
from inference.fast_modules import speed_up


class UnreadHead(nn.Linear):
    """An output matrix whose results nobody reads: it keeps its weight and computes nothing."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits over no tokens. Shapes: (..., dim) -> (..., 0)."""
        return x.new_empty(*x.shape[:-1], 0)


def speed_up_classifier(classifier: LlamaEmbeddingClassifier, *, compiled: bool = False) -> None:
    """Let `classifier` compute the same faster, in place. Call it when it is on its device.

    Its Llama gets the modules of `fast_modules.py` and no longer computes logits, of which the classifier reads none.
    The losses are the simple classifier's to rounding, as the dropout before the head draws the same random numbers;
    only dropout inside the Llama, if its configuration has some, draws others.

    `compiled` has torch.compile write the layers' code, once for all lengths of sentences. That takes some 20 seconds,
    and on a CPU a C++ compiler; there it gained nothing at 42 million parameters, for matrix products stay what they
    are.
    """
    llama = classifier.llama
    speed_up(llama)
    llama.output.__class__ = UnreadHead
    if compiled:
        for layer in llama.layers:  # one piece of code for all of them, as they differ in nothing but weights
            layer.compile(dynamic=True)

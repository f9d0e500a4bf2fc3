"""Train the last layers only: the lower ones, and the embedding, stay as the pretraining left them.

Lee, Tang & Lin 2019, "What Would Elsa Do?" (arXiv 1911.03090, section 3), find that a fraction of a model's top layers
reaches most of what finetuning all of them does.

Cost: no new parameters. Gradients and the optimizer's state exist for the trained layers only, and the backward pass
ends at the lowest of them, so that a step saves up to two thirds of a frozen layer's time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from advanced.method import Method
from errors import UsageError

if TYPE_CHECKING:
    from advanced.training import Training


@dataclass
class TopLayers(Method):
    """Trains the last `layers` layers, the norm behind them, and the head."""

    layers: int = 2

    def adapt(self, training: "Training") -> None:
        """Freeze the rest. Raises UsageError if the Llama has no such number of layers."""
        llama = training.classifier.llama
        if not 1 <= self.layers <= llama.n_layers:
            raise UsageError(f"top-layers: layers must be from 1 to the model's {llama.n_layers}, got {self.layers}")
        llama.requires_grad_(False)
        for layer in llama.layers[-self.layers :]:
            layer.requires_grad_(True)
        llama.norm.requires_grad_(True)

"""What a method of finetuning is: something that changes the plain training at a few agreed moments.

`training.py` calls these in turn, for each of the methods that were asked for, so that they can be combined:

    prompt            which question follows each sentence, if any
    adapt             change the classifier before the optimizer is made: new weights, frozen ones, another pooling
    parameter_groups  what is trained, and at what share of the learning rate
    rate              the learning rate of a step, as a share of the highest one
    begin             once, before the first step
    before_forward    of each step
    penalty           what is added to the loss
    after_backward    gradients are there, the step is not yet taken
    after_step
    is_finished       whether to stop here
    finish            the weights of the best epoch are back

What a method does not change it does not mention.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from advanced.task import Task
    from advanced.training import Check, Training

Groups = list[dict[str, Any]]  # an optimizer's: {"params": [...], "rate": the share of the learning rate}


class Method:
    """A method that changes nothing: plain finetuning. The arguments of a subclass are its options."""

    def prompt(self, task: "Task") -> str | None:
        """Return the question that follows each sentence; None for none."""
        return None

    def adapt(self, training: "Training") -> None:
        """Change `training.classifier`, before it gets its optimizer and its faster modules."""

    def parameter_groups(self, training: "Training", groups: Groups) -> Groups:
        """Return the groups to train in place of `groups`, each of the same parameters or fewer."""
        return groups

    def loss(self, log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor | None:
        """Return what takes the place of the cross-entropy; None for the cross-entropy.

        Shapes: log_probs (bs, num_labels), labels (bs,) -> ().
        """
        return None

    def rate(self, step: int, steps: int) -> float:
        """Return the share of the learning rate that step `step` of `steps` takes, counted from 0."""
        return 1.0

    def begin(self, training: "Training") -> None:
        """Look at the classifier, which is adapted and not yet trained, or remember it."""

    def before_forward(self, training: "Training") -> None:
        """Prepare a step's forward pass."""

    def penalty(self, training: "Training", input_ids: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor | None:
        """Return what is added to a step's loss, or None.

        Shapes: input_ids (bs, seqlen), log_probs (bs, num_labels), with their gradients -> ().
        """
        return None

    def after_backward(self, training: "Training") -> None:
        """Look at a step's gradients, or change them."""

    def after_step(self, training: "Training") -> None:
        """Look at the new weights, or change them."""

    def is_finished(self, history: Sequence["Check"]) -> bool:
        """Say whether to stop, after the checks so far."""
        return False

    def finish(self, training: "Training") -> None:
        """Change the trained classifier once more."""

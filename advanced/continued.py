"""Continued pretraining on the task's own sentences, before the finetuning.

Gururangan et al. 2020 ("Don't Stop Pretraining", arXiv 2004.10964), section 4: a language model that first goes on with
its pretraining on the unlabelled text of a task does better on it. Here the text is the sentences of the part that is
trained on. It costs a pass over them with the output matrix, and while it lasts the optimizer's state for all weights;
it leaves no parameters behind.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from advanced.method import Method
from errors import TrainingError, UsageError
from inference.fast_adamw import FastAdamW
from inference.fast_modules import speed_up
from llama import Llama
from pretrain.model import next_token_loss
from pretrain.schedule import learning_rate
from pretrain.windows import Windows, draw
from tokenizer import Tokenizer
from utils import progress

if TYPE_CHECKING:
    from advanced.training import Recipe, Training

LONGEST = 256  # tokens of a window
TOKENS_A_STEP = 2048
WARM_UP = 0.1  # share of the steps
LOWEST = 0.1  # share of the learning rate, in the last step: of little text, it is the only one


@dataclass
class Continued(Method):
    """The language model first reads the task's sentences, without their labels."""

    passes: int = 1
    lr: float = 3e-4
    chosen: dict[str, float | str] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        """Raise UsageError for an option outside its range."""
        if self.passes < 1:
            raise UsageError(f"continued: passes must be at least 1, got {self.passes}")
        if not self.lr > 0.0:
            raise UsageError(f"continued: lr must be above 0, got {self.lr}")

    def adapt(self, training: "Training") -> None:
        """Train the language model, and put its loss on the selection part, in nats a token, into `chosen`.

        Raises TrainingError if the loss is no number any more.
        """
        llama, recipe = training.classifier.llama, training.recipe
        texts = {part: training.task.sentences(part) for part in ("fit", "selection")}
        fit, held_out = (windows_of(text, training.tokenizer, llama, recipe.seed) for text in texts.values())
        was_training, was_trained = llama.training, [parameter.requires_grad for parameter in llama.parameters()]
        kinds = {module: type(module) for module in llama.modules()}
        llama.requires_grad_(True)
        speed_up(llama)
        before = held_out_loss(llama, held_out, recipe.precision)
        self._train(llama, fit, recipe)
        after = held_out_loss(llama, held_out, recipe.precision)
        _require_finite(after, "after the last step")
        # Fast modules hold tables of what the model is now, and a later method may change that.
        for module, kind in kinds.items():
            module.__class__ = kind
        training.classifier.is_rewritten = True
        for parameter, is_trained in zip(llama.parameters(), was_trained, strict=True):
            parameter.requires_grad_(is_trained)
        llama.train(was_training)
        self.chosen = {"loss_before": before, "loss_after": after}
        print(f"continued: held-out loss :: {before:.3f} before, {after:.3f} after", flush=True)

    def _train(self, llama: Llama, windows: Windows, recipe: "Recipe") -> None:
        """Read each window `passes` times, in an order that the seed decides."""
        llama.train()
        device = llama.tok_embeddings.weight.device
        optimizer = FastAdamW(llama.parameters(), lr=self.lr)
        total, rows = self.passes * len(windows), rows_of(windows)
        steps = math.ceil(total / rows)
        for step in progress(range(steps), "continued", total=steps):
            warmup_steps, lowest = round(WARM_UP * steps), LOWEST * self.lr
            rate = learning_rate(step, steps=steps, warmup_steps=warmup_steps, highest=self.lr, lowest=lowest)
            for group in optimizer.param_groups:
                group["lr"] = rate
            positions = range(step * rows, min((step + 1) * rows, total))
            inputs, targets = windows.batch([draw(i, len(windows), recipe.seed) for i in positions])
            loss = next_token_loss(llama, inputs.to(device), targets.to(device), recipe.precision)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            _require_finite(loss.item(), f"in step {step}")
        optimizer.zero_grad()


def windows_of(sentences: Sequence[str], tokenizer: Tokenizer, llama: Llama, seed: int) -> Windows:
    """Return the sentences as windows of one stream, each behind a begin token, in an order that `seed` decides.

    A window has what the model has room for, at most `LONGEST` tokens, and less where there is less text than that.
    """
    order = list(sentences)
    random.Random(seed).shuffle(order)
    stream = np.array([i for text in order for i in tokenizer.encode(text, bos=True, eos=False)], dtype=np.uint32)
    context = min(llama.config.max_seq_len, LONGEST, len(stream) - 1)
    return Windows([stream], context, context, name="continued")


def rows_of(windows: Windows) -> int:
    """Return how many windows make `TOKENS_A_STEP` tokens; at least one."""
    return max(1, TOKENS_A_STEP // windows.context)


@torch.inference_mode()
def held_out_loss(llama: Llama, windows: Windows, precision: torch.dtype) -> float:
    """Return the mean cross-entropy of the next token over all windows, in nats a token."""
    llama.eval()
    device, rows, total = llama.tok_embeddings.weight.device, rows_of(windows), 0.0
    for first in range(0, len(windows), rows):
        numbers = range(first, min(first + rows, len(windows)))
        inputs, targets = windows.batch(numbers)
        total += len(numbers) * next_token_loss(llama, inputs.to(device), targets.to(device), precision).item()
    return total / len(windows)


def _require_finite(loss: float, when: str) -> None:
    """Raise TrainingError for a loss that is no number."""
    if not math.isfinite(loss):
        raise TrainingError(f"continued: the loss is {loss} {when}: try a lower lr of continued")

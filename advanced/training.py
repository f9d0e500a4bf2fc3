"""The training that all methods share: the assignment's finetuning, with the moments of `method.py` in it.

Without methods it takes the same steps as `finetune.Finetuner`, to rounding; a test holds that.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass

import torch
import torch.nn.functional as F

from advanced.cost import live_bytes, size_of
from advanced.method import Groups, Method
from advanced.model import Classifier
from advanced.task import Part, Task
from errors import TrainingError
from finetune import batches_of_epoch, label_log_probs, score
from inference.fast_adamw import FastAdamW
from inference.finetuning import speed_up_classifier
from sentiment_data import EncodedExamples, accuracy, collate, encode
from tokenizer import Tokenizer
from utils import progress

EVALUATION_BATCH = 64  # sentences
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Recipe:
    """The numbers of a training that no method sets."""

    epochs: int = 5
    batch_size: int = 8  # sentences
    lr: float = 2e-5
    weight_decay: float = 0.0
    max_sentence_len: int | None = None  # tokens
    checks: int = 1  # how often an epoch the selection part is scored
    seed: int = 1337
    precision: torch.dtype = torch.float32  # of matrix products


@dataclass(frozen=True)
class Check:
    """What the selection part said at one moment."""

    epoch: float  # passes over the data so far
    train_loss: float  # nats a sentence, since the check before
    accuracy: float

    def __str__(self) -> str:
        """Return the line that is printed after a check."""
        return f"epoch {self.epoch:.2f}: train loss :: {self.train_loss:.3f}, selection acc :: {self.accuracy:.3f}"


class Training:
    """A classifier, the methods that change its training, and the data."""

    def __init__(
        self, classifier: Classifier, tokenizer: Tokenizer, task: Task, methods: Sequence[Method], recipe: Recipe
    ) -> None:
        """Let the methods adapt the classifier, which is on its device, and make the optimizer."""
        self.classifier, self.tokenizer, self.task = classifier, tokenizer, task
        classifier.llama.config.pad_id = tokenizer.pad_id
        self.methods, self.recipe = methods, recipe
        self.history: list[Check] = []
        self.step, self.steps = 0, 0  # the one that is being taken, counted from 0, and how many are planned
        self.held_bytes = 0  # by all tensors after the last step: weights, gradients, the optimizer's, methods' own
        self.suffix = next((suffix for method in methods if (suffix := method.prompt(task)) is not None), "")
        self._encoded: dict[Part, EncodedExamples] = {}
        classifier.about = "; ".join(map(description, methods))
        for method in methods:
            method.adapt(self)
        speed_up_classifier(classifier)
        self.optimizer = FastAdamW(self._groups(), lr=recipe.lr, weight_decay=recipe.weight_decay)

    def run(self) -> None:
        """Train, keep the weights of the best check on the selection part, and let the methods finish.

        Raises TrainingError if the loss is no number any more.
        """
        for method in self.methods:
            method.begin(self)
        best = self.trained_state()
        for check in self._checks():
            if check.accuracy > max((earlier.accuracy for earlier in self.history), default=-1.0):
                best = self.trained_state()
            self.history.append(check)
            print(check, flush=True)
            if any(method.is_finished(self.history) for method in self.methods):
                break
        self.held_bytes = live_bytes() - sum(map(size_of, best.values()))
        self.load_state(best)
        for method in self.methods:
            method.finish(self)

    def encoded(self, part: Part) -> EncodedExamples:
        """Return a part of the task as token ids, encoded at the first use."""
        if part not in self._encoded:
            context = self.classifier.llama.config.max_seq_len
            max_len = min(context, self.recipe.max_sentence_len or context)
            self._encoded[part] = encode(self.task.parts[part], self.tokenizer, max_len, self.suffix)
        return self._encoded[part]

    def log_probs(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the classifier's answer in float32. Shapes: input_ids (bs, seqlen) -> (bs, num_labels)."""
        return label_log_probs(self.classifier, input_ids, self.recipe.precision)

    def scores(self, part: Part) -> torch.Tensor:
        """Return the log-probabilities of a part's labels, in its order, on the CPU: (sentences, num_labels)."""
        rows, pad_id, precision = self.encoded(part).ids, self.tokenizer.pad_id, self.recipe.precision
        return score(
            self.classifier, rows, EVALUATION_BATCH, pad_id, bucketed=True, precision=precision, description=part
        )

    def accuracy(self, part: Part) -> float:
        """Return the share of a part's labels that the classifier, as it is now, gives."""
        return accuracy(self.scores(part).argmax(dim=1).tolist(), self.task.labels(part))

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put trained weights in, by their names; what is not named stays."""
        with torch.no_grad():
            for name, parameter in self.classifier.trained.items():
                parameter.copy_(state[name])

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return a copy of the trained weights."""
        return {name: parameter.detach().clone() for name, parameter in self.classifier.trained.items()}

    def _groups(self) -> Groups:
        """Return what the optimizer trains, as the methods want it."""
        groups: Groups = [{"params": list(self.classifier.trained.values()), "rate": 1.0}]
        for method in self.methods:
            groups = method.parameter_groups(self, groups)
        return groups

    def _checks(self) -> Iterator[Check]:
        """Train step by step, and yield what the selection part says after each share of an epoch."""
        fit, recipe = self.encoded("fit"), self.recipe
        per_epoch = math.ceil(len(fit.ids) / recipe.batch_size)
        ends = {math.ceil(per_epoch * (i + 1) / recipe.checks) for i in range(recipe.checks)}
        self.step, self.steps = 0, per_epoch * recipe.epochs
        for epoch in range(recipe.epochs):
            order = batches_of_epoch(fit, recipe.batch_size, recipe.seed, epoch)
            loss, seen = 0.0, 0
            for number, batch in enumerate(progress(order, f"epoch {epoch}", total=len(order)), start=1):
                loss += self._step(fit, batch) * len(batch)
                seen, self.step = seen + len(batch), self.step + 1
                if number in ends:
                    yield Check(self.step / per_epoch, loss / seen, self.accuracy("selection"))
                    loss, seen = 0.0, 0

    def _step(self, fit: EncodedExamples, batch: list[int]) -> float:
        """Train on one batch, and return its loss."""
        self.classifier.train()
        rate = math.prod(method.rate(self.step, self.steps) for method in self.methods)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.lr * group["rate"] * rate
        for method in self.methods:
            method.before_forward(self)
        input_ids = collate([fit.ids[i] for i in batch], self.tokenizer.pad_id)
        log_probs = self.log_probs(input_ids)
        labels = torch.tensor([fit.labels[i] for i in batch], device=log_probs.device)  # (bs,)
        loss = self._loss(input_ids, log_probs, labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for method in self.methods:
            method.after_backward(self)
        self.optimizer.step()
        for method in self.methods:
            method.after_step(self)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"the loss is {loss.item()} in step {self.step}: try a lower --lr")
        return loss.item()

    def _loss(self, input_ids: torch.Tensor, log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy, or what a method has in its place, and the methods' penalties."""
        own = (method.loss(log_probs, labels) for method in self.methods)
        loss = next((value for value in own if value is not None), None)
        loss = F.nll_loss(log_probs, labels) if loss is None else loss
        for method in self.methods:
            penalty = method.penalty(self, input_ids, log_probs)
            loss = loss if penalty is None else loss + penalty
        return loss


def description(method: Method) -> str:
    """Return a method with its options, as it would be written in Python."""
    names: list[str] = [field.name for field in fields(method) if field.init] if is_dataclass(method) else []
    options = ", ".join(f"{name}={getattr(method, name)!r}" for name in names)
    return f"{type(method).__name__}({options})"


def describe(recipe: Recipe) -> dict[str, object]:
    """Return a recipe as plain data for a results row; the seed is the row's own."""
    return {**asdict(recipe), "precision": str(recipe.precision).removeprefix("torch.")}

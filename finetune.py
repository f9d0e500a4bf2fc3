"""Training a classifier and applying it: the best epoch is kept, and a killed run goes on as if nothing had happened.

`Finetuner` knows rows of token ids and their labels; where they come from, and what is printed, is `run_llama.py`'s.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from checkpoint import load_torch_file, save_torch_file, write_checkpoint
from classifier import LlamaEmbeddingClassifier
from errors import TrainingError
from optimizer import AdamW
from sentiment_data import EncodedExamples, accuracy, collate, make_batches
from utils import progress


@dataclass(frozen=True)
class EpochResult:
    """What one epoch gave; `train_acc` is counted while training: with dropout, by weights that change meanwhile."""

    epoch: int
    train_loss: float  # nats a sentence
    train_acc: float
    dev_acc: float

    def __str__(self) -> str:
        """Return the line that is printed after the epoch."""
        return (
            f"epoch {self.epoch}: train loss :: {self.train_loss:.3f}, "
            f"train acc :: {self.train_acc:.3f}, dev acc :: {self.dev_acc:.3f}"
        )


def predict(
    classifier: nn.Module,
    rows: Sequence[list[int]],
    batch_size: int,
    pad_id: int,
    *,
    bucketed: bool,
    precision: torch.dtype = torch.float32,
) -> list[int]:
    """Return the most likely label of each row, in the order of `rows`; `bucketed` batches rows of similar length."""
    if not rows:
        return []
    log_probs = score(classifier, rows, batch_size, pad_id, bucketed=bucketed, precision=precision)
    labels: list[int] = log_probs.argmax(dim=1).tolist()
    return labels


@torch.inference_mode()
def score(
    classifier: nn.Module,
    rows: Sequence[list[int]],
    batch_size: int,
    pad_id: int,
    *,
    bucketed: bool,
    precision: torch.dtype = torch.float32,
    description: str = "predicting",
) -> torch.Tensor:
    """Return the log-probabilities of each row's labels, in the order of `rows`, on the CPU: (rows, num_labels).

    `description` stands beside the progress bar. Raises ValueError if there are no rows.
    """
    if not rows:
        raise ValueError("there are no rows to score")
    classifier.eval()
    batches = make_batches([len(row) for row in rows], batch_size, bucketed=bucketed, shuffle_seed=None)
    inputs = (collate([rows[i] for i in batch], pad_id) for batch in progress(batches, description))
    found = torch.cat([label_log_probs(classifier, input_ids, precision).cpu() for input_ids in inputs])
    in_order = torch.empty_like(found)
    in_order[[i for batch in batches for i in batch]] = found
    return in_order


def label_log_probs(classifier: nn.Module, input_ids: torch.Tensor, precision: torch.dtype) -> torch.Tensor:
    """Return the log-probabilities of the labels in float32, with matrix products in `precision`.

    Shapes: input_ids (bs, seqlen), on the CPU -> (bs, num_labels), on the classifier's device.
    """
    device = next(classifier.parameters()).device
    with torch.autocast(device.type, precision, enabled=precision != torch.float32):
        log_probs: torch.Tensor = classifier(_to_device(input_ids, device))
    return log_probs.float()


def _to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor from the CPU to `device`; a GPU fetches it by itself, from memory that stays where it is."""
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def batches_of_epoch(
    train: EncodedExamples, batch_size: int, seed: int, epoch: int, *, bucketed: bool = True
) -> list[list[int]]:
    """Return which examples each batch of an epoch has, in the order in which they are trained on."""
    # A seed for each epoch that no other seed's epochs share, as long as epochs stay below a million.
    return make_batches(train.lengths, batch_size, bucketed=bucketed, shuffle_seed=seed * 1_000_000 + epoch)


class Finetuner:
    """Trains a classifier for some epochs and keeps the one with the best accuracy on the dev set.

    After each epoch two files are written, each atomically: `best_path` if the epoch is the best so far, and
    `resume_path` with everything that the next epoch starts from. The order of the data depends on the seed and the
    epoch alone, so a resumed run ends with the same weights as an unbroken one.
    """

    def __init__(
        self,
        classifier: LlamaEmbeddingClassifier,
        best_path: Path,
        *,
        run: dict[str, Any],
        batch_size: int,
        lr: float,
        seed: int,
        pad_id: int,
        bucketed: bool = True,
        optimizer: type[AdamW] = AdamW,
        precision: torch.dtype = torch.float32,
    ) -> None:
        """Prepare to train `classifier`; `run` describes everything that a resumed run must share with this one.

        `precision` is that of matrix products; weights, their gradients and the loss are in float32.
        """
        self.classifier = classifier
        self.precision = precision
        self.optimizer = optimizer([p for p in classifier.parameters() if p.requires_grad], lr=lr)
        self.best_path = best_path
        self.resume_path = best_path.with_suffix(".resume.pt")
        self.run = run
        self.batch_size = batch_size
        self.seed = seed
        self.pad_id = pad_id
        self.bucketed = bucketed
        self.history: list[EpochResult] = []

    def fit(
        self, train: EncodedExamples, dev: EncodedExamples, epochs: int, report: Callable[[EpochResult], None]
    ) -> None:
        """Train up to `epochs` epochs in all, call `report` after each, and leave the best weights in the classifier.

        Raises TrainingError if the loss is no number any more.
        """
        for epoch in range(len(self.history), epochs):
            loss, acc = self._train_epoch(epoch, train)
            dev_acc = accuracy(self.predict(dev), dev.labels)
            result = EpochResult(epoch, loss, acc, dev_acc)
            if dev_acc > max((earlier.dev_acc for earlier in self.history), default=-1.0):
                self._save_best(result)
            self.history.append(result)
            self._save_state()
            report(result)
        self._load_best()

    def predict(self, examples: EncodedExamples) -> list[int]:
        """Return the label that the classifier, as it is now, gives to each example."""
        rows, batch_size, pad_id = examples.ids, self.batch_size, self.pad_id
        return predict(self.classifier, rows, batch_size, pad_id, bucketed=self.bucketed, precision=self.precision)

    def resume(self) -> bool:
        """Take up the run where its last finished epoch left it; False if no run of this name was stopped.

        Raises TrainingError if a run was stopped that had other options, or its file does not fit; CheckpointError if
        the file is damaged.
        """
        name = self.best_path.stem.rpartition("-")[0]  # without the mark of the options
        stopped = [self.resume_path, *self.best_path.parent.glob(f"{name}-*.resume.pt")]
        path = next((path for path in stopped if path.is_file()), None)
        if path is None:
            return False
        state = load_torch_file(path)
        theirs = state.get("run", {})
        if differing := [name for name in self.run | theirs if theirs.get(name) != self.run.get(name)]:
            raise TrainingError(
                f"{path} belongs to a run with another {', '.join(differing)}: "
                "give the same options again, or leave --resume out to start anew"
            )
        try:
            self._restore(state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"{path} does not fit this code ({error}): delete it and start anew") from error
        return True

    def _restore(self, state: dict[str, Any]) -> None:
        """Put back what `_save_state` saved."""
        self.classifier.load_state_dict(state["classifier"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history = [EpochResult(**result) for result in state["history"]]
        _set_rng_states(state["rng"])

    def finish(self) -> None:
        """Remove what only a resumed run needs, and what a killed save left; call it when the results are written."""
        self.resume_path.unlink(missing_ok=True)
        for left_over in self.best_path.parent.glob(f".{self.best_path.stem}.*.tmp"):
            left_over.unlink()

    def _train_epoch(self, epoch: int, train: EncodedExamples) -> tuple[float, float]:
        """Train once over the data; return the mean loss and the accuracy, both counted on the way."""
        self.classifier.train()
        device = next(self.classifier.parameters()).device
        order = batches_of_epoch(train, self.batch_size, self.seed, epoch, bucketed=self.bucketed)
        total_loss, correct = 0.0, 0
        for number, batch in enumerate(progress(order, f"epoch {epoch}", total=len(order))):
            labels = _to_device(torch.tensor([train.labels[i] for i in batch]), device)  # (bs,)
            input_ids = collate([train.ids[i] for i in batch], self.pad_id)
            log_probs = label_log_probs(self.classifier, input_ids, self.precision)
            loss = F.nll_loss(log_probs, labels)
            self.optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            # The first look at a number is the last thing in a step: a GPU has had all of its work by then.
            if not math.isfinite(loss.item()):
                raise TrainingError(f"the loss is {loss.item()} in epoch {epoch}, batch {number}: try a lower --lr")
            total_loss += loss.item() * len(batch)  # a sum over sentences: the last batch may be short
            correct += int((log_probs.argmax(dim=-1) == labels).sum())
        return total_loss / len(train.ids), correct / len(train.ids)

    def _save_best(self, result: EpochResult) -> None:
        """Save the classifier: the Llama as any checkpoint, the head beside it."""
        llama, head = self.classifier.llama, self.classifier.classifier_head
        extra = {"head": head.state_dict(), "run": self.run, "result": asdict(result)}
        write_checkpoint(self.best_path, llama.config, llama.state_dict(), **extra)

    def _load_best(self) -> None:
        """Put the weights of the best epoch into the classifier."""
        best = load_torch_file(self.best_path)
        if best.get("run") != self.run:
            raise TrainingError(f"{self.best_path} was replaced by another run meanwhile: run this one again")
        self.classifier.llama.load_state_dict(best["model"])
        self.classifier.classifier_head.load_state_dict(best["head"])

    def _save_state(self) -> None:
        """Save all that the next epoch depends on."""
        state = {
            "run": self.run,
            "history": [asdict(result) for result in self.history],
            "classifier": self.classifier.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": _rng_states(),
        }
        save_torch_file(self.resume_path, state)


def _rng_states() -> dict[str, torch.Tensor]:
    """Return the states of PyTorch's generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        states["mps"] = torch.mps.get_rng_state()
    return states


def _set_rng_states(states: dict[str, torch.Tensor]) -> None:
    """Put back what `_rng_states` returned, for the generators that this machine has."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    if "mps" in states and torch.backends.mps.is_available():
        torch.mps.set_rng_state(states["mps"])

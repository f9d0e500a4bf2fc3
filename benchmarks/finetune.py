"""An epoch of finetuning on SST: `run_llama.py`, with --fast and without, beside the original's loop and transformers.

The plain loop is what the original assignment did: batches in shuffled order, each filled up to its longest sentence;
AdamW tensor by tensor; and after each epoch the training set is evaluated again, beside the dev set. A whole epoch of
all contenders would take hours, so each trains and evaluates a sample of its batches, and the seconds are scaled up.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import Optimizer

from benchmarks import report
from benchmarks.machine import best_matmul_rate, describe, take_turns
from benchmarks.material import (
    CONFIGS,
    Batch,
    batches_of,
    in_samples,
    label_names,
    sentences,
    tokenizer_of,
    weights_in_layers,
    weights_of,
)
from classifier import LlamaEmbeddingClassifier, last_token_positions
from config import ClassifierConfig
from errors import MissingDependency
from finetune import EpochResult, Finetuner, label_log_probs
from hf_format import config_to, tensors_to
from inference.fast_adamw import FastAdamW
from inference.finetuning import speed_up_classifier
from llama import Llama
from optimizer import AdamW
from sentiment_data import EncodedExamples, collate
from utils import pick_device, progress, seed_everything

PLAIN, OURS, FAST, COMPILED, PEER = "a plain loop", "ours", "ours, --fast", "ours, --fast --compile", "transformers"
LIMIT = "the limit"
BATCH_SIZE = 8
SAMPLE = 6  # batches that a turn trains, and evaluates
CONTEXT = 256  # tokens, which all models here read and no sentence of SST has
LR = 2e-5  # run_llama.py's own
CURVE = (500, 1000, 2000, 4000, 8544)  # sentences: the first ones of the training set
# The accuracies: whole epochs of a real checkpoint. It is small, so its learning rate is larger than the default.
SEEDS, ACCURACY_LR = (1, 2, 3), 1e-4


@dataclass(frozen=True)
class Data:
    """What everybody is trained and evaluated on."""

    train: EncodedExamples
    dev: EncodedExamples
    pad_id: int
    num_labels: int

    def first(self, count: int) -> "Data":
        """Return the same with the first sentences of the training set alone."""
        return replace(self, train=replace(self.train, ids=self.train.ids[:count], labels=self.train.labels[:count]))


@dataclass(frozen=True)
class Epoch:
    """What is read in an epoch: the batches of the training, and those that are evaluated after it."""

    train: list[Batch]
    evaluated: list[Batch]


@dataclass(frozen=True)
class Contender:
    """Somebody who finetunes: a module from token ids to log-probabilities, its optimizer, and what it reads."""

    classifier: nn.Module
    optimizer: Optimizer
    epoch: Epoch
    pad_id: int
    precision: torch.dtype = torch.float32

    def step(self, batch: Batch) -> None:
        """Train on a batch."""
        self.classifier.train()
        log_probs = self._log_probs(batch)
        loss = F.nll_loss(log_probs, torch.tensor(batch.labels, device=log_probs.device))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        loss.item()  # which every loop looks at

    @torch.inference_mode()
    def evaluate(self, batch: Batch) -> None:
        """Predict a batch."""
        self.classifier.eval()
        self._log_probs(batch).argmax(dim=-1).tolist()

    def _log_probs(self, batch: Batch) -> torch.Tensor:
        """Return the log-probabilities of the labels, (bs, num_labels), in float32."""
        return label_log_probs(self.classifier, collate(batch.rows, self.pad_id), self.precision)


# ---------------------------------------------------------------------------------------------------- measuring


def measure(
    *,
    sizes: Sequence[str] = ("42m",),
    rounds: int = 3,
    device: str = "cpu",
    compiled: bool = False,
    accuracy: bool = False,
) -> dict[str, Any]:
    """Time all contenders, return the machine, a row each and the cost curve; with `accuracy` also the accuracies.

    Raises UsageError if SST is not here or there is no such device, MissingDependency without transformers.
    """
    where, is_toy = pick_device(device), "toy" in sizes
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            rows += _rows(size, Path(folder), rounds, where, compiled)
        result = {"rows": rows, "sample": SAMPLE, "curve": _curve("toy" if is_toy else "small", Path(folder), where)}
        if accuracy:
            result["accuracy"] = _accuracy("toy" if is_toy else "storybook", Path(folder), where)
    return {"machine": describe(where), "rounds": rounds} | result


def _rows(size: str, folder: Path, rounds: int, device: torch.device, compiled: bool) -> list[dict[str, Any]]:
    """Return a row for each contender, and one for the limit."""
    data = _data(size)
    classifier = _classifier(weights_of(size, folder), data, device)
    contenders = _contenders(classifier, data, compiled)
    turns: dict[str, Callable[[], object]] = {}
    for name, contender in contenders.items():
        turns[f"{name}: training"] = in_samples(contender.epoch.train, SAMPLE, contender.step)
        turns[f"{name}: evaluating"] = in_samples(contender.epoch.evaluated, SAMPLE, contender.evaluate)
    timings = take_turns(turns, rounds, warm_up=1)
    rows = []
    for name, contender in contenders.items():
        epoch = contender.epoch
        train = [len(epoch.train) / SAMPLE * seconds for seconds in timings[f"{name}: training"].rounds]
        evaluate = [len(epoch.evaluated) / SAMPLE * seconds for seconds in timings[f"{name}: evaluating"].rounds]
        row = {"size": size, "contender": name, "padding": _padding(epoch.train)}
        row |= {"batches": [len(epoch.train), len(epoch.evaluated)], "train": train, "evaluate": evaluate}
        rows.append(row | {"rounds": [sum(both) for both in zip(train, evaluate, strict=True)]})
    return [*rows, {"size": size, "contender": LIMIT, "seconds": _least(classifier.llama, data)}]


def _data(size: str) -> Data:
    """Return the sentences. Raises UsageError if they are not here."""
    tokenizer = tokenizer_of(size)
    train, dev = (sentences(size, split, tokenizer, CONTEXT) for split in ("train", "dev"))
    return Data(train, dev, tokenizer.pad_id, len(label_names(size)))


def _classifier(weights: Path, data: Data, device: torch.device) -> LlamaEmbeddingClassifier:
    """Return a classifier with these weights, as `run_llama.py` makes it."""
    classifier = LlamaEmbeddingClassifier(ClassifierConfig(data.num_labels, str(weights)))
    classifier.llama.config.pad_id = data.pad_id
    return classifier.to(device)


def _contenders(classifier: LlamaEmbeddingClassifier, data: Data, compiled: bool) -> dict[str, Contender]:
    """Return everybody with the same weights; those of `classifier` stay as they are. Raises MissingDependency."""
    precision = _precision(classifier.llama.tok_embeddings.weight.device)
    by_length, in_order = (_epoch(data, bucketed=bucketed) for bucketed in (True, False))

    def simple(epoch: Epoch) -> Contender:
        copied = deepcopy(classifier)
        return Contender(copied, AdamW(copied.parameters(), lr=LR), epoch, data.pad_id)

    def fast(compiled: bool) -> Contender:
        copied = deepcopy(classifier)
        speed_up_classifier(copied, compiled=compiled)
        return Contender(copied, FastAdamW(copied.parameters(), lr=LR), by_length, data.pad_id, precision)

    theirs = _Transformers(classifier)
    their_steps = torch.optim.AdamW(theirs.parameters(), lr=LR, fused=True)
    contenders = {
        PLAIN: simple(replace(in_order, evaluated=in_order.train + in_order.evaluated)),
        OURS: simple(by_length),
        FAST: fast(compiled=False),
        PEER: Contender(theirs, their_steps, in_order, data.pad_id, precision),
    }
    return contenders | ({COMPILED: fast(compiled=True)} if compiled else {})


def _epoch(data: Data, *, bucketed: bool) -> Epoch:
    """Return the batches: by length, as this project forms them, or as the sentences come."""
    train = batches_of(data.train, BATCH_SIZE, bucketed=bucketed, shuffle_seed=0)
    return Epoch(train, batches_of(data.dev, BATCH_SIZE, bucketed=bucketed))


class _Transformers(nn.Module):
    """Hugging Face's `LlamaForSequenceClassification` with the same Llama."""

    def __init__(self, classifier: LlamaEmbeddingClassifier) -> None:
        """Build the model. Raises MissingDependency."""
        super().__init__()
        try:
            from transformers import LlamaConfig, LlamaForSequenceClassification
        except ImportError as error:
            raise MissingDependency("this benchmark", "transformers") from error
        config, weights = classifier.llama.config, classifier.llama.state_dict()
        options = {"num_labels": classifier.num_labels, "pad_token_id": config.pad_id, "attn_implementation": "sdpa"}
        self.pad_id = config.pad_id
        self.model = LlamaForSequenceClassification(LlamaConfig(**config_to(config) | options, use_cache=False))
        self.model.load_state_dict(tensors_to(weights, config), strict=False)  # it has no output matrix, but a head
        self.to(classifier.llama.tok_embeddings.weight.device)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the log-probabilities of the labels. Shapes: (bs, seqlen) -> (bs, num_labels)."""
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        mask = positions <= last_token_positions(input_ids, self.pad_id).unsqueeze(1)  # (bs, seqlen)
        return F.log_softmax(self.model(input_ids, attention_mask=mask.long()).logits, dim=-1)


def _padding(batches: Sequence[Batch]) -> float:
    """Return the share of padding in what is computed."""
    return 1 - sum(len(row) for batch in batches for row in batch.rows) / sum(batch.cost for batch in batches)


def _least(llama: Llama, data: Data) -> float:
    """Return the seconds of an epoch's matrix products, without padding, at the speed of a large matrix product.

    Two operations for each weight of the layers and each token forward, four backward, and two more to evaluate dev.
    """
    weights = weights_in_layers(llama)
    operations = 6 * weights * sum(data.train.lengths) + 2 * weights * sum(data.dev.lengths)
    device = llama.tok_embeddings.weight.device
    return operations / best_matmul_rate(device, _precision(device))


def _precision(device: torch.device) -> torch.dtype:
    """Return what the fast ones and transformers compute in."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


# ---------------------------------------------------------------------------------------------------- whole runs


def _curve(size: str, folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return the seconds of a whole epoch of a small model for each number of sentences, plain and fast."""
    weights, data = weights_of(size, folder), _data(size)
    counts = [count for count in CURVE if count <= len(data.train.ids)] or [len(data.train.ids)]
    rows = []
    for count in progress(counts, "cost curve"):
        ways = {name: _finetune(name, weights, data.first(count), device, seed=0, lr=LR) for name in (PLAIN, FAST)}
        rows.append({"size": size, "sentences": count} | {name: seconds for name, (seconds, _) in ways.items()})
    return rows


def _accuracy(size: str, folder: Path, device: torch.device) -> list[dict[str, Any]]:
    """Return the accuracy on dev after a whole finetuning, plain and fast, for each seed."""
    weights, data = weights_of(size, folder), _data(size)
    rows = []
    for seed in progress(SEEDS, "accuracies"):
        for name in (PLAIN, FAST):
            seconds, dev_acc = _finetune(name, weights, data, device, seed=seed, lr=ACCURACY_LR)
            rows.append({"size": size, "seed": seed, "contender": name, "seconds": seconds, "dev_acc": dev_acc})
    return rows


def _finetune(
    name: str, weights: Path, data: Data, device: torch.device, *, seed: int, lr: float
) -> tuple[float, float]:
    """Finetune for an epoch, plain or fast, as `run_llama.py` does; return the seconds and the accuracy on dev."""
    seed_everything(seed)
    classifier = _classifier(weights, data, device)
    options: dict[str, Any] = {"bucketed": False}
    if name == FAST:
        speed_up_classifier(classifier)
        options = {"optimizer": FastAdamW, "precision": _precision(device)}

    def evaluate_again(_: EpochResult) -> None:
        if name == PLAIN:
            finetuner.predict(data.train)

    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder, "best.pt")
        common: dict[str, Any] = {"run": {}, "batch_size": BATCH_SIZE, "lr": lr, "seed": seed, "pad_id": data.pad_id}
        finetuner = Finetuner(classifier, best, **common, **options)
        start = time.perf_counter()
        finetuner.fit(data.train, data.dev, 1, report=evaluate_again)
        return time.perf_counter() - start, finetuner.history[0].dev_acc


# ---------------------------------------------------------------------------------------------------- the table


def table(result: dict[str, Any]) -> str:
    """Return the section on finetuning."""
    lines = ["## Finetuning: an epoch of SST", "", report.machine(result), ""]
    head = ("size", "who", "batches", "padding", "training", "evaluating", "s an epoch", f"ratio to {PLAIN}")
    lines += report.grid((*head, "of the limit"), (_cells(row, result["rows"]) for row in result["rows"]))
    lines += [
        "",
        f"Batches of {BATCH_SIZE} sentences. **The seconds are scaled up**: in each round everybody trains on "
        f"{result['sample']} of its batches and evaluates {result['sample']}, spread evenly from the cheapest to the "
        "costliest, others in each round; their mean is multiplied by the number of batches. A plain loop shuffles "
        "the sentences, fills each batch up to its longest one, steps AdamW tensor by tensor, and evaluates the "
        "training set again after the epoch, beside the dev set; the others evaluate dev alone. transformers is a "
        "loop over `LlamaForSequenceClassification` with the plain loop's batches and torch's fused AdamW. The limit "
        "is the matrix products alone, without padding, as fast as one large product. Above 1 is faster than a plain "
        "loop.",
    ]
    lines += ["", *_curve_table(result["curve"])]
    if "accuracy" in result:
        lines += ["", *_accuracy_table(result["accuracy"])]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells of a row."""
    same = {other["contender"]: other for other in rows if other["size"] == row["size"]}
    least = same[LIMIT]["seconds"]
    if row["contender"] == LIMIT:
        return row["size"], LIMIT, "", "", "", "", f"{least:.0f}", "", "100%"
    train, evaluate, epoch = (statistics.median(row[part]) for part in ("train", "evaluate", "rounds"))
    trained, evaluated = row["batches"]
    ratio = "1.00" if row["contender"] == PLAIN else report.ratio(row["rounds"], same[PLAIN]["rounds"])
    return (
        *(row["size"], row["contender"], f"{trained:,} + {evaluated:,}", f"{row['padding']:.0%}"),
        *(f"{train:.0f}", f"{evaluate:.0f}", f"{epoch:.0f}", ratio, f"{least / epoch:.0%}"),
    )


def _curve_table(curve: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines on the cost of an epoch by the size of the data."""
    rows = (
        (f"{row['sentences']:,}", f"{row[PLAIN]:.1f}", f"{row[FAST]:.1f}", f"{row[PLAIN] / row[FAST]:.2f}")
        for row in curve
    )
    head = ("sentences", f"{PLAIN}, s", f"{FAST}, s", "ratio")
    config = CONFIGS[curve[0]["size"]]
    title = (
        "Seconds of an epoch by the size of the data, each measured whole, with the evaluation of dev, which is always "
        f"the same; a small model ({config.n_layers} layers, dim {config.dim}, {config.vocab_size:,} tokens)."
    )
    return [title, "", *report.grid(head, rows)]


def _accuracy_table(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines on the accuracy of whole finetunings."""
    rows = []
    for name in (PLAIN, FAST):
        own = [run for run in runs if run["contender"] == name]
        accuracies = [run["dev_acc"] for run in own]
        mean, deviation = statistics.mean(accuracies), statistics.stdev(accuracies)
        seconds = statistics.median(run["seconds"] for run in own)
        each = ", ".join(f"{accuracy:.3f}" for accuracy in accuracies)
        rows.append((name, f"{mean:.3f} ± {deviation:.3f}", each, f"{seconds:.0f}"))
    title = (
        f"Accuracy on dev after one epoch of {runs[0]['size']} at a learning rate of {ACCURACY_LR:g}, whole: the mean "
        f"of {len(SEEDS)} seeds, and the standard deviation."
    )
    return [title, "", *report.grid(("who", "dev accuracy", "each seed", "s an epoch"), rows)]

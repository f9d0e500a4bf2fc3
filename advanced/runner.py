"""One run: a task, a checkpoint, methods, a seed; and the row of results that comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from advanced.catalogue import METHODS, Options, in_order, make
from advanced.cost import Meter, live_bytes, size_of
from advanced.model import Classifier
from advanced.rows import Row
from advanced.saving import save_small
from advanced.task import SCORED, Part, Task
from advanced.training import Recipe, Training, describe
from checkpoint import WEIGHTS_FILE, read_checkpoint, tensor_shapes
from errors import CheckpointError, UsageError
from sentiment_data import accuracy, write_predictions
from tokenizer import find_tokenizer
from utils import seed_everything, sha256_of

Scores = Mapping[Part, torch.Tensor]  # (sentences, num_labels) of each part: the larger, the likelier
CPU = torch.device("cpu")
DOUBLE = 8  # bytes of a number of scikit-learn's


@dataclass(frozen=True)
class Run:
    """Everything that the results of a run depend on."""

    task: str
    checkpoint: Path | None  # None for a baseline, which reads none
    methods: tuple[str, ...]
    options: Options = field(default_factory=dict)
    recipe: Recipe = field(default_factory=Recipe)
    dropout: float = 0.3  # before the head
    limit: int | None = None  # sentences of each part, if not all

    def identity(self) -> Row:
        """Return what `rows.identity` reads: the row of this run before it has results."""
        recipe = describe(self.recipe)
        seed = recipe.pop("seed")
        methods = in_order(list(self.methods))
        options = {name: dict(self.options[name]) for name in methods if self.options.get(name)}
        return {
            "task": self.task,
            "checkpoint": checkpoint_name(self.checkpoint),
            "methods": methods,
            "options": options,
            "recipe": recipe,
            "dropout": self.dropout,
            "limit": self.limit,
            "seed": seed,
        }


@dataclass
class Answer:
    """What the methods of a run give: scores, what they chose on the way, and what they are made of."""

    scores: Scores
    chosen: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    trained: int = 0  # parameters that are trained
    added: int = 0  # parameters that the checkpoint does not have
    saved_bytes: int = 0  # of what has to be kept of the run
    held_bytes: int | None = None  # by tensors in a step of the training: weights, gradients, the optimizer's, copies


def run(
    run: Run, task: Task, device: torch.device = CPU, parts: Sequence[Part] = SCORED, weights_out: Path | None = None
) -> tuple[Row, Scores]:
    """Do a run; return its row, and the scores of each of `parts`.

    What was trained, and nothing else, is saved to `weights_out` if that is given (`saving.load_small` reads it back).
    Raises a MinLlamaError for what cannot be read or combined, and for a training that diverged.
    """
    seed_everything(run.recipe.seed)
    meter = Meter(device)
    answer = _answer(run, task, device, parts, weights_out)
    cost = meter.stop()
    row = {
        **run.identity(),
        "accuracy": {part: _accuracy(answer.scores[part], task, part) for part in parts},
        "chosen": answer.chosen,
        "parameters": {"trained": answer.trained, "added": answer.added},
        "saved_bytes": answer.saved_bytes,
        "held_bytes": answer.held_bytes,
        **cost,
        "history": answer.history,
        "checkpoint_sha256": checksum(run.checkpoint),
        "torch": torch.__version__,
    }
    return row, answer.scores


def write_outputs(folder: Path, task: Task, scores: Scores) -> list[Path]:
    """Write the predictions of dev and test, as a submission has them, and return the files."""
    predicted: tuple[Part, ...] = ("dev", "test")
    paths = [folder / f"{task.name}-{part}-advanced-output.txt" for part in predicted]
    for part, path in zip(predicted, paths, strict=True):
        write_predictions(path, scores[part].argmax(dim=1).tolist(), task.sentences(part))
    return paths


def checkpoint_name(path: Path | None) -> str:
    """Return what a checkpoint is called in tables: its file's name, or its folder's."""
    if path is None:
        return "none"
    return path.name if path.is_dir() else path.stem


def checksum(path: Path | None) -> str | None:
    """Return the SHA-256 of a checkpoint's weights; None where there is no checkpoint. Raises CheckpointError."""
    if path is None:
        return None
    weights = path / WEIGHTS_FILE if path.is_dir() else path
    if not weights.is_file():
        raise CheckpointError(f"{weights}: no such file: check the path of the checkpoint")
    return sha256_of(weights)


def _answer(run: Run, task: Task, device: torch.device, parts: Sequence[Part], weights_out: Path | None) -> Answer:
    """Let the methods work, each kind in its own way; then those that come after."""
    names = in_order(list(run.methods))
    kind = next(METHODS[name].kind for name in names if METHODS[name].kind != "after")
    methods = [make(name, run.options) for name in names if METHODS[name].kind == kind]
    if kind == "baseline":
        scores = methods[0].scores(task, run.recipe.seed, parts)
        count = methods[0].trained
        answer = Answer(scores, trained=count, added=count, saved_bytes=count * DOUBLE)
    elif kind == "zero-shot":
        answer = _zero_shot(run, task, methods, device, parts)
    else:
        answer = _finetuning(run, task, methods, device, parts, weights_out)
    for method in methods:
        answer.chosen |= getattr(method, "chosen", {})
    for name in names:
        if METHODS[name].kind == "after":
            method = make(name, run.options)
            answer = replace(answer, scores=method.mix(answer.scores, task, run.recipe.seed))
            answer.chosen |= method.chosen
    return answer


def _zero_shot(run: Run, task: Task, methods: Sequence[Any], device: torch.device, parts: Sequence[Part]) -> Answer:
    """Ask the Llama, without training it."""
    from advanced import zero_shot

    checkpoint = _required(run)
    config, _ = read_checkpoint(checkpoint)
    tokenizer = find_tokenizer(checkpoint, config.vocab_size)
    return Answer(zero_shot.scores(checkpoint, tokenizer, task, methods, run.recipe, device, parts))


def _finetuning(
    run: Run,
    task: Task,
    methods: Sequence[Any],
    device: torch.device,
    parts: Sequence[Part],
    weights_out: Path | None,
) -> Answer:
    """Train a classifier."""
    checkpoint = _required(run)
    already_there = live_bytes()
    classifier = Classifier(checkpoint, len(task.label_names), run.dropout).to(device)
    tokenizer = find_tokenizer(checkpoint, classifier.llama.vocab_size)
    training = Training(classifier, tokenizer, task, methods, run.recipe)
    training.run()
    if weights_out is not None:
        save_small(classifier, weights_out)
    trained = classifier.trained
    config = classifier.llama.config
    given = {f"llama.{name}" for name in tensor_shapes(config)}
    return Answer(
        scores={part: training.scores(part) for part in parts},
        history=[asdict(check) for check in training.history],
        trained=sum(parameter.numel() for parameter in trained.values()),
        added=sum(parameter.numel() for name, parameter in trained.items() if name not in given),
        saved_bytes=sum(map(size_of, classifier.kept.values())),
        held_bytes=training.held_bytes - already_there,
    )


def _required(run: Run) -> Path:
    """Return the checkpoint of a run that cannot do without. Raises UsageError if there is none."""
    if run.checkpoint is None:
        raise UsageError(f"{', '.join(run.methods)}: this needs a checkpoint: name one")
    return run.checkpoint


def _accuracy(scores: torch.Tensor, task: Task, part: Part) -> float | None:
    """Return the share of right labels; None where the labels are placeholders."""
    return accuracy(scores.argmax(dim=1).tolist(), task.labels(part)) if task.has_gold(part) else None

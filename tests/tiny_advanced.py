"""What the tests of the methods share: a task that can be learnt, and its training with a tiny Llama."""

from pathlib import Path
from typing import Any

import torch

from advanced.method import Method
from advanced.model import Classifier
from advanced.task import Task
from advanced.training import Recipe, Training
from sentiment_data import Example
from tests.tiny import random_llama, save_llama, tokenizer_of
from tokenizer import Tokenizer

LABEL_NAMES = ["bad", "good"]


def tiny_task(count: int = 16) -> Task:
    """Return a task whose label is given away by a word: parts of `count` sentences (fit) and of a half of that.

    No sentence stands in two parts.
    """
    words = {0: ("awful", "bad", "slow"), 1: ("good", "better", "excellent")}
    rows = [
        Example(i % 2, f"The {('film', 'plot', 'ending', 'movie')[i % 4]} is {words[i % 2][i % 3]}, number {i}.")
        for i in range(count + 3 * (count // 2))
    ]
    starts = {"fit": (0, count)} | {
        part: (count + n * (count // 2), count + (n + 1) * (count // 2))
        for n, part in enumerate(("selection", "dev", "test"))
    }
    return Task("toy", LABEL_NAMES, {part: rows[first:last] for part, (first, last) in starts.items()})  # type: ignore[misc]


def tiny_checkpoint(folder: Path) -> Path:
    """Save a tiny Llama in `folder`, with its tokenizer beside it, and return its path."""
    tokenizer = tokenizer_of("bpe", folder)
    tokenizer.path.rename(folder / "tokenizer.model")
    return save_llama(folder / "toy.pt", random_llama(vocab_size=tokenizer.n_words, max_seq_len=128))


def tiny_classifier(folder: Path, tokenizer: Tokenizer, dropout: float = 0.0, **changes: Any) -> Classifier:
    """Return a classifier whose tiny Llama lies in `folder`, with a seeded head."""
    path = save_llama(folder / "tiny.pt", random_llama(**({"vocab_size": tokenizer.n_words} | changes)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Classifier(path, len(LABEL_NAMES), dropout)


def tiny_training(
    folder: Path, *methods: Method, dropout: float = 0.0, sizes: dict[str, Any] | None = None, **recipe: Any
) -> Training:
    """Return a training of a tiny model, of `sizes`, by a recipe with changes."""
    tokenizer = tokenizer_of("bpe", folder)
    classifier = tiny_classifier(folder, tokenizer, dropout, **({"max_seq_len": 64} | (sizes or {})))
    settings: dict[str, Any] = {"epochs": 1, "batch_size": 4, "lr": 1e-3, "seed": 1}
    return Training(classifier, tokenizer, tiny_task(), methods, Recipe(**(settings | recipe)))

"""What the tests of finetuning share: rows with labels that can be learnt, and a finetuner of a tiny model."""

from pathlib import Path
from typing import Any

import torch

from classifier import LlamaEmbeddingClassifier
from config import ClassifierConfig
from finetune import EpochResult, Finetuner
from sentiment_data import EncodedExamples
from tests.tiny import random_llama, random_tokens, save_llama


def examples(count: int, seed: int = 0) -> EncodedExamples:
    """Return rows of different lengths whose label the first token gives away."""
    rows = [random_tokens(1, 3 + (7 * i) % 15, seed=seed + i)[0].tolist() for i in range(count)]
    labels = [row[0] % 2 for row in rows]
    return EncodedExamples(rows, labels, [""] * count, num_cut=0, max_len=24, keep="end")


def make_classifier(
    folder: Path, option: str = "finetune", dropout: float = 0.3, **changes: Any
) -> LlamaEmbeddingClassifier:
    """Return a classifier whose tiny Llama, of sizes with `changes`, lies in `folder`."""
    torch.manual_seed(0)
    path = save_llama(folder / "tiny.pt", random_llama(**changes))
    return LlamaEmbeddingClassifier(ClassifierConfig(2, str(path), option, dropout))


def make_finetuner(folder: Path, option: str = "finetune", dropout: float = 0.3, **options: Any) -> Finetuner:
    """Return a finetuner of a tiny model that lies in `folder`."""
    classifier = make_classifier(folder, option, dropout)
    settings: dict[str, Any] = {"run": {"seed": 1}, "batch_size": 4, "lr": 1e-3, "seed": 1, "pad_id": 3}
    return Finetuner(classifier, folder / "best.pt", **(settings | options))


def ignore(result: EpochResult) -> None:
    """Take the report of an epoch, and do nothing with it."""

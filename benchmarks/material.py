"""What is measured with: Llamas of several sizes with random weights, their tokenizers, sentences, batches of these.

Speed does not depend on the values of the weights. SST's sentences are what the assignment's users work with; the size
`toy`, which only shows that all works, has the demo data, so that it needs no download.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import TypeVar

import torch

from checkpoint import write_checkpoint
from config import LlamaConfig
from errors import UsageError
from llama import Llama
from sentiment_data import EncodedExamples, encode, make_batches, read_examples, read_label_names
from tokenizer import Tokenizer, find_tokenizer

Item = TypeVar("Item")

GOLDEN_RATIO = 1.618034
ROOT = Path(__file__).resolve().parent.parent
STORYBOOK = ROOT / "checkpoints" / "storybook"
CONFIGS = {  # the sizes of llama2.c's TinyStories models
    "15m": LlamaConfig(dim=288, n_layers=6, n_heads=6, n_kv_heads=6, hidden_dim=768, max_seq_len=256),
    "42m": LlamaConfig(dim=512, n_layers=8, n_heads=8, n_kv_heads=8, hidden_dim=1376, max_seq_len=1024),
    "110m": LlamaConfig(dim=768, n_layers=12, n_heads=12, n_kv_heads=12, hidden_dim=2048, max_seq_len=1024),
    # For whole runs in little time.
    "small": LlamaConfig(dim=64, n_layers=2, n_heads=8, n_kv_heads=4, hidden_dim=172, max_seq_len=512),
    "toy": LlamaConfig(vocab_size=2048, dim=32, n_layers=2, n_heads=4, n_kv_heads=2, max_seq_len=256),
}


@dataclass(frozen=True)
class Batch:
    """Rows of token ids that are read together, and their labels."""

    rows: list[list[int]]
    labels: list[int]

    @property
    def cost(self) -> int:
        """Return how many tokens are computed, padding included."""
        return len(self.rows) * max(map(len, self.rows))


def random_llama(size: str) -> Llama:
    """Return a Llama of this size as training would start with it."""
    torch.manual_seed(0)
    return Llama(CONFIGS[size]).eval()


def weights_of(size: str, folder: Path) -> Path:
    """Return a checkpoint of this size: storybook's own, or random weights, written into `folder`."""
    if size == "storybook":
        return STORYBOOK
    llama = random_llama(size)
    path = folder / f"{size}.pt"
    write_checkpoint(path, llama.config, llama.state_dict())
    return path


def tokenizer_of(size: str) -> Tokenizer:
    """Return the tokenizer of a size: storybook's, or Llama 2's. Raises UsageError if that is not here."""
    if size in ("storybook", "toy"):
        return find_tokenizer(STORYBOOK, CONFIGS["toy"].vocab_size)
    return Tokenizer(tokenizer_model=asset("tokenizer.model"))


def label_names(size: str) -> list[str]:
    """Return what the labels are called."""
    return read_label_names(ROOT / "data" / f"{_data_set(size)}-label-mapping.json")


def sentences(size: str, split: str, tokenizer: Tokenizer, max_len: int, suffix: str = "") -> EncodedExamples:
    """Return the sentences of a split ("train", "dev") as token ids. Raises UsageError if the file is not here."""
    path = asset(f"data/{_data_set(size)}-{split}.txt")
    return encode(read_examples(path, len(label_names(size))), tokenizer, max_len, suffix)


def asset(name: str) -> Path:
    """Return the path of a file of the data or the weights. Raises UsageError if nobody has fetched it."""
    for folder in (ROOT, Path(os.environ.get("MINLLAMA_ASSETS", ROOT))):
        if (folder / name).is_file():
            return folder / name
    raise UsageError(
        f"{name} is not here: run ./setup.sh with a network, or set MINLLAMA_ASSETS to a folder that has it"
    )


def batches_of(
    examples: EncodedExamples, batch_size: int, *, bucketed: bool, shuffle_seed: int | None = None
) -> list[Batch]:
    """Return all batches of an epoch, as `sentiment_data.make_batches` forms them."""
    order = make_batches(examples.lengths, batch_size, bucketed=bucketed, shuffle_seed=shuffle_seed)
    return [Batch([examples.ids[i] for i in batch], [examples.labels[i] for i in batch]) for batch in order]


def in_samples(batches: Sequence[Batch], count: int, run: Callable[[Batch], object]) -> Callable[[], None]:
    """Return a call that runs `count` of the batches, others each time: a sample with as many long ones as there are.

    Ordered by cost, the batches are cut into `count` parts, and a call takes one of each part, all at the same place of
    it. The next call's place is the golden ratio further on, modulo 1: so places are spread evenly, however many calls
    there are, and they are the same for everybody.
    """
    ordered = sorted(batches, key=lambda batch: batch.cost)
    places = (number * GOLDEN_RATIO % 1 for number in count_from(1))

    def sample() -> None:
        for batch in spread(ordered, count, next(places)):
            run(batch)

    return sample


def spread(items: Sequence[Item], count: int, place: float) -> list[Item]:
    """Return one item of each of `count` equal parts, each at the same place (from 0 to below 1) of its part."""
    return [items[int((part + place) * len(items) / count)] for part in range(count)]


def weights_in_layers(llama: Llama) -> int:
    """Return how many weights the matrices of a model's layers have: what each token is multiplied with."""
    return sum(weight.numel() for layer in llama.layers for weight in layer.parameters() if weight.dim() == 2)


def _data_set(size: str) -> str:
    """Return the data set whose sentences a size is measured with."""
    return "demo" if size == "toy" else "sst"

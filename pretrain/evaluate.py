"""How good is a checkpoint? Bits per byte on held-out text, at several lengths, beside what counting words would give.

Nats a token depend on the tokenizer; bits per byte do not. The baselines know no more than how often each token, or
each pair of tokens, stands in the training text.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from errors import DataError, TokenizerError
from llama import Llama, load_pretrained
from plots import new_figure, save_figure
from pretrain.generation import stretch_context
from pretrain.shards import Manifest, open_split, read_manifest
from tokenizer import find_tokenizer
from utils import progress, sha256_of

Ids = npt.NDArray[np.int64]
TOKENS_AT_ONCE = 8192
DISCOUNT = 0.75  # taken from the count of every pair that was seen, for the pairs that were not


@dataclass(frozen=True)
class Score:
    """The mean loss of a text's tokens, in nats a token and in bits a byte of the text."""

    name: str
    context: int  # tokens that are read at once
    loss: float
    bits_per_byte: float


def evaluate(checkpoint: Path, data: Path, contexts: Sequence[int] = (), *, limit: int = 200_000) -> list[Score]:
    """Score a checkpoint on the validation split of `data`, once for each length of context; by default, its own.

    Every length scores the same tokens, at most `limit`. A rotary model may be asked for more than it was trained
    with here, to see what becomes of it. Raises TokenizerError if the data was made by another tokenizer, and
    DataError if the split is shorter than the longest context.
    """
    model = load_pretrained(checkpoint)
    manifest = read_manifest(data)
    _check_tokenizer(checkpoint, model, manifest)
    stream = _stream(data, manifest, "validation")[: limit + 1]
    contexts = contexts or [model.params.max_seq_len]
    longest = max(contexts)
    if len(stream) <= longest:
        raise DataError(f"{data}: its validation split has {len(stream):,} tokens, too few for a context of {longest}")
    count = (len(stream) - 1) // longest * longest
    bits_per_byte = manifest.splits["validation"].bits_per_byte
    losses = {context: loss_at(model, stream[: count + 1], context) for context in contexts}
    return [Score(str(checkpoint), context, loss, bits_per_byte(loss)) for context, loss in losses.items()]


@torch.inference_mode()
def loss_at(model: Llama, stream: Ids, context: int) -> float:
    """Return the mean loss, in nats, of all tokens of `stream` but the first, read in windows of `context` tokens.

    len(stream) - 1 must be a multiple of `context`.
    """
    stretch_context(model, max(context, model.params.max_seq_len))
    inputs = torch.from_numpy(stream[:-1]).view(-1, context)  # (windows, context)
    targets = torch.from_numpy(stream[1:]).view(-1, context)
    rows = max(1, TOKENS_AT_ONCE // context)
    total = 0.0
    for first in progress(range(0, len(inputs), rows), f"context {context}"):
        batch = slice(first, first + rows)
        logits, _ = model(inputs[batch], targets[batch])
        total += float(F.cross_entropy(logits.flatten(0, 1), targets[batch].flatten(), reduction="sum"))
    return total / targets.numel()


def baselines(data: Path) -> list[Score]:
    """Score the validation split by counts of the training split: tokens alone, and pairs of tokens.

    Unigram: one is added to every count. Bigram: absolute discounting, which falls back on the unigrams (Ney, Essen &
    Kneser 1994, section 4).
    """
    manifest = read_manifest(data)
    train, held_out = (_stream(data, manifest, name) for name in ("train", "validation"))
    unigram = (np.bincount(train, minlength=manifest.tokenizer.vocab_size) + 1.0) / (
        len(train) + manifest.tokenizer.vocab_size
    )
    bits_per_byte = manifest.splits["validation"].bits_per_byte
    probabilities = {"unigram": unigram[held_out[1:]], "bigram": _bigram(train, held_out, unigram)}
    losses = {name: float(-np.log(each).mean()) for name, each in probabilities.items()}
    return [Score(name, n, loss, bits_per_byte(loss)) for n, (name, loss) in enumerate(losses.items())]


def _bigram(train: Ids, held_out: Ids, unigram: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the probability of each token of `held_out` after the one before it."""
    size = len(unigram)
    pairs, counts = np.unique(train[:-1] * size + train[1:], return_counts=True)
    before = np.bincount(train[:-1], minlength=size)  # how often each token begins a pair
    kinds = np.bincount(pairs // size, minlength=size)  # and how many different ones
    wanted = held_out[:-1] * size + held_out[1:]
    place = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    seen = np.where(pairs[place] == wanted, counts[place] - DISCOUNT, 0.0)
    first = held_out[:-1]
    mixed: npt.NDArray[np.float64] = (seen + DISCOUNT * kinds[first] * unigram[held_out[1:]]) / np.maximum(
        before[first], 1
    )
    return np.where(before[first] > 0, mixed, unigram[held_out[1:]])


@dataclass(frozen=True)
class Copying:
    """How much of some texts stands word for word in others."""

    share: float  # of the words, those inside a run of at least `run` words that stands in the others
    longest: int  # words of the longest such run
    run: int


def copying(texts: Iterable[str], sources: Iterable[str], run: int = 8) -> Copying:
    """Measure how much of `texts` is copied from `sources`: words in runs of at least `run` words found there.

    Words are what stands between spaces, with their punctuation. A text of fewer words than `run` counts as not copied,
    even where all of it stands in the sources. A text counts with all its words, a prompt that it begins with included.
    """
    split = [text.split() for text in texts]
    found = _positions({part for words in split for part in _runs(words, run)}, sources, run)
    copied = longest = 0
    for words in split:
        inside = [False] * len(words)
        lengths: dict[int, int] = {}  # of the chains of runs that end here, by where in the sources they end
        for i, part in enumerate(_runs(words, run)):
            lengths = {at: lengths.get(at - 1, 0) + 1 for at in found.get(part, ())}
            if lengths:
                inside[i : i + run] = [True] * run
                longest = max(longest, max(lengths.values()) + run - 1)
        copied += sum(inside)
    return Copying(copied / max(sum(map(len, split)), 1), longest, run)


def _positions(wanted: set[tuple[str, ...]], sources: Iterable[str], run: int) -> dict[tuple[str, ...], list[int]]:
    """Return where in the sources each of the wanted runs stands, with the words of all sources counted through.

    Runs at positions that follow one another are of one source: the last run of a source and the first of the next have
    a number between them that no run has.
    """
    found: dict[tuple[str, ...], list[int]] = {}
    first = 0
    for source in sources:
        words = source.split()
        for at, part in enumerate(_runs(words, run), start=first):
            if part in wanted:
                found.setdefault(part, []).append(at)
        first += len(words) + 1
    return found


def _runs(words: list[str], length: int) -> Iterable[tuple[str, ...]]:
    """Yield every run of so many words."""
    for i in range(len(words) - length + 1):
        yield tuple(words[i : i + length])


def _stream(data: Path, manifest: Manifest, split: str) -> Ids:
    """Return the tokens of a split, one shard after the other."""
    return np.concatenate([shard.astype(np.int64) for shard in open_split(data, manifest, split)])


def _check_tokenizer(checkpoint: Path, model: Llama, manifest: Manifest) -> None:
    """Raise TokenizerError if the shards hold the ids of another tokenizer than the checkpoint's."""
    tokenizer = find_tokenizer(checkpoint, model.vocab_size)
    if sha256_of(tokenizer.path) != manifest.tokenizer.sha256:
        raise TokenizerError(
            f"{tokenizer.path} did not make these shards: prepare the text with the checkpoint's own tokenizer"
        )


def table(scores: Sequence[Score]) -> str:
    """Lay scores out as a table."""
    width = max(len(score.name) for score in scores)
    lines = [f"{'':{width}}  context  nats a token  bits per byte"]
    for score in scores:
        lines.append(f"{score.name:{width}}  {score.context:7}  {score.loss:12.4f}  {score.bits_per_byte:13.4f}")
    return "\n".join(lines)


def plot(scores: Sequence[Score], out: Path) -> None:
    """Draw bits per byte against the context, a line a checkpoint. Raises MissingDependency without matplotlib."""
    figure, (axes,) = new_figure(columns=1)
    for name in dict.fromkeys(score.name for score in scores):
        mine = [score for score in scores if score.name == name]
        axes.plot([score.context for score in mine], [score.bits_per_byte for score in mine], marker="o", label=name)
    axes.set(xlabel="context in tokens", ylabel="bits per byte of held-out text", xscale="log")
    contexts = sorted({score.context for score in scores})
    axes.set_xticks(contexts, [str(context) for context in contexts], minor=False)
    axes.minorticks_off()
    axes.legend()
    axes.grid(alpha=0.3)
    save_figure(figure, out)

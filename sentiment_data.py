"""The sentiment data: reading `label ||| sentence` files, turning them into token ids and batches, writing predictions.

A data file is UTF-8 with one example a line, the label (0, 1, ...) before the first ` ||| ` and the sentence after it:

    1 ||| It was not a fancy trip, just a tent and a fire, and it was all that we wanted.

What the labels mean stands in a JSON list beside it, such as `["bad", "good"]`. A file that breaks a rule is refused
with a DataError that names the line. A file whose labels are all equal has no gold labels (see `has_gold_labels`).
"""

import codecs
import json
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

from errors import DataError, UsageError
from utils import write_text

SEPARATOR = " ||| "
UNKNOWN_LABEL = -1  # allowed only where every line of a file has it
POOL_BATCHES = 50  # how many batches' worth of shuffled sentences are sorted by length together; see make_batches

FilePath = str | os.PathLike[str]


class SentenceEncoder(Protocol):
    """What is needed of a tokenizer here."""

    def encode(self, text: str, /, bos: bool, eos: bool) -> list[int]:
        """Return the token ids of `text`, with the begin and end tokens where asked for."""


@dataclass(frozen=True)
class Example:
    """One line of a data file; `label` is -1 where nobody knows it."""

    label: int
    sentence: str


@dataclass(frozen=True)
class EncodedExamples:
    """A data file as the model is given it, in the file's order.

    `sentences` are the texts in full, with their suffix, also where `ids` had to be cut: they are what the output
    files show.
    """

    ids: list[list[int]]
    labels: list[int]
    sentences: list[str]
    num_cut: int
    max_len: int  # tokens
    keep: Literal["end", "start"]

    @property
    def lengths(self) -> list[int]:
        """Return the number of tokens of each row."""
        return [len(row) for row in self.ids]

    def cut_warning(self, limit: str = "that the model has room for") -> str | None:
        """Return the line to print when sentences were cut, None when none was; `limit` says whose tokens those are."""
        if not self.num_cut:
            return None
        place = {"end": "beginning", "start": "end"}[self.keep]
        return (
            f"{self.num_cut} of {len(self.ids)} sentences have more than the {self.max_len} tokens {limit}, "
            f"and were cut at their {place}"
        )


# ---------------------------------------------------------------------------------------------------- reading


def read_label_names(path: FilePath) -> list[str]:
    """Read the names of the labels: a JSON list of at least two different strings.

    Raises DataError if the file is missing or holds anything else.
    """
    rule = 'write a JSON list of at least two different names, such as ["bad", "good"]'
    try:
        names = json.loads(_read_bytes(path, rule))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg}): {rule}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}:1: not UTF-8: {rule}, and save the file as UTF-8") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}:1: not a list of strings: {rule}")
    if any(not name or name != name.strip() for name in names):
        raise DataError(f"{path}:1: a label name is empty or has a space at an end: {rule}")
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"{path}:1: fewer than two label names, or one of them twice: {rule}")
    return names


def read_examples(path: FilePath, num_labels: int) -> list[Example]:
    """Read a `label ||| sentence` file whose labels are 0 to `num_labels` - 1, or -1 (unknown) on every line.

    Only "\\n" and "\\r\\n" end a line: other line separators of Unicode are part of a sentence. Spaces around
    a sentence are dropped. Raises DataError: with `file:line` for a line that breaks a rule, and for a missing file
    with how to get it.
    """
    lines = _read_bytes(path, _how_to_get(path)).removeprefix(codecs.BOM_UTF8).split(b"\n")
    if not lines[-1]:
        lines.pop()  # what follows the last line break
    if not lines:
        raise DataError(f"{path}:1: the file is empty: write one `label{SEPARATOR}sentence` on each line")
    examples = [_parse_line(line, f"{path}:{number}", num_labels) for number, line in enumerate(lines, start=1)]
    _check_unknown_labels(examples, path)
    return examples


def has_gold_labels(labels: Sequence[int]) -> bool:
    """Say whether accuracy against these labels means anything.

    Labels that are all equal are a placeholder (CFIMDB's test file has 0 on every line), so there is nothing to compare
    predictions with.
    """
    return len(set(labels)) > 1


def _read_bytes(path: FilePath, what_to_do: str) -> bytes:
    """Read a file; DataError says `what_to_do` if it is not there."""
    try:
        return Path(path).read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file: {what_to_do}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path and its permissions") from error


def _how_to_get(path: FilePath) -> str:
    """Return what to do about a data file that is not there; the file's name says which data set it belongs to."""
    data_set = Path(path).name.partition("-")[0]
    if data_set in ("sst", "cfimdb"):
        return f"get it with `./setup.sh --only {data_set}`"
    return "check the path"


def _parse_line(line: bytes, where: str, num_labels: int) -> Example:
    """Turn one line into an Example; `where` is its `file:line`."""
    # The added space is for editors that strip the one after the separator: `1 |||` is an empty sentence.
    text = _decode(line, where).removesuffix("\r")
    before, separator, after = f"{text} ".partition(SEPARATOR)
    if not separator:
        found = f"no separator `{SEPARATOR}`" if before.strip() else "a blank line"
        raise DataError(f"{where}: {found}: write `label{SEPARATOR}sentence`, or delete the line")
    label, sentence = _parse_label(before.strip(), where, num_labels), after.strip()
    if not sentence:
        raise DataError(f"{where}: the sentence is empty: write one after `{SEPARATOR}`, or delete the line")
    return Example(label, sentence)


def _decode(line: bytes, where: str) -> str:
    """Decode one line of a data file."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = line[error.start]
        raise DataError(f"{where}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8") from error
    if "\0" in text:  # a sign of UTF-16; besides, Llama's token of this byte is the one that fills short rows
        raise DataError(f"{where}: a NUL byte is not text: save the file as UTF-8")
    return text


def _parse_label(text: str, where: str, num_labels: int) -> int:
    """Return the label that `text` spells; stricter than int(), which takes `1_0` and digits of other scripts."""
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise DataError(f"{where}: label {text[:40]!r} is not an integer: write one from 0 to {num_labels - 1}")
    label = int(text)
    if label != UNKNOWN_LABEL and not 0 <= label < num_labels:
        raise DataError(
            f"{where}: label {label} is not among 0 to {num_labels - 1}, the numbers of the {num_labels} label names: "
            "mend the line, or use the label names that belong to this file"
        )
    return label


def _check_unknown_labels(examples: Sequence[Example], path: FilePath) -> None:
    """Raise DataError if some of the labels are unknown and some are not."""
    unknown = [example.label == UNKNOWN_LABEL for example in examples]
    if any(unknown) and not all(unknown):
        line = unknown.index(True) + 1
        raise DataError(
            f"{path}:{line}: label {UNKNOWN_LABEL} (unknown) beside known labels: give this line its label, "
            f"or every line {UNKNOWN_LABEL}"
        )


# ---------------------------------------------------------------------------------------------------- encoding


def prompt_suffix(label_names: Sequence[str]) -> str:
    """Return the question that follows a sentence in a zero-shot prompt; the label is what should come next.

    `Is this movie A or B? This movie is` for two names, `Is this movie A, B, or C? This movie is` for more.
    """
    *others, last = label_names
    choice = f"{others[0]} or {last}" if len(others) == 1 else f"{', '.join(others)}, or {last}"
    return f"Is this movie {choice}? This movie is"


def encode(
    examples: Sequence[Example],
    tokenizer: SentenceEncoder,
    max_len: int,
    suffix: str = "",
    keep: Literal["end", "start"] = "end",
) -> EncodedExamples:
    """Tokenize each sentence once, joined to the suffix (if any) by a space, to at most `max_len` tokens.

    A row begins with the begin token and has no end token. Of a row that is too long, the begin token and the last
    `max_len` - 1 tokens are kept: the suffix stands at the end and always survives, and of a review, too, the end tells
    more than the beginning (Sun et al. 2019, arXiv 1905.05583, section 5.3.1: the last tokens do better than the first
    ones). `keep="start"` keeps the first `max_len` tokens instead, as the 2024 edition did.
    Raises DataError if `max_len` leaves no room for a sentence.
    """
    _check_room(tokenizer, max_len, suffix if keep == "end" else "")
    sentences = [f"{example.sentence} {suffix}" if suffix else example.sentence for example in examples]
    rows = [tokenizer.encode(sentence, bos=True, eos=False) for sentence in sentences]
    return EncodedExamples(
        ids=[_cut(row, max_len, keep) for row in rows],
        labels=[example.label for example in examples],
        sentences=sentences,
        num_cut=sum(len(row) > max_len for row in rows),
        max_len=max_len,
        keep=keep,
    )


def _check_room(tokenizer: SentenceEncoder, max_len: int, suffix: str) -> None:
    """Raise DataError unless the begin token, one token of the sentence and the suffix fit."""
    suffix_len = len(tokenizer.encode(suffix, bos=False, eos=False)) if suffix else 0
    if max_len < suffix_len + 2:
        beside = f" beside the question that follows it ({suffix_len} tokens)" if suffix else ""
        raise DataError(
            f"{max_len} tokens leave no room for a sentence{beside}: at least {suffix_len + 2} are needed, so raise "
            "--max_sentence_len or use a model with a longer context"
        )


def _cut(row: list[int], max_len: int, keep: Literal["end", "start"]) -> list[int]:
    """Return `row` with at most `max_len` tokens; the first of them, the begin token, always stays."""
    if len(row) <= max_len:
        return row
    return row[:max_len] if keep == "start" else row[:1] + row[1 - max_len :]


# ---------------------------------------------------------------------------------------------------- batches


def make_batches(
    lengths: Sequence[int], batch_size: int, *, bucketed: bool, shuffle_seed: int | None = None
) -> list[list[int]]:
    """Divide the indices of `lengths` into batches; each index is in exactly one, and only one batch may be short.

    To evaluate (no `shuffle_seed`): in the order given or, bucketed, by length; the caller puts the results in order.
    To train: a permutation that depends on nothing but `shuffle_seed`, which the caller makes from seed and epoch;
    bucketed, only large pools of the permutation are sorted by length, and the batches shuffled, so that batches have
    little padding and yet differ from epoch to epoch. Raises UsageError if `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, got {batch_size}: change --batch_size")
    order = list(range(len(lengths)))
    if shuffle_seed is None:
        if bucketed:  # longest first: if the memory does not suffice, it shows at once
            order.sort(key=lambda index: -lengths[index])
        return _chunks(order, batch_size)

    generator = random.Random(shuffle_seed)
    generator.shuffle(order)
    if not bucketed:
        return _chunks(order, batch_size)
    batches = []
    for pool in _chunks(order, batch_size * POOL_BATCHES):
        batches += _chunks(sorted(pool, key=lengths.__getitem__), batch_size)
    generator.shuffle(batches)
    return batches


def collate(rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    """Return the rows as one tensor of int64, shape (bs, seqlen), short ones filled with `pad_id` on the right."""
    seqlen = max(len(row) for row in rows)
    return torch.tensor([[*row, *[pad_id] * (seqlen - len(row))] for row in rows], dtype=torch.long)


def _chunks(items: list[int], size: int) -> list[list[int]]:
    """Cut `items` into lists of `size`; the last may be shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


# ---------------------------------------------------------------------------------------------------- results


def write_predictions(path: FilePath, predicted: Sequence[int], sentences: Sequence[str]) -> None:
    """Write a row `label ||| sentence` for each prediction, atomically.

    Whatever str.splitlines takes for a line break becomes a space, so that every reader finds one row a sentence.
    """
    rows = zip(predicted, sentences, strict=True)
    write_text(path, "".join(f"{label}{SEPARATOR}{' '.join(text.splitlines())}\n" for label, text in rows))


def accuracy(predicted: Sequence[int], gold: Sequence[int]) -> float:
    """Return the share of predictions that equal the gold label."""
    if not gold:
        raise ValueError("there are no predictions, so no share of them is right")
    return sum(guess == label for guess, label in zip(predicted, gold, strict=True)) / len(gold)

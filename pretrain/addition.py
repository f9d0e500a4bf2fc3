"""Addition as text: sums to learn from, sums that are held out, and the count of those that a checkpoint gets right.

    4321+8765=21960

That is 1234 + 5678 = 06912: every number has all its places, and its lowest digit stands first, as one adds by hand.
So each digit of the answer follows from the one just written, which tells the carry, and from two digits of the
question that always stand equally far before it. Written highest digit first, an answer's first digit would depend on
all others at once, and a model learns that far more slowly (Lee et al. 2023, arXiv 2307.03381, section 3).
"""

import argparse
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isqrt
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from errors import DataError, TokenizerError, UsageError
from utils import atomic_path, progress

if TYPE_CHECKING:  # torch takes a second to import, and `--help` does without it
    from llama import Llama
    from tokenizer import Tokenizer

DIGITS = 4
COUNT = 300_000
HELD_OUT = 10_000
SEED = 1337
MAX_DIGITS = 9  # more sums than that have no numbers of 64 bits
TRAINING_FILE, HELD_OUT_FILE = "sums.txt", "held-out.txt"
CHARACTERS = "0123456789+="
SHAPE = "write 1234 + 5678 = 6912 as 4321+8765=21960, the lowest digit first and one place more for the answer"
PART = 1000  # sums that are asked for between two moves of the progress bar
SHOWN = 5  # wrong answers


@dataclass(frozen=True)
class Wrong:
    """A sum that a model got wrong, and the text that it wrote."""

    line: str
    written: str


@dataclass(frozen=True)
class Result:
    """How many sums were asked for, and which of them the model got wrong."""

    asked: int
    wrong: tuple[Wrong, ...]

    @property
    def right(self) -> int:
        """The number of sums that are right to the last digit, with nothing after it."""
        return self.asked - len(self.wrong)


# ---------------------------------------------------------------------------------------------------------- the sums


def write_sum(a: int, b: int, digits: int) -> str:
    """Return a + b as a line; `digits` is the number of places of both."""
    answer = _lowest_first(a + b, digits + 1)  # one place more: 9 + 9 = 18
    return f"{_lowest_first(a, digits)}+{_lowest_first(b, digits)}={answer}"


def _lowest_first(number: int, places: int) -> str:
    """Return a number with so many places, the lowest digit first."""
    return f"{number:0{places}}"[::-1]


def draw_sums(digits: int, count: int, seed: int) -> Iterator[str]:
    """Yield `count` sums of numbers with `digits` places, in an order without pattern; no two have the same numbers.

    That means in either order: with a + b among them, b + a is not. Which of the two it is, is drawn, too.
    Raises UsageError if there are not so many sums, or for more than 9 places.
    """
    if not 1 <= digits <= MAX_DIGITS:
        raise UsageError(f"--digits {digits}: choose 1 to {MAX_DIGITS}")
    numbers = 10**digits
    possible = numbers * (numbers + 1) // 2
    if count > possible:
        raise UsageError(
            f"{count:,} sums were asked for, and there are only {possible:,} of numbers with {digits} digit(s): "
            "lower --count or --held-out, or raise --digits"
        )
    random = Random(seed)
    for index in random.sample(range(possible), count):
        a, b = _pair(index)
        yield write_sum(*((a, b) if random.random() < 0.5 else (b, a)), digits)


def _pair(index: int) -> tuple[int, int]:
    """Return the pair with this number among all pairs a <= b: (0, 0), (0, 1), (1, 1), (0, 2), (1, 2), (2, 2), ..."""
    b = (isqrt(8 * index + 1) - 1) // 2
    return index - b * (b + 1) // 2, b


# -------------------------------------------------------------------------------------------------------------- make


def make(
    out: Path, *, digits: int = DIGITS, count: int = COUNT, held_out: int = HELD_OUT, seed: int = SEED
) -> tuple[Path, Path]:
    """Write `count` sums to train on and `held_out` others into the folder `out`; return the two files.

    The former are documents for `prepare`, the latter stand one on a line. The same arguments give the same files.
    Raises UsageError if there are not so many sums, or the files cannot be written.
    """
    for name, number in (("--count", count), ("--held-out", held_out)):
        if number < 1:
            raise UsageError(f"{name} {number}: at least one sum is needed")
    sums = list(draw_sums(digits, held_out + count, seed))
    training_file, held_out_file = out / TRAINING_FILE, out / HELD_OUT_FILE
    try:
        held_out_file.unlink(missing_ok=True)  # never those of one drawing beside the training sums of another
        _write(training_file, sums[held_out:], "\n\n")  # blank lines part documents
        _write(held_out_file, sums[:held_out], "\n")
    except OSError as error:
        reason = f"{out} cannot be written ({error.strerror})"
        raise UsageError(f"{reason}: make room, or name another folder with -o") from error
    return training_file, held_out_file


def _write(path: Path, lines: Sequence[str], separator: str) -> None:
    """Write lines to a file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(separator.join(lines) + "\n", encoding="ascii", newline="\n")


# ------------------------------------------------------------------------------------------------------------- check


def read_sums(path: Path) -> list[str]:
    """Return the lines of a file of held-out sums, all of the same length.

    Raises DataError, with `file:line`, for a line that is no sum, is wrong or has other places than the first, and if
    the file is empty or cannot be read.
    """
    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()  # a byte that is no text makes no sum
    except OSError as error:
        reason = f"{path}: cannot be read ({error.strerror})"
        raise DataError(f"{reason}: name the {HELD_OUT_FILE} that `python -m pretrain make-addition` wrote") from error
    if not lines:
        raise DataError(f"{path}:1: the file is empty: make it again with `python -m pretrain make-addition`")
    for number, line in enumerate(lines, start=1):
        if problem := _problem(line, len(lines[0])):
            raise DataError(f"{path}:{number}: {line[:40]!r} {problem}")
    return lines


def _problem(line: str, length: int) -> str | None:
    """Return what is wrong with a line of held-out sums, or None."""
    places = f"[0-9]{{1,{MAX_DIGITS}}}"
    match = re.fullmatch(rf"({places})\+({places})=({places}[0-9])", line)
    if match is None or not len(match[1]) == len(match[2]) == len(match[3]) - 1:
        return f"is no sum: {SHAPE}"
    if len(line) != length:
        return "has more or fewer places than the sum on line 1: keep them in files of their own"
    right = write_sum(int(match[1][::-1]), int(match[2][::-1]), len(match[1]))
    return None if line == right else f"is wrong, it should be {right!r}: {SHAPE}"


def check(checkpoint: Path, held_out: Path) -> Result:
    """Let a checkpoint finish each sum in a file, always by the likeliest token, and compare with what stands there.

    Raises DataError for a file with a line that is no sum, CheckpointError or TokenizerError for a checkpoint that
    cannot be used, TokenizerError if its tokenizer cannot write sums, and UsageError if its context is too short.
    """
    from checkpoint import check_finite
    from inference.sampling import GREEDY
    from llama import load_pretrained
    from pretrain.generation import continue_prompts
    from tokenizer import find_tokenizer

    lines = read_sums(held_out)
    model = load_pretrained(checkpoint)
    check_finite(checkpoint, model.state_dict())
    tokenizer = find_tokenizer(checkpoint, model.vocab_size)
    room = _room(model, tokenizer, lines, checkpoint)
    wrong: list[Wrong] = []
    for first in progress(range(0, len(lines), PART), f"{PART:,} sums"):
        part = lines[first : first + PART]
        questions = [line[: line.index("=") + 1] for line in part]
        answers = continue_prompts(model, tokenizer, questions, max_new_tokens=room, sampling=GREEDY)
        wrong += [Wrong(line, answer) for line, answer in zip(part, answers, strict=True) if answer != line]
    return Result(len(lines), tuple(wrong))


def _room(model: "Llama", tokenizer: "Tokenizer", lines: Sequence[str], checkpoint: Path) -> int:
    """Return how many tokens an answer may have: all digits, and the end of the text, so that more is noticed.

    Raises TokenizerError if the tokenizer lacks a character of sums, UsageError if the model cannot read a whole one.
    """
    if tokenizer.decode(tokenizer.encode(CHARACTERS, bos=False, eos=False)) != CHARACTERS:
        raise TokenizerError(
            f"{tokenizer.path} cannot write all of {CHARACTERS}: {checkpoint} was not trained on sums. "
            "Name one that was (pretrain/recipes/addition.toml)"
        )
    longest = max(len(tokenizer.encode(line, bos=True, eos=False)) for line in lines)
    if longest > model.params.max_seq_len:
        raise UsageError(
            f"{checkpoint} reads {model.params.max_seq_len} tokens at once, and a sum of this file has {longest}: "
            "it was trained on shorter ones, so check it with those"
        )
    return len(lines[0]) - lines[0].index("=")


# ------------------------------------------------------------------------------------------------------- the command


def add_arguments_make(parser: argparse.ArgumentParser) -> None:
    """Add the options of `make-addition` to a parser."""
    add = parser.add_argument
    add("-o", "--out", type=Path, required=True, metavar="DIR", help=f"where {TRAINING_FILE} and {HELD_OUT_FILE} go")
    add("--digits", type=int, default=DIGITS, metavar="N", help="places of each number; default: %(default)s")
    add("--count", type=int, default=COUNT, metavar="N", help="sums to train on; default: %(default)s")
    add("--held-out", type=int, default=HELD_OUT, metavar="N", help="sums to check with; default: %(default)s")
    add("--seed", type=int, default=SEED, help="draws the sums; default: %(default)s")


def run_make(args: argparse.Namespace) -> int:
    """Write the sums, and say where they are."""
    options = {name: getattr(args, name) for name in ("digits", "count", "held_out", "seed")}
    training_file, held_out_file = make(args.out, **options)
    print(f"wrote {training_file}: {args.count:,} sums to train on")
    print(f"wrote {held_out_file}: {args.held_out:,} others")
    return 0


def add_arguments_check(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `check-addition` to a parser."""
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="a folder or file of weights, with its tokenizer")
    add("held_out", type=Path, metavar="FILE", help=f"the {HELD_OUT_FILE} that make-addition wrote")


def run_check(args: argparse.Namespace) -> int:
    """Say how many sums are right, and show a few that are not; return 0 if all are right, else 1."""
    result = check(args.checkpoint, args.held_out)
    print(f"{result.right:,} of {result.asked:,} sums are right ({result.right / result.asked:.2%})")
    for wrong in result.wrong[:SHOWN]:
        print(f"  wrong: {wrong.written} instead of {wrong.line}")
    if len(result.wrong) > SHOWN:
        print(f"  and {len(result.wrong) - SHOWN:,} more")
    return 1 if result.wrong else 0

"""What a rerun runs: the reference commands or a TA's arguments, the sentences that nobody knows, the expected time."""

import argparse
import random
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from autograder.editions import Edition
from autograder.outputs.coherence import TextReader
from autograder.outputs.files import read_file
from errors import UsageError
from run_llama import MAX_NEW_TOKENS, PROMPT, build_parser
from submission_rules import SUBMISSION, OutputFile

KINDS = ("generate", "prompt", "finetune")
# How the name of a kind's output files shows which they are.
_METHODS = {"generate": "generated-sentence", "prompt": "-prompting-", "finetune": "-finetuning-"}


@dataclass(frozen=True)
class Job:
    """One run of the program: its arguments, and what they mean to the assignment's own parser of them."""

    kind: str
    argv: tuple[str, ...]
    options: argparse.Namespace

    @property
    def outputs(self) -> dict[str, str]:
        """Return the files that it writes, by temperature (0 and 1) or split (dev and test)."""
        options = self.options
        if self.kind == "generate":
            return {"0": options.generated_sentence_low_temp_out, "1": options.generated_sentence_high_temp_out}
        return {"dev": options.dev_out, "test": options.test_out}

    def rules(self, part: str) -> OutputFile:
        """Return the rules of the file that a part of the output is compared with; its data file says which one."""
        if self.kind == "generate":
            return _named(f"generated-sentence-temp-{part}.txt")
        data_set = Path(getattr(self.options, part)).stem.rpartition("-")[0]
        return _named(f"{data_set}-{part}{_METHODS[self.kind]}output.txt")


def _named(name: str) -> OutputFile:
    """Return the rules of an output file. Raises UsageError if the assignment has none of this name."""
    for output in SUBMISSION.outputs:
        if output.name == name:
            return output
    sets = ", ".join(dict.fromkeys(output.name.split("-")[0] for output in SUBMISSION.outputs if output.labels))
    raise UsageError(f"a rerun cannot judge a '{name}': name data/SET-dev.txt and data/SET-test.txt, SET one of {sets}")


def jobs(edition: Edition, folder: Path, kind: str, arguments: Sequence[str] = ()) -> list[Job]:
    """Return the runs of a kind: those of the reference commands, or one with a TA's arguments.

    A submission of the original's kind has no option `--reproduce_2024`, and needs none: it has no mask anyway.
    Raises UsageError for an unknown kind, and for arguments that cannot be judged.
    """
    if kind not in KINDS:
        raise UsageError(f"nothing to rerun is called '{kind}': choose from {', '.join(KINDS)}")
    commands = [output.command for output in SUBMISSION.outputs if output.command and _METHODS[kind] in output.name]
    lines = [shlex.split(command)[2:] for command in dict.fromkeys(commands)]
    if arguments:
        lines = [[*(() if "--option" in arguments else ("--option", kind)), *arguments]]
    old = ["--reproduce_2024"] if edition.reproduce_2024 and knows_option(folder, "--reproduce_2024") else []
    found = [Job(kind, (*line, *old), _parsed(line, kind)) for line in lines]
    for job in found:
        for part in job.outputs:
            job.rules(part)
    return found


def knows_option(folder: Path, option: str) -> bool:
    """Say whether the submission's `run_llama.py` has an option: its text tells, nothing is run."""
    text = read_file(folder / "run_llama.py", SUBMISSION.max_source_bytes)
    return isinstance(text, bytes) and re.search(rb"[\"']" + option.encode() + rb"[\"']", text) is not None


def _parsed(line: Sequence[str], kind: str) -> argparse.Namespace:
    """Return what the arguments mean to the assignment's parser; options of the student's own are left alone."""
    try:
        options, _ = build_parser().parse_known_args(line)
    except SystemExit as error:  # argparse has said on stderr which argument it is
        raise UsageError(f"run_llama.py does not take the arguments `{shlex.join(line)}`") from error
    if options.option != kind:
        raise UsageError(f"the arguments say --option {options.option}, and the rerun is '{kind}': make them agree")
    if (options.prompt, options.max_new_tokens) != (PROMPT, MAX_NEW_TOKENS):
        raise UsageError(f"a rerun judges the fixed prompt and {MAX_NEW_TOKENS} new tokens: leave those options out")
    places = (options.train, options.dev, options.test, options.label_names, options.dev_out, options.test_out)
    for place in (*places, options.generated_sentence_low_temp_out, options.generated_sentence_high_temp_out):
        if PurePosixPath(place).is_absolute() or ".." in PurePosixPath(place).parts:
            raise UsageError(f"'{place}' leaves the folder in which the program runs: name the file relative to it")
    return options


# --- what nobody knows ------------------------------------------------------------------------------------------------


def secret_sentence(sentences: Sequence[str], generator: random.Random) -> str:
    """Return a sentence that is in no file: the first half of one sentence and the second half of another."""
    first, second = (generator.choice(sentences).split() for _ in range(2))
    return " ".join([*first[: len(first) // 2 + 1], *second[len(second) // 2 :]])


def secret_prompt(generator: random.Random) -> str:
    """Return the beginning of a story, one of some ten thousand."""
    name = generator.choice(("Ann", "Ben", "Lily", "Mia", "Sam", "Sue", "Tim", "Tom"))
    kind = generator.choice(("old", "small", "brave", "shy", "happy", "sad", "kind", "tired", "clever", "proud"))
    animal = generator.choice(("cat", "dog", "bird", "fish", "bear", "mouse", "frog", "horse", "rabbit", "duck"))
    place = generator.choice(("park", "garden", "forest", "house", "lake", "school", "kitchen", "hill", "barn", "shop"))
    return f"One day, {name} saw a {kind} {animal} near the {place}. The {animal}"


# --- how long it takes ------------------------------------------------------------------------------------------------


def tokens_to_generate(prompt: int, new: int) -> int:
    """Return how many tokens go through the model for both temperatures: each new token reads all before it again."""
    return 2 * sum(range(prompt, prompt + new))


def tokens_to_read(lengths: Sequence[int], batch_size: int) -> int:
    """Return how many tokens go through the model for rows of these lengths, in batches in the order of the file."""
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return sum(max(batch) * len(batch) for batch in batches)


def tokens_per_second(reader: TextReader, length: int = 64) -> float:
    """Return how many tokens the reference reads a second on one core, as in the sandbox: the best of three passes."""
    tokens = torch.zeros(1, min(length, reader.llama.config.max_seq_len), dtype=torch.long)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        best = min(_seconds(reader, tokens) for _ in range(3))
    finally:
        torch.set_num_threads(threads)
    return tokens.numel() / best


@torch.inference_mode()
def _seconds(reader: TextReader, tokens: torch.Tensor) -> float:
    """Return how long one pass takes."""
    start = time.perf_counter()
    reader.llama(tokens)
    return max(time.perf_counter() - start, 1e-6)


def duration(seconds: float) -> str:
    """Return a time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"

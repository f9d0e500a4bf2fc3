"""Measure, and write the tables: every verb here ends in a new RESULTS.md.

python -m benchmarks generate --size 42m
"""

import argparse
import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arguments import at_least_one
from errors import exit_status

GENERAL = ("verb", "out", "threads")  # the options that are not the verb's own


@dataclass(frozen=True)
class Verb:
    """A benchmark as the command line knows it; the module of its name has `measure` and `table`."""

    what: str  # is measured, beside what
    example: str  # options, then how long that takes
    rounds: int  # by default
    sizes: tuple[str, ...] = ()  # to choose from; "toy", which only shows that all works, is none of the default
    default: tuple[str, ...] = ()  # of the sizes; all, if none are named
    has_gpu: bool = False
    has_compile: bool = False  # and compiles, unless told not to
    flags: Mapping[str, tuple[str, str]] = field(default_factory=dict)  # option: keyword of `measure`, help
    numbers: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # option: default, help


VERBS = {
    "generate": Verb(
        what="generation, beside transformers, llama.cpp and the student's own loop",
        example="--size 42m --rounds 3    takes a minute or two",
        rounds=5,
        sizes=("stories260K", "15m", "42m", "110m", "toy"),
        has_gpu=True,
    ),
    "finetune": Verb(
        what="finetuning, beside a plain loop written as the original",
        example="--size 42m --rounds 3    takes some minutes",
        rounds=3,
        sizes=("15m", "42m", "toy"),
        default=("42m",),
        has_gpu=True,
        flags={
            "--compile": ("compiled", "measure ours with torch.compile as well, which takes minutes to start"),
            "--accuracy": ("accuracy", "finetune in full over several seeds, for the accuracy: minutes more"),
        },
    ),
    "prompt": Verb(
        what="zero-shot classification, beside the simple classifier",
        example="--size 42m --rounds 3    takes a minute",
        rounds=5,
        sizes=("15m", "42m", "storybook", "toy"),
        default=("42m", "storybook"),
        has_gpu=True,
    ),
    "optimizer": Verb(
        what="a step of AdamW, beside torch's own",
        example="--size 42m --rounds 5    takes half a minute",
        rounds=7,
        sizes=("15m", "42m", "110m", "toy"),
        has_gpu=True,
    ),
    "load": Verb(
        what="start-up, from a checkpoint to the first logits, beside transformers",
        example="--rounds 1    takes a minute",
        rounds=3,
        sizes=("42m", "toy"),
    ),
    "grade": Verb(
        what="grading a submission, and where its time goes",
        example="--rounds 3    takes some minutes",
        rounds=3,
        numbers={"--submissions": (12, "in the class that is graded; default: %(default)s")},
    ),
    "train": Verb(
        what="training from scratch, beside a plain loop over transformers' Llama",
        example="--size storybook --no-compile --rounds 5    takes a minute",
        rounds=7,
        sizes=("storybook", "stories15m"),
        has_compile=True,
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Run one of the benchmarks."""
    args = build_parser().parse_args(argv)
    return exit_status(lambda: _measure(args), "interrupted: nothing was written")


def _measure(args: argparse.Namespace) -> int:
    """Measure, and write the result and the tables."""
    args.out.mkdir(parents=True, exist_ok=True)  # what cannot be written is not measured first
    import torch

    from benchmarks import machine, report

    if args.threads:
        torch.set_num_threads(args.threads)
    options = {name: value for name, value in vars(args).items() if name not in GENERAL}
    stolen = machine.StolenTime()
    result: dict[str, Any] = importlib.import_module(f"benchmarks.{args.verb}").measure(**options)
    report.write(args.out, args.verb, result | {"stolen": stolen.share()}, options.get("device", "cpu"))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the benchmarks. What they need is imported when they run, so that --help does not wait for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, by how much?")
    benchmarks = parser.add_subparsers(dest="verb", required=True, metavar="BENCHMARK")
    for name, verb in VERBS.items():
        add = benchmarks.add_parser(
            name,
            help=verb.what,
            description=f"Measure {verb.what}; all take turns.",
            epilog=f"example: python -m benchmarks {name} {verb.example}",
        ).add_argument
        _add_own(add, verb)
        add("--threads", type=at_least_one, metavar="N", help="processor threads; default: PyTorch's choice")
        add("--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where JSON and RESULTS.md go")
    return parser


def _add_own(add: Any, verb: Verb) -> None:
    """Add the options that a verb has, each a keyword of its `measure`."""
    if verb.sizes:
        default = list(verb.default) or [size for size in verb.sizes if size != "toy"]
        text = f"default: {' '.join(default)}" + ("; toy shows that it works" if "toy" in verb.sizes else "")
        add("--size", nargs="+", dest="sizes", choices=verb.sizes, default=default, help=text)
    add("--rounds", type=at_least_one, default=verb.rounds, metavar="N", help="timed turns; default: %(default)s")
    if verb.has_gpu:
        add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    if verb.has_compile:
        text = "leave torch.compile out, which takes minutes to start"
        add("--no-compile", dest="compiled", action="store_false", help=text)
    for option, (keyword, text) in verb.flags.items():
        add(option, dest=keyword, action="store_true", help=text)
    for option, (number, text) in verb.numbers.items():
        add(option, type=at_least_one, default=number, metavar="N", help=text)


if __name__ == "__main__":
    sys.exit(main())

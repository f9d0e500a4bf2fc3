"""Which options do several verbs share? Each is described here once."""

import argparse
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_EDITION = "minllama"
BACKENDS = ("bwrap", "uid", "none")
KINDS = ("generate", "prompt", "finetune")

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def verb(
    verbs: Verbs, name: str, run: Callable[[argparse.Namespace], int], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a verb with its help and an example, and return its parser."""
    parser = verbs.add_parser(name, help=text, description=text, epilog=f"example: python -m autograder {example}")
    parser.set_defaults(run=run)
    return parser


def edition_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names the course."""
    parser.add_argument(
        "--edition",
        default=DEFAULT_EDITION,
        metavar="E",
        help="the course: a name in editions/, or a TOML file (default: %(default)s)",
    )


def sandbox_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that says how a stranger's code is shut in."""
    parser.add_argument(
        "--sandbox",
        choices=BACKENDS,
        help="bwrap by default; uid for root in a disposable container; none for nobody's code but your own",
    )


def grading_options(parser: argparse.ArgumentParser) -> None:
    """Add what an instructor may choose about grading one submission, or all of a class."""
    parser.add_argument("--seed", metavar="S", help="secret of the hidden inputs; by default one is drawn, kept in OUT")
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="weights that the outputs come from; by default the edition's"
    )
    parser.add_argument("--data", type=Path, default=ROOT / "data", metavar="DIR", help="official data; default: data")
    parser.add_argument(
        "--rerun", type=_kinds, default=(), metavar="KINDS", help="make outputs again: generate,prompt,finetune"
    )
    parser.add_argument(
        "--rerun-arguments", type=shlex.split, default=(), metavar="'ARGS'", help="in place of the reference command's"
    )


def positive(text: str) -> int:
    """Return a number that is at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from 1 on")
    return int(text)


def _kinds(text: str) -> tuple[str, ...]:
    """Return the kinds of rerun in a list with commas."""
    kinds = tuple(text.split(","))
    for kind in kinds:
        if kind not in KINDS:
            raise argparse.ArgumentTypeError(f"'{kind}' is none of {', '.join(KINDS)}")
    return kinds

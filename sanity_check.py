"""Checks every part that you write, and says what is wrong with it.

Each line of the report is one part: `ok`, `FAIL` (wrong values, with what is known about them), `error` (your code
raised one), `todo` (not written yet), `wait` (another part comes first) or `skip` (needs weights that are not there).
The tensors that it compares with stand in `sanity_check.data`.

    python sanity_check.py
"""

import argparse
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from errors import MinLlamaError, UsageError

ROOT = Path(__file__).resolve().parent
MARGIN = 8  # columns before the name of a check


def main(argv: list[str] | None = None) -> int:
    """Run the checks that are named, or all of them; the status is 0 if none of them failed or is still to be done."""
    parser = make_parser("Check the parts that you write, one line each.", "python sanity_check.py RoPE attention")
    parser.add_argument("names", nargs="*", metavar="NAME", help="checks whose names begin so; default: all of them")
    return report(parser.parse_args(argv))


def make_parser(description: str, example: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all commands of this kind share."""
    parser = argparse.ArgumentParser(description=description, epilog=f"example: {example}")
    parser.add_argument("--traceback", action="store_true", help="show the errors of your code in full")
    parser.add_argument(
        "--data", type=Path, default=ROOT / "sanity_check.data", metavar="FILE", help="default: sanity_check.data"
    )
    parser.add_argument(
        "--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="real weights; default: weights"
    )
    return parser


def report(args: argparse.Namespace) -> int:
    """Run the checks that `args.names` asks for, print a line and more on each, and return the exit status."""
    try:
        return _report(args)
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130


def _report(args: argparse.Namespace) -> int:
    """Do what `report` does; raises MinLlamaError."""
    from checking import OK, SKIP, read_references, run_checks  # imports torch, which takes a second

    references = read_references(args.data)
    names = _choose(args.names, list(references))
    width = max(map(len, names))
    statuses = []
    for check, outcome in run_checks(names, references, args.weights):
        print(f"{outcome.status:<{MARGIN}}{check.name:<{width}}  {outcome.note}".rstrip(), flush=True)
        for line in outcome.details:
            print(" " * MARGIN + line, flush=True)
        if args.traceback and outcome.traceback:
            print(textwrap.indent(outcome.traceback, " " * MARGIN), end="", flush=True)
        statuses.append(outcome.status)
    passed, skipped = statuses.count(OK), statuses.count(SKIP)
    total = len(statuses) - skipped
    print(f"{passed} of {total} checks pass" + (f", {skipped} skipped" if skipped else ""))
    return 0 if passed == total else 1


def _choose(words: Sequence[str], names: list[str]) -> list[str]:
    """Return the checks whose names begin with one of the words, in any case; all of them if there are no words.

    Raises UsageError for a word that begins no name.
    """
    for word in words:
        if not any(name.lower().startswith(word.lower()) for name in names):
            raise UsageError(f"no check is called '{word}': choose from {', '.join(names)}")
    return [name for name in names if not words or name.lower().startswith(tuple(map(str.lower, words)))]


if __name__ == "__main__":
    sys.exit(main())

"""Measure, and write the tables: every command here ends in a new RESULTS.md.

python -m benchmarks train
"""

import argparse
import sys
from pathlib import Path

from arguments import at_least_one
from errors import MinLlamaError

SIZES = ("storybook", "stories15m")


def main(argv: list[str] | None = None) -> int:
    """Run one of the benchmarks."""
    args = build_parser().parse_args(argv)
    try:
        from benchmarks import report, train

        report.write(args.out, "train", train.measure(args.size, rounds=args.rounds, compiled=not args.no_compile))
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Describe the benchmarks. What they need is imported when they run, so that --help does not wait for it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="How fast, by how much?")
    benchmarks = parser.add_subparsers(required=True, metavar="BENCHMARK")
    train = benchmarks.add_parser(
        "train",
        help="training from scratch, beside a plain loop over transformers' Llama",
        description="Time training steps of pretrain/ and of a plain loop over transformers' Llama, in turns.",
        epilog="example: python -m benchmarks train --size storybook --no-compile --rounds 5    takes a minute",
    )
    train.add_argument("--size", nargs="+", choices=SIZES, default=list(SIZES), help="default: all")
    train.add_argument(
        "--rounds", type=at_least_one, default=7, metavar="N", help="timed steps of each; default: %(default)s"
    )
    train.add_argument(
        "--no-compile", action="store_true", help="leave torch.compile out, which takes minutes to start"
    )
    train.add_argument(
        "--out", type=Path, default=Path(__file__).parent, metavar="DIR", help="where JSON and RESULTS.md go"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())

"""The instructor's commands.

python -m autograder sanity-data
"""

import argparse
import sys
from pathlib import Path

from errors import MinLlamaError

ROOT = Path(__file__).resolve().parent.parent


def main(argv: list[str] | None = None) -> int:
    """Run one of the commands."""
    args = _parser().parse_args(argv)
    try:
        return _sanity_data(args)
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    """Describe the commands."""
    parser = argparse.ArgumentParser(prog="python -m autograder", description="How is it graded?")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data = commands.add_parser(
        "sanity-data",
        help="make sanity_check.data from the master",
        description="Make the tensors that the student's checks compare with, from the master and the misconceptions.",
        epilog="example: python -m autograder sanity-data --table    shows how far the misconceptions lie apart",
    )
    data.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: sanity_check.data at the root")
    data.add_argument("--table", action="store_true", help="print distances; writes a file only if -o names one")
    data.add_argument(
        "--weights", type=Path, default=ROOT / "weights", metavar="DIR", help="real weights; default: weights"
    )
    return parser


def _sanity_data(args: argparse.Namespace) -> int:
    """Make `sanity_check.data`, or show the distances in it."""
    from autograder import sanity_data  # imports torch, which takes a second

    output = args.output if args.output or args.table else ROOT / "sanity_check.data"
    references = sanity_data.build(args.weights if output else None)
    if args.table:
        print(sanity_data.table(references))
    if output:
        sanity_data.write(output, references)
        outputs = sum(len(reference.misconceptions) for reference in references.values())
        print(f"wrote {output}: {len(references)} checks, {outputs} outputs of misconceptions")
    return 0


if __name__ == "__main__":
    sys.exit(main())

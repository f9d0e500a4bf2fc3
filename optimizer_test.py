"""Checks the optimizer alone: `AdamW.step` in optimizer.py. All checks: python sanity_check.py

python optimizer_test.py
"""

import sys

from sanity_check import make_parser, report


def main(argv: list[str] | None = None) -> int:
    """Run the checks of AdamW; the status is 0 if all of them pass."""
    args = make_parser("Check AdamW.step in optimizer.py.", "python optimizer_test.py").parse_args(argv)
    args.names = ["AdamW"]
    return report(args)


if __name__ == "__main__":
    sys.exit(main())

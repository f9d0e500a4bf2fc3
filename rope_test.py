"""Checks RoPE alone: `apply_rotary_emb` in rope.py. All checks: python sanity_check.py

python rope_test.py
"""

import sys

from sanity_check import make_parser, report


def main(argv: list[str] | None = None) -> int:
    """Run the check of RoPE; the status is 0 if it passes."""
    args = make_parser("Check apply_rotary_emb in rope.py.", "python rope_test.py").parse_args(argv)
    args.names = ["RoPE"]
    return report(args)


if __name__ == "__main__":
    sys.exit(main())

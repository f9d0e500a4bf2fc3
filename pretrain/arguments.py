"""Types of options, for argparse: what is no such value is refused with what was expected."""

import argparse


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def seed(text: str) -> int:
    """Parse a start of random numbers."""
    value = _whole(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2³² - 1, got {value}")
    return value


def _whole(text: str) -> int:
    """Parse a whole number, with an error that says what was expected."""
    try:
        return int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be a whole number, got '{text}'") from error

"""Types of options, for argparse: what is no such value is refused with what was expected."""

import argparse
from typing import TypeVar

Number = TypeVar("Number", int, float)


def at_least_one(text: str) -> int:
    """Parse a whole number of at least 1."""
    value = _number(text, int)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


def seed(text: str) -> int:
    """Parse what NumPy, PyTorch and Python all take as a seed."""
    value = _number(text, int)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"must be from 0 to 2³² - 1, got {value}")
    return value


def probability(text: str) -> float:
    """Parse a number from 0 to below 1."""
    value = _number(text, float)
    if not 0.0 <= value < 1.0:
        raise argparse.ArgumentTypeError(f"must be at least 0 and below 1, got {value}")
    return value


def positive(text: str) -> float:
    """Parse a number above 0."""
    value = _number(text, float)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be above 0, got {value}")
    return value


def _number(text: str, kind: type[Number]) -> Number:
    """Parse a number, with an error that says what was expected."""
    try:
        return kind(text)
    except ValueError as error:
        wanted = "whole number" if kind is int else "number"
        raise argparse.ArgumentTypeError(f"must be a {wanted}, got '{text}'") from error

"""Which tokens does a file consist of, once all is gone that is easily changed? Uses compare50, and nothing else does.

White space, comments and docstrings go; every name becomes `v`, every text `""`, every number its kind. compare50's own
pass `structure` keeps docstrings, as texts; all else is its work. Import this in the worker alone: compare50 is not
made for strict programs, and warns when it is imported.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import compare50
from compare50 import preprocessors
from pygments.token import String

from autograder.similarity.compare import Token


def read_tokens(folder: Path, files: Sequence[str]) -> list[list[Token]]:
    """Return the tokens of each of the files in a folder, which end in `.py`."""
    submission = compare50.Submission(folder, files, preprocessor=_normalised)
    found = []
    for number, file in enumerate(submission):
        text = file.read()
        found.append(
            [
                Token(sys.intern(token.val), sys.intern(text[token.start : token.end]), number, token.start, token.end)
                for token in file.tokens()
            ]
        )
    return found


def _normalised(tokens: Iterable[compare50.Token]) -> Iterable[compare50.Token]:
    """Return the tokens of a file as they are compared."""
    for step in (
        preprocessors.strip_whitespace,
        preprocessors.strip_comments,
        _strip_docstrings,
        preprocessors.normalize_identifiers,
        preprocessors.normalize_string_literals,
        preprocessors.normalize_numeric_literals,
    ):
        tokens = step(tokens)
    return tokens


def _strip_docstrings(tokens: Iterable[compare50.Token]) -> Iterator[compare50.Token]:
    """Remove what stands alone in triple quotes."""
    return (token for token in tokens if token.type not in String.Doc)

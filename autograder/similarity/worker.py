"""The limited process that reads strangers' programs: finds what is alike in them, and where.

`autograder.similarity.process` starts it (`python -m autograder.similarity.worker`). It reads a request from its
standard input, writes a line `ready` and one JSON document. It runs nothing of what it reads, opens no connection, and
writes no file; the limits are there since a text can be made to exhaust whoever takes it to pieces.
"""

import json
import resource
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autograder.similarity.compare import Fragment, Program, Token, are_given, fragments, given_prints, rank

if TYPE_CHECKING:
    from types import FrameType

READY = "ready"
MOST_ANSWER = 1 << 28  # bytes


@dataclass(frozen=True)
class _Read:
    """A submission that was read: what is its own, and where code stands that everybody was given."""

    program: Program
    given: list[tuple[int, int, int]]  # file, first character, one past the last


class _TooSlow(Exception):
    """Somebody's files take too long."""


def compare_all(request: dict[str, Any]) -> dict[str, Any]:
    """Return what the request asks for, as plain data.

    Of each pair that is shown there are its fragments, and where given code stands in both. `unread` says why a
    submission is in no pair.
    """
    folder = Path(request["folder"])
    handout = [[token.value for token in tokens] for tokens in _tokens(folder, request["handout"])]
    given = {fingerprint for values in handout for fingerprint in given_prints(values)}
    read: list[_Read] = []
    unread: dict[int, str] = {}
    for number, files in enumerate(request["submissions"]):
        try:
            with _at_most(request["seconds_each"]):
                read.append(_read(_tokens(folder, files), given))
        except _TooSlow:
            unread[number] = "its files take too long to read"
        except Exception as error:
            unread[number] = f"its files cannot be read ({type(error).__name__})"
        if number in unread:
            read.append(_Read((), []))
    pairs = [
        pair
        for pair in rank([entry.program for entry in read], request["current"])
        if pair.one not in unread and pair.two not in unread
    ]
    shown = [pair for pair in pairs if pair.score > 0][: request["most"]]
    return {
        "unread": sorted(unread.items()),
        "scores": [pair.score for pair in pairs],
        "pairs": [
            [*pair, [_plain(found) for found in fragments(read[pair.one].program, read[pair.two].program)]]
            for pair in shown
        ],
        "given": {str(number): read[number].given for pair in shown for number in (pair.one, pair.two)},
    }


def _tokens(folder: Path, files: Sequence[str]) -> list[list[Token]]:
    """Return the tokens of each file."""
    from autograder.similarity.tokens import read_tokens  # compare50 warns when it is imported

    return read_tokens(folder, files)


def _read(files: Sequence[Sequence[Token]], given: set[int]) -> _Read:
    """Part what is a submission's own from what was given."""
    program: list[Token | None] = []
    known: list[tuple[int, int, int]] = []
    for number, tokens in enumerate(files):
        flags = are_given([token.value for token in tokens], given)
        for is_given, group in groupby(zip(tokens, flags, strict=True), key=lambda item: item[1]):
            stretch = [token for token, _ in group]
            if is_given:
                known.append((number, stretch[0].start, stretch[-1].end))
            else:
                program += [*stretch, None]
    return _Read(program, known)


def _plain(fragment: Fragment) -> list[Any]:
    """Return a fragment as a list: where it stands in one and in two, its length, and how much is the same text."""
    places = [[first.file, first.start, last.end] for first, last in (fragment.one, fragment.two)]
    return [*places, fragment.tokens, fragment.same]


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise _TooSlow in the block once it has used so much of the processor's time."""

    def stop(number: int, frame: "FrameType | None") -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _limit(memory: int, seconds: int) -> None:
    """Take from this process what it does not need, for good; `memory` is in bytes."""
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_NPROC, 0),  # does not bind root
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_FSIZE, MOST_ANSWER),
        (resource.RLIMIT_CORE, 0),
    ):
        ceiling = resource.getrlimit(kind)[1]
        most = most if ceiling == resource.RLIM_INFINITY else min(most, ceiling)
        resource.setrlimit(kind, (most, most))


def main() -> int:
    """Read a request, compare within limits, write the answer; return the exit status."""
    request = json.load(sys.stdin)
    import autograder.similarity.tokens  # noqa: F401 - from here on nothing more is imported

    _limit(request["memory"], request["seconds"])
    print(READY, flush=True)
    json.dump(compare_all(request), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())

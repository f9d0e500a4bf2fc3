"""How alike are two programs? Runs of tokens that both have, what they weigh, and where they stand.

A program is the list of its own tokens, with None where a stretch of them ends: at the end of a file, and where code
begins that everybody was given. A fingerprint is the hash of `LENGTH` tokens in a row that lie in one stretch. The
numbers below were chosen by what they do to eight programs that were written independently, and to disguised copies.
Knows nothing of files or of how tokens are made.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import NamedTuple

LENGTH = 12  # tokens of a fingerprint: shorter runs are everybody's
GIVEN_LENGTH = 16  # tokens in a row that make code one that was given
# As many fingerprints are added to the shorter program's, so that two that hold next to nothing are not the most alike.
PRIOR = 100
# Of a run that stands many times in a program, so many are looked at: a file that says the same 10,000 times would
# otherwise cost 10,000 times 10,000 steps.
MOST_PLACES = 8


class Token(NamedTuple):
    """A token: its text after names and literals were made alike, its own text, and where it stands."""

    value: str
    raw: str
    file: int
    start: int  # characters
    end: int


Program = Sequence[Token | None]


class Pair(NamedTuple):
    """Two programs, by their numbers.

    `score` is the weight of the fingerprints that both have over that of the shorter one's, and `PRIOR`; `share` is the
    number of them over the number of the shorter one's.
    """

    one: int
    two: int
    score: float
    share: float


@dataclass(frozen=True)
class Fragment:
    """A run of tokens that two programs share: the first and the last in each, and how many."""

    one: tuple[Token, Token]
    two: tuple[Token, Token]
    tokens: int
    same: int  # tokens that are the same letter for letter


def fingerprints(values: Sequence[str | None], length: int = LENGTH) -> Iterator[tuple[int, int]]:
    """Yield where each run of `length` values begins that None does not interrupt, and its hash."""
    usable = 0
    for last, value in enumerate(values):
        usable = 0 if value is None else usable + 1
        if usable >= length:
            first = last - length + 1
            yield first, hash(tuple(values[first : last + 1]))


def given_prints(values: Sequence[str]) -> Iterator[int]:
    """Yield the fingerprints by which the code of a given file is known again."""
    return (fingerprint for _, fingerprint in fingerprints(values, GIVEN_LENGTH))


def are_given(values: Sequence[str], given: set[int]) -> list[bool]:
    """Say of each token of a file whether it lies in a run whose fingerprint is among `given`."""
    found = [False] * len(values)
    for first, fingerprint in fingerprints(values, GIVEN_LENGTH):
        if fingerprint in given:
            found[first : first + GIVEN_LENGTH] = [True] * GIVEN_LENGTH
    return found


def values_of(program: Program) -> list[str | None]:
    """Return the values of a program's tokens."""
    return [token and token.value for token in program]


def rank(programs: Sequence[Program], current: int) -> list[Pair]:
    """Return all pairs of which one is among the first `current` programs, the most alike first.

    The more programs share a fingerprint, the less it weighs: what two share alone weighs 1, what all share next to
    nothing, as `log((n + 1) / holders)` goes.
    """
    sets = [frozenset(fingerprint for _, fingerprint in fingerprints(values_of(program))) for program in programs]
    holders = Counter(fingerprint for prints in sets for fingerprint in prints)
    full = math.log((len(programs) + 1) / 2)
    weight = {
        fingerprint: math.log((len(programs) + 1) / number) / full if number > 2 else 1.0
        for fingerprint, number in holders.items()
    }
    totals = [math.fsum(weight[fingerprint] for fingerprint in prints) for prints in sets]
    numbers = [*combinations(range(current), 2), *product(range(current), range(current, len(programs)))]
    pairs = []
    for one, two in numbers:
        shared = sets[one] & sets[two]
        heavy = math.fsum(weight[fingerprint] for fingerprint in shared)  # the same sum in any order
        score = heavy / (min(totals[one], totals[two]) + PRIOR)
        pairs.append(Pair(one, two, round(score, 4), _share(len(shared), sets[one], sets[two])))
    return sorted(pairs, key=lambda pair: (-pair.score, -pair.share, pair.one, pair.two))


def _share(shared: int, one: frozenset[int], two: frozenset[int]) -> float:
    """Return how much of the smaller set is shared."""
    return round(shared / max(1, min(len(one), len(two))), 4)


def fragments(one: Program, two: Program) -> list[Fragment]:
    """Return the runs that two programs share, as they follow in the first; no token is in two of them.

    From left to right, each run is the longest that begins there.
    """
    first, second = values_of(one), values_of(two)
    places: dict[int, list[int]] = {}
    for place, fingerprint in fingerprints(second):
        if len(found := places.setdefault(fingerprint, [])) < MOST_PLACES:
            found.append(place)
    taken = [False] * len(second)
    found_fragments = []
    free = 0  # where the last run ended
    for begin, fingerprint in fingerprints(first):
        if begin < free or fingerprint not in places:
            continue
        lengths = [(_run(first, begin, second, place, taken), -place) for place in places[fingerprint]]
        length, place = max(lengths)
        if length < LENGTH:
            continue
        found_fragments.append(_fragment(one[begin : begin + length], two[-place : length - place]))
        taken[-place : length - place] = [True] * length
        free = begin + length
    return found_fragments


def _run(first: Sequence[str | None], i: int, second: Sequence[str | None], j: int, taken: Sequence[bool]) -> int:
    """Return how many tokens are the same from two places on, up to the end of a stretch or what is taken."""
    length = 0
    most = min(len(first) - i, len(second) - j)
    while (
        length < most
        and first[i + length] is not None
        and first[i + length] == second[j + length]
        and not taken[j + length]
    ):
        length += 1
    return length


def _fragment(one: Program, two: Program) -> Fragment:
    """Return two runs of equal tokens as a fragment."""
    tokens = [(a, b) for a, b in zip(one, two, strict=True) if a and b]
    same = sum(a.raw == b.raw for a, b in tokens)
    return Fragment((tokens[0][0], tokens[-1][0]), (tokens[0][1], tokens[-1][1]), len(tokens), same)

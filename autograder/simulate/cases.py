"""What kinds of submissions does a class consist of, how many of each, and what must come of each?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Literal, TypeVar

from autograder.editions import Edition
from autograder.mutations.bugs import MUTATIONS, Mutation, apply_all
from autograder.simulate.layouts import Layout
from autograder.simulate.oddities import ATTACKS, FORMAT, Oddity
from autograder.simulate.styles import region_code
from submission_rules import FILES

ROOT = Path(__file__).resolve().parents[2]
Kind = Literal["right", "mixed", "bare", "bug", "bugs", "results", "format", "attack", "late", "resubmitted"]
Item = TypeVar("Item")
# Only platforms know who was late, and only Canvas keeps what was replaced.
_EVERYWHERE: dict[Kind, float] = {
    "bare": 0.06,
    "bug": 0.22,
    "bugs": 0.08,
    "results": 0.06,
    "format": 0.12,
    "attack": 0.08,
}
SHARES: dict[Layout, dict[Kind, float]] = {
    "plain": {"right": 0.20, "mixed": 0.18, **_EVERYWHERE},
    "canvas": {"right": 0.12, "mixed": 0.12, "late": 0.08, "resubmitted": 0.06, **_EVERYWHERE},
    "gradescope": {"right": 0.15, "mixed": 0.13, "late": 0.10, **_EVERYWHERE},
}
CORE = tuple(region for region, file in FILES.items() if file != "classifier.py")
LOWEST = "B or below"
# The one bug that nothing finds but a check which the letter does not depend on.
MINOR = ("generate", "sampling sets the seed anew for every token, so that all draws are the same")
TOO_FEW = {"sst-dev-finetuning-output.txt": 0.2}  # share of right rows, below the margin in every edition


@dataclass(frozen=True)
class Case:
    """One submission that is to be made, and what must come of it; see `truth.Truth` for what is foreseen."""

    kind: Kind
    what: str = "nothing is wrong"
    letter: str | None = "A"
    failing: tuple[str, ...] = ()
    passing: tuple[str, ...] = ()
    is_bare: bool = False
    bugs: Mapping[str, str] = field(default_factory=dict)  # the code of regions
    oddity: Oddity | None = None
    shares: Mapping[str, float] = field(default_factory=dict)  # of right rows, by output

    @property
    def is_readable(self) -> bool:
        """Whether anything of it can be graded."""
        return self.oddity is None or self.oddity.letter is not None


def allocate(n: int, shares: Mapping[Kind, float]) -> dict[Kind, int]:
    """Return how many of `n` students are of each kind: as the shares say, and one of each kind if there is room."""
    counts = {kind: int(share * n) for kind, share in shares.items()}
    rest = sorted(shares, key=lambda kind: counts[kind] - shares[kind] * n)  # who lost most by rounding comes first
    for kind in rest[: n - sum(counts.values())]:
        counts[kind] += 1
    if n >= len(shares):
        for kind in [kind for kind in counts if not counts[kind]]:
            counts[max(counts, key=lambda other: counts[other])] -= 1
            counts[kind] = 1
    return counts


def make_cases(n: int, layout: Layout, edition: Edition, rng: Random) -> list[Case]:
    """Return the cases of a class, mixed. Bugs and oddities take turns, so that few come twice."""
    regions = edition.handout.open
    bugs = _turns([bug for bug in MUTATIONS if bug.region in regions], rng)
    attacks = _turns([oddity for oddity in ATTACKS if not oddity.code or oddity.code[0] in regions], rng)
    formats = _turns(list(FORMAT), rng)
    cases = []
    for kind, number in allocate(n, SHARES[layout]).items():
        for _ in range(number):
            if kind == "bare":
                cases.append(bare(kind, edition))
            elif kind in ("bug", "bugs"):
                cases.append(_of_bugs(kind, _apart(bugs, 1 if kind == "bug" else rng.choice((2, 2, 3))), edition))
            elif kind == "results":
                cases.append(Case(kind, "too few labels are right", "A-", passing=regions, shares=TOO_FEW))
            elif kind in ("format", "attack"):
                cases.append(_odd(kind, next(formats if kind == "format" else attacks), edition))
            else:
                cases.append(Case(kind, passing=regions))
    rng.shuffle(cases)
    return cases


def bare(kind: Kind, edition: Edition) -> Case:
    """Return the case of somebody who hands in the hand-out."""
    return Case(kind, "the hand-out as it was given", LOWEST, failing=edition.handout.open, is_bare=True)


def _turns(items: list[Item], rng: Random) -> Iterator[Item]:
    """Yield the items in a random order, again and again."""
    rng.shuffle(items)
    return cycle(items)


def _apart(bugs: Iterator[Mutation], number: int) -> list[Mutation]:
    """Return the next bugs that are in different regions."""
    chosen: dict[str, Mutation] = {}
    while len(chosen) < number:
        bug = next(bugs)
        chosen.setdefault(bug.region, bug)
    return list(chosen.values())


def _of_bugs(kind: Kind, bugs: list[Mutation], edition: Edition) -> Case:
    """Return the case of a student with these bugs. Where an edition forgives what its own tests do not find, nothing
    is foreseen.
    """
    code = {}
    for bug in bugs:
        file = FILES[bug.region]
        code[bug.region] = region_code(apply_all(ROOT, [bug])[file], file, bug.region)
    what = "; ".join(f"{bug.region}: {bug.what}" for bug in bugs)
    if edition.checks.decided_by:
        return Case(kind, what, None, bugs=code)
    costly = {bug.region for bug in bugs if (bug.region, bug.what) != MINOR}
    letter = LOWEST if costly & set(CORE) else "B+" if costly else "A"
    passing = tuple(region for region in edition.handout.open if region not in code)
    return Case(kind, what, letter, failing=tuple(code), passing=passing, bugs=code)


def _odd(kind: Kind, oddity: Oddity, edition: Edition) -> Case:
    """Return the case of a student whose work is right, but for this."""
    regions = edition.handout.open
    failing = tuple(region for region in oddity.failing if region in regions)
    passing = tuple(region for region in regions if region not in failing)
    return Case(kind, oddity.name, oddity.letter, failing, passing, oddity=oddity)

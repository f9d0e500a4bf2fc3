"""The pages of a comparison: a ranked list with what is normal in this class, and each pair side by side.

Each page is one file that loads nothing and runs nothing. All text in it is a stranger's: Jinja2 escapes it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from autograder.report.plain import one_line
from autograder.report.templates import environment
from autograder.similarity.process import Comparison, Match, Place
from autograder.similarity.sources import Source

if TYPE_CHECKING:
    from jinja2 import Template

TEMPLATES = Path(__file__).resolve().parent
NAME = 120  # characters of an entry's name
BINS = 20  # of the histogram, from 0 to 1
FEWEST = 10  # pairs, before anything is called unusual
# No pair below this is called unusual: of 28 pairs of programs that were written independently, the best has 0.17.
FLOOR = 0.25
COLOURS = 6  # of fragments; style.css has as many


@dataclass(frozen=True)
class Piece:
    """A part of a file's text. `kind` is "" for the student's own, "given", or "shared", which has a number."""

    text: str
    kind: str = ""
    number: int = 0  # of the fragment, from 1


@dataclass(frozen=True)
class FileView:
    """A file as the page shows it."""

    name: str
    pieces: tuple[Piece, ...]
    is_shared: bool  # in part


@dataclass(frozen=True)
class Bar:
    """A bar of the histogram: from which score to which, how many pairs, how high it is from 0 to 1."""

    low: float
    high: float
    pairs: int
    height: float


def unusual_from(scores: Sequence[float]) -> float | None:
    """Return the score from which a pair stands out in its class, or None where there are too few to say.

    That is Tukey's outer fence, three times as far above the upper quartile as the quartiles lie apart, but `FLOOR` at
    least.
    """
    if len(scores) < FEWEST:
        return None
    low, _, high = quantiles(scores, n=4, method="inclusive")
    return max(FLOOR, round(high + 3 * (high - low), 4))


def histogram(scores: Iterable[float]) -> list[Bar]:
    """Return how many pairs have which score. Heights grow with the logarithm, so that one pair is seen among many."""
    counts = [0] * BINS
    for score in scores:
        counts[min(BINS - 1, int(score * BINS))] += 1
    most = math.log1p(max(counts)) or 1.0
    return [
        Bar(number / BINS, (number + 1) / BINS, count, round(math.log1p(count) / most, 4))
        for number, count in enumerate(counts)
    ]


def page_name(rank: int) -> str:
    """Return the file name of the page of the pair of this rank, from 1."""
    return f"pair-{rank:03}.html"


def render_index(sources: Sequence[Source], current: int, found: Comparison) -> str:
    """Return the page with the ranked pairs."""
    fence = unusual_from(found.scores)
    rows = [
        {
            "page": page_name(rank),
            "one": one_line(sources[match.one].name, NAME),
            "two": one_line(sources[match.two].name, NAME),
            "score": match.score,
            "share": match.share,
            "unusual": fence is not None and match.score > fence,
        }
        for rank, match in enumerate(found.matches, 1)
    ]
    notes = [
        (one_line(source.name, NAME), (*source.notes, *([found.unread[number]] if number in found.unread else [])))
        for number, source in enumerate(sources)
    ]
    return _template("index.html").render(
        rows=rows,
        pairs=len(found.scores),
        submissions=current,
        archived=len(sources) - current,
        fence=fence,
        floor=FLOOR,
        above=sum(score > fence for score in found.scores) if fence is not None else 0,
        bars=histogram(found.scores),
        notes=[(name, texts) for name, texts in notes if texts],
    )


def render_pair(rank: int, match: Match, sources: Sequence[Source], given: Mapping[int, Sequence[Place]]) -> str:
    """Return the page that shows two submissions side by side."""
    one, two = sources[match.one], sources[match.two]
    sides = [
        ("a", "b", one_line(one.name, NAME), files_of(one, [s.one for s in match.shared], given[match.one])),
        ("b", "a", one_line(two.name, NAME), files_of(two, [s.two for s in match.shared], given[match.two])),
    ]
    fragments = [
        (number, _lines(one, shared.one), _lines(two, shared.two), shared.tokens, shared.same)
        for number, shared in enumerate(match.shared, 1)
    ]
    tokens = sum(shared.tokens for shared in match.shared)
    return _template("pair.html").render(
        rank=rank,
        score=match.score,
        share=match.share,
        tokens=tokens,
        same=sum(shared.same for shared in match.shared) / max(1, tokens),
        fragments=sorted(fragments, key=lambda fragment: (-fragment[3], fragment[0])),
        sides=sides,
        colours=COLOURS,
    )


def files_of(source: Source, shared: Sequence[Place], given: Sequence[Place]) -> list[FileView]:
    """Return the files of a submission in pieces: shared fragments in their order, given code, and the rest."""
    spans = sorted(
        [(place, "shared", number) for number, place in enumerate(shared, 1)] + [(p, "given", 0) for p in given]
    )
    by_file = {number: list(group) for number, group in groupby(spans, key=lambda span: span[0][0])}
    views = []
    for number, (name, text) in enumerate(source.texts.items()):
        pieces, until = [], 0
        for (_, start, end), kind, fragment in by_file.get(number, []):
            pieces += [Piece(text[until:start]), Piece(text[start:end], kind, fragment)]
            until = end
        pieces.append(Piece(text[until:]))
        views.append(
            FileView(name, tuple(piece for piece in pieces if piece.text), any(piece.number for piece in pieces))
        )
    return views


def _lines(source: Source, place: Place) -> str:
    """Return where a fragment stands, in words."""
    number, start, end = place
    name, text = list(source.texts.items())[number]
    first = text.count("\n", 0, start) + 1
    last = first + text.count("\n", start, end)
    return f"{name}:{first}" if first == last else f"{name}:{first}-{last}"


def _template(name: str) -> "Template":
    """Return a template of this folder."""
    templates = environment(TEMPLATES, "similarity")
    templates.filters["percent"] = lambda share: f"{100 * share:.0f} %"
    return templates.get_template(name)


Plain = dict[str, Any]


def as_json(sources: Sequence[Source], current: int, found: Comparison) -> Plain:
    """Return what `similarity.json` says."""
    return {
        "format": 1,
        "submissions": current,
        "archived": len(sources) - current,
        "compared": len(found.scores),
        "unusual_from": unusual_from(found.scores),
        "pairs": [
            {
                "one": sources[match.one].name,
                "two": sources[match.two].name,
                "score": match.score,
                "share": match.share,
                "page": f"similarity/{page_name(rank)}",
            }
            for rank, match in enumerate(found.matches, 1)
        ],
    }

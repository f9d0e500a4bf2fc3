"""What do the other files in OUT say: how long each submission took, and which pairs are alike?"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from errors import UsageError

PAIRS_FORMAT = 1  # of similarity.json
PAGE = re.compile(r"similarity/[A-Za-z0-9_-][A-Za-z0-9._-]*\.html")


@dataclass(frozen=True)
class Timing:
    """How long a submission took, and each of its stages, in seconds."""

    name: str  # of the entry
    seconds: float
    stages: dict[str, float]


@dataclass(frozen=True)
class Pair:
    """Two entries that are alike. `share` is of the shorter one's own code; `page` lies below OUT."""

    one: str
    two: str
    score: float
    share: float
    page: str


def read_timings(path: Path) -> list[Timing]:
    """Return the latest timing of each entry, the slowest first; none if nothing was timed yet.

    A line that holds no time is passed over: nothing was timed, or a run that was killed left half of it.
    """
    latest: dict[str, Timing] = {}
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for record in text.split("\n"):
        try:
            data = json.loads(record)
            stages = {str(stage): float(seconds) for stage, seconds in data.get("stages", {}).items()}
            latest[str(data["name"])] = Timing(str(data["name"]), float(data["seconds"]), stages)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue
    return sorted(latest.values(), key=lambda timing: (-timing.seconds, timing.name))


def read_pairs(path: Path) -> list[Pair] | None:
    """Return the pairs that are alike, in their order; None if nobody looked for any.

    Raises UsageError for a file that is damaged or of another format.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != PAIRS_FORMAT:
            raise ValueError(f"format {content['format']} instead of {PAIRS_FORMAT}")
        return [_pair(data) for data in content["pairs"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be used ({error!r}): look for similar submissions again") from error


def _pair(data: dict[str, object]) -> Pair:
    """Return a pair; its page only if it lies where such pages lie."""
    page = str(data["page"])
    if not PAGE.fullmatch(page):
        raise ValueError(f"no page of a pair is called {page!r}")
    score, share = float(str(data["score"])), float(str(data["share"]))
    return Pair(str(data["one"]), str(data["two"]), score, share, page)

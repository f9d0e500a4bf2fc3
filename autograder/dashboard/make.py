"""What does the teaching team look at? One page that needs no server and no network, for everything of a class.

    write_dashboard(ClassFolder(Path("out")), grades)      # out/index.html

Without a script it still shows everything; its one script sorts and filters. The page shows how long submissions took,
so it is not among the files that are the same bytes after every run.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from autograder.batch.folder import ClassFolder
from autograder.dashboard.overview import (
    check_rates,
    crashes,
    headline,
    points_sentence,
    split_misconception,
)
from autograder.dashboard.sources import Pair, Timing, read_pairs, read_timings
from autograder.dashboard.table import (
    NAME,
    STATUS_WORDS,
    Filter,
    letter_order,
    line,
    make_filters,
    row_view,
    student_of,
)
from autograder.gradebook.grades import FinalGrade
from autograder.gradebook.private import write_private
from autograder.report.templates import environment
from errors import UsageError

TEMPLATES = Path(__file__).resolve().parent
FIRST = 12  # of a long list: the rest is folded away
MOST_SLOW, MOST_CRASHED, MOST_PAIRS = 10, 10, 50
NOTHING: dict[str, Any] = {"slowest": [], "times": "", "pairs": None, "more_pairs": 0, "why_no_pairs": ""}


def write_dashboard(folder: ClassFolder, grades: Sequence[FinalGrade], private: bool = True) -> Path:
    """Write `index.html` into a class' folder, readable for its owner alone, and return its path.

    Unless `private`, the page shows of a student what the grade calls them and nothing else that says who it is: no
    links, no free text, nothing by entry. Raises UsageError where a file in the folder is damaged or the page cannot be
    written, MissingDependency where Jinja2 is not installed.
    """
    target = folder.out / "index.html"
    write_private(target, render(folder, grades, private))
    return target


def render(folder: ClassFolder, grades: Sequence[FinalGrade], private: bool = True) -> str:
    """Return the page as HTML; raises as `write_dashboard` does."""
    templates = environment(TEMPLATES, "the dashboard")
    from markupsafe import Markup  # comes with Jinja2

    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("index.css", "index.js"))
    return templates.get_template("index.html").render(
        page_of(folder, grades, private),
        style=Markup(style),
        script=Markup(script),
        policy=policy_for(style, script),
    )


def policy_for(style: str, script: str) -> str:
    """Return the Content-Security-Policy under which this style and this script work, and nothing else."""
    return (
        f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _source(text: str) -> str:
    """Return how a policy names an inline text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page_of(folder: ClassFolder, grades: Sequence[FinalGrade], private: bool) -> dict[str, Any]:
    """Return all that the template is given: plain text, numbers already written out."""
    filters = {entry.name: entry for entry in make_filters(grades)}
    rates = check_rates(grades, filters)
    rows = [row_view(grade, private) for grade in grades]
    return {
        "private": private,
        "edition": line(folder.read_entries()[1], NAME) if private else "",
        "counts": headline(grades, filters),
        "letters": filters["letter"].options,
        "points": points_sentence(grades),
        "checks": [check for check in rates if check.rate < 1],
        "perfect": sum(check.rate == 1 for check in rates),
        "misconceptions": [split_misconception(option) for option in filters["misconception"].options],
        "first": FIRST,
        "filters": [entry for entry in filters.values() if entry.options],
        "rows": list(zip(rows, _places(filters), strict=True)),
        "ranks": _ranks(filters["letter"]),
        "status_words": STATUS_WORDS,
        "has_names": any(row.name for row in rows),
        "review": [row for row in rows if row.open_items],
        "crashes": crashes(grades),
        "most_crashed": MOST_CRASHED,
    } | (_of_entries(folder, grades) if private else NOTHING)


def _places(filters: dict[str, Filter]) -> list[dict[str, str]]:
    """Return, for each row, its options by the filter's name."""
    names = list(filters)
    return [
        dict(zip(names, places, strict=True)) for places in zip(*(filters[name].places for name in names), strict=True)
    ]


def _ranks(letters: Filter) -> dict[str, int]:
    """Return what each letter is sorted by."""
    known = sorted((option.value for option in letters.options), key=letter_order)
    return {letter: place for place, letter in enumerate(known)}


def _of_entries(folder: ClassFolder, grades: Sequence[FinalGrade]) -> dict[str, Any]:
    """Return what is told by entry: how long each took, and which are alike."""
    groups: dict[str, list[str]] = {}
    for grade in grades:
        if grade.entry:
            groups.setdefault(grade.entry.name, []).append(student_of(grade))
    students = {name: line(", ".join(members)) for name, members in groups.items()}
    timings = read_timings(folder.timings)
    pairs, why_no_pairs = _pairs(folder)
    return {
        "slowest": [_slow(timing, students) for timing in timings[:MOST_SLOW]],
        "times": _times(timings),
        "pairs": None if pairs is None else [_alike(pair, students) for pair in pairs[:MOST_PAIRS]],
        "more_pairs": max(0, len(pairs or []) - MOST_PAIRS),
        "why_no_pairs": why_no_pairs,
    }


def _pairs(folder: ClassFolder) -> tuple[list[Pair] | None, str]:
    """Return the pairs that are alike, and why there are none to show, if their file is damaged."""
    try:
        return read_pairs(folder.similarity), ""
    except UsageError as error:  # the grades are shown all the same
        return None, line(str(error))


def _slow(timing: Timing, students: dict[str, str]) -> tuple[str, str, str]:
    """Return who took how long, and with what."""
    stages = sorted(timing.stages.items(), key=lambda item: -item[1])
    told = ", ".join(f"{line(stage, NAME)} {duration(seconds)}" for stage, seconds in stages)
    return students.get(timing.name, line(timing.name, NAME)), duration(timing.seconds), told


def _times(timings: Sequence[Timing]) -> str:
    """Return how long the class took, in a sentence."""
    if not timings:
        return ""
    seconds = [timing.seconds for timing in timings]
    return f"Median {duration(median(seconds))} a submission, {duration(sum(seconds))} all together."


def duration(seconds: float) -> str:
    """Return a time as a person says it: 7.3 s, 4 min 10 s, 2 h 5 min."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _alike(pair: Pair, students: dict[str, str]) -> tuple[str, str, str, str]:
    """Return two who are alike, how much, and the page that shows it."""
    one, two = (students.get(name, line(name, NAME)) for name in (pair.one, pair.two))
    return one, two, f"{100 * pair.share:.0f} %", pair.page

"""Finds the pairs of submissions in a class that are alike, for a person to compare. It judges nobody.

    python -m autograder similarity submissions/ --archive last-year/ -o out/

Writes `similarity/` into OUT: `similarity.json`, `index.html`, and a page for each of the most alike pairs. The same
submissions give the same bytes.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from autograder.batch.folder import ClassFolder
from autograder.batch.found import find_entries
from autograder.batch.records import Entry
from autograder.editions import Edition
from autograder.gradebook.choosing import time_of
from autograder.similarity.pages import as_json, page_name, render_index, render_pair, unusual_from
from autograder.similarity.process import Comparison, check_packages, compare
from autograder.similarity.sources import Source, handout_texts, read_source
from errors import UsageError
from utils import progress, write_text

ARCHIVE = "archive"  # what the names of past submissions begin with


def run_similarity(
    folder: Path,
    out: Path,
    edition: Edition,
    archives: Sequence[Path] = (),
    most: int = 50,
    say: Callable[[str], None] = print,
) -> int:
    """Compare the submissions of a class with each other, and with those of past years; return the exit status.

    `folder` and `archives` are what `find_entries` reads. The `most` alike pairs get a page each. Past years are not
    compared among themselves. Raises UsageError if there is nothing to compare, MissingDependency where compare50 or
    Jinja2 is not installed, and GraderError if comparing exceeds its limits.
    """
    check_packages()
    if most < 1:
        raise UsageError(f"{most} pairs cannot be shown: ask for at least 1")
    labels = _labels(archives)
    ClassFolder(out).make()
    current = _read(folder, "", out, edition)
    past = [source for path, label in zip(archives, labels, strict=True) for source in _read(path, label, out, edition)]
    if not any(source.texts for source in current) or sum(bool(source.texts) for source in (*current, *past)) < 2:
        raise UsageError(f"{folder}: a pair takes two submissions that can be read, and there are none: see their zips")
    say(
        f"comparing {len(current)} submissions" + (f" with each other and with {len(past)} of the past" if past else "")
    )
    found = compare([*current, *past], len(current), handout_texts(edition), most)
    _write(ClassFolder(out).similarity, [*current, *past], len(current), found)
    for line in _summary([*current, *past], found):
        say(line)
    say(f"wrote {ClassFolder(out).similarity.parent / 'index.html'}")
    return 0


def counting(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries without the earlier attempts of a student, as the platform names students.

    Who a zip says that it is from does not matter here: anybody can write another's name.
    """
    last = {_who(entry): entry for entry in sorted(entries, key=_order)}
    return sorted(last.values(), key=lambda entry: entry.name)


def _who(entry: Entry) -> tuple[str, str]:
    """Return whose an entry is, as far as a platform says it."""
    facts = {"number": entry.platform_id, "e-mail": entry.email, "id": entry.student_id or "", "name": entry.name}
    return next((kind, text) for kind, text in facts.items() if text.strip(" ;"))


def _order(entry: Entry) -> tuple[int, float, str]:
    """Return what decides which entry of a student counts: the highest attempt, as in the gradebook."""
    time = time_of(entry)
    return entry.attempt, time.timestamp() if time else 0.0, entry.name


def _labels(archives: Sequence[Path]) -> list[str]:
    """Return what the names of each archive's submissions begin with. Raises UsageError if two would be the same."""
    labels = [f"{ARCHIVE}/{path.resolve().name}/" for path in archives]
    if double := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"two archives are called {double[0].split('/')[1]}: rename one, or name it once")
    return labels


def _read(folder: Path, label: str, out: Path, edition: Edition) -> list[Source]:
    """Return the source of every submission that counts in a folder or a platform's zip."""
    with tempfile.TemporaryDirectory(prefix="similarity-", ignore_cleanup_errors=True) as private:
        # A folder stays as it is; OUT is named so that it is not taken for a submission.
        unpacked = Path(private, "submissions") if folder.is_file() else out / "submissions"
        entries = counting(find_entries(folder, unpacked))
        with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
            read = threads.map(lambda entry: read_source(entry, label + entry.name, edition), entries)
            return list(progress(read, f"reading {folder.name}", len(entries)))


def _write(target: Path, sources: Sequence[Source], current: int, found: Comparison) -> None:
    """Write the pages, then the JSON file `target`; what an earlier run left is gone. All are private."""
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.parent.chmod(0o700)
    target.unlink(missing_ok=True)
    for old in target.parent.glob(page_name(0).replace("000", "*")):
        old.unlink()
    for name, text in _pages(sources, current, found):
        write_text(target.parent / name, text)
        (target.parent / name).chmod(0o600)
    write_text(target, json.dumps(as_json(sources, current, found), indent=1) + "\n")
    target.chmod(0o600)


def _pages(sources: Sequence[Source], current: int, found: Comparison) -> Iterator[tuple[str, str]]:
    """Yield the name and the text of each page."""
    for rank, match in enumerate(found.matches, 1):
        yield page_name(rank), render_pair(rank, match, sources, found.given)
    yield "index.html", render_index(sources, current, found)


def _summary(sources: Sequence[Source], found: Comparison) -> Iterator[str]:
    """Yield what somebody at a terminal wants to know."""
    partly = sum(bool(source.notes) or number in found.unread for number, source in enumerate(sources))
    if partly:
        yield f"{partly} submissions were not compared whole: the page says why"
    fence = unusual_from(found.scores)
    if fence is None:
        yield f"{len(found.scores):,} pairs: too few to say what is unusual"
    else:
        above = sum(score > fence for score in found.scores)
        yield f"{len(found.scores):,} pairs, of which {above} stand out (a score above {fence:.2f})"

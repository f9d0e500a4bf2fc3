"""Which text of a submission is compared? The student's own Python files, made plain; very long ones are cut."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autograder.batch.records import Entry
from autograder.editions import Edition
from autograder.handout.files import FILES
from autograder.handout.regions import close_regions
from autograder.intake.reader import take_in
from autograder.report.plain import one_line, plain
from errors import SubmissionError
from submission_rules import FILES as REGIONS

ROOT = Path(__file__).resolve().parents[2]
GIVEN = tuple(name for name in FILES if name.endswith(".py"))
# Characters that are compared: people write 30,000 in all. Whoever reads 100 times that would keep the class waiting.
MOST_OF_FILE, MOST_OF_ALL = 200_000, 400_000
NAME = 120  # characters of a stranger's file name


@dataclass(frozen=True)
class Source:
    """What is compared of a submission: the text of each file by its name, and what one should know about it."""

    name: str  # of the entry; of a past year, `archive/FOLDER/` comes first
    texts: Mapping[str, str]
    notes: tuple[str, ...] = ()


def handout_texts(edition: Edition) -> list[str]:
    """Return the text of every Python file that students are given, with the gaps open."""
    texts = []
    for name in GIVEN:
        text = (ROOT / name).read_text(encoding="utf-8")
        if name in REGIONS.values():
            text = close_regions(text, edition.handout.open, edition.handout.hint, name)
        texts.append(text)
    return texts


def read_source(entry: Entry, name: str, edition: Edition) -> Source:
    """Take a submission in, and return what is compared of it; if that is nothing, a note says why.

    Raises MinLlamaError for what is wrong on our side.
    """
    if entry.problem:
        return Source(name, {}, (one_line(entry.problem, 500),))
    with tempfile.TemporaryDirectory(prefix="similarity-", ignore_cleanup_errors=True) as private:
        target = Path(private, "files")
        try:
            intake = take_in(Path(entry.path), entry.student_id, edition, target)
        except SubmissionError as error:
            return Source(name, {}, (one_line(str(error), 500),))
        own = [file for file in edition.files.own if file in intake.files]
        # Where the student's copies of given files run, there may be work in them; what was given is found in any case.
        passed_over = {*own, *(GIVEN if edition.files.pristine == "always" else ())}
        own += [file for file in intake.files if file.endswith(".py") and file not in passed_over]
        if not own:
            return Source(name, {}, ("holds no Python file of the student's that can be read",))
        return _cut(name, {file: (target / file).read_bytes() for file in own})


def _cut(name: str, files: Mapping[str, bytes]) -> Source:
    """Return the text of files, as far as it is compared, and say what is not."""
    texts: dict[str, str] = {}
    notes = []
    room = MOST_OF_ALL
    for file, data in files.items():
        shown = one_line(file, NAME)
        most = min(MOST_OF_FILE, room)
        text = data.decode("utf-8", errors="replace")
        if len(text) > most:
            notes.append(f"{shown} is long: {most:,} of its {len(text):,} characters are compared")
        if most:
            texts[shown] = plain(text, most)
            room -= len(texts[shown])
    return Source(name, texts, tuple(notes))

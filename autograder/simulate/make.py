"""Makes up a class: so many different submissions, right and wrong ones, in a folder or as a platform exports them.

    simulate(60, "spring", Path("class"), "minllama", "canvas")     # class/, and class.truth.json beside it

The same arguments give the same bytes. The class is meant for `batch --checkpoint storybook`; where the official data
is not here, it brings data of its own, `class.data/`, for `--data`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from random import Random

from autograder.editions import Edition, read_edition
from autograder.simulate.cases import Case, Kind, bare, make_cases
from autograder.simulate.layouts import LAYOUTS, Layout, Placed, Platform
from autograder.simulate.outputs import CHECKPOINT, official_data, output_files, write_small_data
from autograder.simulate.people import Person, make_people
from autograder.simulate.styles import ROOT, STUDENT_FILES, STYLES, styled
from autograder.simulate.truth import Truth, truth_file, write_truth
from autograder.simulate.work import Work
from errors import UsageError
from submission_rules import SUBMISSION

_WORDS = "again after before check done first half later mask maybe next page pair root shape step test twice"


@dataclass(frozen=True)
class Course:
    """What all students of a class share."""

    edition: Edition
    given: Mapping[str, bytes]  # the files of the hand-out that belong in a submission
    data: Path


def simulate(
    n: int, seed: str | int, folder: Path, edition_name: str, layout: Layout = "plain", data: Path = ROOT / "data"
) -> None:
    """Write a class of `n` students into a new folder, and the truth about it into a file beside it.

    Raises UsageError if there is something in the folder, no such layout or edition, or nobody in the class.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"no layout is called '{layout}': choose from {', '.join(LAYOUTS)}")
    if n < 1:
        raise UsageError(f"a class of {n} cannot be made up: ask for one student at least")
    folder = Path(folder).absolute()
    if truth_file(folder).exists() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
        raise UsageError(f"{folder} or {truth_file(folder).name} beside it is there already: name another folder")
    edition = read_edition(edition_name)
    rng = Random(f"{seed}: class")
    cases, people = make_cases(n, layout, edition, rng), make_people(n, rng)
    folder.mkdir(parents=True, exist_ok=True)
    own_data = None if official_data(data) else folder.with_name(f"{folder.name}.data")
    if own_data:
        write_small_data(own_data)
    course = Course(edition, _given_files(edition), own_data or data)
    platform = LAYOUTS[layout](folder)
    truths: list[Truth] = []
    for index, (person, case) in enumerate(zip(people, cases, strict=True)):
        truths += _hand_in(person, case, course, platform, Random(f"{seed}: {index}"))
    platform.finish()
    about = {"seed": str(seed), "edition": edition_name, "layout": layout, "checkpoint": CHECKPOINT}
    about["data"] = own_data.name if own_data else "data"
    write_truth(folder, sorted(truths, key=lambda truth: truth.name), about)


def _given_files(edition: Edition) -> dict[str, bytes]:
    """Return the files of the hand-out that belong in a submission."""
    from autograder.handout.make import handout_content  # imports torch

    content, _ = handout_content(edition, ROOT)
    wanted = (*SUBMISSION.required, *SUBMISSION.expected)
    return {
        name: data
        for name, data in content.items()
        if "/" not in name and (name in wanted or SUBMISSION.belongs(name, ""))
    }


def _hand_in(person: Person, case: Case, course: Course, platform: Platform, rng: Random) -> Iterator[Truth]:
    """Put a student's work into the class, before it what it replaces, and yield the truth about each."""
    if case.kind == "resubmitted":
        first = bare(case.kind, course.edition)
        work, styles = _work(person, first, course, rng)
        yield _truth(person, first, platform.place(person, work, rng), styles, counts=False)
    work, styles = _work(person, case, course, rng)
    attempt = 1 if case.kind == "resubmitted" else 0
    days_late = rng.randint(1, 6) if case.kind == "late" else 0
    yield _truth(person, case, platform.place(person, work, rng, attempt, days_late), styles)


def _work(person: Person, case: Case, course: Course, rng: Random) -> tuple[Work, dict[str, str]]:
    """Return what a student hands in, and in whose style each file is that students write."""
    files = dict(course.given)
    styles = {} if case.is_bare else _styles(case.kind, rng)
    attack = dict([case.oddity.code]) if case.oddity and case.oddity.code else {}
    for file, style in styles.items():
        files[file] = styled(file, style, course.edition.handout.open, case.bugs, attack).encode()
    if not case.is_bare:
        files |= output_files(course.edition, course.data, rng, case.shares)
    # No two students' files are the same, even where two have solved it in the same style.
    note = f"\n# {' '.join(rng.sample(_WORDS.split(), 4))} {rng.randrange(10**9)}\n"
    for file in STUDENT_FILES:
        files[file] += note.encode()
    work = Work(person.student_id, files, folder=person.student_id, ordinary=case.oddity is None)
    if case.oddity and case.oddity.change:
        case.oddity.change(work, rng)
    return work, styles


def _styles(kind: Kind, rng: Random) -> dict[str, str]:
    """Return the style of each file that students write: one for all, or where it is mixed, one each."""
    if kind == "mixed":
        return {file: rng.choice(STYLES) for file in STUDENT_FILES}
    return dict.fromkeys(STUDENT_FILES, rng.choice(STYLES))


def _truth(person: Person, case: Case, placed: Placed, styles: Mapping[str, str], counts: bool = True) -> Truth:
    """Return what is right to say about an entry."""
    return Truth(
        kind=case.kind,
        what=case.what,
        student_id=person.student_id,
        styles=styles,
        status="graded" if case.is_readable else "unreadable",
        letter=case.letter,
        failing=case.failing,
        passing=case.passing if case.is_readable else (),
        counts=counts,
        **vars(placed),
    )

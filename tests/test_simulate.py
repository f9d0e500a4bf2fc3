"""Made-up classes: run with `pytest tests/test_simulate.py`."""

import ast
import hashlib
import json
import math
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from autograder.batch.folder import ClassFolder
from autograder.batch.found import find_entries
from autograder.batch.journal import Journal
from autograder.batch.records import Row, Summary
from autograder.editions import read_edition
from autograder.mutations.bugs import MUTATIONS
from autograder.simulate import cases
from autograder.simulate.cases import SHARES, allocate, make_cases
from autograder.simulate.layouts import LAYOUTS, Layout
from autograder.simulate.make import simulate
from autograder.simulate.oddities import ATTACKS, FORMAT
from autograder.simulate.outputs import official_data, write_small_data
from autograder.simulate.people import make_people
from autograder.simulate.styles import ROOT, STUDENT_FILES, STYLES, solution_files, styled
from autograder.simulate.truth import Truth, compare_with_truth, read_truth, truth_file, write_truth
from errors import GraderError, UsageError
from submission_rules import FILES
from tests.tiny_grading import write_data

MINLLAMA = read_edition("minllama")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of few sentences under the official names."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Return the folder of three classes, one a layout."""
    root = tmp_path_factory.mktemp("classes")
    for layout in LAYOUTS:
        simulate(12, "s", root / layout, "minllama", layout, data)
    return root


def contents(folder: Path) -> dict[str, str]:
    """Return the checksums of all files in a folder."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# --- the solutions ---


def test_there_are_eight_styles_and_each_has_all_regions_of_its_own() -> None:
    assert len(STYLES) == 8
    texts = {style: solution_files(style) for style in STYLES}
    for file in STUDENT_FILES:
        assert len({files[file] for files in texts.values()}) == 8
        for files in texts.values():
            ast.parse(files[file])
            assert "NotImplementedError" not in files[file] and "SOLUTION" not in files[file]


def test_a_region_can_get_other_code_and_something_in_front_of_it() -> None:
    text = styled("llama.py", "hurried", FILES, {"layer": "return x\n"}, {"gqa": "if self:\n    pass\n"})
    assert "        return x\n" in text and "        if self:\n            pass\n" in text
    assert text.count("\n") < solution_files("hurried")["llama.py"].count("\n") + 3


def test_a_region_that_is_given_stays_as_the_master_has_it() -> None:
    text = styled("llama.py", "einsum", ["layer"])
    assert "torch.repeat_interleave(key" in text and "### " not in text


def test_a_helper_whose_place_is_gone_is_told(tmp_path: Path) -> None:
    for file in STUDENT_FILES:
        shutil.copyfile(ROOT / file, tmp_path / file)
    text = (tmp_path / "rope.py").read_text().replace("def apply_rotary_emb(", "def apply_rope(")
    (tmp_path / "rope.py").write_text(text)
    message = (
        r"solutions/einsum.toml: `def apply_rotary_emb\(` stands 0 times in rope.py, not once: adapt the insertion"
    )
    with pytest.raises(GraderError, match=message):
        solution_files("einsum", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_every_solution_passes_the_public_checks(style: str, tmp_path: Path) -> None:
    for path in [*ROOT.glob("*.py"), ROOT / "sanity_check.data"]:
        shutil.copyfile(path, tmp_path / path.name)
    for file, text in solution_files(style).items():
        (tmp_path / file).write_text(text)
    done = subprocess.run(
        [sys.executable, "sanity_check.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "FAIL" not in done.stdout and "TODO" not in done.stdout


# --- what a class consists of ---


@pytest.mark.parametrize("layout", SHARES)
def test_shares_sum_to_one_and_every_kind_is_there(layout: Layout) -> None:
    shares = SHARES[layout]
    assert math.isclose(sum(shares.values()), 1.0)
    for n in (*range(1, 40), 100, 300):
        counts = allocate(n, shares)
        assert sum(counts.values()) == n and min(counts.values()) >= (n >= len(shares))
    assert all(abs(count / 300 - shares[kind]) < 0.01 for kind, count in allocate(300, shares).items())


def test_a_large_class_has_every_bug_and_every_oddity() -> None:
    made = make_cases(800, "plain", MINLLAMA, Random(1))
    words = "; ".join(case.what for case in made)
    assert all(f"{bug.region}: {bug.what}" in words for bug in MUTATIONS)
    assert {oddity.name for oddity in (*FORMAT, *ATTACKS)} <= {case.what for case in made}


def test_bugs_of_several_kinds_are_in_different_regions() -> None:
    several = [case for case in make_cases(300, "plain", MINLLAMA, Random(1)) if case.kind == "bugs"]
    assert several and all(2 <= len(case.bugs) <= 3 for case in several)


def test_the_bug_that_no_letter_depends_on_exists() -> None:
    assert cases.MINOR in {(bug.region, bug.what) for bug in MUTATIONS}


def test_where_an_edition_forgives_the_letter_of_a_bug_is_not_foreseen() -> None:
    made = make_cases(100, "plain", read_edition("nlp244"), Random(1))
    assert all(case.letter is None and not case.failing for case in made if case.kind in ("bug", "bugs"))
    assert not {region for case in made for region in case.bugs} & {"gqa", "zero_shot_head"}


def test_people_have_different_numbers_and_ids() -> None:
    people = make_people(500, Random(1))
    for values in ([p.student_id for p in people], [p.user for p in people], [p.number for p in people]):
        assert len(set(values)) == 500
    assert all(person.student_id.isascii() and person.run_together.isalpha() for person in people)


# --- the class in its folder ---


def test_the_same_arguments_make_the_same_bytes(made: Path, tmp_path: Path, data: Path) -> None:
    simulate(12, "s", tmp_path / "canvas", "minllama", "canvas", data)
    assert contents(tmp_path / "canvas") == contents(made / "canvas")
    assert truth_file(tmp_path / "canvas").read_bytes() == truth_file(made / "canvas").read_bytes()


def test_another_seed_makes_other_bytes(made: Path, tmp_path: Path, data: Path) -> None:
    simulate(3, "t", tmp_path / "canvas", "minllama", "canvas", data)
    assert not set(contents(tmp_path / "canvas").values()) & set(contents(made / "canvas").values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_submission_is_another_one(made: Path, layout: Layout) -> None:
    checksums = Counter(
        hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (made / layout).rglob("*")
        if path.suffix == ".zip" or path.name == "llama.py"
    )
    assert max(checksums.values()) == 1 and len(checksums) >= 12


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_truth_is_about_what_is_found(made: Path, layout: Layout, tmp_path: Path) -> None:
    truths = read_truth(made / layout)
    entries = find_entries(made / layout, tmp_path / "submissions")
    assert [entry.name for entry in entries] == list(truths) and not any(entry.problem for entry in entries)
    assert {truth.kind for truth in truths.values()} == SHARES[layout].keys()
    assert len({truth.student_id for truth in truths.values()}) == 12
    for entry in entries:
        truth = truths[entry.name]
        assert (entry.platform_id, entry.attempt) == (truth.platform_id, truth.attempt)
        assert (entry.student_name, entry.submitted_at) == (truth.student_name, truth.submitted_at)
        assert truth.status == "unreadable" or truth.letter in ("A", "A-", "B+", "B or below")
        assert not set(truth.failing) & set(truth.passing)


def test_canvas_marks_who_is_late_and_keeps_what_was_replaced(made: Path) -> None:
    truths = read_truth(made / "canvas").values()
    late = [truth for truth in truths if truth.kind == "late"]
    assert late and all(truth.is_late and truth.days_late is None and "_LATE_" in truth.name for truth in late)
    attempts = [truth for truth in truths if truth.kind == "resubmitted"]
    assert {(truth.attempt, truth.counts, truth.letter) for truth in attempts} == {
        (0, False, "B or below"),
        (1, True, "A"),
    }


def test_gradescope_says_when_each_was_handed_in(made: Path) -> None:
    truths = read_truth(made / "gradescope").values()
    assert {truth.kind for truth in truths if truth.days_late} == {"late"}
    assert all(truth.submitted_at.endswith("-08:00") for truth in truths)


def test_a_bug_is_in_the_code_that_is_handed_in(made: Path) -> None:
    truths = read_truth(made / "canvas")
    name = next(name for name, truth in truths.items() if truth.kind == "bug")
    truth = truths[name]
    file = FILES[truth.failing[0]]
    with zipfile.ZipFile(made / "canvas" / name) as archive:
        texts = {name: archive.read(f"{truth.student_id}/{name}").decode() for name in STUDENT_FILES}
    solved = solution_files(truth.styles[file])
    ast.parse(texts[file])
    assert [name for name in STUDENT_FILES if not texts[name].startswith(solved[name])] == [file]


def test_where_the_official_data_is_not_the_class_brings_its_own(tmp_path: Path) -> None:
    simulate(1, "s", tmp_path / "class", "minllama", "plain", tmp_path / "nothing")
    assert official_data(tmp_path / "class.data")
    assert json.loads(truth_file(tmp_path / "class").read_text())["data"] == "class.data"


def test_own_data_can_be_read_as_the_official_one(tmp_path: Path) -> None:
    from sentiment_data import read_examples, read_label_names

    write_small_data(tmp_path)
    for name, labels in (("sst", 5), ("cfimdb", 2)):
        names = read_label_names(tmp_path / f"{name}-label-mapping.json")
        examples = read_examples(tmp_path / f"{name}-dev.txt", labels)
        assert len(names) == labels and {example.label for example in examples} == {0, labels - 1}


@pytest.mark.parametrize(
    ("n", "layout", "message"),
    [(0, "plain", "a class of 0 cannot be made up"), (1, "moodle", "no layout is called 'moodle': choose from plain")],
)
def test_an_impossible_class_is_refused(tmp_path: Path, n: int, layout: Layout, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        simulate(n, "s", tmp_path / "class", "minllama", layout)


def test_a_folder_that_is_not_empty_is_left_alone(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is there already: name another folder"):
        simulate(1, "s", made / "plain", "minllama")
    truth_file(tmp_path / "class").write_text("of another class")
    with pytest.raises(UsageError, match="is there already"):
        simulate(1, "s", tmp_path / "class", "minllama")


# --- the truth, and a grading ---

RIGHT = Truth("a.zip", "right", "nothing is wrong", "a", "", "", "", {}, letter="A", passing=("rmsnorm", "rope"))
BUG = replace(RIGHT, name="b.zip", kind="bug", letter="B or below", failing=("rmsnorm",), passing=("rope",))
LOST = replace(RIGHT, name="c.zip", kind="format", status="unreadable", letter=None, passing=())


def row_of(truth: Truth, letter: str = "A", **checks: str) -> Row:
    """Return a row that says this."""
    if truth.status == "unreadable":
        return Row(truth.name, "k", "unreadable", "", reason="it is no zip")
    states = {"RMSNorm": "pass", "RoPE": "pass", "logits": "skipped"} | {
        name.replace("_", " "): state for name, state in checks.items()
    }
    summary = Summary(letter, 1.0, 1.0, ("because",), (), states, (), "bwrap")  # type: ignore[arg-type]
    return Row(truth.name, "k", "graded", truth.student_id, summary=summary)


def graded(tmp_path: Path, rows: list[Row], truths: tuple[Truth, ...] = (RIGHT, BUG, LOST)) -> list[str]:
    """Return what is not the truth about a class whose results these are."""
    folder, out = tmp_path / "class", tmp_path / "out"
    folder.mkdir()
    for truth in (RIGHT, BUG, LOST):
        (folder / truth.name).write_bytes(b"")
    write_truth(folder, list(truths), {})
    results = ClassFolder(out)
    results.make()
    results.write_entries(find_entries(folder, out / "submissions"), "minllama", {})
    with closing(Journal(results.journal)) as journal:
        for row in rows:
            journal.append(row)
    return compare_with_truth(folder, out)


def test_a_right_grading_differs_nowhere(tmp_path: Path) -> None:
    assert graded(tmp_path, [row_of(RIGHT), row_of(BUG, "B or below", RMSNorm="error"), row_of(LOST)]) == []


def test_each_difference_is_a_sentence(tmp_path: Path) -> None:
    rows = [row_of(RIGHT, "A-", RoPE="fail"), row_of(BUG, "B or below"), replace(row_of(LOST), status="ungraded")]
    assert graded(tmp_path, rows) == [
        "a.zip (right: nothing is wrong): A-, not A: because",
        "a.zip (right: nothing is wrong): rope fails: {'RoPE': 'fail'}",
        "b.zip (bug: nothing is wrong): rmsnorm passes: {'RMSNorm': 'pass'}",
        "c.zip (format: nothing is wrong): ungraded, not unreadable (it is no zip)",
    ]


def test_what_is_missing_and_what_nobody_handed_in_is_told(tmp_path: Path) -> None:
    lost = replace(RIGHT, name="lost.zip")
    late = replace(BUG, is_late=True, platform_id="7")
    assert graded(tmp_path, [row_of(BUG, "B or below", RMSNorm="fail")], (RIGHT, late, lost)) == [
        "c.zip: it was found, and nobody handed it in",
        "a.zip: it was not graded",
        "b.zip (bug: nothing is wrong): Canvas' or the university's number is '', not '7'",
        "b.zip (bug: nothing is wrong): late is False, not True",
        "lost.zip: it was not found",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"class.truth.json cannot be read \(No such file or directory\): `simulate` writes it"),
        ("{", r"class.truth.json is damaged \(.*\): simulate the class again"),
        ('{"format": 99}', r"class.truth.json has format 99, expected 1: simulate the class again"),
        ('{"format": 1, "entries": [{}]}', r"class.truth.json is damaged"),
    ],
)
def test_a_truth_that_cannot_be_read_is_told(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        truth_file(tmp_path / "class").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_truth(tmp_path / "class")

"""Are copies found, whatever their disguise, and is nobody's text trusted?"""

import json
import random
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.batch.found import find_entries
from autograder.batch.records import Entry
from autograder.editions import read_edition
from autograder.handout.regions import MARKER
from autograder.similarity import process, run, sources
from autograder.similarity.compare import (
    GIVEN_LENGTH,
    LENGTH,
    Program,
    Token,
    are_given,
    fragments,
    given_prints,
    rank,
    values_of,
)
from autograder.similarity.pages import FLOOR, files_of, histogram, render_index, render_pair, unusual_from
from autograder.similarity.process import Comparison, Match, Shared
from autograder.similarity.run import counting, run_similarity
from autograder.similarity.sources import Source, handout_texts, read_source
from autograder.simulate.styles import STYLES, solution_files
from errors import GraderError, MissingDependency, UsageError
from tests.planting import KINDS, plant

EDITION = read_edition("minllama")
HOSTILE = '</pre><script>alert("1")</script>&amp;\u202e'


def program(text: str) -> Program:
    """Return a program of one-letter tokens; a blank ends a stretch."""
    return [None if letter == " " else Token(letter, letter, 0, place, place + 1) for place, letter in enumerate(text)]


def source(name: str, **files: str) -> Source:
    return Source(name, {f"{file}.py": text for file, text in files.items()})


def code(seed: int, lines: int = 60) -> str:
    """Return a program that nobody else writes."""
    rng = random.Random(seed)
    statement = (
        "a = b + c",
        "f(a, b)[c]",
        "if a < b: c = -a",
        "for a in b: c(a)",
        "a = [b, c, {a: b}]",
        "a.b.c()",
        "del a",
    )
    return "\n".join(rng.choice(statement) for _ in range(lines)) + "\n"


# --- What is alike ----------------------------------------------------------------------------------------------------


def test_the_pair_that_shares_more_of_what_few_have_comes_first() -> None:
    everybodys, theirs = "abcdefghijklmnopqrstuvwxyz" * 2, "".join(map(chr, range(0x400, 0x440)))
    others = ["".join(map(chr, range(first, first + 64))) for first in (0x500, 0x600, 0x700)]
    programs = [program(f"{everybodys} {own}") for own in (others[0], theirs, others[1], theirs, others[2])]
    pairs = rank(programs, 5)
    assert (pairs[0].one, pairs[0].two) == (1, 3)
    assert pairs[0].score > 2 * pairs[1].score
    assert pairs[0].share == 1.0


def test_past_submissions_are_compared_with_current_ones_only() -> None:
    pairs = rank([program("abcdefghijklmnop")] * 5, 2)
    assert sorted((pair.one, pair.two) for pair in pairs) == [(0, 1), *((a, b) for a in (0, 1) for b in (2, 3, 4))]


def test_nearly_empty_programs_are_not_the_most_alike() -> None:
    tiny = program("abcdefghijklmn")
    large = "".join(map(chr, range(0x400, 0x500)))
    pairs = rank([tiny, program(large), tiny, program(large[:200] + "xyz" * 30)], 4)
    assert (pairs[0].one, pairs[0].two) == (1, 3)


def test_programs_without_any_code_share_nothing() -> None:
    assert rank([[], []], 2)[0].score == 0


def test_a_run_that_crosses_the_end_of_a_stretch_is_none() -> None:
    assert not fragments(program("abcdef ghijkl"), program("abcdefghijkl"))


def test_given_code_is_known_again_where_enough_of_it_stands_together() -> None:
    handout = "".join(map(chr, range(0x400, 0x440)))
    given_set = set(given_prints(handout))
    assert (
        are_given("xyz" + handout[:GIVEN_LENGTH] + "xyz", given_set)
        == [False] * 3 + [True] * GIVEN_LENGTH + [False] * 3
    )
    assert not any(are_given("xyz" + handout[: GIVEN_LENGTH - 1] + "xyz", given_set))


@given(st.text("abc ", max_size=120), st.text("abc ", max_size=120))
def test_fragments_hold_equal_tokens_and_no_token_twice(first: str, second: str) -> None:
    one, two = program(first), program(second)
    taken: tuple[set[int], set[int]] = (set(), set())
    for found in fragments(one, two):
        spans = [range(a.start, b.end) for a, b in (found.one, found.two)]
        assert values_of(one[spans[0].start : spans[0].stop]) == values_of(two[spans[1].start : spans[1].stop])
        assert len(spans[0]) == found.tokens == found.same >= LENGTH
        for span, before in zip(spans, taken, strict=True):
            assert not before & set(span)
            before.update(span)


@given(st.lists(st.text("ab", max_size=60), min_size=2, max_size=5))
def test_scores_lie_between_0_and_1_and_do_not_depend_on_the_order(texts: Sequence[str]) -> None:
    pairs = rank([program(text) for text in texts], len(texts))
    turned = rank([program(text) for text in reversed(texts)], len(texts))
    assert all(0 <= pair.score <= 1 and 0 <= pair.share <= 1 for pair in pairs)
    assert [pair.score for pair in pairs] == [pair.score for pair in turned]


def test_text_that_repeats_itself_costs_no_more_than_other_text() -> None:
    endless = program("ab" * 20_000)
    assert sum(found.tokens for found in fragments(endless, endless)) == len(endless)


# --- What is compared of a submission ---------------------------------------------------------------------------------


@pytest.fixture
def submission(tmp_path: Path) -> Path:
    folder = tmp_path / "class" / "abc"
    folder.mkdir(parents=True)
    for name in ("llama.py", "rope.py", "utils.py", "mine.py"):
        (folder / name).write_text(f"x = '{name}'\r\n\x1b[31m")
    return folder


def entry(path: Path, problem: str = "") -> Entry:
    return Entry(path.name, str(path), problem=problem)


def test_own_files_count_and_given_ones_do_not(submission: Path) -> None:
    read = read_source(entry(submission), "abc", EDITION)
    assert list(read.texts) == ["llama.py", "rope.py", "mine.py"]
    assert read.texts["mine.py"] == "x = 'mine.py'\n"


def test_given_files_count_where_the_students_copies_run(submission: Path) -> None:
    files = EDITION.files.model_copy(update={"pristine": "missing"})
    read = read_source(entry(submission), "abc", EDITION.model_copy(update={"files": files}))
    assert list(read.texts) == ["llama.py", "rope.py", "mine.py", "utils.py"]


def test_long_files_are_cut_and_that_is_said(submission: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_OF_FILE", 100)
    monkeypatch.setattr(sources, "MOST_OF_ALL", 150)
    for name in ("llama.py", "rope.py"):
        (submission / name).write_text("x = 1\n" * 1000)
    read = read_source(entry(submission), "abc", EDITION)
    assert [len(text) for text in read.texts.values()] == [100, 50]
    assert read.notes[0] == "llama.py is long: 100 of its 6,000 characters are compared"
    assert len(read.notes) == 3


@pytest.mark.parametrize("name", ["text.zip", "gone.zip"])
def test_what_cannot_be_read_is_noted(tmp_path: Path, name: str) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    found = entry(tmp_path / name, problem="it is no zip" if name == "gone.zip" else "")
    read = read_source(found, "abc", EDITION)
    assert not read.texts
    assert read.notes


def test_no_solution_is_taken_for_given_code() -> None:
    texts = handout_texts(EDITION)
    assert sum("# TODO (" in text for text in texts) == 4
    assert not any(MARKER.search(text) for text in texts)


def test_the_last_attempt_counts_but_only_if_the_platform_says_whose_it_is() -> None:
    known = [Entry(f"a{number}.zip", "", student_id="a", attempt=number) for number in (0, 2, 1)]
    unknown = [Entry("b.zip", ""), Entry("b (1).zip", "")]
    assert [found.name for found in counting([*known, *unknown])] == ["a2.zip", "b (1).zip", "b.zip"]


def test_no_student_is_compared_with_an_earlier_attempt_of_theirs(tmp_path: Path) -> None:
    folder = tmp_path / "canvas"
    folder.mkdir()
    for name in ("ann_1_10_work.zip", "ann_1_12_work-1.zip", "bob_2_11_ann.zip", "by mail.zip"):
        (folder / name).write_bytes(b"PK")
    found = counting(find_entries(folder, tmp_path / "out" / "submissions"))
    assert [entry.name for entry in found] == ["ann_1_12_work-1.zip", "bob_2_11_ann.zip", "by mail.zip"]


@pytest.mark.parametrize("known", [":sid: '7'", ":email: ann@x.edu"])
def test_on_gradescope_the_time_tells_which_attempt_is_the_last(tmp_path: Path, known: str) -> None:
    lines = []
    for number, day in ((101, 3), (102, 5), (103, 4)):
        (tmp_path / "class" / f"submission_{number}").mkdir(parents=True)
        (tmp_path / "class" / f"submission_{number}" / "ann.zip").write_bytes(b"PK")
        lines += [f"submission_{number}:", "  :submitters:", f"  - {known}"]
        lines += [f"  :created_at: 2026-01-0{day} 10:00:00 -08:00"]
    (tmp_path / "class" / "submission_metadata.yml").write_text("\n".join(lines))
    found = counting(find_entries(tmp_path / "class", tmp_path / "out" / "submissions"))
    assert [entry.name for entry in found] == ["submission_102/ann.zip"]


# --- The pages --------------------------------------------------------------------------------------------------------


def comparison(*matches: Match) -> Comparison:
    return Comparison(matches, tuple(match.score for match in matches), {0: ((0, 0, 3),), 1: ()}, {})


def test_names_and_code_of_strangers_are_escaped() -> None:
    two = [Source(f"{HOSTILE}{number}", {f"{HOSTILE}.py": HOSTILE * 3}, (HOSTILE,)) for number in range(2)]
    match = Match(0, 1, 0.5, 0.5, (Shared((0, 5, 60), (0, 5, 60), 12, 6),))
    pages = [render_pair(1, match, two, {0: [(0, 0, 3)], 1: []}), render_index(two, 2, comparison(match))]
    for page in pages:
        assert "<script" not in page
        assert "default-src 'none'" in page
        assert "not a verdict" in page
    assert pages[0].count("&lt;script&gt;") > 6


def test_fragments_are_linked_from_side_to_side() -> None:
    two = [source("one", llama="abc = 1\n"), source("two", rope="x\nabd = 2\n")]
    match = Match(0, 1, 0.5, 0.5, (Shared((0, 0, 7), (0, 2, 9), 12, 3),))
    page = render_pair(1, match, two, {0: [], 1: []})
    assert '<a class="shared c1" id="a1" href="#b1" title="Fragment 1">abc = 1</a>' in page
    assert '<a class="shared c1" id="b1" href="#a1" title="Fragment 1">abd = 2</a>' in page
    assert "llama.py:1<" in page
    assert "rope.py:2<" in page
    assert "25 %" in page


def test_the_pieces_of_a_file_are_its_whole_text() -> None:
    one = source("one", llama="given own shared own\n", rope="nothing")
    views = files_of(one, [(0, 10, 16)], [(0, 0, 5)])
    assert [piece.kind for piece in views[0].pieces] == ["given", "", "shared", ""]
    assert ["".join(piece.text for piece in view.pieces) for view in views] == list(one.texts.values())
    assert [view.is_shared for view in views] == [True, False]


@given(st.lists(st.floats(0, 1), max_size=50))
def test_every_pair_is_in_the_histogram_once(scores: list[float]) -> None:
    assert sum(bar.pairs for bar in histogram(scores)) == len(scores)


def test_a_pair_is_unusual_if_it_stands_far_out_among_enough() -> None:
    assert unusual_from([0.9] * 9) is None
    assert unusual_from([0.01 * number for number in range(11)]) == FLOOR
    assert unusual_from([0.3, 0.4] * 20) == pytest.approx(0.7)


# --- The process ------------------------------------------------------------------------------------------------------


def compare(*compared: Source, handout: str = "", most: int = 5) -> Comparison:
    return process.compare(compared, len(compared), [handout], most)


def test_whoever_takes_too_long_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "SECONDS_EACH", 0.1)
    slow = source("slow", llama="x = (1, 2)\n" * 18_000)
    found = compare(source("one", llama=code(1, 30)), slow, source("two", llama=code(1, 30)))
    assert found.unread == {1: "its files take too long to read"}
    assert [(match.one, match.two) for match in found.matches] == [(0, 2)]
    assert len(found.scores) == 1
    assert "slow: its files take too long" in render_index([source("one"), slow, source("two")], 3, found)


def test_given_code_names_comments_and_texts_do_not_count() -> None:
    handout, own = code(1), code(2)
    changed = own.replace("a", "other") + "# comment\n" + '"""Text."""\n'
    found = compare(
        source("one", llama=handout + own),
        source("two", llama=changed + handout),
        source("three", llama=handout),
        handout=handout,
    )
    assert [(match.one, match.two, match.share) for match in found.matches] == [(0, 1, 1.0)]
    assert found.matches[0].shared[0].same < found.matches[0].shared[0].tokens


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no module >&2; exit 1", r"does not start \(no module\): install"),
        ("echo ready; echo MemoryError >&2; exit 1", r"ended early \(MemoryError\): leave out"),
        ("sleep 30", "takes more than 0 seconds: compare fewer"),
    ],
)
def test_a_process_that_fails_is_the_graders_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, message: str
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(program))
    monkeypatch.setattr(process, "SECONDS", 0.3 if "sleep" in script else 30.0)
    with pytest.raises(GraderError, match=message):
        compare(source("one", llama="x"), source("two", llama="x"))


# --- The whole --------------------------------------------------------------------------------------------------------


def write_class(folder: Path, **programs: str) -> Path:
    for name, text in programs.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "llama.py").write_text(text)
    return folder


@pytest.fixture
def short_handout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "handout_texts", lambda edition: [code(0)])


@pytest.mark.usefixtures("short_handout")
def test_a_class_is_compared_with_itself_and_a_past_year(tmp_path: Path) -> None:
    folder = write_class(tmp_path / "class", ann=code(1), bob=code(2), cid=code(1) + "# mine")
    past = write_class(tmp_path / "2025", old=code(2), older=code(2))
    out, said = tmp_path / "class" / "out", list[str]()
    assert run_similarity(folder, out, EDITION, [past], most=3, say=said.append) == 0
    content = json.loads((out / "similarity/similarity.json").read_text())
    assert content["format"] == 1
    assert [set(pair) for pair in content["pairs"]] == [{"one", "two", "score", "share", "page"}] * 3
    named = {(pair["one"], pair["two"]) for pair in content["pairs"]}
    assert named == {("ann", "cid"), ("bob", "archive/2025/old"), ("bob", "archive/2025/older")}
    assert (content["submissions"], content["archived"], content["compared"]) == (3, 2, 9)
    files = {path.name: path.read_bytes() for path in (out / "similarity").iterdir()}
    assert set(files) == {"similarity.json", "index.html", "pair-001.html", "pair-002.html", "pair-003.html"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (out / "similarity").iterdir()} == {0o600}
    assert said[-1] == f"wrote {out / 'similarity/index.html'}"
    run_similarity(folder, out, EDITION, [past], most=2)
    again = {path.name: path.read_bytes() for path in (out / "similarity").iterdir()}
    assert set(again) == set(files) - {"pair-003.html"}
    assert all(again[name] == files[name] for name in ("pair-001.html", "pair-002.html"))


def test_a_missing_package_is_named_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "compare50" else object())
    with pytest.raises(MissingDependency, match="similarity needs compare50: run `pip install compare50`"):
        run_similarity(tmp_path / "nothing", tmp_path / "out", EDITION)


def test_no_pair_can_be_made_of_one_submission(tmp_path: Path) -> None:
    folder = write_class(tmp_path / "class", ann="x = 1\n")
    with pytest.raises(UsageError, match="a pair takes two submissions"):
        run_similarity(folder, tmp_path / "out", EDITION)


def test_two_archives_need_two_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two archives are called old: rename one"):
        run_similarity(tmp_path, tmp_path / "out", EDITION, [tmp_path / "a/old", tmp_path / "b/old"])


def test_no_pairs_cannot_be_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="0 pairs cannot be shown"):
        run_similarity(tmp_path, tmp_path / "out", EDITION, most=0)


# --- Copies -----------------------------------------------------------------------------------------------------------


def originals() -> list[Source]:
    return [Source(style, solution_files(style)) for style in STYLES]


def copies(kind: str) -> list[Source]:
    """Return a disguised copy of each original, in the same order."""
    return [
        Source(f"copy of {one.name}", {file: plant(text, kind, seed) for file, text in one.texts.items()})
        for seed, one in enumerate(originals())
    ]


@pytest.mark.parametrize("kind", KINDS)
def test_a_disguised_file_is_other_python(kind: str) -> None:
    text = solution_files("beginner")["llama.py"]
    assert plant(text, kind, 1) not in (text, plant(text, kind, 2))
    assert plant(text, kind, 1) == plant(text, kind, 1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_copy_ranks_above_every_pair_that_was_written_independently(kind: str) -> None:
    number = len(STYLES)
    found = process.compare([*originals(), *copies(kind)], 2 * number, handout_texts(EDITION), 2 * number)
    planted = [match for match in found.matches if match.two - match.one == number]
    assert list(found.matches[:number]) == planted
    assert planted[-1].score > 2 * found.matches[number].score
    assert min(match.score for match in planted) > FLOOR


@pytest.mark.slow
def test_copies_of_a_past_year_rank_above_all_others_even_where_many_copied() -> None:
    past = [one for kind in KINDS for one in copies(kind)]
    number = len(STYLES)
    found = process.compare([*originals(), *past], number, handout_texts(EDITION), 60)
    assert len(found.scores) == number * (number - 1) / 2 + number * len(past)
    are_copies = [match.two >= number and match.two % number == match.one for match in found.matches]
    assert all(are_copies[: len(past)])
    assert not any(are_copies[len(past) :])

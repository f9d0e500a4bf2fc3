"""The review queue: a TA's decisions survive everything, and a broken file is never written over."""

import stat
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.gradebook.private import replace_private
from autograder.gradebook.review import FIRST, Item, Question, Review, quoted, read_review, renewed, review_text
from errors import UsageError
from tests.small_class import SmallClass


@pytest.fixture
def school(tmp_path: Path) -> SmallClass:
    found = SmallClass(tmp_path)
    found.add("ada1.zip", "A", to_confirm=("A+ is proposed (because)", "static: llama.py:3 uses torch.optim"))
    return found


def test_a_decision_becomes_the_letter_and_a_step(school: SmallClass) -> None:
    assert len(school.grades()["ada1"].open_items) == 2
    school.decide("A+", "a lovely report", "proposed")
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points) == ("A+", 100.0)
    assert grade.steps == ("decided: A+ in place of A (a lovely report)",)
    assert grade.open_items == ("static: llama.py:3 uses torch.optim",)


def test_keep_leaves_the_letter_and_closes_the_item(school: SmallClass) -> None:
    school.grades()
    school.decide("keep", question="proposed")
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.steps, len(grade.open_items)) == ("A", (), 1)


def test_of_several_letters_the_lowest_counts(school: SmallClass) -> None:
    school.grades()
    school.decide("A+", question="proposed")
    school.decide("B", question="static")
    assert school.grades()["ada1"].letter == "B"


def test_decisions_survive_a_regrade_and_the_same_bytes_are_written(school: SmallClass) -> None:
    school.grades()
    school.decide("A+", "fine", "proposed")
    school.grades()
    before = school.review()
    school.rows += [school.rows[0]]
    school.grades()
    assert school.review() == before


def test_a_decided_question_that_is_gone_is_kept_and_comes_back(school: SmallClass) -> None:
    school.grades()
    school.decide("A+", "fine", "proposed")
    asked = school.rows
    school.rows = []
    assert school.grades()["ada1"].letter is None
    assert tomllib.loads(school.review())["settled"][0]["decision"] == "A+"
    assert "static" not in school.review(), "an undecided question that is gone is gone"
    school.grades()
    school.rows = asked
    assert school.grades()["ada1"].letter == "A+"
    assert "settled" not in tomllib.loads(school.review())


def test_a_reason_without_a_decision_is_kept_as_well() -> None:
    old = renewed(Review(), [Question("ada1", "ada1.zip", "ab", "why?")])
    noted = Review(items=(old.items[0].model_copy(update={"reason": "ask her"}),))
    assert renewed(noted, []).settled[0].reason == "ask her"
    assert not renewed(old, []).settled


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (('decision = ""', "decision = "), "is no TOML: Invalid value (at line"),
        (('decision = ""', 'decision = "a+"'), "items.1.decision: Value error, 'a+' is no letter: choose from A+, A,"),
        (('decision = ""', 'decison = "A+"'), "items.1.decison: Extra inputs are not permitted"),
        (('reason = ""', "reason = 3"), "items.1.reason: Input should be a valid string"),
        (("question = ", "# question = "), "items.1.question: Field required"),
        (("decision = ", "points = -1\ndecision = "), "items.1.points: Input should be greater than or equal to 0"),
        (('decision = ""', 'points = 9\ndecision = "keep"'), "items.1: Value error, 'keep' keeps the points as well"),
        (("# What a", "# why a"), "review.toml does not begin with '# What a person has to decide.'"),
    ],
)
def test_a_broken_file_is_an_error_and_stays_as_it_is(
    change: tuple[str, str], complaint: str, school: SmallClass
) -> None:
    school.grades()
    path = school.out / "review.toml"
    broken = school.review().replace(*change)
    path.write_text(broken, encoding="utf-8")
    tables = (school.out / "grades.csv").read_bytes()
    school.rows = []
    with pytest.raises(UsageError) as caught:
        school.grades()
    assert str(caught.value).startswith(str(path))
    assert complaint in str(caught.value)
    assert school.review() == broken
    assert (school.out / "grades.csv").read_bytes() == tables


def test_an_item_that_stands_twice_is_an_error(school: SmallClass) -> None:
    school.grades()
    path = school.out / "review.toml"
    path.write_text(school.review() + school.review(), encoding="utf-8")
    with pytest.raises(UsageError, match=r"review.toml: two items have the id \w+, of ada1: keep one of them"):
        school.grades()


def test_a_decision_that_is_saved_meanwhile_is_not_written_over(
    school: SmallClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    school.grades()
    saved: list[bool] = []

    def slow(old: Review, questions: object) -> Review:
        if not saved:
            school.decide("A+", question="proposed")
            saved.append(True)
        return renewed(old, questions)  # type: ignore[arg-type]

    monkeypatch.setattr("autograder.gradebook.review.renewed", slow)
    assert school.grades()["ada1"].letter == "A+"


def test_the_questions_of_a_stranger_are_harmless(school: SmallClass) -> None:
    school.add("bo22.zip", to_confirm=('a"\n[[items]]\nid = "x"\x1b[2J\x7f\u202e\ud800\\',))
    school.grades()
    items = tomllib.loads(school.review())["items"]
    assert len(items) == 3
    assert items[2]["question"] == 'a" [[items]] id = "x"\\'


def asked(pairs: list[tuple[str, str]]) -> list[Question]:
    """Return questions about two submissions."""
    return [Question(student, f"{student}.zip", "ab", text) for student, text in pairs]


texts = st.text(st.characters(exclude_categories=["Cs"]))


decisions = st.one_of(
    st.tuples(st.sampled_from(["", "keep", "A+", "B or below"]), st.none()),
    st.tuples(st.sampled_from(["", "A+"]), st.floats(0, allow_nan=False, allow_infinity=False)),
)


@given(st.lists(st.tuples(texts, texts, decisions, texts), max_size=4))
def test_whatever_a_person_writes_is_read_back(
    written: list[tuple[str, str, tuple[str, float | None], str]],
) -> None:
    items = tuple(
        Item(id=str(number), student=student, question=question, decision=decision[0], points=decision[1], reason=text)
        for number, (student, question, decision, text) in enumerate(written)
    )
    review = Review(items=items[:2], settled=items[2:])
    assert Review.model_validate(tomllib.loads(review_text(review))) == review


@given(texts)
def test_a_quoted_text_is_one_line_and_the_same_text(text: str) -> None:
    assert "\n" not in quoted(text)
    assert tomllib.loads(f"x = {quoted(text)}")["x"] == text


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=6), st.data())
def test_no_decision_is_ever_lost(questions: list[tuple[str, str]], data: st.DataObject) -> None:
    review = renewed(Review(), asked(questions))
    decided = Review(
        items=tuple(
            item.model_copy(update={"decision": data.draw(st.sampled_from(["", "keep", "B"]))}) for item in review.items
        )
    )
    answers = {item.id: item.decision for item in decided.items if item.decision}
    for _ in range(3):
        later = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=6))
        decided = renewed(decided, asked(later))
        now = {item.id: item.decision for item in (*decided.items, *decided.settled) if item.decision}
        assert now == answers


def test_without_a_file_there_is_nothing_to_decide(tmp_path: Path) -> None:
    assert read_review(tmp_path / "review.toml") == Review()


def test_a_decision_that_is_saved_at_the_last_moment_is_not_written_over(
    school: SmallClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    school.grades()
    school.add("bo22.zip", to_confirm=("something new",))
    saved: list[bool] = []

    def slow(path: Path, before: bytes | None, content: bytes) -> bool:
        if not saved:
            school.decide("A+", question="proposed")
            saved.append(True)
        return replace_private(path, before, content)

    monkeypatch.setattr("autograder.gradebook.review.replace_private", slow)
    assert school.grades()["ada1"].letter == "A+"
    assert "something new" in school.review()
    assert not list(school.out.glob(".review*")), "nothing temporary is left"


def test_a_file_that_an_editor_has_just_emptied_is_an_error_and_stays(school: SmallClass) -> None:
    school.grades()
    school.decide("A+", question="proposed")
    school.grades()
    path = school.out / "review.toml"
    path.write_bytes(b"")
    with pytest.raises(UsageError, match=r"review.toml does not begin with .*: save it again, take review.toml.bak"):
        school.grades()
    assert path.read_bytes() == b""


def test_the_queue_of_before_is_kept_beside_the_new_one(school: SmallClass) -> None:
    school.grades()
    school.decide("A+", question="proposed")
    before = school.review()
    school.add("bo22.zip", to_confirm=("something new",))
    school.grades()
    backup = school.out / "review.toml.bak"
    assert backup.read_text(encoding="utf-8") == before != school.review()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (backup, school.out / "review.toml")} == {0o600}


def test_a_queue_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "review.toml").mkdir()
    with pytest.raises(UsageError, match="review.toml cannot be read"):
        read_review(tmp_path / "review.toml")


def test_a_mark_that_editors_leave_before_the_head_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "review.toml").write_text(f"\ufeff{FIRST}\n", encoding="utf-8")
    assert read_review(tmp_path / "review.toml") == Review()


@pytest.mark.parametrize("change", [{"sha256": "cd" * 32}, {"name": "ada1-again.zip"}], ids=["bytes", "entry"])
def test_a_decision_is_not_applied_to_another_submission(change: dict[str, str], school: SmallClass) -> None:
    school.grades()
    school.decide("A+", question="proposed")
    assert school.grades()["ada1"].letter == "A+"
    school.entries, school.rows = [], []
    question = "A+ is proposed (because)"
    school.add(
        change.get("name", "ada1.zip"),
        "A",
        own_id="ada1",
        to_confirm=(question,),
        sha256=change.get("sha256", "ab" * 32),
    )
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.open_items) == ("A", (question,))
    assert tomllib.loads(school.review())["settled"][0]["decision"] == "A+"


def test_a_decision_stays_when_a_group_or_a_roster_comes_later(school: SmallClass) -> None:
    school.entries, school.rows = [], []
    school.add("9002.zip", "A", to_confirm=("A+ is proposed",))
    school.grades()
    school.decide("A+")
    assert school.grades()["9002"].letter == "A+"
    school.says('roster = "roster.csv"')
    assert school.grades()["bo22"].letter == "A+"
    school.says('roster = "roster.csv"\n[[groups]]\nmembers = ["ada1", "bo22"]')
    grades = school.grades()
    assert (grades["ada1"].letter, grades["bo22"].letter) == ("A+", "A+")


def test_only_the_reasons_of_what_was_changed_are_in_the_step(school: SmallClass) -> None:
    school.grades()
    school.decide("keep", "not this", "proposed")
    school.decide("B", "copied\\nit", "static")
    assert school.grades()["ada1"].steps == ("decided: B in place of A (copied it)",)


def test_of_several_points_the_fewest_count_and_none_need_a_letter(school: SmallClass) -> None:
    school.grades()
    school.decide("", question="proposed", points=90)
    school.decide("B+", question="static", points=80.5)
    grade = school.grades()["ada1"]
    assert (grade.letter, grade.points, grade.open_items) == ("B+", 80.5, ())
    assert grade.steps == ("decided: B+ and 80.5 points in place of A and 100 points",)
    school.grades()
    assert "points = 80.5" in school.review(), "they are kept as a decision is"

"""The review queue: a TA's decisions survive everything, and a broken file is never written over."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.gradebook.review import Item, Review, quoted, read_review, renewed, review_text
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
    old = renewed(Review(), [("ada1", "why?")])
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

    monkeypatch.setattr("autograder.gradebook.book.renewed", slow)
    assert school.grades()["ada1"].letter == "A+"


def test_the_questions_of_a_stranger_are_harmless(school: SmallClass) -> None:
    school.add("bo22.zip", to_confirm=('a"\n[[items]]\nid = "x"\x1b[2J\x7f\u202e\ud800\\',))
    school.grades()
    items = tomllib.loads(school.review())["items"]
    assert len(items) == 3
    assert items[2]["question"] == 'a" [[items]] id = "x"\\'


texts = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.lists(st.tuples(texts, texts, st.sampled_from(["", "keep", "A+", "B or below"]), texts), max_size=4))
def test_whatever_a_person_writes_is_read_back(written: list[tuple[str, str, str, str]]) -> None:
    items = tuple(
        Item(id=str(number), student=student, question=question, decision=decision, reason=reason)
        for number, (student, question, decision, reason) in enumerate(written)
    )
    review = Review(items=items[:2], settled=items[2:])
    assert Review.model_validate(tomllib.loads(review_text(review))) == review


@given(texts)
def test_a_quoted_text_is_one_line_and_the_same_text(text: str) -> None:
    assert "\n" not in quoted(text)
    assert tomllib.loads(f"x = {quoted(text)}")["x"] == text


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=6), st.data())
def test_no_decision_is_ever_lost(questions: list[tuple[str, str]], data: st.DataObject) -> None:
    review = renewed(Review(), questions)
    decided = Review(
        items=tuple(
            item.model_copy(update={"decision": data.draw(st.sampled_from(["", "keep", "B"]))}) for item in review.items
        )
    )
    answers = {item.id: item.decision for item in decided.items if item.decision}
    for _ in range(3):
        later = data.draw(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz")), max_size=6))
        decided = renewed(decided, later)
        now = {item.id: item.decision for item in (*decided.items, *decided.settled) if item.decision}
        assert now == answers


def test_without_a_file_there_is_nothing_to_decide(tmp_path: Path) -> None:
    assert read_review(tmp_path / "review.toml") == Review()

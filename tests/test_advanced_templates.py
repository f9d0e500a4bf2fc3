"""advanced/templates.py: run with `pytest tests/test_advanced_templates.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advanced.task import Task
from advanced.templates import ENSEMBLE, TEMPLATES, VERBALISERS, Prompt, make_prompt, words_of
from errors import TokenizerError, UsageError
from sentiment_data import Example, encode
from tests.tiny import WordTokenizer, tokenizer_of
from tests.tiny_advanced import tiny_task
from tokenizer import Tokenizer

FIVE = Task("five", ["awful", "bad", "average", "good", "excellent"], {})


# ------------------------------------------------------------------------------------------------------- the names


def test_the_question_is_that_of_the_assignment() -> None:
    prompt = make_prompt("question", "names", FIVE)
    assert prompt.suffix == "Is this movie awful, bad, average, good, or excellent? This movie is"
    assert prompt.words == FIVE.label_names


def test_the_question_offers_the_words_that_are_asked_for() -> None:
    assert make_prompt("question", "simple", tiny_task()).suffix == "Is this movie bad or great? This movie is"


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_is_its_text(template: str) -> None:
    assert make_prompt(template, "names", FIVE) == Prompt(TEMPLATES[template], FIVE.label_names)


@pytest.mark.parametrize("words", VERBALISERS)
@pytest.mark.parametrize("task", [FIVE, tiny_task()], ids=lambda task: task.name)
def test_a_verbaliser_has_different_words_for_the_labels_of_each_task(words: str, task: Task) -> None:
    assert len(set(words_of(words, task))) == len(task.label_names)


def test_the_ensemble_asks_what_exists() -> None:
    assert len(set(ENSEMBLE)) == len(ENSEMBLE) > 1
    for template, words in ENSEMBLE:
        for task in (FIVE, tiny_task()):
            make_prompt(template, words, task)


def test_an_unknown_template_is_a_usage_error_that_lists_those_that_exist() -> None:
    with pytest.raises(UsageError, match="there is no template riddle: choose among question, this-movie, it-was"):
        make_prompt("riddle", "names", FIVE)


def test_unknown_words_are_a_usage_error_that_lists_those_that_exist() -> None:
    with pytest.raises(UsageError, match="there are no words called rude: choose among names, short, simple"):
        make_prompt("question", "rude", FIVE)


def test_words_for_another_number_of_labels_are_a_usage_error() -> None:
    three = Task("three", ["no", "perhaps", "yes"], {})
    assert words_of("names", three) == ["no", "perhaps", "yes"]
    with pytest.raises(UsageError, match="the words simple are for 2 or 5 labels, and three has 3: choose names"):
        words_of("simple", three)


# ------------------------------------------------------------------------------------------------------- the text


PROMPT = Prompt("It was", ["bad", "very good"])


def test_a_sentence_is_followed_by_the_question() -> None:
    assert PROMPT.text("A fine film .") == "A fine film . It was"


def test_an_empty_sentence_leaves_the_question_alone() -> None:
    assert PROMPT.text("") == "It was"


def test_a_demonstration_is_a_sentence_with_its_answer_on_a_line() -> None:
    assert PROMPT.demonstration("A fine film .", 1) == "A fine film . It was very good\n"


def test_demonstrations_stand_in_front_of_sentence_and_question() -> None:
    shown = PROMPT.after("Dull . It was bad\n")
    assert shown.text("A fine film .") == "Dull . It was bad\nA fine film . It was"
    assert shown.text("") == "Dull . It was bad\nIt was"


def test_labels_are_tokenised_as_they_continue_the_question() -> None:
    tokenizer = WordTokenizer()
    assert PROMPT.label_ids(tokenizer) == [[6], [7, 8]]  # behind It was
    assert PROMPT.after("Dull . It was bad\n").label_ids(tokenizer) == [[6], [7, 8]]


def test_a_label_without_tokens_of_its_own_is_a_tokenizer_error() -> None:
    with pytest.raises(TokenizerError, match="label '' has no tokens of its own"):
        Prompt("It was", ["bad", ""]).label_ids(WordTokenizer())


# ------------------------------------------------------------------------------------------------------- the rows


def names_of(tokenizer: WordTokenizer, row: list[int]) -> str:
    """Return the words of a row."""
    names = {number: word for word, number in tokenizer.ids.items()} | {tokenizer.bos_id: "<s>"}
    return " ".join(names[number] for number in row)


def test_a_row_that_is_too_long_loses_the_beginning_of_its_sentence_and_keeps_the_demonstrations() -> None:
    tokenizer, prompt = WordTokenizer(), PROMPT.after("Dull . It was bad\n")
    rows = prompt.rows(["A long and fine film .", "Fine ."], tokenizer, context=12)
    assert names_of(tokenizer, rows[0]) == "<s> Dull . It was bad and fine film . It was"
    assert names_of(tokenizer, rows[1]) == "<s> Dull . It was bad Fine . It was"


def test_the_longest_sentence_does_not_count_the_demonstrations() -> None:
    tokenizer, prompt = WordTokenizer(), PROMPT.after("Dull . It was bad\n")
    rows = prompt.rows(["A long and fine film ."], tokenizer, context=100, max_sentence_len=5)
    assert names_of(tokenizer, rows[0]) == "<s> Dull . It was bad film . It was"  # <s>, film, ., It, was


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer_of("bpe", tmp_path_factory.mktemp("tokenizer"))


@given(words=st.lists(st.sampled_from(["good", "film", "slow,", "ending."]), min_size=1, max_size=12), data=st.data())
def test_without_demonstrations_the_rows_are_those_of_the_assignment(
    tokenizer: Tokenizer, words: list[str], data: st.DataObject
) -> None:
    sentence, limit = " ".join(words), data.draw(st.integers(8, 60))
    expected = encode([Example(0, sentence)], tokenizer, limit, "It was").ids
    assert PROMPT.rows([sentence], tokenizer, limit) == expected
    assert PROMPT.rows([sentence], tokenizer, 100, limit) == expected


def test_demonstrations_that_leave_no_room_for_a_sentence_are_a_usage_error() -> None:
    prompt = PROMPT.after("Dull . It was bad\n")
    assert len(prompt.rows(["Fine ."], WordTokenizer(), context=9)[0]) == 9
    with pytest.raises(UsageError, match="8 tokens leave no room for a sentence beside 'It was' .* at least 9 are"):
        prompt.rows(["Fine ."], WordTokenizer(), context=8)


def test_a_question_that_leaves_no_room_for_a_sentence_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="3 tokens leave no room for a sentence"):
        PROMPT.rows(["Fine ."], WordTokenizer(), context=20, max_sentence_len=3)

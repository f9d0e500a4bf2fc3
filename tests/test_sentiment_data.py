"""What sentiment_data.py promises: which files are refused and how, where a long text is cut, what a batch holds."""

import itertools
import json
import random
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import DataError, UsageError
from sentiment_data import (
    Example,
    accuracy,
    collate,
    encode,
    has_gold_labels,
    make_batches,
    prompt_suffix,
    read_examples,
    read_label_names,
    write_predictions,
)
from tests.assets_dir import require_asset

DATA = Path(__file__).resolve().parent.parent / "data"
SST_NAMES = ["awful", "bad", "average", "good", "excellent"]
BOS, EOS, PAD = 1, 2, 3


class WordTokenizer:
    """A word is a token: ids count up from 10 as new words turn up."""

    def __init__(self) -> None:
        self.words: list[str] = []

    def encode(self, text: str, /, bos: bool, eos: bool) -> list[int]:
        for word in text.split():
            if word not in self.words:
                self.words.append(word)
        return [BOS] * bos + [10 + self.words.index(word) for word in text.split()] + [EOS] * eos

    def decode(self, ids: list[int]) -> str:
        return " ".join(self.words[i - 10] for i in ids)


def write(folder: Path, content: str | bytes, name: str = "reviews.txt") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# ---------------------------------------------------------------------------------------------------- label names


@pytest.mark.parametrize(("data_set", "names"), [("sst", SST_NAMES), ("cfimdb", ["bad", "good"])])
def test_the_label_names_in_data_are_the_originals(data_set: str, names: list[str]) -> None:
    assert read_label_names(DATA / f"{data_set}-label-mapping.json") == names


@pytest.mark.parametrize(
    ("content", "line", "rule"),
    [
        ('["bad",\n"good"', 2, "not JSON"),
        ("", 1, "not JSON"),
        (b'["bad", "g\xe9nial"]', 1, "not UTF-8"),
        ('{"bad": 0, "good": 1}', 1, "not a list of strings"),
        ('["bad", 1]', 1, "not a list of strings"),
        ('["bad", ""]', 1, "empty or has a space"),
        ('["bad", " good"]', 1, "empty or has a space"),
        ('["bad"]', 1, "fewer than two"),
        ("[]", 1, "fewer than two"),
        ('["bad", "bad"]', 1, "one of them twice"),
    ],
)
def test_other_label_names_are_refused(tmp_path: Path, content: str | bytes, line: int, rule: str) -> None:
    path = write(tmp_path, content, "names.json")
    with pytest.raises(DataError, match=rule) as raised:
        read_label_names(path)
    assert str(raised.value).startswith(f"{path}:{line}: ")
    assert '["bad", "good"]' in str(raised.value)  # what to write instead


def test_missing_label_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 'no.json'}: no such file")):
        read_label_names(tmp_path / "no.json")


# ---------------------------------------------------------------------------------------------------- reading


def test_a_line_is_label_separator_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "1 ||| A fine day .\n0 |||  Rain .  \n")
    assert read_examples(path, 2) == [Example(1, "A fine day ."), Example(0, "Rain .")]


@pytest.mark.parametrize(
    ("content", "sentences"),
    [
        ("0 ||| this ||| and that\n1 ||| x\n", ["this ||| and that", "x"]),
        ("0 ||| windows\r\n1 ||| lines\r\n", ["windows", "lines"]),
        (
            "0 ||| one\u2028line\u0085still\x0bone\x0cline\rhere\n1 ||| x\n",
            ["one\u2028line\u0085still\x0bone\x0cline\rhere", "x"],
        ),
        ("0 ||| no line break\n1 ||| at the end", ["no line break", "at the end"]),
        ("\ufeff0 ||| byte order mark\n1 ||| x\n", ["byte order mark", "x"]),
    ],
    ids=["separator in a sentence", "CRLF", "other line separators", "no final line break", "byte order mark"],
)
def test_unusual_files_are_read(tmp_path: Path, content: str, sentences: list[str]) -> None:
    assert [example.sentence for example in read_examples(write(tmp_path, content), 2)] == sentences


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("1 | A fine day .", "no separator ` ||| `"),
        ("1\t|||\tA fine day .", "no separator"),
        ("", "a blank line"),
        ("\r", "a blank line"),
        ("1 ||| ", "the sentence is empty"),
        ("1 |||", "the sentence is empty"),
        ("1 |||\r", "the sentence is empty"),
        ("good ||| A fine day .", "label 'good' is not an integer: write one from 0 to 1"),
        (" ||| A fine day .", "label '' is not an integer"),
        ("1.0 ||| A fine day .", "label '1.0' is not an integer"),
        ("1_0 ||| A fine day .", "label '1_0' is not an integer"),
        ("\u0661 ||| A fine day .", "is not an integer"),
        ("9" * 5000 + " ||| A fine day .", "is not an integer"),
        ("2 ||| A fine day .", "label 2 is not among 0 to 1"),
        ("-2 ||| A fine day .", "label -2 is not among 0 to 1"),
        ("-1 ||| A fine day .", "unknown.* beside known labels"),
        (b"1 ||| caf\xe9 .", "byte 0xe9 is not UTF-8"),
        ("1 ||| A\0fine day .", "a NUL byte"),
    ],
)
def test_a_line_that_breaks_a_rule_is_named(tmp_path: Path, line: str | bytes, rule: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    path = write(tmp_path, b"0 ||| Rain .\n" + line + b"\n1 ||| Sun .\n")
    with pytest.raises(DataError, match=rule) as raised:
        read_examples(path, 2)
    assert str(raised.value).startswith(f"{path}:2: ")
    assert len(str(raised.value)) < len(str(path)) + 200


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\n", "a blank line"),
        ("0 ||| Rain .\n".encode("utf-16"), "is not UTF-8"),
        ("0 ||| Rain .\n".encode("utf-16-le"), "a NUL byte"),
    ],
    ids=["empty", "byte order mark alone", "blank", "UTF-16", "UTF-16 without a mark"],
)
def test_a_file_without_examples_is_refused(tmp_path: Path, content: bytes, rule: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=rule) as raised:
        read_examples(path, 2)
    assert str(raised.value).startswith(f"{path}:1: ")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("sst-dev.txt", "./setup.sh --only sst`"),
        ("cfimdb-train.txt", "./setup.sh --only cfimdb`"),
        ("mine.txt", "check the path"),
    ],
)
def test_a_missing_file_says_how_to_get_it(tmp_path: Path, name: str, remedy: str) -> None:
    with pytest.raises(DataError, match="no such file") as raised:
        read_examples(tmp_path / name, 2)
    assert str(raised.value).startswith(str(tmp_path / name))
    assert remedy in str(raised.value)


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_examples(tmp_path, 2)


def test_labels_may_be_unknown_if_all_are(tmp_path: Path) -> None:
    examples = read_examples(write(tmp_path, "-1 ||| Rain .\n-1 ||| Sun .\n"), 2)
    assert [example.label for example in examples] == [-1, -1]
    assert not has_gold_labels([example.label for example in examples])


@pytest.mark.parametrize(("labels", "gold"), [([0, 0, 0], False), ([4], False), ([0, 1, 0], True)])
def test_labels_that_are_all_equal_are_a_placeholder(labels: list[int], gold: bool) -> None:
    assert has_gold_labels(labels) is gold


# ---------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize(
    ("names", "suffix"),
    [
        (["bad", "good"], "Is this movie bad or good? This movie is"),
        (["A", "B", "C"], "Is this movie A, B, or C? This movie is"),
        (SST_NAMES, "Is this movie awful, bad, average, good, or excellent? This movie is"),
    ],
)
def test_the_suffix_is_the_originals(names: list[str], suffix: str) -> None:
    assert prompt_suffix(names) == suffix


def test_rows_begin_with_the_begin_token_and_have_no_end_token() -> None:
    encoded = encode([Example(1, "a b"), Example(0, "b")], WordTokenizer(), max_len=8)
    assert encoded.ids == [[BOS, 10, 11], [BOS, 11]]
    assert encoded.labels == [1, 0]
    assert encoded.lengths == [3, 2]
    assert encoded.num_cut == 0
    assert encoded.cut_warning() is None


def test_sentence_and_suffix_are_tokenized_together() -> None:
    seen: list[str] = []

    class Recorder(WordTokenizer):
        def encode(self, text: str, /, bos: bool, eos: bool) -> list[int]:
            seen.append(text) if bos else None
            return super().encode(text, bos, eos)

    encoded = encode([Example(1, "a fine day")], Recorder(), 20, suffix="is it good?")
    assert seen == ["a fine day is it good?"]
    assert encoded.sentences == seen


@pytest.mark.parametrize("length", range(1, 30))
def test_the_suffix_survives_the_cut(length: int) -> None:
    tokenizer = WordTokenizer()
    sentence = " ".join(f"word{i}" for i in range(length))
    encoded = encode([Example(0, sentence)], tokenizer, 12, suffix=prompt_suffix(["bad", "good"]))
    [row] = encoded.ids
    assert row[0] == BOS
    assert len(row) == min(12, 1 + length + 9)
    assert tokenizer.decode(row[-9:]) == "Is this movie bad or good? This movie is"
    assert tokenizer.decode(row[-10:-9]) == f"word{length - 1}"  # and the end of the sentence stands before it
    assert encoded.num_cut == (length > 2)
    assert encoded.sentences == [f"{sentence} Is this movie bad or good? This movie is"]  # in full


def test_keep_start_cuts_the_tail() -> None:
    tokenizer = WordTokenizer()
    encoded = encode([Example(0, "a b c d")], tokenizer, 4, suffix="e f g", keep="start")  # no room for the suffix
    assert [tokenizer.decode(row[1:]) for row in encoded.ids] == ["a b c"]
    assert encoded.cut_warning() == (
        "1 of 1 sentences have more than the 4 tokens that the model has room for, and were cut at their end"
    )


def test_cut_sentences_are_counted_in_one_line() -> None:
    examples = [Example(0, "a b"), Example(0, "a b c"), Example(1, "a b c d e")]
    encoded = encode(examples, WordTokenizer(), max_len=3)
    assert [len(row) for row in encoded.ids] == [3, 3, 3]
    assert encoded.cut_warning() == (
        "2 of 3 sentences have more than the 3 tokens that the model has room for, and were cut at their beginning"
    )
    assert str(encoded.cut_warning("of --max_sentence_len")).startswith(
        "2 of 3 sentences have more than the 3 tokens of --max_sentence_len,"
    )


@pytest.mark.parametrize(("max_len", "suffix"), [(4, "x y z"), (3, "x y z"), (1, ""), (0, "")])
def test_a_context_without_room_for_a_sentence_is_refused(max_len: int, suffix: str) -> None:
    with pytest.raises(DataError, match=r"leave no room for a sentence.* at least [25] are needed"):
        encode([Example(0, "a")], WordTokenizer(), max_len, suffix)


def test_the_smallest_context_keeps_the_last_word() -> None:
    tokenizer = WordTokenizer()
    encoded = encode([Example(0, "a b c")], tokenizer, 5, suffix="x y z")
    assert tokenizer.decode(encoded.ids[0][1:]) == "c x y z"


# ---------------------------------------------------------------------------------------------------- batches


def skewed_lengths(count: int) -> list[int]:
    """Return lengths as in reviews: most are short, a few very long."""
    generator = random.Random(0)
    return [1 + int(generator.expovariate(1 / 40)) for _ in range(count)]


def padded_size(lengths: list[int], batches: list[list[int]]) -> int:
    """Return how many tokens the model is given, padding included."""
    return sum(len(batch) * max(lengths[i] for i in batch) for batch in batches)


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 100), max_size=200),
    batch_size=st.integers(1, 9),
    bucketed=st.booleans(),
    shuffle_seed=st.none() | st.integers(),
)
def test_every_index_is_in_exactly_one_batch(
    lengths: list[int], batch_size: int, bucketed: bool, shuffle_seed: int | None
) -> None:
    batches = make_batches(lengths, batch_size, bucketed=bucketed, shuffle_seed=shuffle_seed)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert sorted(len(batch) for batch in batches)[1:] == [batch_size] * (len(batches) - 1)
    assert all(0 < len(batch) <= batch_size for batch in batches)


def test_evaluation_keeps_the_files_order_or_sorts_by_length() -> None:
    lengths = [3, 9, 1, 5, 7]
    assert make_batches(lengths, 2, bucketed=False) == [[0, 1], [2, 3], [4]]
    assert make_batches(lengths, 2, bucketed=True) == [[1, 4], [3, 0], [2]]


@pytest.mark.parametrize("bucketed", [True, False])
def test_a_seed_decides_the_order_and_nothing_else_does(bucketed: bool) -> None:
    lengths = skewed_lengths(300)
    random.seed(1)
    torch.manual_seed(1)
    state, torch_state = random.getstate(), torch.get_rng_state()
    one = make_batches(lengths, 8, bucketed=bucketed, shuffle_seed=5)
    assert random.getstate() == state  # the global generators are left alone
    assert torch.equal(torch.get_rng_state(), torch_state)
    random.seed(2)
    assert make_batches(lengths, 8, bucketed=bucketed, shuffle_seed=5) == one
    assert make_batches(lengths, 8, bucketed=bucketed, shuffle_seed=6) != one


def test_bucketed_epochs_batch_other_sentences_together() -> None:
    lengths = skewed_lengths(2000)
    epochs = [make_batches(lengths, 8, bucketed=True, shuffle_seed=seed) for seed in (1, 2)]
    first, second = ({frozenset(batch) for batch in batches} for batches in epochs)
    assert len(first & second) < len(first) / 20


def test_lengths_do_not_grow_over_a_bucketed_epoch() -> None:
    lengths = list(range(400))  # one pool of 50 batches, sorted
    longest = [max(batch) for batch in make_batches(lengths, 8, bucketed=True, shuffle_seed=1)]
    grows = sum(first < second for first, second in itertools.pairwise(longest))
    assert 12 < grows < 37  # of 49; about half


def test_bucketing_saves_padding() -> None:
    lengths = skewed_lengths(2000)
    real = sum(lengths)
    in_order = padded_size(lengths, make_batches(lengths, 8, bucketed=False)) / real
    shuffled = padded_size(lengths, make_batches(lengths, 8, bucketed=False, shuffle_seed=3)) / real
    evaluating = padded_size(lengths, make_batches(lengths, 8, bucketed=True)) / real
    training = padded_size(lengths, make_batches(lengths, 8, bucketed=True, shuffle_seed=3)) / real
    assert min(in_order, shuffled) > 2.4  # more padding than text
    assert training < 1.1
    assert evaluating < training


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 1, got 0"):
        make_batches([1, 2], 0, bucketed=True)


def test_short_rows_are_filled_on_the_right() -> None:
    batch = collate([[1, 10, 11], [1, 12]], pad_id=PAD)
    assert batch.dtype == torch.int64
    assert batch.tolist() == [[1, 10, 11], [1, 12, PAD]]


# ---------------------------------------------------------------------------------------------------- results


def test_predictions_are_rows_of_label_and_sentence(tmp_path: Path) -> None:
    path = tmp_path / "dev-prompting-output.txt"
    write_predictions(path, [1, 0], ["A fine day . Is it?", "this ||| that"])
    assert path.read_bytes() == b"1 ||| A fine day . Is it?\n0 ||| this ||| that\n"
    assert list(tmp_path.iterdir()) == [path]


@settings(deadline=None)
@given(
    before=st.text(st.characters(exclude_categories=["Cs"])),
    line_break=st.sampled_from(["\n", "\r", "\r\n", "\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]),
)
def test_a_line_break_in_a_sentence_becomes_a_space(
    tmp_path_factory: pytest.TempPathFactory, before: str, line_break: str
) -> None:
    path = tmp_path_factory.mktemp("out") / "out.txt"
    write_predictions(path, [1, 0], [f"{before}.{line_break}b", "c"])
    rows = path.read_bytes().decode().splitlines()
    assert len(rows) == 2
    assert rows[0].endswith(". b")
    assert rows[1] == "0 ||| c"


def test_a_prediction_is_needed_for_every_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"longer|shorter"):
        write_predictions(tmp_path / "out.txt", [1], ["a", "b"])
    assert not list(tmp_path.iterdir())


def test_accuracy_is_the_share_that_is_right() -> None:
    assert accuracy([0, 1, 1, 4], [0, 1, 0, 4]) == 0.75
    with pytest.raises(ValueError, match=r"longer|shorter"):
        accuracy([0], [0, 1])
    with pytest.raises(ValueError, match="no predictions"):
        accuracy([], [])


# ---------------------------------------------------------------------------------------------------- the data sets


@pytest.mark.parametrize(("split", "size"), [("train", 400), ("dev", 80), ("test", 80)])
def test_the_demo_set_is_balanced(split: str, size: int) -> None:
    names = read_label_names(DATA / "demo-label-mapping.json")
    examples = read_examples(DATA / f"demo-{split}.txt", len(names))
    assert names == ["bad", "good"]
    assert Counter(example.label for example in examples) == {0: size // 2, 1: size // 2}


def test_no_sentence_of_the_demo_set_occurs_twice() -> None:
    sentences = [e.sentence for split in ("train", "dev", "test") for e in read_examples(DATA / f"demo-{split}.txt", 2)]
    bare = Counter(re.sub(r"[^a-z]+", " ", sentence.lower()).strip() for sentence in sentences)
    assert [sentence for sentence, count in bare.items() if count > 1] == []
    assert all(sentence.isascii() and sentence[0].isupper() and sentence[-1] in ".?" for sentence in sentences)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("sst-train", [1092, 2218, 1624, 2322, 1288]),
        ("sst-dev", [139, 289, 229, 279, 165]),
        ("sst-test", [279, 633, 389, 510, 399]),
        ("cfimdb-train", [856, 851]),
        ("cfimdb-dev", [123, 122]),
        ("cfimdb-test", [488, 0]),
    ],
)
def test_the_real_files_hold_what_is_known_of_them(name: str, counts: list[int]) -> None:
    path = require_asset(f"data/{name}.txt")
    examples = read_examples(path, len(counts))
    found = Counter(example.label for example in examples)
    assert [found[label] for label in range(len(counts))] == counts
    assert has_gold_labels([example.label for example in examples]) == (name != "cfimdb-test")


@pytest.mark.parametrize("data_set", ["sst", "cfimdb"])
def test_the_label_names_in_data_are_those_of_the_mirror(data_set: str) -> None:
    theirs = require_asset(f"data/{data_set}-label-mapping.json")
    assert read_label_names(DATA / theirs.name) == json.loads(theirs.read_text())

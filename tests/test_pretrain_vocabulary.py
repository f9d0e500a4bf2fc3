"""pretrain/vocabulary.py: run with `pytest tests/test_pretrain_vocabulary.py`."""

import errno
import gzip
import json
import os
import re
import subprocess
import sys
from io import StringIO
from itertools import pairwise
from pathlib import Path

import pytest
import regex  # type: ignore[import-untyped]  # comes with transformers, without types
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import DataError, MinLlamaError, MissingDependency, TokenizerError, UsageError
from pretrain import vocabulary
from pretrain.vocabulary import KINDS, RESERVED, SPLIT, smallest, train, without_piece
from tests.tiny import SENTENCES
from tokenizer import SPACE, Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SIZES = {"unigram": 300, "bpe": 330, "word": 20, "char": 30, "byte-bpe": 300}
# All of Unicode, with the names of special tokens in it.
any_text = st.lists(
    st.one_of(st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["<|endoftext|>", "<s>", "</s>"]))
).map("".join)
# Any text but what SentencePiece keeps for itself, and the byte that stands in for padding.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters=f"{SPACE}\0"), max_size=60)


def write(path: Path, *documents: str) -> Path:
    """Write documents as plain text, and return the path."""
    path.write_text("".join(f"{document}\n<|endoftext|>\n" for document in documents), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a text of a few documents, two of which have several lines."""
    return write(tmp_path_factory.mktemp("text") / "story.txt", *SENTENCES, "\n".join(SENTENCES), SENTENCES[0] + "\nx")


@pytest.fixture(scope="module")
def trained(story: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    """Return a tokenizer of each kind."""
    folder = tmp_path_factory.mktemp("trained")
    return {kind: train([story], kind, SIZES[kind], folder / kind) for kind in KINDS}


def pieces(tokenizer: Tokenizer) -> list[str]:
    """Return the pieces of a SentencePiece tokenizer."""
    return [tokenizer.sp_model.id_to_piece(i) for i in range(tokenizer.n_words)]


def contents(folder: Path) -> list[str]:
    """Return the names of the files in a folder, if it is there."""
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ------------------------------------------------------------------------------------------------- the five kinds


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_writes_one_file_that_tokenizer_reads(trained: dict[str, Tokenizer], kind: str) -> None:
    tokenizer = trained[kind]
    assert contents(tokenizer.path.parent) == ["tokenizer.json" if kind == "byte-bpe" else "tokenizer.model"]
    assert Tokenizer(tokenizer_model=tokenizer.path.parent).n_words == tokenizer.n_words == SIZES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_gives_back_what_it_learnt_from(trained: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    tokenizer = trained[kind]
    if kind in ("word", "char"):  # with room for all of it
        text = write(tmp_path / "text.txt", *SENTENCES)
        tokenizer = train([text], kind, 63 if kind == "word" else 37, tmp_path / "out")
    for sentence in SENTENCES:
        assert tokenizer.decode(tokenizer.encode(sentence, bos=True, eos=True)) == sentence


@pytest.mark.parametrize(
    ("kind", "ids", "special"),
    [
        ("unigram", "llama", ["<unk>", "<s>", "</s>", "<0x00>"]),
        ("bpe", "llama", ["<unk>", "<s>", "</s>", "<0x00>"]),
        ("word", "llama", ["<unk>", "<s>", "</s>", "▁a"]),
        ("char", "llama", ["<unk>", "<s>", "</s>", "▁"]),
        ("unigram", "mp-acl", ["<pad>", "<unk>", "<s>", "</s>", "<0x00>"]),
        ("bpe", "mp-acl", ["<pad>", "<unk>", "<s>", "</s>", "<0x00>"]),
        ("word", "mp-acl", ["<pad>", "<unk>", "<s>", "</s>", "▁a"]),
        ("char", "mp-acl", ["<pad>", "<unk>", "<s>", "</s>", "▁"]),
    ],
)
def test_the_special_pieces_are_llamas_or_mp_acls(
    story: Path, tmp_path: Path, kind: str, ids: str, special: list[str]
) -> None:
    tokenizer = train([story], kind, SIZES[kind], tmp_path, ids=ids)
    assert pieces(tokenizer)[: len(special)] == special
    assert (tokenizer.bos_id, tokenizer.eos_id) == (special.index("<s>"), special.index("</s>"))
    padding = "<pad>" if ids == "mp-acl" else "<0x00>" if kind in ("unigram", "bpe") else "</s>"
    assert tokenizer.pad_id == special.index(padding)
    assert tokenizer.sp_model.unk_id() == special.index("<unk>")


def test_byte_bpe_begins_and_ends_with_one_token(trained: dict[str, Tokenizer]) -> None:
    tokenizer = trained["byte-bpe"]
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 0, 0)


@settings(max_examples=200)
@given(text=any_text)
def test_byte_bpe_gives_back_every_text(trained: dict[str, Tokenizer], text: str) -> None:
    ids = trained["byte-bpe"].encode(text, bos=True, eos=True)
    assert trained["byte-bpe"].decode(ids) == text
    assert 0 not in ids[1:-1]  # <|endoftext|> in a text is text


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@given(text=texts)
def test_bytes_fill_in_where_there_are_no_pieces(trained: dict[str, Tokenizer], kind: str, text: str) -> None:
    ids = trained[kind].encode(text, bos=True, eos=True)
    assert trained[kind].decode(ids) == text
    assert trained[kind].sp_model.unk_id() not in ids


@pytest.mark.parametrize("kind", ["word", "char"])
def test_words_and_characters_that_were_not_learnt_are_unknown(trained: dict[str, Tokenizer], kind: str) -> None:
    assert trained[kind].sp_model.unk_id() in trained[kind].encode("日本", bos=False, eos=False)


def test_characters_go_over_the_end_of_a_line(trained: dict[str, Tokenizer], story: Path) -> None:
    assert "\n" in pieces(trained["char"])
    text = "a dog\nis a dog"
    assert trained["char"].decode(trained["char"].encode(text, bos=False, eos=False)) == text


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_numbers_are_digits_and_no_piece_goes_over_the_end_of_a_line(tmp_path: Path, kind: str) -> None:
    text = write(tmp_path / "numbers.txt", *["in 2024 and 2025\nthe year 2024\nwas a year"] * 9)
    learnt = pieces(train([text], kind, 277, tmp_path / "out"))[259:]
    assert not [piece for piece in learnt if re.search(r"\d\d|\n|.\d|\d.", piece)]


def test_the_ids_of_byte_bpe_are_those_of_the_published_algorithm(trained: dict[str, Tokenizer]) -> None:
    """Split by the pattern; then, in each part, merge the pair that was learnt first until there is none."""
    content = json.loads(trained["byte-bpe"].path.read_text(encoding="utf-8"))
    ids = content["model"]["vocab"]
    ranks = {tuple(pair): i for i, pair in enumerate(content["model"]["merges"])}
    # GPT-2's visible characters for bytes: those that print stand for themselves, the others follow at 256.
    visible = {b: chr(b) for b in (*range(33, 127), *range(161, 173), *range(174, 256))}
    visible |= {b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in visible)}
    text = "\n\n".join((*SENTENCES, "It's 2024; we'LL see\r\n  naïve  café 日本!\t\t🙂 x")) * 2
    expected = []
    for part in regex.findall(SPLIT, text):
        symbols = [visible[b] for b in part.encode("utf-8")]
        while pairs := [pair for pair in pairwise(symbols) if pair in ranks]:
            at = list(pairwise(symbols)).index(min(pairs, key=ranks.__getitem__))
            symbols[at : at + 2] = ["".join(symbols[at : at + 2])]
        expected += [ids[symbol] for symbol in symbols]
    assert trained["byte-bpe"].encode(text, bos=False, eos=False) == expected


def test_byte_bpe_does_not_learn_the_name_of_its_special_token(tmp_path: Path) -> None:
    content, _ = vocabulary._by_tokenizers(["a<|endoftext|>b " * 50], 300)
    (tmp_path / "tokenizer.json").write_bytes(content)
    tokenizer = Tokenizer(tokenizer_model=tmp_path)
    ids = tokenizer.encode("a<|endoftext|>b", bos=False, eos=False)
    assert 0 not in ids
    assert tokenizer.decode(ids) == "a<|endoftext|>b"


# ------------------------------------------------------------------------------------- nothing of the text is dropped


@pytest.mark.parametrize("kind", ["unigram", "bpe", "char"])
def test_lines_that_sentencepiece_would_drop_are_learnt_from(tmp_path: Path, kind: str) -> None:
    """It leaves out, without a word, lines of more than 4,192 bytes and those with the character U+2585."""
    odd = ("q" + "a" * 50_000, "ab " * 20_000 + "z", f"a {RESERVED} w", "日本" * 5000 + "語")
    text = write(tmp_path / "odd.txt", "a b", *odd, *["語 z q w"] * 50)
    learnt = "".join(pieces(train([text], kind, 12 if kind == "char" else 270, tmp_path / "out")))
    assert set("qzw日本語") <= set(learnt)


@given(
    line=st.text(st.sampled_from("ab 日"), max_size=60),
)
def test_a_long_line_is_cut_at_spaces_and_loses_nothing_else(line: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "LONGEST_PART", 8)
        parts = list(vocabulary._parts(line))
    assert all(len(part) <= 8 for part in parts)
    assert len(line) - sum(map(len, parts)) <= len(parts) - 1  # a space at each cut, at most
    rest = line
    for part in parts:  # in order, with nothing but a space between two of them
        assert rest.startswith((part, f" {part}"))
        rest = rest[len(part) + (not rest.startswith(part)) :]
    assert rest == ""


def test_of_too_many_lines_some_are_drawn_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "MOST_LINES", 101)
    text = write(tmp_path / "words.txt", *(f"{a}{b}{c}" for a in "abcde" for b in "abcdefghij" for c in "fghijklmno"))

    def learnt(name: str, seed: int) -> bytes:
        return train([text], "bpe", 285, tmp_path / name, seed=seed).path.read_bytes()

    assert learnt("one", 1) == learnt("again", 1) != learnt("two", 2)


@given(count=st.integers(0, 12), seed=st.integers(0, 1000))
def test_lines_are_drawn_without_repetition_and_all_of_them_if_there_is_room(count: int, seed: int) -> None:
    lines = [str(i) for i in range(count)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vocabulary, "MOST_LINES", 8)
        drawn = list(vocabulary._drawn(lines, seed))
    assert drawn == lines if count <= 8 else len(set(drawn)) == len(drawn) == 8
    assert set(drawn) <= set(lines)


def test_all_texts_are_read_in_their_order_and_packed_ones_too(story: Path, tmp_path: Path) -> None:
    halves = write(tmp_path / "a.txt", *SENTENCES[:2]), tmp_path / "b.txt.gz"
    with gzip.open(halves[1], "wt", encoding="utf-8") as file:
        file.write("<|endoftext|>".join(SENTENCES[2:]))
    both = train(halves, "bpe", 300, tmp_path / "both").path.read_bytes()
    assert both == train([write(tmp_path / "c.txt", *SENTENCES)], "bpe", 300, tmp_path / "one").path.read_bytes()


def test_clean_leaves_out_documents_with_odd_characters(tmp_path: Path) -> None:
    text = write(tmp_path / "text.txt", "a dog", "ein Däckel", "a big dog")
    assert "ä" in pieces(train([text], "char", 17, tmp_path / "all"))  # with room for each character
    assert "ä" not in pieces(train([text], "char", 10, tmp_path / "clean", clean=True))


# -------------------------------------------------------------------------------------------------- the same again


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_text_gives_the_same_file(
    trained: dict[str, Tokenizer], story: Path, tmp_path: Path, kind: str
) -> None:
    """In another process, with other threads and another order of sets."""
    code = (
        f"from pathlib import Path; from pretrain.vocabulary import train; import sys; "
        f"train([Path(sys.argv[1])], {kind!r}, {SIZES[kind]}, Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(story), str(tmp_path)]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "3"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / trained[kind].path.name).read_bytes() == trained[kind].path.read_bytes()


def test_a_second_run_replaces_the_first(story: Path, tmp_path: Path) -> None:
    train([story], "bpe", 300, tmp_path)
    assert train([story], "unigram", 300, tmp_path).n_words == 300
    assert contents(tmp_path) == ["tokenizer.model"]


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [("char", 9, 0), ("char", 8, 1), ("char", 7, 2), ("word", 6, 0), ("word", 5, 1)],
)
def test_what_has_no_piece_is_counted(tmp_path: Path, kind: str, size: int, expected: int) -> None:
    """Five letters and the space, or three words, beside the three special pieces."""
    text = write(tmp_path / "text.txt", "aa aa aa aa bbb bb cde")
    if kind == "word":
        text.write_text("aa aa aa bb bb cc\n")
    tokenizer = train([text], kind, size, tmp_path / "out")
    assert without_piece([text], tokenizer, kind) == expected


def test_only_the_beginning_of_a_text_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "LOOKED_AT", 10)
    first, second = write(tmp_path / "1.txt", "aaaa aaaa aaaa"), write(tmp_path / "2.txt", "xyz")
    assert without_piece([first, second], train([first], "char", 5, tmp_path / "out"), "char") == 0
    assert without_piece([second, first], train([first], "char", 5, tmp_path / "out"), "char") == 3


def test_a_char_tokenizer_without_a_space_is_refused(tmp_path: Path) -> None:
    text = write(tmp_path / "text.txt", "aabbccddee")
    with pytest.raises(DataError, match="with --vocab-size 8, more frequent characters leave no piece for the space"):
        train([text], "char", 8, tmp_path / "out")
    assert train([text], "char", 9, tmp_path / "out").n_words == 9


# -------------------------------------------------------------------------------------------------------- progress


class Terminal(StringIO):
    """What is written to it can be read; it says of itself that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("kind", ["bpe", "byte-bpe"])
def test_a_terminal_shows_how_far_the_reading_is_and_then_a_clock(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    train([story, story], kind, 300, tmp_path)
    shown = terminal.getvalue()
    assert "reading:   0%|" in shown
    assert "learning 300 pieces: 00:00" in shown
    assert shown.index("reading") < shown.index("learning")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_printed_elsewhere(
    story: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str
) -> None:
    train([story], kind, SIZES[kind], tmp_path / "fine")
    with pytest.raises(DataError):
        train([story], kind, 9999, tmp_path / "failed")
    assert capfd.readouterr() == ("", "")


# ----------------------------------------------------------------------------------------------- what cannot be done


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("documents", [[], ["", " \n "]])
def test_an_empty_text_is_an_error(tmp_path: Path, kind: str, documents: list[str]) -> None:
    text = write(tmp_path / "empty.txt", *documents)
    with pytest.raises(DataError, match="no text to learn from: name a file that has some") as caught:
        train([text], kind, SIZES[kind], tmp_path / "out")
    assert str(text) in str(caught.value)
    assert contents(tmp_path / "out") == []


def test_a_text_of_which_cleaning_leaves_nothing_is_an_error(tmp_path: Path) -> None:
    text = write(tmp_path / "text.txt", "café", "naïve")
    with pytest.raises(
        DataError, match=r"no document of printable ASCII \(--clean leaves out all others\) to learn from"
    ):
        train([text], "bpe", 300, tmp_path / "out", clean=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", ["a", "a b a b", SENTENCES[0], "日本語 🙂\n" + SENTENCES[1]])
def test_too_large_a_vocabulary_is_an_error_that_names_the_largest(tmp_path: Path, kind: str, text: str) -> None:
    path = write(tmp_path / "tiny.txt", text, text)
    with pytest.raises(DataError, match=f"too little text for --vocab-size 9999 with --type {kind}") as caught:
        train([path], kind, 9999, tmp_path / "out")
    assert str(caught.value).startswith(str(path))
    assert contents(tmp_path / "out") == []
    largest = int(re.findall(r"the largest that it allows is (\d+)\.", str(caught.value))[0])
    assert train([path], kind, largest, tmp_path / "out").n_words == largest
    with pytest.raises(DataError, match=f"the largest that it allows is {largest}"):
        train([path], kind, largest + 1, tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "ids"),
    [(kind, ids) for kind in KINDS for ids in ("llama", "mp-acl") if (kind, ids) != ("byte-bpe", "mp-acl")],
)
def test_too_small_a_vocabulary_is_an_error_that_names_the_smallest(tmp_path: Path, kind: str, ids: str) -> None:
    text = write(tmp_path / "text.txt", "   a" if kind == "word" else "a a a")
    with pytest.raises(
        UsageError, match=f"--vocab-size .* is too small for {kind}: it needs at least {smallest(kind, ids)}"
    ):
        train([text], kind, smallest(kind, ids) - 1, tmp_path, ids=ids)
    try:
        assert train([text], kind, smallest(kind, ids), tmp_path / "out", ids=ids).n_words == smallest(kind, ids)
    except DataError as error:  # two characters, the letter and the space, are one more than the smallest alphabet
        need = f"the characters of this text alone need {smallest(kind, ids) + 1}"
        assert ("leave no piece for the space" if kind == "char" else need) in str(error)
        assert kind in ("unigram", "bpe", "char")


@pytest.mark.parametrize("size", [0, -5])
def test_a_vocabulary_of_nothing_is_an_error(story: Path, tmp_path: Path, size: int) -> None:
    with pytest.raises(UsageError, match=f"--vocab-size {size} is too small"):
        train([story], "char", size, tmp_path)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_more_characters_than_pieces_are_an_error_that_says_how_many(tmp_path: Path, kind: str) -> None:
    text = write(tmp_path / "alphabet.txt", "".join(map(chr, range(0x4E00, 0x4E80))))
    with pytest.raises(DataError, match="the characters of this text alone need 388. Take more, or --type byte-bpe"):
        train([text], kind, 300, tmp_path / "out")
    assert train([text], kind, 388, tmp_path / "out").n_words == 388


def test_another_failure_of_sentencepiece_is_one_sentence(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vocabulary, "LONGEST_LINE", 1)  # it drops every line
    with pytest.raises(DataError, match=r"story.txt: SentencePiece cannot learn bpe from this text \(.*take more text"):
        train([story], "bpe", 300, tmp_path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "wordpiece"}, "unknown --type 'wordpiece': choose one of unigram, bpe, word, char, byte-bpe"),
        ({"ids": "gpt"}, "unknown --ids 'gpt': choose one of llama, mp-acl"),
        ({"kind": "byte-bpe", "ids": "mp-acl"}, "--ids mp-acl places SentencePiece's pieces, and byte-bpe has none"),
        ({"texts": []}, "no text to learn from: name at least one file"),
    ],
)
def test_options_that_do_not_fit_are_errors(story: Path, tmp_path: Path, options: dict[str, object], text: str) -> None:
    arguments = {"texts": [story], "kind": "bpe", "vocab_size": 300, "out": tmp_path / "out"} | options
    with pytest.raises(UsageError) as caught:
        train(**arguments)  # type: ignore[arg-type]  # that is what is tested
    assert text in str(caught.value)
    assert contents(tmp_path / "out") == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_that_breaks_off_in_bad_utf8_is_an_error_with_the_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(b"a little dog\n<|endoftext|>\n" * 40 + b"a \xff dog\n")
    with pytest.raises(DataError, match=f"^{re.escape(str(path))}:81: "):
        train([path], kind, SIZES[kind], tmp_path / "out")
    assert contents(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["bpe", "byte-bpe"])
def test_a_text_that_is_not_there_is_an_error(story: Path, tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=r"gone\.txt: "):
        train([story, tmp_path / "gone.txt"], kind, SIZES[kind], tmp_path / "out")
    assert contents(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["bpe", "byte-bpe"])
def test_ctrl_c_while_reading_is_no_error_of_the_text(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def interrupted(*_: object, **__: object) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(vocabulary, "read_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train([story], kind, SIZES[kind], tmp_path / "out")


def test_two_tokenizers_do_not_share_a_folder(story: Path, tmp_path: Path) -> None:
    train([story], "bpe", 300, tmp_path)
    with pytest.raises(UsageError, match=r"holds tokenizer.model already, of another kind: name another folder"):
        train([story], "byte-bpe", 300, tmp_path)
    assert contents(tmp_path) == ["tokenizer.model"]


def test_a_file_is_no_folder_to_write_to(story: Path) -> None:
    with pytest.raises(UsageError, match=r"story\.txt is a file: name a folder"):
        train([story], "bpe", 300, story)


@pytest.mark.parametrize(
    ("number", "hint"), [(errno.ENOSPC, "is the disk full?"), (errno.EACCES, "check the path and its permissions")]
)
def test_a_disk_that_takes_no_more_is_an_error_and_leaves_nothing(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
) -> None:
    def refuse(self: Path, _: bytes) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(TokenizerError, match=f"tokenizer.model cannot be written .*: {re.escape(hint)}"):
        train([story], "bpe", 300, tmp_path / "out")
    assert contents(tmp_path / "out") == []


def test_without_its_package_byte_bpe_is_an_error_with_the_line_that_installs_it(
    story: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingDependency, match="--type byte-bpe needs tokenizers: run `pip install tokenizers`"):
        train([story], "byte-bpe", 300, tmp_path)


@settings(max_examples=25)
@given(documents=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4))
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_gives_a_tokenizer_or_an_error_that_names_it(
    tmp_path_factory: pytest.TempPathFactory, kind: str, documents: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    text = write(folder / "any.txt", *documents)
    try:
        assert train([text], kind, SIZES[kind], folder / "out").n_words == SIZES[kind]
    except MinLlamaError as error:
        assert str(text) in str(error)
        assert contents(folder / "out") == []

"""inference/streaming.py: run with `pytest tests/test_streaming.py`."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.streaming import IncrementalDecoder, StopTexts
from tests.tiny import SENTENCES, TOKENIZERS, tokenizer_of
from tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


# ---------------------------------------------------------------------------------------------------- ids to text


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(data=st.data(), prompt=st.text(max_size=8) | st.just("Once upon a"))
def test_pieces_together_are_what_decoding_all_ids_gives(
    kind: str, folder: Path, data: st.DataObject, prompt: str
) -> None:
    tokenizer = tokenizer_of(kind, folder)
    start = tokenizer.encode(prompt, bos=True, eos=False)
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_words - 1), max_size=25))
    decoder = IncrementalDecoder(tokenizer, start)
    text = "".join(decoder.push(token) for token in ids) + decoder.flush()
    assert tokenizer.decode(start) + text == tokenizer.decode(start + ids)


@pytest.mark.parametrize("kind", TOKENIZERS)
@given(text=st.text(max_size=30) | st.text("🙂é€ a", max_size=30))
def test_a_piece_never_shows_half_a_character(kind: str, folder: Path, text: str) -> None:
    tokenizer = tokenizer_of(kind, folder)
    ids = tokenizer.encode(text, bos=False, eos=False)
    decoder = IncrementalDecoder(tokenizer, [tokenizer.bos_id])
    pieces = [decoder.push(token) for token in ids]
    if "\ufffd" not in tokenizer.decode(ids):
        assert "\ufffd" not in "".join(pieces)
        assert decoder.flush() == ""
    assert "".join(pieces) + decoder.flush() == tokenizer.decode(ids)


def test_a_word_is_shown_with_the_space_in_front_of_it(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    begin, *ids = tokenizer.encode("the dog 🙂", bos=True, eos=False)
    decoder = IncrementalDecoder(tokenizer, [begin])
    pieces = [decoder.push(token) for token in ids]
    assert "".join(pieces) == "the dog 🙂"
    assert pieces[-4:] == ["", "", "", "🙂"]
    after = IncrementalDecoder(tokenizer, [begin, ids[0]])
    assert "".join(map(after.push, ids[1:])) == "the dog 🙂".removeprefix(tokenizer.decode(ids[:1]))


def test_decoding_many_ids_takes_time_in_proportion(tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    ids = tokenizer.encode(" ".join(SENTENCES * 10), bos=False, eos=False)
    lengths: list[int] = []
    decode = tokenizer.decode
    monkeypatch.setattr(tokenizer, "decode", lambda part: lengths.append(len(part)) or decode(part))  # type: ignore[func-returns-value]
    decoder = IncrementalDecoder(tokenizer, [])
    for token in ids:
        decoder.push(token)
    assert sum(lengths) < 6 * len(ids)


# ---------------------------------------------------------------------------------------------------- stop texts


@given(st.lists(st.text("abc", max_size=4), max_size=8), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_a_stop_text_is_found_however_the_text_is_cut(pieces: list[str], stops: list[str]) -> None:
    text = "".join(pieces)
    ends = [end for end in range(len(text) + 1) if text[:end].endswith(tuple(stops))]
    if ends:
        text = min((text[: ends[0]].removesuffix(stop) for stop in stops), key=len)
    watch = StopTexts(stops)
    shown = ""
    for piece in pieces:
        shown += watch.push(piece)
        assert text.startswith(shown)
        if watch.found:
            break
    assert watch.found == bool(ends)
    assert shown + watch.flush() == text


def test_only_what_may_become_a_stop_text_is_held_back() -> None:
    watch = StopTexts(["\n\n", "The end"])
    pieces = ["Hello.\n", "Then", " The", " ", "en", "d."]
    assert [watch.push(piece) for piece in pieces] == ["Hello.", "\nThen", " ", "", "", ""]
    assert watch.found
    assert watch.flush() == ""
    unfinished = StopTexts(["The end"])
    assert unfinished.push("not The en") == "not "
    assert unfinished.flush() == "The en"


def test_an_empty_stop_text_is_refused() -> None:
    with pytest.raises(ValueError, match="a stop text must not be empty: every text would end before it begins"):
        StopTexts([".", ""])

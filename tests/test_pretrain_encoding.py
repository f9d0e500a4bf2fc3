"""pretrain/encoding.py: run with `pytest tests/test_pretrain_encoding.py`."""

import multiprocessing
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
from hypothesis import given
from hypothesis import strategies as st

from errors import MissingDependency, TokenizerError, UsageError
from pretrain import encoding, vocabulary
from pretrain.encoding import DocumentEncoder, encoded, is_held_out
from tests.tiny import SENTENCES, train_tokenizer
from tokenizer import Tokenizer

# Text as it is in documents: no NUL, and without what SentencePiece cannot give back, its own sign for a space.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\u2581"), max_size=60) | st.lists(
    st.sampled_from([" ", "  ", "\n", "a", "Lily", " dog", "ö", "😀", "é", ".", "42"]), max_size=60
).map("".join)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a tiny byte-level tokenizer.json."""
    pytest.importorskip("tokenizers", reason="skipped: needs tokenizers")
    folder = tmp_path_factory.mktemp("byte-level")
    (folder / "text.txt").write_text("\n\n".join(SENTENCES))
    return vocabulary.train([folder / "text.txt"], "byte-bpe", 300, folder).path


@pytest.fixture(scope="module")
def unigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a tiny unigram model."""
    return train_tokenizer(tmp_path_factory.mktemp("unigram") / "tokenizer.model", 330, model_type="unigram")


@pytest.fixture(scope="module", params=["tokenizer_model", "unigram", "byte_level"])
def encoder(request: pytest.FixtureRequest) -> DocumentEncoder:
    """Return an encoder, with a tokenizer of each kind in turn."""
    return DocumentEncoder(request.getfixturevalue(request.param))


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut long texts after eight characters."""
    monkeypatch.setattr(encoding, "PIECE", 8)


# ---------------------------------------------------------------------------------------------------- documents


@pytest.mark.parametrize("text", SENTENCES)
def test_a_document_is_what_the_tokenizer_makes_of_it(tokenizer_model: Path, text: str) -> None:
    ids = DocumentEncoder(tokenizer_model).encode(text)
    assert ids.dtype == np.dtype("<u2")
    assert ids.tolist() == Tokenizer(tokenizer_model=tokenizer_model).encode(text, bos=True, eos=True)


def test_a_token_that_begins_and_ends_texts_stands_only_at_their_end(byte_level: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=byte_level)
    assert tokenizer.bos_id == tokenizer.eos_id
    ids = DocumentEncoder(byte_level).encode("Lily ran.").tolist()
    assert ids == [*tokenizer.encode("Lily ran.", bos=False, eos=False), tokenizer.eos_id]
    assert tokenizer.bos_id not in ids[:-1]


def test_a_tokenizer_without_begin_token_is_no_obstacle(tmp_path: Path) -> None:
    path = train_tokenizer(tmp_path / "tokenizer.model", bos_id=-1, eos_id=1)
    tokenizer = Tokenizer(tokenizer_model=path)
    assert DocumentEncoder(path).encode("Lily").tolist() == [*tokenizer.encode("Lily", bos=False, eos=False), 1]


def test_a_tokenizer_without_end_token_is_refused(tmp_path: Path) -> None:
    path = train_tokenizer(tmp_path / "tokenizer.model", eos_id=-1)
    with pytest.raises(TokenizerError, match=f"^{path} has no token that ends a text"):
        DocumentEncoder(path)


def test_without_protobuf_the_error_says_how_to_install_it(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    monkeypatch.delattr(sentencepiece, "sentencepiece_model_pb2", raising=False)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(MissingDependency, match="a corpus with SentencePiece needs protobuf: run `pip install"):
        DocumentEncoder(tokenizer_model)


@given(text=TEXTS, piece=st.integers(1, 9))
def test_a_long_text_comes_back_although_it_is_encoded_in_pieces(
    encoder: DocumentEncoder, text: str, piece: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "PIECE", piece)
        ids = encoder.encode(text).tolist()
    assert encoder.tokenizer.decode(ids) == text
    whole = encoder.tokenizer.encode(text, bos=True, eos=True)
    assert ids[-1] == whole[-1]
    if encoder.tokenizer.bos_id != encoder.tokenizer.eos_id:
        assert ids[0] == whole[0]
        assert ids.count(whole[0]) == 1


def test_pieces_end_before_a_space_so_that_words_stay_whole(
    encoder: DocumentEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "PIECE", 30)
    bos = encoder.tokenizer.bos_id != encoder.tokenizer.eos_id
    for text in SENTENCES:
        assert encoder.encode(text).tolist() == encoder.tokenizer.encode(text, bos=bos, eos=True)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("options", [{"remove_extra_whitespaces": True}, {"treat_whitespace_as_suffix": True}])
def test_a_tokenizer_that_changes_spaces_is_given_the_whole_text(tmp_path: Path, options: dict[str, bool]) -> None:
    path = train_tokenizer(tmp_path / "tokenizer.model", **options)
    for text in SENTENCES:
        assert DocumentEncoder(path).encode(text).tolist() == Tokenizer(None, path).encode(text, bos=True, eos=True)


@pytest.mark.usefixtures("small_pieces")
def test_a_json_tokenizer_that_puts_a_space_before_a_text_is_given_the_whole(byte_level: Path, tmp_path: Path) -> None:
    content = byte_level.read_text()
    assert content.count('"add_prefix_space":false') > 0
    path = tmp_path / "tokenizer.json"
    path.write_text(content.replace('"add_prefix_space":false', '"add_prefix_space":true'))
    tokenizer = Tokenizer(None, path)
    assert tokenizer.decode(tokenizer.encode("a", bos=False, eos=False)) == " a"
    assert DocumentEncoder(path).encode(SENTENCES[0]).tolist() == tokenizer.encode(SENTENCES[0], bos=False, eos=True)


def test_a_text_of_many_pieces_without_a_space_comes_back(tokenizer_model: Path) -> None:
    text = "Lily" * 50_000
    encoder = DocumentEncoder(tokenizer_model)
    assert encoder.tokenizer.decode(encoder.encode(text).tolist()) == text


# ---------------------------------------------------------------------------------------------------- the split


def test_a_text_decides_its_split() -> None:
    # The first eight bytes of SHA-256("abc") are ba7816bf 8f01cfea, about 0.72840 of their range.
    assert is_held_out(b"abc", 0.7284)
    assert not is_held_out(b"abc", 0.7283)


@given(st.binary(), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_keeps_what_a_smaller_one_kept(content: bytes, share: float, other: float) -> None:
    if is_held_out(content, min(share, other)):
        assert is_held_out(content, max(share, other))


def test_about_the_share_is_kept() -> None:
    kept = sum(is_held_out(str(i).encode(), 0.1) for i in range(10_000))
    assert abs(kept - 1000) < 5 * 30  # five standard deviations


# ---------------------------------------------------------------------------------------------------- processes


def documents(count: int) -> Iterator[str]:
    """Yield documents of many lengths, all different."""
    for i in range(count):
        yield f"Story {i}. " + SENTENCES[i % 5] * (1 + i % 7 * (i % 11 == 0) * 40)


def joined(path: Path, jobs: int, count: int = 300) -> tuple[list[int], list[int], list[int], list[bool]]:
    """Return what `encoded` gives for the documents, the batches put together."""
    batches = list(encoded(documents(count), path, 0.1, jobs))
    assert len(batches) > 3
    return (
        np.concatenate([batch.ids for batch in batches]).tolist(),
        [length for batch in batches for length in batch.lengths],
        [size for batch in batches for size in batch.text_bytes],
        [held_out for batch in batches for held_out in batch.held_out],
    )


def test_several_processes_give_what_one_gives(tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 4000)
    alone = joined(tokenizer_model, 1)
    assert joined(tokenizer_model, 3) == alone
    encoder = DocumentEncoder(tokenizer_model)
    assert alone[0] == [i for document in documents(300) for i in encoder.encode(document).tolist()]
    assert sum(alone[1]) == len(alone[0])
    assert alone[2] == [len(document.encode()) for document in documents(300)]
    assert alone[3] == [is_held_out(document.encode(), 0.1) for document in documents(300)]


@pytest.mark.parametrize(("in_flight", "most_ahead"), [(2**27, 2 * 2 + 1), (1, 2)])
def test_documents_are_not_read_far_ahead_of_those_that_are_encoded(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch, in_flight: int, most_ahead: int
) -> None:
    monkeypatch.setattr(encoding, "BATCH", 1)  # a batch a document
    monkeypatch.setattr(encoding, "IN_FLIGHT", in_flight)
    read = 0

    def counted() -> Iterator[str]:
        nonlocal read
        for document in documents(40):
            read += 1
            yield document

    ahead = [read - done for done, _ in enumerate(encoded(counted(), tokenizer_model, 0.1, 2))]
    assert len(ahead) == 40
    assert max(ahead) == most_ahead


def test_an_error_while_reading_ends_the_processes(tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "BATCH", 1)

    def broken() -> Iterator[str]:
        yield from documents(10)
        raise RuntimeError("the file is damaged")

    with pytest.raises(RuntimeError, match="the file is damaged"):
        list(encoded(broken(), tokenizer_model, 0.1, 2))


def test_a_killed_process_is_an_error_that_says_what_to_do(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "BATCH", 1)
    with (
        closing(encoded(documents(500), tokenizer_model, 0.1, 2)) as batches,
        pytest.raises(UsageError, match="a process that encodes was ended, for want of memory perhaps: lower --jobs"),
    ):
        for _ in batches:
            for process in multiprocessing.active_children():
                process.kill()

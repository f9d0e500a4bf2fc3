"""tokenizer.py: run with `pytest tests/test_tokenizer.py`."""

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from errors import MissingDependency, TokenizerError
from tests.assets_dir import require_asset
from tests.tiny import SENTENCES, train_tokenizer
from tokenizer import Tokenizer, check_vocabulary, find_tokenizer, main
from utils import sha256_of

ROOT = Path(__file__).resolve().parent.parent
ODD_TEXTS = (
    "",
    " ",
    "   two leading and two trailing spaces  ",
    "tabs\tand\nline\r\nbreaks",
    "naïve café, Ærøskøbing, ﬁne ligatures",
    "Ça va? Où ça? — “quotes” … ½ ﷺ",
    "日本語のテキスト and 한국어",
    "🙂 👩‍👩‍👧‍👦 🏳️‍🌈",
    "e\u0301 and é, \u200b zero width, \u00a0 no-break, \ufeff mark",
    "عربى עברית हिन्दी",
    "<s> </s> <unk> <0x41> <0x00>",
    "a" * 300,
)
# Any text but the sign that SentencePiece itself writes for a space, and the byte that stands in for padding.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\u2581\0"), max_size=60)


@pytest.fixture(scope="module")
def exported(tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of llama2.c's form of the tiny tokenizer."""
    path = tmp_path_factory.mktemp("exported") / "tokenizer.bin"
    Tokenizer(tokenizer_model=tokenizer_model).export(path)
    return path


@pytest.fixture(params=["model", "bin"])
def tokenizer(request: pytest.FixtureRequest, tokenizer_model: Path, exported: Path) -> Tokenizer:
    """Return the tiny tokenizer, read from either kind of file."""
    return Tokenizer(tokenizer_model=tokenizer_model if request.param == "model" else exported)


# -------------------------------------------------------------------------------------------------- encode and decode


def test_the_special_ids_are_llamas(tokenizer: Tokenizer) -> None:
    assert (tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (400, 1, 2, 3)


@pytest.mark.parametrize(("bos", "eos"), [(False, False), (True, False), (False, True), (True, True)])
def test_begin_and_end_stand_around_the_text_when_asked_for(tokenizer: Tokenizer, bos: bool, eos: bool) -> None:
    plain = tokenizer.encode("A little dog.", bos=False, eos=False)
    assert tokenizer.encode("A little dog.", bos=bos, eos=eos) == [1] * bos + plain + [2] * eos
    assert not {1, 2, 3} & set(plain)


def test_frequent_words_are_few_pieces(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("movie", bos=False, eos=False)) < 5


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts)
def test_decoding_gives_back_the_text(tokenizer: Tokenizer, text: str) -> None:
    """The space that SentencePiece puts in front of a text goes away again when it is decoded."""
    ids = tokenizer.encode(text, bos=True, eos=True)
    assert tokenizer.decode(ids) == text
    assert all(0 <= i < tokenizer.n_words for i in ids)


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_decoding_gives_back_odd_text(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text


def test_padding_is_no_text(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("A dog.", bos=True, eos=False)
    assert tokenizer.decode([*ids, 3, 3, 3]) == "A dog."
    assert tokenizer.decode([]) == ""


def test_the_names_of_special_tokens_in_a_text_are_text(tokenizer: Tokenizer) -> None:
    assert not {1, 2, 3} & set(tokenizer.encode("<s> good </s> <0x00>", bos=False, eos=False))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=texts, max_len=st.integers(1, 30), bos=st.booleans(), eos=st.booleans())
def test_no_row_is_longer_than_max_len_with_begin_and_end_counted(
    tokenizer_model: Path, text: str, max_len: int, bos: bool, eos: bool
) -> None:
    ids = Tokenizer(max_len, tokenizer_model).encode(text, bos=bos, eos=eos)
    assert len(ids) <= max_len


def test_cutting_takes_the_end_of_the_text_and_keeps_begin_and_end(tokenizer_model: Path) -> None:
    whole = Tokenizer(tokenizer_model=tokenizer_model).encode(SENTENCES[0], bos=True, eos=True)
    cut = Tokenizer(max_len=6, tokenizer_model=tokenizer_model).encode(SENTENCES[0], bos=True, eos=True)
    assert len(whole) > 6
    assert cut == [*whole[:5], 2]


@pytest.mark.parametrize("max_len", [0, -1])
def test_a_max_len_without_room_for_a_token_is_an_error(tokenizer_model: Path, max_len: int) -> None:
    with pytest.raises(ValueError, match=f"max_len must be at least 1, got {max_len}"):
        Tokenizer(max_len, tokenizer_model)


def test_a_models_own_padding_piece_is_used(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=train_tokenizer(tmp_path / "padding.model", pad_id=3))
    assert tokenizer.pad_id == 3
    assert tokenizer.sp_model.piece_to_id("<0x00>") == 4
    assert tokenizer.decode([1, 3, *tokenizer.encode("a dog", bos=False, eos=True), 3]) == "a dog"


def test_the_default_is_tokenizer_model_in_the_working_directory(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tokenizer_model.parent)
    assert Tokenizer().path == Path("tokenizer.model")


# -------------------------------------------------------------------------------------------------- the two formats


@given(text=texts)
def test_both_formats_give_the_same_ids(tokenizer_model: Path, exported: Path, text: str) -> None:
    from_model, from_bin = Tokenizer(tokenizer_model=tokenizer_model), Tokenizer(tokenizer_model=exported)
    assert from_model.encode(text, bos=True, eos=True) == from_bin.encode(text, bos=True, eos=True)


def test_both_formats_give_the_same_ids_for_odd_text(tokenizer_model: Path, exported: Path) -> None:
    from_model, from_bin = Tokenizer(tokenizer_model=tokenizer_model), Tokenizer(tokenizer_model=exported)
    for text in (*ODD_TEXTS, *SENTENCES):
        assert from_model.encode(text, bos=True, eos=True) == from_bin.encode(text, bos=True, eos=True)


def test_an_export_begins_with_the_longest_piece_and_the_special_pieces(exported: Path) -> None:
    content = exported.read_bytes()
    at, pieces = 4, []
    while at < len(content):
        _, length = struct.unpack_from("<fI", content, at)
        pieces.append(content[at + 8 : at + 8 + length])
        at += 8 + length
    assert struct.unpack_from("<I", content) == (max(map(len, pieces)),)
    assert pieces[:4] == [b"<unk>", b"\n<s>\n", b"\n</s>\n", b"<0x00>"]
    assert len(pieces) == 400
    assert b" movie" in pieces  # spaces are spaces


def test_the_export_of_an_export_is_the_same_file(exported: Path, tmp_path: Path) -> None:
    Tokenizer(tokenizer_model=exported).export(tmp_path / "again.bin")
    assert (tmp_path / "again.bin").read_bytes() == exported.read_bytes()


def test_the_export_of_llamas_tokenizer_is_the_published_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=require_asset("tokenizer.model"))
    assert (tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (32000, 1, 2, 3)
    tokenizer.export(tmp_path / "tokenizer.bin")
    assert (tmp_path / "tokenizer.bin").stat().st_size == 433_869
    assert sha256_of(tmp_path / "tokenizer.bin") == "50a52ef822ee9e83de5ce9d0be0a025a773d019437f58b5ff9dcafb063ece361"


def test_llamas_tokenizer_gives_the_same_ids_from_both_formats(tmp_path: Path) -> None:
    from_model = Tokenizer(tokenizer_model=require_asset("tokenizer.model"))
    from_model.export(tmp_path / "tokenizer.bin")
    from_bin = Tokenizer(tokenizer_model=tmp_path / "tokenizer.bin")
    lines = require_asset("data/sst-dev.txt").read_text(encoding="utf-8").splitlines()
    for text in (*ODD_TEXTS, *lines):
        assert from_model.encode(text, bos=True, eos=True) == from_bin.encode(text, bos=True, eos=True)


def test_llamas_tokenizer_gives_the_ids_that_are_known_for_a_prompt() -> None:
    tokenizer = Tokenizer(tokenizer_model=require_asset("tokenizer.model"))
    assert tokenizer.encode("Hello world", bos=True, eos=True) == [1, 15043, 3186, 2]


def test_the_export_of_the_small_tokenizer_is_its_own_file(tmp_path: Path) -> None:
    path = require_asset("tok512.bin")
    tokenizer = Tokenizer(tokenizer_model=path)
    assert (tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (512, 1, 2, 3)
    tokenizer.export(tmp_path / "tok512.bin")
    assert (tmp_path / "tok512.bin").read_bytes() == path.read_bytes()
    for text in ODD_TEXTS:
        assert tokenizer.decode(tokenizer.encode(text, bos=True, eos=True)) == text


# -------------------------------------------------------------------------------------------- beside a checkpoint


def test_of_two_tokenizers_beside_a_checkpoint_the_one_that_fits_is_taken(tmp_path: Path) -> None:
    train_tokenizer(tmp_path / "tokenizer.model", vocab_size=330)
    train_tokenizer(tmp_path / "tok320.model", vocab_size=320)
    Tokenizer(tokenizer_model=train_tokenizer(tmp_path / "other", vocab_size=340)).export(tmp_path / "tok340.bin")
    for vocab_size, name in [(330, "tokenizer.model"), (320, "tok320.model"), (340, "tok340.bin")]:
        assert find_tokenizer(tmp_path / "weights.pt", vocab_size).path == tmp_path / name


def test_the_real_checkpoint_finds_its_own_tokenizer() -> None:
    checkpoint = require_asset("stories260K.bin")
    require_asset("tokenizer.model")  # the 32,000 pieces of the other one do not fit
    assert find_tokenizer(checkpoint, 512).path == require_asset("tok512.bin")


def test_a_checkpoint_in_the_working_directory_finds_its_tokenizer_there(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tokenizer_model.parent)
    assert find_tokenizer("weights.pt", 400).n_words == 400


def test_when_none_fits_the_error_lists_what_was_found(tmp_path: Path) -> None:
    train_tokenizer(tmp_path / "tokenizer.model", vocab_size=330)
    train_tokenizer(tmp_path / "tok320.model", vocab_size=320)
    with pytest.raises(TokenizerError) as caught:
        find_tokenizer(tmp_path / "weights.pt", 512)
    text = str(caught.value)
    assert "no tokenizer with 512 pieces lies beside" in text
    assert str(tmp_path / "weights.pt") in text
    assert "tokenizer.model has 330" in text
    assert "tok320.model has 320" in text
    assert "--tokenizer" in text


def test_when_there_is_none_at_all_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"put the checkpoint's tokenizer there, or name it with --tokenizer"):
        find_tokenizer(tmp_path / "weights.pt", 512)


def test_a_named_tokenizer_of_another_size_is_an_error(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    check_vocabulary(tokenizer, 400, "weights.pt")
    with pytest.raises(TokenizerError, match=r"400 pieces, but weights\.pt was trained with 512: .* garbage") as caught:
        check_vocabulary(tokenizer, 512, "weights.pt")
    assert str(tokenizer_model) in str(caught.value)


# -------------------------------------------------------------------------------------------------- damaged files


@pytest.mark.parametrize("length", [0, 1, 3, 4, 5, 11, 12, 500, -1])
def test_a_cut_export_is_an_error(exported: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(exported.read_bytes()[:length])
    with pytest.raises(TokenizerError, match="fetch it again") as caught:
        Tokenizer(tokenizer_model=path)
    assert str(path) in str(caught.value)


def test_a_piece_longer_than_the_header_says_is_an_error(exported: Path, tmp_path: Path) -> None:
    path = tmp_path / "tok.bin"
    path.write_bytes(struct.pack("<I", 5) + exported.read_bytes()[4:])  # the first control pieces are that long
    with pytest.raises(TokenizerError, match="no llama2.c tokenizer, or damaged .*fetch it again"):
        Tokenizer(tokenizer_model=path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<IfI", 3, 0.0, 2**32 - 1) + b"abc",  # a length beyond the file
        struct.pack("<IfI", 3, float("nan"), 3) + b"abc",
        struct.pack("<IfI", 3, 0.0, 3) + b"\xff\xfe\xfd",  # no UTF-8
        b"<!DOCTYPE html><html>not found</html>",
        b"\x08\x03\x12",
        bytes(range(256)),
    ],
)
def test_noise_is_no_tokenizer_in_either_format(tmp_path: Path, content: bytes) -> None:
    for name in ("noise.bin", "noise.model"):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(TokenizerError, match="fetch it again") as caught:
            Tokenizer(tokenizer_model=path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1])
def test_a_cut_model_is_an_error(tokenizer_model: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "cut.model"
    path.write_bytes(tokenizer_model.read_bytes()[:length])
    with pytest.raises(TokenizerError, match="is no SentencePiece model .*fetch it again"):
        Tokenizer(tokenizer_model=path)


@pytest.mark.parametrize("name", ["gone.model", "gone.bin", "."])
def test_a_file_that_is_not_there_is_an_error_that_says_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(TokenizerError, match=r"does not exist. Fetch it with `./setup.sh`, or name another with --tok"):
        Tokenizer(tokenizer_model=tmp_path / name)


def test_without_protobuf_an_export_is_an_error_with_the_line_that_installs_it(
    exported: Path, tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", raising=False)
    monkeypatch.delattr(sentencepiece, "sentencepiece_model_pb2", raising=False)
    monkeypatch.setitem(sys.modules, "google.protobuf", None)
    with pytest.raises(MissingDependency, match="reading tokenizer.bin needs protobuf: run `pip install protobuf`"):
        Tokenizer(tokenizer_model=exported)
    assert Tokenizer(tokenizer_model=tokenizer_model).n_words == 400  # SentencePiece's own format does without


# ---------------------------------------------------------------------------------------------------- the command


def test_the_command_writes_the_export_beside_the_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = train_tokenizer(tmp_path / "tiny.model")
    assert main(["-t", str(model)]) == 0
    assert capsys.readouterr().out == f"wrote {tmp_path / 'tiny.bin'}\n"
    assert Tokenizer(tokenizer_model=tmp_path / "tiny.bin").n_words == 400
    assert {path.name for path in tmp_path.iterdir()} == {"tiny.model", "tiny.bin"}


@pytest.mark.parametrize(
    ("name", "text"),
    [("gone.model", "does not exist"), ("noise.model", "is no SentencePiece model"), ("tok.bin", "name a .model file")],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    for noise in ("noise.model", "tok.bin"):
        (tmp_path / noise).write_bytes(b"noise")
    assert main(["--tokenizer-model", str(tmp_path / name)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {tmp_path / name}")
    assert text in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.model", "tok.bin"]


def test_the_command_runs_as_the_original_did(tmp_path: Path) -> None:
    model = train_tokenizer(tmp_path / "tiny.model")
    command = [sys.executable, "tokenizer.py", "-t", str(model)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "tiny.bin").is_file()


def test_a_damaged_tokenizer_does_not_hide_a_good_one(tokenizer_model: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"damaged")
    shutil.copy(tokenizer_model, tmp_path / "tok-good.model")
    n_words = Tokenizer(tokenizer_model=tokenizer_model).n_words
    assert find_tokenizer(tmp_path / "model.pt", n_words).path.name == "tok-good.model"
    with pytest.raises(TokenizerError, match="tokenizer.model is damaged; tok-good.model has"):
        find_tokenizer(tmp_path / "model.pt", n_words + 1)


def test_a_tokenizer_without_permission_is_an_error(tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(TokenizerError, match="cannot be read \\(Permission denied\\)"):
        Tokenizer(tokenizer_model=tokenizer_model)


def test_unknown_text_is_no_padding_where_there_are_no_bytes(tmp_path: Path) -> None:
    model = train_tokenizer(tmp_path / "plain.model", vocab_size=120, byte_fallback=False)
    tokenizer = Tokenizer(tokenizer_model=model)
    assert tokenizer.pad_id == tokenizer.eos_id
    assert tokenizer.pad_id not in tokenizer.encode("a word 日本", bos=True, eos=False)

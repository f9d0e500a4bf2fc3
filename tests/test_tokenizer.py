"""tokenizer.py: run with `pytest tests/test_tokenizer.py`."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, trainers

from errors import MissingDependency, TokenizerError
from tests.assets_dir import require_asset
from tests.tiny import SENTENCES, train_tokenizer
from tokenizer import SPACE, Tokenizer, check_vocabulary, find_tokenizer, main
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


# All of Unicode, with the names of special tokens in it.
any_text = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])), st.sampled_from(["<|endoftext|>", "<|padding|>", "</s>"])
    )
).map("".join)


def train_json(path: Path, special_tokens: tuple[str, ...] = ("<|endoftext|>",), vocab_size: int = 300) -> Path:
    """Train a tokenizer.json of GPT-2's kind, and return the path."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="module")
def tokenizer_json(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a tiny tokenizer.json with 300 tokens, of which `<|endoftext|>` is the first."""
    return train_json(tmp_path_factory.mktemp("json") / "tokenizer.json")


@pytest.fixture(scope="module")
def of_bytes(tokenizer_json: Path) -> Tokenizer:
    """Return the tokenizer of that file."""
    return Tokenizer(tokenizer_model=tokenizer_json)


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


def test_pieces_that_llama2c_does_not_merge_are_not_exported(tmp_path: Path) -> None:
    path = train_tokenizer(tmp_path / "tokenizer.model", vocab_size=330, model_type="unigram")
    with pytest.raises(
        TokenizerError, match=r"llama2\.c merges pairs of pieces \(bpe\), and its kind is unigram"
    ) as caught:
        Tokenizer(tokenizer_model=path).export(tmp_path / "tokenizer.bin")
    assert str(path) in str(caught.value)
    assert not (tmp_path / "tokenizer.bin").exists()


def test_special_pieces_with_other_ids_are_not_exported(tmp_path: Path) -> None:
    path = train_tokenizer(tmp_path / "tokenizer.model", pad_id=0, unk_id=1, bos_id=2, eos_id=3)
    tokenizer = Tokenizer(tokenizer_model=path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (2, 3, 0)
    with pytest.raises(
        TokenizerError, match="0, 1 and 2 for unknown, begin and end, and its special pieces have other"
    ):
        tokenizer.export(tmp_path / "tokenizer.bin")


# ------------------------------------------------------------------------------------------------- tokenizer.json


@settings(max_examples=200)
@given(text=any_text)
def test_bytes_give_back_every_text(of_bytes: Tokenizer, text: str) -> None:
    ids = of_bytes.encode(text, bos=True, eos=True)
    assert of_bytes.decode(ids) == text
    assert (ids[0], ids[-1]) == (0, 0)
    assert 0 not in ids[1:-1]  # a special token in a text is text


@pytest.mark.parametrize("text", (*ODD_TEXTS, "a<|endoftext|>b", "<|endoftext|>", SPACE, "\0"))
def test_bytes_give_back_odd_text(tokenizer_json: Path, text: str) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_json)
    ids = tokenizer.encode(text, bos=False, eos=False)
    assert tokenizer.decode([0, *ids, 0, 0]) == text
    assert 0 not in ids


def test_the_ids_of_a_tokenizer_json(tokenizer_json: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_json)
    assert (tokenizer.n_words, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (300, 0, 0, 0)
    assert tokenizer.sp_model is None


@pytest.mark.parametrize("max_len", [1, 2, 3, 7])
def test_a_tokenizer_json_cuts_as_a_model_does(tokenizer_json: Path, max_len: int) -> None:
    whole = Tokenizer(tokenizer_model=tokenizer_json).encode(SENTENCES[0], bos=True, eos=True)
    cut = Tokenizer(max_len, tokenizer_json).encode(SENTENCES[0], bos=True, eos=True)
    assert cut == [*whole[: max(max_len - 1, 1)], 0][:max_len]


@pytest.mark.parametrize(
    ("special_tokens", "ids"),
    [
        (("<|endoftext|>", "<|padding|>"), (0, 0, 1)),
        (("<unk>", "<s>", "</s>", "<pad>"), (1, 2, 3)),
        (("<|end_of_text|>", "<|begin_of_text|>"), (1, 0, 0)),
        (("<|im_start|>", "<|endoftext|>"), (1, 1, 1)),
        (("<s>", "<|endoftext|>"), (1, 1, 1)),  # a beginning without its end is none
    ],
)
def test_special_tokens_are_known_by_their_names(
    tmp_path: Path, special_tokens: tuple[str, ...], ids: tuple[int, int, int]
) -> None:
    tokenizer = Tokenizer(tokenizer_model=train_json(tmp_path / "tokenizer.json", special_tokens))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == ids
    text = "A <s>dog</s><|endoftext|>"
    assert tokenizer.decode([*tokenizer.encode(text, bos=True, eos=True), tokenizer.pad_id]) == text


@pytest.mark.parametrize(
    ("config", "ids"),
    [
        ({}, (0, 0, 0)),
        ({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"}, (1, 2, 2)),
        ({"bos_token": None, "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}, (2, 2, 0)),
        ({"eos_token": {"content": "<|im_end|>", "lstrip": False}, "model_max_length": 8}, (0, 2, 2)),
    ],
)
def test_the_config_beside_a_tokenizer_json_names_its_special_tokens(
    tmp_path: Path, config: dict[str, object], ids: tuple[int, int, int]
) -> None:
    path = train_json(tmp_path / "tokenizer.json", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_model=path)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == ids


def test_a_token_that_only_the_config_calls_special_is_so(tokenizer_json: Path, tmp_path: Path) -> None:
    foreign = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    foreign.add_tokens(["<end>"])
    foreign.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>"}', encoding="utf-8")
    tokenizer = Tokenizer(tokenizer_model=tmp_path / "tokenizer.json")
    ids = tokenizer.encode("a <end> b", bos=True, eos=True)
    assert (tokenizer.n_words, tokenizer.eos_id, ids[-1]) == (301, 300, 300)
    assert 300 not in ids[:-1]
    assert tokenizer.decode(ids) == "a <end> b"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"eos_token": "<|gone|>"}', "eos_token is '<|gone|>', which tokenizer.json does not have: fetch both again"),
        ('{"pad_token": 3}', "pad_token is 3, and must be the text of a token: fetch it again"),
        ('{"bos_token": {"content": ["a"]}}', "must be the text of a token: fetch it again"),
        ("[]", "is no JSON that describes a tokenizer (no object): fetch it again"),
        ('{"eos_token": ', "is no JSON that describes a tokenizer"),
        ("[" * 100_000, "is no JSON that describes a tokenizer"),
    ],
)
def test_a_config_that_cannot_be_used_is_an_error(
    tokenizer_json: Path, tmp_path: Path, content: str, text: str
) -> None:
    shutil.copy(tokenizer_json, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(content, encoding="utf-8")
    with pytest.raises(TokenizerError) as caught:
        Tokenizer(tokenizer_model=tmp_path / "tokenizer.json")
    assert text in str(caught.value)
    assert str(tmp_path / "tokenizer_config.json") in str(caught.value)


def test_a_tokenizer_json_without_a_known_end_is_an_error(tmp_path: Path) -> None:
    path = train_json(tmp_path / "tokenizer.json", ("<mask>",))
    with pytest.raises(
        TokenizerError, match=r"no token for the end .* name it as eos_token in a tokenizer_config.json"
    ):
        Tokenizer(tokenizer_model=path)


def test_what_a_tokenizer_json_asks_for_besides_the_ids_is_not_done(tokenizer_json: Path, tmp_path: Path) -> None:
    """A file may ask to cut texts, to fill them up, and to put special tokens around them."""
    foreign = tokenizers.Tokenizer.from_file(str(tokenizer_json))
    foreign.enable_truncation(4)
    foreign.enable_padding(length=64, pad_token="<|endoftext|>")
    foreign.post_processor = tokenizers.processors.TemplateProcessing("<|endoftext|> $A", None, [("<|endoftext|>", 0)])
    foreign.save(str(tmp_path / "tokenizer.json"))
    ours, plain = Tokenizer(tokenizer_model=tmp_path / "tokenizer.json"), Tokenizer(tokenizer_model=tokenizer_json)
    assert ours.encode(SENTENCES[0], bos=False, eos=False) == plain.encode(SENTENCES[0], bos=False, eos=False)


def test_a_tokenizer_json_has_as_many_words_as_its_largest_id_needs(tokenizer_json: Path, tmp_path: Path) -> None:
    content = json.loads(tokenizer_json.read_text(encoding="utf-8"))
    vocabulary = content["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 320
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert Tokenizer(tokenizer_model=tmp_path / "tokenizer.json").n_words == 321


def test_a_tokenizer_json_is_not_exported(tokenizer_json: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TokenizerError, match="merges bytes by rules, and llama2.c's tokenizer.bin holds pieces"
    ) as caught:
        Tokenizer(tokenizer_model=tokenizer_json).export(tmp_path / "tokenizer.bin")
    assert str(tokenizer_json) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 1, 100, 2000, -1])
def test_a_cut_tokenizer_json_is_an_error(tokenizer_json: Path, tmp_path: Path, length: int) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(tokenizer_json.read_bytes()[:length])
    with pytest.raises(TokenizerError, match="is no tokenizer.json, or damaged .*fetch it again") as caught:
        Tokenizer(tokenizer_model=path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"{}", b"null", b"[" * 100_000, b"\xff\xfe", b"<!DOCTYPE html>", b'{"model": {}}'])
def test_noise_is_no_tokenizer_json(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="is no tokenizer.json, or damaged .*fetch it again"):
        Tokenizer(tokenizer_model=path)


def test_without_its_package_a_tokenizer_json_is_an_error_with_the_line_that_installs_it(
    tokenizer_json: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(
        MissingDependency, match="reading tokenizer.json needs tokenizers: run `pip install tokenizers`"
    ):
        Tokenizer(tokenizer_model=tokenizer_json)


# -------------------------------------------------------------------------------------------- beside a checkpoint


def test_the_tokenizer_of_a_folder_is_the_one_in_it(
    tokenizer_model: Path, tokenizer_json: Path, tmp_path: Path
) -> None:
    shutil.copy(tokenizer_json, tmp_path)
    assert Tokenizer(tokenizer_model=tmp_path).path == tmp_path / "tokenizer.json"
    shutil.copy(tokenizer_model, tmp_path)
    assert Tokenizer(tokenizer_model=tmp_path).path == tmp_path / "tokenizer.model"


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"holds no tokenizer \(tokenizer.model, .*name another folder") as caught:
        Tokenizer(tokenizer_model=tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_a_checkpoint_that_is_a_folder_holds_its_tokenizer(
    tokenizer_model: Path, tokenizer_json: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    train_tokenizer(tmp_path / "tokenizer.model", vocab_size=300)  # beside the folder, and none of it
    with pytest.raises(TokenizerError, match=r"no tokenizer with 300 pieces lies in .*checkpoint: put"):
        find_tokenizer(folder, 300)
    shutil.copy(tokenizer_model, folder)
    shutil.copy(tokenizer_json, folder)
    assert find_tokenizer(folder, 300).path == folder / "tokenizer.json"
    assert find_tokenizer(folder, 400).path == folder / "tokenizer.model"


def test_a_tokenizer_that_needs_a_package_does_not_hide_one_that_does_without(
    tokenizer_model: Path, tokenizer_json: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    shutil.copy(tokenizer_json, tmp_path)
    with pytest.raises(MissingDependency, match="pip install tokenizers"):
        find_tokenizer(tmp_path / "model.pt", 400)
    shutil.copy(tokenizer_model, tmp_path / "tok400.model")
    assert find_tokenizer(tmp_path / "model.pt", 400).path == tmp_path / "tok400.model"


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


@pytest.mark.parametrize("name", ["gone.model", "gone.bin", "gone.json"])
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
    [
        ("gone.model", "does not exist"),
        ("noise.model", "is no SentencePiece model"),
        ("tok.bin", "name a .model file"),
        ("tokenizer.json", "cannot be exported for llama2.c"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_nothing(
    tokenizer_json: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    for noise in ("noise.model", "tok.bin"):
        (tmp_path / noise).write_bytes(b"noise")
    shutil.copy(tokenizer_json, tmp_path)
    assert main(["--tokenizer-model", str(tmp_path / name)]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(f"error: {tmp_path / name}")
    assert text in output.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noise.model", "tok.bin", "tokenizer.json"]


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
    with pytest.raises(TokenizerError, match="tokenizer.model is no SentencePiece model .*; tok-good.model has"):
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

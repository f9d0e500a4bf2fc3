"""pretrain/export.py and the writers of each form: run with `pytest tests/test_pretrain_export.py`.

What is written is read back by the programs that it is for: transformers, and llama.cpp (the package xllamacpp).
"""

import errno
import json
import random
import struct
import sys
import urllib.request
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from checkpoint import read_checkpoint, write_directory
from errors import CheckpointError, MinLlamaError, MissingDependency, TokenizerError, UsageError
from llama import Llama, load_pretrained
from pretrain import export_gguf, export_hf, export_llama2c, vocabulary
from pretrain.export import export
from pretrain.pieces import merges_of, read_pieces
from tests.assets_dir import require_asset
from tests.tiny import SENTENCES, random_llama, random_tokens, train_tokenizer, write_bin
from tests.tiny_pretrain import stories
from tokenizer import Tokenizer

PROMPTS = ("Once upon a time", "Lily met a cat", "They played", "The")
# Spaces at odd places, signs that SentencePiece or a special token uses, scripts, and characters without a piece.
ODD = (
    *("", " ", "  ", " leading", "trailing ", "two  three   four    ", "\n", "a\nb\n\n\nc", "\t\ttabs", "\r\nDOS\r\n"),
    *("Zoë said: “héllo”…", "日本語", "Mixed日本English", "🙂 👩‍👩‍👧", "\u0301combining e\u0301", "ﷺ ½ Ⅷ ١٢٣"),
    *("<s>", "</s> <unk> <pad>", "<0x41> <0x", "<|endoftext|>", "\u2581\u2581 x", "\u00a0\u2003\u200b\ufeff"),
    *("12345 3.14 1,000,000", "!!!!!!! ........ ---", "aaaaaaaaaaa", "I'll DON'T we're 'S", "x" * 60, "the the  the"),
    *("snake_case(x)", "\U0010ffff", "\x00\x1f\x7f"),
)


def random_texts(count: int = 150) -> list[str]:
    """Return texts of letters, signs, white space and characters from everywhere."""
    draw = random.Random(0)
    letters = "aaabcdeilnorst  ,.!'\n\tABLT015<é日🙂\u2581"
    texts = ["".join(draw.choices(letters, k=draw.randint(1, 40))) for _ in range(count)]
    planes = [chr(code) for code in (*range(0x250), *range(0x2000, 0x2100), *range(0x1F600, 0x1F610), 0x1D4D0, 0x20000)]
    return texts + ["".join(draw.choices(planes, k=draw.randint(1, 20))) for _ in range(count)]


TEXTS = [*ODD, *random_texts(), stories()[:2000]]


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Tokenizer]:
    """Return a function that trains a tokenizer of a kind on the stories, once."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "stories.txt").write_text(stories() + "\n".join(SENTENCES), encoding="utf-8")

    @cache
    def train(kind: str, ids: str = "llama") -> Tokenizer:
        size = {"word": 30, "char": 30, "unigram": 320}.get(kind, 340)
        return vocabulary.train([folder / "stories.txt"], kind, size, folder / f"{kind}-{ids}", ids=ids)

    return train


def make_checkpoint(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    """Save a random model with a tokenizer, as a directory."""
    model = random_llama(vocab_size=tokenizer.n_words, **({"max_seq_len": 64} | changes))
    write_directory(folder, model.config, model.state_dict(), tokenizer.path)
    return folder


def real_checkpoint(folder: Path) -> Path:
    """Return stories260K with its tokenizer, in a folder of their own."""
    folder.mkdir()
    for name in ("stories260K.bin", "tok512.bin"):
        (folder / name).write_bytes(require_asset(name).read_bytes())
    return folder / "stories260K.bin"


def continuation(model: Llama, ids: list[int], length: int, end: int | None = None) -> list[int]:
    """Return our greedy continuation, up to the end of the text."""
    new: list[int] = model.generate(torch.tensor([ids]), length, temperature=0.0)[0, len(ids) :].tolist()
    return new[: new.index(end)] if end in new else new


# -------------------------------------------------------------------------------------------------------- transformers


def their_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def their_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def their_continuation(model: Any, ids: list[int], length: int) -> list[int]:
    """Return transformers' greedy continuation, without the ids that end a text."""
    idx = torch.tensor([ids])
    out = model.generate(idx, attention_mask=torch.ones_like(idx), max_new_tokens=length, do_sample=False)
    new: list[int] = out[0, len(ids) :].tolist()
    return new[:-1] if new[-1] == model.config.eos_token_id else new


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_word_embeddings": False, "hidden_dim": 50, "rope_theta": 500.0, "layer_norm_eps": 1e-3, "n_kv_heads": 1},
    ],
    ids=["tied", "untied"],
)
def test_transformers_reads_the_folder_and_answers_the_same(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], changes: dict[str, Any]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"), **changes)
    ours, theirs = load_pretrained(checkpoint), their_model(export(checkpoint, "hf", tmp_path / "theirs"))
    tokens = random_tokens(3, 64, ours.vocab_size)
    torch.testing.assert_close(theirs(tokens).logits, ours(tokens, targets=tokens)[0], atol=1e-4, rtol=1e-5)
    ids = tokens[0, :8].tolist()
    assert their_continuation(theirs, ids, 50) == continuation(ours, ids, 50, end=2)
    assert theirs.dtype == torch.float32


def test_greedy_text_of_real_weights_is_that_of_transformers(tmp_path: Path) -> None:
    checkpoint = real_checkpoint(tmp_path / "ours")
    folder = export(checkpoint, "hf", tmp_path / "theirs")
    ours, theirs = load_pretrained(checkpoint), their_model(folder)
    tokenizer, their_tok = Tokenizer(tokenizer_model=tmp_path / "ours" / "tok512.bin"), their_tokenizer(folder)
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, bos=True, eos=False)
        new = continuation(ours, ids, 60, end=2)
        assert their_tok(prompt)["input_ids"] == ids
        assert their_continuation(theirs, ids, 60) == new
        assert their_tok.decode(ids + new, skip_special_tokens=True) == tokenizer.decode(ids + new)
    assert [text for text in TEXTS if their_tok(text)["input_ids"] != tokenizer.encode(text, bos=True, eos=False)] == []


@pytest.mark.parametrize(
    ("kind", "ids"),
    [
        *(("bpe", "llama"), ("bpe", "mp-acl"), ("unigram", "llama"), ("unigram", "mp-acl")),
        *(("char", "llama"), ("byte-bpe", "llama")),
    ],
)
def test_their_tokenizer_gives_the_same_ids_for_every_text(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], kind: str, ids: str
) -> None:
    tokenizer = tokenizers(kind, ids)
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer)
    theirs = their_tokenizer(export(checkpoint, "hf", tmp_path / "theirs"))
    for text in TEXTS:
        assert theirs(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text, bos=False, eos=False), text
        assert theirs(text)["input_ids"] == tokenizer.encode(text, bos=True, eos=False), text
    assert (theirs.bos_token_id, theirs.eos_token_id) == (tokenizer.bos_id, tokenizer.eos_id)
    assert theirs.pad_token_id == (0 if ids == "mp-acl" else None)
    assert len(theirs) == tokenizer.n_words


@pytest.mark.parametrize("kind", ["bpe", "unigram", "byte-bpe"])
def test_their_tokenizer_gives_the_text_back(tmp_path: Path, tokenizers: Callable[..., Tokenizer], kind: str) -> None:
    tokenizer = tokenizers(kind)
    theirs = their_tokenizer(export(make_checkpoint(tmp_path / "ours", tokenizer), "hf", tmp_path / "theirs"))
    for text in TEXTS:
        if "\0" not in text:  # padding, to ours
            ids = tokenizer.encode(text, bos=True, eos=True)
            assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)


def test_llamas_own_tokenizer_gives_the_same_ids_there(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=require_asset("tokenizer.model"))
    theirs = export_hf._their_tokenizer(tokenizer)
    theirs.encode_special_tokens = True
    for text in TEXTS:
        assert theirs.encode(text).ids == tokenizer.encode(text, bos=True, eos=False), text


def test_the_folder_is_read_back_exactly(tmp_path: Path, tokenizers: Callable[..., Tokenizer]) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"), hidden_dim=50, multiple_of=32)
    folder = export(checkpoint, "hf", tmp_path / "theirs")
    (config, tensors), (again, read) = read_checkpoint(checkpoint), read_checkpoint(folder)
    assert again == config
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    assert Tokenizer(tokenizer_model=folder).path == folder / "tokenizer.model"


def test_an_empty_folder_may_be_filled_and_any_other_is_left_alone(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"))
    (tmp_path / "empty").mkdir()
    export(checkpoint, "hf", tmp_path / "empty")
    for out in (checkpoint, tmp_path / "empty"):
        with pytest.raises(UsageError, match="is not empty: name a new folder"):
            export(checkpoint, "hf", out)


# ----------------------------------------------------------------------------------------------------------- llama.cpp


class LlamaCpp:
    """llama.cpp's server with one model, in this process."""

    def __init__(self, path: Path) -> None:
        """Load a GGUF file; everything in float32, on one thread."""
        xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp compares: pip install xllamacpp")
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_parallel, params.warmup, params.verbosity, params.n_ctx = 1, False, 0, 0  # 0: the model's context
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self.server = xllamacpp.Server(params)
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def post(self, endpoint: str, **body: Any) -> Any:
        """Return the answer to a request."""
        url = f"{self.server.listening_address}/{endpoint}"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=60) as answer:
            return json.loads(answer.read())

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, as they are put before the model."""
        ids: list[int] = self.post("tokenize", content=text, add_special=True, parse_special=False)["tokens"]
        return ids

    def continuation(self, prompt: str | list[int], length: int) -> tuple[list[int], str]:
        """Return the ids and the text of the greedy continuation."""
        answer = self.post(
            "completion", prompt=prompt, n_predict=length, temperature=0, return_tokens=True, cache_prompt=False
        )
        return answer["tokens"], answer["content"]


def test_greedy_text_of_real_weights_is_that_of_llama_cpp(tmp_path: Path) -> None:
    checkpoint = real_checkpoint(tmp_path / "ours")
    theirs = LlamaCpp(export(checkpoint, "gguf", tmp_path / "theirs.gguf"))
    ours, tokenizer = load_pretrained(checkpoint), Tokenizer(tokenizer_model=tmp_path / "ours" / "tok512.bin")
    for prompt in PROMPTS:
        ids = tokenizer.encode(prompt, bos=True, eos=False)
        new = continuation(ours, ids, 60, end=2)
        assert theirs.ids(prompt) == ids
        assert theirs.continuation(prompt, 60) == (new, tokenizer.decode(ids + new).removeprefix(prompt))
    assert [text for text in TEXTS if theirs.ids(text) != tokenizer.encode(text, bos=True, eos=False)] == []


@pytest.mark.parametrize(("kind", "ids"), [("bpe", "llama"), ("bpe", "mp-acl"), ("byte-bpe", "llama")])
def test_llama_cpp_gives_the_same_ids_and_the_same_greedy_ids(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], kind: str, ids: str
) -> None:
    tokenizer = tokenizers(kind, ids)
    changes = {"tie_word_embeddings": False, "rope_theta": 500.0, "hidden_dim": 50} if ids == "mp-acl" else {}
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer, **changes)
    theirs = LlamaCpp(export(checkpoint, "gguf", tmp_path / "theirs.gguf"))
    assert [text for text in TEXTS if theirs.ids(text) != tokenizer.encode(text, bos=True, eos=False)] == []
    ours = load_pretrained(checkpoint)
    for seed in range(3):
        prompt = [tokenizer.bos_id, *random_tokens(1, 7, tokenizer.n_words, seed=seed)[0].tolist()]
        new, _ = theirs.continuation(prompt, 50)
        expected = continuation(ours, prompt, 50, end=tokenizer.eos_id)
        assert new[: len(expected)] == expected


def test_a_byte_level_tokenizer_cuts_words_as_llama_cpp_does(tmp_path: Path) -> None:
    """Pieces of every mixture of characters, so that each place where text is cut shows in the ids."""
    draw = random.Random(1)
    signs = "aàb \n\r\t.!'sSdDlLmMtTreve12٣½Ⅷ日🙂\u2003\u00a0\u0301-\x1c\x85\u180e\u200b𑶡ᅮ\ufeff_ǅʰ〇²"
    lines = ["".join(draw.choices(signs, k=60)).strip() for _ in range(1500)]
    (tmp_path / "lines.txt").write_text("\n<|endoftext|>\n".join(lines), encoding="utf-8", newline="\n")
    tokenizer = vocabulary.train([tmp_path / "lines.txt"], "byte-bpe", 1500, tmp_path / "tokenizer")
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer)
    theirs = LlamaCpp(export(checkpoint, "gguf", tmp_path / "theirs.gguf"))
    texts = ["".join(draw.choices(signs, k=draw.randint(1, 30))) for _ in range(300)]
    assert [text for text in texts if theirs.ids(text) != tokenizer.encode(text, bos=True, eos=False)] == []


# ------------------------------------------------------------------------------------------------------------ llama2.c


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_the_export_for_llama2c_is_read_back_exactly(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], tied: bool
) -> None:
    tokenizer = tokenizers("bpe")
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer, tie_word_embeddings=tied, multiple_of=32)
    path = export(checkpoint, "llama2c", tmp_path / "theirs" / "model.bin")
    (config, tensors), (again, read) = read_checkpoint(checkpoint), read_checkpoint(path)
    assert again == config
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())
    theirs = Tokenizer(tokenizer_model=tmp_path / "theirs" / "tokenizer.bin")
    assert [text for text in TEXTS if theirs.encode(text, True, True) != tokenizer.encode(text, True, True)] == []


def test_the_export_for_llama2c_is_what_another_writer_makes_of_it(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer]
) -> None:
    """But for RoPE's tables, which no reader uses; ours are what llama2.c writes: cosines, then sines."""
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"))
    ours = export(checkpoint, "llama2c", tmp_path / "ours.bin").read_bytes()
    other = write_bin(tmp_path / "other.bin", load_pretrained(checkpoint)).read_bytes()
    tables = 64 * 4 * 4  # bytes in one: max_seq_len · head_dim / 2 numbers
    assert len(ours) == len(other)
    assert ours[: -2 * tables] == other[: -2 * tables]
    assert struct.unpack("<4f", ours[-2 * tables :][:16]) == (1.0, 1.0, 1.0, 1.0)
    position_1 = struct.unpack("<4f", ours[-tables:][16:32])
    assert position_1 == pytest.approx((0.841471, 0.099833, 0.0099998, 0.001), rel=1e-4)  # sin(10000^(-i / 4))


def test_the_export_of_real_weights_has_their_bytes_again(tmp_path: Path) -> None:
    checkpoint = real_checkpoint(tmp_path / "ours")
    content = export(checkpoint, "llama2c", tmp_path / "out" / "again.bin").read_bytes()
    original = checkpoint.read_bytes()
    tables = 2 * 512 * 4 * 4
    assert len(content) == len(original)
    assert content[:-tables] == original[:-tables]
    ours, theirs = (torch.frombuffer(bytearray(part[-tables:]), dtype=torch.float32) for part in (content, original))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=0)
    original_tokenizer = (checkpoint.parent / "tok512.bin").read_bytes()
    assert (tmp_path / "out" / "tokenizer.bin").read_bytes() == original_tokenizer


def test_two_models_of_one_tokenizer_may_lie_in_one_folder_and_of_two_not(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer]
) -> None:
    first = make_checkpoint(tmp_path / "first", tokenizers("bpe"))
    export(first, "llama2c", tmp_path / "out" / "a.bin")
    export(first, "llama2c", tmp_path / "out" / "b.bin")
    other = train_tokenizer(tmp_path / "tokenizer.model", unk_id=0)
    second = make_checkpoint(tmp_path / "second", Tokenizer(tokenizer_model=other))
    with pytest.raises(UsageError, match=r"tokenizer\.bin is there already, and is another model's"):
        export(second, "llama2c", tmp_path / "out" / "c.bin")
    assert not (tmp_path / "out" / "c.bin").exists()


# ----------------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"position_embedding_type": "alibi"}, "tells positions by ALiBi, where {} rotates queries and keys"),
        ({"causal": False}, "was trained without a causal mask, where {} has one"),
    ],
)
@pytest.mark.parametrize(
    ("form", "name", "program"),
    [("hf", "out", "transformers"), ("gguf", "out.gguf", "llama.cpp"), ("llama2c", "out.bin", "llama2.c")],
)
def test_a_model_that_no_other_program_runs_is_refused(
    tmp_path: Path,
    tokenizers: Callable[..., Tokenizer],
    changes: dict[str, Any],
    text: str,
    form: str,
    name: str,
    program: str,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"), **changes)
    with pytest.raises(CheckpointError) as caught:
        export(checkpoint, form, tmp_path / name)
    before, after = text.split("{}")
    assert before in str(caught.value)
    assert after in str(caught.value)
    assert program in str(caught.value)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("form", "name", "kind", "text"),
    [
        ("hf", "out", "word", "cuts text into words"),
        ("gguf", "out.gguf", "unigram", "llama.cpp has no unigram tokenizer"),
        ("gguf", "out.gguf", "word", "llama.cpp has no word tokenizer"),
        ("gguf", "out.gguf", "char", "llama.cpp has no char tokenizer"),
        ("llama2c", "out.bin", "unigram", "its kind is unigram"),
        ("llama2c", "out.bin", "word", "its kind is word"),
        ("llama2c", "out.bin", "char", "its kind is char"),
        ("llama2c", "out.bin", "byte-bpe", "it merges bytes by rules"),
    ],
)
def test_a_tokenizer_that_a_form_cannot_hold_is_refused(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], form: str, name: str, kind: str, text: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers(kind))
    with pytest.raises(TokenizerError, match=text) as caught:
        export(checkpoint, form, tmp_path / name)
    assert "rain one with --type" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_other_ids_of_special_pieces_are_nothing_for_llama2c(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer]
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe", "mp-acl"))
    with pytest.raises(TokenizerError, match="its special pieces have other ids"):
        export(checkpoint, "llama2c", tmp_path / "out.bin")


@pytest.mark.parametrize(
    ("options", "forms", "text"),
    [
        ({"normalization_rule_name": "nmt_nfkc"}, ("hf", "gguf", "llama2c"), "it changes the text first"),
        ({"remove_extra_whitespaces": True}, ("hf", "gguf", "llama2c"), "it changes the text first"),
        ({"treat_whitespace_as_suffix": True}, ("hf", "gguf", "llama2c"), "it puts the space behind a word"),
        (
            {"user_defined_symbols": ["<chat>"]},
            ("hf", "gguf", "llama2c"),
            "it has pieces of the user's own, as '<chat>'",
        ),
        ({"add_dummy_prefix": False}, ("llama2c",), "llama2.c puts a space before a text"),
        ({"byte_fallback": False, "vocab_size": 90}, ("gguf",), "llama.cpp has no bpe tokenizer that spells"),
        (
            {"byte_fallback": False, "vocab_size": 90},
            ("llama2c",),
            "with the ids 3 to 258, and this tokenizer has other",
        ),
    ],
)
def test_a_tokenizer_with_other_settings_is_refused(
    tmp_path: Path, options: dict[str, Any], forms: tuple[str, ...], text: str
) -> None:
    tokenizer = Tokenizer(tokenizer_model=train_tokenizer(tmp_path / "tokenizer.model", **options))
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer)
    for form in forms:
        with pytest.raises(TokenizerError, match=text):
            export(checkpoint, form, tmp_path / {"hf": "out", "gguf": "out.gguf", "llama2c": "out.bin"}[form])


def test_a_tokenizer_that_puts_no_space_in_front_is_the_same_elsewhere(tmp_path: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=train_tokenizer(tmp_path / "tokenizer.model", add_dummy_prefix=False))
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizer)
    theirs = their_tokenizer(export(checkpoint, "hf", tmp_path / "theirs"))
    llama_cpp = LlamaCpp(export(checkpoint, "gguf", tmp_path / "theirs.gguf"))
    for text in ODD:
        ids = tokenizer.encode(text, bos=True, eos=False)
        assert theirs(text)["input_ids"] == ids, text
        assert llama_cpp.ids(text) == ids, text


def edited_json(tmp_path: Path, tokenizers: Callable[..., Tokenizer], edit: Callable[[Any], None]) -> Path:
    """Return a checkpoint whose tokenizer.json has been changed."""
    content = json.loads(tokenizers("byte-bpe").path.read_text(encoding="utf-8"))
    edit(content)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return make_checkpoint(tmp_path / "ours", Tokenizer(tokenizer_model=tmp_path / "tokenizer.json"))


def other_split(content: Any) -> None:
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\s+|\S+"


def no_split(content: Any) -> None:
    content["pre_tokenizer"] = content["pre_tokenizer"]["pretokenizers"][1]


def split_removed(content: Any) -> None:
    content["pre_tokenizer"]["pretokenizers"][0]["behavior"] = "Removed"


def space_in_front(content: Any) -> None:
    content["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True


def lower_case(content: Any) -> None:
    content["normalizer"] = {"type": "Lowercase"}


def whole_tokens_first(content: Any) -> None:
    content["model"]["ignore_merges"] = True


def word_level(content: Any) -> None:
    content["model"] = {"type": "WordLevel", "vocab": content["model"]["vocab"], "unk_token": "a"}


def token_in_the_text(content: Any) -> None:
    token = content["added_tokens"][0]
    content["added_tokens"].append(
        token | {"id": len(content["model"]["vocab"]), "content": "<chat>", "special": False}
    )


def a_gap_in_the_ids(content: Any) -> None:
    content["model"]["vocab"]["unheard of"] = len(content["model"]["vocab"]) + 5


@pytest.mark.parametrize(
    ("edit", "text"),
    [
        (other_split, "llama.cpp has no name for how it cuts text"),
        (no_split, "llama.cpp has no name for how it cuts text"),
        (split_removed, "llama.cpp has no name for how it cuts text"),
        (space_in_front, "llama.cpp has no name for how it cuts text"),
        (lower_case, "it changes the text first"),
        (whole_tokens_first, r"its model is no plain BPE of bytes \(BPE\)"),
        (word_level, r"its model is no plain BPE of bytes \(WordLevel\)"),
        (token_in_the_text, "it finds whole tokens in a text before it merges"),
        (a_gap_in_the_ids, "it has ids without a token"),
    ],
)
def test_a_tokenizer_json_that_llama_cpp_would_use_differently_is_refused(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], edit: Callable[[Any], None], text: str
) -> None:
    checkpoint = edited_json(tmp_path, tokenizers, edit)
    with pytest.raises(TokenizerError, match=text):
        export(checkpoint, "gguf", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"rope_theta": 500.0}, r"llama2.c has rope_theta = 10000.0 built in, and this model has 500.0"),
        ({"layer_norm_eps": 1e-6}, r"llama2.c has layer_norm_eps = 1e-05 built in, and this model has 1e-06"),
    ],
)
def test_numbers_that_llama2c_has_built_in_are_not_left_out(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], changes: dict[str, Any], text: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"), **changes)
    with pytest.raises(CheckpointError, match=text) as caught:
        export(checkpoint, "llama2c", tmp_path / "out.bin")
    assert "Use --format gguf or hf" in str(caught.value)


@pytest.mark.parametrize(
    ("form", "name", "text"),
    [
        ("onnx", "out", "unknown --format 'onnx': choose one of hf, gguf, llama2c"),
        ("gguf", "out.bin", r"--format gguf writes a \.gguf file: name one"),
        ("llama2c", "out", r"--format llama2c writes a \.bin file: name one"),
        ("hf", "file", "file is a file, and --format hf writes a folder: name another"),
    ],
)
def test_a_path_that_does_not_fit_the_form_is_refused_first(tmp_path: Path, form: str, name: str, text: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=text):
        export(tmp_path / "no checkpoint", form, tmp_path / name)


def test_a_checkpoint_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    model = random_llama()
    write_directory(tmp_path / "ours", model.config, model.state_dict())
    with pytest.raises(TokenizerError, match="no tokenizer with 40 pieces lies in"):
        export(tmp_path / "ours", "hf", tmp_path / "out")


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path, tokenizers: Callable[..., Tokenizer]) -> None:
    model = random_llama(vocab_size=340)
    broken = model.state_dict() | {"norm.weight": torch.full((32,), float("nan"))}
    write_directory(tmp_path / "ours", model.config, broken, tokenizers("bpe").path)
    with pytest.raises(CheckpointError, match=r"norm\.weight holds values that are not finite"):
        export(tmp_path / "ours", "gguf", tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("form", "name", "package"),
    [("gguf", "out.gguf", "gguf"), ("hf", "out", "tokenizers"), ("hf", "out", "protobuf")],
)
def test_a_package_that_is_missing_is_named(
    tmp_path: Path,
    tokenizers: Callable[..., Tokenizer],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
    name: str,
    package: str,
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"))
    if package == "protobuf":  # a part of sentencepiece needs it
        monkeypatch.setitem(sys.modules, "sentencepiece.sentencepiece_model_pb2", None)
        monkeypatch.delattr("sentencepiece.sentencepiece_model_pb2", raising=False)
    else:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependency, match=f"pip install {package}"):
        export(checkpoint, form, tmp_path / name)


@pytest.mark.parametrize(("form", "name"), [("hf", "out"), ("gguf", "out.gguf"), ("llama2c", "out.bin")])
def test_a_full_disk_is_an_error_and_nothing_half_written_is_left(
    tmp_path: Path, tokenizers: Callable[..., Tokenizer], monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    checkpoint = make_checkpoint(tmp_path / "ours", tokenizers("bpe"))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(export_hf, "write_text", full)
    monkeypatch.setattr("gguf.GGUFWriter.write_tensors_to_file", full)
    monkeypatch.setattr(export_llama2c, "_header", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
        export(checkpoint, form, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


# -------------------------------------------------------------------------------------------------------------- pieces


def test_the_merges_of_a_model_put_every_piece_together_again(tokenizers: Callable[..., Tokenizer]) -> None:
    pieces = read_pieces(tokenizers("bpe"))
    merges = merges_of(pieces)
    made = {left + right for left, right in merges}
    assert made == {pieces.texts[i] for i in pieces.normal if len(pieces.texts[i]) > 1}
    scores = {pieces.texts[i]: pieces.scores[i] for i in pieces.normal}
    order = [scores[left + right] for left, right in merges]
    assert order == sorted(order, reverse=True)


def test_every_refusal_is_one_of_the_projects_errors() -> None:
    assert issubclass(TokenizerError, MinLlamaError)
    assert set(export_gguf.SPLITS.values()) == {"dbrx"}
    assert vocabulary.SPLIT in export_gguf.SPLITS

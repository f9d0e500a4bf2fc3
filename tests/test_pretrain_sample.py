"""pretrain/generation.py and pretrain/sample.py: run with `pytest tests/test_pretrain_sample.py`."""

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import inference.generation
from errors import DataError, MinLlamaError, UsageError
from inference.sampling import GREEDY, Sampling
from llama import Llama
from pretrain import generation
from pretrain.generation import (
    DEFAULT_NEW_TOKENS,
    DEFAULT_SAMPLING,
    DEFAULT_SEED,
    continue_prompts,
    set_context,
    stream,
)
from pretrain.sample import add_arguments, read_prompts, run
from tests.assets_dir import require_asset
from tests.tiny import TOKENIZERS, layer_of, random_llama, save_llama, tokenizer_of
from tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = ["Once upon a time", "Tom", "One day, a big dog wanted to play with a little girl named Lily", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(params=TOKENIZERS)
def tokenizer(request: pytest.FixtureRequest, folder: Path) -> Tokenizer:
    return tokenizer_of(request.param, folder)


def model_for(tokenizer: Tokenizer, **changes: Any) -> Llama:
    """Return a random model with the tokenizer's vocabulary: it writes every token there is, broken bytes included."""
    return random_llama(vocab_size=tokenizer.n_words, **changes)


# ---------------------------------------------------------------------------------------------------- continuing


def test_greedy_continuations_of_a_batch_equal_those_of_generate_one_by_one(tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer, max_seq_len=64)
    texts = continue_prompts(model, tokenizer, PROMPTS[:3], max_new_tokens=12, sampling=GREEDY)
    for prompt, text in zip(PROMPTS, texts, strict=False):
        ids = tokenizer.encode(prompt, bos=True, eos=False)
        theirs = model.generate(torch.tensor([ids]), 12, temperature=0.0)[0].tolist()
        if tokenizer.eos_id in theirs[len(ids) :]:
            theirs = theirs[: theirs.index(tokenizer.eos_id, len(ids))]
        assert text == prompt + tokenizer.decode(theirs).removeprefix(tokenizer.decode(ids))


def test_a_row_slides_when_it_outgrows_the_context(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = model_for(tokenizer, max_seq_len=8)
    (text,) = continue_prompts(model, tokenizer, PROMPTS[2:3], max_new_tokens=20, sampling=GREEDY)
    ids = tokenizer.encode(PROMPTS[2], bos=True, eos=False)
    assert len(ids) > 8
    theirs = model.generate(torch.tensor([ids]), 20, temperature=0.0)[0].tolist()
    assert tokenizer.eos_id not in theirs
    assert text == tokenizer.decode(theirs)


@pytest.mark.parametrize("stop", [[], ["e"]], ids=["all tokens", "a stop text"])
def test_a_text_does_not_depend_on_the_other_prompts(stop: list[str], tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer)
    together = continue_prompts(model, tokenizer, PROMPTS, max_new_tokens=15, seed=5, stop=stop)
    for i, prompt in enumerate(PROMPTS):
        assert continue_prompts(model, tokenizer, [prompt], max_new_tokens=15, seed=5 + i, stop=stop) == [together[i]]


def test_more_prompts_than_a_batch_holds_are_continued_in_turns(
    tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = model_for(tokenizer)
    whole = continue_prompts(model, tokenizer, PROMPTS, max_new_tokens=6)
    monkeypatch.setattr(generation, "BATCH_SIZE", 3)
    assert continue_prompts(model, tokenizer, PROMPTS, max_new_tokens=6, show_progress=True) == whole


def test_the_pieces_of_a_stream_are_the_continuation(tokenizer: Tokenizer) -> None:
    model = model_for(tokenizer)
    for seed in range(2):
        for prompt in PROMPTS:
            options: dict[str, Any] = {"max_new_tokens": 12, "seed": seed, "stop": ["e", "zz"]}
            pieces = list(stream(model, tokenizer, prompt, **options))
            assert ["".join(pieces)] == continue_prompts(model, tokenizer, [prompt], **options)
            assert all(pieces)
            if prompt:
                assert pieces[0] == prompt


def test_the_seed_decides_the_text(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = model_for(tokenizer)
    first, again, other = (continue_prompts(model, tokenizer, ["Tom"], max_new_tokens=20, seed=s) for s in (1, 1, 2))
    assert first == again != other
    same = continue_prompts(model, tokenizer, ["Tom", "Tom"], max_new_tokens=20, seed=1)
    assert same[0] != same[1]


def writer_of(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Return a function that continues an empty prompt with the tokens of a given text, whatever the model says."""

    def write(text: str, eos: bool = True, **options: Any) -> list[str]:
        ids = iter(tokenizer.encode(text, bos=False, eos=eos))
        monkeypatch.setattr(inference.generation, "draw", lambda logits, *_: torch.tensor([next(ids)] * len(logits)))
        return list(stream(model_for(tokenizer), tokenizer, "", **options))

    return write


def test_a_text_ends_at_the_end_of_the_sequence_which_is_no_text(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "".join(writer_of(tokenizer, monkeypatch)("the dog")) == "the dog"


def test_a_text_ends_in_front_of_a_stop_text(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    write = writer_of(tokenizer, monkeypatch)
    assert "".join(write("the dog saw a dog", stop=["saw", "a dog"])) == "the dog "
    assert "".join(write("the dog saw", stop=["sawed"])) == "the dog saw"  # held back, and shown in the end
    assert "".join(write("the dog saw", eos=False, stop=["sawed"], max_new_tokens=3)) in "the dog saw"


def test_a_text_ends_after_so_many_tokens(tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    ids = tokenizer.encode("the dog saw", bos=False, eos=False)
    write = writer_of(tokenizer, monkeypatch)
    assert "".join(write("the dog saw", eos=False, max_new_tokens=2)) == tokenizer.decode(ids[:2])
    assert write("the dog saw", max_new_tokens=0) == []


def test_spaces_at_the_end_of_a_prompt_are_left_off(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    model = model_for(tokenizer)
    texts = [continue_prompts(model, tokenizer, [prompt], max_new_tokens=9) for prompt in ("One day, ", "One day,")]
    assert texts[0] == texts[1]


def test_dropout_is_off_while_sampling_and_the_mode_comes_back(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    calm, wild = model_for(tokenizer), model_for(tokenizer, dropout=0.9)
    wild.train()
    texts = [continue_prompts(model, tokenizer, PROMPTS, max_new_tokens=9) for model in (calm, wild)]
    assert texts[0] == texts[1]
    assert wild.training
    assert not calm.training


def test_a_stream_leaves_gradients_on_for_whoever_reads_it(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    for _ in stream(model_for(tokenizer), tokenizer, "Tom", max_new_tokens=2):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()


def test_an_empty_stop_text_is_refused(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    with pytest.raises(ValueError, match="a stop text must not be empty"):
        continue_prompts(model_for(tokenizer), tokenizer, ["Tom"], stop=[".", ""])


def test_real_weights_tell_a_story() -> None:
    from llama import load_pretrained
    from tokenizer import find_tokenizer

    weights = require_asset("stories260K.bin")
    model = load_pretrained(weights)
    tokenizer = find_tokenizer(weights, model.vocab_size)
    (text,) = continue_prompts(model, tokenizer, ["Once upon a time"], max_new_tokens=20, sampling=GREEDY)
    assert text == "Once upon a time, there was a little girl named Lily. She loved to play outsid"


# ---------------------------------------------------------------------------------------------------- the context


def test_an_alibi_model_reads_further_than_it_was_trained(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    short, long = (model_for(tokenizer, max_seq_len=8, position_embedding_type="alibi") for _ in range(2))
    set_context(long, 64)
    texts = [
        continue_prompts(model, tokenizer, PROMPTS[2:3], max_new_tokens=9, sampling=GREEDY) for model in (short, long)
    ]
    assert texts[0] != texts[1]
    ids = tokenizer.encode(PROMPTS[2], bos=True, eos=False)
    assert long(torch.tensor([ids]))[1].shape[1] == len(ids) > 8


def test_a_rotary_model_may_read_less_and_not_more() -> None:
    model = random_llama(max_seq_len=24)
    set_context(model, 12)
    assert model.config.max_seq_len == layer_of(model, 1).attention.max_seq_len == 12
    with pytest.raises(UsageError, match="13 tokens is more than the 12 .* rotary positions"):
        set_context(model, 13)


# ---------------------------------------------------------------------------------------------------- the prompts


def test_prompts_are_lines_whose_spaces_stay(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes("\ufeffOnce upon a time, \r\n\n   \n Tom\u2028x".encode())
    assert read_prompts(path) == ["Once upon a time, ", " Tom\u2028x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ":1: the file holds no prompt: write one on each line"),
        (b" \n\n", ":1: the file holds no prompt"),
        (b"Tom\n\xff\n", ":2: not UTF-8: save the file as UTF-8"),
    ],
)
def test_a_file_without_prompts_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}{message}"):
        read_prompts(path)


def test_a_missing_file_of_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"prompts.txt cannot be read \(No such file or directory\)"):
        read_prompts(tmp_path / "prompts.txt")


# ---------------------------------------------------------------------------------------------------- the command


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


@pytest.fixture
def checkpoint(tmp_path: Path, tokenizer_model: Path) -> Path:
    (tmp_path / "tokenizer.model").write_bytes(tokenizer_model.read_bytes())
    return save_llama(tmp_path / "model.pt", random_llama(vocab_size=400))


def test_the_defaults_of_the_command_are_those_of_the_function() -> None:
    args = parsed("model.pt")
    assert Sampling(temperature=args.temperature, top_p=args.top_p) == DEFAULT_SAMPLING
    assert (args.max_new_tokens, args.seed) == (DEFAULT_NEW_TOKENS, DEFAULT_SEED)


@pytest.mark.parametrize("more", [[], ["--stream"]], ids=["batch", "stream"])
def test_texts_are_printed_and_written_with_a_line_between_them(
    more: list[str], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.txt", tmp_path / "new" / "texts.txt"
    prompts.write_text("Tom\nOnce upon\n", encoding="utf-8")
    options = ["--prompt", "Lily", "--prompts", str(prompts), "--max-new-tokens", "8", "--seed", "3", "--top-k", "20"]
    assert run(parsed(str(checkpoint), *options, "-o", str(out), *more)) == 0
    tokenizer = Tokenizer(tokenizer_model=tmp_path / "tokenizer.model")
    texts = continue_prompts(
        random_llama(vocab_size=400),
        tokenizer,
        ["Lily", "Tom", "Once upon"],
        max_new_tokens=8,
        sampling=Sampling(temperature=0.8, top_k=20, top_p=0.95),
        seed=3,
    )
    captured = capsys.readouterr()
    assert captured.out == "\n<|endoftext|>\n".join(texts) + "\n"
    assert out.read_text(encoding="utf-8") == captured.out
    assert captured.err == f"wrote {out}\n"


def test_without_a_prompt_the_model_begins_by_itself(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed(str(checkpoint), "--max-new-tokens", "5")) == 0
    assert len(capsys.readouterr().out) > 1


def test_a_text_past_the_context_is_announced(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parsed(str(checkpoint), "--max-new-tokens", "9", "--context", "8")) == 0
    assert capsys.readouterr().err.startswith("Past 8 tokens, the model's context,")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-p", "1.5"], "top_p must be above 0 and at most 1, got 1.5"),
        (["--temperature", "-1"], "temperature must be 0, or from 1e-06 up, got -1.0"),
        (["--stop", ""], "--stop needs a text"),
        (["--prompt", "\udc80"], "must be valid UTF-8"),
        (["--prompts", "missing.txt"], "missing.txt cannot be read"),
        (["--context", "25"], "a context of 25 tokens is more than the 24"),
        (["-o", "."], ". is no regular file: name another for --out"),
    ],
)
def test_what_cannot_be_used_is_refused(arguments: list[str], message: str, checkpoint: Path) -> None:
    with pytest.raises(MinLlamaError) as caught:
        run(parsed(str(checkpoint), *arguments))
    assert message in str(caught.value)


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    model = random_llama(vocab_size=400)
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(MinLlamaError, match=r"broken.pt: tensor norm.weight holds values that are not finite"):
        run(parsed(str(save_llama(tmp_path / "broken.pt", model))))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-new-tokens", "0"], "must be at least 1, got 0"),
        (["--max-new-tokens", "x"], "must be a whole number, got 'x'"),
        (["--seed", "-1"], "must be from 0 to 2³² - 1, got -1"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
    ],
)
def test_an_option_that_makes_no_sense_is_explained(
    arguments: Sequence[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parsed("model.pt", *arguments)
    assert message in capsys.readouterr().err


def test_describing_the_options_does_not_wait_for_torch() -> None:
    code = "import sys, pretrain.sample, pretrain.plot; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0

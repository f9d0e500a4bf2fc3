"""`run_llama.py --fast` against the same command without it: run with `pytest tests/test_fast_tasks.py`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import inference.tasks
import run_llama
import tasks
from classifier import LlamaEmbeddingClassifier
from errors import UsageError
from inference.engine import Engine
from inference.fast_adamw import FastAdamW
from inference.tasks import FastClassification
from llama import Llama, load_pretrained
from tests.assets_dir import require_asset
from tests.tiny import random_llama, save_llama
from tests.tiny_run import WEIGHTS, finetuning, prompting
from tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SPEED = r"prefill: \d+ tokens, \d+\.\d tokens/s(; decode: \d+ tokens, \d+\.\d tokens/s)?\n"


def written(*options: str, tokens: int = 12) -> list[str]:
    """Return the texts at temperature 0 and 1 that the command writes."""
    named = [] if "--pretrained-model-path" in options else WEIGHTS
    assert run_llama.main([*named, "--prompt", "Once upon a time", f"--max_new_tokens={tokens}", *options]) == 0
    return [Path(f"generated-sentence-temp-{temperature}.txt").read_text(encoding="utf-8") for temperature in (0, 1)]


# ------------------------------------------------------------------------------------------------ options


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--stream"], "--stream needs --fast: add it"),
        (["--top_k", "3"], "--top_k needs --fast: add it"),
        (["--top_p", "0.9"], "--top_p needs --fast: add it"),
        (["--quantize", "int8"], "--quantize needs --fast: add it"),
        (["--compile", "--option", "finetune"], "--compile needs --fast: add it"),
        (
            ["--fast", "--stream", "--option", "finetune"],
            "--stream is for --option generate, but --option is finetune: leave --stream out",
        ),
        (["--top_k", "3", "--option", "prompt"], "--top_k is for --option generate, but --option is prompt"),
        (["--fast", "--top_p", "0.9", "--option", "prompt"], "--top_p is for --option generate, but --option is"),
        (["--fast", "--quantize", "int8", "--option", "finetune"], "--quantize is for --option generate, but"),
        (["--fast", "--compile", "--option", "prompt"], "--compile is for --option finetune, but --option is prompt"),
        (["--fast", "--compile"], "--compile is for --option finetune, but --option is generate"),
        (["--fast", "--reproduce_2024"], "--fast needs the causal mask, which --reproduce_2024 takes away"),
    ],
)
def test_contradicting_options_are_refused_with_what_to_type(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        run_llama.check_options(run_llama.build_parser().parse_args(argv))


def test_without_the_folder_one_line_says_so(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ROOT / "inference" / "tasks.py" == run_llama.FAST
    monkeypatch.setattr(run_llama, "FAST", workplace / "inference" / "tasks.py")
    assert run_llama.main([*WEIGHTS, "--fast"]) == 2
    error = capsys.readouterr().err
    assert error == "error: --fast needs the folder inference/, which the hand-out does not have: leave --fast out\n"


@pytest.mark.parametrize("option", ["--top_k=0", "--top_p=0"])
def test_numbers_out_of_range_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_llama.main(["--fast", option])
    assert "must be" in capsys.readouterr().err


def test_more_than_all_of_the_probability_is_refused_before_the_weights_are_read(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "load_pretrained", lambda path: pytest.fail("the work has begun"))
    assert run_llama.main([*WEIGHTS, "--fast", "--top_p=1.5"]) == 2
    assert capsys.readouterr().err == "error: --top_p must be above 0 and at most 1, got 1.5\n"


# ------------------------------------------------------------------------------------------------ generate


@pytest.mark.parametrize("seed", ["--seed=1337", "--seed=1"])
@pytest.mark.parametrize("weights", ["stories260K", "storybook"])
def test_the_texts_are_those_of_the_plain_command(
    weights: str, seed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = ROOT / "checkpoints" / "storybook" if weights == "storybook" else require_asset("stories260K.bin")
    monkeypatch.chdir(tmp_path)
    options = ("--pretrained-model-path", str(path), seed)
    assert written(*options, "--fast") == written(*options)


def test_past_the_context_text_and_note_are_the_same(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    vocab_size = Tokenizer(tokenizer_model="model/tokenizer.model").n_words
    save_llama(Path("model/tiny.pt"), random_llama(vocab_size=vocab_size, max_seq_len=16))
    plain = written(tokens=24)
    shown = capsys.readouterr().out
    assert "Past 16 tokens, the model's context, " in shown
    assert written("--fast", tokens=24) == plain
    assert re.sub(SPEED, "", capsys.readouterr().out) == shown


def test_what_is_shown_is_the_plain_output_and_the_speed_of_each_text(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written()
    plain = capsys.readouterr().out
    for options in (["--fast"], ["--fast", "--stream"]):
        written(*options)
        shown = capsys.readouterr().out
        assert len(re.findall(SPEED, shown)) == 2
        assert shown.count("; decode: 11 tokens, ") == 2
        assert re.sub(SPEED, "", shown) == plain
    written("--fast", tokens=1)
    assert "decode" not in capsys.readouterr().out


@pytest.mark.parametrize("prompt", ["Once upon a time", "Café 🙂 ", ""])
def test_a_streamed_text_is_the_same_text(workplace: Path, prompt: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = written("--fast", "--prompt", prompt)
    pieces: list[str] = []

    def spy(piece: str, end: str = "\n", flush: bool = False) -> None:
        if end == "":
            assert flush
            pieces.append(piece)

    monkeypatch.setattr(inference.tasks, "print", spy, raising=False)
    assert written("--fast", "--stream", "--prompt", prompt) == whole
    assert "".join(pieces) == "".join(text.removesuffix("\n") for text in whole)
    assert len(pieces) > 12


def test_ctrl_c_in_a_stream_leaves_no_half_text(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: Any) -> Iterator[list[int]]:
        yield [30]
        raise KeyboardInterrupt

    monkeypatch.setattr(inference.tasks, "generate", stopped)
    assert run_llama.main([*WEIGHTS, "--fast", "--stream", "--max_new_tokens=3"]) == run_llama.INTERRUPTED
    captured = capsys.readouterr()
    assert captured.out.startswith(f"Temperature is 0.0\n{run_llama.PROMPT}")
    assert captured.err == "\nStopped.\n"
    assert not list(Path().glob("generated-*"))


def test_drawing_from_the_likeliest_token_alone_is_greedy(workplace: Path) -> None:
    for filters in ("--top_k=1", "--top_p=1e-9"):
        cold, warm = written("--fast", filters)
        assert cold == warm
    cold, warm = written("--fast")
    assert cold != warm
    assert written("--fast", "--top_k=1000000", "--top_p=1") == [cold, warm]


def test_quantised_weights_still_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ("--pretrained-model-path", str(ROOT / "checkpoints" / "storybook"), "--fast", "--quantize=int8")
    assert all(text.startswith("Once upon a time") for text in written(*options))


# ------------------------------------------------------------------------------------------------ prompt


def test_zero_shot_predictions_are_those_of_the_plain_command(workplace: Path) -> None:
    contents = []
    for more in ([], ["--fast"]):
        assert run_llama.main(prompting(*more)) == 0
        contents.append([Path(f"demo-{split}-prompting-output.txt").read_bytes() for split in ("dev", "test")])
    assert contents[0] == contents[1]


def test_the_engine_gets_the_weights_that_were_asked_for(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []

    def spied(llama: Llama, quantize: Any) -> Engine:
        asked.append(quantize)
        return Engine(llama, quantize)

    monkeypatch.setattr(inference.tasks, "Engine", spied)
    written("--fast", tokens=1)
    written("--fast", "--quantize", "int8", tokens=1)
    assert asked == [None, "int8"]


def test_a_text_that_ends_inside_a_character_is_the_same_text(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(tokenizer_model=workplace / "model" / "tokenizer.model")
    first_byte = tokenizer.sp_model.piece_to_id("<0xC3>")  # of two
    monkeypatch.setattr(Llama, "forward", lambda self, tokens: (one_hot(first_byte, self.vocab_size), None))
    monkeypatch.setattr(Engine, "prefill", lambda self, *_: one_hot(first_byte, self.config.vocab_size)[:, 0])
    (plain, _), (fast, _) = written(tokens=1), written("--fast", tokens=1)
    assert fast == plain and plain.endswith("\ufffd\n")


def one_hot(token: int, vocab_size: int) -> torch.Tensor:
    """Return logits that leave no other choice, of shape (1, 1, vocab_size)."""
    return torch.full((1, 1, vocab_size), -1e9).index_fill(2, torch.tensor(token), 1e9)


@pytest.mark.parametrize("more", [[], ["--fast"], ["--fast", "--quantize", "int8"]])
def test_weights_that_are_no_numbers_are_refused(
    more: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_pretrained(workplace / WEIGHTS[1])
    model.norm.weight.data[0] = float("nan")
    save_llama(workplace / "broken.pt", model)
    assert run_llama.main(["--pretrained-model-path", "broken.pt", *more]) == 2
    assert "tensor norm.weight holds values that are not finite" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ finetune


def epochs_of(printed: str) -> list[str]:
    """Return the lines about the epochs in what a finetuning printed."""
    return re.findall(r"^epoch .*", printed, re.MULTILINE)


def stopped_after_an_epoch(monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    """Finetune until the first epoch is saved."""

    def stop(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(tasks, "print", stop, raising=False)
        patch.setattr(tasks, "_start_or_resume", lambda *_: None)
        assert run_llama.main(finetuning(*more)) == run_llama.INTERRUPTED


def test_a_finetuning_takes_the_same_course(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    courses, outputs = [], []
    for more in ([], ["--fast"]):
        assert run_llama.main(finetuning(*more)) == 0
        numbers = re.findall(r"\d\.\d{3}", " ".join(epochs_of(capsys.readouterr().out)))
        courses.append([float(number) for number in numbers])
        outputs.append([Path(f"demo-{split}-finetuning-output.txt").read_bytes() for split in ("dev", "test")])
    assert len(courses[0]) == 9
    assert courses[1] == pytest.approx(courses[0], abs=2e-3)
    assert outputs[0] == outputs[1]


def test_a_stopped_finetuning_resumes_to_the_same_result(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_llama.main(finetuning("--fast")) == 0
    whole = epochs_of(capsys.readouterr().out)
    stopped_after_an_epoch(monkeypatch, "--fast")
    assert run_llama.main(finetuning("--fast", "--resume")) == 0
    printed = capsys.readouterr().out
    assert "Resumed " in printed
    assert epochs_of(printed) == whole


@pytest.mark.parametrize(("first", "second"), [(["--fast"], []), ([], ["--fast"])], ids=["fast", "plain"])
def test_a_stopped_finetuning_is_not_resumed_by_other_arithmetic(
    workplace: Path,
    first: list[str],
    second: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stopped_after_an_epoch(monkeypatch, *first)
    assert run_llama.main(finetuning(*second, "--resume")) == 2
    assert "belongs to a run with another fast, compile, precision: give the same options" in capsys.readouterr().err


def test_the_options_reach_the_training(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def spy(_: LlamaEmbeddingClassifier, best_path: Path, **options: Any) -> None:
        seen.update(options, best_path=best_path)
        raise UsageError("seen enough")

    monkeypatch.setattr(tasks, "Finetuner", spy)
    monkeypatch.setattr(inference.tasks, "speed_up_classifier", lambda _, *, compiled: seen.update(compiled=compiled))
    paths = []
    for more in ([], ["--compile"]):
        run_llama.main(finetuning("--fast", *more))
        assert (seen["optimizer"], seen["precision"], seen["compiled"]) == (FastAdamW, torch.float32, bool(more))
        paths.append(seen["best_path"])
    run_llama.main(finetuning())
    assert len({*paths, seen["best_path"]}) == 3  # files of different runs have different names


@pytest.mark.parametrize(("supported", "precision"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_gpu_computes_in_bfloat16_where_it_can(
    supported: bool, precision: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: supported and not including_emulation
    )
    task = FastClassification.__new__(FastClassification)
    task.device = torch.device("cuda")
    assert task._precision() == precision

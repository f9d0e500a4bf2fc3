"""The benchmark of generation, at toy size: python -m pytest tests/test_benchmarks_generate.py"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks import __main__ as command
from benchmarks import contenders, generate
from benchmarks.material import tokenizer_of
from errors import MissingDependency, TokenizerError, UsageError
from inference.engine import Engine
from inference.generation import complete
from tests.tiny import random_llama, random_tokens


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a little of everything."""
    for name, task in generate.TASKS.items():
        steps = min(task.steps, 3)
        monkeypatch.setitem(generate.TASKS, name, generate.Task(task.title, min(task.rows, 2), 8, steps))
    monkeypatch.setattr(generate, "PREFIXES", (4, 8))
    monkeypatch.setattr(generate, "TO_PROFILE", 3)
    monkeypatch.setattr(generate, "LOSS_ROWS", 2)
    monkeypatch.setattr(generate, "LOSS_TOKENS", 8)
    monkeypatch.setattr(generate, "bandwidth", lambda device: 1e9)
    monkeypatch.setattr(generate, "matmul_rate", lambda device, dtype: 1e9)


# ---------------------------------------------------------------------------------------------- who generates


def everybody() -> Iterable[contenders.Contender]:
    pytest.importorskip("transformers")
    llama = random_llama()
    return (
        contenders.Ours(llama),
        contenders.Ours(llama, "int8"),
        contenders.Student(llama),
        contenders.Transformers(llama),
    )


def test_everybody_takes_time() -> None:
    prompts = random_tokens(2, 5).tolist()
    for contender in everybody():
        assert contender.decode(prompts, 6) > 0
        assert contender.prefill(prompts[0]) > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_transformers_has_the_same_weights(dtype: torch.dtype) -> None:
    pytest.importorskip("transformers")
    llama = random_llama().to(dtype)
    theirs = contenders.transformers_model(llama)
    assert theirs.dtype == dtype
    prompts = random_tokens(2, 5)
    with torch.inference_mode():
        logits = theirs(prompts, logits_to_keep=1).logits.float()
    tolerance = 1e-4 if dtype == torch.float32 else 0.5
    assert (logits[:, 0] - Engine(llama).prefill(prompts.tolist()).float()).abs().max() < tolerance
    if dtype == torch.float32:
        new = theirs.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=9, do_sample=False)
        assert new[:, 5:].tolist() == complete(Engine(llama), prompts.tolist(), 9)


def test_the_students_steps_are_those_in_the_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, seen = random_llama(), []

    def note(tokens: torch.Tensor, new: int, temperature: float) -> torch.Tensor:
        seen.append((list(tokens.shape), new, temperature))
        return tokens

    monkeypatch.setattr(llama, "generate", note)
    for steps in (60, 2):
        contenders.Student(llama).decode([[5] * 16] * 3, steps)
    assert seen == [([3, 16 + 28], 4, 0.0), ([3, 16], 2, 0.0)]


def test_llama_cpp_reads_what_is_written_for_it(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp")
    llama, tokenizer = generate._model("toy")
    assert tokenizer
    files = contenders.write_gguf(tmp_path, llama, tokenizer)
    assert list(files) == ["F32", "Q8_0"]
    assert files["Q8_0"].stat().st_size < files["F32"].stat().st_size / 1.5
    for file in files.values():
        theirs = contenders.faster_llama_cpp(file, 64, [5, 6, 7])
        assert theirs.decode([[5, 6, 7], [8, 9, 10]], 3) > 0
        assert theirs.prefill([5, 6, 7]) > 0


def test_the_quantised_file_holds_the_same_model(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    llama, tokenizer = generate._model("toy")
    assert tokenizer
    files = {name: gguf.GGUFReader(path) for name, path in contenders.write_gguf(tmp_path, llama, tokenizer).items()}
    fields = {name: {field.name: field.contents() for field in file.fields.values()} for name, file in files.items()}
    differing = {key for key in fields["F32"] if fields["F32"][key] != fields["Q8_0"].get(key)}
    assert differing == {"general.file_type"}
    for full, small in zip(files["F32"].tensors, files["Q8_0"].tensors, strict=True):
        numbers = gguf.quants.dequantize(small.data, small.tensor_type)
        assert full.name == small.name
        assert abs(numbers - full.data).max() <= abs(full.data).max() / 127


def test_rows_that_no_block_fits_stay_as_they_are() -> None:
    assert contenders.can_be_q8_0(random_llama(dim=32, hidden_dim=64).config)
    assert not contenders.can_be_q8_0(random_llama(dim=32, hidden_dim=172).config)
    assert not contenders.can_be_q8_0(random_llama(dim=32, multiple_of=1).config)  # two thirds of 128: 85


def test_the_number_of_threads_is_the_faster_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for slow in (1, 2):

        def decode(self: contenders.LlamaCpp, prompts: contenders.Prompts, steps: int, slow: int = slow) -> float:
            return 2.0 if self.threads == slow else 1.0

        monkeypatch.setattr(contenders.LlamaCpp, "decode", decode)
        pytest.importorskip("xllamacpp")
        assert contenders.faster_llama_cpp(tmp_path / "file", 8, [5]).threads == 3 - slow


@pytest.mark.parametrize("package", ["transformers", "xllamacpp"])
def test_a_package_that_is_not_there(package: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(MissingDependency, match=f"this benchmark needs {package}: run `pip install {package}`"):
        if package == "transformers":
            contenders.Transformers(random_llama())
        else:
            contenders.LlamaCpp(tmp_path / "file", 8, 1)


# ---------------------------------------------------------------------------------------------- what is counted


def test_an_embedding_that_is_no_output_matrix_is_not_read() -> None:
    layers = 2 * (2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 88 + 2 * 32) + 32
    assert generate.weights_read(random_llama()) == layers + 40 * 32
    assert generate.weights_read(random_llama(tie_word_embeddings=False)) == layers + 40 * 32


def test_the_operations_of_a_prompt() -> None:
    llama = random_llama()
    head, layer, key_value = 40 * 32, 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 88 + 2 * 32, 2 * 32 * 16
    tokens = 10
    expected = 2 * (layer + key_value) * tokens + 2 * (layer + head) + 2 * 32 * tokens**2
    assert generate._prefill_operations(llama, tokens) == pytest.approx(expected, rel=0.01)


def test_a_limit_is_the_longer_of_reading_and_multiplying(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, task = random_llama().to(torch.bfloat16), generate.Task("", rows=2, prompt=4, steps=1)
    monkeypatch.setattr(generate, "seconds", lambda run: 1.0)
    monkeypatch.setattr(generate, "matmul_rate", lambda device, dtype: 1e30)
    limits = generate._limits(llama, task, 4)
    assert {name: limit() for name, limit in limits.items()} == {generate.LIMIT: 1.0, generate.INT8_LIMIT: 1.0}
    monkeypatch.setattr(generate, "matmul_rate", lambda device, dtype: 1.0)
    assert limits[generate.LIMIT]() == 2 * generate.weights_read(llama) * 2
    assert list(generate._limits(llama, generate.Task("", 1, 4, 0), 4)) == [generate.LIMIT]


def test_the_loss_is_that_of_the_simple_model() -> None:
    llama, tokens = random_llama(), random_tokens(3, 12)
    with torch.inference_mode():
        logits, _ = llama(tokens, targets=tokens)
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).item()
    assert generate.loss_of(Engine(llama), tokens) == pytest.approx(expected, rel=1e-5)


# ---------------------------------------------------------------------------------------------- the command


def test_a_run_writes_all_tables(short: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for package in ("transformers", "xllamacpp", "matplotlib"):
        pytest.importorskip(package)
    assert command.main(["generate", "--size", "toy", "--rounds", "2", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "generate.json").read_text(encoding="utf-8"))
    assert result["notes"] == []
    names = {(row["task"], row["contender"]) for row in result["rows"]}
    who = {*generate.ON_CURVE, generate.INT8, "llama.cpp, F32", "llama.cpp, Q8_0", generate.LIMIT}
    assert {name for task, name in names if task == "prefill"} == who
    assert {name for task, name in names if task == "decode 16"} == who | {generate.INT8_LIMIT}
    assert len(result["curve"]["rows"]) == 3 * 2
    for seconds in result["parts"]["toy"].values():
        assert all(seconds[part] > 0 for part in ("matrix products", "attention scores", "RoPE", "norms"))
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert generate.table(result) in page
    assert "int8 changes the loss of `checkpoints/storybook`" in page
    assert "| tokens before it | 4 | 8 | 8 to 4 |" in page
    assert "Where the time goes, toy, one text" in page
    assert (tmp_path / "generate.png").read_bytes().startswith(b"\x89PNG")
    assert "| toy | 2 | ours, int8 |" in capsys.readouterr().out


def test_without_weights_or_a_tokenizer_the_rest_is_measured(
    short: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")

    def nothing(name: str) -> Path:
        raise UsageError(f"{name} is not here")

    def no_tokenizer(*_: Any) -> None:
        raise TokenizerError("no such tokenizer")

    monkeypatch.setattr(generate, "asset", nothing)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "demo-dev.txt").write_text("1 ||| a good film about a dog that plays\n" * 9)
    monkeypatch.setattr(generate, "write_gguf", no_tokenizer)
    result = generate.measure(sizes=["stories260K", "toy"], rounds=1)
    assert result["notes"] == [
        "stories260K was left out: stories260K.bin is not here.",
        "llama.cpp was left out at toy: no such tokenizer.",
    ]
    assert result["loss"]["text"] == "demo-dev.txt"
    table = generate.table(result)
    assert all(note in table for note in result["notes"])
    assert "llama.cpp, " not in table


def test_a_model_whose_tokenizer_is_not_here_is_measured_without_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(size: str) -> None:
        raise UsageError("tokenizer.model is not here")

    monkeypatch.setattr(generate, "tokenizer_of", nothing)
    llama, tokenizer = generate._model("toy")
    assert tokenizer is None
    assert llama.vocab_size == tokenizer_of("toy").n_words


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="device 'cuda' is not available on this machine"):
        generate.measure(sizes=["toy"], rounds=1, device="cuda")


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.01"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1,234")])
def test_numbers_are_short(value: float, text: str) -> None:
    assert generate._short(value) == text


def test_threads_that_do_not_pay_are_told() -> None:
    result = {"machine": {"threads": 2}, "threads": {"42m, llama.cpp, F32": 1, "42m, llama.cpp, Q8_0": 2}}
    assert (
        generate._explanation(result)[-1]
        == "Faster with one thread than with all, and measured so: 42m, llama.cpp, F32."
    )


def test_where_no_curve_was_measured_none_is_drawn(tmp_path: Path) -> None:
    generate.draw({"rows": []}, tmp_path / "generate.png")
    assert not list(tmp_path.iterdir())

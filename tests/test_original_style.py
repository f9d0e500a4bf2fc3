"""`tests/original_style/`, a submission in the manner of 2024: it runs by itself, and gives the master's numbers.

It runs in processes of its own, in a copy: its files have the names of ours. The grader is tried on it elsewhere.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import run_llama
from checkpoint import read_checkpoint, write_checkpoint
from classifier import LlamaEmbeddingClassifier
from config import ClassifierConfig
from llama import Llama
from optimizer import AdamW
from reproduce_2024 import ZeroShotClassifier2024, attend_to_everything
from rope import apply_rotary_emb
from tests.assets_dir import require_asset
from tests.tiny import padded, random_llama, random_tokens, save_llama
from tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SUBMISSION = ROOT / "tests" / "original_style"
NEEDED = ("requests", "filelock", "importlib_metadata", "sklearn")
ROWS = ((5, 6, 7), (8, 9, 10, 11, 12, 13), (14,), (15, 16))
LABEL_NAMES = ["bad", "good"]
GROUPS: list[dict[str, Any]] = [{}, {"lr": 0.02, "betas": [0.7, 0.8], "weight_decay": 0.5, "correct_bias": False}]

# Calls the submission's files, in its folder, on the inputs of one file, and writes what came out to another.
PROBE = """
import runpy, sys
from types import SimpleNamespace
import torch
from config import LlamaConfig
import base_llama, classifier, llama, optimizer, rope, run_llama, tokenizer

source, target = sys.argv[1:]
sys.argv = ["run_llama.py"]
given, out = torch.load(source), {}
out["options"] = vars(run_llama.get_args())
config = LlamaConfig(model_type_of_mine="unknown keywords are kept")
out["config"] = {name: value for name, value in vars(config).items() if isinstance(value, (int, float, str))}

out["query"], out["key"] = rope.apply_rotary_emb(given["query"], given["key"], 8, 16, theta=500.0)
model = llama.load_pretrained(given["weights"])
model.eval()
with torch.no_grad():
    out["last logits"], out["hidden"] = model(given["tokens"])
    out["logits"], _ = model(given["tokens"], targets=given["tokens"])
torch.manual_seed(0)
out["ids"] = torch.cat([model.generate(given["tokens"], 25, temperature=t) for t in (0.0, 0.7)], dim=1)

parameters = [torch.nn.Parameter(start) for start in given["start"]]
groups = [dict(group, params=[p]) for group, p in zip(given["groups"], parameters)]
adamw = optimizer.AdamW(groups, lr=0.1, weight_decay=0.1)
for gradients in given["gradients"]:
    for p, gradient in zip(parameters, gradients):
        p.grad = gradient
    adamw.step()
out["parameters"] = torch.stack([p.detach() for p in parameters])

chosen = dict(num_labels=2, pretrained_model_path=given["weights"], hidden_dropout_prob=0.3)
embedding = classifier.LlamaEmbeddingClassifier(SimpleNamespace(option="finetune", **chosen)).eval()
embedding.classifier_head.load_state_dict(given["head"])
asking = SimpleNamespace(option="prompt", **chosen)
zero_shot = classifier.LlamaZeroShotClassifier(asking, tokenizer.Tokenizer(), given["labels"]).eval()
with torch.no_grad():
    out["classifier"], out["zero-shot"] = embedding(given["rows"]), zero_shot(given["rows"])
torch.save(out, target)
runpy.run_path("sanity_check.py", run_name="__main__")
"""


@pytest.fixture(scope="module", autouse=True)
def packages() -> None:
    """Skip where the packages are missing that the original's files import; in CI they are there."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        reason = f"the original's files import {', '.join(missing)}: install the dependency group `grading`"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture
def folder(tmp_path: Path, tokenizer_model: Path) -> Path:
    """Return a copy of the submission, with a tokenizer of 400 pieces beside it."""
    shutil.copytree(SUBMISSION, tmp_path / "student", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tokenizer_model, tmp_path / "student" / "tokenizer.model")
    return tmp_path / "student"


def run(folder: Path, *argv: str) -> str:
    """Run Python in the submission's folder, and return what it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *argv]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def model_of_the_tokenizer(**changes: Any) -> Llama:
    """Return a tiny Llama without a mask that knows the 400 pieces of the tests' tokenizer."""
    return random_llama(vocab_size=400, causal=False, **changes)


def draw(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------- the same numbers


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """Return inputs drawn at random."""
    return {
        "query": draw(2, 5, 4, 8, seed=1),
        "key": draw(2, 5, 2, 8, seed=2),
        "tokens": random_tokens(3, 11),
        "start": draw(2, 6, seed=3),
        "gradients": draw(30, 2, 6, seed=4) * torch.logspace(0, -6, 6),
        "groups": GROUPS,
        "head": {"weight": draw(2, 32, seed=5), "bias": draw(2, seed=6)},
        "labels": LABEL_NAMES,
        "rows": padded(ROWS, width=9),
    }


@pytest.fixture(scope="module")
def found(given: dict[str, Any], tokenizer_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what the submission makes of the inputs."""
    folder = tmp_path_factory.mktemp("probe") / "student"
    shutil.copytree(SUBMISSION, folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(tokenizer_model, folder / "tokenizer.model")
    weights = save_llama(folder / "tiny.pt", model_of_the_tokenizer())
    write_sanity_data(folder)
    torch.save(given | {"weights": str(weights)}, folder / "given.pt")
    printed = run(folder, "-c", PROBE, "given.pt", "found.pt")
    found: dict[str, Any] = torch.load(folder / "found.pt", weights_only=True)
    return found | {"printed": printed, "weights": str(weights)}


def write_sanity_data(folder: Path) -> None:
    """Write what its sanity_check.py reads: weights called stories42M, with Llama's vocabulary, and their outputs."""
    model = random_llama(vocab_size=32000, dim=16, n_heads=2, n_layers=1, causal=False)
    save_llama(folder / "stories42M.pt", model)
    tokens = torch.tensor([[1, 15043, 3186, 3, 3, 3], [1, 15043, 19677, 3564, 363, 405]])
    with torch.no_grad():
        logits, hidden = model(tokens)
    torch.save({"logits": logits, "hidden_states": hidden}, folder / "sanity_check.data")


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare by the tolerances that the original's own checks have."""
    torch.testing.assert_close(found, expected.detach(), atol=1e-5, rtol=1e-3)


def test_its_model_has_the_masters_logits_without_a_mask(found: dict[str, Any], given: dict[str, Any]) -> None:
    model = model_of_the_tokenizer()
    last, hidden = model(given["tokens"])
    logits, _ = model(given["tokens"], targets=given["tokens"])
    same(found["last logits"], last)
    same(found["hidden"], hidden)
    same(found["logits"], logits)
    causal_logits, _ = random_llama(vocab_size=400)(given["tokens"], targets=given["tokens"])
    assert (found["logits"] - causal_logits).abs().max() > 0.1


def test_its_generation_is_the_masters_past_the_context_too(found: dict[str, Any], given: dict[str, Any]) -> None:
    model = model_of_the_tokenizer()
    torch.manual_seed(0)
    expected = [model.generate(given["tokens"], 25, temperature=temperature) for temperature in (0.0, 0.7)]
    assert torch.equal(found["ids"], torch.cat(expected, dim=1))


def test_its_rope_is_the_masters(found: dict[str, Any], given: dict[str, Any]) -> None:
    query, key = apply_rotary_emb(given["query"], given["key"], 8, 16, theta=500.0)
    same(found["query"], query)
    same(found["key"], key)


def test_its_adamw_takes_the_masters_steps(found: dict[str, Any], given: dict[str, Any]) -> None:
    parameters = [torch.nn.Parameter(start.clone()) for start in given["start"]]
    groups = [group | {"params": [p]} for group, p in zip(GROUPS, parameters, strict=True)]
    optimizer = AdamW(groups, lr=0.1, weight_decay=0.1)
    for gradients in given["gradients"]:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
    same(found["parameters"], torch.stack([parameter.detach() for parameter in parameters]))


def test_its_classifiers_read_the_last_column(
    found: dict[str, Any], given: dict[str, Any], tokenizer_model: Path
) -> None:
    config = ClassifierConfig(2, found["weights"])
    embedding = LlamaEmbeddingClassifier(config).eval()
    embedding.classifier_head.load_state_dict(given["head"])
    zero_shot = ZeroShotClassifier2024(config, Tokenizer(tokenizer_model=tokenizer_model), LABEL_NAMES)
    for classifier, name in ((embedding, "classifier"), (zero_shot, "zero-shot")):
        attend_to_everything(classifier.llama)
        same(found[name], classifier(given["rows"]))


def test_its_options_are_the_assignments_and_no_others(found: dict[str, Any]) -> None:
    ours = vars(run_llama.build_parser().parse_args([]))
    assert found["options"] == {name: ours[name] for name in found["options"]} | {
        "pretrained_model_path": run_llama.DEFAULT_WEIGHTS
    }
    assert len(found["options"]) == 17
    assert not {"device", "tokenizer", "reproduce_2024"} & found["options"].keys()


def test_its_config_knows_no_mask_and_keeps_what_it_does_not_know(found: dict[str, Any]) -> None:
    config = found["config"]
    assert config["model_type_of_mine"] == "unknown keywords are kept"
    assert (config["dim"], config["n_kv_heads"], config["layer_norm_eps"]) == (512, 8, 1e-5)
    assert not {"causal", "pad_id", "tie_word_embeddings"} & config.keys()


def test_its_own_sanity_check_passes(found: dict[str, Any]) -> None:
    assert "Your Llama implementation is correct!" in found["printed"]


def test_its_files_are_written_as_they_were_then() -> None:
    assert "\n\tdef __init__" in (SUBMISSION / "classifier.py").read_text("utf-8")
    text = (SUBMISSION / "run_llama.py").read_text("utf-8")
    assert "\n  parser = " in text
    assert "\n    parser = " not in text
    assert "\n    device = " in text
    assert "from utils import *" in (SUBMISSION / "llama.py").read_text("utf-8")
    assert "causal" not in "".join(path.read_text("utf-8") for path in SUBMISSION.glob("*.py"))


# ------------------------------------------------------------------------------------------------- its own program


def data_options(tmp_path: Path, method: str) -> list[str]:
    """Return the options for a little data of our own, and for the outputs."""
    options = ["--label-names", str(ROOT / "data/demo-label-mapping.json")]
    for split in ("train", "dev", "test"):
        lines = (ROOT / f"data/demo-{split}.txt").read_text("utf-8").splitlines(keepends=True)
        (tmp_path / f"{split}.txt").write_text("".join(lines[:12]), "utf-8")
        options += [f"--{split}", str(tmp_path / f"{split}.txt")]
    for split in ("dev", "test"):
        options += [f"--{split}_out", f"demo-{split}-{method}-output.txt"]
    return options


def rows(path: Path) -> list[list[str]]:
    """Return label and sentence of each row of a file."""
    return [line.split(" ||| ", 1) for line in path.read_text("utf-8").splitlines()]


def test_it_generates_text_from_converted_weights(folder: Path) -> None:
    config, tensors = read_checkpoint(require_asset("stories260K.bin"))
    write_checkpoint(folder / "stories260K.pt", config, tensors)
    tokenizer = Tokenizer(tokenizer_model=require_asset("tok512.bin"))
    (folder / "tokenizer.model").write_bytes(tokenizer.sp_model.serialized_model_proto())
    printed = run(folder, "run_llama.py", "--option", "generate", "--pretrained-model-path", "stories260K.pt")
    assert "Temperature is 0.0" in printed
    texts = [(folder / f"generated-sentence-temp-{t}.txt").read_text("utf-8") for t in (0, 1)]
    assert all(text.startswith(run_llama.PROMPT) and len(text) > len(run_llama.PROMPT) for text in texts)

    config.causal = False
    model = Llama(config).eval()
    model.load_state_dict(tensors)
    prompt = torch.tensor([tokenizer.encode(run_llama.PROMPT, bos=True, eos=False)])
    assert texts[0] == tokenizer.decode(model.generate(prompt, 75, temperature=0.0)[0].tolist())
    assert texts[1] != texts[0]


def test_its_prompting_predicts_what_ours_does_when_it_reproduces_2024(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = save_llama(folder / "tiny.pt", model_of_the_tokenizer(max_seq_len=512))
    options = ["--option", "prompt", "--pretrained-model-path", str(weights), *data_options(tmp_path, "prompting")]
    printed = run(folder, "run_llama.py", *options)
    assert "dev acc :: " in printed
    monkeypatch.chdir(tmp_path)
    ours = ["--reproduce_2024", "--tokenizer", str(folder / "tokenizer.model")]
    assert run_llama.main([*options, *ours]) == 0
    labels = set()
    for split in ("dev", "test"):
        name = f"demo-{split}-prompting-output.txt"
        assert rows(folder / name) == rows(tmp_path / name)
        labels |= {label for label, _ in rows(folder / name)}
    assert len(labels) > 1


def refused(folder: Path, options: Sequence[str]) -> str:
    """Run the submission's program, which must fail, and return what it says about it."""
    command = [sys.executable, "run_llama.py", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.slow
def test_it_finetunes_and_writes_its_predictions(folder: Path, tmp_path: Path) -> None:
    weights = save_llama(folder / "tiny.pt", model_of_the_tokenizer(max_seq_len=512))
    options = ["--option", "finetune", "--epochs", "2", "--pretrained-model-path", str(weights)]
    printed = run(folder, "run_llama.py", *options, *data_options(tmp_path, "finetuning"))
    assert "epoch 1: train loss :: " in printed
    assert "test acc :: " in printed
    for split in ("dev", "test"):
        found = rows(folder / f"demo-{split}-finetuning-output.txt")
        assert [sentence for _, sentence in found] == [sentence for _, sentence in rows(tmp_path / f"{split}.txt")]
        assert {label for label, _ in found} <= {"0", "1", "2", "3", "4"}


@pytest.mark.slow
def test_outputs_with_another_tasks_name_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = save_llama(folder / "tiny.pt", model_of_the_tokenizer(max_seq_len=512))
    options = ["--option", "prompt", "--pretrained-model-path", str(weights), *data_options(tmp_path, "finetuning")]
    assert "name the output of prompting on dev" in refused(folder, options)

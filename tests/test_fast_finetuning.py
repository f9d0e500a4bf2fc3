"""Fast finetuning: whatever it computes, the simple one computes as well."""

import shutil
import warnings
from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from checkpoint import load_torch_file
from classifier import LlamaEmbeddingClassifier
from config import ClassifierConfig
from finetune import EpochResult, Finetuner
from inference.fast_adamw import FastAdamW
from inference.fast_modules import FastAttention
from inference.finetuning import UnreadHead, speed_up_classifier
from reproduce_2024 import attend_to_everything
from sentiment_data import encode, read_examples
from tests.assets_dir import require_asset
from tests.tiny import padded, random_tokens
from tests.tiny_finetune import examples, ignore, make_classifier, make_finetuner
from tokenizer import Tokenizer

BATCHES = [(5, 7), (5, 12), (3, 9), (5, 20)]  # rows and tokens


def make_fast(folder: Path, option: str = "finetune", **options: Any) -> Finetuner:
    """Return the finetuner of `make_finetuner`, made fast."""
    finetuner = make_finetuner(folder, option, optimizer=FastAdamW, **options)
    speed_up_classifier(finetuner.classifier)
    return finetuner


def assert_same_results(fast: Finetuner, simple: Finetuner) -> None:
    """Compare the course of two finetunings."""
    for ours, theirs in zip(fast.history, simple.history, strict=True):
        assert ours.train_loss == pytest.approx(theirs.train_loss, abs=1e-4)
        assert (ours.train_acc, ours.dev_acc) == (theirs.train_acc, theirs.dev_acc)


def assert_same_weights(fast: nn.Module, simple: nn.Module) -> None:
    """Compare the weights of two classifiers, and their names."""
    ours, theirs = fast.state_dict(), simple.state_dict()
    assert list(ours) == list(theirs)
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("option", ["finetune", "pretrain"])
def test_losses_accuracies_predictions_and_weights_are_those_of_the_simple_one(tmp_path: Path, option: str) -> None:
    train, dev = examples(30), examples(12, seed=50)
    simple, fast = make_finetuner(tmp_path, option), make_fast(tmp_path, option)
    predictions = []
    for finetuner in (simple, fast):
        torch.manual_seed(1)
        finetuner.fit(train, dev, 3, ignore)
        predictions.append(finetuner.predict(dev))
    assert_same_results(fast, simple)
    assert_same_weights(fast.classifier, simple.classifier)
    assert predictions[0] == predictions[1]


def test_a_real_model_learns_the_same(tmp_path: Path) -> None:
    weights, vocabulary = require_asset("stories260K.bin"), require_asset("tok512.bin")
    shutil.copy(vocabulary, tmp_path / "tok512.bin")
    tokenizer = Tokenizer(tokenizer_model=tmp_path / "tok512.bin")
    data = Path(__file__).resolve().parent.parent / "data"
    train, dev = (encode(read_examples(data / f"demo-{split}.txt", 2), tokenizer, 128) for split in ("train", "dev"))
    simple, fast = (
        _finetuner_of(weights, tmp_path / f"{name}.pt", tokenizer.pad_id, kind)
        for name, kind in (("simple", None), ("fast", FastAdamW))
    )
    for finetuner in (simple, fast):
        torch.manual_seed(1)
        finetuner.fit(train, dev, 1, ignore)
    assert_same_results(fast, simple)
    assert fast.predict(dev) == simple.predict(dev)


def _finetuner_of(weights: Path, best: Path, pad_id: int, fast: type[FastAdamW] | None) -> Finetuner:
    """Return a finetuner of real weights."""
    torch.manual_seed(0)
    classifier = LlamaEmbeddingClassifier(ClassifierConfig(2, str(weights)))
    classifier.llama.config.pad_id = pad_id
    if fast is not None:
        speed_up_classifier(classifier)
    more: dict[str, Any] = {"optimizer": fast} if fast else {}
    return Finetuner(classifier, best, run={}, batch_size=8, lr=1e-4, seed=1, pad_id=pad_id, **more)


@pytest.mark.parametrize(
    "changes",
    [
        {"position_embedding_type": "alibi"},
        {"tie_word_embeddings": False},
        {"causal": False},
        {"n_kv_heads": 4, "max_seq_len": 18},
    ],
    ids=str,
)
def test_every_kind_of_llama_gives_the_same_log_probabilities(tmp_path: Path, changes: dict[str, Any]) -> None:
    simple, fast = (make_classifier(tmp_path, **changes).eval() for _ in range(2))
    speed_up_classifier(fast)
    ids = padded(examples(6).ids)
    torch.testing.assert_close(fast(ids), simple(ids), rtol=1e-4, atol=1e-4)


def test_so_does_a_llama_that_attends_to_everything(tmp_path: Path) -> None:
    simple, fast = (make_classifier(tmp_path).eval() for _ in range(2))
    for classifier in (simple, fast):
        attend_to_everything(classifier.llama)
    speed_up_classifier(fast)
    ids = padded(examples(6).ids)
    torch.testing.assert_close(fast(ids), simple(ids), rtol=1e-4, atol=1e-4)


def test_too_many_tokens_are_the_same_error(tmp_path: Path) -> None:
    fast = make_classifier(tmp_path)
    speed_up_classifier(fast)
    with pytest.raises(ValueError, match="25 tokens are more than the model's context of 24"):
        fast(random_tokens(1, 25))


def test_no_logits_are_computed(tmp_path: Path) -> None:
    fast = make_classifier(tmp_path)
    speed_up_classifier(fast)
    logits, hidden = fast.llama(random_tokens(3, 5))
    assert logits.shape == (3, 1, 0)
    assert hidden.shape == (3, 5, 32)
    logits, _ = fast.llama(random_tokens(3, 5), random_tokens(3, 5))
    assert logits.shape == (3, 5, 0)


def test_modules_are_exchanged_once_and_the_weights_stay_tied(tmp_path: Path) -> None:
    fast = make_classifier(tmp_path)
    before = {name: weight.data_ptr() for name, weight in fast.named_parameters()}
    for _ in range(2):
        speed_up_classifier(fast)
    assert {name: weight.data_ptr() for name, weight in fast.named_parameters()} == before
    assert type(fast.llama.output) is UnreadHead
    assert fast.llama.output.weight is fast.llama.tok_embeddings.weight
    assert sum(isinstance(module, FastAttention) for module in fast.modules()) == 2
    assert type(fast.dropout) is nn.Dropout


@pytest.mark.parametrize("option", ["finetune", "pretrain"])
def test_gradients_reach_the_llama_only_where_it_is_trained(tmp_path: Path, option: str) -> None:
    fast = make_classifier(tmp_path, option)
    speed_up_classifier(fast)
    fast.train()(padded(examples(4).ids)).sum().backward()
    with_gradient = {name for name, weight in fast.named_parameters() if weight.grad is not None}
    head = {"classifier_head.weight", "classifier_head.bias"}
    assert with_gradient == (head if option == "pretrain" else {name for name, _ in fast.named_parameters()})


def test_what_is_saved_is_what_the_simple_one_saves(tmp_path: Path) -> None:
    saved = []
    for make in (make_finetuner, make_fast):
        finetuner = make(tmp_path)
        torch.manual_seed(1)
        finetuner.fit(examples(8), examples(4), 1, ignore)
        saved.append((load_torch_file(finetuner.best_path), load_torch_file(finetuner.resume_path)))
    (simple_best, simple_state), (fast_best, fast_state) = saved
    assert fast_best.keys() == simple_best.keys()
    assert fast_best["model_args"] == simple_best["model_args"]
    assert list(fast_best["model"]) == list(simple_best["model"])
    assert list(fast_state["classifier"]) == list(simple_state["classifier"])
    assert fast_state["optimizer"]["param_groups"] == simple_state["optimizer"]["param_groups"]


def test_a_run_that_was_stopped_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(result: EpochResult) -> None:
        raise Stopped

    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    unbroken.mkdir()
    broken.mkdir()
    whole = make_fast(unbroken)
    whole.fit(examples(16), examples(8), 2, ignore)
    with pytest.raises(Stopped):
        make_fast(broken).fit(examples(16), examples(8), 2, stop)
    torch.rand(7)  # what else a new process may have drawn
    second = make_fast(broken)
    assert second.resume()
    second.fit(examples(16), examples(8), 2, ignore)
    assert second.history == whole.history
    theirs = whole.classifier.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in second.classifier.state_dict().items())


# ------------------------------------------------------------------------------------------ torch.compile


@pytest.fixture
def dynamo() -> Iterator[None]:
    """Let torch.compile begin anew, and forget everything afterwards; what it warns of lies in its own code."""
    torch._dynamo.reset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch._dynamo.reset()


def assert_same_batch(fast: LlamaEmbeddingClassifier, simple: LlamaEmbeddingClassifier, ids: torch.Tensor) -> None:
    """Compare the gradients of two classifiers, and what they say in evaluation. Shapes: ids (bs, seqlen)."""
    for classifier in (simple, fast):
        classifier.zero_grad()
        classifier.train()(ids).sum().backward()
    for ours, theirs in zip(fast.parameters(), simple.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-3, atol=1e-3)
    with torch.inference_mode():
        torch.testing.assert_close(fast.eval()(ids), simple.eval()(ids), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
def test_layers_are_compiled_together_for_all_lengths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")  # all of torch.compile but the C++ code
    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=counter))
    simple, fast = make_classifier(tmp_path, dropout=0.0), make_classifier(tmp_path, dropout=0.0)
    speed_up_classifier(fast, compiled=True)
    counts = []
    for bs, seqlen in BATCHES:
        assert_same_batch(fast, simple, random_tokens(bs, seqlen))
        counts.append(counter.frame_count)
    assert 0 < counts[0] == counts[-1]
    assert list(fast.state_dict()) == list(simple.state_dict())


@pytest.mark.slow
@pytest.mark.usefixtures("dynamo")
def test_the_code_that_torch_compile_writes_computes_the_same(tmp_path: Path) -> None:
    if not any(map(shutil.which, ("c++", "g++", "clang++"))):
        pytest.skip("skipped: needs a C++ compiler")
    simple, fast = make_classifier(tmp_path, dropout=0.0), make_classifier(tmp_path, dropout=0.0)
    speed_up_classifier(fast, compiled=True)
    for bs, seqlen in BATCHES:
        assert_same_batch(fast, simple, random_tokens(bs, seqlen))

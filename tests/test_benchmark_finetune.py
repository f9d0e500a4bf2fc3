"""The benchmark of finetuning, at toy size: python -m pytest tests/test_benchmark_finetune.py"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import finetune, material
from benchmarks.material import weights_of
from classifier import LlamaEmbeddingClassifier
from errors import MissingDependency
from sentiment_data import EncodedExamples

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take a few sentences, and two seeds."""

    def sentences(size: str, split: str, *rest: Any) -> EncodedExamples:
        every = material.sentences(size, split, *rest)
        return replace(every, ids=every.ids[::10], labels=every.labels[::10])  # both labels, whatever their order

    monkeypatch.setattr(finetune, "sentences", sentences)
    monkeypatch.setattr(finetune, "CURVE", (8, 16, 8544))
    monkeypatch.setattr(finetune, "SEEDS", (1, 2))
    monkeypatch.setattr(finetune, "SAMPLE", 2)


@pytest.fixture
def classifier(tmp_path: Path) -> LlamaEmbeddingClassifier:
    return finetune._classifier(weights_of("toy", tmp_path), finetune._data("toy"), CPU)


def test_a_run_scales_the_samples_up_to_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    result = finetune.measure(sizes=["toy"], rounds=2, accuracy=True)
    rows = {row["contender"]: row for row in result["rows"]}
    assert list(rows) == [finetune.PLAIN, finetune.OURS, finetune.FAST, finetune.PEER, finetune.LIMIT]
    for name in (finetune.PLAIN, finetune.OURS, finetune.FAST, finetune.PEER):
        row = rows[name]
        assert row["batches"] == [5, 6 if name == finetune.PLAIN else 1]  # 40 sentences, 8 of dev
        assert row["rounds"] == [sum(both) for both in zip(row["train"], row["evaluate"], strict=True)]
    assert rows[finetune.FAST]["padding"] < rows[finetune.PLAIN]["padding"] == rows[finetune.PEER]["padding"]
    assert [row["sentences"] for row in result["curve"]] == [8, 16]  # as many as there are
    runs = [(run["seed"], run["contender"]) for run in result["accuracy"]]
    assert runs == [(seed, name) for seed in (1, 2) for name in (finetune.PLAIN, finetune.FAST)]
    text = finetune.table(result)
    assert text.startswith("## ") and text.count("| toy |") == len(rows)
    assert "Seconds of an epoch by the size of the data" in text and "Accuracy on dev" in text


def test_without_the_flag_there_are_no_accuracies() -> None:
    pytest.importorskip("transformers")
    result = finetune.measure(sizes=["toy"], rounds=1)
    assert "accuracy" not in result
    assert "Accuracy on dev" not in finetune.table(result)


def test_everybody_starts_with_the_same_model_and_learns(classifier: LlamaEmbeddingClassifier) -> None:
    pytest.importorskip("transformers")
    contenders = finetune._contenders(classifier, finetune._data("toy"), compiled=False)
    theirs: Any = contenders[finetune.PEER].classifier
    with torch.no_grad():  # their head has no bias, and starts on its own
        theirs.model.score.weight.copy_(classifier.classifier_head.weight)
        for name in (finetune.PLAIN, finetune.OURS, finetune.FAST):
            head: Any = contenders[name].classifier
            head.classifier_head.bias.zero_()
    batch = contenders[finetune.PLAIN].epoch.train[0]
    assert len(set(map(len, batch.rows))) > 1  # so there is padding
    before = []
    for contender in contenders.values():
        contender.evaluate(batch)  # leaves it without dropout
        before.append(contender._log_probs(batch))
        torch.testing.assert_close(before[-1], before[0])
    for contender, log_probs in zip(contenders.values(), before, strict=True):
        contender.step(batch)
        assert contender.classifier.training
        contender.evaluate(batch)
        assert not torch.equal(contender._log_probs(batch), log_probs)


def test_with_the_option_one_more_is_compiled(
    classifier: LlamaEmbeddingClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    options: list[bool] = []
    monkeypatch.setattr(finetune, "speed_up_classifier", lambda _, compiled: options.append(compiled))
    contenders = finetune._contenders(classifier, finetune._data("toy"), compiled=True)
    assert list(contenders)[-1] == finetune.COMPILED
    assert options == [False, True]


def test_a_plain_loop_evaluates_the_training_set_again(classifier: LlamaEmbeddingClassifier) -> None:
    pytest.importorskip("transformers")
    contenders = finetune._contenders(classifier, finetune._data("toy"), compiled=False)
    plain, theirs = contenders[finetune.PLAIN].epoch, contenders[finetune.PEER].epoch
    assert plain.evaluated == plain.train + theirs.evaluated
    assert plain.train == theirs.train


def test_padding_is_a_share_of_what_is_computed() -> None:
    batches = [material.Batch([[1, 2], [1, 2, 3, 4]], [0, 1]), material.Batch([[1, 2]], [0])]
    assert finetune._padding(batches) == pytest.approx(2 / 10)


def test_the_limit_counts_what_has_to_be_multiplied(
    classifier: LlamaEmbeddingClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetune, "best_matmul_rate", lambda device, precision: 1000.0)
    data = finetune._data("toy")
    data = replace(data, train=replace(data.train, ids=[[1] * 10, [1] * 20]), dev=replace(data.dev, ids=[[1] * 5]))
    weights = sum(
        weight.numel() for name, weight in classifier.llama.named_parameters() if "layers" in name and weight.dim() == 2
    )
    assert finetune._least(classifier.llama, data) == pytest.approx((6 * 30 + 2 * 5) * weights / 1000)


def test_a_gpu_computes_in_bfloat16_and_a_processor_does_not() -> None:
    assert finetune._precision(torch.device("cuda")) == torch.bfloat16
    assert finetune._precision(CPU) == torch.float32


def test_without_transformers_it_says_what_to_install(
    classifier: LlamaEmbeddingClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependency, match="this benchmark needs transformers: run `pip install transformers`"):
        finetune._Transformers(classifier)


def test_accuracies_come_as_mean_and_deviation() -> None:
    runs = [
        {"size": "s", "seed": seed, "contender": name, "seconds": seconds, "dev_acc": accuracy}
        for seed, accuracy in ((1, 0.3), (2, 0.4), (3, 0.5))
        for name, seconds in ((finetune.PLAIN, 100.0), (finetune.FAST, 50.0))
    ]
    lines = finetune._accuracy_table(runs)
    assert lines[-2:] == [
        f"| {finetune.PLAIN} | 0.400 ± 0.100 | 0.300, 0.400, 0.500 | 100 |",
        f"| {finetune.FAST} | 0.400 ± 0.100 | 0.300, 0.400, 0.500 | 50 |",
    ]

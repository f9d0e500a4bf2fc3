"""Continued pretraining on the task's sentences: python -m pytest tests/test_advanced_continued.py"""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from advanced.continued import Continued, held_out_loss, windows_of
from advanced.method import Method
from advanced.task import Task
from advanced.training import Recipe, Training
from errors import TrainingError, UsageError
from pretrain.model import next_token_loss
from pretrain.windows import Windows
from sentiment_data import Example
from tests.tiny import tokenizer_of
from tests.tiny_advanced import tiny_classifier, tiny_task, tiny_training

Weights = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def few_tokens_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the little text there is make several steps, of two windows each."""
    monkeypatch.setattr("advanced.continued.TOKENS_A_STEP", 128)


def weights(training: Training) -> Weights:
    return {name: tensor.clone() for name, tensor in training.classifier.state_dict().items()}


def adapted(folder: Path, *methods: Method, task: Task | None = None, **recipe: Any) -> Training:
    """Return a training that its methods have adapted, on `task`."""
    tokenizer = tokenizer_of("bpe", folder)
    classifier = tiny_classifier(folder, tokenizer, max_seq_len=64)
    return Training(classifier, tokenizer, task or tiny_task(), methods, Recipe(**recipe))


def test_the_loss_on_its_text_falls(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    method = Continued(passes=10, lr=1e-2)
    tiny_training(tmp_path, method)
    before, after = (method.chosen[name] for name in ("loss_before", "loss_after"))
    assert isinstance(before, float)
    assert isinstance(after, float)
    assert after < 0.8 * before
    assert f"held-out loss :: {before:.3f} before, {after:.3f} after" in capsys.readouterr().out


def test_the_loss_is_that_of_the_model_it_leaves(tmp_path: Path) -> None:
    method = Continued(lr=1e-2)
    training = tiny_training(tmp_path, method)
    llama = training.classifier.llama
    llama.output.__class__ = torch.nn.Linear  # the classifier's does not compute
    windows = windows_of(training.task.sentences("selection"), training.tokenizer, llama, seed=1)
    inputs, targets = windows.batch(range(len(windows)))
    assert method.chosen["loss_after"] == pytest.approx(
        next_token_loss(llama.eval(), inputs, targets, torch.float32).item(), rel=1e-5
    )


def test_labels_are_never_read(tmp_path: Path) -> None:
    task = tiny_task()
    swapped = {part: [Example(1 - row.label, row.sentence) for row in rows] for part, rows in task.parts.items()}
    found = [
        weights(adapted(tmp_path, Continued(lr=1e-2), task=each))
        for each in (task, dataclasses.replace(task, parts=swapped))
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_dev_and_test_are_never_read(tmp_path: Path) -> None:
    task = tiny_task()
    others = {**task.parts, "dev": [Example(0, "Another.")], "test": [Example(0, "One more.")]}
    found = [
        weights(adapted(tmp_path, Continued(lr=1e-2), task=each))
        for each in (task, dataclasses.replace(task, parts=others))
    ]
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_a_seed_gives_the_same_weights_again_and_another_one_others(tmp_path: Path) -> None:
    first, again, other = (weights(adapted(tmp_path, Continued(lr=1e-2), seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_head_stays_and_every_weight_of_the_llama_is_trained(tmp_path: Path) -> None:
    before, after = (weights(adapted(tmp_path, *methods)) for methods in ([], [Continued(lr=1e-2)]))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("llama.")}


class Watch(Method):
    """Notes what a method is about to find, or freezes a part of it."""

    def __init__(self, freeze: bool = False) -> None:
        self.freeze = freeze
        self.found: list[Any] = []

    def adapt(self, training: Training) -> None:
        llama = training.classifier.llama
        if self.freeze:
            llama.layers[0].requires_grad_(False)
        kinds = [type(module) for module in llama.modules()]
        trained = [(p.requires_grad, p.grad) for p in llama.parameters()]
        self.found = [kinds, trained, llama.training]


def test_the_llama_is_left_as_it_was_but_for_its_weights(tmp_path: Path) -> None:
    before, after = Watch(freeze=True), Watch()
    tiny_training(tmp_path, before, Continued(), after)
    assert before.found == after.found
    assert {is_trained for is_trained, _ in after.found[1]} == {False, True}


def test_a_model_that_no_longer_looks_back_only_is_not_held_to_an_old_mask(tmp_path: Path) -> None:
    class LookAhead(Method):
        def adapt(self, training: Training) -> None:
            training.classifier.llama.config.causal = False
            for layer in training.classifier.llama.layers:
                layer.attention.causal = False  # type: ignore[union-attr]

    training = tiny_training(tmp_path, Continued(), LookAhead())
    rows = torch.tensor([[1, 10, 11, 12], [1, 10, 11, 13]])
    _, hidden = training.classifier.llama.eval()(rows)
    assert not torch.allclose(hidden[0, 0], hidden[1, 0])


def test_every_window_is_read_once_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[int] = Counter()
    batch = Windows.batch

    def spy(self: Windows, numbers: Any) -> Any:
        if torch.is_grad_enabled():
            read.update(numbers)
        return batch(self, numbers)

    monkeypatch.setattr(Windows, "batch", spy)
    training = tiny_training(tmp_path, Continued(passes=3))
    count = len(windows_of(training.task.sentences("fit"), training.tokenizer, training.classifier.llama, seed=1))
    assert count > 2
    assert read == dict.fromkeys(range(count), 3)


def test_windows_hold_each_sentence_behind_a_begin_token(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    tokenizer, sentences = training.tokenizer, training.task.sentences("fit")
    streams = []
    for seed in (1, 2):
        windows = windows_of(sentences, tokenizer, training.classifier.llama, seed)
        assert windows.context == 64
        streams.append(windows.shards[0].tolist())
    rows = [tokenizer.encode(sentence, bos=True, eos=False) for sentence in sentences]
    assert all(Counter(stream) == Counter(token for row in rows for token in row) for stream in streams)
    starts = [i for i, token in enumerate(streams[0]) if token == tokenizer.bos_id]
    ends = [*starts[1:], len(streams[0])]
    assert sorted(streams[0][a:b] for a, b in zip(starts, ends, strict=True)) == sorted(rows)
    assert streams[0] != streams[1]


def test_a_few_words_are_enough(tmp_path: Path) -> None:
    task = tiny_task()
    short = {part: [Example(0, "Good."), Example(1, "Bad.")] for part in task.parts}
    method = Continued()
    adapted(tmp_path, method, task=dataclasses.replace(task, parts=short))
    assert method.chosen["loss_after"] != method.chosen["loss_before"]


def test_the_held_out_loss_is_a_mean_over_windows_not_over_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = adapted(tmp_path)
    llama = training.classifier.llama
    llama.output.__class__ = torch.nn.Linear
    windows = windows_of(training.task.sentences("fit"), training.tokenizer, llama, seed=1)
    assert len(windows) % 2 == 1
    in_twos = held_out_loss(llama, windows, torch.float32)
    monkeypatch.setattr("advanced.continued.TOKENS_A_STEP", 10_000)
    assert held_out_loss(llama, windows, torch.float32) == pytest.approx(in_twos, rel=1e-5)


def test_a_loss_that_is_no_number_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainingError, match=r"continued: the loss is nan in step \d+: try a lower lr of continued"):
        tiny_training(tmp_path, Continued(passes=8, lr=math.inf))
    monkeypatch.setattr("advanced.continued.TOKENS_A_STEP", 10_000)  # a single step
    with pytest.raises(TrainingError, match="continued: the loss is nan after the last step: try a lower lr"):
        tiny_training(tmp_path, Continued(lr=math.inf))


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(UsageError, match="continued: passes must be at least 1, got 0"):
        Continued(passes=0)
    with pytest.raises(UsageError, match="continued: lr must be above 0, got 0"):
        Continued(lr=0.0)

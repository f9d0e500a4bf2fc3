"""The training that all methods share, the parts of a task, and the catalogue.

python -m pytest tests/test_advanced_training.py
"""

import inspect
import math
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from advanced.catalogue import METHODS, in_order, make
from advanced.method import Method
from advanced.model import Classifier
from advanced.task import evenly, is_for_selection, load_task
from advanced.training import Check, Training
from classifier import LlamaEmbeddingClassifier
from config import ClassifierConfig
from errors import TrainingError, UsageError
from finetune import Finetuner
from sentiment_data import Example
from tests.tiny_advanced import tiny_training
from tests.tiny_finetune import ignore

Weights = dict[str, torch.Tensor]


def weights(training: Training) -> Weights:
    return {name: tensor.clone() for name, tensor in training.classifier.state_dict().items()}


def plan_accuracies(monkeypatch: pytest.MonkeyPatch, training: Training, *values: float) -> list[Weights]:
    """Let the selection part say these values in turn, and return the list that the weights asked about go to."""
    planned, seen = iter(values), list[Weights]()

    def accuracy(part: str) -> float:
        assert part == "selection"
        seen.append(weights(training))
        return next(planned)

    monkeypatch.setattr(training, "accuracy", accuracy)
    return seen


# ---------------------------------------------------------------------------------------------------- the training


def root_finetuner(folder: Path, training: Training, **settings: Any) -> Finetuner:
    """Return the assignment's own finetuner of the model that `training` starts with."""
    classifier = LlamaEmbeddingClassifier(ClassifierConfig(2, str(folder / "tiny.pt"), "finetune", 0.0))
    classifier.llama.config.pad_id = training.tokenizer.pad_id
    classifier.load_state_dict(training.classifier.state_dict())
    recipe, pad_id = training.recipe, training.tokenizer.pad_id
    return Finetuner(
        classifier,
        folder / "best.pt",
        run={},
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        seed=recipe.seed,
        pad_id=pad_id,
        **settings,
    )


def test_without_methods_it_is_the_assignments_finetuning(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=3, batch_size=3, lr=1e-4, seed=5)
    finetuner = root_finetuner(tmp_path, training)
    finetuner.fit(training.encoded("fit"), training.encoded("selection"), 3, ignore)
    training.run()
    for check, result in zip(training.history, finetuner.history, strict=True):
        assert check.train_loss == pytest.approx(result.train_loss, rel=1e-4)
        assert check.accuracy == result.dev_acc
    theirs = finetuner.classifier.state_dict()
    for name, tensor in training.classifier.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], atol=1e-5, rtol=0.0)


def test_a_method_that_changes_nothing_changes_nothing(tmp_path: Path) -> None:
    found = []
    for methods in ([], [Method(), Method()]):
        training = tiny_training(tmp_path, *methods)
        training.run()
        found.append(weights(training))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_the_best_checks_weights_are_kept_and_the_first_among_equals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = tiny_training(tmp_path, epochs=4)
    seen = plan_accuracies(monkeypatch, training, 0.2, 0.9, 0.5, 0.9)
    training.run()
    left = weights(training)
    assert all(torch.equal(left[name], seen[1][name]) for name in left)
    assert any(not torch.equal(left[name], seen[3][name]) for name in left)


def test_an_epoch_is_checked_as_often_as_asked(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, epochs=2, checks=2)  # four steps an epoch
    training.run()
    assert [check.epoch for check in training.history] == [0.5, 1.0, 1.5, 2.0]


class Constant(Method):
    """A loss that is a number of our own, with a gradient of zero."""

    def __init__(self, value: float) -> None:
        self.value = value

    def loss(self, log_probs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return 0.0 * log_probs.sum() + self.value

    def penalty(self, training: Training, input_ids: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        return 0.0 * log_probs.sum() + 0.25


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the loss is inf in step 0: try a lower --lr"):
        tiny_training(tmp_path, Constant(math.inf)).run()


def test_a_methods_loss_takes_the_place_of_the_cross_entropy_and_penalties_are_added(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Constant(2.0), Constant(3.0))  # the first loss counts, and every penalty
    before = weights(training)
    training.run()
    assert training.history[0].train_loss == pytest.approx(2.0 + 2 * 0.25)
    after = weights(training)
    assert all(torch.equal(before[name], after[name]) for name in before)


class Rates(Method):
    """Asks for a share of the learning rate, and notes the rates of the optimizer's groups in each step."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.asked: list[tuple[int, int]] = []
        self.found: list[list[float]] = []

    def parameter_groups(self, training: Training, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        params = groups[0]["params"]
        return [{"params": params[:1], "rate": 0.5}, {"params": params[1:], "rate": 1.0}]

    def rate(self, step: int, steps: int) -> float:
        self.asked.append((step, steps))
        return self.share

    def after_step(self, training: Training) -> None:
        self.found.append([group["lr"] for group in training.optimizer.param_groups])


def test_the_learning_rate_is_scaled_by_every_method_and_by_group(tmp_path: Path) -> None:
    half, fifth = Rates(0.5), Rates(0.2)
    tiny_training(tmp_path, half, fifth, lr=1.0, epochs=2).run()
    assert half.asked == fifth.asked == [(step, 8) for step in range(8)]
    assert half.found == pytest.approx(torch.tensor([[0.05, 0.1]] * 8).numpy())


def test_a_rate_of_0_takes_no_step(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Rates(0.0))
    before = weights(training)
    training.run()
    after = weights(training)
    assert all(torch.equal(before[name], after[name]) for name in before)


class StopAfter(Method):
    """Stops after so many checks."""

    def __init__(self, checks: int) -> None:
        self.checks = checks

    def is_finished(self, history: Sequence[Check]) -> bool:
        return len(history) == self.checks


def test_a_method_can_end_the_training(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Method(), StopAfter(2), epochs=5)
    training.run()
    assert len(training.history) == 2


class Diary(Method):
    """Writes down when it is called."""

    def __init__(self, name: str, diary: list[str]) -> None:
        self.name, self.diary = name, diary

    def __getattribute__(self, attribute: str) -> Any:
        if attribute in HOOKS:
            self.diary.append(f"{self.name} {attribute}")
        return super().__getattribute__(attribute)


HOOKS = ("adapt", "parameter_groups", "before_forward", "after_backward", "after_step", "finish")


def test_methods_do_their_part_in_order(tmp_path: Path) -> None:
    diary: list[str] = []
    tiny_training(tmp_path, Diary("a", diary), Diary("b", diary), batch_size=16).run()  # one step
    assert diary == [f"{name} {hook}" for hook in HOOKS for name in ("a", "b")]


def test_scores_are_log_probabilities_in_the_order_of_the_part(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    scores = training.scores("dev")
    assert scores.shape == (8, 2)
    assert scores.exp().sum(dim=1) == pytest.approx(torch.ones(8).numpy(), abs=1e-5)
    for row, ids in zip(scores, training.encoded("dev").ids, strict=True):
        torch.testing.assert_close(row, training.log_probs(torch.tensor([ids]))[0], atol=1e-5, rtol=1e-4)


def test_the_classifier_is_the_assignments(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    classifier = training.classifier.eval()
    ids = torch.tensor([[1, 10, 11, 12, 13], [1, 20, 21, training.tokenizer.pad_id, training.tokenizer.pad_id]])
    assert isinstance(classifier, Classifier)
    torch.testing.assert_close(classifier(ids), LlamaEmbeddingClassifier.forward(classifier, ids))
    assert set(classifier.trained) == {name for name, _ in classifier.named_parameters()}
    classifier.llama.requires_grad_(False)
    assert set(classifier.trained) == {"classifier_head.weight", "classifier_head.bias"}


# ---------------------------------------------------------------------------------------------------- the task


def test_about_a_tenth_is_kept_for_selection() -> None:
    kept = sum(is_for_selection(f"Sentence number {i}.") for i in range(5000))
    assert kept / 5000 == pytest.approx(0.1, abs=0.015)


def test_the_same_sentence_is_on_one_side_only_and_no_line_is_lost(tmp_path: Path) -> None:
    (tmp_path / "toy-label-mapping.json").write_text('["bad", "good"]')
    lines = [f"{i % 2} ||| Film number {i % 100}." for i in range(300)]
    for kind in ("train", "dev", "test"):
        (tmp_path / f"toy-{kind}.txt").write_text("\n".join(lines) + "\n")
    task = load_task("toy", tmp_path)
    fit, selection = task.sentences("fit"), task.sentences("selection")
    assert len(fit) + len(selection) == 300
    assert selection
    assert not set(fit) & set(selection)
    assert task.sentences("dev") == [f"Film number {i % 100}." for i in range(300)]
    assert [len(rows) for rows in load_task("toy", tmp_path, limit=5).parts.values()] == [5, 5, 5, 5]


# ---------------------------------------------------------------------------------------------------- the catalogue


@pytest.mark.parametrize("name", METHODS)
def test_the_catalogues_options_are_those_of_the_class(name: str) -> None:
    entry = METHODS[name]
    module, _, attribute = entry.place.partition(":")
    parameters = inspect.signature(getattr(import_module(module), attribute)).parameters
    ours = {option: (type(found.default), found.default) for option, found in entry.options.items()}
    assert ours == {option: (type(found.default), found.default) for option, found in parameters.items()}


@pytest.mark.parametrize("name", [name for name, entry in METHODS.items() if entry.kind == "finetuning"])
def test_methods_of_finetuning_are_methods(name: str) -> None:
    assert isinstance(make(name, {}), Method)


def test_an_option_that_is_given_arrives() -> None:
    assert make("mixout", {"mixout": {"p": 0.7}, "linear": {"warm_up": 0.3}}).p == 0.7


def test_an_option_that_a_method_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="mixout has no option q: it has p"):
        make("mixout", {"mixout": {"q": 1.0}})
    with pytest.raises(UsageError, match="plain has no option q: it has none"):
        make("plain", {"plain": {"q": 1.0}})


def test_methods_are_put_in_their_order_each_once() -> None:
    assert in_order(["cosine", "lora", "cosine", "hybrid", "continued"]) == ["continued", "lora", "cosine", "hybrid"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["lora", "qlora"], "there is no method qlora: choose among zero-shot, "),
        (["lora", "pmi"], "lora, pmi: finetuning and zero-shot cannot be combined"),
        (["hybrid"], "hybrid: this comes after another method"),
        (["tfidf-logreg", "tfidf-svm"], "a baseline stands alone. Name one of them"),
    ],
)
def test_methods_that_cannot_be_combined_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        in_order(names)


def test_a_limit_takes_sentences_at_even_distances_in_their_order() -> None:
    rows = [Example(i % 2, str(i)) for i in range(10)]
    assert [example.sentence for example in evenly(rows, 4)] == ["0", "2", "5", "7"]
    assert evenly(rows, None) == evenly(rows, 10) == evenly(rows, 11) == rows


def test_methods_that_contradict_each_other_are_refused_in_either_order() -> None:
    for name, entry in METHODS.items():
        for other in entry.excludes:
            assert other in METHODS
            for pair in ([name, other], [other, name]):
                with pytest.raises(UsageError, match=f"{name} and {other} contradict each other"):
                    in_order(pair)


def test_what_chooses_does_not_look_at_dev_or_test(tmp_path: Path) -> None:
    """Other labels there change nothing that is chosen, and no answer."""
    found = []
    for flip in (False, True):
        methods = [make(name, {}) for name in ("averaging", "early-stopping")] + [make("wise-ft", {})]
        training = tiny_training(tmp_path, *methods, epochs=3, lr=1e-2)
        for part in ("dev", "test"):
            rows = [Example(1 - row.label if flip else row.label, row.sentence) for row in training.task.parts[part]]
            training.task = replace(training.task, parts={**training.task.parts, part: rows})
        training.run()
        found.append(([method.chosen for method in methods if hasattr(method, "chosen")], training.scores("dev")))
    assert found[0][0] == found[1][0]
    assert torch.equal(found[0][1], found[1][1])

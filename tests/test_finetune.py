"""Training and prediction: what is counted, what is kept, what is trained. pytest tests/test_finetune.py"""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import finetune
from checkpoint import load_torch_file, read_checkpoint, save_torch_file
from errors import TrainingError
from finetune import EpochResult, predict, score
from inference.fast_adamw import FastAdamW
from optimizer import AdamW
from sentiment_data import make_batches
from tests.tiny import layer_of, padded
from tests.tiny_finetune import examples, ignore, make_finetuner


def test_the_loss_is_a_mean_over_sentences_not_over_batches(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path, lr=1e-12, dropout=0.0)
    train = examples(9)  # batches of 4, 4 and 1
    classifier = finetuner.classifier.eval()
    expected = F.nll_loss(classifier(padded(train.ids)), torch.tensor(train.labels)).item()
    finetuner.fit(train, examples(4), 1, ignore)
    assert finetuner.history[0].train_loss == pytest.approx(expected, abs=1e-5)


def test_training_accuracy_costs_no_second_pass(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path)
    rows_seen = 0

    def count(module: Any, inputs: tuple[torch.Tensor]) -> None:
        nonlocal rows_seen
        rows_seen += len(inputs[0])

    finetuner.classifier.register_forward_pre_hook(count)
    finetuner.fit(examples(9), examples(4), 2, ignore)
    assert rows_seen == 2 * (9 + 4)


def test_it_learns_what_can_be_learnt(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path, lr=3e-3)
    train = examples(32)
    finetuner.fit(train, train, 12, ignore)
    assert finetuner.history[-1].train_loss < 0.5 * finetuner.history[0].train_loss
    assert finetuner.history[-1].dev_acc > 0.9


def test_the_best_epoch_is_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    accuracies = iter([0.2, 0.9, 0.5])
    monkeypatch.setattr(finetune, "accuracy", lambda predicted, gold: next(accuracies))
    finetuner = make_finetuner(tmp_path)
    heads = []

    def keep_head(result: EpochResult) -> None:
        heads.append(finetuner.classifier.classifier_head.weight.clone())

    finetuner.fit(examples(16), examples(4), 3, keep_head)
    assert torch.equal(finetuner.classifier.classifier_head.weight, heads[1])
    assert not torch.equal(heads[1], heads[2])


def test_accuracy_that_never_improves_still_leaves_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetune, "accuracy", lambda predicted, gold: 0.0)
    finetuner = make_finetuner(tmp_path)
    finetuner.fit(examples(8), examples(4), 2, ignore)
    config, _ = read_checkpoint(finetuner.best_path)  # any reader of checkpoints can use the finetuned Llama
    assert config.dim == finetuner.classifier.llama.config.dim


def test_frozen_mode_trains_the_head_and_nothing_else(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path, option="pretrain")
    before = {name: value.clone() for name, value in finetuner.classifier.state_dict().items()}
    finetuner.fit(examples(16), examples(4), 1, ignore)
    changed = {
        name for name, value in finetuner.classifier.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"classifier_head.weight", "classifier_head.bias"}


def test_finetune_mode_trains_every_tensor(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path)
    before = {name: value.clone() for name, value in finetuner.classifier.state_dict().items()}
    finetuner.fit(examples(16), examples(4), 1, ignore)
    assert all(not torch.equal(value, before[name]) for name, value in finetuner.classifier.state_dict().items())


def test_the_order_of_the_data_differs_from_epoch_to_epoch_and_from_seed_to_seed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds: list[int] = []

    def spy(lengths: list[int], batch_size: int, *, bucketed: bool, shuffle_seed: int | None) -> list[list[int]]:
        if shuffle_seed is not None:
            seeds.append(shuffle_seed)
        return make_batches(lengths, batch_size, bucketed=bucketed, shuffle_seed=shuffle_seed)

    monkeypatch.setattr(finetune, "make_batches", spy)
    for seed in (1, 2):
        make_finetuner(tmp_path, seed=seed).fit(examples(8), examples(4), 3, ignore)
    assert len(set(seeds)) == 6


def test_a_run_stopped_at_any_epoch_ends_with_the_same_weights(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop(result: EpochResult) -> None:
        raise Stopped

    folders = [tmp_path / name for name in ("unbroken", "broken")]
    for folder in folders:
        folder.mkdir()
    data, dev = examples(16), examples(8, seed=50)
    unbroken = make_finetuner(folders[0])
    unbroken.fit(data, dev, 3, ignore)
    for _ in range(3):
        broken = make_finetuner(folders[1])
        broken.resume()
        with pytest.raises(Stopped):
            broken.fit(data, dev, 3, stop)
        torch.rand(7)  # what else a new process may have drawn
    last = make_finetuner(folders[1])
    assert last.resume()
    last.fit(data, dev, 3, ignore)
    assert last.history == unbroken.history
    theirs = unbroken.classifier.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in last.classifier.state_dict().items())


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert not make_finetuner(tmp_path).resume()


def test_another_runs_state_is_refused(tmp_path: Path) -> None:
    make_finetuner(tmp_path).fit(examples(8), examples(4), 1, ignore)
    with pytest.raises(TrainingError, match="another seed"):
        make_finetuner(tmp_path, run={"seed": 2}).resume()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path)
    with torch.no_grad():
        finetuner.classifier.classifier_head.bias.fill_(float("nan"))
    with pytest.raises(TrainingError, match="epoch 0, batch 0: try a lower --lr"):
        finetuner.fit(examples(8), examples(4), 1, ignore)


@pytest.mark.parametrize("bucketed", [True, False])
def test_predictions_come_in_the_order_of_the_rows_without_dropout(tmp_path: Path, bucketed: bool) -> None:
    classifier = make_finetuner(tmp_path, dropout=0.9).classifier.train()
    rows = examples(11).ids
    alone = [int(classifier.eval()(torch.tensor([row])).argmax()) for row in rows]
    assert predict(classifier.train(), rows, 4, 3, bucketed=bucketed) == alone


def test_scores_come_in_the_order_of_the_rows(tmp_path: Path) -> None:
    classifier = make_finetuner(tmp_path).classifier
    rows = examples(11).ids
    with torch.inference_mode():
        alone = torch.cat([classifier.eval()(torch.tensor([row])) for row in rows])
    torch.testing.assert_close(score(classifier.train(), rows, 4, 3, bucketed=True), alone)


def test_of_no_rows_there_are_no_predictions_and_no_scores(tmp_path: Path) -> None:
    classifier = make_finetuner(tmp_path).classifier
    assert predict(classifier, [], 4, 3, bucketed=True) == []
    with pytest.raises(ValueError, match="no rows to score"):
        score(classifier, [], 4, 3, bucketed=True)


@pytest.mark.parametrize("damage", ["history", "rng", "classifier"])
def test_a_state_that_lacks_something_is_refused(tmp_path: Path, damage: str) -> None:
    finetuner = make_finetuner(tmp_path)
    finetuner.fit(examples(8), examples(4), 1, ignore)
    state = load_torch_file(finetuner.resume_path)
    del state[damage]
    save_torch_file(finetuner.resume_path, state)
    with pytest.raises(TrainingError, match="does not fit this code .*: delete it and start anew"):
        make_finetuner(tmp_path).resume()


def test_weights_that_another_run_left_are_not_taken_for_ones_own(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path)

    def replace(result: EpochResult) -> None:
        content = load_torch_file(finetuner.best_path)
        save_torch_file(finetuner.best_path, content | {"run": {"seed": 2}})

    with pytest.raises(TrainingError, match="was replaced by another run meanwhile"):
        finetuner.fit(examples(8), examples(4), 1, replace)


def test_what_a_killed_save_left_is_removed_in_the_end(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path)
    finetuner.fit(examples(8), examples(4), 1, ignore)
    (tmp_path / ".best.resume.pt.abc.tmp").touch()
    finetuner.finish()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pt", "tiny.pt"]


def test_the_optimizer_can_be_another_of_the_same_kind(tmp_path: Path) -> None:
    assert type(make_finetuner(tmp_path).optimizer) is AdamW
    assert type(make_finetuner(tmp_path, optimizer=FastAdamW).optimizer) is FastAdamW


def test_in_bfloat16_products_are_rounded_and_nothing_else_is(tmp_path: Path) -> None:
    finetuner = make_finetuner(tmp_path, precision=torch.bfloat16)
    dtypes = set()
    layer = layer_of(finetuner.classifier.llama, 0)
    layer.feed_forward.w1.register_forward_hook(lambda module, inputs, output: dtypes.add(output.dtype))
    data = examples(16)
    finetuner.fit(data, data, 1, ignore)
    assert dtypes == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in finetuner.classifier.parameters())
    exact = make_finetuner(tmp_path)
    exact.fit(data, data, 1, ignore)
    assert finetuner.history[0].train_loss != exact.history[0].train_loss
    assert finetuner.history[0].train_loss == pytest.approx(exact.history[0].train_loss, rel=0.05)


def test_predictions_in_bfloat16_are_nearly_those_in_float32(tmp_path: Path) -> None:
    classifier, rows = make_finetuner(tmp_path).classifier, examples(40).ids
    exact, rounded = (
        predict(classifier, rows, 4, 3, bucketed=True, precision=precision)
        for precision in (torch.float32, torch.bfloat16)
    )
    assert sum(a == b for a, b in zip(exact, rounded, strict=True)) >= 36

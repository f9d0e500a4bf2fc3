"""Freezing: what is trained, and what is not touched."""

from pathlib import Path

import pytest
import torch

from advanced.freezing import TopLayers
from errors import UsageError
from tests.tiny_advanced import tiny_training


def test_the_last_layers_the_norm_behind_them_and_the_head_are_trained_and_nothing_else_changes(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, TopLayers(layers=1), lr=1e-2, sizes={"n_layers": 3})
    before = {name: parameter.detach().clone() for name, parameter in training.classifier.named_parameters()}
    training.run()
    is_top = ("llama.layers.2.", "llama.norm.", "classifier_head.")
    for name, parameter in training.classifier.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == name.startswith(is_top), name
        assert torch.equal(parameter, before[name]) != name.startswith(is_top), name


def test_training_starts_at_the_pretrained_model(tmp_path: Path) -> None:
    plain, frozen = tiny_training(tmp_path), tiny_training(tmp_path, TopLayers(layers=2))
    assert torch.equal(frozen.scores("dev"), plain.scores("dev"))


def test_all_layers_may_be_trained_and_the_embedding_is_not(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, TopLayers(layers=2))
    everything = {name for name, _ in training.classifier.named_parameters()}
    assert everything - training.classifier.trained.keys() == {"llama.tok_embeddings.weight"}


def test_a_task_can_be_learnt(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, TopLayers(layers=1), epochs=6)
    training.run()
    assert training.history[-1].train_loss < 0.5 * training.history[0].train_loss


@pytest.mark.parametrize("layers", [-1, 0, 3])
def test_layers_that_the_model_does_not_have_are_an_error(tmp_path: Path, layers: int) -> None:
    with pytest.raises(UsageError, match=f"top-layers: layers must be from 1 to the model's 2, got {layers}"):
        tiny_training(tmp_path, TopLayers(layers=layers))

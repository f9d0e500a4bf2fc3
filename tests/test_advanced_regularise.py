"""Methods that hold the finetuning back: python -m pytest tests/test_advanced_regularise.py"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.func import functional_call

from advanced.lora import Lora
from advanced.method import Method
from advanced.regularise import LabelSmoothing, LayerwiseDecay, Mixout
from advanced.training import Training
from errors import UsageError
from tests.tiny import random_tokens
from tests.tiny_advanced import tiny_training

LAYERS = "llama.layers."
Weights = dict[str, torch.Tensor]


def weights(training: Training) -> Weights:
    return {name: tensor.clone() for name, tensor in training.classifier.state_dict().items()}


def matrices(training: Training) -> Weights:
    return {name: tensor for name, tensor in weights(training).items() if name.startswith(LAYERS) and tensor.dim() > 1}


def moved_training(folder: Path, *methods: Method) -> tuple[Training, Weights]:
    """Return a training whose weights are no longer those it started with, and the matrices as they were."""
    training = tiny_training(folder, *methods)
    before = matrices(training)
    with torch.no_grad():
        for parameter in training.classifier.parameters():
            parameter.add_(torch.randn(parameter.shape))
    return training, before


def test_mixout_is_the_formula_of_its_paper(tmp_path: Path) -> None:
    p, method = 0.3, Mixout(0.3)
    training, pretrained = moved_training(tmp_path, method)
    trained, plain = matrices(training), weights(training)
    method.before_forward(training)
    mixed = matrices(training)
    replaced, total = 0, 0
    for name, w in trained.items():
        w0 = pretrained[name]
        mask = (mixed[name] == w0).float()
        expected = ((1 - mask) * w + mask * w0 - p * w0) / (1 - p)
        torch.testing.assert_close(mixed[name], expected, atol=1e-5, rtol=1e-4)
        replaced, total = replaced + int(mask.sum()), total + mask.numel()
    assert replaced / total == pytest.approx(p, abs=0.02)
    now = weights(training)
    assert all(torch.equal(now[name], plain[name]) for name in now.keys() - trained.keys())


def test_mixout_is_the_trained_weight_on_average(tmp_path: Path) -> None:
    draws, method = 400, Mixout(0.5)
    training, pretrained = moved_training(tmp_path, method)
    trained = matrices(training)
    total = {name: torch.zeros_like(w) for name, w in trained.items()}
    for _ in range(draws):
        method.before_forward(training)
        for name, parameter in training.classifier.named_parameters():
            if name in total:
                total[name] += parameter.detach()
        method.after_backward(training)
    # The share of W - W0 that is there: one on average, with a deviation of one in a draw at p = 0.5.
    shares = torch.cat(
        [((total[n] / draws - pretrained[n]) / (w - pretrained[n])).flatten() for n, w in trained.items()]
    )
    assert shares.mean().item() == pytest.approx(1.0, abs=5e-3)
    assert (shares - 1).abs().max() < 6 / draws**0.5


def test_mixout_leaves_the_trained_weights_behind_a_step(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Mixout(0.5), lr=0.0)
    before = weights(training)
    training.run()
    after = weights(training)
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_mixout_gives_the_gradient_of_the_trained_weights(tmp_path: Path) -> None:
    method = Mixout(0.5)
    training, pretrained = moved_training(tmp_path, method)
    trained = {name: tensor.requires_grad_() for name, tensor in matrices(training).items()}
    input_ids = random_tokens(3, 9)
    method.before_forward(training)
    mixed = matrices(training)
    training.log_probs(input_ids)[:, 0].sum().backward()
    method.after_backward(training)
    for name, w in trained.items():
        kept = 2.0 * (mixed[name] != pretrained[name])  # (1 - M) / (1 - p)
        mixed[name] = pretrained[name] + kept * (w - pretrained[name])
    functional_call(training.classifier, mixed, (input_ids,))[:, 0].sum().backward()
    for name, w in trained.items():
        assert w.grad is not None
        torch.testing.assert_close(training.classifier.trained[name].grad, w.grad, atol=1e-5, rtol=1e-3)
        assert torch.equal(training.classifier.trained[name], w)


def test_mixout_of_nothing_changes_nothing_at_all(tmp_path: Path) -> None:
    found = []
    for methods in ([], [Mixout(0.0)]):
        training = tiny_training(tmp_path, *methods, dropout=0.3)
        torch.manual_seed(7)
        training.run()
        found.append(weights(training))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_mixout_mixes_what_lora_trains_and_nothing_else(tmp_path: Path) -> None:
    method = Mixout(0.5)
    training, _ = moved_training(tmp_path, Lora(rank=2), method)
    before = weights(training)
    method.before_forward(training)
    after = weights(training)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in training.classifier.trained if name.startswith(LAYERS)}


def rates(training: Training) -> dict[str, float]:
    """Return the rate of each trained weight, which stands in one group."""
    names = {id(parameter): name for name, parameter in training.classifier.named_parameters()}
    pairs = [(names[id(p)], group["rate"]) for group in training.optimizer.param_groups for p in group["params"]]
    assert sorted(name for name, _ in pairs) == sorted(training.classifier.trained)
    return dict(pairs)


def test_the_rates_of_two_layers(tmp_path: Path) -> None:
    layer = [f"attention.compute_{part}" for part in ("query", "key", "value", "output")]
    layer += ["feed_forward.w1", "feed_forward.w2", "feed_forward.w3", "attention_norm", "ffn_norm"]
    expected = {"classifier_head.weight": 1.0, "classifier_head.bias": 1.0, "llama.norm.weight": 1.0}
    expected |= {f"llama.layers.1.{name}.weight": 0.5 for name in layer}
    expected |= {f"llama.layers.0.{name}.weight": 0.25 for name in layer}
    expected |= {"llama.tok_embeddings.weight": 0.125}
    assert rates(tiny_training(tmp_path, LayerwiseDecay(0.5))) == expected


def test_an_output_matrix_of_its_own_lies_above_the_layers(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, LayerwiseDecay(0.5), sizes={"tie_word_embeddings": False})
    assert rates(training)["llama.output.weight"] == 1.0


def test_the_depth_of_more_than_ten_layers_is_counted_not_spelt(tmp_path: Path) -> None:
    found = rates(tiny_training(tmp_path, LayerwiseDecay(0.5), sizes={"n_layers": 11}))
    assert found["llama.layers.10.feed_forward.w1.weight"] == 0.5
    assert found["llama.layers.1.feed_forward.w1.weight"] == 0.5**10


def test_rates_of_the_layers_multiply_with_other_groups(tmp_path: Path) -> None:
    class Halves(Method):
        def parameter_groups(self, training: Training, groups: list[dict[str, object]]) -> list[dict[str, object]]:
            (group,) = groups
            params = group["params"]
            assert isinstance(params, list)
            return [{"params": params[:4], "rate": 10.0, "weight_decay": 0.1}, {"params": params[4:], "rate": 1.0}]

    plain = rates(tiny_training(tmp_path, LayerwiseDecay(0.5)))
    training = tiny_training(tmp_path, Halves(), LayerwiseDecay(0.5))
    first = list(training.classifier.trained)[:4]
    assert rates(training) == {name: rate * (10 if name in first else 1) for name, rate in plain.items()}
    assert sum(len(g["params"]) for g in training.optimizer.param_groups if g["weight_decay"] == 0.1) == 4


def test_lora_is_decayed_by_layer_as_well(tmp_path: Path) -> None:
    found = rates(tiny_training(tmp_path, Lora(rank=2), LayerwiseDecay(0.5)))
    assert {rate for name, rate in found.items() if name.startswith("llama.layers.0.")} == {0.25}
    assert {rate for name, rate in found.items() if name.startswith("llama.layers.1.")} == {0.5}


@given(st.floats(0.0, 0.99), st.integers(2, 6), st.integers(0, 1000))
def test_label_smoothing_is_that_of_pytorch(share: float, num_labels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(5, num_labels, generator=generator)
    labels = torch.randint(num_labels, (5,), generator=generator)
    found = LabelSmoothing(share).loss(F.log_softmax(logits, dim=-1), labels)
    torch.testing.assert_close(found, F.cross_entropy(logits, labels, label_smoothing=share))


def test_options_outside_their_range_are_refused() -> None:
    for value in (-0.1, 1.0):
        with pytest.raises(UsageError, match=r"mixout: p must be in \[0, 1\), got"):
            Mixout(value)
        with pytest.raises(UsageError, match=r"label-smoothing: share must be in \[0, 1\), got"):
            LabelSmoothing(value)
    for value in (0.0, 1.1):
        with pytest.raises(UsageError, match=r"llrd: decay must be in \(0, 1\], got"):
            LayerwiseDecay(value)

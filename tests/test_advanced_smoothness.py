"""Answers that should not change with a little noise: python -m pytest tests/test_advanced_smoothness.py"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from advanced.lora import Lora
from advanced.method import Method
from advanced.regularise import Mixout
from advanced.smoothness import R3f, SameDropout, Smart, _noisy, noise_on_embeddings, symmetric_kl
from advanced.training import Training
from errors import UsageError
from tests.tiny import random_tokens
from tests.tiny_advanced import tiny_training

ROWS = random_tokens(4, 9)
BOTH = [R3f(), Smart()]


def penalty(training: Training, method: Method) -> torch.Tensor:
    """Return the penalty of a step in training mode, without the backward pass."""
    training.classifier.train()
    method.before_forward(training)
    found = method.penalty(training, ROWS, training.log_probs(ROWS))
    assert found is not None
    return found


def forward_passes(training: Training, method: Method) -> int:
    passes = 0

    def count(*_: object) -> None:
        nonlocal passes
        passes += 1

    handle = training.classifier.llama.register_forward_hook(count)
    penalty(training, method)
    handle.remove()
    return passes


def log_probs_of(seed: int, num_labels: int) -> torch.Tensor:
    return F.log_softmax(3 * torch.randn(5, num_labels, generator=torch.Generator().manual_seed(seed)), dim=-1)


@given(st.integers(0, 500), st.integers(501, 1000), st.integers(2, 6))
def test_the_distance_is_both_divergences(one: int, other: int, num_labels: int) -> None:
    p, q = log_probs_of(one, num_labels), log_probs_of(other, num_labels)
    both = [F.kl_div(a, b, reduction="batchmean", log_target=True) for a, b in ((p, q), (q, p))]
    torch.testing.assert_close(symmetric_kl(p, q), both[0] + both[1], atol=1e-5, rtol=1e-4)
    assert symmetric_kl(p, p) == 0


def test_noise_is_added_to_the_embeddings_and_only_inside_the_block(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    embed = training.classifier.llama.tok_embeddings
    plain, noise = embed(ROWS), torch.randn(4, 9, 32)
    with noise_on_embeddings(training, noise):
        torch.testing.assert_close(embed(ROWS), plain + noise)
    assert torch.equal(embed(ROWS), plain)


def test_the_same_numbers_are_drawn_again_and_then_the_next_ones() -> None:
    dropout = SameDropout()
    dropout.begin(torch.device("cpu"))
    first, second = torch.rand(3), torch.rand(3)
    dropout.begin(torch.device("cpu"))
    expected = torch.get_rng_state()
    third = torch.rand(3)
    with dropout.again():
        assert torch.equal(torch.rand(3), third)
    fourth = torch.rand(3)
    torch.set_rng_state(expected)
    assert torch.equal(torch.rand(6), torch.cat((third, fourth)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("method", [R3f(noise=0.0), Smart(noise=0.0)], ids=["r3f", "smart"])
def test_dropout_alone_is_no_penalty(method: Method, tmp_path: Path) -> None:
    training = tiny_training(tmp_path, method, dropout=0.5)
    for module in training.classifier.llama.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    assert penalty(training, method).item() == pytest.approx(0.0, abs=1e-9)
    one, other = training.log_probs(ROWS), training.log_probs(ROWS)
    assert symmetric_kl(one, other) > 0.1  # what dropout would have added


@pytest.mark.parametrize("method", BOTH, ids=["r3f", "smart"])
def test_a_model_that_always_answers_the_same_has_no_penalty(method: Method, tmp_path: Path) -> None:
    training = tiny_training(tmp_path, method)
    with torch.no_grad():
        training.classifier.classifier_head.weight.zero_()
    if isinstance(method, Smart):
        method.parameter_groups(training, [])
    found = penalty(training, method)
    found.backward()
    assert found == 0
    assert all(p.grad is None or p.grad.isfinite().all() for p in training.classifier.parameters())


@pytest.mark.parametrize("method", [R3f, lambda noise: Smart(noise=noise, proximal=0.0)], ids=["r3f", "smart"])
def test_the_penalty_grows_as_the_square_of_small_noise(method: type[R3f], tmp_path: Path) -> None:
    found = []
    for noise in (1e-3, 2e-3):
        training = tiny_training(tmp_path, chosen := method(noise=noise))
        torch.manual_seed(3)
        found.append(penalty(training, chosen).item())
    assert found[1] == pytest.approx(4 * found[0], rel=0.1)


@pytest.mark.parametrize("method", BOTH, ids=["r3f", "smart"])
def test_with_the_default_noise_the_penalty_is_more_than_rounding_of_bfloat16(method: Method, tmp_path: Path) -> None:
    found = []
    for precision in (torch.float32, torch.bfloat16):
        training = tiny_training(tmp_path, method, dropout=0.3, precision=precision)
        torch.manual_seed(3)
        found.append(penalty(training, method).item())
    assert found[1] == pytest.approx(found[0], rel=0.2)


@pytest.mark.parametrize("method", [R3f, Smart], ids=["r3f", "smart"])
def test_the_penalty_is_weighted(method: type[R3f], tmp_path: Path) -> None:
    found = []
    for weight in (1.0, 3.0):
        training = tiny_training(tmp_path, chosen := method(weight=weight, noise=1e-2))
        torch.manual_seed(3)
        found.append(penalty(training, chosen).item())
    assert found[1] == pytest.approx(3 * found[0], rel=1e-3)


@pytest.mark.parametrize("ascents", [1, 3])
def test_smarts_noise_stays_in_its_cube_and_is_worse_than_any_drawn_one(ascents: int, tmp_path: Path) -> None:
    method = Smart(noise=1e-2, ascents=ascents, proximal=0.0)
    training = tiny_training(tmp_path, method)
    method.before_forward(training)
    clean = training.log_probs(ROWS).detach()
    largest = 1e-2 * training.classifier.llama.tok_embeddings.weight.std()
    worst = method._worst_noise(training, ROWS, clean)
    assert worst.abs().max() <= largest

    def distance(noise: torch.Tensor) -> float:
        return symmetric_kl(clean, _noisy(training, method._dropout, ROWS, noise)).item()

    size = worst.square().mean().sqrt()
    assert all(distance(worst) > 2 * distance(size * torch.randn(worst.shape)) for _ in range(20))


def test_smarts_average_follows_the_weights(tmp_path: Path) -> None:
    momentum = 0.9
    steps: list[dict[str, torch.Tensor]] = []

    class Record(Method):
        def after_step(self, training: Training) -> None:
            steps.append({name: p.detach().clone() for name, p in training.classifier.trained.items()})

    training = tiny_training(tmp_path, method := Smart(momentum=momentum), Record())
    expected = {name: p.detach().clone() for name, p in training.classifier.trained.items()}
    training.run()
    for weights in steps:
        expected = {name: momentum * expected[name] + (1 - momentum) * weights[name] for name in expected}
    for name, average in method._average.items():
        torch.testing.assert_close(average, expected[name], atol=1e-6, rtol=1e-5)


def test_a_step_is_penalised_from_the_second_one_on(tmp_path: Path) -> None:
    method = Smart(weight=0.0, momentum=1.0)
    training = tiny_training(tmp_path, method, dropout=0.5)
    method.begin(training)
    assert penalty(training, method) == 0
    start = {name: p.detach().clone() for name, p in training.classifier.trained.items()}
    with torch.no_grad():
        for parameter in training.classifier.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    found = penalty(training, method)
    moved = training.log_probs(ROWS)
    assert found > 0
    assert all(torch.equal(method._average[name], start[name]) for name in start)
    # The same, by putting the weights in.
    training.classifier.eval()
    method.before_forward(training)
    moved = training.log_probs(ROWS)
    by_call = method.penalty(training, ROWS, moved)
    training.load_state(start)
    torch.testing.assert_close(by_call, symmetric_kl(moved, training.log_probs(ROWS)), atol=1e-6, rtol=1e-4)


def test_what_has_no_weight_costs_no_pass(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    for method, passes in (
        (R3f(), 2),
        (Smart(), 4),  # the step's own, one ascent, the worst noise, the average
        (Smart(ascents=3), 6),
        (Smart(proximal=0.0), 3),
        (Smart(weight=0.0), 2),
    ):
        method.parameter_groups(training, [])
        assert forward_passes(training, method) == passes


def test_both_train_beside_other_methods(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Lora(rank=2), Mixout(0.3), R3f(), Smart(), epochs=2, dropout=0.3)
    training.run()
    assert training.history[-1].train_loss < training.history[0].train_loss


@pytest.mark.parametrize("method", [R3f(noise=1e-2), Smart(noise=1e-2)], ids=["r3f", "smart"])
def test_a_step_down_the_penalty_makes_it_smaller(method: Method, tmp_path: Path) -> None:
    training = tiny_training(tmp_path, method)
    torch.manual_seed(3)
    before = penalty(training, method)
    before.backward()
    gradients = {
        parameter: parameter.grad for parameter in training.classifier.parameters() if parameter.grad is not None
    }
    steepness = sum(gradient.square().sum().item() for gradient in gradients.values())
    with torch.no_grad():
        for parameter, gradient in gradients.items():
            parameter.sub_(0.05 * before / steepness * gradient)  # 5 % less, as far as the gradient says
    torch.manual_seed(3)
    if isinstance(method, Smart):
        method.parameter_groups(training, [])
    assert 0.9 < penalty(training, method) / before < 0.97  # the worst noise is another one by now


def test_options_outside_their_range_are_refused() -> None:
    with pytest.raises(UsageError, match="r3f: noise must be 0 or more, got -1"):
        R3f(noise=-1.0)
    with pytest.raises(UsageError, match="r3f: weight must be 0 or more, got -1"):
        R3f(weight=-1.0)
    for name in ("weight", "noise", "ascents", "proximal"):
        with pytest.raises(UsageError, match=f"smart: {name} must be 0 or more, got -1"):
            Smart(**{name: -1})
    with pytest.raises(UsageError, match=r"smart: momentum must be in \[0, 1\], got 1.5"):
        Smart(momentum=1.5)

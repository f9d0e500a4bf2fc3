"""optimizer.py: run with `pytest tests/test_optimizer.py`."""

import io
import math
from typing import Any

import pytest
import torch
from torch import nn

from optimizer import AdamW

BETAS = (0.9, 0.999)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def gradients(steps: int, size: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(steps, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run(optimizer: torch.optim.Optimizer, p: nn.Parameter, grads: torch.Tensor) -> None:
    for grad in grads:
        p.grad = grad.clone()
        optimizer.step()


def test_without_decay_it_equals_torch_with_its_epsilon_rescaled() -> None:
    """Where the two definitions meet, part one: the bias correction.

    Torch divides by sqrt(v) / sqrt(1 - β2^t) + eps', we divide by sqrt(v) + eps and put sqrt(1 - β2^t) into the step
    size. Multiply torch's fraction by sqrt(1 - β2^t) above and below: the two are one if eps' = eps / sqrt(1 - β2^t).
    """
    ours, theirs = parameter(*range(6)), parameter(*range(6))
    eps = 1e-3  # large, so that a wrong place for it would be seen
    our_optimizer = AdamW([ours], lr=0.01, betas=BETAS, eps=eps)
    their_optimizer = torch.optim.AdamW([theirs], lr=0.01, betas=BETAS, weight_decay=0.0)
    for t, grad in enumerate(gradients(300), start=1):
        their_optimizer.param_groups[0]["eps"] = eps / math.sqrt(1 - BETAS[1] ** t)
        run(our_optimizer, ours, grad[None])
        run(their_optimizer, theirs, grad[None])
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)


def test_with_decay_it_is_torch_one_decay_further() -> None:
    """Where the two definitions meet, part two: the decay.

    With D for the decay (times 1 - lr · weight_decay) and U for the update, torch does D U1 D U2 … D Ut, we do
    U1 D U2 D … Ut D. So let torch start at θ0 / (1 - lr · weight_decay): its first D takes it to θ0, and from there on
    it is where we are, but for our last D. Gradients are given, for they must not depend on θ here; eps is 0, for the
    two to agree on it (part one).
    """
    lr, weight_decay = 0.01, 0.3
    decay = 1 - lr * weight_decay
    ours, theirs = parameter(*range(6)), parameter(*(value / decay for value in range(6)))
    our_optimizer = AdamW([ours], lr=lr, betas=BETAS, eps=0.0, weight_decay=weight_decay)
    their_optimizer = torch.optim.AdamW([theirs], lr=lr, betas=BETAS, eps=0.0, weight_decay=weight_decay)
    for grad in gradients(300):
        run(our_optimizer, ours, grad[None])
        run(their_optimizer, theirs, grad[None])
        torch.testing.assert_close(ours.data, decay * theirs.data, atol=1e-12, rtol=1e-12)


def test_the_first_three_steps_equal_a_table_worked_out_by_hand() -> None:
    """Lr 0.1, β1 0.5, β2 0.75, eps 1, decay 0.1 (so 0.99 a step), θ0 = 1, gradients 2, -2, 4.

    t   m      v       α_t                              θ before decay                   θ
    1   1      1       0.1 · √0.25     / 0.5   = 0.1    1 - 0.1 · 1 / (1 + 1) = 0.95     0.9405
    2  -0.5    1.75    0.1 · √0.4375   / 0.75           0.9405     + 0.01898330          0.94988847
    3   1.75   5.3125  0.1 · √0.578125 / 0.875          0.94988847 - 0.04601341          0.89483632
    """
    p = parameter(1.0)
    optimizer = AdamW([p], lr=0.1, betas=(0.5, 0.75), eps=1.0, weight_decay=0.1)
    for grad, theta in [(2.0, 0.9405), (-2.0, 0.94988847), (4.0, 0.89483632)]:
        run(optimizer, p, torch.tensor([[grad]], dtype=torch.float64))
        assert p.item() == pytest.approx(theta, abs=1e-8)


def test_without_bias_correction_the_step_size_is_the_learning_rate() -> None:
    """M = 0.1 · 2, v = 0.001 · 4, so θ = 1 - 0.1 · 0.2 / (sqrt(0.004) + 0.01)."""
    p = parameter(1.0)
    run(AdamW([p], lr=0.1, eps=0.01, correct_bias=False), p, torch.tensor([[2.0]], dtype=torch.float64))
    assert p.item() == pytest.approx(1 - 0.02 / (math.sqrt(0.004) + 0.01), abs=1e-12)


def test_the_decay_is_scaled_by_the_learning_rate_and_not_by_the_corrected_step_size() -> None:
    p = parameter(1.0)
    run(AdamW([p], lr=0.1, betas=(0.9, 0.5), weight_decay=0.5), p, torch.zeros(1, 1, dtype=torch.float64))
    assert p.item() == pytest.approx(0.95, abs=1e-15)  # a zero gradient leaves the decay alone


def test_the_defaults_are_the_originals() -> None:
    defaults = AdamW([parameter(1.0)]).defaults
    assert defaults == {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 0.0, "correct_bias": True}


def test_each_group_is_updated_by_its_own_hyperparameters() -> None:
    choices: list[dict[str, Any]] = [
        {"lr": 0.1, "weight_decay": 0.5},
        {"lr": 0.01, "betas": (0.8, 0.9)},
        {"eps": 0.1, "correct_bias": False},
    ]
    together, alone = [parameter(*range(6)) for _ in choices], [parameter(*range(6)) for _ in choices]
    groups = [{"params": [p], **choice} for p, choice in zip(together, choices, strict=True)]
    optimizer = AdamW(groups, lr=0.05)
    for grad in gradients(20):
        for p in together:
            p.grad = grad.clone()
        optimizer.step()
    for expected, p, choice in zip(together, alone, choices, strict=True):
        run(AdamW([p], **{"lr": 0.05, **choice}), p, gradients(20))
        assert torch.equal(p, expected)
    assert not torch.equal(together[0], together[1])


def test_parameters_count_their_own_steps() -> None:
    """A parameter that gets its first gradient late takes its first step, with the first step's correction."""
    early, late = parameter(1.0), parameter(1.0)
    optimizer = AdamW([early, late], lr=0.1)
    run(optimizer, early, torch.ones(5, 1, dtype=torch.float64))
    assert late.item() == 1.0
    assert not optimizer.state[late]
    run(optimizer, late, torch.ones(1, 1, dtype=torch.float64))
    assert late.item() == pytest.approx(0.9, abs=1e-5)


def test_a_parameter_without_a_gradient_is_left_alone_even_by_the_decay() -> None:
    trained, frozen = parameter(1.0), parameter(1.0).requires_grad_(False)
    optimizer = AdamW([trained, frozen], lr=0.1, weight_decay=0.5)
    run(optimizer, trained, torch.ones(3, 1, dtype=torch.float64))
    assert frozen.item() == 1.0
    assert trained.item() != 1.0


def test_the_closure_runs_with_gradients_on_and_its_loss_comes_back() -> None:
    p = parameter(3.0)
    optimizer = AdamW([p], lr=0.1)
    grad_was_on = []

    def closure() -> float:
        grad_was_on.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = p.square().sum()
        loss.backward()
        return loss.item()

    with torch.no_grad():  # as a caller may have left it
        assert optimizer.step(closure) == 9.0
    assert grad_was_on == [True]
    assert p.item() == pytest.approx(2.9, abs=1e-6)


def test_without_a_closure_there_is_no_loss() -> None:
    p = parameter(1.0)
    p.grad = torch.ones_like(p)
    assert AdamW([p]).step() is None


def test_no_graph_is_recorded_and_the_gradient_is_kept() -> None:
    p, grad = parameter(1.0, 2.0), torch.tensor([0.5, -0.5], dtype=torch.float64)
    optimizer = AdamW([p], weight_decay=0.1)
    before = p.data_ptr()
    run(optimizer, p, grad.expand(3, 2))
    assert p.is_leaf
    assert p.requires_grad
    assert p.grad_fn is None
    assert p.data_ptr() == before  # changed in place: layers keep pointing at it
    assert p.grad is not None
    assert torch.equal(p.grad, grad)
    assert not any(value.requires_grad for value in optimizer.state[p].values() if isinstance(value, torch.Tensor))


def test_a_sparse_gradient_is_an_error_that_names_the_remedy() -> None:
    embedding = nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="use torch.optim.SparseAdam"):
        AdamW(embedding.parameters()).step()


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ({"lr": -1.0}, "lr must be 0.0 or more, got -1.0"),
        ({"betas": (1.0, 0.999)}, r"betas must lie in \[0, 1\), got \(1.0, 0.999\)"),
        ({"betas": (0.9, -0.1)}, r"betas must lie in \[0, 1\), got \(0.9, -0.1\)"),
        ({"eps": -1e-8}, "eps must be 0.0 or more, got -1e-08"),
        ({"weight_decay": -0.1}, "weight_decay must be 0.0 or more, got -0.1"),
    ],
)
def test_a_hyperparameter_out_of_range_is_an_error(choice: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        AdamW([parameter(1.0)], **choice)


def test_a_saved_and_reloaded_state_goes_on_exactly() -> None:
    grads = gradients(20)
    straight = parameter(*range(6))
    run(AdamW([straight], lr=0.1, weight_decay=0.1), straight, grads)

    first = parameter(*range(6))
    optimizer = AdamW([first], lr=0.1, weight_decay=0.1)
    run(optimizer, first, grads[:8])
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)

    second = nn.Parameter(first.detach().clone())
    resumed = AdamW([second], lr=999.0)  # the saved hyperparameters win
    file.seek(0)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    run(resumed, second, grads[8:])
    assert torch.equal(second, straight)


def test_a_learning_rate_schedule_of_torch_drives_it() -> None:
    p = parameter(1.0)
    optimizer = AdamW([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for expected in (0.9, 0.85, 0.825):  # with a constant gradient a step is as long as the learning rate
        run(optimizer, p, torch.ones(1, 1, dtype=torch.float64))
        schedule.step()
        assert p.item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_state_keep_their_dtype(dtype: torch.dtype) -> None:
    p = nn.Parameter(torch.ones(3, dtype=dtype))
    optimizer = AdamW([p], lr=0.1, weight_decay=0.1)
    p.grad = torch.ones_like(p)
    optimizer.step()
    assert p.dtype == optimizer.state[p]["exp_avg"].dtype == optimizer.state[p]["exp_avg_sq"].dtype == dtype


def test_it_finds_the_bottom_of_a_bowl() -> None:
    p, target = parameter(*range(6)), torch.full((6,), 0.5, dtype=torch.float64)
    optimizer = AdamW([p], lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (p - target).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(p.data, target, atol=1e-2, rtol=0)

"""The fast AdamW: it does what the assignment's does, and each takes up where the other stopped."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inference.fast_adamw import FastAdamW
from optimizer import AdamW

SHAPES = [(7, 5), (33,), (), (0, 4), (64, 64)]
Kinds = tuple[type[AdamW], ...]
BOTH: Kinds = (AdamW, FastAdamW)
MOMENTS = ("exp_avg", "exp_avg_sq")


def parameters(seed: int = 0, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Return parameters of many shapes, as large as weights are, the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(0.1 * torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]


def set_gradients(params: list[nn.Parameter], t: int, skipping: bool = False) -> None:
    """Give the parameters the gradients of step `t`; every third (parameter, step) has none where `skipping`."""
    generator = torch.Generator().manual_seed(t)
    for i, p in enumerate(params):
        grad = torch.randn(p.shape, generator=generator).to(p.dtype)
        p.grad = None if skipping and (i + t) % 3 == 0 else grad


def train(optimizer: AdamW, steps: range, skipping: bool = False) -> list[torch.Tensor]:
    """Take steps, and return the parameters."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in steps:
        set_gradients(params, t, skipping)
        assert optimizer.step() is None
    return [p.detach() for p in params]


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor], tolerance: float = 1e-6) -> None:
    """Compare parameters."""
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=tolerance, atol=tolerance)


def forbid_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make it an error to fall back on the simple loop."""

    def fail(self: AdamW) -> None:
        raise AssertionError("the simple loop was called")

    monkeypatch.setattr(AdamW, "step", fail)


CHOICES: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.3, "lr": 0.1},
    {"correct_bias": False, "weight_decay": 0.1},
    {"betas": (0.0, 0.0)},
    {"eps": 0.1, "betas": (0.5, 0.9)},
    {"lr": 0.0, "weight_decay": 0.1},
    {"lr": 0.5, "weight_decay": 3.0},
]


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("skipping", [False, True])
def test_after_a_hundred_steps_it_is_where_the_simple_loop_is(
    choice: dict[str, Any], skipping: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = train(AdamW(parameters(), **({"lr": 1e-3} | choice)), range(100), skipping)
    forbid_the_loop(monkeypatch)
    ours = train(FastAdamW(parameters(), **({"lr": 1e-3} | choice)), range(100), skipping)
    assert_close(ours, theirs)


def test_each_group_has_its_own_hyperparameters() -> None:
    def trained(kind: type[AdamW]) -> list[torch.Tensor]:
        groups = [{"params": [p], **choice} for p, choice in zip(parameters(), CHOICES, strict=False)]
        return train(kind(groups, lr=1e-3), range(100))

    assert_close(trained(FastAdamW), trained(AdamW))


@settings(max_examples=60)
@given(
    lr=st.floats(0, 0.5),
    betas=st.tuples(st.floats(0, 0.999), st.floats(0, 0.9999)),
    eps=st.floats(1e-8, 1),
    weight_decay=st.floats(0, 4),
    correct_bias=st.booleans(),
)
def test_whatever_the_hyperparameters_are(**choice: Any) -> None:
    theirs = train(AdamW(parameters(dtype=torch.float64), **choice), range(5))
    ours = train(FastAdamW(parameters(dtype=torch.float64), **choice), range(5))
    assert_close(ours, theirs, 1e-9)


@pytest.mark.parametrize("kinds", [BOTH, BOTH[::-1]], ids=["fast goes on", "simple goes on"])
def test_either_takes_up_a_run_of_the_other(kinds: Kinds) -> None:
    choice: dict[str, Any] = {"lr": 1e-3, "weight_decay": 0.1}
    unbroken = train(AdamW(parameters(), **choice), range(20), skipping=True)
    params = parameters()
    first = kinds[0](params, **choice)
    train(first, range(9), skipping=True)
    second = kinds[1](params, lr=9.0)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert_close(train(second, range(9, 20), skipping=True), unbroken)


def test_the_saved_states_are_alike() -> None:
    saved = []
    for kind in BOTH:
        optimizer = kind(parameters(), weight_decay=0.1)
        train(optimizer, range(3))
        saved.append(optimizer.state_dict())
    simple, fast = saved
    assert fast["param_groups"] == simple["param_groups"]
    for name, state in simple["state"].items():
        assert list(fast["state"][name]) == list(state) and fast["state"][name]["step"] == state["step"] == 3
        assert type(fast["state"][name]["step"]) is int
        assert_close([fast["state"][name][key] for key in MOMENTS], [state[key] for key in MOMENTS])


def test_the_closure_is_called_once_with_gradients_on() -> None:
    p = nn.Parameter(torch.tensor([3.0]))
    optimizer, calls = FastAdamW([p], lr=0.1), []

    def closure() -> float:
        calls.append(torch.is_grad_enabled())
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 9.0
    assert calls == [True]
    assert p.item() == pytest.approx(2.9, abs=1e-6)


@pytest.mark.parametrize("why", ["strides", "bfloat16", "all decays"])
def test_what_the_kernel_cannot_do_the_simple_loop_does(why: str) -> None:
    results = []
    for kind in BOTH:
        params = parameters(dtype=torch.bfloat16 if why == "bfloat16" else torch.float32)
        optimizer = kind(params, lr=0.1, weight_decay=10.0 if why == "all decays" else 0.1)
        for t in range(3):
            set_gradients(params, t)
            if why == "strides":
                assert params[0].grad is not None
                params[0].grad = params[0].grad.t().contiguous().t()  # the same numbers in another order
            optimizer.step()
        results.append(params)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(*results, strict=True))


def test_a_closure_is_called_once_where_the_simple_loop_steps() -> None:
    p, calls = nn.Parameter(torch.ones(2, dtype=torch.bfloat16)), []

    def closure() -> float:
        calls.append(1)
        p.grad = torch.ones_like(p)
        return 5.0

    assert FastAdamW([p]).step(closure) == 5.0
    assert calls == [1]


def test_a_sparse_gradient_is_the_same_error() -> None:
    embedding = nn.Embedding(10, 4, sparse=True)
    embedding(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(RuntimeError, match="use torch.optim.SparseAdam"):
        FastAdamW(embedding.parameters()).step()


def test_a_hyperparameter_out_of_range_is_the_same_error() -> None:
    with pytest.raises(ValueError, match="lr must be 0.0 or more, got -1.0"):
        FastAdamW(parameters(), lr=-1.0)


def test_no_graph_is_recorded_and_the_gradient_is_kept() -> None:
    p = nn.Parameter(torch.ones(4))
    p.grad = torch.full((4,), 0.5)
    before = p.data_ptr()
    FastAdamW([p], weight_decay=0.1).step()
    assert p.is_leaf and p.grad_fn is None and p.data_ptr() == before
    assert torch.equal(p.grad, torch.full((4,), 0.5))


def test_a_schedule_drives_it() -> None:
    p = nn.Parameter(torch.ones(1))
    optimizer = FastAdamW([p], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    for expected in (0.9, 0.85, 0.825):  # with a constant gradient a step is as long as the learning rate
        p.grad = torch.ones(1)
        optimizer.step()
        schedule.step()
        assert p.item() == pytest.approx(expected, abs=1e-4)


def test_moments_of_another_layout_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    start, grads = torch.randn(3, 5), torch.randn(4, 3, 5)
    transposed = torch.nn.Parameter(start.t().contiguous().t())  # the same numbers, stored by columns
    first = AdamW([transposed], lr=0.1)
    transposed.grad = grads[0]
    first.step()
    results = []
    for kind in (AdamW, FastAdamW):
        parameter = torch.nn.Parameter(transposed.detach().contiguous())
        optimizer = kind([parameter], lr=0.1)
        optimizer.load_state_dict(copy.deepcopy(first.state_dict()))
        for grad in grads[1:]:
            parameter.grad = grad
            optimizer.step()
        results.append(parameter.detach())
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=1e-6)


def test_the_hooks_of_a_step_are_called_once_whichever_way_it_goes() -> None:
    AdamW([torch.nn.Parameter(torch.ones(1))])  # PyTorch wraps the step of a class that has been used
    for parameter in (torch.ones(2, 3), torch.ones(3, 2).t()):
        optimizer, calls = FastAdamW([torch.nn.Parameter(parameter)]), list[str]()
        optimizer.register_step_pre_hook(lambda *_, calls=calls: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_, calls=calls: calls.append("after"))
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2, 3)
        optimizer.step()
        assert calls == ["before", "after"]

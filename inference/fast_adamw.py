"""The assignment's AdamW by PyTorch's fused kernel: one pass over memory instead of some twelve, the same state.

    optimizer = FastAdamW(model.parameters(), lr=2e-5)

`optimizer.AdamW` computes m, v and θ by an operation each, and every operation reads and writes whole tensors; such a
step waits for the memory alone. PyTorch's kernel does it all while a number is in a register. It has another AdamW in
mind, so `FastAdamW._update` chooses its arguments such that it computes ours.
"""

import math
from collections.abc import Callable
from functools import cache
from inspect import unwrap
from typing import Any

import torch
from torch.optim.adamw import adamw

from optimizer import AdamW

DEVICES = ("cpu", "cuda")
DTYPES = (torch.float32, torch.float64)  # below them the simple loop rounds after each operation, the kernel once


class FastAdamW(AdamW):
    """An `AdamW` with the same arguments, the same state and the same results to rounding; either loads the other's."""

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Do what `AdamW.step` does.

        It is left to `AdamW.step` itself if the kernel does not fit a gradient. Raises RuntimeError for a sparse one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not all(self._fits(group) for group in self.param_groups):
            unwrap(AdamW.step)(self)  # without the hooks of a step, which this one has called
            return loss
        for group in self.param_groups:
            for t, params in self._by_step(group).items():
                self._update(params, t, group)
        return loss

    def _fits(self, group: dict[str, Any]) -> bool:
        """Say whether the kernel can do a group's step."""
        if group["lr"] * group["weight_decay"] == 1:  # all of θ goes: no step size of the kernel's does that
            return False
        moments = [
            m for p in _with_gradient(group) for m in self.state.get(p, {}).values() if isinstance(m, torch.Tensor)
        ]
        return all(_is_plain(p) and _is_plain(p.grad) for p in _with_gradient(group)) and all(map(_is_plain, moments))

    def _by_step(self, group: dict[str, Any]) -> dict[int, list[torch.Tensor]]:
        """Count one more step for each parameter with a gradient, and return those of equal count together.

        The counts differ once a parameter had no gradient in some step.
        """
        found: dict[int, list[torch.Tensor]] = {}
        for p in _with_gradient(group):
            state = self.state[p]
            if not state:
                state |= {"step": 0, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            state["step"] += 1
            found.setdefault(state["step"], []).append(p)
        return found

    def _update(self, params: list[torch.Tensor], t: int, group: dict[str, Any]) -> None:
        """Take step `t` with parameters of one group.

        At its own step s, with learning rate a and decay w, the kernel computes

            θ <- θ · (1 - a · w) - a / (1 - β1^s) · m / (sqrt(v / (1 - β2^s)) + eps)

        An infinite s switches its bias correction off. Ours is in α_t, and our decay d = lr · weight_decay comes last:

            (θ - α_t · m / (sqrt(v) + eps)) · (1 - d) = θ · (1 - d) - α_t · (1 - d) · m / (sqrt(v) + eps)

        so that a = α_t · (1 - d) and w = d / a.
        """
        (beta1, beta2), lr = group["betas"], group["lr"]
        decay = lr * group["weight_decay"]
        step_size = lr * (1 - decay)
        if group["correct_bias"]:
            step_size *= math.sqrt(1 - beta2**t) / (1 - beta1**t)
        states = [self.state[p] for p in params]
        adamw(
            params,
            [p.grad for p in params if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [_infinity(p.device) for p in params],
            fused=True,
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=step_size,
            weight_decay=decay / step_size if decay else 0.0,
            eps=group["eps"],
            maximize=False,
        )


def _with_gradient(group: dict[str, Any]) -> list[torch.Tensor]:
    """Return the parameters of a group that have a gradient."""
    return [p for p in group["params"] if p.grad is not None]


def _is_plain(tensor: torch.Tensor | None) -> bool:
    """Say whether the kernel takes a tensor. It reads the memory in order, and does not look at strides."""
    assert tensor is not None
    dense = tensor.layout == torch.strided and tensor.is_contiguous()
    return dense and tensor.device.type in DEVICES and tensor.dtype in DTYPES


@cache
def _infinity(device: torch.device) -> torch.Tensor:
    """Return a number of steps after which β^s is 0."""
    return torch.full((), math.inf, device=device)

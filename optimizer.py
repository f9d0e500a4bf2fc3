"""AdamW, written out: Adam with decoupled weight decay.

Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1 with the efficient form at the end of section 2; Loshchilov & Hutter
2019 (arXiv 1711.05101), algorithm 2. Check your work: python optimizer_test.py
"""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    """Adam with bias correction and decoupled weight decay; it is used as `torch.optim.AdamW` is."""

    def __init__(
        self,
        params: Iterable[torch.Tensor] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        correct_bias: bool = True,
    ) -> None:
        """Keep the hyperparameters for every parameter group.

        Raises ValueError if one of them lies outside its range.
        """
        if lr < 0.0:
            raise ValueError(f"lr must be 0.0 or more, got {lr}")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"betas must lie in [0, 1), got {betas}")
        if eps < 0.0:
            raise ValueError(f"eps must be 0.0 or more, got {eps}")
        if weight_decay < 0.0:
            raise ValueError(f"weight_decay must be 0.0 or more, got {weight_decay}")
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, "correct_bias": correct_bias}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; return the closure's loss, if there is a closure.

        For a parameter θ with gradient g, at its step t = 1, 2, …, starting from m = v = 0:

            m   <- β1 · m + (1 - β1) · g
            v   <- β2 · v + (1 - β2) · g²
            α_t  = lr · sqrt(1 - β2^t) / (1 - β1^t)     (α_t = lr if `correct_bias` is false)
            θ   <- θ - α_t · m / (sqrt(v) + eps)
            θ   <- θ - lr · weight_decay · θ            (the decay is scaled by lr, not by α_t)

        The decay comes last, as this assignment has always had it; the paper takes both from the same θ.

        m, v and t belong to the parameter: keep them in `self.state[p]`. The hyperparameters belong to the group.
        Raises RuntimeError for a sparse gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()

        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:
                    raise RuntimeError("AdamW takes dense gradients only: use torch.optim.SparseAdam for sparse ones")
                ### BEGIN SOLUTION adamw
                state = self.state[p]
                if not state:
                    state["step"] = 0
                    state["exp_avg"] = torch.zeros_like(p)
                    state["exp_avg_sq"] = torch.zeros_like(p)
                state["step"] += 1
                exp_avg, exp_avg_sq, t = state["exp_avg"], state["exp_avg_sq"], state["step"]
                (beta1, beta2), lr = group["betas"], group["lr"]

                exp_avg.mul_(beta1).add_(p.grad, alpha=1 - beta1)
                exp_avg_sq.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
                step_size = lr
                if group["correct_bias"]:
                    step_size = lr * math.sqrt(1 - beta2**t) / (1 - beta1**t)
                p.addcdiv_(exp_avg, exp_avg_sq.sqrt().add_(group["eps"]), value=-step_size)
                p.mul_(1 - lr * group["weight_decay"])
                ### END SOLUTION
        return loss

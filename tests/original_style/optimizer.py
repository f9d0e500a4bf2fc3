from typing import Callable, Iterable, Tuple

import torch
from torch.optim import Optimizer


class AdamW(Optimizer):
    def __init__(
            self,
            params: Iterable[torch.nn.parameter.Parameter],
            lr: float = 1e-3,
            betas: Tuple[float, float] = (0.9, 0.999),
            eps: float = 1e-6,
            weight_decay: float = 0.0,
            correct_bias: bool = True,
    ):
        if lr < 0.0:
            raise ValueError("bad learning rate: {}".format(lr))
        for beta in betas:
            if beta < 0.0 or beta >= 1.0:
                raise ValueError("bad beta: {}".format(beta))
        if eps < 0.0:
            raise ValueError("bad epsilon: {}".format(eps))
        defaults = dict(lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, correct_bias=correct_bias)
        super().__init__(params, defaults)

    def step(self, closure: Callable = None):
        loss = None if closure is None else closure()

        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = p.grad.data
                if grad.is_sparse:
                    raise RuntimeError("sparse gradients: please take SparseAdam, this is Adam")

                # everything that belongs to this parameter
                state = self.state[p]

                alpha = group["lr"]
                b1, b2 = group["betas"]

                if len(state) == 0:
                    state["t"] = 0
                    state["m"] = torch.zeros_like(p.data)
                    state["v"] = torch.zeros_like(p.data)

                state["t"] = state["t"] + 1
                t = state["t"]

                # first and second moments
                state["m"] = b1 * state["m"] + (1 - b1) * grad
                state["v"] = b2 * state["v"] + (1 - b2) * grad * grad

                # "efficient" bias correction
                if group["correct_bias"]:
                    alpha_t = alpha * (1 - b2 ** t) ** 0.5 / (1 - b1 ** t)
                else:
                    alpha_t = alpha

                p.data = p.data - alpha_t * state["m"] / (torch.sqrt(state["v"]) + group["eps"])

                # weight decay after the gradient update, with the plain learning rate
                if group["weight_decay"] > 0:
                    p.data = p.data - alpha * group["weight_decay"] * p.data

        return loss

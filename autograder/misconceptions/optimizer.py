"""Wrong variants of `AdamW.step`."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from autograder.misconceptions.base import Catalogue
from optimizer import AdamW

ADAMW = Catalogue("adamw", "optimizer.AdamW.step")

State = dict[str, Any]  # of a parameter: m, v and t
Group = dict[str, Any]  # lr, betas, eps, weight_decay, correct_bias
# Changes a parameter by its gradient; gets the optimizer as well.
Update = Callable[[AdamW, Tensor, Tensor, State, Group], None]


def _step_with(update: Update) -> Callable[..., float | None]:
    """Make a whole `AdamW.step` of what updates one parameter."""

    @torch.no_grad()
    def step(self: AdamW, closure: Callable[[], float] | None = None) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if p.grad.is_sparse:  # as in the given part of the step
                    raise RuntimeError("sparse gradients are not supported")
                update(self, p, p.grad, self.state[p], group)
        return loss

    return step


def _advance(p: Tensor, state: State) -> int:
    """Start m, v and t if there are none yet, and return the next t."""
    state.setdefault("m", torch.zeros_like(p))
    state.setdefault("v", torch.zeros_like(p))
    state["t"] = state.get("t", 0) + 1
    t: int = state["t"]
    return t


def _moments(p: Tensor, g: Tensor, state: State, group: Group) -> tuple[Tensor, Tensor, int]:
    """Update m and v by the gradient, which is right, and return them with t."""
    (beta1, beta2), t = group["betas"], _advance(p, state)
    state["m"] = beta1 * state["m"] + (1 - beta1) * g
    state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
    return state["m"], state["v"], t


def _alpha(group: Group, t: int) -> float:
    """Return α_t, which is right."""
    lr: float = group["lr"]
    (beta1, beta2) = group["betas"]
    return lr * math.sqrt(1 - beta2**t) / (1 - beta1**t) if group["correct_bias"] else lr


def _move(p: Tensor, m: Tensor, v: Tensor, group: Group, alpha: float) -> None:
    """Take the step, which is right."""
    p.sub_(alpha * m / (v.sqrt() + group["eps"]))


def _decay(p: Tensor, group: Group, rate: float | None = None) -> None:
    """Shrink the parameter, by lr unless another rate is given."""
    p.mul_(1 - (group["lr"] if rate is None else rate) * group["weight_decay"])


def _finish(p: Tensor, m: Tensor, v: Tensor, group: Group, t: int) -> None:
    """Step and decay, which is right."""
    _move(p, m, v, group, _alpha(group, t))
    _decay(p, group)


@ADAMW.add("AdamW with the decay applied before the update", _step_with)
def _decay_before(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _decay(p, group)
    _move(p, m, v, group, _alpha(group, t))


@ADAMW.add("Adam with the decay added to the gradient (L2) instead of decoupled", _step_with)
def _l2(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g + group["weight_decay"] * p, state, group)
    _move(p, m, v, group, _alpha(group, t))


@ADAMW.add("AdamW with the decay scaled by alpha_t instead of lr", _step_with)
def _decay_by_alpha(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _move(p, m, v, group, _alpha(group, t))
    _decay(p, group, rate=_alpha(group, t))


@ADAMW.add("AdamW with a decay that is not scaled by lr", _step_with)
def _decay_unscaled(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _move(p, m, v, group, _alpha(group, t))
    _decay(p, group, rate=1.0)


@ADAMW.add("AdamW without weight decay", _step_with)
def _no_decay(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _move(p, m, v, group, _alpha(group, t))


@ADAMW.add("AdamW whose decay grows the weights: it is added", _step_with)
def _decay_added(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _move(p, m, v, group, _alpha(group, t))
    _decay(p, group, rate=-group["lr"])


@ADAMW.add("AdamW without bias correction", _step_with)
def _no_correction(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, _ = _moments(p, g, state, group)
    _move(p, m, v, group, group["lr"])
    _decay(p, group)


@ADAMW.add("AdamW that corrects the bias even where correct_bias is False", _step_with)
def _always_corrected(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v, group | {"correct_bias": True}, t)


@ADAMW.add("AdamW that corrects the bias of m and not of v", _step_with)
def _corrects_m_only(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    correction = 1 - group["betas"][0] ** t if group["correct_bias"] else 1.0
    _move(p, m, v, group, group["lr"] / correction)
    _decay(p, group)


@ADAMW.add("AdamW that corrects the bias of v and not of m", _step_with)
def _corrects_v_only(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    correction = math.sqrt(1 - group["betas"][1] ** t) if group["correct_bias"] else 1.0
    _move(p, m, v, group, group["lr"] * correction)
    _decay(p, group)


@ADAMW.add("AdamW whose bias correction of v lacks the square root", _step_with)
def _correction_without_root(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    (beta1, beta2) = group["betas"]
    correction = (1 - beta2**t) / (1 - beta1**t) if group["correct_bias"] else 1.0
    _move(p, m, v, group, group["lr"] * correction)
    _decay(p, group)


@ADAMW.add("AdamW whose bias correction is upside down", _step_with)
def _correction_inverted(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    (beta1, beta2) = group["betas"]
    correction = (1 - beta1**t) / math.sqrt(1 - beta2**t) if group["correct_bias"] else 1.0
    _move(p, m, v, group, group["lr"] * correction)
    _decay(p, group)


@ADAMW.add("AdamW whose bias correction takes (1 - beta)^t instead of 1 - beta^t", _step_with)
def _power_of_difference(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    (beta1, beta2) = group["betas"]
    correction = math.sqrt((1 - beta2) ** t) / (1 - beta1) ** t if group["correct_bias"] else 1.0
    _move(p, m, v, group, group["lr"] * correction)
    _decay(p, group)


@ADAMW.add("AdamW whose step counter t stays at 1", _step_with)
def _first_step_forever(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, _ = _moments(p, g, state, group)
    _finish(p, m, v, group, 1)


@ADAMW.add("AdamW whose step counter t is one too high (it starts at 2)", _step_with)
def _one_step_ahead(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v, group, t + 1)


@ADAMW.add("AdamW with one step counter for all parameters, advanced by each", _step_with)
def _shared_counter(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, _ = _moments(p, g, state, group)
    counter = self.state["all parameters"]  # type: ignore[index]
    counter["t"] = counter.get("t", 0) + 1
    _finish(p, m, v, group, counter["t"])


@ADAMW.add("AdamW with one m, v and t for all parameters", _step_with)
def _shared_state(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, self.state["all parameters"], group)  # type: ignore[index]
    _finish(p, m, v, group, t)


@ADAMW.add("AdamW that forgets m and v after each step", _step_with)
def _forgetful(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    _advance(p, state)
    m, v, t = _moments(p, g, {"t": state["t"] - 1}, group)
    _finish(p, m, v, group, t)


@ADAMW.add("AdamW with eps inside the root", _step_with)
def _eps_inside(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v + group["eps"], group | {"eps": 0.0}, t)


@ADAMW.add("torch.optim.AdamW's eps, added after v is corrected for its bias", _step_with)
def _eps_after_correction(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    eps = group["eps"] * (math.sqrt(1 - group["betas"][1] ** t) if group["correct_bias"] else 1.0)
    _finish(p, m, v, group | {"eps": eps}, t)


@ADAMW.add("AdamW without eps", _step_with)
def _no_eps(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v, group | {"eps": 0.0}, t)


@ADAMW.add("AdamW with its betas swapped", _step_with)
def _swapped_betas(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    swapped = group | {"betas": group["betas"][::-1]}
    m, v, t = _moments(p, g, state, swapped)
    _finish(p, m, v, swapped, t)


@ADAMW.add("AdamW whose m and v have the beta on the gradient: (1 - beta) · m + beta · g", _step_with)
def _beta_on_gradient(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    beta1, beta2 = group["betas"]
    m, v, t = _moments(p, g, state, group | {"betas": (1 - beta1, 1 - beta2)})
    _finish(p, m, v, group, t)


@ADAMW.add("AdamW whose v averages the gradient without squaring it", _step_with)
def _v_without_square(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    beta1, beta2 = group["betas"]
    t = _advance(p, state)
    state["m"] = beta1 * state["m"] + (1 - beta1) * g
    state["v"] = beta2 * state["v"] + (1 - beta2) * g
    _finish(p, state["m"], state["v"], group, t)


@ADAMW.add("AdamW that divides by v instead of its root", _step_with)
def _no_root(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v * v, group, t)


@ADAMW.add("AdamW without momentum: it steps along the gradient instead of m", _step_with)
def _no_momentum(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    _, v, t = _moments(p, g, state, group)
    _finish(p, g, v, group, t)


@ADAMW.add("AdamW whose m and v lack the factor 1 - beta on the gradient", _step_with)
def _whole_gradient(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    beta1, beta2 = group["betas"]
    t = _advance(p, state)
    state["m"] = beta1 * state["m"] + g
    state["v"] = beta2 * state["v"] + g * g
    _finish(p, state["m"], state["v"], group, t)


@ADAMW.add("AdamW whose m lacks the factor 1 - beta1 on the gradient", _step_with)
def _whole_gradient_in_m(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    beta1, beta2 = group["betas"]
    t = _advance(p, state)
    state["m"] = beta1 * state["m"] + g
    state["v"] = beta2 * state["v"] + (1 - beta2) * g * g
    _finish(p, state["m"], state["v"], group, t)


@ADAMW.add("AdamW whose v lacks the factor 1 - beta2 on the squared gradient", _step_with)
def _whole_gradient_in_v(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    beta1, beta2 = group["betas"]
    t = _advance(p, state)
    state["m"] = beta1 * state["m"] + (1 - beta1) * g
    state["v"] = beta2 * state["v"] + g * g
    _finish(p, state["m"], state["v"], group, t)


@ADAMW.add(
    "AdamW that leaves the parameters as they are (p = ... only gives a new tensor that name: change p in place)",
    _step_with,
)
def _nothing(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    _moments(p, g, state, group)


@ADAMW.add("AdamW that climbs: it adds the step instead of subtracting it", _step_with)
def _climbs(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _move(p, m, v, group, -_alpha(group, t))
    _decay(p, group)


@ADAMW.add("AdamW that ignores the lr of a parameter group", _step_with)
def _default_lr(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v, group | {"lr": self.defaults["lr"]}, t)


@ADAMW.add("AdamW that ignores the weight_decay of a parameter group", _step_with)
def _default_weight_decay(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, group)
    _finish(p, m, v, group | {"weight_decay": self.defaults["weight_decay"]}, t)


@ADAMW.add("AdamW that ignores the betas of a parameter group", _step_with)
def _default_betas(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    default = group | {"betas": self.defaults["betas"]}
    m, v, t = _moments(p, g, state, default)
    _finish(p, m, v, default, t)


@ADAMW.add("AdamW that uses the options of the first parameter group for all", _step_with)
def _first_group(self: AdamW, p: Tensor, g: Tensor, state: State, group: Group) -> None:
    m, v, t = _moments(p, g, state, self.param_groups[0])
    _finish(p, m, v, self.param_groups[0], t)

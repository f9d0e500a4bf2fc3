"""A step of AdamW: the assignment's loop, the fast step beside it, and PyTorch's own, on tensors of a Llama's shapes.

A step computes next to nothing: it waits for the memory. For each number of the model it reads the weight, the gradient
and both moments, and writes the weight and the moments: 28 bytes in float32. So its limit is to read and write as much
memory in place.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch.optim import Optimizer

from benchmarks import report
from benchmarks.machine import describe, take_turns
from benchmarks.material import random_llama
from inference.fast_adamw import FastAdamW
from optimizer import AdamW
from utils import pick_device, progress

Parameters = list[torch.nn.Parameter]

OURS, FAST, FUSED, MOVE = "the assignment's loop", "FastAdamW", "torch, fused", "limit: as much memory, moved"
EPS = AdamW([torch.zeros(1)]).defaults["eps"]
_theirs = partial(torch.optim.AdamW, eps=EPS, weight_decay=0.0)
CONTENDERS: dict[str, Callable[[Parameters], Optimizer]] = {
    OURS: AdamW,
    FAST: FastAdamW,
    FUSED: partial(_theirs, fused=True),
    "torch, foreach": partial(_theirs, foreach=True),
    "torch, a loop": partial(_theirs, foreach=False, fused=False),
}
BYTES = 7 * 4  # for each number of the model
STEPS = 100  # after which the weights are compared
DECAY = 0.01  # in that comparison
SHIFT = 16  # numbers by which the gradients move on from step to step


def measure(*, sizes: Sequence[str] = ("15m", "42m"), rounds: int = 7, device: str = "cpu") -> dict[str, Any]:
    """Time a step of each optimizer at each size, in turns, and compare the weights of the loop and the fast step.

    Raises UsageError if there is no such device.
    """
    pick_device(device)  # which is refused here if it is not there
    rows: list[dict[str, Any]] = []
    compared = "42m" if "42m" in sizes else sizes[0]
    for size in sizes:
        parameters = _parameters(size, device)
        numbers = sum(parameter.numel() for parameter in parameters)
        for parameter in parameters:
            parameter.grad = 1e-3 * torch.randn_like(parameter)
        # All step the same weights: what these become does not matter here, and the moments are each optimizer's own.
        contenders: dict[str, Callable[[], object]] = {name: make(parameters).step for name, make in CONTENDERS.items()}
        contenders[MOVE] = _moving(numbers, device)
        for name, timing in take_turns(contenders, rounds).items():
            rows.append({"size": size, "contender": name, "numbers": numbers} | asdict(timing))
        del contenders  # their memory goes before the next size's is taken
    return {
        "machine": describe(torch.device(device)),
        "rounds": rounds,
        "steps": STEPS,
        "rows": rows,
        "difference": {"size": compared, "largest": _largest_difference(compared, device)},
    }


def _parameters(size: str, device: str) -> Parameters:
    """Return the weights of a Llama of this size, the same in each call."""
    return list(random_llama(size).to(device).parameters())


def _moving(numbers: int, device: str) -> Callable[[], object]:
    """Return a call that moves what a step must: `numbers` gradients are read; weights, m and v read and written."""
    gradient, state = torch.ones(numbers, device=device), torch.ones(3 * numbers, device=device)

    def move() -> torch.Tensor:
        state.neg_()
        return gradient.sum()

    return move


def _largest_difference(size: str, device: str) -> float:
    """Return how far the weights of the loop and of the fast step are apart after STEPS steps with the same gradients.

    Each step has other gradients: neighbouring pieces of one long row of random numbers.
    """
    ours, fast = _parameters(size, device), _parameters(size, device)
    optimizers = [AdamW(ours, weight_decay=DECAY), FastAdamW(fast, weight_decay=DECAY)]
    numbers = sum(parameter.numel() for parameter in ours)
    noise = 1e-3 * torch.randn(numbers + STEPS * SHIFT, device=device)
    for step in progress(range(STEPS), f"comparing {size}"):
        start = step * SHIFT
        for one, other in zip(ours, fast, strict=True):
            one.grad = other.grad = noise[start : start + one.numel()].view_as(one)
            start += one.numel()
        for optimizer in optimizers:
            optimizer.step()
    return max((one - other).abs().max().item() for one, other in zip(ours, fast, strict=True))


def table(result: dict[str, Any]) -> str:
    """Return the section on AdamW."""
    rows, difference = result["rows"], result["difference"]
    lines = ["## A step of AdamW", "", report.machine(result), ""]
    lines += report.grid(
        ("size", "who", "ms a step", "GB/s", "ratio to torch's fused", "of the limit"), map(_cells(rows), rows)
    )
    lines += [
        "",
        f"GB/s counts {BYTES} bytes for each number of the model, what a step that reads and writes everything once "
        "moves; the limit does no more than that, in the same turns. Above 1 is faster than torch's fused step. "
        f"After {result['steps']} steps with the same gradients, no weight of FastAdamW ({difference['size']}) is "
        f"further from the loop's than {difference['largest']:.1e}.",
    ]
    return "\n".join(lines) + "\n"


def _cells(rows: list[dict[str, Any]]) -> Callable[[dict[str, Any]], tuple[str, ...]]:
    """Return what makes the cells of one of these rows."""

    def rounds(size: str, contender: str) -> list[float]:
        return next(row["rounds"] for row in rows if (row["size"], row["contender"]) == (size, contender))

    def cells(row: dict[str, Any]) -> tuple[str, ...]:
        return (
            *(row["size"], row["contender"], f"{1000 * row['median']:.1f}"),
            f"{row['numbers'] * BYTES / row['median'] / 1e9:.1f}",
            "1.00" if row["contender"] == FUSED else report.ratio(row["rounds"], rounds(row["size"], FUSED)),
            report.share(rounds(row["size"], MOVE), row["rounds"]),
        )

    return cells

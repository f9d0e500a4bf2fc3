"""Where the time of a step goes, in a handful of plain names, by PyTorch's profiler.

The profiler knows operators ("aten::mul"), not what they are for. So parts of the model are labelled while it runs, and
the operators of the backward pass get the label of those whose gradient they compute.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from inspect import getattr_static
from typing import Any
from unittest.mock import patch

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.report import grid

MATRICES, SCORES, ROPE, NORMS, LOSS = "matrix products", "attention scores", "RoPE", "norms", "loss"
OPTIMIZER, DRAWING, COPIES = "optimizer", "drawing the token", "copies"
ELEMENTWISE, REST = "SwiGLU, sums", "Python, unseen"
GROUPS = (MATRICES, SCORES, ROPE, NORMS, LOSS, OPTIMIZER, DRAWING, COPIES, ELEMENTWISE, REST)
LABEL = "part: "
# What an operator is for, if nothing around it says so; the first part of a name that fits.
OPERATORS = {
    "aten::mm": MATRICES,
    "aten::addmm": MATRICES,
    "aten::bmm": SCORES,
    "aten::baddbmm": SCORES,
    "aten::_softmax": SCORES,
    "aten::_scaled_dot_product": SCORES,
    "aten::_log_softmax": LOSS,
    "aten::nll_loss": LOSS,
    "aten::copy_": COPIES,
    "aten::cat": COPIES,
    "aten::fill_": COPIES,
    "Optimizer.": OPTIMIZER,
}
Part = tuple[str, Any, str]  # a group, and where the function that belongs to it stands: an object and a name


def break_down(step: Callable[[], object], steps: int, parts: Sequence[Part] = ()) -> dict[str, float]:
    """Return the seconds that a call of `step` spends in each group, as a mean over `steps` of them."""
    parts = [*parts, (OPTIMIZER, nn.utils, "clip_grad_norm_")]
    with _labelled(parts), profile(activities=[ProfilerActivity.CPU]) as run:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        elapsed = time.perf_counter() - start
    microseconds = dict.fromkeys(GROUPS, 0.0)
    for group, duration in _attribute([event for event in run.events() if event.cpu_parent is None]):
        microseconds[group] += duration
    seconds = {group: total / 1e6 / steps for group, total in microseconds.items()}
    seconds[REST] = max(0.0, elapsed / steps - sum(seconds.values()))
    return seconds


def their_parts() -> list[Part]:
    """Return what is what in transformers' model."""
    from transformers.models.llama import modeling_llama

    return [
        (ROPE, modeling_llama, "apply_rotary_pos_emb"),
        (ROPE, modeling_llama.LlamaRotaryEmbedding, "forward"),
        (NORMS, modeling_llama.LlamaRMSNorm, "forward"),
    ]


@contextmanager
def _labelled(parts: Sequence[Part]) -> Iterator[None]:
    """Let each of these functions tell the profiler its group while it runs."""

    def labelling(group: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def labelled(*args: Any, **kwargs: Any) -> Any:
            with record_function(LABEL + group):
                return function(*args, **kwargs)

        return labelled

    with ExitStack() as stack:
        for group, owner, name in parts:
            labelled = labelling(group, getattr(owner, name))
            is_static = isinstance(getattr_static(owner, name), staticmethod)
            stack.enter_context(patch.object(owner, name, staticmethod(labelled) if is_static else labelled))
        yield


def _attribute(roots: Sequence[Any]) -> Iterator[tuple[str, float]]:
    """Yield a group and the microseconds that an event took without those inside it, for every event."""
    groups: dict[int, str | None] = {}  # by the number that an operator shares with its step of the backward pass

    def visit(event: Any, label: str | None) -> Iterator[tuple[str, float]]:
        if event.name.startswith(LABEL):
            label = event.name.removeprefix(LABEL)
        elif event.name.startswith("autograd::engine::evaluate_function"):
            label = groups.get(event.sequence_nr)
        elif event.sequence_nr >= 0:
            groups[event.sequence_nr] = label
        own = next((group for start, group in OPERATORS.items() if event.name.startswith(start)), None)
        if label is None and own == OPTIMIZER:
            label = own
        yield label or own or (ELEMENTWISE if event.name.startswith("aten::") else REST), event.self_cpu_time_total
        for child in event.cpu_children:
            yield from visit(child, label)

    for root in sorted(roots, key=lambda event: event.time_range.start):
        yield from visit(root, None)


def parts_table(what: str, columns: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines of a table on where the time goes, a contender a column; parts that take no time are left out.

    `what` says what was measured, and in which unit: the values are seconds, and the table has milliseconds.
    """
    totals = {name: sum(taken.values()) for name, taken in columns.items()}
    decimals = 0 if max(totals.values()) > 0.1 else 2
    parts = [part for part in next(iter(columns.values())) if any(taken[part] for taken in columns.values())]
    rows = (
        [
            part,
            *(f"{1000 * taken[part]:.{decimals}f} ({taken[part] / totals[who]:.0%})" for who, taken in columns.items()),
        ]
        for part in parts
    )
    head = [f"Where the time goes, {what} (under the profiler, which slows it down):", ""]
    return [*head, *grid(("", *columns), rows)]

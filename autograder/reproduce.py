"""Runs one check of one submission again, and shows its exact inputs and every difference.

python -m autograder reproduce abc123.zip RoPE --result out/abc123/result.json -o rope.npz
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from autograder.checks.hidden import (
    Answer,
    Course,
    HiddenCheck,
    Prepared,
    malformed_outputs,
    measured,
    prepare,
    tensors_of,
)
from autograder.editions import Edition
from autograder.grade import Opened
from autograder.isolation.sandbox import Call, Reply
from autograder.judge import check_named, explain, most_bytes
from checking import gaps
from utils import atomic_path

SHOWN = 12  # differing values of an output that are listed; the file has all


def reproduce(opened: Opened, name: str, edition: Edition, seed: str, target: Path | None = None) -> str:
    """Return what a check does with the submission, as text; `target` gets all tensors as an `.npz`.

    Raises UsageError if the edition has no such check, and GraderError if the fault is ours.
    """
    check = check_named(name, edition)
    prepared = prepare(check, bytes.fromhex(seed), Course(edition.causal))
    reply = opened.sandbox.call(Call(check.call, prepared.case, check.seconds, most_bytes(prepared)))
    result = explain(check, prepared, reply)
    lines = [f"{result.status}: {check.name}: {check.sentence}", f"called {prepared.called}", "", "inputs"]
    case = prepared.case
    lines += [_described(name, tensor) for name, tensor in (case.inputs | case.weights).items()]
    lines += [f"  {name} = {value!r}" for name, value in case.settings.items()]
    lines += ["", "outputs"]
    actual = _actual(check, prepared, reply)
    for output, expected in prepared.expected.items():
        lines += _compared(output, actual.get(output), expected, prepared)
    lines += ["", result.message, *result.details]
    lines += [f"this equals {sentence}" for sentence in result.misconceptions]
    if reply.printed:
        lines += ["", "it printed", reply.printed]
    if target:
        _save(target, prepared, actual)
        lines += ["", f"wrote {target}: numpy.load reads it"]
    return "\n".join(lines)


def _actual(check: HiddenCheck, prepared: Prepared, reply: Reply) -> Answer:
    """Return what is compared of a reply; the raw outputs if they are not of the form that can be measured."""
    if reply.status != "ok" or malformed_outputs(prepared.raw, reply.outputs):
        return reply.outputs
    return measured(check, prepared.case, tensors_of(prepared.raw, reply.outputs))


def _described(name: str, tensor: torch.Tensor) -> str:
    """Return a line on a tensor, with its values where they are few."""
    values = f" = {tensor.tolist()}" if tensor.numel() <= SHOWN else ""
    return f"  {name}: {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}{values}"


def _compared(name: str, actual: torch.Tensor | str | None, expected: torch.Tensor, prepared: Prepared) -> list[str]:
    """Return lines on one output: what was expected, and the first values that differ."""
    lines = [_described(name, expected) + " expected"]
    if not isinstance(actual, torch.Tensor):
        return [*lines, f"    got {actual or 'nothing'}"]
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return [*lines, _described("  got", actual)]
    wrong = gaps(actual, expected, *prepared.tolerances[name]) > 1.0
    if not wrong.any():
        return [*lines, "    equal within the tolerances"]
    for place in wrong.nonzero()[:SHOWN].tolist():
        at = tuple(place)
        lines.append(f"    {list(at)}: expected {expected[at].item():.9g}, got {actual[at].item():.9g}")
    return [*lines, f"    {int(wrong.sum())} of {wrong.numel()} values differ"]


def _save(target: Path, prepared: Prepared, actual: Answer) -> None:
    """Write inputs, weights, expected and actual outputs as plain arrays."""
    groups: dict[str, Mapping[str, torch.Tensor | str]] = {
        "inputs": prepared.case.inputs,
        "weights": prepared.case.weights,
        "expected": prepared.expected,
        "actual": actual,
    }
    arrays = {
        f"{group}/{name}": tensor.numpy()
        for group, tensors in groups.items()
        for name, tensor in tensors.items()
        if isinstance(tensor, torch.Tensor)
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the keywords for its options
    with atomic_path(target) as temporary:
        temporary.write_bytes(buffer.getvalue())

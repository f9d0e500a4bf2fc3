"""Training from scratch: steps of pretrain/ beside a plain PyTorch loop over transformers' `LlamaForCausalLM`.

Both train the same weights on the same batch, clip the gradient, and step AdamW. Ours is what a step of
`python -m pretrain train` does; the peer is what one would write with transformers: SDPA, torch's fused AdamW.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks import report
from benchmarks.breakdown import NORMS, ROPE, Part, break_down, parts_table, their_parts
from benchmarks.contenders import transformers_model
from benchmarks.machine import CPU, best_matmul_rate, describe, take_turns
from inference import fast_modules
from inference.fast_modules import speed_up
from llama import Llama
from optimizer import AdamW
from pretrain.model import build_model, flops_per_token, next_token_loss
from pretrain.recipe import ModelRecipe

Step = Callable[[], float]  # returns the loss


@dataclass(frozen=True)
class Size:
    """A model and a batch to train it on."""

    model: ModelRecipe
    vocab_size: int
    rows: int  # windows in a batch


SIZES = {
    "storybook": Size(ModelRecipe(dim=256, n_layers=6, n_heads=4, n_kv_heads=2, max_seq_len=256), 2048, 8),
    "stories15m": Size(ModelRecipe(dim=288, n_layers=6, n_heads=6, hidden_dim=768, max_seq_len=256), 32000, 4),
}
TO_PROFILE = 3  # steps
OUR_PARTS: list[Part] = [(ROPE, fast_modules, "_rotate"), (NORMS, fast_modules.FastRMSNorm, "forward")]
WORTH_IT = 1.5  # bfloat16 is measured where matrix products are this much faster in it


def measure(*, sizes: Sequence[str], rounds: int, compiled: bool) -> dict[str, Any]:
    """Time all contenders; return the machine, a row each, and where the time goes. Raises MissingDependency."""
    rows: list[dict[str, Any]] = []
    parts: dict[str, dict[str, dict[str, float]]] = {}
    flops = {precision: best_matmul_rate(CPU, precision) for precision in (torch.float32, torch.bfloat16)}
    has_bfloat16 = flops[torch.bfloat16] > WORTH_IT * flops[torch.float32]
    for name in sizes:
        size = SIZES[name]
        parts[name] = {}
        for precision in [torch.float32] + ([torch.bfloat16] if has_bfloat16 else []):
            label = str(precision).removeprefix("torch.")
            flops[precision] = max(flops[precision], best_matmul_rate(CPU, precision))
            contenders = _contenders(size, precision, compiled and precision == torch.float32)
            for contender, timing in take_turns(contenders, rounds).items():
                rows.append({"size": name, "precision": label, "contender": contender} | asdict(timing))
            parts[name][f"{label}: ours"] = break_down(contenders["ours"], TO_PROFILE, OUR_PARTS)
            parts[name][f"{label}: theirs"] = break_down(contenders["transformers"], TO_PROFILE, their_parts())
    for row in rows:
        row |= _throughput(SIZES[row["size"]], row["median"], flops[getattr(torch, row["precision"])])
    return {"machine": describe(), "rounds": rounds, "rows": rows, "parts": parts}


def _throughput(size: Size, seconds: float, peak: float) -> dict[str, float]:
    """Return what a step in so many seconds amounts to, beside what matrix products reach (`peak`, in FLOP/s)."""
    tokens = size.rows * size.model.max_seq_len
    return {
        "tokens_per_second": tokens / seconds,
        "share_of_peak": tokens * flops_per_token(_our_model(size)) / seconds / peak,
        "peak_gflops": peak / 1e9,
    }


def _contenders(size: Size, precision: torch.dtype, compiled: bool) -> dict[str, Step]:
    """Return a training step of each contender."""
    contenders = {
        "ours": _ours(size, precision, "torch"),
        "ours, the assignment's AdamW": _ours(size, precision, "adamw"),
        "transformers": _theirs(size, precision),
    }
    if compiled:
        contenders["ours, compiled"] = _ours(size, precision, "torch", compiled=True)
        contenders["transformers, compiled"] = _theirs(size, precision, compiled=True)
    return contenders


def _ours(size: Size, precision: torch.dtype, optimizer: str, *, compiled: bool = False) -> Step:
    """Return a step of this project's training."""
    model = _our_model(size)
    module: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
    inputs, targets = _batch(size)
    steps = torch.optim.AdamW(model.parameters(), fused=True) if optimizer == "torch" else AdamW(model.parameters())
    return lambda: _step(model, steps, lambda: next_token_loss(module, inputs, targets, precision))


def _our_model(size: Size) -> Llama:
    """Build the model as the trainer does."""
    torch.manual_seed(0)
    model = build_model(size.model, size.vocab_size, pad_id=0)
    speed_up(model)
    return model


def _theirs(size: Size, precision: torch.dtype, *, compiled: bool = False) -> Step:
    """Return a step of a plain loop over transformers' model of the same size. Raises MissingDependency."""
    model = transformers_model(_our_model(size)).train()
    model.config.use_cache = False
    module = torch.compile(model) if compiled else model
    inputs, targets = _batch(size)
    steps = torch.optim.AdamW(model.parameters(), fused=True)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = module(inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return lambda: _step(model, steps, loss)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> float:
    """Take one step and return its loss: the same for both."""
    result = loss()
    result.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return result.item()


def _batch(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random inputs and targets: speed does not depend on them. Shapes: (rows, max_seq_len) each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(size.vocab_size, (size.rows, size.model.max_seq_len + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


# ---------------------------------------------------------------------------------------------------- the table


def table(result: dict[str, Any]) -> str:
    """Return the section on training."""
    lines = ["## Training from scratch", "", f"{report.machine(result)} {_peaks(result['rows'])}", ""]
    head = ("size", "precision", "who", "ms a step", "tokens/s", "ratio to transformers", "of the matrix products")
    lines += report.grid(head, (_cells(row, result["rows"]) for row in result["rows"]))
    lines += [
        "",
        "The ratio is to transformers' own time, eager to eager and compiled to compiled, round by round: the median, "
        "and between which values the middle half lies; above 1 is faster. Without a note, the optimizer is torch's "
        "fused AdamW. The first step of what is compiled took "
        f"{_first_steps(result['rows'])}.",
    ]
    if any(row["share_of_peak"] > 1 for row in result["rows"]):
        lines += [
            "",
            "**Shares above 100 % cannot be**: the machine did other work while its matrix products were measured. The "
            "ratios are paired and stand; for the other columns, measure again on a quiet machine.",
        ]
    for size, columns in result["parts"].items():
        lines += ["", *parts_table(f"{size}, eager, in milliseconds a step", columns)]
    return "\n".join(lines) + "\n"


def _cells(row: dict[str, Any], rows: list[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells of a row of the table."""
    return (
        *(row["size"], row["precision"], row["contender"], f"{1000 * row['median']:.0f}"),
        *(f"{row['tokens_per_second']:,.0f}", _ratio(row, rows), f"{row['share_of_peak']:.0%}"),
    )


def _first_steps(rows: list[dict[str, Any]]) -> str:
    """Return how long it takes to compile, as part of a sentence."""
    compiled = [row for row in rows if row["contender"].endswith("compiled")]
    return ", ".join(f"{row['first']:.0f} s ({row['size']}, {row['contender']})" for row in compiled) or "no time here"


def _ratio(row: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """Return the ratio to the peer of the same kind."""
    peer = "transformers, compiled" if row["contender"].endswith("compiled") else "transformers"
    if row["contender"] == peer:
        return "1.00"
    same = (other for other in rows if (other["size"], other["precision"]) == (row["size"], row["precision"]))
    theirs = next(other["rounds"] for other in same if other["contender"] == peer)
    return report.ratio(row["rounds"], theirs)


def _peaks(rows: list[dict[str, Any]]) -> str:
    """Return the sentence on what matrix products reach."""
    peaks = {row["precision"]: row["peak_gflops"] for row in rows}
    speed = ", ".join(f"{peak:,.0f} GFLOP/s in {precision}" for precision, peak in peaks.items())
    return f"A large matrix product reaches {speed}."

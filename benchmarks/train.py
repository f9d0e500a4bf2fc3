"""Training from scratch: steps of pretrain/ beside a plain PyTorch loop over transformers' `LlamaForCausalLM`.

Both train the same sizes on the same batch, clip the gradient, and step AdamW. Ours is what `python -m pretrain train`
does in a step; the peer is what one would write with transformers: SDPA attention, torch's fused AdamW.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.machine import describe, take_turns
from config import feed_forward_width
from errors import MissingDependency
from llama import Llama
from optimizer import AdamW
from pretrain.fast_attention import speed_up
from pretrain.model import build_model, flops_per_token, next_token_loss
from pretrain.recipe import ModelRecipe
from pretrain.throughput import matmul_flops

Step = Callable[[], object]


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
# What an operation of PyTorch is part of, for the account of where the time goes.
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm"),
    "attention": ("aten::bmm", "aten::baddbmm", "aten::_softmax", "scaled_dot_product", "flash_attention"),
    "loss": ("log_softmax", "nll_loss"),
    "optimizer and clipping": ("_fused_adamw", "addcdiv", "addcmul", "sqrt", "linalg_vector_norm", "_foreach"),
    "copies and changes of type": ("copy_", "cat", "fill_", "zero_"),
}


def measure(sizes: Sequence[str], *, rounds: int, compiled: bool) -> dict[str, Any]:
    """Time all contenders; return the machine, a row each, and where our time goes. Raises MissingDependency."""
    rows: list[dict[str, Any]] = []
    parts: dict[str, dict[str, float]] = {}
    precisions = [torch.float32] + ([torch.bfloat16] if _has_bfloat16() else [])
    for name in sizes:
        size = SIZES[name]
        for precision in precisions:
            peak = matmul_flops(torch.device("cpu"), precision)
            timings = take_turns(_contenders(size, precision, compiled), rounds)
            tokens = size.rows * size.model.max_seq_len
            flops = tokens * flops_per_token(_our_model(size))
            for contender, timing in timings.items():
                rows.append(
                    {
                        "size": name,
                        "precision": str(precision).removeprefix("torch."),
                        "contender": contender,
                        **asdict(timing),
                        "tokens_per_second": tokens / timing.median,
                        "share_of_peak": flops / timing.median / peak,
                        "peak_gflops": peak / 1e9,
                    }
                )
            parts[f"{name}, {str(precision).removeprefix('torch.')}"] = where_time_goes(_ours(size, precision, "torch"))
    return {"machine": describe(), "rounds": rounds, "rows": rows, "parts": parts}


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
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        raise MissingDependency("this benchmark", "transformers") from error
    config = size.model.config(size.vocab_size, pad_id=0)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size.vocab_size,
            hidden_size=config.dim,
            intermediate_size=config.hidden_dim or feed_forward_width(config.dim, config.multiple_of),
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=config.max_seq_len,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    ).train()
    module = torch.compile(model) if compiled else model
    inputs, targets = _batch(size)
    steps = torch.optim.AdamW(model.parameters(), fused=True)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            logits = module(inputs).logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    return lambda: _step(model, steps, loss)


def _step(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor]) -> None:
    """Take one step: the same for both."""
    loss().backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()


def _batch(size: Size) -> tuple[torch.Tensor, torch.Tensor]:
    """Return random inputs and targets: speed does not depend on them. Shapes: (rows, max_seq_len) each."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(size.vocab_size, (size.rows, size.model.max_seq_len + 1), generator=generator)
    return tokens[:, :-1], tokens[:, 1:]


def where_time_goes(step: Step) -> dict[str, float]:
    """Return the share of a step's time that each part of it takes."""
    step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    spent: dict[str, float] = dict.fromkeys([*PARTS, "everything else: norms, SwiGLU, RoPE, residuals"], 0.0)
    for event in profile.key_averages():
        names = (part for part, keys in PARTS.items() if any(key in event.key for key in keys))
        spent[next(names, list(spent)[-1])] += event.self_cpu_time_total
    total = sum(spent.values())
    return {part: time / total for part, time in spent.items()}


def _has_bfloat16() -> bool:
    """Say whether the processor multiplies matrices in bfloat16, faster than in float32."""
    device = torch.device("cpu")
    return matmul_flops(device, torch.bfloat16) > 1.5 * matmul_flops(device, torch.float32)

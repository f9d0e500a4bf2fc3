"""The inputs of the checks, drawn from a seed: of the student's own checks, and of the hidden ones.

A builder gets random numbers and sizes. `sanity_data.py` calls it with fixed seeds and the sizes that are its defaults,
`checks.py` with a secret seed and with sizes that are drawn as well. Either way the inputs are such that no two
misconceptions of one region look alike: the comments say what that takes.
"""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import torch

from checking import Tolerances
from component_checks import Case, Outputs
from config import LlamaConfig
from llama import Attention, Llama

ATOL, RTOL = 1e-5, 1e-3  # the original's
PAD = 3

Sizes = dict[str, Any]  # of a LlamaConfig
Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Course:
    """What of an edition matters to the inputs.

    In a course that is not causal, nothing is masked and nothing is padded: its classifiers read the last column, which
    is then the last token as well.
    """

    causal: bool = True


@dataclass(frozen=True)
class Built:
    """A check's case, the tolerances that are not the usual ones, and what is known to come out without running it."""

    case: Case
    tolerances: Tolerances = field(default_factory=dict)
    known: Outputs = field(default_factory=dict)


class Draws:
    """Random tensors and sizes from a seed of their own."""

    def __init__(self, seed: int) -> None:
        """Start from the seed, below 2^63."""
        self.generator = torch.Generator().manual_seed(seed)

    @classmethod
    def of(cls, seed: bytes, name: str) -> "Draws":
        """Return the random numbers of one purpose: those of another name tell nothing about them."""
        digest = hashlib.sha256(seed + b"\0" + name.encode()).digest()
        return cls(int.from_bytes(digest[:8], "big") >> 1)

    def normal(self, *shape: int) -> torch.Tensor:
        """Return numbers of N(0, 1)."""
        return torch.randn(shape, generator=self.generator)

    def ids(self, *shape: int, low: int = 4, high: int) -> torch.Tensor:
        """Return whole numbers from `low` to `high` - 1; by default none of the special tokens."""
        return torch.randint(low, high, shape, generator=self.generator)

    def whole(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def real(self, low: float, high: float) -> float:
        """Return a number between `low` and `high`, rounded to three significant digits, as a report shows it."""
        share = float(torch.rand((), generator=self.generator))
        return float(f"{low + (high - low) * share:.3g}")

    def choice(self, *options: Any) -> Any:
        """Return one of the options."""
        return options[self.whole(0, len(options) - 1)]

    def order(self, count: int) -> torch.Tensor:
        """Return the numbers from 0 to `count` - 1, shuffled."""
        return torch.randperm(count, generator=self.generator)

    def fill(self, module: torch.nn.Module, scale: float) -> Weights:
        """Return weights for a module: matrices of N(0, scale²), vectors scattered around one."""
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        return {
            name: self.normal(*shape) * (scale if len(shape) > 1 else 0.3) + (len(shape) == 1)
            for name, shape in shapes.items()
        }


def deviations(count: float, share: float, draws: int) -> float:
    """Return so many standard deviations of a share that is counted in independent draws."""
    return count * math.sqrt(share * (1.0 - share) / draws)


def random_outcome(case: Case, outcome: dict[str, tuple[float, float]]) -> Built:
    """Return a check of random numbers, of which the values that they tend to and absolute tolerances are known."""
    tolerances = {name: (tolerance, 0.0) for name, (_, tolerance) in outcome.items()}
    return Built(case, tolerances, {name: torch.tensor(value) for name, (value, _) in outcome.items()})


# --- RMSNorm, RoPE, attention, layer ---


def rms_norm(draws: Draws, dim: int = 8, eps: float = 0.01, bs: int = 2, seqlen: int = 3) -> Built:
    """Long, short and tiny vectors, one of zeros, and one whose mean is far from zero: at least 2 rows of 3."""
    x = draws.normal(bs, seqlen, dim)
    x[0, 1] *= 0.1
    x[0, 2] *= 1e-3
    x[1, 0] = 0.0
    x[1, 1] += 2.0
    return Built(Case({"x": x}, {"dim": dim, "eps": eps}, {"weight": 1 + 0.5 * draws.normal(dim)}))


def rope(
    draws: Draws,
    head_dim: int = 8,
    theta: float = 500.0,
    max_seq_len: int = 16,
    bs: int = 2,
    seqlen: int = 7,
    n_heads: int = 4,
    n_kv_heads: int = 2,
) -> Built:
    """Queries and keys; theta is not the usual one, and there are not as many heads as positions."""
    inputs = {
        "query": draws.normal(bs, seqlen, n_heads, head_dim),
        "key": draws.normal(bs, seqlen, n_kv_heads, head_dim),
    }
    return Built(Case(inputs, {"head_dim": head_dim, "max_seq_len": max_seq_len, "theta": theta}, {}))


def attention(
    draws: Draws,
    causal: bool = False,
    bias: bool = False,
    dropout: float = 0.0,
    sizes: tuple[int, int, int] = (3, 5, 8),
    bs: int = 2,
) -> Built:
    """Three heads, five tokens, head_dim 8 (or other `sizes`): no two wrong scalings may be the same."""
    n_heads, seqlen, head_dim = sizes
    inputs = {name: draws.normal(bs, n_heads, seqlen, head_dim) for name in ("query", "key", "value")}
    if bias:
        inputs["attention_bias"] = draws.normal(n_heads, seqlen, seqlen)
    dim = n_heads * head_dim
    config = {"dim": dim, "n_heads": n_heads, "n_kv_heads": n_heads, "causal": causal, "dropout": dropout}
    return Built(Case(inputs, {"config": config}, {}))


def attention_dropout(
    draws: Draws, seqlen: int = 17, n_heads: int = 4, dropout: float = 0.25, times: int = 16, width: float = 6.0
) -> Built:
    """The values are the identity and a column of ones, so that the output shows the attention weights.

    Shares may lie `width` standard deviations from what they tend to; seqlen is odd.
    """
    value = torch.cat((torch.eye(seqlen), torch.ones(seqlen, 1)), dim=1).repeat(1, n_heads, 1, 1)
    inputs = {
        "query": draws.normal(1, n_heads, seqlen, seqlen + 1),
        "key": draws.normal(1, n_heads, seqlen, seqlen + 1),
    }
    config = {"dim": n_heads * (seqlen + 1), "n_heads": n_heads, "n_kv_heads": 2, "causal": False, "dropout": dropout}
    outcome = {
        "share of attention weights that are zero": (dropout, deviations(width, dropout, times * n_heads * seqlen**2)),
        "mean factor of the other weights": (1.0 / (1.0 - dropout), 0.02),
        "deviation of that factor": (0.0, 0.02),
        "share of rows whose output is not the sum by its weights": (0.0, 0.02),
    }
    return random_outcome(Case(inputs | {"value": value}, {"config": config, "times": times}, {}), outcome)


def gqa(draws: Draws, n_heads: int = 6, n_kv_heads: int = 2, head_dim: int = 4, bs: int = 2, seqlen: int = 4) -> Built:
    """Six heads over two: the two numbers and their quotient differ."""
    config: Sizes = {"dim": n_heads * head_dim, "n_heads": n_heads, "n_kv_heads": n_kv_heads}
    weights = draws.fill(Attention(LlamaConfig(**config)), scale=0.3)
    return Built(Case({"x": draws.normal(bs, seqlen, n_heads * head_dim)}, {"config": config}, weights))


def layer(draws: Draws, dim: int = 8, bs: int = 2, seqlen: int = 3) -> Built:
    """Linear maps and LayerNorms take the places of a layer's four parts."""
    parts = torch.nn.ModuleDict(
        {
            "attention": torch.nn.Linear(dim, dim),
            "feed_forward": torch.nn.Linear(dim, dim),
            "attention_norm": torch.nn.LayerNorm(dim),
            "ffn_norm": torch.nn.LayerNorm(dim),
        }
    )
    config = {"dim": dim, "n_heads": 2, "n_kv_heads": 1}
    return Built(Case({"x": draws.normal(bs, seqlen, dim)}, {"config": config}, draws.fill(parts, scale=0.5)))


# --- the whole model, and generation ---

MODEL: Sizes = {"vocab_size": 29, "dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 8}


def llama_weights(draws: Draws, config: Sizes, scale: float) -> Weights:
    """Return a tiny Llama's weights, with the output matrix tied to the embedding."""
    weights = draws.fill(Llama(LlamaConfig(**config)), scale)
    return weights | {"output.weight": weights["tok_embeddings.weight"]}


def model_forward(draws: Draws, config: Sizes, weights: Weights, bs: int = 2, seqlen: int = 7) -> Built:
    """Ids of a few words."""
    tokens = draws.ids(bs, seqlen, high=config["vocab_size"])
    return Built(Case({"tokens": tokens}, {"config": config}, weights))


def model_generation(
    draws: Draws, config: Sizes, weights: Weights, bs: int = 2, seqlen: int = 3, new: int = 9
) -> Built:
    """More tokens than the model's context holds."""
    idx = draws.ids(bs, seqlen, high=config["vocab_size"])
    settings = {"config": config, "generate": {"max_new_tokens": new, "temperature": 0.0}}
    return Built(Case({"idx": idx}, settings, weights))


def table_model(vocab_size: int) -> Sizes:
    """Return the sizes of a model that only lends its `generate`."""
    return {"vocab_size": vocab_size, "dim": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1}


def greedy(idx: torch.Tensor, logits: torch.Tensor, new: int = 5) -> Built:
    """Row i of the logits holds those of what follows token i."""
    settings = {"config": table_model(len(logits)), "generate": {"max_new_tokens": new, "temperature": 0.0}}
    return Built(Case({"idx": idx, "logits": logits}, settings, {}))


# Two rows and a temperature under which every misconception draws other shares, by a search over random ones.
SAMPLED = torch.tensor([[6.4, 4.0, 1.6, 0.0, 0.5], [-2.0, -1.6, -3.6, -2.4, -3.0]])
SAMPLED_TEMPERATURE = 0.5


def sampled(rows: int = 20_000) -> Built:
    """Many draws from two rows of logits."""
    generate = {"max_new_tokens": 1, "temperature": SAMPLED_TEMPERATURE}
    settings = {"config": table_model(5), "rows": rows, "generate": generate}
    case = Case({"idx": torch.tensor([[0], [1]]), "logits": SAMPLED}, settings, {})
    tolerance = deviations(6.0, 0.5, rows)  # no share varies more than that of 0.5
    known = {"shares of the tokens drawn": torch.softmax(SAMPLED / SAMPLED_TEMPERATURE, dim=-1)}
    return Built(case, {"shares of the tokens drawn": (tolerance, 0.0)}, known)


# --- AdamW ---

ADAMW: dict[str, Any] = {"lr": 0.1, "betas": [0.9, 0.999], "eps": 1e-3, "weight_decay": 0.0, "correct_bias": True}


def adamw(
    draws: Draws,
    options: dict[str, Any],
    groups: list[dict[str, Any]] | None = None,
    skips: tuple[tuple[int, int], ...] = ((2, 1), (3, 1)),
    steps: int = 6,
) -> Built:
    """A few steps of three parameters: gradients far above eps, near it and far below; one parameter skips some."""
    gradients = draws.normal(steps, 3, 2, 3) * torch.tensor([1.0, 0.03, 0.002]).view(3, 1, 1)
    settings = {
        "options": options,
        "groups": groups or [{"params": [0, 1, 2]}],
        "skips": [list(skip) for skip in skips],
    }
    return Built(Case({"start": 0.5 * draws.normal(3, 2, 3), "gradients": gradients}, settings, {}))


ADAMW_GROUPS = [
    {"params": [0], "lr": 0.04},
    {"params": [1], "weight_decay": 1.5},
    {"params": [2], "betas": [0.5, 0.9]},
]

# --- the classifiers ---

SMALL: Sizes = {"vocab_size": 11, "dim": 8, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1, "max_seq_len": 16}
LABELS = {"bad": [5], "good": [6, 7], "great": [6, 8, 9], "awful": [10, 5]}
# Rows of every kind: full, with 0 at the end, short, with the pad's id inside, of one token, and both at once.
ROWS = (
    [1, 5, 9, 4, 8, 6, 7],
    [1, 7, 4, 10, 5, 8, 0],
    [1, 8, 6, 9, PAD, PAD, PAD],
    [1, 4, PAD, 7, 10, PAD, PAD],
    [9, PAD, PAD, PAD, PAD, PAD, PAD],
    [1, PAD, 10, 4, PAD, 9, 5],
)


def classifier(draws: Draws, config: Sizes, weights: Weights, rows: torch.Tensor, labels: int = 4) -> Built:
    """Return a classifier with some labels on the given rows."""
    inputs = {"input_ids": rows, "weight": draws.normal(labels, config["dim"]), "bias": draws.normal(labels)}
    return Built(Case(inputs, {"config": config, "hidden_dropout_prob": 0.5}, weights))


def classifier_dropout(dim: int = 16, rows: int = 512, dropout: float = 0.3, width: float = 6.0) -> Built:
    """A hidden state of ones, and a head that hands each of its elements on, plus a bias.

    Shares may lie `width` standard deviations from what they tend to.
    """
    config = SMALL | {"dim": dim}
    shapes = {name: tensor.shape for name, tensor in Llama(LlamaConfig(**config)).state_dict().items()}
    weights = {name: torch.ones(1).expand(shape) for name, shape in shapes.items()}
    bias = torch.linspace(-1.0, 1.0, dim)
    inputs = {"input_ids": torch.tensor([[1, 5]]).repeat(rows, 1), "weight": torch.eye(dim), "bias": bias}
    outcome = {
        "share of hidden elements that are zero": (dropout, deviations(width, dropout, dim * rows)),
        "size of the others": (1.0 / (1.0 - dropout), 1e-3),
    }
    return random_outcome(Case(inputs, {"config": config, "hidden_dropout_prob": dropout}, weights), outcome)


def zero_shot(rows: torch.Tensor, labels: dict[str, list[int]], weights: Weights) -> Built:
    """Score labels of one, two and three tokens behind the given rows."""
    settings = {"config": SMALL, "labels": list(labels), "words": labels}
    return Built(Case({"input_ids": rows}, settings, weights))

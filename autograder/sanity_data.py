"""Makes `sanity_check.data`: the inputs of every student's check, and what master and misconceptions make of them.

Everything is drawn from fixed seeds, in tiny models with fewer key and value heads than query heads. The inputs are
chosen so that no two misconceptions of one region look alike; `--table` shows by how much.

    python -m autograder sanity-data
"""

import functools
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from autograder.misconceptions import MISCONCEPTIONS, Misconception, applied
from checking import FORMAT, Reference, Tolerances, distance
from component_checks import CHECKS, FILES, Case, Check, Outputs, run_call
from config import LlamaConfig
from errors import AssetError
from llama import Attention, Llama, load_pretrained
from tokenizer import find_tokenizer
from utils import atomic_path

ATOL, RTOL = 1e-5, 1e-3  # the original's
# Other machines add up real models in another order, and logits near zero have little relative room.
REAL_ATOL = 1e-4
# Two outputs must lie this many tolerances apart, or 2 in checks of random outcomes: six standard deviations are one.
SEPARATION, RANDOM_SEPARATION = 50.0, 2.0
RANDOM = ("attention dropout", "sampled generation", "classifier dropout")
PAD = 3

References = dict[str, Reference]
Sizes = dict[str, Any]  # of a LlamaConfig


@dataclass(frozen=True)
class Built:
    """A check's case, the tolerances that are not (ATOL, RTOL), and outputs that are known without running anything."""

    case: Case
    tolerances: Tolerances = field(default_factory=dict)
    known: Outputs = field(default_factory=dict)


class _Draws:
    """Random tensors from a seed of their own."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=self.generator)

    def ids(self, *shape: int, low: int = 4, high: int) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=self.generator)

    def fill(self, module: torch.nn.Module, scale: float) -> dict[str, torch.Tensor]:
        """Return weights for a module: matrices of N(0, scale²), vectors scattered around one."""
        shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
        return {
            name: self.normal(*shape) * (scale if len(shape) > 1 else 0.3) + (len(shape) == 1)
            for name, shape in shapes.items()
        }


def _rms_norm() -> Built:
    """Long, short and tiny vectors, one of zeros, and one whose mean is far from zero."""
    draws = _Draws(1)
    x = draws.normal(2, 3, 8)
    x[0, 1] *= 0.1
    x[0, 2] *= 1e-3
    x[1, 0] = 0.0
    x[1, 1] += 2.0
    return Built(Case({"x": x}, {"dim": 8, "eps": 0.01}, {"weight": 1 + 0.5 * draws.normal(8)}))


def _rope() -> Built:
    draws = _Draws(2)
    inputs = {"query": draws.normal(2, 7, 4, 8), "key": draws.normal(2, 7, 2, 8)}
    return Built(Case(inputs, {"head_dim": 8, "max_seq_len": 16, "theta": 500.0}, {}))


def _attention(causal: bool = False, bias: bool = False, dropout: float = 0.0) -> Built:
    """Three heads, five tokens, head_dim 8: no two wrong scalings are the same."""
    draws = _Draws(3)
    inputs = {name: draws.normal(2, 3, 5, 8) for name in ("query", "key", "value")}
    if bias:
        inputs["attention_bias"] = draws.normal(3, 5, 5)
    config = {"dim": 24, "n_heads": 3, "n_kv_heads": 3, "causal": causal, "dropout": dropout}
    return Built(Case(inputs, {"config": config}, {}))


def _attention_dropout() -> Built:
    """The values are the identity and a column of ones, so that the output shows the attention weights."""
    draws, times, seqlen, n_heads, dropout = _Draws(4), 16, 17, 4, 0.25
    value = torch.cat((torch.eye(seqlen), torch.ones(seqlen, 1)), dim=1).repeat(1, n_heads, 1, 1)
    inputs = {
        "query": draws.normal(1, n_heads, seqlen, seqlen + 1),
        "key": draws.normal(1, n_heads, seqlen, seqlen + 1),
    }
    config = {"dim": n_heads * (seqlen + 1), "n_heads": n_heads, "n_kv_heads": 2, "causal": False, "dropout": dropout}
    share = _six_deviations(dropout, times * n_heads * seqlen**2)
    outcome = {
        "share of attention weights that are zero": (dropout, share),
        "mean factor of the other weights": (1.0 / (1.0 - dropout), 0.02),
        "deviation of that factor": (0.0, 0.02),
        "share of rows whose output is not the sum by its weights": (0.0, 0.02),
    }
    return _random(Case(inputs | {"value": value}, {"config": config, "times": times}, {}), outcome)


def _gqa() -> Built:
    """Six heads over two: the two numbers and their quotient differ."""
    draws = _Draws(5)
    config: Sizes = {"dim": 24, "n_heads": 6, "n_kv_heads": 2}
    weights = draws.fill(Attention(LlamaConfig(**config)), scale=0.3)
    return Built(Case({"x": draws.normal(2, 4, 24)}, {"config": config}, weights))


def _layer() -> Built:
    draws, dim = _Draws(6), 8
    parts = torch.nn.ModuleDict(
        {
            "attention": torch.nn.Linear(dim, dim),
            "feed_forward": torch.nn.Linear(dim, dim),
            "attention_norm": torch.nn.LayerNorm(dim),
            "ffn_norm": torch.nn.LayerNorm(dim),
        }
    )
    config = {"dim": dim, "n_heads": 2, "n_kv_heads": 1}
    return Built(Case({"x": draws.normal(2, 3, dim)}, {"config": config}, draws.fill(parts, scale=0.5)))


# --- the whole model, and generation ---

MODEL: Sizes = {"vocab_size": 29, "dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "max_seq_len": 8}


def _weights(config: Sizes, seed: int, scale: float) -> dict[str, torch.Tensor]:
    """Return a tiny Llama's weights, with the output matrix tied to the embedding."""
    weights = _Draws(seed).fill(Llama(LlamaConfig(**config)), scale)
    return weights | {"output.weight": weights["tok_embeddings.weight"]}


@functools.cache
def _model_weights() -> dict[str, torch.Tensor]:
    """Return the weights that four checks share: tensors that are the same object are saved once."""
    return _weights(MODEL, seed=8, scale=0.4)


def _model_forward() -> Built:
    tokens = _Draws(7).ids(2, 7, high=MODEL["vocab_size"])
    return Built(Case({"tokens": tokens}, {"config": MODEL}, _model_weights()))


def _model_generation() -> Built:
    """More tokens than the model's context holds."""
    idx = _Draws(9).ids(2, 3, high=MODEL["vocab_size"])
    settings = {"config": MODEL, "generate": {"max_new_tokens": 9, "temperature": 0.0}}
    return Built(Case({"idx": idx}, settings, _model_weights()))


def _table(vocab_size: int) -> Sizes:
    """Return the sizes of a model that only lends its `generate`."""
    return {"vocab_size": vocab_size, "dim": 4, "n_layers": 1, "n_heads": 2, "n_kv_heads": 1}


def _greedy() -> Built:
    draws = _Draws(10)
    settings = {"config": _table(9), "generate": {"max_new_tokens": 5, "temperature": 0.0}}
    return Built(Case({"idx": draws.ids(3, 2, low=0, high=9), "logits": 2 * draws.normal(9, 9)}, settings, {}))


def _sampled() -> Built:
    """Two rows and a temperature under which every misconception draws other shares, by a search over random ones."""
    rows, temperature = 20_000, 0.5
    logits = torch.tensor([[6.4, 4.0, 1.6, 0.0, 0.5], [-2.0, -1.6, -3.6, -2.4, -3.0]])
    settings = {"config": _table(5), "rows": rows, "generate": {"max_new_tokens": 1, "temperature": temperature}}
    case = Case({"idx": torch.tensor([[0], [1]]), "logits": logits}, settings, {})
    name, tolerance = "shares of the tokens drawn", _six_deviations(0.5, rows)  # no share varies more than that of 0.5
    return Built(case, {name: (tolerance, 0.0)}, {name: torch.softmax(logits / temperature, dim=-1)})


# --- AdamW ---


def _adamw(groups: list[dict[str, Any]] | None = None, **options: Any) -> Built:
    """Six steps of three parameters: gradients far above eps, near it and far below; one parameter skips two steps."""
    draws = _Draws(12)
    gradients = draws.normal(6, 3, 2, 3) * torch.tensor([1.0, 0.03, 0.002]).view(3, 1, 1)
    settings = {
        "options": {"lr": 0.1, "betas": [0.9, 0.999], "eps": 1e-3, "weight_decay": 0.0, "correct_bias": True} | options,
        "groups": groups or [{"params": [0, 1, 2]}],
        "skips": [[2, 1], [3, 1]],
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
# Rows of every kind: full, short, of one token, with the pad's id inside, and with 0 at the end.
ROWS = (
    [1, 5, 9, 4, 8, 6, 7],
    [1, 7, 4, 10, 5, 8, 0],
    [1, 8, 6, 9, PAD, PAD, PAD],
    [1, 4, PAD, 7, 10, PAD, PAD],
    [9, PAD, PAD, PAD, PAD, PAD, PAD],
    [1, PAD, 10, 4, PAD, 9, 5],
)


def _head(config: Sizes, rows: tuple[list[int], ...], seed: int, weights: dict[str, torch.Tensor]) -> Built:
    """Return a classifier with four labels on the given rows."""
    draws = _Draws(seed)
    inputs = {"input_ids": torch.tensor(rows), "weight": draws.normal(4, config["dim"]), "bias": draws.normal(4)}
    return Built(Case(inputs, {"config": config, "hidden_dropout_prob": 0.5}, weights))


def _classifier_dropout() -> Built:
    """A hidden state of ones, and a head that hands each of its elements on, plus a bias."""
    config, rows, dropout = SMALL | {"dim": 16}, 512, 0.3
    shapes = {name: tensor.shape for name, tensor in Llama(LlamaConfig(**config)).state_dict().items()}
    weights = {name: torch.ones(1).expand(shape) for name, shape in shapes.items()}
    bias = torch.linspace(-1.0, 1.0, 16)
    inputs = {"input_ids": torch.tensor([[1, 5]]).repeat(rows, 1), "weight": torch.eye(16), "bias": bias}
    outcome = {
        "share of hidden elements that are zero": (dropout, _six_deviations(dropout, 16 * rows)),
        "size of the others": (1.0 / (1.0 - dropout), 1e-3),
    }
    return _random(Case(inputs, {"config": config, "hidden_dropout_prob": dropout}, weights), outcome)


def _zero_shot() -> Built:
    settings = {"config": SMALL, "labels": list(LABELS), "words": LABELS}
    return Built(Case({"input_ids": torch.tensor(ROWS)}, settings, _weights(SMALL, seed=15, scale=1.0)))


# --- real weights ---

PROMPT = "Once upon a time, there was a"


def _stories(**settings: Any) -> Built:
    return Built(Case({}, {"prompt": PROMPT} | settings, {}), {"logits": (REAL_ATOL, RTOL)})


BUILDERS: dict[str, Callable[[], Built]] = {
    "RMSNorm": _rms_norm,
    "RoPE": _rope,
    "attention": _attention,
    "causal mask": lambda: _attention(causal=True),
    "attention bias": lambda: _attention(bias=True),
    "attention dropout": _attention_dropout,
    "attention evaluation": lambda: _attention(dropout=0.5),
    "GQA": _gqa,
    "layer": _layer,
    "hidden states": _model_forward,
    "logits": _model_forward,
    "greedy generation": _greedy,
    "sampled generation": _sampled,
    "model generation": _model_generation,
    "AdamW": _adamw,
    "AdamW weight decay": lambda: _adamw(weight_decay=0.8),
    "AdamW without bias correction": lambda: _adamw(correct_bias=False),
    "AdamW parameter groups": lambda: _adamw(groups=ADAMW_GROUPS, weight_decay=0.4),
    "classifier": lambda: _head(SMALL, ROWS, 13, _weights(SMALL, seed=14, scale=1.0)),
    "classifier dropout": _classifier_dropout,
    "zero-shot": _zero_shot,
    "model classifier": lambda: _head(MODEL, ROWS, 16, _model_weights()),
    "stories260K logits": _stories,
    "stories260K text": lambda: _stories(max_new_tokens=60),
}


def build(weights: Path | None) -> References:
    """Return what belongs into `sanity_check.data`, check by check; without real weights, what needs none.

    Raises AssetError if a file below `weights` is missing.
    """
    references = {}
    for check in CHECKS:
        if check.real_weights is None:
            references[check.name] = _reference(check)
        elif weights is not None:
            references[check.name] = _real_reference(check, weights / check.real_weights)
    return references


def write(path: Path, references: References) -> None:
    """Write `sanity_check.data`: dictionaries, lists, strings, numbers and tensors only."""
    checks = {
        name: {
            "inputs": reference.case.inputs,
            "settings": reference.case.settings,
            "weights": reference.case.weights,
            "expected": reference.expected,
            "tolerances": {output: list(pair) for output, pair in reference.tolerances.items()},
            "misconceptions": reference.misconceptions,
        }
        for name, reference in references.items()
    }
    buffer = io.BytesIO()  # torch.save would write the temporary file's name into the file
    torch.save({"format": FORMAT, "checks": checks}, buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def _reference(check: Check) -> Reference:
    """Run the master, and the misconceptions that show in this check."""
    built = BUILDERS[check.name]()
    case = built.case
    expected = built.known or run_call(check, case)
    tolerances = _tolerances(built, expected)
    misconceptions = {}
    for misconception in MISCONCEPTIONS if not check.needs else ():
        if misconception.region in check.regions:
            outputs = _outputs_under(misconception, check, case)
            if distance(outputs, expected, tolerances) > 1.0:
                misconceptions[misconception.sentence] = outputs
    return Reference(case, expected, tolerances, misconceptions)


def _real_reference(check: Check, path: Path) -> Reference:
    """Run the master on real weights."""
    if not path.is_file():
        raise AssetError(f"{path} does not exist: fetch it with ./setup.sh --only {path.stem}, or name --weights")
    built = BUILDERS[check.name]()
    case = built.case
    settings = case.settings | {"checkpoint": str(path)}
    expected = run_call(check, Case(case.inputs, settings, case.weights))
    if "ids" in expected:
        case.settings["note"] = " ".join(_decoded(path, expected["ids"][0].tolist()).split())
    return Reference(case, expected, _tolerances(built, expected), {})


def _tolerances(built: Built, expected: Outputs) -> Tolerances:
    """Return the tolerances of each output."""
    return {name: built.tolerances.get(name, (ATOL, RTOL)) for name in expected}


def _decoded(path: Path, ids: list[int]) -> str:
    """Return the text of the ids, by the tokenizer beside the weights."""
    return find_tokenizer(path, load_pretrained(path).vocab_size).decode(ids)


def _outputs_under(misconception: Misconception, check: Check, case: Case) -> Outputs:
    """Return what a check's call gives with the wrong variant in place."""
    with applied(misconception):
        return {name: tensor.clone() for name, tensor in run_call(check, case).items()}


def _six_deviations(share: float, draws: int) -> float:
    """Return six standard deviations of a share that is counted in independent draws."""
    return 6.0 * math.sqrt(share * (1.0 - share) / draws)


def _random(case: Case, outcome: dict[str, tuple[float, float]]) -> Built:
    """Return a check of random numbers, of which the values that they tend to and absolute tolerances are known."""
    tolerances = {name: (tolerance, 0.0) for name, (_, tolerance) in outcome.items()}
    return Built(case, tolerances, {name: torch.tensor(value) for name, (value, _) in outcome.items()})


# --- the table of distances ---


def table(references: References) -> str:
    """Return the distances as text: for each output of each check the nearest other one, then each region's closest."""
    lines = []
    for name, reference in references.items():
        outputs = {"expected": reference.expected} | reference.misconceptions
        if len(outputs) > 1:
            lines.append(f"{name}: {len(outputs)} outputs, and how far away the nearest other one is, in tolerances")
            for one in outputs:
                far, nearest = min(
                    (_apart(reference, outputs[one], outputs[two]), two) for two in outputs if two != one
                )
                lines.append(f"{far:>12.3g}  {one}  <->  {nearest}")
    lines.append("regions, and how far apart the closest two are in the check that tells them apart best")
    for region in FILES:
        (one, two), far = min(separations(references, region).items(), key=lambda pair: pair[1])
        lines.append(f"{far:>12.3g} times what is asked for  {region}: {one}  <->  {two}")
    return "\n".join(lines)


def separations(references: References, region: str) -> dict[tuple[str, str], float]:
    """Return how far apart each pair of a region's outputs lies, the expected ones included, in its best check.

    The distance is a multiple of what is asked for: at least 1.0 is well.
    """
    sentences = ["expected", *(entry.sentence for entry in MISCONCEPTIONS if entry.region == region)]
    furthest = dict.fromkeys(itertools.combinations(sentences, 2), 0.0)
    for check in CHECKS:
        if check.regions == (region,):
            reference = references[check.name]
            asked = RANDOM_SEPARATION if check.name in RANDOM else SEPARATION
            # what does not show in a check gives the expected outputs
            outputs = [reference.misconceptions.get(sentence, reference.expected) for sentence in sentences]
            for pair, (one, two) in zip(furthest, itertools.combinations(outputs, 2), strict=True):
                furthest[pair] = max(furthest[pair], _apart(reference, one, two) / asked)
    return furthest


def _apart(reference: Reference, one: Outputs, two: Outputs) -> float:
    """Return how far apart two outputs of a check lie, in tolerances: the smaller of the two directions."""
    return min(distance(one, two, reference.tolerances), distance(two, one, reference.tolerances))

"""Makes `sanity_check.data`: the inputs of every student's check, and what master and misconceptions make of them.

Everything is drawn from fixed seeds, by the builders in `cases.py`, in tiny models with fewer key and value heads than
query heads. No two misconceptions of one region look alike; `--table` shows by how much they differ.

    python -m autograder sanity-data
"""

import functools
import io
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autograder.checks import cases
from autograder.checks.cases import ATOL, RTOL, Built, Draws
from autograder.misconceptions import MISCONCEPTIONS, Misconception, applied
from checking import FORMAT, Reference, Tolerances, distance
from component_checks import CHECKS, Case, Check, Outputs, run_call
from errors import AssetError
from llama import load_pretrained
from submission_rules import FILES
from tokenizer import find_tokenizer
from utils import atomic_path

# Other machines add up real models in another order, and logits near zero have little relative room.
REAL_ATOL = 1e-4
# Two outputs must lie this many tolerances apart, or 2 in checks of random outcomes: six standard deviations are one.
SEPARATION, RANDOM_SEPARATION = 50.0, 2.0
RANDOM = ("attention dropout", "sampled generation", "classifier dropout")

References = dict[str, Reference]


@functools.cache
def _model_weights() -> cases.Weights:
    """Return the weights that four checks share: tensors that are the same object are saved once."""
    return cases.llama_weights(Draws(8), cases.MODEL, scale=0.4)


def _small_weights(seed: int) -> cases.Weights:
    """Return weights of the classifiers' Llama."""
    return cases.llama_weights(Draws(seed), cases.SMALL, scale=1.0)


def _greedy() -> Built:
    draws = Draws(10)
    return cases.greedy(draws.ids(3, 2, low=0, high=9), 2 * draws.normal(9, 9))


def _adamw(groups: list[dict[str, Any]] | None = None, **options: Any) -> Built:
    return cases.adamw(Draws(12), cases.ADAMW | options, groups)


# --- real weights ---

PROMPT = "Once upon a time, there was a"


def _stories(**settings: Any) -> Built:
    return Built(Case({}, {"prompt": PROMPT} | settings, {}), {"logits": (REAL_ATOL, RTOL)})


BUILDERS: dict[str, Callable[[], Built]] = {
    "RMSNorm": lambda: cases.rms_norm(Draws(1)),
    "RoPE": lambda: cases.rope(Draws(2)),
    "attention": lambda: cases.attention(Draws(3)),
    "causal mask": lambda: cases.attention(Draws(3), causal=True),
    "attention bias": lambda: cases.attention(Draws(3), bias=True),
    "attention dropout": lambda: cases.attention_dropout(Draws(4)),
    "attention evaluation": lambda: cases.attention(Draws(3), dropout=0.5),
    "GQA": lambda: cases.gqa(Draws(5)),
    "layer": lambda: cases.layer(Draws(6)),
    "hidden states": lambda: cases.model_forward(Draws(7), cases.MODEL, _model_weights()),
    "logits": lambda: cases.model_forward(Draws(7), cases.MODEL, _model_weights()),
    "greedy generation": _greedy,
    "sampled generation": cases.sampled,
    "model generation": lambda: cases.model_generation(Draws(9), cases.MODEL, _model_weights()),
    "AdamW": _adamw,
    "AdamW weight decay": lambda: _adamw(weight_decay=0.8),
    "AdamW without bias correction": lambda: _adamw(correct_bias=False),
    "AdamW parameter groups": lambda: _adamw(groups=cases.ADAMW_GROUPS, weight_decay=0.4),
    "classifier": lambda: cases.classifier(Draws(13), cases.SMALL, _small_weights(14), torch.tensor(cases.ROWS)),
    "classifier dropout": cases.classifier_dropout,
    "zero-shot": lambda: cases.zero_shot(torch.tensor(cases.ROWS), cases.LABELS, _small_weights(15)),
    "model classifier": lambda: cases.classifier(Draws(16), cases.MODEL, _model_weights(), torch.tensor(cases.ROWS)),
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

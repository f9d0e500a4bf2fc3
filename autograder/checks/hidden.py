"""The hidden checks, as data: what is called on which inputs, what the student reads, and how outputs are compared.

The judge calls `prepare` for the inputs and for what the master makes of them, sends the case into the sandbox, and
calls `compare` on the raw tensors that come back. Component checks stand alone, with stand-ins for the other parts;
integration checks have `needs`. Nothing here runs a submission.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from autograder.checks import drawn, measures
from autograder.checks.cases import ATOL, RTOL, Built, Course, Draws
from autograder.misconceptions import MISCONCEPTIONS, applied
from autograder.sandboxed.calls import CALLS
from checking import Tolerances, difference, distance, malformed, no_tensor, what_was_called
from component_checks import (
    ADAMW,
    GENERATE,
    MODEL_REGIONS,
    SCORES,
    Case,
    Measure,
    Outputs,
    dropout_shares,
    hidden_shares,
)
from submission_rules import FILES

__all__ = [
    "CHECKS",
    "Answer",
    "Course",
    "HiddenCheck",
    "Prepared",
    "Verdict",
    "checks_for",
    "compare",
    "malformed_outputs",
    "measured",
    "prepare",
    "refutes",
    "tensors_of",
]

MAX_NAMES = 3  # of misconceptions that give the same: an output that more of them give says nothing
MAX_LINES = 6  # of outputs that differ, in one verdict

Answer = Mapping[str, torch.Tensor | str]  # a str is the name of the type of what is no tensor


@dataclass(frozen=True)
class HiddenCheck:
    """One hidden check.

    `regions` are the solution regions that it runs, its own one last; a given part has none. `sentence` is what the
    student reads. `called` is filled in from the settings of the case; `call` is a key of CALLS; `measure` turns raw
    outputs into what is compared. `needs` are checks that must pass first, `seconds` is the time limit.
    """

    name: str
    regions: tuple[str, ...]
    sentence: str
    called: str
    call: str
    build: Callable[[Draws, Course], Built]
    measure: Measure | None = None
    needs: tuple[str, ...] = ()
    seconds: float = 10.0
    only: Literal["", "causal", "no mask"] = ""  # the courses in which it makes sense; all of them by default
    draws_tokens: bool = False  # it compares counts of what was drawn, by a chi-squared test

    @property
    def region(self) -> str:
        """The region that it belongs to, or "given"."""
        return self.regions[-1] if self.regions else "given"

    @property
    def file(self) -> str:
        """The file that it belongs to."""
        return FILES.get(self.region, "llama.py")


@dataclass(frozen=True)
class Prepared:
    """A check's case for one submission, and what the master makes of it: raw, and measured."""

    case: Case
    raw: Outputs
    expected: Outputs
    tolerances: Tolerances
    called: str

    @property
    def raw_bytes(self) -> int:
        """The size of the master's answer."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.raw.values())


@dataclass(frozen=True)
class Verdict:
    """Whether a submission's outputs are right; if not, what is wrong, and which misconceptions give exactly this."""

    passed: bool
    message: str = ""
    details: tuple[str, ...] = ()
    misconceptions: tuple[str, ...] = ()


def checks_for(course: Course) -> tuple[HiddenCheck, ...]:
    """Return the checks that make sense in a course, in the order in which they run."""
    kind = "causal" if course.causal else "no mask"
    return tuple(check for check in CHECKS if check.only in ("", kind))


def prepare(check: HiddenCheck, seed: bytes, course: Course) -> Prepared:
    """Draw the inputs of a check, and run the master on them, in this process."""
    built = check.build(Draws.of(seed, check.name), course)
    case = built.case
    raw = CALLS[check.call](case)
    expected = built.known or measured(check, case, raw)
    tolerances = {name: built.tolerances.get(name, (ATOL, RTOL)) for name in expected}
    return Prepared(case, raw, expected, tolerances, check.called.format(**case.settings))


def compare(check: HiddenCheck, prepared: Prepared, outputs: Answer) -> Verdict:
    """Compare a submission's raw outputs with what is expected, and name the misconceptions that they equal."""
    wrong = _wrong(check, prepared, outputs)
    if not wrong:
        return Verdict(True)
    called = what_was_called(check.called, prepared.case)
    more = [f"and {len(wrong) - MAX_LINES} more"] if len(wrong) > MAX_LINES else []
    details = (*called, *wrong[1:MAX_LINES], *more)
    return Verdict(False, wrong[0], details, _misconceptions(check, prepared, outputs))


def equals(check: HiddenCheck, prepared: Prepared, outputs: Answer) -> bool:
    """Return whether a submission's raw outputs are what is expected."""
    return not _wrong(check, prepared, outputs)


def _wrong(check: HiddenCheck, prepared: Prepared, outputs: Answer) -> list[str]:
    """Say what is wrong with raw outputs."""
    if wrong := malformed_outputs(prepared.raw, outputs):
        return wrong
    tensors = tensors_of(prepared.raw, outputs)
    return _differences(check, prepared, measured(check, prepared.case, tensors))


def malformed_outputs(raw: Outputs, outputs: Answer) -> list[str]:
    """Say which outputs are missing, no tensors, or tensors of another shape or dtype."""
    lines = []
    for name, expected in raw.items():
        actual = outputs.get(name, "nothing")
        line = no_tensor(name, actual, expected) if isinstance(actual, str) else malformed(name, actual, expected)
        lines += [line] if line else []
    return lines


def tensors_of(raw: Outputs, outputs: Answer) -> Outputs:
    """Return the outputs that are known, which are all tensors, in the master's order."""
    return {name: tensor for name in raw if isinstance(tensor := outputs[name], torch.Tensor)}


def measured(check: HiddenCheck, case: Case, outputs: Outputs) -> Outputs:
    """Return what is compared: raw outputs, or what the check measures of them."""
    return check.measure(case, outputs) if check.measure else outputs


def _differences(check: HiddenCheck, prepared: Prepared, actual: Outputs) -> list[str]:
    """Say what differs from what is expected."""
    if check.draws_tokens:
        return measures.distribution_differences(actual, measures.token_distribution(prepared.case))
    lines = (
        difference(name, actual[name], expected, *prepared.tolerances[name])
        for name, expected in prepared.expected.items()
    )
    return [line for line in lines if line]


def _misconceptions(check: HiddenCheck, prepared: Prepared, outputs: Answer) -> tuple[str, ...]:
    """Return the sentences of the wrong variants of this check's regions that give the same outputs.

    Only component checks look for them: what is wrong in a part shows there, and a hundred whole models take seconds.
    """
    if check.needs or any(isinstance(outputs.get(name, ""), str) for name in prepared.raw):
        return ()
    actual = tensors_of(prepared.raw, outputs)
    sentences = []
    for misconception in MISCONCEPTIONS:
        if misconception.region in check.regions:
            with applied(misconception):
                variant = _attempt(lambda: CALLS[check.call](prepared.case))
            if variant is not None and _same(check, prepared, actual, variant):
                sentences.append(misconception.sentence)
    return tuple(sentences) if len(sentences) <= MAX_NAMES else ()


def refutes(check: HiddenCheck, prepared: Prepared, outputs: Answer, sentence: str) -> bool:
    """Return whether a misconception shows in a check, but otherwise than in a submission's outputs.

    Then the submission has another mistake, even if it looks like this one elsewhere.
    """
    misconception = next(entry for entry in MISCONCEPTIONS if entry.sentence == sentence)
    with applied(misconception):
        variant = _attempt(lambda: CALLS[check.call](prepared.case))
    if variant is None or check.needs:
        return False
    kinds = [kind for name in prepared.raw if isinstance(kind := outputs.get(name, ""), str)]
    if kinds:  # of what is too large to be sent, nothing is known
        return not all("too large" in kind for kind in kinds)
    if not _shows(check, prepared, variant):
        return False
    return not _same(check, prepared, tensors_of(prepared.raw, outputs), variant)


def _shows(check: HiddenCheck, prepared: Prepared, variant: Outputs) -> bool:
    """Return whether a variant fails a check."""
    if malformed_outputs(prepared.raw, variant):
        return True
    values = _attempt(lambda: measured(check, prepared.case, variant))
    return values is None or bool(_differences(check, prepared, values))


def _same(check: HiddenCheck, prepared: Prepared, actual: Outputs, variant: Outputs) -> bool:
    """Return whether two raw outputs, of which neither is right, are the same within the tolerances."""
    if malformed_outputs(variant, actual):
        return False
    pair = [_attempt(lambda raw=raw: measured(check, prepared.case, raw)) for raw in (actual, variant)]  # type: ignore[misc]
    if pair[0] is None or pair[1] is None:  # shapes that cannot be measured: the tensors themselves are compared
        return distance(actual, variant, dict.fromkeys(variant, (ATOL, RTOL))) <= 1.0
    if check.draws_tokens:
        return not measures.distribution_differences(pair[0], pair[1])
    return distance(pair[0], pair[1], prepared.tolerances) <= 1.0


def _attempt(run: Callable[[], Outputs]) -> Outputs | None:
    """Return what a wrong variant gives, or None if it raises an error, as some must on some shapes."""
    try:
        return run()
    except Exception:
        return None


# --- the checks ---

COMPONENTS_OF_A_MODEL = ("RMSNorm", "RoPE", "attention", "causal mask", "GQA", "SwiGLU", "layer")
RMSNORM = "RMSNorm(dim={dim}, eps={eps})"
ROPE = "apply_rotary_emb(query, key, head_dim={head_dim}, max_seq_len={max_seq_len}, theta={theta})"
CLASSIFIER = "LlamaEmbeddingClassifier.forward(input_ids)"


def _check(name: str, *regions: str, **rest: Any) -> HiddenCheck:
    """Return a check of one region, or of several with its own one last."""
    return HiddenCheck(name, regions, **rest)


_PARTS = (
    _check(
        "RMSNorm",
        "rmsnorm",
        sentence="RMSNorm divides each vector by the root of the mean of its squares plus eps.",
        called=RMSNORM,
        call="rms_norm",
        build=drawn.rms_norm,
    ),
    _check(
        "RMSNorm dtype",
        "rmsnorm",
        sentence="RMSNorm gives back the dtype that it got, and is exact in half precision and for large values too.",
        called=RMSNORM + ".forward(x) in {dtypes}",
        call="rms_norm_dtypes",
        build=drawn.rms_norm_dtypes,
    ),
    _check(
        "RMSNorm scale",
        "rmsnorm",
        sentence="RMSNorm forgets how long a vector was: c · x gives what x gives, and its root mean square is 1.",
        called=RMSNORM + "._norm(c · x) for c in {scales}",
        call="rms_norm_scales",
        build=drawn.rms_norm_scales,
        measure=measures.scale_invariance,
    ),
    _check(
        "RoPE",
        "rope",
        sentence="RoPE turns pair i of the token at position m by the angle m · theta^(-2i / head_dim).",
        called=ROPE,
        call="rope",
        build=drawn.rope,
    ),
    _check(
        "RoPE relative shift",
        "rope",
        sentence="After RoPE, the score of a query and a key depends on how far apart they stand, not on where.",
        called=ROPE + " with the same query and the same key at every position",
        call="rope",
        build=drawn.rope_relative,
        measure=measures.relative_shift,
    ),
    _check(
        "RoPE lengths",
        "rope",
        sentence="RoPE works for any number of positions: one, an odd number, and all that the model takes.",
        called=ROPE + " on {lengths} positions",
        call="rope_lengths",
        build=drawn.rope_lengths,
    ),
    _check(
        "RoPE batch",
        "rope",
        sentence="RoPE turns every row of a batch alike, whatever the other rows are.",
        called=ROPE + ", with as many rows as positions and heads, and on each row alone",
        call="rope_rows",
        build=drawn.rope_rows,
    ),
    _check(
        "attention",
        "attention",
        sentence="Attention mixes the values by softmax(query · keyᵀ / sqrt(head_dim)).",
        called=SCORES + " without a mask",
        call="attention",
        build=drawn.attention,
    ),
    _check(
        "attention scaling",
        "attention",
        sentence="Attention divides the scores by the root of head_dim, whatever the other sizes are.",
        called=SCORES + " without a mask, with dim={config[dim]}, n_heads={config[n_heads]}",
        call="attention",
        build=drawn.attention_scaling,
    ),
    _check(
        "causal mask",
        "attention",
        sentence="With causal=True, a token sees itself and the tokens before it, and nothing else.",
        called=SCORES + " with causal=True",
        call="attention",
        build=drawn.causal_mask,
        only="causal",
    ),
    _check(
        "attention bias",
        "attention",
        sentence="Attention adds attention_bias to the scaled scores, where there is one.",
        called=SCORES + " with an attention_bias, causal=False",
        call="attention",
        build=drawn.attention_bias,
        only="causal",
    ),
    _check(
        "attention dropout",
        "attention",
        sentence="In training, attention drops attention weights, after the softmax.",
        called=SCORES + " in training, {times} times, with dropout={config[dropout]}",
        call="attention_dropout",
        build=drawn.attention_dropout,
        measure=dropout_shares,
    ),
    _check(
        "attention evaluation",
        "attention",
        sentence="In evaluation, attention drops nothing.",
        called=SCORES + " in evaluation, with dropout={config[dropout]}",
        call="attention",
        build=drawn.attention_evaluation,
    ),
    _check(
        "GQA",
        "gqa",
        sentence="Query head h reads the key and value head h // n_rep.",
        called="Attention.forward(x) with n_heads={config[n_heads]}, n_kv_heads={config[n_kv_heads]} (compared: the "
        "key and value that compute_query_key_value_scores gets; RoPE is left out)",
        call="gqa",
        build=drawn.gqa,
    ),
    _check(
        "SwiGLU",
        sentence="The feed-forward part computes w2(SiLU(w1 x) ⊙ w3 x), with a hidden layer of the given width.",
        called="FeedForward({dim}, None, {multiple_of}, 0.0)",
        call="feed_forward",
        build=drawn.feed_forward,
    ),
    _check(
        "layer",
        "layer",
        sentence="A layer normalises before attention and before the feed-forward part, adds what went in, and leaves "
        "its input as it is.",
        called="LlamaLayer.forward(x), with stand-ins for its four parts",
        call="layer_and_input",
        build=drawn.layer,
    ),
)

_MODEL = (
    _check(
        "hidden states",
        *MODEL_REGIONS,
        sentence="The parts make a Llama: its hidden states are right.",
        called="Llama.forward(tokens)",
        call="hidden_states",
        build=drawn.model_forward,
        needs=COMPONENTS_OF_A_MODEL,
    ),
    _check(
        "logits",
        *MODEL_REGIONS,
        sentence="The logits are right, those of the last position and, with targets, those of all positions.",
        called="Llama.forward(tokens), and with targets",
        call="logits",
        build=drawn.model_forward,
        needs=("hidden states",),
    ),
    _check(
        "causality",
        *MODEL_REGIONS,
        sentence="No token knows what follows it: later tokens never change the hidden states of earlier ones.",
        called="Llama.forward(tokens), twice: the tokens from position {first_change} on were changed",
        call="causality",
        build=drawn.causality,
        measure=measures.unchanged_past,
        needs=("hidden states",),
        only="causal",
    ),
    _check(
        "batch rows",
        *MODEL_REGIONS,
        sentence="A row of a batch gives what it gives alone.",
        called="Llama.forward(tokens) on a batch, and on each of its rows",
        call="batch_rows",
        build=drawn.batch_rows,
        measure=measures.rows_alone,
        needs=("hidden states",),
    ),
    _check(
        "loading weights",
        *MODEL_REGIONS,
        sentence="load_pretrained puts every tensor of a checkpoint in its place.",
        called="load_pretrained(path), and Llama.forward(tokens, targets)",
        call="load_pretrained",
        build=drawn.model_forward,
        needs=("logits",),
    ),
    _check(
        "greedy generation",
        "generate",
        sentence="At temperature 0, each new token is the most likely one.",
        called=GENERATE + " on given logits",
        call="greedy",
        build=drawn.greedy,
    ),
    _check(
        "sampled generation",
        "generate",
        sentence="Above temperature 0, tokens are drawn from softmax(logits / temperature), at two temperatures.",
        called="Llama.generate(idx, max_new_tokens=1, temperature) on given logits at the temperatures {temperatures}, "
        "{rows} times for each row",
        call="sampled_at",
        build=drawn.sampled,
        measure=measures.token_counts,
        draws_tokens=True,
    ),
    _check(
        "tokens drawn anew",
        "generate",
        sentence="Each token is drawn anew: the one before it tells no more of it than its probabilities do.",
        called="Llama.generate(idx, max_new_tokens=2, temperature) on given logits at the temperature {temperatures}, "
        "{rows} times",
        call="sampled_at",
        build=drawn.sampled_pairs,
        measure=measures.token_counts,
        draws_tokens=True,
    ),
    _check(
        "model generation",
        *(*MODEL_REGIONS, "generate"),
        sentence="The whole model generates on, also when the text no longer fits its context.",
        called=GENERATE + ", with max_seq_len={config[max_seq_len]}",
        call="generation",
        build=drawn.model_generation,
        needs=("logits", "greedy generation"),
    ),
)

_ADAMW = (
    _check(
        "AdamW one step",
        "adamw",
        sentence="AdamW's first step is right, with the options that it has when none are given.",
        called="AdamW(parameters).step()",
        call="adamw_default",
        build=drawn.adamw_default,
    ),
    _check(
        "AdamW",
        "adamw",
        sentence="AdamW keeps m, v and t for each parameter, corrects their bias, and adds eps to the root of v.",
        called=ADAMW,
        call="adamw",
        build=drawn.adamw,
    ),
    _check(
        "AdamW weight decay",
        "adamw",
        sentence="AdamW shrinks the weights by lr · weight_decay after the update, apart from the gradient.",
        called=ADAMW,
        call="adamw",
        build=drawn.adamw_decay,
    ),
    _check(
        "AdamW without bias correction",
        "adamw",
        sentence="With correct_bias=False, AdamW's step size is lr.",
        called=ADAMW,
        call="adamw",
        build=drawn.adamw_uncorrected,
    ),
    _check(
        "AdamW parameter groups",
        "adamw",
        sentence="AdamW takes the options of each parameter from its group.",
        called=ADAMW,
        call="adamw",
        build=drawn.adamw_groups,
    ),
    _check(
        "AdamW 1000 steps",
        "adamw",
        sentence="AdamW finds the same way down over 1,000 steps.",
        called="AdamW.step() 1,000 times on least squares by batches of 16, with {options}",
        call="adamw_descent",
        build=drawn.adamw_descent,
        needs=("AdamW one step", "AdamW", "AdamW weight decay"),
    ),
    _check(
        "AdamW sparse gradient",
        "adamw",
        sentence="AdamW raises a RuntimeError for a sparse gradient.",
        called="AdamW(parameters).step() with a sparse gradient",
        call="adamw_sparse",
        build=drawn.adamw_sparse,
        measure=measures.sparse_error,
    ),
    _check(
        "AdamW closure",
        "adamw",
        sentence="AdamW.step(closure) calls the closure once, with gradients enabled, and returns its loss.",
        called="AdamW.step(closure) with {options}",
        call="adamw_closure",
        build=drawn.adamw_closure,
    ),
)

_CLASSIFIERS = (
    _check(
        "classifier",
        "embedding_head",
        sentence="The classifier reads the hidden state of the last token, and returns log-probabilities.",
        called=CLASSIFIER + " in evaluation, with a stand-in for the Llama",
        call="classifier",
        build=drawn.classifier,
    ),
    _check(
        "classifier dropout",
        "embedding_head",
        sentence="In training, the classifier drops elements of the hidden state.",
        called=CLASSIFIER + " in training, with hidden_dropout_prob={hidden_dropout_prob}",
        call="classifier_dropout",
        build=drawn.classifier_dropout,
        measure=hidden_shares,
    ),
    _check(
        "classifier log-probabilities",
        "embedding_head",
        sentence="The probabilities of the labels sum to one, and none of their logarithms overflows.",
        called=CLASSIFIER + " in evaluation, with a stand-in for the Llama",
        call="classifier",
        build=drawn.classifier_sums,
        measure=measures.probabilities,
    ),
    _check(
        "classifier gradients",
        "embedding_head",
        sentence="Gradients reach the head, and in finetune mode, and only there, the Llama.",
        called=CLASSIFIER + " and the gradients of its loss, with option finetune and with option pretrain",
        call="classifier_gradients",
        build=drawn.classifier_gradients,
    ),
    _check(
        "model classifier",
        *(*MODEL_REGIONS, "embedding_head"),
        sentence="The classifier works with the whole model, loaded from a checkpoint.",
        called=CLASSIFIER + " in evaluation",
        call="model_classifier",
        build=drawn.model_classifier,
        needs=("hidden states", "classifier"),
    ),
    _check(
        "zero-shot",
        "zero_shot_head",
        sentence="A label's score is the log-likelihood of its tokens behind the prompt.",
        called="LlamaZeroShotClassifier.forward(input_ids), labels {labels}, a stand-in for the Llama",
        call="zero_shot",
        build=drawn.zero_shot,
    ),
)

# What the tests of 2024's hand-outs look at, and as closely: where these pass, the course has always passed.
_OF_2024 = (
    _check(
        "Llama as in 2024",
        *MODEL_REGIONS,
        sentence="The Llama passes what the course's own sanity check asks: logits and hidden states without a mask.",
        called="Llama.forward(tokens)",
        call="logits_and_hidden_states",
        build=drawn.llama_of_2024,
        needs=COMPONENTS_OF_A_MODEL,
        only="no mask",
    ),
    _check(
        "RoPE as in 2024",
        "rope",
        sentence="RoPE passes what the course's own test asks: queries and keys of one shape.",
        called=ROPE,
        call="rope",
        build=drawn.rope_of_2024,
        only="no mask",
    ),
    _check(
        "AdamW as in 2024",
        "adamw",
        sentence="AdamW passes what the course's own test asks: 1,000 steps at a small learning rate.",
        called="AdamW.step() 1,000 times on least squares by batches of 16, with {options}",
        call="adamw_descent",
        build=drawn.adamw_of_2024,
        needs=("AdamW one step",),
        only="no mask",
    ),
)

CHECKS: tuple[HiddenCheck, ...] = (*_PARTS, *_MODEL, *_ADAMW, *_CLASSIFIERS, *_OF_2024)

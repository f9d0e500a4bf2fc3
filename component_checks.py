"""What each check calls: one entry a component, run by `sanity_check.py` on the tensors of `sanity_check.data`.

A check calls your code on given inputs and hands back what came out; what should have come out stands in
`sanity_check.data`, and `checking.py` compares the two. A component is called alone, with simple stand-ins for the
other parts, so it can be checked before they are written. `needs` names the checks that must pass first.
"""

import importlib
import inspect
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import nn

from submission_rules import FILES

Outputs = dict[str, torch.Tensor]

# What every checkpoint of a Llama says about its sizes.
SIZES = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "max_seq_len")


@dataclass(frozen=True)
class Case:
    """What a check is given: tensors, plain settings, and the weights of a tiny model (or none)."""

    inputs: dict[str, torch.Tensor]
    settings: dict[str, Any]
    weights: dict[str, torch.Tensor]


Call = Callable[[Case], Outputs]  # runs a student's code
Measure = Callable[[Case, Outputs], Outputs]  # turns what a call gave into what is compared, such as shares


@dataclass(frozen=True)
class Check:
    """One line of the report.

    `regions` are the parts that a student writes and this check runs, its own one last; `called` says what is called,
    filled in from the settings; `needs` are names of other checks; `real_weights` is a file below `weights/`.
    Without a `measure`, the outputs of `call` are compared as they are.
    """

    name: str
    regions: tuple[str, ...]
    called: str
    call: Call
    needs: tuple[str, ...] = ()
    real_weights: str | None = None
    measure: Measure | None = None

    @property
    def file(self) -> str:
        """The file that this check belongs to."""
        return FILES[self.regions[-1]]


def run_call(check: Check, case: Case) -> Outputs:
    """Return what is compared: what the student's code makes of the case, measured if the check says how.

    Errors of that code are passed on. What is no tensor is not measured.
    """
    outputs = raw_outputs(check.call, case)
    if check.measure and all(isinstance(out, torch.Tensor) for out in outputs.values()):
        return check.measure(case, outputs)
    return outputs


def raw_outputs(call: Call, case: Case) -> Outputs:
    """Return what a call gives. It gets copies of the inputs, and the same random numbers each time."""
    copies = {name: tensor.clone() for name, tensor in case.inputs.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.settings.get("random_seed", 0))
        outputs = call(Case(copies, case.settings, case.weights))
    return {name: out.detach() if isinstance(out, torch.Tensor) else out for name, out in outputs.items()}


# --- RMSNorm, RoPE, attention, layer ---


def rms_norm(case: Case) -> Outputs:
    """Normalise, without the weight and with it."""
    norm = student_module("llama").RMSNorm(case.settings["dim"], eps=case.settings["eps"])
    load(norm, case.weights)
    return {"_norm(x)": norm._norm(case.inputs["x"].clone()), "forward(x)": norm(case.inputs["x"])}


def rope(case: Case) -> Outputs:
    """Rotate a query and a key."""
    sizes = {name: case.settings[name] for name in ("head_dim", "max_seq_len", "theta")}
    query, key = student_module("rope").apply_rotary_emb(case.inputs["query"], case.inputs["key"], **sizes)
    return {"query": query, "key": key}


def attention(case: Case) -> Outputs:
    """Mix values, in evaluation mode."""
    attention = student_module("llama").Attention(config_of(case)).eval()
    attention.attention_bias = case.inputs.get("attention_bias")
    return {"output": _mix(attention, case)}


def attention_dropout(case: Case) -> Outputs:
    """Show the attention weights: `value` is the identity with a column of ones, so a row of output holds them."""
    attention = student_module("llama").Attention(config_of(case))
    kept = _mix(attention.eval(), case)
    attention.train()
    return {
        "output in evaluation": kept,
        "outputs in training": torch.cat([_mix(attention, case) for _ in range(case.settings["times"])]),
    }


def dropout_shares(case: Case, outputs: Outputs) -> Outputs:
    """Say which attention weights were dropped, and what became of the others."""
    kept, trained = outputs["output in evaluation"][..., :-1], outputs["outputs in training"]
    weights, row_sum = trained[..., :-1], trained[..., -1]
    factor = weights / kept
    factor = factor[weights != 0]
    if len(factor) < 2:  # no deviation can be told
        factor = torch.full((2,), float("nan"))
    broken_rows = (weights.sum(dim=-1) - row_sum).abs() > 1e-3
    return {
        "share of attention weights that are zero": (weights == 0).float().mean(),
        "mean factor of the other weights": factor.mean(),
        "deviation of that factor": factor.std(),
        "share of rows whose output is not the sum by its weights": broken_rows.float().mean(),
    }


def gqa(case: Case) -> Outputs:
    """Catch the keys and values on their way to the scores, with a rotation that does nothing."""
    llama = student_module("llama")
    attention = llama.Attention(config_of(case)).eval()
    load(attention, case.weights)
    caught: Outputs = {}

    def catch(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        caught.update({"key": key, "value": value})
        return query

    attention.compute_query_key_value_scores = catch
    with mock.patch.object(llama, "apply_rotary_emb", lambda query, key, *_, **__: (query, key)):
        attention(case.inputs["x"])
    if not caught:
        raise RuntimeError("Attention.forward did not call compute_query_key_value_scores")
    return caught


def layer(case: Case) -> Outputs:
    """Run a layer whose four parts are replaced by simple ones."""
    layer = student_module("llama").LlamaLayer(0, config_of(case)).eval()
    dim = layer.dim
    layer.attention, layer.feed_forward = nn.Linear(dim, dim), nn.Linear(dim, dim)
    layer.attention_norm, layer.ffn_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
    load(layer, case.weights)
    return {"output": layer(case.inputs["x"])}


def _mix(attention: Any, case: Case) -> torch.Tensor:
    """Call the attention on copies of query, key and value."""
    query, key, value = (case.inputs[name].clone() for name in ("query", "key", "value"))
    mixed: torch.Tensor = attention.compute_query_key_value_scores(query, key, value)
    return mixed


# --- the whole model, and generation ---


def hidden_states(case: Case) -> Outputs:
    """Run the model up to its last norm."""
    return {"hidden states": llama_of(case)(case.inputs["tokens"])[1]}


def logits(case: Case) -> Outputs:
    """Run the model, for the last position and for all of them."""
    model, tokens = llama_of(case), case.inputs["tokens"]
    return {"logits of the last position": model(tokens)[0], "logits with targets": model(tokens, targets=tokens)[0]}


def generation(case: Case) -> Outputs:
    """Generate with the whole model."""
    return {"ids": llama_of(case).generate(case.inputs["idx"], **case.settings["generate"])}


def greedy(case: Case) -> Outputs:
    """Generate from given logits: those of the next token depend on the token before it alone."""
    return {"ids": llama_with_table(case).generate(case.inputs["idx"], **case.settings["generate"])}


def sampled(case: Case) -> Outputs:
    """Generate one token for many copies of each prompt."""
    idx, rows = case.inputs["idx"], case.settings["rows"]
    ids = llama_with_table(case).generate(idx.repeat_interleave(rows, dim=0), **case.settings["generate"])
    return {"ids": ids[:, -1]}


def token_shares(case: Case, outputs: Outputs) -> Outputs:
    """Count how often each token was drawn after each prompt."""
    logits = case.inputs["logits"]
    one_hot = nn.functional.one_hot(outputs["ids"], num_classes=logits.shape[1])
    shares = one_hot.float().view(len(case.inputs["idx"]), case.settings["rows"], -1).mean(dim=1)
    return {"shares of the tokens drawn": shares}


def llama_of(case: Case) -> Any:
    """Return a Llama with the case's weights, in evaluation mode."""
    model = student_module("llama").Llama(config_of(case))
    load(model, case.weights)
    return model.eval()


def llama_with_table(case: Case) -> Any:
    """Return a Llama whose logits are looked up in a table: row i holds those of what follows token i."""
    model = student_module("llama").Llama(config_of(case))
    model.forward = lambda tokens, targets=None: (case.inputs["logits"][tokens[:, -1:]], None)
    return model


# --- AdamW ---


def adamw(case: Case) -> Outputs:
    """Take a few steps with given gradients; `skips` are the [step, parameter] without one."""
    parameters = [nn.Parameter(start.clone()) for start in case.inputs["start"]]
    groups = [group | {"params": [parameters[i] for i in group["params"]]} for group in case.settings["groups"]]
    optimizer = student_module("optimizer").AdamW(groups, **case.settings["options"])
    outputs = {}
    for step, gradients in enumerate(case.inputs["gradients"], start=1):
        for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            parameter.grad = None if [step, i] in case.settings["skips"] else gradient.clone()
        optimizer.step()
        outputs[f"parameters after step {step}"] = torch.stack([parameter.detach() for parameter in parameters])
    first, *_, last = outputs
    return {name: outputs[name] for name in (first, last)}


# --- the classifiers ---


class _Words:
    """A tokenizer for the labels: each word has its ids, those that nobody listed share one."""

    bos_id, eos_id, pad_id = 1, 2, 3

    def __init__(self, ids: dict[str, list[int]]) -> None:
        self.ids = ids
        self.n_words = 1 + max(i for word in ids.values() for i in word)

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        ids = [i for word in s.split() for i in self.ids.get(word, [4])]
        return [self.bos_id] * bos + ids + [self.eos_id] * eos


def classifier(case: Case) -> Outputs:
    """Classify, with a stand-in for the Llama."""
    model = embedding_classifier_of(case)
    stand_in(model.llama)
    return {"log-probabilities": model.eval()(case.inputs["input_ids"])}


def model_classifier(case: Case) -> Outputs:
    """Classify with the whole model."""
    return {"log-probabilities": embedding_classifier_of(case).eval()(case.inputs["input_ids"])}


def classifier_dropout(case: Case) -> Outputs:
    """Show what dropout does to a hidden state of ones: the head hands each element on, plus a known bias."""
    model = embedding_classifier_of(case)
    stand_in(model.llama)
    return {"log-probabilities in training": model.train()(case.inputs["input_ids"])}


def hidden_shares(case: Case, outputs: Outputs) -> Outputs:
    """Say how many elements of the hidden states were dropped, and how large the others are."""
    elements = outputs["log-probabilities in training"] - case.inputs["bias"]  # (bs, dim), shifted by the softmax
    largest = elements.amax(dim=1, keepdim=True)
    step = (largest - elements.amin(dim=1, keepdim=True)).median()
    return {
        "share of hidden elements that are zero": (elements < largest - step / 2).float().mean(),
        "size of the others": step,
    }


def zero_shot(case: Case) -> Outputs:
    """Score the labels, with a stand-in for the Llama."""
    classifier, settings = student_module("classifier"), case.settings
    with checkpoint_of(case) as path:
        config = _classifier_config(len(settings["labels"]), path, "pretrain")
        model = classifier.LlamaZeroShotClassifier(config, _Words(settings["words"]), list(settings["labels"]))
        stand_in(model.llama)
        return {"log-likelihoods": model.eval()(case.inputs["input_ids"])}


def embedding_classifier_of(case: Case) -> Any:
    """Return the classifier with the case's Llama and head."""
    weight, bias = case.inputs["weight"], case.inputs["bias"]
    with checkpoint_of(case) as path:
        option, dropout = case.settings.get("option", "finetune"), case.settings["hidden_dropout_prob"]
        model = student_module("classifier").LlamaEmbeddingClassifier(
            _classifier_config(len(bias), path, option, dropout)
        )
    load(model.classifier_head, {"weight": weight, "bias": bias})
    return model


def _classifier_config(num_labels: int, path: str, option: str, dropout: float = 0.0) -> Any:
    """Return what the classifiers read of their configuration."""
    return SimpleNamespace(
        num_labels=num_labels, pretrained_model_path=path, option=option, hidden_dropout_prob=dropout
    )


def stand_in(llama: Any) -> None:
    """Replace the model's forward by something simple and causal: the mean of the embeddings up to each token."""

    def forward(tokens: torch.Tensor, targets: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        embeddings = llama.tok_embeddings(tokens)  # (bs, seqlen, dim)
        counts = torch.arange(1, tokens.shape[1] + 1).unsqueeze(1)  # (seqlen, 1)
        hidden = embeddings.cumsum(dim=1) / counts
        return llama.output(hidden if targets is not None else hidden[:, [-1]]), hidden

    llama.forward = forward


@contextmanager
def checkpoint_of(case: Case) -> Iterator[str]:
    """Write the case's weights to a file and yield its path."""
    # an open file cannot be deleted on Windows, and weights are read from it as long as the model lives
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        path, config = Path(folder, "tiny.pt"), config_of(case)
        sizes = {name: getattr(config, name) for name in SIZES} | _known(type(config), case.settings["config"])
        torch.save({"model_args": sizes, "model": case.weights}, path)
        yield str(path)


# --- real weights ---


def _real_logits(case: Case) -> Outputs:
    model = student_module("llama").load_pretrained(case.settings["checkpoint"])
    return {"logits": model(_real_prompt(case, model))[0]}


def _real_text(case: Case) -> Outputs:
    model = student_module("llama").load_pretrained(case.settings["checkpoint"])
    return {"ids": model.generate(_real_prompt(case, model), case.settings["max_new_tokens"], temperature=0.0)}


def _real_prompt(case: Case, model: Any) -> torch.Tensor:
    """Return the ids of the prompt, by the tokenizer beside the weights."""
    tokenizer = student_module("tokenizer").find_tokenizer(case.settings["checkpoint"], model.vocab_size)
    return torch.tensor([tokenizer.encode(case.settings["prompt"], bos=True, eos=False)])


def config_of(case: Case) -> Any:
    """Return the case's LlamaConfig; choices that an older LlamaConfig does not know are set on it."""
    kind = getattr(student_module("config"), "LlamaConfig", None) or student_module("base_llama").LlamaConfig
    settings = case.settings["config"]
    config = kind(**_known(kind, settings))
    for name, value in settings.items():
        if not hasattr(config, name):
            setattr(config, name, value)
    return config


def _known(kind: type, settings: dict[str, Any]) -> dict[str, Any]:
    """Return those of the settings that the constructor of a class takes."""
    parameters = inspect.signature(kind).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return settings
    return {name: value for name, value in settings.items() if name in parameters}


def load(module: Any, weights: dict[str, torch.Tensor]) -> None:
    """Load weights by their names; a module may hold more than these, tables that it computes for instance.

    Raises RuntimeError if it lacks one of them.
    """
    lacking = module.load_state_dict(weights, strict=False).unexpected_keys
    if lacking:
        raise RuntimeError(f"{type(module).__name__} has no {', '.join(lacking)}")


def student_module(name: str) -> Any:
    """Import a file when it is first called, so that a mistake in one does not stop the checks of the others."""
    return importlib.import_module(name)


MODEL_REGIONS = ("rmsnorm", "rope", "attention", "gqa", "layer")
MODEL_PARTS = ("RMSNorm", "RoPE", "attention", "causal mask", "GQA", "layer")
STORIES = "stories260K/stories260K.bin"
SCORES = "Attention.compute_query_key_value_scores(query, key, value)"
GENERATE = "Llama.generate(idx, max_new_tokens={generate[max_new_tokens]}, temperature={generate[temperature]})"
ADAMW = "AdamW.step() with {options}, parameter groups {groups}"

CHECKS: tuple[Check, ...] = (
    Check("RMSNorm", ("rmsnorm",), "RMSNorm(dim={dim}, eps={eps})", rms_norm),
    Check(
        "RoPE",
        ("rope",),
        "apply_rotary_emb(query, key, head_dim={head_dim}, max_seq_len={max_seq_len}, theta={theta})",
        rope,
    ),
    Check("attention", ("attention",), f"{SCORES} with causal=False", attention),
    Check("causal mask", ("attention",), f"{SCORES} with causal=True", attention),
    Check("attention bias", ("attention",), f"{SCORES} with an attention_bias, causal=False", attention),
    Check(
        "attention dropout",
        ("attention",),
        f"{SCORES} in training, {{times}} times, with dropout={{config[dropout]}} and causal=False",
        attention_dropout,
        measure=dropout_shares,
    ),
    Check(
        "attention evaluation",
        ("attention",),
        f"{SCORES} in evaluation, with dropout={{config[dropout]}} and causal=False",
        attention,
    ),
    Check(
        "GQA",
        ("gqa",),
        "Attention.forward(x) with n_heads={config[n_heads]}, n_kv_heads={config[n_kv_heads]} (compared: the key and "
        "value that compute_query_key_value_scores gets; RoPE is left out)",
        gqa,
    ),
    Check("layer", ("layer",), "LlamaLayer.forward(x), with stand-ins for its four parts", layer),
    Check("hidden states", MODEL_REGIONS, "Llama.forward(tokens)", hidden_states, MODEL_PARTS),
    Check("logits", MODEL_REGIONS, "Llama.forward(tokens, targets)", logits, ("hidden states",)),
    Check("greedy generation", ("generate",), f"{GENERATE} on given logits", greedy),
    Check(
        "sampled generation",
        ("generate",),
        f"{GENERATE} on given logits, {{rows}} times for each row",
        sampled,
        measure=token_shares,
    ),
    Check(
        "model generation",
        (*MODEL_REGIONS, "generate"),
        f"{GENERATE}, with max_seq_len={{config[max_seq_len]}}",
        generation,
        ("logits", "greedy generation"),
    ),
    Check("AdamW", ("adamw",), ADAMW, adamw),
    Check("AdamW weight decay", ("adamw",), ADAMW, adamw),
    Check("AdamW without bias correction", ("adamw",), ADAMW, adamw),
    Check("AdamW parameter groups", ("adamw",), ADAMW, adamw),
    Check(
        "classifier",
        ("embedding_head",),
        "LlamaEmbeddingClassifier.forward(input_ids) in evaluation, rows padded with 3, a stand-in for the Llama",
        classifier,
    ),
    Check(
        "classifier dropout",
        ("embedding_head",),
        "LlamaEmbeddingClassifier.forward(input_ids) in training, with hidden_dropout_prob={hidden_dropout_prob}",
        classifier_dropout,
        measure=hidden_shares,
    ),
    Check(
        "zero-shot",
        ("zero_shot_head",),
        "LlamaZeroShotClassifier.forward(input_ids), rows padded with 3, labels {labels}, a stand-in for the Llama",
        zero_shot,
    ),
    Check(
        "model classifier",
        (*MODEL_REGIONS, "embedding_head"),
        "LlamaEmbeddingClassifier.forward(input_ids) in evaluation, rows padded with 3",
        model_classifier,
        ("hidden states", "classifier"),
    ),
    Check(
        "stories260K logits",
        MODEL_REGIONS,
        "Llama.forward on the tokens of '{prompt}'",
        _real_logits,
        ("logits",),
        real_weights=STORIES,
    ),
    Check(
        "stories260K text",
        (*MODEL_REGIONS, "generate"),
        "Llama.generate with {max_new_tokens} new tokens after '{prompt}', at temperature 0.0",
        _real_text,
        ("stories260K logits", "model generation"),
        real_weights=STORIES,
    ),
)

"""What can be asked of a submission: each call runs the student's code on a case and returns raw tensors.

It runs in the sandbox, beside code that nobody trusts: it holds no reference, no statistic and no verdict. The judge
makes the same calls on the master, in its own process. Most of them are those of the student's own checks.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

import component_checks
from component_checks import (
    Call,
    Case,
    Outputs,
    checkpoint_of,
    embedding_classifier_of,
    llama_of,
    llama_with_table,
    load,
    raw_outputs,
    stand_in,
    student_module,
)

OPTIONS = ("finetune", "pretrain")  # of the classifier: is the Llama trained with the head?
NOTHING, RUNTIME_ERROR, OTHER_ERROR = 0, 1, 2  # what adamw_sparse says was raised


# --- RMSNorm, RoPE, feed-forward, layer ---


def rms_norm_dtypes(case: Case) -> Outputs:
    """Normalise in each of the dtypes, weight included."""
    outputs: Outputs = {}
    for name in case.settings["dtypes"]:
        norm = student_module("llama").RMSNorm(case.settings["dim"], eps=case.settings["eps"])
        load(norm, case.weights)
        dtype = getattr(torch, name)
        outputs[f"forward(x) in {name}"] = norm.to(dtype)(case.inputs["x"].to(dtype))
    return outputs


def rms_norm_scales(case: Case) -> Outputs:
    """Normalise vectors, and multiples of them: (scales, ..., dim)."""
    norm = student_module("llama").RMSNorm(case.settings["dim"], eps=case.settings["eps"])
    return {"_norm(c · x)": torch.stack([norm._norm(c * case.inputs["x"]) for c in case.settings["scales"]])}


def layer_and_input(case: Case) -> Outputs:
    """Run a layer, and show its input afterwards: the backward pass needs it as it was."""
    return {**component_checks.layer(case), "x afterwards": case.inputs["x"]}


def rope_lengths(case: Case) -> Outputs:
    """Rotate the first tokens of a row, so many at a time."""
    outputs: Outputs = {}
    for seqlen in case.settings["lengths"]:
        query, key = _rotate(case, case.inputs["query"][:, :seqlen], case.inputs["key"][:, :seqlen])
        outputs |= {f"query of {seqlen} positions": query, f"key of {seqlen} positions": key}
    return outputs


def rope_rows(case: Case) -> Outputs:
    """Rotate a batch, and each of its rows alone."""
    query, key = _rotate(case, case.inputs["query"], case.inputs["key"])
    rows = zip(torch.split(case.inputs["query"], 1), torch.split(case.inputs["key"], 1), strict=True)
    alone = [_rotate(case, *row) for row in rows]
    return {
        "query": query,
        "key": key,
        "query, each row alone": torch.cat([one for one, _ in alone]),
        "key, each row alone": torch.cat([one for _, one in alone]),
    }


def _rotate(case: Case, query: torch.Tensor, key: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Call apply_rotary_emb on copies."""
    sizes = {name: case.settings[name] for name in ("head_dim", "max_seq_len", "theta")}
    one, two = student_module("rope").apply_rotary_emb(query.clone(), key.clone(), **sizes)
    return one, two


def feed_forward(case: Case) -> Outputs:
    """Run the feed-forward part."""
    part = student_module("llama").FeedForward(case.settings["dim"], None, case.settings["multiple_of"], 0.0).eval()
    load(part, case.weights)
    return {"SwiGLU(x)": part.SwiGLU(case.inputs["x"].clone()), "forward(x)": part(case.inputs["x"])}


# --- the whole model, and generation ---


def causality(case: Case) -> Outputs:
    """Run the model on two batches that begin alike."""
    model = llama_of(case)
    return {
        "hidden states": model(case.inputs["tokens"])[1],
        "hidden states after a change": model(case.inputs["changed"])[1],
    }


def batch_rows(case: Case) -> Outputs:
    """Run the model on a batch, and on each of its rows alone."""
    model, tokens = llama_of(case), case.inputs["tokens"]
    return {
        "hidden states": model(tokens)[1],
        "hidden states, each row alone": torch.cat([model(row)[1] for row in torch.split(tokens, 1)]),
    }


def load_pretrained(case: Case) -> Outputs:
    """Load a checkpoint from a file, and return the weights of the model and the logits that it gives."""
    with checkpoint_of(case) as path:
        model = student_module("llama").load_pretrained(path).eval()
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        logits = model(case.inputs["tokens"], targets=case.inputs["tokens"])[0].clone()
    return {f"{name}": state[name] for name in case.weights} | {"logits": logits}


def sampled_at(case: Case) -> Outputs:
    """Generate a token or two for many copies of each prompt, at each of the temperatures: (prompts · rows, tokens)."""
    idx = case.inputs["idx"].repeat_interleave(case.settings["rows"], dim=0)
    model, tokens = llama_with_table(case), case.settings["tokens"]
    return {
        f"ids at temperature {t}": model.generate(idx, max_new_tokens=tokens, temperature=t)[:, -tokens:]
        for t in case.settings["temperatures"]
    }


def logits_and_hidden_states(case: Case) -> Outputs:
    """Run a Llama once; its logits are those of the last position."""
    logits, hidden = llama_of(case)(case.inputs["tokens"])
    return {"logits": logits, "hidden states": hidden}


# --- AdamW ---


def adamw_default(case: Case) -> Outputs:
    """Take one step with the options that AdamW has when none are given."""
    parameter = nn.Parameter(case.inputs["start"])
    parameter.grad = case.inputs["gradient"]
    student_module("optimizer").AdamW([parameter]).step()
    return {"parameters after step 1": parameter}


def adamw_descent(case: Case) -> Outputs:
    """Fit a line to noisy points, a batch a step; the parameters after every hundredth step."""
    features, targets = case.inputs["features"], case.inputs["targets"]  # (n, dim), (n,)
    parameter = nn.Parameter(case.inputs["start"])  # (dim,)
    optimizer = student_module("optimizer").AdamW([parameter], **case.settings["options"])
    path = []
    for step, batch in enumerate(case.inputs["batches"], start=1):
        x = features[batch]
        parameter.grad = x.T @ (x @ parameter.detach() - targets[batch]) / len(batch)
        optimizer.step()
        if step % 100 == 0:
            path.append(parameter.detach().clone())
    return {"parameters after every 100 steps": torch.stack(path)}


def adamw_sparse(case: Case) -> Outputs:
    """Try a step with a sparse gradient, and say which kind of error it raised."""
    parameter = nn.Parameter(case.inputs["start"])
    parameter.grad = case.inputs["gradient"].to_sparse()
    optimizer = student_module("optimizer").AdamW([parameter])
    raised = NOTHING
    try:
        optimizer.step()
    except NotImplementedError:  # a RuntimeError too, and what a part raises that is not written yet
        raise
    except RuntimeError:
        raised = RUNTIME_ERROR
    except Exception:
        raised = OTHER_ERROR
    return {"raised": torch.tensor(raised)}


def adamw_closure(case: Case) -> Outputs:
    """Take a step with a closure that computes the loss and its gradient; say how it was called."""
    parameter = nn.Parameter(case.inputs["start"])
    calls: list[bool] = []

    def closure() -> torch.Tensor:
        calls.append(torch.is_grad_enabled())
        parameter.grad = None
        with torch.enable_grad():
            loss = (parameter - case.inputs["target"]).square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    returned = student_module("optimizer").AdamW([parameter], **case.settings["options"]).step(closure)
    if isinstance(returned, int | float):
        returned = torch.tensor(float(returned))
    return {
        "loss that step returns": returned,
        "how often the closure was called": torch.tensor(len(calls)),
        "how often with gradients enabled": torch.tensor(sum(calls)),
        "parameters": parameter,
    }


# --- the classifiers ---


def classifier_gradients(case: Case) -> Outputs:
    """Take the gradients of the loss, with a Llama that is trained and with one that is frozen; it has a stand-in."""
    outputs: dict[str, Any] = {}
    for option in OPTIONS:
        model = embedding_classifier_of(Case(case.inputs, case.settings | {"option": option}, case.weights))
        stand_in(model.llama)
        log_probs = model.eval()(case.inputs["input_ids"])
        nn.functional.nll_loss(log_probs, case.inputs["labels"]).backward()  # type: ignore[no-untyped-call]
        head, body = model.classifier_head.weight, model.llama.tok_embeddings.weight
        outputs[f"gradient of classifier_head.weight, {option}"] = _gradient(head)
        outputs[f"gradient of the Llama's embedding, {option}"] = _gradient(body)
    return outputs


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    """Return the gradient of a parameter, zeros if it has none."""
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


_RUN: tuple[Call, ...] = (
    component_checks.rms_norm,
    component_checks.rope,
    component_checks.attention,
    component_checks.attention_dropout,
    component_checks.gqa,
    layer_and_input,
    component_checks.hidden_states,
    component_checks.logits,
    component_checks.generation,
    component_checks.greedy,
    component_checks.adamw,
    component_checks.classifier,
    component_checks.model_classifier,
    component_checks.classifier_dropout,
    component_checks.zero_shot,
    rms_norm_dtypes,
    rms_norm_scales,
    rope_lengths,
    rope_rows,
    feed_forward,
    causality,
    batch_rows,
    load_pretrained,
    sampled_at,
    adamw_default,
    adamw_descent,
    logits_and_hidden_states,
    adamw_sparse,
    adamw_closure,
    classifier_gradients,
)
# By the name of its function; each gets copies of the inputs, and the case's random numbers.
CALLS: dict[str, Callable[[Case], Outputs]] = {call.__name__: partial(raw_outputs, call) for call in _RUN}

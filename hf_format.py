"""Hugging Face's form of a Llama (`LlamaForCausalLM`): its configuration and its tensors, into ours and back.

Their RoPE rotates the two halves of a head, ours adjacent pairs (Meta's). The rows of each query and key head stand in
the order that the rotation needs, so they are reordered in both directions.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch

from config import LlamaConfig, feed_forward_width

Tensors = dict[str, torch.Tensor]

MODEL_TYPE, ARCHITECTURE = "llama", "LlamaForCausalLM"
# Ours -> theirs, of what is named the same in every model. Both forms add `.weight`.
NAMES = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
LAYER_NAMES = {
    "attention.compute_query": "self_attn.q_proj",
    "attention.compute_key": "self_attn.k_proj",
    "attention.compute_value": "self_attn.v_proj",
    "attention.compute_output": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
SIZES = {
    "vocab_size": "vocab_size",
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "max_seq_len": "max_position_embeddings",
    "layer_norm_eps": "rms_norm_eps",
}
# Settings that would change what the model computes, and the values under which they do not.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
}


def is_llama(content: Mapping[str, Any]) -> bool:
    """Say whether a `config.json` describes a `LlamaForCausalLM`."""
    architectures = content.get("architectures") or [ARCHITECTURE]
    return content.get("model_type") == MODEL_TYPE and architectures == [ARCHITECTURE]


def config_from(content: Mapping[str, Any]) -> LlamaConfig:
    """Translate their `config.json`. Raises ValueError or TypeError for a model that this Llama cannot be."""
    if missing := [theirs for theirs in SIZES.values() if theirs not in content]:
        raise ValueError(f"it lacks {', '.join(missing)}")
    for name, harmless in HARMLESS.items():
        if name in content and content[name] not in harmless:
            raise ValueError(f"{name} is {content[name]!r}, and the Llama here has no such thing")
    sizes = {ours: content[theirs] for ours, theirs in SIZES.items()}
    if sizes["hidden_dim"] == feed_forward_width(sizes["dim"], LlamaConfig.multiple_of):
        del sizes["hidden_dim"]
    config = LlamaConfig(
        **sizes,
        n_kv_heads=content.get("num_key_value_heads"),
        rope_theta=_rope_theta(content),
        tie_word_embeddings=content.get("tie_word_embeddings", False),
    )
    head_dim = content.get("head_dim") or config.dim // config.n_heads
    if head_dim != config.dim // config.n_heads:
        raise ValueError(f"head_dim is {head_dim}, and here it is hidden_size / num_attention_heads")
    if isinstance(pad_id := content.get("pad_token_id"), int) and pad_id >= 0:
        config.pad_id = pad_id
    return config


def config_to(config: LlamaConfig) -> dict[str, Any]:
    """Translate our configuration into their `config.json`, as old and new versions of their library read it."""
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        **{theirs: getattr(config, ours) for ours, theirs in SIZES.items()},
        "intermediate_size": config.hidden_dim or feed_forward_width(config.dim, config.multiple_of),
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.dim // config.n_heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": config.rope_theta,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "tie_word_embeddings": config.tie_word_embeddings,
    }


def tensors_from(tensors: Mapping[str, torch.Tensor], config: LlamaConfig) -> Tensors:
    """Translate their tensors into ours: names, and the order of the rows of queries and keys.

    Names that are not theirs stay as they are, for whoever checks the names.
    """
    return {
        name: _reorder(name, tensor, config, to_theirs=False)
        for name, tensor in ((_our_name(theirs), tensor) for theirs, tensor in tensors.items())
        if not name.endswith("rotary_emb.inv_freq")  # old files hold RoPE's table, which we compute
    }


def tensors_to(tensors: Mapping[str, torch.Tensor], config: LlamaConfig) -> Tensors:
    """Translate our tensors into theirs; a tied output matrix is left out, as they do."""
    return {
        _their_name(name): _reorder(name, tensor, config, to_theirs=True).contiguous()
        for name, tensor in tensors.items()
        if not (config.tie_word_embeddings and name == "output.weight")
    }


def _rope_theta(content: Mapping[str, Any]) -> Any:
    """Return RoPE's base, from where old or new versions of their library put it; raise ValueError for other RoPEs."""
    theta = content.get("rope_theta", LlamaConfig.rope_theta)
    for key in ("rope_scaling", "rope_parameters"):
        settings = content.get(key) or {}
        if not isinstance(settings, dict):
            raise ValueError(f"{key} is {settings!r}")
        kind = settings.get("rope_type", settings.get("type", "default"))
        if kind != "default":
            raise ValueError(f"{key} asks for a RoPE of type {kind!r}, and the one here is the plain one")
        if settings.get("partial_rotary_factor", 1) != 1:
            raise ValueError(f"{key} turns a part of each head only, and the RoPE here turns all of it")
        theta = settings.get("rope_theta", theta)
    return theta


def _their_name(name: str) -> str:
    """Translate one of our names."""
    stem = name.removesuffix(".weight")
    if match := re.fullmatch(r"layers\.(\d+)\.(.+)", stem):
        return f"model.layers.{match[1]}.{LAYER_NAMES[match[2]]}.weight"
    return f"{NAMES[stem]}.weight"


def _our_name(name: str) -> str:
    """Translate one of their names, or return it as it is if it is none of theirs."""
    stem = name.removesuffix(".weight")
    if stem == name:
        return name
    if match := re.fullmatch(r"model\.layers\.(\d+)\.(.+)", stem):
        part = next((ours for ours, theirs in LAYER_NAMES.items() if theirs == match[2]), None)
        return f"layers.{match[1]}.{part}.weight" if part else name
    return next((f"{ours}.weight" for ours, theirs in NAMES.items() if theirs == stem), name)


def _reorder(name: str, tensor: torch.Tensor, config: LlamaConfig, to_theirs: bool) -> torch.Tensor:
    """Reorder the rows of a query or key matrix, (heads · head_dim, dim); return any other tensor as it is.

    Our pair i of a head is its rows 2i and 2i + 1; theirs is rows i and i + head_dim / 2.
    """
    head_dim = config.dim // config.n_heads
    is_turned = name.endswith((".compute_query.weight", ".compute_key.weight"))
    if not is_turned or tensor.dim() != 2 or tensor.shape[0] % head_dim:
        return tensor  # a wrong shape is for the check of shapes to report
    inner = (head_dim // 2, 2) if to_theirs else (2, head_dim // 2)
    return tensor.view(-1, *inner, tensor.shape[1]).transpose(1, 2).reshape(tensor.shape)

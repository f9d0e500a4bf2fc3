"""hf_format.py, and the directories that `read_checkpoint` reads by it: run with `pytest tests/test_hf_format.py`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from checkpoint import read_checkpoint
from config import LlamaConfig
from errors import CheckpointError
from hf_format import config_from, config_to, is_llama, tensors_from, tensors_to
from llama import load_pretrained
from safetensors_file import read_safetensors, write_safetensors
from tests.tiny import random_llama, random_tokens, tiny_config

AWAY = object()


def their_llama(seed: int = 0, **changes: Any) -> Any:
    """Return a tiny model of transformers' with weights large enough for every part to be seen in the logits."""
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    sizes: dict[str, Any] = {"vocab_size": 40, "hidden_size": 32, "intermediate_size": 50, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 24}
    model = LlamaForCausalLM(TheirConfig(**(sizes | changes)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            start = 1.0 if parameter.dim() == 1 else 0.0
            parameter.copy_(start + 0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def save_theirs(folder: Path, **changes: Any) -> Path:
    their_llama(**changes).save_pretrained(folder)
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a config.json; a change to AWAY takes the key away."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not AWAY}))


def assert_answers_the_same(folder: Path, theirs: Any) -> None:
    tokens = random_tokens(3, 24)
    torch.testing.assert_close(
        load_pretrained(folder)(tokens, targets=tokens)[0], theirs(tokens).logits, atol=1e-5, rtol=1e-5
    )


# --------------------------------------------------------------------------------------------------- what can be read


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_key_value_heads": 1, "tie_word_embeddings": True},
        {
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-2,
            "rope_parameters": {"rope_type": "default", "rope_theta": 500.0},
        },
    ],
    ids=["gqa", "tied", "theta"],
)
def test_what_transformers_saves_answers_the_same_here(tmp_path: Path, changes: dict[str, Any]) -> None:
    theirs = their_llama(**changes)
    theirs.save_pretrained(tmp_path)
    assert_answers_the_same(tmp_path, theirs)
    model = load_pretrained(tmp_path)
    assert model.config.tie_word_embeddings == bool(changes.get("tie_word_embeddings"))
    assert (model.output.weight is model.tok_embeddings.weight) == model.config.tie_word_embeddings


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    theirs = their_llama()
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    assert_answers_the_same(tmp_path, theirs)


def test_half_precision_is_read(tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    their_llama().to(torch.bfloat16).save_pretrained(tmp_path)
    assert read_safetensors(tmp_path / "model.safetensors")["model.norm.weight"].dtype == torch.bfloat16
    assert_answers_the_same(tmp_path, LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32))


def test_a_config_of_an_older_transformers_is_read(tmp_path: Path) -> None:
    save_theirs(tmp_path)
    edit_config(tmp_path, rope_parameters=AWAY, rope_theta=500.0, rope_scaling=None, pad_token_id=-1, head_dim=AWAY)
    assert read_checkpoint(tmp_path)[0].rope_theta == 500.0
    edit_config(tmp_path, rope_theta=AWAY, num_key_value_heads=2, architectures=AWAY)
    assert read_checkpoint(tmp_path)[0].rope_theta == 10000.0


def test_tables_of_rope_are_dropped(tmp_path: Path) -> None:
    theirs = their_llama()
    theirs.save_pretrained(tmp_path)
    weights = read_safetensors(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
    write_safetensors(tmp_path / "model.safetensors", weights)
    assert_answers_the_same(tmp_path, theirs)


# ----------------------------------------------------------------------------------------------------- there and back


@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": False, "hidden_dim": 50, "rope_theta": 500.0}])
def test_a_model_goes_there_and_comes_back(changes: dict[str, Any]) -> None:
    model = random_llama(**changes)
    theirs = tensors_to(model.state_dict(), model.config)
    assert theirs.keys() == {name for name in their_llama().state_dict() if name != "lm_head.weight"} | (
        set() if model.config.tie_word_embeddings else {"lm_head.weight"}
    )
    back = tensors_from(theirs, model.config)
    for name, tensor in back.items():
        assert torch.equal(tensor, model.state_dict()[name]), name


@given(
    n_heads=st.sampled_from([2, 4, 8]),
    hidden_dim=st.integers(1, 500) | st.none(),
    theta=st.floats(1.0, 1e6),
    eps=st.floats(1e-8, 0.1),
    tied=st.booleans(),
    pad_id=st.integers(0, 39),
)
def test_a_configuration_goes_there_and_comes_back(
    n_heads: int, hidden_dim: int | None, theta: float, eps: float, tied: bool, pad_id: int
) -> None:
    config = tiny_config(
        n_heads=n_heads, hidden_dim=hidden_dim, rope_theta=theta, layer_norm_eps=eps, tie_word_embeddings=tied,
        pad_id=pad_id, multiple_of=LlamaConfig.multiple_of,
    )  # fmt: skip
    content = json.loads(json.dumps(config_to(config))) | {"pad_token_id": pad_id}
    assert is_llama(content)
    back = config_from(content)
    assert config_to(back) == config_to(config)
    assert back.pad_id == pad_id


def test_names_that_are_not_theirs_stay_as_they_are() -> None:
    names = ("norm", "model.layers.0.mlp.experts.weight", "model.layers.x.mlp.up_proj.weight", "lm_head.bias", "")
    assert tensors_from({name: torch.ones(1) for name in names}, tiny_config()).keys() == set(names)


# ----------------------------------------------------------------------------------------------------- what is refused

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model_type": "mistral"}, "describes a model of type 'mistral', neither 'min-llama' nor a LlamaForCausalLM"),
    ({"architectures": ["LlamaForSequenceClassification"]}, "neither 'min-llama' nor a LlamaForCausalLM"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "rope_scaling asks for a RoPE of type 'linear'"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope_scaling asks for a RoPE of type 'dynamic'"),
    ({"rope_scaling": "linear"}, "rope_scaling is 'linear'"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, "asks for a RoPE of type 'llama3'"),
    ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "rope_parameters turns a part of each head only"),
    ({"attention_bias": True}, "attention_bias is True, and the Llama here has no such thing"),
    ({"mlp_bias": True}, "mlp_bias is True"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
    ({"quantization_config": {"bits": 4}}, r"quantization_config is \{'bits': 4\}"),
    ({"head_dim": 16}, "head_dim is 16, and here it is hidden_size / num_attention_heads"),
    ({"hidden_size": AWAY, "rms_norm_eps": AWAY}, "it lacks hidden_size, rms_norm_eps"),
    ({"hidden_size": "32"}, "does not describe a Llama that can be read here"),
    ({"num_attention_heads": 5}, r"dim \(32\) must be an even multiple of n_heads \(5\)"),
    ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be True or False"),
    ({"vocab_size": 41}, r"tok_embeddings.weight has shape \(40, 32\), config.json asks for \(41, 32\)"),
    ({"num_hidden_layers": 1}, "9 tensors belong to no Llama"),
    ({"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 4}, r"compute_key.weight has shape \(16, 32\)"),
    ({"num_attention_heads": 2, "num_key_value_heads": 1, "hidden_size": 24, "head_dim": 12}, "has shape"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), REFUSED, ids=[text[:50] for _, text in REFUSED])
def test_a_model_that_this_llama_cannot_be_is_refused_with_the_reason(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    save_theirs(tmp_path)
    edit_config(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_checkpoint(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "Check the path, or how the file was made" in str(caught.value)


def no_weights(folder: Path) -> None:
    for path in folder.glob("*.safetensors*"):
        path.unlink()


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    content = json.loads(path.read_text())
    change(content["weight_map"])
    path.write_text(json.dumps(content))


BROKEN_SHARDS: list[tuple[Callable[[Path], Any], str]] = [
    (no_weights, "holds neither model.safetensors nor model.safetensors.index.json, and other forms are not read"),
    (lambda folder: (folder / "model.safetensors.index.json").write_text("{}"), "has no weight_map of names and files"),
    (lambda folder: (folder / "model.safetensors.index.json").write_text("["), "is no JSON"),
    (lambda folder: edit_index(folder, lambda places: places.update(a=1)), "has no weight_map of names and files"),
    (
        lambda folder: edit_index(folder, lambda places: places.update(a="../a")),
        "names '../a', which is no file of this",
    ),
    (
        lambda folder: edit_index(folder, lambda places: places.update(a="gone.safetensors")),
        "gone.safetensors cannot be",
    ),
    (
        lambda folder: edit_index(folder, lambda places: places.pop("model.norm.weight")),
        "does not fit its index: model.norm.weight is in the file and not in the index",
    ),
    (
        lambda folder: edit_index(folder, lambda places: places.update(a=places["model.norm.weight"])),
        "does not fit its index: a is in the index and not in the file",
    ),
]


@pytest.mark.parametrize(("damage", "text"), BROKEN_SHARDS, ids=[text[:50] for _, text in BROKEN_SHARDS])
def test_weights_in_several_files_must_fit_their_index(
    tmp_path: Path, damage: Callable[[Path], Any], text: str
) -> None:
    their_llama().save_pretrained(tmp_path, max_shard_size="20KB")
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=text):
        read_checkpoint(tmp_path)

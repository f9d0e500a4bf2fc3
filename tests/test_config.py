"""config.py: run with `pytest tests/test_config.py`."""

from typing import Any

import pytest

import base_llama
from config import ClassifierConfig, LlamaConfig, feed_forward_width
from tests.tiny import tiny_config


def test_the_defaults_are_those_that_code_for_the_original_expects() -> None:
    config = LlamaConfig()
    expected = {
        "vocab_size": 32000,
        "dim": 512,
        "dropout": 0.0,
        "n_layers": 8,
        "n_heads": 8,
        "n_kv_heads": 8,
        "max_seq_len": 1024,
        "layer_norm_eps": 1e-5,
        "multiple_of": 32,
        "hidden_dim": None,
        "position_embedding_type": "rotary",
        "use_cache": True,
        "causal": True,
        "rope_theta": 10000.0,
        "pad_id": 3,
    }
    assert {name: getattr(config, name) for name in expected} == expected


def test_the_sizes_may_be_given_by_position_in_the_original_order() -> None:
    config = LlamaConfig(100, 64, 0.1, 2, 4, 2, 128)
    assert (config.vocab_size, config.dim, config.dropout, config.n_layers) == (100, 64, 0.1, 2)
    assert (config.n_heads, config.n_kv_heads, config.max_seq_len) == (4, 2, 128)


def test_base_llama_has_the_same_config_class() -> None:
    assert base_llama.LlamaConfig is LlamaConfig


@pytest.mark.parametrize("n_heads", [1, 2, 8])
def test_no_number_of_key_value_heads_means_as_many_as_query_heads(n_heads: int) -> None:
    assert LlamaConfig(n_heads=n_heads, n_kv_heads=None).n_kv_heads == n_heads


@pytest.mark.parametrize(
    ("dim", "multiple_of", "width"),
    # the published sizes of stories42M, 15M, 110M, 260K, and Llama 2 7B
    [(512, 32, 1376), (288, 32, 768), (768, 32, 2048), (64, 4, 172), (4096, 256, 11008), (3, 1, 8), (3, 8, 8)],
)
def test_the_hidden_layer_is_two_thirds_of_four_times_dim_rounded_up(dim: int, multiple_of: int, width: int) -> None:
    assert feed_forward_width(dim, multiple_of) == width


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"vocab_size": 0}, "vocab_size must be a whole number of at least 1, got 0"),
        ({"dim": -32}, "dim must be a whole number of at least 1, got -32"),
        ({"dim": 32.0}, "dim must be a whole number of at least 1, got 32.0"),
        ({"n_layers": 0}, "n_layers must be"),
        ({"n_heads": 0}, "n_heads must be"),
        ({"n_kv_heads": 0}, "n_kv_heads must be"),
        ({"max_seq_len": "24"}, "max_seq_len must be a whole number of at least 1, got '24'"),
        ({"multiple_of": 0}, "multiple_of must be"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1 or None, got 0"),
        ({"hidden_dim": 24.0}, "hidden_dim must be"),
        ({"dim": 30}, r"dim \(30\) must be an even multiple of n_heads \(4\)"),
        ({"dim": 36}, r"dim \(36\) must be an even multiple of n_heads \(4\)"),  # head_dim 9 has no pairs
        ({"n_kv_heads": 3}, r"n_heads \(4\) must be a multiple of n_kv_heads \(3\)"),
        ({"n_kv_heads": 8}, r"n_heads \(4\) must be a multiple of n_kv_heads \(8\)"),
        ({"pad_id": None}, "pad_id must be a whole number, got None"),
        ({"causal": 1}, "causal must be True or False, got 1"),
        ({"tie_word_embeddings": None}, "tie_word_embeddings must be True or False, got None"),
        ({"use_cache": "no"}, "use_cache must be True or False, got 'no'"),
        ({"dropout": 1.0}, r"dropout must be in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in \[0, 1\), got -0.1"),
        ({"dropout": float("nan")}, r"dropout must be in \[0, 1\), got nan"),
        ({"position_embedding_type": "absolute"}, "must be 'rotary' or 'alibi', got 'absolute'"),
        ({"position_embedding_type": None}, "must be 'rotary' or 'alibi', got None"),
        ({"dim": 30, "position_embedding_type": "alibi"}, r"dim \(30\) must be a multiple of n_heads \(4\)"),
    ],
)
def test_a_size_that_makes_no_llama_is_named_with_its_value(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        tiny_config(**changes)


def test_heads_of_an_odd_size_are_fine_without_rope() -> None:
    assert tiny_config(dim=36, position_embedding_type="alibi").dim == 36  # head_dim 9


def test_a_classifier_finetunes_with_dropout_unless_told_otherwise() -> None:
    config = ClassifierConfig(num_labels=5, pretrained_model_path="weights.pt")
    assert (config.option, config.hidden_dropout_prob) == ("finetune", 0.3)

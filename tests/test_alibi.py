"""alibi.py, and the Llama that uses it: run with `pytest tests/test_alibi.py`."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

import llama
from alibi import alibi_bias, alibi_slopes
from checkpoint import read_checkpoint, write_checkpoint, write_directory
from llama import Llama, load_pretrained
from tests.tiny import layer_of, padded, random_llama, random_tokens, save_llama, tiny_config

# The slopes of the authors' reference code, in powers of two.
POWERS = {
    1: [-8.0],
    2: [-4.0, -8.0],
    3: [-4.0, -8.0, -2.0],
    4: [-2.0, -4.0, -6.0, -8.0],
    6: [-2.0, -4.0, -6.0, -8.0, -1.0, -3.0],
    8: [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0],
    12: [-1.0, -2.0, -3.0, -4.0, -5.0, -6.0, -7.0, -8.0, -0.5, -1.5, -2.5, -3.5],
}


def alibi_llama(seed: int = 0, **changes: Any) -> Llama:
    return random_llama(seed, position_embedding_type="alibi", **changes)


def their_bias(n_heads: int, seqlen: int) -> torch.Tensor:
    """Return the bias of the paper's reference code: slope · k, which lacks the part that is the same in a row."""
    slopes = torch.tensor([2.0**power for power in POWERS[n_heads]])
    return (slopes[:, None] * torch.arange(seqlen))[:, None, :]  # (n_heads, 1, seqlen)


def causal_mask(seqlen: int) -> torch.Tensor:
    return torch.full((seqlen, seqlen), float("-inf")).triu(1)


# ---------------------------------------------------------------------------------------------------- slopes and bias


@pytest.mark.parametrize("n_heads", POWERS)
def test_the_slopes_are_those_of_the_paper(n_heads: int) -> None:
    slopes = alibi_slopes(n_heads)
    assert slopes.dtype == torch.float32
    torch.testing.assert_close(slopes.log2(), torch.tensor(POWERS[n_heads]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("n_heads", [1, 2, 3, 5, 6, 7, 8, 12, 16, 20, 32])
def test_the_slopes_equal_those_of_transformers_bloom(n_heads: int) -> None:
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    theirs = build_alibi_tensor(torch.ones(1, 5), n_heads, torch.float32)  # slope · k
    torch.testing.assert_close(alibi_slopes(n_heads), theirs[:, 0, 1])


@given(st.integers(1, 200))
def test_every_head_has_a_slope_of_its_own_between_zero_and_one(n_heads: int) -> None:
    slopes = alibi_slopes(n_heads)
    assert slopes.shape == (n_heads,)
    assert len(set(slopes.tolist())) == n_heads
    assert slopes.min() > 0
    assert slopes.max() < 1


@pytest.mark.parametrize("n_heads", [0, -1])
def test_no_heads_have_no_slopes(n_heads: int) -> None:
    with pytest.raises(ValueError, match=f"n_heads must be at least 1, got {n_heads}"):
        alibi_slopes(n_heads)


def test_the_bias_is_the_slope_times_how_far_back_a_key_lies() -> None:
    assert alibi_bias(2, 3).tolist() == [
        [[0.0, -1 / 16, -2 / 16], [-1 / 16, 0.0, -1 / 16], [-2 / 16, -1 / 16, 0.0]],
        [[0.0, -1 / 256, -2 / 256], [-1 / 256, 0.0, -1 / 256], [-2 / 256, -1 / 256, 0.0]],
    ]


@pytest.mark.parametrize("n_heads", POWERS)
def test_attention_weights_equal_those_of_the_reference_code(n_heads: int) -> None:
    scores = torch.randn(n_heads, 9, 9) + causal_mask(9)
    ours = F.softmax(scores + alibi_bias(n_heads, 9), dim=-1)
    torch.testing.assert_close(ours, F.softmax(scores + their_bias(n_heads, 9), dim=-1))


@given(st.integers(1, 13), st.integers(1, 30), st.integers(1, 30))
def test_a_longer_bias_begins_with_the_shorter_one(n_heads: int, short: int, more: int) -> None:
    assert torch.equal(alibi_bias(n_heads, short + more)[:, :short, :short], alibi_bias(n_heads, short))


# ---------------------------------------------------------------------------------------------------------- the model


@pytest.mark.parametrize(("n_heads", "dim"), [(1, 32), (3, 36), (4, 32), (6, 36), (4, 36)])  # the last: head_dim 9
def test_attention_equals_torchs_with_the_reference_bias_and_no_rotation(n_heads: int, dim: int) -> None:
    ours = layer_of(alibi_llama(n_heads=n_heads, n_kv_heads=n_heads, dim=dim), 0).attention
    x = torch.randn(2, 11, dim)
    query, key, value = (
        project(x).view(2, 11, n_heads, -1).transpose(1, 2)
        for project in (ours.compute_query, ours.compute_key, ours.compute_value)
    )
    mask = their_bias(n_heads, 11) + causal_mask(11)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    expected = ours.compute_output(mixed.transpose(1, 2).reshape(2, 11, dim))
    torch.testing.assert_close(ours(x), expected, atol=1e-5, rtol=1e-4)


def test_nothing_is_rotated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama, "apply_rotary_emb", lambda *_: pytest.fail("RoPE"))
    alibi_llama()(random_tokens(2, 9))


def test_the_order_of_the_tokens_before_matters() -> None:
    model, tokens = alibi_llama(), random_tokens(1, 9)
    swapped = tokens[:, [3, 1, 2, 0, 4, 5, 6, 7, 8]]
    assert not torch.allclose(model(tokens)[0], model(swapped)[0], atol=1e-3)


def test_a_token_sees_none_that_come_after_it() -> None:
    model, tokens = alibi_llama(), random_tokens(2, 12)
    changed = torch.cat((tokens[:, :7], random_tokens(2, 5, seed=1)), dim=1)
    assert torch.equal(model(tokens, targets=tokens)[0][:, :7], model(changed, targets=changed)[0][:, :7])


def test_padding_at_the_right_changes_no_logit() -> None:
    model, rows = alibi_llama(), [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 9, 14)]
    batch = padded(rows, width=20)
    together, _ = model(batch, targets=batch)
    for row, logits in zip(rows, together, strict=True):
        alone = torch.tensor([row])
        torch.testing.assert_close(logits[: len(row)], model(alone, targets=alone)[0][0], atol=1e-5, rtol=1e-5)


def test_a_longer_context_is_a_larger_max_seq_len_and_nothing_else() -> None:
    """The weights are the same; what was read within the old context is read as before."""
    short, tokens = alibi_llama(max_seq_len=24), random_tokens(2, 96)
    long = Llama(tiny_config(position_embedding_type="alibi", max_seq_len=96)).eval()
    long.load_state_dict(short.state_dict())
    with pytest.raises(ValueError, match="96 tokens are more than the model's context of 24"):
        short(tokens)
    logits, _ = long(tokens, targets=tokens)
    assert logits.isfinite().all()
    expected, _ = short(tokens[:, :24], targets=tokens[:, :24])
    torch.testing.assert_close(logits[:, :24], expected, atol=1e-5, rtol=1e-5)


def test_a_head_with_a_steep_slope_forgets_what_lies_far_back() -> None:
    """2^-0.5 a token: sixty tokens back a score is worth exp(-42) of what it is here."""
    bias = alibi_bias(16, 61)[0, 60]
    assert F.softmax(bias, dim=0)[0] < 1e-18
    assert math.isclose(bias[0].item(), -60 * 2**-0.5, rel_tol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_dtype_answers_in_it(dtype: torch.dtype) -> None:
    tokens = random_tokens(2, 9)
    expected, _ = alibi_llama()(tokens)
    logits, _ = alibi_llama().to(dtype)(tokens)
    assert logits.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float64 else 0.3
    torch.testing.assert_close(logits.float(), expected, atol=tolerance, rtol=tolerance)


def test_gradients_flow_and_no_layer_keeps_the_bias() -> None:
    model, tokens = alibi_llama(), random_tokens(2, 9)
    with torch.inference_mode():
        model(tokens)  # as generation does; nothing of it may be in the way of training
    logits, _ = model(tokens, targets=tokens)
    F.cross_entropy(logits.flatten(0, 1), tokens.flatten()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert all(layer_of(model, i).attention.attention_bias is None for i in range(2))


def test_generation_goes_past_the_context() -> None:
    model, idx = alibi_llama(), random_tokens(2, 20)
    generated = model.generate(idx, 12, temperature=0.0)
    expected = idx
    for _ in range(12):
        logits, _ = model(expected[:, -24:])
        expected = torch.cat((expected, logits[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    assert torch.equal(generated, expected)


def test_a_checkpoint_of_either_form_says_alibi(tmp_path: Path) -> None:
    model, tokens = alibi_llama(n_heads=3, n_kv_heads=1, dim=36), random_tokens(2, 9)
    write_directory(tmp_path / "folder", model.config, model.state_dict())
    for path in (save_llama(tmp_path / "model.pt", model), tmp_path / "folder"):
        assert read_checkpoint(path)[0] == model.config
        assert torch.equal(load_pretrained(path)(tokens)[0], model(tokens)[0])


def test_a_checkpoint_with_rope_does_not_mention_it(tmp_path: Path) -> None:
    model = random_llama()
    write_checkpoint(tmp_path / "model.pt", model.config, model.state_dict())
    assert "position_embedding_type" not in torch.load(tmp_path / "model.pt", weights_only=True)["model_args"]

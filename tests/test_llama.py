"""llama.py and base_llama.py: run with `pytest tests/test_llama.py`."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from base_llama import LlamaPreTrainedModel, SkipInit
from checkpoint import write_checkpoint
from config import LlamaConfig
from llama import Attention, FeedForward, Llama, RMSNorm, load_pretrained
from optimizer import AdamW
from rope import apply_rotary_emb
from tests.assets_dir import require_asset
from tests.tiny import layer_of, padded, random_llama, random_tokens, tiny_config
from tokenizer import Tokenizer

PROMPTS = ("Once upon a time", "Lily and Tom went to the park.", "The dog", "One day, a little girl named")


def their_llama(model: Llama) -> Any:
    """Return transformers' model with our weights."""
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaForCausalLM

    config = model.config
    theirs = LlamaForCausalLM(
        TheirConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.dim,
            intermediate_size=layer_of(model, 0).feed_forward.w1.out_features,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.layer_norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=False,
            attn_implementation="eager",
            bos_token_id=None,
            eos_token_id=None,
        )
    )
    result = theirs.load_state_dict({their_name(name): value for name, value in their_rows(model).items()})
    assert not result.missing_keys
    assert not result.unexpected_keys
    return theirs.eval()


def their_name(name: str) -> str:
    """Translate one of our tensors' names into Hugging Face's."""
    renamed = {
        "tok_embeddings": "model.embed_tokens",
        "norm": "model.norm",
        "output": "lm_head",
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
    if name.startswith("layers."):
        _, layer_id, part = name.removesuffix(".weight").split(".", 2)
        return f"model.layers.{layer_id}.{renamed[part]}.weight"
    return f"{renamed[name.removesuffix('.weight')]}.weight"


def their_rows(model: Llama) -> dict[str, torch.Tensor]:
    """Return our weights with the rows of query and key reordered for a RoPE that rotates halves.

    Where our pair i is elements (2i, 2i + 1) of a head, theirs is (i, i + head_dim / 2): the even rows come first.
    """
    weights = model.state_dict()
    for name, weight in weights.items():
        if name.endswith(("compute_query.weight", "compute_key.weight")):
            head_dim = model.config.dim // model.config.n_heads
            pairs = weight.view(-1, head_dim // 2, 2, weight.shape[1])  # (heads, pair, 2, dim)
            weights[name] = pairs.transpose(1, 2).reshape(weight.shape)
    return weights


def attention(seed: int = 0, **changes: Any) -> Attention:
    """Return an attention with weights large enough for scores that differ."""
    return layer_of(random_llama(seed, **changes), 0).attention


def random_states(bs: int = 2, seqlen: int = 7, dim: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.randn(bs, seqlen, dim, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ against transformers


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": 1},
        {"n_kv_heads": None},
        {"tie_word_embeddings": False, "hidden_dim": 50, "rope_theta": 500.0, "layer_norm_eps": 1e-2},
    ],
    ids=["gqa", "one-kv-head", "all-kv-heads", "untied-odd-sizes"],
)
def test_logits_and_hidden_states_of_a_random_model_equal_those_of_transformers(changes: dict[str, Any]) -> None:
    ours = random_llama(**changes)
    tokens = random_tokens(3, 24)
    logits, hidden = ours(tokens, targets=tokens)
    theirs = their_llama(ours)(tokens, output_hidden_states=True)
    torch.testing.assert_close(logits, theirs.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(hidden, theirs.hidden_states[-1], atol=1e-5, rtol=1e-5)


def test_logits_of_real_weights_equal_those_of_transformers() -> None:
    """Within 1e-5 of the largest logit, about 20: float32 keeps either model no nearer to what float64 makes of it."""
    ours = load_pretrained(require_asset("stories260K.bin"))
    tokens = random_tokens(2, 512, vocab_size=512)
    logits, _ = ours(tokens, targets=tokens)
    theirs = their_llama(ours)(tokens).logits
    assert (logits - theirs).abs().max() < 1e-5 * theirs.abs().max()


def test_greedy_text_of_real_weights_equals_that_of_transformers_token_for_token() -> None:
    ours = load_pretrained(require_asset("stories260K.bin"))
    tokenizer = Tokenizer(tokenizer_model=require_asset("tok512.bin"))
    idx = torch.tensor([tokenizer.encode(prompt, bos=True, eos=False)[:4] for prompt in PROMPTS])
    theirs = their_llama(ours).generate(
        idx, attention_mask=torch.ones_like(idx), max_new_tokens=110, do_sample=False, pad_token_id=3
    )
    assert theirs.shape == (4, 114)
    assert ours.generate(idx, 110, temperature=0.0).tolist() == theirs.tolist()


# ------------------------------------------------------------------------------------------------------------ RMSNorm


def test_a_norm_equals_torchs() -> None:
    norm = RMSNorm(32, eps=1e-3)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(32))
    x = random_states()
    torch.testing.assert_close(norm(x), F.rms_norm(x, (32,), norm.weight, eps=1e-3))


def test_a_norm_starts_with_weights_of_one_and_the_originals_epsilon() -> None:
    norm = RMSNorm(5)
    assert torch.equal(norm.weight, torch.ones(5))
    assert norm.eps == 1e-6


@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 2**32 - 1))
def test_a_norm_does_not_see_the_scale_of_a_vector(scale: float, seed: int) -> None:
    norm, x = RMSNorm(8, eps=0.0), random_states(1, 3, 8, seed=seed)
    torch.testing.assert_close(norm._norm(scale * x), norm._norm(x))


def test_a_normed_vector_has_a_root_mean_square_of_one() -> None:
    normed = RMSNorm(32)(5 * random_states() + 3)  # the mean is not taken away
    torch.testing.assert_close(normed.square().mean(dim=-1).sqrt(), torch.ones(2, 7))
    assert normed.mean() > 0.3


def test_zeros_stay_finite() -> None:
    x = torch.zeros(2, 3, 8, requires_grad=True)
    normed = RMSNorm(8)(x)
    normed.sum().backward()
    assert torch.equal(normed, torch.zeros(2, 3, 8))
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_epsilon_stands_under_the_root() -> None:
    norm = RMSNorm(4, eps=3.0)
    torch.testing.assert_close(norm._norm(torch.ones(4)), torch.full((4,), 0.5))  # 1 / sqrt(1 + 3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_norm_keeps_the_dtype_and_works_in_float32(dtype: torch.dtype) -> None:
    x = 1000 * torch.ones(2, 8, dtype=dtype)  # the square overflows float16
    normed = RMSNorm(8).to(dtype)(x)
    assert normed.dtype == dtype
    torch.testing.assert_close(normed, torch.ones(2, 8, dtype=dtype))


# ---------------------------------------------------------------------------------------------------------- attention


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("causal", [True, False])
def test_scores_equal_torchs_scaled_dot_product_attention(causal: bool, with_bias: bool) -> None:
    ours = attention(causal=causal)
    query, key, value = (random_states(3, 4 * 7, 8, seed=i).view(3, 4, 7, 8) for i in range(3))
    mask = torch.zeros(4, 7, 7)
    if with_bias:
        mask = torch.randn(4, 7, 7)
        ours.attention_bias = mask
    if causal:
        mask = mask + torch.full((7, 7), float("-inf")).triu(1)
    mixed = ours.compute_query_key_value_scores(query, key, value)
    torch.testing.assert_close(mixed, F.scaled_dot_product_attention(query, key, value, attn_mask=mask))


def test_the_bias_is_added_after_the_scaling() -> None:
    """With queries of zero the bias alone decides: a bias of log 3 makes one value three times as heavy."""
    ours = attention(causal=False)
    ours.attention_bias = torch.tensor([0.0, math.log(3)]).expand(4, 2, 2)
    value = torch.tensor([[0.0], [1.0]]).expand(1, 4, 2, 8)
    mixed = ours.compute_query_key_value_scores(torch.zeros(1, 4, 2, 8), torch.randn(1, 4, 2, 8), value)
    torch.testing.assert_close(mixed, torch.full((1, 4, 2, 8), 0.75))


def test_the_first_token_of_a_causal_attention_sees_its_own_value_only() -> None:
    query, key, value = (torch.randn(2, 4, 7, 8) for _ in range(3))
    mixed = attention().compute_query_key_value_scores(query, key, value)
    torch.testing.assert_close(mixed[:, :, 0], value[:, :, 0])


def test_large_scores_stay_finite() -> None:
    query, key, value = 1e3 * torch.randn(1, 4, 7, 8), 1e3 * torch.randn(1, 4, 7, 8), torch.randn(1, 4, 7, 8)
    assert attention().compute_query_key_value_scores(query, key, value).isfinite().all()


@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
def test_grouped_queries_equal_a_loop_over_the_heads(n_kv_heads: int) -> None:
    ours = attention(n_kv_heads=n_kv_heads)
    x = random_states()
    mixed = []
    for head in range(4):
        kv_head = head * n_kv_heads // 4
        rows, kv_rows = slice(8 * head, 8 * head + 8), slice(8 * kv_head, 8 * kv_head + 8)
        query = (x @ ours.compute_query.weight[rows].T).unsqueeze(2)
        key = (x @ ours.compute_key.weight[kv_rows].T).unsqueeze(2)
        value = x @ ours.compute_value.weight[kv_rows].T
        query, key = (heads.squeeze(2) for heads in apply_rotary_emb(query, key, 8, max_seq_len=24))
        mixed.append(F.scaled_dot_product_attention(query, key, value, is_causal=True))
    torch.testing.assert_close(ours(x), torch.cat(mixed, dim=-1) @ ours.compute_output.weight.T, atol=1e-5, rtol=1e-4)


def test_attention_rotates_with_the_models_theta() -> None:
    x = random_states()
    assert not torch.allclose(attention(rope_theta=10.0)(x), attention(rope_theta=10000.0)(x))


def test_dropout_falls_on_the_weights_after_the_softmax() -> None:
    seen: list[torch.Tensor] = []

    class Recorder(nn.Module):
        """Remember what comes in."""

        def forward(self, weights: torch.Tensor) -> torch.Tensor:
            seen.append(weights)
            return weights

    ours = attention()
    ours.attn_dropout = Recorder()  # type: ignore[assignment]
    ours(random_states())
    (weights,) = seen
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 7))
    assert torch.equal(weights, weights.tril())


def test_attention_has_the_names_that_code_for_the_original_reads() -> None:
    ours = Attention(tiny_config(dropout=0.25))
    assert (ours.n_kv_heads, ours.n_local_heads, ours.n_local_kv_heads, ours.n_rep) == (2, 4, 2, 2)
    assert (ours.head_dim, ours.max_seq_len, ours.causal, ours.attention_bias) == (8, 24, True, None)
    assert ours.attn_dropout.p == ours.resid_dropout.p == 0.25


# ------------------------------------------------------------------------------------------- feed-forward and layer


def test_feed_forward_is_swiglu() -> None:
    ours = FeedForward(dim=6, hidden_dim=None, multiple_of=4, dropout=0.0)
    x = torch.randn(2, 3, 6)
    gate, up = x @ ours.w1.weight.T, x @ ours.w3.weight.T
    hidden = gate * torch.sigmoid(gate) * up
    assert hidden.shape[-1] == 16  # two thirds of 24
    torch.testing.assert_close(ours.SwiGLU(x), hidden)
    torch.testing.assert_close(ours(x), hidden @ ours.w2.weight.T)


def test_a_layer_normalises_first_and_adds_twice() -> None:
    layer = layer_of(random_llama(), 0)
    x = random_states()
    with torch.no_grad():
        after_attention = x + layer.attention(layer.attention_norm(x))
        expected = after_attention + layer.feed_forward(layer.ffn_norm(after_attention))
        assert torch.equal(layer(x), expected)


def test_a_layer_whose_projections_are_zero_hands_its_input_on() -> None:
    layer = layer_of(random_llama(), 1)
    nn.init.zeros_(layer.attention.compute_output.weight)
    nn.init.zeros_(layer.feed_forward.w2.weight)
    x = random_states()
    assert torch.equal(layer(x), x)
    assert layer.layer_id == 1


# ------------------------------------------------------------------------------------------------- what a token sees


@pytest.mark.parametrize("t", [0, 5, 11])
def test_changing_a_token_leaves_everything_before_it_bit_for_bit(t: int) -> None:
    model, tokens = random_llama(), random_tokens(2, 12)
    changed = tokens.clone()
    changed[:, t] = (tokens[:, t] - 4 + 1) % 36 + 4
    before, after = model(tokens, targets=tokens), model(changed, targets=changed)
    for ours, theirs in zip(before, after, strict=True):  # logits, hidden states
        assert torch.equal(ours[:, :t], theirs[:, :t])
        assert not torch.isclose(ours[:, t:], theirs[:, t:]).all(dim=-1).any()


def test_without_the_mask_a_token_sees_what_follows() -> None:
    model, tokens = random_llama(causal=False), random_tokens(2, 12)
    changed = tokens.clone()
    changed[:, -1] = (tokens[:, -1] - 4 + 1) % 36 + 4
    _, before = model(tokens)
    _, after = model(changed)
    assert not torch.isclose(before[:, 0], after[:, 0]).all(dim=-1).any()


def test_a_row_has_the_same_logits_alone_padded_and_in_any_batch() -> None:
    model = random_llama()
    rows = [random_tokens(1, length, seed=length)[0].tolist() for length in (3, 9, 1, 14, 9)]
    batch = padded(rows, width=20)
    together = model(batch, targets=batch)
    backwards = model(batch.flip(0), targets=batch)
    for i, row in enumerate(rows):
        alone = torch.tensor([row])
        for ours, batched, flipped in zip(model(alone, targets=alone), together, backwards, strict=True):
            torch.testing.assert_close(batched[i, : len(row)], ours[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(flipped[-1 - i, : len(row)], ours[0], atol=1e-5, rtol=1e-5)


@settings(max_examples=25)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), width=st.integers(20, 24), pad=st.integers(0, 39))
def test_right_padding_changes_no_logit_of_a_real_token(lengths: list[int], width: int, pad: int) -> None:
    model = random_llama()
    rows = [random_tokens(1, length, seed=i)[0].tolist() for i, length in enumerate(lengths)]
    batch = padded(rows, pad_id=pad, width=width)
    logits, _ = model(batch, targets=batch)
    for i, row in enumerate(rows):
        alone = torch.tensor([row])
        torch.testing.assert_close(logits[i, : len(row)], model(alone, targets=alone)[0][0], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------- the model


def test_targets_ask_for_the_logits_of_every_position_and_none_for_the_last() -> None:
    model, tokens = random_llama(), random_tokens(2, 9)
    every, hidden = model(tokens, targets=tokens)
    last, same_hidden = model(tokens)
    assert every.shape == (2, 9, 40)
    assert last.shape == (2, 1, 40)
    assert hidden.shape == (2, 9, 32)
    assert torch.equal(hidden, same_hidden)
    torch.testing.assert_close(last[:, 0], every[:, -1])
    torch.testing.assert_close(every, hidden @ model.output.weight.T)


def test_the_values_of_the_targets_change_nothing() -> None:
    model, tokens = random_llama(), random_tokens(2, 9)
    assert torch.equal(model(tokens, targets=tokens)[0], model(tokens, torch.zeros_like(tokens))[0])


def test_a_full_context_is_fine_and_one_token_more_is_an_error() -> None:
    model = random_llama()
    model(random_tokens(1, 24))
    with pytest.raises(ValueError, match="25 tokens are more than the model's context of 24"):
        model(random_tokens(1, 25))


@pytest.mark.parametrize(
    "name",
    [
        "dropout",
        "layers.0.attention.attn_dropout",
        "layers.0.attention.resid_dropout",
        "layers.1.feed_forward.dropout",
    ],
)
def test_every_dropout_acts_in_training_and_only_there(name: str) -> None:
    model, tokens = random_llama(dropout=0.5), random_tokens(2, 9)
    _, expected = model(tokens)
    assert torch.equal(model(tokens)[1], expected)
    dropout = model.get_submodule(name)
    assert isinstance(dropout, nn.Dropout)
    assert dropout.p == 0.5
    dropout.train()
    assert not torch.allclose(model(tokens)[1], expected)


def test_a_model_has_the_names_that_code_for_the_original_reads() -> None:
    config = tiny_config(dropout=0.25)
    model = Llama(config)
    assert isinstance(model, LlamaPreTrainedModel)
    assert model.config is config
    assert model.params is config
    assert (model.n_layers, model.vocab_size, len(model.layers)) == (2, 40, 2)
    assert (model.dropout.p, model.norm.eps) == (0.25, 1e-5)
    assert isinstance(model.norm, RMSNorm)
    assert model.tok_embeddings.weight.shape == model.output.weight.shape == (40, 32)
    assert model.dtype == torch.float32
    layer = layer_of(model, 0)
    assert (layer.layer_id, layer.dim, layer.n_heads, layer.head_dim) == (0, 32, 4, 8)


def test_the_tensors_have_the_names_and_shapes_that_checkpoints_hold() -> None:
    model = Llama(tiny_config(n_layers=1))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == {
        "tok_embeddings.weight": (40, 32),
        "layers.0.attention.compute_query.weight": (32, 32),
        "layers.0.attention.compute_key.weight": (16, 32),
        "layers.0.attention.compute_value.weight": (16, 32),
        "layers.0.attention.compute_output.weight": (32, 32),
        "layers.0.feed_forward.w1.weight": (88, 32),
        "layers.0.feed_forward.w2.weight": (32, 88),
        "layers.0.feed_forward.w3.weight": (88, 32),
        "layers.0.attention_norm.weight": (32,),
        "layers.0.ffn_norm.weight": (32,),
        "norm.weight": (32,),
        "output.weight": (40, 32),
    }


def test_the_42m_model_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"), SkipInit():
        model = Llama(LlamaConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 41_689_600


def test_the_output_matrix_is_the_embedding_unless_the_config_unties_them() -> None:
    tied, untied = Llama(tiny_config()), Llama(tiny_config(tie_word_embeddings=False))
    assert tied.output.weight is tied.tok_embeddings.weight
    assert not torch.equal(untied.output.weight, untied.tok_embeddings.weight)
    extra = sum(p.numel() for p in untied.parameters()) - sum(p.numel() for p in tied.parameters())
    assert extra == 40 * 32


def test_tied_weights_are_trained_as_one() -> None:
    model, tokens = random_llama(), random_tokens(2, 9)
    optimizer = AdamW(model.parameters(), lr=0.1)
    F.cross_entropy(model(tokens, targets=tokens)[0].flatten(0, 1), tokens.flatten()).backward()
    optimizer.step()
    assert torch.equal(model.output.weight, model.tok_embeddings.weight)


def test_weights_start_small_and_what_is_added_to_the_residual_stream_smaller() -> None:
    """0.02 / sqrt(2 · 8 layers) = 0.005 for compute_output and w2; llama2.c scales w3 instead, by mistake."""
    model = Llama(tiny_config(dim=64, n_layers=8, vocab_size=500))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            assert torch.equal(parameter, torch.ones(64)), name
            continue
        expected = 0.005 if name.endswith(("compute_output.weight", "w2.weight")) else 0.02
        assert parameter.std().item() == pytest.approx(expected, rel=0.08), name
        assert abs(parameter.mean().item()) < 0.1 * expected, name


def test_a_fresh_model_finds_every_token_equally_likely() -> None:
    model, tokens = Llama(tiny_config()).eval(), random_tokens(8, 24)
    logits, _ = model(tokens, targets=tokens)
    loss = F.cross_entropy(logits.flatten(0, 1), random_tokens(8, 24, seed=1).flatten())
    assert loss.item() == pytest.approx(math.log(40), abs=0.05)


def test_gradients_flow_to_every_parameter() -> None:
    model, tokens = random_llama(tie_word_embeddings=False), random_tokens(2, 9)
    logits, _ = model(tokens, targets=tokens)
    F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_tiny_model_learns_a_sentence_by_heart_and_recites_it() -> None:
    model, tokens = Llama(tiny_config()), random_tokens(1, 16)
    optimizer = AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        logits, _ = model(tokens, targets=tokens)
        F.cross_entropy(logits[0, :-1], tokens[0, 1:]).backward()
        optimizer.step()
    assert model.generate(tokens[:, :1], 15, temperature=0.0).tolist() == tokens.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_model_of_another_dtype_answers_in_it(dtype: torch.dtype) -> None:
    tokens = random_tokens(2, 9)
    expected, _ = random_llama()(tokens)
    model = random_llama().to(dtype)
    logits, hidden = model(tokens)
    assert model.dtype == logits.dtype == hidden.dtype == dtype
    tolerance = 1e-4 if dtype == torch.float64 else 0.3
    torch.testing.assert_close(logits.float(), expected, atol=tolerance, rtol=tolerance)


# ------------------------------------------------------------------------------------------------------- generation


def test_temperature_zero_takes_the_most_likely_token_of_the_last_window() -> None:
    """24 tokens are the context; from the 25th on the oldest token falls out and positions are counted anew."""
    model, idx = random_llama(), random_tokens(2, 20)
    generated = model.generate(idx, 12, temperature=0.0)
    expected = idx
    for _ in range(12):
        logits, _ = model(expected[:, -24:])
        expected = torch.cat((expected, logits[:, -1].argmax(dim=-1, keepdim=True)), dim=1)
    assert torch.equal(generated, expected)


@pytest.mark.parametrize("length", [30, 25, 24])
def test_a_prompt_longer_than_the_context_is_read_from_its_end(length: int) -> None:
    model, idx = random_llama(), random_tokens(1, length)
    generated = model.generate(idx, 1, temperature=0.0)
    assert torch.equal(generated[:, :length], idx)
    assert torch.equal(generated[:, -1:], model.generate(idx[:, -24:], 1, temperature=0.0)[:, -1:])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("bs", "max_new_tokens"), [(1, 0), (1, 5), (3, 1), (4, 7)])
def test_every_row_grows_by_the_number_of_new_tokens(bs: int, max_new_tokens: int, temperature: float) -> None:
    idx = random_tokens(bs, 6)
    before = idx.clone()
    generated = random_llama().generate(idx, max_new_tokens, temperature)
    assert generated.shape == (bs, 6 + max_new_tokens)
    assert generated.dtype == torch.int64
    assert torch.equal(generated[:, :6], before)
    assert torch.equal(idx, before)


def test_rows_of_a_batch_are_generated_as_they_are_alone() -> None:
    model, idx = random_llama(), random_tokens(4, 6)
    together = model.generate(idx, 8, temperature=0.0)
    for i in range(4):
        assert torch.equal(together[i : i + 1], model.generate(idx[i : i + 1], 8, temperature=0.0))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sampling_follows_the_distribution_of_its_temperature(temperature: float) -> None:
    """Pearson's chi-squared over 8 tokens (7 degrees of freedom): 24.32 is exceeded once in a thousand."""
    model, idx = random_llama(vocab_size=8, seed=3), torch.tensor([[4, 5, 6, 7]])
    samples = 4000
    drawn = model.generate(idx.repeat(samples, 1), 1, temperature)[:, -1]
    observed = torch.bincount(drawn, minlength=8)
    logits = model(idx)[0][0, -1]

    def chi_squared(assumed: float) -> float:
        expected = samples * (logits / assumed).softmax(dim=-1)
        return ((observed - expected).square() / expected).sum().item()

    assert chi_squared(temperature) < 24.32
    assert chi_squared(temperature * 1.5) > 24.32  # the test would notice another temperature


def test_the_same_seed_draws_the_same_text_and_another_seed_another() -> None:
    model, idx = random_llama(), random_tokens(1, 6)
    texts = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        texts.append(model.generate(idx, 18, temperature=3.0).tolist())
    assert texts[0] == texts[1] != texts[2]


def test_greedy_generation_draws_no_random_numbers() -> None:
    before = torch.get_rng_state()
    random_llama().generate(random_tokens(1, 6), 3, temperature=0.0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("training", [True, False])
def test_generation_uses_no_dropout_and_gives_the_mode_back(training: bool) -> None:
    model, idx = random_llama(dropout=0.5), random_tokens(2, 6)
    expected = model.generate(idx, 8, temperature=0.0)
    model.train(training)
    assert torch.equal(model.generate(idx, 8, temperature=0.0), expected)
    assert {module.training for module in model.modules()} == {training}


def test_a_negative_temperature_is_an_error_and_leaves_the_mode_alone() -> None:
    model = random_llama().train()
    with pytest.raises(ValueError, match=r"temperature must be 0.0 or more, got -0.5"):
        model.generate(random_tokens(1, 6), 1, temperature=-0.5)
    assert model.training


def test_generation_records_no_graph() -> None:
    generated = random_llama().generate(random_tokens(1, 6), 2)
    assert not generated.requires_grad


def test_skipped_initialisation_draws_nothing_and_does_everything_else() -> None:
    tensor = torch.zeros(2, 3)
    with SkipInit():
        assert torch.nn.init.normal_(tensor) is tensor
        assert torch.nn.init.uniform_(tensor=tensor) is tensor
        assert torch.nn.init.kaiming_uniform_(tensor) is tensor
        assert torch.equal(tensor + 1, torch.ones(2, 3))
    assert not tensor.any()
    torch.nn.init.normal_(tensor)
    assert tensor.all()


@pytest.mark.parametrize("persistent", [True, False])
def test_a_model_that_keeps_its_mask_in_a_buffer_is_loaded_too(
    persistent: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Llama(tiny_config())
    write_checkpoint(tmp_path / "tiny.pt", model.config, model.state_dict())
    plain = load_pretrained(tmp_path / "tiny.pt")
    start = Attention.__init__

    def with_mask(self: Attention, config: LlamaConfig) -> None:
        start(self, config)
        self.register_buffer("mask", torch.ones(4, 4).tril(), persistent=persistent)

    monkeypatch.setattr(Attention, "__init__", with_mask)
    loaded = load_pretrained(tmp_path / "tiny.pt")
    assert torch.equal(dict(loaded.named_buffers())["layers.0.attention.mask"], torch.ones(4, 4).tril())
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded(tokens)[0], plain(tokens)[0])


def test_a_weight_that_no_checkpoint_has_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Llama(tiny_config())
    write_checkpoint(tmp_path / "tiny.pt", model.config, model.state_dict())
    start = Attention.__init__

    def with_weight(self: Attention, config: LlamaConfig) -> None:
        start(self, config)
        self.extra = torch.nn.Parameter(torch.ones(3))

    monkeypatch.setattr(Attention, "__init__", with_weight)
    with pytest.raises(RuntimeError, match=r"Missing key.*layers\.0\.attention\.extra"):
        load_pretrained(tmp_path / "tiny.pt")

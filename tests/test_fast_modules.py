"""The faster modules of a model that is trained: they compute what the root's simple ones do."""

import copy
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from inference.fast_modules import FastAttention, FastDropout, FastRMSNorm, speed_up
from llama import Attention, Llama, RMSNorm
from pretrain.model import share_layers
from tests.tiny import layer_of, random_llama

SHAPES = [  # n_heads, n_kv_heads
    (4, 4),
    (4, 2),
    (6, 1),
    (6, 3),
]


def both(**changes: Any) -> tuple[Llama, Llama]:
    """Return the same tiny model twice: the simple one, and one with faster modules."""
    simple = random_llama(**({"dim": 48, "vocab_size": 50} | changes))
    fast = copy.deepcopy(simple)
    speed_up(fast)
    return simple, fast


def answer(
    model: Llama, tokens: torch.Tensor, *, bfloat16: bool = False
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the logits of a model, and the gradient of a loss for each weight."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        logits, _ = model(tokens, tokens)
    F.cross_entropy(logits.float().flatten(0, 1), tokens.flatten()).backward()
    return logits.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(simple: Llama, fast: Llama, seqlen: int) -> None:
    """Compare the logits and the gradients of two models on random tokens. Gradients go through more roundings."""
    tokens = torch.randint(simple.vocab_size, (3, seqlen))
    logits, grads = answer(simple, tokens)
    fast_logits, fast_grads = answer(fast, tokens)
    assert (fast_logits - logits).norm() <= 1e-5 * logits.norm()
    assert fast_grads.keys() == grads.keys()
    for name, grad in grads.items():
        assert (fast_grads[name] - grad).norm() <= 3e-5 * grad.norm().clamp(min=1.0), name


every_position = pytest.mark.parametrize("positions", ["rotary", "alibi"])
every_shape = pytest.mark.parametrize(("n_heads", "n_kv_heads"), SHAPES)


@every_position
@every_shape
@pytest.mark.parametrize("seqlen", [1, 7, 24])
@pytest.mark.parametrize("causal", [True, False])
def test_logits_and_gradients_are_those_of_the_simple_model(
    positions: str, n_heads: int, n_kv_heads: int, seqlen: int, causal: bool
) -> None:
    simple, fast = both(n_heads=n_heads, n_kv_heads=n_kv_heads, position_embedding_type=positions, causal=causal)
    assert_same(simple, fast, seqlen)


@every_position
@every_shape
def test_in_bfloat16_they_differ_by_its_rounding_only(positions: str, n_heads: int, n_kv_heads: int) -> None:
    simple, fast = both(n_heads=n_heads, n_kv_heads=n_kv_heads, position_embedding_type=positions)
    tokens = torch.randint(simple.vocab_size, (3, 24))
    exact, exact_grads = answer(simple, tokens)
    logits, grads = answer(simple, tokens, bfloat16=True)
    fast_logits, fast_grads = answer(fast, tokens, bfloat16=True)
    assert fast_logits.dtype == torch.bfloat16
    assert (fast_logits - exact).norm() < 1.5 * (logits - exact).norm()
    for name, grad in exact_grads.items():
        assert (fast_grads[name] - grad).norm() < 1.5 * (grads[name] - grad).norm() + 1e-3 * grad.norm(), name


@every_position
def test_the_paths_for_short_and_for_long_texts_agree(positions: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, fast = both(position_embedding_type=positions)
    tokens = torch.randint(fast.vocab_size, (2, 24))
    in_memory, _ = answer(fast, tokens, bfloat16=True)
    monkeypatch.setattr("inference.fast_modules.SHORT", 0)
    fused, _ = answer(fast, tokens, bfloat16=True)
    assert (in_memory - fused).norm() < 0.03 * fused.norm()


@every_position
def test_past_the_context_the_simple_way_goes_on(positions: str) -> None:
    simple, fast = both(position_embedding_type=positions)
    for model in (simple, fast):
        model.params.max_seq_len = 40  # as whoever extrapolates sets it
        for i in range(model.n_layers):
            layer_of(model, i).attention.max_seq_len = 40
    assert_same(simple, fast, 40)


def test_a_bias_that_someone_has_set_is_added() -> None:
    simple, fast = both()
    for model in (simple, fast):
        layer_of(model, 0).attention.attention_bias = torch.linspace(-2, 2, 4 * 9 * 9).view(4, 9, 9)
    assert_same(simple, fast, 9)


@every_position
@pytest.mark.parametrize("causal", [True, False])
def test_so_is_one_that_hides_tokens_of_each_row(positions: str, causal: bool) -> None:
    simple, fast = both(causal=causal, position_embedding_type=positions)
    hidden = torch.zeros(3, 1, 1, 9).masked_fill(torch.arange(9) > torch.tensor([[[[8]]], [[[4]]], [[[0]]]]), -math.inf)
    for model in (simple, fast):
        for i in range(model.n_layers):
            layer_of(model, i).attention.attention_bias = hidden
    assert_same(simple, fast, 9)
    tokens = torch.zeros(3, 9, dtype=torch.int64)
    logits, _ = answer(fast, tokens, bfloat16=True)
    assert (logits - answer(simple, tokens)[0]).norm() < 0.03 * logits.norm()


def test_projections_that_are_more_than_their_weights_are_asked() -> None:
    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    simple, fast = both()
    for model in (simple, fast):
        for name in ("compute_query", "compute_value"):
            getattr(layer_of(model, 0).attention, name).__class__ = Doubled
    assert_same(simple, fast, 9)


@every_position
def test_torch_compile_takes_the_model_in_one_piece(positions: str) -> None:
    simple, fast = both(position_embedding_type=positions, dropout=0.1, n_layers=1)
    fast.train()
    compiled = torch.compile(fast, backend="aot_eager", fullgraph=True)
    tokens = torch.randint(fast.vocab_size, (2, 24))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch.compile's own code
        compiled(tokens, tokens)[0].sum().backward()
        fast.eval()
        logits, _ = compiled(tokens, tokens)
    assert all(weight.grad is not None for weight in fast.parameters())
    assert torch.allclose(logits, simple(tokens, tokens)[0], rtol=1e-4, atol=1e-4)


def test_the_weights_and_their_names_stay() -> None:
    simple, fast = both()
    state = fast.state_dict()
    assert list(state) == list(simple.state_dict())
    assert all(torch.equal(tensor, simple.state_dict()[name]) for name, tensor in state.items())
    assert list(fast.buffers()) == list(simple.buffers())
    assert fast.output.weight is fast.tok_embeddings.weight


def test_every_module_is_exchanged_once_and_shared_layers_stay_shared() -> None:
    model = random_llama(n_layers=4)
    share_layers(model, 2)
    speed_up(model)
    speed_up(model)
    kinds = [type(module) for module in model.modules()]
    assert (kinds.count(FastAttention), kinds.count(FastRMSNorm), kinds.count(FastDropout)) == (2, 5, 7)
    assert not {Attention, RMSNorm, nn.Dropout} & set(kinds)
    assert model.layers[0] is model.layers[2]


def test_generation_goes_on_as_before() -> None:
    simple, fast = both()
    start = torch.randint(simple.vocab_size, (1, 5))
    assert torch.equal(fast.generate(start, 10, temperature=0.0), simple.generate(start, 10, temperature=0.0))


def test_a_model_that_was_first_used_without_gradients_can_be_trained() -> None:
    simple, fast = both()
    with torch.inference_mode():
        fast(torch.zeros(1, 3, dtype=torch.int64))
    assert_same(simple, fast, 24)


def test_a_model_of_half_precision_still_runs() -> None:
    _, fast = both()
    logits, _ = fast.bfloat16()(torch.zeros(1, 3, dtype=torch.int64))
    assert logits.dtype == torch.bfloat16


def test_attention_drops_out_in_training_only() -> None:
    _, fast = both()
    for i in range(fast.n_layers):
        layer_of(fast, i).attention.attn_dropout.p = 0.5
    tokens = torch.randint(fast.vocab_size, (2, 24))
    for bfloat16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            assert torch.equal(fast.eval()(tokens)[0], fast(tokens)[0])
            assert not torch.equal(fast.train()(tokens)[0], fast(tokens)[0])


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("size", [0, 1, 2, 9])
def test_dropout_gives_zero_or_the_number_scaled_up_and_the_gradient_follows(p: float, size: int) -> None:
    dropout = _dropout(p)
    x = torch.ones(size, 3, requires_grad=True)
    y = dropout(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y)
    kept = y[y != 0]
    assert ((kept * (1 - p) - 1).abs() < 1e-3).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_drops_its_share_everywhere_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    count = 1_000_000
    y = _dropout(p)(torch.ones(count, dtype=dtype)).float()
    five_sigma = 5 * math.sqrt(p * (1 - p) / count)
    assert (y == 0).float().mean().item() == pytest.approx(p, abs=five_sigma)
    assert y.mean().item() == pytest.approx(1, abs=five_sigma / (1 - p) + (0.004 if dtype == torch.bfloat16 else 0))
    # each of the four numbers that share a random one drops on its own
    dropped = (y == 0).view(-1, 4).float()
    assert torch.corrcoef(dropped.T).fill_diagonal_(0).abs().max() < 5 / math.sqrt(count / 4)


def test_dropout_repeats_itself_after_the_same_seed_and_not_otherwise() -> None:
    dropout, x = _dropout(0.5), torch.ones(100)
    torch.manual_seed(1)
    first, second = dropout(x), dropout(x)
    torch.manual_seed(1)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_does_nothing_in_evaluation_or_with_probability_zero(p: float) -> None:
    dropout, x = _dropout(p), torch.randn(5)
    assert torch.equal(dropout.train(p == 0.0)(x), x)


@settings(max_examples=40)
@given(rows=st.integers(1, 4), dim=st.integers(1, 8), scale=st.sampled_from([0.0, 1e-4, 1.0, 1e4]))
def test_the_gradient_of_the_norm_is_that_of_its_formula(rows: int, dim: int, scale: float) -> None:
    simple = RMSNorm(dim, eps=1e-5)
    with torch.no_grad():
        simple.weight.copy_(torch.randn(dim))
    fast = copy.deepcopy(simple)
    fast.__class__ = FastRMSNorm
    x, grad = scale * torch.randn(2, rows, dim), torch.randn(2, rows, dim)
    results = []
    for norm in (simple, fast):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(grad)
        assert leaf.grad is not None and norm.weight.grad is not None
        results.append((y.detach(), leaf.grad * max(scale, 1e-2), norm.weight.grad))
    for theirs, ours in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def _dropout(p: float) -> FastDropout:
    """Return a dropout in training mode."""
    dropout = nn.Dropout(p)
    dropout.__class__ = FastDropout
    assert isinstance(dropout, FastDropout)
    return dropout.train()


def test_dropout_that_is_nearly_certain_divides_by_no_zero() -> None:
    _, fast = both(dropout=0.999999)
    assert fast.train()(torch.tensor([[5, 6, 7]]))[0].isfinite().all()

"""The KV-cache engine: it predicts what `Llama` predicts, whatever the batch and however long the text."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from checkpoint import read_checkpoint
from errors import UsageError
from inference.engine import Engine
from inference.generation import complete, generate
from inference.matrix import Int8, _has_wide_sums
from inference.packed import PackedLlama
from inference.sampling import Sampling
from llama import Llama, load_pretrained
from tests.assets_dir import ROOT, require_asset
from tests.tiny import random_llama, random_tokens
from tokenizer import find_tokenizer

KINDS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "every head its own": {"n_kv_heads": 4},
    "one for all": {"n_kv_heads": 1},
    "alibi": {"position_embedding_type": "alibi"},
    "alibi, every head its own": {"position_embedding_type": "alibi", "n_kv_heads": 4},
    "untied": {"tie_word_embeddings": False},
    "another theta": {"rope_theta": 50.0},
    "another eps": {"layer_norm_eps": 0.3},
}
PROMPTS = [[1, 5, 9, 30, 2], [1, 7], [1, 20, 30, 4, 5, 6, 7, 8]]


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def model(request: pytest.FixtureRequest) -> Llama:
    return random_llama(**request.param)


def simple(model: Llama, prompt: list[int], max_new_tokens: int, temperature: float = 0.0) -> list[int]:
    """Return the new tokens as the simple loop generates them."""
    return model.generate(torch.tensor([prompt]), max_new_tokens, temperature)[0].tolist()[len(prompt) :]


# --- the same predictions ---


def test_the_logits_are_those_of_the_model_at_every_step(model: Llama) -> None:
    tokens = random_tokens(3, 24)
    with torch.inference_mode():
        expected, _ = model(tokens, targets=tokens)  # (3, 24, vocab_size)
    engine = Engine(model)
    steps = [engine.prefill(tokens[:, :4].tolist())] + [engine.decode(tokens[:, i]) for i in range(4, 24)]
    torch.testing.assert_close(torch.stack(steps, dim=1), expected[:, 3:], rtol=1e-4, atol=1e-4)


def test_the_same_greedy_tokens_past_the_context(model: Llama) -> None:
    # 24 tokens fit; rows of different lengths reach that at different steps
    expected = [simple(model, prompt, 30) for prompt in PROMPTS]
    assert complete(Engine(model), PROMPTS, 30) == expected
    assert [complete(Engine(model), [prompt], 30)[0] for prompt in PROMPTS] == expected


def test_a_prompt_longer_than_the_context_is_read_from_its_end() -> None:
    model = random_llama()
    prompt = random_tokens(1, 40).tolist()[0]
    assert complete(Engine(model), [prompt], 3) == [simple(model, prompt, 3)]


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(4, 39), min_size=1, max_size=20), min_size=1, max_size=12),
    st.sampled_from(list(KINDS)),
)
def test_the_other_rows_of_a_batch_change_nothing(prompts: list[list[int]], kind: str) -> None:
    model = random_llama(**KINDS[kind])
    together, engine = Engine(model).prefill(prompts), Engine(model)
    alone = torch.cat([engine.prefill([prompt]) for prompt in prompts])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 7, 8, 47, 48])
def test_every_batch_size_takes_the_same_result_from_its_own_product(rows: int) -> None:
    model = random_llama()
    tokens = random_tokens(rows, 6)
    engine = Engine(model)
    engine.prefill(tokens[:, :5].tolist())
    with torch.inference_mode():
        torch.testing.assert_close(engine.decode(tokens[:, 5]), model(tokens)[0][:, 0], rtol=1e-4, atol=1e-4)


def test_the_hidden_states_of_texts_read_at_once(model: Llama) -> None:
    tokens = random_tokens(2, 10)
    positions = torch.arange(10).expand(2, 10)
    causal = torch.ones(1, 1, 10, 10, dtype=torch.bool).tril()
    packed = PackedLlama(model)
    with torch.inference_mode():
        logits, expected = model(tokens, targets=tokens)
    hidden = packed.hidden(tokens, positions, causal)
    torch.testing.assert_close(hidden, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(packed.logits(hidden), logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["grouped", "alibi"])
def test_a_model_in_bfloat16_stays_in_it_and_says_nearly_the_same(kind: str) -> None:
    model = random_llama(**KINDS[kind])
    tokens = random_tokens(2, 8)
    with torch.inference_mode():
        expected = model(tokens)[0][:, 0].softmax(dim=-1)
    logits = Engine(model.bfloat16()).prefill(tokens.tolist())
    assert logits.dtype == torch.bfloat16
    assert (logits.float().softmax(dim=-1) - expected).abs().max() < 0.03


def test_a_model_in_double_precision() -> None:
    model = random_llama().double()
    tokens = random_tokens(2, 8)
    with torch.inference_mode():
        torch.testing.assert_close(Engine(model).prefill(tokens.tolist()), model(tokens)[0][:, 0], rtol=1e-4, atol=1e-4)


def test_a_layer_inside_another_module_is_a_layer() -> None:
    class Wrapped(torch.nn.Module):
        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def __getattr__(self, name: str) -> Any:
            return self._modules["inner"] if name == "inner" else getattr(self._modules["inner"], name)

    model = random_llama()
    expected = Engine(model).prefill(PROMPTS)
    model.layers[1] = Wrapped(model.layers[1])
    assert torch.equal(Engine(model).prefill(PROMPTS), expected)


def test_real_weights_continue_a_text_as_before() -> None:
    path = require_asset("stories260K.bin")
    model = load_pretrained(path)
    prompts = [[1, 403, 407, 261, 378], [1, 385]]
    assert complete(Engine(model), prompts, 40) == [simple(model, prompt, 40) for prompt in prompts]


# --- the cache ---


def test_a_step_allocates_no_cache() -> None:
    engine = Engine(random_llama())
    engine.prefill(PROMPTS, room=4)
    assert engine.capacity == 8 + 4
    before = engine._cache.data_ptr()
    for _ in range(4):
        engine.decode(torch.tensor([5, 6, 7]))
    assert engine._cache.data_ptr() == before and engine.used == 12
    engine.prefill(PROMPTS, room=4)
    assert engine._cache.data_ptr() == before


def test_the_room_ends_with_the_context() -> None:
    engine = Engine(random_llama())
    engine.prefill(PROMPTS, room=1000)
    assert engine.capacity == 24
    engine.prefill(PROMPTS)
    assert engine.capacity == 24


def test_the_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(random_llama())
    read: list[int] = []
    run = engine.model.run

    def counted(tokens: torch.Tensor, *rest: Any, **more: Any) -> torch.Tensor:
        read.append(tokens.shape[1])
        return run(tokens, *rest, **more)

    monkeypatch.setattr(engine.model, "run", counted)
    complete(engine, [[1, 5, 9, 3], [1]], 6)
    assert read == [4, 1, 1, 1, 1, 1]


def test_keys_are_not_copied_for_the_heads_that_share_them() -> None:
    engine = Engine(random_llama(n_heads=4, n_kv_heads=1))
    engine.prefill([[1, 5]], room=3)
    assert engine._cache.shape == (2, 1, 2, 1, 5, 8)  # n_layers, bs, key and value, n_kv_heads, capacity, head_dim


def test_a_full_cache_is_refused() -> None:
    engine = Engine(random_llama())
    engine.prefill([[1, 5]], room=1)
    engine.decode(torch.tensor([5]))
    with pytest.raises(ValueError, match="the cache is full: it has room for 3 tokens"):
        engine.decode(torch.tensor([5]))


@pytest.mark.parametrize("rows", [[], [[1], []], [[1] * 25]])
def test_rows_that_no_model_can_read_are_refused(rows: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="there must be some, each of 1 to 24"):
        Engine(random_llama()).prefill(rows)


def test_there_is_no_negative_room() -> None:
    with pytest.raises(ValueError, match="room for -1 more tokens: it must be 0 or more"):
        Engine(random_llama()).prefill([[1]], room=-1)


def test_nothing_cannot_go_on() -> None:
    engine = Engine(random_llama())
    engine.prefill(PROMPTS)
    with pytest.raises(ValueError, match="no rows to go on with"):
        engine.keep([])


def test_a_model_without_the_mask_is_refused() -> None:
    with pytest.raises(UsageError, match="this model has no causal mask: what is kept of a text would change"):
        Engine(random_llama(causal=False))


# --- generation ---


def test_a_row_ends_with_its_stop_token_and_the_others_go_on() -> None:
    model = random_llama()
    free = [simple(model, prompt, 12) for prompt in PROMPTS]
    stop = free[1][3]
    expected = [tokens[: tokens.index(stop) + 1] if stop in tokens else tokens for tokens in free]
    assert len({len(tokens) for tokens in expected}) > 1
    assert complete(Engine(model), PROMPTS, 12, ended=lambda _, token: token == stop) == expected
    steps = list(generate(Engine(model), PROMPTS, 12, ended=lambda _, token: token == stop))
    assert len(steps) == max(map(len, expected))
    assert steps[len(expected[1])][1] is None


def test_it_ends_when_all_rows_have() -> None:
    model = random_llama()
    first = simple(model, PROMPTS[0], 1)[0]
    assert list(generate(Engine(model), PROMPTS[:1], 12, ended=lambda *_: True)) == [[first]]


def test_no_step_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(random_llama())
    monkeypatch.setattr(engine, "decode", lambda ids: pytest.fail("the last token needs not be read"))
    assert len(complete(engine, PROMPTS, 1)[0]) == 1
    assert complete(engine, PROMPTS, 0) == [[], [], []]


def test_the_same_seed_draws_as_the_simple_loop_does() -> None:
    model = random_llama()
    torch.manual_seed(3)
    expected = simple(model, PROMPTS[2], 14, temperature=0.7)
    torch.manual_seed(3)
    assert complete(Engine(model), PROMPTS[2:], 14, Sampling(temperature=0.7)) == [expected]


def test_with_a_generator_each_a_text_does_not_depend_on_the_others() -> None:
    model, sampling = random_llama(), Sampling(temperature=1.5)
    seeds = [11, 12, 13]

    def sampled(chosen: list[int], stop: int) -> list[list[int]]:
        own = [torch.Generator().manual_seed(seeds[i]) for i in chosen]
        prompts = [PROMPTS[i] for i in chosen]
        return complete(Engine(model), prompts, 15, sampling, ended=lambda _, token: token == stop, generator=own)

    stop = sampled([1], -1)[0][4]  # so that a row ends early
    assert sampled([0, 1, 2], stop) == [sampled([i], stop)[0] for i in range(3)]
    assert sampled([2, 0], stop) == [sampled([i], stop)[0] for i in (2, 0)]


def test_one_generator_serves_all_rows() -> None:
    def sampled(seed: int) -> list[list[int]]:
        generator = torch.Generator().manual_seed(seed)
        return complete(Engine(random_llama()), PROMPTS, 10, Sampling(), generator=generator)

    assert sampled(1) == sampled(1) != sampled(2)


# --- int8 ---


def test_int8_says_nearly_the_same_of_real_text() -> None:
    folder = ROOT / "checkpoints/storybook"
    model = load_pretrained(folder)
    tokenizer = find_tokenizer(folder, model.vocab_size)
    text = "Once upon a time, there was a little girl named Lily. She had a red ball and a big dog. One day"
    ids = torch.tensor([tokenizer.encode(text, bos=True, eos=False)])  # (1, seqlen)
    causal = torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
    positions = torch.arange(ids.shape[1])[None]
    losses = {}
    for quantize in (None, "int8"):
        packed = PackedLlama(model, quantize)  # type: ignore[arg-type]
        logits = packed.logits(packed.hidden(ids, positions, causal))[0, :-1]
        losses[quantize] = torch.nn.functional.cross_entropy(logits, ids[0, 1:]).item()
    assert 0 < abs(losses["int8"] - losses[None]) < 0.1  # nats a token; benchmarks/ measures it on more text


@pytest.mark.parametrize(("capability", "levels"), [("avx512_vnni", 255), ("avx_vnni", 255), ("sse4_2", 127)])
def test_int8_rounds_to_as_many_bits_as_the_sums_have_room_for(
    capability: str, levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {capability: True}, raising=False)
    _has_wide_sums.cache_clear()
    try:
        x = torch.linspace(0, 1, 1000)[:, None]  # (1000, 1): as many products as there are levels
        assert len(Int8(torch.ones(1, 1))(x).unique()) == levels + 1
    finally:
        _has_wide_sums.cache_clear()


def test_int8_needs_a_kernel_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.matrix.KERNELS", ("abacus",))
    with pytest.raises(UsageError, match="no kernels for int8: leave --quantize out"):
        Engine(random_llama(), "int8")


def test_int8_is_for_the_cpu() -> None:
    with pytest.raises(UsageError, match="int8 is for the CPU, but the model is on meta"):
        Engine(random_llama().to("meta"), "int8")


def test_int8_leaves_the_choice_of_kernels_as_it_was() -> None:
    before = torch.backends.quantized.engine
    Engine(random_llama(), "int8")
    assert torch.backends.quantized.engine == before


def test_a_row_of_zeros_has_no_scale_and_stays_zero() -> None:
    weight = torch.tensor([[0.0, 0.0], [1.0, 2.0]])
    torch.testing.assert_close(Int8(weight)(torch.tensor([[1.0, 1.0]])), torch.tensor([[0.0, 3.0]]), rtol=0.02, atol=0)


def test_every_row_of_a_matrix_has_a_scale_of_its_own() -> None:
    x, weight = torch.randn(3, 64), torch.randn(5, 64) * torch.tensor([1e-3, 1e-1, 1.0, 1e2, 1e4])[:, None]
    error = (Int8(weight)(x) - x @ weight.t()) / weight.norm(dim=1)
    assert error.abs().max() < 0.05


def test_int8_takes_any_precision() -> None:
    model = random_llama().bfloat16()
    assert Engine(model, "int8").prefill(PROMPTS).dtype == torch.bfloat16


def test_the_model_itself_is_not_changed() -> None:
    path = ROOT / "checkpoints/storybook"
    model = load_pretrained(path)
    for quantize in (None, "int8"):
        complete(Engine(model, quantize), [[1, 5, 9]], 5)  # type: ignore[arg-type]
    _, tensors = read_checkpoint(path)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())

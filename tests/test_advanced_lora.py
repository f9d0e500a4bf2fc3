"""LoRA and IA3: what defines them, peft's as the second opinion, and what is saved of them."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from advanced.continued import Continued
from advanced.freezing import TopLayers
from advanced.lora import ATTENTION, FEED_FORWARD, Ia3, Lora, LoraLinear, ScaledLinear, merge_adapters, parse_targets
from advanced.method import Method
from advanced.saving import load_small, save_small
from advanced.training import Training
from checkpoint import write_checkpoint
from errors import CheckpointError, UsageError
from hf_format import LAYER_NAMES, config_to, tensors_to
from inference.finetuning import speed_up_classifier
from llama import Llama, load_pretrained
from safetensors_file import read_safetensors, write_safetensors
from tests.tiny import random_tokens
from tests.tiny_advanced import tiny_training

BOTH = pytest.mark.parametrize("method", [Lora(rank=4), Ia3()], ids=["lora", "ia3"])
HEAD = {"classifier_head.weight", "classifier_head.bias"}


def stir(training: Training, seed: int = 1) -> None:
    """Give what is trained other values, as a training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in training.classifier.trained.values():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))


def logits(llama: Llama, seqlen: int = 12) -> torch.Tensor:
    """Return the hidden states of some tokens, as the output matrix of a classifier's Llama computes nothing."""
    hidden: torch.Tensor = llama.eval()(random_tokens(3, seqlen))[1]
    return hidden


def linear_pair(rank: int = 2, seed: int = 0) -> tuple[nn.Linear, LoraLinear]:
    """Return a projection, and a LoRA of the same numbers whose B is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        plain, other = nn.Linear(6, 5, bias=False), nn.Linear(6, 5, bias=False)
        other.load_state_dict(plain.state_dict())
        adapted = LoraLinear(other, rank, alpha=3.0, dropout=0.0)
        nn.init.normal_(adapted.lora_b)
    return plain, adapted


# ------------------------------------------------------------------------------------------------- what defines them


@BOTH
def test_training_starts_at_the_pretrained_model(tmp_path: Path, method: Method) -> None:
    plain, adapted = tiny_training(tmp_path), tiny_training(tmp_path, method)
    assert torch.equal(adapted.scores("dev"), plain.scores("dev"))


@settings(max_examples=20)
@given(rank=st.integers(1, 8), seed=st.integers(0, 99))
def test_a_lora_is_the_formula_of_the_paper(rank: int, seed: int) -> None:
    plain, adapted = linear_pair(rank, seed)
    x = torch.randn(4, 3, 6)
    weight = plain.weight + 3.0 / rank * adapted.lora_b @ adapted.lora_a
    torch.testing.assert_close(adapted(x), x @ weight.T, atol=1e-5, rtol=1e-5)


@settings(max_examples=20)
@given(rank=st.integers(1, 8), seed=st.integers(0, 99))
def test_merging_changes_no_output_and_unmerging_gives_the_weight_back(rank: int, seed: int) -> None:
    plain, adapted = linear_pair(rank, seed)
    x = torch.randn(4, 3, 6)
    before = adapted(x)
    adapted.merge()
    torch.testing.assert_close(F.linear(x, adapted.weight), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(adapted(x), before, atol=1e-5, rtol=1e-5)
    adapted.unmerge()
    torch.testing.assert_close(adapted.weight, plain.weight, atol=1e-6, rtol=1e-6, check_stride=True)
    torch.testing.assert_close(adapted(x), before, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scales_input", [True, False])
def test_a_scale_multiplies_the_input_or_the_output_and_can_be_merged(scales_input: bool) -> None:
    plain, other = linear_pair()[0], linear_pair()[0]
    adapted = ScaledLinear(other, scales_input)
    nn.init.normal_(adapted.scale)
    x = torch.randn(4, 6)
    expected = plain(x * adapted.scale) if scales_input else plain(x) * adapted.scale
    torch.testing.assert_close(adapted(x), expected)
    adapted.merge()
    torch.testing.assert_close(adapted(x), expected)
    torch.testing.assert_close(F.linear(x, adapted.weight), expected)


def test_only_what_the_narrow_matrices_read_is_dropped() -> None:
    plain, _ = linear_pair()
    adapted = LoraLinear(linear_pair()[0], rank=2, alpha=1.0, dropout=0.5).train()
    x = torch.randn(4, 6)
    assert torch.equal(adapted(x), plain(x))  # B is zero
    nn.init.normal_(adapted.lora_b)
    assert not torch.equal(adapted(x), adapted(x))
    adapted.eval()
    assert torch.equal(adapted(x), adapted(x))


@BOTH
def test_a_merged_model_is_an_ordinary_one_and_saves_as_one(tmp_path: Path, method: Method) -> None:
    training = tiny_training(tmp_path, method)
    stir(training)
    llama = training.classifier.llama
    before, scores = logits(llama), training.scores("dev")
    merge_adapters(llama)
    assert {type(module) for module in llama.modules() if isinstance(module, nn.Linear)} == {
        nn.Linear,
        type(llama.output),
    }
    torch.testing.assert_close(training.scores("dev"), scores, atol=1e-5, rtol=1e-5)
    write_checkpoint(tmp_path / "merged.pt", llama.config, llama.state_dict())
    torch.testing.assert_close(logits(load_pretrained(tmp_path / "merged.pt")), before, atol=1e-4, rtol=1e-4)


def test_what_one_has_merged_by_hand_is_not_merged_again(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Lora(rank=2))
    stir(training)
    before = training.scores("dev")
    for module in training.classifier.modules():
        if isinstance(module, LoraLinear):
            module.merge()
    merge_adapters(training.classifier.llama)
    torch.testing.assert_close(training.scores("dev"), before, atol=1e-5, rtol=1e-5)


def test_merging_twice_or_unmerging_what_is_not_merged_is_an_error() -> None:
    _, adapted = linear_pair()
    with pytest.raises(RuntimeError, match="the projection is not merged"):
        adapted.unmerge()
    adapted.merge()
    with pytest.raises(RuntimeError, match="the projection is merged already"):
        adapted.merge()


@pytest.mark.parametrize(
    "method", [Lora(rank=4, dropout=0.0), Ia3(), Lora(rank=2, targets="compute_value+w1")], ids=repr
)
def test_faster_modules_give_the_same_outputs_and_gradients(
    tmp_path: Path, method: Method, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = tiny_training(tmp_path, method)
    monkeypatch.setattr("advanced.training.speed_up_classifier", lambda classifier: None)
    simple = tiny_training(tmp_path, method)
    assert any(type(module).__name__ == "FastAttention" for module in fast.classifier.modules())
    assert not any(type(module).__name__ == "FastAttention" for module in simple.classifier.modules())
    with torch.no_grad():
        for name, parameter in simple.classifier.trained.items():
            parameter.copy_(fast.classifier.trained[name])
    results = []
    for training in (fast, simple):
        stir(training)
        output = training.classifier.eval()(random_tokens(3, 20))
        output[:, 0].sum().backward()
        results.append((output.detach(), {name: p.grad for name, p in training.classifier.trained.items()}))
    torch.testing.assert_close(*results, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- what is trained


@BOTH
def test_nothing_pretrained_gets_a_gradient_or_changes(tmp_path: Path, method: Method) -> None:
    training = tiny_training(tmp_path, method, lr=1e-2)
    before = {name: parameter.detach().clone() for name, parameter in training.classifier.named_parameters()}
    training.run()
    trained = training.classifier.trained
    assert trained.keys() >= HEAD
    assert all(name in HEAD or name.rsplit(".", 1)[1] in ("lora_a", "lora_b", "scale") for name in trained)
    for name, parameter in training.classifier.named_parameters():
        assert (parameter.grad is None) == (name not in trained), name
        if name not in trained:
            assert torch.equal(parameter, before[name]), name
    assert any(not torch.equal(parameter, before[name]) for name, parameter in trained.items() if name not in HEAD)


@BOTH
def test_a_task_can_be_learnt(tmp_path: Path, method: Method) -> None:
    training = tiny_training(tmp_path, method, epochs=6, lr=1e-2)
    training.run()
    assert training.history[-1].train_loss < 0.5 * training.history[0].train_loss


@pytest.mark.parametrize(
    ("targets", "names"),
    [
        ("all", ATTENTION + FEED_FORWARD),
        ("attention", ATTENTION),
        ("feed_forward", FEED_FORWARD),
        ("w2", ("w2",)),
        ("w1+compute_value", ("compute_value", "w1")),
        ("attention+w2+compute_key", (*ATTENTION, "w2")),
    ],
)
def test_the_named_projections_are_adapted(tmp_path: Path, targets: str, names: tuple[str, ...]) -> None:
    assert parse_targets(targets) == names
    training = tiny_training(tmp_path, Lora(rank=3, targets=targets))
    layers = training.classifier.llama.layers
    found = [name.rsplit(".", 1)[1] for name, m in layers.named_modules() if isinstance(m, LoraLinear)]
    assert found == list(names) * 2
    count = sum(p.numel() for n, p in training.classifier.trained.items() if n not in HEAD)
    assert count == 3 * sum(m.in_features + m.out_features for m in layers.modules() if isinstance(m, LoraLinear))


def test_scales_are_those_of_keys_values_and_the_hidden_layer(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Ia3())
    sizes = {name: tuple(p.shape) for name, p in training.classifier.trained.items() if name not in HEAD}
    width = training.classifier.llama.get_parameter("layers.0.feed_forward.w2.weight").shape[1]
    expected = {"attention.compute_key": 16, "attention.compute_value": 16, "feed_forward.w2": width}
    assert sizes == {f"llama.layers.{i}.{name}.scale": (size,) for i in range(2) for name, size in expected.items()}


@BOTH
def test_layers_that_are_frozen_already_are_left_alone(tmp_path: Path, method: Method) -> None:
    training = tiny_training(tmp_path, TopLayers(layers=1), method)
    assert all(name in HEAD or name.startswith("llama.layers.1.") for name in training.classifier.trained)


# ------------------------------------------------------------------------------------------------- against peft


def their_adapted(llama: Llama, config: Any) -> Any:
    """Return transformers' model with our weights, adapted by peft as its configuration says."""
    from peft import get_peft_model
    from transformers import LlamaConfig as TheirConfig
    from transformers import LlamaModel

    theirs = LlamaModel(TheirConfig(**config_to(llama.config))).eval()
    plain = {name.replace("model.", "", 1): t for name, t in tensors_to(pretrained(llama), llama.config).items()}
    theirs.load_state_dict({name: tensor for name, tensor in plain.items() if name != "lm_head.weight"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by a name that will be another
        return get_peft_model(theirs, config).eval()


def pretrained(llama: Llama) -> dict[str, torch.Tensor]:
    """Return the weights of a Llama without what stands beside them."""
    beside = ("lora_a", "lora_b", "scale")
    return {name: tensor for name, tensor in llama.state_dict().items() if not name.endswith(beside)}


def turned(name: str, tensor: torch.Tensor, llama: Llama) -> torch.Tensor:
    """Reorder the rows of what queries and keys are, as transformers has them."""
    matrix = tensor if tensor.dim() == 2 else tensor.unsqueeze(1)
    (result,) = tensors_to({f"layers.0.{name}.weight": matrix}, llama.config).values()
    return result.view_as(tensor)


def test_a_lora_answers_as_that_of_peft(tmp_path: Path) -> None:
    import peft

    training = tiny_training(tmp_path, Lora(rank=4, alpha=6))
    stir(training)
    llama = training.classifier.llama
    modules = [name.rsplit(".", 1)[1] for name in LAYER_NAMES.values() if "." in name]
    config = peft.LoraConfig(r=4, lora_alpha=6, lora_dropout=0.0, target_modules=modules)
    theirs = their_adapted(llama, config)
    places = dict(theirs.base_model.model.named_modules())
    with torch.no_grad():
        for i in range(2):
            for ours, name in LAYER_NAMES.items():
                if "norm" in ours:
                    continue
                adapter = llama.get_submodule(f"layers.{i}.{ours}")
                assert isinstance(adapter, LoraLinear)
                place = places[f"layers.{i}.{name}"]
                assert place.lora_A["default"].weight.shape == adapter.lora_a.shape
                place.lora_A["default"].weight.copy_(adapter.lora_a)
                place.lora_B["default"].weight.copy_(turned(ours, adapter.lora_b, llama))
    tokens = random_tokens(3, 12)
    torch.testing.assert_close(logits(llama), theirs(tokens).last_hidden_state, atol=1e-4, rtol=1e-4)
    merge_adapters(llama)
    merged = theirs.merge_and_unload().state_dict()
    for name, tensor in tensors_to(llama.state_dict(), llama.config).items():
        torch.testing.assert_close(merged[name.removeprefix("model.")], tensor, atol=1e-5, rtol=1e-5)


def test_an_ia3_answers_as_that_of_peft(tmp_path: Path) -> None:
    import peft

    training = tiny_training(tmp_path, Ia3())
    stir(training)
    llama = training.classifier.llama
    config = peft.IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    theirs = their_adapted(llama, config)
    places = dict(theirs.base_model.model.named_modules())
    with torch.no_grad():
        for name, tensor in llama.state_dict().items():
            if name.endswith(".scale"):
                layer, ours = re.fullmatch(r"(layers\.\d+)\.(.+)\.scale", name).groups()  # type: ignore[union-attr]
                scale = places[f"{layer}.{LAYER_NAMES[ours]}"].ia3_l["default"]
                scale.copy_(turned(ours, tensor, llama).view_as(scale))
    tokens = random_tokens(3, 12)
    torch.testing.assert_close(logits(llama), theirs(tokens).last_hidden_state, atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- what is saved


@BOTH
def test_a_small_file_holds_all_that_was_learnt(tmp_path: Path, method: Method) -> None:
    training, fresh = tiny_training(tmp_path, method, lr=1e-2), tiny_training(tmp_path, method)
    training.run()
    save_small(training.classifier, tmp_path / "small.safetensors")
    assert not torch.equal(fresh.scores("dev"), training.scores("dev"))
    load_small(fresh.classifier, tmp_path / "small.safetensors")
    assert torch.equal(fresh.scores("dev"), training.scores("dev"))
    numbers = sum(parameter.numel() for parameter in training.classifier.trained.values())
    size = (tmp_path / "small.safetensors").stat().st_size
    assert 4 * numbers < size < 4 * numbers + 200 * len(training.classifier.trained)
    assert size < 0.5 * (tmp_path / "tiny.pt").stat().st_size


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classifier_head.bias": None}, "classifier_head.bias is trained and not in the file (1 such names)"),
        ({"other": torch.zeros(1)}, "other is in the file and not trained (1 such names)"),
        (
            {"classifier_head.bias": torch.zeros(3)},
            "classifier_head.bias is (3,) of torch.float32, and the classifier's",
        ),
        ({"classifier_head.bias": torch.zeros(2).half()}, "classifier_head.bias is (2,) of torch.float16"),
    ],
    ids=["missing", "unknown", "shape", "dtype"],
)
def test_a_file_of_another_classifier_is_refused_and_changes_nothing(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    training, path = tiny_training(tmp_path, Ia3()), tmp_path / "other.safetensors"
    tensors = {name: parameter.detach() + 1 for name, parameter in training.classifier.trained.items()} | change
    write_safetensors(path, {name: tensor for name, tensor in tensors.items() if tensor is not None})
    before = training.scores("dev")
    with pytest.raises(CheckpointError, match=re.escape(f"{path}: {message}")) as error:
        load_small(training.classifier, path)
    assert "Load it into a classifier of the same Llama, methods and options." in str(error.value)
    assert torch.equal(training.scores("dev"), before)


def test_a_file_of_the_same_shapes_and_other_options_is_refused(tmp_path: Path) -> None:
    """Another alpha changes no shape, and every answer."""
    path = tmp_path / "small.safetensors"
    save_small(tiny_training(tmp_path, Lora(alpha=64.0)).classifier, path)
    with pytest.raises(
        CheckpointError, match=r"trained by Lora\(rank=8, alpha=64.0, .*made for Lora\(rank=8, alpha=1.0"
    ):
        load_small(tiny_training(tmp_path, Lora(alpha=1.0)).classifier, path)


def test_after_continued_pretraining_all_weights_are_saved(tmp_path: Path) -> None:
    training = tiny_training(tmp_path, Continued(lr=1e-2), Lora(rank=2), lr=1e-2)
    training.run()
    save_small(training.classifier, tmp_path / "all.safetensors")
    fresh = tiny_training(tmp_path, Continued(lr=1e-3), Lora(rank=2))
    fresh.classifier.about = training.classifier.about
    load_small(fresh.classifier, tmp_path / "all.safetensors")
    assert torch.equal(fresh.scores("dev"), training.scores("dev"))


def test_what_is_saved_of_plain_finetuning_is_everything(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    save_small(training.classifier, tmp_path / "all.safetensors")
    assert read_safetensors(tmp_path / "all.safetensors").keys() == dict(training.classifier.named_parameters()).keys()


# ------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": "query"}, "there is no target 'query': name attention, feed_forward, all, compute_query, "),
        ({"targets": "w1+"}, "there is no target ''"),
        ({"targets": ""}, "there is no target ''"),
        ({"rank": 0}, "rank must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, r"dropout must be in [0, 1), got -0.1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"lora: {message}")):
        Lora(**options)


def test_lora_and_ia3_cannot_be_combined(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lora and ia3 each freeze all but their own weights: name one of them"):
        tiny_training(tmp_path, Lora(), Ia3())


def test_faster_modules_may_come_before_as_well(tmp_path: Path) -> None:
    training = tiny_training(tmp_path)
    before = training.scores("dev")
    Lora(rank=2).adapt(training)
    speed_up_classifier(training.classifier)
    torch.testing.assert_close(training.scores("dev"), before, atol=1e-5, rtol=1e-5)

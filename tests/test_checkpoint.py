"""checkpoint.py, and llama.load_pretrained: run with `pytest tests/test_checkpoint.py`."""

import errno
import json
import pickle
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import checkpoint
from checkpoint import (
    check_finite,
    load_torch_file,
    read_checkpoint,
    tensor_shapes,
    write_checkpoint,
    write_directory,
)
from config import LlamaConfig
from errors import CheckpointError
from llama import Llama, load_pretrained
from optimizer import AdamW
from safetensors_file import read_safetensors, write_safetensors
from tests.assets_dir import require_asset
from tests.tiny import layer_of, padded, random_llama, random_tokens, save_llama, tiny_config, write_bin
from tokenizer import find_tokenizer
from utils import sha256_of

LLAMA2C_NAMES = {"compute_query": "wq", "compute_key": "wk", "compute_value": "wv", "compute_output": "wo"}
Content = dict[str, Any]
# What an error proposes: every one has to propose something.
REMEDY = re.compile(r"\b(fetch|name another|export|delete|use|check|save it|train)\b", re.IGNORECASE)


def sizes_of(config: LlamaConfig) -> dict[str, Any]:
    """Return `model_args` as llama2.c's training script writes them."""
    names = ("dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "multiple_of", "max_seq_len")
    return {name: getattr(config, name) for name in names} | {"dropout": 0.0}


def training_checkpoint(model: Llama, prefix: str = "", llama2c_names: bool = False) -> Content:
    """Return what llama2.c's training script saves."""
    weights = {}
    for name, tensor in model.state_dict().items():
        if llama2c_names:
            for ours, theirs in LLAMA2C_NAMES.items():
                name = name.replace(ours, theirs)
        weights[prefix + name] = tensor
    return {
        "model": weights,
        "model_args": sizes_of(model.config),
        "iter_num": 7,
        "best_val_loss": torch.tensor(1.5),
        "config": {"batch_size": 32, "compile": False},
    }


def save(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def assert_same_model(loaded: Llama, model: Llama) -> None:
    """Fail unless the two have the same tensors and answer the same."""
    expected = model.state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    tokens = random_tokens(2, 9)
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])


# -------------------------------------------------------------------------------------------------- what can be read


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
@pytest.mark.parametrize("llama2c_names", [True, False], ids=["wq", "compute_query"])
def test_a_training_checkpoint_is_read_under_either_set_of_names(
    tmp_path: Path, prefix: str, llama2c_names: bool
) -> None:
    model = random_llama()
    path = save(tmp_path / "model.pt", training_checkpoint(model, prefix, llama2c_names))
    assert_same_model(load_pretrained(path), model)


def test_embeddings_saved_twice_or_once_are_tied_again(tmp_path: Path) -> None:
    model = random_llama()
    shared = training_checkpoint(model)
    twice = training_checkpoint(model)
    twice["model"]["output.weight"] = twice["model"]["output.weight"].clone()  # a storage of its own, as at CMU
    once = training_checkpoint(model)
    del once["model"]["output.weight"]
    for content in (shared, twice, once):
        loaded = load_pretrained(save(tmp_path / "model.pt", content))
        assert loaded.output.weight is loaded.tok_embeddings.weight
        assert loaded.config.tie_word_embeddings
        assert_same_model(loaded, model)


def test_an_output_matrix_of_its_own_stays_its_own(tmp_path: Path) -> None:
    model = random_llama(tie_word_embeddings=False)
    loaded = load_pretrained(save(tmp_path / "model.pt", training_checkpoint(model)))
    assert loaded.output.weight is not loaded.tok_embeddings.weight
    assert not loaded.config.tie_word_embeddings
    assert_same_model(loaded, model)


def test_tables_of_rope_are_dropped(tmp_path: Path) -> None:
    model = random_llama()
    content = training_checkpoint(model, prefix="_orig_mod.")
    content["model"] |= {"_orig_mod.freqs_cos": torch.ones(24, 4), "freqs_sin": torch.ones(24, 4)}
    content["model"]["freqs_cis"] = torch.ones(24, 4, dtype=torch.complex64)
    assert_same_model(load_pretrained(save(tmp_path / "model.pt", content)), model)


def test_llama2cs_name_of_the_norms_epsilon_is_understood(tmp_path: Path) -> None:
    content = training_checkpoint(random_llama())
    content["model_args"] |= {"norm_eps": 0.25, "hidden_dim": None}
    loaded = load_pretrained(save(tmp_path / "model.pt", content))
    assert loaded.config.layer_norm_eps == layer_of(loaded, 0).ffn_norm.eps == loaded.norm.eps == 0.25


def test_no_number_of_key_value_heads_in_the_file_means_as_many_as_query_heads(tmp_path: Path) -> None:
    model = random_llama(n_kv_heads=4)
    without, none = training_checkpoint(model), training_checkpoint(model)
    del without["model_args"]["n_kv_heads"]
    none["model_args"]["n_kv_heads"] = None
    for content in (without, none):
        assert_same_model(load_pretrained(save(tmp_path / "model.pt", content)), model)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_come_as_float32(tmp_path: Path, dtype: torch.dtype) -> None:
    content = training_checkpoint(random_llama().to(dtype))
    loaded = load_pretrained(save(tmp_path / "model.pt", content))
    assert {tensor.dtype for tensor in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded.norm.weight, content["model"]["norm.weight"].float())


def test_files_of_an_old_pytorch_are_read(tmp_path: Path) -> None:
    model = random_llama()
    torch.save(training_checkpoint(model), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert_same_model(load_pretrained(tmp_path / "old.pt"), model)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("changes", [{}, {"hidden_dim": 50, "n_kv_heads": 1}, {"n_layers": 1, "multiple_of": 32}])
def test_an_export_for_the_c_program_is_read(tmp_path: Path, changes: dict[str, Any], tied: bool) -> None:
    model = random_llama(tie_word_embeddings=tied, **changes)
    loaded = load_pretrained(write_bin(tmp_path / "model.bin", model))
    assert (loaded.output.weight is loaded.tok_embeddings.weight) == tied
    assert loaded.config.tie_word_embeddings == tied
    assert loaded.config.vocab_size == 40
    assert_same_model(loaded, model)


def test_a_checkpoint_is_known_by_its_content_even_if_it_is_called_bin(tmp_path: Path) -> None:
    model = random_llama()
    assert_same_model(load_pretrained(save_llama(tmp_path / "model.bin", model)), model)


def test_a_path_may_be_a_string_with_spaces_and_accents(tmp_path: Path) -> None:
    model, folder = random_llama(), tmp_path / "modèles d'été 模型"
    folder.mkdir()
    assert_same_model(load_pretrained(str(write_bin(folder / "a model.bin", model))), model)
    assert_same_model(load_pretrained(str(save_llama(folder / "a model.pt", model))), model)


def test_the_real_export_has_the_published_sizes_and_its_copy_as_pt_is_the_same(tmp_path: Path) -> None:
    path = require_asset("stories260K.bin")
    config, tensors = read_checkpoint(path)
    sizes = (config.dim, config.n_layers, config.n_heads, config.n_kv_heads, config.vocab_size, config.max_seq_len)
    assert sizes == (64, 5, 8, 4, 512, 512)
    assert config.tie_word_embeddings
    assert tensors["layers.4.feed_forward.w2.weight"].shape == (64, 172)
    check_finite(path, tensors)
    write_checkpoint(tmp_path / "stories260K.pt", config, tensors)
    copied_config, copied = read_checkpoint(tmp_path / "stories260K.pt")
    assert copied_config == config
    assert copied.keys() == tensors.keys()
    assert all(torch.equal(copied[name], tensors[name]) for name in tensors)


# ----------------------------------------------------------------------------------------------------- how it is loaded


@pytest.mark.parametrize("write", [save_llama, write_bin])
def test_a_loaded_model_is_on_the_cpu_in_float32_and_in_evaluation_mode(
    tmp_path: Path, write: Callable[[Path, Llama], Path]
) -> None:
    suffix = ".bin" if write is write_bin else ".pt"
    loaded = load_pretrained(write(tmp_path / f"model{suffix}", random_llama().train()))
    assert not any(module.training for module in loaded.modules())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in loaded.parameters())
    assert {(tensor.device.type, tensor.dtype) for tensor in loaded.state_dict().values()} == {("cpu", torch.float32)}


@pytest.mark.parametrize("write", [save_llama, write_bin])
def test_loading_draws_no_random_numbers(tmp_path: Path, write: Callable[[Path, Llama], Path]) -> None:
    path = write(tmp_path / ("model.bin" if write is write_bin else "model.pt"), random_llama())
    before = torch.get_rng_state()
    load_pretrained(path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("write", [save_llama, write_bin])
def test_training_a_loaded_model_leaves_its_file_alone(tmp_path: Path, write: Callable[[Path, Llama], Path]) -> None:
    path = write(tmp_path / ("model.bin" if write is write_bin else "model.pt"), random_llama())
    checksum = sha256_of(path)
    model, tokens = load_pretrained(path), random_tokens(2, 9)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = AdamW(model.parameters(), lr=0.1)
    F.cross_entropy(model(tokens, targets=tokens)[0].flatten(0, 1), tokens.flatten()).backward()
    optimizer.step()
    assert not any(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sha256_of(path) == checksum
    assert torch.equal(load_pretrained(path).state_dict()["norm.weight"], before["norm.weight"])


def test_two_models_of_one_file_do_not_share_weights(tmp_path: Path) -> None:
    path = write_bin(tmp_path / "model.bin", random_llama())
    first, second = load_pretrained(path), load_pretrained(path)
    with torch.no_grad():
        first.tok_embeddings.weight.zero_()
    assert second.tok_embeddings.weight.abs().sum() > 0


# ------------------------------------------------------------------------------------------------------ what is saved


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": None, "hidden_dim": 50, "tie_word_embeddings": False},
        {"dropout": 0.2, "layer_norm_eps": 1e-3, "rope_theta": 500.0, "causal": False, "pad_id": 0, "use_cache": False},
    ],
)
def test_what_is_written_is_read_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = random_llama(**changes)
    config, tensors = read_checkpoint(save_llama(tmp_path / "model.pt", model))
    assert config == model.config
    assert tensors.keys() == tensor_shapes(config).keys()
    assert_same_model(load_pretrained(tmp_path / "model.pt"), model)


def test_plain_torch_reads_what_is_written_with_what_was_saved_beside_it(tmp_path: Path) -> None:
    model = random_llama()
    extra = {"epoch": 3, "accuracies": [0.25, 0.5], "head": torch.ones(2), "names": {"a": "b"}}
    write_checkpoint(tmp_path / "model.pt", model.config, model.state_dict(), extra=extra)
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    assert content.keys() == {"model", "model_args", "extra"}
    assert content["extra"]["names"] == {"a": "b"}
    assert torch.equal(content["extra"]["head"], torch.ones(2))
    assert content["model"].keys() == model.state_dict().keys()
    read_checkpoint(tmp_path / "model.pt")


def test_what_is_written_has_no_sizes_that_llama2c_does_not_know(tmp_path: Path) -> None:
    content = torch.load(save_llama(tmp_path / "model.pt", random_llama()), weights_only=True)
    expected = {name: value for name, value in sizes_of(tiny_config()).items() if name != "dropout"}
    assert content["model_args"] == expected


def test_tied_embeddings_are_stored_once(tmp_path: Path) -> None:
    tied = save_llama(tmp_path / "tied.pt", random_llama(vocab_size=4000))
    untied = save_llama(tmp_path / "untied.pt", random_llama(vocab_size=4000, tie_word_embeddings=False))
    assert untied.stat().st_size - tied.stat().st_size > 0.9 * 4000 * 32 * 4


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = random_llama(seed=1)
    path = save_llama(tmp_path / "model.pt", old)
    checksum = sha256_of(path)

    def full_disk(content: Any, target: Path) -> None:
        target.write_bytes(b"half of a file")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="No space left"):
        save_llama(path, random_llama(seed=2))
    assert sha256_of(path) == checksum
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------- what is refused


def missing_tensor(content: Content) -> None:
    del content["model"]["layers.1.attention.compute_key.weight"]


def unexpected_tensor(content: Content) -> None:
    content["model"]["layers.0.attention.compute_query.lora_a"] = torch.ones(2)


def a_layer_too_many(content: Content) -> None:
    content["model"]["layers.2.ffn_norm.weight"] = torch.ones(32)


def wrong_shape(content: Content) -> None:
    content["model"]["layers.0.feed_forward.w2.weight"] = torch.ones(32, 80)


def transposed(content: Content) -> None:
    content["model"]["layers.0.feed_forward.w2.weight"] = content["model"]["layers.0.feed_forward.w2.weight"].T


def unknown_size(content: Content) -> None:
    content["model_args"] |= {"n_experts": 8, "act": "gelu"}


def size_left_out(content: Content) -> None:
    del content["model_args"]["dim"], content["model_args"]["max_seq_len"]


def sizes_that_do_not_fit(content: Content) -> None:
    content["model_args"]["n_heads"] = 5


def size_of_the_wrong_type(content: Content) -> None:
    content["model_args"]["dim"] = "32"


def width_that_is_no_whole_number(content: Content) -> None:
    content["model_args"]["hidden_dim"] = 88.0


def epsilon_that_is_no_number(content: Content) -> None:
    content["model_args"]["norm_eps"] = "small"


def theta_that_is_no_number(content: Content) -> None:
    content["model_args"]["rope_theta"] = "large"


def not_a_tensor(content: Content) -> None:
    content["model"]["norm.weight"] = [1.0] * 32


def sparse_embedding(content: Content) -> None:
    content["model"]["tok_embeddings.weight"] = torch.ones(40, 32).to_sparse()


def complex_numbers(content: Content) -> None:
    content["model"]["norm.weight"] = torch.ones(32, dtype=torch.complex64)


def named_twice(content: Content) -> None:
    content["model"]["_orig_mod.norm.weight"] = torch.ones(32)


def under_both_names(content: Content) -> None:
    content["model"]["layers.0.attention.wq.weight"] = torch.ones(32, 32)


def no_sizes(content: Content) -> None:
    del content["model_args"]


def weights_alone(content: Content) -> None:
    weights = content.pop("model")
    content.clear()
    content |= weights


def nothing(content: Content) -> None:
    content.clear()


BROKEN: list[tuple[Callable[[Content], None], str]] = [
    (missing_tensor, r"1 tensors are missing, the first is layers\.1\.attention\.compute_key\.weight"),
    (unexpected_tensor, r"1 tensors belong to no Llama, .*compute_query\.lora_a"),
    (a_layer_too_many, r"1 tensors belong to no Llama, .*layers\.2\.ffn_norm\.weight"),
    (wrong_shape, r"layers\.0\.feed_forward\.w2\.weight has shape \(32, 80\), model_args ask for \(32, 88\)"),
    (transposed, r"layers\.0\.feed_forward\.w2\.weight has shape \(88, 32\), model_args ask for \(32, 88\)"),
    (unknown_size, "model_args has keys that no Llama here knows: act, n_experts"),
    (size_left_out, "model_args lacks dim, max_seq_len"),
    (sizes_that_do_not_fit, r"dim \(32\) must be an even multiple of n_heads \(5\)"),
    (size_of_the_wrong_type, "dim must be a whole number of at least 1, got '32'"),
    (width_that_is_no_whole_number, "hidden_dim must be"),
    (epsilon_that_is_no_number, "layer_norm_eps must be"),
    (theta_that_is_no_number, "rope_theta must be"),
    (not_a_tensor, r"'model' holds a list under 'norm\.weight', not a tensor"),
    (sparse_embedding, r"tok_embeddings\.weight"),
    (complex_numbers, r"norm\.weight"),
    (named_twice, r"two tensors stand for norm\.weight"),
    (under_both_names, r"two tensors stand for layers\.0\.attention\.compute_query\.weight"),
    (no_sizes, "it needs 'model_args' and 'model', it holds best_val_loss, config, iter_num, model"),
    (weights_alone, "it needs 'model_args' and 'model', it holds layers.0"),
    (nothing, "it needs 'model_args' and 'model', it holds nothing"),
]


@pytest.mark.parametrize(("damage", "text"), BROKEN, ids=[damage.__name__ for damage, _ in BROKEN])
def test_a_checkpoint_that_describes_no_llama_is_refused_with_the_reason(
    tmp_path: Path, damage: Callable[[Content], None], text: str
) -> None:
    content = training_checkpoint(random_llama())
    damage(content)
    path = save(tmp_path / "broken.pt", content)
    with pytest.raises(CheckpointError, match=text) as caught:
        load_pretrained(path)
    assert str(path) in str(caught.value)


def whole_pt(tmp_path: Path) -> bytes:
    return save_llama(tmp_path / "whole.pt", random_llama()).read_bytes()


def whole_bin(tmp_path: Path) -> bytes:
    return write_bin(tmp_path / "whole.bin", random_llama()).read_bytes()


UNREADABLE: list[tuple[str, Callable[[Path], bytes], str]] = [
    ("no-bytes.pt", lambda _: b"", r"is no checkpoint \(0 bytes"),
    ("one-byte.pt", lambda _: b"P", r"is no checkpoint \(1 bytes"),
    ("noise.pt", lambda _: bytes(range(256)) * 10, r"is no checkpoint \(2,560 bytes"),
    ("head-only.pt", lambda tmp: whole_pt(tmp)[:100], r"damaged or cut short \(100 bytes\).*not finished"),
    ("half.pt", lambda tmp: whole_pt(tmp)[: len(whole_pt(tmp)) // 2], r"damaged or cut short .*not finished"),
    ("nearly.pt", lambda tmp: whole_pt(tmp)[:-1], r"damaged or cut short .*not finished"),
    ("nearly-64.pt", lambda tmp: whole_pt(tmp)[:-64], r"damaged or cut short .*not finished"),
    ("page.pt", lambda _: b"\n <!DOCTYPE html><html>404</html>", "is a web page, not a checkpoint"),
    ("page2.pt", lambda _: b"<html><body>Sign in</body></html>", "is a web page, not a checkpoint"),
    ("denied.pt", lambda _: b"<?xml version='1.0'?><Error/>", "is a web page, not a checkpoint"),
    ("pointer.pt", lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    ("no-bytes.bin", lambda _: b"", r"is cut short: it has 0 bytes"),
    ("half-header.bin", lambda tmp: whole_bin(tmp)[:20], r"is cut short: it has 20 bytes"),
    ("header.bin", lambda tmp: whole_bin(tmp)[:28], r"is cut short: it has 28 bytes"),
    ("half.bin", lambda tmp: whole_bin(tmp)[:20000], r"is cut short: it has 20,000 bytes of 98,716"),
    ("nearly.bin", lambda tmp: whole_bin(tmp)[:-1], r"is cut short: it has 98,715 bytes of 98,716"),
    ("too-long.bin", lambda tmp: whole_bin(tmp) + b"more", "its sizes ask for 98,716 bytes, not 98,720"),
    ("version-1.bin", lambda _: struct.pack("<Ii", 0x616B3432, 1) + bytes(500), "version 1 or later"),
    ("zeros.bin", lambda _: bytes(5000), "vocab_size must be|dim must be"),
    ("page.bin", lambda _: b"<!DOCTYPE html><html>" + b"404 " * 99, "is a web page, not a checkpoint"),
    ("pointer.bin", lambda _: b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a Git LFS pointer"),
    ("noise.bin", lambda _: bytes(range(255, -1, -1)) * 10, "no Llama|no export|no checkpoint|do not describe"),
    ("list.pt", lambda tmp: save(tmp / "l", [1, 2]).read_bytes(), "holds a list, not the dictionary"),
    ("tensor.pt", lambda tmp: save(tmp / "t", torch.ones(2)).read_bytes(), "holds a Tensor, not the dictionary"),
]


@pytest.mark.parametrize(("name", "content", "text"), UNREADABLE, ids=[name for name, _, _ in UNREADABLE])
def test_a_file_that_is_no_checkpoint_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: Callable[[Path], bytes], text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content(tmp_path))
    with pytest.raises(CheckpointError, match=text) as caught:
        load_pretrained(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("length", range(0, 110, 10))
def test_a_download_that_broke_off_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    for suffix, whole in ((".pt", whole_pt(tmp_path)), (".bin", whole_bin(tmp_path))):
        path = tmp_path / f"stories42M{suffix}"
        path.write_bytes(whole[: len(whole) * length // 110])
        with pytest.raises(CheckpointError, match=r"cut short|no checkpoint") as caught:
            load_pretrained(path)
        assert "./setup.sh --only stories42M" in str(caught.value)


def test_every_refusal_says_what_to_do(tmp_path: Path) -> None:
    silent = []
    for damage, _ in BROKEN:
        content = training_checkpoint(random_llama())
        damage(content)
        silent += without_remedy(save(tmp_path / f"{damage.__name__}.pt", content))
    for name, make, _ in UNREADABLE:
        path = tmp_path / name
        path.write_bytes(make(tmp_path))
        silent += without_remedy(path)
    assert not silent, "\n".join(silent)


def without_remedy(path: Path) -> list[str]:
    """Return the error of a file that cannot be read, unless it says what to do."""
    try:
        read_checkpoint(path)
    except CheckpointError as error:
        text = str(error).replace(str(path), "")
        return [] if REMEDY.search(text) else [f"{path.name}: {text}"]
    return []  # the table of broken checkpoints notices


def test_a_file_that_is_not_there_is_an_error_that_says_how_to_get_it(tmp_path: Path) -> None:
    path = tmp_path / "stories42M.pt"
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(path)
    assert str(path) in str(caught.value)
    assert "does not exist" in str(caught.value)
    assert "./setup.sh --only stories42M" in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_file_of_ones_own_is_not_for_setup_to_fetch(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "thesis.pt"
    if damage == "cut":
        path.write_bytes(whole_pt(tmp_path)[:1000])
    with pytest.raises(CheckpointError) as caught:
        load_pretrained(path)
    assert "setup.sh" not in str(caught.value)
    assert "elete" not in str(caught.value)
    assert "Check the path, or how the file was made" in str(caught.value)


def test_a_file_without_permission_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_llama(tmp_path / "tiny.pt", random_llama())

    def refuse(self: Path, *args: Any, **kwargs: Any) -> None:
        raise PermissionError(13, "Permission denied", str(self))  # root may read everything, so chmod shows nothing

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match="cannot be read \\(Permission denied\\): check its permissions"):
        load_pretrained(path)


def test_a_full_disk_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: Any, path: Path) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match="tiny.pt cannot be written: is the disk full"):
        save_llama(tmp_path / "tiny.pt", random_llama())
    assert not list(tmp_path.iterdir())


def test_a_folder_is_no_file_of_weights(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a folder, not a file of weights"):
        load_pretrained(tmp_path)


def test_a_torch_file_that_is_not_there_is_a_checkpoint_error_too(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pt"):
        load_torch_file(tmp_path / "gone.pt")


def absurd(**changes: int) -> bytes:
    """Return a header of an export, and a few kilobytes of zeros."""
    sizes = {"dim": 32, "hidden_dim": 88, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 40, "seq": 24}
    return struct.pack("<7i", *(sizes | changes).values()) + bytes(4000)


HUGE = 2**31 - 1


@pytest.mark.parametrize(
    "changes",
    [{"n_layers": HUGE}, {"n_layers": HUGE, "dim": 2, "n_heads": 1, "n_kv_heads": 1}, {"n_layers": 100_000}],
)
def test_an_absurd_number_of_layers_builds_no_absurd_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, int]
) -> None:
    monkeypatch.setattr(checkpoint, "tensor_shapes", lambda config: pytest.fail(f"{config.n_layers} layers"))
    (tmp_path / "absurd.bin").write_bytes(absurd(**changes))
    with pytest.raises(CheckpointError, match="is cut short"):
        load_pretrained(tmp_path / "absurd.bin")
    content = training_checkpoint(random_llama())
    content["model_args"]["n_layers"] = changes["n_layers"]
    with pytest.raises(CheckpointError, match="model_args ask for .* layers, the file has 21 tensors"):
        load_pretrained(save(tmp_path / "absurd.pt", content))


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": HUGE - 1, "n_heads": 1, "n_kv_heads": 1},
        {"vocab_size": HUGE},
        {"vocab_size": -HUGE - 1},
        {"hidden_dim": HUGE},
        {"seq": HUGE},
        {"n_layers": 0},
        {"n_layers": -1},
        {"dim": 0},
        {"dim": -32},
        {"hidden_dim": 0},
        {"hidden_dim": -88},
        {"n_heads": 0},
        {"n_heads": 3},
        {"n_heads": 32},
        {"n_kv_heads": 0},
        {"n_kv_heads": 3},
        {"vocab_size": 0},
        {"seq": 0},
    ],
    ids=str,
)
def test_sizes_that_no_file_can_have_are_a_clear_error(tmp_path: Path, changes: dict[str, int]) -> None:
    path = tmp_path / "absurd.bin"
    path.write_bytes(absurd(**changes))
    with pytest.raises(CheckpointError, match=r"is cut short|do not describe a Llama"):
        load_pretrained(path)


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    class Intruder:
        """Writes a file when it is unpickled."""

        def __init__(self, target: Path) -> None:
            self.target = target

        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (self.target, "ran")

    control, target = tmp_path / "control", tmp_path / "target"
    pickle.loads(pickle.dumps(Intruder(control)))
    assert control.exists()  # it would have run

    content = training_checkpoint(random_llama()) | {"model_args": Intruder(target)}
    as_zip, as_pickle, old = tmp_path / "zip.pt", tmp_path / "pickle.pt", tmp_path / "old.pt"
    save(as_zip, content)
    as_pickle.write_bytes(pickle.dumps({"model": Intruder(target)}))
    torch.save(content, old, _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="which could run code: it is not read"):
        load_pretrained(as_zip)
    for path in (as_pickle, old):
        with pytest.raises(CheckpointError, match=str(path)):
            load_pretrained(path)
        with pytest.raises(CheckpointError, match=str(path)):
            load_torch_file(path)
    assert not target.exists()


def test_values_that_are_not_finite_are_found_by_name() -> None:
    tensors = {"good": torch.ones(3), "bad.weight": torch.tensor([1.0, float("nan")])}
    with pytest.raises(CheckpointError, match=r"weights\.pt: tensor bad\.weight holds values that are not finite"):
        check_finite("weights.pt", tensors)
    with pytest.raises(CheckpointError, match="not finite"):
        check_finite("weights.pt", {"bad": torch.tensor(float("-inf"))})
    check_finite("weights.pt", {"good": torch.ones(3), "empty": torch.ones(0)})


def test_predictions_survive_saving_and_loading(tmp_path: Path) -> None:
    model, batch = random_llama(), padded([[4, 5, 6], [7, 8]])
    loaded = load_pretrained(save_llama(tmp_path / "model.pt", model))
    assert torch.equal(loaded(batch, targets=batch)[0], model(batch, targets=batch)[0])
    assert torch.equal(loaded.generate(batch[:1], 30, 0.0), model.generate(batch[:1], 30, 0.0))


# ---------------------------------------------------------------------------------------------------------- directories


def save_folder(folder: Path, model: Llama, **options: Any) -> Path:
    write_directory(folder, model.config, model.state_dict(), **options)
    return folder


AWAY = object()


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a config.json; a change to AWAY takes the key away."""
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not AWAY}))


def edit_tensors(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replace tensors of a directory by name, with __ for each full stop; None takes a tensor away."""
    tensors: dict[str, torch.Tensor | None] = dict(read_safetensors(folder / "model.safetensors"))
    tensors |= {name.replace("__", "."): tensor for name, tensor in changes.items()}
    write_safetensors(folder / "model.safetensors", {name: t for name, t in tensors.items() if t is not None})


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"n_kv_heads": None, "hidden_dim": 50, "tie_word_embeddings": False},
        {"dropout": 0.2, "layer_norm_eps": 1e-3, "rope_theta": 500.0, "causal": False, "pad_id": 0, "use_cache": False},
        {"position_embedding_type": "alibi", "n_heads": 3, "n_kv_heads": 1, "dim": 27},
    ],
)
def test_a_directory_is_read_back_as_it_was_written(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = random_llama(**changes)
    config, tensors = read_checkpoint(save_folder(tmp_path / "model", model))
    assert config == model.config
    assert tensors.keys() == tensor_shapes(config).keys()
    loaded = load_pretrained(tmp_path / "model")
    assert (loaded.output.weight is loaded.tok_embeddings.weight) == config.tie_word_embeddings
    assert_same_model(loaded, model)


def test_a_directory_holds_all_that_a_model_needs(tmp_path: Path, tokenizer_model: Path) -> None:
    model = random_llama(vocab_size=400)
    folder = save_folder(tmp_path / "model", model, tokenizer_file=tokenizer_model, readme="# A model\n")
    assert {path.name for path in folder.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.model", "README.md")
    }
    assert json.loads((folder / "config.json").read_text())["format"] == "min-llama"
    assert (folder / "README.md").read_text() == "# A model\n"
    assert find_tokenizer(folder, 400).path == folder / "tokenizer.model"


def test_a_byte_level_tokenizer_comes_with_its_own_settings(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_text(f'{{"name": "{name}"}}')
    folder = save_folder(tmp_path / "model", random_llama(), tokenizer_file=tmp_path / "tokenizer.json")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_directory_stores_the_precision_that_is_asked_for(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_llama()
    folder = save_folder(tmp_path / "model", model, dtype=dtype)
    assert {tensor.dtype for tensor in read_safetensors(folder / "model.safetensors").values()} == {dtype}
    loaded = load_pretrained(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor.to(dtype).float())


def test_layers_that_share_their_weights_are_saved_in_full(tmp_path: Path) -> None:
    model = random_llama(n_layers=4)
    model.layers[2], model.layers[3] = model.layers[0], model.layers[1]
    folder = save_folder(tmp_path / "model", model)
    assert len(read_safetensors(folder / "model.safetensors")) == len(tensor_shapes(model.config)) - 1  # tied output
    assert_same_model(load_pretrained(folder), model)


def test_a_model_that_was_compiled_is_saved_under_plain_names(tmp_path: Path) -> None:
    model = random_llama()
    compiled = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items()}
    write_directory(tmp_path / "model", model.config, compiled)
    assert_same_model(load_pretrained(tmp_path / "model"), model)


def test_a_directory_may_replace_itself_while_its_weights_are_in_use(tmp_path: Path, tokenizer_model: Path) -> None:
    model = random_llama(vocab_size=400)
    folder = save_folder(tmp_path / "model", model, tokenizer_file=tokenizer_model)
    loaded = load_pretrained(folder)  # its weights are mapped from the file
    save_folder(folder, loaded, tokenizer_file=folder / "tokenizer.model", readme="again")
    assert_same_model(loaded, model)
    assert_same_model(load_pretrained(folder), model)
    assert find_tokenizer(folder, 400)


def test_no_tokenizer_of_the_model_before_stays_in_a_directory(tmp_path: Path, tokenizer_model: Path) -> None:
    folder = save_folder(tmp_path / "model", random_llama(), tokenizer_file=tokenizer_model)
    (tmp_path / "tokenizer.json").write_text("{}")
    save_folder(folder, random_llama(), tokenizer_file=tmp_path / "tokenizer.json")
    assert [path.name for path in folder.glob("tok*")] == ["tokenizer.json"]
    save_folder(folder, random_llama())
    assert not list(folder.glob("tok*"))


class KilledError(BaseException):
    """Stands for the end of the process at some point."""


def kill_after(monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
    """Let the process end before its next write to a directory, once there were so many."""
    done: list[Any] = []
    for name in ("write_safetensors", "write_text"):
        real = getattr(checkpoint, name)

        def write(*args: Any, real: Callable[..., None] = real) -> None:
            if len(done) == writes:
                raise KilledError
            real(*args)
            done.append(args)

        monkeypatch.setattr(checkpoint, name, write)


@pytest.mark.parametrize("writes", range(4))
def test_a_writer_that_is_killed_leaves_the_old_model_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    old, new = random_llama(seed=1), random_llama(seed=2)
    folder = save_folder(tmp_path / "model", old)
    with monkeypatch.context() as patch:
        kill_after(patch, writes)
        if writes < 3:
            with pytest.raises(KilledError):
                save_folder(folder, new)
        else:
            save_folder(folder, new)
    assert_same_model(load_pretrained(folder), old if writes == 0 else new)
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("writes", range(3))
@pytest.mark.parametrize("overwrite", [True, False], ids=["over-another-model", "new"])
def test_a_directory_that_is_half_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int, overwrite: bool
) -> None:
    """RoPE with another theta has tensors of the same shapes: the mixture could not be told from a model."""
    folder = tmp_path / "model"
    if overwrite:
        save_folder(folder, random_llama(rope_theta=500.0))
    kill_after(monkeypatch, writes)
    with pytest.raises(KilledError):
        save_folder(folder, random_llama())
    with pytest.raises(CheckpointError, match="without config.json no checkpoint directory"):
        read_checkpoint(folder)


def test_a_disk_that_fills_up_while_a_directory_is_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_folder(tmp_path / "model", random_llama())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_text", full)
    with pytest.raises(CheckpointError, match=r"model cannot be written \(No space left on device\): is the disk full"):
        save_folder(folder, random_llama())


def test_a_file_where_the_directory_should_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("a file")
    with pytest.raises(CheckpointError, match=r"model cannot be written \(.*\): check the path and its permissions"):
        save_folder(tmp_path / "model", random_llama())


def test_what_no_directory_can_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    folder, model = tmp_path / "model", random_llama()
    weights = model.state_dict()
    with pytest.raises(CheckpointError, match=r"tokenizer\.bin cannot go into a checkpoint directory"):
        write_directory(folder, model.config, weights, tokenizer_file=tmp_path / "tokenizer.bin")
    with pytest.raises(CheckpointError, match=r"gone\.model cannot go into a checkpoint directory"):
        write_directory(folder, model.config, weights, tokenizer_file=tmp_path / "gone.model")
    with pytest.raises(CheckpointError, match=r"norm\.weight holds values too large for torch\.float16"):
        large = weights | {"norm.weight": torch.full((32,), 1e6)}
        write_directory(folder, model.config, large, dtype=torch.float16)
    with pytest.raises(CheckpointError, match="its output matrix is not its embedding"):
        write_directory(folder, model.config, weights | {"output.weight": torch.ones(40, 32)})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing, the first is norm\.weight"):
        write_directory(folder, model.config, {n: t for n, t in weights.items() if n != "norm.weight"})
    with pytest.raises(CheckpointError, match=r"norm\.weight has shape \(3,\), its configuration asks for \(32,\)"):
        write_directory(folder, model.config, weights | {"norm.weight": torch.ones(3)})
    assert not folder.exists()


DAMAGED: list[tuple[Callable[[Path], object], str, str]] = [
    (
        lambda folder: (folder / "config.json").unlink(),
        "",
        "is a folder, not a file of weights, and without config.json",
    ),
    (lambda folder: (folder / "config.json").write_text("{"), "config.json", "is no JSON"),
    (lambda folder: (folder / "config.json").write_bytes(b"\xff"), "config.json", "is no JSON"),
    (lambda folder: (folder / "config.json").write_text("[" * 99999), "config.json", "is no JSON"),
    (lambda folder: (folder / "config.json").write_text("[1]"), "config.json", "holds a list, not the object"),
    (lambda folder: edit_config(folder, format=AWAY), "config.json", "describes a model of type None, neither 'min-"),
    (lambda folder: edit_config(folder, format="other"), "config.json", "describes a model of type 'other'"),
    (lambda folder: edit_config(folder, experts=8), "config.json", "has keys that no Llama here knows: experts"),
    (lambda folder: edit_config(folder, dim=AWAY, max_seq_len=AWAY), "config.json", "lacks dim, max_seq"),
    (lambda folder: edit_config(folder, dim="32"), "config.json", "dim must be a whole number of at least 1, got '32'"),
    (lambda folder: edit_config(folder, dropout="a"), "config.json", "does not describe a Llama"),
    (lambda folder: edit_config(folder, causal="no"), "config.json", "causal must be True or False, got 'no'"),
    (lambda folder: edit_config(folder, pad_id="no"), "config.json", "pad_id must be a whole number, got 'no'"),
    (
        lambda folder: edit_config(folder, n_layers=3),
        "model.safetensors",
        "9 tensors are missing, the first is layers.2",
    ),
    (lambda folder: edit_config(folder, n_layers=9**9), "model.safetensors", "asks for 387420489 layers"),
    (lambda folder: edit_config(folder, vocab_size=41), "model.safetensors", r"config.json asks for \(41, 32\)"),
    (lambda folder: edit_config(folder, tie_word_embeddings=False), "model.safetensors", "the first is output.weight"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors", "cannot be read"),
    (
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        "model.safetensors",
        "no safetensors file",
    ),
    (lambda folder: edit_tensors(folder, norm__weight=None), "model.safetensors", "the first is norm.weight"),
    (lambda folder: edit_tensors(folder, tok_embeddings__weight=None), "model.safetensors", "is tok_embeddings.weight"),
    (lambda folder: edit_tensors(folder, extra=torch.ones(1)), "model.safetensors", "belong to no Llama, .* extra"),
    (lambda folder: edit_tensors(folder, norm__weight=torch.ones(2)), "model.safetensors", r"has shape \(2,\)"),
    (lambda folder: edit_tensors(folder, norm__weight=torch.ones(32).int()), "model.safetensors", "is of torch.int32"),
    (
        lambda folder: edit_tensors(folder, output__weight=torch.ones(40, 32)),
        "model.safetensors",
        "is not its embedding",
    ),
]


@pytest.mark.parametrize(("damage", "file", "text"), DAMAGED, ids=[f"{file}: {text}"[:50] for _, file, text in DAMAGED])
def test_a_directory_that_is_no_checkpoint_is_refused_with_the_file_and_the_reason(
    tmp_path: Path, damage: Callable[[Path], object], file: str, text: str
) -> None:
    folder = save_folder(tmp_path / "model", random_llama())
    damage(folder)
    with pytest.raises(CheckpointError, match=text) as caught:
        load_pretrained(folder)
    assert str(folder / file) in str(caught.value)
    assert REMEDY.search(str(caught.value).replace(str(folder), ""))


def test_a_config_may_leave_out_what_has_a_default(tmp_path: Path) -> None:
    folder = save_folder(tmp_path / "model", random_llama())
    edit_config(folder, rope_theta=AWAY, hidden_dim=AWAY, tie_word_embeddings=AWAY, position_embedding_type=AWAY)
    assert read_checkpoint(folder)[0] == tiny_config()


def test_an_embedding_that_a_directory_holds_twice_is_fine(tmp_path: Path) -> None:
    model = random_llama()
    folder = save_folder(tmp_path / "model", model)
    edit_tensors(folder, output__weight=model.output.weight)
    loaded = load_pretrained(folder)
    assert loaded.output.weight is loaded.tok_embeddings.weight


def test_a_config_that_may_not_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_folder(tmp_path / "model", random_llama())

    def refuse(self: Path, *args: Any, **kwargs: Any) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(
        CheckpointError, match=r"config\.json cannot be read \(Permission denied\): check its permissions"
    ):
        read_checkpoint(folder)


def test_a_copied_directory_is_a_checkpoint_as_well(tmp_path: Path) -> None:
    model = random_llama()
    shutil.copytree(save_folder(tmp_path / "model", model), tmp_path / "elsewhere" / "copy")
    assert_same_model(load_pretrained(tmp_path / "elsewhere" / "copy"), model)

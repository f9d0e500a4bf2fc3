"""Recipes: what they may say, and that those which ship run: python -m pytest tests/test_pretrain_recipe.py"""

import json
from pathlib import Path
from typing import Any

import pytest

from errors import UsageError
from llama import load_pretrained
from pretrain.model import build_model, flops_per_token, parameter_count
from pretrain.recipe import Recipe, read_recipe
from pretrain.trainer import train
from tests.tiny_pretrain import RECIPES, make_data, tiny_recipe

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.toml"))
MINIMAL = """
data = "data"
out = "out"
[model]
dim = 64
n_layers = 2
n_heads = 4
[optimizer]
warmup_steps = 2
[train]
steps = 10
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --------------------------------------------------------------------------------------------------- those that ship


def test_the_recipes_that_are_promised_are_there() -> None:
    assert {"mp_acl", "alilama", "stories15m", "laptop", "addition", "storybook"} <= set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_recipe_that_ships_trains_and_its_checkpoint_loads(name: str, tmp_path: Path) -> None:
    kind, size = ("byte-bpe", 320) if name == "alilama" else ("unigram", 300) if name == "mp_acl" else ("bpe", 320)
    data = make_data(tmp_path, kind=kind, vocab_size=size)
    recipe = tiny_recipe(data, tmp_path / "run", name=name)
    assert train(recipe)
    model = load_pretrained(tmp_path / "run" / "best")
    assert model.config.position_embedding_type == ("alibi" if name == "alilama" else "rotary")
    log = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert sum("loss" in json.loads(row) for row in log) == 12


@pytest.mark.parametrize(
    ("name", "vocab_size", "parameters"),
    [
        ("mp_acl", 4096, 12_587_264),
        ("alilama", 4000, 2_119_808),
        ("stories15m", 32_000, 15_191_712),
        ("storybook", 2048, 4_951_296),
        ("laptop", 2048, 1_066_112),
    ],
)
def test_the_models_have_the_sizes_that_are_told(name: str, vocab_size: int, parameters: int) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert parameter_count(build_model(recipe.model, vocab_size, pad_id=0)) == parameters


def test_mp_acl_is_what_it_was() -> None:
    recipe = read_recipe(RECIPES / "mp_acl.toml")
    assert (recipe.model.max_seq_len, recipe.train.batch_size, recipe.train.stride) == (128, 512, 1)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.min_learning_rate) == (3e-4, 3e-5)
    assert recipe.optimizer.weight_decay == 1e-5
    assert (recipe.model.dropout_embeddings, recipe.model.dropout_residual) == (0.1, 0.0)
    assert len((RECIPES / "mp_acl_prompts.txt").read_text(encoding="utf-8").splitlines()) == 25


def test_an_epoch_with_stride_one_is_as_many_steps_as_batches_of_tokens() -> None:
    recipe = read_recipe(RECIPES / "mp_acl.toml")
    assert recipe.steps(windows=512 * 1000) == 1000


# ------------------------------------------------------------------------------------------------------------ reading


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, MINIMAL))
    assert recipe.optimizer.name == "adamw"
    assert recipe.model.config(vocab_size=100, pad_id=0).n_kv_heads == 4


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("train.steps=7", lambda recipe: recipe.train.steps == 7),
        ("data=runs/my corpus", lambda recipe: recipe.data == "runs/my corpus"),
        ('data="quoted"', lambda recipe: recipe.data == "quoted"),
        ("optimizer.betas=[0.8, 0.9]", lambda recipe: recipe.optimizer.betas == (0.8, 0.9)),
        ("optimizer.learning_rate=1", lambda recipe: recipe.optimizer.learning_rate == 1.0),
        ("model.max_seq_len=none", lambda recipe: recipe.model.max_seq_len == 256),
        ("out=2024", lambda recipe: recipe.out == "2024"),
        ("report.sample_prompt=42", lambda recipe: recipe.report.sample_prompt == "42"),
        ("report.sample_prompt=[1]", lambda recipe: recipe.report.sample_prompt == "[1]"),
        ("train.compile=true", lambda recipe: recipe.train.compile),
    ],
)
def test_set_replaces_a_value(setting: str, expected: Any, tmp_path: Path) -> None:
    assert expected(read_recipe(write(tmp_path, MINIMAL), [setting]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stepz=7", r"^--set train.stepz=7: train.stepz: no such key$"),
        ("colour=7", r"^--set colour=7: colour: no such key$"),
        ("trian.steps=3", r"^--set trian.steps=3: trian: no such key$"),
        ("out=none", r"^--set out=none: out: Field required$"),
        ("optimizer.betas=[0.9, true]", r"^--set optimizer.betas=.*: optimizer.betas.1: .*number"),
        ("train.steps=2", r"mine.toml: recipe: optimizer.warmup_steps \(2\) must be below train.steps \(2\)"),
        ("out=./x/../data", r"mine.toml: recipe: out and data are the same folder \(./x/../data\)"),
        ("train.steps=0", r"^--set train.steps=.*: train.steps: .*greater than 0"),
        ("train.steps=many", r"^--set train.steps=.*: train.steps: .*integer"),
        ("train.epochs=1", r"mine.toml: recipe: give either train.steps or train.epochs"),
        ("train.steps=none", r"mine.toml: recipe: give either train.steps or train.epochs"),
        ("model.dim=63", r"mine.toml: model: dim \(63\) must be"),
        ("model.n_kv_heads=3", r"mine.toml: model: n_heads \(4\) must be a multiple of n_kv_heads"),
        ("model.distinct_layers=3", r"mine.toml: model: distinct_layers \(3\) must divide n_layers \(2\)"),
        ("model.dropout_residual=1", r"^--set model.dropout_residual=1: model.dropout_residual: .*less than 1"),
        (
            "model.position_embedding_type=sine",
            r"^--set model.position_embedding_type=sine: model.position_embedding_type: .*'rotary' or 'alibi'",
        ),
        ("optimizer.min_learning_rate=0.5", r"mine.toml: optimizer: min_learning_rate \(0.5\) is above learning_rate"),
        ("optimizer.learning_rate=nan", r"^--set optimizer.learning_rate=nan: optimizer.learning_rate: "),
        ("data.folder=x", r"data is a value, not a section"),
        ("nonsense", r"--set nonsense: write it as key=value"),
    ],
)
def test_a_wrong_value_names_the_file_and_the_key(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        read_recipe(write(tmp_path, MINIMAL), [setting])


def test_a_wrong_key_of_the_file_is_not_blamed_on_a_setting(tmp_path: Path) -> None:
    path = write(tmp_path, MINIMAL + "stepz = 3\n[trian]\nsteps = 1\n")
    with pytest.raises(UsageError) as error:
        read_recipe(path, ["train.steps=20", "trian.epochs=1"])
    assert str(error.value).splitlines() == [f"{path}: train.stepz: no such key", f"{path}: trian: no such key"]


def test_several_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        read_recipe(write(tmp_path, MINIMAL), ["train.stepz=1", "model.dimm=2"])
    assert len(str(error.value).splitlines()) == 2


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none.toml cannot be read \(No such file"):
        read_recipe(tmp_path / "none.toml")


@pytest.mark.parametrize("content", [b"data = ", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "broken.toml").write_bytes(content)
    with pytest.raises(UsageError, match="broken.toml is no TOML"):
        read_recipe(tmp_path / "broken.toml")


# ---------------------------------------------------------------------------------------------------------- the model


def recipe_with(tmp_path: Path, *settings: str) -> Recipe:
    return read_recipe(write(tmp_path, MINIMAL), settings)


def test_shared_layers_are_the_same_weights_used_again(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "model.n_layers=6", "model.distinct_layers=3")
    model = build_model(recipe.model, 100, pad_id=0)
    assert model.layers[3] is model.layers[0]
    assert model.layers[5] is model.layers[2]
    full = build_model(recipe_with(tmp_path, "model.n_layers=6").model, 100, pad_id=0)
    assert parameter_count(model) < 0.6 * parameter_count(full)
    assert flops_per_token(model) == flops_per_token(full)


def test_a_run_with_shared_layers_resumes_into_shared_layers(tmp_path: Path) -> None:
    data = make_data(tmp_path)
    assert train(tiny_recipe(data, tmp_path / "run", "model.n_layers=4", "model.distinct_layers=2"))
    weights = load_pretrained(tmp_path / "run" / "last").state_dict()
    assert weights["layers.0.feed_forward.w1.weight"].equal(weights["layers.2.feed_forward.w1.weight"])
    assert not weights["layers.0.feed_forward.w1.weight"].equal(weights["layers.1.feed_forward.w1.weight"])


def test_each_kind_of_dropout_is_set_on_its_own(tmp_path: Path) -> None:
    settings = ("model.dropout_embeddings=0.1", "model.dropout_attention=0.2", "model.dropout_residual=0.3")
    model = build_model(recipe_with(tmp_path, *settings).model, 100, pad_id=0)
    layer: Any = model.layers[1]
    rates = (model.dropout.p, layer.attention.attn_dropout.p, layer.attention.resid_dropout.p)
    assert (*rates, layer.feed_forward.dropout.p) == (0.1, 0.2, 0.3, 0.3)


def test_xavier_starts_by_the_size_of_each_matrix(tmp_path: Path) -> None:
    model = build_model(recipe_with(tmp_path, "model.initialisation=xavier").model, 1000, pad_id=0)
    layer: Any = model.layers[0]
    hidden = layer.feed_forward.w1.weight.shape[0]
    assert layer.feed_forward.w1.weight.std().item() == pytest.approx((2 / (64 + hidden)) ** 0.5, rel=0.05)
    assert model.output.weight.std().item() == pytest.approx((2 / 1064) ** 0.5, rel=0.05)


def test_flops_are_those_of_the_formula(tmp_path: Path) -> None:
    model = build_model(recipe_with(tmp_path, "model.max_seq_len=32").model, 100, pad_id=0)
    matrices = 2 * (4 * 64 * 64 + 3 * 64 * 192 + 2 * 64) + 100 * 64
    assert flops_per_token(model) == 6 * matrices + 12 * 2 * 64 * 32

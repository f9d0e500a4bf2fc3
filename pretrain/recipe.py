"""A recipe: everything that decides what a training run does, in one TOML file.

Keys that nobody knows, and values of a wrong kind, are errors that name the file and the key.
"""

import copy
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from errors import MissingDependency, UsageError

try:
    from pydantic import (
        BaseModel,
        ConfigDict,
        Field,
        NonNegativeFloat,
        NonNegativeInt,
        PositiveFloat,
        PositiveInt,
        ValidationError,
        model_validator,
    )
except ImportError as error:
    raise MissingDependency("reading a recipe", "pydantic") from error

from config import LlamaConfig

Dropout = Field(default=0.0, ge=0.0, lt=1.0)


class Section(BaseModel):
    """A part of a recipe: fixed once read, and without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelRecipe(Section):
    """The model: the sizes of `LlamaConfig` (its vocabulary comes from the data), how it starts, where it drops out."""

    dim: PositiveInt
    n_layers: PositiveInt
    n_heads: PositiveInt
    n_kv_heads: PositiveInt | None = None
    hidden_dim: PositiveInt | None = None
    multiple_of: PositiveInt = 32
    max_seq_len: PositiveInt = 256  # tokens; the length of the windows that are trained on
    layer_norm_eps: PositiveFloat = 1e-5
    position_embedding_type: Literal["rotary", "alibi"] = "rotary"
    rope_theta: PositiveFloat = 10000.0
    tie_word_embeddings: bool = True
    distinct_layers: PositiveInt | None = None  # layer i shares the weights of layer i modulo this
    initialisation: Literal["llama", "xavier"] = "llama"
    dropout_embeddings: float = Dropout
    dropout_attention: float = Dropout  # on the attention weights
    dropout_residual: float = Dropout  # on what attention and feed-forward add to the residual stream

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Let LlamaConfig check the sizes, and see that shared layers come out even."""
        self.config(vocab_size=1, pad_id=0)
        if self.distinct_layers is not None and self.n_layers % self.distinct_layers:
            raise ValueError(f"distinct_layers ({self.distinct_layers}) must divide n_layers ({self.n_layers})")
        return self

    def config(self, vocab_size: int, pad_id: int) -> LlamaConfig:
        """Return the configuration of the model for a vocabulary of this size."""
        return LlamaConfig(
            vocab_size=vocab_size,
            pad_id=pad_id,
            dim=self.dim,
            n_layers=self.n_layers,
            n_heads=self.n_heads,
            n_kv_heads=self.n_kv_heads,
            hidden_dim=self.hidden_dim,
            multiple_of=self.multiple_of,
            max_seq_len=self.max_seq_len,
            layer_norm_eps=self.layer_norm_eps,
            position_embedding_type=self.position_embedding_type,
            rope_theta=self.rope_theta,
            tie_word_embeddings=self.tie_word_embeddings,
        )


class OptimizerRecipe(Section):
    """The optimizer and its learning rate."""

    name: Literal["adamw", "torch"] = "adamw"  # the assignment's own, or torch.optim.AdamW
    learning_rate: PositiveFloat = 1e-3  # the highest
    min_learning_rate: NonNegativeFloat = 1e-4  # the last step's
    warmup_steps: NonNegativeInt = 100
    weight_decay: NonNegativeFloat = 0.1  # on matrices only
    betas: tuple[float, float] = (0.9, 0.95)
    eps: PositiveFloat = 1e-8
    clip: NonNegativeFloat = 1.0  # the largest norm of the gradient; 0: any

    @model_validator(mode="after")
    def _check(self) -> Self:
        """See that the schedule goes down."""
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(f"min_learning_rate ({self.min_learning_rate}) is above learning_rate")
        return self


class TrainRecipe(Section):
    """How long, in what portions, on what."""

    steps: PositiveInt | None = None  # optimizer steps; or say `epochs`
    epochs: PositiveFloat | None = None  # passes over all windows
    batch_size: PositiveInt = 64  # windows per optimizer step, over all processes
    micro_batch_size: PositiveInt | None = None  # windows at once on one process; default: all of its share
    stride: PositiveInt | None = None  # tokens from one window to the next; default: max_seq_len, no overlap
    seed: NonNegativeInt = 1337
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False


class ReportRecipe(Section):
    """What is shown and kept, and how often, in optimizer steps. Nothing here changes the training."""

    log_every: PositiveInt = 10
    evaluate_every: PositiveInt = 200
    save_every: PositiveInt = 200  # what --resume goes on from
    validation_windows: PositiveInt = 512  # at most; spread evenly over the validation split
    sample_prompt: str = "Once upon a time"
    sample_tokens: NonNegativeInt = 60
    checkpoint_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    tensorboard: bool = False


class Recipe(Section):
    """All of it. `data` is the folder that `prepare` made, `out` is where the run goes."""

    data: str
    out: str
    model: ModelRecipe
    optimizer: OptimizerRecipe = OptimizerRecipe()
    train: TrainRecipe
    report: ReportRecipe = ReportRecipe()

    @model_validator(mode="after")
    def _check(self) -> Self:
        """See that the length is given once, that the warm-up fits into it, and that the run has its own folder."""
        steps, warmup_steps = self.train.steps, self.optimizer.warmup_steps
        if (steps is None) == (self.train.epochs is None):
            raise ValueError("give either train.steps or train.epochs")
        if steps is not None and warmup_steps >= steps:
            raise ValueError(f"optimizer.warmup_steps ({warmup_steps}) must be below train.steps ({steps})")
        if Path(self.out).resolve() == Path(self.data).resolve():
            raise ValueError(f"out and data are the same folder ({self.out}): the run needs one of its own")
        return self

    def steps(self, windows: int) -> int:
        """Return the number of optimizer steps, for a training split of so many windows."""
        if self.train.steps is not None:
            return self.train.steps
        assert self.train.epochs is not None  # _check
        return max(1, int(self.train.epochs * windows / self.train.batch_size))


def read_recipe(path: Path, settings: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a TOML file, after `settings` such as "train.steps=100" have replaced some of its values.

    Raises UsageError, which names the file and the key.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror})"
        raise UsageError(f"{reason}: name a recipe such as pretrain/recipes/laptop.toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    in_file = copy.deepcopy(content)
    for setting in settings:
        _replace(content, setting)
    try:
        return Recipe.model_validate_json(_to_json(content))
    except ValidationError as error:
        raise UsageError(_explain(path, in_file, settings, error)) from error


def _replace(content: dict[str, Any], setting: str) -> None:
    """Put the value of "a.b=value" in its place; what is no TOML value is a string, so that paths need no quotes."""
    key, equals, text = setting.partition("=")
    *sections, name = key.strip().split(".")
    if not equals or not name:
        raise UsageError(f"--set {setting}: write it as key=value, for example train.steps=100")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    if _is_text([*sections, name]) and not isinstance(value, str):
        value = text  # a folder may be called 2024
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise UsageError(f"--set {setting}: {section} is a value, not a section")
    if text.strip() == "none":
        content.pop(name, None)  # TOML has no null: back to the default
    else:
        content[name] = value


def _is_text(keys: Sequence[str]) -> bool:
    """Say whether a key of the recipe, given as section and name, holds any text."""
    kind: Any = Recipe
    for key in keys:
        field = kind.model_fields.get(key) if isinstance(kind, type) and issubclass(kind, Section) else None
        kind = field.annotation if field is not None else None
    return kind is str


def _to_json(content: dict[str, Any]) -> str:
    """Write the content as JSON, in which pydantic's strict mode takes a list for a tuple and 1 for 1.0."""
    return json.dumps(content, default=str)


def _explain(path: Path, in_file: dict[str, Any], settings: Sequence[str], error: ValidationError) -> str:
    """Say what is wrong with a recipe: a line a key, which begins with the file or the --set that it came from."""
    lines = []
    for problem in error.errors():
        keys = tuple(map(str, problem["loc"]))
        message = (
            "no such key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        )
        lines.append(f"{_origin(path, in_file, settings, keys)}: {'.'.join(keys) or 'recipe'}: {message}")
    return "\n".join(lines)


def _origin(path: Path, in_file: dict[str, Any], settings: Sequence[str], keys: tuple[str, ...]) -> str:
    """Return where a value came from: the last --set that gave it, or a part of it that the file lacks; or the file."""
    there: Any = in_file
    for key in keys:
        there = there.get(key) if isinstance(there, dict) else None
    for setting in reversed(settings):
        given = tuple(setting.partition("=")[0].strip().split("."))
        if keys[: len(given)] == given or (there is None and given[: len(keys)] == keys):
            return f"--set {setting}"
    return str(path)

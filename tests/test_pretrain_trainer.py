"""The training loop: python -m pytest tests/test_pretrain_trainer.py"""

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import pretrain.trainer
from errors import CheckpointError, DataError, MissingDependency, TrainingError, UsageError
from llama import load_pretrained
from pretrain.recipe import Recipe
from pretrain.schedule import learning_rate
from pretrain.shards import open_split, read_manifest
from pretrain.trainer import StepResult, Stop, Trainer, _seed_of, train
from pretrain.windows import Windows
from pretrain.world import World
from tests.tiny_pretrain import RECIPES, make_data, tiny_recipe
from tokenizer import find_tokenizer

ROOT = RECIPES.parent.parent
NO_DROPOUT = ("model.dropout_residual=0", "model.dropout_embeddings=0")
DROPOUT = ("model.dropout_residual=0.1", "model.dropout_attention=0.1", "model.dropout_embeddings=0.1")
CURVE = ("step", "tokens", "loss", "lr", "grad_norm", "validation_loss", "validation_bits_per_byte")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("corpus"))


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def curve(out: Path) -> list[list[Any]]:
    """The log without what depends on the clock."""
    return [[row.get(name) for name in CURVE] for row in rows(out)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_pretrained(folder).state_dict()


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def stopped_after(recipe: Recipe, step: int) -> None:
    """Train until a step, as ctrl-C would end it there."""
    trainer = Trainer(recipe, World(rank=0, size=1, device=torch.device("cpu")))
    trainer.start(resume=False)
    stop = Stop()
    take_step = trainer._step

    def step_and_ask(number: int) -> StepResult:
        stop.asked = number == step
        return take_step(number)

    trainer._step = step_and_ask  # type: ignore[assignment, method-assign]
    trainer.run(stop)
    trainer.close()


def run_verb(*arguments: str, launcher: tuple[str, ...] = (sys.executable,)) -> subprocess.CompletedProcess[str]:
    command = [*launcher, "-m", "pretrain", "train", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240, check=False)


def settings(recipe: Recipe) -> list[str]:
    """The recipe as options of the verb."""
    content = recipe.model_dump(mode="json", exclude_none=True)
    flat = {"data": content["data"], "out": content["out"]}
    flat |= {f"{section}.{key}": value for section in ("model", "optimizer", "train", "report")
             for key, value in content[section].items()}  # fmt: skip
    return [f"--set={key}={json.dumps(value)}" for key, value in flat.items()]


# ------------------------------------------------------------------------------------------------------ what it learns


def test_the_loss_falls_from_that_of_guessing_to_that_of_knowing_the_stories(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "train.steps=150", "model.dim=32", "optimizer.learning_rate=0.01",
                         "report.evaluate_every=150", "report.save_every=150", "report.log_every=50")  # fmt: skip
    assert train(recipe)
    log = rows(tmp_path / "run")
    assert log[0]["loss"] > 2.0  # the mean of the first fifty steps; guessing is ln 320 = 5.8
    assert log[-1]["validation_loss"] < 1.2


@pytest.mark.parametrize("name", ["adamw", "torch"])
@pytest.mark.parametrize("kind", ["rotary", "alibi"])
def test_both_optimizers_and_both_kinds_of_positions_train(data: Path, tmp_path: Path, name: str, kind: str) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "train.steps=30", f"optimizer.name={name}",
                         f"model.position_embedding_type={kind}")  # fmt: skip
    train(recipe)
    losses = [row["loss"] for row in rows(tmp_path / "run") if "loss" in row]
    assert losses[-1] < losses[0] - 0.5


def test_the_two_optimizers_agree_without_weight_decay(data: Path, tmp_path: Path) -> None:
    """The assignment's optimizer decays after the update, torch's before it; without decay they are the same maths."""
    for name in ("adamw", "torch"):
        train(tiny_recipe(data, tmp_path / name, f"optimizer.name={name}", "optimizer.weight_decay=0"))
    ours, theirs = ([row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("adamw", "torch"))
    assert ours == pytest.approx(theirs, abs=1e-4)


def test_bfloat16_follows_float32(data: Path, tmp_path: Path) -> None:
    for precision in ("float32", "bfloat16"):
        train(tiny_recipe(data, tmp_path / precision, f"train.precision={precision}"))
    losses = [[row["loss"] for row in rows(tmp_path / name) if "loss" in row] for name in ("float32", "bfloat16")]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], abs=0.05)


def test_compile_is_passed_on(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []

    def compile_nothing(model: torch.nn.Module) -> torch.nn.Module:
        compiled.append(model)
        return model

    monkeypatch.setattr(torch, "compile", compile_nothing)
    train(tiny_recipe(data, tmp_path / "run", "train.compile=true", "train.steps=1", "optimizer.warmup_steps=0"))
    assert len(compiled) == 1


# ----------------------------------------------------------------------------------------------------- what it writes


def test_the_last_and_the_best_model_are_checkpoints_that_stand_alone(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "report.checkpoint_dtype=float16")
    train(recipe)
    for name in ("last", "best"):
        folder = tmp_path / "run" / name
        assert {"model.safetensors", "config.json", "tokenizer.model", "README.md"} <= {
            file.name for file in folder.iterdir()
        }
        model = load_pretrained(folder)
        assert find_tokenizer(folder, model.vocab_size).n_words == 320


def test_best_has_the_lowest_validation_loss(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learning rate that explodes half-way makes the last model worse than the best."""
    monkeypatch.setattr(pretrain.trainer, "learning_rate", lambda step, **_: 0.01 if step < 12 else 5.0)
    train(tiny_recipe(data, tmp_path / "run", "train.steps=24"))
    validated = {row["step"]: row["validation_loss"] for row in rows(tmp_path / "run") if "validation_loss" in row}
    best = min(validated, key=lambda step: validated[step])
    assert best == 12
    assert f"after step {best} " in (tmp_path / "run" / "best" / "README.md").read_text(encoding="utf-8")
    assert not same_weights(tmp_path / "run" / "best", tmp_path / "run" / "last")


def test_a_row_holds_what_one_wants_to_know(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tiny_recipe(data, tmp_path / "run", "report.log_every=5"))
    log = rows(tmp_path / "run")
    assert [row["step"] for row in log if "loss" in row] == [5, 10, 12]
    assert [row["step"] for row in log if "validation_loss" in row] == [6, 12]
    row = log[0]
    assert row["tokens"] == 5 * 8 * 16
    assert row["tokens_per_second"] > 0
    assert 0 < row["mfu"] < 1
    assert row["memory_mb"] > 50
    printed = capsys.readouterr().out
    assert "step 5/12: loss" in printed
    assert "bits per byte" in printed
    assert "    Once upon a time" in printed


def test_bits_per_byte_count_the_bytes_of_the_text(data: Path, tmp_path: Path) -> None:
    train(tiny_recipe(data, tmp_path / "run"))
    row = next(row for row in rows(tmp_path / "run") if "validation_loss" in row)
    split = json.loads((data / "manifest.json").read_text(encoding="utf-8"))["splits"]["validation"]
    bits = row["validation_loss"] / math.log(2) * split["tokens"] / split["text_bytes"]
    assert row["validation_bits_per_byte"] == pytest.approx(bits)


def test_tensorboard_gets_the_same_numbers(data: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(tiny_recipe(data, tmp_path / "run", "report.tensorboard=true"))
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    shown = [event.value for event in events.Scalars("loss")]
    assert shown == pytest.approx([row["loss"] for row in rows(tmp_path / "run") if "loss" in row])


def test_without_tensorboard_the_line_that_installs_it_is_given(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependency, match="pip install tensorboard"):
        train(tiny_recipe(data, tmp_path / "run", "report.tensorboard=true"))


# ------------------------------------------------------------------------------------------- the same curve, whatever


@pytest.mark.parametrize("broken_at", [4, 7])
def test_a_resumed_run_is_the_unbroken_one_to_the_last_bit(data: Path, tmp_path: Path, broken_at: int) -> None:
    options = (*DROPOUT, "report.log_every=3")
    train(tiny_recipe(data, tmp_path / "whole", *options))
    parts = tiny_recipe(data, tmp_path / "parts", *options)
    stopped_after(parts, broken_at)
    assert train(parts, resume=True)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")
    assert same_weights(tmp_path / "parts" / "last", tmp_path / "whole" / "last")
    assert same_weights(tmp_path / "parts" / "best", tmp_path / "whole" / "best")


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_curve_of_an_unbroken_one(data: Path, tmp_path: Path) -> None:
    options = (*DROPOUT, "train.steps=60", "report.save_every=5", "report.evaluate_every=20")
    train(tiny_recipe(data, tmp_path / "whole", *options))
    killed = tiny_recipe(data, tmp_path / "killed", *options)
    command = [sys.executable, "-m", "pretrain", "train", "--config", str(RECIPES / "laptop.toml"), *settings(killed)]
    process = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    log = tmp_path / "killed" / "log.jsonl"
    deadline = time.monotonic() + 120
    while not (log.exists() and len(log.read_text(encoding="utf-8").splitlines()) > 12):
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert len(rows(tmp_path / "killed")) < 60
    assert train(killed, resume=True)
    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert same_weights(tmp_path / "killed" / "last", tmp_path / "whole" / "last")


@pytest.mark.slow
def test_ctrl_c_ends_after_the_step_and_saves(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "train.steps=100000", "report.save_every=100000")
    command = [sys.executable, "-m", "pretrain", "train", "--config", str(RECIPES / "laptop.toml"), *settings(recipe)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step 3/"):
                process.send_signal(signal.SIGINT)
                break
        output = process.stdout.read()
    assert process.returncode == 130
    assert "go on with --resume" in output
    assert "Traceback" not in output
    assert (tmp_path / "run" / "state.pt").exists()


def test_a_row_that_a_kill_cut_short_is_written_again(data: Path, tmp_path: Path) -> None:
    train(tiny_recipe(data, tmp_path / "whole"))
    recipe = tiny_recipe(data, tmp_path / "run")
    stopped_after(recipe, 4)
    with (tmp_path / "run" / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 5, "lo')
    train(recipe, resume=True)
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_portions_of_a_batch_add_up_to_the_batch(data: Path, tmp_path: Path) -> None:
    for size in (8, 2):
        train(tiny_recipe(data, tmp_path / str(size), f"train.micro_batch_size={size}", *NO_DROPOUT))
    whole, portions = ([row["loss"] for row in rows(tmp_path / str(size)) if "loss" in row] for size in (8, 2))
    assert whole == pytest.approx(portions, abs=1e-5)


@pytest.mark.slow
def test_two_processes_train_as_one_does(data: Path, tmp_path: Path) -> None:
    options = ("train.steps=50", "report.evaluate_every=25", "report.save_every=50", *NO_DROPOUT,
               "train.micro_batch_size=2")  # fmt: skip
    train(tiny_recipe(data, tmp_path / "one", *options))
    two = tiny_recipe(data, tmp_path / "two", *options)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    result = run_verb("--config", str(RECIPES / "laptop.toml"), *settings(two), launcher=torchrun)
    assert result.returncode == 0, result.stderr
    for name in ("loss", "validation_loss", "grad_norm"):
        one, two_values = ([row[name] for row in rows(tmp_path / run) if name in row] for run in ("one", "two"))
        assert one == pytest.approx(two_values, abs=1e-4)
    assert len([row for row in rows(tmp_path / "two") if "loss" in row]) == 50


# ------------------------------------------------------------------------------------------------------------- errors


def test_a_folder_that_holds_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run")
    train(recipe)
    before = curve(tmp_path / "run")
    with pytest.raises(
        UsageError, match=r"already holds a run: go on with --resume, choose .* deleting log.jsonl and state.pt"
    ):
        train(recipe)
    assert curve(tmp_path / "run") == before


def test_resuming_a_finished_run_changes_nothing(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run")
    train(recipe)
    before = curve(tmp_path / "run")
    assert train(recipe, resume=True)
    assert curve(tmp_path / "run") == before


def test_resume_where_there_is_nothing_yet_begins(data: Path, tmp_path: Path) -> None:
    assert train(tiny_recipe(data, tmp_path / "run"), resume=True)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("optimizer.learning_rate=0.01", "optimizer.learning_rate = 0.003, not 0.01"),
        ("train.steps=20", "train.steps = 12, not 20"),
        ("model.dim=32", "model.dim = 16, not 32"),
        ("train.seed=1", "train.seed = 1337, not 1"),
    ],
)
def test_a_run_is_not_resumed_by_another_recipe(data: Path, tmp_path: Path, setting: str, message: str) -> None:
    stopped_after(tiny_recipe(data, tmp_path / "run"), 4)
    with pytest.raises(TrainingError, match=message):
        train(tiny_recipe(data, tmp_path / "run", setting), resume=True)


def test_what_does_not_change_the_training_may_change(data: Path, tmp_path: Path) -> None:
    stopped_after(tiny_recipe(data, tmp_path / "run"), 4)
    assert train(tiny_recipe(data, tmp_path / "run", "train.micro_batch_size=4", "report.log_every=2"), resume=True)


def test_a_run_is_not_resumed_on_other_data(data: Path, tmp_path: Path) -> None:
    stopped_after(tiny_recipe(data, tmp_path / "run"), 4)
    other = make_data(tmp_path, vocab_size=319)
    with pytest.raises(TrainingError, match="trained on other data"):
        train(tiny_recipe(other, tmp_path / "run"), resume=True)


def test_a_damaged_state_is_no_traceback(data: Path, tmp_path: Path) -> None:
    stopped_after(tiny_recipe(data, tmp_path / "run"), 4)
    (tmp_path / "run" / "state.pt").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(CheckpointError, match="state.pt"):
        train(tiny_recipe(data, tmp_path / "run"), resume=True)


def test_a_loss_that_is_no_number_stops_with_the_step_and_its_batch(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")
    with pytest.raises(TrainingError, match=r"at step 2 the loss is (nan|inf).*failed-batch.json.*lower optimizer"):
        train(recipe)
    failed = json.loads((tmp_path / "run" / "failed-batch.json").read_text(encoding="utf-8"))
    assert failed["step"] == 2
    assert len(failed["windows"]) == len(failed["texts"]) == 8
    assert "Once" in " ".join(failed["texts"])


@pytest.mark.parametrize(
    "settings", [("train.batch_size=8", "train.micro_batch_size=3"), ("train.batch_size=2", "train.micro_batch_size=4")]
)
def test_a_batch_that_cannot_be_shared_out_is_an_error(data: Path, tmp_path: Path, settings: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="must be a multiple of the number of processes"):
        train(tiny_recipe(data, tmp_path / "run", *settings))


def test_a_context_longer_than_the_text_is_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="take a shorter context"):
        train(tiny_recipe(data, tmp_path / "run", "model.max_seq_len=100000"))


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(data: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands in for the disk: the log fits, the state does not."""
    recipe = tiny_recipe(data, tmp_path / "run")
    limit = 20_000  # bytes
    program = (
        "import resource, sys; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); "
        "from pretrain.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, "train", "--config", str(RECIPES / "laptop.toml"), *settings(recipe)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert re.fullmatch(r"error: .*run.* cannot be written.*\n", result.stderr)
    assert not (tmp_path / "run" / "state.pt").exists()
    assert train(recipe, resume=True)
    train(tiny_recipe(data, tmp_path / "whole"))
    assert curve(tmp_path / "run") == curve(tmp_path / "whole")


def test_a_log_that_cannot_be_written_says_why(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TrainingError, match="cannot be written .*: check the path and its permissions"):
        train(tiny_recipe(data, tmp_path / "file" / "run"))


def test_two_processes_do_not_train_into_one_folder(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run")
    first = Trainer(recipe, World(rank=0, size=1, device=torch.device("cpu")))
    first.start(resume=False)
    for resume in (False, True):
        with pytest.raises(UsageError, match="another process trains into .*run: wait for it"):
            train(recipe, resume=resume)
    first.close()
    assert train(recipe, resume=True)


def test_a_start_that_failed_leaves_no_run_behind(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingDependency):
        train(tiny_recipe(data, tmp_path / "run", "report.tensorboard=true"))
    assert train(tiny_recipe(data, tmp_path / "run"))


@pytest.mark.parametrize(
    ("settings", "step", "what"),
    [
        (("report.evaluate_every=1",), 1, "validation loss"),
        (("report.save_every=1",), 1, "largest weight"),
        (("train.steps=1",), 1, "validation loss"),
    ],
)
def test_a_model_that_is_broken_between_two_steps_is_not_kept(
    data: Path, tmp_path: Path, settings: tuple[str, ...], step: int, what: str
) -> None:
    """A learning rate that makes the weights infinite shows in the next figure, whichever it is."""
    recipe = tiny_recipe(data, tmp_path / "run", "optimizer.learning_rate=1e38", "optimizer.min_learning_rate=1e38",
                         "optimizer.warmup_steps=0", *settings)  # fmt: skip
    with pytest.raises(TrainingError, match=rf"at step {step} the {what} is (nan|inf)"):
        train(recipe)
    assert not (tmp_path / "run" / "best").exists()
    assert not (tmp_path / "run" / "state.pt").exists()
    assert "NaN" not in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "failed-batch.json").read_text(encoding="utf-8"))["step"] == step


# ----------------------------------------------------------------------------------------- the recipe is what is done


def trainer_of(recipe: Recipe, rank: int = 0, size: int = 1) -> Trainer:
    return Trainer(recipe, World(rank=rank, size=size, device=torch.device("cpu")))


def test_the_validation_loss_is_that_of_the_held_out_text_without_dropout(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", "model.dropout_residual=0.5", "model.dropout_embeddings=0.5",
                         "report.validation_windows=100000", "train.steps=6")  # fmt: skip
    train(recipe)
    row = next(row for row in rows(tmp_path / "run") if "validation_loss" in row)
    manifest = read_manifest(data)
    held_out = Windows(open_split(data, manifest, "validation"), context=16, stride=16)
    inputs, targets = held_out.batch(range(len(held_out)))
    model = load_pretrained(tmp_path / "run" / "last")
    expected = torch.nn.functional.cross_entropy(model(inputs, targets)[0].flatten(0, 1), targets.flatten())
    assert row["validation_loss"] == pytest.approx(expected.item(), rel=1e-5)


def test_a_few_validation_windows_are_spread_over_the_whole_split(data: Path, tmp_path: Path) -> None:
    trainer = trainer_of(tiny_recipe(data, tmp_path / "run", "report.validation_windows=4"))
    asked: list[int] = []
    batch = trainer.validation.batch

    def note_and_batch(numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        asked.extend(numbers)
        return batch(numbers)

    trainer.validation.batch = note_and_batch  # type: ignore[method-assign]
    trainer._evaluate(1)
    count = len(trainer.validation)
    assert asked == [i * count // 4 for i in range(4)]


def test_the_learning_rates_are_those_of_the_schedule(data: Path, tmp_path: Path) -> None:
    train(tiny_recipe(data, tmp_path / "run", "optimizer.warmup_steps=4", "optimizer.learning_rate=0.01",
                      "optimizer.min_learning_rate=0.001"))  # fmt: skip
    logged = [row["lr"] for row in rows(tmp_path / "run") if "lr" in row]
    expected = [learning_rate(i, steps=12, warmup_steps=4, highest=0.01, lowest=0.001) for i in range(12)]
    assert logged == pytest.approx(expected)


def test_clipping_limits_how_far_a_step_goes(data: Path, tmp_path: Path) -> None:
    """A gradient far below AdamW's eps moves nothing."""
    moved = []
    for clip in ("1.0", "1e-12"):
        trainer = trainer_of(tiny_recipe(data, tmp_path / clip, f"optimizer.clip={clip}", "optimizer.weight_decay=0"))
        before = trainer.model.norm.weight.detach().clone()
        trainer._step(1)
        moved.append((trainer.model.norm.weight - before).abs().max().item())
    assert moved[0] > 100 * moved[1]


@pytest.mark.parametrize("name", ["adamw", "torch"])
def test_the_optimizer_gets_what_the_recipe_says(data: Path, tmp_path: Path, name: str) -> None:
    recipe = tiny_recipe(data, tmp_path / "run", f"optimizer.name={name}", "optimizer.betas=[0.8, 0.9]",
                         "optimizer.eps=1e-5", "optimizer.weight_decay=0.3")  # fmt: skip
    trainer = trainer_of(recipe)
    matrices, vectors = trainer.optimizer.param_groups
    for group in (matrices, vectors):
        assert group["betas"] == (0.8, 0.9)
        assert group["eps"] == 1e-5
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert {parameter.dim() for parameter in matrices["params"]} == {2}
    assert {parameter.dim() for parameter in vectors["params"]} == {1}
    counted = len(matrices["params"]) + len(vectors["params"])
    assert counted == len(list(trainer.model.parameters()))


def test_processes_share_a_batch_and_draw_dropout_of_their_own(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, tmp_path / "run")
    trainers = [trainer_of(recipe, rank, size=2) for rank in range(2)]
    shares = [trainer._share(3) for trainer in trainers]
    assert sorted(shares[0] + shares[1]) == sorted(trainer_of(recipe)._share(3))
    assert len(shares[0]) == len(shares[1]) == 4
    seeds = {_seed_of(1337, step, rank) for step in range(5) for rank in range(3)}
    assert len(seeds) == 15


def test_the_stride_of_the_recipe_parts_the_windows(data: Path, tmp_path: Path) -> None:
    assert trainer_of(tiny_recipe(data, tmp_path / "run", "train.stride=3")).windows.stride == 3
    assert trainer_of(tiny_recipe(data, tmp_path / "run", "train.stride=none")).windows.stride == 16


@pytest.mark.slow
def test_an_error_on_the_main_process_is_told_once(data: Path, tmp_path: Path) -> None:
    """The others neither wait for ever nor add tracebacks of their own to torchrun's."""
    recipe = tiny_recipe(data, tmp_path / "run")
    train(recipe)
    torchrun = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    result = run_verb("--config", str(RECIPES / "laptop.toml"), *settings(recipe), launcher=torchrun)
    assert result.returncode != 0
    assert result.stderr.count("already holds a run") == 1
    assert "RuntimeError" not in result.stderr

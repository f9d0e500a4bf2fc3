"""The training loop: batches in a fixed order, one optimizer step after the other, reports and checkpoints between."""

import errno
import hashlib
import json
import math
import random
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from checkpoint import write_directory
from errors import TrainingError, UsageError
from inference.fast_modules import speed_up
from optimizer import AdamW
from pretrain.generation import continue_prompts
from pretrain.log import RunLog, require_tensorboard
from pretrain.model import build_model, flops_per_token, next_token_loss, parameter_count, parameter_groups
from pretrain.recipe import OptimizerRecipe, Recipe
from pretrain.run_folder import Progress, RunFolder
from pretrain.schedule import learning_rate
from pretrain.shards import Manifest, open_split, read_manifest
from pretrain.throughput import Meter, matmul_flops, pick_precision
from pretrain.windows import Windows, draw
from pretrain.world import World, join_world
from tokenizer import Tokenizer
from utils import seed_everything, write_text


def train(recipe: Recipe, *, resume: bool = False) -> bool:
    """Train by a recipe, from the start or from where the run in `recipe.out` was left; False if ctrl-C ended it.

    Raises UsageError, DataError, TokenizerError, CheckpointError or TrainingError, which say what to do.
    """
    with join_world(recipe.train.device) as world:
        trainer = Trainer(recipe, world)
        try:
            trainer.start(resume)
            with _stop_on_signal() as stop:
                trainer.run(stop)
        except BrokenPipeError:  # whoever read the screen's text is gone: no trouble of the run's
            raise
        except OSError as error:
            full = error.errno == errno.ENOSPC
            hint = "make room, and go on with --resume" if full else "check the path and its permissions"
            raise TrainingError(
                f"{error.filename or recipe.out} cannot be written ({error.strerror or error}): {hint}"
            ) from error
        finally:
            trainer.close()
        return trainer.progress.step == trainer.steps


@dataclass(frozen=True)
class StepResult:
    """What an optimizer step showed: loss (nats a token, over all processes), norm of the gradient, learning rate."""

    loss: float
    grad_norm: float
    rate: float


class Stop:
    """Set by ctrl-C: the loop ends after the step that it is in."""

    def __init__(self) -> None:
        """Nobody has asked yet."""
        self.asked = False


class Trainer:
    """A model, its optimizer and its data, somewhere between the first and the last step."""

    def __init__(self, recipe: Recipe, world: World) -> None:
        """Open the data, and build the model and the optimizer."""
        self.recipe, self.world = recipe, world
        self.folder = RunFolder(Path(recipe.out))
        self.micro_batch_size = _micro_batch_size(recipe, world.size)
        self._open_data()
        seed_everything(recipe.train.seed)
        self.model = build_model(recipe.model, self.tokenizer.n_words, self.tokenizer.pad_id).to(world.device)
        speed_up(self.model)
        self.local: nn.Module = self.model  # what this process computes with
        self.module: nn.Module = self.model  # the same, with the gradients of all processes
        self.optimizer = _build_optimizer(self.model, recipe.optimizer)
        self.precision = pick_precision(recipe.train.precision, world.device)
        self.steps = recipe.steps(len(self.windows))
        self.progress = Progress()
        self.log: RunLog | None = None

    def _open_data(self) -> None:
        """Open both splits and the tokenizer that they were written with."""
        folder, model = Path(self.recipe.data), self.recipe.model
        self.manifest: Manifest = read_manifest(folder)
        self.data_hash = _checksum(self.manifest)
        self.tokenizer = Tokenizer(tokenizer_model=folder / self.manifest.tokenizer.file)
        stride = self.recipe.train.stride or model.max_seq_len
        shards = {name: open_split(folder, self.manifest, name) for name in ("train", "validation")}
        self.windows = Windows(shards["train"], model.max_seq_len, stride, name=f"{folder}: the train split")
        self.validation = Windows(
            shards["validation"], model.max_seq_len, model.max_seq_len, name=f"{folder}: the validation split"
        )

    def start(self, resume: bool) -> None:
        """Begin a new run, or load the state of the one that is there."""
        if self.recipe.report.tensorboard:
            require_tensorboard()
        self.world.on_main(self.folder.lock)
        if resume and self.folder.state.exists():
            self.progress = self.folder.restore(self.model, self.optimizer, self.recipe, self.data_hash)
        self.world.on_main(lambda: self._open_folder(resume))
        if self.recipe.train.compile:
            self.local = torch.compile(self.model)  # type: ignore[assignment]
        # DDP averages the gradients over the processes; the weights started equal, from one seed
        self.module = DistributedDataParallel(self.local) if self.world.size > 1 else self.local

    def _open_folder(self, resume: bool) -> None:
        """Open the folder and its log, on the main process."""
        self.folder.open(self.recipe, resume=resume, step=self.progress.step)
        self.log = RunLog(self.folder.log, self.steps, self.progress.step, self.recipe.report.tensorboard)
        self._introduce()

    def close(self) -> None:
        """Close the log, and let other runs into the folder."""
        if self.log is not None:
            self.log.close()
        self.folder.release()

    def _introduce(self) -> None:
        """Say what is trained, on what, and where it goes."""
        train = self.manifest.splits["train"]
        tokens = self.steps * self.recipe.train.batch_size * self.recipe.model.max_seq_len
        self._say(f"{parameter_count(self.model):,} parameters, {train.tokens:,} tokens of text; {self.steps:,} steps")
        self._say(
            f"= {tokens:,} tokens, {self.world.size} process(es) on {self.world.device.type}, {self.precision}; "
            f"into {self.folder.path}"
        )
        if self.progress.step:
            self._say(f"going on after step {self.progress.step:,}")

    def _say(self, text: str) -> None:
        """Print a line, on the main process only."""
        if self.log is not None:
            self.log.say(text)

    def run(self, stop: Stop) -> None:
        """Train from the next step to the last; ends early, with everything saved, when `stop` is asked."""
        report = self.recipe.report
        meter = self._meter()
        for step in range(self.progress.step + 1, self.steps + 1):
            with meter.timed():
                result = self._step(step)
            self.progress.step, self.progress.seconds = step, meter.seconds
            self.progress.losses.append(result.loss)
            last = step == self.steps
            if last or step % report.log_every == 0:
                self._report(result, meter.row())
            if last or step % report.evaluate_every == 0:
                self._evaluate(step)
            stopped = self._anyone_asked(stop)
            if last or stopped or step % report.save_every == 0:
                self._save()
            if stopped and not last:
                self._say(f"stopped after step {step:,}: go on with --resume")
                break

    def _meter(self) -> Meter:
        """Return a meter that goes on where the run was left."""
        recipe, world = self.recipe, self.world
        return Meter(
            tokens_per_step=recipe.train.batch_size * recipe.model.max_seq_len,
            flops_per_token=flops_per_token(self.model),
            flops_per_second=matmul_flops(world.device, self.precision) * world.size,
            device=world.device,
            steps=self.progress.step,
            seconds=self.progress.seconds,
        )

    def _report(self, result: StepResult, speed: dict[str, float | int]) -> None:
        """Log the steps since the last report."""
        losses, self.progress.losses = self.progress.losses, []
        row = {"step": self.progress.step, "loss": sum(losses) / len(losses), "lr": result.rate}
        if self.log is not None:
            self.log.write(row | {"grad_norm": result.grad_norm} | speed, self.steps)

    def _step(self, step: int) -> StepResult:
        """Take one optimizer step."""
        optimizer, recipe = self.recipe.optimizer, self.recipe
        rate = learning_rate(
            step - 1,
            steps=self.steps,
            warmup_steps=optimizer.warmup_steps,
            highest=optimizer.learning_rate,
            lowest=optimizer.min_learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        # Dropout's numbers depend on nothing but the step and the process: a resumed run draws the same ones.
        torch.manual_seed(_seed_of(recipe.train.seed, step, self.world.rank))
        self.module.train()
        share = self._share(step)
        portions = [share[i : i + self.micro_batch_size] for i in range(0, len(share), self.micro_batch_size)]
        loss = torch.zeros((), device=self.world.device)
        for i, portion in enumerate(portions):
            with self._without_sync(i < len(portions) - 1):
                part = self._loss(self.module, *self.windows.batch(portion)) / len(portions)
                part.backward()  # type: ignore[no-untyped-call]
            loss += part.detach()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), optimizer.clip or math.inf)
        result = StepResult(loss=float(self.world.mean(loss)), grad_norm=float(norm), rate=rate)
        self._check_finite(step, {"loss": result.loss, "gradient's norm": result.grad_norm})
        self.optimizer.step()
        self.optimizer.zero_grad()
        return result

    def _batch(self, step: int) -> list[int]:
        """Return the windows of a step's global batch: the next ones in the stream of shuffled epochs."""
        size, seed = self.recipe.train.batch_size, self.recipe.train.seed
        return [draw(position, len(self.windows), seed) for position in range((step - 1) * size, step * size)]

    def _share(self, step: int) -> list[int]:
        """Return the windows of a step that are this process's."""
        return self._batch(step)[self.world.rank :: self.world.size]

    def _loss(self, module: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the mean loss in nats a token. Shapes: both (bs, seqlen), on the CPU."""
        inputs, targets = (tokens.to(self.world.device, non_blocking=True) for tokens in (inputs, targets))
        return next_token_loss(module, inputs, targets, self.precision)

    def _without_sync(self, wanted: bool) -> AbstractContextManager[None]:
        """Let DDP add up gradients without exchanging them, until the last portion of a step."""
        if wanted and isinstance(self.module, DistributedDataParallel):
            return self.module.no_sync()
        return nullcontext()

    def _check_finite(self, step: int, figures: Mapping[str, float]) -> None:
        """Raise TrainingError, which names the step and its batch, if a figure is no number any more."""
        if all(map(math.isfinite, figures.values())):
            return
        numbers = self._batch(step)
        file = self.folder.path / "failed-batch.json"
        if self.world.is_main:
            texts = [self.tokenizer.decode(row) for row in self.windows.batch(numbers)[0].tolist()]
            write_text(file, json.dumps({"step": step, "windows": numbers, "texts": texts}))
        told = " and ".join(f"the {name} is {value}" for name, value in figures.items())
        raise TrainingError(
            f"at step {step} {told} (its batch is in {file}). "
            "Start anew with a lower optimizer.learning_rate, or a smaller optimizer.clip"
        )

    @torch.inference_mode()
    def _evaluate(self, step: int) -> None:
        """Measure the validation loss, keep the model if it is the best so far, and show a sample."""
        self.local.eval()
        count = min(len(self.validation), self.recipe.report.validation_windows)
        chosen = [i * len(self.validation) // count for i in range(count)]
        mine = chosen[self.world.rank :: self.world.size]
        total = torch.zeros((), device=self.world.device)
        for i in range(0, len(mine), self.micro_batch_size):
            portion = mine[i : i + self.micro_batch_size]
            total += self._loss(self.local, *self.validation.batch(portion)) * len(portion)
        loss = float(self.world.total(total)) / count
        self._check_finite(step, {"validation loss": loss})
        best = self.progress.best_loss is None or loss < self.progress.best_loss
        if best:
            self.progress.best_loss = loss
        self.world.on_main(lambda: self._report_validation(step, loss, best))
        if self.world.is_main:
            self._show_sample()

    def _report_validation(self, step: int, loss: float, best: bool) -> None:
        """Log the validation loss, and keep the model if none was better."""
        bits = self.manifest.splits["validation"].bits_per_byte(loss)
        if self.log is not None:
            self.log.write({"step": step, "validation_loss": loss, "validation_bits_per_byte": bits}, self.steps)
        if best:
            self._write_checkpoint("best", loss)

    def _show_sample(self) -> None:
        """Print how the model goes on after the recipe's prompt."""
        report = self.recipe.report
        if report.sample_tokens:
            (text,) = continue_prompts(
                self.model, self.tokenizer, [report.sample_prompt], max_new_tokens=report.sample_tokens, seed=0
            )
            self._say(f"    {text.strip()}")

    def _save(self) -> None:
        """Keep the state to resume from, and the model as it is now, unless it is broken."""
        largest = torch.stack([parameter.detach().abs().max() for parameter in self.model.parameters()]).max()
        self._check_finite(self.progress.step, {"largest weight": float(largest)})
        self.world.on_main(self._write_state)

    def _write_state(self) -> None:
        """Write the state, and `last`."""
        self._write_checkpoint("last", None)
        self.folder.save(self.model, self.optimizer, self.progress, self.recipe, self.data_hash)

    def _write_checkpoint(self, name: str, loss: float | None) -> None:
        """Write the model as a checkpoint directory of the run."""
        readme = (
            f"# {self.folder.path.name}: {name}\n\nA Llama after step {self.progress.step:,} of {self.steps:,} of the "
            f"recipe in ../recipe.json.\n"
        )
        if loss is not None:
            bits = self.manifest.splits["validation"].bits_per_byte(loss)
            readme += f"Validation loss {loss:.4f} nats a token, {bits:.4f} bits per byte.\n"
        write_directory(
            self.folder.path / name,
            self.model.config,
            self.model.state_dict(),
            Path(self.recipe.data) / self.manifest.tokenizer.file,
            readme,
            getattr(torch, self.recipe.report.checkpoint_dtype),
        )

    def _anyone_asked(self, stop: Stop) -> bool:
        """Say whether a process was asked to stop: then all do, after the same step."""
        asked = torch.tensor(float(stop.asked), device=self.world.device)
        return bool(self.world.total(asked) > 0)


def _micro_batch_size(recipe: Recipe, processes: int) -> int:
    """Return how many windows a process takes at once. Raises UsageError if the global batch cannot be shared out."""
    share, rest = divmod(recipe.train.batch_size, processes)
    micro = recipe.train.micro_batch_size or share
    if rest or share % micro:
        raise UsageError(
            f"train.batch_size ({recipe.train.batch_size}) must be a multiple of the number of processes ({processes}) "
            f"times train.micro_batch_size ({micro}): every portion weighs the same"
        )
    return micro


def _checksum(manifest: Manifest) -> str:
    """Return one checksum for all the tokens of a data folder."""
    shards = [shard.sha256 for name in sorted(manifest.splits) for shard in manifest.splits[name].shards]
    return hashlib.sha256("".join(shards).encode()).hexdigest()


def _build_optimizer(model: nn.Module, recipe: OptimizerRecipe) -> torch.optim.Optimizer:
    """Return the optimizer that the recipe names."""
    groups = parameter_groups(model, recipe.weight_decay)
    if recipe.name == "torch":
        return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True)
    return AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps)


def _seed_of(seed: int, step: int, rank: int) -> int:
    """Return the seed of a step's dropout on one process."""
    return random.Random(f"{seed}/{step}/{rank}").getrandbits(63)


@contextmanager
def _stop_on_signal() -> Iterator[Stop]:
    """Turn ctrl-C (and a scheduler's SIGTERM) into a request to stop; a second ctrl-C ends the program at once."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        stop.asked = True
        signal.signal(number, before[signal.Signals(number)])

    before = {name: signal.signal(name, ask) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)

"""Many runs from a plan in TOML: what has a row already is not run again, so a matrix goes on where it was stopped.

Each run has a process of its own, which gives an honest peak of memory and keeps the others going if it is killed. Its
row is written when it is finished.
"""

import functools
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from threading import Lock
from typing import Any

import torch

from advanced.catalogue import METHODS, TASKS, in_order, make
from advanced.rows import Row, add_row, identity
from advanced.runner import CPU, Run, checksum, run
from advanced.task import SCORED, Part, load_task
from advanced.training import PRECISIONS, Recipe
from errors import CheckpointError, DataError, MinLlamaError

ROOT = Path(__file__).resolve().parent.parent
PLAN = Path(__file__).with_name("matrix.toml")
NUMBERS = {field.name for field in fields(Recipe)} - {"seed"}
OF_A_BLOCK = ("runs", "seeds", "checkpoints")  # what a block says, and none of its runs
ADDING = Lock()  # rows are added one at a time


@dataclass(frozen=True)
class Failure:
    """A run that could not be done, and why."""

    run: Run
    error: Exception

    def __str__(self) -> str:
        """Return the run in a few words and what went wrong; an error that is no user's with its type."""
        known = isinstance(self.error, MinLlamaError)
        return f"{title(self.run)}: {'' if known else f'{type(self.error).__name__}: '}{self.error}"


def read_plan(path: Path = PLAN, seeds: Sequence[int] | None = None) -> list[Run]:
    """Return the runs of a plan, in its order; `seeds` takes the place of the plan's.

    A plan names checkpoints, and has blocks. What a block says holds for its runs, and each may say otherwise:

        [checkpoints]
        storybook = "checkpoints/storybook"       # from the root of the project

        [[block]]
        task = "sst"
        checkpoint = "storybook"                  # or checkpoints = ["storybook", ...]: all runs with each
        seeds = [1, 2, 3]
        lr = 5e-4
        runs = [{ methods = ["plain"] }, { methods = ["lora"], lr = 3e-3, lora = { rank = 4 } }]

    Raises DataError, naming block and run, for what no run can be made of: methods, options and values are tried here.
    """
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise DataError(f"{path}: no TOML: {error}") from error
    found: list[Run] = []
    for number, block in enumerate(plan.get("block", []), start=1):
        try:
            found += _runs_of_block(block, plan.get("checkpoints", {}), seeds)
        except (KeyError, TypeError, MinLlamaError) as error:
            raise DataError(f"{path}: block {number}: {_why(error)}") from error
    return found


def missing(runs: Iterable[Run], rows: Iterable[Row], parts: Sequence[Part] = SCORED) -> list[Run]:
    """Return the runs that have no row yet, each once, in their order.

    A row counts if all of `parts` were scored, and with the weights that the checkpoint has now, if it is there.
    """
    done = {identity(row): row for row in rows if set(parts) <= set(row.get("accuracy", {}))}
    weights_now = functools.cache(_checksum_if_there)  # a large file is read once

    def is_done(key: str, run: Run) -> bool:
        if key not in done:
            return False
        now = weights_now(run.checkpoint)
        return now is None or done[key].get("checkpoint_sha256") == now

    unique = {identity(run.identity()): run for run in runs}
    return [run for key, run in unique.items() if not is_done(key, run)]


def run_all(runs: Sequence[Run], path: Path, jobs: int, parts: Sequence[Part] = SCORED) -> list[Failure]:
    """Do runs, `jobs` at a time, and add the row of each to `path` as soon as it is there; return what failed.

    A run that fails, or whose process is killed, does not keep the others from being done. On an interrupt, those that
    have not begun are left.
    """
    threads = max(1, torch.get_num_threads() // jobs)
    failures = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting: dict[Future[Row], Run] = {pool.submit(_do_and_add, run, path, threads, parts): run for run in runs}
        try:
            for number, future in enumerate(as_completed(waiting), start=1):
                done = waiting[future]
                try:
                    line = f"{title(done)}: {_results(future.result())}"
                except Exception as error:  # whatever it is, it is this run's alone
                    failures.append(Failure(done, error))
                    line = str(failures[-1])
                print(f"{number}/{len(runs)} {line}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def title(run: Run) -> str:
    """Return a run in a few words."""
    identity = run.identity()
    return f"{run.task} {identity['checkpoint']} {'+'.join(identity['methods'])} seed {run.recipe.seed}"


def _do_and_add(single: Run, path: Path, threads: int, parts: Sequence[Part]) -> Row:
    """Do one run and add its row to `path`, in a thread: no interrupt comes between the two."""
    row = _do_apart(single, threads, tuple(parts))
    with ADDING:
        add_row(path, row)
    return row


def _do_apart(single: Run, threads: int, parts: tuple[Part, ...]) -> Row:
    """Do one run in a process and a pool of its own: a process that is killed breaks the pool that it is in."""
    context = get_context("spawn")  # fork would copy PyTorch's threads in whatever state they are
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(_do, single, threads, parts).result()


def _do(single: Run, threads: int, parts: Sequence[Part]) -> Row:
    """Do one run; this is what the process does."""
    torch.set_num_threads(threads)
    row, _ = run(single, load_task(single.task), CPU, parts)
    return row


def _results(row: Row) -> str:
    """Return a row's accuracies and seconds as a line."""
    accuracies = ", ".join(f"{part} {value:.3f}" for part, value in row["accuracy"].items() if value is not None)
    return f"{accuracies} ({row['seconds']:.0f} s)"


def _checksum_if_there(checkpoint: Path | None) -> str | None:
    """Return the checksum of a checkpoint's weights; None where none are: on this machine, or for a baseline."""
    try:
        return checksum(checkpoint)
    except CheckpointError:
        return None


def _runs_of_block(block: dict[str, Any], checkpoints: Mapping[str, str], seeds: Sequence[int] | None) -> list[Run]:
    """Return the runs of a block: of each checkpoint all runs, of each run all seeds.

    Raises DataError for a run that is none, and KeyError or TypeError for what the block lacks.
    """
    shared = {name: value for name, value in block.items() if name not in OF_A_BLOCK}
    if "checkpoints" in block and "checkpoint" in block:
        raise DataError("it has both checkpoint and checkpoints: leave one of them out")
    places: list[dict[str, Any]] = [{"checkpoint": name} for name in block.get("checkpoints", [])]
    found: list[Run] = []
    for place in places or [{}]:
        for single in block["runs"]:
            try:
                one = _run_of({**shared, **place, **single}, checkpoints)
            except (KeyError, TypeError, ValueError, MinLlamaError) as error:
                raise DataError(f"run {single}: {_why(error)}") from error
            found += [replace(one, recipe=replace(one.recipe, seed=seed)) for seed in seeds or block["seeds"]]
    return found


def _run_of(settings: dict[str, Any], checkpoints: Mapping[str, str]) -> Run:
    """Return the run that one entry of a plan describes; any error says what is wrong with it."""
    methods = in_order(list(settings.pop("methods")))
    name, task = settings.pop("checkpoint", None), settings.pop("task")
    if task not in TASKS:
        raise DataError(f"there is no task {task!r}: choose among {', '.join(TASKS)}")
    dropout = settings.pop("dropout", Run.dropout)
    if "precision" in settings:
        settings["precision"] = PRECISIONS[settings["precision"]]
    options = {key: settings.pop(key) for key in list(settings) if key in METHODS}
    if unknown := sorted(settings.keys() - NUMBERS):
        raise DataError(f"nothing is called {unknown[0]!r}")
    for method in methods:
        make(method, options)  # refuses what it cannot have
    return Run(task, ROOT / checkpoints[name] if name else None, tuple(methods), options, Recipe(**settings), dropout)


def _why(error: Exception) -> str:
    """Return what an error says, with a name that is missing named as such."""
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)

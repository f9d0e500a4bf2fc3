"""Many runs from a plan in TOML: what has a row already is not run again, so a matrix goes on where it was stopped.

Each run has a process of its own, which gives an honest peak of memory, and its row is written when it is finished.
"""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from advanced.catalogue import METHODS, in_order
from advanced.rows import Row, add_row, identity
from advanced.runner import CPU, Run, run
from advanced.task import SCORED, TASKS, Part, load_task
from advanced.training import Recipe
from errors import DataError, MinLlamaError

ROOT = Path(__file__).resolve().parent.parent
PLAN = Path(__file__).with_name("matrix.toml")
ROWS = Path(__file__).with_name("results.jsonl")
NUMBERS = {field.name for field in fields(Recipe)} - {"seed"}
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Failure:
    """A run that could not be done, and why."""

    run: Run
    error: MinLlamaError


def read_plan(path: Path = PLAN, seeds: Sequence[int] | None = None) -> list[Run]:
    """Return the runs of a plan, in its order; `seeds` takes the place of the plan's. Raises DataError.

    A plan names checkpoints, and has blocks. What a block says holds for its runs, and each may say otherwise:

        [checkpoints]
        storybook = "checkpoints/storybook"       # from the root of the project

        [[block]]
        task = "sst"
        checkpoint = "storybook"
        seeds = [1, 2, 3]
        lr = 5e-4
        runs = [{ methods = ["plain"] }, { methods = ["lora"], lr = 3e-3, lora = { rank = 4 } }]
    """
    try:
        plan = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError
        raise DataError(f"{path}: no TOML: {error}") from error
    found: list[Run] = []
    for number, block in enumerate(plan.get("block", []), start=1):
        shared = {name: value for name, value in block.items() if name not in ("runs", "seeds")}
        for single in block.get("runs", []):
            try:
                one = _run_of({**shared, **single}, plan.get("checkpoints", {}))
            except (KeyError, TypeError, ValueError, MinLlamaError) as error:
                raise DataError(f"{path}: block {number}, run {single}: {_why(error)}") from error
            found += [replace(one, recipe=replace(one.recipe, seed=seed)) for seed in seeds or block["seeds"]]
    return found


def missing(runs: Iterable[Run], rows: Iterable[Row]) -> list[Run]:
    """Return the runs that have no row yet, each once, in their order."""
    done = {identity(row) for row in rows}
    unique = {identity(run.identity()): run for run in runs}
    return [run for key, run in unique.items() if key not in done]


def run_all(runs: Sequence[Run], path: Path, jobs: int, parts: Sequence[Part] = SCORED) -> list[Failure]:
    """Do runs, `jobs` at a time, and add the row of each to `path` as soon as it is there; return what failed."""
    threads = max(1, torch.get_num_threads() // jobs)
    failures = []
    context = get_context("spawn")  # fork would copy PyTorch's threads in whatever state they are
    with ProcessPoolExecutor(jobs, context, max_tasks_per_child=1) as pool:
        waiting: dict[Future[Row], Run] = {pool.submit(_do, run, threads, tuple(parts)): run for run in runs}
        try:
            for number, future in enumerate(as_completed(waiting), start=1):
                done = waiting[future]
                try:
                    row = future.result()
                except MinLlamaError as error:
                    failures.append(Failure(done, error))
                    print(f"{number}/{len(runs)} {title(done)}: {error}", flush=True)
                    continue
                add_row(path, row)
                print(f"{number}/{len(runs)} {title(done)}: {_results(row)}", flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failures


def title(run: Run) -> str:
    """Return a run in a few words."""
    identity = run.identity()
    return f"{run.task} {identity['checkpoint']} {'+'.join(identity['methods'])} seed {run.recipe.seed}"


def _do(single: Run, threads: int, parts: Sequence[Part]) -> Row:
    """Do one run, in a process of its own."""
    torch.set_num_threads(threads)
    row, _ = run(single, load_task(single.task), CPU, parts)
    return row


def _results(row: Row) -> str:
    """Return a row's accuracies and seconds as a line."""
    accuracies = ", ".join(f"{part} {value:.3f}" for part, value in row["accuracy"].items() if value is not None)
    return f"{accuracies} ({row['seconds']:.0f} s)"


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
    return Run(task, ROOT / checkpoints[name] if name else None, tuple(methods), options, Recipe(**settings), dropout)


def _why(error: Exception) -> str:
    """Return what an error says, with a name that is missing named as such."""
    return f"{error} is missing or unknown" if isinstance(error, KeyError) else str(error)

"""What `run` and `matrix` do, behind the parsing of their options."""

import argparse
import sys

from advanced.catalogue import METHODS, Options, Value, make
from advanced.matrix import missing, read_plan, run_all, title
from advanced.rows import ROWS, TUNING, Row, add_row, read_rows
from advanced.runner import Run, Scores, run, write_outputs
from advanced.task import SCORED, Part, load_task
from advanced.training import PRECISIONS, Recipe
from errors import UsageError
from run_llama import choose_weights
from utils import pick_device

ROWS_FILE = "advanced-results.jsonl"


def run_seeds(args: argparse.Namespace, names: list[str]) -> None:
    """Do a run for each seed; print the results, add a row for each, and write the best one's predictions.

    The best one is that of the best accuracy on the selection part. Raises a MinLlamaError.
    """
    if args.save is not None and METHODS[names[0]].kind != "finetuning":
        raise UsageError(f"--save: {names[0]} trains no weights of a Llama: leave it out")
    options = _options(args, names)
    for name in names:
        make(name, options)  # a mistake in an option is told before the data is read
    device = pick_device(args.device)
    task = load_task(args.task, limit=args.limit)
    needs_none = METHODS[names[0]].kind == "baseline"
    checkpoint = None if needs_none else args.checkpoint or choose_weights(None)
    parts: tuple[Part, ...] = ("selection",) if args.only_selection else SCORED
    best: tuple[float, Scores] | None = None
    for seed in args.seeds:
        recipe = _recipe(args, seed)
        single = Run(task.name, checkpoint, tuple(names), options, recipe, args.dropout, args.limit)
        print(title(single))
        weights_out = None if args.save is None else args.save / f"{task.name}-{'+'.join(names)}-seed{seed}.safetensors"
        row, scores = run(single, task, device, parts, weights_out)
        _show(row)
        add_row(args.rows or args.out / ROWS_FILE, row)
        if best is None or row["accuracy"]["selection"] > best[0]:
            best = row["accuracy"]["selection"], scores
    if best is None or args.only_selection:
        return
    if args.limit is not None:
        print("No predictions are written: with --limit they would not be of all sentences.")
    else:
        print(f"wrote {', '.join(map(str, write_outputs(args.out, task, best[1])))}")


def run_matrix(args: argparse.Namespace) -> int:
    """Do the runs of a plan that have no row yet; return 2 if one of them failed."""
    parts: tuple[Part, ...] = ("selection",) if args.only_selection else SCORED
    rows = args.rows or (TUNING if args.only_selection else ROWS)
    planned = [run for run in read_plan(args.plan, args.seeds) if all(word in title(run) for word in args.only)]
    wanted = missing(planned, read_rows(rows), parts)
    print(f"{len(planned)} runs are planned, {len(wanted)} of them have no row yet")
    if args.dry_run:
        print("\n".join(map(title, wanted)))
        return 0
    failures = run_all(wanted, rows, args.jobs, parts)
    for failure in failures:
        print(f"error: {failure}", file=sys.stderr)
    return 2 if failures else 0


def _recipe(args: argparse.Namespace, seed: int) -> Recipe:
    """Return the numbers of a training that the options name."""
    return Recipe(
        epochs=args.epochs,
        batch_size=args.batch_size,
        lr=args.lr or max([METHODS[name].lr or 0.0 for name in args.method]) or Recipe.lr,
        weight_decay=args.weight_decay,
        max_sentence_len=args.max_sentence_len,
        checks=args.checks,
        seed=seed,
        precision=PRECISIONS[args.precision],
    )


def _options(args: argparse.Namespace, names: list[str]) -> Options:
    """Return the options of the methods that were given on the command line.

    Raises UsageError for an option of a method that takes no part.
    """
    given: dict[str, dict[str, Value]] = {}
    for name, entry in METHODS.items():
        for option in entry.options:
            value = getattr(args, f"{name}.{option}")
            if value is None:
                continue
            if name not in names:
                raise UsageError(f"--{name}-{option.replace('_', '-')} is for {name}: add it to --method")
            given.setdefault(name, {})[option] = value
    return given


def _show(row: Row) -> None:
    """Print the results of a run."""
    for part, value in row["accuracy"].items():
        shown = "none: the labels of the file are placeholders" if value is None else f"{value:.3f}"
        print(f"{part} acc :: {shown}")
    if row["chosen"]:
        print(f"chosen on the selection part: {row['chosen']}")
    trained, kept = row["parameters"]["trained"], row["saved_bytes"]
    print(f"{row['seconds']:.0f} s, {trained:,} parameters trained, {kept:,} bytes to keep")

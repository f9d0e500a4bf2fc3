"""The methods, one at a time or a whole matrix of them, and the table of what they bought.

python -m advanced run --task sst --method lora cosine --seeds 1 2 3
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from advanced.catalogue import METHODS, TASKS, in_order
from advanced.rows import ROWS
from arguments import at_least_one, positive, probability, seed
from errors import exit_status

HERE = Path(__file__).parent


def main(argv: list[str] | None = None) -> int:
    """Run one of the verbs; return the exit status."""
    args = build_parser().parse_args(argv)
    verb: Callable[[argparse.Namespace], int] = args.call
    stopped = "Stopped. The runs that were finished have their rows; `matrix` goes on with the others."
    return exit_status(lambda: verb(args), stopped)


def build_parser() -> argparse.ArgumentParser:
    """Describe the verbs. What they need is imported when they run, so that --help does not wait for it."""
    parser = argparse.ArgumentParser(prog="python -m advanced", description="How do I get an A+?")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _add_run(verbs)
    _add_matrix(verbs)
    table = verbs.add_parser(
        "table",
        help="write the results into README.md",
        description="Write the table of the results into advanced/README.md, from the rows.",
        epilog="example: python -m advanced table",
    )
    table.add_argument("--rows", type=Path, default=ROWS, metavar="FILE", help="default: %(default)s")
    table.add_argument("--readme", type=Path, default=HERE / "README.md", metavar="FILE", help="default: %(default)s")
    table.set_defaults(call=_table)
    _add_plot(verbs)
    _add_decode(verbs)
    gguf = verbs.add_parser(
        "import-gguf",
        help="make a checkpoint of a Llama in llama.cpp's form",
        description="Make a checkpoint directory, for run_llama.py and every method here, of a Llama in a GGUF file.",
        epilog="example: python -m advanced import-gguf weights/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "
        "--out weights/smollm2/model",
    )
    gguf.add_argument("file", type=Path, metavar="FILE", help="a GGUF with weights in Q4_1, Q8_0, F16 or F32")
    gguf.add_argument("--out", type=Path, required=True, metavar="DIR", help="the checkpoint directory to make")
    gguf.add_argument("--exact", action="store_true", help="keep the file's very numbers, in float32: twice the space")
    gguf.set_defaults(call=_import_gguf)
    return parser


def _add_run(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe `run`: the numbers of the training, then the options of the methods."""
    listed = "\n".join(f"  {name:18} {entry.what}" for name, entry in METHODS.items())
    run = verbs.add_parser(
        "run",
        help="classify with one method or several together",
        description=f"Classify with one method or several together.\n\nmethods:\n{listed}",
        epilog="example: python -m advanced run --task sst --method lora cosine --lora-rank 4 --seeds 1 2 3",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = run.add_argument
    add("--task", choices=TASKS, default="demo", help="the data; default: %(default)s")
    add("--method", nargs="+", default=["plain"], choices=METHODS, metavar="METHOD", help="default: plain")
    add("--checkpoint", type=Path, metavar="PATH", help="weights; default: what run_llama.py takes")
    add("--seeds", type=seed, nargs="+", default=[1337], metavar="N", help="a run for each; default: 1337")
    add("--epochs", type=at_least_one, default=5, metavar="N", help="default: %(default)s")
    add("--batch-size", type=at_least_one, default=8, metavar="N", help="sentences a step; default: %(default)s")
    add("--lr", type=positive, help=f"learning rate; default: {_learning_rates()}, and 2e-05 otherwise")
    add("--weight-decay", type=probability, default=0.0, help="default: %(default)s")
    add("--dropout", type=probability, default=0.3, help="before the head; default: %(default)s")
    add("--max-sentence-len", type=at_least_one, metavar="TOKENS", help="default: the model's context")
    add("--checks", type=at_least_one, default=1, metavar="N", help="of the selection part, an epoch; default: 1")
    add("--precision", choices=("float32", "bfloat16"), default="float32", help="of matrix products; default: float32")
    add("--limit", type=at_least_one, metavar="N", help="take N sentences of each part, to try things")
    add("--only-selection", action="store_true", help="score the selection part alone: for choosing options")
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")
    add("--out", type=Path, default=Path(), metavar="DIR", help="where predictions go; default: here")
    add("--save", type=Path, metavar="DIR", help="save what was trained there, and nothing else, a file for each seed")
    add("--rows", type=Path, metavar="FILE", help="rows of results; default: advanced-results.jsonl in --out")
    for name, entry in METHODS.items():
        for option, about in entry.options.items():
            flag, kind = f"--{name}-{option.replace('_', '-')}", type(about.default)
            text = f"{about.what}; default: {about.default}"
            add(flag, dest=f"{name}.{option}", type=kind, metavar=kind.__name__.upper(), help=text)
    run.set_defaults(call=_run)


def _learning_rates() -> str:
    """Return which methods have a learning rate of their own."""
    return ", ".join(f"{entry.lr:g} for {name}" for name, entry in METHODS.items() if entry.lr)


def _add_plot(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe `plot`."""
    plot = verbs.add_parser(
        "plot",
        help="draw what each training gained over plain finetuning",
        description="Draw what each training gained over plain finetuning, with its standard error, from the rows.",
        epilog="example: python -m advanced plot --rows advanced-results.jsonl --out gains.png",
    )
    add = plot.add_argument
    add("--rows", type=Path, default=ROWS, metavar="FILE", help="default: %(default)s")
    add("--task", choices=TASKS, default="sst", help="the data; default: %(default)s")
    add("--out", type=Path, default=HERE / "gains.png", metavar="FILE.png", help="default: %(default)s")
    plot.set_defaults(call=_plot)


def _add_matrix(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe `matrix`."""
    matrix = verbs.add_parser(
        "matrix",
        help="do all runs of a plan that have no row yet",
        description="Do all runs of a plan that have no row yet. Stopped, the same command goes on.",
        epilog="example: python -m advanced matrix --jobs 2 --only sst storybook",
    )
    add = matrix.add_argument
    add("--plan", type=Path, default=HERE / "matrix.toml", metavar="FILE", help="default: %(default)s")
    add("--rows", type=Path, metavar="FILE", help="default: results.jsonl here, or tuning.jsonl with --only-selection")
    add("--jobs", type=at_least_one, default=1, metavar="N", help="runs at a time; default: %(default)s")
    add("--seeds", type=seed, nargs="+", metavar="N", help="in place of the plan's")
    add("--only", nargs="+", default=[], metavar="WORD", help="runs with all these words in their title")
    add("--only-selection", action="store_true", help="score the selection part alone: for choosing options")
    add("--dry-run", action="store_true", help="list the runs that are missing")
    matrix.set_defaults(call=_matrix)


def _add_decode(verbs: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe `decode`."""
    decode = verbs.add_parser(
        "decode",
        help="continue texts by several strategies, and measure what comes out",
        description="Continue texts by several strategies; measure how often they repeat themselves, and how likely "
        "the model finds them.",
        epilog="example: python -m advanced decode --strategy greedy top-p contrastive --seeds 1 2 3",
    )
    add = decode.add_argument
    add("--checkpoint", type=Path, metavar="PATH", help="weights; default: what run_llama.py takes")
    add("--prompts", type=Path, metavar="FILE", help="a text a line, whose beginnings are continued; default: built in")
    add("--strategy", nargs="+", default=[], metavar="NAME", help="default: all")
    add("--max-new-tokens", type=at_least_one, default=100, metavar="N", help="default: %(default)s")
    add("--seeds", type=seed, nargs="+", default=[1, 2, 3], metavar="N", help="default: 1 2 3")
    add("--rows", type=Path, metavar="FILE", help="write the measures there, as JSON")
    decode.set_defaults(call=_decode)


def _run(args: argparse.Namespace) -> int:
    """Do a run for each seed, and write the predictions of the best one."""
    names = in_order(args.method)  # what cannot be combined is refused before anything heavy is imported
    from advanced import verbs

    verbs.run_seeds(args, names)
    return 0


def _matrix(args: argparse.Namespace) -> int:
    """Do what is missing of a plan."""
    from advanced import verbs

    return verbs.run_matrix(args)


def _table(args: argparse.Namespace) -> int:
    """Write the results into the README."""
    from advanced.report import update

    update(args.readme, args.rows)
    return 0


def _plot(args: argparse.Namespace) -> int:
    """Draw the results."""
    from advanced.plot import plot_gains
    from advanced.rows import read_rows

    plot_gains(read_rows(args.rows), args.task, args.out)
    print(f"wrote {args.out}")
    return 0


def _decode(args: argparse.Namespace) -> int:
    """Continue texts by several strategies."""
    from advanced.decoding import decode
    from run_llama import choose_weights

    checkpoint = args.checkpoint or choose_weights(None)
    decode(checkpoint, args.prompts, args.strategy, args.max_new_tokens, args.seeds, args.rows)
    return 0


def _import_gguf(args: argparse.Namespace) -> int:
    """Make a checkpoint of a GGUF file."""
    from advanced.import_gguf import import_gguf

    import_gguf(args.file, args.out, exact=args.exact)
    print(f"wrote {args.out}: try `python run_llama.py --pretrained-model-path {args.out}`")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""From a text file to a model, a verb a step.

python -m pretrain train-tokenizer story.txt --vocab-size 2048 --type bpe --out runs/laptop/tokenizer
python -m pretrain prepare story.txt --tokenizer runs/laptop/tokenizer --out runs/laptop/data
python -m pretrain train --config pretrain/recipes/laptop.toml
"""

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from arguments import at_least_one, seed
from errors import UsageError, exit_status
from pretrain import addition, plot, sample

if TYPE_CHECKING:
    Verbs = argparse._SubParsersAction[argparse.ArgumentParser]

# Those of `vocabulary` and `export`, which take a while to import.
TYPES = ("unigram", "bpe", "word", "char", "byte-bpe")
IDS = ("llama", "mp-acl")
FORMATS = ("hf", "gguf", "llama2c")


def main(argv: list[str] | None = None) -> int:
    """Run one of the verbs; return its status, 2 after an error that says what to do, or 130 after ctrl-C.

    141 says, as a shell does, that nobody reads the output any more: that is no error in `... | head`.
    """
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows ASCII alone still gets the rest
    return exit_status(lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    """Run the verb; return its status, 141 if its output is read no more."""
    run: Callable[[argparse.Namespace], int] = args.run
    try:
        status = run(args)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes when it ends
        return 141


def build_parser() -> argparse.ArgumentParser:
    """Describe the verbs. What they need is imported when they run, so that --help does not wait for it."""
    parser = argparse.ArgumentParser(
        prog="python -m pretrain",
        description="How is a checkpoint made? From a text: train-tokenizer, prepare, train, then sample.",
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    _describe_train_tokenizer(verbs)
    _describe_prepare(verbs)
    _describe_train(verbs)
    _describe_plot(verbs)
    _describe_sample(verbs)
    _describe_evaluate(verbs)
    _describe_export(verbs)
    _describe_addition(verbs)
    return parser


def _add(verbs: "Verbs", name: str, what: str, example: str) -> argparse.ArgumentParser:
    """Add a verb with its one-line description and an example."""
    return verbs.add_parser(name, help=what, description=f"{what[0].upper()}{what[1:]}.", epilog=f"example: {example}")


# ---------------------------------------------------------------------------------------------------- train-tokenizer


def _describe_train_tokenizer(verbs: "Verbs") -> None:
    """Describe `train-tokenizer`."""
    example = "python -m pretrain train-tokenizer story.txt --vocab-size 2048 --type bpe --out runs/laptop/tokenizer"
    verb = _add(verbs, "train-tokenizer", "learn a tokenizer from text", example)
    verb.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help=".txt, .jsonl, either as .gz, or .tar.gz")
    verb.add_argument(
        "--vocab-size", type=at_least_one, required=True, metavar="N", help="pieces, the special ones included"
    )
    verb.add_argument("--type", choices=TYPES, default="bpe", help="default: %(default)s")
    verb.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the tokenizer goes")
    verb.add_argument("--ids", choices=IDS, default="llama", help="llama: unk 0, bos 1, eos 2; mp-acl: pad first")
    verb.add_argument("--seed", type=seed, default=0, help="draws lines of too long a text; default: %(default)s")
    verb.add_argument("--clean", action="store_true", help="leave out documents that are not printable ASCII")
    verb.set_defaults(run=_train_tokenizer)


def _train_tokenizer(args: argparse.Namespace) -> int:
    """Learn a tokenizer."""
    from pretrain import vocabulary

    tokenizer = vocabulary.train(
        args.texts, args.type, args.vocab_size, args.out, ids=args.ids, seed=args.seed, clean=args.clean
    )
    print(f"wrote {tokenizer.path}: {tokenizer.n_words:,} pieces ({args.type})")
    if args.type in ("char", "word"):
        count = vocabulary.without_piece(args.texts, tokenizer, args.type, clean=args.clean)
        if count:
            what = "characters" if args.type == "char" else "words"
            print(f"{count:,} different {what} of the text have no piece and are lost: a larger --vocab-size has more")
    return 0


# ------------------------------------------------------------------------------------------------------------ prepare


def _describe_prepare(verbs: "Verbs") -> None:
    """Describe `prepare`."""
    example = "python -m pretrain prepare story.txt --tokenizer runs/laptop/tokenizer --out runs/laptop/data"
    verb = _add(verbs, "prepare", "turn text into token shards", example)
    verb.add_argument("texts", nargs="+", type=Path, metavar="TEXT", help=".txt, .jsonl, either as .gz, or .tar.gz")
    verb.add_argument("--tokenizer", type=Path, required=True, metavar="DIR", help="what train-tokenizer wrote")
    verb.add_argument("-o", "--out", type=Path, required=True, metavar="DIR", help="where the shards go")
    verb.add_argument(
        "--validation", type=float, default=0.01, metavar="SHARE", help="of the documents; default: %(default)s"
    )
    verb.add_argument("--jobs", type=at_least_one, metavar="N", help="processes; default: one a core")
    verb.add_argument("--clean", action="store_true", help="leave out documents that are not printable ASCII")
    verb.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> int:
    """Write the shards, and say what is in them."""
    from pretrain.prepare import prepare

    manifest = prepare(
        args.texts, args.tokenizer, args.out, validation=args.validation, jobs=args.jobs, clean=args.clean
    )
    for name, split in manifest.splits.items():
        print(
            f"{name}: {split.documents:,} documents, {split.tokens:,} tokens "
            f"({split.text_bytes / split.tokens:.2f} bytes a token), {len(split.shards)} shard(s)"
        )
    print(f"wrote {args.out}")
    return 0


# -------------------------------------------------------------------------------------------------------------- train


def _describe_train(verbs: "Verbs") -> None:
    """Describe `train`."""
    example = "python -m pretrain train --config pretrain/recipes/laptop.toml --set train.steps=500"
    verb = _add(verbs, "train", "train a model by a recipe", example)
    verb.add_argument("--config", type=Path, required=True, metavar="RECIPE", help="a TOML file, see pretrain/recipes/")
    verb.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="replace a value of the recipe; may be repeated"
    )
    verb.add_argument("--resume", action="store_true", help="go on with the run in the recipe's `out`, if there is one")
    verb.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    """Train; 130 if ctrl-C ended it early."""
    from pretrain.recipe import read_recipe
    from pretrain.trainer import train

    return 0 if train(read_recipe(args.config, args.set), resume=args.resume) else 130


# ----------------------------------------------------------------------------------- plot, sample, export, addition


def _describe_plot(verbs: "Verbs") -> None:
    """Describe `plot`."""
    verb = _add(verbs, "plot", "draw the loss curves of runs", "python -m pretrain plot runs/laptop -o curves.png")
    plot.add_arguments(verb)
    verb.set_defaults(run=plot.run)


def _describe_sample(verbs: "Verbs") -> None:
    """Describe `sample`."""
    example = 'python -m pretrain sample runs/laptop/best --prompt "Once upon a time" --stream'
    verb = _add(verbs, "sample", "let a checkpoint write", example)
    sample.add_arguments(verb)
    verb.set_defaults(run=sample.run)


def _describe_evaluate(verbs: "Verbs") -> None:
    """Describe `evaluate`."""
    example = "python -m pretrain evaluate runs/laptop/best --data runs/laptop/data --context 128 512 --baselines"
    verb = _add(verbs, "evaluate", "measure checkpoints on held-out text", example)
    verb.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT", help="folders or files of weights")
    verb.add_argument("--data", type=Path, required=True, metavar="DIR", help="what prepare wrote")
    verb.add_argument(
        "--context", nargs="+", type=at_least_one, default=[], metavar="N", help="tokens at once; default: as trained"
    )
    verb.add_argument("--baselines", action="store_true", help="score counts of tokens and of pairs as well")
    verb.add_argument("--plot", type=Path, metavar="PNG", help="draw bits per byte against the context")
    verb.add_argument(
        "--samples",
        type=Path,
        metavar="FILE",
        help="what `sample -o` wrote, prompts included: how much of it is copied?",
    )
    verb.add_argument("--corpus", nargs="+", type=Path, default=[], metavar="TEXT", help="copied from these texts")
    verb.set_defaults(run=_evaluate)


def _evaluate(args: argparse.Namespace) -> int:
    """Print a table of scores, and how much of the samples is copied."""
    from plots import require_png
    from pretrain import evaluate
    from pretrain.corpus import read_documents

    if args.plot:
        require_png(args.plot)
    if bool(args.samples) != bool(args.corpus):
        raise UsageError("--samples and --corpus belong together: what was written, and what it may be copied from")
    scores = [score for path in args.checkpoints for score in evaluate.evaluate(path, args.data, args.context)]
    print(evaluate.table(scores + (evaluate.baselines(args.data) if args.baselines else [])))
    if args.plot:
        evaluate.plot(scores, args.plot)
        print(f"wrote {args.plot}")
    if args.samples:
        sources = (text for path in args.corpus for text in read_documents(path))
        copied = evaluate.copying(read_documents(args.samples), sources)
        print(
            f"{copied.share:.1%} of the words of {args.samples} stand in runs of {copied.run} words or more that the "
            f"corpus has as well; the longest such run has {copied.longest} words"
        )
    return 0


def _describe_export(verbs: "Verbs") -> None:
    """Describe `export`."""
    example = "python -m pretrain export runs/laptop/best --format gguf --out storyteller.gguf"
    verb = _add(verbs, "export", "write a checkpoint in a form that other programs read", example)
    verb.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a folder or file of weights, with tokenizer")
    verb.add_argument("--format", choices=FORMATS, required=True, help="Hugging Face, llama.cpp, llama2.c")
    verb.add_argument("-o", "--out", type=Path, required=True, metavar="PATH", help="a folder for hf, else a file")
    verb.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> int:
    """Export a checkpoint."""
    from pretrain.export import export

    print(f"wrote {export(args.checkpoint, args.format, args.out)}")
    return 0


def _describe_addition(verbs: "Verbs") -> None:
    """Describe the two verbs of the addition recipe."""
    make = _add(
        verbs, "make-addition", "write sums to learn addition from", "python -m pretrain make-addition -o runs/addition"
    )
    addition.add_arguments_make(make)
    make.set_defaults(run=addition.run_make)
    example = "python -m pretrain check-addition runs/addition/last runs/addition/held-out.txt"
    check = _add(verbs, "check-addition", "count the held-out sums that a checkpoint gets right", example)
    addition.add_arguments_check(check)
    check.set_defaults(run=addition.run_check)


if __name__ == "__main__":
    sys.exit(main())

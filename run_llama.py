"""Run the Llama: continue a text, classify by asking it, or finetune it to classify.

python run_llama.py --option generate
python run_llama.py --option prompt --train data/demo-train.txt --dev data/demo-dev.txt --test data/demo-test.txt \
        --label-names data/demo-label-mapping.json \
        --dev_out demo-dev-prompting-output.txt --test_out demo-test-prompting-output.txt
"""

import argparse
import io
import json
import os
import platform
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from arguments import at_least_one, positive, probability, seed
from errors import MinLlamaError, UsageError
from utils import sha256_of, write_text

PROMPT = (
    "I have wanted to see this thriller for a while, and it didn't disappoint. "
    "Keanu Reeves, playing the hero John Wick, is"
)
MAX_NEW_TOKENS = 75
DEFAULT_WEIGHTS = "stories42M.pt"
# What runs instead when the default is not there and no weights were named, best first.
FALLBACK_WEIGHTS = ("checkpoints/storybook", "weights/stories260K/stories260K.bin")
# How the names of the output files must end, so that a submission's files cannot be mixed up.
OUTPUT_ENDINGS = {"prompt": "prompting-output.txt", "finetune": "finetuning-output.txt"}
RUN_INFO = "run-info.json"
# What `--fast` is made of; the hand-out does not have it.
FAST = Path(__file__).resolve().parent / "inference" / "tasks.py"
# Options that need `--fast`, and which `--option` they are for.
FAST_OPTIONS = {
    "stream": "generate",
    "top_k": "generate",
    "top_p": "generate",
    "quantize": "generate",
    "compile": "finetune",
}
INTERRUPTED = 130  # the shell's status of a program that ctrl-C ended


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; names and defaults of the first group are the assignment's."""
    parser = argparse.ArgumentParser(
        description="Generate text with a Llama, classify by prompting it, or finetune it.",
        epilog="example: python run_llama.py --option generate --prompt 'Once upon a time' --max_new_tokens 50",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--option", choices=("generate", "prompt", "finetune"), default="generate", help="what to do")
    add("--train", default="data/cfimdb-train.txt", metavar="FILE", help="sentences to train on")
    add("--dev", default="data/cfimdb-dev.txt", metavar="FILE", help="sentences that choose the best epoch")
    add("--test", default="data/cfimdb-test.txt", metavar="FILE", help="sentences that are predicted at the end")
    add("--label-names", default="data/cfimdb-label-mapping.json", metavar="FILE", help="names of the labels 0, 1, …")
    add("--pretrained-model-path", metavar="PATH", help=f"weights; {DEFAULT_WEIGHTS}, or the next best that is there")
    add("--max_sentence_len", type=at_least_one, metavar="TOKENS", help="cut sentences to this; else to the context")
    add("--seed", type=seed, default=1337, help="start of all random numbers")
    add("--epochs", type=at_least_one, default=5, help="passes over the training data")
    add("--use_gpu", action="store_true", help="the same as --device cuda")
    add("--generated_sentence_low_temp_out", default="generated-sentence-temp-0.txt", metavar="FILE", help="output")
    add("--generated_sentence_high_temp_out", default="generated-sentence-temp-1.txt", metavar="FILE", help="output")
    add("--dev_out", default="cfimdb-dev-prompting-output.txt", metavar="FILE", help="predictions for --dev")
    add("--test_out", default="cfimdb-test-prompting-output.txt", metavar="FILE", help="predictions for --test")
    add("--batch_size", type=at_least_one, default=8, help="sentences a step")
    add("--hidden_dropout_prob", type=probability, default=0.3, help="dropout before the classifier's head")
    add("--lr", type=positive, default=2e-5, help="learning rate")
    more = parser.add_argument_group("more, all optional").add_argument
    more("--prompt", default=PROMPT, metavar="TEXT", help="the text that is continued")
    more("--max_new_tokens", type=at_least_one, default=MAX_NEW_TOKENS, metavar="N", help="length of the continuation")
    more("--tokenizer", metavar="FILE", help="the weights' tokenizer; by default the one that lies beside them")
    more("--device", choices=("auto", "cpu", "cuda", "mps"), help="where to compute; cpu by default, auto: the fastest")
    more("--plots", metavar="DIR", help="draw learning curves and a confusion matrix as PNG into this folder")
    more("--resume", action="store_true", help="go on with a finetuning that was stopped")
    more("--reproduce_2024", action="store_true", help="no causal mask, and the other choices of 2024's editions")
    more("--fast", action="store_true", help="the same results sooner: KV cache and more (not in the hand-out)")
    more("--stream", action="store_true", help="with --fast, print tokens as they come")
    more("--top_k", type=at_least_one, metavar="N", help="with --fast, draw from the N likeliest tokens")
    more("--top_p", type=positive, metavar="P", help="with --fast, draw from the likeliest tokens up to probability P")
    more("--quantize", choices=("int8",), help="with --fast, weights of eight bits: sooner, and not quite the same")
    more("--compile", action="store_true", help="with --fast, compile the model to finetune first: pays for long runs")
    return parser


def check_options(args: argparse.Namespace) -> None:
    """Fill in what depends on several options; raise UsageError where two contradict each other."""
    if args.use_gpu and args.device not in (None, "cuda"):
        raise UsageError(f"--use_gpu means --device cuda, but --device is {args.device}: leave one of them out")
    args.device = "cuda" if args.use_gpu else args.device or "cpu"
    if args.resume and args.option != "finetune":
        raise UsageError(f"--resume goes on with a finetuning, but --option is {args.option}")
    if args.plots and args.option == "generate":
        raise UsageError("--plots draws the results of prompt and finetune; generating text has none")
    _check_fast(args)
    if args.generated_sentence_low_temp_out == args.generated_sentence_high_temp_out:
        raise UsageError(
            "the texts at low and high temperature need two output files: the second would replace the first"
        )
    if args.prompt.encode("utf-8", "ignore").decode("utf-8") != args.prompt:
        raise UsageError("--prompt is not valid UTF-8: check the terminal's encoding")
    named_by = args.train if args.option == "finetune" else args.dev  # prompting reads no training data
    args.dataset = Path(named_by).stem.removesuffix("-train").removesuffix("-dev")
    if args.option in OUTPUT_ENDINGS:
        _check_output_names(args)


def _check_fast(args: argparse.Namespace) -> None:
    """Raise UsageError, with what to type, if `--fast` cannot be had, or an option that needs it stands alone."""
    for name, option in FAST_OPTIONS.items():
        if getattr(args, name) and args.option != option:
            raise UsageError(f"--{name} is for --option {option}, but --option is {args.option}: leave --{name} out")
        if getattr(args, name) and not args.fast:
            raise UsageError(f"--{name} needs --fast: add it")
    if args.fast and args.reproduce_2024:
        raise UsageError("--fast needs the causal mask, which --reproduce_2024 takes away: leave one of them out")
    if args.fast and not FAST.is_file():
        raise UsageError("--fast needs the folder inference/, which the hand-out does not have: leave --fast out")


def _check_output_names(args: argparse.Namespace) -> None:
    """Raise UsageError, with the options to type, if an output file has the name of another task's output."""
    ending = OUTPUT_ENDINGS[args.option]
    if args.dev_out.endswith(f"dev-{ending}") and args.test_out.endswith(f"test-{ending}"):
        return
    raise UsageError(
        f"with --option {args.option}, --dev_out must end in 'dev-{ending}' and --test_out in 'test-{ending}'. "
        f"Add: --dev_out {args.dataset}-dev-{ending} --test_out {args.dataset}-test-{ending}"
    )


def check_outputs(args: argparse.Namespace) -> None:
    """Make the folders of the outputs, and raise UsageError if one cannot be written: now, not after hours of work."""
    files = [args.generated_sentence_low_temp_out, args.generated_sentence_high_temp_out]
    if args.option != "generate":
        files = [args.dev_out, args.test_out]
    folders = {Path(file).parent for file in files} | ({Path(args.plots)} if args.plots else set())
    if args.option == "finetune":
        folders.add(Path())  # where the weights are saved
    for file in files:
        if not Path(file).name or (Path(file).exists() and not Path(file).is_file()):
            raise UsageError(f"the output '{file}' is no regular file: name another")
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"the folder {folder} cannot be made ({error.strerror}): name another") from error
        if not os.access(folder, os.W_OK):
            raise UsageError(f"the folder {folder.resolve()} cannot be written to: check its permissions")


def choose_weights(named: str | None) -> Path:
    """Return the weights that were named, or else the best that are there, with a line on the screen.

    Raises UsageError if none were named and none are there.
    """
    if named is not None:
        return Path(named)
    for candidate in (DEFAULT_WEIGHTS, *FALLBACK_WEIGHTS):
        if _weights_file(Path(candidate)).is_file():
            instead = (
                f" ({DEFAULT_WEIGHTS} is not there: ./setup.sh fetches it)" if candidate != DEFAULT_WEIGHTS else ""
            )
            print(f"Weights: {candidate}{instead}")
            return Path(candidate)
    raise UsageError(
        f"no weights are here (looked for {', '.join((DEFAULT_WEIGHTS, *FALLBACK_WEIGHTS))}): run ./setup.sh with a "
        "network, or with MINLLAMA_ASSETS set to a folder that has them, or name others with --pretrained-model-path"
    )


def _weights_file(weights: Path) -> Path:
    """Return the file that holds the weights of a checkpoint, which is a file or a directory."""
    return weights / "model.safetensors" if weights.is_dir() else weights


def write_run_info(args: argparse.Namespace, results: dict[str, Any], seconds: float) -> Path:
    """Add this run to the `run-info.json` beside its outputs: which weights, options and versions made them."""
    from importlib.metadata import version  # takes as long to import as all the rest

    path = Path(results["outputs"][0]).parent / RUN_INFO
    try:
        runs = dict(json.loads(path.read_text(encoding="utf-8"))["runs"])
    except (OSError, ValueError, KeyError, TypeError):
        runs = {}  # no file yet, or none of ours
    packages = ("torch", "sentencepiece", "numpy")
    name = args.option if args.option == "generate" else f"{args.option} {args.dataset}"
    runs[name + (" 2024" if args.reproduce_2024 else "")] = {
        "checkpoint": {"name": args.weights.name, "sha256": args.weights_sha256},
        "options": {name: value if name == "prompt" else _without_home(value) for name, value in vars(args).items()},
        "seed": args.seed,
        "versions": {"python": platform.python_version()} | {package: version(package) for package in packages},
        "seconds": round(seconds, 1),
        **results,
        "outputs": [Path(output).name for output in results["outputs"]],
    }
    write_text(path, json.dumps({"runs": runs}, indent=2) + "\n")
    return path


def _without_home(value: Any) -> Any:
    """Return an option's value as others may see it: of an absolute path, which tells whose machine it is, the name."""
    if isinstance(value, Path) or (isinstance(value, str) and Path(value).is_absolute()):
        return Path(value).name if Path(value).is_absolute() else str(value)
    return value


def _place_of(error: NotImplementedError) -> str:
    """Return the file and the function that raised an error."""
    code = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(code.filename).name}, {code.name}"


def main(argv: list[str] | None = None) -> int:
    """Run one of the three tasks; return the exit status."""
    args = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows ASCII alone still gets the rest
    start = time.monotonic()
    try:
        check_options(args)
        check_outputs(args)
        args.weights = choose_weights(args.pretrained_model_path)
        weights_file = _weights_file(args.weights)
        args.weights_sha256 = sha256_of(weights_file) if weights_file.is_file() else None  # the task says what is wrong
        if args.fast:  # either imports torch: after the options are checked
            from inference.tasks import run_task
        else:
            from tasks import run_task
        results = run_task(args)
        print(f"Wrote {', '.join(results['outputs'])} and {write_run_info(args, results, time.monotonic() - start)}")
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except NotImplementedError as error:
        print(f"error: not implemented yet: {_place_of(error)}. See `python sanity_check.py`", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}: check the path, its permissions, and the space on the disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = ": with --resume, the same command goes on after the last finished epoch"
        print(f"\nStopped{again if args.option == 'finetune' else ''}.", file=sys.stderr)
        return INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())

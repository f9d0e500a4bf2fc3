"""`python -m pretrain sample`: what a checkpoint writes. The work is done in `generation`."""

import argparse
import codecs
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from arguments import at_least_one, seed
from errors import DataError, UsageError
from utils import write_text

if TYPE_CHECKING:  # torch takes a second to import, and `--help` does without it
    from inference.sampling import Sampling
    from llama import Llama
    from tokenizer import Tokenizer

SEPARATOR = "<|endoftext|>"  # parts several texts, on a line of its own, as it parts documents for `prepare`
FILTERS = ("top_k", "top_p", "min_p", "typical", "epsilon")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sample` to a parser."""
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="a folder or file of weights, with its tokenizer")
    add("--prompt", action="append", default=[], metavar="TEXT", help="a text to continue; may be given again")
    add(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="texts to continue, one a line; with no prompt at all, the model begins",
    )
    add("--max-new-tokens", type=at_least_one, default=200, metavar="N", help="default: %(default)s")
    add(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0: always the likeliest token; default: %(default)s",
    )
    add("--top-k", type=int, metavar="K", help="keep the K likeliest tokens")
    add(
        "--top-p",
        type=float,
        default=0.95,
        metavar="P",
        help="keep the likeliest tokens up to this probability; default: %(default)s, 1: all",
    )
    add("--min-p", type=float, metavar="P", help="keep tokens that have this share of the likeliest one's probability")
    add("--typical", type=float, metavar="P", help="keep the tokens of typical surprise up to this probability")
    add("--epsilon", type=float, metavar="P", help="keep tokens of at least this probability")
    add(
        "--stop",
        action="append",
        default=[],
        metavar="TEXT",
        help="end a continuation in front of this; may be given again",
    )
    add("--seed", type=seed, default=1337, help="start of the random numbers; default: %(default)s")
    add("--stream", action="store_true", help="one prompt after the other, each piece as soon as it is there")
    add("-o", "--out", type=Path, metavar="FILE", help="write the texts to this file as well, with their prompts")
    add(
        "--context",
        type=at_least_one,
        metavar="N",
        help="tokens to read at once; more than in training only for ALiBi models",
    )
    add("--device", choices=("auto", "cpu", "cuda", "mps"), default="cpu", help="default: %(default)s")


def run(args: argparse.Namespace) -> int:
    """Continue the prompts and print the texts. Raises a MinLlamaError for anything that cannot be used."""
    prompts = _prompts(args)
    if args.out is not None and args.out.exists() and not args.out.is_file():
        raise UsageError(f"{args.out} is no regular file: name another for --out")
    sampling = _sampling(args)
    model, tokenizer = _load(args)
    _note_on_context(model, tokenizer, prompts, args.max_new_tokens)
    texts: list[str] = []
    for number, pieces in enumerate(_pieces(model, tokenizer, prompts, sampling, args)):
        if number:
            print(SEPARATOR)
        texts.append("")
        for piece in pieces:
            print(piece, end="", flush=True)
            texts[-1] += piece
        print()
    if args.out is not None:
        write_text(args.out, f"\n{SEPARATOR}\n".join(texts) + "\n")
        print(f"wrote {args.out}", file=sys.stderr)
    return 0


def read_prompts(path: Path) -> list[str]:
    """Read prompts, one a line; spaces are kept, lines with nothing else are left out.

    Raises DataError if the file is missing, is no UTF-8, or holds no prompt.
    """
    try:
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): name a file with one prompt a line") from error
    prompts = []
    for number, line in enumerate(lines, start=1):
        try:
            prompts.append(line.removesuffix(b"\r").decode("utf-8"))
        except UnicodeDecodeError as error:
            raise DataError(f"{path}:{number}: not UTF-8: save the file as UTF-8") from error
    prompts = [prompt for prompt in prompts if prompt.strip()]
    if not prompts:
        raise DataError(f"{path}:1: the file holds no prompt: write one on each line")
    return prompts


def _prompts(args: argparse.Namespace) -> list[str]:
    """Return the prompts of the command line and those of the file, or an empty one: the model begins by itself."""
    for text in [*args.prompt, *args.stop]:
        if text.encode("utf-8", "ignore").decode("utf-8") != text:
            raise UsageError("--prompt and --stop must be valid UTF-8: check the terminal's encoding")
    if "" in args.stop:
        raise UsageError("--stop needs a text: every continuation would end in front of nothing")
    prompts: list[str] = [*args.prompt, *(read_prompts(args.prompts) if args.prompts else [])]
    return prompts or [""]


def _load(args: argparse.Namespace) -> tuple["Llama", "Tokenizer"]:
    """Load the checkpoint and its tokenizer, on the device that was asked for."""
    from checkpoint import check_finite
    from llama import load_pretrained
    from pretrain.generation import set_context
    from tokenizer import find_tokenizer
    from utils import pick_device

    device = pick_device(args.device)
    model = load_pretrained(args.checkpoint)
    check_finite(args.checkpoint, model.state_dict())
    tokenizer = find_tokenizer(args.checkpoint, model.vocab_size)
    if args.context is not None:
        set_context(model, args.context)
    return model.to(device), tokenizer


def _note_on_context(model: "Llama", tokenizer: "Tokenizer", prompts: list[str], max_new_tokens: int) -> None:
    """Say so if a text may grow past what the model reads at once."""
    longest = max(len(tokenizer.encode(prompt, bos=True, eos=False)) for prompt in prompts)
    context = model.params.max_seq_len
    if longest + max_new_tokens > context:
        print(
            f"Past {context} tokens, the model's context, each new token is predicted from the last {context} alone.",
            file=sys.stderr,
        )


def _pieces(
    model: "Llama", tokenizer: "Tokenizer", prompts: list[str], sampling: "Sampling", args: argparse.Namespace
) -> Iterator[Iterator[str]]:
    """Yield the pieces of each text in turn; without --stream, a text is one piece."""
    from pretrain.generation import continue_prompts, stream

    options: dict[str, Any] = {"max_new_tokens": args.max_new_tokens, "sampling": sampling, "stop": args.stop}
    if args.stream:
        for i, prompt in enumerate(prompts):
            yield stream(model, tokenizer, prompt, seed=args.seed + i, **options)
    else:
        for text in continue_prompts(model, tokenizer, prompts, seed=args.seed, show_progress=True, **options):
            yield iter([text])


def _sampling(args: argparse.Namespace) -> "Sampling":
    """Return how to draw tokens. Raises UsageError for a value outside its range."""
    from inference.sampling import Sampling

    try:
        return Sampling(temperature=args.temperature, **{name: getattr(args, name) for name in FILTERS})
    except ValueError as error:
        raise UsageError(
            f"{error} (the options --temperature, --top-k, --top-p, --min-p, --typical, --epsilon)"
        ) from error

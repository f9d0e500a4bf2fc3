"""A checkpoint in the form that other programs read: `transformers` (hf), llama.cpp (gguf) and llama2.c (llama2c).

What a form cannot hold is refused with the reason; nothing is left out silently, the tokenizer included.
"""

from collections.abc import Callable
from pathlib import Path

from checkpoint import Tensors, check_finite, read_checkpoint
from config import LlamaConfig
from errors import CheckpointError, UsageError
from pretrain import export_gguf, export_hf, export_llama2c
from tokenizer import Tokenizer, find_tokenizer

Writer = Callable[[Path, LlamaConfig, Tensors, Tokenizer], None]

WRITERS: dict[str, Writer] = {"hf": export_hf.write, "gguf": export_gguf.write, "llama2c": export_llama2c.write}
SUFFIXES = {"hf": "", "gguf": ".gguf", "llama2c": ".bin"}  # "": a folder
PROGRAMS = {"hf": "transformers' LlamaForCausalLM", "gguf": "llama.cpp", "llama2c": "llama2.c"}


def export(checkpoint: Path, form: str, out: Path) -> Path:
    """Write a checkpoint and its tokenizer in another form, and return `out`.

    `form` is "hf" (`out` is a folder, new or empty), "gguf" (a .gguf file) or "llama2c" (a .bin file, and tokenizer.bin
    beside it). Raises UsageError for a form or a path that cannot be, CheckpointError or TokenizerError if the
    checkpoint cannot be read or the form cannot hold it, and MissingDependency if a package is needed.
    """
    _check_target(form, out)
    config, tensors = read_checkpoint(checkpoint)
    _check_model(checkpoint, config, form)
    check_finite(checkpoint, tensors)
    WRITERS[form](out, config, tensors, find_tokenizer(checkpoint, config.vocab_size))
    return out


def _check_target(form: str, out: Path) -> None:
    """Raise UsageError unless there is such a form, and `out` is a path for it."""
    if form not in WRITERS:
        raise UsageError(f"unknown --format '{form}': choose one of {', '.join(WRITERS)}")
    suffix = SUFFIXES[form]
    if suffix and out.suffix != suffix:
        raise UsageError(f"{out}: --format {form} writes a {suffix} file: name one")
    if not suffix and out.is_file():
        raise UsageError(f"{out} is a file, and --format {form} writes a folder: name another")
    if not suffix and out.is_dir() and any(out.iterdir()):
        raise UsageError(f"{out} is not empty: name a new folder, so that no file of another model stays in it")


def _check_model(checkpoint: Path, config: LlamaConfig, form: str) -> None:
    """Raise CheckpointError for a model that none of the programs can run: each has RoPE and a causal mask."""
    what = None
    if config.position_embedding_type != "rotary":
        what = "tells positions by ALiBi, where {} rotates queries and keys"
    elif not config.causal:
        what = "was trained without a causal mask, where {} has one"
    if what:
        raise CheckpointError(
            f"{checkpoint} {what.format(PROGRAMS[form])}: its text would be another. Use it with this project, "
            "or train one with position_embedding_type = 'rotary' and causal = true."
        )

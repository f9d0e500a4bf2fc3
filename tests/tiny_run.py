"""What the tests of `run_llama.py` share: a folder with a tiny model and a slice of data, and command lines for it."""

import shutil
from pathlib import Path

from tests.tiny import random_llama, save_llama
from tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ["--pretrained-model-path", "model/tiny.pt"]


def make_workplace(folder: Path, tokenizer_model: Path) -> None:
    """Put a model, its tokenizer and a slice of the demo data into a folder."""
    (folder / "model").mkdir()
    vocab_size = Tokenizer(tokenizer_model=tokenizer_model).n_words
    save_llama(folder / "model" / "tiny.pt", random_llama(vocab_size=vocab_size, max_seq_len=128))
    shutil.copy(tokenizer_model, folder / "model" / "tokenizer.model")
    (folder / "data").mkdir()
    for split, rows in (("train", 21), ("dev", 10), ("test", 7)):
        lines = (ROOT / "data" / f"demo-{split}.txt").read_text(encoding="utf-8").splitlines()[:rows]
        (folder / "data" / f"demo-{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    shutil.copy(ROOT / "data" / "demo-label-mapping.json", folder / "data")


def prompting(*more: str) -> list[str]:
    """Return the command line of a zero-shot run."""
    return _task("prompt", "prompting", *more)


def finetuning(*more: str) -> list[str]:
    """Return the command line of a short finetuning."""
    return _task("finetune", "finetuning", "--epochs=3", "--lr=1e-3", "--batch_size=8", *more)


def _task(option: str, output: str, *more: str) -> list[str]:
    """Return the command line of a classification task on the slice of the demo data."""
    files = [f"--{split}=data/demo-{split}.txt" for split in ("train", "dev", "test")]
    outputs = [f"--{split}_out=demo-{split}-{output}-output.txt" for split in ("dev", "test")]
    return ["--option", option, *WEIGHTS, *files, "--label-names=data/demo-label-mapping.json", *outputs, *more]

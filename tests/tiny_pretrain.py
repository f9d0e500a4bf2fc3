"""A corpus, a tokenizer and shards of a few kilobytes, for the tests of pretrain/."""

from pathlib import Path

from pretrain import vocabulary
from pretrain.prepare import prepare
from pretrain.recipe import Recipe, read_recipe

RECIPES = Path(__file__).parent.parent / "pretrain" / "recipes"
NAMES = ("Lily", "Tom", "Ben", "Mia", "Sam")
ANIMALS = ("cat", "dog", "bird", "fox", "mouse", "bear")
PLACES = ("in the park", "by the lake", "at home", "near the old tree")


def stories() -> str:
    """Return 120 stories of three sentences, each followed by the marker that ends a document."""
    texts = [
        f"Once upon a time, {name} met a {animal} {place}. The {animal} was kind to {name}. They played all day."
        for name in NAMES
        for animal in ANIMALS
        for place in PLACES
    ]
    return "".join(f"{text}\n<|endoftext|>\n" for text in texts)


def make_data(folder: Path, *, kind: str = "bpe", vocab_size: int = 320) -> Path:
    """Write the stories, a tokenizer and shards below `folder`; return the folder of the shards."""
    text = folder / "stories.txt"
    text.write_text(stories(), encoding="utf-8")
    tokenizer = vocabulary.train([text], kind, vocab_size, folder / "tokenizer")
    prepare([text], tokenizer.path, folder / "data", validation=0.1, jobs=1)
    return folder / "data"


def tiny_recipe(data: Path, out: Path, *settings: str, name: str = "laptop") -> Recipe:
    """Return a recipe that ships with the project, shrunk so that a step takes milliseconds."""
    shrunk = [
        f"data={data}", f"out={out}",
        "model.dim=16", "model.n_layers=2", "model.n_heads=2", "model.hidden_dim=24", "model.max_seq_len=16",
        "optimizer.warmup_steps=4",
        "train.epochs=none", "train.steps=12", "train.batch_size=8", "train.micro_batch_size=none",
        "train.compile=false", "train.device=cpu", "train.precision=float32",
        "report.log_every=1", "report.evaluate_every=6", "report.save_every=4", "report.sample_tokens=4",
        "report.validation_windows=8",
    ]  # fmt: skip
    return read_recipe(RECIPES / f"{name}.toml", [*shrunk, *settings])

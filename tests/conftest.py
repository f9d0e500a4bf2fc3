"""What holds for every test: the same random numbers, one thread, no settings from the machine it runs on."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from tests.tiny import train_tokenizer
from tests.tiny_run import make_workplace
from utils import seed_everything

# Properties are tried on the same examples on every machine, and slowness is no failure.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

# The folder of the assets may be named relative to the root; tests change the working directory.
if mirror := os.environ.get("MINLLAMA_ASSETS"):
    os.environ["MINLLAMA_ASSETS"] = str(Path(mirror).resolve())


@pytest.fixture(autouse=True)
def clean_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seed, use one thread, and hide what a user may have set for the programs that are tested."""
    seed_everything(0)
    torch.set_num_threads(1)
    for name in list(os.environ):
        if name.startswith(("MINLLAMA_", "TQDM_")) and name != "MINLLAMA_ASSETS":
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def tokenizer_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the path of a tiny SentencePiece model with 400 pieces; tests only read it."""
    return train_tokenizer(tmp_path_factory.mktemp("tokenizer") / "tokenizer.model")


@pytest.fixture
def workplace(tmp_path: Path, tokenizer_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a model, its tokenizer and a slice of the demo data."""
    make_workplace(tmp_path, tokenizer_model)
    monkeypatch.chdir(tmp_path)
    return tmp_path

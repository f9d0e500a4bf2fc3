"""Where tests find the third-party files: in the mirror that MINLLAMA_ASSETS names, or where setup.sh puts them."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# In a mirror the weights lie at its top, in the project in a folder of their own.
FETCHED = {name: f"weights/stories260K/{name}" for name in ("stories260K.bin", "tok512.bin")}


def require_asset(name: str) -> Path:
    """Return the path of an asset, by its name in a mirror, or skip the test."""
    mirror = os.environ.get("MINLLAMA_ASSETS")
    path = Path(mirror, name).resolve() if mirror else ROOT / FETCHED.get(name, name)
    if not path.is_file():
        pytest.skip(f"skipped: needs asset {name} (./setup.sh, or set MINLLAMA_ASSETS to a folder that has it)")
    return path

"""Where tests find the real, third-party files: the local mirror that MINLLAMA_ASSETS names."""

import os
from pathlib import Path

import pytest


def require_asset(name: str) -> Path:
    """Return the path of an asset in the mirror, or skip the test."""
    mirror = os.environ.get("MINLLAMA_ASSETS")
    path = Path(mirror or "no-mirror", name).resolve()
    if not path.is_file():
        pytest.skip(f"skipped: needs asset {name} (set MINLLAMA_ASSETS to a folder that has it)")
    return path

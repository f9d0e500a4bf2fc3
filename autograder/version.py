"""Which grader is this? A hash of all code that can change a grade, so that nobody has to count versions."""

import functools
import hashlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@functools.cache
def grader_version() -> str:
    """Return the first 12 hexadecimal digits of a hash over the master's modules and the grader's."""
    digest = hashlib.sha256()
    files = [*ROOT.glob("*.py"), *(ROOT / "autograder").rglob("*.py")]
    for path in sorted(files):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode() + content)
    return digest.hexdigest()[:12]

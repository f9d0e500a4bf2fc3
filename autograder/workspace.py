"""What runs in the sandbox: the submission's own files, and the given ones as they were handed out.

Every file is copied; a name comes from the intake, which has checked it, or from the repository.
"""

import functools
import importlib.util
import shutil
from collections.abc import Iterable, Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path

from autograder.editions import Edition
from autograder.intake.compiled import as_cache
from autograder.intake.static import shadowing

ROOT = Path(__file__).resolve().parent.parent


def given_files(edition: Edition) -> list[str]:
    """Return the names of the modules at the root that a submission of this edition need not bring."""
    return sorted(path.name for path in ROOT.glob("*.py") if path.name not in edition.files.own)


def build_workspace(
    submission: Path,
    edition: Edition,
    libraries: Iterable[str],
    target: Path,
    caches: Mapping[str, bytes] | None = None,
) -> list[str]:
    """Fill the empty folder `target` and return the names of the submission's files that were left out.

    `caches` are what the submission's modules were compiled to; they are written as they are, for the sandbox to read.

    Left out are files that shadow a library (`libraries`: names of modules), and copies of given files where the
    edition takes its own.
    """
    brought = {path.name for path in submission.iterdir() if path.is_file() and not path.is_symlink()}
    modules = {name for name in brought if name.endswith(".py")}
    left_out = shadowing(modules, libraries)
    given = set(given_files(edition))
    if edition.files.pristine == "missing":
        given -= modules
    left_out |= modules & given
    (target / "__pycache__").mkdir()
    for name in sorted(brought - left_out):
        if name.endswith((".py", ".json", ".txt")):
            shutil.copyfile(submission / name, target / name)
        if caches and name in caches:
            _cache_of(target / name).write_bytes(caches[name])
    for name in sorted(given):
        shutil.copyfile(ROOT / name, target / name)
        _cache_of(target / name).write_bytes(_compiled(name))
    return sorted(left_out)


def _cache_of(path: Path) -> Path:
    """Return where Python looks for what a module was compiled to."""
    return Path(importlib.util.cache_from_source(str(path)))


@functools.cache
def _compiled(name: str) -> bytes:
    """Return what Python makes of a module of the repository: each check imports it anew, and need not parse it."""
    code = SourceFileLoader(name.removesuffix(".py"), str(ROOT / name)).get_code(name.removesuffix(".py"))
    assert code
    return as_cache(code)

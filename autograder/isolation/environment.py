"""Which libraries does a submission see? The distributions that the edition names, what those need, and no other.

They are taken from the environment that the judge runs in, one directory or file at a time, so that a library that is
installed for the judge alone (transformers, say) is not there for a submission.
"""

import csv
import functools
import importlib.metadata
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from errors import SandboxError

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Environment:
    """What makes up the Python of the sandbox.

    `entries` maps names below the sandbox's folder of libraries to where they are installed.
    """

    python: Path  # the interpreter itself, no link
    prefix: Path  # its own files: the standard library
    entries: dict[str, Path]
    modules: frozenset[str]  # the top-level names that can be imported from it


def build_environment(names: Sequence[str]) -> Environment:
    """Return the Python of a sandbox with these distributions.

    It is looked up once in a process. Raises SandboxError, which names it, for one that is not installed or whose files
    are not recorded.
    """
    return _built(tuple(names))


@functools.cache
def _built(names: tuple[str, ...]) -> Environment:
    """Look up what `build_environment` returns."""
    entries: dict[str, Path] = {}
    for distribution in closure(names):
        files = _recorded(distribution)
        if files is None:
            name = distribution.metadata["Name"]
            raise SandboxError(f"the files of {name} are not recorded: install it anew with `pip install {name}`")
        for entry in _entries(files):
            path = Path(str(distribution.locate_file(entry)))
            if path.exists():
                entries[entry] = path.resolve()
    modules = {PurePosixPath(entry).parts[0].partition(".")[0] for entry in entries if not entry.endswith(".dist-info")}
    # a private name, but the only one that says which file runs where links and launchers are between
    python = Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))
    return Environment(python, Path(sys.base_prefix).resolve(), entries, frozenset(modules))


def closure(names: Iterable[str]) -> list[importlib.metadata.Distribution]:
    """Return the distributions of these names and all that they need here, each once.

    Raises SandboxError for a name that is not installed. What an installed distribution needs and lacks is passed over:
    it may be for another machine.
    """
    found: dict[str, importlib.metadata.Distribution] = {}
    waiting = [(name, True) for name in names]
    while waiting:
        name, is_wanted = waiting.pop(0)
        key = re.sub(r"[-_.]+", "-", name).lower()
        if key in found:
            continue
        try:
            found[key] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            if is_wanted:
                raise SandboxError(
                    f"the edition's environment names {name}, which is not installed: run `pip install {name}`"
                ) from error
            continue
        waiting += [(needed, False) for needed in _needs(found[key].requires or [])]
    return list(found.values())


def _recorded(distribution: importlib.metadata.Distribution) -> list[str] | None:
    """Return the names of a distribution's files; None if nobody wrote them down."""
    record = distribution.read_text("RECORD")  # `files` would make 20,000 objects of PyTorch's
    if record:
        return [row[0] for row in csv.reader(record.splitlines()) if row]
    return None if distribution.files is None else [str(file) for file in distribution.files]


def _needs(requirements: Iterable[str]) -> list[str]:
    """Return the names of what is required on this machine, without extras."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        plain = [text for text in requirements if "extra ==" not in text]
        return [match.group() for text in plain if (match := _NAME.match(text))]
    parsed = [Requirement(text) for text in requirements]
    return [entry.name for entry in parsed if entry.marker is None or entry.marker.evaluate({"extra": ""})]


def _entries(files: Iterable[str]) -> list[str]:
    """Return the directories and files that hold these files and none of another distribution.

    A directory belongs to one distribution if it is a package or its metadata; of a namespace, which several
    distributions share (`google`, `nvidia`), what lies in it is taken.
    """
    split = [parts for file in files if not {"..", "__pycache__"} & set(parts := file.split("/"))]
    packages = {"/".join(parts[:-1]) for parts in split if parts[-1] == "__init__.py"}
    found: dict[str, None] = {}
    for parts in split:
        if parts[-1].endswith(".pth"):  # would run code at start; nothing in the sandbox reads it
            continue
        folders = ("/".join(parts[:i]) for i in range(1, len(parts)))
        owned = next((folder for folder in folders if folder in packages or _is_private(folder)), "/".join(parts))
        found[owned] = None
    return list(found)


def _is_private(folder: str) -> bool:
    """Return whether a folder that is no package belongs to one distribution by its name."""
    return folder.endswith((".dist-info", ".libs"))


def installed_beside(prefix: Path) -> list[Path]:
    """Return the folders of libraries inside an interpreter's own files, which a submission must not see."""
    candidates = [
        *prefix.glob("lib*/python*/site-packages"),
        *prefix.glob("lib*/python*/dist-packages"),
        *prefix.glob("local/lib*/python*/dist-packages"),
    ]
    candidates += [Path(path) for name, path in sysconfig.get_paths().items() if name in ("purelib", "platlib")]
    return sorted({path.resolve() for path in candidates if path.is_dir() and path.resolve().is_relative_to(prefix)})

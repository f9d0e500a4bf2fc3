"""The zip that an instructor uploads to Gradescope: the platform's two scripts, our settings, the repository.

    build_zip("minllama", Path("build/autograder.zip"))

    setup.sh          runs once, as root: makes the environment
    run_autograder    runs for each submission
    settings.json     what was chosen when the zip was built
    minllama/         the repository, as far as grading needs it, with the solution: never give this zip to students

The same files make the same bytes.
"""

import json
import shutil
import stat
import zipfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from autograder.editions import EDITIONS, read_edition
from autograder.gradescope.settings import SETTINGS, Settings
from errors import UsageError
from utils import atomic_path

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ("setup.sh", "run_autograder")
REPOSITORY = "minllama"  # the folder in the zip

NEEDED = ("requirements.txt", "constraints.txt", "pyproject.toml", "setup.sh", "assets.toml", "sanity_check.data")
# Taken if they are there. The weights of stories42M are not: they fit neither the platform's zip nor its memory.
IF_PRESENT = ("LICENSE", "tokenizer.model", "data/*.txt", "weights/stories260K/*")
PATTERNS = (
    *("*.py", "autograder/**/*", "editions/*.toml", "data/*.json"),
    *(f"checkpoints/storybook/{name}" for name in ("config.json", "model.safetensors", "tokenizer.model")),
)
MOST_BYTES = 100_000_000  # what the platform takes


def build_zip(
    edition: str,
    target: Path,
    *,
    deadline: float = 540.0,
    visibility: str = "visible",
    sandbox: str = "uid",
    checkpoint: str | None = None,
    root: Path = ROOT,
) -> list[str]:
    """Write the platform's zip to `target` and return the names of the files in it, in order.

    `edition` is the name of one in `editions/`, or the path of a TOML file. Raises UsageError for a setting that cannot
    be, for a file that is missing, and for a zip that the platform would not take.
    """
    chosen = read_edition(edition)
    settings = Settings(chosen.name, deadline, visibility, sandbox, checkpoint)
    settings.check()
    files = dict(_repository_files(root))
    own = Path(edition)
    if own.suffix == ".toml":  # a course's own file, wherever it lies
        files[f"{REPOSITORY}/editions/{chosen.name}.toml"] = own
    elif own.name != chosen.name:
        raise UsageError(f"{EDITIONS / edition}.toml calls itself '{chosen.name}': give it the name of its file")
    with atomic_path(target) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in SCRIPTS:
            _pack(archive, name, ROOT / "autograder" / "gradescope" / name)
        with archive.open(_entry(SETTINGS, executable=False), "w") as packed:
            packed.write((json.dumps(asdict(settings), indent=2) + "\n").encode())
        for name in sorted(files):
            _pack(archive, name, files[name])
        archive.close()
        size = temporary.stat().st_size
        if size > MOST_BYTES:
            raise UsageError(
                f"the zip has {size / 1e6:.0f} MB, and the platform takes {MOST_BYTES / 1e6:.0f}: what is in data/ or"
                " weights/stories260K/ that does not belong there?"
            )
    return [*SCRIPTS, SETTINGS, *sorted(files)]


def _repository_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield each file of the repository that is packed, by its name in the zip."""
    for name in NEEDED:
        if not (root / name).is_file():
            raise UsageError(f"{root / name} is missing: build the zip from a complete checkout")
    for pattern in (*PATTERNS, *NEEDED, *IF_PRESENT):
        paths = sorted(path for path in root.glob(pattern) if path.is_file() and not path.is_symlink())
        if not paths and pattern in PATTERNS:
            raise UsageError(f"{root} has no {pattern}: build the zip from a complete checkout")
        for path in paths:
            relative = path.relative_to(root)
            if "__pycache__" not in relative.parts and not path.name.startswith("."):
                yield f"{REPOSITORY}/{relative.as_posix()}", path


def _entry(name: str, executable: bool) -> zipfile.ZipInfo:
    """Return an entry with a fixed time, and permissions that depend on nobody's umask."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, on every system
    entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
    return entry


def _pack(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    """Add a file. Scripts can be executed."""
    entry = _entry(name, executable=path.suffix == ".sh" or name in SCRIPTS)
    entry.file_size = path.stat().st_size
    with path.open("rb") as source, archive.open(entry, "w") as packed:
        shutil.copyfileobj(source, packed)

"""What students get, as data: the files of the hand-out, and where they lie in it."""

import subprocess
from pathlib import Path, PurePosixPath

from errors import HandoutError

# The student's text: in the hand-out it is README.md.
ASSIGNMENT, README = "ASSIGNMENT.md", "README.md"
# The tensors of the student's checks: those of an edition without the causal mask are made for it.
SANITY_DATA = "sanity_check.data"
# Each of these is in every hand-out. Nothing else is, but for the checkpoints.
FILES = (
    # to be read
    *(ASSIGNMENT, "structure.md", "LICENSE"),
    # to be completed
    *("llama.py", "rope.py", "optimizer.py", "classifier.py"),
    # to be run
    *("run_llama.py", "sanity_check.py", "rope_test.py", "optimizer_test.py", "prepare_submit.py", "setup.sh"),
    # given: around the model
    *("config.py", "base_llama.py", "tokenizer.py", "checkpoint.py", "safetensors_file.py", "hf_format.py", "alibi.py"),
    *("sentiment_data.py", "tasks.py", "finetune.py", "reproduce_2024.py", "plots.py", "arguments.py", "utils.py"),
    # given: behind the commands
    *("errors.py", "checking.py", "component_checks.py", SANITY_DATA, "submission_rules.py", "submission_check.py"),
    *("fetch_assets.py", "asset_list.py", "download.py", "assets.toml", "requirements.txt", "constraints.txt"),
    # data of our own; what others made is fetched by setup.sh and stands in no hand-out
    *("data/README.md", "data/demo-train.txt", "data/demo-dev.txt", "data/demo-test.txt"),
    *("data/demo-label-mapping.json", "data/sst-label-mapping.json", "data/cfimdb-label-mapping.json"),
)
# Each folder in here that holds weights is a checkpoint of our own, and goes along.
CHECKPOINTS, WEIGHTS = "checkpoints", "model.safetensors"
# Files that are no text: their bytes stay as they are.
BINARY = (".data", ".safetensors", ".model", ".png")


def handout_files(root: Path) -> tuple[str, ...]:
    """Return the files of the master at `root` that go into a hand-out, checkpoints included.

    Raises HandoutError if one of them is missing.
    """
    names = (*FILES, *checkpoint_files(root))
    if missing := [name for name in names if not (root / name).is_file()]:
        raise HandoutError(
            f"{', '.join(str(root / name) for name in missing)}: not there, but in every hand-out: restore it, or take "
            "it off the list in autograder/handout/files.py"
        )
    return names


def checkpoint_files(root: Path) -> tuple[str, ...]:
    """Return the files of the master's own checkpoints: those that git knows in a checkout, else all that lie there."""
    names = _committed(root)
    if names is None:
        names = [path.relative_to(root).as_posix() for path in root.glob(f"{CHECKPOINTS}/*/*") if path.is_file()]
    complete = {name.rpartition("/")[0] for name in names if name.endswith(f"/{WEIGHTS}")}
    return tuple(sorted(name for name in names if name.rpartition("/")[0] in complete and is_of_checkpoint(name)))


def is_of_checkpoint(name: str) -> bool:
    """Say whether a file lies directly in the folder of a checkpoint, and is not hidden."""
    parts = PurePosixPath(name).parts
    return len(parts) == 3 and parts[0] == CHECKPOINTS and not any(part.startswith(".") for part in parts)


def packed_name(name: str) -> str:
    """Return what a file of the master is called in the hand-out."""
    return README if name == ASSIGNMENT else name


def _committed(root: Path) -> list[str] | None:
    """Return the files below `checkpoints/` that git knows, or None where it has nothing to say about this folder."""
    if not (root / ".git").exists():
        return None
    command = ["git", "ls-files", "-z", "--", CHECKPOINTS]
    try:
        listed = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):  # no git, or a checkout that is somebody else's
        return None
    return [name for name in listed.split("\0") if name]

"""The folder of a run: its log, the state that it resumes from, and the last and the best model.

OUT/recipe.json    the recipe with every default filled in
OUT/log.jsonl      a row per interval
OUT/state.pt       weights, optimizer, step: what --resume needs
OUT/last  OUT/best checkpoint directories, each complete in itself
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout  # a package that PyTorch itself needs
from torch.optim import Optimizer

from checkpoint import load_torch_file, save_torch_file
from errors import TrainingError, UsageError
from llama import Llama
from pretrain.recipe import Recipe
from utils import write_text

# What may differ between a run and its resumption: where and how it is computed, and what is shown of it.
FREE_KEYS = ("out", "data", "report", "train.device", "train.compile", "train.micro_batch_size")


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0  # steps that are finished
    best_loss: float | None = None  # the lowest validation loss so far, in nats a token
    seconds: float = 0.0  # of training, over all sessions
    losses: list[float] = field(default_factory=list)  # of the steps since the last row of the log


class RunFolder:
    """What one process, the main one, writes; all read it."""

    def __init__(self, path: Path) -> None:
        """Name the files; nothing is written yet."""
        self.path = path
        self.log = path / "log.jsonl"
        self.state = path / "state.pt"
        self._lock = FileLock(path / ".lock")

    def lock(self) -> None:
        """Keep other runs out of the folder until `release`, or the end of the process, however it comes.

        Raises UsageError if another process trains into it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise UsageError(
                f"another process trains into {self.path}: wait for it, or choose another folder (--set out=FOLDER)"
            ) from error

    def release(self) -> None:
        """Let other runs in."""
        self._lock.release()

    def open(self, recipe: Recipe, *, resume: bool, step: int) -> None:
        """Make the folder ready for the rows after `step`; what the log says of later steps will be written again.

        Raises UsageError if the folder holds a run already, and nobody asked to resume it.
        """
        rows: list[dict[str, Any]] = []
        if self.log.exists():
            lines = self.log.read_text(encoding="utf-8").splitlines()
            if not resume and (lines or self.state.exists()):
                raise UsageError(
                    f"{self.path} already holds a run: go on with --resume, choose another folder (--set out=FOLDER), "
                    f"or start anew by deleting {self.log.name} and {self.state.name} in it"
                )
            rows = [row for line in lines if (row := _row(line)) is not None and row["step"] <= step]
        write_text(self.log, "".join(json.dumps(row) + "\n" for row in rows))
        write_text(self.path / "recipe.json", recipe.model_dump_json(indent=2) + "\n")

    def save(self, model: Llama, optimizer: Optimizer, progress: Progress, recipe: Recipe, data: str) -> None:
        """Keep the state to resume from; `data` is the checksum of the data."""
        content = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "progress": asdict(progress),
            "recipe": recipe.model_dump(mode="json"),
            "data": data,
        }
        save_torch_file(self.state, content)

    def restore(self, model: Llama, optimizer: Optimizer, recipe: Recipe, data: str) -> Progress:
        """Load the state into the model and the optimizer, and return how far it had come.

        Raises TrainingError if the state is of another recipe or other data, and CheckpointError if it is damaged.
        """
        content = load_torch_file(self.state)
        self._check_same(content, recipe, data)
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return Progress(**content["progress"])

    def _check_same(self, content: dict[str, Any], recipe: Recipe, data: str) -> None:
        """Raise TrainingError if the saved run would not have gone on as this one will."""
        there, here = _flat(content["recipe"]), _flat(recipe.model_dump(mode="json"))
        for key in sorted(there.keys() | here.keys()):
            if not key.startswith(FREE_KEYS) and there.get(key) != here.get(key):
                raise TrainingError(
                    f"{self.state} was trained with {key} = {there.get(key)}, not {here.get(key)}: "
                    "resume with the same recipe, or start anew in another folder (--set out=FOLDER)"
                )
        if content["data"] != data:
            raise TrainingError(
                f"{self.state} was trained on other data than {recipe.data} holds now: "
                "prepare the same data again, or start anew in another folder (--set out=FOLDER)"
            )


def _row(line: str) -> dict[str, Any] | None:
    """Return a row of the log, or None if a kill has cut it short."""
    try:
        row: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dictionaries as one, with dots between the keys."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat

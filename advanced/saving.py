"""Save of a finetuned classifier what was trained, and nothing else: a LoRA of a large model is a small file.

    save_small(classifier, "lora.safetensors")
    load_small(classifier, "lora.safetensors")   # of a classifier that the same methods have adapted

The pretrained weights are needed as well to use it. `Training` gives adapted classifiers.
"""

from pathlib import Path

import torch

from advanced.model import Classifier
from errors import CheckpointError
from safetensors_file import read_safetensors, write_safetensors


def save_small(classifier: Classifier, path: Path) -> None:
    """Write the trained weights to a safetensors file, by their names. Raises CheckpointError if the disk is full."""
    write_safetensors(path, classifier.trained)


@torch.no_grad()
def load_small(classifier: Classifier, path: Path) -> None:
    """Put the weights of a file in the places of those that `classifier` trains.

    Raises CheckpointError for a file that is no safetensors file, or holds other weights than these; then nothing has
    changed.
    """
    saved, trained = read_safetensors(path), classifier.trained
    if wrong := sorted(saved.keys() ^ trained.keys()):
        where = "in the file and not trained" if wrong[0] in saved else "trained and not in the file"
        raise _of_another(path, f"{wrong[0]} is {where} ({len(wrong)} such names)")
    for name, parameter in trained.items():
        found, wanted = (f"{tuple(tensor.shape)} of {tensor.dtype}" for tensor in (saved[name], parameter))
        if found != wanted:
            raise _of_another(path, f"{name} is {found}, and the classifier's is {wanted}")
    for name, parameter in trained.items():
        parameter.copy_(saved[name])


def _of_another(path: Path, what: str) -> CheckpointError:
    """Return the error for a file of another classifier's weights."""
    return CheckpointError(f"{path}: {what}. Load it into a classifier of the same Llama, methods and options.")

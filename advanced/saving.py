"""Save of a finetuned classifier what was trained, and nothing else: a LoRA of a large model is a small file.

    save_small(classifier, "lora.safetensors")
    load_small(classifier, "lora.safetensors")   # of a classifier that the same methods have adapted

The pretrained weights are needed as well to use it. `Training` gives adapted classifiers.
"""

from pathlib import Path

import torch

from advanced.model import Classifier
from errors import CheckpointError
from safetensors_file import read_metadata, read_safetensors, write_safetensors

METHODS = "methods"  # the key in the metadata of a file


def save_small(classifier: Classifier, path: Path) -> None:
    """Write what was trained to a safetensors file, by name, with the methods that it belongs to.

    Where weights were changed that are not trained (by `continued`), it is all weights. Raises CheckpointError if the
    disk is full.
    """
    write_safetensors(path, classifier.kept, {METHODS: classifier.about})


@torch.no_grad()
def load_small(classifier: Classifier, path: Path) -> None:
    """Put the weights of a file in the places of those that `classifier` trains.

    Raises CheckpointError for a file that is no safetensors file, or belongs to other methods, options or weights than
    these; then nothing has changed.
    """
    saved, trained = read_safetensors(path), classifier.kept
    if (theirs := read_metadata(path).get(METHODS, classifier.about)) != classifier.about:
        raise _of_another(path, f"it was trained by {theirs}, and the classifier is made for {classifier.about}")
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

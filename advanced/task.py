"""A data set, divided so that nothing is chosen by looking at dev: a tenth of the training set is kept for that.

Whatever is selected (an epoch, a learning rate, a template, the weight of a mixture) is selected on the part called
"selection"; dev and test are scored once, at the end.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sentiment_data import Example, has_gold_labels, read_examples, read_label_names

Part = Literal["fit", "selection", "dev", "test"]
SCORED: tuple[Part, ...] = ("selection", "dev", "test")
TENTH = 10
DATA = Path(__file__).resolve().parent.parent / "data"


@dataclass(frozen=True)
class Task:
    """The sentences of each part, and the names of the labels."""

    name: str
    label_names: list[str]
    parts: Mapping[Part, list[Example]]

    def labels(self, part: Part) -> list[int]:
        """Return the labels of a part."""
        return [example.label for example in self.parts[part]]

    def sentences(self, part: Part) -> list[str]:
        """Return the sentences of a part."""
        return [example.sentence for example in self.parts[part]]

    def has_gold(self, part: Part) -> bool:
        """Say whether accuracy on a part means anything (CFIMDB's test file has placeholders)."""
        return has_gold_labels(self.labels(part))


def load_task(name: str, folder: Path = DATA, limit: int | None = None) -> Task:
    """Read a data set of `folder`; `limit` takes so many sentences of each part. Raises DataError.

    They are taken at even distances: SST's files are ordered by how good the films are said to be.
    """
    label_names = read_label_names(folder / f"{name}-label-mapping.json")
    files = {kind: read_examples(folder / f"{name}-{kind}.txt", len(label_names)) for kind in ("train", "dev", "test")}
    parts: dict[Part, list[Example]] = {
        "fit": [example for example in files["train"] if not is_for_selection(example.sentence)],
        "selection": [example for example in files["train"] if is_for_selection(example.sentence)],
        "dev": files["dev"],
        "test": files["test"],
    }
    return Task(name, label_names, {part: evenly(examples, limit) for part, examples in parts.items()})


def is_for_selection(sentence: str) -> bool:
    """Say whether a training sentence is kept for selection: a tenth is, and the same sentence always or never.

    The sentence's checksum decides. So there is no seed to choose, and a sentence that stands in the file twice is not
    trained on and then asked for.
    """
    return int.from_bytes(hashlib.sha256(sentence.encode()).digest()[:8]) % TENTH == 0


def evenly(examples: list[Example], count: int | None) -> list[Example]:
    """Return at most `count` examples at even distances, in their order; all for None."""
    if count is None or count >= len(examples):
        return examples
    return [examples[i * len(examples) // count] for i in range(count)]

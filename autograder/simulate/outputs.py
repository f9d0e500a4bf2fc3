"""What does a student's model write? Made up: labels that are right as often as we say, and texts of the checkpoint.

The sentences are those of the official data where it is here, else of a few that we make from the demo set: they stand
in the same form beside the class, and are what `--data` has to name.
"""

import json
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from random import Random

from autograder.editions import Edition
from submission_rules import SUBMISSION, OutputFile

ROOT = Path(__file__).resolve().parents[2]
TEXTS = Path(__file__).parent / "texts.toml"
CHECKPOINT = "storybook"  # that the class uses: its weights lie in the repository
# How often a right model is right where no reference says it.
USUAL = {"sst": 0.28, "cfimdb": 0.55}
LABEL_NAMES = {"sst": ["awful", "bad", "average", "good", "excellent"], "cfimdb": ["bad", "good"]}
LONGEST = 200  # characters of a sentence, which a model of a short context cuts as well
SPLITS = ("train", "dev", "test")
TEXT_FILES = tuple(output.name for output in SUBMISSION.outputs if not output.labels)


def official_data(data: Path) -> bool:
    """Say whether all of the official data is in a folder."""
    return all((data / f"{name}-{split}.txt").is_file() for name in LABEL_NAMES for split in SPLITS)


def write_small_data(folder: Path) -> None:
    """Write data files under the official names, with the sentences of the demo set."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in LABEL_NAMES.items():
        (folder / f"{name}-label-mapping.json").write_text(json.dumps(labels) + "\n", encoding="utf-8")
        for split in SPLITS:
            lines = (ROOT / "data" / f"demo-{split}.txt").read_text(encoding="utf-8").splitlines()
            rows = (line.partition(" ||| ") for line in lines)
            last = len(labels) - 1  # the demo set knows good and bad alone
            text = "".join(f"{int(label) * last} ||| {sentence}\n" for label, _, sentence in rows)
            (folder / f"{name}-{split}.txt").write_text(text, encoding="utf-8")


def output_files(
    edition: Edition, data: Path, rng: Random, shares: Mapping[str, float] | None = None
) -> dict[str, bytes]:
    """Return all required outputs of one student.

    A file of predictions is right as often as the edition's reference with the checkpoint, or somewhat more often;
    `shares` says otherwise for single files.
    """
    reference = edition.reference(CHECKPOINT)
    known = reference.accuracies if reference else {}
    files = _texts(edition, rng)
    for output in SUBMISSION.outputs:
        if output.labels and output.name in SUBMISSION.required:
            least = known.get(output.name, USUAL[output.name.split("-")[0]])
            share = (shares or {}).get(output.name, least + rng.uniform(0.0, 0.02))
            files[output.name] = _predictions(output, data, share, rng)
    runs = {name: {"checkpoint": {"name": CHECKPOINT}} for name in ("generate", "prompt sst", "finetune sst")}
    files["run-info.json"] = (json.dumps({"runs": runs}, indent=2) + "\n").encode()
    return files


def _texts(edition: Edition, rng: Random) -> dict[str, bytes]:
    """Return the generated texts: the greedy one, and one of those that were drawn."""
    texts = tomllib.loads(TEXTS.read_text(encoding="utf-8"))["causal" if edition.causal else "without_mask"]
    chosen = (texts["greedy"], rng.choice(texts["drawn"]))
    return {name: f"{SUBMISSION.prompt}{text}\n".encode() for name, text in zip(TEXT_FILES, chosen, strict=True)}


@cache
def _rows(path: Path) -> tuple[tuple[int, str], ...]:
    """Return the labels and sentences of a data file."""
    lines = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
    rows = (line.rstrip("\r").partition(" ||| ") for line in lines)
    return tuple((int(label), sentence.strip()) for label, _, sentence in rows)


def _predictions(output: OutputFile, data: Path, share: float, rng: Random) -> bytes:
    """Return a file of predictions of which this share is right, but for what rounding adds."""
    name, split = output.name.split("-")[:2]
    rows = _rows(data / f"{name}-{split}.txt")
    right = set(rng.sample(range(len(rows)), min(len(rows), round(share * len(rows) + 0.5))))
    lines = []
    for index, (label, sentence) in enumerate(rows):
        guess = label if index in right else (label + rng.randrange(1, output.labels)) % output.labels
        lines.append(f"{guess} ||| {sentence[:LONGEST].rstrip()}\n")
    return "".join(lines).encode()

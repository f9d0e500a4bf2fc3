"""What the tests of grading share: an edition of few words, and data files of a few sentences."""

import json
from pathlib import Path
from typing import Any

from autograder.editions import Edition
from submission_rules import SUBMISSION

ROOT = Path(__file__).resolve().parent.parent
STORYBOOK = ROOT / "checkpoints" / "storybook"
PROMPT = SUBMISSION.prompt
RUBRIC = {
    "a_plus": "an A and more",
    "a": "all is right",
    "a_minus": "a result is not right",
    "b_plus": "Llama and optimizer are right",
    "b_or_below": "something is not right",
    "third_down": "the results stand",
}
NAMES = {"sst": ["awful", "bad", "average", "good", "excellent"], "cfimdb": ["bad", "good"]}
SENTENCES = (
    "The plot is thin , but the music is good and the ending stays with you for days .",
    "Nobody laughed , and the man beside me slept until the lights came on again .",
    "A small film about a big dog , told slowly and with love for each of its people .",
    "It wants to be clever and is only loud , from the first minute to the last one .",
    "I would see it again tomorrow , and I would take my mother and my brother along .",
    "The hero speaks as if he read the words from a wall behind the camera all the time .",
    "What a fine story this is , and what a pity that it ends after an hour and a half .",
    "They ran out of money , of ideas and of light , and one can see it in every scene .",
    "Half of it is a dream and half of it is a chase , and neither of them is any good .",
    "Her face alone is worth the price of the ticket , and the songs are worth it twice .",
    "The second part is longer than the first , and it has less to say about the war .",
    "My friends liked it , I did not , and we talked about it all the way to the station .",
)


def edition(**changes: Any) -> Edition:
    """Return a small edition, after changes to its tables."""
    content: dict[str, Any] = {
        "name": "tiny",
        "title": "A tiny course",
        "handout": {"open": ["rmsnorm", "adamw", "embedding_head"]},
        "environment": ["torch"],
        "static": {"imports": ["torch"]},
        "checks": {"run": [{"name": "RMSNorm", "points": 1.0}]},
        "rubric": RUBRIC,
        "margins": {"sst-dev-finetuning-output.txt": 0.05},
    }
    return Edition.model_validate(content | changes)


def reference(**changes: Any) -> dict[str, Any]:
    """Return what is known of the results with storybook, after changes."""
    known = {
        "checkpoint": "storybook",
        "source": "these tests",
        "accuracies": {"sst-dev-finetuning-output.txt": 0.5},
        "coherent_nats": {"0": 1.0, "1": 3.5},
    }
    return known | changes


def gold(data_set: str, split: str) -> list[int]:
    """Return the labels of a data file: SST's go round, CFIMDB's test labels are the placeholder."""
    if (data_set, split) == ("cfimdb", "test"):
        return [0] * len(SENTENCES)
    return [row % len(NAMES[data_set]) for row in range(len(SENTENCES))]


def write_data(folder: Path) -> Path:
    """Write small data files under the assignment's names, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for data_set, names in NAMES.items():
        (folder / f"{data_set}-label-mapping.json").write_text(json.dumps(names), encoding="utf-8")
        for split in ("train", "dev", "test"):
            rows = zip(gold(data_set, split), SENTENCES, strict=True)
            text = "".join(f"{label} ||| {sentence}\n" for label, sentence in rows)
            (folder / f"{data_set}-{split}.txt").write_text(text, encoding="utf-8")
    return folder

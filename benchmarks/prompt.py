"""Zero-shot prompting on SST's dev set: the classifier that students write, the fast one, and a loop over transformers.

The student's reads a batch once for all labels that agree in all but their last token; the fast one reads it once for
all labels. The loop is what one would write with transformers: each label is put behind each prompt and read.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks import report
from benchmarks.contenders import transformers_model
from benchmarks.machine import best_matmul_rate, describe, take_turns
from benchmarks.material import (
    Batch,
    batches_of,
    in_samples,
    label_names,
    sentences,
    spread,
    tokenizer_of,
    weights_in_layers,
    weights_of,
)
from classifier import LlamaZeroShotClassifier
from config import ClassifierConfig
from inference.prompting import FastZeroShotClassifier, label_nodes
from sentiment_data import EncodedExamples, collate, prompt_suffix
from utils import pick_device

STUDENT, FAST, PEER, LIMIT = "the student's", "ours, --fast", "transformers", "the limit"
BATCH_SIZE = 8
SAMPLE = 4  # batches of a turn

Scores = Callable[[Batch], torch.Tensor]  # of each label behind each prompt, (bs, num_labels)


def measure(*, sizes: Sequence[str] = ("42m", "storybook"), rounds: int = 5, device: str = "cpu") -> dict[str, Any]:
    """Time all contenders at each size; return the machine and a row each, with how far their scores are apart.

    Raises UsageError if SST is not here or there is no such device, MissingDependency without transformers.
    """
    where = pick_device(device)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            rows += _rows(size, Path(folder), rounds, where)
    return {"machine": describe(where), "rounds": rounds, "sample": SAMPLE, "rows": rows}


@torch.inference_mode()
def _rows(size: str, folder: Path, rounds: int, device: torch.device) -> list[dict[str, Any]]:
    """Return a row for each contender, and one for the limit; the seconds are those of the whole dev set."""
    tokenizer, names = tokenizer_of(size), label_names(size)
    config = ClassifierConfig(len(names), str(weights_of(size, folder)), option="pretrain")
    student, fast = (kind(config, tokenizer, names) for kind in (LlamaZeroShotClassifier, FastZeroShotClassifier))
    for classifier in (student, fast):
        classifier.llama.config.pad_id = tokenizer.pad_id
        classifier.to(device).eval()
    room = student.llama.config.max_seq_len - max(map(len, student.label_name_ids))
    dev = sentences(size, "dev", tokenizer, room, prompt_suffix(names))
    batches = batches_of(dev, BATCH_SIZE, bucketed=True)

    contenders: dict[str, Scores] = {
        STUDENT: partial(_scores, student),
        FAST: partial(_scores, fast),
        PEER: partial(_their_scores, transformers_model(student.llama), student),
    }
    turns = {name: in_samples(batches, SAMPLE, scores) for name, scores in contenders.items()}
    timings = take_turns(turns, rounds, warm_up=1)
    differences = _differences(contenders, spread(batches, min(SAMPLE, len(batches)), 0.5))
    rows = []
    for name, timing in timings.items():
        seconds = [len(batches) / SAMPLE * taken for taken in timing.rounds]
        row = {"size": size, "contender": name, "rounds": seconds, "difference": differences[name]}
        rows.append(row | {"prompts_per_second": len(dev.ids) / statistics.median(seconds)})
    least = _least(student, dev)
    return [*rows, {"size": size, "contender": LIMIT, "prompts_per_second": len(dev.ids) / least}]


def _scores(classifier: LlamaZeroShotClassifier, batch: Batch) -> torch.Tensor:
    """Return what a classifier of ours says."""
    scores: torch.Tensor = classifier(_padded(batch.rows, classifier))
    return scores


def _their_scores(model: Any, student: LlamaZeroShotClassifier, batch: Batch) -> torch.Tensor:
    """Return the scores by transformers' model: each label is read behind each prompt."""
    return torch.stack([_their_score(model, student, batch.rows, ids) for ids in student.label_name_ids], dim=1)


def _their_score(
    model: Any, student: LlamaZeroShotClassifier, prompts: Sequence[list[int]], ids: Sequence[int]
) -> torch.Tensor:
    """Return the score of one label behind each prompt, (bs,)."""
    tokens = _padded([[*row, *ids] for row in prompts], student)
    lengths = torch.tensor([len(row) for row in prompts], device=tokens.device).unsqueeze(1)  # (bs, 1)
    is_text = torch.arange(tokens.shape[1], device=tokens.device) < lengths + len(ids)  # (bs, seqlen)
    hidden = model.model(tokens, attention_mask=is_text.long()).last_hidden_state  # (bs, seqlen, dim)
    steps = lengths - 1 + torch.arange(len(ids), device=tokens.device)  # (bs, len(ids)): each is read one step earlier
    rows = torch.arange(len(prompts), device=tokens.device).unsqueeze(1)
    log_probs = F.log_softmax(model.lm_head(hidden[rows, steps]), dim=-1)  # (bs, len(ids), vocab_size)
    return log_probs[:, torch.arange(len(ids)), torch.tensor(ids, device=tokens.device)].sum(dim=1)


def _padded(rows: Sequence[Sequence[int]], classifier: LlamaZeroShotClassifier) -> torch.Tensor:
    """Return the rows as one tensor, on the device of the classifier."""
    return collate(rows, classifier.llama.config.pad_id).to(classifier.llama.tok_embeddings.weight.device)


def _differences(contenders: dict[str, Scores], batches: Sequence[Batch]) -> dict[str, float]:
    """Return how far each contender's scores are from the student's, at most, in nats."""
    found = {name: torch.cat([scores(batch) for batch in batches]) for name, scores in contenders.items()}
    return {name: (scores - found[STUDENT]).abs().max().item() for name, scores in found.items()}


def _least(student: LlamaZeroShotClassifier, dev: EncodedExamples) -> float:
    """Return the seconds of the matrix products that nobody can do without, at the speed of a large one.

    Two operations for each weight of the layers and each token of a prompt and of the beginnings of labels, and two for
    each weight of the output matrix and each place at which a token of a label is asked for.
    """
    llama = student.llama
    beginnings = len(label_nodes(student.label_name_ids))
    in_layers = weights_in_layers(llama)
    prompts = len(dev.ids)
    operations = 2 * in_layers * (sum(dev.lengths) + beginnings * prompts)
    operations += 2 * llama.output.weight.numel() * (1 + beginnings) * prompts
    return operations / best_matmul_rate(llama.output.weight.device)


def table(result: dict[str, Any]) -> str:
    """Return the section on prompting."""
    head = ("size", "who", "prompts/s", f"ratio to {STUDENT}", "of the limit", "largest difference of a score")
    return "\n".join(
        [
            "## Zero-shot prompting on SST",
            "",
            report.machine(result),
            "",
            *report.grid(head, (_cells(row, result["rows"]) for row in result["rows"])),
            "",
            f"Batches of {BATCH_SIZE} prompts of the dev set; a turn is {result['sample']} of them, spread evenly from "
            "the cheapest to the costliest, others in each round. transformers reads each prompt with each label "
            "behind it. The limit is the matrix products alone, each prompt read once and without padding, as fast as "
            "one large product. A score is the log-likelihood of a label, in nats; the differences are to the "
            "student's. Above 1 is faster than the student's.",
            "",
        ]
    )


def _cells(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """Return the cells of a row."""
    same = {other["contender"]: other for other in rows if other["size"] == row["size"]}
    speed = f"{row['prompts_per_second']:.1f}"
    if row["contender"] == LIMIT:
        return row["size"], LIMIT, speed, "", "100%", ""
    share = f"{row['prompts_per_second'] / same[LIMIT]['prompts_per_second']:.0%}"
    if row["contender"] == STUDENT:
        return row["size"], STUDENT, speed, "1.00", share, ""
    ratio = report.ratio(row["rounds"], same[STUDENT]["rounds"])
    return row["size"], row["contender"], speed, ratio, share, f"{row['difference']:.1e}"

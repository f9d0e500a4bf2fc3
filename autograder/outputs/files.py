"""Are the output files of a submission what they should be? Predictions against the data, texts against the reference.

Everything in the folder was written by a stranger: sizes are limited, nothing is trusted to be text, to have the right
shape or to be printable. What is wrong with a file becomes a finding; only what is missing on our side is an error.
"""

import json
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autograder.editions import Edition, Reference
from autograder.outputs.coherence import LENGTHS, MAX_CHARACTERS, NEW_TOKENS, TextReader
from autograder.result import Finding, OutputResult, Severity
from sentiment_data import SEPARATOR, accuracy, has_gold_labels, prompt_suffix, read_examples, read_label_names
from submission_check import shown
from submission_rules import SUBMISSION, OutputFile

RUN_INFO = "run-info.json"
MAX_BYTES = 8_000_000  # of a file of predictions; the largest right one has half a megabyte
MAX_INFO_BYTES = 1_000_000
MAX_RUNS = 20  # runs of a run-info.json that are told
LEAST_CUT = 20  # characters that must be left of a sentence that was cut to the context
# An accuracy that lies further above the reference than so many margins is worth a person's look.
FAR_ABOVE = 3.0


@dataclass(frozen=True)
class Expected:
    """What a file of predictions is compared with; `labels` are the gold labels, where all equal: a placeholder."""

    data: str  # name of the data file
    sentences: tuple[str, ...]
    labels: tuple[int, ...]
    num_labels: int
    suffix: str  # of a zero-shot prompt


def check_outputs(
    folder: Path, edition: Edition, data: Path, reader: TextReader | None, checkpoint: str | None
) -> tuple[list[OutputResult], list[Finding]]:
    """Return what is known of each output file of a submission, and what is wrong.

    `data` is the folder of the official data. `checkpoint` is what the outputs are compared with; None takes the one
    that `run-info.json` names. `reader` reads the texts; without one nothing is said about their coherence.
    Raises DataError if a data file that is needed is missing or broken on our side.
    """
    findings = check_run_info(folder, checkpoint)
    reference = edition.reference(checkpoint or claimed_checkpoint(folder) or "")
    results = []
    for output in SUBMISSION.outputs:
        content = read_file(folder / output.name, MAX_BYTES)
        if content is None:
            results.append(OutputResult(output.name, present=False))
            continue
        if isinstance(content, Finding):
            result, found = OutputResult(output.name, present=True, reaches=False), [content]
        elif output.labels:
            result, found = _check_predictions(output, content, edition, reference, load_expected(output, data))
        else:
            result, found = check_text(output, content, reference, reader)
        results.append(result)
        findings += found
    return results, findings


def read_file(path: Path, limit: int) -> bytes | Finding | None:
    """Return the content of a stranger's file; a finding if it is no regular file or too large, None if not there."""
    name = path.name
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        return _finding("error", f"{name} cannot be read: {error.strerror}", "put a regular file there", name)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return _finding("error", f"{name} is no regular file", "put a regular file there", name)
    with os.fdopen(descriptor, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        return _finding("error", f"{name} has more than {limit} bytes", "write it again with `run_llama.py`", name)
    return content


def _finding(severity: Severity, what: str, mend: str, file: str, line: int = 0) -> Finding:
    """Return a finding of this stage."""
    return Finding("outputs", severity, what, mend, file, line)


# --- predictions ------------------------------------------------------------------------------------------------------


def load_expected(output: OutputFile, data: Path) -> Expected:
    """Read what a file of predictions should hold. Raises DataError, which names the file, if the data is not there."""
    data_set, split = output.name.split("-")[:2]
    names = read_label_names(data / f"{data_set}-label-mapping.json")
    path = data / f"{data_set}-{split}.txt"
    examples = read_examples(path, len(names))
    return Expected(
        path.name,
        tuple(example.sentence for example in examples),
        tuple(example.label for example in examples),
        len(names),
        prompt_suffix(names),
    )


def read_predictions(output: OutputFile, content: bytes, expected: Expected) -> list[int] | Finding:
    """Return the labels of a file of predictions, or the first thing that is wrong with it.

    A row is `label ||| sentence`; the sentence may have the suffix of a zero-shot prompt, may be cut at either end as
    for a short context, and its spaces do not count. A file that the student's own program made (`advanced`) may add
    more around the sentence.
    """
    rows = _rows(output, content)
    if isinstance(rows, Finding):
        return rows
    labels = []
    for number, (row, sentence) in enumerate(zip(rows, expected.sentences, strict=False), start=1):
        label, separator, text = row.partition(SEPARATOR)
        complaint = _complaint(label.strip(), separator, expected.num_labels)
        if not complaint and not _shows(text, sentence, expected.suffix, free=output.command is None):
            found, wanted = shown(text, 60), shown(sentence, 60)
            complaint = f"the sentence is not that of {expected.data}: found {found!r}, expected {wanted!r}"
        if complaint:
            return _finding("error", f"{output.name}:{number}: {complaint}", output.mend, output.name, number)
        labels.append(int(label))
    if len(rows) != len(expected.sentences):
        what = f"{output.name} has {len(rows)} rows, for {len(expected.sentences)} sentences in {expected.data}"
        return _finding("error", what, output.mend, output.name, min(len(rows), len(expected.sentences)) + 1)
    return labels


def _rows(output: OutputFile, content: bytes) -> list[str] | Finding:
    """Return the rows of a file, or what keeps it from being text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _finding("error", f"{output.name}:{line}: not UTF-8 text", output.mend, output.name, line)
    return text.rstrip("\r\n").split("\n")


def _complaint(label: str, separator: str, num_labels: int) -> str:
    """Return what is wrong with the form of a row, or an empty text."""
    if not separator:
        return "the row is not `label ||| sentence`"
    if not re.fullmatch(r"-?[0-9]{1,9}", label):
        return f"the label {shown(label, 20)!r} is not an integer"
    if not 0 <= int(label) < num_labels:
        return f"the label {int(label)} is not in 0 to {num_labels - 1}"
    return ""


def _shows(text: str, sentence: str, suffix: str, *, free: bool) -> bool:
    """Say whether a row's text is this sentence, with or without the suffix, in full or cut."""
    row, wanted, question = (" ".join(part.split()) for part in (text, sentence, suffix))
    prompt = f"{wanted} {question}"
    if row in (wanted, prompt) or (free and wanted in row):
        return True
    body = row.removesuffix(question).rstrip()
    return any(
        len(part) >= LEAST_CUT and (full.startswith(part) or full.endswith(part))
        for part, full in ((row, prompt), (body, wanted))
    )


def _check_predictions(
    output: OutputFile, content: bytes, edition: Edition, reference: Reference | None, expected: Expected
) -> tuple[OutputResult, list[Finding]]:
    """Compare a file of predictions with the data and with the reference accuracy."""
    labels = read_predictions(output, content, expected)
    if isinstance(labels, Finding):
        return OutputResult(output.name, present=True, reaches=False), [labels]
    result = measured(output.name, labels, expected, edition, reference)
    return result, _surprises(result)


def measured(
    name: str,
    predicted: Sequence[int],
    expected: Expected,
    edition: Edition,
    reference: Reference | None,
    agreement: float | None = None,
) -> OutputResult:
    """Return the accuracy of predictions, and whether it reaches the reference: better is never worse."""
    gold = expected.labels
    share = accuracy(predicted, gold) if has_gold_labels(gold) else None
    known = reference.accuracies.get(name) if reference else None
    margin = edition.margins.get(name)
    reaches = None
    if share is not None and known is not None and margin is not None:
        reaches = share >= known - margin - 1e-9  # a share that lies exactly at the margin reaches it
    return OutputResult(name, True, share, known, margin, reaches=reaches, agreement=agreement)


def _surprises(result: OutputResult) -> list[Finding]:
    """Return what a person should know of an accuracy."""
    if result.accuracy is None or result.reference is None or result.margin is None:
        return []
    if not result.reaches:
        what = (
            f"{result.name} is right in {result.accuracy:.3f} of its rows, below the reference's "
            f"{result.reference:.3f} by more than {result.margin:g}"
        )
        return [_finding("warning", what, "run the reference command again with finished code", result.name)]
    if result.accuracy > result.reference + FAR_ABOVE * result.margin:
        what = (
            f"{result.name} is right in {result.accuracy:.3f} of its rows, far above the reference's "
            f"{result.reference:.3f}: where does that come from?"
        )
        return [_finding("flag", what, "run the submission again with `--rerun`", result.name)]
    return []


# --- generated text ---------------------------------------------------------------------------------------------------


def check_text(
    output: OutputFile, content: bytes, reference: Reference | None, reader: TextReader | None
) -> tuple[OutputResult, list[Finding]]:
    """Say whether a generated text begins with the fixed prompt, has the right length and is coherent."""
    text = read_text(output, content, SUBMISSION.prompt)
    if isinstance(text, Finding):
        return OutputResult(output.name, present=True, reaches=False), [text]
    if reader is None:
        what = f"{output.name} was not judged: the weights that it should come from are not on this machine"
        mend = "read it, or grade where the weights are"
        return OutputResult(output.name, present=True), [_finding("note", what, mend, output.name)]
    result, found = judge_text(output, text, reference, reader)
    place = first_difference(text, reader.greedy()) if _is_greedy(output) else None
    if place is not None:
        what = f"{output.name} is not what the reference writes: they differ from character {place + 1} on"
        mend = "other weights, another precision, or another model: the checks tell"
        found.append(_finding("note", what, mend, output.name))
    return result, found


def _is_greedy(output: OutputFile) -> bool:
    """Say whether this is the text at temperature 0."""
    return output.name == "generated-sentence-temp-0.txt"


def judge_text(
    output: OutputFile, text: str, reference: Reference | None, reader: TextReader
) -> tuple[OutputResult, list[Finding]]:
    """Return what a text that begins with the prompt costs, and whether that and its length are those of a right one.

    At temperature 0 the reference's own text is right whatever it costs.
    """
    name, greedy, cost = output.name, _is_greedy(output), reader.cost(text)
    limit = reference.coherent_nats.get("0" if greedy else "1") if reference else None
    # rounded, so that another number of threads gives the same result.json
    result = OutputResult(name, present=True, nats=round(cost.nats, 3) if cost.tokens else None, limit=limit)
    if cost.tokens not in LENGTHS:
        what = f"{name}: {cost.tokens} tokens follow the prompt, for the {NEW_TOKENS} that are asked for"
        return replace(result, reaches=False), [_finding("error", what, output.mend, name)]
    if greedy and first_difference(text, reader.greedy()) is None:
        return replace(result, reaches=True), []
    if limit is None:
        what = f"{name} costs {cost.nats:.2f} nats a token; what is coherent was not measured for this checkpoint"
        return result, [_finding("note", what, "read it, or measure: `python -m autograder measure-text`", name)]
    if cost.nats > limit:
        what = f"{name} costs the reference {cost.nats:.2f} nats a token, a coherent text at most {limit:g}"
        return replace(result, reaches=False), [_finding("warning", what, "the checks say which part is wrong", name)]
    return replace(result, reaches=True), []


def read_text(output: OutputFile, content: bytes, prompt: str) -> str | Finding:
    """Return a text that begins with the prompt and is not too long to be read, or what is wrong with it."""
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n").lstrip()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return _finding("error", f"{output.name}:{line}: not UTF-8 text", output.mend, output.name, line)
    if not text.startswith(prompt):
        what = f"{output.name} does not begin with the fixed prompt: it begins with {shown(text, 60)!r}"
    elif len(text) > MAX_CHARACTERS:
        what = f"{output.name} has {len(text)} characters, more than {NEW_TOKENS} tokens can make"
    else:
        return text
    return _finding("error", what, output.mend, output.name)


def first_difference(text: str, other: str) -> int | None:
    """Return where two texts differ first, spaces at their end aside; None if they do not."""
    text, other = text.rstrip(), other.rstrip()
    if text == other:
        return None
    pairs = zip(text, other, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(text), len(other)))


# --- run-info.json ----------------------------------------------------------------------------------------------------


def claimed_checkpoint(folder: Path) -> str | None:
    """Return the checkpoint that all runs in `run-info.json` name; None if there is no such file, or they differ."""
    names = set(_claims(folder).values())
    return names.pop() if len(names) == 1 else None


def check_run_info(folder: Path, checkpoint: str | None) -> list[Finding]:
    """Return a note if there is no record of the runs, a warning if it is damaged, a flag if it names other weights."""
    content = read_file(folder / RUN_INFO, MAX_INFO_BYTES)
    if content is None:
        what = f"{RUN_INFO} is not there: which weights made the outputs is not known"
        return [_finding("note", what, "hand in the run-info.json that `run_llama.py` writes", RUN_INFO)]
    claims = _claims(folder)
    if not claims:
        what = f"{RUN_INFO} is damaged: it names no runs with their checkpoint"
        return [_finding("warning", what, "run `run_llama.py` again, which writes it, or leave it out", RUN_INFO)]
    others = {run: name for run, name in claims.items() if checkpoint is not None and name != checkpoint}
    if checkpoint is None and len(set(claims.values())) > 1:
        others = claims
    if not others:
        return []
    listed = ", ".join(f"{shown(name, 60)} ({shown(run, 60)})" for run, name in list(others.items())[:4])
    more = f" and {len(others) - 4} more" if len(others) > 4 else ""
    what = f"{RUN_INFO} names other weights than {checkpoint or 'one checkpoint for all runs'}: {listed}{more}"
    return [_finding("flag", what, "compare with the reference of those weights: --checkpoint NAME", RUN_INFO)]


def _claims(folder: Path) -> dict[str, str]:
    """Return the checkpoint that each run of `run-info.json` names, without its ending; whatever is odd is left out."""
    content = read_file(folder / RUN_INFO, MAX_INFO_BYTES)
    if not isinstance(content, bytes):
        return {}
    try:
        record = json.loads(content)
    except (ValueError, RecursionError):  # ValueError: no JSON, no UTF-8, a number of too many digits
        return {}
    runs = record.get("runs") if isinstance(record, Mapping) else None
    if not isinstance(runs, Mapping):
        return {}
    claims = {}
    for run, entry in list(runs.items())[:MAX_RUNS]:
        checkpoint = entry.get("checkpoint") if isinstance(entry, Mapping) else None
        name = checkpoint.get("name") if isinstance(checkpoint, Mapping) else None
        if isinstance(name, str) and 0 < len(name) <= 200:
            claims[run] = re.sub(r"\.(pt|pth|bin|safetensors)$", "", re.split(r"[\\/]", name)[-1])
    return claims

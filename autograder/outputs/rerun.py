"""Runs a submission's own `run_llama.py` again, in the sandbox, with the official weights and data, and compares.

Its program sees the sentences of the dev and test files and none of their labels; those are joined here, afterwards.
Sentences that it has never seen, and a prompt, are put among the known ones: a program that only writes out what it was
handed in with has nothing for them.
"""

import random
import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Protocol

from autograder.editions import Edition
from autograder.isolation.sandbox import Reply, Script
from autograder.outputs.coherence import NEW_TOKENS, TextReader, text_reader
from autograder.outputs.files import (
    MAX_BYTES,
    Expected,
    first_difference,
    judge_text,
    load_expected,
    measured,
    read_file,
    read_predictions,
    read_text,
)
from autograder.outputs.rerun_jobs import (
    Job,
    duration,
    jobs,
    knows_option,
    secret_prompt,
    secret_sentence,
    tokens_per_second,
    tokens_to_generate,
    tokens_to_read,
)
from autograder.result import Finding, OutputResult, Severity
from checkpoint import read_checkpoint, write_checkpoint
from classifier import LlamaZeroShotClassifier
from config import ClassifierConfig
from errors import DataError, UsageError
from finetune import predict
from reproduce_2024 import BUCKETED, KEEP, SUFFIX_END, ZeroShotClassifier2024, attend_to_everything
from sentiment_data import SEPARATOR, Example, encode, prompt_suffix, read_label_names
from submission_check import shown
from submission_rules import OutputFile

# How many rows of a rerun must have the label that was handed in. Not all: on another processor sums are rounded
# otherwise, and a sentence whose two best labels are equally likely to the fifth digit may fall to the other side.
AGREEMENT = 0.98
# The same for the secret sentences, of which there are few; a program that has no model is right in far fewer.
SECRET_AGREEMENT = 0.8
SECRET_TOKENS = 20  # that are asked for after the secret prompt
# A program may take so many times what the reference needs, and two minutes whatever that is, before it is stopped.
PATIENCE = 10.0
LEAST_SECONDS = 120.0
STARTING = 5.0  # seconds that Python and torch may take to start


class Runner(Protocol):
    """What is needed of the sandbox."""

    def run(self, script: Script, /) -> Reply:
        """Run the submission's program and return what came of it."""


@dataclass(frozen=True)
class _Rows:
    """A data file as the program sees it: which of its rows are secret, and what the reference answers to those."""

    official: Expected
    shown: Expected  # with the secret sentences
    secret: range
    wanted: tuple[int, ...]

    def split(self, predicted: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the labels of the official rows and of the secret ones."""
        known = [label for row, label in enumerate(predicted) if row not in self.secret]
        return known, [predicted[row] for row in self.secret]


def rerun(
    sandbox: Runner,
    edition: Edition,
    folder: Path,
    kinds: Sequence[str],
    weights: Path,
    data: Path,
    *,
    seed: str,
    checkpoint: str,
    reader: TextReader | None = None,
    arguments: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> tuple[list[OutputResult], list[Finding]]:
    """Run what `kinds` names (generate, prompt, finetune), and return what became of the outputs, and the findings.

    The commands are the reference commands, or one with a TA's `arguments`; `say` is told the expected time before each
    run. What is random (secret sentences and where they stand) comes from `seed`. The results are those of files made
    here, beside those of the files that were handed in. Raises UsageError for arguments that cannot be judged, and
    DataError if official data is missing.
    """
    if arguments and len(kinds) != 1:
        raise UsageError(
            f"arguments for a rerun belong to one kind of it, not to {', '.join(kinds) or 'none'}: name one"
        )
    todo = [job for kind in kinds for job in jobs(edition, folder, kind, arguments)]
    reader = reader or text_reader(weights, edition.causal)
    state = _Rerun(sandbox, edition, folder, weights, data, checkpoint, reader, random.Random(seed), say)
    for job in todo:
        with tempfile.TemporaryDirectory(prefix="rerun-") as name:
            place = Path(name)
            place.chmod(0o755)  # the sandbox may read it as another user
            if job.kind == "generate":
                state.generate(job, place)
            else:
                state.classify(job, place)
    return state.results, state.findings


@dataclass
class _Rerun:
    """One submission's reruns: what they share, and what came of them."""

    sandbox: Runner
    edition: Edition
    folder: Path
    weights: Path
    data: Path
    checkpoint: str
    reader: TextReader
    random: random.Random
    say: Callable[[str], None]
    results: list[OutputResult] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def _note(self, severity: Severity, what: str, mend: str, file: str = "") -> None:
        """Keep a finding."""
        self.findings.append(Finding("rerun", severity, what, mend, file))

    def _run(self, job: Job, files: Mapping[str, Path], place: Path, tokens: int) -> Mapping[str, bytes]:
        """Run the program, after a line about the time it should take; return its files, none if it failed."""
        rate = tokens_per_second(self.reader)
        expected = STARTING + tokens / rate
        seconds = max(LEAST_SECONDS, PATIENCE * expected)
        outputs = tuple(job.outputs.values())
        self.say(
            f"rerun of {job.kind} ({', '.join(outputs)}): about {duration(expected)} for {tokens:,} tokens, of which "
            f"the reference reads {rate:,.0f} a second on one core of this machine; stopped after {duration(seconds)}"
        )
        argument, weights = self._weights(place)
        argv = ("run_llama.py", *job.argv, "--pretrained-model-path", argument)
        reply = self.sandbox.run(Script(argv, {**files, **weights}, outputs, seconds))
        command = f"`python {shlex.join(argv)}`"
        if reply.status == "timeout":
            what = f"{command} did not end within {PATIENCE:g} times what the reference needs on the same machine"
            self._note("error", what, "make it faster, or hand in the arguments that it needs")
        elif reply.status != "ok" or reply.exit_status:
            last = (reply.printed.strip().splitlines() or ["it printed nothing"])[-1]
            what = f"{command} failed ({reply.status}, exit status {reply.exit_status}): {shown(last, 200)}"
            self._note("error", what, "run the reference command with the files that were handed in")
        elif absent := [name for name in outputs if name not in reply.files]:
            self._note(
                "error", f"{command} wrote no {' and no '.join(absent)}", "write the files that the options name"
            )
        else:
            return reply.files
        return {}

    def _weights(self, place: Path) -> tuple[str, dict[str, Path]]:
        """Return the argument that names the weights to the program, and the files behind it.

        A submission that brings its own given files may be of the original's kind: it reads a training checkpoint of
        llama2.c, and SentencePiece's model in its working directory.
        """
        tokenizer, weights = self.reader.tokenizer, self.weights
        if self.edition.files.pristine == "missing":
            name, model = f"{weights.stem}.pt", "tokenizer.model"
            if not (place / name).exists():
                config, tensors = read_checkpoint(weights)
                write_checkpoint(place / name, config, tensors)
                (place / model).write_bytes(tokenizer.sp_model.serialized_model_proto())
            return name, {name: place / name, model: place / model}
        where = f"weights/{weights.name}"
        if weights.is_dir():
            files = [weights / "config.json", *sorted(weights.glob("*.safetensors*")), tokenizer.path]
            return where, {f"{where}/{file.name}": file for file in files}
        return where, {where: weights, f"weights/{tokenizer.path.name}": tokenizer.path}

    def _length(self, text: str) -> int:
        """Return how many tokens a text has, at most the model's context."""
        return min(len(self.reader.tokenizer.encode(text, bos=True, eos=False)), self.reader.llama.config.max_seq_len)

    # --- generate ---

    def generate(self, job: Job, place: Path) -> None:
        """Run `--option generate`, and once more with a prompt that nobody knows if the program takes one."""
        files = self._run(job, {}, place, tokens_to_generate(self._length(self.reader.prompt), NEW_TOKENS))
        for temperature, name in job.outputs.items():
            if name in files:
                self._judge_text(job.rules(temperature), name, files[name], temperature)
        if files and all(knows_option(self.folder, option) for option in ("--prompt", "--max_new_tokens")):
            self._secret_prompt(job, place)

    def _judge_text(self, output: OutputFile, name: str, content: bytes, temperature: str) -> None:
        """Keep the verdict on one text that the program wrote."""
        text = read_text(output, content, self.reader.prompt)
        if isinstance(text, Finding):
            self._note("error", f"in the rerun, {text.what}", text.mend, name)
            self.results.append(OutputResult(output.name, present=True, reaches=False))
            return
        result, found = judge_text(output, text, self.edition.reference(self.checkpoint), self.reader)
        self.findings += [replace(finding, stage="rerun", what=f"in the rerun, {finding.what}") for finding in found]
        agreement = self._compare_greedy(output, name, text) if temperature == "0" else None
        self.results.append(replace(result, agreement=agreement))

    def _compare_greedy(self, output: OutputFile, name: str, text: str) -> float | None:
        """Compare a text at temperature 0 with the reference's and the one handed in; 1.0 if it repeats the latter."""
        place = first_difference(text, self.reader.greedy())
        if place is not None:
            what = f"in the rerun, {name} is not what the reference writes: they differ from character {place + 1} on"
            self._note("flag", what, "at temperature 0 the same weights give the same text", name)
        handed_in = read_file(self.folder / output.name, MAX_BYTES)
        theirs = read_text(output, handed_in, self.reader.prompt) if isinstance(handed_in, bytes) else None
        if not isinstance(theirs, str):
            return None
        place = first_difference(text, theirs)
        if place is not None:
            what = f"in the rerun, {name} is not the text that was handed in: they differ from character {place + 1} on"
            self._note("flag", what, "ask which code and weights wrote the file", name)
        return float(place is None)

    def _secret_prompt(self, job: Job, place: Path) -> None:
        """Let the program continue a prompt that it cannot know, and compare with the reference."""
        prompt = secret_prompt(self.random)
        secret = replace(job, argv=(*job.argv, "--prompt", prompt, "--max_new_tokens", str(SECRET_TOKENS)))
        files = self._run(secret, {}, place, tokens_to_generate(self._length(prompt), SECRET_TOKENS))
        name = job.outputs["0"]
        if name not in files:
            return
        text = files[name][:MAX_BYTES].decode("utf-8", "replace").replace("\r\n", "\n").lstrip()
        [wanted] = self.reader.write(0.0, new_tokens=SECRET_TOKENS, prompt=prompt)
        if (at := first_difference(text, wanted)) is not None:
            what = f"a prompt that nobody knew is not continued as the reference does, from character {at + 1} on"
            self._note("flag", what, f"does the program run the model at all? The prompt was {prompt!r}", name)

    # --- prompt and finetune ---

    def classify(self, job: Job, place: Path) -> None:
        """Run a classification with blanked labels, and judge both of its files."""
        splits = {split: self._prepare(job, split, place) for split in ("dev", "test")}
        files = {getattr(job.options, split): place / f"{split}.txt" for split in splits}
        for name in (job.options.train, job.options.label_names):
            files[name] = self.data / Path(name).name
            if not files[name].is_file():
                raise DataError(f"{files[name]}: no such file: a rerun needs it, get it with `./setup.sh`")
        written = self._run(job, files, place, self._tokens(job, splits))
        for split, rows in splits.items():
            if (name := job.outputs[split]) in written:
                self._judge_predictions(job, job.rules(split), written[name], rows)

    def _prepare(self, job: Job, split: str, place: Path) -> _Rows:
        """Write a data file as the program is to see it."""
        official = load_expected(job.rules(split), self.data)
        sentences, secret, wanted = official.sentences, range(0), list[int]()
        if job.kind == "prompt":
            sentences, secret = self._with_secrets(official.sentences, job.options.batch_size)
            wanted = self._reference_labels(job, [sentences[row] for row in secret])
        labels = self._labels_shown(job, split, official) or [0] * len(sentences)
        rows = (f"{label}{SEPARATOR}{sentence}\n" for label, sentence in zip(labels, sentences, strict=True))
        path = place / f"{split}.txt"
        path.write_text("".join(rows), encoding="utf-8", newline="\n")
        path.chmod(0o644)
        return _Rows(official, replace(official, sentences=sentences), secret, tuple(wanted))

    def _labels_shown(self, job: Job, split: str, official: Expected) -> list[int]:
        """Return the labels that the program sees; none: 0 on every row, which every reader takes.

        Finetuning needs labels of the dev set to choose its best epoch. It gets those that were handed in: they choose
        the epoch that was handed in, and tell nothing that the submission does not know.
        """
        if job.kind != "finetune" or split != "dev":
            return []
        labels = self._handed_in(job.rules(split), official) or []
        if len(set(labels)) < 2:  # no such file, or one that chooses nothing
            return [row % official.num_labels for row in range(len(official.sentences))]
        return labels

    def _undecided(self, result: OutputResult) -> OutputResult:
        """Return a result of finetuning, where a bad one is for a person to judge.

        What was rounded otherwise is trained on: two right runs may differ in many labels, and in accuracy by as much
        as two seeds do.
        """
        if result.reaches is not False:
            return result
        what = f"in the rerun, {result.name} is right in {result.accuracy:.3f} of its rows, below the reference's"
        mend = "was it chance? Compare with what was handed in, and run it again"
        self._note("flag", f"{what} {result.reference:.3f} by more than {result.margin:g}", mend, result.name)
        return replace(result, reaches=None)

    def _handed_in(self, output: OutputFile, official: Expected) -> list[int] | None:
        """Return the labels of a file of predictions in the submission; None if there is none that can be read."""
        content = read_file(self.folder / output.name, MAX_BYTES)
        labels = read_predictions(output, content, official) if isinstance(content, bytes) else None
        return labels if isinstance(labels, list) else None

    def _with_secrets(self, sentences: Sequence[str], batch_size: int) -> tuple[tuple[str, ...], range]:
        """Put a batch of new sentences between two batches: with 2024's padding, a batch's predictions depend on it."""
        start = batch_size * self.random.randrange(len(sentences) // batch_size + 1)
        new = [secret_sentence(sentences, self.random) for _ in range(batch_size)]
        return (*sentences[:start], *new, *sentences[start:]), range(start, start + batch_size)

    def _reference_labels(self, job: Job, sentences: Sequence[str]) -> list[int]:
        """Return what the reference answers to one batch of sentences, as `tasks.py` asks for it."""
        names = read_label_names(self.data / Path(job.options.label_names).name)
        config = ClassifierConfig(len(names), str(self.weights), "pretrain", 0.0)
        tokenizer, suffix = self.reader.tokenizer, prompt_suffix(names)
        if self.edition.reproduce_2024:
            classifier: LlamaZeroShotClassifier = ZeroShotClassifier2024(config, tokenizer, names)
            attend_to_everything(classifier.llama)
            room, suffix, bucketed = classifier.llama.config.max_seq_len, suffix + SUFFIX_END, BUCKETED
        else:
            classifier = LlamaZeroShotClassifier(config, tokenizer, names)
            classifier.llama.config.pad_id = tokenizer.pad_id
            room = classifier.llama.config.max_seq_len - max(map(len, classifier.label_name_ids)) + 1
            bucketed = True
        keep: Literal["end", "start"] = KEEP if self.edition.reproduce_2024 else "end"
        most = min(room, job.options.max_sentence_len or room)
        encoded = encode([Example(0, sentence) for sentence in sentences], tokenizer, most, suffix, keep)
        return predict(classifier, encoded.ids, len(sentences), tokenizer.pad_id, bucketed=bucketed)

    def _tokens(self, job: Job, splits: Mapping[str, _Rows]) -> int:
        """Return how many tokens go through the model; training counts three times: the way back is twice as long."""
        dev, test = (splits[split].shown for split in ("dev", "test"))
        suffix = f" {dev.suffix}" if job.kind == "prompt" else ""
        most = job.options.max_sentence_len or self.reader.llama.config.max_seq_len

        def tokens(sentences: Sequence[str]) -> int:
            lengths = [min(most, self._length(sentence + suffix)) for sentence in sentences]
            return tokens_to_read(lengths, job.options.batch_size)

        once = tokens(dev.sentences) + tokens(test.sentences)
        if job.kind == "prompt":
            return once
        train_set = Path(job.options.train).stem.removesuffix("-train")
        train = load_expected(replace(job.rules("dev"), name=f"{train_set}-train-"), self.data)
        return int(job.options.epochs) * (3 * tokens(train.sentences) + tokens(dev.sentences)) + once

    def _judge_predictions(self, job: Job, output: OutputFile, content: bytes, rows: _Rows) -> None:
        """Keep the verdict on one file of predictions that the program wrote."""
        labels = read_predictions(output, content, rows.shown)
        if isinstance(labels, Finding):
            self._note("error", f"in the rerun, {labels.what}", labels.mend, output.name)
            self.results.append(OutputResult(output.name, present=True, reaches=False))
            return
        known, secret = rows.split(labels)
        theirs = self._handed_in(output, rows.official)
        agreement = _share(known, theirs) if theirs else None
        reference = self.edition.reference(self.checkpoint)
        result = measured(output.name, known, rows.official, self.edition, reference, agreement)
        if job.kind == "finetune":
            result = self._undecided(result)
        self.results.append(result)
        if job.kind == "prompt" and agreement is not None and agreement < AGREEMENT:
            what = f"in the rerun, {agreement:.1%} of the labels in {output.name} are those that were handed in"
            mend = "ask which code and weights wrote the file"
            self._note("flag", f"{what}, less than {AGREEMENT:.0%}", mend, output.name)
        if secret and _share(secret, rows.wanted) < SECRET_AGREEMENT:
            right = round(_share(secret, rows.wanted) * len(secret))
            what = f"of {len(secret)} sentences that nobody knew, {right} got the reference's label in {output.name}"
            self._note("flag", what, "does the program run the model at all?", output.name)


def _share(labels: Sequence[int], others: Sequence[int]) -> float:
    """Return the share of places at which two rows of labels agree."""
    return sum(mine == its for mine, its in zip(labels, others, strict=True)) / len(others)

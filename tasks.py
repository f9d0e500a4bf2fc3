"""The three tasks behind `run_llama.py`: generate text, classify by prompting, finetune a classifier.

Each takes the parsed options, writes its output files, prints its results, and returns them as a dictionary.
"""

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from checkpoint import check_finite, read_checkpoint
from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier
from config import ClassifierConfig
from errors import UsageError
from finetune import Finetuner, predict
from llama import Llama, load_pretrained
from plots import plot_confusion, plot_learning_curves, require_matplotlib
from reproduce_2024 import BUCKETED, KEEP, SUFFIX_END, ZeroShotClassifier2024, attend_to_everything
from sentiment_data import (
    EncodedExamples,
    accuracy,
    encode,
    has_gold_labels,
    prompt_suffix,
    read_examples,
    read_label_names,
    write_predictions,
)
from tokenizer import Tokenizer, check_vocabulary, find_tokenizer
from utils import pick_device, seed_everything, sha256_of, write_text

Results = dict[str, Any]


def run_task(args: argparse.Namespace) -> Results:
    """Run the task that `args.option` names, with the weights `args.weights`; raises a MinLlamaError for bad input."""
    seed_everything(args.seed)
    return Generation(args).run() if args.option == "generate" else Classification(args).run()


class Generation:
    """The prompt continued at temperature 0 and at temperature 1."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Load the Llama, and tokenise the prompt. Raises CheckpointError if a weight is no number."""
        self.args = args
        self.device = pick_device(args.device)
        self.llama = load_pretrained(args.weights)
        check_finite(args.weights, dict(self.llama.named_parameters()))
        self.tokenizer = load_tokenizer(args.tokenizer, args.weights, self.llama.vocab_size)
        if args.reproduce_2024:
            attend_to_everything(self.llama)
        self.llama = self.llama.to(self.device)
        self.ids = self.tokenizer.encode(args.prompt, bos=True, eos=False)

    def run(self) -> Results:
        """Print and write both texts."""
        outputs = {0.0: self.args.generated_sentence_low_temp_out, 1.0: self.args.generated_sentence_high_temp_out}
        limit = self.llama.config.max_seq_len
        if len(self.ids) + self.args.max_new_tokens > limit:
            print(f"Past {limit} tokens, the model's context, each new token is predicted from the last {limit} alone.")
        for temperature, path in outputs.items():
            text = self.continue_prompt(temperature)
            write_text(path, text + "\n")
            self.report(temperature, text)
        return {"outputs": list(outputs.values())}

    def continue_prompt(self, temperature: float) -> str:
        """Return the prompt with its continuation."""
        idx = torch.tensor([self.ids], device=self.device)  # (1, seqlen)
        rows = self.llama.generate(idx, self.args.max_new_tokens, temperature=temperature)
        return self.tokenizer.decode(rows[0].tolist())

    def report(self, temperature: float, text: str) -> None:
        """Print a text."""
        print(f"Temperature is {temperature}\n{text}\n")


def load_tokenizer(named: str | None, weights: Path, vocab_size: int) -> Tokenizer:
    """Return the tokenizer that was named, or the one beside the weights; raises TokenizerError if it does not fit."""
    if named is None:
        return find_tokenizer(weights, vocab_size)
    tokenizer = Tokenizer(tokenizer_model=named)
    check_vocabulary(tokenizer, vocab_size, weights)
    return tokenizer


class Classification:
    """What prompting and finetuning share: labels, tokenizer, data, and the report of the results."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Read what both need; whatever can be refused before the long work is refused here."""
        if args.plots:
            require_matplotlib()
        self.args = args
        self.device = pick_device(args.device)
        self.label_names = read_label_names(args.label_names)
        llama_config, _ = read_checkpoint(args.weights)
        self.tokenizer = load_tokenizer(args.tokenizer, args.weights, llama_config.vocab_size)
        self.config = ClassifierConfig(
            num_labels=len(self.label_names),
            pretrained_model_path=str(args.weights),
            option="finetune" if args.option == "finetune" else "pretrain",
            hidden_dropout_prob=args.hidden_dropout_prob,
        )
        self.bucketed = BUCKETED if args.reproduce_2024 else True
        self.results: Results = {"outputs": []}

    def run(self) -> Results:
        """Prompt or finetune, whichever `args.option` names."""
        return self.prompt() if self.args.option == "prompt" else self.finetune()

    def prompt(self) -> Results:
        """Classify dev and test by asking the Llama, without training it."""
        suffix = prompt_suffix(self.label_names)
        if self.args.reproduce_2024:
            suffix += SUFFIX_END
        classifier = self.zero_shot_classifier()
        self._adapt(classifier.llama)
        context = classifier.llama.config.max_seq_len
        if not self.args.reproduce_2024:  # a label's tokens, less its last, are read behind the prompt: leave them room
            context -= max(map(len, classifier.label_name_ids)) - 1
        dev, test = (self._encode(path, context, suffix) for path in (self.args.dev, self.args.test))
        classifier = classifier.to(self.device)
        for split, examples in (("dev", dev), ("test", test)):
            pad_id, batch_size = self.tokenizer.pad_id, self.args.batch_size
            predicted = predict(classifier, examples.ids, batch_size, pad_id, bucketed=self.bucketed)
            self._report(split, examples, predicted)
        return self.results

    def finetune(self) -> Results:
        """Train the classifier, keep the best epoch, and predict dev and test with it."""
        args = self.args
        classifier = LlamaEmbeddingClassifier(self.config)
        self._adapt(classifier.llama)
        context = classifier.llama.config.max_seq_len
        train, dev, test = (self._encode(path, context) for path in (args.train, args.dev, args.test))
        _require_gold(args.train, train)
        _require_gold(args.dev, dev)
        finetuner = self.finetuner(classifier.to(self.device))
        _start_or_resume(args, finetuner)
        finetuner.fit(train, dev, args.epochs, report=print)
        self.results["epochs"] = [vars(result) for result in finetuner.history]
        for split, examples in (("dev", dev), ("test", test)):
            self._report(split, examples, finetuner.predict(examples))
        if args.plots:
            plot_learning_curves(finetuner.history, Path(args.plots, f"{finetuner.best_path.stem}-curves.png"))
        finetuner.finish()
        return self.results

    def zero_shot_classifier(self) -> LlamaZeroShotClassifier:
        """Return what `prompt` classifies with."""
        kind = ZeroShotClassifier2024 if self.args.reproduce_2024 else LlamaZeroShotClassifier
        return kind(self.config, self.tokenizer, self.label_names)

    def finetuner(self, classifier: LlamaEmbeddingClassifier, **more: Any) -> Finetuner:
        """Return what `finetune` trains with; `more` goes to it as it is."""
        args, identity = self.args, self.identity()
        return Finetuner(
            classifier,
            _best_path(args, identity),
            run=identity,
            batch_size=args.batch_size,
            lr=args.lr,
            seed=args.seed,
            pad_id=self.tokenizer.pad_id,
            bucketed=self.bucketed,
            **more,
        )

    def identity(self) -> Results:
        """Return what a resumed run must share with the run that it goes on with: whatever changes its numbers."""
        args = self.args
        numbers = ("seed", "epochs", "batch_size", "hidden_dropout_prob", "lr", "max_sentence_len", "reproduce_2024")
        files = {"train": args.train, "dev": args.dev, "label_names": args.label_names}
        hashes = {name: sha256_of(path) for name, path in (files | {"tokenizer": self.tokenizer.path}).items()}
        return {name: getattr(args, name) for name in numbers} | hashes | {"weights": args.weights_sha256}

    def _adapt(self, llama: Llama) -> None:
        """Tell the Llama what padding is, or, for 2024, that nothing is."""
        llama.config.pad_id = self.tokenizer.pad_id
        if self.args.reproduce_2024:
            attend_to_everything(llama)

    def _encode(self, path: str, context: int, suffix: str = "") -> EncodedExamples:
        """Read and tokenise a data file, with one line on the screen if sentences had to be cut."""
        max_len = min(context, self.args.max_sentence_len or context)
        keep = KEEP if self.args.reproduce_2024 else "end"
        encoded = encode(read_examples(path, len(self.label_names)), self.tokenizer, max_len, suffix, keep)
        if warning := encoded.cut_warning(
            "that the model has room for" if max_len == context else "of --max_sentence_len"
        ):
            print(f"{path}: {warning}")
        return encoded

    def _report(self, split: str, examples: EncodedExamples, predicted: list[int]) -> None:
        """Write the predictions of a split, and print its accuracy where there are labels to compare with."""
        output: str = getattr(self.args, f"{split}_out")
        write_predictions(output, predicted, examples.sentences)
        self.results["outputs"].append(output)
        if not has_gold_labels(examples.labels):
            print(f"{split} acc :: none: all labels of the file are {examples.labels[0]}, so it would mean nothing")
            return
        self.results[f"{split}_acc"] = accuracy(predicted, examples.labels)
        print(f"{split} acc :: {self.results[f'{split}_acc']:.3f}")
        if self.args.plots:
            picture = Path(self.args.plots, Path(output).stem.replace("-output", "-confusion") + ".png")
            plot_confusion(examples.labels, predicted, self.label_names, picture)


def _require_gold(path: str, examples: EncodedExamples) -> None:
    """Raise UsageError if a file has nothing to learn from, or to choose the best epoch by."""
    if not has_gold_labels(examples.labels):
        raise UsageError(f"{path}: all labels are {examples.labels[0]}: finetuning needs real labels in this file")


def _best_path(args: argparse.Namespace, identity: Results) -> Path:
    """Return where the best epoch is saved: what one looks for in the name, and a mark that no other run shares."""
    mark = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:6]
    model = args.weights.stem + ("-2024" if args.reproduce_2024 else "")
    return Path(f"{args.option}-{args.dataset}-{model}-{args.epochs}-{args.lr:g}-seed{args.seed}-{mark}.pt")


def _start_or_resume(args: argparse.Namespace, finetuner: Finetuner) -> None:
    """With --resume, take up the saved state; say on the screen what becomes of a run that was stopped."""
    if args.resume and finetuner.resume():
        print(f"Resumed {finetuner.resume_path}:")
        for result in finetuner.history:
            print(result)
    elif args.resume:
        print("Nothing to resume, no stopped run is here: a new one starts.")
    elif finetuner.resume_path.is_file():
        print(f"Note: {finetuner.resume_path} holds a run that was stopped, and --resume would go on with it.")
        print("This run will replace it after its first epoch.")

"""Better answers from the same weights: nothing is trained, only the asking and the counting change.

A language model's raw preference among labels is mostly about the words: short and frequent ones win, whatever the
sentence says. The methods here take that part out (Holtzman et al. 2021, arXiv 2104.08315; Zhao et al. 2021,
arXiv 2102.09690; Zhou et al. 2023, arXiv 2309.17249), ask in several ways (Schick & Schütze 2021, arXiv 2001.07676), or
show what is wanted (Brown et al. 2020, arXiv 2005.14165). They can be combined: each is a step on the scores of all
sentences, in the order of the catalogue, and the mean over templates comes last.

What it costs: no parameters. `Templates` reads each sentence once a template; demonstrations lengthen each row by
theirs; `Calibration` and `Pmi` read three sentences and one more, `BatchCalibration` as many as it is told.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
import torch.nn.functional as F

from advanced.task import SCORED, Part, Task, evenly
from advanced.templates import ENSEMBLE, NAMES, QUESTION, Pair, Prompt, make_prompt
from advanced.training import Recipe
from config import ClassifierConfig
from errors import UsageError
from finetune import score
from inference.packed import PackedLlama
from inference.prompting import FastZeroShotClassifier
from sentiment_data import Example, SentenceEncoder
from tokenizer import Tokenizer

BATCH = 32  # sentences
CONTENT_FREE = ("N/A", "[MASK]", "")
ROOM_FOR_SENTENCE = 2  # demonstrations fill one part in so many of the context at most

Wanted = TypeVar("Wanted")


# ---------------------------------------------------------------------------------------------------- how to ask


@dataclass(frozen=True)
class ZeroShot:
    """The likelihood of each label's words behind a question (Brown et al. 2020, arXiv 2005.14165, section 2.4)."""

    template: str = QUESTION
    words: str = NAMES

    @property
    def pair(self) -> Pair:
        """The names of the template and of the words."""
        return self.template, self.words


@dataclass(frozen=True)
class Templates:
    """The mean over several questions and names of the labels (Schick & Schütze 2021, arXiv 2001.07676, section 3).

    Each has the same weight, as there are no labels here to weigh them by.
    """

    def pairs(self, first: Pair) -> list[Pair]:
        """Return the templates and words to ask with: `first` and those of ENSEMBLE, each once."""
        return list(dict.fromkeys([first, *ENSEMBLE]))


@dataclass(frozen=True)
class FewShot:
    """Sentences with their labels stand before each sentence (Brown et al. 2020, arXiv 2005.14165, section 2)."""

    shots: int = 1

    def __post_init__(self) -> None:
        """Raise UsageError for less than one sentence of each label."""
        _check_at_least_one("few-shot", "shots", self.shots)

    def demonstrations(
        self, prompt: Prompt, examples: Sequence[Example], tokenizer: SentenceEncoder, context: int, seed: int
    ) -> str:
        """Return the text of `shots` sentences of each label with their answers, in an order that depends on `seed`.

        They are drawn among those short enough for all to fill half of the context, in tokens. Raises UsageError if
        there are not enough of a label.
        """
        generator = random.Random(seed)
        order = generator.sample(examples, len(examples))
        room = context // ROOM_FOR_SENTENCE // (self.shots * len(prompt.words))
        chosen: list[str] = []
        for label, word in enumerate(prompt.words):
            texts = (prompt.demonstration(example.sentence, label) for example in order if example.label == label)
            short = (text for text in texts if len(tokenizer.encode(text, bos=False, eos=False)) <= room)
            chosen += islice(short, self.shots)
            if len(chosen) < self.shots * (label + 1):
                raise UsageError(
                    f"few-shot: not {self.shots} of the training sentences that are '{word}' have, with their "
                    f"question, at most the {room} tokens for which the model's context of {context} has room: choose "
                    "fewer shots, a shorter template, or a model with a longer context"
                )
        generator.shuffle(chosen)
        return "".join(chosen)


# ---------------------------------------------------------------------------------------------------- how to count


class Step:
    """A step on the scores of all sentences. It may look at those of reference sentences, which went the same way."""

    def reference(self, task: Task) -> list[str]:
        """Return the sentences that the step looks at; an empty one is the question alone."""
        return []

    def apply(self, scores: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Return new log-scores: those of the sentences, given those of the `reference` and each label's length.

        Shapes: scores (n, num_labels), reference (m, num_labels), tokens (num_labels,) -> (n, num_labels).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LengthNorm(Step):
    """The log-likelihood per token of a label (Brown et al. 2020, arXiv 2005.14165, section 2.4)."""

    def apply(self, scores: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Divide by the lengths."""
        return scores / tokens


@dataclass(frozen=True)
class Pmi(Step):
    """How much the sentence raises a label's likelihood (Holtzman et al. 2021, arXiv 2104.08315, section 2).

    The pointwise mutual information of sentence and label, given the question: log P(label | sentence, question)
    - log P(label | question).
    """

    def reference(self, task: Task) -> list[str]:
        """Return the question alone: the premise of the domain."""
        return [""]

    def apply(self, scores: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Subtract the premise's scores."""
        return scores - reference


class _Prior(Step):
    """Divides by the mean answer to reference sentences: what the model says whatever it has read."""

    def apply(self, scores: torch.Tensor, reference: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Subtract the logarithm of the mean probability that the reference gives to each label."""
        return F.log_softmax(scores, dim=1) - reference.softmax(dim=1).mean(dim=0).log()


@dataclass(frozen=True)
class Calibration(_Prior):
    """Divide by the mean answer to sentences without content (Zhao et al. 2021, arXiv 2102.09690, section 5)."""

    def reference(self, task: Task) -> list[str]:
        """Return the sentences without content."""
        return list(CONTENT_FREE)


@dataclass(frozen=True)
class BatchCalibration(_Prior):
    """Divide by the mean answer to unlabelled sentences (Zhou et al. 2023, arXiv 2309.17249, section 3)."""

    sentences: int = 200

    def __post_init__(self) -> None:
        """Raise UsageError for less than one sentence."""
        _check_at_least_one("batch-calibration", "sentences", self.sentences)

    def reference(self, task: Task) -> list[str]:
        """Return training sentences from all over the file: SST's begins with the good ones."""
        return [example.sentence for example in evenly(task.parts["fit"], self.sentences)]


def _check_at_least_one(method: str, option: str, value: int) -> None:
    """Raise UsageError for an option that counts sentences and is less than 1."""
    if value < 1:
        raise UsageError(f"{method}: {option} must be at least 1, got {value}")


# ---------------------------------------------------------------------------------------------------- the scores


class FinePacked(PackedLlama):
    """A packed Llama whose last product is in float32 whatever the precision of the others.

    A logit of around 10 is a multiple of 1/16 in bfloat16, which is no less than what sentences differ by.
    """

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of the next token. Shapes: (..., dim) -> (..., vocab_size)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return super().logits(hidden.float())


class PromptReader(FastZeroShotClassifier):
    """A Llama that scores any labels behind any prompts: all templates share it."""

    def __init__(self, checkpoint: Path, tokenizer: Tokenizer, num_labels: int) -> None:
        """Load the Llama. Raises CheckpointError."""
        super().__init__(ClassifierConfig(num_labels, str(checkpoint)), tokenizer, [])
        self.tokenizer = tokenizer
        self.llama.config.pad_id = tokenizer.pad_id

    @cached_property
    def packed(self) -> PackedLlama:
        """The Llama, arranged at the first use. Raises UsageError if it is not causal."""
        return FinePacked(self.llama)

    def tokenize_labels(self, tokenizer: SentenceEncoder, label_names: list[str]) -> list[list[int]]:
        """Return no labels yet: `read` has them from its prompt."""
        return []

    def read(self, prompt: Prompt, sentences: Sequence[str], recipe: Recipe) -> tuple[torch.Tensor, torch.Tensor]:
        """Return how likely each label is behind each sentence and how many tokens it has, on the CPU.

        Shapes: (sentences, num_labels), sums of log-probabilities of the tokens, and (num_labels,). Raises
        TokenizerError if a label has no tokens of its own, and UsageError if there is no room for a sentence.
        """
        self.label_name_ids = prompt.label_ids(self.tokenizer)
        tokens = torch.tensor([len(ids) for ids in self.label_name_ids])
        room = self.llama.config.max_seq_len - int(tokens.max()) + 1  # a label's last token is not read
        rows = prompt.rows(sentences, self.tokenizer, room, recipe.max_sentence_len)
        pad_id, precision = self.tokenizer.pad_id, recipe.precision
        return score(self, rows, BATCH, pad_id, bucketed=True, precision=precision, description=prompt.suffix), tokens


def scores(
    checkpoint: Path,
    tokenizer: Tokenizer,
    task: Task,
    methods: Sequence[object],
    recipe: Recipe,
    device: torch.device,
    parts: Sequence[Part] = SCORED,
) -> dict[Part, torch.Tensor]:
    """Return the log-probabilities of the labels of each part's sentences, (sentences, num_labels), on the CPU.

    `methods` are those of this file, in the catalogue's order. Raises CheckpointError, TokenizerError, and UsageError
    for templates or words that do not exist and for what does not fit the model's context.
    """
    pair = (_find(ZeroShot, methods) or ZeroShot()).pair
    ensemble = _find(Templates, methods)
    pairs = ensemble.pairs(pair) if ensemble else [pair]
    prompts = [make_prompt(template, words, task) for template, words in pairs]
    reader = PromptReader(checkpoint, tokenizer, len(task.label_names)).to(device)
    if few_shot := _find(FewShot, methods):
        context, fit = reader.llama.config.max_seq_len, task.parts["fit"]
        prompts = [p.after(few_shot.demonstrations(p, fit, tokenizer, context, recipe.seed)) for p in prompts]
    steps = [method for method in methods if isinstance(method, Step)]
    asked = [sentence for part in parts for sentence in task.sentences(part)]
    answers = [answer(reader, prompt, asked, task, steps, recipe) for prompt in prompts]
    mean = F.log_softmax(torch.stack(answers).mean(dim=0), dim=1)
    sizes = [len(task.parts[part]) for part in parts]
    return dict(zip(parts, torch.split(mean, sizes), strict=True))


def answer(
    reader: PromptReader, prompt: Prompt, sentences: Sequence[str], task: Task, steps: Iterable[Step], recipe: Recipe
) -> torch.Tensor:
    """Return the log-probabilities of the labels after all steps: (sentences, num_labels).

    Sentences and references are read once each, however often they occur.
    """
    references = [(step, step.reference(task)) for step in steps]
    texts = dict.fromkeys([*sentences, *(text for _, reference in references for text in reference)])
    row_of = {text: row for row, text in enumerate(texts)}
    table, tokens = reader.read(prompt, list(texts), recipe)
    for step, reference in references:
        table = step.apply(table, table[[row_of[text] for text in reference]], tokens)
    return F.log_softmax(table[[row_of[sentence] for sentence in sentences]], dim=1)


def _find(kind: type[Wanted], methods: Sequence[object]) -> Wanted | None:
    """Return the method of a class, or None if it was not asked for."""
    return next((method for method in methods if isinstance(method, kind)), None)

"""Finetuning that begins where zero-shot ends (Gao, Fisch & Chen 2021, arXiv 2012.15723, section 3).

A random head has to learn what a direction of the hidden states means. The language model knows directions that mean
labels already: the rows of its output matrix that belong to the labels' words. So a question follows each sentence, the
hidden state behind it predicts the next word, and the head starts as those rows: before the first step, the classifier
answers as zero-shot prompting does, if each label is a single token. Of several tokens the mean of their rows is taken,
which is no zero-shot answer: small vocabularies cut words up. The paper's finetuning differs in that the words stay
tied to the output matrix.

What it costs: no parameter more than plain finetuning; each row is longer by the question.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from advanced.method import Method
from advanced.templates import NAMES, QUESTION, make_prompt

if TYPE_CHECKING:
    from advanced.task import Task
    from advanced.training import Training


@dataclass
class PromptFinetune(Method):
    """A head that begins as the language model's answers to a question behind the sentence."""

    template: str = QUESTION
    words: str = NAMES

    def prompt(self, task: "Task") -> str:
        """Return the question. Raises UsageError for a template or words that do not exist."""
        return make_prompt(self.template, self.words, task).suffix

    def adapt(self, training: "Training") -> None:
        """Let the head begin as rows of the output matrix; of a label of several tokens, it is their mean.

        Raises TokenizerError if a label has no tokens of its own behind the question.
        """
        label_ids = make_prompt(self.template, self.words, training.task).label_ids(training.tokenizer)
        output, head = training.classifier.llama.output.weight, training.classifier.classifier_head
        with torch.no_grad():
            head.weight.copy_(torch.stack([output[ids].mean(dim=0) for ids in label_ids]))
            head.bias.zero_()

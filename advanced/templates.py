"""Questions that follow a sentence, and what the labels are called in the answers.

A sentence, its question and a label make a text, and how likely a language model finds the label's words there is its
answer (Schick & Schütze 2021, arXiv 2001.07676, section 3; a question is a pattern there, the words a verbaliser):

    A quiet film that stays with you . It was great
    ─────────── sentence ───────────── suffix word
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from advanced.task import Task
from classifier import label_ids_after
from errors import UsageError
from sentiment_data import SentenceEncoder, prompt_suffix

Pair = tuple[str, str]  # the names of a template and of a verbaliser

QUESTION = "question"  # the assignment's: it offers the words to choose among
TEMPLATES: dict[str, str] = {
    "this-movie": "This movie is",
    "it-was": "It was",
    "all-in-all": "All in all, the film was",
    "rating": "Overall rating:",
    "feeling": "It made me feel",
}

NAMES = "names"  # what the task calls its labels
# By the number of labels, from the worst to the best.
VERBALISERS: dict[str, dict[int, list[str]]] = {
    "short": {2: ["bad", "good"], 5: ["sad", "bad", "okay", "good", "great"]},  # a token each in storybook's vocabulary
    "simple": {2: ["bad", "great"], 5: ["terrible", "bad", "okay", "good", "great"]},
    "plain": {2: ["bad", "good"], 5: ["very bad", "bad", "fine", "good", "very good"]},
    "moods": {2: ["sad", "happy"], 5: ["angry", "sad", "calm", "happy", "excited"]},
    "numbers": {2: ["one", "five"], 5: ["one", "two", "three", "four", "five"]},
}

# What `Templates` asks besides the template and the words that were chosen.
ENSEMBLE: tuple[Pair, ...] = (
    (QUESTION, NAMES),
    ("this-movie", "simple"),
    ("it-was", "simple"),
    ("all-in-all", "simple"),
)


@dataclass(frozen=True)
class Prompt:
    """What stands around a sentence: demonstrations in front of it, if any, and the question behind it."""

    suffix: str
    words: list[str]  # one a label
    demonstrations: str = ""  # each with a line break at its end

    def text(self, sentence: str) -> str:
        """Return what is read for a sentence; for an empty one, the question stands alone."""
        return self.demonstrations + (f"{sentence} {self.suffix}" if sentence else self.suffix)

    def demonstration(self, sentence: str, label: int) -> str:
        """Return a sentence with its question and the right answer."""
        return f"{sentence} {self.suffix} {self.words[label]}\n"

    def after(self, demonstrations: str) -> "Prompt":
        """Return the same prompt behind demonstrations."""
        return replace(self, demonstrations=demonstrations)

    def label_ids(self, tokenizer: SentenceEncoder) -> list[list[int]]:
        """Return the ids of each label's words as they continue the question. Raises TokenizerError if they do not."""
        return [label_ids_after(self.suffix, word, tokenizer) for word in self.words]

    def rows(
        self, sentences: Sequence[str], tokenizer: SentenceEncoder, context: int, max_sentence_len: int | None = None
    ) -> list[list[int]]:
        """Return the ids of what is read for each sentence, at most `context` of them.

        Sentence and question have at most `max_sentence_len` of them, the begin token included. A sentence that is too
        long loses its beginning: demonstrations and question stay. Raises UsageError if they leave no room for it.
        """
        before = tokenizer.encode(self.demonstrations, bos=True, eos=False)
        limit = min(context, len(before) - 1 + (max_sentence_len or context))
        if (needed := len(tokenizer.encode(self.text(""), bos=True, eos=False)) + 1) > limit:
            raise UsageError(
                f"{limit} tokens leave no room for a sentence beside '{self.suffix}' and what stands before it: at "
                f"least {needed} are needed. Choose a shorter template, fewer demonstrations, a larger length of "
                "sentences, or a model with a longer context"
            )
        joint = [tokenizer.encode(self.text(sentence), bos=True, eos=False) for sentence in sentences]
        return [_without_beginning(row, len(before), limit) for row in joint]


def make_prompt(template: str, words: str, task: Task) -> Prompt:
    """Return the prompt that a template and a verbaliser make for a task.

    Raises UsageError for a name that does not exist, and for a verbaliser that has no words for the number of labels.
    """
    chosen = words_of(words, task)
    if template == QUESTION:
        return Prompt(prompt_suffix(chosen), chosen)
    if template not in TEMPLATES:
        raise UsageError(f"there is no template {template}: choose among {QUESTION}, {', '.join(TEMPLATES)}")
    return Prompt(TEMPLATES[template], chosen)


def words_of(words: str, task: Task) -> list[str]:
    """Return what a verbaliser calls the labels of a task. Raises UsageError if it does not exist, or has no words."""
    if words == NAMES:
        return task.label_names
    if words not in VERBALISERS:
        raise UsageError(f"there are no words called {words}: choose among {NAMES}, {', '.join(VERBALISERS)}")
    count = len(task.label_names)
    if count not in VERBALISERS[words]:
        numbers = " or ".join(map(str, VERBALISERS[words]))
        raise UsageError(f"the words {words} are for {numbers} labels, and {task.name} has {count}: choose {NAMES}")
    return VERBALISERS[words][count]


def _without_beginning(row: list[int], start: int, limit: int) -> list[int]:
    """Return a row with at most `limit` ids: those that are too many are left out from `start` on."""
    excess = max(len(row) - limit, 0)
    return row[:start] + row[start + excess :]

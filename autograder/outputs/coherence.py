"""Is a generated text one that a right Llama could have written? Its price under the reference model says so.

A text costs a model so many nats a token: the mean of -log P(token | everything before it), over what follows the fixed
prompt. A wrong Llama writes what the right one finds improbable. How much a right text may cost is measured for each
checkpoint, see thresholds.py. A wrong Llama whose texts differ little from those of a right one is left to the checks.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from llama import load_pretrained
from reproduce_2024 import attend_to_everything
from submission_rules import SUBMISSION
from tokenizer import find_tokenizer

NEW_TOKENS = 75  # what `run_llama.py --option generate` adds to the prompt
# Tokens behind the prompt when such a text is encoded again. Of a hundred texts of right models all had 73 to 75: what
# was drawn piece by piece merges, and the beginning or end of a sequence is no text. Wrong models gave 56 to 375.
LENGTHS = range(65, 81)
MAX_CHARACTERS = 4_000  # of a text that is read at all: 75 of the longest pieces and the prompt have fewer


@dataclass(frozen=True)
class Cost:
    """What a continuation costs the reference: nats a token, and how many tokens that was the mean of."""

    nats: float
    tokens: int


@functools.cache
def text_reader(weights: Path, causal: bool) -> "TextReader":
    """Return the reader with these weights, loaded once: a judge of a class asks for it with each submission."""
    return TextReader(weights, causal)


class TextReader:
    """The reference model as a reader of texts that begin with the assignment's fixed prompt.

    With `causal=False` it attends to everything, as the 2024 editions did: what a token is worth then depends on
    where the text ends, so each prefix is read by itself, as it was when the text was written.
    """

    def __init__(self, weights: Path, causal: bool, prompt: str = SUBMISSION.prompt) -> None:
        """Load the weights and the tokenizer beside them. Raises CheckpointError or TokenizerError."""
        self.prompt = prompt
        self.causal = causal
        self._greedy: str | None = None  # writing it takes seconds
        self.llama = load_pretrained(weights)
        self.tokenizer = find_tokenizer(weights, self.llama.vocab_size)
        if not causal:
            attend_to_everything(self.llama)

    def nats(self, text: str) -> float:
        """Return what a text costs, in nats a token of its continuation; see `cost`."""
        return self.cost(text).nats

    def cost(self, text: str) -> Cost:
        """Return what the continuation of the prompt in `text` costs, prompt excluded.

        A text that is nothing but the prompt costs infinitely much. Raises ValueError if the text does not begin with
        the prompt, or is longer than any that 75 tokens make: check that first.
        """
        if not text.startswith(self.prompt) or len(text) > MAX_CHARACTERS:
            raise ValueError("only a text of plausible length that begins with the prompt can be read")
        ids, start = self._encode(text)
        prices = torch.cat([self._prices(ids, start)] if self.causal else list(self._prices_by_prefix(ids, start)))
        return Cost(prices.mean().item() if len(prices) else float("inf"), len(prices))

    def _encode(self, text: str) -> tuple[list[int], int]:
        """Return the ids of a text and how many of them are the prompt's; a last piece that merges is not."""
        prompt = self.tokenizer.encode(self.prompt, bos=True, eos=False)
        ids = self.tokenizer.encode(text.rstrip("\r\n"), bos=True, eos=False)
        shared = (mine == its for mine, its in zip(prompt, ids, strict=False))
        return ids, next((index for index, same in enumerate(shared) if not same), min(len(prompt), len(ids)))

    @torch.inference_mode()
    def _prices(self, ids: list[int], start: int) -> torch.Tensor:
        """Return -log P of each id from `start` on, by one pass a window. Shape: (len(ids) - start,)."""
        size = self.llama.config.max_seq_len
        prices = []
        for first in range(start, len(ids), size // 2):  # each token sees half a context at least
            last = min(first + size // 2, len(ids))
            window = torch.tensor([ids[max(0, last - size) : last]])
            logits, _ = self.llama(window, targets=window)
            log_probs = F.log_softmax(logits[0, :-1], dim=-1)  # (len(window) - 1, vocab_size)
            wanted = window[0, 1:].unsqueeze(1)
            prices.append(-log_probs.gather(1, wanted).squeeze(1)[first - last :])
        return torch.cat(prices) if prices else torch.empty(0)

    @torch.inference_mode()
    def _prices_by_prefix(self, ids: list[int], start: int) -> Iterator[torch.Tensor]:
        """Yield -log P of each id from `start` on, each with a pass over what stands before it. Shapes: (1,)."""
        yield torch.empty(0)
        for end in range(start, len(ids)):
            logits, _ = self.llama(torch.tensor([ids[max(0, end - self.llama.config.max_seq_len) : end]]))
            yield -F.log_softmax(logits[0, -1], dim=-1)[ids[end]].reshape(1)

    def greedy(self) -> str:
        """Return what the reference itself writes at temperature 0: the prompt and its continuation."""
        if self._greedy is None:
            [self._greedy] = self.write(0.0)
        return self._greedy

    def write(
        self, temperature: float, rows: int = 1, new_tokens: int = NEW_TOKENS, prompt: str | None = None
    ) -> list[str]:
        """Return texts that the model writes, `rows` of them at once, by the global random numbers."""
        start = self.tokenizer.encode(self.prompt if prompt is None else prompt, bos=True, eos=False)
        ids = self.llama.generate(torch.tensor([start] * rows), new_tokens, temperature=temperature)
        return [self.tokenizer.decode(row) for row in ids.tolist()]

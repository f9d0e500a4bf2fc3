"""Continue texts with a model: many prompts at once, or one as a stream of pieces.

    texts = continue_prompts(model, tokenizer, ["Once upon a time", "Tom had a coin"], max_new_tokens=100)
    for piece in stream(model, tokenizer, "Once upon a time"):
        print(piece, end="", flush=True)

A text ends at the end-of-sequence token, in front of a stop text, or after `max_new_tokens`. As `Llama.generate`, this
reads a row again for every token, and no more than its last `max_seq_len` tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from errors import UsageError
from inference.sampling import Sampling, draw
from llama import Attention, Llama
from tokenizer import Tokenizer
from utils import progress

DEFAULT_NEW_TOKENS = 200
DEFAULT_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
DEFAULT_SEED = 1337
BATCH_SIZE = 32  # rows; more prompts than that are continued in turns
REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are no character, or not yet
MAX_PENDING = 3  # a character has at most four bytes in UTF-8, so at most three can wait for the rest


def continue_prompts(
    model: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    sampling: Sampling = DEFAULT_SAMPLING,
    stop: Sequence[str] = (),
    seed: int = DEFAULT_SEED,
    show_progress: bool = False,
) -> list[str]:
    """Return each prompt with its continuation; the stop text that ended one is left out.

    Spaces at the end of a prompt are left off: they are the beginning of the next word's token. The prompt with index
    i draws with the seed `seed` + i, so its text does not depend on the other prompts. Raises ValueError for an empty
    stop text.
    """
    rows = [
        _Row(tokenizer, prompt, max_new_tokens, stop, _generator(model, seed + i)) for i, prompt in enumerate(prompts)
    ]
    for first in range(0, len(rows), BATCH_SIZE):
        steps = range(max_new_tokens)
        for _ in progress(steps, f"prompt {first + 1} and on") if show_progress else steps:
            live = [row for row in rows[first : first + BATCH_SIZE] if not row.ended]
            if not live:
                break
            _advance(model, live, sampling)
    return [row.text for row in rows]


def stream(
    model: Llama,
    tokenizer: Tokenizer,
    prompt: str,
    *,
    max_new_tokens: int = DEFAULT_NEW_TOKENS,
    sampling: Sampling = DEFAULT_SAMPLING,
    stop: Sequence[str] = (),
    seed: int = DEFAULT_SEED,
) -> Iterator[str]:
    """Yield the prompt, and then each piece of its continuation as soon as it is certain.

    All pieces together are what `continue_prompts` returns for this prompt. Raises ValueError for an empty stop text.
    """
    row = _Row(tokenizer, prompt, max_new_tokens, stop, _generator(model, seed))
    shown = 0
    while True:
        if len(row.text) > shown:
            yield row.text[shown:]
            shown = len(row.text)
        if row.ended:
            return
        _advance(model, [row], sampling)


def set_context(model: Llama, max_seq_len: int) -> None:
    """Let the model read `max_seq_len` tokens at once, in place of what it was trained with.

    Raises UsageError if that is longer and the model is not of the kind that reads longer texts.
    """
    config = model.params
    if max_seq_len > config.max_seq_len and config.position_embedding_type != "alibi":
        raise UsageError(
            f"a context of {max_seq_len} tokens is more than the {config.max_seq_len} that the model was trained with: "
            "rotary positions that it has never seen make its text fall apart. Only ALiBi models read further"
        )
    stretch_context(model, max_seq_len)


def stretch_context(model: Llama, max_seq_len: int) -> None:
    """Let the model read `max_seq_len` tokens at once, whatever becomes of a rotary one past what it has seen."""
    model.params.max_seq_len = max_seq_len
    for module in model.modules():
        if isinstance(module, Attention):
            module.max_seq_len = max_seq_len


# ---------------------------------------------------------------------------------------------------- ids to text


class IncrementalDecoder:
    """Turns ids into text as they come; all pieces together are what decoding all ids at once gives.

    An id cannot be decoded alone: SentencePiece drops the space in front of a word where a text begins, and a character
    may be spread over several tokens. So the ids since an anchor are decoded together each time, and an unfinished
    character is held back. The anchor is a token that is text by itself: what follows it no longer depends on what
    went before.
    """

    def __init__(self, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
        """Start after `ids`, whose text counts as shown."""
        self._tokenizer = tokenizer
        self._ids = list(ids)  # from the anchor on
        self._shown = len(tokenizer.decode(self._ids))  # characters of their text

    def push(self, token: int) -> str:
        """Take the next id, and return the text that is certain now."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        certain = len(text) - _pending(text)
        piece, self._shown = text[self._shown : certain], certain
        alone = self._tokenizer.decode([token])
        if certain == len(text) and alone and REPLACEMENT not in alone:
            self._ids, self._shown = [token], len(alone)
        return piece

    def flush(self) -> str:
        """Return the text that was held back: no further id will come."""
        text = self._tokenizer.decode(self._ids)
        piece, self._shown = text[self._shown :], len(text)
        return piece


def _pending(text: str) -> int:
    """Return how many characters at the end of `text` may still change with the next byte."""
    tail = text[-MAX_PENDING:]
    return len(tail) - len(tail.rstrip(REPLACEMENT))


class StopTexts:
    """Lets text through until one of the stop texts appears in it, and holds back what may be the start of one.

    Of several, the one that is complete first counts, however the text is cut into pieces.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises ValueError if a stop text is empty."""
        if "" in texts:
            raise ValueError("a stop text must not be empty: every text would end before it begins")
        self._texts = tuple(texts)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Take the next piece of text, and return what is certain to stand in front of any stop text."""
        self._held += text
        places = [(place + len(stop), place) for stop in self._texts if (place := self._held.find(stop)) >= 0]
        self.found = bool(places)
        certain = min(places)[1] if places else len(self._held) - self._beginning()
        piece, self._held = self._held[:certain], self._held[certain:]
        return piece

    def flush(self) -> str:
        """Return the text that was held back: no further text will come."""
        piece, self._held = "" if self.found else self._held, ""
        return piece

    def _beginning(self) -> int:
        """Return the length of the longest end of the held text with which a stop text begins."""
        longest = max(map(len, self._texts), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(stop.startswith(self._held[-n:]) for stop in self._texts)), 0)


# ---------------------------------------------------------------------------------------------------- one token more


class _Row:
    """A text that grows: its ids, what of it is certain, and whether it has ended."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: str, room: int, stop: Sequence[str], generator: torch.Generator
    ) -> None:
        """Start with a prompt; at most `room` tokens will follow."""
        self.text = prompt.rstrip(" ")
        self.ids = tokenizer.encode(self.text, bos=True, eos=False)
        self.generator = generator
        self.ended = room < 1
        self._room = room
        self._eos_id = tokenizer.eos_id
        self._decoder = IncrementalDecoder(tokenizer, self.ids)
        self._stop = StopTexts(stop)

    def push(self, token: int) -> None:
        """Take the token that was drawn."""
        self._room -= 1
        self.ended = token == self._eos_id
        if not self.ended:
            self.ids.append(token)
            self.text += self._stop.push(self._decoder.push(token))
            self.ended = self._stop.found or self._room == 0
        if self.ended and not self._stop.found:
            self.text += self._stop.push(self._decoder.flush()) + self._stop.flush()


@torch.inference_mode()
def _advance(model: Llama, rows: Sequence[_Row], sampling: Sampling) -> None:
    """Draw the next token of each row."""
    with _without_dropout(model):
        logits = _next_logits(model, [row.ids for row in rows])
    tokens: list[int] = draw(logits, sampling, [row.generator for row in rows]).tolist()
    for row, token in zip(rows, tokens, strict=True):
        row.push(token)


def _next_logits(model: Llama, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the logits that follow each row, of shape (rows, vocab_size).

    The rows are padded at their right, where a causal model does not see it, and each is read at its own last token.
    """
    windows = [torch.tensor(row[-model.params.max_seq_len :]) for row in rows]
    device = model.tok_embeddings.weight.device
    tokens = torch.nn.utils.rnn.pad_sequence(windows, batch_first=True).to(device)  # (rows, longest)
    last = torch.tensor([len(window) - 1 for window in windows], device=device)
    _, hidden = model(tokens)  # (rows, longest, dim)
    logits: torch.Tensor = model.output(hidden[torch.arange(len(rows), device=device), last])
    return logits


@contextmanager
def _without_dropout(model: Llama) -> Iterator[None]:
    """Put the model into evaluation mode, and back into the mode that it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _generator(model: Llama, seed: int) -> torch.Generator:
    """Return a source of random numbers where the model computes."""
    return torch.Generator(device=model.tok_embeddings.weight.device).manual_seed(seed)

"""Continue texts with a model: many prompts at once, or one as a stream of pieces.

    texts = continue_prompts(model, tokenizer, ["Once upon a time", "Tom had a coin"], max_new_tokens=100)
    for piece in stream(model, tokenizer, "Once upon a time"):
        print(piece, end="", flush=True)

A text ends at the end-of-sequence token, in front of a stop text, or after `max_new_tokens`. Of one that outgrows the
model's `max_seq_len`, only so many last tokens are read, as by `Llama.generate`.
"""

from collections.abc import Iterator, Sequence

import torch

from errors import UsageError
from inference.engine import Engine
from inference.generation import generate
from inference.sampling import Sampling
from inference.streaming import IncrementalDecoder, StopTexts
from llama import Attention, Llama
from tokenizer import Tokenizer
from utils import progress

DEFAULT_NEW_TOKENS = 200
DEFAULT_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
DEFAULT_SEED = 1337
BATCH_SIZE = 32  # rows; more prompts than that are continued in turns


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
    engine = Engine(model)
    for first in range(0, len(rows), BATCH_SIZE):
        batch = rows[first : first + BATCH_SIZE]
        steps = _grow(engine, batch, max_new_tokens, sampling)
        for _ in progress(steps, f"prompt {first + 1} and on", max_new_tokens) if show_progress else steps:
            pass  # the rows take their tokens themselves
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
    if row.text:
        yield row.text
    shown = len(row.text)
    for _ in _grow(Engine(model), [row], max_new_tokens, sampling):
        if len(row.text) > shown:
            yield row.text[shown:]
            shown = len(row.text)


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


# ---------------------------------------------------------------------------------------------------- token by token


class _Row:
    """A text that grows: what of it is certain, and whether it has ended."""

    def __init__(
        self, tokenizer: Tokenizer, prompt: str, room: int, stop: Sequence[str], generator: torch.Generator
    ) -> None:
        """Start with a prompt; at most `room` tokens will follow."""
        self.text = prompt.rstrip(" ")
        self.ids = tokenizer.encode(self.text, bos=True, eos=False)  # of the prompt
        self.generator = generator
        self.ended = False
        self._room = room
        self._eos_id = tokenizer.eos_id
        self._decoder = IncrementalDecoder(tokenizer, self.ids)
        self._stop = StopTexts(stop)

    def push(self, token: int) -> bool:
        """Take the token that was drawn, and say whether the text ends with it."""
        self._room -= 1
        self.ended = token == self._eos_id
        if not self.ended:
            self.text += self._stop.push(self._decoder.push(token))
            self.ended = self._stop.found or self._room == 0
        if self.ended and not self._stop.found:
            self.text += self._stop.push(self._decoder.flush()) + self._stop.flush()
        return self.ended


def _grow(engine: Engine, rows: Sequence[_Row], max_new_tokens: int, sampling: Sampling) -> Iterator[object]:
    """Yield after each step that gave its next token to every row that has not ended, until all have."""
    prompts, generators = [row.ids for row in rows], [row.generator for row in rows]

    def push(row: int, token: int) -> bool:
        return rows[row].push(token)

    return generate(engine, prompts, max_new_tokens, sampling, ended=push, generator=generators)


def _generator(model: Llama, seed: int) -> torch.Generator:
    """Return a source of random numbers where the model computes."""
    return torch.Generator(device=model.tok_embeddings.weight.device).manual_seed(seed)

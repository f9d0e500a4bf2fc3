"""Continue texts with an `Engine`: one step after the other, for as many texts at once as one likes."""

from collections.abc import Callable, Iterator, Sequence

import torch

from inference.engine import Engine
from inference.sampling import GREEDY, Generators, Sampling, draw

Ended = Callable[[int, int], bool]  # (which prompt, its new token) -> whether its text ends with that


def never(_prompt: int, _token: int) -> bool:
    """End no text before all its tokens have come."""
    return False


def generate(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    *,
    ended: Ended = never,
    generator: Generators = None,
) -> Iterator[list[int | None]]:
    """Yield the new token of each prompt, step by step; None for one that has `ended`, of which no more is read.

    There are `max_new_tokens` steps, or fewer if all have ended. As soon as one text is longer than the model's
    `max_seq_len`, the last so many tokens of each are read anew for every step, as by `Llama.generate`. `generator` is
    one for all, or one for each prompt, whose text then does not depend on the others (to rounding, which int8 does for
    all together). Raises ValueError if a prompt is empty, or there is none.
    """
    texts = [list(prompt) for prompt in prompts]
    live = list(range(len(texts)))
    logits = _read(engine, texts, max_new_tokens)
    for left in reversed(range(max_new_tokens)):
        drawn = draw(logits, sampling, _of(generator, live))
        tokens: list[int | None] = [None] * len(texts)
        for i, token in zip(live, drawn.tolist(), strict=True):
            texts[i].append(token)
            tokens[i] = token
        going_on = [row for row, i in enumerate(live) if not ended(i, texts[i][-1])]
        yield tokens
        if not (going_on and left):
            return
        if len(going_on) < len(live):
            live, drawn = [live[row] for row in going_on], drawn[going_on]
            engine.keep(going_on)
        is_full = engine.used == engine.capacity
        logits = _read(engine, [texts[i] for i in live]) if is_full else engine.decode(drawn)


def complete(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    sampling: Sampling = GREEDY,
    *,
    ended: Ended = never,
    generator: Generators = None,
) -> list[list[int]]:
    """Return all new tokens of each prompt; the parameters are those of `generate`."""
    rows: list[list[int]] = [[] for _ in prompts]
    for tokens in generate(engine, prompts, max_new_tokens, sampling, ended=ended, generator=generator):
        for row, token in zip(rows, tokens, strict=True):
            if token is not None:
                row.append(token)
    return rows


def _read(engine: Engine, texts: Sequence[Sequence[int]], room: int | None = None) -> torch.Tensor:
    """Return the logits behind each text, of which the model reads no more than it can."""
    limit = engine.config.max_seq_len
    return engine.prefill([text[-limit:] for text in texts], room)


def _of(generator: Generators, rows: Sequence[int]) -> Generators:
    """Return the generators of these rows."""
    if generator is None or isinstance(generator, torch.Generator):
        return generator
    return [generator[row] for row in rows]

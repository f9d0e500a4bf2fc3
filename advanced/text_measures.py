"""What can be said of generated texts without reading them: how they repeat themselves, and how likely they are.

The texts are token ids. An n-gram is n tokens that follow one another.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from inference.engine import Engine

ROWS_AT_ONCE = 16  # texts whose likelihood is taken together


def repetition(tokens: Sequence[int], n: int) -> float:
    """Return the share of a text's n-grams that it had before: 1 - distinct n-grams / n-grams, from 0 to below 1.

    Welleck et al. 2020 (arXiv 1908.04319), section 6: seq-rep-n. A text of fewer than n tokens repeats nothing: 0.
    Raises ValueError if n is below 1.
    """
    found = _n_grams(tokens, n)
    return 1.0 - len(set(found)) / len(found) if found else 0.0


def distinct(texts: Sequence[Sequence[int]], n: int) -> float:
    """Return how many n-grams of all texts together are different, as a share of all of them: above 0, at most 1.

    Li et al. 2016 (arXiv 1510.03055), section 5.3. It falls where texts resemble one another, as `repetition` of a
    single text cannot show; and with the amount of text, so compare like with like. Without an n-gram it is 1. Raises
    ValueError if n is below 1.
    """
    found = [n_gram for tokens in texts for n_gram in _n_grams(tokens, n)]
    return len(set(found)) / len(found) if found else 1.0


@torch.inference_mode()
def log_likelihoods(
    engine: Engine, prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[float]:
    """Return the mean log-likelihood of each continuation's tokens behind its prompt, in nats a token: 0 at most.

    It is that of the model itself, whatever the tokens were drawn from. What `engine` has read before is forgotten.
    Raises ValueError if there is not a continuation for each prompt, one of either is empty, or one pair is longer than
    the model's `max_seq_len`.
    """
    if len(prompts) != len(continuations) or not all(prompts) or not all(continuations):
        raise ValueError("to be likely, each prompt needs a continuation, and each of both a token")
    means = []
    for first in range(0, len(prompts), ROWS_AT_ONCE):
        pairs = list(zip(prompts, continuations, strict=True))[first : first + ROWS_AT_ONCE]
        hidden = engine.prefill_hidden([[*prompt, *after] for prompt, after in pairs], room=0)  # (bs, longest, dim)
        for states, (_, after) in zip(hidden, pairs, strict=True):
            # Texts stand at the end of their rows, and a token is predicted from the state in front of it.
            logits = engine.model.logits(states[-len(after) - 1 : -1]).float()  # (len(after), vocab_size)
            targets = torch.tensor(after, device=logits.device)
            means.append(-float(F.cross_entropy(logits, targets)))
    return means


def _n_grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Return every run of n tokens, in the order of the text."""
    if n < 1:
        raise ValueError(f"an n-gram has at least one token, got n = {n}")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

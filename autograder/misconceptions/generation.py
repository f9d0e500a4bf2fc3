"""Wrong variants of the two branches of `Llama.generate`."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from autograder.misconceptions.base import Catalogue
from llama import Llama

GENERATE = Catalogue("generate", "llama.Llama.generate")

# Chooses the next ids (bs, 1) by logits (bs, vocab_size) and a temperature.
Choose = Callable[[Tensor, float], Tensor]


def _generate_with(choose: Choose) -> Callable[..., Tensor]:
    """Make a whole `Llama.generate` of what chooses the next token."""

    @torch.inference_mode()
    def generate(self: Llama, idx: Tensor, max_new_tokens: int, temperature: float = 1.0) -> Tensor:
        was_training = self.training
        self.eval()
        for _ in range(max_new_tokens):
            logits, _ = self(idx[:, -self.params.max_seq_len :])
            idx = torch.cat((idx, choose(logits[:, -1, :], temperature)), dim=1)
        self.train(was_training)
        return idx

    return generate


def _sample_instead(sample: Choose) -> Callable[..., Tensor]:
    """Make a `Llama.generate` that is right at temperature 0 and samples otherwise."""
    return _generate_with(lambda logits, t: _greedy(logits) if t == 0.0 else sample(logits, t))


def _greedy(logits: Tensor) -> Tensor:
    """Take the most likely token, which is right at temperature 0."""
    return logits.argmax(dim=-1, keepdim=True)


def _draw(probabilities: Tensor) -> Tensor:
    """Draw one token a row."""
    return torch.multinomial(probabilities, num_samples=1)


@GENERATE.add("sampling that ignores the temperature (dividing after the softmax changes nothing)", _sample_instead)
def _no_temperature(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits, dim=-1))


@GENERATE.add("sampling with the logits multiplied by the temperature instead of divided", _sample_instead)
def _multiplied(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits * temperature, dim=-1))


@GENERATE.add("sampling with the temperature applied twice", _sample_instead)
def _applied_twice(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits / temperature / temperature, dim=-1))


@GENERATE.add("always the most likely token, at any temperature", _sample_instead)
def _always_greedy(logits: Tensor, temperature: float) -> Tensor:
    return _greedy(logits)


@GENERATE.add("sampling in which every token is equally likely", _sample_instead)
def _uniform(logits: Tensor, temperature: float) -> Tensor:
    return _draw(torch.ones_like(logits))


@GENERATE.add("sampling from a softmax of the probabilities: the softmax is taken twice", _sample_instead)
def _softmax_twice(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(F.softmax(logits / temperature, dim=-1), dim=-1))


@GENERATE.add("sampling from the logits themselves, shifted to be positive, without a softmax", _sample_instead)
def _no_softmax(logits: Tensor, temperature: float) -> Tensor:
    return _draw(logits - logits.min(dim=-1, keepdim=True).values)


@GENERATE.add("sampling with a sigmoid instead of a softmax", _sample_instead)
def _sigmoid(logits: Tensor, temperature: float) -> Tensor:
    return _draw(torch.sigmoid(logits / temperature))


@GENERATE.add("sampling with the softmax over the batch instead of the vocabulary", _sample_instead)
def _over_the_batch(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits / temperature, dim=0))


@GENERATE.add("sampling in which each row uses the probabilities of the first row", _sample_instead)
def _first_row(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits[:1] / temperature, dim=-1).expand_as(logits))


@GENERATE.add("sampling at temperature 0 as well, instead of taking the most likely token", _generate_with)
def _never_greedy(logits: Tensor, temperature: float) -> Tensor:
    return _draw(F.softmax(logits / (temperature or 1.0), dim=-1))


@GENERATE.add("the least likely token at temperature 0", _generate_with)
def _least_likely(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0.0:
        return logits.argmin(dim=-1, keepdim=True)
    return _draw(F.softmax(logits / temperature, dim=-1))


@GENERATE.add("at temperature 0, the logit of largest absolute value instead of the largest logit", _generate_with)
def _largest_absolute(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0.0:
        return _greedy(logits.abs())
    return _draw(F.softmax(logits / temperature, dim=-1))


@GENERATE.add("at temperature 0, the first row's most likely token in every row", _generate_with)
def _first_row_greedy(logits: Tensor, temperature: float) -> Tensor:
    if temperature == 0.0:
        return _greedy(logits[:1]).expand(len(logits), 1)
    return _draw(F.softmax(logits / temperature, dim=-1))

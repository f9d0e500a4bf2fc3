"""From logits to the next token: temperature and the filters that cut off unlikely tokens. Their only home.

Each filter takes logits of shape (..., vocab_size) and gives them back with the logits of the removed tokens at -inf.
At least one token always stays. `probabilities` applies those that a `Sampling` names, always in this order, each on
what the one before left:

    temperature, top_k, top_p, min_p, typical, epsilon

So a filter that looks at probabilities sees those after the temperature, and of the remaining tokens alone. Where
tokens tie for the last place, those with the smaller ids stay.

    sampling = Sampling(temperature=0.8, top_p=0.95)
    ids = draw(logits, sampling, torch.Generator().manual_seed(1337))  # (..., vocab_size) -> (...)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

MIN_TEMPERATURE = 1e-6  # below it a division would leave float32's range; 0 itself means the most likely token

Generators = torch.Generator | Sequence[torch.Generator] | None


def _is_number(value: object) -> bool:
    """Say whether `value` is a number and not a truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn; None switches a filter off. Raises ValueError for a value outside its range.

    The default draws from the model's own distribution. `temperature` 0 always takes the most likely token, whatever
    the filters are.
    """

    temperature: float = 1.0  # 0, or from 1e-6 up
    top_k: int | None = None  # tokens, at least 1
    top_p: float | None = None  # probability mass, above 0 and at most 1
    min_p: float | None = None  # share of the largest probability, from 0 to 1
    epsilon: float | None = None  # probability, from 0 to below 1
    typical: float | None = None  # probability mass, above 0 and at most 1

    def __post_init__(self) -> None:
        """Check each value."""
        is_temperature = _is_number(self.temperature) and math.isfinite(self.temperature)
        if not is_temperature or not (self.temperature == 0 or self.temperature >= MIN_TEMPERATURE):
            raise ValueError(f"temperature must be 0, or from {MIN_TEMPERATURE} up, got {self.temperature!r}")
        is_count = isinstance(self.top_k, int) and not isinstance(self.top_k, bool)
        if self.top_k is not None and not (is_count and self.top_k >= 1):
            raise ValueError(f"top_k must be a whole number of at least 1, got {self.top_k!r}")
        for name in ("top_p", "typical"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 < value <= 1):
                raise ValueError(f"{name} must be above 0 and at most 1, got {value!r}")
        if self.min_p is not None and not (_is_number(self.min_p) and 0 <= self.min_p <= 1):
            raise ValueError(f"min_p must be from 0 to 1, got {self.min_p!r}")
        if self.epsilon is not None and not (_is_number(self.epsilon) and 0 <= self.epsilon < 1):
            raise ValueError(f"epsilon must be at least 0 and below 1, got {self.epsilon!r}")


GREEDY = Sampling(temperature=0.0)


# ---------------------------------------------------------------------------------------------------- the filters


def temperature(logits: torch.Tensor, value: float) -> torch.Tensor:
    """Divide the logits by `value`: below 1 likely tokens become likelier, above 1 less so.

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), equation 1. The largest logit is moved to 0 first, which changes no
    probability and keeps it from overflowing.
    """
    return (logits - logits.amax(dim=-1, keepdim=True)) / value


def top_k(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Keep the `k` most likely tokens (Fan, Lewis & Dauphin 2018, arXiv 1805.04833, section 5.4)."""
    k = min(k, logits.shape[-1])
    last = logits.topk(k, dim=-1).values[..., -1:]  # the k-th largest logit, (..., 1)
    above, tied = logits > last, logits == last
    room = k - above.sum(dim=-1, keepdim=True)
    return _keep(logits, above | (tied & (tied.cumsum(dim=-1) <= room)))


def top_p(logits: torch.Tensor, p: float) -> torch.Tensor:
    """Keep the smallest set of most likely tokens whose probabilities reach `p` together: the nucleus.

    Holtzman et al. 2020 (arXiv 1904.09751), section 3.1.
    """
    return _keep_mass(logits, -logits, p)


def min_p(logits: torch.Tensor, share: float) -> torch.Tensor:
    """Keep the tokens that are at least `share` times as probable as the most likely one.

    Nguyen et al. 2024 (arXiv 2407.01082).
    """
    probability = F.softmax(logits, dim=-1)
    return _keep(logits, probability >= share * probability.amax(dim=-1, keepdim=True))


def typical(logits: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the tokens whose surprise is closest to what the model expects, until their probabilities reach `mass`.

    A token's surprise is -log p, the expected surprise is the entropy of the distribution: not only very unlikely
    tokens go, but very likely ones as well where the model is uncertain. Locally typical sampling, Meister et al. 2022
    (arXiv 2202.00666).
    """
    log_probability = F.log_softmax(logits, dim=-1)
    entropy = torch.special.entr(log_probability.exp()).sum(dim=-1, keepdim=True)
    return _keep_mass(logits, (-log_probability - entropy).abs(), mass)


def epsilon(logits: torch.Tensor, threshold: float) -> torch.Tensor:
    """Keep the tokens with a probability of at least `threshold`, and the most likely one where none has it.

    Epsilon sampling, Hewitt, Manning & Liang 2022 (arXiv 2210.15191).
    """
    keep = F.softmax(logits, dim=-1) >= threshold
    return _keep(logits, keep.scatter(-1, logits.argmax(dim=-1, keepdim=True), True))


def _keep(logits: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Set the logits to -inf where `keep` is False."""
    return logits.masked_fill(~keep, -math.inf)


def _keep_mass(logits: torch.Tensor, rank: torch.Tensor, mass: float) -> torch.Tensor:
    """Keep the tokens with the smallest `rank` until their probabilities reach `mass`, and all if `mass` is 1."""
    if mass == 1:
        return logits  # rounding in the sum below must not cost the last tokens
    order = rank.argsort(dim=-1, stable=True)
    ordered = F.softmax(logits, dim=-1).gather(-1, order)
    before = ordered.cumsum(dim=-1) - ordered  # the mass in front of each token
    keep = before < mass
    keep[..., 0] = True
    return _keep(logits, torch.zeros_like(keep).scatter(-1, order, keep))


# ---------------------------------------------------------------------------------------------------- the draw


def probabilities(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """Return the distribution that `draw` draws from, in float32. Shapes: (..., vocab_size) -> (..., vocab_size).

    With `temperature` 0 all of it is on the most likely token, the first of them where several tie.
    """
    logits = logits.float()
    if sampling.temperature == 0:
        return F.one_hot(logits.argmax(dim=-1), logits.shape[-1]).to(logits.dtype)
    logits = temperature(logits, sampling.temperature)
    if sampling.top_k is not None:
        logits = top_k(logits, sampling.top_k)
    if sampling.top_p is not None:
        logits = top_p(logits, sampling.top_p)
    if sampling.min_p is not None:
        logits = min_p(logits, sampling.min_p)
    if sampling.typical is not None:
        logits = typical(logits, sampling.typical)
    if sampling.epsilon is not None:
        logits = epsilon(logits, sampling.epsilon)
    return F.softmax(logits, dim=-1)


def draw(logits: torch.Tensor, sampling: Sampling, generator: Generators = None) -> torch.Tensor:
    """Draw one token from each distribution. Shapes: (..., vocab_size) -> (...), int64.

    `generator` gives the random numbers (None: PyTorch's own) and lives on the device of `logits`. A sequence has one
    for each row of `logits`, which is then (rows, vocab_size): what a row draws does not depend on the rows beside it.
    Raises ValueError if there are not as many of them as rows, or if the logits of a row hold a NaN or nothing finite.
    """
    if sampling.temperature == 0:
        _require_numbers(logits)
        return logits.argmax(dim=-1)
    drawn_from = probabilities(logits, sampling)
    _require_numbers(drawn_from)
    if generator is None or isinstance(generator, torch.Generator):
        rows = drawn_from.reshape(-1, logits.shape[-1])
        return torch.multinomial(rows, num_samples=1, generator=generator).view(logits.shape[:-1])
    if drawn_from.shape[:-1] != (len(generator),):
        raise ValueError(f"{len(generator)} generators, but logits of shape {tuple(logits.shape)}: one for each row")
    pairs = zip(drawn_from, generator, strict=True)
    return torch.cat([torch.multinomial(row, num_samples=1, generator=own) for row, own in pairs])


def _require_numbers(values: torch.Tensor) -> None:
    """Raise ValueError if a value is a NaN: the model's weights or its training are broken."""
    if values.isnan().any():
        raise ValueError("no token can be drawn: the logits are not numbers (NaN, or all of a row are infinite)")

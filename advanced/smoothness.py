"""Methods that want the model's answer not to change when its input, or its weights, change a little.

f(x) is the answer to a sentence with embeddings x, and the distance of two answers is their symmetric divergence,

    KL(P, Q) + KL(Q, P) = Σ over labels of (P - Q) · (log P - log Q)

r3f (Aghajanyan et al. 2021, arXiv 2008.03156, section 3) adds the distance between f(x) and f(x + z) to the loss, with
z drawn from a normal distribution. Cost: a second forward and backward pass a step.

smart (Jiang et al. 2020, arXiv 1911.03437): smoothness (section 3.1) does so with the z in a small cube that changes
the answer most, which it looks for by gradient ascent; the Bregman proximal penalty (section 3.2) is the distance
between f(x) and what a moving average of the weights answers. Cost: a forward and backward pass for each ascent and one
for the worst noise, a forward pass for the average, and a copy of the trained weights.

Dropout, which would move the answer far more than the noise does, drops the same numbers in all passes of a step. The
noise must be more than rounding: bfloat16 keeps eight bits of a number, so that with it less than some hundredths of
the embeddings' deviation means nothing. The papers' noise is smaller, for other embeddings and another precision.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.func import functional_call

from advanced.method import Method
from errors import UsageError

if TYPE_CHECKING:
    from advanced.training import Training

START = 0.1  # of the noise that Smart's ascent begins with, as a share of the largest


def symmetric_kl(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(P, Q) + KL(Q, P), the mean over sentences. Shapes: both (bs, num_labels), in float32 -> ()."""
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(dim=1).mean()


class SameDropout:
    """Lets the later forward passes of a step drop what its first one dropped."""

    def __init__(self) -> None:
        """No step has begun."""
        self.states: dict[str, torch.Tensor] = {}  # of the random numbers, by kind of device

    def begin(self, device: torch.device) -> None:
        """Note the state of the random numbers; call it before the first pass."""
        self.states = _random_states(("cpu", device.type))

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw the numbers from that state once more, and then go on as if nothing had been drawn."""
        now = _random_states(self.states)
        _set_random_states(self.states)
        try:
            yield
        finally:
            _set_random_states(now)


def _random_states(kinds: Iterable[str]) -> dict[str, torch.Tensor]:
    """Return the states of PyTorch's random numbers on these kinds of device."""
    return {kind: _numbers_of(kind).get_rng_state() for kind in kinds}


def _set_random_states(states: dict[str, torch.Tensor]) -> None:
    """Put back what `_random_states` returned."""
    for kind, state in states.items():
        _numbers_of(kind).set_rng_state(state)


def _numbers_of(kind: str) -> Any:
    """Return the module that holds the random numbers of a kind of device."""
    return torch if kind == "cpu" else torch.get_device_module(kind)


@contextmanager
def noise_on_embeddings(training: "Training", noise: torch.Tensor) -> Iterator[None]:
    """Add `noise`, of shape (bs, seqlen, dim), to what the token embedding gives."""

    def add(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output + noise

    handle = training.classifier.llama.tok_embeddings.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _normal(training: "Training", input_ids: torch.Tensor) -> torch.Tensor:
    """Return normal noise, (bs, seqlen, dim), with the deviation of the embedding matrix."""
    weight = training.classifier.llama.tok_embeddings.weight.detach()
    return torch.randn(*input_ids.shape, weight.shape[1], device=weight.device, dtype=weight.dtype) * weight.std()


def _noisy(training: "Training", dropout: SameDropout, input_ids: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Return the answer under noise. Shapes: (bs, seqlen), (bs, seqlen, dim) -> (bs, num_labels)."""
    with dropout.again(), noise_on_embeddings(training, noise):
        return training.log_probs(input_ids)


@dataclass
class R3f(Method):
    """Random noise on the embeddings should not change the answer."""

    weight: float = 1.0
    noise: float = 0.1
    _dropout: SameDropout = field(default_factory=SameDropout, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raise UsageError for an option below its range."""
        _require_at_least_0("r3f", weight=self.weight, noise=self.noise)

    def before_forward(self, training: "Training") -> None:
        """Note where the step's random numbers begin."""
        self._dropout.begin(training.classifier.llama.tok_embeddings.weight.device)

    def penalty(self, training: "Training", input_ids: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """Return the weighted distance to the answer under noise. Shapes as in `Method.penalty`."""
        noise = self.noise * _normal(training, input_ids)
        return self.weight * symmetric_kl(log_probs, _noisy(training, self._dropout, input_ids, noise))


@dataclass
class Smart(Method):
    """The worst small noise should not change the answer, and neither should a step."""

    weight: float = 1.0
    noise: float = 0.1
    ascents: int = 1
    proximal: float = 1.0
    momentum: float = 0.99
    _dropout: SameDropout = field(default_factory=SameDropout, init=False, repr=False)
    _average: dict[str, torch.Tensor] = field(default_factory=dict, init=False, repr=False)  # of the trained weights

    def __post_init__(self) -> None:
        """Raise UsageError for an option outside its range."""
        _require_at_least_0("smart", weight=self.weight, noise=self.noise, ascents=self.ascents, proximal=self.proximal)
        if not 0.0 <= self.momentum <= 1.0:
            raise UsageError(f"smart: momentum must be in [0, 1], got {self.momentum}")

    def begin(self, training: "Training") -> None:
        """Start the average."""
        self._average = training.trained_state()

    def before_forward(self, training: "Training") -> None:
        """Note where the step's random numbers begin."""
        self._dropout.begin(training.classifier.llama.tok_embeddings.weight.device)

    def penalty(self, training: "Training", input_ids: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
        """Return both penalties. Shapes as in `Method.penalty`."""
        total = log_probs.new_zeros(())
        if self.weight:
            worst = self._worst_noise(training, input_ids, log_probs.detach())
            total = total + self.weight * symmetric_kl(log_probs, _noisy(training, self._dropout, input_ids, worst))
        if self.proximal:
            total = total + self.proximal * symmetric_kl(log_probs, self._of_the_average(training, input_ids))
        return total

    @torch.no_grad()
    def after_step(self, training: "Training") -> None:
        """Let the average follow the weights."""
        for name, parameter in training.classifier.trained.items():
            self._average[name].lerp_(parameter, 1 - self.momentum)

    def _worst_noise(self, training: "Training", input_ids: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Return the noise, at most `noise` deviations an element, that a few steps of gradient ascent find.

        It starts beside 0, where the distance has its minimum and no direction. Shapes: input_ids (bs, seqlen), clean
        (bs, num_labels), without its gradient -> (bs, seqlen, dim).
        """
        largest = self.noise * training.classifier.llama.tok_embeddings.weight.detach().std()
        noise = self.noise * START * _normal(training, input_ids)
        for _ in range(self.ascents):
            noise.requires_grad_()
            distance = symmetric_kl(clean, _noisy(training, self._dropout, input_ids, noise))
            (gradient,) = torch.autograd.grad(distance, noise)
            steepest = gradient.abs().amax(dim=(1, 2), keepdim=True)  # (bs, 1, 1)
            step = gradient / steepest.clamp_min(torch.finfo(gradient.dtype).tiny)  # 0, where nothing changes anything
            noise = (noise.detach() + largest * step).clamp(-largest, largest)
        return noise

    @torch.no_grad()
    def _of_the_average(self, training: "Training", input_ids: torch.Tensor) -> torch.Tensor:
        """Return what the averaged weights answer. Shapes: (bs, seqlen) -> (bs, num_labels)."""
        classifier, precision = training.classifier, training.recipe.precision
        tokens = input_ids.to(classifier.llama.tok_embeddings.weight.device)
        autocast = torch.autocast(tokens.device.type, precision, enabled=precision != torch.float32)
        # The weights in the classifier itself must stay: the backward pass of the step reads them.
        with self._dropout.again(), autocast:
            log_probs: torch.Tensor = functional_call(classifier, self._average, (tokens,))
        return log_probs.float()


def _require_at_least_0(method: str, **options: float) -> None:
    """Raise UsageError for an option below 0."""
    for name, value in options.items():
        if value < 0:
            raise UsageError(f"{method}: {name} must be 0 or more, got {value}")

"""How much may a coherent text cost? Measured for one checkpoint, on texts of right models and of wrong ones.

    python -m autograder measure-text checkpoints/storybook

At temperature 1 a right model's texts are drawn; the limit lies four standard deviations above their mean. At
temperature 0 a right model writes one text, but where two tokens are about equally likely another processor may take
the other: the limit lies four deviations above the mean of the texts that turn off at the closest calls. What wrong
models write (one for each of the misconceptions) then shows which of them a text alone can tell.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import torch

from autograder.misconceptions import MISCONCEPTIONS, Misconception, applied
from autograder.outputs.coherence import LENGTHS, MAX_CHARACTERS, NEW_TOKENS, TextReader
from utils import progress

REGIONS = ("rmsnorm", "attention", "gqa", "rope", "layer", "generate")
DEVIATIONS = 4.0
DRAWN = 64  # texts at temperature 1
TURNS = 24  # texts at temperature 0 that turn off


@dataclass(frozen=True)
class Wrong:
    """What one misconception's texts cost; None where it writes none that can be read."""

    name: str
    greedy: float | None
    drawn: float | None
    same: bool  # its text at temperature 0 is the right one


@dataclass(frozen=True)
class Measured:
    """What right and wrong models' texts cost under one checkpoint, in nats a token."""

    checkpoint: str
    causal: bool
    greedy: float
    turned: tuple[float, ...]
    drawn: tuple[float, ...]
    wrong: tuple[Wrong, ...]

    @property
    def limits(self) -> dict[str, float]:
        """Return the most that a coherent text costs, by temperature, as an edition has it."""
        return {
            name: round(_limit(costs), 2) for name, costs in (("0", (self.greedy, *self.turned)), ("1", self.drawn))
        }

    def told(self, wrong: Wrong) -> bool:
        """Say whether one of a misconception's two texts is over the limit, or cannot be read at all."""
        pairs = ((wrong.greedy, self.limits["0"]), (wrong.drawn, self.limits["1"]))
        return any(cost is None or cost > limit for cost, limit in pairs)

    def table(self) -> str:
        """Return the result as lines of text: the limits as an edition's TOML, and each misconception."""
        told = [wrong for wrong in self.wrong if self.told(wrong)]
        lines = [
            f"{self.checkpoint}, {'causal' if self.causal else 'no mask'}: nats a token",
            f"right, temperature 0: {self.greedy:.2f}; turned off at a close call: {_range(self.turned)}",
            f"right, temperature 1: {_range(self.drawn)}",
            f"coherent_nats = {{ 0 = {self.limits['0']:.2f}, 1 = {self.limits['1']:.2f} }}",
            f"told by a text alone: {len(told)} of {len(self.wrong)} misconceptions",
            "",
            f"{'misconception':34s} {'at 0':>7s} {'at 1':>7s}",
        ]
        for wrong in sorted(self.wrong, key=lambda entry: (self.told(entry), entry.name)):
            remark = "" if self.told(wrong) else "the right text" if wrong.same else "not told"
            lines.append(f"{wrong.name:34s} {_shown(wrong.greedy)} {_shown(wrong.drawn)} {remark}".rstrip())
        return "\n".join(lines)


def measure(
    weights: Path,
    causal: bool,
    *,
    drawn: int = DRAWN,
    turns: int = TURNS,
    regions: Sequence[str] = REGIONS,
    seed: int = 0,
) -> Measured:
    """Return what texts cost under these weights; minutes for a model of some million parameters.

    `regions` says whose misconceptions are tried. The random numbers start from `seed`. Raises CheckpointError or
    TokenizerError.
    """
    reader = TextReader(weights, causal)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        texts = reader.write(1.0, rows=drawn)
        wrong = [entry for entry in MISCONCEPTIONS if entry.region in regions]
        return Measured(
            weights.stem,
            causal,
            reader.nats(reader.greedy()),
            tuple(reader.nats(text) for text in turned_off(reader, turns)),
            tuple(reader.nats(text) for text in texts),
            tuple(_measure_wrong(reader, entry, seed) for entry in progress(wrong, "misconceptions")),
        )


def turned_off(reader: TextReader, turns: int, new_tokens: int = NEW_TOKENS) -> Iterator[str]:
    """Yield texts at temperature 0 that take the second most likely token once, where that was the closest call."""
    prompt = reader.tokenizer.encode(reader.prompt, bos=True, eos=False)
    ids = reader.llama.generate(torch.tensor([prompt]), new_tokens, temperature=0.0)[0]
    calls = []
    with torch.inference_mode():
        for place in range(len(prompt), len(ids)):
            logits, _ = reader.llama(ids[max(0, place - reader.llama.config.max_seq_len) : place].unsqueeze(0))
            best = logits[0, -1].topk(2)
            calls.append(((best.values[0] - best.values[1]).item(), place, best.indices[1:]))
    for _, place, second in sorted(calls, key=lambda call: call[0])[:turns]:
        turned = torch.cat([ids[:place], second]).unsqueeze(0)
        text = reader.llama.generate(turned, len(ids) - place - 1, temperature=0.0)
        yield reader.tokenizer.decode(text[0].tolist())


def _measure_wrong(reader: TextReader, misconception: Misconception, seed: int) -> Wrong:
    """Return what a wrong model's two texts cost the right one; a model that cannot run writes none."""
    torch.manual_seed(seed)
    try:
        with applied(misconception):
            texts = reader.write(0.0) + reader.write(1.0)
    except (RuntimeError, ValueError, IndexError):  # shapes that do not fit, probabilities that are none
        return Wrong(misconception.name, None, None, same=False)
    greedy, drawn = (_cost(reader, text) for text in texts)
    return Wrong(misconception.name, greedy, drawn, same=texts[0] == reader.greedy())


def _cost(reader: TextReader, text: str) -> float | None:
    """Return what a text costs; None if its length alone is implausible."""
    if not text.startswith(reader.prompt) or len(text) > MAX_CHARACTERS:
        return None
    cost = reader.cost(text)
    return cost.nats if cost.tokens in LENGTHS else None


def _limit(costs: Sequence[float]) -> float:
    """Return what lies so many deviations above the mean."""
    return fmean(costs) + DEVIATIONS * stdev(costs)


def _range(costs: Sequence[float]) -> str:
    """Describe a sample."""
    return f"{fmean(costs):.2f} ± {stdev(costs):.2f}, {min(costs):.2f} to {max(costs):.2f} ({len(costs)} texts)"


def _shown(cost: float | None) -> str:
    """Return a cost in seven columns."""
    return "   none" if cost is None else f"{cost:7.2f}"

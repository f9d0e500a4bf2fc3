"""The learning rate of a step: a linear warm-up, then half a cosine down to the lowest rate."""

import math


def learning_rate(step: int, *, steps: int, warmup_steps: int, highest: float, lowest: float) -> float:
    """Return the learning rate of step `step` out of `steps`, both counted from 0 (Loshchilov & Hutter 2017, eq. 5).

    Step 0 takes `highest / warmup_steps`, so that no step is wasted on a rate of zero; step `warmup_steps - 1` reaches
    `highest`; the last step takes `lowest`, if it lies behind the warm-up.
    """
    if step < warmup_steps:
        return highest * (step + 1) / warmup_steps
    decay_steps = steps - warmup_steps
    if decay_steps <= 1:
        return lowest if step >= steps - 1 else highest
    done = min((step - warmup_steps) / (decay_steps - 1), 1.0)  # 0 at the first step of the decay, 1 at the last
    return lowest + (highest - lowest) * (1 + math.cos(math.pi * done)) / 2

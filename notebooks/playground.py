"""What the notebook needs besides the project itself: attention maps, their pictures, and two models of a few seconds.

The models read characters, so that they need no tokenizer, and differ in how they know positions, in nothing else.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from config import LlamaConfig
from llama import Attention, Llama
from optimizer import AdamW
from plots import empty_figure

TRAINED_LENGTH = 64  # characters that the tiny models see at once while they learn
LONGEST = 4 * TRAINED_LENGTH  # and may see afterwards
BATCH_SIZE = 16
SHOWN_CHARACTERS = {" ": "␣", "\n": "⏎", "": "·"}  # on the axes of a map; of a special token nothing could be seen

Mix = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


# ---------------------------------------------------------------------------------------------------- attention


@torch.no_grad()
def attention_maps(model: Llama, tokens: torch.Tensor) -> torch.Tensor:
    """Return how much each token looks at each token: the attention weights of one row of ids.

    Shapes: tokens (1, seqlen) -> (n_layers, n_heads, seqlen, seqlen); [l, h, q, k] is what the query of token q in
    head h of layer l gives to the key of token k.
    """
    maps: list[torch.Tensor] = []
    with _recording(model, maps):
        model(tokens)
    return torch.stack(maps)


@contextmanager
def _recording(model: Llama, maps: list[torch.Tensor]) -> Iterator[None]:
    """Put the weights of every attention into `maps` while the model computes.

    Attention mixes the values by its weights. Mixing unit vectors gives the weights themselves, and so needs to know
    nothing of masks and positions.
    """

    def record(mix: Mix, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        unit = torch.eye(key.shape[2], dtype=value.dtype, device=value.device).expand(*key.shape[:3], -1)
        maps.append(mix(query, key, unit)[0])  # (n_heads, seqlen, seqlen)
        return mix(query, key, value)

    attentions = [module for module in model.modules() if isinstance(module, Attention)]
    for attention in attentions:
        recorder = functools.partial(record, attention.compute_query_key_value_scores)
        vars(attention)["compute_query_key_value_scores"] = recorder  # hides the method of the class
    try:
        yield
    finally:
        for attention in attentions:
            del vars(attention)["compute_query_key_value_scores"]


def draw_heads(maps: torch.Tensor, labels: Sequence[str], title: str) -> Any:
    """Return a figure with a picture for each head of `maps`, of shape (n_heads, seqlen, seqlen).

    A row is a query, a column a key; white is a weight of 0, the darkest blue one of 1.
    """
    figure, axes = _grid(len(maps), title)
    shown = [SHOWN_CHARACTERS.get(label, label) for label in labels]
    for head, (panel, weights) in enumerate(zip(axes, maps, strict=True)):
        panel.imshow(weights.cpu().numpy(), cmap="Blues", vmin=0, vmax=1)
        panel.set_title(f"head {head}", fontsize=9)
        ticks = range(len(shown))
        panel.set_xticks(ticks, shown, rotation=90, fontsize=7)
        panel.set_yticks(ticks, shown, fontsize=7)
    return figure


def draw_lines(lines: dict[str, Iterable[float]], x: Sequence[int], **labels: Any) -> Any:
    """Return a figure with the named lines over `x`."""
    figure, (axes,) = _grid(1, "")
    for name, values in lines.items():
        axes.plot(x, list(values), label=name)
    axes.set(**labels)
    axes.legend()
    return figure


def _grid(panels: int, title: str) -> tuple[Any, list[Any]]:
    """Return a figure and its panels, at most four in a row."""
    columns = min(panels, 4)
    rows = -(-panels // columns)
    size = (3.0 * columns, 3.0 * rows) if panels > 1 else (7.0, 4.0)  # inches
    figure = empty_figure(*size)
    figure.suptitle(title)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for unused in axes[panels:]:
        unused.axis("off")
    return figure, axes[:panels]


# ---------------------------------------------------------------------------------------------------- tiny models


class Characters:
    """A vocabulary of characters: the id of one is its place among all that a text has, the last id is for others."""

    def __init__(self, text: str) -> None:
        """Collect the characters of `text`."""
        self._ids = {character: i for i, character in enumerate(sorted(set(text)))}
        self.vocab_size = len(self._ids) + 1

    def encode(self, text: str) -> torch.Tensor:
        """Return the ids of `text`, of shape (its length,)."""
        return torch.tensor([self._ids.get(character, len(self._ids)) for character in text])


def read_sentences(path: Path) -> str:
    """Return the sentences of a `label ||| sentence` file as one text, a line each."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return "".join(line.partition(" ||| ")[2] + "\n" for line in lines)


def train_tiny(
    position_embedding_type: str, ids: torch.Tensor, vocab_size: int, steps: int, seed: int = 0
) -> tuple[Llama, list[float]]:
    """Train a tiny Llama on windows of `ids`, of shape (length,), and return it with its loss at each step.

    It learns from TRAINED_LENGTH characters at a time and can read LONGEST afterwards. The seed fixes the weights that
    it starts with and the windows that it sees.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Llama(
            LlamaConfig(
                vocab_size=vocab_size,
                dim=64,
                n_layers=2,
                n_heads=4,
                n_kv_heads=4,
                max_seq_len=LONGEST,
                position_embedding_type=position_embedding_type,
            )
        )
        optimizer = AdamW(model.parameters(), lr=3e-3)
        losses = []
        for _ in range(steps):
            starts = torch.randint(len(ids) - TRAINED_LENGTH, (BATCH_SIZE,)).tolist()
            loss = next_loss(model, torch.stack([ids[start : start + TRAINED_LENGTH + 1] for start in starts]))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.item())
    return model.eval(), losses


def next_loss(model: Llama, windows: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of predicting each next id, in nats. Shapes: windows (bs, seqlen + 1) -> ()."""
    tokens, targets = windows[:, :-1], windows[:, 1:]
    logits, _ = model(tokens, targets)
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


@torch.no_grad()
def loss_of_last(model: Llama, ids: torch.Tensor, length: int, last: int = TRAINED_LENGTH // 2) -> float:
    """Return the loss on characters of `ids` that are the same whatever `length` is: the number before them changes.

    Each window of `length` + 1 characters is read at once, and its `last` predictions count. Windows of every length
    end at the same characters. In nats a character.
    """
    ends = range(LONGEST + 1, len(ids) + 1, last)
    windows = torch.stack([ids[end - length - 1 : end] for end in ends])
    logits, _ = model(windows[:, :-1], windows[:, 1:])
    return F.cross_entropy(logits[:, -last:].flatten(0, 1), windows[:, -last:].flatten()).item()

"""Ways to choose the next token, beside one another: what each of them does to the same model's texts.

Sampling and its filters are `inference.sampling`'s. Two strategies are added that no filter can be: contrastive search,
which looks at the hidden state that a token leads to, and beam search, which looks at whole texts.

    rows = compare(llama, tokenizer, prompts, STRATEGIES, max_new_tokens=100, seeds=[1, 2, 3])
    print(table(rows))
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
import torch.nn.functional as F

from advanced.text_measures import distinct, log_likelihoods, repetition
from checkpoint import check_finite
from errors import DataError, UsageError
from inference.engine import Engine
from inference.generation import complete
from inference.sampling import GREEDY, Sampling
from llama import Llama, load_pretrained
from pretrain.corpus import MARKER, read_documents
from pretrain.sample import read_prompts
from tokenizer import Tokenizer, find_tokenizer
from utils import pick_device, progress, sha256_of, write_text

PROMPT_TOKENS = 32  # of a text, without the one that begins it; what follows them is how it really goes on
ROWS_AT_ONCE = 64  # of the cache: prompts, times the candidates or beams of each
SEED_STRIDE = 1_000_000  # between the random numbers of two seeds; the prompts' come one after the other
REFERENCE = "reference"  # the row of the texts as they really go on

OPENINGS = (
    "Once upon a time, there was a small boat that was afraid of the sea.",
    "Mia found an old key in the garden. It was",
    "The rain did not stop all day. Ben looked out of the window and",
    "Grandpa had a secret. Every night, when the moon came up, he",
    '"Do not open that box," said the cat. But Anna',
    "Two birds lived in a tall tree near the school. One morning, they",
    "Sam wanted to bake a cake for his sister. First, he",
    "In a quiet forest there was a bear who could not sleep.",
    "The red kite was stuck in the tree again. Lucy and her brother",
    "One day, a little star fell from the sky and landed in",
)


@dataclass(frozen=True)
class Contrastive:
    """Contrastive search: of the `k` likeliest tokens, one that is likely and leads to a state unlike those before.

    Su et al. 2022 (arXiv 2202.06417), section 3.2. Raises ValueError for a value outside its range.
    """

    k: int = 4  # tokens, at least 1
    alpha: float = 0.6  # weight of the state's similarity against the token's probability, from 0 to 1

    def __post_init__(self) -> None:
        """Check each value."""
        if self.k < 1:
            raise ValueError(f"k must be at least 1, got {self.k!r}")
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must be from 0 to 1, got {self.alpha!r}")


@dataclass(frozen=True)
class Beam:
    """Beam search: of the texts that it goes through, the one whose log-likelihood / length**penalty is the highest.

    Wu et al. 2016 (arXiv 1609.08144), section 7, with the plain power of the length in place of theirs. A penalty of 0
    compares the likelihoods of whole texts, which favours short ones, 1 those of the mean token. Raises ValueError for
    a value outside its range.
    """

    beams: int = 4  # texts that are followed at once, at least 1
    penalty: float = 1.0  # from 0 up

    def __post_init__(self) -> None:
        """Check each value."""
        if self.beams < 1:
            raise ValueError(f"beams must be at least 1, got {self.beams!r}")
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty must be a number from 0 up, got {self.penalty!r}")


Strategy = Sampling | Contrastive | Beam

STRATEGIES: dict[str, Strategy] = {
    "greedy": GREEDY,
    "sampling": Sampling(),
    "top-k": Sampling(top_k=40),
    "top-p": Sampling(top_p=0.9),
    "min-p": Sampling(min_p=0.1),
    "epsilon": Sampling(epsilon=3e-4),
    # With so much mass it nearly always keeps what top-p 0.9 keeps; with little, it often drops the likeliest tokens.
    "typical": Sampling(typical=0.9),
    "typical-0.2": Sampling(typical=0.2),
    "contrastive": Contrastive(k=4, alpha=0.6),
    "beam": Beam(beams=4),
}


# ---------------------------------------------------------------------------------------------------- the strategies


def continuations(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    strategy: Strategy,
    max_new_tokens: int,
    *,
    end: int | None = None,
    generators: Sequence[torch.Generator] | None = None,
) -> list[list[int]]:
    """Return the new tokens of each prompt: at most `max_new_tokens`, the last of them `end` if the text ends there.

    `generators` has one for each prompt (None: PyTorch's own random numbers); of the strategies, only a `Sampling`
    draws any. Raises ValueError if there is no prompt, one is empty, one with its new tokens is longer than the model's
    `max_seq_len` (neither states nor beams could then be compared any more), or the logits are not numbers.
    """
    longest, limit = max(map(len, prompts), default=0), engine.config.max_seq_len
    if max_new_tokens < 1 or longest + max_new_tokens > limit:
        raise ValueError(f"{max_new_tokens} new tokens behind {longest}: from 1 on, and {limit} with the prompt")
    if isinstance(strategy, Contrastive):
        return _contrastive(engine, prompts, strategy, max_new_tokens, end)
    if isinstance(strategy, Beam):
        return _beam(engine, prompts, strategy, max_new_tokens, end)
    return complete(
        engine, prompts, max_new_tokens, strategy, ended=lambda _, token: token == end, generator=generators
    )


@torch.inference_mode()
def _contrastive(
    engine: Engine, prompts: Sequence[Sequence[int]], strategy: Contrastive, max_new_tokens: int, end: int | None
) -> list[list[int]]:
    """Continue prompts by contrastive search.

    The cache has k rows for each text. A step reads one candidate in each; the row of the best of them then takes the
    place of the other k - 1.
    """
    k = min(strategy.k, engine.config.vocab_size)
    longest = max(map(len, prompts), default=0)
    texts: list[list[int]] = [[] for _ in prompts]
    live = list(range(len(prompts)))
    hidden = engine.prefill_hidden(prompts, max_new_tokens)  # (bs, longest, dim)
    logits = engine.model.logits(hidden[:, -1])  # (bs, vocab_size)
    before = F.normalize(hidden.float(), dim=-1)  # (bs, seqlen so far, dim): the states, each of length 1
    starts = torch.tensor([longest - len(prompt) for prompt in prompts], device=hidden.device)
    engine.keep([row for row in live for _ in range(k)])
    for left in reversed(range(max_new_tokens)):
        _require_numbers(logits)
        probabilities, candidates = logits.float().softmax(dim=-1).topk(k)  # (bs, k)
        hidden = engine.decode_hidden(candidates.flatten()).view(len(live), k, -1)
        states = F.normalize(hidden.float(), dim=-1)  # (bs, k, dim)
        is_padding = torch.arange(before.shape[1], device=starts.device) < starts[:, None, None]  # (bs, 1, seqlen)
        nearest = (states @ before.mT).masked_fill(is_padding, -math.inf).amax(dim=-1)  # (bs, k): the cosine
        best = ((1 - strategy.alpha) * probabilities - strategy.alpha * nearest).argmax(dim=-1)  # (bs,)
        everyone = torch.arange(len(live), device=best.device)
        for row, token in zip(live, candidates[everyone, best].tolist(), strict=True):
            texts[row].append(token)
        going_on = [i for i, row in enumerate(live) if texts[row][-1] != end]
        if not (going_on and left):
            break
        live, chosen = [live[i] for i in going_on], best[going_on]
        engine.keep([i * k + j for i, j in zip(going_on, chosen.tolist(), strict=True) for _ in range(k)])
        before = torch.cat([before[going_on], states[going_on, chosen][:, None]], dim=1)
        starts, logits = starts[going_on], engine.model.logits(hidden[going_on, chosen])
    return texts


class _Search:
    """The beam search of one prompt: the texts that are followed, and the best one that has ended."""

    def __init__(self, strategy: Beam, max_new_tokens: int, end: int | None) -> None:
        """Start with nothing behind the prompt."""
        self.live: list[list[int]] = [[]]
        self.best: list[int] = []
        self._scores = [0.0]  # log-likelihoods of `live`, the best first
        self._best_score = -math.inf
        self._beams, self._penalty = strategy.beams, strategy.penalty
        self._max_new_tokens, self._end = max_new_tokens, end

    def step(self, log_probs: torch.Tensor) -> list[int]:
        """Follow the best texts that are one token longer; return which of `live` each of them continues.

        Shapes: log_probs (len(live), vocab_size), of the next token behind each.
        """
        total = log_probs + torch.tensor(self._scores, device=log_probs.device)[:, None]
        # Each text has one token that ends it, so that among twice as many there are enough that go on.
        scores, places = total.flatten().topk(min(2 * self._beams, total.numel()))
        live: list[list[int]] = []
        kept: list[float] = []
        parents: list[int] = []
        for rank, (score, place) in enumerate(zip(scores.tolist(), places.tolist(), strict=True)):
            parent, token = divmod(place, log_probs.shape[1])
            text = [*self.live[parent], token]
            if token == self._end or len(text) == self._max_new_tokens:
                if rank < self._beams:
                    self._finish(text, score)
            elif len(live) < self._beams:
                live.append(text)
                kept.append(score)
                parents.append(parent)
        self.live, self._scores = live, kept
        if not self._can_improve():
            self.live, parents = [], []
        return parents

    def _finish(self, text: list[int], score: float) -> None:
        """Take a text that has ended, if it is the best so far."""
        normalised = score / len(text) ** self._penalty
        if normalised > self._best_score:
            self.best, self._best_score = text, normalised

    def _can_improve(self) -> bool:
        """Say whether a text that is followed may become better than the best.

        A log-likelihood only falls with further tokens, so none can be better than what there is over the most tokens.
        """
        return bool(self.live) and self._scores[0] / self._max_new_tokens**self._penalty > self._best_score


@torch.inference_mode()
def _beam(
    engine: Engine, prompts: Sequence[Sequence[int]], strategy: Beam, max_new_tokens: int, end: int | None
) -> list[list[int]]:
    """Continue prompts by beam search; the cache has a row for each text that is followed, those of a prompt together.

    Without an end token, one beam finds what `GREEDY` does; with one it goes on beside a text that has ended.
    """
    searches = [_Search(strategy, max_new_tokens, end) for _ in prompts]
    logits = engine.prefill(prompts, max_new_tokens)  # (rows, vocab_size)
    while True:
        _require_numbers(logits)
        log_probs = F.log_softmax(logits.float(), dim=-1)
        kept, first = [], 0
        for search in [search for search in searches if search.live]:
            rows = len(search.live)
            kept += [first + parent for parent in search.step(log_probs[first : first + rows])]
            first += rows
        if not kept:
            return [search.best for search in searches]
        engine.keep(kept)
        last = [text[-1] for search in searches for text in search.live]
        logits = engine.decode(torch.tensor(last, device=logits.device))


def _require_numbers(logits: torch.Tensor) -> None:
    """Raise ValueError if a logit is a NaN or infinite: the model's weights or its training are broken."""
    if not logits.isfinite().all():
        raise ValueError("no token can be chosen: the logits are not numbers (NaN, or infinite)")


# ---------------------------------------------------------------------------------------------------- the comparison


@dataclass(frozen=True)
class Prompt:
    """The beginning of a text, and how it goes on if it was written by somebody."""

    ids: list[int]
    truth: list[int]  # at most as many tokens as the model writes; empty if the text is no longer than the prompt


def make_prompt(tokenizer: Tokenizer, text: str, max_new_tokens: int) -> Prompt:
    """Part a text behind its first `PROMPT_TOKENS` tokens; the beginning-of-sequence token is in front of them."""
    ids = tokenizer.encode(text, bos=True, eos=True)
    cut = 1 + PROMPT_TOKENS
    if len(ids) - 1 <= cut:  # the end of the text is not in the prompt
        return Prompt(ids[:-1], [])
    return Prompt(ids[:cut], ids[cut : cut + max_new_tokens])


def compare(
    llama: Llama,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    strategies: Mapping[str, Strategy],
    max_new_tokens: int,
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Return a row for each strategy, of what JSON can hold: its measures over all prompts and seeds, and one text.

    A strategy that draws nothing writes each text once, whatever the seeds. Where prompts have a `truth`, the first row
    is that of these, whoever wrote them. The end token counts for the likelihood, and for no other measure. Raises
    ValueError as `continuations` does, or if there is no seed.
    """
    if not seeds:
        raise ValueError("no seed to draw with")
    engine = Engine(llama)
    rows = []
    known = [prompt for prompt in prompts if prompt.truth]
    if known:
        rows.append(_row(engine, tokenizer, REFERENCE, known, [[prompt.truth for prompt in known]]))
    for name, strategy in progress(list(strategies.items()), "strategies"):
        runs = seeds if is_random(strategy) else seeds[:1]
        written = [_write(engine, tokenizer, prompts, strategy, max_new_tokens, seed) for seed in runs]
        row = _row(engine, tokenizer, name, prompts, written)
        rows.append(row | {"settings": {"kind": type(strategy).__name__.lower()} | asdict(strategy)})
    return rows


def is_random(strategy: Strategy) -> bool:
    """Say whether a strategy draws random numbers."""
    return isinstance(strategy, Sampling) and strategy.temperature > 0


def _write(
    engine: Engine,
    tokenizer: Tokenizer,
    prompts: Sequence[Prompt],
    strategy: Strategy,
    max_new_tokens: int,
    seed: int,
) -> list[list[int]]:
    """Return the continuation of each prompt; none depends on the other prompts."""
    device = engine.model.device
    width = {Contrastive: "k", Beam: "beams"}.get(type(strategy))
    step = max(1, ROWS_AT_ONCE // (getattr(strategy, width) if width else 1))
    texts = []
    for first in range(0, len(prompts), step):
        batch = [prompt.ids for prompt in prompts[first : first + step]]
        starts = range(seed * SEED_STRIDE + first, seed * SEED_STRIDE + first + len(batch))
        generators = [torch.Generator(device=device).manual_seed(start) for start in starts]
        texts += continuations(engine, batch, strategy, max_new_tokens, end=tokenizer.eos_id, generators=generators)
    return texts


def _row(
    engine: Engine, tokenizer: Tokenizer, name: str, prompts: Sequence[Prompt], runs: Sequence[Sequence[list[int]]]
) -> dict[str, Any]:
    """Measure texts: `runs` has one for each prompt, once or several times."""
    ids = [prompt.ids for prompt in prompts]
    likelihoods = [value for texts in runs for value in log_likelihoods(engine, ids, texts)]
    words = [[[token for token in text if token != tokenizer.eos_id] for text in texts] for texts in runs]
    every = [text for texts in words for text in texts]
    measures = {"log_likelihood": likelihoods, "length": [float(len(text)) for text in every]}
    measures |= {f"rep_{n}": [repetition(text, n) for text in every] for n in (2, 3, 4)}
    measures |= {f"distinct_{n}": [distinct(texts, n) for texts in words] for n in (1, 2)}
    row: dict[str, Any] = {"strategy": name, "texts": len(every)}
    row |= {measure: _summary(values) for measure, values in measures.items()}
    sample = tokenizer.decode([*prompts[0].ids, *words[0][0]])
    return row | {"prompt": tokenizer.decode(prompts[0].ids), "sample": sample}


def _summary(values: Sequence[float]) -> dict[str, float | None]:
    """Return the mean, and the standard deviation of what is a sample of more; None for that of a single value."""
    return {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}


COLUMNS = {
    "log_likelihood": "log-likelihood",
    "rep_2": "rep-2",
    "rep_3": "rep-3",
    "rep_4": "rep-4",
    "distinct_1": "distinct-1",
    "distinct_2": "distinct-2",
    "length": "tokens",
}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Lay rows of `compare` out as a table: means, and behind each its standard deviation."""
    names = ["strategy", *(str(row["strategy"]) for row in rows)]
    lines = [list(COLUMNS.values())] + [[_cell(row, measure) for measure in COLUMNS] for row in rows]
    first, *widths = [max(map(len, column)) for column in (names, *zip(*lines, strict=True))]
    return "\n".join(
        "  ".join([f"{name:{first}}", *(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))])
        for name, line in zip(names, lines, strict=True)
    )


def _cell(row: Mapping[str, Any], measure: str) -> str:
    """Return a measure as the table has it."""
    mean, deviation = row[measure]["mean"], row[measure]["deviation"]
    digits = 1 if measure == "length" else 3
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


# ---------------------------------------------------------------------------------------------------- the command


def decode(
    checkpoint: Path,
    prompts: Path | None,
    strategies: Sequence[str],
    max_new_tokens: int,
    seeds: Sequence[int],
    rows: Path | None,
    *,
    device: str = "cpu",
) -> None:
    """Compare strategies by their names in `STRATEGIES` (none: all) on a checkpoint; print a table and the samples.

    `prompts` is a file of texts, one a line, or parted by `<|endoftext|>`, or of the other kinds that `pretrain
    prepare` reads; each is cut behind its first `PROMPT_TOKENS` tokens, and what follows gives the row `REFERENCE`. The
    model should not have been trained on them. None takes `OPENINGS`. The rows are written to `rows` as JSON, with the
    settings. Raises a MinLlamaError for anything that cannot be used.
    """
    chosen = _chosen(strategies)
    if not seeds:
        raise UsageError("no seed to draw with: name at least one with --seeds")
    if rows is not None and rows.exists() and not rows.is_file():
        raise UsageError(f"{rows} is no regular file: name another for --rows")
    texts = OPENINGS if prompts is None else _read_texts(prompts)
    llama = load_pretrained(checkpoint)
    check_finite(checkpoint, llama.state_dict())
    tokenizer = find_tokenizer(checkpoint, llama.vocab_size)
    beginnings = [make_prompt(tokenizer, text, max_new_tokens) for text in texts]
    _check_room(checkpoint, llama, beginnings, max_new_tokens)
    compared = compare(llama.to(pick_device(device)), tokenizer, beginnings, chosen, max_new_tokens, seeds)
    print(table(compared))
    for row in compared:
        print(f"\n--- {row['strategy']}\n{row['sample']}")
    if rows is not None:
        source = {"name": prompts.name, "sha256": sha256_of(prompts)} if prompts else None
        settings: dict[str, Any] = {"checkpoint": checkpoint.name, "prompts": source, "prompt_tokens": PROMPT_TOKENS}
        settings |= {"max_new_tokens": max_new_tokens, "seeds": list(seeds)}
        write_text(rows, json.dumps(settings | {"rows": compared}, indent=1, ensure_ascii=False) + "\n")


def _chosen(names: Sequence[str]) -> dict[str, Strategy]:
    """Return strategies by their names. Raises UsageError for a name that none has."""
    for name in names:
        if name not in STRATEGIES:
            raise UsageError(f"there is no strategy '{name}': choose from {', '.join(STRATEGIES)}")
    return {name: STRATEGIES[name] for name in names or STRATEGIES}


def _read_texts(path: Path) -> list[str]:
    """Read texts from a file. Raises DataError if it cannot be read, or holds none."""
    if path.suffix == ".txt" and path.is_file() and MARKER.encode() not in path.read_bytes():
        return read_prompts(path)
    texts = list(read_documents(path))
    if not texts:
        raise DataError(f"{path}: the file holds no text: write some, a line with {MARKER} behind each")
    return texts


def _check_room(checkpoint: Path, llama: Llama, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    """Raise UsageError if the texts do not fit what the model reads at once."""
    longest, limit = max(len(prompt.ids) for prompt in prompts), llama.params.max_seq_len
    if longest >= limit:
        raise UsageError(
            f"{checkpoint} reads {limit} tokens at once, and a prompt has {longest}: name another checkpoint"
        )
    if not 1 <= max_new_tokens <= limit - longest:
        raise UsageError(
            f"{max_new_tokens} new tokens behind a prompt of {longest}: the model reads {limit} tokens at once, so "
            f"--max-new-tokens must be from 1 to {limit - longest}"
        )

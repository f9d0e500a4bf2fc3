"""Scores of checkpoints: python -m pytest tests/test_pretrain_evaluate.py"""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError, TokenizerError
from pretrain import evaluate
from pretrain.shards import open_split, read_manifest
from pretrain.trainer import train
from tests.tiny import random_llama
from tests.tiny_pretrain import make_data, tiny_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def checkpoint(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    train(tiny_recipe(data, out))
    return out / "best"


def stream(data: Path, split: str) -> np.ndarray:
    return np.concatenate(
        [np.asarray(shard).astype(np.int64) for shard in open_split(data, read_manifest(data), split)]
    )


def test_the_loss_is_the_mean_over_all_tokens_but_the_first() -> None:
    model = random_llama(vocab_size=20, max_seq_len=8).eval()
    tokens = np.random.default_rng(0).integers(0, 20, size=25)
    losses = []
    for start in range(0, 24, 8):
        window = torch.from_numpy(tokens[start : start + 9])
        logits, _ = model(window[None, :-1], window[None, 1:])
        losses.append(torch.nn.functional.cross_entropy(logits[0].detach(), window[1:], reduction="none"))
    assert evaluate.loss_at(model, tokens, 8) == pytest.approx(torch.cat(losses).mean().item(), rel=1e-5)


def test_every_context_scores_the_same_tokens(checkpoint: Path, data: Path) -> None:
    scores = evaluate.evaluate(checkpoint, data, [8, 16, 64])
    assert [score.context for score in scores] == [8, 16, 64]
    manifest = read_manifest(data)
    split = manifest.splits["validation"]
    for score in scores:
        assert score.bits_per_byte == pytest.approx(score.loss / math.log(2) * split.tokens / split.text_bytes)
    assert scores[0].loss != scores[1].loss


def test_unigrams_are_the_counts(data: Path) -> None:
    train_tokens, held_out = stream(data, "train"), stream(data, "validation")
    counts = np.bincount(train_tokens, minlength=320) + 1
    expected = -np.log(counts / counts.sum())[held_out[1:]].mean()
    unigram, bigram = evaluate.baselines(data)
    assert unigram.loss == pytest.approx(expected)
    assert bigram.loss < unigram.loss


def test_the_bigram_probabilities_sum_to_one(data: Path) -> None:
    tokens = stream(data, "train")
    unigram = (np.bincount(tokens, minlength=320) + 1.0) / (len(tokens) + 320)
    for first in (int(tokens[0]), int(tokens[5]), 319):
        pairs = np.stack([np.full(320, first), np.arange(320)], axis=1).ravel()
        probabilities = evaluate._bigram(tokens, pairs, unigram)[::2]  # every second pair begins with `first`
        assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
        assert (probabilities > 0).all()


def test_a_bigram_is_worked_out_by_hand() -> None:
    """In 0 1 0 1 0 2, the 0 is followed by 1 twice and by 2 once: two kinds of pairs."""
    unigram = np.array([0.5, 0.3, 0.2])
    probability = evaluate._bigram(np.array([0, 1, 0, 1, 0, 2]), np.array([0, 1]), unigram)
    assert probability.tolist() == pytest.approx([(2 - 0.75) / 3 + 0.75 * 2 / 3 * 0.3])


SOURCE = "the quick brown fox jumps over the lazy dog and then it sleeps under the old tree"


@pytest.mark.parametrize(
    ("text", "share", "longest"),
    [
        ("nothing of this stands in the source at all my friend", 0.0, 0),
        (SOURCE, 1.0, 17),
        ("yes the quick brown fox jumps over the lazy cat", 8 / 10, 8),
        ("fox jumps over the lazy dog and", 0.0, 0),  # seven words are no run
        ("the quick brown fox jumps over the lazy X dog and then it sleeps under the old", 16 / 17, 8),
    ],
)
def test_copied_words_are_those_in_long_runs(text: str, share: float, longest: int) -> None:
    result = evaluate.copying([text], [SOURCE], run=8)
    assert result.share == pytest.approx(share)
    assert result.longest == longest


def test_a_run_does_not_go_from_one_source_into_the_next() -> None:
    words = SOURCE.split()
    halves = [" ".join(words[:7]), " ".join(words[7:14])]
    assert evaluate.copying([SOURCE], halves, run=8).share == 0.0


@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_run_stands_in_one_source(order: int) -> None:
    words = [f"w{i}" for i in range(20)]
    sources = [" ".join(words[:12]), " ".join(words[5:])]
    result = evaluate.copying([" ".join(words)], sources[::order], run=8)
    assert (result.share, result.longest) == (1.0, 15)


def test_the_longest_run_stands_in_one_place_of_a_source() -> None:
    """The same words twice, with a gap: the text goes over from the first place to the second."""
    words = [f"w{i}" for i in range(12)]
    assert evaluate.copying([" ".join(words)], [" ".join([*words[:10], "gap", *words[2:]])], run=8).longest == 10


@given(
    st.lists(st.text("ab", min_size=1, max_size=1), max_size=12),
    st.lists(st.lists(st.text("ab", min_size=1, max_size=1), max_size=12), max_size=3),
)
def test_the_longest_run_is_the_one_that_trying_all_of_them_finds(text: list[str], sources: list[list[str]]) -> None:
    parts = {tuple(text[i:j]) for i in range(len(text)) for j in range(i + 3, len(text) + 1)}
    there = {tuple(words[i:j]) for words in sources for i in range(len(words)) for j in range(i + 3, len(words) + 1)}
    result = evaluate.copying([" ".join(text)], map(" ".join, sources), run=3)
    assert result.longest == max(map(len, parts & there), default=0)


def test_no_text_is_nothing_copied() -> None:
    assert evaluate.copying([], [SOURCE]) == evaluate.Copying(0.0, 0, 8)


def test_another_tokenizers_shards_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    other = make_data(tmp_path, vocab_size=319)
    with pytest.raises(TokenizerError, match="did not make these shards"):
        evaluate.evaluate(checkpoint, other, [16])


def test_a_split_shorter_than_the_context_is_an_error(checkpoint: Path, data: Path) -> None:
    with pytest.raises(DataError, match="too few for a context of 100000"):
        evaluate.evaluate(checkpoint, data, [100_000])


def test_the_table_and_the_plot_show_every_score(checkpoint: Path, data: Path, tmp_path: Path) -> None:
    scores = evaluate.evaluate(checkpoint, data, [8, 16])
    text = evaluate.table(scores)
    assert len(text.splitlines()) == 3
    assert f"{scores[1].bits_per_byte:.4f}" in text
    evaluate.plot(scores, tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")

"""What a text costs the reference model, and what limit separates right texts from wrong ones."""

import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from autograder.misconceptions import MISCONCEPTIONS, applied
from autograder.outputs import thresholds
from autograder.outputs.coherence import LENGTHS, MAX_CHARACTERS, TextReader
from autograder.outputs.thresholds import Measured, Wrong, measure, turned_off
from errors import CheckpointError, TokenizerError
from llama import load_pretrained
from reproduce_2024 import attend_to_everything
from tests.tiny import random_llama, save_llama
from tests.tiny_grading import PROMPT, STORYBOOK
from tokenizer import Tokenizer


@pytest.fixture
def weights(tmp_path: Path, tokenizer_model: Path) -> Path:
    """Return a tiny model with its tokenizer beside it."""
    shutil.copy(tokenizer_model, tmp_path / "tokenizer.model")
    vocab_size = Tokenizer(tokenizer_model=tokenizer_model).n_words
    return save_llama(tmp_path / "tiny.pt", random_llama(vocab_size=vocab_size, max_seq_len=200))


@pytest.fixture(scope="module")
def storybook() -> TextReader:
    """Return the project's own small model as a reader."""
    return TextReader(STORYBOOK, causal=True)


TEXT = f"{PROMPT} good, and the dog is good.\nIt is a movie."


def by_hand(reader: TextReader, text: str, *, causal: bool) -> float:
    """Return the mean price of the tokens behind the prompt, one forward pass a token."""
    model = random_llama(vocab_size=reader.llama.vocab_size, max_seq_len=200)
    if not causal:
        attend_to_everything(model)
    prompt = reader.tokenizer.encode(PROMPT, bos=True, eos=False)
    ids = reader.tokenizer.encode(text, bos=True, eos=False)
    assert ids[: len(prompt)] == prompt
    prices = []
    for end in range(len(prompt), len(ids)):
        logits, _ = model(torch.tensor([ids[:end]]))
        prices.append(F.cross_entropy(logits[0], torch.tensor([ids[end]])).item())
    return sum(prices) / len(prices)


@pytest.mark.parametrize("causal", [True, False])
def test_a_text_costs_the_mean_of_its_tokens_with_and_without_the_mask(weights: Path, causal: bool) -> None:
    reader = TextReader(weights, causal)
    assert reader.nats(TEXT) == pytest.approx(by_hand(reader, TEXT, causal=causal), abs=1e-4)


def test_the_mask_makes_a_difference(weights: Path) -> None:
    assert TextReader(weights, True).nats(TEXT) != pytest.approx(TextReader(weights, False).nats(TEXT), abs=1e-2)


def test_the_reader_takes_the_mask_away_as_the_2024_editions_did(weights: Path) -> None:
    llama = load_pretrained(weights)
    attend_to_everything(llama)
    ids = torch.tensor([TextReader(weights, True).tokenizer.encode(PROMPT, bos=True, eos=False)])
    assert torch.equal(TextReader(weights, False).llama(ids)[0], llama(ids)[0])


def test_spaces_and_line_breaks_at_the_end_cost_nothing(weights: Path) -> None:
    reader = TextReader(weights, True)
    assert reader.cost(TEXT + "\r\n") == reader.cost(TEXT)


def test_the_prompt_alone_costs_infinitely_much_for_no_token(weights: Path) -> None:
    for causal in (True, False):
        cost = TextReader(weights, causal).cost(PROMPT)
        assert (cost.nats, cost.tokens) == (float("inf"), 0)


def test_a_text_longer_than_the_context_is_read_to_its_end(weights: Path) -> None:
    for causal in (True, False):
        cost = TextReader(weights, causal).cost(f"{PROMPT} {'a good dog and ' * 60}".strip())
        assert cost.tokens > 200
        assert cost.nats > 0


def test_a_last_piece_of_the_prompt_that_merges_with_what_follows_is_paid_for(weights: Path) -> None:
    reader = TextReader(weights, True)
    merged = reader.cost(f"{PROMPT}n't it?")
    assert merged.tokens >= 1
    assert merged.nats < float("inf")


@pytest.mark.parametrize("text", ["", "Another prompt, and more.", PROMPT[:-1], PROMPT + "a" * MAX_CHARACTERS])
def test_a_text_without_the_prompt_or_of_absurd_length_is_refused(text: str, weights: Path) -> None:
    with pytest.raises(ValueError, match="plausible length that begins with the prompt"):
        TextReader(weights, True).nats(text)


def test_weights_or_a_tokenizer_that_are_not_there_are_named(tmp_path: Path, weights: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing.pt"):
        TextReader(tmp_path / "nothing.pt", True)
    (tmp_path / "tokenizer.model").unlink()
    with pytest.raises(TokenizerError, match="no tokenizer"):
        TextReader(weights, True)


def test_the_greedy_text_is_what_the_model_writes_and_is_written_once(weights: Path) -> None:
    reader = TextReader(weights, True)
    ids = torch.tensor([reader.tokenizer.encode(PROMPT, bos=True, eos=False)])
    llama = random_llama(vocab_size=reader.llama.vocab_size, max_seq_len=200)
    assert reader.greedy() == reader.tokenizer.decode(llama.generate(ids, 75, temperature=0.0)[0].tolist())
    reader.llama = None  # type: ignore[assignment]
    assert reader.greedy().startswith(PROMPT)


# --- the limits -------------------------------------------------------------------------------------------------------


def test_a_right_models_text_is_cheap_under_its_own_checkpoint_and_words_without_sense_are_not(
    storybook: TextReader,
) -> None:
    right = storybook.cost(storybook.greedy())
    assert right.tokens in LENGTHS
    assert right.nats < 0.95
    salad = " ".join(f"{word} banana the of" for word in PROMPT.split()[:14])
    assert storybook.nats(f"{PROMPT} {salad}") > 5.0


@pytest.mark.parametrize("name", ["rope.halves", "layer.parallel"])
def test_a_wrong_models_text_costs_more_than_the_limit(storybook: TextReader, name: str) -> None:
    [misconception] = [entry for entry in MISCONCEPTIONS if entry.name == name]
    with applied(misconception):
        [text] = storybook.write(0.0)
    assert storybook.nats(text) > 0.99


def test_texts_that_turn_off_are_all_different_and_as_long(weights: Path) -> None:
    reader = TextReader(weights, True)
    texts = list(turned_off(reader, 5, new_tokens=12))
    assert len(texts) == 5
    assert len({reader.greedy(), *texts}) == 6
    assert all(text.startswith(PROMPT) for text in texts)


def test_measuring_tells_which_misconceptions_a_text_shows(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = [entry for entry in MISCONCEPTIONS if entry.name in ("gqa.tiled", "gqa.not_repeated", "rope.halves")]
    monkeypatch.setattr(thresholds, "MISCONCEPTIONS", few)
    found = measure(weights, True, drawn=4, turns=3, regions=("gqa",))
    assert (found.checkpoint, found.causal, len(found.turned)) == ("tiny", True, 3)
    assert set(found.limits) == {"0", "1"}
    tiled, unrepeated = found.wrong
    assert tiled.name == "gqa.tiled"
    assert (unrepeated.greedy, unrepeated.drawn) == (None, None)  # its shapes do not fit: it writes nothing
    assert found.told(unrepeated)
    assert not any(wrong.same for wrong in found.wrong)
    assert "tiny, causal: nats a token" in found.table()


def test_the_same_seed_measures_the_same_and_leaves_the_random_numbers_alone(weights: Path) -> None:
    state = torch.get_rng_state()
    first = measure(weights, True, drawn=2, turns=1, regions=())
    assert first == measure(weights, True, drawn=2, turns=1, regions=())
    assert torch.equal(state, torch.get_rng_state())


def test_the_table_shows_limits_four_deviations_above_the_mean() -> None:
    found = Measured(
        "small",
        False,
        greedy=1.0,
        turned=(1.0, 1.3),
        drawn=(2.0, 3.0),
        wrong=(
            Wrong("told.at_0", 9.0, 2.0, same=False),
            Wrong("told.at_1", 1.0, 9.0, same=True),
            Wrong("hidden.a", 1.0, 2.0, same=True),
            Wrong("hidden.b", 1.1, 2.0, same=False),
        ),
    )
    assert found.limits == {
        "0": pytest.approx(1.1 + 4 * 0.1732, abs=0.006),
        "1": pytest.approx(2.5 + 4 * 0.7071, abs=0.006),
    }
    table = found.table().splitlines()
    assert table[0] == "small, no mask: nats a token"
    assert "coherent_nats = { 0 = 1.79, 1 = 5.33 }" in table
    assert "told by a text alone: 2 of 4 misconceptions" in table
    assert table[-4].split() == ["hidden.a", "1.00", "2.00", "the", "right", "text"]
    assert table[-3].split() == ["hidden.b", "1.10", "2.00", "not", "told"]
    assert table[-1].split() == ["told.at_1", "1.00", "9.00"]

"""classifier.py: run with `pytest tests/test_classifier.py`."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from classifier import LlamaEmbeddingClassifier, LlamaZeroShotClassifier, label_ids_after, last_token_positions
from config import ClassifierConfig
from errors import CheckpointError, TokenizerError
from llama import Llama
from optimizer import AdamW
from sentiment_data import prompt_suffix
from tests.assets_dir import require_asset
from tests.tiny import WordTokenizer, padded, random_llama, random_tokens, save_llama
from tokenizer import Tokenizer

ROWS = ((5, 6, 7), (8, 9, 10, 11, 12, 13), (14,), (15, 3, 16, 17))  # the 3 in the last one is a token
SST_NAMES = ("awful", "bad", "average", "good", "excellent")
LABEL_NAMES = ("bad", "very bad", "good", "very good", "so very good")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Return the path of a random tiny checkpoint without dropout."""
    return save_llama(tmp_path / "weights.pt", random_llama())


def embedding_classifier(weights: Path, option: str = "finetune", dropout: float = 0.3) -> LlamaEmbeddingClassifier:
    return LlamaEmbeddingClassifier(ClassifierConfig(3, str(weights), option, dropout))


def zero_shot_classifier(weights: Path, names: Sequence[str] = LABEL_NAMES) -> LlamaZeroShotClassifier:
    config = ClassifierConfig(len(names), str(weights))
    return LlamaZeroShotClassifier(config, WordTokenizer(), list(names)).eval()


def both(weights: Path) -> list[LlamaEmbeddingClassifier | LlamaZeroShotClassifier]:
    return [embedding_classifier(weights).eval(), zero_shot_classifier(weights)]


# ------------------------------------------------------------------------------------------- the last real token


@pytest.mark.parametrize(
    ("row", "position"),
    [
        ([5, 6, 7], 2),
        ([5, 6, 3, 3], 1),
        ([5, 3, 6, 3], 2),  # a 3 inside the row is a token
        ([3, 3, 6, 3], 2),
        ([5, 3, 3, 3], 0),
        ([3, 3, 3, 3], 0),  # nothing but padding
        ([3], 0),
    ],
)
def test_the_last_token_is_the_last_that_is_not_padding(row: list[int], position: int) -> None:
    assert last_token_positions(torch.tensor([row]), pad_id=3).tolist() == [position]


def test_every_row_has_its_own_last_token() -> None:
    assert last_token_positions(padded(ROWS), pad_id=3).tolist() == [2, 5, 0, 3]


def test_the_padding_id_is_the_models() -> None:
    assert last_token_positions(torch.tensor([[3, 3, 0, 0]]), pad_id=0).tolist() == [1]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=5), extra=st.integers(0, 4))
def test_the_last_token_of_a_padded_row_is_at_its_length(lengths: list[int], extra: int) -> None:
    batch = padded([[7] * length for length in lengths], width=max(lengths) + extra)
    assert last_token_positions(batch, pad_id=3).tolist() == [length - 1 for length in lengths]


# ------------------------------------------------------------------------------------------------ both classifiers


def test_right_padding_never_changes_a_prediction(weights: Path) -> None:
    for model in both(weights):
        expected = torch.cat([model(torch.tensor([row])) for row in ROWS])
        for batch in (padded(ROWS), padded(ROWS, width=20)):
            torch.testing.assert_close(model(batch), expected, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(model(batch.flip(0)).flip(0), expected, atol=1e-5, rtol=1e-5)


def test_the_models_own_padding_id_counts(tmp_path: Path) -> None:
    weights = save_llama(tmp_path / "weights.pt", random_llama(pad_id=39))
    rows = ((5, 6, 7), (8, 3, 3))  # two tokens with the id 3 end the second row
    for model in both(weights):
        expected = torch.cat([model(torch.tensor([row])) for row in rows])
        torch.testing.assert_close(model(padded(rows, pad_id=39, width=9)), expected, atol=1e-5, rtol=1e-5)


def test_a_score_is_a_finite_number_for_each_row_and_label(weights: Path) -> None:
    for model, num_labels in zip(both(weights), (3, 5), strict=True):
        assert model.num_labels == num_labels
        scores = model(padded(ROWS))
        assert scores.shape == (4, num_labels)
        assert scores.dtype == torch.float32
        assert scores.isfinite().all()
        assert (scores < 0).all()
        assert not torch.isclose(scores[0], scores[1]).any()


def test_a_row_of_padding_alone_and_a_full_context_are_answered(weights: Path) -> None:
    full = random_tokens(1, 24)
    assert embedding_classifier(weights)(torch.full((2, 4), 3)).isfinite().all()
    assert embedding_classifier(weights)(full).shape == (1, 3)
    assert zero_shot_classifier(weights, ["bad", "good"])(full).shape == (1, 2)


def test_a_model_path_that_is_not_there_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        embedding_classifier(tmp_path / "gone.pt")
    with pytest.raises(CheckpointError, match="does not exist"):
        zero_shot_classifier(tmp_path / "gone.pt")


def test_any_object_with_the_four_attributes_is_a_config(weights: Path) -> None:
    config: Any = SimpleNamespace(
        num_labels=2, pretrained_model_path=str(weights), option="finetune", hidden_dropout_prob=0.5
    )
    model = LlamaEmbeddingClassifier(config)
    assert model.dropout.p == 0.5
    assert model.classifier_head.weight.shape == (2, 32)
    assert LlamaZeroShotClassifier(config, WordTokenizer(), ["bad", "good"]).num_labels == 2


# -------------------------------------------------------------------------------------------- the embedding classifier


def test_the_head_reads_the_last_hidden_state_of_the_llama(weights: Path) -> None:
    model = embedding_classifier(weights).eval()
    for row in ROWS:
        _, hidden = model.llama(torch.tensor([row]))
        logits = hidden[:, -1] @ model.classifier_head.weight.T + model.classifier_head.bias
        torch.testing.assert_close(model(torch.tensor([row])), torch.log_softmax(logits, dim=1))


def test_probabilities_sum_to_one(weights: Path) -> None:
    for training in (True, False):
        scores = embedding_classifier(weights).train(training)(padded(ROWS))
        torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(4))


def test_dropout_acts_on_the_hidden_state_in_training_and_only_there(weights: Path) -> None:
    model, batch = embedding_classifier(weights, dropout=0.5), padded(ROWS)
    model.eval()
    expected = model(batch)
    assert torch.equal(model(batch), expected)
    model.train()
    assert not torch.allclose(model(batch), expected)
    model.dropout = torch.nn.Dropout(0.0)
    torch.testing.assert_close(model(batch), expected)  # the checkpoint itself has none


def test_everything_dropped_leaves_the_bias(weights: Path) -> None:
    model = embedding_classifier(weights)
    model.dropout = torch.nn.Dropout(1.0)
    expected = torch.log_softmax(model.classifier_head.bias, dim=0).expand(4, 3)
    torch.testing.assert_close(model(padded(ROWS)), expected)


def trained_names(model: LlamaEmbeddingClassifier) -> set[str]:
    """Return the names of the parameters that one optimiser step changes."""
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    F.nll_loss(model.train()(padded(ROWS)), torch.tensor([0, 1, 2, 0])).backward()
    optimizer.step()
    return {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}


def test_the_frozen_mode_trains_the_head_and_nothing_else(weights: Path) -> None:
    model = embedding_classifier(weights, option="pretrain")
    assert trained_names(model) == {"classifier_head.weight", "classifier_head.bias"}
    assert not any(parameter.requires_grad for parameter in model.llama.parameters())
    assert all(parameter.grad is None for parameter in model.llama.parameters())


def test_finetuning_trains_everything(weights: Path) -> None:
    model = embedding_classifier(weights, option="finetune")
    assert trained_names(model) == {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize("option", ["generate", "prompt", "", "Finetune"])
def test_another_option_is_an_error_before_any_weights_are_read(tmp_path: Path, option: str) -> None:
    with pytest.raises(ValueError, match=f"option must be 'pretrain' or 'finetune', got '{option}'"):
        embedding_classifier(tmp_path / "gone.pt", option=option)


def test_a_classifier_is_saved_and_loaded_by_its_state(weights: Path, tmp_path: Path) -> None:
    model, batch = embedding_classifier(weights).eval(), padded(ROWS)
    torch.save(model.state_dict(), tmp_path / "classifier.pt")
    other = embedding_classifier(save_llama(tmp_path / "other.pt", random_llama(seed=9))).eval()
    assert not torch.allclose(other(batch), model(batch))
    other.load_state_dict(torch.load(tmp_path / "classifier.pt", weights_only=True))
    assert torch.equal(other(batch), model(batch))


# -------------------------------------------------------------------------------------------- the zero-shot classifier


def scores_by_brute_force(llama: Llama, row: Sequence[int], labels: Sequence[Sequence[int]]) -> list[float]:
    """Score each label token by token, with a forward pass of its own for each, nothing padded and nothing shared."""
    scores = []
    for label in labels:
        score, read = 0.0, list(row)
        for token in label:
            logits, _ = llama(torch.tensor([read]))
            score += torch.log_softmax(logits[0, -1].double(), dim=0)[token].item()
            read.append(token)
        scores.append(score)
    return scores


def test_labels_of_any_length_are_scored_as_by_brute_force(weights: Path) -> None:
    model = zero_shot_classifier(weights)
    assert [len(ids) for ids in model.label_name_ids] == [1, 2, 1, 2, 3]
    expected = [scores_by_brute_force(model.llama, row, model.label_name_ids) for row in ROWS]
    torch.testing.assert_close(model(padded(ROWS, width=15)), torch.tensor(expected), atol=1e-4, rtol=1e-4)


def test_a_label_is_less_likely_than_its_beginning(weights: Path) -> None:
    scores = zero_shot_classifier(weights, ["very", "very good"])(padded(ROWS))
    assert (scores[:, 1] < scores[:, 0]).all()


def test_the_likelihoods_of_all_one_word_labels_sum_to_one(weights: Path) -> None:
    model = zero_shot_classifier(weights)
    model.label_name_ids = [[token] for token in range(40)]
    torch.testing.assert_close(model(padded(ROWS)).exp().sum(dim=1), torch.ones(4))


@pytest.mark.parametrize(
    ("names", "passes"),
    [(SST_NAMES, 1), (LABEL_NAMES, 3), (("very bad", "very good"), 1), (("quite bad", "very good"), 2)],
)
def test_labels_that_agree_but_for_their_last_token_share_a_forward_pass(
    weights: Path, names: Sequence[str], passes: int
) -> None:
    model, calls = zero_shot_classifier(weights, names), []
    model.llama.register_forward_hook(lambda *_: calls.append(1))
    model(padded(ROWS))
    assert len(calls) == passes


def test_the_llama_of_the_zero_shot_classifier_is_frozen(weights: Path) -> None:
    model = zero_shot_classifier(weights)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model(padded(ROWS)).requires_grad


def test_scoring_leaves_the_batch_as_it_was(weights: Path) -> None:
    batch = padded(ROWS)
    for model in both(weights):
        model(batch)
        assert torch.equal(batch, padded(ROWS))


def test_next_token_log_probs_are_those_behind_the_row_and_behind_each_token_after_it(weights: Path) -> None:
    model = zero_shot_classifier(weights)
    log_probs = model.next_token_log_probs(padded(ROWS, width=10), [20, 21])
    assert log_probs.shape == (4, 3, 40)
    for i, row in enumerate(ROWS):
        for j in range(3):
            logits, _ = model.llama(torch.tensor([[*row, 20, 21][: len(row) + j]]))
            torch.testing.assert_close(log_probs[i, j], torch.log_softmax(logits[0, -1], 0), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ labels and prompts


def test_a_label_begins_where_its_prompt_ends(tokenizer_model: Path) -> None:
    tokenizer = Tokenizer(tokenizer_model=tokenizer_model)
    suffix = prompt_suffix(list(SST_NAMES))
    for name in SST_NAMES:
        label = label_ids_after(suffix, name, tokenizer)
        whole = tokenizer.encode(f"A slow film. {suffix} {name}", bos=True, eos=False)
        assert whole == tokenizer.encode(f"A slow film. {suffix}", bos=True, eos=False) + label
        assert tokenizer.decode(label) == name


def test_llamas_tokenizer_has_one_token_for_each_label_of_the_assignment() -> None:
    """The word with its space, and never the word piece behind a bare space that the original scored."""
    tokenizer = Tokenizer(tokenizer_model=require_asset("tokenizer.model"))
    ids = [label_ids_after(prompt_suffix(list(SST_NAMES)), name, tokenizer) for name in SST_NAMES]
    pieces = [[tokenizer.sp_model.id_to_piece(i) for i in label] for label in ids]
    assert pieces == [["▁awful"], ["▁bad"], ["▁average"], ["▁good"], ["▁excellent"]]


class PairTokenizer:
    """A stub whose tokens are two characters each, so that a label changes how the end of a prompt is cut."""

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Return an id for each two characters."""
        return [1] * bos + [sum(map(ord, s[i : i + 2])) for i in range(0, len(s), 2)] + [2] * eos


class DeafTokenizer:
    """A stub that stops listening after ten characters."""

    def encode(self, s: str, bos: bool, eos: bool) -> list[int]:
        """Return an id a character."""
        return [1] * bos + [ord(character) for character in s[:10]] + [2] * eos


def test_a_label_that_changes_the_end_of_the_prompt_is_an_error_that_names_both() -> None:
    assert len(label_ids_after("This", "good", PairTokenizer())) == 3  # an even number of characters: no change
    with pytest.raises(
        TokenizerError, match=r"label 'good' .* behind the prompt 'is it': .* Choose another label name"
    ):
        label_ids_after("is it", "good", PairTokenizer())


def test_a_label_without_tokens_of_its_own_is_an_error() -> None:
    with pytest.raises(TokenizerError, match="label 'bad' has no tokens of its own"):
        label_ids_after("This movie is", "bad", DeafTokenizer())


def test_a_classifier_with_such_a_label_is_not_made(weights: Path) -> None:
    config = ClassifierConfig(2, str(weights))
    with pytest.raises(TokenizerError):
        LlamaZeroShotClassifier(config, DeafTokenizer(), ["bad", "good"])

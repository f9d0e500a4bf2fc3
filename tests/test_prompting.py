"""inference/prompting.py: run with `pytest tests/test_prompting.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from classifier import LlamaZeroShotClassifier
from config import ClassifierConfig
from errors import CheckpointError, UsageError
from inference.packed import PackedLlama
from inference.prompting import FastZeroShotClassifier, label_nodes, tree_mask
from sentiment_data import collate, encode, prompt_suffix, read_examples, read_label_names
from tests.assets_dir import require_asset
from tests.tiny import WordTokenizer, padded, random_llama, random_tokens, save_llama
from tokenizer import Tokenizer

ROWS = ((5, 6, 7), (8, 9, 10, 11, 12, 13), (14,), (15, 3, 16, 17))  # the 3 in the last one is a token
NAMES = ("bad", "very bad", "good", "very good", "so very good")
LABELS: dict[str, list[list[int]]] = {  # 3 is the id that also pads
    "single tokens": [[20], [21], [22]],
    "one alone": [[20, 21, 22, 23]],
    "nothing shared": [[20, 21], [22, 23, 24]],
    "shared prefixes": [[20, 21, 22], [20, 21, 23], [20, 24, 22], [25]],
    "a label that begins another": [[20], [20, 21], [20, 21, 22, 23], [20, 21, 24]],
    "the same token at several depths": [[20, 20, 20, 21], [21, 20, 20], [20, 21, 20, 21], [21, 20, 20, 20]],
    "the same label twice": [[20, 21, 22], [20, 21, 22]],
    "padding in a label": [[20, 3, 3, 21], [3, 3, 20], [20, 3, 22]],
}
KINDS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "ungrouped": {"n_kv_heads": 4},
    "one key head": {"n_kv_heads": 1},
    "alibi": {"position_embedding_type": "alibi"},
    "untied": {"tie_word_embeddings": False},
}


def fast_classifier(path: Path, names: Sequence[str] = NAMES, **changes: Any) -> FastZeroShotClassifier:
    """Return the classifier of a random tiny Llama, whose weights are saved at `path`."""
    config = ClassifierConfig(len(names), str(save_llama(path, random_llama(**changes))))
    return FastZeroShotClassifier(config, WordTokenizer(), list(names)).eval()


def with_labels(model: FastZeroShotClassifier, labels: list[list[int]]) -> FastZeroShotClassifier:
    """Return the classifier with other labels, given by their ids."""
    model.label_name_ids = labels
    return model


def assert_same_scores(model: FastZeroShotClassifier, batch: torch.Tensor) -> None:
    """Compare with the simple classifier, which has a forward pass for each beginning of a label."""
    torch.testing.assert_close(model(batch), LlamaZeroShotClassifier.forward(model, batch), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FastZeroShotClassifier]:
    """Return a classifier of each kind; tests change its labels and nothing else."""
    folder = tmp_path_factory.mktemp("weights")
    return {kind: fast_classifier(folder / f"{kind}.pt", **changes) for kind, changes in KINDS.items()}


@pytest.fixture
def model(tmp_path: Path) -> FastZeroShotClassifier:
    return fast_classifier(tmp_path / "weights.pt")


# ---------------------------------------------------------------------------------------------- the same scores


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_simple_classifier(
    models: dict[str, FastZeroShotClassifier], kind: str, labels: list[list[int]]
) -> None:
    assert_same_scores(with_labels(models[kind], labels), padded(ROWS))


@pytest.mark.parametrize("kind", ["grouped", "alibi"])
@given(data=st.data())
def test_scores_are_those_of_the_simple_classifier_for_any_labels_and_rows(
    models: dict[str, FastZeroShotClassifier], kind: str, data: st.DataObject
) -> None:
    label = st.lists(st.integers(2, 5), min_size=1, max_size=5)  # few ids, so that many beginnings are shared
    row = st.lists(st.integers(0, 39), min_size=1, max_size=12)
    model = with_labels(models[kind], data.draw(st.lists(label, min_size=1, max_size=6)))
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    assert_same_scores(model, padded(rows, width=max(map(len, rows)) + data.draw(st.integers(0, 3))))


def test_scores_of_names_are_those_of_the_simple_classifier(model: FastZeroShotClassifier) -> None:
    assert [len(ids) for ids in model.label_name_ids] == [1, 2, 1, 2, 3]
    assert_same_scores(model, padded(ROWS))
    assert_same_scores(model, padded(ROWS, width=20))


def test_a_row_is_scored_as_if_it_were_alone(model: FastZeroShotClassifier) -> None:
    alone = torch.cat([model(torch.tensor([row])) for row in ROWS])
    for batch in (padded(ROWS), padded(ROWS, width=20)):
        torch.testing.assert_close(model(batch), alone, atol=1e-4, rtol=0)
        torch.testing.assert_close(model(batch.flip(0)).flip(0), alone, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", ["grouped", "alibi"])
def test_prompt_and_labels_may_fill_the_context(models: dict[str, FastZeroShotClassifier], kind: str) -> None:
    model = with_labels(models[kind], [[20, 21, 22, 23], [20, 24], [25]])
    assert_same_scores(model, random_tokens(2, 24 - 3))
    assert_same_scores(with_labels(model, [[20], [21]]), random_tokens(2, 24))


def test_a_row_of_padding_alone_is_scored_as_by_the_simple_classifier(model: FastZeroShotClassifier) -> None:
    assert_same_scores(model, torch.full((2, 4), 3))


def test_the_padding_id_is_that_of_the_moment(model: FastZeroShotClassifier) -> None:
    rows = ((5, 6, 7), (8, 3, 3))  # two tokens with the id 3 end the second row
    model(padded(rows))
    model.llama.config.pad_id = 39
    alone = torch.cat([model(torch.tensor([row])) for row in rows])
    torch.testing.assert_close(model(padded(rows, pad_id=39, width=9)), alone, atol=1e-4, rtol=0)


def test_a_real_model_scores_the_labels_of_sst_as_by_the_simple_classifier() -> None:
    tokenizer = Tokenizer(tokenizer_model=require_asset("tok512.bin"))
    names = read_label_names(require_asset("data/sst-label-mapping.json"))
    config = ClassifierConfig(len(names), str(require_asset("stories260K.bin")))
    model = FastZeroShotClassifier(config, tokenizer, names).eval()
    model.llama.config.pad_id = tokenizer.pad_id
    assert len(label_nodes(model.label_name_ids)) > len(names)  # its tokens are short, the names several of them
    examples = read_examples(require_asset("data/sst-dev.txt"), len(names))[:16]
    rows = encode(examples, tokenizer, 200, prompt_suffix(names)).ids
    for start in (0, 8):
        batch = collate(rows[start : start + 8], tokenizer.pad_id)
        assert_same_scores(model, batch)
        assert torch.equal(model(batch).argmax(dim=1), LlamaZeroShotClassifier.forward(model, batch).argmax(dim=1))


# -------------------------------------------------------------------------------------------------- one pass


def test_the_prompt_is_read_once_and_logits_are_computed_where_they_are_read(
    model: FastZeroShotClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, predicted = [], []
    run, logits = PackedLlama.run, PackedLlama.logits

    def counted_run(self: PackedLlama, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        read.append(tuple(tokens.shape))
        return run(self, tokens, *rest)

    def counted_logits(self: PackedLlama, hidden: torch.Tensor) -> torch.Tensor:
        predicted.append(hidden.shape[:-1].numel())
        return logits(self, hidden)

    monkeypatch.setattr(PackedLlama, "run", counted_run)
    monkeypatch.setattr(PackedLlama, "logits", counted_logits)
    model.llama.register_forward_hook(lambda *_: pytest.fail("the slow model was called"))
    model(padded(ROWS))
    assert read == [(4, 6 + 3)]  # behind the prompts: very, so, so very
    assert predicted == [4 * (1 + 3)]


def test_the_weights_are_arranged_once_and_at_the_first_use(model: FastZeroShotClassifier) -> None:
    model.llama.load_state_dict(random_llama(seed=9).state_dict())
    assert_same_scores(model, padded(ROWS))
    arranged = model.packed
    model(padded(ROWS))
    assert model.packed is arranged


def test_it_is_saved_and_loaded_as_the_simple_classifier(model: FastZeroShotClassifier) -> None:
    before = set(model.state_dict())
    model(padded(ROWS))
    assert set(model.state_dict()) == before == {f"llama.{name}" for name in model.llama.state_dict()}


def test_scoring_leaves_the_batch_as_it_was_and_asks_for_no_gradient(model: FastZeroShotClassifier) -> None:
    batch = padded(ROWS)
    scores = model(batch)
    assert torch.equal(batch, padded(ROWS))
    assert scores.shape == (4, 5)
    assert scores.dtype == torch.float32
    assert not scores.requires_grad


# -------------------------------------------------------------------------------------------------- the tree


@pytest.mark.parametrize(
    ("labels", "nodes"),
    [
        ([[20], [21]], []),
        ([[20, 21], [20, 22]], [(20,)]),
        ([[20, 21, 22], [20, 23], [24], [24, 20, 21]], [(20,), (20, 21), (24,), (24, 20)]),
        ([[20], [20, 20], [20, 20, 20]], [(20,), (20, 20)]),
    ],
)
def test_a_node_is_whatever_a_label_of_several_tokens_begins_with(
    labels: list[list[int]], nodes: list[tuple[int, ...]]
) -> None:
    assert label_nodes(labels) == nodes


def test_a_node_sees_its_prompt_and_the_nodes_on_its_way() -> None:
    mask = tree_mask(torch.tensor([[2], [0]]), 3, [(7,), (7, 8), (9,)])
    prompts = [[1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]]
    assert mask.shape == (2, 1, 6, 6)
    assert mask[0, 0].int().tolist() == [*prompts, [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 1]]
    assert mask[1, 0].int().tolist() == [*prompts, [1, 0, 0, 1, 0, 0], [1, 0, 0, 1, 1, 0], [1, 0, 0, 0, 0, 1]]


def test_without_nodes_the_mask_is_the_causal_one() -> None:
    assert torch.equal(tree_mask(torch.tensor([[1]]), 4, [])[0, 0], torch.ones(4, 4).tril().bool())


# -------------------------------------------------------------------------------------------------- errors


def test_a_model_that_is_not_causal_is_refused(model: FastZeroShotClassifier) -> None:
    model.llama.config.causal = False
    with pytest.raises(UsageError, match="this model has no causal mask"):
        model(padded(ROWS))


@pytest.mark.parametrize("kind", ["grouped", "alibi"])
def test_a_prompt_without_room_for_the_labels_is_refused_as_by_the_simple_classifier(
    models: dict[str, FastZeroShotClassifier], kind: str
) -> None:
    model = with_labels(models[kind], [[20, 21, 22], [23]])
    for forward in (model, lambda batch: LlamaZeroShotClassifier.forward(model, batch)):
        with pytest.raises(ValueError, match="25 tokens are more than the model's context of 24"):
            forward(random_tokens(1, 23))


def test_a_model_path_that_is_not_there_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        FastZeroShotClassifier(ClassifierConfig(5, str(tmp_path / "gone.pt")), WordTokenizer(), list(NAMES))

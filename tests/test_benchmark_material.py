"""What the benchmarks measure with: python -m pytest tests/test_benchmark_material.py"""

from functools import partial
from pathlib import Path

import pytest

from benchmarks import material
from checkpoint import tensor_shapes
from errors import UsageError
from llama import load_pretrained


@pytest.mark.parametrize(("size", "millions"), [("15m", 15.2), ("42m", 41.7), ("110m", 109.5)])
def test_sizes_are_what_their_names_say(size: str, millions: float) -> None:
    shapes = tensor_shapes(material.CONFIGS[size])
    shapes.pop("output.weight", None)  # the embedding again
    numbers = sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes.values())
    assert numbers / 1e6 == pytest.approx(millions, abs=0.05)


def test_the_toy_needs_no_download(tmp_path: Path) -> None:
    tokenizer = material.tokenizer_of("toy")
    assert tokenizer.n_words == material.CONFIGS["toy"].vocab_size
    assert load_pretrained(material.weights_of("toy", tmp_path)).config == material.CONFIGS["toy"]
    dev = material.sentences("toy", "dev", tokenizer, 256, "Is it?")
    assert material.label_names("toy") == ["bad", "good"] and set(dev.labels) == {0, 1}
    assert dev.sentences[0].endswith("Is it?") and max(dev.lengths) <= 256


def test_storybook_comes_with_its_weights(tmp_path: Path) -> None:
    assert material.weights_of("storybook", tmp_path) == material.STORYBOOK
    assert not list(tmp_path.iterdir())


def test_assets_lie_in_the_project_or_in_the_mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(material, "ROOT", tmp_path / "project")
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path / "mirror"))
    with pytest.raises(UsageError, match=r"data/sst-dev.txt is not here: run ./setup.sh .* or set MINLLAMA_ASSETS"):
        material.asset("data/sst-dev.txt")
    for folder in ("mirror", "project"):  # the project's own comes first
        file = tmp_path / folder / "data" / "sst-dev.txt"
        file.parent.mkdir(parents=True)
        file.touch()
        assert material.asset("data/sst-dev.txt") == file


def test_batches_hold_each_sentence_once_with_its_label() -> None:
    train = material.sentences("toy", "train", material.tokenizer_of("toy"), 256)
    batches = material.batches_of(train, 8, bucketed=True, shuffle_seed=0)
    pairs = [(row, label) for batch in batches for row, label in zip(batch.rows, batch.labels, strict=True)]
    assert sorted(pairs) == sorted(zip(train.ids, train.labels, strict=True))


def test_a_batch_costs_what_is_computed_padding_included() -> None:
    assert material.Batch([[1, 2], [1, 2, 3, 4], [1]], [0, 1, 0]).cost == 3 * 4


def test_a_spread_takes_one_of_each_part() -> None:
    items = list(range(10))
    assert material.spread(items, 5, 0.0) == [0, 2, 4, 6, 8]
    assert material.spread(items, 5, 0.5) == [1, 3, 5, 7, 9]
    assert material.spread(items, 3, 0.999) == [3, 6, 9]
    assert material.spread(items[:2], 4, 0.0) == [0, 0, 1, 1]


def test_samples_are_spread_by_cost_and_are_the_same_for_all() -> None:
    batches = [material.Batch([[0] * length], [0]) for length in (4, 8, 1, 3, 7, 2, 6, 5)]
    ours: list[int] = []
    theirs: list[int] = []
    for costs in (ours, theirs):
        sample = material.in_samples(batches, 2, partial(_note_cost, costs))
        for _ in range(8):
            sample()
    assert ours == theirs
    assert set(ours) == set(range(1, 9))
    pairs = zip(ours[::2], ours[1::2], strict=True)
    assert all(longer == shorter + 4 for shorter, longer in pairs)


def _note_cost(costs: list[int], batch: material.Batch) -> None:
    costs.append(batch.cost)

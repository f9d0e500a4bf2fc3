"""The notebook runs from top to bottom, and what it shows is right: run with `pytest tests/test_notebooks.py`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from alibi import alibi_bias
from errors import MissingDependency
from llama import Llama
from notebooks import playground
from notebooks.playground import (
    LONGEST,
    TRAINED_LENGTH,
    Characters,
    attention_maps,
    draw_heads,
    draw_lines,
    loss_of_last,
    next_loss,
    read_sentences,
    train_tiny,
)
from tests.tiny import layer_of, random_llama, random_tokens, save_llama

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "notebooks" / "playground.ipynb"
TIMEOUT = 300  # seconds a cell; on an idle machine the slowest takes two


# ---------------------------------------------------------------------------------------------------- the notebook


def test_the_notebook_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: Path) -> Any:
    """Return the notebook after a run with a random checkpoint, few steps, and the log of a made-up run."""
    nbformat = pytest.importorskip("nbformat", reason="skipped: needs nbformat")
    nbclient = pytest.importorskip("nbclient", reason="skipped: needs nbclient")
    for package in ("ipykernel", "matplotlib"):
        pytest.importorskip(package, reason=f"skipped: needs {package}")
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "tokenizer.model").write_bytes(tokenizer_model.read_bytes())
    checkpoint = save_llama(folder / "random.pt", random_llama(vocab_size=400))
    rows = [{"step": step, "loss": 5 - step / 10, "lr": 0.001} for step in range(1, 21)]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    settings = {"MINLLAMA_CHECKPOINT": str(checkpoint), "MINLLAMA_RUN": str(folder), "MINLLAMA_STEPS": "8"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))  # nobody's own settings, and none left behind
        client = nbclient.NotebookClient(
            notebook, timeout=TIMEOUT, startup_timeout=TIMEOUT, resources={"metadata": {"path": NOTEBOOK.parent}}
        )
        return client.execute()


def outputs(executed: Any, beginning: str) -> list[Any]:
    """Return the outputs of the cell that contains a text."""
    (cell,) = (cell for cell in executed.cells if cell.cell_type == "code" and beginning in cell.source)
    found: list[Any] = cell.outputs
    return found


def pictures(found: Sequence[Any]) -> list[str]:
    """Return the PNGs among a cell's outputs."""
    return [output["data"]["image/png"] for output in found if "image/png" in output.get("data", {})]


@pytest.mark.slow
def test_the_notebook_streams_a_story_from_the_checkpoint(executed: Any) -> None:
    text = "".join(output["text"] for output in outputs(executed, "in stream("))
    assert text.startswith("Once upon a time, there was a little dog named")
    assert len(text) > 60
    (line,) = outputs(executed, "load_pretrained(checkpoint)")
    assert line["text"].endswith("random.pt: 2 layers, 4 heads, positions: rotary\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("beginning", "count"),
    [
        ("maps = attention_maps", 1),
        ("alone = ", 1),
        ("sentence = ", 2),
        ("lengths = ", 1),
        ("smoothed = ", 1),
        ("draw_runs([RUN])", 1),
    ],
)
def test_every_picture_is_drawn(beginning: str, count: int, executed: Any) -> None:
    assert len(pictures(outputs(executed, beginning))) == count


@pytest.mark.slow
def test_nothing_is_written_to_standard_error(executed: Any) -> None:
    for cell in executed.cells:
        assert [output for output in cell.get("outputs", []) if output.get("name") == "stderr"] == []


# ---------------------------------------------------------------------------------------------------- attention maps


@pytest.mark.parametrize("kind", ["rotary", "alibi"])
def test_each_row_of_a_map_sums_to_one_and_looks_at_nothing_later(kind: str) -> None:
    model = random_llama(position_embedding_type=kind)
    maps = attention_maps(model, random_tokens(1, 9))
    assert maps.shape == (2, 4, 9, 9)
    torch.testing.assert_close(maps.sum(-1), torch.ones(2, 4, 9))
    assert (maps.triu(1) == 0).all()
    assert (maps >= 0).all()


@pytest.mark.parametrize("kind", ["rotary", "alibi"])
def test_the_maps_are_the_weights_that_the_layers_mix_the_values_with(kind: str) -> None:
    model, tokens = random_llama(position_embedding_type=kind), random_tokens(1, 9)
    maps = attention_maps(model, tokens)
    attention, states = layer_of(model, 0).attention, model.tok_embeddings(tokens)
    normed = layer_of(model, 0).attention_norm(states)
    value = attention.compute_value(normed).view(9, 2, 8).transpose(0, 1).repeat_interleave(2, dim=0)  # (4, 9, 8)
    mixed = (maps[0] @ value).transpose(0, 1).reshape(9, 32)
    torch.testing.assert_close(attention.compute_output(mixed), attention(normed)[0], atol=1e-5, rtol=1e-4)


def test_the_maps_of_an_alibi_model_are_softmaxes_with_its_penalties() -> None:
    model, tokens = random_llama(position_embedding_type="alibi", n_kv_heads=4), random_tokens(1, 9)
    attention = layer_of(model, 0).attention
    normed = layer_of(model, 0).attention_norm(model.tok_embeddings(tokens))
    query, key = (
        part(normed).view(9, 4, 8).transpose(0, 1) for part in (attention.compute_query, attention.compute_key)
    )
    scores = query @ key.transpose(1, 2) / 8**0.5 + alibi_bias(4, 9)
    scores = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), float("-inf"))
    torch.testing.assert_close(attention_maps(model, tokens)[0], F.softmax(scores, -1))


def test_the_model_is_left_as_it_was() -> None:
    model, tokens = random_llama(), random_tokens(1, 9)
    before = model(tokens)[0]
    attention_maps(model, tokens)
    assert torch.equal(model(tokens)[0], before)
    with pytest.raises(ValueError, match="more than the model's context"):
        attention_maps(model, random_tokens(1, 99))
    assert "compute_query_key_value_scores" not in vars(layer_of(model, 0).attention)


# ---------------------------------------------------------------------------------------------------- pictures


def test_each_head_has_a_panel_with_its_weights_and_labels() -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    maps = attention_maps(random_llama(), random_tokens(1, 3))[1].repeat(2, 1, 1)[:6]
    figure = draw_heads(maps, ["", "a", " "], "heads")
    used = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title() for panel in used] == [f"head {head}" for head in range(6)]
    assert used[5].images[0].get_array().tolist() == maps[5].tolist()
    assert used[5].images[0].get_clim() == (0, 1)  # the same colours in every panel
    assert [label.get_text() for label in used[0].get_xticklabels()] == ["·", "a", "␣"]
    assert len(figure.axes) == 8  # two rows of four, the last two empty


def test_lines_are_named() -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    (axes,) = draw_lines({"a": [1.0, 2.0], "b": [3.0, 4.0]}, [10, 20], xlabel="step").axes
    assert {line.get_label(): line.get_xydata().tolist() for line in axes.lines} == {
        "a": [[10, 1], [20, 2]],
        "b": [[10, 3], [20, 4]],
    }
    assert axes.get_xlabel() == "step"


def test_a_missing_matplotlib_is_named_with_its_install_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match="pip install matplotlib"):
        draw_lines({}, [])


# ---------------------------------------------------------------------------------------------------- tiny models


def test_characters_have_ids_and_unknown_ones_share_the_last() -> None:
    characters = Characters("abba ")
    assert characters.vocab_size == 4
    assert characters.encode("ab x").tolist() == [1, 2, 0, 3]


def test_sentences_are_read_without_their_labels(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("0 ||| Bad.\n1 ||| A ||| B\n", encoding="utf-8")
    assert read_sentences(tmp_path / "data.txt") == "Bad.\nA ||| B\n"


def test_the_tiny_models_differ_in_their_positions_alone() -> None:
    ids = random_tokens(1, 400)[0]
    models = {kind: train_tiny(kind, ids, 40, steps=0)[0] for kind in ("rotary", "alibi")}
    for (name, ours), theirs in zip(
        models["rotary"].state_dict().items(), models["alibi"].state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    assert [models[kind].config.position_embedding_type for kind in models] == list(models)
    assert not torch.equal(*(model(ids[None, :9])[0] for model in models.values()))


def test_a_tiny_model_learns_and_the_seed_repeats_it() -> None:
    characters = Characters("the cat sat. ")
    ids = characters.encode("the cat sat. " * 30)
    state = torch.random.get_rng_state()
    (first, losses), (second, again) = (train_tiny("alibi", ids, characters.vocab_size, steps=12) for _ in range(2))
    assert losses == again
    assert losses[-1] < losses[0] - 0.5
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert torch.equal(torch.random.get_rng_state(), state)


class Counter(Llama):
    """A model that remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(random_llama(max_seq_len=LONGEST).config)
        self.asked: list[torch.Tensor] = []

    def forward(self, tokens: torch.Tensor, targets: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        self.asked.append(tokens)
        return super().forward(tokens, targets)


def test_losses_at_all_lengths_are_of_the_same_characters() -> None:
    ids = random_tokens(1, LONGEST + 1 + 2 * TRAINED_LENGTH // 2)[0]
    model = Counter()
    for length in (32, LONGEST):
        loss_of_last(model, ids, length)
    short, long = model.asked
    assert (len(short), short.shape[1]) == (3, 32)
    assert (len(long), long.shape[1]) == (3, LONGEST)
    assert torch.equal(short, long[:, -32:])


def test_the_loss_of_the_last_is_the_loss_of_all_when_all_are_the_last() -> None:
    ids, model = random_tokens(1, LONGEST + 1)[0], random_llama(max_seq_len=LONGEST)
    assert loss_of_last(model, ids, 32, last=32) == pytest.approx(next_loss(model, ids[None, -33:]).item(), rel=1e-5)
    assert playground.TRAINED_LENGTH // 2 == 32

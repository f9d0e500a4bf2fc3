"""The commands of advanced/: run with `pytest tests/test_advanced_main.py`."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from advanced import __main__ as commands
from advanced import verbs
from advanced.catalogue import METHODS
from advanced.rows import read_rows
from advanced.saving import load_small
from advanced.task import load_task
from advanced.training import Recipe
from tests.tiny_advanced import tiny_checkpoint, tiny_training

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("checkpoint"))


def run(checkpoint: Path, out: Path, *more: str) -> int:
    fixed = ["run", "--task", "demo", "--checkpoint", str(checkpoint), "--out", str(out)]
    return commands.main([*fixed, "--epochs", "1", *more])


def test_help_is_instant_and_names_every_method_and_option() -> None:
    code = "import sys; from advanced.__main__ import build_parser; build_parser(); print('torch' in sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "False"
    text = subprocess.run(
        [sys.executable, "-m", "advanced", "run", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name, entry in METHODS.items():
        assert name in text
        assert all(f"--{name}-{option.replace('_', '-')}" in text for option in entry.options)


def test_each_seed_has_a_row_and_the_best_one_s_predictions_are_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path, "--method", "lora", "cosine", "--lora-rank", "2", "--seeds", "1", "2") == 0
    rows = read_rows(tmp_path / "advanced-results.jsonl")
    assert [row["seed"] for row in rows] == [1, 2]
    assert all(row["options"] == {"lora": {"rank": 2}} and row["limit"] is None for row in rows)
    assert all(row["recipe"]["lr"] == METHODS["lora"].lr for row in rows)  # none was named
    predicted = (tmp_path / "demo-dev-advanced-output.txt").read_text(encoding="utf-8").splitlines()
    labels = load_task("demo").labels("dev")
    right = sum(int(line.partition(" ||| ")[0]) == label for line, label in zip(predicted, labels, strict=True))
    best = max(rows, key=lambda row: row["accuracy"]["selection"])
    assert right / len(labels) == best["accuracy"]["dev"]
    assert "parameters trained" in capsys.readouterr().out


def test_with_a_limit_no_predictions_are_written_over_those_of_all_sentences(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(checkpoint, tmp_path, "--limit", "12") == 0
    (row,) = read_rows(tmp_path / "advanced-results.jsonl")
    assert row["limit"] == 12
    assert not list(tmp_path.glob("*output.txt"))
    assert "No predictions are written" in capsys.readouterr().out


def test_with_only_selection_dev_is_not_looked_at(checkpoint: Path, tmp_path: Path) -> None:
    assert run(checkpoint, tmp_path, "--limit", "12", "--only-selection", "--rows", str(tmp_path / "tuning.jsonl")) == 0
    (row,) = read_rows(tmp_path / "tuning.jsonl")
    assert set(row["accuracy"]) == {"selection"}
    assert not list(tmp_path.glob("*output.txt"))


def test_what_was_trained_is_saved_and_fits_the_same_methods(checkpoint: Path, tmp_path: Path) -> None:
    assert run(checkpoint, tmp_path, "--limit", "12", "--method", "ia3", "--save", str(tmp_path), "--seeds", "3") == 0
    (saved,) = tmp_path.glob("*.safetensors")
    assert saved.name == "demo-ia3-seed3.safetensors"
    from advanced.lora import Ia3

    (tmp_path / "other").mkdir()
    training = tiny_training(tmp_path / "other", Ia3(), sizes={"max_seq_len": 128})
    load_small(training.classifier, saved)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "plain", "--lora-rank", "2"], "--lora-rank is for lora: add it to --method"),
        (["--method", "plain", "pmi"], "cannot be combined"),
        (["--method", "hybrid"], "this comes after another method"),
        (["--method", "tfidf-svm", "tfidf-logreg"], "a baseline stands alone"),
        (["--method", "lora", "--lora-rank", "0"], "rank must be at least 1"),
        (["--method", "plain", "hybrid", "--hybrid-steps", "0"], "steps must be at least 1"),
        (["--method", "lora", "ia3"], "lora and ia3 contradict each other"),
        (["--method", "pmi", "--save", "somewhere"], "--save: pmi trains no weights"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    assert run(checkpoint, tmp_path, *options) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_be_written_is_an_error_with_a_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(checkpoint, tmp_path / "file" / "out", "--method", "tfidf-svm") == 2
    assert "check the path" in capsys.readouterr().err


def test_ctrl_c_ends_with_the_shell_s_status(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verbs, "run", interrupt)
    assert run(checkpoint, tmp_path) == 130
    assert "finished have their rows" in capsys.readouterr().err


def test_a_matrix_lists_and_does_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, rows = tmp_path / "plan.toml", tmp_path / "rows.jsonl"
    plan.write_text(
        '[[block]]\ntask = "demo"\nseeds = [1, 2]\n'
        'runs = [{ methods = ["tfidf-svm"] }, { methods = ["tfidf-logreg"] }]\n',
        encoding="utf-8",
    )
    options = ["matrix", "--plan", str(plan), "--rows", str(rows)]
    assert commands.main([*options, "--dry-run", "--only", "svm"]) == 0
    assert "2 runs are planned, 2 of them" in capsys.readouterr().out
    assert not rows.exists()
    done: list[Any] = []

    def note(runs: list[Any], *_: Any) -> list[Any]:
        done.extend(runs)
        return []

    monkeypatch.setattr(verbs, "run_all", note)
    assert commands.main([*options, "--seeds", "5"]) == 0
    assert [run.recipe.seed for run in done] == [5, 5]


def test_what_is_scored_on_the_selection_part_alone_has_rows_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text('[[block]]\ntask = "demo"\nseeds = [1]\nruns = [{ methods = ["tfidf-svm"] }]\n', encoding="utf-8")
    used: list[Any] = []

    def note(_runs: list[Any], rows: Path, _jobs: int, parts: tuple[str, ...]) -> list[Any]:
        used.append((rows.name, parts))
        return []

    monkeypatch.setattr(verbs, "run_all", note)
    assert commands.main(["matrix", "--plan", str(plan), "--only-selection"]) == 0
    assert commands.main(["matrix", "--plan", str(plan)]) == 0
    assert used == [("tuning.jsonl", ("selection",)), ("results.jsonl", ("selection", "dev", "test"))]


def test_a_failed_run_of_a_matrix_shows_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from advanced.matrix import Failure
    from advanced.runner import Run
    from errors import TrainingError

    plan = tmp_path / "plan.toml"
    plan.write_text('[[block]]\ntask = "demo"\nseeds = [1]\nruns = [{ methods = ["tfidf-svm"] }]\n', encoding="utf-8")
    failure = Failure(Run("demo", None, ("tfidf-svm",), {}, Recipe()), TrainingError("the loss is nan"))
    monkeypatch.setattr(verbs, "run_all", lambda *_: [failure])
    assert commands.main(["matrix", "--plan", str(plan), "--rows", str(tmp_path / "rows.jsonl")]) == 2
    assert "the loss is nan" in capsys.readouterr().err

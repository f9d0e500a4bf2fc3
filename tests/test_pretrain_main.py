"""The verbs from the command line: python -m pytest tests/test_pretrain_main.py"""

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain import export, vocabulary
from pretrain.__main__ import FORMATS, IDS, TYPES, main
from tests.assets_dir import ROOT
from tests.tiny import random_llama, save_llama
from tests.tiny_pretrain import make_data, stories

VERBS = (
    *("train-tokenizer", "prepare", "train", "plot", "sample", "evaluate", "export"),
    *("make-addition", "check-addition"),
)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "stories.txt"
    path.write_text(stories(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def checkpoint(data: Path) -> Path:
    """Return a model that has learnt nothing, beside the tokenizer of the data."""
    return save_llama(data / "model.pt", random_llama(vocab_size=320, max_seq_len=16))


# ------------------------------------------------------------------------------------------------------------ the help


def test_every_verbs_help_has_an_example_and_does_not_wait_for_torch() -> None:
    code = f"""
import sys
from pretrain.__main__ import main
for verb in {VERBS}:
    try:
        main([verb, "--help"])
    except SystemExit as end:
        assert end.code == 0
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    for verb in VERBS:
        assert f"example: python -m pretrain {verb} " in result.stdout


def test_the_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines() if line.startswith("    ") and line[4] != " "] == [*VERBS]


def test_what_can_be_chosen_is_what_there_is() -> None:
    assert (vocabulary.KINDS, tuple(vocabulary.IDS), tuple(export.WRITERS)) == (TYPES, IDS, FORMATS)


# ---------------------------------------------------------------------------------------------------------- the verbs


@pytest.mark.parametrize("option", ["-o", "--out"])
def test_a_text_becomes_a_tokenizer_and_shards(
    text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    tokenizer, out = tmp_path / "tokenizer", tmp_path / "data"
    assert main(["train-tokenizer", str(text), "--vocab-size", "320", option, str(tokenizer)]) == 0
    assert capsys.readouterr().out == f"wrote {tokenizer / 'tokenizer.model'}: 320 pieces (bpe)\n"
    options = ["--tokenizer", str(tokenizer), "--validation", "0.1", "--jobs", "1", option, str(out)]
    assert main(["prepare", str(text), *options]) == 0
    train, validation, wrote = capsys.readouterr().out.splitlines()
    assert train.startswith("train: ")
    assert validation.startswith("validation: ")
    assert wrote == f"wrote {out}"
    assert sum(int(line.split()[1]) for line in (train, validation)) == 120


@pytest.mark.parametrize(("size", "lines"), [("7", 2), ("9", 1)])
def test_characters_without_a_piece_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], size: str, lines: int
) -> None:
    (tmp_path / "text.txt").write_text("aa aa aa aa bbb bb cde")
    options = ["--type", "char", "--vocab-size", size, "--out", str(tmp_path)]
    assert main(["train-tokenizer", str(tmp_path / "text.txt"), *options]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert len(shown) == lines
    if lines > 1:
        assert (
            shown[1] == "2 different characters of the text have no piece and are lost: a larger --vocab-size has more"
        )


def test_a_checkpoint_is_scored_beside_counts_and_its_samples_are_looked_up(
    checkpoint: Path, data: Path, text: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = tmp_path / "samples.txt"
    samples.write_text("Once upon a time, Lily met a cat in the park.\n")
    options = ["--data", str(data), "--context", "8", "16", "--baselines", "--plot", str(tmp_path / "curve.png")]
    copied = ["--samples", str(samples), "--corpus", str(text)]
    assert main(["evaluate", str(checkpoint), *options, *copied]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[-3] for line in shown[1:5]] == ["8", "16", "0", "1"]
    assert shown[5] == f"wrote {tmp_path / 'curve.png'}"
    assert shown[6].startswith("100.0% of the words")
    assert shown[6].endswith("the longest such run has 11 words")


# ------------------------------------------------------------------------------------------------- what cannot be done


def test_samples_need_a_corpus(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "model.pt", "--data", "data", "--samples", "samples.txt"]) == 2
    assert capsys.readouterr().err.startswith("error: --samples and --corpus belong together")


def test_a_picture_that_is_no_png_is_refused_before_anything_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "missing.pt", "--data", "missing", "--plot", "curve.pdf"]) == 2
    assert capsys.readouterr().err.startswith("error: curve.pdf: the picture is a PNG")


@pytest.mark.parametrize(
    "arguments",
    [
        ["evaluate", "model.pt", "--data", "data", "--context", "0"],
        ["prepare", "story.txt", "--tokenizer", "tokenizer", "-o", "data", "--jobs", "0"],
        ["train-tokenizer", "story.txt", "-o", "tokenizer", "--vocab-size", "0"],
        ["sample", "model.pt", "--context", "0"],
    ],
)
def test_a_number_that_must_be_at_least_one(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert "must be at least 1, got 0" in capsys.readouterr().err


def test_an_error_of_the_system_is_one_line(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", "somewhere")

    monkeypatch.setattr(vocabulary, "train", fail)
    assert main(["train-tokenizer", str(text), "--vocab-size", "320", "-o", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: [Errno 13] Permission denied: 'somewhere': check the path")


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(vocabulary, "train", interrupt)
    assert main(["train-tokenizer", "story.txt", "--vocab-size", "320", "-o", "tokenizer"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.parametrize("options", [["--stream"], []])
def test_a_reader_that_has_seen_enough_is_no_error(checkpoint: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "pretrain", "sample", str(checkpoint), "--max-new-tokens", "200", *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        shown = process.stderr.read().decode()
    assert process.returncode == 141
    assert "Error" not in shown

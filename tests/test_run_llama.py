"""The command line, end to end on a tiny random model: pytest tests/test_run_llama.py"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch

import finetune
import llama
import run_llama
import tasks
from checkpoint import write_directory
from classifier import label_ids_after
from errors import UsageError
from llama import load_pretrained
from tests.tiny import random_llama, save_llama
from tests.tiny_run import WEIGHTS, finetuning, prompting
from tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent
SUFFIX = "Is this movie bad or good? This movie is"
EPOCH_LINE = r"epoch (\d+): train loss :: \d+\.\d{3}, train acc :: \d\.\d{3}, dev acc :: \d\.\d{3}"


# ------------------------------------------------------------------------------------------------ options


def test_names_and_defaults_are_those_of_the_assignment() -> None:
    expected = {
        "option": "generate",
        "train": "data/cfimdb-train.txt",
        "dev": "data/cfimdb-dev.txt",
        "test": "data/cfimdb-test.txt",
        "label_names": "data/cfimdb-label-mapping.json",
        "max_sentence_len": None,
        "seed": 1337,
        "epochs": 5,
        "use_gpu": False,
        "generated_sentence_low_temp_out": "generated-sentence-temp-0.txt",
        "generated_sentence_high_temp_out": "generated-sentence-temp-1.txt",
        "dev_out": "cfimdb-dev-prompting-output.txt",
        "test_out": "cfimdb-test-prompting-output.txt",
        "batch_size": 8,
        "hidden_dropout_prob": 0.3,
        "lr": 2e-5,
        "max_new_tokens": 75,
        "prompt": "I have wanted to see this thriller for a while, and it didn't disappoint. "
        "Keanu Reeves, playing the hero John Wick, is",
    }
    args = vars(run_llama.build_parser().parse_args([]))
    assert {name: args[name] for name in expected} == expected
    assert run_llama.DEFAULT_WEIGHTS == "stories42M.pt"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--use_gpu", "--device", "cpu"], "leave one of them out"),
        (["--resume"], "--option is generate"),
        (["--plots", "pictures"], "generating text has none"),
        (
            ["--option", "finetune"],
            "--dev_out cfimdb-dev-finetuning-output.txt --test_out cfimdb-test-finetuning-output",
        ),
        (["--option", "prompt", "--dev_out", "x.txt"], "Add: --dev_out cfimdb-dev-prompting-output.txt"),
        (
            ["--option", "finetune", "--train", "data/sst-train.txt", "--dev_out", "sst-dev-finetuning-output.txt"],
            "--test_out sst-test-finetuning-output.txt",
        ),
    ],
)
def test_contradicting_options_are_refused_with_what_to_type(argv: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        run_llama.check_options(run_llama.build_parser().parse_args(argv))


@pytest.mark.parametrize(
    "argv",
    [
        ["--batch_size=0"],
        ["--epochs=-1"],
        ["--lr=0"],
        ["--lr=nan"],
        ["--hidden_dropout_prob=1"],
        ["--max_new_tokens=0"],
    ],
)
def test_numbers_out_of_range_are_refused(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        run_llama.main(argv)
    assert "must be" in capsys.readouterr().err


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, run_llama; run_llama.build_parser().format_help(); print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


# ------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--generated_sentence_low_temp_out=data", "the output 'data' is no regular file"),
        ("--generated_sentence_high_temp_out=/dev/null", "'/dev/null' is no regular file"),
        ("--generated_sentence_low_temp_out=model/tiny.pt/text.txt", "the folder model/tiny.pt cannot be made"),
    ],
)
def test_outputs_that_cannot_be_written_are_refused_before_the_work(
    workplace: Path, option: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "run_task", lambda args: pytest.fail("the work has begun"))
    assert run_llama.main([*WEIGHTS, option]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_permission_is_refused_before_the_work(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "access", lambda folder, mode: Path(folder).name != "pictures")
    assert run_llama.main(finetuning("--plots=pictures")) == 2
    assert "pictures cannot be written to" in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(tasks, "write_text", full)
    assert run_llama.main(WEIGHTS) == 2
    assert "No space left on device: 'somewhere': check the path" in capsys.readouterr().err


def test_a_part_that_is_not_written_yet_is_one_line(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def _norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    monkeypatch.setattr(llama.RMSNorm, "_norm", _norm)
    assert run_llama.main(WEIGHTS) == 2
    assert re.search(r"not implemented yet: .*\.py, _norm\. See `python sanity_check\.py`", capsys.readouterr().err)


def test_a_terminal_that_knows_ascii_alone_still_gets_the_text(workplace: Path) -> None:
    command = [sys.executable, str(ROOT / "run_llama.py"), *WEIGHTS, "--prompt", "Café", "--max_new_tokens=2"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    subprocess.run(command, cwd=workplace, env=environment, capture_output=True, check=True)
    assert Path("generated-sentence-temp-0.txt").read_text(encoding="utf-8").startswith("Café")


# ------------------------------------------------------------------------------------------------ weights


def test_without_weights_one_line_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_llama.main([]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no weights are here")
    assert "./setup.sh" in error
    assert error.count("\n") == 1


def test_absent_default_gives_way_to_the_next_best_with_one_line(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = workplace / Path(run_llama.FALLBACK_WEIGHTS[-1]).parent
    folder.mkdir(parents=True)
    save_llama(folder / "stories260K.bin", load_pretrained("model/tiny.pt"))
    shutil.copy("model/tokenizer.model", folder)
    assert run_llama.main(["--max_new_tokens", "2"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "Weights: weights/stories260K/stories260K.bin (stories42M.pt is not there: ./setup.sh fetches it)"


def test_default_weights_come_first(workplace: Path) -> None:
    for name in ("stories42M.pt", "checkpoints/storybook/model.safetensors", run_llama.FALLBACK_WEIGHTS[-1]):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert run_llama.choose_weights(None) == Path("stories42M.pt")
    Path("stories42M.pt").unlink()
    assert run_llama.choose_weights(None) == Path("checkpoints/storybook")
    Path("checkpoints/storybook/model.safetensors").unlink()
    assert run_llama.choose_weights(None) == Path(run_llama.FALLBACK_WEIGHTS[-1])


@pytest.mark.parametrize("option", ["generate", "prompt", "finetune"])
def test_a_checkpoint_directory_serves_every_task_as_its_file_does(
    workplace: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_pretrained("model/tiny.pt")
    write_directory("folder/mine", model.config, model.state_dict(), "model/tokenizer.model")
    argv = {"generate": WEIGHTS, "prompt": prompting(), "finetune": finetuning("--epochs=1")}[option]
    printed = []
    for weights in ("model/tiny.pt", "folder/mine"):
        named = [weights if part == "model/tiny.pt" else part for part in argv]
        assert run_llama.main(named) == 0
        printed.append(re.sub(r"\S*(tiny|mine)\S*|\d+(\.\d+)? ?(s|it/s)\b", "", capsys.readouterr().out))
    assert printed[0] == printed[1]
    run = next(iter(json.loads(Path("run-info.json").read_text(encoding="utf-8"))["runs"].values()))
    weights_hash = hashlib.sha256(Path("folder/mine/model.safetensors").read_bytes()).hexdigest()
    assert run["checkpoint"] == {"name": "mine", "sha256": weights_hash}


def test_named_weights_that_are_absent_are_an_error(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_llama.main(["--pretrained-model-path", "stories42M.pt"]) == 2
    assert "./setup.sh --only stories42M" in capsys.readouterr().err


def test_a_named_tokenizer_must_fit_the_weights(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_llama(Path("model/other.pt"), random_llama(vocab_size=100))
    argv = ["--pretrained-model-path", "model/other.pt", "--tokenizer", "model/tokenizer.model"]
    assert run_llama.main(argv) == 2
    assert "pieces, but model/other.pt was trained with 100" in capsys.readouterr().err


def test_a_named_tokenizer_is_used(workplace: Path) -> None:
    shutil.move("model/tokenizer.model", "elsewhere.model")
    assert run_llama.main([*WEIGHTS, "--max_new_tokens=2"]) == 2
    assert run_llama.main([*WEIGHTS, "--max_new_tokens=2", "--tokenizer", "elsewhere.model"]) == 0


# ------------------------------------------------------------------------------------------------ generate


def test_generate_writes_what_the_students_generate_returns(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_llama.main(WEIGHTS) == 0
    tokenizer = Tokenizer(tokenizer_model="model/tokenizer.model")
    model = load_pretrained("model/tiny.pt")
    prompt = torch.tensor([tokenizer.encode(run_llama.PROMPT, bos=True, eos=False)])
    greedy = tokenizer.decode(model.generate(prompt, 75, temperature=0.0)[0].tolist())
    assert Path("generated-sentence-temp-0.txt").read_text(encoding="utf-8") == greedy + "\n"
    assert Path("generated-sentence-temp-1.txt").read_text(encoding="utf-8").startswith(run_llama.PROMPT)
    printed = capsys.readouterr().out
    assert "Temperature is 0.0" in printed
    assert "Temperature is 1.0" in printed
    assert greedy in printed


def test_the_seed_decides_the_sampled_text(workplace: Path) -> None:
    texts = []
    for seed in ("1", "1", "2"):
        run_llama.main([*WEIGHTS, "--seed", seed, "--prompt", "One day", "--max_new_tokens", "20"])
        texts.append(Path("generated-sentence-temp-1.txt").read_text(encoding="utf-8"))
    assert texts[0] == texts[1] != texts[2]


def test_run_info_names_weights_options_and_versions(workplace: Path) -> None:
    run_llama.main([*WEIGHTS, "--max_new_tokens=2"])
    run_llama.main(prompting())
    runs = json.loads(Path("run-info.json").read_text(encoding="utf-8"))["runs"]
    assert set(runs) == {"generate", "prompt demo"}  # a run adds itself to those before
    info = runs["prompt demo"]
    assert info["checkpoint"]["name"] == "tiny.pt"
    assert info["checkpoint"]["sha256"] == hashlib.sha256(Path("model/tiny.pt").read_bytes()).hexdigest()
    assert info["seed"] == info["options"]["seed"] == 1337
    assert info["versions"]["torch"] == version("torch")
    assert info["outputs"] == ["demo-dev-prompting-output.txt", "demo-test-prompting-output.txt"]


def test_run_info_does_not_tell_whose_machine_it_was(workplace: Path) -> None:
    path = str(workplace / "model" / "tiny.pt")
    out = str(workplace / "text.txt")
    run_llama.main(["--pretrained-model-path", path, "--max_new_tokens=2", "--generated_sentence_low_temp_out", out])
    info = Path("run-info.json").read_text(encoding="utf-8")
    assert str(workplace) not in info
    assert json.loads(info)["runs"]["generate"]["outputs"] == ["text.txt", "generated-sentence-temp-1.txt"]


@pytest.mark.parametrize("content", ["", "no JSON", "[1]", '{"runs": 3}'])
def test_a_damaged_run_info_is_replaced(workplace: Path, content: str) -> None:
    Path("run-info.json").write_text(content, encoding="utf-8")
    assert run_llama.main([*WEIGHTS, "--max_new_tokens=2"]) == 0
    assert set(json.loads(Path("run-info.json").read_text(encoding="utf-8"))["runs"]) == {"generate"}


# ------------------------------------------------------------------------------------------------ prompt


def test_prompt_writes_rows_in_the_order_of_the_file(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_llama.main(prompting("--batch_size=3")) == 0
    for split in ("dev", "test"):
        rows = Path(f"demo-{split}-prompting-output.txt").read_text(encoding="utf-8").splitlines()
        given = Path(f"data/demo-{split}.txt").read_text(encoding="utf-8").splitlines()
        for row, line in zip(rows, given, strict=True):
            sentence = line.split(" ||| ")[1]
            assert re.fullmatch(r"[01] \|\|\| .*", row)
            assert row.split(" ||| ")[1] == f"{sentence} {SUFFIX}"
    printed = capsys.readouterr().out
    assert re.search(r"^dev acc :: \d\.\d{3}$", printed, re.MULTILINE)
    assert re.search(r"^test acc :: \d\.\d{3}$", printed, re.MULTILINE)


def test_zero_shot_predictions_do_not_depend_on_the_batches(workplace: Path) -> None:
    rows = []
    for batch_size in ("1", "4", "10"):
        run_llama.main(prompting("--batch_size", batch_size))
        rows.append(Path("demo-dev-prompting-output.txt").read_text(encoding="utf-8"))
    assert rows[0] == rows[1] == rows[2]


def test_the_question_survives_the_cut_and_one_line_counts_it(
    workplace: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []

    def spy(classifier: Any, rows: list[list[int]], *rest: Any, **options: Any) -> list[int]:
        seen.extend(rows)
        return [0] * len(rows)

    monkeypatch.setattr(tasks, "predict", spy)
    with Path("data/demo-dev.txt").open("a", encoding="utf-8") as file:
        file.write("1 ||| " + "very " * 300 + "good\n")
    run_llama.main(prompting())
    tokenizer = Tokenizer(tokenizer_model="model/tokenizer.model")
    suffix = tokenizer.encode(SUFFIX, bos=False, eos=False)
    label_ids = [label_ids_after(SUFFIX, name, tokenizer) for name in ("bad", "good")]
    assert max(len(row) + len(label) - 1 for row in seen for label in label_ids) == 128  # full, and no fuller
    assert all(row[0] == tokenizer.bos_id and row[-len(suffix) :] == suffix for row in seen)
    warnings = [line for line in capsys.readouterr().out.splitlines() if "were cut" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("data/demo-dev.txt: 1 of 11 sentences have more than the ")


def test_a_placeholder_file_gets_predictions_and_no_accuracy(
    workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test_file = Path("data/demo-test.txt")
    test_file.write_text(re.sub(r"(?m)^1 ", "0 ", test_file.read_text(encoding="utf-8")), encoding="utf-8")
    assert run_llama.main(prompting()) == 0
    printed = capsys.readouterr().out
    assert "test acc :: none: all labels of the file are 0, so it would mean nothing" in printed
    assert len(Path("demo-test-prompting-output.txt").read_text(encoding="utf-8").splitlines()) == 7
    assert "test_acc" not in json.loads(Path("run-info.json").read_text(encoding="utf-8"))["runs"]["prompt demo"]


def test_bad_data_is_one_line_with_file_and_number(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Path("data/demo-dev.txt").open("a", encoding="utf-8") as file:
        file.write("a line without a label\n")
    assert run_llama.main(prompting()) == 2
    assert capsys.readouterr().err.startswith("error: data/demo-dev.txt:11: ")


# ------------------------------------------------------------------------------------------------ finetune


def test_finetune_prints_epochs_and_evaluates_the_best(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_llama.main(finetuning()) == 0
    printed = capsys.readouterr().out
    epochs = re.findall(f"^{EPOCH_LINE}$", printed, re.MULTILINE)
    assert epochs == ["0", "1", "2"]
    info = json.loads(Path("run-info.json").read_text(encoding="utf-8"))["runs"]["finetune demo"]
    assert info["dev_acc"] == max(epoch["dev_acc"] for epoch in info["epochs"])
    rows = Path("demo-dev-finetuning-output.txt").read_text(encoding="utf-8").splitlines()
    given = Path("data/demo-dev.txt").read_text(encoding="utf-8").splitlines()
    assert [row.split(" ||| ")[1] for row in rows] == [line.split(" ||| ")[1] for line in given]
    right = sum(row[0] == line[0] for row, line in zip(rows, given, strict=True))
    assert right / len(given) == info["dev_acc"]


def best_paths(monkeypatch: pytest.MonkeyPatch, *runs: list[str]) -> list[Path]:
    """Return where each run would save its best epoch, without training."""
    paths: list[Path] = []

    def spy(classifier: Any, best_path: Path, **options: Any) -> None:
        paths.append(best_path)
        raise UsageError("seen enough")

    monkeypatch.setattr(tasks, "Finetuner", spy)
    for more in runs:
        assert run_llama.main(finetuning(*more)) == 2
    return paths


def test_saved_models_of_different_runs_have_different_names(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy("data/demo-train.txt", "data/other-train.txt")
    shutil.copy("model/tiny.pt", "model/other.pt")
    with Path("model/other.pt").open("ab") as file:
        file.write(b"\0")  # other weights, for all that their checksum tells
    runs: list[list[str]] = [
        [],
        ["--train=data/other-train.txt"],
        ["--seed=1"],
        ["--lr=1e-4"],
        ["--epochs=2"],
        ["--batch_size=2"],
        ["--hidden_dropout_prob=0.1"],
        ["--max_sentence_len=20"],
        ["--reproduce_2024"],
        ["--pretrained-model-path=model/other.pt"],
    ]
    paths = best_paths(monkeypatch, *runs, [])
    assert re.fullmatch(r"finetune-demo-tiny-3-0\.001-seed1337-[0-9a-f]{6}\.pt", paths[0].name)
    assert len(set(paths)) == len(runs)
    assert paths[0] == paths[-1]


@pytest.mark.parametrize("changed", ["data/demo-train.txt", "data/demo-dev.txt", "model/tiny.pt"])
def test_a_run_on_changed_files_is_another_run(workplace: Path, monkeypatch: pytest.MonkeyPatch, changed: str) -> None:
    paths = best_paths(monkeypatch, [])
    if changed.endswith(".pt"):
        save_llama(Path(changed), random_llama(seed=1, vocab_size=load_pretrained(changed).vocab_size))
    else:
        Path(changed).write_text(Path(changed).read_text(encoding="utf-8").replace("a", "e", 1), encoding="utf-8")
    assert best_paths(monkeypatch, []) != paths


def test_every_option_reaches_the_training(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def spy(classifier: Any, best_path: Path, **options: Any) -> None:
        seen.update(options, dropout=classifier.dropout.p, model_pad_id=classifier.llama.config.pad_id)
        raise UsageError("seen enough")

    monkeypatch.setattr(tasks, "Finetuner", spy)
    options = ["--batch_size=5", "--seed=7", "--lr=0.25", "--hidden_dropout_prob=0.125"]
    run_llama.main(finetuning(*options))
    given = {"batch_size": 5, "seed": 7, "lr": 0.25, "dropout": 0.125, "bucketed": True, "pad_id": 3, "model_pad_id": 3}
    assert {name: seen[name] for name in given} == given
    run_llama.main(finetuning("--reproduce_2024", *options))
    assert {name: seen[name] for name in given} == given | {"bucketed": False, "model_pad_id": -1}


def test_the_model_is_told_the_tokenizers_padding(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []

    def spy(classifier: Any, rows: list[list[int]], batch_size: int, pad_id: int, *, bucketed: bool) -> list[int]:
        seen.append((pad_id, classifier.llama.config.pad_id))
        return [0] * len(rows)

    monkeypatch.setattr(tasks, "predict", spy)
    monkeypatch.setattr(Tokenizer, "_find_pad_id", lambda self: 17)
    run_llama.main(prompting())
    assert seen == [(17, 17)] * 2


@pytest.mark.parametrize("split", ["train", "dev"])
def test_finetune_refuses_files_without_labels(workplace: Path, split: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(f"data/demo-{split}.txt")
    file.write_text(re.sub(r"(?m)^\d", "-1", file.read_text(encoding="utf-8")), encoding="utf-8")
    assert run_llama.main(finetuning()) == 2
    assert f"data/demo-{split}.txt: all labels are -1" in capsys.readouterr().err


def test_plots_are_drawn(workplace: Path) -> None:
    pytest.importorskip("matplotlib", reason="skipped: needs matplotlib")
    assert run_llama.main(finetuning("--plots=pictures")) == 0
    pictures = sorted(path.name for path in Path("pictures").iterdir())
    (curves,) = [name for name in pictures if name.endswith("-curves.png")]
    assert curves.startswith("finetune-demo-tiny-3-0.001-seed1337-")
    assert pictures == [
        "demo-dev-finetuning-confusion.png",
        "demo-test-finetuning-confusion.png",
        curves,
    ]
    assert all(Path("pictures", name).read_bytes().startswith(b"\x89PNG") for name in pictures)


def test_plots_without_matplotlib_are_refused_before_the_work(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert run_llama.main(finetuning("--plots=pictures")) == 2
    assert "pip install matplotlib scikit-learn" in capsys.readouterr().err
    assert not list(Path().glob("*.pt"))


def test_a_killed_run_resumes_to_the_same_result(
    workplace: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken = tmp_path_factory.mktemp("unbroken")
    shutil.copytree(workplace, unbroken, dirs_exist_ok=True)
    command = [sys.executable, "-u", str(ROOT / "run_llama.py"), *finetuning()]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}  # as here, where the run is ended
    with subprocess.Popen(command, cwd=workplace, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any(line.startswith("epoch 0") for line in process.stdout)
        process.kill()
    assert process.returncode == -signal.SIGKILL

    assert run_llama.main(finetuning("--resume")) == 0
    resumed = capsys.readouterr()
    assert "Resumed " in resumed.out
    assert not list(workplace.glob("*.resume.pt"))  # finished: nothing is left to resume
    with contextlib.chdir(unbroken):
        assert run_llama.main(finetuning()) == 0
    whole = capsys.readouterr()
    assert whole.err == resumed.err == ""  # no progress bars where nobody watches
    assert re.findall(r"epoch .*", resumed.out) == re.findall(r"epoch .*", whole.out)
    outputs = ["demo-dev-finetuning-output.txt", "demo-test-finetuning-output.txt"]
    assert all((unbroken / name).read_bytes() == (workplace / name).read_bytes() for name in outputs)


def test_a_run_with_other_options_is_not_resumed(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(result: finetune.EpochResult) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "print", stop, raising=False)
        patch.setattr(tasks, "_start_or_resume", lambda *args: None)
        assert run_llama.main(finetuning()) == run_llama.INTERRUPTED
    assert "with --resume, the same command goes on" in capsys.readouterr().err
    assert run_llama.main(finetuning("--resume", "--hidden_dropout_prob=0.1")) == 2
    assert "another hidden_dropout_prob" in capsys.readouterr().err
    run_llama.main(finetuning())
    assert "--resume would go on with it" in capsys.readouterr().out


def test_resume_without_a_stopped_run_starts_one(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_llama.main(finetuning("--resume")) == 0
    assert "Nothing to resume" in capsys.readouterr().out


def test_diverging_training_stops_with_advice(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_llama.main(finetuning("--lr=1e30")) == 2
    assert re.search(r"the loss is (nan|inf) in epoch 0, batch \d: try a lower --lr", capsys.readouterr().err)


# ------------------------------------------------------------------------------------------------ 2024


def test_2024_prompts_end_in_a_space_and_attend_to_everything(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def spy(classifier: Any, rows: list[list[int]], batch_size: int, pad_id: int, *, bucketed: bool) -> list[int]:
        seen.append((classifier.llama, pad_id, bucketed))
        return [0] * len(rows)

    monkeypatch.setattr(tasks, "predict", spy)
    run_llama.main(prompting("--reproduce_2024"))
    model, pad_id, bucketed = seen[0]
    assert not model.config.causal
    assert not any(layer.attention.causal for layer in model.layers)
    assert model.config.pad_id == -1  # the model takes padding for text ...
    assert pad_id == 3  # ... which rows are still filled up with
    assert not bucketed
    rows = Path("demo-dev-prompting-output.txt").read_text(encoding="utf-8").splitlines()
    assert all(row.endswith("This movie is ") for row in rows)


def test_2024_cuts_the_end_of_long_input(workplace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_llama.main(prompting("--reproduce_2024", "--max_sentence_len=12"))
    assert "were cut at their end" in capsys.readouterr().out


@pytest.mark.parametrize("line", [["--max_new_tokens=8"], None], ids=["generate", "finetune"])
def test_2024_changes_the_other_tasks_too(workplace: Path, line: list[str] | None) -> None:
    argv = [*WEIGHTS, *line] if line else finetuning()
    output = "generated-sentence-temp-0.txt" if line else "run-info.json"
    contents = []
    for more in ([], ["--reproduce_2024"]):
        assert run_llama.main([*argv, *more]) == 0
        contents.append(Path(output).read_text(encoding="utf-8"))
        if not line:
            contents[-1] = json.dumps(
                json.loads(contents[-1])["runs"][f"finetune demo{' 2024' * bool(more)}"]["epochs"]
            )
    assert contents[0] != contents[1]

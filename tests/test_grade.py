"""Grading one submission from end to end: the master, the bare hand-out, one mistake, and what is wrong on our side."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from autograder import grade, judge
from autograder.__main__ import main
from autograder.editions import Edition, Reference, read_edition
from autograder.grade import Options, find_weights, grade_submission
from autograder.handout.make import handout_content
from autograder.result import Result, read_result
from errors import UsageError
from submission_rules import SUBMISSION
from tests.tiny_grading import STORYBOOK, gold, reference, write_data

ROOT = Path(__file__).resolve().parent.parent
FILES = ("run_llama.py", "llama.py", "rope.py", "optimizer.py", "classifier.py")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Return the two texts that a right implementation writes with our own checkpoint."""
    import torch

    from autograder.outputs.coherence import TextReader

    reader = TextReader(STORYBOOK, causal=True)
    torch.manual_seed(1)
    return {
        "generated-sentence-temp-0.txt": reader.greedy(),
        "generated-sentence-temp-1.txt": reader.write(1.0)[0],
    }


def edition_with_storybook(name: str = "minllama") -> Edition:
    """Return an edition whose reference results are those of the tests' data."""
    known = reference(accuracies=dict.fromkeys(read_edition(name).margins, 0.95))
    return read_edition(name).model_copy(update={"references": (Reference.model_validate(known),)})


def submit(folder: Path, texts: dict[str, str], source: Path = ROOT) -> Path:
    """Write a submission: the student's files from `source`, right predictions, the texts."""
    folder.mkdir(parents=True)
    for name in (*FILES, *SUBMISSION.expected):
        origin = source / name if (source / name).exists() else ROOT / name
        shutil.copyfile(origin, folder / name)
    for output in SUBMISSION.outputs:
        if output.labels and "advanced" not in output.name:
            data_set, split = output.name.split("-")[:2]
            lines = (folder.parent / "data" / f"{data_set}-{split}.txt").read_text(encoding="utf-8").splitlines()
            sentences = [line.partition(" ||| ")[2] for line in lines]
            rows = zip(gold(data_set, split), sentences, strict=True)
            (folder / output.name).write_text("".join(f"{label} ||| {text}\n" for label, text in rows), "utf-8")
    for name, text in texts.items():
        (folder / name).write_text(text + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def master(tmp_path: Path, data: Path, texts: dict[str, str]) -> Path:
    shutil.copytree(data, tmp_path / "data")
    return submit(tmp_path / "abc123", texts)


def graded(submission: Path, out: Path, edition: Edition, seed: str = "s") -> Result:
    options = Options(backend="none", seed=seed, checkpoint="storybook", data=submission.parent / "data")
    return grade_submission(submission, edition, out, options)


@pytest.mark.parametrize("name", ["minllama", pytest.param("nlp244", marks=pytest.mark.slow)])
def test_the_master_gets_an_a_and_all_points(name: str, master: Path, tmp_path: Path) -> None:
    edition = edition_with_storybook(name)
    result = graded(master, tmp_path / "one", edition)
    assert result.grade.letter == "A", result.grade.reasons
    assert (result.points, result.max_points) == (100.0, 100.0)
    assert {check.status for check in result.checks} == {"pass"}
    assert [finding for finding in result.findings if finding.severity == "error"] == []
    assert all(output.reaches for output in result.outputs if output.name in edition.margins)
    assert read_result(tmp_path / "one" / "result.json") == result
    stages = json.loads((tmp_path / "one" / "timings.json").read_text(encoding="utf-8"))["stages"]
    assert list(stages) == ["format and static", "import", "outputs", "checks", "rubric"]
    assert "RMSNorm" in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_bytes(master: Path, tmp_path: Path) -> None:
    edition = with_checks(edition_with_storybook(), "RMSNorm", "sampled generation", "AdamW")
    (master / "rope.py").write_text("print(object())\nraise ValueError(object())\n", "utf-8")
    (master / "llama.py").write_text("print(object())\nimport time\nraise ValueError(object())\n", "utf-8")
    for name in ("one", "two"):
        graded(master, tmp_path / name, edition)
    one, two = ((tmp_path / name / "result.json").read_bytes() for name in ("one", "two"))
    assert one == two
    graded(master, tmp_path / "three", edition, seed="another")
    assert (tmp_path / "three" / "result.json").read_bytes() != one


def with_checks(edition: Edition, *names: str) -> Edition:
    """Return an edition that runs these checks alone."""
    run = tuple(entry for entry in edition.checks.run if entry.name in names)
    return edition.model_copy(update={"checks": edition.checks.model_copy(update={"run": run})})


def test_the_bare_handout_gets_b_or_below_and_every_open_part_is_named(
    tmp_path: Path, data: Path, texts: dict[str, str]
) -> None:
    edition = edition_with_storybook()
    content, _ = handout_content(edition, ROOT)
    shutil.copytree(data, tmp_path / "data")
    handout = tmp_path / "handout"
    handout.mkdir()
    for name, file in content.items():
        if "/" not in name:
            (handout / name).write_bytes(file)
    result = graded(submit(tmp_path / "abc123", texts, handout), tmp_path / "out", edition)
    assert result.grade.letter == "B or below"
    missing = {check.region: check for check in result.checks if check.status == "missing"}
    assert set(missing) == set(edition.handout.open)
    assert all(check.message.startswith("not implemented yet: ") for check in missing.values())
    for check in result.checks:
        assert check.status == (
            "pass" if check.region == "given" else "missing" if check.name in FIRST else check.status
        )
        assert check.status in ("pass", "missing", "skipped")
    assert [name for name in edition.handout.open if name not in " ".join(result.grade.reasons)] == []


# Checks that call an open part by itself.
FIRST = ("RMSNorm", "RoPE", "attention", "GQA", "layer", "greedy generation", "AdamW", "classifier", "zero-shot")


def test_one_mistake_is_found_named_and_reproduced(
    master: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rope = (master / "rope.py").read_text(encoding="utf-8")
    (master / "rope.py").write_text(rope.replace("theta ** (-pair / head_dim)", "theta ** (pair / head_dim)"), "utf-8")
    common = ["--edition", "minllama", "--sandbox", "none", "--id", "abc123"]
    out = tmp_path / "out"
    argv = [
        "grade",
        str(master),
        *common,
        "-o",
        str(out),
        "--data",
        str(tmp_path / "data"),
        "--checkpoint",
        "storybook",
    ]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "fail          RoPE: query: the largest difference is" in printed
    assert "abc123: B or below, " in printed
    result = read_result(out / "result.json")
    assert {check.region for check in result.checks if check.status == "fail"} == {"rope"}
    assert stat.S_IMODE((out / "secret").stat().st_mode) == 0o600
    assert main(["reproduce", str(master), "RoPE", *common, "--result", str(out / "result.json")]) == 0
    printed = capsys.readouterr().out
    (check,) = [check for check in result.checks if check.name == "RoPE"]
    assert f"\n{check.message}\n" in printed  # the same inputs: the same difference
    assert "values differ" in printed
    secret = (out / "secret").read_text(encoding="utf-8")
    assert main(["reproduce", str(master), "RoPE", *common, "--seed", secret, "-o", str(tmp_path / "rope.npz")]) == 0
    assert check.message in capsys.readouterr().out
    import numpy as np

    arrays = np.load(tmp_path / "rope.npz")
    assert not np.allclose(arrays["expected/query"], arrays["actual/query"])
    assert arrays["inputs/query"].shape == arrays["actual/query"].shape
    (master / "rope.py").write_text(rope, encoding="utf-8")
    assert main(["reproduce", str(master), "RoPE", *common, "--result", str(out / "result.json")]) == 2
    assert "is of another submission" in capsys.readouterr().err


# --- what is wrong on our side: one error, status 2, nothing half written ---


def refused(argv: list[str], out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["grade", *argv, "-o", str(out)]) == 2
    assert not any((out / name).exists() for name in ("result.json", "report.html", "timings.json"))
    return capsys.readouterr().err


def test_a_submission_that_is_not_there_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([str(tmp_path / "nobody.zip"), "--sandbox", "none"], tmp_path / "out", capsys)
    assert said.startswith("error: ") and "nobody.zip" in said


def test_an_unreadable_zip_is_an_error_and_no_grade(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "abc123.zip").write_bytes(b"no zip at all" * 20)
    said = refused([str(tmp_path / "abc123.zip"), "--sandbox", "none"], tmp_path / "out", capsys)
    assert said.startswith(f"error: nothing of {tmp_path}/abc123.zip can be read: it is not a zip")
    assert not (tmp_path / "out").exists()


def test_an_unknown_checkpoint_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([str(tmp_path), "--checkpoint", "stories43M"], tmp_path / "out", capsys)
    assert "edition minllama has no reference results of 'stories43M': choose from stories42M, " in said


def test_an_unknown_edition_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([str(tmp_path), "--edition", "nlp243"], tmp_path / "out", capsys)
    assert said == "error: no edition is called 'nlp243': choose from minllama, nlp244, or name a .toml file\n"


def test_a_missing_data_file_is_named(master: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data" / "sst-dev.txt").unlink()
    argv = [str(master), "--sandbox", "none", "--data", str(tmp_path / "data"), "--checkpoint", "storybook"]
    assert "sst-dev.txt" in refused(argv, tmp_path / "out", capsys)


def test_a_machine_without_bubblewrap_gets_the_remedy(
    master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    said = refused([str(master)], tmp_path / "out", capsys)
    assert "no sandbox of kind 'bwrap'" in said and "apt-get install bubblewrap" in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    assert "cannot be written" in refused([str(tmp_path)], closed / "out", capsys)


def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert main(["grade", str(tmp_path), "-o", str(tmp_path / "file" / "out")]) == 2
    assert "cannot be written (Not a directory): name another folder with -o" in capsys.readouterr().err


def test_a_full_disk_is_named_and_leaves_no_result(
    master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(grade, "write_text", full)
    monkeypatch.setattr(judge, "judge_checks", lambda *_: [])
    argv = [str(master), "--sandbox", "none", "--data", str(tmp_path / "data"), "--checkpoint", "storybook"]
    assert main(["grade", *argv, "-o", str(tmp_path / "out"), "--seed", "s"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()


def test_a_rerun_without_weights_is_refused(
    master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(grade, "ROOT", tmp_path)  # where there are no weights
    argv = [str(master), "--sandbox", "none", "--data", str(tmp_path / "data"), "--checkpoint", "storybook"]
    said = refused([*argv, "--rerun", "generate"], tmp_path / "out", capsys)
    assert "a rerun needs the weights of storybook, which are not here" in said


def test_weights_are_found_where_they_are_kept() -> None:
    assert find_weights("storybook") == STORYBOOK
    assert find_weights("no-such-model") is None


def test_an_unknown_kind_of_rerun_is_refused_by_the_parser(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["grade", "x.zip", "-o", "out", "--rerun", "generate,dance"])
    assert "'dance' is none of generate, prompt, finetune" in capsys.readouterr().err


def test_an_error_of_the_grader_is_no_grade(
    master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from autograder.isolation.sandbox import Sandbox
    from errors import GraderError

    def broken(*_: object) -> None:
        raise GraderError("the sandbox fell over")

    monkeypatch.setattr(Sandbox, "_ask", broken)
    argv = [str(master), "--sandbox", "none", "--data", str(tmp_path / "data"), "--checkpoint", "storybook"]
    assert main(["grade", *argv, "-o", str(tmp_path / "out")]) == 3
    result = read_result(tmp_path / "out" / "result.json")
    assert (result.grade.letter, result.points) == ("ungraded", 0.0)
    assert "the sandbox fell over" in capsys.readouterr().out


def test_the_secret_is_drawn_once_for_a_folder(tmp_path: Path) -> None:
    first = grade.kept_secret(tmp_path / "out")
    assert len(first) == 64 and grade.kept_secret(tmp_path / "out") == first
    assert grade.kept_secret(tmp_path / "other") != first
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    (tmp_path / "bad").write_text("", encoding="utf-8")
    with pytest.raises(UsageError, match="name another folder with -o"):
        grade.kept_secret(tmp_path / "bad")

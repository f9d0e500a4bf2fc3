"""The student's checks: what they print for right, wrong, missing and broken code."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import checking
import llama
import optimizer_test
import rope_test
import sanity_check
import submission_rules
from component_checks import CHECKS, Check
from tests.assets_dir import require_asset

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "sanity_check.data"
COMPONENTS = [check.name for check in CHECKS if not check.needs]
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION.*?### END SOLUTION\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def references() -> dict[str, checking.Reference]:
    return checking.read_references(DATA)


@pytest.fixture
def no_weights(tmp_path: Path) -> str:
    return str(tmp_path / "no weights")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a copy of the root files, as a student has them."""
    for file in [*ROOT.glob("*.py"), DATA]:
        shutil.copy(file, tmp_path)
    return tmp_path


def open_regions(tree: Path, *files: str) -> None:
    for name in files:
        file = tree / name
        file.write_text(SOLUTION.sub(r"\1raise NotImplementedError\n", file.read_text("utf-8")), "utf-8")


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new), "utf-8")


def run(tree: Path, *argv: str) -> tuple[int, str]:
    """Run the checks in a process of their own, and return the exit status and all that was printed."""
    command = [sys.executable, "sanity_check.py", *argv]
    done = subprocess.run(command, cwd=tree, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    return done.returncode, done.stdout


def lines_of(report: str) -> dict[str, str]:
    """Return the report's lines by check: status and note, and what is indented below."""
    lines: dict[str, str] = {}
    names = sorted((check.name for check in CHECKS), key=len, reverse=True)
    current = ""
    for line in report.splitlines():
        status, rest = line[: sanity_check.MARGIN].strip(), line[sanity_check.MARGIN :]
        if status in (checking.OK, checking.FAIL, checking.TODO, checking.WAIT, checking.SKIP, checking.ERROR):
            current = next(name for name in names if rest.startswith(name))
            lines[current] = f"{status} {rest.removeprefix(current).strip()}".strip()
        elif not status:
            lines[current] += f"\n{rest}"
    return lines


def check_called(name: str) -> Check:
    return next(check for check in CHECKS if check.name == name)


# --- the master ---


def test_master_passes_every_check_that_needs_no_weights(no_weights: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert sanity_check.main(["--weights", no_weights]) == 0
    report = capsys.readouterr().out
    lines = lines_of(report)
    assert list(lines) == [check.name for check in CHECKS]
    for check in CHECKS:
        expected = "ok" if check.real_weights is None else "skip skipped: needs weights/stories260K (./setup.sh"
        assert lines[check.name].startswith(expected), lines[check.name]
    count = len(CHECKS) - 2
    assert report.splitlines()[-1] == f"{count} of {count} checks pass, 2 skipped"


def test_master_passes_with_real_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "stories260K"
    folder.mkdir()
    for name in ("stories260K.bin", "tok512.bin"):
        shutil.copy(require_asset(name), folder)
    assert sanity_check.main(["stories260K", "--weights", str(tmp_path)]) == 0
    report = capsys.readouterr().out
    assert lines_of(report)["stories260K logits"] == "ok"
    assert "Once upon a time, there was a little girl named Lily." in lines_of(report)["stories260K text"]
    assert report.endswith("2 of 2 checks pass\n")


def test_damaged_real_weights_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "stories260K").mkdir()
    (tmp_path / "stories260K/stories260K.bin").write_bytes(b"half a file")
    assert sanity_check.main(["stories260K", "--weights", str(tmp_path)]) == 1
    lines = lines_of(capsys.readouterr().out)
    assert lines["stories260K logits"].startswith("error CheckpointError: ")
    assert lines["stories260K text"] == "wait mend stories260K logits first"


@pytest.mark.parametrize(
    ("command", "names"),
    [(rope_test, ["RoPE"]), (optimizer_test, [name for name in COMPONENTS if name.startswith("AdamW")])],
)
def test_commands_of_one_file_run_its_checks(
    command: Any, names: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([]) == 0
    report = capsys.readouterr().out
    assert list(lines_of(report)) == names
    assert report.endswith(f"{len(names)} of {len(names)} checks pass\n")


def test_names_choose_checks_in_any_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert sanity_check.main(["rms", "ATTENTION"]) == 0
    assert list(lines_of(capsys.readouterr().out)) == [
        *("RMSNorm", "attention", "attention bias", "attention dropout", "attention evaluation")
    ]


def test_unknown_name_is_one_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert sanity_check.main(["softmax"]) == 2
    assert capsys.readouterr().err.startswith("error: no check is called 'softmax': choose from RMSNorm, RoPE, ")


@pytest.mark.parametrize("command", [sanity_check, rope_test, optimizer_test])
def test_help_has_an_example(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        command.main(["--help"])
    assert stop.value.code == 0
    assert "example: python " in capsys.readouterr().out


# --- code that is missing or broken ---


def test_open_regions_read_not_implemented_yet(tree: Path) -> None:
    open_regions(tree, "llama.py", "rope.py", "optimizer.py", "classifier.py")
    status, report = run(tree)
    assert status == 1
    assert "Traceback" not in report
    lines = lines_of(report)
    for name in COMPONENTS:
        assert lines[name].startswith(f"todo not implemented yet: {check_called(name).file}, "), name
    assert lines["RoPE"] == "todo not implemented yet: rope.py, apply_rotary_emb"
    assert lines["layer"] == "todo not implemented yet: llama.py, LlamaLayer.forward"
    assert lines["hidden states"] == "wait mend RMSNorm, RoPE, attention and 3 more first"
    assert lines["model classifier"] == "wait mend RMSNorm, RoPE, attention and 4 more first"
    assert report.splitlines()[-1] == f"0 of {len(CHECKS)} checks pass"


def test_one_broken_file_does_not_stop_the_others(tree: Path) -> None:
    edit(tree / "rope.py", "    seqlen = query.shape[1]\n", "    seqlen = query.shape[1\n")
    edit(tree / "optimizer.py", 'state["step"] += 1', 'state["step"] += 1 / 0')
    status, report = run(tree)
    lines = lines_of(report)
    assert status == 1
    assert "Traceback" not in report
    line = (tree / "rope.py").read_text("utf-8").splitlines().index("    seqlen = query.shape[1") + 1
    assert lines["RoPE"] == f"error SyntaxError: '[' was never closed (rope.py:{line})"
    assert lines["RMSNorm"] == lines["classifier"] == lines["hidden states"] == "wait mend rope.py first"
    for name in optimizer_checks():
        assert re.fullmatch(r"error ZeroDivisionError: .* \(optimizer\.py:\d+\)", lines[name])


def test_wrong_imports_are_errors_of_their_file(tree: Path) -> None:
    edit(tree / "classifier.py", "from llama import load_pretrained", "from llama import load_trained")
    edit(tree / "optimizer.py", "import math\n", "import math\n\nMORE = undefined\n")
    status, report = run(tree, "--traceback", "AdamW", "classifier", "zero-shot", "RoPE")
    lines = lines_of(report)
    assert status == 1
    assert re.match(
        r"error ImportError: cannot import name 'load_trained' .* \(classifier\.py:\d+\)", lines["zero-shot"]
    )
    assert re.match(r"error NameError: name 'undefined' is not defined \(optimizer\.py:\d+\)", lines["AdamW"])
    assert "Traceback (most recent call last):" in lines["AdamW"]
    assert lines["RoPE"] == "ok"


def optimizer_checks() -> list[str]:
    return [check.name for check in CHECKS if check.file == "optimizer.py"]


@pytest.fixture
def rms_norm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return what reports on RMSNorm with another `_norm`."""

    def report(norm: Any) -> str:
        monkeypatch.setattr(llama.RMSNorm, "_norm", norm)
        assert sanity_check.main(["RMSNorm"]) == 1
        return lines_of(capsys.readouterr().out)["RMSNorm"]

    return report


RIGHT = llama.RMSNorm._norm


@pytest.mark.parametrize(
    ("norm", "line"),
    [
        (lambda self, x: RIGHT(self, x)[:, :2], "_norm(x): wrong shape, expected (2, 3, 8), got (2, 2, 8)"),
        (
            lambda self, x: RIGHT(self, x).double(),
            "_norm(x): wrong dtype, expected torch.float32, got torch.float64",
        ),
        (lambda self, x: x.tolist(), "_norm(x): expected a tensor of shape (2, 3, 8), got list"),
        (
            lambda self, x: RIGHT(self, x).index_fill(1, torch.tensor(2), float("nan")),
            "_norm(x): 16 values are NaN or infinite, the first at [0, 2, 0]: expected ",
        ),
        (
            lambda self, x: RIGHT(self, x) + torch.nn.functional.one_hot(torch.tensor(5), 8),
            "_norm(x): the largest difference is 1 at [",
        ),
    ],
)
def test_wrong_outputs_are_described(rms_norm: Any, norm: Any, line: str) -> None:
    # forward needs a tensor of the right shape: it must not raise before the outputs are compared
    def only_alone(self: llama.RMSNorm, x: torch.Tensor) -> Any:
        only_alone.calls += 1  # type: ignore[attr-defined]
        return norm(self, x) if only_alone.calls == 1 else RIGHT(self, x)  # type: ignore[attr-defined]

    only_alone.calls = 0  # type: ignore[attr-defined]
    report = rms_norm(only_alone).splitlines()
    assert report[0] == "FAIL"
    assert report[1] == "called RMSNorm(dim=8, eps=0.01)"
    assert report[2] == "shapes: x (2, 3, 8)"
    assert report[3].startswith(line)
    assert len(report) == 4


def test_a_missing_return_is_an_error_in_the_given_code(rms_norm: Any) -> None:
    assert re.fullmatch(r"error AttributeError: 'NoneType' .* \(llama\.py:\d+\)", rms_norm(lambda self, x: None))


def test_exit_in_the_checked_code_is_an_error(rms_norm: Any) -> None:
    def leave(self: llama.RMSNorm, x: torch.Tensor) -> None:
        sys.exit("I give up")

    assert rms_norm(leave).startswith("error SystemExit: I give up (")


def test_not_implemented_by_torch_is_an_error(rms_norm: Any) -> None:
    def unfinished(self: llama.RMSNorm, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = torch.nn.Module()(x)
        return out

    assert rms_norm(unfinished).startswith("error NotImplementedError: ")


def test_the_checked_code_cannot_change_the_reference(
    references: dict[str, checking.Reference], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(llama.RMSNorm, "_norm", lambda self, x: x.zero_())
    before = references["RMSNorm"].case.inputs["x"].clone()
    checking.run_check(check_called("RMSNorm"), references["RMSNorm"], tmp_path)
    assert torch.equal(references["RMSNorm"].case.inputs["x"], before)


def test_checks_leave_the_random_numbers_alone(references: dict[str, checking.Reference], tmp_path: Path) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    checking.run_check(check_called("attention dropout"), references["attention dropout"], tmp_path)
    assert torch.equal(torch.rand(3), expected)


# --- the list of checks, and the file of data ---


def test_what_a_check_needs_stands_before_it() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert seen.issuperset(check.needs), check.name
        seen.add(check.name)
    assert len(seen) == len(CHECKS)


def test_every_region_has_a_check_of_its_own() -> None:
    assert {check.regions[-1] for check in CHECKS if not check.needs} == set(submission_rules.FILES)


def test_data_holds_plain_values_only() -> None:
    def walk(value: object) -> None:
        if isinstance(value, dict):
            assert all(type(key) is str for key in value)
            for entry in value.values():
                walk(entry)
        elif isinstance(value, list):
            for entry in value:
                walk(entry)
        else:
            assert type(value) in (str, int, float, bool, torch.Tensor)

    walk(torch.load(DATA, weights_only=True))
    assert DATA.stat().st_size < 1_000_000


def test_data_has_fewer_key_heads_than_query_heads(references: dict[str, checking.Reference]) -> None:
    for name in ("GQA", "hidden states", "logits", "model generation", "model classifier"):
        config = references[name].case.settings["config"]
        assert config["n_kv_heads"] < config["n_heads"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is damaged"),
        (b"not a file of tensors", "is damaged"),
        (DATA.read_bytes()[:5000], "is damaged"),
        ({"checks": {}}, "is damaged (KeyError)"),
        ({"format": 99, "checks": {}}, "has format 99, these checks read 1"),
        ({"format": 1, "checks": {}}, "was made for other checks"),
        ({"format": 1, "checks": {"RMSNorm": {"inputs": {}}}}, "is damaged (KeyError)"),
    ],
)
def test_damaged_data_is_one_error(
    content: Any, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "other.data"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert sanity_check.main(["--data", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {path} {message}")
    assert err.rstrip().endswith("take a fresh one from the hand-out (in the master: python -m autograder sanity-data)")


def test_data_of_other_checks_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = torch.load(DATA, weights_only=True)
    content["checks"]["another"] = content["checks"].pop("RMSNorm")
    torch.save(content, tmp_path / "other.data")
    assert rope_test.main(["--data", str(tmp_path / "other.data")]) == 2
    assert "was made for other checks" in capsys.readouterr().err


def test_missing_data_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert optimizer_test.main(["--data", str(tmp_path / "none.data")]) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'none.data'} does not exist: take a fresh one")


def test_data_with_code_in_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": 1, "checks": {"RMSNorm": Path("/")}}, tmp_path / "other.data")
    assert sanity_check.main(["--data", str(tmp_path / "other.data")]) == 2
    assert "is damaged (UnpicklingError)" in capsys.readouterr().err


# --- comparing ---


@pytest.mark.parametrize(
    ("actual", "expected", "far"),
    [
        (torch.tensor([1.0]), torch.tensor([1.0]), 0.0),
        (torch.tensor([1.02]), torch.tensor([1.0]), 1.0),
        (torch.tensor([0.04]), torch.tensor([0.0]), 4.0),
        (torch.tensor([float("nan"), 1.0]), torch.tensor([float("nan"), 1.0]), 0.0),
        (torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0]), float("inf")),
        (torch.tensor([float("inf"), 1.0]), torch.tensor([float("inf"), 1.0]), 0.0),
        (torch.tensor([1.0, 1.0]), torch.tensor([float("inf"), 1.0]), float("inf")),
        (torch.tensor([3]), torch.tensor([3]), 0.0),
        (torch.tensor([3.0]), torch.tensor([3]), float("inf")),
        (torch.tensor([[1.0]]), torch.tensor([1.0]), float("inf")),
        (None, torch.tensor([1.0]), float("inf")),
    ],
)
def test_distance_is_in_tolerances(actual: Any, expected: torch.Tensor, far: float) -> None:
    distance = checking.distance({"x": actual}, {"x": expected}, {"x": (0.01, 0.01)})
    assert distance == pytest.approx(far, rel=1e-5)


def test_outputs_of_other_names_are_infinitely_far_apart() -> None:
    one = torch.tensor([1.0])
    assert checking.distance({"x": one}, {"y": one}, {"y": (0.01, 0.01)}) == float("inf")


def test_ctrl_c_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("checking.run_checks", interrupt)
    assert sanity_check.main(["RMSNorm"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"

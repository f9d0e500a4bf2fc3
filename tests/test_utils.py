"""utils.py and errors.py: run with `pytest tests/test_utils.py`."""

import hashlib
import io
import os
import random
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import errors
from errors import MinLlamaError, MissingDependency, UsageError
from utils import atomic_path, get_parameter_dtype, pick_device, progress, seed_everything, sha256_of, write_text

ROOT = Path(__file__).resolve().parent.parent


# ------------------------------------------------------------------------------------------------ seeds and devices


def draw() -> tuple[float, float, float, float]:
    """Return a random number from each of the sources that the project uses."""
    return random.random(), np.random.rand(), torch.rand(()).item(), nn.Linear(1, 1).weight.item()


def test_the_same_seed_gives_the_same_numbers_from_every_source() -> None:
    draws = []
    for seed in (7, 7, 8):
        seed_everything(seed)
        draws.append(draw())
    assert draws[0] == draws[1]
    assert all(same != other for same, other in zip(draws[1], draws[2], strict=True))


def test_the_cpu_is_always_there() -> None:
    assert pick_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "device"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_is_the_fastest_device_that_is_there(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert pick_device("auto").type == device


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_an_error_that_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=f"device '{name}' is not available on this machine: leave it out"):
        pick_device(name)


@pytest.mark.parametrize("name", ["gpu", "", "CPU", "cuda:0"])
def test_an_unknown_device_is_an_error_that_lists_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=f"unknown device '{name}': choose one of auto, cuda, mps, cpu"):
        pick_device(name)


def test_the_dtype_of_a_module_is_that_of_its_parameters() -> None:
    assert get_parameter_dtype(nn.Linear(2, 2).to(torch.bfloat16)) == torch.bfloat16


# ------------------------------------------------------------------------------------------------ atomic writing


def test_a_file_appears_under_its_name_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "made" / "for it" / "file.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("content")
        assert not target.exists()
        assert temporary.parent == target.parent  # one file system, or the renaming is not atomic
        assert temporary.name.endswith(".tmp")  # which git ignores
    assert target.read_text() == "content"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_while_writing_keeps_the_old_file_and_leaves_no_other(
    tmp_path: Path, error: type[BaseException]
) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_path(target) as temporary:
        temporary.write_text("new, but not")
        raise error
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_while_writing_a_new_file_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="broken"), atomic_path(tmp_path / "file.txt"):
        raise ValueError("broken")
    assert list(tmp_path.iterdir()) == []


def test_a_target_that_is_a_folder_is_an_error_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="is no regular file: name another"), atomic_path(tmp_path / "folder"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_device_is_not_replaced_by_a_file() -> None:
    with pytest.raises(UsageError, match="/dev/null is no regular file"):
        write_text("/dev/null", "content")


def test_a_link_stays_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    link = tmp_path / "model.pt"
    link.symlink_to(tmp_path / "disk" / "model.pt")
    write_text(link, "content")
    assert link.is_symlink()
    assert (tmp_path / "disk" / "model.pt").read_text() == "content"


def test_a_path_without_a_folder_is_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_text("file.txt", "content")
    assert (tmp_path / "file.txt").read_text() == "content"


@pytest.mark.skipif(sys.platform == "win32", reason="skipped: needs POSIX permissions")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_permissions_of_a_new_file_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        write_text(tmp_path / "file.txt", "content")
        assert os.umask(umask) == umask  # and the umask is as it was
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.txt").stat().st_mode) == mode


def test_text_is_written_as_utf_8_with_its_line_breaks(tmp_path: Path) -> None:
    write_text(tmp_path / "file.txt", "naïve\n▁日本\n")
    assert (tmp_path / "file.txt").read_bytes() == "naïve\n▁日本\n".encode()
    write_text(tmp_path / "file.txt", "")
    assert (tmp_path / "file.txt").read_bytes() == b""


def test_a_checksum_is_sha_256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    path.write_bytes(bytes(3_000_001))
    assert sha256_of(str(path)) == hashlib.sha256(bytes(3_000_001)).hexdigest()


# ------------------------------------------------------------------------------------------------ progress bars


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_progress_is_silent_when_the_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress(range(5), "counting")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr() == ("", "")


def test_progress_shows_on_a_terminal_and_hands_the_items_on(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert list(progress((i for i in range(5)), "counting", total=5)) == [0, 1, 2, 3, 4]
    assert "counting" in terminal.getvalue()
    assert "5" in terminal.getvalue()


def test_the_helpers_load_no_torch_until_they_need_it() -> None:
    code = "import sys, utils, errors, config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# ------------------------------------------------------------------------------------------------ errors


def errors_of_the_tree() -> list[type]:
    """The classes that errors.py defines, without those that it imports."""
    return [value for value in vars(errors).values() if isinstance(value, type) and value.__module__ == "errors"]


def test_every_error_is_of_the_one_kind_that_commands_catch() -> None:
    classes = errors_of_the_tree()
    assert all(issubclass(error, MinLlamaError) for error in classes)
    assert {error.__name__ for error in classes} >= {
        "CheckpointError",
        "TokenizerError",
        "DataError",
        "UsageError",
        "MissingDependency",
        "AssetError",
        "SubmissionError",
    }


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for error in errors_of_the_tree():
        assert error.__name__ in errors.__doc__, error


@pytest.mark.parametrize(
    ("packages", "text"),
    [
        (["protobuf"], "reading tok.bin needs protobuf: run `pip install protobuf`"),
        (
            ["matplotlib", "scikit-learn"],
            "reading tok.bin needs matplotlib and scikit-learn: run `pip install matplotlib scikit-learn`",
        ),
    ],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(packages: list[str], text: str) -> None:
    assert str(MissingDependency("reading tok.bin", *packages)) == text

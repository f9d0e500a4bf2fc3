"""Taking a submission in, hostile archives and folders as well: `pytest tests/test_intake.py`.

Every submission here is read by the real limited process, but where a test says that it puts another in its place.
"""

import errno
import hashlib
import io
import json
import marshal
import os
import pickle
import signal
import stat
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autograder.editions import Edition
from autograder.intake import reader as intake
from autograder.intake.compiled import compile_files, read_caches
from autograder.intake.reader import Intake, choose_id, take_in
from autograder.result import Finding
from errors import MinLlamaError, SubmissionError, UsageError
from submission_check import top_folders, verify_archive
from submission_rules import SUBMISSION
from tests.test_prepare_submit import (
    FILES,
    ID,
    ORIGINAL,
    VALID,
    compressed,
    patched,
    renamed,
    spoilt,
    with_entry,
    with_mode,
    zip_bytes,
)

ROOT = Path(__file__).resolve().parent.parent


def edition(**changes: Any) -> Edition:
    """Return a small edition, changed in some keys."""
    sentences = dict.fromkeys(("a_plus", "a", "a_minus", "b_plus", "b_or_below", "third_down"), "so it is")
    fields = {
        "name": "small",
        "title": "A small course",
        "handout": {"open": ["rope"]},
        "environment": ["torch", "numpy"],
        "static": {
            "imports": ["torch", "numpy"],
            "forbidden": [{"names": ["torch.optim.AdamW"], "why": "the optimizer is to be written"}],
        },
        "checks": {"run": [{"name": "rope", "points": 1.0}]},
        "rubric": sentences,
    }
    return Edition.model_validate(fields | changes)


EDITION = edition()


def taken(data: bytes, tmp_path: Path, student_id: str | None = ID, name: str = f"{ID}.zip") -> Intake:
    """Take in a zip of these bytes; its files lie in `tmp_path/in`."""
    path = tmp_path / name
    path.write_bytes(data)
    return take_in(path, student_id, EDITION, tmp_path / "in")


def told(result: Intake) -> list[Finding]:
    """Return the findings that are no notes."""
    return [finding for finding in result.findings if finding.severity != "note"]


def errors(result: Intake) -> list[str]:
    """Return what the findings of severity error say, each after its file and line where there are any."""
    return [
        f"{finding.file}:{finding.line}: {finding.what}" if finding.file else finding.what
        for finding in result.findings
        if finding.severity == "error"
    ]


def unpacked(tmp_path: Path) -> dict[str, bytes]:
    """Return what lies in the target, and make sure that it is private and of regular files."""
    target = tmp_path / "in"
    assert stat.S_IMODE(target.lstat().st_mode) == 0o700
    for path in target.iterdir():
        assert stat.S_ISREG(path.lstat().st_mode)
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    return {path.name: path.read_bytes() for path in target.iterdir()}


@pytest.fixture(autouse=True)
def canary(tmp_path: Path) -> Iterator[None]:
    """Nothing outside the target changes, whatever a test does; what it makes itself lies at the top of `tmp_path`."""
    inner = tmp_path / "others"
    inner.mkdir()
    (inner / "canary").write_text("alive")
    (inner / "job.py").write_text("ours")
    yield
    assert {path.name: path.read_text() for path in inner.iterdir()} == {"canary": "alive", "job.py": "ours"}
    for path in (tmp_path, ROOT, tmp_path.parent):
        assert not {"job.py", "evil", "owned"} & {entry.name for entry in path.iterdir()}


# --- What is sound ----------------------------------------------------------------------------------------------------


def test_a_zip_without_a_flaw_is_unpacked_and_has_no_findings(tmp_path: Path) -> None:
    files = {**FILES, "run_llama.py": (ROOT / "run_llama.py").read_bytes()}
    data = zip_bytes(files)
    result = taken(data, tmp_path)
    assert result == Intake(ID, hashlib.sha256(data).hexdigest(), tuple(sorted(files)), (), True)
    assert unpacked(tmp_path) == files


def test_a_run_llama_without_options_is_a_note_and_no_more(tmp_path: Path) -> None:
    result = taken(VALID, tmp_path)
    assert [(finding.severity, finding.file) for finding in result.findings] == [("note", "run_llama.py")]
    assert unpacked(tmp_path) == FILES


def test_a_zip_of_the_original_course_has_no_errors_and_its_modules_are_looked_at(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ORIGINAL}
    files |= {path.name: path.read_bytes() for path in (ROOT / "tests" / "original_style").glob("*.py")}
    result = taken(zip_bytes(files), tmp_path)
    assert errors(result) == []
    assert unpacked(tmp_path) == files


def test_a_folder_is_read_like_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / ID
    folder.mkdir()
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    result = take_in(folder, None, EDITION, tmp_path / "in")
    assert (result.student_id, told(result), result.readable) == (ID, [], True)
    assert unpacked(tmp_path) == FILES


def test_a_folder_that_a_platform_unpacked_a_zip_into_is_looked_through(tmp_path: Path) -> None:
    inner = tmp_path / "submission" / ID
    inner.mkdir(parents=True)
    (tmp_path / "submission" / "__MACOSX").mkdir()
    for name, data in FILES.items():
        (inner / name).write_bytes(data)
    result = take_in(tmp_path / "submission", None, EDITION, tmp_path / "in")
    assert (result.student_id, told(result)) == (ID, [])
    other = take_in(tmp_path / "submission", "xyz", EDITION, tmp_path / "in2")
    assert errors(other) == [f"the folder's name is `{ID}`, not `xyz`"]
    assert other.files == result.files


def test_a_folders_hash_depends_on_names_and_contents_alone(tmp_path: Path) -> None:
    def sha256(label: str, files: dict[str, str]) -> str:
        folder = tmp_path / label / ID
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text)
        return take_in(folder, ID, EDITION, tmp_path / f"in-{label}").sha256

    first = sha256("a", {"a.py": "x = 1\n", "b.py": "y = 2\n"})
    assert sha256("b", {"b.py": "y = 2\n", "a.py": "x = 1\n"}) == first
    assert sha256("c", {"a.py": "x = 1\n", "c.py": "y = 2\n"}) != first
    assert sha256("d", {"a.py": "x = 1\n", "b.py": "y = 3\n"}) != first


def test_the_same_submission_gives_the_same_result(tmp_path: Path) -> None:
    source = b"import einops, torch\nfrom torch.optim import AdamW\ngetattr(torch.optim, x)\n"
    data = zip_bytes({**FILES, "lora.py": source, "torch.py": b"x = 1\n", "a.pt": b""})
    path = tmp_path / f"{ID}.zip"
    path.write_bytes(data)
    first = take_in(path, None, EDITION, tmp_path / "in")
    assert take_in(path, None, EDITION, tmp_path / "in2") == first


def test_static_findings_come_with_those_of_the_format(tmp_path: Path) -> None:
    source = b"import torch\n\no = torch.optim.AdamW\n"
    files = {**FILES, "lora.py": source, "sst-dev-prompting-output.txt": b"7 ||| a\n", "numpy.py": b"x = 1\n"}
    result = taken(zip_bytes(files), tmp_path)
    found = told(result)
    assert [(finding.stage, finding.severity, finding.file, finding.line) for finding in found] == [
        ("format", "error", "sst-dev-prompting-output.txt", 1),
        ("static", "flag", "numpy.py", 0),
        ("static", "flag", "lora.py", 3),
    ]
    assert found[0].what == "the label 7 is not in 0 to 4"
    assert found[2].what == "uses torch.optim.AdamW: the optimizer is to be written"


def test_modules_of_the_environment_may_not_be_shadowed(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.zip"
    path.write_bytes(zip_bytes({**FILES, "sympy.py": b"x = 1\n"}))
    assert told(take_in(path, ID, EDITION, tmp_path / "in")) == []
    (finding,) = told(take_in(path, ID, EDITION, tmp_path / "in2", modules=["sympy"]))
    assert (finding.severity, finding.file) == ("flag", "sympy.py")


# --- Hostile archives -------------------------------------------------------------------------------------------------


class _Bomb:
    """Its pickle makes a file when it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, ...]]:
        return os.system, ("touch owned evil",)


def many_entries(count: int) -> bytes:
    """Return a zip with many empty files; the zipfile module would take half a minute to write it."""
    local, central = bytearray(), bytearray()
    for number in range(count):
        name = f"{ID}/{number}.py".encode()
        offset = len(local)
        local += struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name
        fields = (20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, offset)
        central += struct.pack("<4s6H3L5H2L", b"PK\1\2", *fields) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count & 0xFFFF, count & 0xFFFF, len(central), len(local), 0)
    if count > 0xFFFF:  # the long form, which the last record points to
        at = len(local) + len(central)
        record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(central), len(local))
        locator = struct.pack("<4sLQL", b"PK\6\7", 0, at, 1)
        end = record + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return bytes(local + central + end)


def quine() -> bytes:
    """Return a zip that holds itself, as deep as one can write it by hand."""
    data = b""
    for _ in range(12):
        data = zip_bytes({"llama.py": b"x = 1\n", f"{ID}.zip": data})
    return data


def forged_bomb() -> bytes:
    """Return a zip with an entry that unpacks to far more than it declares."""
    info = zipfile.ZipInfo(f"{ID}/extra.py")
    info.compress_type = zipfile.ZIP_DEFLATED
    return patched(with_entry(info, bytes(60_000_000)), f"{ID}/extra.py", 22, 24, struct.pack("<L", 60))


WEIGHTS = "weights may not be in it: stories.pt"
# what is packed, what the one error begins with, and the files of the valid submission that are lost, or gained
Attack = tuple[Callable[[], bytes], str, set[str]]
ATTACKS: dict[str, Attack] = {
    "zip slip": (lambda: with_entry(f"{ID}/../../others/job.py"), "a path with `..`", set()),
    "zip slip at the top": (lambda: with_entry("../others/job.py"), "a path with `..`", set()),
    "zip slip on Windows": (lambda: renamed(f"{ID}/..-job.py", rb"abc123\..\job.py"), "backslashes in the name", set()),
    "absolute": (lambda: with_entry("/tmp/evil"), "an absolute path: /tmp/evil", set()),
    "drive": (lambda: with_entry("C:/evil"), "a drive letter", set()),
    "symlink": (lambda: with_mode(f"{ID}/job.py", stat.S_IFLNK | 0o777), "a link or special file", set()),
    "symlink as folder": (
        lambda: with_entry(f"{ID}/out/job.py", valid=with_mode(f"{ID}/out", stat.S_IFLNK | 0o777)),
        "a link or special file: abc123/out",
        set(),
    ),
    "block device": (lambda: with_mode(f"{ID}/job.py", stat.S_IFBLK | 0o666), "a link or special file", set()),
    "character device": (lambda: with_mode(f"{ID}/job.py", stat.S_IFCHR | 0o666), "a link or special file", set()),
    "pipe": (lambda: with_mode(f"{ID}/job.py", stat.S_IFIFO | 0o666), "a link or special file", set()),
    "NUL": (lambda: renamed(f"{ID}/job.py1", b"abc123/job.py\0"), "control characters in the name", set()),
    "terminal codes": (lambda: with_entry(f"{ID}/\x1b[2Jjob.py"), "control characters in the name", set()),
    "long name": (lambda: with_entry(f"{ID}/{'é' * 100}.py"), "a name of more than 140 bytes", set()),
    "twice": (lambda: with_entry(f"{ID}/llama.py", b"import evil\n"), "entries whose name is taken", set()),
    "case": (lambda: with_entry(f"{ID}/LLAMA.py", b"import evil\n"), "entries whose name is taken", set()),
    "unicode": (
        lambda: with_entry(f"{ID}/e\u0301.py", b"import evil\n", with_entry(f"{ID}/\u00e9.py")),
        "entries whose name is taken",
        {"\u00e9.py"},
    ),
    "full width": (lambda: with_entry(f"{ID}/\uff4c\uff4cama.py", b"import evil\n"), "entries whose name is", set()),
    "bomb": (lambda: compressed(zipfile.ZIP_DEFLATED, bytes(60_000_000)), "it unpacks to 60.1 MB", set()),
    "bomb that lies": (forged_bomb, "extra.py cannot be unpacked", set()),
    "encrypted": (lambda: patched(VALID, f"{ID}/rope.py", 6, 8, b"\1\0"), "encrypted: abc123/rope.py", {"rope.py"}),
    "unusual method": (lambda: compressed(zipfile.ZIP_LZMA), "compressed by an unusual method", set()),
    "spoilt": (lambda: spoilt(f"{ID}/rope.py"), "rope.py cannot be unpacked", {"rope.py"}),
    "weights": (lambda: zip_bytes({**FILES, "stories.pt": pickle.dumps(_Bomb())}), WEIGHTS, set()),
    "data": (lambda: zip_bytes({**FILES, "extra.data": pickle.dumps(_Bomb())}), "", {"extra.data"}),
    "nested": (lambda: zip_bytes({**FILES, "more.zip": quine()}), "an archive may not be in it: more.zip", set()),
    "path file": (lambda: zip_bytes({**FILES, "x.pth": b"import evil"}), "weights may not be in it: x.pth", set()),
}


@pytest.mark.parametrize(("make", "what", "differs"), ATTACKS.values(), ids=ATTACKS)
def test_each_attack_is_reported_and_the_rest_is_unpacked(
    make: Callable[[], bytes], what: str, differs: set[str], tmp_path: Path
) -> None:
    result = taken(make(), tmp_path)
    assert errors(result)[0].startswith(what) if what else not errors(result)
    assert result.readable
    assert set(result.files) == set(FILES) ^ differs
    assert all(unpacked(tmp_path)[name] == data for name, data in FILES.items() if name in result.files)


def test_a_submission_packed_in_itself_is_not_opened_again(tmp_path: Path) -> None:
    result = taken(quine(), tmp_path)
    assert f"an archive may not be in it: {ID}.zip" in errors(result)
    assert unpacked(tmp_path) == {"llama.py": b"x = 1\n"}


def test_a_hundred_thousand_entries_are_not_unpacked(tmp_path: Path) -> None:
    result = taken(many_entries(100_000), tmp_path)
    assert "it holds 100000 entries, and the limit is 500" in errors(result)
    assert len(result.files) == len(unpacked(tmp_path)) == 500


def test_what_belongs_is_unpacked_first_where_there_is_too_much(tmp_path: Path) -> None:
    noise = {f"{number:03}.noise": b"" for number in range(600)}
    result = taken(zip_bytes({**noise, **FILES}), tmp_path)
    assert set(FILES) < set(result.files)
    assert len(result.files) == 500


def test_of_a_flood_of_entries_those_with_known_names_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / f"{ID}.zip"
    path.write_bytes(zip_bytes({**{f"{number:03}.noise": b"" for number in range(700)}, **FILES}))
    kept: list[str] = []
    report = verify_archive(path, ID, replace(SUBMISSION, max_entries=30), lambda name, _: kept.append(name))
    assert [problem.what for problem in report.errors] == ["it holds 724 entries, and the limit is 30"]
    assert len(kept) == 30
    assert set(FILES) < set(kept)


@pytest.mark.parametrize(
    "data", [b"", b"not a zip", VALID[: len(VALID) // 2], zip_bytes({})], ids=["empty", "no zip", "cut", "no entries"]
)
def test_what_is_no_archive_is_an_error_and_unreadable(data: bytes, tmp_path: Path) -> None:
    result = taken(data, tmp_path)
    assert len(errors(result)) == 1
    assert (result.readable, result.files, unpacked(tmp_path)) == (False, (), {})
    assert result.sha256 == hashlib.sha256(data).hexdigest()


HOSTILE_SOURCE = {
    "minus.py": "-" * 100_000 + "1",
    "brackets.py": "(" * 10_000,
    "attributes.py": "a" + ".b" * 100_000,
    "sum.py": "1" + "+1" * 100_000,
    "lambdas.py": "lambda: " * 50_000 + "1",
    "calls.py": "f" + "()" * 100_000,
    "braces.py": "f'" + "{" * 5000 + "}" * 5000 + "'",
    "huge.py": "0x" + "f" * 400_000,
    "list.py": "[" + "1," * 100_000 + "]",
    "nul.py": "a\0b",
    "coding.py": "# coding: rot13\n",
    "long.py": "x = 1\n" * 100_000,
    "decorators.py": "@a\n" * 30_000 + "def f(): pass",
    "ifs.py": "".join(" " * n + "if x:\n" for n in range(99)) + " " * 99 + "x",
    "surrogates.py": "__import__('\\ud800\\x1b[2J')",
    "names.py": "".join(f"import a{n}\n" for n in range(5_000)),
}


def test_source_that_breaks_parsers_costs_that_file_alone(tmp_path: Path) -> None:
    files = {**FILES, **{name: source.encode() for name, source in HOSTILE_SOURCE.items()}}
    result = taken(zip_bytes(files), tmp_path)
    assert result.readable
    assert set(result.files) <= set(files)
    assert {name for name in files if name not in result.files} <= {*HOSTILE_SOURCE}  # too well compressed
    complaints = {finding.file for finding in result.findings if finding.file}
    assert {"nul.py", "coding.py", "brackets.py", "surrogates.py", "names.py"} <= complaints
    assert all(finding.what.isprintable() for finding in result.findings)


# --- Archives that are not laid out as they should be -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "what"),
    [
        ("xyz/", "the folder's name is `xyz`, not `abc123`"),
        ("ABC123/", "the folder's name is `ABC123`, not `abc123`"),
        ("", "its files are not in a folder `abc123/`"),
        (f"{ID}/{ID}/", f"its files are in the folder `{ID}/{ID}/`, not in `{ID}/`"),
        ("home/me/work/", "its files are in the folder `home/me/work/`, not in `abc123/`"),
    ],
)
def test_a_wrong_folder_costs_an_error_and_not_the_files(folder: str, what: str, tmp_path: Path) -> None:
    result = taken(zip_bytes(FILES, folder), tmp_path)
    assert errors(result) == [what]
    assert unpacked(tmp_path) == FILES


def test_loose_files_beside_a_folder_of_something_else_are_the_submission(tmp_path: Path) -> None:
    result = taken(zip_bytes({**FILES, "data/sst-train.txt": b"", "scripts/a.sh": b""}, ""), tmp_path)
    assert errors(result) == [
        f"its files are not in a folder `{ID}/`",
        "a data set may not be in it: data",
        "folders in the folder: scripts/",
    ]
    assert unpacked(tmp_path) == FILES


def test_another_folder_with_more_files_does_not_take_the_place_of_the_own_one(tmp_path: Path) -> None:
    files = {f"{ID}/llama.py": b"x = 1\n", **{f"{ID}/old/{name}": data for name, data in FILES.items()}}
    taken(zip_bytes(files, ""), tmp_path)
    assert unpacked(tmp_path) == {"llama.py": b"x = 1\n"}


# --- Folders ----------------------------------------------------------------------------------------------------------


def test_links_and_special_files_of_a_folder_are_reported_and_never_followed(tmp_path: Path) -> None:
    folder = tmp_path / ID
    (folder / "inner").mkdir(parents=True)
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    (folder / "passwd.txt").symlink_to("/etc/passwd")
    (folder / "loop.py").symlink_to("loop.py")
    (folder / "others").symlink_to(tmp_path / "others")
    (folder / "optimizer.py").unlink()
    (folder / "optimizer.py").symlink_to(tmp_path / "others" / "job.py")
    os.mkfifo(folder / "pipe.py")
    result = take_in(folder, ID, EDITION, tmp_path / "in")
    assert errors(result) == [
        f"a link or special file: {ID}/loop.py, {ID}/optimizer.py, {ID}/others, {ID}/passwd.txt and 1 more",
        "folders in the folder: inner/",
    ]
    assert set(unpacked(tmp_path)) == set(FILES) - {"optimizer.py"}


def test_a_folder_has_the_limits_of_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / ID
    folder.mkdir()
    with (folder / "big.log").open("wb") as file:
        file.truncate(10**12)
    (folder / "a.pt").write_bytes(b"x")
    (folder / "llama.py").write_bytes(b"x = 1\n")
    result = take_in(folder, ID, EDITION, tmp_path / "in")
    assert errors(result)[0].startswith("it unpacks to 1000000.0 MB, and the limit is 50.0 MB")
    assert "weights may not be in it: a.pt" in errors(result)
    assert set(unpacked(tmp_path)) <= {"llama.py"}


def test_a_file_of_a_folder_that_may_not_be_read_is_our_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ID).mkdir()
    (tmp_path / ID / "llama.py").write_bytes(b"x = 1\n")
    folder = intake._Folder(tmp_path / ID)
    folder.name = ID
    (entry,) = folder.infolist()

    def refuse(*_: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SubmissionError, match=r"cannot read .*llama\.py: Permission denied"):
        folder.open(entry)


def test_a_file_that_became_a_pipe_or_a_link_is_not_read(tmp_path: Path) -> None:
    (tmp_path / ID).mkdir()
    path = tmp_path / ID / "llama.py"
    path.write_bytes(b"x = 1\n")
    folder = intake._Folder(tmp_path / ID)
    folder.name = ID
    (entry,) = folder.infolist()
    with folder.open(entry) as file:
        assert file.read() == b"x = 1\n"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match="no regular file"):
        folder.open(entry)
    path.unlink()
    path.symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        folder.open(entry)


# --- Whose is it? -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stem", "folders", "student_id"),
    [
        ("abc123", ["abc123"], "abc123"),
        ("abc123", ["xyz"], "abc123"),
        ("abc123", [], "abc123"),
        ("abc123", ["abc123", "data"], "abc123"),
        ("doejane_LATE_123_456_abc123", ["abc123"], "abc123"),
        ("doejane_123_456_abc123", ["abc123"], "abc123"),
        ("doejane_123_456_abc123-2", ["abc123"], "abc123"),
        ("abc123-1", ["abc123"], "abc123"),
        ("abc123 (1)", ["abc123"], "abc123"),
        ("My homework", ["abc123"], "abc123"),
        ("ABC123", ["abc123"], "abc123"),
        ("ABC123", ["ABC123"], "ABC123"),
        ("My homework", ["abc123", "xyz"], "My homework"),
        ("My homework", [], "My homework"),
        ("abc123x", ["abc123"], "abc123x"),
    ],
)
def test_the_id_is_that_of_the_zip_or_of_its_folder(stem: str, folders: list[str], student_id: str) -> None:
    assert choose_id(stem, folders) == student_id


def test_a_zip_of_another_name_is_a_warning(tmp_path: Path) -> None:
    result = taken(VALID, tmp_path, student_id=None, name=f"doe_12_34_{ID}.zip")
    (finding,) = told(result)
    assert (result.student_id, finding.severity) == (ID, "warning")
    assert finding.what == f"its own name is doe_12_34_{ID}.zip, not {ID}.zip"
    assert unpacked(tmp_path) == FILES


def test_a_name_that_cannot_be_an_id_is_reported_and_costs_no_files(tmp_path: Path) -> None:
    result = taken(zip_bytes(FILES, "My Work/"), tmp_path, student_id=None, name="My Work!.zip")
    assert result.student_id == "my-work"
    assert errors(result) == [
        "the folder's name is `My Work`, not `my-work`",
        "'My Work!' cannot be a student's ID",
    ]
    assert unpacked(tmp_path) == FILES


@pytest.mark.parametrize(("name", "student_id"), [("...", "unknown"), ("Äb", "b"), ("x" * 99, "x" * 60)])
def test_every_name_gives_an_id(name: str, student_id: str) -> None:
    assert intake._as_id(name) == student_id


def test_top_folders_are_those_of_the_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(with_entry("__MACOSX/x", valid=with_entry("loose.py", valid=with_entry("b/c/x"))))
    assert top_folders(path) == [ID, "b"]
    path.write_bytes(b"no zip")
    assert top_folders(path) == []
    with pytest.raises(SubmissionError, match="there is no folder or zip"):
        top_folders(tmp_path / "missing.zip")


def test_an_unusable_id_that_we_give_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a student's ID"):
        taken(VALID, tmp_path, student_id="../x")


# --- What is wrong on our side ----------------------------------------------------------------------------------------


def test_a_submission_that_is_not_there_is_our_fault(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no folder or zip .*missing\.zip: name a student's submission"):
        take_in(tmp_path / "missing.zip", None, EDITION, tmp_path / "in")
    assert not (tmp_path / "in").exists()


def test_a_submission_that_may_not_be_read_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(VALID)
    (tmp_path / "a.zip").chmod(0)
    if os.access(tmp_path / "a.zip", os.R_OK):
        pytest.skip("this user may read everything, as root does")
    with pytest.raises(SubmissionError, match=r"cannot read .*a\.zip: Permission denied"):
        take_in(tmp_path / "a.zip", None, EDITION, tmp_path / "in")


def test_a_target_that_cannot_be_made_or_is_in_use_is_our_fault(tmp_path: Path) -> None:
    (tmp_path / f"{ID}.zip").write_bytes(VALID)
    with pytest.raises(UsageError, match=r"cannot make the folder .*canary/in: Not a directory"):
        take_in(tmp_path / f"{ID}.zip", None, EDITION, tmp_path / "others" / "canary" / "in")
    with pytest.raises(UsageError, match="others is not an empty folder: name another, or empty it"):
        take_in(tmp_path / f"{ID}.zip", None, EDITION, tmp_path / "others")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    with pytest.raises(UsageError, match="link is not an empty folder"):
        take_in(tmp_path / f"{ID}.zip", None, EDITION, tmp_path / "link")


def test_nothing_is_written_over_or_through_what_is_there(tmp_path: Path) -> None:
    expected = pytest.raises(MinLlamaError, match=r"cannot write job\.py into .*: File exists: make room there")
    with intake._keeping(tmp_path / "others") as (keep, _), expected:
        keep("job.py", b"theirs")


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that puts a shell script in the place of the limited process, and gives the zip to read."""

    def replace(script: str) -> Path:
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\ncat > /dev/null\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        path = tmp_path / f"{ID}.zip"
        path.write_bytes(VALID)
        return path

    return replace


def test_a_full_disk_is_our_fault(tmp_path: Path, reader: Callable[[str], Path]) -> None:
    path = reader("""echo ready; echo '{"fault": "cannot write a.py into x: No space left on device"}'""")
    with pytest.raises(MinLlamaError, match=r"cannot write a\.py into x: No space left on device"):
        take_in(path, None, EDITION, tmp_path / "in")


def test_a_reader_that_does_not_start_is_our_fault(tmp_path: Path, reader: Callable[[str], Path]) -> None:
    with pytest.raises(MinLlamaError, match="the reader of submissions does not start: No module named autograder"):
        take_in(reader("echo No module named autograder >&2; exit 1"), None, EDITION, tmp_path / "in")
    (tmp_path / "python").unlink()
    with pytest.raises(MinLlamaError, match=r"cannot start .*python to read the submission: No such file"):
        take_in(tmp_path / f"{ID}.zip", None, EDITION, tmp_path / "in2")


# --- When the limited process ends early ------------------------------------------------------------------------------

ANSWER = {"student_id": ID, "files": [], "findings": []}


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", f"its reader ended with status -{signal.SIGSEGV.value}"),
        ("kill -KILL $$", f"its reader ended with status -{signal.SIGKILL.value}"),
        ("exit 3", "its reader ended with status 3"),
        ("kill -XCPU $$", "it takes too long"),
        ("sleep 60", "it takes too long"),
        ("echo nonsense", "its reader gave no answer that makes sense"),
        ("echo []", "its reader gave no answer that makes sense"),
        ("echo '{}'", "its reader gave no answer that makes sense"),
        (f"echo '{json.dumps(ANSWER)}'", "its reader gave no answer that makes sense"),
        (f"echo '{json.dumps(ANSWER | {'files': ['a.py']})}'; rm $IN/*", "its reader gave no answer that makes sense"),
        (
            f"echo '{json.dumps(ANSWER | {'student_id': '../x'})}'; rm $IN/*",
            "its reader gave no answer that makes sense",
        ),
        (
            f"echo '{json.dumps(ANSWER | {'findings': [{'evil': 1}]})}'; rm $IN/*",
            "its reader gave no answer that makes sense",
        ),
        ("head -c 5000000 /dev/zero | tr '\\0' '['", "its reader gave no answer that makes sense"),
        ("head -c 100000 /dev/zero | tr '\\0' '['", "its reader gave no answer that makes sense"),
        ("""echo '{"unsafe": "it needs too much memory"}'""", "it needs too much memory"),
    ],
)
def test_a_reader_that_ends_early_is_an_error_of_the_submission(
    script: str, reason: str, tmp_path: Path, reader: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_SECONDS", 2.0)
    path = reader(f"IN={tmp_path}/in; echo ready; echo half > $IN/half.py; {script}")
    result = take_in(path, ID, EDITION, tmp_path / "in")
    assert errors(result) == [f"the archive cannot be read safely: {reason}"]
    assert (result.readable, result.files, result.student_id) == (False, (), ID)
    assert result.sha256 == hashlib.sha256(VALID).hexdigest()
    assert unpacked(tmp_path) == {}


def test_a_reader_that_ends_while_it_compiles_has_answered(tmp_path: Path, reader: Callable[[str], Path]) -> None:
    answer = json.dumps(ANSWER | {"files": ["a.py"]})
    path = reader(f"echo ready; echo 1 > {tmp_path}/in/a.py; echo '{answer}'; echo '{{'; kill -SEGV $$")
    result = take_in(path, ID, EDITION, tmp_path / "in")
    assert (result.readable, result.files, result.caches) == (True, ("a.py",), {})


def test_the_students_modules_are_compiled_and_nothing_else(tmp_path: Path) -> None:
    added = {"mine.py": b"def f():\n    return 2\n", "config.py": b"x = 1\n", "notes.txt": b"x = 1\n"}
    result = taken(zip_bytes({**FILES, **added}), tmp_path)
    assert {"mine.py", "llama.py"} <= set(result.caches)
    assert not {"config.py", "notes.txt"} & set(result.caches)
    code = marshal.loads(result.caches["mine.py"][16:])
    names: dict[str, Any] = {}
    exec(code, names)
    assert (names["f"](), code.co_filename) == (2, "mine.py")


@pytest.mark.parametrize("source", [b"def f(:\n", b"1 is 1\n", b"\0", b"# coding: nonsense\n", b"(" * 5000])
def test_a_file_with_an_error_or_a_warning_is_left_to_the_sandbox(source: bytes) -> None:
    assert json.loads(compile_files({"a.py": source, "b.py": b"x = 1\n"}, ())).keys() == {"b.py"}


def test_what_is_compiled_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autograder.intake.compiled.MAX_BYTES", 500)
    files = {"a.py": b"x = 1\n", "b.py": b"x = '" + b"y" * 600 + b"'\n"}
    assert json.loads(compile_files(files, ())).keys() == {"a.py"}


@pytest.mark.parametrize("line", [b"", b"[]", b"{", b'{"a.py": 1}', b'{"a.py": "!"}', b"[" * 100_000, b"\xff"])
def test_caches_that_make_no_sense_are_none(line: bytes) -> None:
    assert read_caches(line, ["a.py"]) == {}


def test_only_files_that_are_there_have_caches() -> None:
    line = compile_files({"a.py": b"", "b.py": b""}, ()).encode()
    assert read_caches(line, ["a.py"]).keys() == {"a.py"}


def source_bomb() -> bytes:
    """Return a zip that takes long, and much memory, to look through."""
    source = b"".join(b"a%d=[%d,%d]\n" % (n, n, n) for n in range(18_000))
    return zip_bytes({**FILES, "a.py": source, "b.py": source, "c.py": source})


def test_the_limit_on_time_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_CPU_SECONDS", 1)
    assert errors(taken(source_bomb(), tmp_path)) == ["the archive cannot be read safely: it takes too long"]


def test_the_limit_on_memory_is_in_force(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_MEMORY", 60_000_000)
    result = taken(source_bomb(), tmp_path)
    assert any("memory" in what.lower() for what in errors(result))


def test_the_process_has_limits_and_imports_nothing_outside_the_standard_library() -> None:
    script = (
        "import sys, resource\nfrom autograder.intake import reader\nreader._limit(1 << 29, 5, 1 << 20)\n"
        "print(resource.getrlimit(resource.RLIMIT_AS), resource.getrlimit(resource.RLIMIT_CPU),"
        " resource.getrlimit(resource.RLIMIT_FSIZE)[0], resource.getrlimit(resource.RLIMIT_CORE)[0])\n"
        "print({'torch', 'numpy', 'pydantic'} & set(sys.modules))\n"
    )
    from subprocess import run

    environment = {"PYTHONPATH": str(ROOT)}
    done = run([sys.executable, "-P", "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "(536870912, 536870912) (5, 6) 1048576 0\nset()\n"


def test_the_environment_of_the_grader_does_not_reach_the_process(
    tmp_path: Path, reader: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADER_TOKEN", "secret")
    path = reader(f"env > {tmp_path}/seen; pwd >> {tmp_path}/seen; echo ready; echo '{json.dumps(ANSWER)}'")
    take_in(path, ID, EDITION, tmp_path / "in")
    seen = (tmp_path / "seen").read_text()
    assert "secret" not in seen
    assert str(ROOT) in seen.splitlines()


def test_a_quine_is_a_zip() -> None:
    with zipfile.ZipFile(io.BytesIO(quine())) as archive:
        assert archive.namelist() == [f"{ID}/llama.py", f"{ID}/{ID}.zip"]

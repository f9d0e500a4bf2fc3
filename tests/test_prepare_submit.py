"""Packing and checking a submission: `pytest tests/test_prepare_submit.py`.

Archives that no honest tool writes are made by hand: from a valid one by changing bytes of its headers.
"""

import io
import ntpath
import os
import posixpath
import re
import signal
import stat
import struct
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prepare_submit
import run_llama
import submission_check
from errors import SubmissionError, UsageError
from prepare_submit import make_archive
from submission_check import Problem, Report, check_student_id, verify_archive
from submission_rules import SUBMISSION
from tests.assets_dir import require_asset

ROOT = Path(__file__).resolve().parent.parent
ID = "abc123"
SST_FINETUNE = (
    "python run_llama.py --option finetune --epochs 5 --lr 2e-5 --batch_size 80 --train data/sst-train.txt "
    "--dev data/sst-dev.txt --test data/sst-test.txt --label-names data/sst-label-mapping.json "
    "--dev_out sst-dev-finetuning-output.txt --test_out sst-test-finetuning-output.txt"
)
CFIMDB_PROMPT = (
    "python run_llama.py --option prompt --batch_size 10 --train data/cfimdb-train.txt --dev data/cfimdb-dev.txt "
    "--test data/cfimdb-test.txt --label-names data/cfimdb-label-mapping.json "
    "--dev_out cfimdb-dev-prompting-output.txt --test_out cfimdb-test-prompting-output.txt"
)
# the tree that the original assignment asks for: none of the files that are new here
ORIGINAL = [
    *("run_llama.py", "base_llama.py", "llama.py", "rope.py", "classifier.py", "optimizer.py", "config.py"),
    *("sanity_check.py", "sanity_check.data", "tokenizer.py", "utils.py", "README.md", "structure.md", "setup.sh"),
    *("generated-sentence-temp-0.txt", "generated-sentence-temp-1.txt"),
    *("sst-dev-prompting-output.txt", "sst-test-prompting-output.txt"),
    *("sst-dev-finetuning-output.txt", "sst-test-finetuning-output.txt"),
    *("cfimdb-dev-prompting-output.txt", "cfimdb-test-prompting-output.txt"),
    *("cfimdb-dev-finetuning-output.txt", "cfimdb-test-finetuning-output.txt"),
]


def valid_files() -> dict[str, bytes]:
    """Return the files of a submission without a flaw."""
    files = dict.fromkeys(SUBMISSION.required + SUBMISSION.expected, b"x = 1\n")
    for output in SUBMISSION.outputs:
        if output.labels and "advanced" not in output.name:
            files[output.name] = b"".join(b"%d ||| Film %d .\n" % (n % output.labels, n) for n in range(output.rows))
        elif not output.labels:
            files[output.name] = SUBMISSION.prompt.encode() + b" a retired man.\n"
    return files


FILES = valid_files()


def zip_bytes(entries: dict[str, bytes], folder: str = f"{ID}/") -> bytes:
    """Return a zip of the entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(folder + name, data)
    return buffer.getvalue()


VALID = zip_bytes(FILES)


def with_entry(info: zipfile.ZipInfo | str, data: bytes = b"x = 1\n", valid: bytes = VALID) -> bytes:
    """Return a zip with one entry more, its name exactly as given."""
    buffer = io.BytesIO(valid)
    if isinstance(info, str):
        entry = zipfile.ZipInfo("placeholder")
        entry.filename = info  # past the constructor, which changes some names
        info = entry
    with zipfile.ZipFile(buffer, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of duplicate names
        archive.writestr(info, data)
    return buffer.getvalue()


def patched(data: bytes, name: str, local: int, central: int, value: bytes) -> bytes:
    """Return a zip with bytes of an entry's two headers replaced, at these offsets."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start = archive.getinfo(name).header_offset
    changed = bytearray(data)
    for place in (start + local, data.rfind(name.encode()) - 46 + central):
        changed[place : place + len(value)] = value
    return bytes(changed)


def renamed(placeholder: str, name: bytes) -> bytes:
    """Return a zip whose one extra entry has a name that the zipfile module would not write."""
    return patched(with_entry(placeholder), placeholder, 30, 46, name)


def spoilt(name: str) -> bytes:
    """Return a zip in which an entry's compressed bytes are nonsense."""
    start = VALID.index(name.encode()) + len(name)
    return VALID[:start] + b"\xff" * 8 + VALID[start + 8 :]


def with_mode(name: str, mode: int) -> bytes:
    """Return a zip with an entry of a special file type."""
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return with_entry(info, b"/etc/passwd")


def compressed(method: int, data: bytes = b"x = 1\n") -> bytes:
    """Return a zip with an entry that is compressed by a method of the zipfile module."""
    info = zipfile.ZipInfo(f"{ID}/extra.py")
    info.compress_type = method
    return with_entry(info, data)


def having(name: str, data: bytes = b"x = 1\n") -> bytes:
    """Return a zip of the valid files with one added or replaced."""
    return zip_bytes({**FILES, name: data})


def lacking(*names: str) -> bytes:
    """Return a zip of the valid files but some."""
    return zip_bytes({name: data for name, data in FILES.items() if name not in names})


def with_row(row: bytes, number: int = 3, name: str = "sst-dev-finetuning-output.txt") -> bytes:
    """Return a zip whose predictions have another row in one place."""
    rows = FILES[name].split(b"\n")
    rows[number - 1] = row
    return having(name, b"\n".join(rows))


def verify(data: bytes, tmp_path: Path) -> Report:
    """Check an archive of these bytes."""
    path = tmp_path / f"{ID}.zip"
    path.write_bytes(data)
    return verify_archive(path, ID)


def the_only(problems: list[Problem]) -> Problem:
    """Return the one problem of a list."""
    assert len(problems) == 1, problems
    return problems[0]


# --- What is accepted -------------------------------------------------------------------------------------------------


def test_a_submission_without_a_flaw_has_no_problems(tmp_path: Path) -> None:
    report = verify(VALID, tmp_path)
    assert report == Report(f"{ID}.zip")
    assert str(report) == "abc123.zip: no errors, no warnings: hand it in"


def test_a_submission_to_the_original_assignment_is_accepted(tmp_path: Path) -> None:
    files = {name: FILES[name] for name in ORIGINAL}
    files |= {"optimizer_test.py": b"x = 1\n", "optimizer_test.npy": b"\x93NUMPY"}
    report = verify(zip_bytes(files), tmp_path)
    assert not report.errors
    assert the_only(report.warnings).what == "not part of a submission: optimizer_test.npy"


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("sst-dev-advanced-output.txt", FILES["sst-dev-prompting-output.txt"]),
        ("abc123-report.pdf", b"%PDF-1.7\n"),
        ("run-info.json", b'{"seed": 1337}'),
        ("feedback.txt", b"good"),
        ("lora.py", b"rank = 4\n"),
        ("abstract.py", b"def f():\n    raise NotImplementedError\n"),
        ("escape.py", b"x = '\\d'  # Python warns of this\n"),
        ("my-own-output.txt", b"not rows, and no rule for them"),
        ("train.log", b""),
        ("requirements.txt", b"torch\n"),
        ("notes.md", "é".encode()),
        ("", b""),  # an entry for the folder itself, as many tools write
    ],
)
def test_optional_files_are_accepted(name: str, data: bytes, tmp_path: Path) -> None:
    assert verify(having(name, data), tmp_path) == Report(f"{ID}.zip")


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n"])
@pytest.mark.parametrize("line_break", [b"\n", b"\r\n"])
def test_rows_may_end_as_on_any_system(line_break: bytes, end: bytes, tmp_path: Path) -> None:
    name = "sst-test-prompting-output.txt"
    rows = (FILES[name].rstrip(b"\n") + end).replace(b"\n", line_break)
    assert verify(having(name, rows), tmp_path) == Report(f"{ID}.zip")


def test_a_sentence_may_hold_the_separator_and_unusual_line_breaks(tmp_path: Path) -> None:
    assert verify(with_row("4 ||| a ||| b \u2028 c \x85 d".encode()), tmp_path) == Report(f"{ID}.zip")


def test_the_real_sentences_make_good_rows(tmp_path: Path) -> None:
    files = dict(FILES)
    for output in SUBMISSION.outputs:
        if "prompting" in output.name:
            data_set, split = output.name.split("-")[:2]
            files[output.name] = require_asset(f"data/{data_set}-{split}.txt").read_bytes()
    assert verify(zip_bytes(files), tmp_path) == Report(f"{ID}.zip")


# --- Missing files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SUBMISSION.required)
def test_each_required_file_that_is_missing_is_an_error(name: str, tmp_path: Path) -> None:
    report = verify(lacking(name), tmp_path)
    assert the_only(report.errors).what == f"{name} is missing"
    assert not report.warnings


@pytest.mark.parametrize("name", SUBMISSION.expected)
def test_each_expected_file_that_is_missing_is_a_warning(name: str, tmp_path: Path) -> None:
    report = verify(lacking(name), tmp_path)
    assert the_only(report.warnings).what == f"{name} is missing"
    assert not report.errors


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("generated-sentence-temp-1.txt", "run `python run_llama.py --option generate`"),
        ("sst-test-finetuning-output.txt", f"run `{SST_FINETUNE}`"),
        ("cfimdb-dev-prompting-output.txt", f"run `{CFIMDB_PROMPT}`"),
        ("llama.py", "put your finished work into the folder"),
    ],
)
def test_a_missing_file_comes_with_the_command_that_makes_it(name: str, mend: str, tmp_path: Path) -> None:
    assert the_only(verify(lacking(name), tmp_path).errors).mend == mend


def test_files_of_one_command_are_missing_together(tmp_path: Path) -> None:
    outputs = ("sst-dev-finetuning-output.txt", "sst-test-finetuning-output.txt")
    problem = the_only(verify(lacking(*outputs), tmp_path).errors)
    assert problem == Problem(f"{outputs[0]}, {outputs[1]} are missing", f"run `{SST_FINETUNE}`")


def test_the_prompt_is_the_one_that_run_llama_uses() -> None:
    assert SUBMISSION.prompt == run_llama.PROMPT


def test_the_file_lists_have_the_sizes_of_the_course() -> None:
    assert len(SUBMISSION.required) == len(set(SUBMISSION.required)) == 15
    assert len(SUBMISSION.expected) == len(set(SUBMISSION.expected)) == 9
    assert {output.name for output in SUBMISSION.outputs} <= {*SUBMISSION.required, *SUBMISSION.optional}


# --- Every other error and warning ------------------------------------------------------------------------------------

Case = tuple[Callable[[], bytes], str, str]  # the archive, and parts of the one problem's text and mend
PACK = "pack the folder again with `python prepare_submit.py DIR abc123`"
SST_OUTPUT = "sst-dev-finetuning-output.txt"
FORBIDDEN = {
    "weights": ("a.pt", "A.PT", "a.bin", "a.safetensors", "a.gguf", "a.model", "a.ckpt"),
    "a data set": ("data/sst-train.txt",),
    "a virtual environment": (".venv/pyvenv.cfg", "venv/pyvenv.cfg"),
    "version control": (".git/HEAD",),
    "a cache": ("__pycache__/llama.pyc", ".mypy_cache/x", "llama.pyc"),
    "an archive": ("more.zip", "more.tar.gz"),
}
ARCHIVE_ERRORS: dict[str, Case] = {
    "no zip": (lambda: b"not a zip", "it is not a zip, or a damaged one", PACK),
    "cut": (lambda: VALID[: len(VALID) // 2], "it is not a zip, or a damaged one", PACK),
    "no entries": (lambda: zip_bytes({}), "it holds no files", PACK),
    "a list of entries that would fill the memory": (
        lambda: bytes(1 << 24) + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 1 << 24, 0, 0),
        "it is not a zip, or a damaged one: its list of entries is too long",
        PACK,
    ),
    "large": (
        lambda: having("big.log", os.urandom(10_100_000)),
        "it has 10.1 MB, and the limit is 10.0 MB",
        "leave out what is large: abc123/big.log (10.1 MB), ",
    ),
    "large when unpacked": (
        lambda: having("big.log", b"".join(os.urandom(4) + b" " * 60 for _ in range(640)) * 1300),
        "it unpacks to 53.4 MB, and the limit is 50.0 MB",
        "leave out what is large: abc123/big.log (53.2 MB), ",
    ),
    "many entries": (
        lambda: zip_bytes({**FILES, **{f"{n}.log": b"" for n in range(500)}}),
        "it holds 524 entries, and the limit is 500",
        PACK,
    ),
}
NAME_ERRORS: dict[str, Case] = {
    "absolute": (lambda: with_entry("/etc/cron.d/job"), "an absolute path: /etc/cron.d/job", PACK),
    "drive": (lambda: with_entry("C:/job.py"), "a drive letter, or a colon, in the name: C:/job.py", PACK),
    "parent": (lambda: with_entry(f"{ID}/../job.py"), "a path with `..`, ", PACK),
    "this folder": (lambda: with_entry(f"./{ID}/job.py"), "a path with `..`, an empty part", PACK),
    "empty part": (lambda: with_entry(f"{ID}//job.py"), "a path with `..`, an empty part", PACK),
    "parent on Windows": (lambda: with_entry(f"{ID}/.. /job.py"), "or a dot or space at the end", PACK),
    "empty": (lambda: with_entry(""), "an empty part", PACK),
    "backslashes": (
        lambda: renamed(f"{ID}/job.py", rb"abc123\job.py"),
        r"backslashes in the name: abc123\job.py",
        PACK,
    ),
    "NUL": (
        lambda: renamed(f"{ID}/job.py1", b"abc123/job.py\0"),
        r"control characters in the name: 'abc123/job.py\x00'",
        PACK,
    ),
    "terminal codes": (lambda: with_entry(f"{ID}/\x1b[2J.py"), r"in the name: 'abc123/\x1b[2J.py'", PACK),
    "right-to-left": (lambda: with_entry(f"{ID}/\u202eyp.py"), r"in the name: 'abc123/\u202eyp.py'", PACK),
    "twice": (lambda: with_entry(f"{ID}/llama.py"), "entries whose name is taken", "keep one of each"),
    "case": (lambda: with_entry(f"{ID}/LLAMA.py"), "is taken, in the same or another spelling", "keep one of each"),
    "accents": (
        lambda: with_entry(f"{ID}/e\u0301.py", valid=with_entry(f"{ID}/\u00e9.py")),
        r"is taken, in the same or another spelling: 'abc123/e\u0301.py'",
        "keep one of each",
    ),
    "file and folder": (lambda: with_entry(f"{ID}/llama.py/"), "entries whose name is taken", "keep one of each"),
}
DATA_ERRORS: dict[str, Case] = {
    "symlink": (
        lambda: with_mode(f"{ID}/job.py", stat.S_IFLNK | 0o777),
        "a link or special file: abc123/job.py",
        "put the file itself in its place",
    ),
    "device": (
        lambda: with_mode(f"{ID}/job.py", stat.S_IFBLK | 0o666),
        "a link or special file: abc123/job.py",
        "put the file itself in its place",
    ),
    "encrypted": (
        lambda: patched(VALID, f"{ID}/llama.py", 6, 8, b"\1\0"),
        "encrypted: abc123/llama.py",
        "pack it without a password",
    ),
    "bzip2": (lambda: compressed(zipfile.ZIP_BZIP2), "compressed by an unusual method: abc123/extra.py", PACK),
    "unknown method": (
        lambda: patched(VALID, f"{ID}/llama.py", 8, 10, b"\x63\0"),
        "compressed by an unusual method: abc123/llama.py",
        PACK,
    ),
    "bomb": (
        lambda: compressed(zipfile.ZIP_DEFLATED, bytes(2_000_000)),
        "suspiciously well compressed: abc123/extra.py",
        "leave the file out, or shorten it",
    ),
    "checksum": (
        lambda: patched(VALID, f"{ID}/llama.py", 14, 16, bytes(4)),
        "llama.py cannot be unpacked: Bad CRC-32",
        PACK,
    ),
    "forged size": (
        lambda: patched(VALID, f"{ID}/llama.py", 22, 24, b"\2\0\0\0"),
        "llama.py cannot be unpacked: Bad CRC-32",
        PACK,
    ),
    "spoilt bytes": (lambda: spoilt(f"{ID}/llama.py"), "llama.py cannot be unpacked: ", PACK),
}
LAYOUT_ERRORS: dict[str, Case] = {
    "no folder": (
        lambda: zip_bytes(FILES, ""),
        "its files are not in a folder `abc123/`",
        "zip the folder, not what is in it",
    ),
    "beside the folder": (
        lambda: with_entry("lora.py"),
        "files beside the folder: lora.py",
        "move them into `abc123/`",
    ),
    "two folders": (
        lambda: with_entry("xyz/lora.py"),
        "it holds 2 folders: abc123, xyz",
        "leave only `abc123/` in it",
    ),
    "wrong ID": (
        lambda: zip_bytes(FILES, "xyz/"),
        "the folder's name is `xyz`, not `abc123`",
        "name the folder `abc123`, in lower case, and zip it again",
    ),
    "wrong case": (
        lambda: zip_bytes(FILES, "ABC123/"),
        "the folder's name is `ABC123`, not `abc123`",
        "name the folder `abc123`, in lower case, and zip it again",
    ),
    "subfolder": (
        lambda: having("scripts/run.sh"),
        "folders in the folder: scripts/",
        "move their files up into `abc123/`, or leave them out",
    ),
    **{
        name: (partial(having, name), f"{kind} may not be in it: {name.split('/')[0]}", "leave it out")
        for kind, names in FORBIDDEN.items()
        for name in names
    },
}
CONTENT_ERRORS: dict[str, Case] = {
    "empty source": (lambda: having("llama.py", b" \n"), "llama.py is empty", "put your finished file in its place"),
    "empty output": (lambda: having(SST_OUTPUT, b"\n"), f"{SST_OUTPUT} is empty", SST_FINETUNE),
    "empty text": (
        lambda: having("generated-sentence-temp-0.txt", b""),
        "generated-sentence-temp-0.txt is empty",
        "run `python run_llama.py --option generate`",
    ),
    "text not UTF-8": (
        lambda: having("generated-sentence-temp-0.txt", b"caf\xe9"),
        "generated-sentence-temp-0.txt:1: not UTF-8 text",
        "run `python run_llama.py --option generate`",
    ),
    "row not UTF-8": (lambda: with_row(b"1 ||| caf\xe9"), f"{SST_OUTPUT}:3: not UTF-8 text", SST_FINETUNE),
    "no separator": (lambda: with_row(b"1 a"), f"{SST_OUTPUT}:3: the row is not `label ||| sentence`", SST_FINETUNE),
    "no sentence": (lambda: with_row(b"1 ||| "), f"{SST_OUTPUT}:3: the row is not `label ||| ", SST_FINETUNE),
    "no number": (lambda: with_row(b"good ||| a"), f"{SST_OUTPUT}:3: the label 'good' is not an integer", SST_FINETUNE),
    "huge label": (lambda: with_row(b"9" * 5000 + b" ||| a"), f"{SST_OUTPUT}:3: the label '9999", SST_FINETUNE),
    "label too high": (lambda: with_row(b"5 ||| a"), f"{SST_OUTPUT}:3: the label 5 is not in 0 to 4", SST_FINETUNE),
    "label too low": (lambda: with_row(b"-1 ||| a"), f"{SST_OUTPUT}:3: the label -1 is not in 0 to 4", SST_FINETUNE),
    "CFIMDB's labels": (
        lambda: with_row(b"2 ||| a", 7, "cfimdb-dev-prompting-output.txt"),
        "cfimdb-dev-prompting-output.txt:7: the label 2 is not in 0 to 1",
        CFIMDB_PROMPT,
    ),
    "own output": (
        lambda: having("cfimdb-dev-advanced-output.txt", FILES["cfimdb-dev-prompting-output.txt"][1:]),
        "cfimdb-dev-advanced-output.txt:1: the label '' is not an integer",
        "write it again with your own program, or leave it out",
    ),
    "syntax": (
        lambda: having("llama.py", b"x = 1\ndef f(:\n"),
        "llama.py:2: invalid syntax",
        "`python -m py_compile llama.py` shows the place",
    ),
    "syntax of an own file": (lambda: having("lora.py", b"if x\n"), "lora.py:1: expected ':'", "py_compile lora.py"),
    "NUL in source": (lambda: having("lora.py", b"a\0b"), "lora.py:1: ", "py_compile lora.py"),
    "unknown encoding": (lambda: having("lora.py", b"# coding: none\n"), "lora.py:", "py_compile lora.py"),
    "deep source": (lambda: having("lora.py", b"-" * 100_000 + b"1"), "lora.py:1: Python cannot parse it", "correct"),
    "long source": (
        lambda: having("lora.py", b"x = 1\n" * 90_000),
        "lora.py has 540000 bytes, and the limit is 500000",
        "move its data elsewhere",
    ),
    "report": (
        lambda: having("abc123-report.pdf", b"PK"),
        "abc123-report.pdf is not a PDF",
        "export the report as PDF",
    ),
}
ERRORS = ARCHIVE_ERRORS | NAME_ERRORS | DATA_ERRORS | LAYOUT_ERRORS | CONTENT_ERRORS
WARNINGS: dict[str, Case] = {
    "__MACOSX": (
        lambda: with_entry("__MACOSX/abc123/._llama.py"),
        "macOS's own files are in it",
        "run `zip -d abc123.zip '__MACOSX/*' '*.DS_Store' '*/._*'`",
    ),
    ".DS_Store": (lambda: having(".DS_Store"), "macOS's own files are in it", PACK),
    "report of another name": (
        lambda: having("report.pdf", b"%PDF-1.7"),
        "a PDF that is not named as the report: report.pdf",
        "if it is your report, name it `abc123-report.pdf`",
    ),
    "unknown file": (lambda: having("Makefile"), "not part of a submission: Makefile", "leave out"),
    "hidden file": (lambda: having(".notes.txt"), "not part of a submission: .notes.txt", "leave out"),
    "row count": (
        lambda: having(SST_OUTPUT, b"1 ||| a\n2 ||| b\n"),
        f"{SST_OUTPUT} has 2 rows, for 1101 sentences in the published data",
        SST_FINETUNE,
    ),
    "another prompt": (
        lambda: having("generated-sentence-temp-0.txt", b"Once upon a time"),
        "generated-sentence-temp-0.txt does not begin with the fixed prompt",
        "run `python run_llama.py --option generate`",
    ),
    "not implemented": (
        lambda: having("rope.py", b"if x:\n    raise NotImplementedError\n\nraise NotImplementedError('later')\n"),
        "NotImplementedError is still raised: rope.py:2, rope.py:4",
        "write these parts",
    ),
    "run-info": (lambda: having("run-info.json", b"{"), "run-info.json is not valid JSON", "`run_llama.py` again"),
    "deep run-info": (lambda: having("run-info.json", b"[" * 200_000), "run-info.json is not valid JSON", "leave it"),
}


@pytest.mark.parametrize("case", ERRORS.values(), ids=ERRORS)
def test_each_error_is_one_clear_line_with_its_mend(case: Case, tmp_path: Path) -> None:
    make, what, mend = case
    problem = the_only(verify(make(), tmp_path).errors)
    assert what in problem.what
    assert mend in problem.mend


@pytest.mark.parametrize("case", WARNINGS.values(), ids=WARNINGS)
def test_each_warning_is_one_clear_line_with_its_mend(case: Case, tmp_path: Path) -> None:
    make, what, mend = case
    report = verify(make(), tmp_path)
    problem = the_only(report.warnings)
    assert not report.errors
    assert what in problem.what
    assert mend in problem.mend


def test_two_names_for_one_entry_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer versions of the zipfile module take a second name from an extra field."""

    def infolist(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
        archive.filelist[0].filename = f"{ID}/other.py"
        return archive.filelist

    monkeypatch.setattr(zipfile.ZipFile, "infolist", infolist)
    assert verify(VALID, tmp_path).errors[0] == Problem("two names for one entry: abc123/run_llama.py", PACK)


def test_all_problems_are_reported_at_once(tmp_path: Path) -> None:
    files = {name: data for name, data in FILES.items() if name not in ("llama.py", "setup.sh")}
    files |= {"rope.py": b"(", "data/x": b"", "a.pt": b"", "Makefile": b"all:\n"}
    report = verify(with_entry("/x", valid=zip_bytes(files, "xyz/")), tmp_path)
    assert [problem.what for problem in report.errors] == [
        "an absolute path: /x",
        "the folder's name is `xyz`, not `abc123`",
        "a data set may not be in it: data",
        "weights may not be in it: a.pt",
        "llama.py is missing",
        "rope.py:1: '(' was never closed",
    ]
    assert [problem.what for problem in report.warnings] == [
        "not part of a submission: Makefile",
        "setup.sh is missing",
    ]


def test_an_environment_in_the_archive_is_one_error(tmp_path: Path) -> None:
    report = verify(zip_bytes({**FILES, **{f".venv/lib/{n}.py": b"" for n in range(300)}}), tmp_path)
    assert the_only(report.errors).what == "a virtual environment may not be in it: .venv"


def test_the_report_reads_as_a_list() -> None:
    report = Report("abc123.zip")
    report.error("a is missing", "make a")
    report.error("b is missing", "make b")
    report.warn("c", "do d")
    assert str(report) == textwrap.dedent("""\
        abc123.zip: 2 errors, 1 warning
        error: a is missing
               make a
        error: b is missing
               make b
        warning: c
                 do d""")


# --- Hostile archives -------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(["..", ".", "", "a", ID, "llama.py", "C:", ".. ", "...", "~", "\\", "/", r"a\..", "x\0", "nul"])


def escapes(name: str) -> bool:
    """Say whether a name leads out of the folder that it is unpacked into, on one system or another."""
    trimmed = "/".join(part.strip() for part in name.split("/"))  # as Windows does
    return any(
        system.isabs(name) or ntpath.splitdrive(name)[0] or system.normpath(path).replace("\\", "/").startswith("..")
        for system in (posixpath, ntpath)
        for path in (name, trimmed)
    )


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.lists(PARTS, min_size=1, max_size=6).map("/".join) | st.text(max_size=8))
def test_a_name_that_escapes_is_never_accepted(name: str, tmp_path: Path) -> None:
    path = tmp_path / "abc123.zip"
    path.write_bytes(with_entry(name, valid=zip_bytes({"llama.py": b"x = 1\n"})))
    errors = verify_archive(path, ID, replace(SUBMISSION, required=("llama.py",))).errors
    if escapes(name):
        assert errors
    if not errors:  # what is accepted lies directly in the folder, or is what macOS adds
        assert re.fullmatch(rf"{ID}/[^/\\:\0]*|(__MACOSX/?|.*\.DS_Store|.*\._).*", name)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0), st.binary(min_size=1, max_size=4)), min_size=1, max_size=6))
def test_no_damage_to_an_archive_ends_in_a_traceback(changes: list[tuple[int, bytes]], tmp_path: Path) -> None:
    small = zip_bytes({"llama.py": b"x = 1\n", "setup.sh": b"echo\n" * 9})
    data = bytearray(small)
    for place, value in changes:
        place %= len(small)
        data[place : place + len(value)] = value
    report = verify(bytes(data), tmp_path)
    assert report.errors  # most files are missing in any case
    assert str(report).isascii()


def test_checking_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    verify(with_entry(f"{ID}/../../job.py"), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.zip"]


# --- Making an archive ------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A student's working folder, with what belongs in a submission and what does not; the tests run beside it."""
    work = tmp_path / "work"
    for name in ("data", ".git", ".venv", "scripts"):
        (work / name).mkdir(parents=True)
        (work / name / "inner.py").write_text("x = 1\n")
    others = {"stories42M.pt": b"weights", "Makefile": b"all:\n", ".hidden.txt": b"x", "lora.py": b"rank = 4\n"}
    for name, data in {**FILES, **others}.items():
        (work / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return work


def test_a_folder_is_packed_and_checked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare_submit.main([str(folder), ID]) == 0
    assert capsys.readouterr().out == (
        "wrote abc123.zip with 25 files\nabc123.zip: no errors, no warnings: hand it in\n"
    )
    with zipfile.ZipFile("abc123.zip") as archive:
        assert archive.namelist() == sorted(f"{ID}/{name}" for name in [*FILES, "lora.py"])
        assert archive.read("abc123/rope.py") == FILES["rope.py"]
    assert prepare_submit.main(["abc123.zip", ID]) == 0


def test_a_folder_with_gaps_is_packed_and_the_gaps_are_reported(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / SST_OUTPUT).unlink()
    (folder / "setup.sh").unlink()
    assert prepare_submit.main([str(folder), ID]) == 1
    assert capsys.readouterr().out == textwrap.dedent(f"""\
        wrote abc123.zip with 23 files
        abc123.zip: 1 error, 1 warning
        error: {SST_OUTPUT} is missing
               run `{SST_FINETUNE}`
        warning: setup.sh is missing
                 copy from the hand-out into the folder
        """)


def test_warnings_alone_are_no_failure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "setup.sh").unlink()
    assert prepare_submit.main([str(folder), ID]) == 0
    assert "abc123.zip: no errors, 1 warning\n" in capsys.readouterr().out


def test_a_report_of_another_name_is_not_packed_silently(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "Report.PDF").write_bytes(b"%PDF-1.7")
    assert prepare_submit.main([str(folder), ID]) == 0
    assert "warning: a PDF that is not named as the report: Report.PDF\n" in capsys.readouterr().out
    (folder / "abc123-report.pdf").write_bytes(b"%PDF-1.7")
    assert prepare_submit.main([str(folder), ID]) == 0
    assert "no errors, no warnings" in capsys.readouterr().out


def test_the_same_files_make_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    make_archive(folder, ID, tmp_path / "first.zip")
    for path in folder.iterdir():
        os.utime(path, (1, 1))
        path.chmod(0o700)
    make_archive(folder, ID, tmp_path / "second.zip")
    assert (tmp_path / "first.zip").read_bytes() == (tmp_path / "second.zip").read_bytes()


def test_a_zip_under_another_name_is_a_warning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_archive(folder, ID, "mine.zip")
    assert prepare_submit.main(["mine.zip", ID]) == 0
    assert capsys.readouterr().out == (
        "mine.zip: no errors, 1 warning\nwarning: its own name is not abc123.zip\n         rename it\n"
    )


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_run_leaves_the_old_archive_whole(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "abc123.zip").write_bytes(VALID)
    code = """if True:
        import os, shutil, signal, sys
        import prepare_submit
        packed = []
        def copy(source, target):
            packed.append(source)
            target.write(source.read())
            if len(packed) == 5:
                os.kill(os.getpid(), signal.SIGKILL)
        shutil.copyfileobj = copy
        prepare_submit.main(sys.argv[1:])
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    run = subprocess.run([sys.executable, "-c", code, str(folder), ID], env=environment, cwd=tmp_path, timeout=60)
    assert run.returncode == -signal.SIGKILL
    assert (tmp_path / "abc123.zip").read_bytes() == VALID


def test_a_failed_run_leaves_nothing_behind(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(source: object, target: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copyfileobj", copy)
    with pytest.raises(SubmissionError, match=r"cannot pack .*: disk full"):
        make_archive(folder, ID, "abc123.zip")
    assert list(tmp_path.iterdir()) == [folder]


# --- Arguments that are unusable --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "student_id", ["", "ABC123", "-a", ".a", "a.", "_a", "a/b", "a\\b", "a b", "é", "a\n", "a" * 65]
)
def test_an_unusable_id_is_refused(student_id: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="cannot be a student's ID: use lower-case letters"):
        verify_archive("abc123.zip", student_id)
    with pytest.raises(UsageError, match="cannot be a student's ID: use lower-case letters"):
        make_archive(folder, student_id, "abc123.zip")
    assert prepare_submit.main([str(folder), "--", student_id]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("student_id", ["a", "1", "abc123", "j.doe-2_x", "a" * 64])
def test_usual_ids_are_accepted(student_id: str) -> None:
    check_student_id(student_id)


def test_a_path_that_is_not_there_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SubmissionError, match="there is no folder or zip"):
        verify_archive(tmp_path / "none.zip", ID)
    assert prepare_submit.main([str(tmp_path / "none.zip"), ID]) == 2
    assert capsys.readouterr().err.startswith("error: there is no folder or zip")


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(submission_check, "CappedFile", refuse)
    with pytest.raises(SubmissionError, match=r"cannot read .*abc123.zip: Permission denied"):
        verify(VALID, tmp_path)


def test_a_folder_without_a_submission_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"holds no file of a submission: name the folder of llama\.py"):
        make_archive(tmp_path, ID, tmp_path / "abc123.zip")
    assert list(tmp_path.iterdir()) == []


def test_help_needs_no_torch_and_shows_an_example() -> None:
    command = [sys.executable, "-X", "importtime", str(ROOT / "prepare_submit.py"), "--help"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "example: python prepare_submit.py . abc123" in run.stdout
    assert "torch" not in run.stderr

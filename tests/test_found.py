"""What a class folder or a platform's export holds: run with `pytest tests/test_found.py`."""

import json
import os
import stat
import string
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.batch import exports
from autograder.batch.found import find_entries
from autograder.batch.records import Entry, Row
from autograder.gradebook.matching import match
from autograder.gradebook.roster import Roster, Student
from errors import MissingDependency, UsageError

METADATA = """\
---
submission_101:
  :submitters:
  - :name: Doe, Jane
    :sid: 0012
    :email: jane@x.edu
  :created_at: 2026-01-15 10:00:00.123456789 -08:00
  :score: 12.5
submission_102:
  :submitters:
  - :name: 'Ann; <b>'
    :sid: '7'
    :email: ann@x.edu
  - :name: Bob
    :sid:
    :email: bob@x.edu
  :created_at: !ruby/object:ActiveSupport::TimeWithZone
    utc: 2026-01-16 00:00:00.000000000 Z
  :score:
submission_103:
  :submitters: []
  :created_at: yesterday
"""


def make_zip(path: Path, names: Mapping[str, bytes]) -> Path:
    """Write a zip of these files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in names.items():
            archive.writestr(name, data)
    return path


def find(folder: Path) -> dict[str, Entry]:
    """Return the entries of a folder or zip by their names."""
    entries = find_entries(folder, folder.parent / "out" / "submissions")
    assert [entry.name for entry in entries] == sorted({entry.name for entry in entries})
    return {entry.name: entry for entry in entries}


def problems(folder: Path) -> dict[str, str]:
    """Return the entries that cannot be graded, with the reason."""
    return {name: entry.problem for name, entry in find(folder).items() if entry.problem}


# --- a plain folder ---


def plain_class(folder: Path) -> Path:
    """Write a class as somebody collects it by hand."""
    make_zip(folder / "abc1.zip", {"abc1/llama.py": b"1"})
    make_zip(folder / "abc2.ZIP", {"abc2/llama.py": b"2"})
    (folder / "abc3").mkdir()
    (folder / "abc3" / "llama.py").write_text("3")
    (folder / "notes.txt").write_text("to do")
    (folder / ".DS_Store").write_bytes(b"")
    (folder / ".hidden").mkdir()
    (folder / "__MACOSX").mkdir()
    (folder / "Thumbs.db").write_bytes(b"")
    return folder


def test_zips_and_folders_are_submissions_and_other_files_are_told(tmp_path: Path) -> None:
    found = find(plain_class(tmp_path / "class"))
    assert list(found) == ["abc1.zip", "abc2.ZIP", "abc3", "notes.txt"]
    assert found["abc1.zip"] == Entry("abc1.zip", str(tmp_path / "class" / "abc1.zip"))
    assert problems(tmp_path / "class") == {"notes.txt": "it is neither a zip nor a folder: ask for a zip"}


def test_links_and_special_files_are_no_submissions(tmp_path: Path) -> None:
    folder = plain_class(tmp_path / "class")
    (folder / "link.zip").symlink_to(folder / "abc1.zip")
    os.mkfifo(folder / "pipe.zip")
    found = problems(folder)
    assert found.keys() == {"link.zip", "pipe.zip", "notes.txt"} and "link" in found["link.zip"]


def test_a_name_that_is_no_text_is_told_and_written_as_text(tmp_path: Path) -> None:
    folder = plain_class(tmp_path / "class")
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/\xff.zip")).write_bytes(b"")
    except OSError:
        pytest.skip("skipped: this file system takes UTF-8 alone")
    found = find(folder)
    assert "UTF-8" in found["\\xff.zip"].problem
    json.dumps([found["\\xff.zip"].name, found["\\xff.zip"].path]).encode()


def test_results_that_are_written_into_the_class_are_no_submission(tmp_path: Path) -> None:
    folder = plain_class(tmp_path / "class")
    (folder / "out").mkdir()
    assert "out" not in {entry.name for entry in find_entries(folder, folder / "out" / "submissions")}


def test_a_zip_of_a_plain_class_is_unpacked_and_its_only_folder_entered(tmp_path: Path) -> None:
    inner = make_zip(tmp_path / "inner.zip", {"abc1/llama.py": b"1"}).read_bytes()
    archive = make_zip(tmp_path / "class.zip", {"week 3/abc1.zip": inner, "week 3/notes.txt": b"", "__MACOSX/x": b""})
    found = find(archive)
    assert list(found) == ["abc1.zip", "notes.txt"]
    assert Path(found["abc1.zip"].path) == tmp_path / "out" / "submissions" / "week 3" / "abc1.zip"


def test_a_folder_with_one_submission_is_not_entered(tmp_path: Path) -> None:
    (tmp_path / "class" / "abc1").mkdir(parents=True)
    (tmp_path / "class" / "abc1" / "llama.py").write_text("1")
    assert list(find(tmp_path / "class")) == ["abc1"]


@pytest.mark.parametrize("junk", [[], [".DS_Store"]])
def test_an_empty_folder_says_what_belongs_there(tmp_path: Path, junk: list[str]) -> None:
    (tmp_path / "class").mkdir()
    for name in junk:
        (tmp_path / "class" / name).write_bytes(b"")
    with pytest.raises(UsageError, match=r"class holds no submissions: put each student's zip there, or name the zip"):
        find(tmp_path / "class")


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing cannot be read \(No such file"):
        find(tmp_path / "nothing")


# --- Canvas ---

CANVAS = {
    "doejane_12345_678_abc1.zip": b"PK",
    "roejohn_LATE_12346_679_my_final_work-2.zip": b"PK",
    "leeann_12347_text.html": b"<p>I handed it in by mail</p>",
    "poebo_12348_680_work.pdf": b"%PDF",
}


@pytest.mark.parametrize("zipped", [True, False])
def test_canvas_names_say_whose_it_is_and_whether_it_is_late(tmp_path: Path, zipped: bool) -> None:
    archive = make_zip(tmp_path / "submissions.zip", CANVAS)
    if not zipped:
        zipfile.ZipFile(archive).extractall(tmp_path / "class")
    found = find(archive if zipped else tmp_path / "class")
    assert list(found) == sorted(CANVAS)
    jane, john, ann, bo = (found[name] for name in CANVAS)
    assert (jane.student_name, jane.platform_id, jane.attempt, jane.is_late) == ("doejane", "12345", 0, False)
    assert (john.student_name, john.platform_id, john.attempt, john.is_late) == ("roejohn", "12346", 2, True)
    assert jane.student_id is None and not jane.problem and not john.problem
    assert ann.platform_id == "12347" and bo.platform_id == "12348" and ann.problem and bo.problem


def test_a_few_odd_names_do_not_hide_that_it_is_canvas(tmp_path: Path) -> None:
    for name in ("doejane_1_2_a.zip", "roejohn_3_4_a.zip", "by mail.zip"):
        make_zip(tmp_path / "class" / name, {"a": b""})
    found = find(tmp_path / "class")
    assert [entry.platform_id for entry in found.values()] == ["? by mail.zip", "1", "3"]
    assert not found["by mail.zip"].problem


def test_what_canvas_does_not_name_is_nobodys_whatever_it_calls_itself(tmp_path: Path) -> None:
    for name in ("doejane_1_2_a.zip", "roejohn_3_4_a.zip", "leeann_5_6_a.zip", "doejane.zip", "1;1.zip"):
        make_zip(tmp_path / "class" / name, {"doejane/a": b""})
    entries = list(find(tmp_path / "class").values())
    roster = Roster((Student("doejane", "Doe, Jane", canvas_id="1", login="doejane"),))
    rows = {entry.name: Row(entry.name, "key", "graded", "doejane") for entry in entries}
    whose = {item.entry.name: [one.known for one in item.students] for item in match(entries, rows, roster)}
    assert whose == {
        "1;1.zip": [False],
        "doejane.zip": [False],
        "doejane_1_2_a.zip": [True],
        "leeann_5_6_a.zip": [False],
        "roejohn_3_4_a.zip": [False],
    }


@pytest.mark.parametrize(
    ("name", "whose"),
    [
        ("o_brien_101_9_bo22.zip", ("o_brien", "101", False, 0)),
        ("o_brien_LATE_101_9_bo22-3.zip", ("o_brien", "101", True, 3)),
        ("o_5_brien_101_9_a_b.zip", ("o_5_brien", "101", False, 0)),
        ("doe_101_9_late_102_10_x.zip", ("doe", "101", False, 0)),  # whatever a student calls a file
        ("doe_101_9_LATE_102_10_x.zip", ("doe", "101", False, 0)),
        ("_101_9_x.zip", ("", "? _101_9_x.zip", False, 0)),
    ],
)
def test_a_persons_name_may_hold_underscores(tmp_path: Path, name: str, whose: tuple[object, ...]) -> None:
    for written in ("doejane_1_2_a.zip", "roejohn_3_4_a.zip", name):
        make_zip(tmp_path / "class" / written, {"a": b""})
    entry = find(tmp_path / "class")[name]
    assert (entry.student_name, entry.platform_id, entry.is_late, entry.attempt) == whose


def test_one_such_name_among_others_is_no_canvas(tmp_path: Path) -> None:
    for name in ("hw_1_2_a.zip", "abc1.zip"):
        make_zip(tmp_path / "class" / name, {"a": b""})
    assert [entry.platform_id for entry in find(tmp_path / "class").values()] == ["", ""]


@given(
    name=st.from_regex(r"[a-z]([a-z_]*[a-z])?", fullmatch=True),
    is_late=st.booleans(),
    numbers=st.tuples(st.integers(1, 10**9), st.integers(1, 10**9)),
    stem=st.text(string.ascii_letters + string.digits + "_ .()", min_size=1).filter(lambda text: text.strip(" .")),
    attempt=st.integers(0, 99),
)
def test_a_canvas_name_can_be_taken_apart_again(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    is_late: bool,
    numbers: tuple[int, int],
    stem: str,
    attempt: int,
) -> None:
    file = f"{stem}-{attempt}" if attempt else stem
    written = f"{name}{'_LATE' if is_late else ''}_{numbers[0]}_{numbers[1]}_{file}.zip"[:200]
    if not written.endswith(".zip"):
        return
    folder = tmp_path_factory.mktemp("class")
    (folder / written).write_bytes(b"")
    (entry,) = find_entries(folder, folder / "out" / "submissions")
    assert (entry.student_name, entry.is_late, entry.platform_id) == (name, is_late, str(numbers[0]))
    assert entry.attempt == attempt


# --- Gradescope ---


def gradescope_class(folder: Path) -> Path:
    """Write an export: a zip, loose files of a group, one that is not there, and one that nobody lists."""
    make_zip(folder / "submission_101" / "abc1.zip", {"abc1/llama.py": b"1"})
    (folder / "submission_102").mkdir()
    for name in ("llama.py", "rope.py"):
        (folder / "submission_102" / name).write_text("2")
    (folder / "submission_999").mkdir()
    (folder / "submission_metadata.yml").write_text(METADATA, encoding="utf-8")
    return folder


@pytest.mark.parametrize("zipped", [True, False])
def test_gradescope_says_who_handed_in_and_when(tmp_path: Path, zipped: bool) -> None:
    folder = gradescope_class(tmp_path / "class")
    if zipped:
        files = {f"export/{path.relative_to(folder)}": path for path in folder.rglob("*") if path.is_file()}
        folder = make_zip(tmp_path / "export.zip", {name: path.read_bytes() for name, path in files.items()})
    found = find(folder)
    jane, group = found["submission_101/abc1.zip"], found["submission_102"]
    assert (jane.student_name, jane.platform_id, jane.email) == ("Doe, Jane", "0012", "jane@x.edu")
    assert jane.submitted_at == "2026-01-15T10:00:00-08:00" and jane.student_id is None
    assert group.student_name == "Ann, <b>;Bob" and group.platform_id == "7;" and group.email == "ann@x.edu;bob@x.edu"
    assert group.submitted_at == "2026-01-16T00:00:00+00:00" and group.student_id == "ann"
    assert found["submission_103"].submitted_at == "" and "not there" in found["submission_103"].problem
    assert ("submission_999" in found) is not zipped  # an empty folder is not in that zip


def test_an_empty_folder_of_an_export_was_no_submission(tmp_path: Path) -> None:
    folder = gradescope_class(tmp_path / "class")
    (folder / "submission_103").mkdir()
    assert "nothing was handed in" in problems(folder)["submission_103"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("submission_1: [", r"submission_metadata.yml:[12]: this is no YAML \(.*\): export the submissions again"),
        ("a:\n  b\n c: d", r"submission_metadata.yml:3: this is no YAML"),
        ("- a list", r"submission_metadata.yml:1: expected `submission_NUMBER:`"),
        ("[" * 5000, r"this is no YAML"),
    ],
)
def test_a_damaged_metadata_file_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    folder = gradescope_class(tmp_path / "class")
    (folder / "submission_metadata.yml").write_text(text)
    with pytest.raises(UsageError, match=message):
        find(folder)


def test_a_metadata_file_that_leads_elsewhere_is_not_read(tmp_path: Path) -> None:
    folder = gradescope_class(tmp_path / "class")
    (folder / "submission_metadata.yml").rename(tmp_path / "elsewhere.yml")
    (folder / "submission_metadata.yml").symlink_to(tmp_path / "elsewhere.yml")
    with pytest.raises(UsageError, match="no file that Gradescope writes"):
        find(folder)


def test_without_pyyaml_the_line_that_installs_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(MissingDependency, match="pip install pyyaml"):
        find(gradescope_class(tmp_path / "class"))


# --- what a stranger puts into a zip ---


def entry_of(name: str, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    """Return an entry with odd properties."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = mode << 16
    entry.flag_bits = flags
    return entry


def hostile_zip(path: Path) -> Path:
    """Write a zip with one good submission and much that is unsafe."""
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("good.zip", b"PK")
        archive.writestr("../slipped.zip", b"x")
        archive.writestr("/absolute.zip", b"x")
        archive.writestr("C:\\drive.zip", b"x")
        archive.writestr(entry_of("link.zip", stat.S_IFLNK | 0o777), b"/etc/passwd")
        archive.writestr(entry_of("device.zip", stat.S_IFCHR | 0o666), b"")
        archive.writestr("good.zip", b"again")
        archive.writestr("GOOD.zip", b"again")
        archive.writestr("good.zip/below", b"x")
        archive.writestr("colour\x1b[31m.zip", b"x")
        archive.writestr("l" * 300 + ".zip", b"x")
        archive.writestr("deep/" * 300 + "a.zip", b"x")
        archive.writestr("bomb.zip", bytes(3_000_000), zipfile.ZIP_DEFLATED)
    return path


def test_what_is_unsafe_is_told_and_not_written(tmp_path: Path) -> None:
    found = problems(hostile_zip(tmp_path / "class.zip"))
    for name, reason in {
        "..": "`..`",
        "absolute.zip": "absolute",
        "C:\\drive.zip": "backslash",
        "link.zip": "link",
        "device.zip": "special file",
        "good.zip (not unpacked)": "its name is taken",
        "GOOD.zip": "its name is taken",
        "'colour\\x1b[31m.zip'": "control characters",
        "l" * 200 + "...": "140 bytes",
        "deep": "1000 bytes",
        "bomb.zip": "suspiciously well compressed",
    }.items():
        assert reason in found.pop(name), name
    assert not found
    out = tmp_path / "out" / "submissions"
    assert [str(path.relative_to(out)) for path in out.rglob("*")] == ["good.zip"]
    assert (out / "good.zip").read_bytes() == b"PK"
    assert not list(tmp_path.rglob("slipped*"))


def test_what_is_unpacked_is_private_and_the_same_again(tmp_path: Path) -> None:
    archive = hostile_zip(tmp_path / "class.zip")
    first = find(archive)
    out = tmp_path / "out" / "submissions"
    assert out.stat().st_mode & 0o777 == 0o700 and (out / "good.zip").stat().st_mode & 0o777 == 0o600
    (out / "left over").write_text("of another class")
    half = out.with_name(".submissions.tmp")  # as a kill leaves it
    half.mkdir()
    (half / "good.zip").write_bytes(b"ha")
    assert find(archive) == first
    assert [path.name for path in out.parent.iterdir()] == ["submissions"]
    assert [path.name for path in out.iterdir()] == ["good.zip"]


def test_an_entry_that_is_damaged_or_longer_than_it_says_is_left_out(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "class.zip", {"good.zip": b"PK", "bad.zip": b"0123456789" * 50})
    data = archive.read_bytes()
    start = data.index(b"bad.zip") + len("bad.zip")
    archive.write_bytes(data[:start] + b"\xff\xff" + data[start + 2 :])
    assert "cannot be unpacked" in problems(archive)["bad.zip"]
    assert [path.name for path in (tmp_path / "out" / "submissions").iterdir()] == ["good.zip"]


def test_the_rest_of_a_partly_unsafe_submission_is_kept(tmp_path: Path) -> None:
    names = {f"abc1/a{number}:b.py": b"" for number in range(5)}
    archive = make_zip(tmp_path / "class.zip", {"abc1/llama.py": b"1", "abc2/llama.py": b"2"} | names)
    found = find(archive)
    assert list(found) == ["abc1", "abc1 (not unpacked)", "abc2"] and not found["abc1"].problem
    assert found["abc1 (not unpacked)"].problem.endswith("; and 2 more")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("MAX_FILE_BYTES", 5, "more than 5"), ("MAX_BYTES", 12, "all entries together have more than 12 bytes")],
)
def test_what_is_too_large_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int, reason: str
) -> None:
    monkeypatch.setattr(exports, name, value)
    archive = make_zip(tmp_path / "class.zip", {"abc1.zip": b"PK", "abc2.zip": b"0123456789", "abc3.zip": b"012345"})
    found = problems(archive)
    assert "abc1.zip" not in found and reason in found["abc3.zip"]


def test_a_zip_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "MAX_ENTRIES", 2)
    archive = make_zip(tmp_path / "class.zip", dict.fromkeys(("a.zip", "b.zip", "c.zip"), b""))
    with pytest.raises(UsageError, match=r"class.zip holds 3 entries, at most 2 are unpacked: export it again"):
        find(archive)


def test_a_file_that_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "class.zip").write_text("hello")
    with pytest.raises(UsageError, match=r"class.zip is no zip, or a damaged one"):
        find(tmp_path / "class.zip")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "class.zip", {"abc1.zip": b"PK"})
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="cannot unpack into .*submissions"):
        find(archive)

"""Which submissions are done, whatever happened: `pytest tests/test_journal.py`."""

import errno
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import Journal, LineFile, State, current_rows, read_journal
from autograder.batch.records import Entry, Row, Summary
from errors import UsageError

SUMMARY = Summary("A", 4.0, 4.0, ("all is right",), (), {"RoPE values": "pass"}, (("rope", "it turns halves"),), "none")
ROW = Row("a.zip", "0123", "graded", "a", "ab" * 32, folder="results/a", summary=SUMMARY)

rows = st.builds(
    Row,
    name=st.text(max_size=20),
    key=st.text(max_size=4),
    status=st.sampled_from(["graded", "unreadable", "ungraded"]),
    student_id=st.text(max_size=5),
    reason=st.text(st.characters(), max_size=20),
    summary=st.sampled_from([None, SUMMARY]),
)


def write(path: Path, *written: Row) -> None:
    journal = Journal(path)
    for row in written:
        journal.append(row)
    journal.close()


def latest(written: list[Row]) -> dict[str, Row]:
    return {row.name: row for row in written}


def test_a_row_comes_back_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl", ROW)
    assert read_journal(tmp_path / "journal.jsonl") == {"a.zip": ROW}


def test_the_latest_row_of_an_entry_counts(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl", ROW, replace(ROW, name="b.zip"))
    write(tmp_path / "journal.jsonl", replace(ROW, status="ungraded"))
    assert {name: row.status for name, row in read_journal(tmp_path / "journal.jsonl").items()} == {
        "a.zip": "ungraded",
        "b.zip": "graded",
    }


def test_of_the_latest_rows_a_batch_reads_the_keys_and_how_they_ended(tmp_path: Path) -> None:
    write(tmp_path / "journal.jsonl", replace(ROW, key="old"), ROW, replace(ROW, name="b.zip", status="ungraded"))
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.states() == {"a.zip": State("0123", "graded"), "b.zip": State("0123", "ungraded")}
    journal.close()


@pytest.mark.parametrize(
    ("keys", "current"),
    [({"a.zip": "0123"}, ["a.zip"]), ({"a.zip": "4567"}, []), ({}, ["a.zip"]), ({"b.zip": "0123"}, ["a.zip"])],
)
def test_a_row_is_current_if_it_is_of_the_key_of_its_entry(
    tmp_path: Path, keys: dict[str, str], current: list[str]
) -> None:
    folder = ClassFolder(tmp_path)
    folder.write_entries([Entry("a.zip", "/nowhere/a.zip")], "minllama", {}, keys)
    write(folder.journal, ROW, replace(ROW, name="b.zip"))  # b.zip is not of the class any more
    assert list(current_rows(folder)) == current


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1, "entries": [{}]}', '{"format": 2, "entries": []}'])
def test_without_a_list_of_the_class_no_row_is_current(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match="no class was graded into"):
        current_rows(ClassFolder(tmp_path))
    (tmp_path / "class.json").write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"class\.json (is damaged|has format 2)"):
        current_rows(ClassFolder(tmp_path))


def test_a_name_that_is_no_text_comes_back(tmp_path: Path) -> None:
    name = os.fsdecode(b"M\xfcller\n.zip")
    write(tmp_path / "journal.jsonl", replace(ROW, name=name))
    assert list(read_journal(tmp_path / "journal.jsonl")) == [name]


def test_without_a_journal_nothing_is_done(tmp_path: Path) -> None:
    assert read_journal(tmp_path / "journal.jsonl") == {}


@given(written=st.lists(rows, max_size=4), data=st.data())
def test_however_much_of_a_journal_is_there_it_reads_as_its_first_rows(written: list[Row], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "journal.jsonl")
        write(path, *written)
        content = path.read_bytes()
        cut = content[: data.draw(st.integers(0, len(content)))]
        path.write_bytes(cut)
        whole = written[: cut.count(b"\n")]
        assert read_journal(path) == latest(whole)
        write(path, ROW)  # goes on after the last whole line
        assert read_journal(path) == latest([*whole, ROW])


def test_a_torn_line_stays_as_it_is_when_the_journal_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b'{"name": "a')
    assert read_journal(path) == {}
    assert path.read_bytes() == b'{"name": "a'


def test_a_torn_line_that_is_very_long_goes_when_the_file_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "timings.jsonl"
    path.write_bytes(b"{}\n" + b"x" * 200_000)
    LineFile(path).close()
    assert path.read_bytes() == b"{}\n"


@pytest.mark.parametrize("line", [b"\0\0\0", b"[1, 2]", b'{"name": "a"}', b'{"name": 1, "summary": 3}', b"\xff"])
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROW)
    path.write_bytes(path.read_bytes() + line + b"\n" + path.read_bytes())
    with pytest.raises(UsageError, match=r"journal\.jsonl:2: this line is no row .* remove the line"):
        read_journal(path)


def test_two_batches_cannot_write_at_once(tmp_path: Path) -> None:
    first = Journal(tmp_path / "journal.jsonl")
    with pytest.raises(UsageError, match="another batch is writing into .*: wait until it has ended"):
        Journal(tmp_path / "journal.jsonl")
    first.close()
    Journal(tmp_path / "journal.jsonl").close()


def test_a_journal_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"journal\.jsonl cannot be written .* name another folder with -o"):
        Journal(tmp_path / "missing" / "journal.jsonl")


def test_a_journal_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_journal(tmp_path)


def test_of_a_line_that_the_disk_has_no_room_for_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.jsonl"
    write(path, ROW)
    write_all = os.write
    journal = Journal(path)
    monkeypatch.setattr(os, "write", lambda file, data: write_all(file, data[:9]))
    with pytest.raises(OSError, match="No space left") as error:
        journal.append(replace(ROW, name="b.zip"))
    assert error.value.errno == errno.ENOSPC
    monkeypatch.undo()
    journal.append(replace(ROW, name="c.zip"))
    journal.close()
    assert list(read_journal(path)) == ["a.zip", "c.zip"]

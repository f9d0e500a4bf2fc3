"""pretrain/corpus.py: run with `pytest tests/test_pretrain_corpus.py`."""

import gzip
import io
import json
import os
import random
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errors import DataError
from pretrain import corpus
from pretrain.corpus import LONGEST, MARKER, read_documents
from tests.assets_dir import require_asset

# What a document can hold and still be one: no marker, no blank line, nothing around it that would be stripped.
LINES = st.lists(st.sampled_from(["Lily ran.", "Ça va ?", "«ねこ»", "a  b\tc", "<|end", "|>", "😀"]), min_size=1)
DOCUMENTS = st.lists(LINES.map("\n".join), max_size=8)


def write(folder: Path, content: str | bytes, name: str = "text.txt") -> Path:
    """Write a file, packed if its name says so, and return its path."""
    path = folder / name
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def write_archive(folder: Path, members: dict[str, bytes], name: str = "stories.tar.gz") -> Path:
    """Pack members into a .tar.gz, under names that may be anything, and return its path."""
    path = folder / name
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def stories(*texts: str) -> bytes:
    """Return what a file of TinyStories' archive holds: a list of objects, of which the story is but one member."""
    instruction = {"prompt:": "Write a short story", "words": ["sea"], "features": []}
    return json.dumps([{"story": text, "instruction": instruction, "summary": "…"} for text in texts]).encode()


# ---------------------------------------------------------------------------------------------------- plain text


@pytest.mark.parametrize(
    ("content", "documents"),
    [
        (f"One.\n\nStill one.\n{MARKER}\nTwo.\n{MARKER}\n", ["One.\n\nStill one.", "Two."]),
        (f"One.{MARKER}Two.", ["One.", "Two."]),
        (f"{MARKER}\n\n{MARKER} \n{MARKER}One.", ["One."]),
        ("One.\nStill one.\n\nTwo.\n \t\n\r\n\nThree.", ["One.\nStill one.", "Two.", "Three."]),
        ("One.\r\nStill one.\r\n\r\nTwo.\r\n", ["One.\nStill one.", "Two."]),
        ("\n\n  One. \n", ["One."]),
        ("\ufeffOne.", ["One."]),
        ("<|endoftext|\n>", ["<|endoftext|\n>"]),
        ("", []),
        ("\ufeff", []),
        (f" \n{MARKER}\n", []),
    ],
    ids=[
        *("markers on lines", "markers within lines", "nothing between markers", "blank lines", "CRLF"),
        *("space around", "byte order mark", "half a marker", "empty", "byte order mark alone", "markers alone"),
    ],
)
@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz", "text", "text.gz"])
def test_markers_end_documents_and_blank_lines_do_if_there_are_none(
    tmp_path: Path, name: str, content: str, documents: list[str]
) -> None:
    assert list(read_documents(write(tmp_path, content, name))) == documents


@given(
    documents=DOCUMENTS,
    separator=st.sampled_from([f"\n{MARKER}\n", MARKER, "\n\n", "\n \n\n"]),
    chunk=st.integers(1, 40),
)
def test_documents_come_back_wherever_the_file_is_cut_into_chunks(
    tmp_path_factory: pytest.TempPathFactory, documents: list[str], separator: str, chunk: int
) -> None:
    path = write(tmp_path_factory.getbasetemp(), separator.join(documents))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "CHUNK", chunk)
        assert list(read_documents(path)) == documents


@pytest.mark.parametrize(
    ("content", "line", "byte"),
    [
        (b"One.\nTwo.\n\nThr\xe9e.\n", 4, "0xe9"),
        (b"One.\n<|endoftext|>\nTwo\xff", 3, "0xff"),
        (b"One.<|endoftext|>\n\nTwo<|endoftext|>\n\xc3<|endoftext|>", 4, "0xc3"),
        ("One.".encode("utf-16"), 1, "0xff"),
    ],
)
def test_a_byte_that_is_no_utf8_is_named_with_its_line(tmp_path: Path, content: bytes, line: int, byte: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=f"byte {byte} is not UTF-8: save the file as UTF-8") as raised:
        list(read_documents(path))
    assert str(raised.value).startswith(f"{path}:{line}: ")


def test_a_nul_byte_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "\n\nOne.\nTwo\0.\n")
    with pytest.raises(DataError, match=f"^{path}:4: a NUL byte is not text"):
        list(read_documents(path))


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (f"One.\n{MARKER}\n" + "a " * 60, 2),  # the marker's line belongs to what follows it
        ("One.\n\nTwo\n" + "ab\n" * 40, 3),
        ("One.\n\n" + "ab" * 60, 3),
    ],
)
def test_a_document_that_nobody_parted_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, line: int
) -> None:
    monkeypatch.setattr(corpus, "LONGEST", 100)
    monkeypatch.setattr(corpus, "CHUNK", 32)
    path = write(tmp_path, content)
    with pytest.raises(DataError, match=f"^{path}:{line}: .* more than 100 bytes: end each document with a line"):
        list(read_documents(path))


def test_no_story_is_as_long_as_what_is_refused() -> None:
    assert LONGEST >= 10 * 3_300_000  # ten times War and Peace


def test_documents_are_read_one_at_a_time(tmp_path: Path) -> None:
    path = write(tmp_path, f"One.{MARKER}" * 3 + "x" * corpus.CHUNK + "\xff")
    path.write_bytes(path.read_bytes() + b"\xff")
    documents = read_documents(path)
    assert [next(documents), next(documents), next(documents)] == ["One."] * 3  # although the end cannot be read


def test_the_caller_is_told_how_far_the_reading_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "CHUNK", 1000)
    for name in ("text.txt", "text.txt.gz"):
        noise = random.Random(0).randbytes(150_000).hex()
        path = write(tmp_path, f"One.{MARKER}{noise}{MARKER}Three.", name)
        seen: list[int] = []
        assert len(list(read_documents(path, on_read=seen.append))) == 3
        assert seen == sorted(seen)
        assert seen[0] < seen[-1] == path.stat().st_size


# ---------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("name", ["text.jsonl", "text.jsonl.gz"])
def test_each_line_of_json_has_a_text(tmp_path: Path, name: str) -> None:
    lines = ['\ufeff{"text": " One.\\n\\nStill one. ", "id": 1}', "", '{"text": ""}', '{"id": 2, "text": "T\\u00fc"}\r']
    assert list(read_documents(write(tmp_path, "\n".join(lines), name))) == ["One.\n\nStill one.", "Tü"]


def test_a_marker_within_a_json_text_ends_a_document_too(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"text": f"One.{MARKER}\r\nTwo."}), "text.jsonl")
    assert list(read_documents(path)) == ["One.", "Two."]


@pytest.mark.parametrize(
    ("line", "rule"),
    [
        ("{", "not JSON"),
        ("One.", "not JSON"),
        ('{"text": "One."} {"text": "Two."}', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"text": ' + "9" * 5000 + "}", "not JSON"),
        ('"One."', "no object with a text under `text`"),
        ("[]", "no object with a text under `text`"),
        ('{"story": "One."}', "no object with a text under `text`"),
        ('{"text": null}', "no object with a text under `text`"),
        ('{"text": "half \\ud83d"}', "U\\+D83D is no character"),
        ('{"text": "\\u0000"}', "U\\+0000 is no character"),
        (b'{"text": "caf\xe9"}', "byte 0xe9 is not UTF-8"),
    ],
)
def test_a_line_that_is_no_object_with_a_text_is_named(tmp_path: Path, line: str | bytes, rule: str) -> None:
    line = line.encode() if isinstance(line, str) else line
    path = write(tmp_path, b'{"text": "One."}\n\n' + line + b"\n", "text.jsonl")
    with pytest.raises(DataError, match=rule) as raised:
        list(read_documents(path))
    assert str(raised.value).startswith(f"{path}:3: ")
    assert len(str(raised.value)) < len(str(path)) + 250


def test_a_line_of_json_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST", 100)
    path = write(tmp_path, '{"text": "One."}\n{"text": "' + "a" * 200, "text.jsonl")
    with pytest.raises(DataError, match=f"^{path}:2: .* more than 100 bytes"):
        list(read_documents(path))


# ---------------------------------------------------------------------------------------------------- TinyStories


@pytest.mark.parametrize("chunk", [1, 7, 2**20])
def test_the_archive_gives_its_stories_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(corpus, "CHUNK", chunk)
    members = {
        "data00.json": stories('\n\nOne, [two]. \\ "', "Zwölf,"),
        "data01.json": stories(),
        "d/data02.json": stories("Three."),
    }
    members["data03.json"] = b'\xef\xbb\xbf [ {"story" : "Four."} , {"story":"Five."}\n]\n'
    path = write_archive(tmp_path, members)
    assert list(read_documents(path)) == ['One, [two]. \\ "', "Zwölf,", "Three.", "Four.", "Five."]
    path.rename(path := tmp_path / "stories.TGZ")
    assert len(list(read_documents(path))) == 5


def test_what_is_no_json_file_is_passed_over(tmp_path: Path) -> None:
    members = {"README.txt": b"\xff", "._data00.json": b"\0", "data00.json": stories("One."), "data.json/x": b"?"}
    path = write_archive(tmp_path, members)
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            entry = tarfile.TarInfo("link.json")
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    assert list(read_documents(path)) == ["One."]


def test_names_in_an_archive_are_never_used_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    names = ["../out.json", f"{tmp_path}/absolute.json", "a/../../b.json", "C:\\c.json", "\x1b[31m.json", "\udcff.json"]
    path = write_archive(tmp_path, {name: stories(f"Story {i}.") for i, name in enumerate(names)})
    assert len(list(read_documents(path))) == len(names)
    assert list(inside.iterdir()) == []
    assert list(tmp_path.iterdir()) == [path, inside] or list(tmp_path.iterdir()) == [inside, path]


def test_a_members_name_is_printed_without_what_a_terminal_obeys(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {"\x1b[31mdata\udcff.json": b"{}"})
    with pytest.raises(DataError, match="no JSON list") as raised:
        list(read_documents(path))
    assert str(raised.value).isascii()
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "no JSON list"),
        (b'{"story": "One."}', "no JSON list"),
        (b'[{"story": "One."}, {"text": "Two."}]', "item 2: no object with a text under `story`"),
        (b'[{"story": "One."}, "Two."]', "item 2: no object with a text under `story`"),
        (b'[{"story": "One."}, {"story": 1}]', "item 2: no object with a text under `story`"),
        (b'[{"story": "One."}, {"story": "\\udc00"}]', "item 2: U\\+DC00 is no character"),
        (b'[{"story": "One."}, {"story": "Tw', "item 2: not JSON, or cut short"),
        (b'[{"story": "One."}, {"story" "Two."}]', "item 2: not JSON, or cut short"),
        (b'[{"story": "One."} {"story": "Two."}]', "item 2: not JSON, or cut short"),
        (b'[{"story": "One."}] and more', "item 2: not JSON, or cut short"),
        (b'[{"story": "One."}, ' + b"[" * 100_000, "item 2: not JSON"),
        (b'[{"story": "One."}, {"story": "caf\xe9"}]', "not UTF-8 somewhere after item 0"),
    ],
)
def test_a_list_that_breaks_a_rule_is_named(tmp_path: Path, content: bytes, rule: str) -> None:
    path = write_archive(tmp_path, {"data00.json": stories("Zero."), "data01.json": content})
    with pytest.raises(DataError, match=rule) as raised:
        list(read_documents(path))
    assert str(raised.value).startswith(f"{path}: 'data01.json': ")


def test_a_list_whose_item_has_no_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "LONGEST", 100)
    monkeypatch.setattr(corpus, "CHUNK", 10)
    path = write_archive(tmp_path, {"data00.json": b'[{"story": "' + b"a" * 10_000 + b'"}]'})
    with pytest.raises(DataError, match="'data00.json': item 1: not JSON, or cut short"):
        list(read_documents(path))


def test_an_archive_without_stories_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {"data00.txt": b"One."})
    with pytest.raises(DataError, match=f"^{path}: no .json file in the archive"):
        list(read_documents(path))


def test_an_archive_damaged_anywhere_is_refused(tmp_path: Path) -> None:
    path = write_archive(tmp_path, {f"data{i:02}.json": stories(*(f"Story {j}." for j in range(40))) for i in range(4)})
    whole = gzip.decompress(path.read_bytes())
    damaged = bytearray(path.read_bytes())
    damaged[-6] ^= 1  # in the checksum, which tarfile never reads
    for content in (damaged, damaged[:-9], damaged[: len(damaged) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path}: damaged or cut short"):
            list(read_documents(path))
    path.write_bytes(gzip.compress(whole[:700]))  # packed well, but the tar within is cut short
    with pytest.raises(DataError, match=f"^{path}: damaged or cut short"):
        list(read_documents(path))
    path.write_bytes(gzip.compress(b"no tar " * 200))
    with pytest.raises(DataError, match=f"^{path}: damaged or cut short"):
        list(read_documents(path))


# ---------------------------------------------------------------------------------------------------- any file


@pytest.mark.parametrize("name", ["text.txt.gz", "text.jsonl.gz"])
def test_a_damaged_gzip_file_is_refused(tmp_path: Path, name: str) -> None:
    line = json.dumps({"text": "One. " * 50}) + "\n"
    path = write(tmp_path, line * 50, name)
    packed = path.read_bytes()
    wrong_checksum = bytearray(packed)
    wrong_checksum[-6] ^= 1
    garbage = bytearray(packed)
    garbage[20:40] = bytes(20)
    for content in (packed[: len(packed) // 2], packed[:-3], wrong_checksum, garbage, b"no gzip"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path}: damaged or cut short .*: fetch or pack it again"):
            list(read_documents(path))


@pytest.mark.parametrize("name", ["text.pdf", "text.zip", "text.json", "text.csv.gz", "text.tar", "text.tar.bz2"])
def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    path = write(tmp_path, "One.", name)
    with pytest.raises(DataError, match=f"^{path}: a file of unknown kind: known are .* a name that ends in .txt"):
        list(read_documents(path))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"^{tmp_path}/no.txt: cannot be read .No such file or directory.: check"):
        list(read_documents(tmp_path / "no.txt"))
    os.mkfifo(tmp_path / "fifo.txt")
    for path in (tmp_path, tmp_path / "fifo.txt"):  # opening a fifo would wait for ever
        with pytest.raises(DataError, match=f"^{path}: no regular file"):
            list(read_documents(path))


@pytest.mark.parametrize("name", ["text.txt", "text.jsonl"])
def test_cleaning_leaves_out_what_is_not_printable_ascii(tmp_path: Path, name: str) -> None:
    texts = ["One.\n\tStill one. ~!", "Caf\u00e9", "\u201cTwo\u201d", "a\x7fb", "a\x1bb", "Three."]
    if name == "text.txt":
        path = write(tmp_path, MARKER.join(texts), name)
    else:
        path = write(tmp_path, "\n".join(json.dumps({"text": text}) for text in texts), name)
    assert list(read_documents(path, clean=True)) == ["One.\n\tStill one. ~!", "Three."]
    assert list(read_documents(path)) == texts


def test_the_projects_own_corpus_is_read_as_its_readme_describes_it() -> None:
    documents = list(read_documents(require_asset("corpus/storybook.txt.gz"), clean=True))
    assert len(documents) == 6050
    assert sum(len(document) + len(f"\n{MARKER}\n") for document in documents) == 5_439_473

"""pretrain/shards.py: run with `pytest tests/test_pretrain_shards.py`."""

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from errors import DataError
from pretrain.prepare import prepare
from pretrain.shards import (
    Shard,
    SplitWriter,
    check_contents,
    id_dtype,
    open_split,
    read_manifest,
)
from tests.tiny import SENTENCES, train_tokenizer
from tokenizer import Tokenizer

STORIES = [f"Story {i}. {sentence}" for i in range(20) for sentence in SENTENCES]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, tokenizer_model: Path) -> Path:
    """Return a folder of shards, several a split; tests only read it."""
    folder = tmp_path_factory.mktemp("shards")
    (folder / "stories.txt").write_text("\n\n".join(STORIES))
    prepare([folder / "stories.txt"], tokenizer_model, folder / "data", validation=0.3, shard_tokens=500)
    return folder / "data"


@pytest.fixture
def data(prepared: Path, tmp_path: Path) -> Path:
    """Return a folder of shards that a test may spoil."""
    return Path(shutil.copytree(prepared, tmp_path / "data"))


def change(data: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Edit the manifest as parsed JSON."""
    content = json.loads((data / "manifest.json").read_text())
    edit(content)
    (data / "manifest.json").write_text(json.dumps(content))


# ---------------------------------------------------------------------------------------------------- what is there


def test_the_shards_hold_every_document_once_and_in_order(prepared: Path, tokenizer_model: Path) -> None:
    manifest = read_manifest(prepared)
    tokenizer = Tokenizer(tokenizer_model=prepared / manifest.tokenizer.file)
    seen = []
    for name, split in manifest.splits.items():
        assert len(split.shards) > 1
        texts = []
        for ids, shard in zip(open_split(prepared, manifest, name), split.shards, strict=True):
            starts = np.fromfile(prepared / shard.starts_file, "<u8")
            for row in np.split(ids, starts.tolist()[1:]):
                assert (row[0], row[-1]) == (tokenizer.bos_id, tokenizer.eos_id)
                texts.append(tokenizer.decode(row.tolist()))
        assert texts == [story for story in STORIES if story in set(texts)]
        assert split.documents == len(texts)
        assert split.text_bytes == sum(len(text.encode()) for text in texts)
        seen += texts
    assert sorted(seen) == sorted(STORIES)


def test_the_files_are_as_the_documentation_describes_them(prepared: Path) -> None:
    raw = json.loads((prepared / "manifest.json").read_text())
    assert raw["dtype"] == "uint16"
    for split in raw["splits"].values():
        for number, shard in enumerate(split["shards"]):
            content = (prepared / shard["file"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == shard["sha256"]
            ids = struct.unpack(f"<{shard['tokens']}H", content)
            starts_file = prepared / shard["file"].replace(".bin", ".starts.bin")
            starts = struct.unpack(f"<{shard['documents']}Q", starts_file.read_bytes())
            assert starts == tuple(i for i, token in enumerate(ids) if token == raw["tokenizer"]["bos_id"])
            assert shard["file"].endswith(f"-{number:05}.bin")


def test_arrays_are_mapped_and_cannot_be_written(prepared: Path) -> None:
    [ids, *_] = open_split(prepared, read_manifest(prepared), "train")
    assert isinstance(ids, np.memmap)
    assert ids.dtype == np.uint16
    with pytest.raises(ValueError, match="read-only"):
        ids[0] = 1


@pytest.mark.parametrize(("vocab_size", "dtype"), [(2, "<u2"), (65_536, "<u2"), (65_537, "<u4"), (128_256, "<u4")])
def test_the_type_of_the_ids_has_room_for_the_vocabulary(vocab_size: int, dtype: str) -> None:
    assert id_dtype(vocab_size) == np.dtype(dtype)
    assert np.iinfo(id_dtype(vocab_size)).max >= vocab_size - 1


@settings(max_examples=30)  # each waits for the disk
@given(lengths=st.lists(st.integers(1, 9), max_size=30), shard_tokens=st.integers(1, 20), wide=st.booleans())
def test_documents_stay_whole_and_shards_small(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], shard_tokens: int, wide: bool
) -> None:
    folder = tmp_path_factory.getbasetemp()
    writer = SplitWriter(folder, "train", shard_tokens)
    rows = [np.arange(length, dtype="<u4" if wide else "<u2") + 100 * i for i, length in enumerate(lengths)]
    for row in rows:
        writer.add(row, text_bytes=3)
    split = writer.finish()
    assert (split.tokens, split.documents, split.text_bytes) == (sum(lengths), len(lengths), 3 * len(lengths))
    found = []
    for shard in split.shards:
        assert shard.tokens <= shard_tokens or shard.documents == 1
        ids = np.fromfile(folder / shard.file, dtype="<u4" if wide else "<u2")
        found += np.split(ids, np.fromfile(folder / shard.starts_file, dtype="<u8").tolist()[1:])
    assert [row.tolist() for row in found] == [row.tolist() for row in rows]
    for shard, following in zip(split.shards, split.shards[1:], strict=False):  # no shard is closed too early
        first = np.fromfile(folder / following.starts_file, dtype="<u8").tolist()
        length = (first + [following.tokens])[1]
        assert shard.tokens + length > shard_tokens


def test_the_starts_lie_beside_the_shard() -> None:
    assert Shard("train-00012.bin", 1, 1, "").starts_file == "train-00012.starts.bin"


# ---------------------------------------------------------------------------------------------------- what is wrong


def test_a_folder_that_was_not_prepared_to_the_end_is_refused(data: Path) -> None:
    (data / "manifest.json").unlink()
    for folder in (data, data / "nowhere"):
        with pytest.raises(DataError, match=f"^{folder} has no manifest.json: .* Run `python -m pretrain prepare`"):
            read_manifest(folder)


@pytest.mark.parametrize("name", ["train-00001.bin", "validation-00000.bin", "train-00000.starts.bin"])
def test_a_shard_that_is_missing_or_of_another_size_is_named(data: Path, name: str) -> None:
    path = data / name
    content = path.read_bytes()
    path.write_bytes(content[:-2])
    with pytest.raises(
        DataError, match=f"^{path} has {len(content) - 2:,} bytes, and should have {len(content):,}: delete the folder"
    ):
        read_manifest(data)
    path.write_bytes(content + b"\0\0")
    with pytest.raises(DataError, match=f"^{path} has"):
        read_manifest(data)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path} is missing: delete the folder, and make it again"):
        read_manifest(data)


def test_a_shard_whose_content_changed_is_found_by_reading_all(data: Path) -> None:
    manifest = read_manifest(data)
    check_contents(data, manifest)
    path = data / "validation-00000.bin"
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    assert read_manifest(data) == manifest
    with pytest.raises(DataError, match=f"^{path} is damaged"):
        check_contents(data, manifest)


def test_a_tokenizer_that_did_not_make_the_shards_is_refused(data: Path) -> None:
    path = data / "tokenizer.model"
    train_tokenizer(path, vocab_size=399)
    with pytest.raises(DataError, match=f"^{path} is not the tokenizer that made the shards: put that one back"):
        read_manifest(data)
    path.unlink()
    with pytest.raises(DataError, match=f"^{path} is missing: put that one back"):
        read_manifest(data)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_not_json_is_refused(data: Path, content: bytes) -> None:
    (data / "manifest.json").write_bytes(content)
    with pytest.raises(DataError, match=f"^{data}/manifest.json: not JSON"):
        read_manifest(data)


def test_a_manifest_that_cannot_be_read_is_named(data: Path) -> None:
    (data / "manifest.json").unlink()
    (data / "manifest.json").mkdir()
    with pytest.raises(DataError, match=f"^{data}/manifest.json: cannot be read"):
        read_manifest(data)


@pytest.mark.parametrize("content", ["[]", "{}", '{"format": 2}', '{"format": "1"}', '{"format": [1]}'])
def test_a_manifest_of_another_version_is_refused(data: Path, content: str) -> None:
    (data / "manifest.json").write_text(content)
    with pytest.raises(DataError, match=f"^{data}/manifest.json: 'format' is .*, and only 1 is known here"):
        read_manifest(data)


@pytest.mark.parametrize(
    ("edit", "rule"),
    [
        (lambda m: m.pop("dtype"), "no key 'dtype'"),
        (lambda m: m["tokenizer"].pop("eos_id"), "tokenizer: no key 'eos_id'"),
        (lambda m: m["splits"]["train"]["shards"][1].pop("sha256"), "splits: train: shards: 1: no key 'sha256'"),
        (lambda m: m.update(extra=1), "unknown key 'extra'"),
        (lambda m: m["tokenizer"].update(vocab_size="400"), "tokenizer: vocab_size: '400' is of the wrong type"),
        (lambda m: m["splits"]["train"].update(tokens=True), "splits: train: tokens: True is of the wrong type"),
        (lambda m: m["splits"]["train"].update(shards={}), "splits: train: shards: {} is of the wrong type"),
        (lambda m: m.update(splits=[]), "splits: .. is of the wrong type"),
        (lambda m: m.update(settings=None), "settings: None is of the wrong type"),
        (lambda m: m.update(dtype="uint32"), "'dtype' is 'uint32', which is not that of 400 ids"),
        (lambda m: m["tokenizer"].update(file="../tokenizer.model"), "the tokenizer's file is '../tokenizer.model'"),
        (lambda m: m["splits"].pop("validation"), "'splits' must be train and validation"),
        (lambda m: m["splits"]["train"]["shards"][0].update(file="/dev/zero"), "'train' has a shard that no prep"),
        (lambda m: m["splits"]["train"]["shards"][0].update(documents=0), "'train' has a shard that no prep"),
        (lambda m: m["splits"]["train"].update(tokens=7), "the tokens of 'train' are not the sum"),
        (lambda m: m["splits"]["train"].update(documents=7), "the documents of 'train' are not the sum"),
        (lambda m: m["splits"]["train"].update(tokens=0, documents=0, shards=[]), "the tokens of 'train' are not"),
    ],
)
def test_a_manifest_that_prepare_cannot_have_written_is_refused(
    data: Path, edit: Callable[[dict[str, Any]], object], rule: str
) -> None:
    change(data, edit)
    with pytest.raises(DataError, match=rule) as raised:
        read_manifest(data)
    assert str(raised.value).startswith(f"{data}/manifest.json: ")
    assert str(raised.value).endswith("make it again with `python -m pretrain prepare`")

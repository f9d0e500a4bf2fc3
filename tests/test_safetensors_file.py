"""safetensors_file.py: run with `pytest tests/test_safetensors_file.py`."""

import errno
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from errors import CheckpointError
from safetensors_file import DTYPES, read_metadata, read_safetensors, write_safetensors
from utils import sha256_of

Header = dict[str, Any]


def some_tensors(*dtypes: torch.dtype) -> dict[str, torch.Tensor]:
    """Return a matrix, a vector, a number and an empty tensor of each dtype; the vector has an odd number of bytes."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for dtype in dtypes:
        for name, shape in {"matrix": (3, 5), "vector": (7,), "number": (), "empty": (2, 0)}.items():
            values = torch.randn(shape, generator=generator) * 100
            tensors[f"{dtype}.{name}"] = values > 0 if dtype == torch.bool else values.abs().clamp(max=100).to(dtype)
    return tensors


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert torch.equal(found[name], tensor), name


def two_tensors() -> tuple[Header, bytes]:
    """Return a header and the numbers behind it, of a file that breaks no rule."""
    header = {
        "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
        "b": {"dtype": "F16", "shape": [3], "data_offsets": [16, 22]},
    }
    return header, bytes(range(22))


def assemble(header: Header | str, numbers: bytes, length: int | None = None) -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


# ------------------------------------------------------------------------------------------------ against the package


def test_what_the_package_writes_is_read(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = some_tensors(*DTYPES.values())
    save_file(tensors, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert_same(read_safetensors(tmp_path / "theirs.safetensors"), tensors)


def test_what_is_written_is_read_by_the_package(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file

    tensors = some_tensors(*DTYPES.values())
    write_safetensors(tmp_path / "ours.safetensors", tensors, {"format": "pt"})
    assert_same(load_file(tmp_path / "ours.safetensors"), tensors)
    with safe_open(tmp_path / "ours.safetensors", framework="pt") as theirs:
        assert theirs.metadata() == {"format": "pt"}
    assert_same(read_safetensors(tmp_path / "ours.safetensors"), tensors)


@given(
    shapes=st.dictionaries(st.text(max_size=8), st.lists(st.integers(0, 4), max_size=3), max_size=4),
    dtypes=st.lists(st.sampled_from([torch.float64, torch.float16, torch.uint8]), min_size=4, max_size=4),
)
def test_any_names_and_shapes_come_back(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[str, list[int]], dtypes: list[torch.dtype]
) -> None:
    shapes.pop("__metadata__", None)
    tensors = {
        name: torch.arange(torch.Size(shape).numel()).view(shape).to(dtype)
        for (name, shape), dtype in zip(shapes.items(), dtypes, strict=False)
    }
    path = tmp_path_factory.mktemp("any") / "any.safetensors"
    write_safetensors(path, tensors)
    assert_same(read_safetensors(path), tensors)


# ----------------------------------------------------------------------------------------------------------- behaviour


def test_tensors_that_share_their_numbers_are_written_in_full(tmp_path: Path) -> None:
    matrix = torch.randn(4, 6)
    tensors = {"whole": matrix, "again": matrix, "rows": matrix[1:3], "turned": matrix.T}
    write_safetensors(tmp_path / "a.safetensors", tensors)
    found = read_safetensors(tmp_path / "a.safetensors")
    assert_same(found, tensors)
    assert len({tensor.data_ptr() for tensor in found.values()}) == 4


def test_numbers_that_begin_anywhere_are_read(tmp_path: Path) -> None:
    header = {
        "byte": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        "odd": {"dtype": "F32", "shape": [2], "data_offsets": [1, 9]},
    }
    numbers = b"\7" + struct.pack("<2f", 1.5, -2.0)
    (tmp_path / "odd.safetensors").write_bytes(assemble(header, numbers))
    found = read_safetensors(tmp_path / "odd.safetensors")
    assert found["odd"].tolist() == [1.5, -2.0]
    assert found["byte"].tolist() == [7]


def test_changing_a_tensor_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.ones(1000)})
    checksum = sha256_of(path)
    read_safetensors(path)["a"].zero_()
    assert sha256_of(path) == checksum
    assert read_safetensors(path)["a"].sum() == 1000


def test_a_file_may_be_replaced_while_its_tensors_are_in_use(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.ones(1000)})
    old = read_safetensors(path)["a"]
    write_safetensors(path, {"a": old * 2})
    assert old.sum() == 1000
    assert read_safetensors(path)["a"].sum() == 2000


def test_the_header_fills_whole_words_so_that_numbers_are_aligned(tmp_path: Path) -> None:
    for name in ("a", "ab", "abc", "abcd"):
        write_safetensors(tmp_path / "a.safetensors", {name: torch.ones(1)})
        (length,) = struct.unpack("<Q", (tmp_path / "a.safetensors").read_bytes()[:8])
        assert length % 8 == 0


def test_what_a_file_says_about_itself_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"w": torch.zeros(2)}, {"methods": "Lora()"})
    assert read_metadata(path) == {"methods": "Lora()"}
    write_safetensors(path, {"w": torch.zeros(2)})
    assert read_metadata(path) == {}


def test_a_file_whose_words_about_itself_are_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_metadata(path)
    path.write_bytes(assemble({"__metadata__": {"step": 1}}, b""))
    with pytest.raises(CheckpointError, match="__metadata__ holds something else than strings"):
        read_metadata(path)


def test_a_dtype_that_the_format_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no safetensors file can hold torch\.complex64"):
        write_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(2, dtype=torch.complex64)})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_and_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"a": torch.ones(3)})
    checksum = sha256_of(path)

    def full(*_: object) -> bytes:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("safetensors_file.struct", SimpleNamespace(pack=full))
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be written \(No space left on device\)"):
        write_safetensors(path, {"a": torch.zeros(3)})
    assert sha256_of(path) == checksum
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------------------- what is refused


def changed(**entries: Any) -> bytes:
    """Return a file of two tensors, with entries of its header replaced, or left out if they are None."""
    header, numbers = two_tensors()
    header = {name: entry for name, entry in (header | entries).items() if entry is not None}
    return assemble(header, numbers)


def a(**changes: Any) -> bytes:
    """Return a file of two tensors with changes to the entry of the first."""
    header, _ = two_tensors()
    return changed(a=header["a"] | changes)


def whole() -> bytes:
    return assemble(*two_tensors())


DEEP = '{"a":' + "[" * 100_000
BROKEN: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "it has 0 bytes, and the length of the header alone takes 8"),
    "seven bytes": (bytes(7), "it has 7 bytes"),
    "no header": (bytes(8), "its header is no JSON"),
    "huge header": (assemble({}, b"", length=2**63), "its header would have 9,223,372,036,854,775,808 bytes"),
    "header over the limit": (assemble({}, b"", length=100_000_001), "and 100,000,000 are the most"),
    "header past the end": (assemble({}, b"", length=3), "its header should have 3 bytes, and 2 are left"),
    "web page": (b"<!DOCTYPE html><html>404</html>", "its header would have"),
    "no utf-8": (struct.pack("<Q", 4) + b'{"\xff"', "its header is no JSON"),
    "no json": (assemble("{'a': 1}", b""), "its header is no JSON"),
    "deep json": (assemble(DEEP, b""), "its header is no JSON"),
    "many digits": (assemble('{"a": ' + "9" * 5000 + "}", b""), "its header is no JSON"),
    "a list": (assemble("[1]", b""), "its header is no JSON object"),
    "space first": (assemble(" {}", b""), "its header is no JSON object"),
    "name twice": (assemble('{"a": 1, "a": 2}', b""), "the name 'a' stands in it twice"),
    "metadata of numbers": (changed(__metadata__={"a": 1}), "its __metadata__ holds something else than strings"),
    "metadata a list": (changed(__metadata__=["a"]), "its __metadata__ holds something else than strings"),
    "entry a number": (changed(a=1), "the entry of 'a' is not a dtype, a shape and data_offsets"),
    "entry too short": (changed(a={"dtype": "F32", "shape": [4]}), "the entry of 'a' is not"),
    "entry too long": (a(strides=[1]), "the entry of 'a' is not"),
    "unknown dtype": (a(dtype="F8_E4M3"), "'a' has the dtype 'F8_E4M3'; what can be read is F64, F32"),
    "dtype a list": (a(dtype=[]), r"'a' has the dtype \[\]"),
    "wrong dtype": (a(dtype="F16"), r"'a' of F16 and shape \[2, 2\] takes 8 bytes, not 16"),
    "wrong shape": (a(shape=[2, 3]), r"'a' of F32 and shape \[2, 3\] takes 24 bytes, not 16"),
    "negative size": (a(shape=[-2, -2]), r"'a' has no shape of whole numbers, but \[-2, -2\]"),
    "size no number": (a(shape=["2", 2]), "'a' has no shape of whole numbers"),
    "size true": (a(shape=[True, 4]), "'a' has no shape of whole numbers"),
    "size a fraction": (a(shape=[2.0, 2]), "'a' has no shape of whole numbers"),
    "shape a number": (a(shape=4), "'a' has no shape of whole numbers, but 4"),
    "sizes too large": (a(shape=[2**40, 2**40]), "takes .* bytes, not 16"),
    "one offset": (a(data_offsets=[0]), r"'a' has no two data_offsets, but \[0\]"),
    "three offsets": (a(data_offsets=[0, 8, 16]), "'a' has no two data_offsets"),
    "offset below zero": (a(data_offsets=[-16, 0]), "'a' has no two data_offsets"),
    "offsets turned round": (a(data_offsets=[16, 0]), "takes 16 bytes, not -16"),
    "offsets past the end": (a(data_offsets=[100, 116]), "'b' leaves a gap before it: it begins at byte 16, not 0"),
    "gap": (changed(b={"dtype": "F16", "shape": [2], "data_offsets": [18, 22]}), "'b' leaves a gap before it"),
    "overlap": (changed(b={"dtype": "F16", "shape": [4], "data_offsets": [14, 22]}), "'b' overlaps the tensor before"),
    "the same place": (changed(b={"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}), "overlaps the tensor"),
    "bytes at the end": (whole() + b"more", "4 bytes follow the last tensor"),
    "tensor left out": (changed(b=None), "6 bytes follow the last tensor"),
    "cut by one byte": (whole()[:-1], "it is cut short: its tensors take 22 bytes, and 21 are there"),
    "no numbers": (whole()[:-22], "it is cut short: its tensors take 22 bytes, and 0 are there"),
}


@pytest.mark.parametrize(("content", "text"), BROKEN.values(), ids=BROKEN.keys())
def test_a_file_that_breaks_a_rule_is_refused_with_the_rule(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=text) as caught:
        read_safetensors(path)
    assert str(path) in str(caught.value)
    assert "Check how the file was made and copied" in str(caught.value)


# What the package takes: dtypes that no weights here have, and keys that the format does not name.
LENIENT = ("unknown dtype", "space first", "deep json", "entry too long")


@pytest.mark.parametrize("name", [name for name in BROKEN if name not in LENIENT])
def test_the_package_refuses_it_as_well(tmp_path: Path, name: str) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = tmp_path / "broken.safetensors"
    path.write_bytes(BROKEN[name][0])
    with pytest.raises((SafetensorError, ValueError, OSError)):
        load_file(path)


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for length in range(len(whole())):
        path.write_bytes(whole()[:length])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_safetensors(path)


@given(at=st.integers(0, len(whole()) - 1), byte=st.integers(0, 255))
def test_a_changed_byte_is_refused_or_changes_no_more_than_a_name_or_a_number(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int
) -> None:
    content = bytearray(whole())
    content[at] = byte
    path = tmp_path_factory.mktemp("changed") / "changed.safetensors"
    path.write_bytes(content)
    try:
        found = read_safetensors(path)
    except CheckpointError:
        return
    assert sum(tensor.numel() * tensor.itemsize for tensor in found.values()) == 22


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: None], ids=["folder", "nothing"])
def test_what_is_no_file_is_refused(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "a.safetensors"
    make(path)
    with pytest.raises(CheckpointError, match=r"a\.safetensors cannot be read \(.*\): check the path"):
        read_safetensors(path)

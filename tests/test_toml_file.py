"""TOML files that people write: a mistake is named with file, line or key."""

from pathlib import Path

import pytest

from autograder.toml_file import Table, read_toml, validated
from errors import UsageError


class Inner(Table):
    """One of a list."""

    days: int


class Outer(Table):
    """A file."""

    name: str = ""
    each: tuple[Inner, ...] = ()


def test_a_file_is_read_with_or_without_the_mark_that_editors_of_windows_leave(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    for mark in ("", "\ufeff"):
        path.write_text(f'{mark}name = "x"\r\n[[each]]\r\ndays = 2\r\n', encoding="utf-8", newline="")
        assert validated(Outer, read_toml(path), path) == Outer(name="x", each=(Inner(days=2),))


def test_entries_of_a_list_count_from_one_and_every_mistake_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        validated(Outer, {"names": 1, "each": [{"days": 1}, {"days": "many"}]}, tmp_path / "a.toml")
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'a.toml'}: ")
    assert "each.2.days: Input should be a valid integer" in text
    assert "names: Extra inputs are not permitted" in text


@pytest.mark.parametrize(
    ("content", "complaint"), [(b"a = 1\nb =\n", r"is no TOML: .*line 2"), (b"\xff\xfe", "is no TOML")]
)
def test_a_file_that_is_no_toml_is_an_error_with_its_line(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        read_toml(path)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_toml(tmp_path)

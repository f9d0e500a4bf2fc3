"""How is a TOML file read that a person writes by hand? By a schema, and every mistake is named with file and key.

edition = validated(Edition, read_toml(path), path)
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Table(BaseModel):
    """A table of a file: all keys known, nothing changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Schema = TypeVar("Schema", bound=Table)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file says. Raises UsageError, with the line, if it is no TOML, or cannot be read."""
    try:
        return parsed_toml(path.read_bytes(), path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def parsed_toml(content: bytes, path: Path) -> dict[str, Any]:
    """Return what the bytes of a file say. Raises UsageError, with the line, if they are no TOML."""
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error


def validated(schema: type[Schema], content: Mapping[str, Any], path: Path) -> Schema:
    """Return a file's content by its schema. Raises UsageError, which names each wrong key; lists count from 1."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{_key(one['loc'])}: {one['msg']}{_mend(one)}" for one in error.errors())
        raise UsageError(f"{path}: {problems}") from error


def _mend(problem: "ErrorDetails") -> str:
    """Return what to do about the mistakes that people make often."""
    kind, value, name = problem["type"], problem["input"], problem["loc"][-1] if problem["loc"] else ""
    if "datetime" in kind or kind == "timezone_aware":
        if isinstance(value, dict):
            return f': put quotes around a name with a dot in it: "{name}.{next(iter(value), "")}" = ...'
        return ": write day, time and offset, without quotes, such as 2026-11-20T23:59:00-08:00"
    if kind == "tuple_type" and isinstance(value, dict):
        return f": write [[{name}]], in two pairs of brackets"
    if kind == "string_type" and isinstance(value, int | float):
        return f': put quotes around it: "{value}"'
    return ""


def _key(location: tuple[int | str, ...]) -> str:
    """Return where in the file something is wrong, as a person counts."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in location) or "the file"

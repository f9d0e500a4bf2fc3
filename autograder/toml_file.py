"""How is a TOML file read that a person writes by hand? By a schema, and every mistake is named with file and key.

edition = validated(Edition, read_toml(path), path)
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from errors import UsageError


class Table(BaseModel):
    """A table of a file: all keys known, nothing changed after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Schema = TypeVar("Schema", bound=Table)


def read_toml(path: Path) -> dict[str, Any]:
    """Return what a file says. Raises UsageError, with the line, if it is no TOML, or cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error


def validated(schema: type[Schema], content: Mapping[str, Any], path: Path) -> Schema:
    """Return a file's content by its schema. Raises UsageError, which names each wrong key; lists count from 1."""
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        problems = "; ".join(f"{_key(problem['loc'])}: {problem['msg']}" for problem in error.errors())
        raise UsageError(f"{path}: {problems}") from error


def _key(location: tuple[int | str, ...]) -> str:
    """Return where in the file something is wrong, as a person counts."""
    return ".".join(str(part + 1) if isinstance(part, int) else part for part in location) or "the file"

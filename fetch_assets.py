"""Fetch the assignment's external files: the data sets, the tokenizer, pretrained weights.

`assets.toml` says where each file comes from, what it must be, and who needs it. `setup.sh` calls this file:

    python fetch_assets.py                      whatever is fetched by default
    python fetch_assets.py --only stories42M    one asset; that it cannot be had is then an error
    python fetch_assets.py --list               what there is

With MINLLAMA_ASSETS set to a folder (a mirror, for a laboratory without internet) files are copied from there and the
network is left alone; else they come by HTTPS, or by pip if they are published in a package. Nothing takes its place in
the project before it has been checked.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from asset_list import Asset, AssetFile, Source, load_catalogue
from config import LlamaConfig
from download import Downloader, Records
from errors import AssetError, CheckpointError, MinLlamaError
from utils import atomic_path, sha256_of

ROOT = Path(__file__).resolve().parent
CATALOGUE = ROOT / "assets.toml"
RECORDS = "weights/checksums.json"  # what this machine remembers between runs; git ignores it
SMALL = 8_000_000  # bytes; hashing a file of this size takes no noticeable time


class Fetcher:
    """Brings assets into the project folder `root`, from a mirror if there is one, else from the network."""

    def __init__(self, root: Path, mirror: Path | None = None) -> None:
        """Read what earlier runs remembered; raises AssetError if the mirror is no folder."""
        if mirror is not None and not mirror.is_dir():
            raise AssetError(f"MINLLAMA_ASSETS is {mirror}, which is not a folder: correct it, or unset it")
        self.root = root
        self.mirror = mirror
        self.records = Records(root / RECORDS)
        self.downloader = Downloader(self.records)

    def fetch(self, asset: Asset) -> bool:
        """Bring the files of an asset that are not there yet; return whether there were any.

        Raises AssetError, which says for each file that could not be had why, after all files have been tried.
        """
        fetched, problems = 0, dict[str, list[str]]()
        for file in asset.files:
            try:
                fetched += self.fetch_file(file)
            except AssetError as error:
                problems.setdefault(str(error), []).append(file.path)
            except OSError as error:  # a full disk, a folder that cannot be written to
                problems.setdefault(f"{error.strerror or error} ({error.filename})", []).append(file.path)
        if problems:
            raise AssetError("; ".join(f"{', '.join(paths)}: {problem}" for problem, paths in problems.items()))
        return fetched > 0

    def fetch_file(self, file: AssetFile) -> bool:
        """Bring one file unless it is there and right; return whether it was brought. Raises AssetError."""
        target = self.root / file.path
        problem = self._problem_of(file, target)
        if problem is None:
            return False
        if target.exists():
            print(f"{file.path}: {problem}; getting it anew")
        sources = [source for source in file.sources if not self.mirror or source.mirror]
        problems: list[str] = []
        for source in sources:
            try:
                self._take(source, file, target)
                return True
            except MinLlamaError as error:
                problems.append(str(error))
        raise AssetError("; ".join(dict.fromkeys(problems)) or f"no mirror holds it, {self.mirror} included")

    def _problem_of(self, file: AssetFile, target: Path) -> str | None:
        """Say what is wrong with the file that is in place, or None if it is right."""
        if not target.is_file():
            return "is not there"
        checksum = self.records.checksum(file.path, target)
        if file.model:
            return None if checksum else self._problem_of_checkpoint(file, target)
        if any(source.recorded for source in file.sources):
            return None  # nobody says what is right; it took its place as a whole
        size = target.stat().st_size
        if size not in {source.size for source in file.sources}:
            return f"has {size:,} bytes, unlike the published file"
        if size <= SMALL or checksum is None:
            checksum = sha256_of(target)
        if size > SMALL:
            self.records.checked(file.path, target, checksum)
        right = checksum in {source.sha256 for source in file.sources}
        return None if right else "differs from the published file"

    def _problem_of_checkpoint(self, file: AssetFile, target: Path) -> str | None:
        """Say why a checkpoint that somebody put in place cannot be used, or None after taking note of it."""
        _require_pytorch()
        try:
            _read_model(file, target)
        except CheckpointError as error:
            return f"cannot be used ({error})"
        self.records.checked(file.path, target, sha256_of(target))
        return None

    def _take(self, source: Source, file: AssetFile, target: Path) -> None:
        """Bring a file from one source and put it in place. Raises MinLlamaError if that source will not do."""
        if source.convert:
            _require_pytorch()  # told before a long download
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._content(source, target) as content:
            if source.convert:
                self._convert(content, source, file, target)
            elif self.mirror:
                with atomic_path(target) as temporary:
                    shutil.copyfile(content, temporary)
            else:
                if source.recorded:
                    self.records.put("first_use", source.url, sha256_of(content))
                content.replace(target)
        for left_over in target.parent.glob(f".{target.name}.*.part"):  # of sources that were given up
            left_over.unlink()

    @contextmanager
    def _content(self, source: Source, target: Path) -> Iterator[Path]:
        """Yield a file with the source's content, its checksum verified; a downloaded one is removed afterwards."""
        if self.mirror:
            content = self.mirror / (source.mirror or "")
            if not content.is_file():
                raise AssetError(f"{self.mirror} has no {source.mirror}")
            if problem := _mismatch(content, source.size, source.sha256):
                raise AssetError(f"{content}: {problem}")
            yield content
            return
        part = target.with_name(f".{target.name}.{sha256(source.place.encode()).hexdigest()[:8]}.part")
        self._download(source, part)
        content = part.with_suffix(Path(source.place).suffix)  # readers of checkpoints look at it
        try:
            part.replace(content)
            yield content
        finally:
            content.unlink(missing_ok=True)

    def _download(self, source: Source, part: Path) -> None:
        """Complete `part` and verify it; if it was begun in an earlier run and is wrong, begin again once."""
        begun_earlier = part.exists()
        self.downloader.download(source, part)
        first_use = None if source.sha256 else self.records.get("first_use", source.url)
        problem = _mismatch(part, source.size, source.sha256 or first_use)
        if problem and begun_earlier:
            part.unlink()
            return self._download(source, part)
        if problem:
            part.unlink()
            recorded = f" as at first use (to accept the new file, delete the URL from {RECORDS})" if first_use else ""
            raise AssetError(f"{source.place}: {problem}{recorded}")
        return None

    def _convert(self, content: Path, source: Source, file: AssetFile, target: Path) -> None:
        """Write `target` from a checkpoint in another form, and remember what its source gave."""
        from checkpoint import write_checkpoint  # imports PyTorch

        try:
            config, tensors = _read_model(file, content)
            write_checkpoint(target, config, tensors)
        except CheckpointError as error:
            raise AssetError(f"{source.place}: {error}") from error
        if not source.sha256 and not self.mirror:
            self.records.put("first_use", source.url, sha256_of(content))
        self.records.checked(file.path, target, sha256_of(target))


def _mismatch(path: Path, size: int | None, checksum: str | None) -> str | None:
    """Say how a file differs from what it must be, or None."""
    if size is not None and path.stat().st_size != size:
        return f"{path.stat().st_size:,} bytes, expected {size:,}"
    if checksum is not None and (got := sha256_of(path)) != checksum:
        return f"SHA-256 is {got}, expected {checksum}"
    return None


def _require_pytorch() -> None:
    """Raise AssetError if PyTorch is not there to check weights with; importing it would take a second."""
    if importlib.util.find_spec("torch") is None:
        raise AssetError("checking weights needs PyTorch, which is not installed: run ./setup.sh")


def _read_model(file: AssetFile, path: Path) -> tuple[LlamaConfig, dict[str, Any]]:
    """Read a checkpoint that must have the sizes of the catalogue. Raises CheckpointError."""
    from checkpoint import check_finite, read_checkpoint  # imports PyTorch

    config, tensors = read_checkpoint(path)
    for name, expected in file.model.items():
        if (got := getattr(config, name)) != expected:
            raise CheckpointError(f"{path} holds another model: {name} is {got}, expected {expected}")
    check_finite(path, tensors)
    return config, tensors


def main(argv: list[str] | None = None, *, catalogue: Path = CATALOGUE, root: Path = ROOT) -> int:
    """Fetch assets by the command line; return the exit status (2 if an asset that was named cannot be had)."""
    options = _parse(argv)
    try:
        assets = _choose(load_catalogue(catalogue), options.only)
        if options.list:
            _print_list(assets, root)
            return 0
        mirror = os.environ.get("MINLLAMA_ASSETS")
        fetcher = Fetcher(root, Path(mirror) if mirror else None)
        wanted = assets if options.only else [asset for asset in assets if asset.default]
        missing = [asset.name for asset in wanted if not _fetch_and_tell(fetcher, asset, named=bool(options.only))]
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ninterrupted: what has arrived is kept, and the same command goes on from there", file=sys.stderr)
        return 130
    if missing and not options.only:
        print(
            f"Not everything is here ({', '.join(missing)}). Run ./setup.sh again when there is a network, or set "
            "MINLLAMA_ASSETS to a folder that has the files."
        )
    return 2 if missing and options.only else 0


def _parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Fetch the external files that assets.toml lists.",
        epilog="Example: MINLLAMA_ASSETS=/path/to/folder python fetch_assets.py --only sst --only tokenizer",
    )
    parser.add_argument("--only", metavar="NAME", action="append", default=[], help="this asset (may be repeated)")
    parser.add_argument("--list", action="store_true", help="say what assets there are, and fetch nothing")
    return parser.parse_args(argv)


def _choose(assets: list[Asset], names: list[str]) -> list[Asset]:
    """Return the assets of these names, or all if none is named."""
    known = {asset.name: asset for asset in assets}
    for name in names:
        if name not in known:
            raise AssetError(f"no asset is called '{name}': choose from {', '.join(known)}")
    return [known[name] for name in dict.fromkeys(names)] or assets


def _fetch_and_tell(fetcher: Fetcher, asset: Asset, named: bool) -> bool:
    """Fetch an asset and print one line about it, and one about what comes next; return whether it is there now."""
    try:
        fetched = fetcher.fetch(asset)
    except AssetError as error:
        if named:
            print(f"error: {asset.name}: {error}", file=sys.stderr)
        else:
            print(f"{asset.name}: not fetched: {error}")
        return False
    print(f"{asset.name}: {'fetched' if fetched else 'up to date'}")
    if asset.then:
        print(f"{asset.name}: next: {asset.then}")
    return True


def _print_list(assets: list[Asset], root: Path) -> None:
    """Print a line for each asset, and one for each of its files."""
    for asset in assets:
        choice = "by default" if asset.default else f"only with --only {asset.name}"
        print(f"{asset.name}: {asset.about}")
        size = f"{asset.size:,} bytes" if asset.size else "of unpublished size"
        print(f"    {size}, {choice}; needed by {asset.needed_by}; licence: {asset.licence}")
        for file in asset.files:
            print(f"    {'there ' if (root / file.path).is_file() else 'absent'} {file.path}")


if __name__ == "__main__":
    sys.exit(main())

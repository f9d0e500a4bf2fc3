"""Makes the students' zip from the solution master, and a workspace for somebody who learns alone.

    make_handout(read_edition("minllama"), Path("build"))    # build/handout-minllama-1a2b3c4d.zip
    make_workspace(Path("build/start"), read_edition("minllama"))

The same master gives the same bytes; the version is a checksum of the content. Nothing takes its place before
`verify_handout` has tried it out.
"""

import hashlib
import io
import os
import re
import shlex
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

from autograder.editions import Edition
from autograder.handout.check import folder_of, mode_of, unpack, verify_content, verify_handout, verify_open
from autograder.handout.files import ASSIGNMENT, BINARY, README, SANITY_DATA, handout_files, packed_name
from autograder.handout.regions import close_regions
from component_checks import CHECKS, run_call
from errors import HandoutError
from submission_rules import FILES as REGIONS
from utils import atomic_path

ROOT = Path(__file__).resolve().parents[2]
START = ROOT / "build/start"
VERSION_LENGTH = 8  # hexadecimal digits
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)#\s]+)\)")

Content = dict[str, bytes]  # by the names in the hand-out
Replacements = tuple[tuple[str, str, str], ...]  # file, text that stands there once, text that takes its place

# Where the edition has no causal mask.
WITHOUT_MASK: Replacements = (
    ("config.py", "    causal: bool = True\n", "    causal: bool = False\n"),
    (README, "scaled dot-product attention, with the causal mask", "scaled dot-product attention"),
    ("structure.md", ' attention "causal mask"`', " attention`"),
    (
        "structure.md",
        "`LlamaConfig.causal` is true: the weights were trained with the mask. The 2024 editions left it out;\n"
        "  `--reproduce_2024` does the same.",
        "The weights were trained with a mask that hides later tokens. Your course leaves it out, as the 2024\n"
        "  editions did: `LlamaConfig.causal` is false. `checkpoints/` says itself what it was trained with.",
    ),
)
# Where the edition grades by the choices of 2024.
AS_IN_2024: Replacements = (
    (README, "Hand in runs without it, unless your course says otherwise.", "Your course wants runs with it."),
)
# Where zero-shot accuracies count.
ZERO_SHOT_COUNTS: Replacements = (
    (
        README,
        "Only your finetuned accuracies are graded: zero-shot accuracies were published\n"
        "for the choices of 2024 alone.",
        "Your zero-shot accuracies are graded as well as the finetuned ones.",
    ),
)


def make_handout(edition: Edition, target: Path, root: Path = ROOT) -> Path:
    """Write the hand-out of the master at `root` into the folder `target`, and return its path.

    It is called `handout-EDITION-VERSION.zip`, and takes its place when it has passed `verify_handout`. Raises
    HandoutError if the master is broken, the hand-out is not what students may get, or it cannot be written.
    """
    content, version = handout_content(edition, root)
    path = target / f"handout-{edition.name}-{version}.zip"
    with _writing(path), atomic_path(path) as temporary:
        temporary.write_bytes(_packed(content, folder_of(edition)))
        verify_handout(temporary, edition, root)
    return path


def make_workspace(folder: Path, edition: Edition, root: Path = ROOT) -> None:
    """Put the hand-out's files into `folder`, for somebody who learns alone; its checks have been run once.

    Raises HandoutError if there is something in the folder already, and as `make_handout` does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HandoutError(f"{folder} is there already, and perhaps somebody's work: name another folder")
    content, _ = handout_content(edition, root)
    verify_content(content, edition, root)
    with _writing(folder), _folder_beside(folder) as temporary:
        made = temporary / folder.name
        unpack(content, made)
        verify_open(made, edition)
        if folder.exists():
            folder.rmdir()  # empty, see above
        made.rename(folder)


def handout_content(edition: Edition, root: Path) -> tuple[Content, str]:
    """Return the files of a hand-out by their names in it, and its version, which its README states.

    Raises HandoutError if the master at `root` is broken.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", edition.name):
        raise HandoutError(f"the edition's name '{edition.name}' cannot be a file's: use a-z, 0-9, - and _")
    content = _content(edition, root)
    digest = hashlib.sha256(edition.name.encode())
    for name, data in sorted(content.items()):
        digest.update(f"\n{name} {len(data)}\n".encode() + data)
    version = digest.hexdigest()[:VERSION_LENGTH]
    title, rest = content[README].decode("utf-8").split("\n", maxsplit=1)
    content[README] = f"{title}\n\n{_introduction(edition, version)}{rest}".encode()
    return content, version


def run_handout(edition: Edition, target: Path) -> int:
    """Make and verify an edition's hand-out, and say what it is; return the exit status."""
    path = make_handout(edition, target)
    with zipfile.ZipFile(path) as archive:
        files = len(archive.namelist())
    print(f"wrote {path}: {files} files, {path.stat().st_size / 1e6:.1f} MB")
    print(f"open: {', '.join(edition.handout.open)}")
    print(f"given: {', '.join(_given(edition)) or 'none of the parts'}")
    print("verified: no line of a solution is in it, its checks say what is open, and with the solutions all pass")
    return 0


def run_start(edition: Edition, folder: Path) -> int:
    """Make a workspace with the gaps open, and say what to do next; return the exit status."""
    make_workspace(folder, edition)
    activate = next(
        (path for name in ("bin", "Scripts") if (path := ROOT / ".venv" / name / "activate").is_file()), None
    )
    print(f"wrote {folder}: {len(edition.handout.open)} parts to write, see its README.md. Next:")
    print(f"  cd {shlex.quote(str(folder))}")
    if activate:
        print(f"  source {shlex.quote(os.path.relpath(activate, folder))}")
    print("  python sanity_check.py      # what is still to be written, and where")
    print("  python fetch_assets.py      # data and weights; some checks and commands wait for them")
    return 0


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a HandoutError that names what was to be written."""
    try:
        yield
    except OSError as error:
        raise HandoutError(f"{path} cannot be written ({error}): check the path and the space on the disk") from error


@contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Yield a temporary folder on the same disk as `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        yield Path(folder)


def _content(edition: Edition, root: Path) -> Content:
    """Return the files of the hand-out as this edition has them, but for the stamp."""
    content = {packed_name(name): _read(root, name) for name in handout_files(root)}
    texts = {name: data.decode("utf-8") for name, data in content.items() if not name.endswith(BINARY)}
    for name, text in texts.items():
        if name.endswith(".py"):
            texts[name] = close_regions(text, edition.handout.open, edition.handout.hint, name)
        elif name.endswith(".md"):
            texts[name] = _relinked(text, name, content)
    for name, old, new in _replacements(edition):
        if texts[name].count(old) != 1:
            found = ASSIGNMENT if name == README else name
            raise HandoutError(
                f"{found}: this edition's hand-out changes `{' '.join(old.split())}`, which stands there "
                f"{texts[name].count(old)} times instead of once: mend the list in autograder/handout/make.py"
            )
        texts[name] = texts[name].replace(old, new)
    content |= {name: text.encode("utf-8") for name, text in texts.items()}
    if not edition.causal:
        content[SANITY_DATA] = _sanity_data_without_mask()
    return content


def _read(root: Path, name: str) -> bytes:
    """Return a file's bytes; a text has one kind of line end on every system, and is UTF-8 (else HandoutError)."""
    data = (root / name).read_bytes()
    if name.endswith(BINARY):
        return data
    try:
        return data.decode("utf-8").replace("\r\n", "\n").encode()
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise HandoutError(f"{name}:{line}: this is no UTF-8: save the file as such") from error


def _relinked(text: str, name: str, content: Content) -> str:
    """Return a document with the assignment under its new name, and without links to what is not handed out."""

    def relink(link: re.Match[str]) -> str:
        target = link[2]
        if "://" in target:
            return link[0]
        path = os.path.normpath(PurePosixPath(name).parent / target).replace(os.sep, "/")
        is_there = path in content or any(other.startswith(f"{path}/") for other in content)
        return link[0] if is_there else link[1]

    return LINK.sub(relink, text.replace(ASSIGNMENT, README))


def _replacements(edition: Edition) -> Replacements:
    """Return what this edition changes in the files."""
    replacements: Replacements = ()
    if not edition.causal:
        replacements += WITHOUT_MASK
    if edition.reproduce_2024:
        replacements += AS_IN_2024
        commands = dict.fromkeys(output.command for output in edition.rules().outputs if output.command)
        replacements += tuple((README, f"\n{line}\n", f"\n{line} --reproduce_2024\n") for line in commands)
    if any(name.endswith("-prompting-output.txt") for name in edition.margins):
        replacements += ZERO_SHOT_COUNTS
    return replacements


def _introduction(edition: Edition, version: str) -> str:
    """Return what the README says about this hand-out."""
    lines = [f"{edition.title}: hand-out `{edition.name}`, version `{version}`."]
    if given := _given(edition):
        parts = ", ".join(f"`{region}` in `{REGIONS[region]}`" for region in given)
        lines.append(f"Your course gives you these parts, so that there is nothing to fill in there: {parts}.")
    if not edition.causal:
        lines.append(
            "Your attention needs no causal mask: `LlamaConfig.causal` is false, and the checks are made for that. "
            "A mask that is built only if `self.causal` is true is right as well. "
            "The first text below was written with one."
        )
    if edition.reproduce_2024:
        lines.append("Your course grades by the choices of 2024: the commands below end in `--reproduce_2024`.")
    return "\n\n".join(lines) + "\n"


def _given(edition: Edition) -> list[str]:
    """Return the regions that stay solved."""
    return [region for region in REGIONS if region not in edition.handout.open]


def _sanity_data_without_mask() -> bytes:
    """Return a `sanity_check.data` for models without a causal mask, made from the running master.

    Components are checked by themselves, so only what runs the whole model changes. There are no checks of the mask,
    and none on real weights: without the mask these write nonsense, and a hand-out depends on the master alone.
    """
    from autograder.checks import sanity_data  # imports the master

    references = sanity_data.build(None)
    for check in CHECKS:
        if check.name not in references:
            continue
        old = references[check.name]
        config = old.case.settings.get("config", {})
        if config.get("causal"):
            del references[check.name]
        elif check.needs:
            case = replace(old.case, settings=old.case.settings | {"config": config | {"causal": False}})
            references[check.name] = replace(old, case=case, expected=run_call(check, case))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, SANITY_DATA)
        sanity_data.write(path, references)
        return path.read_bytes()


def _packed(content: Content, folder: str) -> bytes:
    """Return the zip: sorted names, fixed times and permissions, so that the same files make the same bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(content.items()):
            entry = zipfile.ZipInfo(f"{folder}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, on every system
            entry.external_attr = (stat.S_IFREG | mode_of(name)) << 16
            archive.writestr(entry, data)
    return buffer.getvalue()

"""Which submissions does a class folder hold, or the zip that a platform exported, and what does the platform say?

    entries = find_entries(Path("class"), out / "submissions")

| what | looks like | is recognised by |
|---|---|---|
| plain | zips and folders, one a student | neither of the others |
| Canvas | `doejane_LATE_12345_67890_abc123-1.zip` | most zips have such a name |
| Gradescope | `submission_123/`, with a file about all of them | `submission_metadata.yml` |

A zip of any of these is unpacked first. Nothing of a submission is opened here.
"""

import importlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from autograder.batch.exports import unpack_export
from autograder.batch.records import Entry
from errors import MissingDependency, UsageError
from submission_check import check_student_id, shown

METADATA = "submission_metadata.yml"
MAX_METADATA_BYTES = 50_000_000
# What systems leave in folders: passed over, like everything hidden.
JUNK = ("__MACOSX", "Thumbs.db", "desktop.ini", "$RECYCLE.BIN")
# The name in lower case with nothing between its parts, LATE or nothing, numbers of user and file, the student's name
# of the file. What was typed into a text box has no number of a file, and no `_` after that of the user. Of several
# places where the numbers may stand the first counts, since students choose the names of their files.
CANVAS = re.compile(
    r"(?P<name>[^_].*?)_(?P<late>LATE_)?(?P<user>[0-9]{1,20})_(?:(?P<file>[0-9]{1,20})_)?(?P<rest>(?(file).+|[^_]+))",
    re.DOTALL,
)
NOBODY = "?"  # begins what stands in place of Canvas' number where Canvas does not say whose something is
ATTEMPT = re.compile(r".*-([0-9]{1,9})", re.DOTALL)  # ends the name of a file that was handed in again
TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ]+(\d\d:\d\d:\d\d)(?:\.\d*)? *(Z|UTC|[+-]\d\d:?\d\d)?")
_NOT_A_ZIP = "it is neither a zip nor a folder: ask for a zip"


def find_entries(folder: Path, unpacked: Path) -> list[Entry]:
    """Return what a class folder, or the zip of one, holds: an entry for each thing in it, sorted by name.

    A zip is unpacked as the folder `unpacked`, in place of what was there. What cannot be graded is an entry with its
    `problem`. Raises UsageError if there is no such folder, nothing is in it, or the platform's file about it is
    damaged, and MissingDependency if that cannot be read here.
    """
    source = Path(folder).absolute()
    left_out: dict[str, str] = {}
    if source.is_file():
        left_out = unpack_export(source, Path(unpacked).absolute())
    root = Path(unpacked).absolute() if source.is_file() else source
    results = Path(unpacked).absolute().parent  # may lie among the submissions
    things = [path for path in _look(root) if path != results]
    if inner := _only_folder(things):
        root, things = inner, _look(inner)
    names = [path.name for path in things]
    if METADATA in names:
        entries = _of_gradescope(root, [path for path in things if path.name != METADATA])
    elif _is_canvas(names):
        entries = [_with_canvas_name(_entry(path)) for path in things]
    else:
        entries = [_entry(path) for path in things]
    entries += _left_out(left_out, source, {entry.name for entry in entries}, _is_canvas(names))
    if not entries:
        mend = "put each student's zip there, or name the zip that the platform exported"
        raise UsageError(f"{shown(str(folder))} holds no submissions: {mend}")
    return sorted(entries, key=lambda entry: entry.name)


def _look(folder: Path) -> list[Path]:
    """Return what lies in a folder, less what is hidden or junk. Raises UsageError if it cannot be read."""
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        what = f"{shown(str(folder))} cannot be read ({error.strerror})"
        raise UsageError(f"{what}: name the folder of the submissions, or the zip of a platform") from error
    return [path for path in found if not path.name.startswith(".") and path.name not in JUNK]


def _only_folder(things: Sequence[Path]) -> Path | None:
    """Return the folder that everything lies in, if there is one: zips of a class often have it."""
    if len(things) != 1 or things[0].is_symlink() or not things[0].is_dir():
        return None
    inner = [path.name for path in _look(things[0])]
    is_class = METADATA in inner or any(name.lower().endswith(".zip") for name in inner)
    return things[0] if is_class else None


def _entry(path: Path) -> Entry:
    """Return what a zip, a folder, or something else is without a platform's word on it."""
    name = path.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
    mode = path.lstat().st_mode
    if name != path.name:
        problem = "its name is no UTF-8: rename it"
    elif stat.S_ISLNK(mode):
        problem = "it is a link: put the zip or folder itself there"
    elif stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and name.lower().endswith(".zip")):
        problem = ""
    else:
        problem = _NOT_A_ZIP
    return Entry(name=name, path=os.fsencode(path).decode(errors="backslashreplace"), problem=problem)


def _left_out(problems: Mapping[str, str], archive: Path, taken: set[str], is_canvas: bool) -> list[Entry]:
    """Return an entry for each thing at the top of a zip that was left out of it, whole or in part."""
    entries = []
    for name, problem in problems.items():
        entry = Entry(name=shown(name, 200) or "/", path=str(archive), problem=problem)
        entry = _with_canvas_name(entry) if is_canvas else entry
        entries.append(replace(entry, name=f"{entry.name} (not unpacked)") if entry.name in taken else entry)
    return entries


# --- Canvas -----------------------------------------------------------------------------------------------------------


def _is_canvas(names: Sequence[str]) -> bool:
    """Say whether most of the zips among these are named as Canvas does."""
    zips = [name for name in names if name.lower().endswith(".zip")]
    matches = [match for name in zips if (match := CANVAS.fullmatch(name)) and match["file"]]
    return 2 * len(matches) > len(zips)


def _with_canvas_name(entry: Entry) -> Entry:
    """Return an entry with what Canvas says in its name.

    What lies there under another name is graded, but nobody's: what it says of itself anybody may have written.
    """
    match = CANVAS.fullmatch(entry.name)
    if not match:
        return replace(entry, platform_id=f"{NOBODY} {_text(entry.name)}")
    stem = match["rest"][:-4] if match["rest"].lower().endswith(".zip") else match["rest"]
    attempt = ATTEMPT.fullmatch(stem)
    return replace(
        entry,
        student_name=match["name"],
        platform_id=match["user"],
        attempt=int(attempt[1]) if attempt else 0,
        is_late=match["late"] is not None,
    )


# --- Gradescope -------------------------------------------------------------------------------------------------------


def _of_gradescope(root: Path, things: Sequence[Path]) -> list[Entry]:
    """Return the entries of an export: what the metadata lists, and whatever else lies there."""
    metadata = _read_metadata(root / METADATA)
    known = {path.name: path for path in things}
    entries = [_entry(path) for path in things if path.name not in metadata]
    for name, content in metadata.items():
        if name in known:
            entries.append(_described(_inside(_entry(known[name])), content))
        else:
            missing = Entry(name=name, path=str(root / METADATA), problem=f"{METADATA} lists it, but it is not there")
            entries.append(_described(missing, content))
    return entries


def _read_metadata(path: Path) -> dict[str, Any]:
    """Return what Gradescope says of each submission, by the folder's name; every value in it is text.

    As text, an ID such as 0012 stays what it is, and Ruby's own types are nothing special.
    """
    try:
        yaml = importlib.import_module("yaml")
    except ImportError as error:
        raise MissingDependency("reading what Gradescope exported", "pyyaml") from error
    mend = "export the submissions again"
    try:
        if path.is_symlink() or path.stat().st_size > MAX_METADATA_BYTES:
            raise UsageError(f"{path} is no file that Gradescope writes: {mend}")
        loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # makes nothing but text, lists and mappings
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        what = getattr(error, "problem", None) or type(error).__name__
        raise UsageError(f"{path}{line}: this is no YAML ({shown(str(what))}): {mend}") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise UsageError(f"{path}:1: expected `submission_NUMBER:` and what belongs to it: {mend}")
    return {name: entry for name, entry in content.items() if isinstance(entry, dict)}


def _inside(entry: Entry) -> Entry:
    """Return the entry of the single zip in a submission's folder, or of the folder, if its files lie there."""
    folder = Path(entry.path)
    if entry.problem or not folder.is_dir():
        return entry
    things = _look(folder)
    if not things:
        return replace(entry, problem="its folder is empty: nothing was handed in")
    inner = _entry(things[0])
    if len(things) > 1 or inner.problem or things[0].is_dir():
        return entry
    return replace(inner, name=f"{entry.name}/{inner.name}")


def _described(entry: Entry, content: Mapping[str, Any]) -> Entry:
    """Return an entry with what the metadata says of it; of a group, all members in their order."""
    people = content.get(":submitters")
    people = [person for person in people if isinstance(person, dict)] if isinstance(people, list) else []
    names, numbers, emails = ([_text(person.get(key)) for person in people] for key in (":name", ":sid", ":email"))
    # Where files lie loose, no zip says whose they are.
    own = entry.student_id if entry.path.lower().endswith(".zip") else _id_of(emails)
    return replace(
        entry,
        student_id=own,
        student_name=";".join(names),
        email=";".join(emails),
        platform_id=";".join(numbers),
        submitted_at=_time(content.get(":created_at")),
    )


def _text(value: object) -> str:
    """Return a text of a platform as part of a list with `;` between its parts."""
    return value.replace(";", ",").strip() if isinstance(value, str) else ""


def _id_of(emails: Sequence[str]) -> str | None:
    """Return the first part of the first address, if that can be a student's ID."""
    name = emails[0].partition("@")[0].lower() if emails else ""
    try:
        check_student_id(name)
    except UsageError:
        return None
    return name


def _time(value: object) -> str:
    """Return a time of the metadata in ISO 8601, without fractions, or nothing. One without an offset is UTC."""
    if isinstance(value, dict):  # as Ruby writes a time that knows its zone
        value = value.get("utc")
    match = TIME.fullmatch(value) if isinstance(value, str) else None
    if not match:
        return ""
    offset = "+00:00" if match[3] in (None, "Z", "UTC") else match[3]
    try:
        return datetime.fromisoformat(f"{match[1]}T{match[2]}{offset}").isoformat()
    except ValueError:
        return ""

"""Is an archive a submission? It may come from a stranger, so that nothing in it is trusted, or unpacked to disk.

`verify_archive` reports all problems at once, and reads no more than the limits in `submission_rules.SUBMISSION` allow.
Parsing Python source can still take some hundred megabytes: a grader calls it in a process of limited memory.
"""

import ast
import io
import json
import os
import re
import stat
import struct
import unicodedata
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Protocol

from errors import SubmissionError, UsageError
from submission_rules import SUBMISSION, OutputFile, SubmissionRules

# --- The report -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and what to do about it."""

    what: str
    mend: str


@dataclass
class Report:
    """What was found in an archive: errors keep it from being handed in, warnings do not."""

    archive: str
    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def error(self, what: str, mend: str) -> None:
        """Add an error."""
        self.errors.append(Problem(what, mend))

    def warn(self, what: str, mend: str) -> None:
        """Add a warning."""
        self.warnings.append(Problem(what, mend))

    def __str__(self) -> str:
        """Return the report as the student reads it: a summary, then each problem above its mend."""
        if not self.errors and not self.warnings:
            return f"{shown(self.archive)}: no errors, no warnings: hand it in"
        lines = [f"{shown(self.archive)}: {_count(self.errors, 'error')}, {_count(self.warnings, 'warning')}"]
        for kind, problems in (("error", self.errors), ("warning", self.warnings)):
            for problem in problems:
                indent = " " * len(f"{kind}: ")
                lines += [f"{kind}: {problem.what}", indent + problem.mend]
        return "\n".join(lines)


def _count(items: list[Problem], noun: str) -> str:
    """Return `no errors`, `1 error` or `2 errors`."""
    return f"{len(items) or 'no'} {noun}{'' if len(items) == 1 else 's'}"


def shown(name: str, width: int = 100) -> str:
    """Return a name that is safe to print: a stranger's file name may hold a terminal's control codes."""
    name = name if len(name) <= width else name[:width] + "..."
    return name if name.isascii() and name.isprintable() else ascii(name)


def _listed(names: Iterable[str], limit: int = 4) -> str:
    """Return names joined by commas, only the first few where there are many."""
    safe = [shown(name) for name in names]
    return ", ".join(safe[:limit]) + (f" and {len(safe) - limit} more" if len(safe) > limit else "")


def _size(size: int) -> str:
    """Return a number of bytes as text."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


# --- The archive: is each entry what it seems? ------------------------------------------------------------------------

CHUNK = 1 << 16  # bytes read at a time
_MAX_DIRECTORY_BYTES = 1 << 23  # of the zip's list of entries, which the zipfile module reads whole
UNREADABLE = (
    *(zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError),
    *(RuntimeError, ValueError, OverflowError),  # include NotImplementedError and UnicodeDecodeError
)


class CappedFile(io.FileIO):
    """A file that refuses to be read in one big piece, so that a forged list of entries cannot fill the memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read like any file, up to a limit."""
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > _MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile("its list of entries is too long")
        return super().read(size) or b""


class Entries(Protocol):
    """What is inspected: a zip, or whatever else can list its files as the entries of one."""

    def infolist(self) -> list[zipfile.ZipInfo]:
        """Return all entries."""

    def open(self, entry: zipfile.ZipInfo, /) -> IO[bytes]:
        """Return an entry's bytes as a stream."""


# Called with the name and the bytes of each file that can be read, before anything looks into it.
Keep = Callable[[str, bytes], None]
_MAX_NAME_BYTES = 140  # that every file system can store
_FLOOD = 20  # times the limit on entries are looked at: a forgotten environment is one error, not a flood

_REPACK = "pack the folder again with `python prepare_submit.py DIR {id}`"


@dataclass(frozen=True)
class EntryRule:
    """Something that no entry may be; `{id}` in the mend stands for the student's ID."""

    what: str
    broken: Callable[[zipfile.ZipInfo, SubmissionRules], bool]
    mend: str = _REPACK


# An entry that breaks one of these has no known place in the folder. The name is taken as it was written: the zipfile
# module cuts it at a NUL, and on Windows turns backslashes into slashes.
NAME_RULES = (
    EntryRule("backslashes in the name", lambda entry, _: "\\" in entry.orig_filename),
    EntryRule("control characters in the name", lambda entry, _: not entry.orig_filename.isprintable()),
    EntryRule("two names for one entry", lambda entry, _: entry.filename != entry.orig_filename),
    EntryRule("an absolute path", lambda entry, _: entry.filename.startswith("/")),
    EntryRule("a drive letter, or a colon, in the name", lambda entry, _: ":" in entry.filename),
    EntryRule(
        "a path with `..`, an empty part, or a dot or space at the end of a name",
        # Windows drops spaces and dots at the end of a name, so that `.. ` is `..`
        lambda entry, _: any(part.rstrip(". ") != part or not part for part in parts_of(entry.filename)),
    ),
    EntryRule(
        f"a name of more than {_MAX_NAME_BYTES} bytes",
        lambda entry, _: any(len(part.encode()) > _MAX_NAME_BYTES for part in parts_of(entry.filename)),
        "give it a short name",
    ),
)
# An entry that breaks one of these is not read.
DATA_RULES = (
    EntryRule(
        "a link or special file",
        lambda entry, _: stat.S_IFMT(entry.external_attr >> 16) not in (0, _entry_mode(entry)),
        "put the file itself in its place",
    ),
    EntryRule("encrypted", lambda entry, _: bool(entry.flag_bits & 0x41), "pack it without a password"),
    EntryRule(
        "compressed by an unusual method",
        lambda entry, _: entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    ),
    EntryRule(
        "suspiciously well compressed",
        lambda entry, rules: entry.file_size > max(1_000_000, rules.max_ratio * entry.compress_size),
        "leave the file out, or shorten it",
    ),
)


def parts_of(name: str) -> list[str]:
    """Split an entry's name at its slashes; a folder's last slash does not count."""
    return name.removesuffix("/").split("/")


def _entry_mode(entry: zipfile.ZipInfo) -> int:
    """Return the file type that an entry of this name should have."""
    return stat.S_IFDIR if entry.is_dir() else stat.S_IFREG


def is_mac_junk(parts: list[str]) -> bool:
    """Say whether an entry is what macOS's Finder adds to an archive."""
    return parts[0] == "__MACOSX" or parts[-1] == ".DS_Store" or parts[-1].startswith("._")


def collision_key(name: str) -> str:
    """Return a key that is equal for names that are one file on some system: case, or how accents are written."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).removesuffix("/")


def _read_entry(archive: Entries, entry: zipfile.ZipInfo) -> bytes:
    """Return an entry's bytes, never more than it declares; its checksum is verified on the way."""
    data = bytearray()
    with archive.open(entry) as stream:
        while chunk := stream.read(CHUNK):
            data += chunk
            if len(data) > entry.file_size:
                raise zipfile.BadZipFile("it unpacks to more than it declares")
    return bytes(data)


class _Inspection:
    """One look at one archive: its methods go from the outside in, and add what they find to the report."""

    def __init__(
        self, archive: Entries, student_id: str, rules: SubmissionRules, report: Report, keep: Keep | None = None
    ) -> None:
        """Remember what is inspected, by which rules, and where problems and files go."""
        self.archive, self.student_id, self.rules, self.report = archive, student_id, rules, report
        self.keep = keep
        self.repack = _REPACK.replace("{id}", student_id)

    def run(self, archive_bytes: int) -> None:
        """Check the archive's size, its entries, its layout, and what is in each file."""
        self.check_size(archive_bytes)
        named = self.passing(NAME_RULES, self.without_flood(self.archive.infolist()))
        readable = set(self.passing(DATA_RULES, named))
        entries = self.without_junk(self.without_collisions(named))
        if entries:
            files = self.files_at_root(entries)
            self.check_missing(files)
            self.check_contents({name: entry for name, entry in files.items() if entry in readable})
        elif not self.report.errors:
            self.report.error("it holds no files", self.repack)

    def check_size(self, archive_bytes: int) -> None:
        """Report an archive that is too large, packed or unpacked, or holds too many entries."""
        rules, entries = self.rules, self.archive.infolist()
        largest = sorted(entries, key=lambda entry: -entry.file_size)[:3]
        sizes = [f"{shown(entry.filename)} ({_size(entry.file_size)})" for entry in largest]
        unpacked = sum(entry.file_size for entry in entries)
        for size, limit, verb in (
            (archive_bytes, rules.max_bytes, "has"),
            (unpacked, rules.max_unpacked_bytes, "unpacks to"),
        ):
            if size > limit:
                what = f"it {verb} {_size(size)}, and the limit is {_size(limit)}"
                self.report.error(what, f"leave out what is large: {', '.join(sizes)}")
                break
        if len(entries) > rules.max_entries:
            self.report.error(f"it holds {len(entries)} entries, and the limit is {rules.max_entries}", self.repack)

    def without_flood(self, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
        """Return the entries to look at: of very many, which check_size has reported, those with known names first."""
        limit = _FLOOD * self.rules.max_entries
        if len(entries) <= limit:
            return entries
        known = {*self.rules.required, *self.rules.expected, *self.rules.optional}
        return sorted(entries, key=lambda entry: entry.filename.rpartition("/")[2] not in known)[:limit]

    def passing(self, rules: tuple[EntryRule, ...], entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
        """Return the entries that keep all the rules, and report the others, one error a rule."""
        sound: list[zipfile.ZipInfo] = []
        broken: dict[EntryRule, list[str]] = {}
        for entry in entries:
            rule = next((rule for rule in rules if rule.broken(entry, self.rules)), None)
            if rule:
                broken.setdefault(rule, []).append(entry.orig_filename)
            else:
                sound.append(entry)
        for rule, names in broken.items():
            self.report.error(f"{rule.what}: {_listed(names)}", rule.mend.replace("{id}", self.student_id))
        return sound

    def without_collisions(self, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
        """Return the entries less those whose name is taken, and report these."""
        unique: dict[str, zipfile.ZipInfo] = {}
        colliding = []
        for entry in entries:
            if unique.setdefault(collision_key(entry.filename), entry) is not entry:
                colliding.append(entry.filename)
        if colliding:
            what = f"entries whose name is taken, in the same or another spelling: {_listed(colliding)}"
            self.report.error(what, "keep one of each")
        return list(unique.values())

    def without_junk(self, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
        """Return the entries less what macOS added, and warn of that."""
        kept = [entry for entry in entries if not is_mac_junk(parts_of(entry.filename))]
        if len(kept) < len(entries):
            self.report.warn(
                "macOS's own files are in it (__MACOSX, .DS_Store)",
                f"run `zip -d {self.student_id}.zip '__MACOSX/*' '*.DS_Store' '*/._*'`, or {self.repack}",
            )
        return kept

    def root_folder(self, entries: list[zipfile.ZipInfo]) -> str:
        """Return the folder (with its slash) to take the files from, and report if it is not the only thing, `ID/`."""
        own = self.student_id
        folders = sorted({parts_of(entry.filename)[0] for entry in entries if "/" in entry.filename})
        loose = [entry.filename for entry in entries if "/" not in entry.filename]
        if not folders:
            self._report_no_folder()
            return ""
        root = self.likeliest_root(entries)
        if not root:
            self._report_no_folder()
            return root
        if loose:
            self.report.error(f"files beside the folder: {_listed(loose)}", f"move them into `{own}/`")
        if len(folders) > 1:
            self.report.error(f"it holds {len(folders)} folders: {_listed(folders)}", f"leave only `{own}/` in it")
        if "/" in root.removesuffix("/"):
            what = f"its files are in the folder `{shown(root)}`, not in `{own}/`"
            self.report.error(what, f"move them to `{own}/`, and zip that folder again")
        elif root != f"{own}/":
            what = f"the folder's name is `{shown(root.removesuffix('/'))}`, not `{own}`"
            self.report.error(what, f"name the folder `{own}`, in lower case, and zip it again")
        return root

    def _report_no_folder(self) -> None:
        """Report files that lie loose in the archive."""
        what = f"its files are not in a folder `{self.student_id}/`"
        self.report.error(what, "zip the folder, not what is in it")

    def likeliest_root(self, entries: list[zipfile.ZipInfo]) -> str:
        """Return the folder (with its slash, or "" for none) that holds the submission.

        That is `ID/`, unless no required file is in it: then the folder that holds most of them.
        """
        own = f"{self.student_id}/"
        found = {f"{parts_of(entry.filename)[0]}/": 0 for entry in entries if "/" in entry.filename}
        for entry in entries:
            folder, slash, name = entry.filename.rpartition("/")
            if name in self.rules.required:
                found[folder + slash] = found.get(folder + slash, 0) + 1
        if own in found and (found[own] or not any(found.values())):
            return own
        return min(found, key=lambda folder: (-found[folder], folder.count("/"), folder))

    def files_at_root(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Return the files in the submission's folder by name, and report what should not be there."""
        root = self.root_folder(entries)
        files: dict[str, zipfile.ZipInfo] = {}
        forbidden: dict[str, set[str]] = {}
        subfolders: set[str] = set()
        for entry in entries:
            name = entry.filename.removeprefix(root)
            top = parts_of(name)[0]
            if not name or (root and name == entry.filename):
                continue  # the folder itself, or an entry outside it
            if kind := self.rules.forbidden_kind(top):
                forbidden.setdefault(kind, set()).add(top)
            elif "/" in name:
                subfolders.add(f"{top}/")
            else:
                files[name] = entry
        for kind, names in forbidden.items():
            self.report.error(f"{kind} may not be in it: {_listed(sorted(names))}", "leave it out")
        if subfolders:
            what = f"folders in the folder: {_listed(sorted(subfolders))}"
            self.report.error(what, f"move their files up into `{self.student_id}/`, or leave them out")
        self.warn_of_unknown([name for name in files if not self.rules.belongs(name, self.student_id)])
        return files

    def warn_of_unknown(self, names: list[str]) -> None:
        """Warn of files that are not part of a submission."""
        reports = [name for name in names if name.lower().endswith(".pdf")]
        others = [name for name in names if name not in reports]
        warn_of_reports(self.report, reports, self.student_id)
        if others:
            self.report.warn(f"not part of a submission: {_listed(others)}", "leave out what nothing needs")

    def check_missing(self, files: Iterable[str]) -> None:
        """Report the files that are not there, those that one command makes together."""
        present = set(files)
        mends = {output.name: output.mend for output in self.rules.outputs}
        for names, add, otherwise in (
            (self.rules.required, self.report.error, "put your finished work into the folder"),
            (self.rules.expected, self.report.warn, "copy from the hand-out into the folder"),
        ):
            missing: dict[str, list[str]] = {}
            for name in names:
                if name not in present:
                    missing.setdefault(mends.get(name, otherwise), []).append(name)
            for mend, group in missing.items():
                verb = "is" if len(group) == 1 else "are"
                add(f"{_listed(group, limit=len(group))} {verb} missing", mend)

    def check_contents(self, files: dict[str, zipfile.ZipInfo]) -> None:
        """Unpack each file in memory and check what is in it, as far as the limits on bytes and files allow."""
        budget = self.rules.max_unpacked_bytes
        unfinished: list[str] = []
        # what belongs comes first: a limit costs the rest
        ordered = sorted(files.items(), key=lambda item: not self.rules.belongs(item[0], self.student_id))
        for name, entry in islice(ordered, self.rules.max_entries):
            budget -= entry.file_size
            if budget < 0:
                break  # check_size has reported it
            try:
                data = _read_entry(self.archive, entry)
            except UNREADABLE as error:
                self.report.error(f"{shown(name)} cannot be unpacked: {shown(str(error))}", self.repack)
            else:
                if self.keep:
                    self.keep(name, data)
                unfinished += self.check_content(name, data)
        if unfinished:
            what = f"NotImplementedError is still raised: {_listed(unfinished, limit=12)}"
            self.report.warn(what, "write these parts, or hand in without them for a lower grade")

    def check_content(self, name: str, data: bytes) -> list[str]:
        """Check what is in one file; return the `file:line` of parts that the student has not written."""
        outputs = {output.name: output for output in self.rules.outputs}
        output = outputs.get(name)
        if not data.strip() and (output or name in self.rules.required):
            self.report.error(f"{name} is empty", output.mend if output else "put your finished file in its place")
        elif output:
            _check_output(self.report, output, data, self.rules.prompt)
        elif name.endswith(".py"):
            tree = _parsed(self.report, name, data, self.rules.max_source_bytes)
            return _unfinished_parts(name, tree) if tree and name in self.rules.required else []
        elif name == f"{self.student_id}-report.pdf" and not data.startswith(b"%PDF"):
            self.report.error(f"{name} is not a PDF", "export the report as PDF")
        elif name == "run-info.json":
            _check_run_info(self.report, name, data)
        return []


# --- The contents of a file -------------------------------------------------------------------------------------------


def _check_output(report: Report, output: OutputFile, data: bytes, prompt: str) -> None:
    """Check a file of generated text, or of predictions."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        report.error(f"{output.name}:{line}: not UTF-8 text", output.mend)
        return
    if output.labels:
        _check_predictions(report, output, text.rstrip("\r\n"))
    elif not text.lstrip().startswith(prompt):
        report.warn(f"{output.name} does not begin with the fixed prompt", output.mend)


def _check_predictions(report: Report, output: OutputFile, text: str) -> None:
    """Check each row's form and label, up to the first that is wrong, and the number of rows."""
    for number, row in enumerate(io.StringIO(text, newline="\n"), start=1):
        complaint = _row_complaint(row, output.labels)
        if complaint:
            report.error(f"{output.name}:{number}: {complaint}", output.mend)
            return
    rows = text.count("\n") + 1
    if rows != output.rows:
        count = f"{rows} row{'' if rows == 1 else 's'}"
        what = f"{output.name} has {count}, for {output.rows} sentences in the published data"
        report.warn(what, output.mend)


def _row_complaint(row: str, labels: int) -> str | None:
    """Return what is wrong with a row of predictions, or None."""
    label, separator, sentence = row.partition(" ||| ")
    if not separator or not sentence.strip():
        return "the row is not `label ||| sentence`"
    if not re.fullmatch(r"-?[0-9]{1,9}", label):
        return f"the label {label[:20]!a} is not an integer"
    if not 0 <= int(label) < labels:
        return f"the label {int(label)} is not in 0 to {labels - 1}"
    return None


def _parsed(report: Report, name: str, data: bytes, limit: int) -> ast.Module | None:
    """Return a Python file's syntax tree, or None where it has none."""
    if len(data) > limit:
        report.error(f"{shown(name)} has {len(data)} bytes, and the limit is {limit}", "move its data elsewhere")
        return None
    mend = f"correct it: `python -m py_compile {shown(name)}` shows the place"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unknown escapes in strings, say
            return ast.parse(data)
    except SyntaxError as error:
        report.error(f"{shown(name)}:{error.lineno or 1}: {shown(error.msg)}", mend)
    except (ValueError, LookupError, MemoryError, RecursionError) as error:
        report.error(f"{shown(name)}:1: Python cannot parse it ({type(error).__name__})", mend)
    return None


def _unfinished_parts(name: str, tree: ast.Module) -> list[str]:
    """Return `file:line` of each `raise NotImplementedError`."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise):
            raised = node.exc.func if isinstance(node.exc, ast.Call) else node.exc
            if isinstance(raised, ast.Name) and raised.id == "NotImplementedError":
                lines.append(node.lineno)
    return [f"{name}:{line}" for line in sorted(lines)]


def _check_run_info(report: Report, name: str, data: bytes) -> None:
    """Warn if the record of the runs is damaged."""
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        report.warn(f"{name} is not valid JSON", "run `run_llama.py` again, which writes it, or leave it out")


def warn_of_reports(report: Report, names: list[str], student_id: str) -> None:
    """Warn of PDFs that may be the report but have not its name."""
    if names:
        report.warn(
            f"a PDF that is not named as the report: {_listed(names)}",
            f"if it is your report, name it `{student_id}-report.pdf`",
        )


# --- What others call -------------------------------------------------------------------------------------------------


def check_student_id(student_id: str) -> None:
    """Raise UsageError unless this is an ID in lower case that may be the name of a file."""
    if not re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9_-])?", student_id):
        raise UsageError(
            f"{shown(student_id)!r} cannot be a student's ID: use lower-case letters, digits, '.', '_' and '-', "
            "with a letter or digit first"
        )


def verify_archive(
    path: str | os.PathLike[str], student_id: str, rules: SubmissionRules = SUBMISSION, keep: Keep | None = None
) -> Report:
    """Return all that is wrong with a submission's zip, which may come from a stranger. Nothing is unpacked to disk.

    `keep` is called with the name and the bytes of each regular file in the submission's folder that can be read; what
    it raises is raised here. A damaged zip is an error in the report; raises SubmissionError only if there is no such
    file or it may not be read, and UsageError if `student_id` cannot be one.
    """
    check_student_id(student_id)
    report = Report(Path(path).name)
    with open_file(Path(path)) as file:
        try:
            archive = zipfile.ZipFile(file)
        except UNREADABLE as error:
            what = f"it is not a zip, or a damaged one: {shown(str(error))}"
            report.error(what, _REPACK.replace("{id}", student_id))
            return report
        with archive:
            _Inspection(archive, student_id, rules, report, keep).run(os.fstat(file.fileno()).st_size)
    return report


def verify_entries(
    name: str, entries: Entries, student_id: str, rules: SubmissionRules = SUBMISSION, keep: Keep | None = None
) -> Report:
    """Return all that is wrong with what is called `name` and is no zip, but lists its files like one."""
    check_student_id(student_id)
    report = Report(name)
    _Inspection(entries, student_id, rules, report, keep).run(0)
    return report


def top_folders(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the folders at the top of a zip, less what macOS adds; none if it is damaged.

    Raises SubmissionError if there is no such file or it may not be read.
    """
    with open_file(Path(path)) as file:
        try:
            with zipfile.ZipFile(file) as archive:
                paths = [parts_of(name) for name in archive.namelist() if "/" in name]
        except UNREADABLE:
            return []
    return sorted({parts[0] for parts in paths if not is_mac_junk(parts)})


def open_file(path: Path) -> CappedFile:
    """Open an archive. Raises SubmissionError if there is no such file or it may not be read."""
    if not path.is_file():
        raise SubmissionError(f"there is no folder or zip {shown(str(path))}")
    try:
        return CappedFile(path)
    except OSError as error:
        raise SubmissionError(f"cannot read {shown(str(path))}: {error.strerror}") from error

"""Takes a submission in: checks its format, unpacks it, and reads its source. Nothing of it runs.

`take_in` starts this module as a process of its own (`python -m autograder.intake.reader`), with limits on memory, time
and what it writes: archives and source of strangers can be made to exhaust whoever reads them. The process imports
neither torch nor anything else outside the standard library. It reads a request from its standard input, and writes a
line `ready`, a JSON document, and another one with the compiled files, which may fail.
"""

import hashlib
import io
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from autograder.intake.compiled import compile_files, read_caches
from autograder.intake.static import StaticRules, analyse
from autograder.result import Finding, Severity
from errors import MinLlamaError, SubmissionError, UsageError
from submission_check import Problem, Report, check_student_id, shown, top_folders, verify_archive, verify_entries
from submission_rules import OutputFile, SubmissionRules

if TYPE_CHECKING:  # imports torch, which the process that reads a submission must not
    from autograder.editions import Edition

ROOT = Path(__file__).resolve().parents[2]
_MEMORY = 1 << 30  # bytes of address space
_CPU_SECONDS = 30
_SECONDS = 120.0  # wall clock; on a machine that is busy, more than the above
_MAX_ANSWER = 1 << 22  # bytes
_READY = b"ready\n"
_UNSAFE = "ask for another copy: nothing of this one was used"


@dataclass(frozen=True)
class Intake:
    """A submission that was taken in.

    `files` are the names in the folder that it was unpacked to. Where it is not `readable` there are none, and the
    findings say why. `sha256` is that of the zip; of a folder, that of the sorted names and contents of its files.
    `caches` are what Python makes of the submission's own modules, for the sandbox alone to read.
    """

    student_id: str
    sha256: str
    files: tuple[str, ...]
    findings: tuple[Finding, ...]
    readable: bool
    caches: Mapping[str, bytes] = field(default_factory=dict, repr=False, compare=False)


# --- The grader's side ------------------------------------------------------------------------------------------------


def take_in(
    submission: Path, student_id: str | None, edition: "Edition", target: Path, modules: Collection[str] = ()
) -> Intake:
    """Check a zip or a folder by the rules of an edition and unpack what can be read of it into `target`.

    `target` is made if it is not there, and has to be empty; it becomes private (0700), as are the files in it (0600).
    Without a `student_id`, the zip or its folder says whose it is. `modules` are the names of installed modules that no
    file of the submission may take, beside those that the edition lets it import.

    Raises MinLlamaError for what is wrong on our side: no such submission, one that may not be read, a target that
    cannot be written. Everything that is wrong with the submission is a finding.
    """
    from autograder.workspace import given_files  # the process that reads a submission needs none of it

    if student_id is not None:
        check_student_id(student_id)
    submission, target = Path(submission).absolute(), Path(target).absolute()
    _check_source(submission)
    _make_private(target)
    answer = _answer_of_reader(
        {
            "submission": str(submission),
            "student_id": student_id,
            "target": str(target),
            "rules": asdict(edition.rules()),
            "imports": edition.static.imports,
            "forbidden": [(name, entry.why) for entry in edition.static.forbidden for name in entry.names],
            "modules": sorted(modules),
            "given": given_files(edition) if edition.files.pristine == "always" else [],
            "memory": _MEMORY,
            "seconds": _CPU_SECONDS,
        },
        target,
    )
    if isinstance(answer, str):  # why it is not safe
        _empty(target)
        what = f"the {'folder' if submission.is_dir() else 'archive'} cannot be read safely: {answer}"
        findings: tuple[Finding, ...] = (Finding("format", "error", what, _UNSAFE),)
        answer = {"student_id": student_id or _as_id(_stem(submission)), "files": (), "findings": findings}
    return Intake(
        student_id=answer["student_id"],
        sha256=_sha256_of(submission, target),
        files=answer["files"],
        findings=answer["findings"],
        readable=bool(answer["files"]),
        caches=answer.get("caches", {}),
    )


def _check_source(submission: Path) -> None:
    """Raise UsageError if there is no such zip or folder, and SubmissionError if it may not be read."""
    try:
        if submission.is_dir():
            os.scandir(submission).close()
        elif submission.is_file():
            submission.open("rb").close()
        else:
            raise UsageError(f"there is no folder or zip {shown(str(submission))}: name a student's submission")
    except OSError as error:
        raise SubmissionError(f"cannot read {shown(str(submission))}: {error.strerror}") from error


def _make_private(target: Path) -> None:
    """Make the folder that a submission is unpacked into. Raises UsageError if that is not possible."""
    try:
        target.mkdir(parents=True, exist_ok=True)
        if target.is_symlink() or any(target.iterdir()):
            raise UsageError(f"{shown(str(target))} is not an empty folder: name another, or empty it")
        target.chmod(0o700)
    except OSError as error:
        raise UsageError(f"cannot make the folder {shown(str(target))}: {error.strerror}") from error


def _answer_of_reader(request: dict[str, Any], target: Path) -> dict[str, Any] | str:
    """Return what the limited process found, or why the submission cannot be read safely, in words.

    Raises MinLlamaError for a fault that is ours.
    """
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as told, tempfile.TemporaryFile() as complaints:
        asked.write(json.dumps(request).encode())
        asked.seek(0)
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-S", "-B", "-m", "autograder.intake.reader"],
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", "PATH": os.defpath},
                stdin=asked,
                stdout=told,
                stderr=complaints,
                start_new_session=True,
            )
        except OSError as error:
            raise MinLlamaError(f"cannot start {sys.executable} to read the submission: {error.strerror}") from error
        try:
            status = process.wait(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            status = -signal.SIGXCPU
        finally:
            process.kill()
            process.wait()
        output, complaint = _head(told, 2 * _MAX_ANSWER), _head(complaints, 2000)
    if not output.startswith(_READY):
        reason = complaint.decode(errors="replace").strip().rpartition("\n")[2] or f"status {status}"
        raise MinLlamaError(f"the reader of submissions does not start: {shown(reason, 500)}")
    document, is_complete, caches = output.removeprefix(_READY).partition(b"\n")
    if status == -signal.SIGXCPU and not is_complete:
        return "it takes too long"
    if status and not is_complete:
        return f"its reader ended with status {status}"
    answer = _parsed(document, target)
    return answer if isinstance(answer, str) else answer | {"caches": read_caches(caches, answer["files"])}


def _head(file: IO[bytes], size: int) -> bytes:
    """Return the first bytes of a file."""
    file.seek(0)
    return file.read(size)


def _parsed(document: bytes, target: Path) -> dict[str, Any] | str:
    """Return the process's answer, or what is wrong with it. Raises MinLlamaError if it says that the fault is ours."""
    try:
        if len(document) > _MAX_ANSWER:
            raise ValueError("too long")
        data = json.loads(document)
        if "fault" in data:
            raise MinLlamaError(str(data["fault"]))
        if "unsafe" in data:
            return str(data["unsafe"])
        check_student_id(data["student_id"])
        answer: dict[str, Any] = {
            "student_id": data["student_id"],
            "files": tuple(sorted(map(str, data["files"]))),
            "findings": tuple(Finding(**finding) for finding in data["findings"]),
        }
        if list(answer["files"]) != sorted(path.name for path in target.iterdir()):
            raise ValueError("other files than were unpacked")
    except (ValueError, KeyError, TypeError, RecursionError, UsageError):
        return "its reader gave no answer that makes sense"
    return answer


def _empty(folder: Path) -> None:
    """Remove what a process that ended early has unpacked."""
    shutil.rmtree(folder, ignore_errors=True)
    _make_private(folder)


def _sha256_of(submission: Path, unpacked: Path) -> str:
    """Return the SHA-256 of a zip, or of the sorted names and contents of what was read of a folder, in hexadecimal."""
    if submission.is_file():
        with submission.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in sorted(unpacked.iterdir(), key=lambda path: path.name):
        data = path.read_bytes()
        digest.update(f"{path.name}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


# --- Whose is it? -----------------------------------------------------------------------------------------------------


def _stem(submission: Path) -> str:
    """Return a zip's name without its ending, or a folder's name."""
    name = submission.resolve().name if submission.is_dir() else submission.name
    return name[:-4] if name.lower().endswith(".zip") else name


def _is_id(name: str) -> bool:
    """Say whether a name can be a student's ID."""
    try:
        check_student_id(name)
    except UsageError:
        return False
    return True


def _as_id(name: str) -> str:
    """Return an ID as close to a name as the rules allow."""
    name = re.sub(r"[^a-z0-9._-]+", "-", name.lower()).strip("._-")[:60].strip("._-")
    return name if _is_id(name) else "unknown"


def choose_id(stem: str, folders: Collection[str]) -> str:
    """Return the student's ID, from the name of a zip and the folders in it; it may break the rules for IDs.

    That is the zip's name, as long as it may be one. Platforms and browsers add to that name, before (`doe_123_456_ID`)
    or after (`ID-1`, `ID (1)`): then the folder's.
    """
    inner = [folder for folder in folders if _is_id(folder)]
    if stem in inner:
        return stem
    if len(folders) == 1 and inner:
        decorated = rf"(.*_)?{re.escape(inner[0])}([ _-]?\(?\d+\)?)?"
        if not _is_id(stem) or re.fullmatch(decorated, stem, re.IGNORECASE | re.DOTALL):
            return inner[0]
    return stem


# --- The limited process ----------------------------------------------------------------------------------------------


class _Folder:
    """A folder that is inspected like a zip: its files, links and folders are the entries of `NAME/`."""

    def __init__(self, path: Path) -> None:
        """Look at a folder, or at the only folder in it, as platforms unpack a zip."""
        self.name = ""
        self.path = path
        entries = [entry for entry in self._scan() if entry.name not in ("__MACOSX", ".DS_Store")]
        if len(entries) == 1 and entries[0].is_dir(follow_symlinks=False):
            self.path, self.name = path / entries[0].name, entries[0].name

    def _scan(self) -> list[os.DirEntry[str]]:
        """Return what is in the folder, by name. Raises SubmissionError if it may not be read."""
        try:
            with os.scandir(self.path) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            raise SubmissionError(f"cannot read {shown(str(self.path))}: {error.strerror}") from error

    def infolist(self) -> list[zipfile.ZipInfo]:
        """Return the entries at the folder's root; what lies deeper is not looked at."""
        infos = []
        for entry in self._scan():
            status = entry.stat(follow_symlinks=False)
            info = zipfile.ZipInfo(f"{self.name}/{entry.name}" + ("/" if stat.S_ISDIR(status.st_mode) else ""))
            info.external_attr = status.st_mode << 16
            if stat.S_ISREG(status.st_mode):
                info.file_size = info.compress_size = status.st_size
            infos.append(info)
        return infos

    def open(self, entry: zipfile.ZipInfo, /) -> IO[bytes]:
        """Open a file, if it is one still. Raises SubmissionError if it may not be read."""
        path = self.path / entry.filename.removeprefix(f"{self.name}/")
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except PermissionError as error:
            raise SubmissionError(f"cannot read {shown(str(path))}: {error.strerror}") from error
        file = io.FileIO(handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            file.close()
            raise OSError("it is no regular file")
        return io.BufferedReader(file)


@contextmanager
def _keeping(target: Path) -> Iterator[tuple[Callable[[str, bytes], None], dict[str, bytes]]]:
    """Yield a function that writes a file into `target`, and what it has written.

    It never writes over or through something that is there. Raises MinLlamaError where it cannot write.
    """
    files: dict[str, bytes] = {}
    folder = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)

    def keep(name: str, data: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:  # noqa: PTH123 - a descriptor
                file.write(data)
        except OSError as error:
            what = f"cannot write {shown(name)} into {shown(str(target))}: {error.strerror}"
            raise MinLlamaError(f"{what}: make room there, or set TMPDIR") from error
        files[name] = data

    try:
        yield keep, files
    finally:
        os.close(folder)


def _limit(memory: int, seconds: int, largest_file: int) -> None:
    """Take from this process what it does not need, for good; sizes are in bytes."""
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_FSIZE, largest_file, largest_file),
        (resource.RLIMIT_NPROC, 0, 0),  # no child, no thread; does not bind root
        (resource.RLIMIT_NOFILE, 32, 32),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        ceiling = resource.getrlimit(kind)[1]
        fits = ceiling == resource.RLIM_INFINITY
        resource.setrlimit(kind, (soft, hard) if fits else (min(soft, ceiling), min(hard, ceiling)))


def _examine(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return what was found and the files that were unpacked; raises MinLlamaError for a fault that is ours."""
    path, target = Path(request["submission"]), Path(request["target"])
    rules = _rules(request["rules"])
    folder = _Folder(path) if path.is_dir() else None
    name = request["student_id"]
    if name is None:
        name = folder.name or _stem(path) if folder else choose_id(_stem(path), top_folders(path))
    student_id = name if _is_id(name) else _as_id(name)
    with _keeping(target) as (keep, files):
        if folder:
            folder.name = folder.name or student_id
            report = verify_entries(path.name, folder, student_id, rules, keep)
        else:
            report = verify_archive(path, student_id, rules, keep)
            if path.name != f"{student_id}.zip":
                report.warn(f"its own name is {shown(path.name)}, not {student_id}.zip", "rename it")
    if student_id != name:
        report.error(f"{shown(name)!r} cannot be a student's ID", "use lower-case letters, digits, '.', '_' and '-'")
    static = StaticRules(
        tuple(request["imports"]), tuple((rule, why) for rule, why in request["forbidden"]), rules.max_source_bytes
    )
    findings = [*_format_findings(report), *analyse(files, static, request["modules"])]
    told = {"student_id": student_id, "files": list(files), "findings": [asdict(finding) for finding in findings]}
    return told, files


def _rules(data: dict[str, Any]) -> SubmissionRules:
    """Return the rules that were sent as JSON, which knows no tuples."""

    def tuples(value: Any) -> Any:
        return tuple(map(tuples, value)) if isinstance(value, list) else value

    outputs = tuple(OutputFile(**output) for output in data["outputs"])
    return SubmissionRules(**{name: tuples(value) for name, value in data.items()} | {"outputs": outputs})


def _format_findings(report: Report) -> list[Finding]:
    """Return a report's problems as findings."""
    errors = [_format_finding(problem, "error") for problem in report.errors]
    return errors + [_format_finding(problem, "warning") for problem in report.warnings]


def _format_finding(problem: Problem, severity: Severity) -> Finding:
    """Return a problem as a finding; `file:line: ` at its beginning becomes the finding's place."""
    place = re.match(r"([\w.-]+):(\d+): ", problem.what)
    if not place:
        return Finding("format", severity, problem.what, problem.mend)
    what = problem.what[place.end() :]
    return Finding("format", severity, what, problem.mend, place[1], int(place[2]))


def main() -> int:
    """Read a request, examine the submission within limits, write the answer; return the exit status."""
    request = json.load(sys.stdin)
    largest = max(request["rules"]["max_unpacked_bytes"], _MAX_ANSWER)
    _limit(request["memory"], request["seconds"], largest)
    sys.stdout.write(_READY.decode())
    sys.stdout.flush()  # from here on, whatever goes wrong is the submission's doing
    files: dict[str, bytes] = {}
    try:
        answer, files = _examine(request)
    except MinLlamaError as error:
        answer = {"fault": str(error)}
    except MemoryError:
        answer = {"unsafe": "it needs too much memory"}
    except Exception as error:
        answer = {"unsafe": f"its reader fails ({type(error).__name__})"}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()  # complete, whatever a compiler makes of the files
    sys.stdout.write(compile_files(files, request["given"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())

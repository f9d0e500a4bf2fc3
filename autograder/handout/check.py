"""Is a hand-out what students may get? Its files are looked at, then unpacked and tried out.

The master at the root says what is secret; the programs run in processes of their own, without the other folders and
without the settings of this machine.
"""

import ast
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from autograder.editions import Edition
from autograder.handout.files import (
    CHECKPOINTS,
    FILES,
    SANITY_DATA,
    WEIGHTS,
    handout_files,
    is_of_checkpoint,
    packed_name,
)
from autograder.handout.regions import secret_lines, survivors
from checking import OK, SKIP, TODO, WAIT
from component_checks import CHECKS
from errors import HandoutError
from sanity_check import MARGIN
from submission_rules import FILES as REGIONS

EXECUTABLE = ".sh"
SECONDS = 300  # for one program of the hand-out
# What a program needs of this machine's settings.
KEPT = ("PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH", "OMP_NUM_THREADS", "SYSTEMROOT", "TEMP")
SOLUTIONS = tuple(dict.fromkeys(REGIONS.values()))


def folder_of(edition: Edition) -> str:
    """Return the name of the one folder in a hand-out."""
    return f"min-llama-{edition.name}"


def verify_handout(archive: Path, edition: Edition, root: Path) -> None:
    """Raise HandoutError, which says what is wrong, unless the zip is a hand-out of the master at `root`.

    - It holds the students' files and the master's checkpoints in one folder, and nothing else.
    - Every Python file parses. No line of an open solution stands in any file.
    - `run_llama.py` starts. The checks of the open parts say `todo` and those that need them `wait`; all others pass.
    - With the master's solutions laid over it, every check passes and the checkpoint writes text.
    """
    content = _read(archive, folder_of(edition))
    verify_content(content, edition, root)
    with tempfile.TemporaryDirectory(prefix="handout-") as temporary:
        bare, solved = Path(temporary, "bare"), Path(temporary, "solved")
        unpack(content, bare)
        unpack(content | {name: (root / name).read_bytes() for name in SOLUTIONS}, solved)
        with ThreadPoolExecutor(max_workers=2) as pool:  # each is a process that imports torch, which takes seconds
            trials: list[Future[Any]] = [
                pool.submit(verify_open, bare, edition),
                pool.submit(_verify_solved, solved),
                pool.submit(_run, bare, "run_llama.py", "--help"),
                pool.submit(_verify_text, solved),
            ]
        for trial in trials:
            trial.result()


def unpack(content: dict[str, bytes], folder: Path) -> None:
    """Write the files of a hand-out into a folder."""
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(mode_of(name))


def mode_of(name: str) -> int:
    """Return the permissions of a file in a hand-out."""
    return 0o755 if name.endswith(EXECUTABLE) else 0o644


def verify_content(content: dict[str, bytes], edition: Edition, root: Path) -> None:
    """Look at the files of a hand-out, by their names in it; raises HandoutError."""
    wanted = {packed_name(name) for name in FILES}
    for name in content:
        if name not in wanted and not is_of_checkpoint(name):
            raise HandoutError(f"{name} is in the hand-out, and is none of the students' files")
    for name in map(packed_name, handout_files(root)):
        if name not in content:
            raise HandoutError(f"{name} is not in the hand-out, but belongs to it")
        if name.endswith(f"/{WEIGHTS}") and content[name] != (root / name).read_bytes():
            raise HandoutError(f"{name}: the hand-out has other weights than the master")
    for name in content:
        if name.endswith(".py"):
            _verify_source(name, content, root)
    _verify_secrecy(content, edition, root)


def _verify_source(name: str, content: dict[str, bytes], root: Path) -> None:
    """Raise HandoutError if a Python file does not parse, or needs a module of the root that is not handed out."""
    try:
        tree = ast.parse(content[name], filename=name)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise HandoutError(f"{name}:{line}: with its gaps open, this does not parse ({error})") from error
    for node in ast.walk(tree):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
        for module in modules:
            if f"{module}.py" not in content and (root / f"{module}.py").is_file():
                raise HandoutError(
                    f"{name}:{node.lineno}: this needs {module}.py, which is not handed out: put it on the list in "
                    "autograder/handout/files.py"
                )


def _verify_secrecy(content: dict[str, bytes], edition: Edition, root: Path) -> None:
    """Raise HandoutError, with all places, if a line of an open solution is in any file."""
    places: dict[str, str] = {}
    for source in SOLUTIONS:
        secret = secret_lines((root / source).read_text(encoding="utf-8"), edition.handout.open, source)
        places |= {line: f"line {number} of {source}" for line, number in secret.items()}
    leaks = [
        f"{name} holds {places[line]}: {line}" for name, data in content.items() for line in survivors(data, places)
    ]
    if leaks:
        raise HandoutError("solutions are in the hand-out: " + "; ".join(leaks))


def verify_open(folder: Path, edition: Edition) -> None:
    """Run the checks of an unpacked hand-out; raises HandoutError unless exactly the open parts are to be done."""
    statuses = _report(folder)
    expected = expected_statuses(edition.handout.open, statuses)
    wrong = [
        f"{name}: {status} instead of {expected[name]}" for name, status in statuses.items() if status != expected[name]
    ]
    if wrong:
        raise HandoutError("the checks of the hand-out do not fit its open parts: " + "; ".join(wrong))
    todo = {check.regions[-1] for check in CHECKS if statuses.get(check.name) == TODO}
    if unchecked := [region for region in edition.handout.open if region not in todo]:
        raise HandoutError(f"no check of the hand-out is about {', '.join(unchecked)}: make {SANITY_DATA} anew")


def expected_statuses(open_regions: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Return what each of the named checks says where these regions are open, and no real weights are there."""
    expected: dict[str, str] = {}
    for check in CHECKS:
        if check.name not in names:
            continue
        if {TODO, WAIT} & {expected.get(need) for need in check.needs}:
            expected[check.name] = WAIT
        elif set(check.regions) & set(open_regions):
            expected[check.name] = TODO
        else:
            expected[check.name] = SKIP if check.real_weights else OK
    return expected


def _verify_solved(folder: Path) -> None:
    """Run the checks of an unpacked hand-out whose gaps are filled; raises HandoutError unless all pass."""
    statuses = _report(folder)
    if wrong := [f"{name}: {status}" for name, status in statuses.items() if status not in (OK, SKIP)]:
        raise HandoutError(f"the master's own solutions do not pass the checks of the hand-out: {'; '.join(wrong)}")


def _verify_text(folder: Path) -> None:
    """Let each checkpoint of an unpacked hand-out whose gaps are filled write a token; raises HandoutError."""
    for weights in sorted(folder.glob(f"{CHECKPOINTS}/*/{WEIGHTS}")):
        path = weights.parent.relative_to(folder).as_posix()
        options = ("--prompt", "Once", "--max_new_tokens", "1", "--pretrained-model-path", path)
        _run(folder, "run_llama.py", "--option", "generate", *options)


def _report(folder: Path) -> dict[str, str]:
    """Run the checks of an unpacked hand-out, and return the status of each. Raises HandoutError without a report."""
    printed = _run(folder, "sanity_check.py", statuses=(0, 1))
    names = sorted((check.name for check in CHECKS), key=len, reverse=True)
    found = {}
    for line in printed.splitlines():
        status, rest = line[:MARGIN].strip(), line[MARGIN:]
        if status and (name := next((name for name in names if f"{rest} ".startswith(f"{name} ")), None)):
            found[name] = status
    if not found:
        raise HandoutError(f"the checks of the hand-out give no report: … {_last_words(printed)}")
    return found


def _run(folder: Path, *argv: str, statuses: Iterable[int] = (0,)) -> str:
    """Run a program of the unpacked hand-out and return what it prints.

    Raises HandoutError for another exit status, and if it takes too long.
    """
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    command = " ".join(argv)
    try:
        done = subprocess.run(
            [sys.executable, "-B", *argv],
            cwd=folder,
            env=environment | {"PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise HandoutError(f"`python {command}` of the hand-out takes more than {SECONDS} s") from error
    if done.returncode not in statuses:
        status = f"status {done.returncode}: … {_last_words(done.stdout)}"
        raise HandoutError(f"`python {command}` of the hand-out ends with {status}")
    return done.stdout


def _last_words(printed: str) -> str:
    """Return the end of what a program printed, on one line."""
    return " ".join(printed.split()[-60:])


def _read(archive: Path, folder: str) -> dict[str, bytes]:
    """Return the files of the zip by their names in its folder. Raises HandoutError if it has another layout."""
    try:
        with zipfile.ZipFile(archive) as opened:
            names = opened.namelist()
            for name in names:
                if not name.startswith(f"{folder}/") or names.count(name) > 1:
                    raise HandoutError(f"{name}: a hand-out has one folder, {folder}, with each file once")
            return {name.removeprefix(f"{folder}/"): opened.read(name) for name in names}
    except (OSError, zipfile.BadZipFile) as error:
        raise HandoutError(f"{archive} cannot be read as a zip: {error}") from error

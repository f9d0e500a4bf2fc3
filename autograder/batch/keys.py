"""Must a submission be graded again? Only if something has changed that its grade could depend on: its key says so.

terms = terms_of(edition, secret, options)       # once for a class
key = key_of(entry, digest(Path(entry.path)), terms)
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from autograder.batch.records import Entry, Row
from autograder.editions import Edition
from autograder.grade import Options, find_weights
from autograder.report.plain import one_line
from autograder.version import grader_version
from errors import UsageError


def digest(path: Path) -> str:
    """Return the SHA-256 of a zip, or of the sorted names and contents of a folder, in hexadecimal.

    Links are not followed, and of what is no file only the kind counts. Raises OSError for what cannot be read.
    """
    if path.is_file():
        return _digest_of_file(path)
    total = hashlib.sha256()
    for name, kind in sorted(_entries(os.fsencode(path))):
        total.update(b"%d %s %s\n" % (len(name), name, kind.encode()))
    return total.hexdigest()


def _entries(root: bytes) -> list[tuple[bytes, str]]:
    """Return everything below a folder: its name from there, and what it is or the hash of what it holds."""
    found = []
    waiting = [root]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    waiting.append(entry.path)
                kind = _digest_of_file(Path(os.fsdecode(entry.path))) if stat.S_ISREG(mode) else oct(stat.S_IFMT(mode))
                found.append((entry.path[len(root) :], kind))
    return found


def _digest_of_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def terms_of(edition: Edition, options: Options) -> dict[str, Any]:
    """Return what the grades of a whole class depend on. `options.seed` is the secret, of which only a hash is told."""
    checkpoint = options.checkpoint or edition.checkpoint
    return {
        "edition": _hash(edition.model_dump_json()),
        "grader": grader_version(),
        "secret": _hash(options.seed or ""),
        "backend": options.backend or "bwrap",
        "checkpoint": checkpoint,
        "weights": find_weights(checkpoint) is not None,  # without them no text can be judged
        "data": digest(options.data) if options.data.exists() else "",
        "rerun": options.rerun,
        "rerun_arguments": options.rerun_arguments,
    }


def key_of(entry: Entry, sha256: str, terms: dict[str, Any]) -> str:
    """Return the key of a submission: 16 hexadecimal digits."""
    own = {"sha256": sha256, "student_id": entry.student_id, "problem": entry.problem}
    return _hash(json.dumps(terms | own, sort_keys=True))[:16]


def forced(names: Collection[str], entries: Sequence[Entry], rows: Mapping[str, Row], edition: Edition) -> set[str]:
    """Return the names of the entries that are graded again though nothing has changed.

    Each of `names` is an entry, a student's ID, or a check: that means all submissions that did not pass it. Raises
    UsageError for one that is nothing of these.
    """
    checks = {check.name for check in edition.checks.run}
    found: set[str] = set()
    for name in names:
        meant = {entry.name for entry in entries if name in (entry.name, entry.student_id)}
        meant |= {row.name for row in rows.values() if name == row.student_id}
        if not meant and name not in checks:
            what = f"--regrade {one_line(name, 200)}: no submission, student or check of this class is called so"
            raise UsageError(f"{what}; class.json lists the entries, `python -m autograder checks` the checks")
        failed = {row.name for row in rows.values() if row.summary and row.summary.checks.get(name, "pass") != "pass"}
        found |= meant | failed
    return found


def _hash(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

"""A class for tests of batches, whose submissions say themselves what becomes of them: nothing of them is run.

.venv/bin/python -P -m tests.batch_stub FOLDER OUT JOBS      # PYTHONPATH=.; the driver that tests kill
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import read_journal
from autograder.batch.run import BatchOptions, run_batch
from autograder.result import CheckResult, Grade, Result
from errors import GraderError, SubmissionError
from utils import write_text

JUDGE = "tests.batch_stub:grade"


def write_class(folder: Path, submissions: Mapping[str, str]) -> Path:
    """Write files that pass for zips; each holds the words that `grade` obeys."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, words in submissions.items():
        (folder / name).write_text(words, encoding="utf-8")
    return folder


def grade(request: Mapping[str, Any]) -> dict[str, Any]:
    """Stand in for `grading.grade_entry`: do what the submission says."""
    path = Path(request["path"])
    word, _, rest = path.read_text(encoding="utf-8").partition(" ")
    if word == "unreadable":
        raise SubmissionError("nothing of it can be read")
    if word == "fault":
        raise GraderError("no sandbox today")
    if word == "bug":
        raise KeyError(rest)
    if word == "crash" or (word == "once" and not Path(rest).exists()):
        Path(rest).touch() if rest else None
        print("out of order", file=sys.stderr)
        os._exit(7)
    if word == "killed":
        os.kill(os.getpid(), 9)
    if word == "hang":
        time.sleep(600)
    if word == "sleep":
        time.sleep(float(rest))
    print("this is no answer")
    seen = {"pid": os.getpid(), "environment": sorted(os.environ), "temporary": os.environ.get("TMPDIR", "")}
    result = result_of(request, word, path.name.removesuffix(".zip"))
    return {"result": result.to_json(), "report": f"<p>{word}</p>", "timings": {"stages": {}, "seen": seen}}


def result_of(request: Mapping[str, Any], word: str, student_id: str) -> Result:
    """Return a result: RoPE fails, or meets an error of ours, if the submission says so."""
    status = {"fail": "fail", "broken": "grader_error"}.get(word, "pass")
    checks = (
        CheckResult("RMSNorm", "rmsnorm", "pass", 2.0, 2.0, "RMSNorm divides"),
        CheckResult("RoPE", "rope", status, 2.0, 2.0, "RoPE rotates"),  # type: ignore[arg-type]
    )
    own_id = request["options"]["student_id"] or student_id
    seed = request["options"]["seed"]
    facts = {"submission_sha256": "ab" * 32, "edition": "minllama", "grader": "0", "sandbox": "none", "seed": seed}
    grade = Grade("ungraded" if word == "broken" else "A", (f"it says {word}",))
    return Result(
        submission=own_id, checkpoint="storybook", grade=grade, points=4.0, max_points=4.0, checks=checks, **facts
    )


def write_table(folder: ClassFolder) -> None:
    """Stand in for the gradebook."""
    rows = sorted(read_journal(folder.journal).items())
    write_text(folder.out / "table.json", json.dumps([asdict(row) for _, row in rows], indent=1))


def options(**changes: Any) -> BatchOptions:
    """Return options for a class of stubs."""
    return replace(BatchOptions(jobs=2, backend="none", seed="a secret", judge=JUDGE), **changes)


def grade_class(folder: Path, out: Path, **changes: Any) -> int:
    """Grade a class of stubs; return the exit status."""
    return run_batch(folder, "minllama", out, options(**changes), write_table)


if __name__ == "__main__":
    sys.exit(grade_class(Path(sys.argv[1]), Path(sys.argv[2]), jobs=int(sys.argv[3])))

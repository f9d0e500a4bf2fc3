"""What does a judge process do? It grades one submission after another, and imports torch only once.

    python -P -m autograder.batch.grading autograder.batch.grading:grade_entry

It reads one request a line, as JSON, and answers each with a line. `judging.py` starts it, and when whoever started it
is gone, however that happened, its input ends: then it ends too, and all that it has started.
"""

import importlib
import json
import os
import queue
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from autograder.editions import Edition
from autograder.grade import Options, grade_submission
from autograder.isolation.memory import kill_family
from autograder.report.plain import one_line
from autograder.version import grader_version
from errors import MinLlamaError, SubmissionError

IDLE = 300.0  # seconds without a request after which it ends, to give its memory back


def grade_entry(request: Mapping[str, Any]) -> dict[str, Any]:
    """Grade a submission and return the texts of its files. Raises MinLlamaError where there is nothing to grade."""
    options = Options(**request["options"] | {"data": Path(request["options"]["data"]), "say": _quiet})
    with tempfile.TemporaryDirectory(prefix="graded-", ignore_cleanup_errors=True) as private:
        out = Path(private)
        grade_submission(Path(request["path"]), Edition.model_validate_json(request["edition"]), out, options)
        return {
            "result": (out / "result.json").read_text(encoding="utf-8"),
            "report": (out / "report.html").read_text(encoding="utf-8"),
            "timings": json.loads((out / "timings.json").read_text(encoding="utf-8")),
        }


def _quiet(text: str) -> None:
    """Print nothing about the progress of one of many."""


def answer(request: Mapping[str, Any], grade: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return what becomes of a request, whatever goes wrong with it."""
    try:
        if request["grader"] != grader_version():
            raise MinLlamaError("the grader's files are not those that the batch began with: run it again, by itself")
        return {"status": "graded", **grade(request)}
    except SubmissionError as error:
        return {"status": "unreadable", "reason": str(error)}
    except MinLlamaError as error:
        return {"status": "ungraded", "reason": str(error)}
    except Exception as error:  # whatever it is, the others of the class are graded
        return {"status": "ungraded", "reason": f"the grader failed with {type(error).__name__}: {error}"}


def _listen(requests: "queue.SimpleQueue[bytes]") -> None:
    """Pass on what is asked, until nobody is there to ask."""
    for line in sys.stdin.buffer:
        requests.put(line)
    kill_family(os.getpid())


def main(name: str) -> None:
    """Answer requests with the function of this name, as long as there are any."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed by the way goes where nobody mistakes it for an answer
    module, _, function = name.partition(":")
    grade = getattr(importlib.import_module(module), function)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True, name="requests").start()
    while True:
        try:
            line = requests.get(timeout=IDLE)
        except queue.Empty:
            os._exit(0)  # not by the long way, on which Python waits for the thread that listens
        told = answer(json.loads(line), grade)
        answers.write(json.dumps(told | {"reason": one_line(told.get("reason", ""), 2000)}) + "\n")
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])

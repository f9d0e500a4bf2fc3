"""What can be odd about a submission: a broken format, or an attack on the grader; and what must come of each.

A change is made to work whose code is right, so that the letter follows from the oddity alone.
"""

import io
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from random import Random

from autograder.simulate.work import Work
from submission_rules import FILES, SUBMISSION

Change = Callable[[Work, Random], None]
LLAMA = tuple(region for region, file in FILES.items() if file == "llama.py")
CLASSIFIER = tuple(region for region, file in FILES.items() if file == "classifier.py")
SCRIPT, COLOUR = "<script>alert('grade: A+')</script><img src=x onerror=alert(1)>", "\\x1b[2J\\x1b[31m"


@dataclass(frozen=True)
class Oddity:
    """One of them. Without a `letter` the submission is unreadable.

    `code` is put in front of what a region holds; `change` is made to the files.
    """

    name: str
    letter: str | None
    failing: tuple[str, ...] = ()
    code: tuple[str, str] | None = None  # region, text
    change: Change | None = None


def _without(*names: str) -> Change:
    """Return a change that leaves files out."""

    def change(work: Work, rng: Random) -> None:
        for name in names:
            del work.files[name]

    return change


def _folder(name: str) -> Change:
    """Return a change of the folder in the zip; `{id}` stands for the right one."""

    def change(work: Work, rng: Random) -> None:
        work.folder = name.replace("{id}", work.student_id)

    return change


def _with(name: str, data: Callable[[Random], bytes]) -> Change:
    """Return a change that adds a file."""

    def change(work: Work, rng: Random) -> None:
        work.files[name] = data(rng)

    return change


def _beside(names: Iterable[str]) -> Change:
    """Return a change that adds entries under names that are not below the folder."""

    def change(work: Work, rng: Random) -> None:
        work.beside |= dict.fromkeys(names, b"print('ESCAPED')\n")

    return change


def _broken_row(name: str) -> Change:
    """Return a change that gives one row of predictions a label that does not exist."""

    def change(work: Work, rng: Random) -> None:
        rows = work.files[name].splitlines(keepends=True)
        rows[len(rows) // 2] = b"7" + rows[len(rows) // 2][1:]
        work.files[name] = b"".join(rows)

    return change


def _bad_syntax(work: Work, rng: Random) -> None:
    work.files["optimizer.py"] += b"\ndef unfinished(:\n"


def _cut_zip(work: Work, rng: Random) -> None:
    data = work.packed()
    work.content = data[: len(data) // 2]


def _text_as_zip(work: Work, rng: Random) -> None:
    work.content = f"I could not upload the folder, sorry. It is at home. {work.student_id}\n".encode()


def _empty_zip(work: Work, rng: Random) -> None:
    buffer = io.BytesIO()
    zipfile.ZipFile(buffer, "w").close()
    work.content = buffer.getvalue()


_SPOILT, _COUNTED = "sst-test-prompting-output.txt", "sst-dev-finetuning-output.txt"
FORMAT = (
    Oddity("a source file is missing", "B or below", ("adamw",), change=_without("optimizer.py")),
    Oddity("an output that counts is missing", "A-", change=_without("generated-sentence-temp-0.txt")),
    Oddity("an output that does not count is missing", "A-", change=_without("cfimdb-test-prompting-output.txt")),
    Oddity("another name of the folder", "A-", change=_folder("final submission")),
    Oddity("no folder", "A-", change=_folder("")),
    Oddity("a folder in the folder", "A-", change=_folder("homework/{id}")),
    Oddity("weights in the zip", "A-", change=_with("finetuned.pt", lambda rng: rng.randbytes(50_000))),
    Oddity("a broken row in an output that does not count", "A-", change=_broken_row(_SPOILT)),
    Oddity("a broken row in an output that counts", "B+", change=_broken_row(_COUNTED)),
    Oddity("a syntax error", "B or below", ("adamw",), change=_bad_syntax),
    Oddity("too large", "A-", change=_with("train.log", lambda rng: rng.randbytes(SUBMISSION.max_bytes))),
    Oddity("half a zip", None, change=_cut_zip),
    Oddity("a text that is called a zip", None, change=_text_as_zip),
    Oddity("a zip without a file", None, change=_empty_zip),
)

_READS = """
for name in ("/etc/shadow", "/etc/passwd", "../result.json"):
    try:
        print(open(name).read())
    except OSError as error:
        print(error)
"""
ATTACKS = (
    Oddity("an endless loop", "B or below", ("gqa",), code=("gqa", "while True:\n    pass\n")),
    Oddity("os._exit", "B or below", ("rope",), code=("rope", "import os\n\nos._exit(0)\n")),
    Oddity("SystemExit", "B or below", ("layer",), code=("layer", "raise SystemExit(0)\n")),
    Oddity("forks", "B or below", ("adamw",), code=("adamw", "import os\n\nwhile True:\n    os.fork()\n")),
    Oddity("memory", "B+", ("zero_shot_head",), code=("zero_shot_head", "hog = [bytes(1 << 28) * 64]\n")),
    Oddity("prints a lot", "A", code=("embedding_head", "print('x' * 5_000_000)\n")),
    Oddity("prints HTML and colours", "A", code=("rmsnorm", f'print("{SCRIPT}{COLOUR}")\n')),
    Oddity(
        "raises HTML", "B+", ("embedding_head",), code=("embedding_head", f'raise ValueError("{SCRIPT}{COLOUR}")\n')
    ),
    Oddity("reads files", "A", code=("attention", _READS)),
    Oddity("HTML in a file's name", "A", change=_with("<img src=x onerror=alert(1)>.txt", lambda rng: b"hello\n")),
    Oddity("a command of the terminal in a file's name", "A-", change=_with("\x1b[31mred.txt", lambda rng: b"hello\n")),
    Oddity("names that lead out of the folder", "A-", change=_beside(("../../evil.py", "/tmp/evil.py"))),
    Oddity("a file that unpacks to much more", "A-", change=_with("notes.txt", lambda rng: bytes(40_000_000))),
)

"""Runs checks on what `sanity_check.data` holds and explains, in a few lines each, what went wrong.

The file holds, for every check of `component_checks.py`, inputs, expected outputs, tolerances, and the outputs of known
misconceptions, each under the sentence that completes "this equals ...". It is plain data: nothing in it can run code.
Used by: python sanity_check.py
"""

import linecache
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from component_checks import CHECKS, Case, Check, Outputs, run_call
from errors import DataError
from submission_rules import FILES

ROOT = Path(__file__).resolve().parent
MACHINERY = ("checking.py", "component_checks.py", "sanity_check.py", "rope_test.py", "optimizer_test.py")
FORMAT = 1  # of sanity_check.data
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

OK, FAIL, TODO, WAIT, SKIP, ERROR = "ok", "FAIL", "todo", "wait", "skip", "error"

Tolerances = dict[str, tuple[float, float]]  # output -> (atol, rtol)


@dataclass(frozen=True)
class Reference:
    """What `sanity_check.data` holds on one check."""

    case: Case
    expected: Outputs
    tolerances: Tolerances
    misconceptions: dict[str, Outputs]


@dataclass(frozen=True)
class Outcome:
    """How a check ended: a status, the rest of its line, the lines below it, and the error in full if there was one.

    Where a file must be mended before anything in it can be checked, `waits_for` names it.
    """

    status: str
    note: str = ""
    details: tuple[str, ...] = ()
    traceback: str = ""
    waits_for: str = ""


@dataclass(frozen=True)
class _Place:
    """Where an error arose."""

    file: str
    line: int
    function: str
    raised: bool = False  # by a `raise` that stands there
    importing: bool = False  # while the file was being imported


def read_references(path: Path) -> dict[str, Reference]:
    """Return what a `sanity_check.data` holds, by the names of the checks.

    Raises DataError if the file is missing, damaged, or made for other checks.
    """
    mend = "take a fresh one from the hand-out (in the master: python -m autograder sanity-data)"
    if not path.is_file():
        raise DataError(f"{path} does not exist: {mend}")
    try:
        content = torch.load(path, weights_only=True)
        if content["format"] != FORMAT:
            raise DataError(f"{path} has format {content['format']}, these checks read {FORMAT}: {mend}")
        references = {name: _reference(entry) for name, entry in content["checks"].items()}
    except DataError:
        raise
    except Exception as error:  # a damaged file can fail in any way at all
        raise DataError(f"{path} is damaged ({type(error).__name__}): {mend}") from error
    known = {check.name for check in CHECKS}
    if not references or not known.issuperset(references):
        raise DataError(f"{path} was made for other checks: {mend}")
    return references


def _reference(entry: dict[str, Any]) -> Reference:
    """Build one check's reference from plain data."""
    tolerances = {name: (float(atol), float(rtol)) for name, (atol, rtol) in entry["tolerances"].items()}
    case = Case(entry["inputs"], entry["settings"], entry["weights"])
    return Reference(case, entry["expected"], tolerances, entry["misconceptions"])


def run_checks(
    names: Sequence[str], references: dict[str, Reference], weights: Path
) -> Iterator[tuple[Check, Outcome]]:
    """Run the named checks, in the order of CHECKS, and yield each with its outcome.

    The checks that they need are run too, without being yielded. `weights` is the folder of the real weights.
    """
    wanted = _with_needs(names)
    blocked_by: dict[str, list[str]] = {}  # for each check that did not pass, the checks to be mended
    for check in CHECKS:
        if check.name not in wanted or check.name not in references:
            continue
        blockers = list(dict.fromkeys(name for need in check.needs for name in blocked_by.get(need, [])))
        if blockers:
            blocked_by[check.name] = blockers
            outcome = Outcome(WAIT, f"mend {_enumerate(blockers)} first")
        else:
            outcome = run_check(check, references[check.name], weights)
            if outcome.status not in (OK, SKIP):
                blocked_by[check.name] = [outcome.waits_for or check.name]
        if check.name in names:
            yield check, outcome


def run_check(check: Check, reference: Reference, weights: Path) -> Outcome:
    """Call the code that is checked and say how its outputs compare."""
    case = reference.case
    if check.real_weights is not None:
        path = weights / check.real_weights
        if not path.is_file():
            return Outcome(SKIP, f"skipped: needs weights/{path.parent.name} (./setup.sh --only {path.stem})")
        case = Case(case.inputs, case.settings | {"checkpoint": str(path)}, case.weights)
    try:
        actual = run_call(check, case)
    except (Exception, SystemExit) as error:
        return _explain_error(check, error)
    return compare(check, reference, actual)


def compare(check: Check, reference: Reference, actual: Outputs) -> Outcome:
    """Compare the outputs of a check with the expected ones, and with those of the known misconceptions."""
    wrong = [
        line
        for name, expected in reference.expected.items()
        if (line := difference(name, actual.get(name), expected, *reference.tolerances[name]))
    ]
    if not wrong:
        return Outcome(OK, reference.case.settings.get("note", ""))
    called = what_was_called(check.called, reference.case)
    matches = [
        sentence
        for sentence, outputs in reference.misconceptions.items()
        if distance(actual, outputs, reference.tolerances) <= 1.0
    ]
    return Outcome(FAIL, details=(*called, *wrong, *(["this equals " + ", or ".join(matches)] if matches else [])))


def what_was_called(called: str, case: Case) -> list[str]:
    """Return the lines that say what a check called, on which shapes."""
    shapes = ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in case.inputs.items())
    return [f"called {called.format(**case.settings)}", *([f"shapes: {shapes}"] if shapes else [])]


def distance(actual: Outputs, expected: Outputs, tolerances: Tolerances) -> float:
    """Return the largest difference between two sets of outputs, in tolerances: at most 1.0 means that they agree.

    Outputs of different names, shapes or dtypes are infinitely far apart.
    """
    if actual.keys() != expected.keys():
        return float("inf")
    furthest = 0.0
    for name, tensor in expected.items():
        other = actual[name]
        if not isinstance(other, torch.Tensor) or other.shape != tensor.shape or not _same_dtype(other, tensor):
            return float("inf")
        furthest = max(furthest, float(gaps(other, tensor, *tolerances[name]).max()))
    return furthest


def gaps(actual: torch.Tensor, expected: torch.Tensor, atol: float, rtol: float) -> torch.Tensor:
    """Return the difference of each element in tolerances (atol + rtol · |expected|), as torch.allclose reckons it.

    NaN and infinities equal themselves and are infinitely far from everything else.
    """
    actual, expected = actual.double(), expected.double()
    gaps = (actual - expected).abs() / (atol + rtol * expected.abs())
    same = (actual == expected) | (actual.isnan() & expected.isnan())
    return gaps.masked_fill(same, 0.0).nan_to_num(nan=float("inf"))


def malformed(name: str, actual: object, expected: torch.Tensor) -> str:
    """Say in what an output differs from what was expected before its values count: its kind, its shape, its dtype.

    Returns nothing if all of them agree.
    """
    if not isinstance(actual, torch.Tensor):
        return no_tensor(name, type(actual).__name__, expected)
    if actual.shape != expected.shape:
        return f"{name}: wrong shape, expected {tuple(expected.shape)}, got {tuple(actual.shape)}"
    if not _same_dtype(actual, expected):
        return f"{name}: wrong dtype, expected {expected.dtype}, got {actual.dtype}"
    return ""


def _same_dtype(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Return whether two dtypes are the same; integers of any size are: an id is an id."""
    return one.dtype == other.dtype or (one.dtype in INTEGERS and other.dtype in INTEGERS)


def no_tensor(name: str, kind: str, expected: torch.Tensor) -> str:
    """Say that an output is something else than a tensor: `kind` is the name of its type."""
    hint = " (is a `return` missing?)" if kind == "NoneType" else ""
    return f"{name}: expected a tensor of shape {tuple(expected.shape)}, got {kind}{hint}"


def difference(name: str, actual: object, expected: torch.Tensor, atol: float, rtol: float) -> str:
    """Say how an output differs from what was expected; nothing if it agrees."""
    text = malformed(name, actual, expected)
    if text or not isinstance(actual, torch.Tensor):
        return text
    wrong = gaps(actual, expected, atol, rtol) > 1.0
    if not wrong.any():
        return ""
    gap = (actual.double() - expected.double()).abs().nan_to_num(nan=float("inf"))
    index = int(gap.masked_fill(~wrong, -1.0).argmax())
    values = f"expected {_number(expected.flatten()[index])}, got {_number(actual.flatten()[index])}"
    if expected.dim() == 0:
        return f"{name}: {values}"
    where = [int(i) for i in torch.unravel_index(torch.tensor(index), expected.shape)]
    what = f"the largest difference is {float(gap.flatten()[index]):.4g}"
    if not torch.isfinite(actual).all():
        what = f"{int((~torch.isfinite(actual)).sum())} values are NaN or infinite, the first"
    return f"{name}: {what} at {where}: {values} ({int(wrong.sum())} of {wrong.numel()} values are wrong)"


def _explain_error(check: Check, error: BaseException) -> Outcome:
    """Say in one line what an error in the checked code means."""
    place = _place_of(error)
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, NotImplementedError) and place.raised:
        return Outcome(TODO, f"not implemented yet: {place.file}, {place.function}", traceback=trace)
    if place.importing and place.file != check.file and place.file in FILES.values():
        return Outcome(WAIT, f"mend {place.file} first", traceback=trace, waits_for=place.file)
    message = error.msg if isinstance(error, SyntaxError) else str(error)
    message = " ".join(message.split())[:200]
    text = f"{type(error).__name__}: {message}" if message else type(error).__name__
    waits_for = place.file if place.importing else ""
    return Outcome(ERROR, f"{text} ({place.file}:{place.line})", traceback=trace, waits_for=waits_for)


def _place_of(error: BaseException) -> _Place:
    """Return where an error arose: the last line that was running of the assignment's files, or else of these."""
    if isinstance(error, SyntaxError) and error.filename:
        return _Place(Path(error.filename).name, error.lineno or 0, "", importing=True)
    frames = list(traceback.walk_tb(error.__traceback__))
    ours = [(frame, line) for frame, line in frames if Path(frame.f_code.co_filename).resolve().parent == ROOT]
    theirs = [(frame, line) for frame, line in ours if Path(frame.f_code.co_filename).name not in MACHINERY]
    frame, line = (theirs or ours or frames)[-1]
    code = frame.f_code
    raised = frame is frames[-1][0] and linecache.getline(code.co_filename, line).lstrip().startswith("raise")
    importing = any(frame.f_code.co_name == "<module>" for frame, _ in theirs)
    return _Place(Path(code.co_filename).name, line, code.co_qualname, raised, importing)


def _with_needs(names: Sequence[str]) -> set[str]:
    """Return the names with those of all checks that they need."""
    wanted = set(names)
    for check in reversed(CHECKS):  # what is needed stands before
        if check.name in wanted:
            wanted.update(check.needs)
    return wanted


def _enumerate(names: Sequence[str]) -> str:
    """Join names as a sentence does; only the first three are named."""
    shown = list(names[:3]) + ([f"{len(names) - 3} more"] if len(names) > 3 else [])
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def _number(value: torch.Tensor) -> str:
    """Write a value with four significant digits, and an id in full."""
    return f"{float(value):.4g}" if value.is_floating_point() else str(value.item())

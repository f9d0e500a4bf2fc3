"""What does a submission import and use? Read from its syntax trees; nothing of it runs, and torch is not needed.

A finding is a flag for a person to judge. Names are followed through what a module imports and assigns, whatever scope
it happens in: `import torch.optim as o; A = o.AdamW; A(...)` uses `torch.optim.AdamW`. What the master's file of the
same name does is no finding, and a file that is the master's is not looked at.

The bytes may come from a stranger, and `ast.parse` can be made to use much time and memory: `intake.py` calls this in a
process with limits.
"""

import ast
import sys
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from autograder.intake.bindings import Bindings
from autograder.intake.run_options import changed_options
from autograder.result import Finding, Severity
from submission_check import shown

ROOT = Path(__file__).resolve().parents[2]
RUN = "run_llama.py"
# Files that Python or pytest load by themselves, wherever they find them.
_HOOKS = {"sitecustomize", "usercustomize", "conftest"}
# `test` is the standard library's, for testing Python itself: nobody imports it, and many a student has a test.py.
_STDLIB = set(sys.stdlib_module_names) - {"test"}
_MODULE_ENDINGS = {"py", "pyc", "so", "pyd"}
_MAX_FINDINGS = 40  # of one file; the rest is counted
_MAX_LINES = 6  # that a finding names
_JUDGED = "leave it out, or say in the report why it is needed: a person decides"


@dataclass(frozen=True)
class StaticRules:
    """What an edition says: modules that may be imported, names that may not be used, each with its reason.

    A name is dotted and stands for everything below it as well: `torch.optim.AdamW`, `transformers`. It may hold `*`,
    which stands for any text. Built-in functions lie in `builtins`.
    """

    imports: tuple[str, ...]
    forbidden: tuple[tuple[str, str], ...] = ()
    max_source_bytes: int = 500_000

    def why_forbidden(self, name: str) -> tuple[str, str] | None:
        """Return the rule, and its reason, that a dotted name breaks, or None."""
        for rule, why in self.forbidden:
            if name == rule or name.startswith(f"{rule}.") or ("*" in rule and fnmatchcase(name, rule)):
                return rule, why
        return None


def shadowing(names: Iterable[str], modules: Iterable[str]) -> set[str]:
    """Return the files among `names` that take the place of a library or load themselves.

    These are the ones that `import` finds under the name of a module of the standard library or in `modules` (names at
    the top, such as `torch`), and what Python or pytest load unasked: `sitecustomize.py`, `conftest.py`, `*.pth`.
    """
    taken = _STDLIB | _HOOKS | set(modules)
    return {name for name in names if name.endswith(".pth") or _module(name) in taken}


def _module(name: str) -> str | None:
    """Return the name under which `import` finds a file, or None if it does not."""
    stem, _, ending = name.partition(".")
    return stem if ending.rpartition(".")[2] in _MODULE_ENDINGS else None


def analyse(files: Mapping[str, bytes], rules: StaticRules, modules: Iterable[str] = ()) -> list[Finding]:
    """Return the findings in a submission's files (name -> bytes), by file and line.

    `modules` are the names of installed modules that the files may not take, beside those in `rules.imports`.
    """
    shadows = shadowing(files, {*modules, *rules.imports})
    findings = [
        Finding(
            stage="static",
            severity="flag",
            what="it has the name of a library, or of a file that Python loads by itself: it is left out",
            mend="rename it, and what imports it",
            file=name,
        )
        for name in sorted(shadows)
    ]
    own = {Path(name).stem for name in set(files) - shadows if name.endswith(".py")}
    allowed = {*rules.imports, *sys.stdlib_module_names, *own, *(path.stem for path in ROOT.glob("*.py"))}
    for name in sorted(files):
        if name.endswith(".py") and not _is_master(name, files[name]):
            try:
                findings += _file_findings(name, files[name], rules, allowed)
            except (MemoryError, RecursionError) as error:
                what = f"it is too deeply nested to be looked into ({type(error).__name__})"
                findings.append(_unread(name, what))
    return findings


def _master(name: str) -> bytes | None:
    """Return the bytes of the master's file of this name, or None if it has none."""
    path = ROOT / name
    return path.read_bytes() if path.is_file() else None


def _is_master(name: str, data: bytes) -> bool:
    """Say whether a file is the master's, whatever its line ends."""
    master = _master(name)
    return master is not None and data.replace(b"\r\n", b"\n") == master.replace(b"\r\n", b"\n")


def _file_findings(name: str, data: bytes, rules: StaticRules, allowed: set[str]) -> list[Finding]:
    """Return the findings in one file, not more than a reader can take."""
    try:
        tree = _parse(data, rules)
    except (SyntaxError, ValueError, LookupError):
        return []  # it cannot run either; the format stage says where
    if tree is None:
        return [_unread(name, "it is too long to be looked into")]
    master = _master(name)
    master_tree = ast.parse(master) if master is not None else None
    known = {broken.rule for broken in _broken_rules(master_tree, rules, allowed)} if master_tree else set()
    found = {broken: lines for broken, lines in _broken_rules(tree, rules, allowed).items() if broken.rule not in known}
    findings = [broken.finding(name, sorted(lines)) for broken, lines in found.items()]
    if name == RUN and master_tree:
        findings += changed_options(RUN, tree, master_tree)
    findings.sort(key=lambda finding: (finding.line, finding.what))
    if (more := len(findings) - _MAX_FINDINGS) > 0:
        findings[_MAX_FINDINGS:] = [Finding("static", "flag", f"{more} more findings are not listed", _JUDGED, name)]
    return findings


def _parse(data: bytes, rules: StaticRules) -> ast.Module | None:
    """Return a file's syntax tree, or None if it is longer than the format allows. Raises what `ast.parse` does."""
    if len(data) > rules.max_source_bytes:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of unknown escapes in strings, say
        return ast.parse(data)


def _unread(name: str, what: str) -> Finding:
    """Return the finding of a file that was not analysed."""
    return Finding("static", "flag", what, "split it, or read it by eye", name, 1)


@dataclass(frozen=True)
class _Broken:
    """A rule that a file breaks; `rule` identifies it."""

    rule: str
    severity: Severity
    what: str
    mend: str

    def finding(self, file: str, lines: list[int]) -> Finding:
        """Return the finding, at its first line and with some of the others."""
        what = self.what
        if others := lines[1:]:
            listed = ", ".join(map(str, others[:_MAX_LINES]))
            more = f" and {len(others) - _MAX_LINES} more" if len(others) > _MAX_LINES else ""
            what += f" (also line{'s' if len(others) > 1 else ''} {listed}{more})"
        return Finding("static", self.severity, what, self.mend, file, lines[0])


def _broken_rules(tree: ast.Module, rules: StaticRules, allowed: set[str]) -> dict[_Broken, set[int]]:
    """Return the rules that a file breaks, and where."""
    found: defaultdict[_Broken, set[int]] = defaultdict(set)
    judged: dict[tuple[str, str], _Broken | None] = {}
    for kind, name, line in _uses(tree, rules):
        if (kind, name) not in judged:
            judged[kind, name] = _judge(kind, name, rules, allowed)
        if broken := judged[kind, name]:
            found[broken].add(line)
    return found


def _judge(kind: str, name: str, rules: StaticRules, allowed: set[str]) -> _Broken | None:
    """Return the rule that an import, a use, or something hidden breaks, or None."""
    if kind == "hidden":
        return _Broken(name, "note", name, "nothing here says what that is: read it by eye")
    if why := rules.why_forbidden(name):
        used = name if "*" in why[0] else why[0]
        return _Broken(why[0], "flag", f"uses {shown(used)}: {why[1]}", _JUDGED)
    top = name.partition(".")[0]
    if kind == "import" and top not in allowed:
        installed = ", ".join(sorted(rules.imports))
        mend = f"use the standard library, {installed} and files of your own"
        return _Broken(f"import {top}", "flag", f"imports {shown(top)}, which the course does not install", mend)
    return None


Kind = Literal["import", "use", "hidden"]


def _uses(tree: ast.Module, rules: StaticRules) -> Iterator[tuple[Kind, str, int]]:
    """Yield what a module imports and uses, under full names, and what it hides; each with its line."""
    nodes = list(ast.walk(tree))
    bindings = Bindings(nodes)
    # modules that hold something forbidden: `getattr` on them with a computed name may reach it
    parents = {rule.rpartition(".")[0] for rule, _ in rules.forbidden if "*" not in rule} - {""}
    for node in nodes:
        match node:
            case ast.Import():
                yield from (("import", alias.name, node.lineno) for alias in node.names)
            case ast.ImportFrom(module=str(module), level=0):
                yield "import", module, node.lineno
                yield from (("use", f"{module}.{alias.name}", node.lineno) for alias in node.names)
            case ast.Name() | ast.Attribute() | ast.Subscript():
                yield from (("use", name, node.lineno) for name in bindings.resolve(node))
            case ast.Call():
                imports = bindings.imported_by(node)
                yield from (("import", name, node.lineno) for name in imports or ())
                yield from (("use", name, node.lineno) for name in bindings.resolve(node))
                if hidden := bindings.hidden_by(node, parents):
                    yield "hidden", hidden, node.lineno

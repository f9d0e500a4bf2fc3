"""The structure of the root, held by reading its source: run with `pytest tests/test_layout.py`."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(ROOT.glob("*.py"))
# The folders of the design, and whatever else lies here.
FOLDERS = {"pretrain", "inference", "advanced", "autograder", "editions", "checkpoints", "benchmarks", "notebooks"}
# The folders that a folder may import besides the root.
MAY_IMPORT = {
    "advanced": {"inference", "pretrain"},
    "autograder": set(),
    "benchmarks": {"advanced", "inference", "pretrain"},
    "inference": set(),
    "notebooks": {"inference", "pretrain"},
    "pretrain": {"inference"},
}
FOLDERS |= {path.name for path in ROOT.iterdir() if path.is_dir()}
MAX_LINES = 60
# The gaps that students fill, by file.
REGIONS = {
    "llama.py": ["rmsnorm", "attention", "gqa", "layer", "generate"],
    "rope.py": ["rope"],
    "optimizer.py": ["adamw"],
    "classifier.py": ["zero_shot_head", "embedding_head"],
}
Function = ast.FunctionDef | ast.AsyncFunctionDef

IN_FOLDERS = sorted(path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py"))

every_module = pytest.mark.parametrize("path", MODULES, ids=[path.name for path in MODULES])
every_file = pytest.mark.parametrize(
    "path", [*MODULES, *IN_FOLDERS], ids=[str(path.relative_to(ROOT)) for path in [*MODULES, *IN_FOLDERS]]
)


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imported(tree: ast.AST) -> set[str]:
    """Return the first part of the name of every module imported in `tree`, at its top or inside a function."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").split(".")[0] if not node.level else ".")
    return names


def public_definitions(body: list[ast.stmt]) -> list[Function | ast.ClassDef]:
    """Return the public functions and classes of a module, and the public functions in those classes."""
    found: list[Function | ast.ClassDef] = []
    for node in body:
        if isinstance(node, Function | ast.ClassDef) and (not node.name.startswith("_") or node.name == "__init__"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += public_definitions(node.body)
    return found


def untyped(function: Function) -> list[str]:
    """Return the names of the arguments without a type, and `return` if what comes back has none."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [argument for argument in (arguments.vararg, arguments.kwarg) if argument]
    names = [argument.arg for argument in every if argument.annotation is None and argument.arg not in ("self", "cls")]
    return names if function.returns else [*names, "return"]


@every_module
def test_the_root_imports_no_folder(path: Path) -> None:
    tree = tree_of(path)
    allowed = {"inference"} if path.name == "run_llama.py" else set()  # behind --fast, and not at the top
    assert imported(tree) & (FOLDERS | {"."}) <= allowed
    top = ast.Module([node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)], [])
    assert not imported(top) & FOLDERS


@pytest.mark.parametrize("path", IN_FOLDERS, ids=[str(path.relative_to(ROOT)) for path in IN_FOLDERS])
def test_a_folder_imports_the_root_and_few_others(path: Path) -> None:
    folder = path.relative_to(ROOT).parts[0]
    assert imported(tree_of(path)) & FOLDERS <= MAY_IMPORT[folder] | {folder}


@every_file
def test_no_function_is_longer_than_a_screen(path: Path) -> None:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, Function):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= MAX_LINES, f"{path.name}:{node.lineno}: {node.name} has {length} lines"


@every_file
def test_every_file_and_everything_public_in_it_is_documented(path: Path) -> None:
    tree = tree_of(path)
    assert ast.get_docstring(tree), f"{path.name} does not say what it is"
    for node in public_definitions(tree.body):
        assert ast.get_docstring(node), f"{path.name}:{node.lineno}: {node.name} does not say what it does"


@every_file
def test_every_public_function_is_typed(path: Path) -> None:
    for node in public_definitions(tree_of(path).body):
        if isinstance(node, Function):
            assert not untyped(node), f"{path.name}:{node.lineno}: {node.name} lacks types of {untyped(node)}"


@every_module
def test_solution_regions_are_those_of_the_assignment_and_closed(path: Path) -> None:
    markers = re.findall(r"^ *### (BEGIN|END) SOLUTION *(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert [kind for kind, _ in markers] == ["BEGIN", "END"] * (len(markers) // 2)
    assert [name for kind, name in markers if kind == "BEGIN"] == REGIONS.get(path.name, [])
    assert not any(name for kind, name in markers if kind == "END")

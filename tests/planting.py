"""Disguises a copy of somebody's source, as a person might who hopes that nobody notices.

    plant(source, "renamed", seed=1)

Each kind changes the whole file and keeps what the code computes; another seed gives another text.
"""

import ast
import io
import random
import tokenize
from collections.abc import Callable, Iterable, Sequence

WORDS = ("scaled", "inner", "block", "item", "partial", "outer", "mixed", "part", "step", "piece", "state", "value")
REMARKS = ("as in the paper", "see the slides", "shapes are checked above", "this took me a while", "the easy part")

Edit = tuple[int, int, str]  # from byte, to byte, what takes its place
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def plant(source: str, kind: str, seed: int) -> str:
    """Return a disguised copy of a Python file; `kind` is one of `KINDS`. It is still Python."""
    rng = random.Random(f"{kind} {seed}")
    for change in KINDS[kind]:
        source = change(source, rng)
        compile(source, "<planted>", "exec")
    return source


# --- One kind of change each ------------------------------------------------------------------------------------------


def rename_locals(source: str, rng: random.Random) -> str:
    """Give the local variables of every function and the parameters of every lambda other names."""
    edits: list[Edit] = []
    starts = _line_starts(source)
    for function in _outermost_functions(ast.parse(source)):
        nodes = list(ast.walk(function))
        stored = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        of_lambdas = [node for inner in nodes if isinstance(inner, ast.Lambda) for node in _parameters(inner.args)]
        new = {
            name: f"{rng.choice(WORDS)}_{rng.choice(WORDS)}_{number}"
            for number, name in enumerate(sorted((stored | {node.arg for node in of_lambdas}) - _fixed_names(nodes)))
        }
        for node in nodes:
            name = node.id if isinstance(node, ast.Name) else node.arg if node in of_lambdas else None  # type: ignore[attr-defined]
            if name in new:
                begin = starts[node.lineno - 1] + node.col_offset  # type: ignore[attr-defined]
                edits.append((begin, begin + len(name.encode()), new[name]))
    return _edited(source, edits)


def reorder(source: str, rng: random.Random) -> str:
    """Put the functions of the file, and the methods of each class, in another order."""
    for number in range(len(_bodies(source))):  # read again after each: the lines have moved
        functions = [node for node in _bodies(source)[number] if isinstance(node, FUNCTIONS)]
        order = functions[1:] + functions[:1]
        rng.shuffle(order)
        lines = source.splitlines(keepends=True)
        texts = {node: "".join(lines[_first_line(node) - 1 : node.end_lineno]) for node in functions}
        for slot, node in reversed(list(zip(functions, order, strict=True))):
            lines[_first_line(slot) - 1 : slot.end_lineno] = [texts[node]]
        source = "".join(lines)
    return source


def change_comments(source: str, rng: random.Random) -> str:
    """Take all comments away, write others elsewhere, and write other docstrings or none."""
    edits: list[Edit] = []
    starts = _line_starts(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)) and ast.get_docstring(node) is not None:
            text = node.body[0]
            gone = len(node.body) > 1 and rng.random() < 0.3
            edits.append((*_span(text, starts), "" if gone else f'"""About this: {rng.choice(REMARKS)}."""'))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            begin = starts[token.start[0] - 1] + len(token.line[: token.start[1]].encode())
            edits.append((begin, begin + len(token.string.encode()), ""))
    lines = _edited(source, edits).splitlines(keepends=True)
    places = _statement_lines("".join(lines))
    for line in sorted(rng.sample(places, len(places) // 4), reverse=True):
        lines.insert(line - 1, f"{_indent(lines[line - 1])}# {rng.choice(REMARKS)}\n")
    return "".join(lines)


def add_dead_code(source: str, rng: random.Random) -> str:
    """Add statements that do nothing before a fifth of all statements, and three functions that nobody calls."""
    lines = source.splitlines(keepends=True)
    places = _statement_lines(source)
    for number, line in enumerate(sorted(rng.sample(places, len(places) // 5), reverse=True)):
        indent = _indent(lines[line - 1])
        dead = (
            f"unused_{number} = [None] * {rng.randint(2, 9)}\n",
            f"if False:\n{indent}    print('never {number}')\n",
            f"spare_{number} = {rng.randint(2, 99)} + {rng.randint(2, 99)}\n",
            "assert True\n",
        )
        lines.insert(line - 1, indent + rng.choice(dead))
    for number in range(3):
        lines.append(_unused_function(number, rng))
    return "".join(lines)


Change = Callable[[str, random.Random], str]
KINDS: dict[str, tuple[Change, ...]] = {
    "renamed": (rename_locals,),
    "reordered": (reorder,),
    "comments": (change_comments,),
    "dead code": (add_dead_code,),
    "all": (change_comments, add_dead_code, rename_locals, reorder),
}


# --- Reading source ---------------------------------------------------------------------------------------------------


def _unused_function(number: int, rng: random.Random) -> str:
    """Return a function that nobody calls: some statements in any order."""
    statements = (
        "    total = a * b\n",
        "    while total < b:\n        total += 2\n",
        "    rest = {'total': total, 'b': [b, b]}\n",
        "    for key in range(a):\n        total -= key ** 2\n",
        "    if a > b or not total:\n        return None\n",
        "    pairs = [(x, y) for x in (a, b) for y in range(3) if x]\n",
        "    a, b = max(b, total), -a\n",
        "    print(f'never {a}', total, sep='')\n",
    )
    chosen = rng.sample(statements, 5)
    return f"\n\ndef helper_{number}(a, b):\n    total = a\n{''.join(chosen)}    return total\n"


def _line_starts(source: str) -> list[int]:
    """Return the byte at which each line begins."""
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    return starts


def _span(node: ast.stmt, starts: Sequence[int]) -> tuple[int, int]:
    """Return where a statement begins and ends, in bytes."""
    assert node.end_lineno and node.end_col_offset is not None
    return starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset


def _edited(source: str, edits: Iterable[Edit]) -> str:
    """Return the source with all edits made; they do not overlap."""
    data = source.encode()
    for begin, end, text in sorted(edits, reverse=True):
        data = data[:begin] + text.encode() + data[end:]
    return data.decode()


def _bodies(source: str) -> list[list[ast.stmt]]:
    """Return the statements of the module, and those of each class."""
    tree = ast.parse(source)
    return [tree.body, *(node.body for node in ast.walk(tree) if isinstance(node, ast.ClassDef))]


def _outermost_functions(tree: ast.Module) -> list[ast.AST]:
    """Return the functions and methods that lie in no other function."""
    inside = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    return [node for body in inside for node in body if isinstance(node, FUNCTIONS)]


def _parameters(arguments: ast.arguments) -> list[ast.arg]:
    """Return the parameters that have a name and no star."""
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _fixed_names(nodes: Sequence[ast.AST]) -> set[str]:
    """Return the names that have to stay.

    Callers use the parameters' names. The places of names in f-strings are unknown before Python 3.12. A nonlocal
    statement would have to change as well.
    """
    fixed: set[str] = set()
    for node in nodes:
        if isinstance(node, FUNCTIONS):
            fixed |= {parameter.arg for parameter in _parameters(node.args)}
        elif isinstance(node, ast.JoinedStr):
            fixed |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
        elif isinstance(node, ast.Global | ast.Nonlocal):
            fixed |= set(node.names)
        elif isinstance(node, ast.keyword) and node.arg:
            fixed.add(node.arg)
    return fixed


def _first_line(node: ast.stmt) -> int:
    """Return the line of a function's first decorator, or its own."""
    decorators: list[ast.expr] = getattr(node, "decorator_list", [])
    return min([node.lineno, *(decorator.lineno for decorator in decorators)])


def _statement_lines(source: str) -> list[int]:
    """Return the lines at which a statement of a function begins, but for docstrings and what shares its line."""
    lines = source.splitlines()
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef):
            continue
        for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
            for statement in body if isinstance(body, list) else ():
                begins = not lines[statement.lineno - 1][: statement.col_offset].strip()
                is_text = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
                if begins and not is_text:
                    found.add(_first_line(statement))
    return sorted(found)


def _indent(line: str) -> str:
    """Return the white space that a line begins with."""
    return line[: len(line) - len(line.lstrip())]

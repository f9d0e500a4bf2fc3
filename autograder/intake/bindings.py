"""What do the names in a module stand for? Followed through imports and assignments, without running anything.

    bindings = Bindings(list(ast.walk(tree)))
    bindings.resolve(node)      # {"torch.nn.functional.softmax"} for `F.softmax`

Scopes are ignored: a name stands for all that it is given anywhere in the module. That finds too much rather than too
little, which is right where a person looks at what is found.
"""

import ast
import builtins
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set

_MAX_DEPTH = 50  # of an expression that is followed
_MAX_LENGTH = 300  # of a dotted name
_MAX_MEANINGS = 8  # of one name
_PASSES = 4  # over all assignments: an alias of an alias of an alias of an alias
_NOTHING: frozenset[str] = frozenset()
# Functions that import what their first argument names.
_IMPORTERS = {
    *("importlib.import_module", "importlib.__import__", "builtins.__import__"),
    *("pkgutil.resolve_name", "pydoc.locate", "runpy.run_module"),
}
_RUNNERS = {"builtins.eval", "builtins.exec", "builtins.compile"}


class Bindings:
    """The meanings of a module's names, as dotted names of what they are imported from."""

    def __init__(self, nodes: Sequence[ast.AST]) -> None:
        """Collect imports, then follow assignments; `nodes` are all nodes of the module's tree."""
        self._meanings: defaultdict[str, set[str]] = defaultdict(set)  # an attribute's key is `.name`
        self._texts: dict[str, str | None] = {}  # names that are one string; None: several
        self._stars: set[str] = set()  # modules of `from module import *`
        self._defined = {
            node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        for node in nodes:
            self._add_import(node)
        assignments = [pair for node in nodes for pair in _assignments(node)]
        for target, value in assignments:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                self._texts[target] = None if target in self._texts else value.value
        self._follow(assignments)

    def _add_import(self, node: ast.AST) -> None:
        """Remember what an import binds."""
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                self._meanings[alias.asname or top].add(alias.name if alias.asname else top)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                if alias.name == "*":
                    self._stars.add(node.module)
                else:
                    self._meanings[alias.asname or alias.name].add(f"{node.module}.{alias.name}")

    def _follow(self, assignments: list[tuple[str, ast.expr]]) -> None:
        """Give each target the meanings of its value, until nothing changes."""
        for _ in range(_PASSES):
            changed = False
            for target, value in assignments:
                meanings = self.resolve(value)
                if not meanings:
                    continue
                known = self._meanings[target]
                if len(known) < _MAX_MEANINGS and not meanings <= known:
                    known |= meanings
                    changed = True
            if not changed:
                break

    def resolve(self, node: ast.expr, depth: int = 0) -> Set[str]:
        """Return the dotted names that an expression may stand for; none if it is nothing imported or built in."""
        if depth > _MAX_DEPTH:
            return _NOTHING
        match node:
            case ast.Name():
                return self._of_name(node.id)
            case ast.Attribute():
                if bases := self.resolve(node.value, depth + 1):
                    return _members(bases, node.attr)
                return self._meanings.get(f".{node.attr}", _NOTHING)
            case ast.NamedExpr():
                return self.resolve(node.value, depth + 1)
            case ast.IfExp():
                return self.resolve(node.body, depth + 1) | self.resolve(node.orelse, depth + 1)
            case ast.BoolOp():
                return set().union(*(self.resolve(value, depth + 1) for value in node.values))
            case ast.Subscript():
                return self._of_subscript(node, depth + 1)
            case ast.Call():
                return self._of_call(node, depth + 1)
        return _NOTHING

    def _of_name(self, name: str) -> Set[str]:
        """Return what a plain name may stand for."""
        if name in self._meanings:
            return self._meanings[name]
        if name in self._defined:
            return _NOTHING
        found = {f"{module}.{name}" for module in self._stars}
        return found | {f"builtins.{name}"} if hasattr(builtins, name) else found

    def _of_subscript(self, node: ast.Subscript, depth: int) -> Set[str]:
        """Return what `vars(module)["name"]` and its like stand for."""
        key = self._text(node.slice, depth)
        if key is None:
            return _NOTHING
        bases = self.resolve(node.value, depth)
        found = {key} if "sys.modules" in bases else set()
        return found | _members({base.removesuffix(".__dict__") for base in bases if base.endswith(".__dict__")}, key)

    def _of_call(self, node: ast.Call, depth: int) -> Set[str]:
        """Return what `getattr`, an import by a function, and their like give back."""
        if imported := self.imported_by(node, depth):
            return imported
        functions = self.resolve(node.func, depth)
        if "builtins.getattr" in functions and len(node.args) > 1:
            name = self._text(node.args[1], depth)
            return _members(self.resolve(node.args[0], depth), name) if name else _NOTHING
        if "builtins.vars" in functions and node.args:
            return _members(self.resolve(node.args[0], depth), "__dict__")
        if isinstance(node.func, ast.Call) and node.args and node.func.args:
            getter = self._text(node.func.args[0], depth)
            if getter and "operator.attrgetter" in self.resolve(node.func.func, depth):
                return _members(self.resolve(node.args[0], depth), getter)
        return _NOTHING

    def imported_by(self, call: ast.Call, depth: int = 0) -> Set[str] | None:
        """Return the modules that a call imports, none if they are not known here; None if it imports nothing."""
        functions = self.resolve(call.func, depth + 1) & _IMPORTERS
        if not functions:
            return None
        named = [*call.args[:1], *(word.value for word in call.keywords if word.arg in ("name", "mod_name"))]
        name = self._text(named[0], depth + 1) if named else None
        if not name:
            return _NOTHING
        name = name.replace(":", ".")
        return {name, name.partition(".")[0]} if any(text.endswith("__import__") for text in functions) else {name}

    def hidden_by(self, call: ast.Call, parents: Set[str]) -> str | None:
        """Return in words what a call keeps from being seen here, or None; `parents` hold something forbidden."""
        functions = self.resolve(call.func)
        if functions & _RUNNERS:
            return "runs code that is given as text"
        if functions & _IMPORTERS and not self.imported_by(call):
            return "imports a module whose name is made while it runs"
        if "builtins.getattr" not in functions or len(call.args) < 2 or self._text(call.args[1], 0) is not None:
            return None
        bases = sorted(self.resolve(call.args[0]) & parents)
        return f"takes a name from {bases[0]} that is made while it runs" if bases else None

    def _text(self, node: ast.expr, depth: int) -> str | None:
        """Return the string that an expression is, where it can be told: written out, in pieces, or under a name."""
        if depth > _MAX_DEPTH:
            return None
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.Name():
                return self._texts.get(node.id)
            case ast.BinOp(op=ast.Add()):
                return _joined([self._text(node.left, depth + 1), self._text(node.right, depth + 1)])
            case ast.JoinedStr():
                return _joined([self._text(part, depth + 1) for part in node.values])
            case ast.FormattedValue(format_spec=None):
                return self._text(node.value, depth + 1)
        return None


def _joined(parts: list[str | None]) -> str | None:
    """Return strings as one, or None if one of them is not known."""
    known = [part for part in parts if part is not None]
    return "".join(known) if len(known) == len(parts) else None


def _members(bases: Set[str], name: str) -> Set[str]:
    """Return the dotted names of a member of each of `bases`."""
    return {f"{base}.{name}" for base in bases if len(base) + len(name) < _MAX_LENGTH}


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names, and attributes as `.name`, that a node gives a value, each with the value."""
    match node:
        case ast.Assign():
            for target in node.targets:
                yield from _pairs(target, node.value)
        case ast.AnnAssign(value=ast.expr() as value) | ast.NamedExpr(value=value):
            yield from _pairs(node.target, value)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names and attributes in the target of one assignment; `a, b = x, y` is two."""
    if isinstance(target, ast.Name):
        yield target.id, value
    elif isinstance(target, ast.Attribute):
        yield f".{target.attr}", value
    elif isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        for inner, part in zip(target.elts, value.elts, strict=False):
            if isinstance(inner, ast.Name | ast.Attribute):
                yield from _pairs(inner, part)

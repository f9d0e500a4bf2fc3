"""Does a submission's `run_llama.py` keep the options of the assignment? Read from its syntax tree.

The reference commands rely on names and defaults; options of one's own are welcome if they have a default.
"""

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autograder.result import Finding, Severity
from submission_check import shown

Value = str | int | float | bool | None
# The assignment's options and their defaults; where there are two, either is right.
CONTRACT: dict[str, tuple[Value, ...]] = {
    "--option": ("generate",),
    "--train": ("data/cfimdb-train.txt",),
    "--dev": ("data/cfimdb-dev.txt",),
    "--test": ("data/cfimdb-test.txt",),
    "--label-names": ("data/cfimdb-label-mapping.json",),
    "--pretrained-model-path": ("stories42M.pt", None),
    "--max_sentence_len": (None,),
    "--seed": (1337,),
    "--epochs": (5,),
    "--use_gpu": (False,),
    "--generated_sentence_low_temp_out": ("generated-sentence-temp-0.txt",),
    "--generated_sentence_high_temp_out": ("generated-sentence-temp-1.txt",),
    "--dev_out": ("cfimdb-dev-prompting-output.txt",),
    "--test_out": ("cfimdb-test-prompting-output.txt",),
    "--batch_size": (8,),
    "--hidden_dropout_prob": (0.3,),
    "--lr": (2e-5,),
}
_DEFAULTS_OF_ACTIONS: dict[str, Value] = {"store_true": False, "store_false": True}
_MEND = "the course's commands rely on it: put it back, and give your own value on the command line"
_BY_EYE = "read the file by eye"


class _Unknown:
    """The value of an expression that cannot be told without running it."""


_UNKNOWN = _Unknown()


@dataclass(frozen=True)
class Option:
    """One option, as the call that adds it describes it."""

    flags: tuple[str, ...]  # such as `-s`, `--seed`; a positional argument's name
    default: Value | _Unknown
    required: bool | _Unknown
    line: int
    written: str = ""  # the default's source, where it has one

    @property
    def name(self) -> str:
        """Return what people call it: its long form."""
        return max(self.flags, key=len)

    @property
    def destination(self) -> str:
        """Return the attribute that argparse stores it under."""
        return self.name.lstrip("-").replace("-", "_")


def changed_options(file: str, tree: ast.Module, master: ast.Module) -> list[Finding]:
    """Return what a `run_llama.py` changes of the assignment's command line.

    Beside CONTRACT, an option that the master has too should have the master's default.
    """
    expected = {
        option.name: (option.default,) for option in _Reader(master).options if not isinstance(option.default, _Unknown)
    }
    reader = _Reader(tree)
    if not reader.options:
        what = "its options cannot be told from its source: no call of `add_argument` has a name that is written out"
        return [Finding("static", "note", what, _BY_EYE, file, 1)]
    comparison = _Comparison(file, expected | CONTRACT)
    for option in reader.options:
        comparison.check(option, reader)
    comparison.check_missing(reader)
    comparison.check_assignments(tree, reader)
    for remark in reader.remarks:
        comparison.add(*remark)
    return comparison.findings


class _Comparison:
    """Compares options with what is expected, and collects the findings."""

    def __init__(self, file: str, expected: Mapping[str, tuple[Value, ...]]) -> None:
        """Start with no findings; `expected` holds the right defaults by option."""
        self.file, self.expected = file, expected
        self.findings: list[Finding] = []

    def add(self, severity: Severity, what: str, line: int) -> None:
        """Add a finding."""
        mend = _BY_EYE if severity == "note" else _MEND
        self.findings.append(Finding("static", severity, what, mend, self.file, line))

    def check(self, option: Option, reader: "_Reader") -> None:
        """Compare one option."""
        known = next((flag for flag in option.flags if flag in self.expected), None)
        name = shown(known or option.name)
        if isinstance(option.required, _Unknown):
            self.add("note", f"whether {name} is required cannot be told from the source", option.line)
        elif option.required:
            what = f"{name} has become required" if known else f"{name} is new, and required"
            self.add("flag", what, option.line)
        default = reader.overridden.get(option.destination, option.default)
        if known is None or option.required is True:
            return
        if isinstance(default, _Unknown):
            what = f"the default of {name} cannot be told from the source: {shown(option.written)}"
            self.add("note", what, option.line)
        elif not any(_same(default, value) for value in self.expected[known]):
            right = self.expected[known][0]
            self.add("flag", f"the default of {name} is {_text(default)}, not {_text(right)}", option.line)

    def check_missing(self, reader: "_Reader") -> None:
        """Report the assignment's options that are gone, unless some could not be read."""
        present = {flag for option in reader.options for flag in option.flags}
        gone = [flag for flag in CONTRACT if flag not in present]
        if gone and not reader.has_hidden_options:
            self.add("flag", f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone", 1)

    def check_assignments(self, tree: ast.Module, reader: "_Reader") -> None:
        """Report options that are set to something else after the command line was read."""
        destinations = {option.destination for option in reader.options if set(option.flags) & set(CONTRACT)}
        for target, value in _stores(tree):
            if (
                isinstance(target.value, ast.Name)
                and target.value.id in reader.results
                and target.attr in destinations
                and not isinstance(given := reader.value_of(value), _Unknown)
            ):
                self.add("flag", f"sets args.{target.attr} to {_text(given)}, whatever was asked for", target.lineno)


class _Reader:
    """The options that a module adds to a parser, by `parser.add_argument(...)` or under a short name for that."""

    def __init__(self, tree: ast.Module) -> None:
        """Read all calls; what cannot be told is in `remarks`."""
        self.options: list[Option] = []
        self.overridden: dict[str, Value | _Unknown] = {}  # by `set_defaults`
        self.remarks: list[tuple[Severity, str, int]] = []
        self.has_hidden_options = False
        self._constants = _constants(tree)
        nodes = list(ast.walk(tree))
        self._adders = {name for name, value in _named(nodes) if _is_member(value, "add_argument")}
        # the names under which parsed options go
        self.results = {"args"} | {
            name
            for name, value in _named(nodes)
            if isinstance(value, ast.Call) and (_is_member(value.func, "parse_args"))
        }
        calls = [node for node in nodes if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            self._read(call)

    def _read(self, call: ast.Call) -> None:
        """Read one call, whatever it is."""
        function = call.func
        if _is_member(function, "add_argument") or (isinstance(function, ast.Name) and function.id in self._adders):
            self._read_option(call)
        elif _is_member(function, "set_defaults"):
            self.overridden |= {word.arg: self.value_of(word.value) for word in call.keywords if word.arg}
        elif _is_member(function, "add_mutually_exclusive_group") or _is_member(function, "add_subparsers"):
            words = {word.arg: self.value_of(word.value) for word in call.keywords}
            if words.get("required", False) is not False:
                self.remarks.append(("flag", "one of a group of new options is required", call.lineno))

    def _read_option(self, call: ast.Call) -> None:
        """Read one option."""
        flags = [self.value_of(argument) for argument in call.args]
        words = {word.arg: word.value for word in call.keywords}
        texts = tuple(flag for flag in flags if isinstance(flag, str))
        if None in words or not texts or len(texts) < len(flags):
            self.has_hidden_options = True
            self.remarks.append(("note", "adds an option that cannot be told from the source", call.lineno))
            return
        default, written = self._default(words)
        self.options.append(Option(texts, default, self._required(texts, words), call.lineno, written))

    def _default(self, words: Mapping[str | None, ast.expr]) -> tuple[Value | _Unknown, str]:
        """Return an option's default, and its source."""
        if "default" in words:
            return self.value_of(words["default"]), _source(words["default"])
        action = self.value_of(words["action"]) if "action" in words else None
        return (_DEFAULTS_OF_ACTIONS.get(action) if isinstance(action, str) else None), ""

    def _required(self, flags: tuple[str, ...], words: Mapping[str | None, ast.expr]) -> bool | _Unknown:
        """Say whether an option has to be given."""
        if flags[0].startswith("-"):
            required = self.value_of(words["required"]) if "required" in words else False
        else:
            count = self.value_of(words["nargs"]) if "nargs" in words else None
            required = count if isinstance(count, _Unknown) else count not in ("?", "*")
        return required if isinstance(required, _Unknown) else bool(required)

    def value_of(self, node: ast.expr) -> Value | _Unknown:
        """Return the value of a literal, of a name that is one, or of `Path(literal)`."""
        if isinstance(node, ast.Name):
            return self._constants.get(node.id, _UNKNOWN)
        match node:
            case ast.Call(func=ast.Name(id="Path" | "str" | "int" | "float"), args=[argument], keywords=[]):
                return _literal(argument)
        return _literal(node)


def _literal(node: ast.expr) -> Value | _Unknown:
    """Return the value of a literal."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return _UNKNOWN
    return value if value is None or isinstance(value, str | int | float) else _UNKNOWN


def _constants(tree: ast.Module) -> dict[str, Value | _Unknown]:
    """Return the names that are given one value, at the top of the module."""
    constants: dict[str, Value | _Unknown] = {}
    for name, value in _named(tree.body):
        constants[name] = _UNKNOWN if name in constants else _literal(value)
    return constants


def _named(nodes: list[ast.AST] | list[ast.stmt]) -> Iterator[tuple[str, ast.expr]]:
    """Yield the names that are assigned to, with their values."""
    for node in nodes:
        if isinstance(node, ast.Assign):
            yield from ((target.id, node.value) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and node.value and isinstance(node.target, ast.Name):
            yield node.target.id, node.value


def _stores(tree: ast.Module) -> Iterator[tuple[ast.Attribute, ast.expr]]:
    """Yield the attributes that are assigned to, with their values, in the order of the lines."""
    assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for node in sorted(assignments, key=lambda node: node.lineno):
        yield from ((target, node.value) for target in node.targets if isinstance(target, ast.Attribute))


def _is_member(node: ast.expr, name: str) -> bool:
    """Say whether an expression is a member of this name, of anything."""
    return isinstance(node, ast.Attribute) and node.attr == name


def _same(default: Value, expected: Value) -> bool:
    """Say whether two defaults are the same to argparse, which converts a default that is a string."""
    if isinstance(default, str) and isinstance(expected, int | float):
        try:
            return float(default) == expected
        except ValueError:
            return False
    return default == expected


def _text(value: Value) -> str:
    """Return a value as it is written, safe to print."""
    try:
        return shown(value if isinstance(value, str) else repr(value))
    except ValueError:  # Python does not write out a number of thousands of digits
        return "a huge number"


def _source(node: ast.expr) -> str:
    """Return an expression's source, or what kind it is where that is too deep or too long to be written."""
    try:
        return ast.unparse(node)
    except (RecursionError, ValueError):
        return type(node).__name__

"""The documents tell the truth: names, options, commands, targets and links exist, and the trees are complete.

.venv/bin/python -m pytest tests/test_docs.py
"""

import argparse
import ast
import builtins
import importlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

import run_llama
from autograder.misconceptions import MISCONCEPTIONS, applied
from checking import read_references, run_check
from component_checks import CHECKS
from submission_rules import SUBMISSION
from tests.assets_dir import require_asset

ROOT = Path(__file__).resolve().parent.parent
if not (ROOT / ".git").exists():
    pytest.skip("skipped: needs a git checkout, to know which files are the project's", allow_module_level=True)
STUDENT_ID = "abc123"  # the ID in the examples

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FILE_NAME = re.compile(r"[\w./*-]+\.(?:py|md|sh|toml|txt|json|data|bin|pt|model|zip|pdf|png|npz|ipynb)")
IDENTIFIER = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
CALL = re.compile(rf"({IDENTIFIER.pattern})\([^()]*\)")
COMMAND = re.compile(r"(?:\S*/)?python (?:-m \w|\S+\.py\b)|\./setup\.sh(?: |$)|make [a-z]")
SHELLS = ("bash", "sh", "console", "text")  # languages of blocks that may hold commands
OUTSIDE_MODULES = ("pip", "pytest", "venv", "ruff", "mypy", "py_compile")  # `python -m` of these is not ours

AMERICAN = re.compile(
    r"\b(?:\w+[iy]z(?:e|es|ed|er|ers|ing|ation|ations)|(?:color|behavior|favor|honor|labor|neighbor)\w*|center(?:s|ed)?"
    r"|(?:label|model|cancel|travel|signal)(?:ed|ing)|catalogs?|gray|defense|analog|fulfill|math|(?-i:license))\b",
    re.IGNORECASE,
)
# Words that only look American, and two that are names in the code.
NOT_AMERICAN = re.compile(r"(?:re)?siz(?:e|es|ed|ing)|prizes?|seizes?|(?:tokeniz|optimiz)ers?", re.IGNORECASE)
QUOTATION = re.compile(r'"[^"]*"')  # titles of papers keep their own spelling


@cache
def repository_files() -> tuple[str, ...]:
    """Return the paths of all files that are committed, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file()))


@cache
def read(name: str) -> str:
    """Return a file's text."""
    return (ROOT / name).read_text(encoding="utf-8")


DOCUMENTS = [name for name in repository_files() if name.endswith(".md")]
NAMING_DOCUMENTS = [name for name in DOCUMENTS if "/" not in name or name.startswith("data/")]


def prose(name: str) -> str:
    """Return a document's text without its blocks of code."""
    return FENCE.sub("", read(name))


def spans(name: str) -> list[str]:
    """Return what stands between backticks in a document's text, with line breaks as spaces."""
    return [" ".join(text.split()) for _, text in SPAN.findall(prose(name))]


# ---------------------------------------------------------------------------------------------- commands


def commands(name: str) -> list[str]:
    """Return the commands that a document quotes, in blocks and between backticks."""
    blocks = [text for language, text in FENCE.findall(read(name)) if language in SHELLS]
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    without_environment = [re.sub(r"^(?:[A-Z_]+=\S+ )+", "", line) for line in lines + spans(name)]
    return [line for line in without_environment if COMMAND.match(line)]


QUOTED = {command: name for name in DOCUMENTS for command in commands(name)}


class ParsedError(Exception):
    """Raised in place of what a command would do after reading its arguments."""


@pytest.mark.parametrize("command", QUOTED, ids=[f"{name}: {command[:60]}" for command, name in QUOTED.items()])
def test_a_quoted_command_is_understood(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, *arguments = shlex.split(command, comments=True)
    if program == "make":
        assert set(arguments) <= set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    elif program == "./setup.sh":
        check_setup_options(arguments)
    elif arguments[0] != "-m":
        check_arguments(PurePosixPath(arguments[0]).stem, arguments[1:], monkeypatch, capsys)
    elif arguments[1] not in OUTSIDE_MODULES:
        check_arguments(f"{arguments[1]}.__main__", arguments[2:], monkeypatch, capsys)
    else:
        assert all((ROOT / path).exists() for path in arguments[2:] if "/" in path)


def check_setup_options(arguments: list[str]) -> None:
    """Check options of setup.sh, and that the asset after --only exists (NAME stands for any)."""
    options = set(re.findall(r"^ +(?:-\w \| )?(--[a-z-]+)\)", read("setup.sh"), re.MULTILINE))
    for previous, argument in zip(["", *arguments], arguments, strict=False):
        known = asset_names() | {"NAME"} if previous == "--only" else options
        assert argument in known, f"{argument} is not one of {sorted(known)}"


def check_arguments(
    module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run a command's main up to the point where its own parser has taken the arguments."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, args: list[str]) -> None:
        parsed = parse_args(parser, args)
        if module == "run_llama":
            run_llama.check_options(parsed)
        for name in getattr(parsed, "names", ()) if module == "sanity_check" else ():
            assert any(check.name.startswith(name) for check in CHECKS), f"no check is called {name}"
        raise ParsedError

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
    try:
        importlib.import_module(module).main(arguments)
    except ParsedError:
        return
    except SystemExit as stopped:
        assert stopped.code == 0, capsys.readouterr().err  # 0: --help
        return
    pytest.fail(f"{module} refused its arguments: {capsys.readouterr().err}")


def asset_names() -> set[str]:
    """Return the names that `./setup.sh --only` takes."""
    return {asset["name"] for asset in tomllib.loads(read("assets.toml"))["asset"]}


def test_the_reference_commands_stand_in_the_assignment() -> None:
    wanted = {output.command for output in SUBMISSION.outputs if output.command}
    assert wanted <= set(commands("ASSIGNMENT.md"))


def test_the_first_example_of_the_assignment_is_what_the_command_prints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "weights" / "stories260K"
    weights.mkdir(parents=True)
    for name in ("stories260K.bin", "tok512.bin"):
        (weights / name).write_bytes(require_asset(name).read_bytes())
    monkeypatch.chdir(tmp_path)
    command, shown = FENCE.findall(read("ASSIGNMENT.md"))[0][1].split("\n", maxsplit=1)
    assert run_llama.main(shlex.split(command.removeprefix("$ python run_llama.py "))) == 0
    assert capsys.readouterr().out.startswith(shown)


def test_the_failing_check_in_the_assignment_is_what_the_check_prints() -> None:
    (report,) = (text for _, text in FENCE.findall(read("ASSIGNMENT.md")) if "FAIL" in text)
    shown = [line.strip() for line in report.splitlines() if line.startswith("     ")]
    (mistake,) = (known for known in MISCONCEPTIONS if known.sentence in report)
    (check,) = (check for check in CHECKS if check.name == "RoPE")
    with applied(mistake):
        outcome = run_check(check, read_references(ROOT / "sanity_check.data")["RoPE"], ROOT / "weights")
    assert list(outcome.details) == shown


# ---------------------------------------------------------------------------------------------- names


@cache
def members() -> dict[str, set[str]]:
    """Return what each module and each class of the project defines, attributes of `self` included."""
    found: dict[str, set[str]] = {}
    for name in repository_files():
        if name.endswith(".py") and not name.startswith("tests/"):
            tree = ast.parse(read(name))
            found.setdefault(PurePosixPath(name).stem, set()).update(defined(tree.body))
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    found.setdefault(node.name, set()).update(defined(node.body), attributes(node))
    return found


def defined(body: list[ast.stmt]) -> Iterator[str]:
    """Yield the names that the statements of a module or class define."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def attributes(cls: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes that a class gives to `self`."""
    for node in ast.walk(cls):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


@cache
def words() -> set[str]:
    """Return every word of the project's code and settings, and Python's own names."""
    kinds = (".py", ".toml", ".json", ".sh", "Makefile", "requirements.txt")
    sources = [name for name in repository_files() if name.endswith(kinds) and not name.startswith("tests/test_")]
    return {word for name in sources for word in re.findall(r"\w+", read(name))} | set(dir(builtins))


def exists(name: str) -> bool:
    """Say whether a name, dotted or not, is the project's or that of an installed package."""
    owner, *rest = name.split(".")
    if not rest:
        return owner in words()
    if owner == "self":
        return any(rest[0] in names for names in members().values())
    if owner in members():
        return all(part in members()[before] for before, part in zip([owner, *rest], rest, strict=False))
    try:
        value: object = importlib.import_module(owner)
        for part in rest:
            value = getattr(value, part)
    except (ImportError, AttributeError):
        return False
    return True


@cache
def known_files() -> set[str]:
    """Return the files of the project, those that it fetches, and those that a submission may hold."""
    assets = tomllib.loads(read("assets.toml"))["asset"]
    fetched = {file["path"] for asset in assets for file in asset["file"]}
    handed_in = SUBMISSION.required + SUBMISSION.expected + SUBMISSION.optional
    return {*repository_files(), *fetched, *(name.replace("{id}", STUDENT_ID) for name in handed_in)}


def file_exists(name: str, document: str) -> bool:
    """Say whether a file is known, seen from the root or the document's folder; NAME and * stand for anything."""
    patterns = [str(folder / name.replace("NAME", "*")) for folder in (PurePosixPath(), PurePosixPath(document).parent)]
    if any(fnmatchcase(file, pattern) for file in known_files() for pattern in patterns):
        return True
    what_runs_write = name.endswith((".pt", ".zip"))  # their names vary with the options
    return what_runs_write and subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT).returncode == 0


@pytest.mark.parametrize("document", NAMING_DOCUMENTS)
def test_the_names_in_a_document_exist(document: str) -> None:
    missing = []
    for span in spans(document):
        call = CALL.fullmatch(span)
        if FILE_NAME.fullmatch(span) and not span.startswith("/path/to/"):
            known = file_exists(span, document)
        elif call or IDENTIFIER.fullmatch(span):
            known = exists(call[1] if call else span)
        else:
            continue
        if not known:
            missing.append(span)
    assert not missing


@pytest.mark.parametrize("document", NAMING_DOCUMENTS)
def test_the_options_in_a_document_exist(document: str) -> None:
    named = {option for span in spans(document) for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", span)}
    sources = [name for name in repository_files() if name.endswith((".py", ".sh")) and not name.startswith("tests/")]
    known = {option for name in sources for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", read(name))}
    assert named - known - {"--strict"} == set()  # mypy's


def test_the_assignment_shows_the_whole_submission() -> None:
    (tree,) = (text for _, text in FENCE.findall(read("ASSIGNMENT.md")) if text.startswith(f"{STUDENT_ID}/\n"))
    listed = SUBMISSION.required + SUBMISSION.expected + SUBMISSION.optional
    shown = [word for word in tree.split() if FILE_NAME.fullmatch(word) and "*" not in word]
    assert sorted(shown) == sorted(name.replace("{id}", STUDENT_ID) for name in listed)
    assert sorted(re.findall(r"\*\.\w+", tree)) == sorted(SUBMISSION.patterns)


# ---------------------------------------------------------------------------------------------- links and trees


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_links_in_a_document_lead_somewhere(document: str) -> None:
    targets = [link for link in LINK.findall(prose(document)) if not link.startswith(("https://", "http://"))]
    dead = []
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (ROOT / document).parent / path if path else ROOT / document
        if not file.exists() or (anchor and anchor not in anchors(file)):
            dead.append(target)
    assert not dead


def anchors(file: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_tree_in_the_readme_is_complete() -> None:
    tree = FENCE.findall(read("README.md"))[-1][1]
    lines = [line for line in tree.splitlines() if not line.startswith("#")]
    # `name  phrase`; several names that share a phrase stand side by side
    names = [name.rstrip("/") for line in lines for name in re.split(r" {2,}", line.strip())[0].split()]
    assert sorted(names) == sorted({PurePosixPath(name).parts[0] for name in repository_files()})


FOLDERS_WITH_README = [str(PurePosixPath(name).parent) for name in DOCUMENTS if name.count("/") == 1]


@pytest.mark.parametrize("folder", FOLDERS_WITH_README)
def test_the_readme_of_a_folder_names_its_files(folder: str) -> None:
    files = {name for name in repository_files() if str(PurePosixPath(name).parent) == folder}
    names = {PurePosixPath(name).name for name in files} - {"README.md", "__init__.py", "__main__.py"}
    text = read(f"{folder}/README.md")
    assert {name for name in names if f"`{name}`" not in text} == set()


# ---------------------------------------------------------------------------------------------- spelling


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_spelling_is_british(document: str) -> None:
    text = QUOTATION.sub("", SPAN.sub("", LINK.sub("", prose(document))))
    found = [match.group() for match in AMERICAN.finditer(text)]
    assert [word for word in found if not NOT_AMERICAN.fullmatch(word)] == []


def test_the_spelling_check_knows_both_ways() -> None:
    words = "normalize tokenized analyzed optimization colors center labeled license gray size tokenizer optimizers"
    found = [word for word in words.split() if AMERICAN.fullmatch(word) and not NOT_AMERICAN.fullmatch(word)]
    assert found == words.split()[:-3]

"""How do different people solve the assignment? Eight solutions that were written independently of each other.

    files = solution_files("einsum")      # {"llama.py": the whole file, ...}

Each is a TOML file in `solutions/`: a key a region, written as if it began in the first column, and the helpers that
stand outside the regions as insertions before a line of the master; before none, they stand at the end of the file.
"""

import textwrap
import tomllib
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from autograder.handout.regions import read_regions
from errors import GraderError
from submission_rules import FILES

ROOT = Path(__file__).resolve().parents[2]
SOLUTIONS = Path(__file__).parent / "solutions"
STYLES = tuple(sorted(path.stem for path in SOLUTIONS.glob("*.toml")))
STUDENT_FILES = tuple(dict.fromkeys(FILES.values()))


def solution_files(style: str, root: Path = ROOT) -> dict[str, str]:
    """Return the text of each file that students write, as the solution of this style has it."""
    return {file: styled(file, style, root=root) for file in STUDENT_FILES}


def styled(
    file: str,
    style: str,
    regions: Collection[str] = tuple(FILES),
    instead: Mapping[str, str] = MappingProxyType({}),
    before: Mapping[str, str] = MappingProxyType({}),
    root: Path = ROOT,
) -> str:
    """Return a file of the master, without its markers, with the helpers of a style and its code in these regions.

    `instead` holds other code for a region, `before` what is put in front of a region's code, both written from the
    first column. Raises GraderError if a helper has no place in the master any more.
    """
    solution = _solution(style)
    text = (root / file).read_text(encoding="utf-8")
    for insertion in solution["insertions"]:
        if insertion["file"] == file:
            text = _inserted(text, insertion, style)
    code = {name: instead.get(name, solution[name]) for name in regions}
    return _filled(text, file, {name: before.get(name, "") + text for name, text in code.items()})


def region_code(text: str, file: str, name: str) -> str:
    """Return what stands in a region of the master's file, from the first column."""
    region = next(region for region in read_regions(text, file) if region.name == name)
    return textwrap.dedent("".join(text.splitlines(keepends=True)[region.first : region.last - 1]))


def _filled(text: str, file: str, code: Mapping[str, str]) -> str:
    """Return a file of the master without its markers, and with this code in its regions, or else its own."""
    lines = text.splitlines(keepends=True)
    for region in reversed(read_regions(text, file)):  # from the end, so that line numbers stay true
        inside = lines[region.first : region.last - 1]
        if region.name in code:
            inside = [textwrap.indent(code[region.name].strip("\n") + "\n", region.indent)]
        lines[region.first - 1 : region.last] = inside
    return "".join(lines)


@cache
def _solution(style: str) -> dict[str, Any]:
    """Read a style's file."""
    content = tomllib.loads((SOLUTIONS / f"{style}.toml").read_text(encoding="utf-8"))
    return {"insertions": []} | content


def _inserted(text: str, insertion: Mapping[str, str], style: str) -> str:
    """Return the text with a helper before its line."""
    if not insertion["before"]:
        return text + insertion["text"]
    place = f"\n{insertion['before']}\n"
    if text.count(place) != 1:
        first = insertion["before"].strip().splitlines()[0]
        what = f"solutions/{style}.toml: `{first}` stands {text.count(place)} times in {insertion['file']}, not once"
        raise GraderError(f"{what}: adapt the insertion to the master")
    return text.replace(place, f"\n{insertion['text']}{place.removeprefix(chr(10))}")

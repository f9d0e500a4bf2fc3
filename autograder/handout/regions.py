"""Where the solutions stand: reads the named regions of the master, and turns them into gaps.

    ### BEGIN SOLUTION rmsnorm
    return x * torch.rsqrt(...)
    ### END SOLUTION

`submission_rules.FILES` says which regions there are, and in which file each of them belongs.
"""

import io
import re
import tokenize
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from errors import HandoutError
from submission_rules import FILES

# Anything that looks like a marker; only these two forms are one.
MARKER = re.compile(r"\b(?:BEGIN|END) +SOLUTION\b", re.IGNORECASE)
BEGIN = re.compile(r"([ \t]*)### BEGIN SOLUTION (\w+)")
END = re.compile(r"[ \t]*### END SOLUTION")
# A line of a solution that is longer is secret; shorter ones, such as `else:`, are everybody's.
SHORT = 25


@dataclass(frozen=True)
class Region:
    """A solution: its name, the lines of its two markers (counted from 1), and the indentation of the first."""

    name: str
    first: int
    last: int
    indent: str


def read_regions(text: str, file: str) -> list[Region]:
    """Return the solution regions of the root's file of this name, in their order.

    Raises HandoutError, which begins with file and line, for markers that are unbalanced, nested or misspelt, and for
    regions that are unknown, duplicated, missing, or in the wrong file.
    """
    regions: list[Region] = []
    begun: Region | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not MARKER.search(line):
            continue
        if begin := BEGIN.fullmatch(line.rstrip()):
            if begun:
                problem = f"this begins inside the region '{begun.name}' of line {begun.first}"
                raise HandoutError(f"{file}:{number}: {problem}: put `### END SOLUTION` where that one ends")
            begun = Region(begin[2], number, number, begin[1])
            _check_name(begun, regions, file)
        elif END.fullmatch(line.rstrip()):
            if not begun:
                mend = "put `### BEGIN SOLUTION name` where it begins"
                raise HandoutError(f"{file}:{number}: this ends a region that was not begun: {mend}")
            regions.append(Region(begun.name, begun.first, number, begun.indent))
            begun = None
        else:
            mend = "write `### BEGIN SOLUTION name` or `### END SOLUTION`, on a line of its own"
            raise HandoutError(f"{file}:{number}: this is no marker of a solution: {mend}")
    if begun:
        problem = f"the region '{begun.name}' has no end"
        raise HandoutError(f"{file}:{begun.first}: {problem}: put `### END SOLUTION` where it ends")
    _check_complete(regions, file, max(1, len(text.splitlines())))
    return regions


def _check_name(region: Region, before: Iterable[Region], file: str) -> None:
    """Raise HandoutError if a region of this name does not belong here."""
    where = f"{file}:{region.first}"
    if region.name not in FILES:
        raise HandoutError(f"{where}: no region is called '{region.name}': choose from {', '.join(FILES)}")
    if FILES[region.name] != file:
        raise HandoutError(f"{where}: the region '{region.name}' belongs in {FILES[region.name]}: move it there")
    for other in before:
        if other.name == region.name:
            raise HandoutError(
                f"{where}: the region '{region.name}' begins in line {other.first} already: join the two"
            )


def _check_complete(regions: Iterable[Region], file: str, last_line: int) -> None:
    """Raise HandoutError if a region that belongs in this file is not there."""
    there = {region.name for region in regions}
    for name, home in FILES.items():
        if home == file and name not in there:
            mend = f"put `### BEGIN SOLUTION {name}` and `### END SOLUTION` around what students write"
            raise HandoutError(f"{file}:{last_line}: the file ends without the region '{name}': {mend}")


def close_regions(text: str, open_names: Collection[str], hint: str, file: str) -> str:
    """Return a file as students get it: the solutions of the open regions are gone, those of the others stay.

    In place of an open region stand a comment and `raise NotImplementedError`, as far indented as its marker. All
    markers are gone. Raises HandoutError as `read_regions` does.
    """
    lines = text.splitlines(keepends=True)
    for region in reversed(read_regions(text, file)):  # from the end, so that line numbers stay true
        inside = lines[region.first : region.last - 1]
        if region.name in open_names:
            comment = " ".join(f"# TODO ({region.name}) {hint}".split())
            inside = [f"{region.indent}{comment}\n", f"{region.indent}raise NotImplementedError\n"]
        lines[region.first - 1 : region.last] = inside
    return "".join(lines)


def secret_lines(text: str, open_names: Collection[str], file: str) -> dict[str, int]:
    """Return the lines of the open regions that may stand nowhere in a hand-out, each with its line number.

    A line counts if it has more than 25 characters when stripped, is no comment, and stands in no place of this file
    outside those regions; so does what is left of it without the comment at its end. White space is made single
    spaces, as `survivors` does.
    """
    lines = text.splitlines()
    closed = {
        number
        for region in read_regions(text, file)
        if region.name in open_names
        for number in range(region.first, region.last + 1)
    }
    outside = flat("\n".join(line for number, line in enumerate(lines, start=1) if number not in closed))
    secret: dict[str, int] = {}
    for number in sorted(closed):
        line = lines[number - 1]
        for form in (flat(line), flat(_without_comment(line))):
            if len(form) > SHORT and not form.startswith("#") and form not in outside:
                secret.setdefault(form, number)
    return secret


def survivors(content: bytes, secret: Iterable[str]) -> list[str]:
    """Return those of the secret lines that are found in the content of a file, however it breaks its lines."""
    content = b" ".join(content.split())
    return [line for line in secret if line.encode() in content]


def flat(text: str) -> str:
    """Return the text with every run of white space as one space, and none at its ends."""
    return " ".join(text.split())


def _without_comment(line: str) -> str:
    """Return a line of code without the comment at its end."""
    code = line.strip()
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type == tokenize.COMMENT:
                return code[: token.start[1]]
    except (tokenize.TokenError, SyntaxError):  # it is the beginning or the end of a longer statement
        pass
    return code

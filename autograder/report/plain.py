"""Makes text that a stranger wrote safe to show: no control codes, nothing that turns the reading direction, no flood.

Escaping is the job of whatever shows it; this is about what stays dangerous or confusing after that.
"""

import re
import unicodedata
from collections.abc import Sequence

LEFT_OUT = "\n[... the middle is left out ...]\n"
SHORT = " [...] "

# A terminal's commands: colours and cursor movements (CSI), titles and links (OSC), all others of two characters.
_TERMINAL = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]{0,2000}(?:\x07|\x1b\\)|[@-Z\\^_])")
_LINE_BREAK = re.compile(r"\r\n?|[\v\f\x85\u2028\u2029]")
_MARK = "[\\u0300-\\u036f\\u0483-\\u0489\\u1ab0-\\u1aff\\u1dc0-\\u1dff\\u20d0-\\u20ff\\ufe20-\\ufe2f]"  # combining
_MARKS = re.compile(f"({_MARK}{{4}}){_MARK}+")
# control, format (where the bidirectional overrides are), surrogate, private use
_UNWANTED = ("Cc", "Cf", "Cs", "Co")


class _Kept(dict[int, int | None]):
    """For `str.translate`: which characters stay, looked up once each."""

    def __missing__(self, code: int) -> int | None:
        character = chr(code)
        kept = character in "\n\t" or unicodedata.category(character) not in _UNWANTED
        self[code] = code if kept else None
        return self[code]


_KEPT = _Kept()


def plain(text: str, limit: int) -> str:
    """Return `text` without anything invisible, at most `limit` characters long.

    Line breaks of all systems become one newline; NUL, a terminal's commands and marks of reading direction go. Of a
    longer text its head and tail stay, with a line between them that says so.
    """
    # Cut first, with room for what goes: a text of many megabytes is not worth reading whole.
    text = _LINE_BREAK.sub("\n", _TERMINAL.sub("", cut(text, 4 * limit)))
    return cut(_fewer_marks(text.translate(_KEPT)), limit)


def one_line(text: str, limit: int) -> str:
    """Return `plain(text, limit)` with every run of white space as one space."""
    return cut(" ".join(plain(text, 2 * limit).replace(LEFT_OUT, SHORT).split()), limit, SHORT)


def cut(text: str, limit: int, between: str = LEFT_OUT) -> str:
    """Return `text`, or where it has more than `limit` characters, its head and tail with `between` between them."""
    if len(text) <= limit:
        return text
    room = limit - len(between)
    if room < 2:
        return text[:limit]
    tail = room // 3
    return text[: room - tail] + between + text[len(text) - tail :]


def _fewer_marks(text: str) -> str:
    """Leave at most four combining marks in a row: a tower of them covers the lines around it."""
    return _MARKS.sub(r"\1", text)


def listed(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

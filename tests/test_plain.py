"""Text of strangers, made safe to show: `pytest tests/test_plain.py`."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autograder.report.plain import LEFT_OUT, cut, one_line, plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("shape (2, 3)\n\tok", "shape (2, 3)\n\tok"),
        ("a\0b\x08c\x7f", "abc"),
        ("\x1b[31mred\x1b[0m \x1b[2Jgone", "red gone"),
        ("\x1b]0;a title\x07text", "text"),
        ("\x1b]8;;https://evil.example\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("half a command \x1b", "half a command "),
        ("pass \u202egnorw\u202c \u2066x\u2069 \u200b\ufeff", "pass gnorw x "),
        ("one\r\ntwo\rthree\u2028four\x85five", "one\ntwo\nthree\nfour\nfive"),
        ("lone \ud800 surrogate, private \ue000", "lone  surrogate, private "),
        ("e" + "\u0301" * 500 + "!", "e" + "\u0301" * 4 + "!"),
        ("Grüße, 世界, naïve ✓ 🙂", "Grüße, 世界, naïve ✓ 🙂"),
    ],
)
def test_what_is_invisible_or_moves_the_cursor_goes(text: str, shown: str) -> None:
    assert plain(text, 1000) == shown


def test_of_a_long_text_its_head_and_tail_stay() -> None:
    text = "first" + "x" * 1000 + "last"
    assert cut(text, 100) == "first" + "x" * 39 + LEFT_OUT + "x" * 18 + "last"
    assert len(cut(text, 100)) == 100
    assert cut("short", 5) == "short"
    assert cut("longer than that", 6) == "longer"


def test_a_line_has_no_break() -> None:
    assert one_line(" a\n\n b\t\tc\x00 ", 100) == "a b c"
    assert one_line("word " * 1000, 60) == "word " * 7 + "w [...] rd word word word"


def test_ten_megabytes_take_no_time() -> None:
    start = time.process_time()
    assert len(plain("\x1b[31m\u202e" * 1_500_000, 1000)) <= 1000
    assert time.process_time() - start < 1.0


@given(st.text(), st.integers(1, 200))
def test_a_limit_is_a_limit_and_nothing_unsafe_is_left(text: str, limit: int) -> None:
    shown = plain(text, limit)
    assert len(shown) <= limit
    assert not set(shown) & set("\0\x1b\r\u202a\u202e\u2066\u2069\u200b")
    shown.encode()  # no lone surrogate

"""The student's page, read as a browser and as a stranger would: `pytest tests/test_report.py`."""

import re
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from autograder.report import page as page_module
from autograder.report.page import STATUS_WORDS, TEMPLATES, home_command, page_of, render, write_report
from autograder.result import CheckResult, Finding, Grade, OutputResult, Result, Stage, Status
from component_checks import CHECKS
from errors import MissingDependency
from submission_rules import FILES
from tests.results import LOOPED, NOTED, OURS, PASSED, RAISED, RESULT, WRONG

VOID = {"meta", "br", "hr", "img", "link", "input"}
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "nav", "article", "footer"),
    *("h1", "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "a", "code", "pre", "strong", "span"),
    *("details", "summary", "table", "caption", "thead", "tbody", "tr", "th", "td"),
}
# Markup, scripts, a terminal's commands, reading direction, NUL: what a student may call a file or print.
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg/onload=alert(1)>' onmouseover='alert(1)",
    "</pre></article></main><iframe src=//evil.example>",
    "{{ 7 * 7 }}{% for x in y %}",
    "</style><style>*{display:none}</style>",
    "<!-- <base href=https://evil.example/> ]]>",
    "&lt;script&gt; &#x3c;script&#x3e;",
    "javascript:alert(1) data:text/html,x",
    "\x1b[2J\x1b]0;title\x07\x9b31m",
    "A+ \u202egrade\u2066\u200f\u061c",
    "nul\0byte\ud800",
]


class Page(HTMLParser):
    """A page taken apart: its elements in order, its text, and what is wrong with its nesting."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.broken: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        self.broken += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.broken.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


def poisoned(text: str) -> Result:
    """Return a result with `text` wherever a student's text may come to stand, and more of it than fits."""
    checks = [
        CheckResult(text, text, status, 0.0, 1.0, text, text, (text, f"{text}\n{text}"), (text,), False, text)
        for status in get_args(Status)
        if status != "grader_error"
    ]
    return replace(
        RESULT,
        submission=text,
        grader=text,
        sandbox=text,
        checkpoint=text,
        edition=text,
        submission_sha256=text,
        grade=Grade(text, (text,), (text,)),
        checks=(*checks, replace(checks[1], is_note=True)),
        outputs=(OutputResult(text, True), OutputResult(text, False)),
        findings=tuple(Finding(stage, "error", text, text, text, 3) for stage in get_args(Stage)),
    )


def assert_harmless(html: str) -> Page:
    """Assert that a page is well formed, and neither runs nor loads anything."""
    page = Page(html)
    assert page.broken == []
    assert {tag for tag, _ in page.elements} <= ALLOWED
    for tag, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style", "action")
        ]
        if "href" in attributes:
            assert re.fullmatch(r"#check-\d+", attributes["href"] or ""), tag
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy == "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and "expression" not in style
    assert not re.search(r"[\0\x1b\r\x80-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c]", html)
    return page


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_only_text(text: str) -> None:
    page = assert_harmless(render(poisoned(text)))
    assert len(page.all("article")) == 6  # what is there without hostile text, too
    assert len(page.all("tr")) == 3


def test_markup_is_shown_as_it_was_written() -> None:
    assert (
        "What happened: <b>bold</b> & {{ 7 * 7 }} What"
        in Page(render(replace(RESULT, checks=(replace(LOOPED, message="<b>bold</b> & {{ 7 * 7 }}"),)))).words
    )


def test_a_megabyte_of_text_leaves_a_small_page() -> None:
    html = render(poisoned("<&'\"word\n" * 100_000))
    assert_harmless(html)
    assert len(html) < 600_000
    many = replace(RESULT, findings=tuple(Finding("static", "flag", f"finding {i}") for i in range(1000)))
    page = Page(render(many))
    assert "A person looks at this: finding 99 and 900 more of this kind" in page.words
    long = replace(WRONG, details=tuple(f"detail {number}" for number in range(1000)))
    assert page_of(replace(RESULT, checks=(long,)))["to_mend"][0].details[-1] == "detail 19"


def test_the_page_says_what_led_to_the_grade() -> None:
    words = assert_harmless(render(RESULT)).words
    assert "Report for abc123 Your grade B or below How this letter came about:" in words
    assert "some part is not implemented, or fails its test: rope, adamw" in words
    assert "Before this is final, a person looks at: optimizer.py:3 uses torch.optim" in words
    assert "The checks give 4.5 of 16.5 points." in words
    assert "Of 8 checks, 1 passed, 5 did not, 1 left a note, 1 waits for others." in words


def test_a_wrong_result_is_explained() -> None:
    words = Page(render(replace(RESULT, checks=(PASSED, WRONG)))).words
    assert (
        "RoPE values ✗ wrong result · 0 of 2 points What is checked: apply_rotary_emb rotates adjacent pairs "
        "What happened: the query differs "
        "A likely reason: what your code gives equals RoPE that rotates halves instead of adjacent pairs. "
        "called apply_rotary_emb(query, key, head_dim=8) "
        "largest difference 1.2 at (0, 1, 2, 3): 0.4 instead of 1.6 "
        "What to do next: In rope.py, find where your code does that, and compare it with the docstring. "
        "Then try it at home: python sanity_check.py RoPE"
    ) in words
    assert "Of 2 checks, 1 passed, 1 did not." in words


@pytest.mark.parametrize(
    ("check", "sentence"),
    [
        (
            replace(WRONG, misconceptions=()),
            "In rope.py, compare one step at a time with the docstring: the shapes first,",
        ),
        (
            replace(WRONG, status="error"),
            "Run that part of rope.py yourself and print the shapes just before that line.",
        ),
        (LOOPED, "Look for a loop that never ends, or for Python loops over positions where one operation on whole"),
        (
            replace(LOOPED, status="memory"),
            "broadcast instead give one that is far larger than both. Then try it at home:",
        ),
        (replace(LOOPED, status="missing"), "Write this part: its docstring in llama.py says what it computes."),
        (LOOPED, "Then try it at home: python sanity_check.py 'greedy generation'"),
        (NOTED, "! wrong result · costs no points in this course What is checked: apply_rotary_emb rotates"),
    ],
)
def test_each_outcome_has_its_next_step(check: CheckResult, sentence: str) -> None:
    assert sentence in Page(render(replace(RESULT, checks=(check,)))).words


def test_checks_that_fail_for_one_reason_are_told_once() -> None:
    other = replace(WRONG, name="RoPE batch", sentence="RoPE turns every row alike", message="another message")
    unexplained = replace(WRONG, name="RoPE lengths", misconceptions=())
    elsewhere = replace(other, name="attention", region="attention")
    again = replace(RAISED, name="AdamW again", sentence="", max_points=0.0)
    differently = replace(RAISED, name="AdamW, closure", message="KeyError: 'lr'")
    checks = (WRONG, other, unexplained, replace(unexplained, name="RoPE parts"), elsewhere, RAISED, again, differently)
    same_line = replace(again, name="logits", region="layer", message="ValueError: size 72 (optimizer.py:44)")
    html = render(replace(RESULT, checks=(*checks, same_line)))
    names = re.findall(r'<h3[^>]*-name">([^<]*)', html)
    assert names == ["RoPE values", "RoPE lengths", "RoPE parts", "attention", "AdamW, one step", "AdamW, closure"]
    words = Page(html).words
    assert "Of 9 checks, 0 passed, 9 did not." in words
    assert (
        "The same shows in: RoPE batch · RoPE turns every row alike · 0 of 2 points What to do next: In rope" in words
    )
    assert "The same shows in: AdamW again logits What to do next:" in words
    assert page_of(replace(RESULT, checks=(replace(WRONG, max_points=1.0),)))["to_mend"][0].points == "0 of 1 point"


def test_what_stands_between_backticks_is_code() -> None:
    told = Finding("format", "error", "`a.txt` is missing", "run `python <x>.py`, not `", "a.txt")
    html = render(replace(RESULT, findings=(told, replace(told, mend="run `python <x>.py`"))))
    assert "What to do: run `python &lt;x&gt;.py`, not `</span>" in html  # one is alone
    assert "What to do: run <code>python &lt;x&gt;.py</code></span>" in html
    assert "<code>a.txt</code> is missing" in html


def test_a_file_is_named_once() -> None:
    words = Page(render(replace(RESULT, findings=(Finding("outputs", "note", "a.txt is odd", file="a.txt"),)))).words
    assert "Note: a.txt is odd" in words


def test_an_output_that_nobody_asks_for_is_not_missed() -> None:
    optional = OutputResult("sst-dev-advanced-output.txt", False)
    assert "advanced" not in render(replace(RESULT, outputs=(optional,)))
    assert "sst-dev-advanced-output.txt" in render(replace(RESULT, outputs=(replace(optional, present=True),)))


def test_every_part_has_a_check_to_run_at_home() -> None:
    for region in FILES:
        command = home_command(region)
        names = [check.name for check in CHECKS if check.regions[-1] == region]
        assert command.removeprefix("python sanity_check.py ").strip("'") in names
    assert home_command("something else") == ""


def test_every_status_has_its_own_words() -> None:
    assert len(set(STATUS_WORDS.values())) == len(get_args(Status))
    for status in get_args(Status):
        html = render(replace(RESULT, checks=(replace(LOOPED, status=status),)))
        assert (STATUS_WORDS[status] if status != "skipped" else "greedy: it was stopped") in Page(html).words


def test_a_traceback_and_what_was_printed_stand_in_boxes_of_their_own() -> None:
    html = render(RESULT)
    assert "Traceback:\n  File &#34;optimizer.py&#34;, line 44, in step\n    x = None + 1</pre>" in html
    assert "<summary>What your code printed meanwhile</summary>" in html
    assert ">step 1\nstep 2</pre>" in html
    assert all(box["tabindex"] == "0" and box["aria-label"] for box in Page(html).all("pre"))


def test_a_fault_of_the_grader_gives_no_grade() -> None:
    words = Page(render(replace(RESULT, checks=(PASSED, OURS)))).words
    assert "There is no grade yet. Something went wrong in the grader, not in your code." in words
    assert "zero-shot ✗ not judged: a fault of the grader · no points are taken or given" in words
    assert "This is no fault of your code, and it costs you nothing" in words
    assert "B or below" not in words and "4.5" not in words and "optimizer.py:3 uses" not in words


def test_the_table_of_outputs_gives_the_margin() -> None:
    words = Page(render(RESULT)).words
    assert (
        "sst-dev-finetuning-output.txt"
        "accuracy 0.412, running it again agrees on 99.8 %"
        "at least 0.364 (reference 0.414, margin 0.05)"
        "✓ reaches the reference"
    ) in words
    assert "accuracy 0.200at least 0.368 (reference 0.418, margin 0.05)✗ below the reference by more than" in words
    assert "generated-sentence-temp-0.txt3.40 nats a tokenat most 2.10 nats a token✗ not coherent" in words
    assert "2.00 nats a tokenat most 2.50 nats a token✓ coherent" in words
    assert "sst-dev-prompting-output.txtaccuracy 0.213-nothing to compare with" in words
    assert "cfimdb-test-prompting-output.txt--✗ missing" in words


def test_findings_come_by_stage_with_place_and_mend() -> None:
    words = Page(render(RESULT)).words
    assert (
        "The format of your submission Error: cfimdb-test-prompting-output.txt is missing What to do: run python"
        in words
    )
    assert (
        "A person looks at this: optimizer.py:3: torch.optim.AdamW is used What to do: write the update yourself"
        in words
    )
    assert "Your output files Warning: run-info.json is absent" in words
    assert "Running your program again Note: run_llama.py: it took 41 seconds" in words


def test_the_seed_is_not_shown_and_how_it_was_graded_is() -> None:
    html = render(RESULT)
    assert RESULT.seed not in html
    words = Page(html).words
    assert "Sandboxbwrap (root, setpriv), memory by cgroup v1" in words
    assert "Grader0123456789ab" in words
    assert RESULT.submission_sha256 not in html and "abababababababab" in html


def test_a_new_field_of_a_result_does_not_reach_the_page_by_itself() -> None:
    known = {"submission", "submission_sha256", "edition", "grader", "sandbox", "seed", "checkpoint", "grade", "points"}
    assert {field.name for field in fields(Result)} == known | {"max_points", "checks", "outputs", "findings", "format"}
    assert not [
        value for value in page_of(RESULT).values() if isinstance(value, Result | CheckResult | Grade | Finding)
    ]


def test_a_screen_reader_finds_its_way() -> None:
    html = render(RESULT)
    page = Page(html)
    assert page.all("html") == [{"lang": "en"}]
    assert [len(page.all(tag)) for tag in ("h1", "header", "main", "footer", "nav")] == [1, 1, 1, 1, 1]
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert len(page.all("th")) == 4 + len(RESULT.outputs)
    # laid out as blocks on a phone, a table is one only by its roles
    roles = {"table": "table", "thead": "rowgroup", "tbody": "rowgroup", "tr": "row", "td": "cell"}
    assert all(attributes.get("role") == roles[tag] for tag, attributes in page.elements if tag in roles)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for tag in ("section", "article"):
        assert all(element["aria-labelledby"] in ids for element in page.all(tag))
    assert {(link["href"] or "").lstrip("#") for link in page.all("a")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_a_phone_can_show_it() -> None:
    html = render(RESULT)
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in Page(html).all("meta")
    assert "overflow-wrap: anywhere" in html and "@media (max-width: 34rem)" in html
    # only boxes of code may be wider than the screen
    assert re.findall(r"([\w.: -]+) \{[^}]*overflow: auto", html) == ["pre"]
    cells = [attributes.get("data-name") for attributes in Page(html).all("td")]
    assert cells == ["Yours", "Needed", "Verdict"] * len(RESULT.outputs)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_can_be_read_in_light_and_in_dark() -> None:
    template = (TEMPLATES / "report.html").read_text(encoding="utf-8")
    schemes = [
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r":root \{([^}]*)\}", template)
    ]
    assert len(schemes) == 2 and schemes[0].keys() == schemes[1].keys()
    for scheme in schemes:
        for ink in ("text", "quiet", "link", "good", "bad", "wait"):
            for paper in ("page", "box", "teach"):
                light, dark = sorted((luminance(scheme[ink]), luminance(scheme[paper])), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)


def test_an_empty_result_is_a_page_as_well() -> None:
    bare = replace(
        RESULT, checks=(), outputs=(), findings=(), points=0.0, max_points=0.0, grade=Grade("B or below", ())
    )
    page = assert_harmless(render(bare))
    headings = re.findall(r"<h2[^>]*>([^<]*)", render(bare))
    assert headings == ["Your grade", "How this was graded"]
    assert "points" not in page.words


def test_the_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out" / "report.html"
    write_report(RESULT, target)
    assert target.read_text(encoding="utf-8") == render(RESULT)
    page_module._template.cache_clear()
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency, match=r"^the student's page needs jinja2: run `pip install jinja2`$"):
        write_report(RESULT, tmp_path / "other.html")
    assert names_in(tmp_path) == ["out"]


def names_in(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())

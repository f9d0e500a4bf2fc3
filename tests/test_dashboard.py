"""The teaching team's page, as text and in a browser: `pytest tests/test_dashboard.py`."""

import asyncio
import base64
import hashlib
import json
import os
import random
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote_plus

import pytest

from autograder.batch.folder import ClassFolder
from autograder.batch.records import Entry, Row, Summary
from autograder.dashboard.make import TEMPLATES, duration, render, write_dashboard
from autograder.dashboard.sources import read_pairs, read_timings
from autograder.dashboard.table import CHECK_WORDS, FAILING, letter_order, number
from autograder.gradebook.grades import FinalGrade
from autograder.result import Status
from errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

REPORT = TEMPLATES.parent / "report" / "report.html"
CHECKS = {
    **dict.fromkeys(("RMSNorm", "RMSNorm dtype"), "rmsnorm"),
    **dict.fromkeys(("attention", "causal mask", "attention scaling", "attention dropout"), "attention"),
    **dict.fromkeys(("RoPE", "RoPE lengths", "RoPE batch"), "rope"),
    **dict.fromkeys(("layer", "hidden states", "logits"), "layer"),
    **dict.fromkeys(("greedy generation", "sampled generation"), "generate"),
    **dict.fromkeys(("AdamW one step", "AdamW", "AdamW weight decay", "AdamW closure"), "adamw"),
    **dict.fromkeys(("classifier", "classifier dropout", "zero-shot"), "embedding_head"),
}
SENTENCES = {
    "rope": ("RoPE that rotates halves instead of adjacent pairs", "RoPE whose angles begin at position 1"),
    "attention": (
        "scores that are not divided by the root of head_dim",
        "softmax over the queries instead of the keys",
    ),
    "rmsnorm": ("RMSNorm that subtracts the mean, as LayerNorm does",),
    "adamw": ("weight decay added to the gradient, as in Adam", "AdamW without bias correction"),
    "embedding_head": ("the hidden state of the first token instead of the last",),
}
FIRST_NAMES = ("Ada", "Ben", "Chloé", "Elif", "Goran", "Hiroko", "José", "Kofi", "Lien", "Olu", "Priya", "Søren")
LAST_NAMES = ("Abel", "Bauer", "Castro", "Eze", "Fischer", "García", "Hussain", "Ito", "Kaya", "Nguyễn", "Okafor")
# Markup, scripts, a terminal's commands, reading direction: what somebody may call a file, a student, or print.
HOSTILE = [
    "<script>window.hacked = 1; alert(1)</script>",
    "</script><script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>' onmouseover='alert(1)",
    "</style></table></tbody><iframe src=//evil.example></iframe>",
    "<base href=https://evil.example/><meta http-equiv=refresh content=0;//evil.example>",
    "{{ 7 * 7 }}{% for x in y %}",
    "javascript:alert(1)",
    "\x1b[2J\x1b]0;title\x07red\x9b31m",
    "A+ \u202eedarg\u2066\u200f",
    "nul\0byte\ud800",
]


def a_summary(letter: str, checks: dict[str, Status], misconceptions: Sequence[tuple[str, str]] = ()) -> Summary:
    """Return a summary of these checks, each worth 2 points."""
    points = 2.0 * sum(status == "pass" for status in checks.values())
    reasons = (f"{letter}: because the rubric says so",)
    return Summary(letter, points, 2.0 * len(checks), reasons, (), checks, tuple(misconceptions), "bwrap")


def a_grade(name: str, letter: str = "A", checks: dict[str, Status] | None = None, **changes: Any) -> FinalGrade:
    """Return the grade of a graded submission, all of whose checks passed unless `checks` says otherwise."""
    passed: dict[str, Status] = dict.fromkeys(CHECKS, "pass")
    summary = a_summary(letter, passed | (checks or {}), changes.pop("misconceptions", ()))
    row = Row(f"{name}.zip", "key", "graded", name, folder=f"results/{name}", summary=summary)
    grade = FinalGrade(
        name, f"{name.title()} Lee", Entry(f"{name}.zip", f"/in/{name}.zip"), row, letter, summary.points, 42.0, 0.0
    )
    return replace(grade, **changes)


def a_failure(name: str, status: Any, reason: str) -> FinalGrade:
    """Return the grade of a submission that has no result."""
    entry = Entry(f"{name}.zip", f"/in/{name}.zip")
    return FinalGrade(name, "", entry, Row(entry.name, "key", status, name, reason=reason), None, None, 42.0, 0.0)


GRADES = [
    a_grade("ada", "A", open_items=("A+ is proposed: read the report",)),
    a_grade(
        "ben",
        "B or below",
        {"RoPE": "fail", "RoPE batch": "fail", "logits": "skipped", "AdamW": "error"},
        misconceptions=[("rope", SENTENCES["rope"][0]), ("adamw", SENTENCES["adamw"][0])],
        days_late=2.5,
        steps=("2.5 days late: a third of a letter down",),
    ),
    a_grade("cleo", "B+", {"RoPE": "fail"}, misconceptions=[("rope", SENTENCES["rope"][0])], matched=False),
    a_grade("dora", "A-", days_late=None, entry=Entry("dora.zip", "/in/dora.zip", is_late=True)),
    a_grade("eve", "A-", {"AdamW": "timeout", "layer": "memory"}),
    a_failure("finn", "unreadable", "finn.zip is no zip"),
    a_failure("gus", "ungraded", "the sandbox could not be started"),
    FinalGrade("hal", "Hal Lee", Entry("hal.zip", "/in/hal.zip"), None, None, None, None, None),
    FinalGrade("ivy", "Ivy Lee", None, None, "F", 0.0, 42.0, None),
]


def made_up_class(count: int, seed: int = 0) -> list[FinalGrade]:
    """Return grades as a class of this size may have them."""
    draw = random.Random(seed)
    grades = []
    for place in range(count):
        first, last = draw.choice(FIRST_NAMES), draw.choice(LAST_NAMES)
        student = f"{first[:2].lower()}{last[:4].lower()}{place:03d}".encode("ascii", "ignore").decode()
        checks: dict[str, Status] = {}
        wrong: list[tuple[str, str]] = []
        for region, sentences in SENTENCES.items():
            if draw.random() < 0.12:
                names = [name for name, of in CHECKS.items() if of == region]
                how: Status = draw.choices(("fail", "error", "timeout", "memory", "missing"), (12, 3, 1, 1, 1))[0]
                checks |= dict.fromkeys(draw.sample(names, draw.randint(1, len(names))), how)
                if how == "fail" and draw.random() < 0.7:
                    wrong.append((region, draw.choice(sentences)))
        if checks:
            checks |= {name: "skipped" for name in ("hidden states", "logits") if draw.random() < 0.5}
        letter = draw.choice(("B+", "B or below")) if checks else draw.choices(("A", "A-"), (3, 1))[0]
        entry = Entry(f"{student}.zip", f"/in/{student}.zip", submitted_at="2026-11-20T21:40:00+01:00")
        grade = a_grade(student, letter, checks, misconceptions=wrong, student_name=f"{first} {last}", entry=entry)
        if draw.random() < 0.08:
            late = draw.choice((0.5, 1.0, 2.0, 3.0))
            grade = replace(grade, days_late=late, steps=(f"{number(late)} days late: a third of a letter down",))
        if draw.random() < 0.15:
            line = draw.randint(3, 200)
            grade = replace(grade, open_items=(f"static: optimizer.py:{line}: torch.optim.AdamW is used",))
        if draw.random() < 0.02:
            grade = replace(a_failure(student, "unreadable", "it is no zip file"), student_name=f"{first} {last}")
        grades.append(grade)
    return grades


def a_class(out: Path, grades: Sequence[FinalGrade]) -> ClassFolder:
    """Make OUT with what a batch leaves there: entries, timings, reports."""
    folder = ClassFolder(out)
    folder.make()
    folder.write_entries([grade.entry for grade in grades if grade.entry], "minllama", {})
    draw = random.Random(1)
    with folder.timings.open("w", encoding="utf-8") as file:
        for grade in grades:
            if grade.entry and grade.row:
                stages = {"checks": draw.uniform(5, 30), "outputs": draw.uniform(1, 9), "intake": 0.4}
                content = {"name": grade.entry.name, "seconds": sum(stages.values()), "stages": stages}
                file.write(json.dumps(content) + "\n")
                if grade.row.folder:
                    (out / grade.row.folder).mkdir(parents=True, exist_ok=True)
                    (out / grade.row.folder / "report.html").write_text("<title>a report</title>", encoding="utf-8")
    return folder


def add_pairs(folder: ClassFolder, *pairs: dict[str, Any]) -> None:
    """Write what a search for similar submissions found."""
    folder.similarity.parent.mkdir(exist_ok=True)
    folder.similarity.write_text(json.dumps({"format": 1, "pairs": pairs}), encoding="utf-8")


def poisoned(text: str) -> FinalGrade:
    """Return a grade with `text` wherever a stranger's text may come to stand."""
    statuses = {f"{text} {status}": status for status in get_args(Status)}
    summary = replace(a_summary(text, statuses, [(text, text)]), reasons=(text, text), to_confirm=(text,))
    row = Row(text, text, "graded", f"{text} too", text, text, "results/x", summary)
    entry = Entry(text, text, text, text, text, text, 2, True, text, text)
    return FinalGrade(text, text, entry, row, text, 1.0, 42.0, 1.0, (text,), (text, text), False, text)


class Parsed(HTMLParser):
    """A page taken apart: its elements in order, its text, and what is wrong with its nesting."""

    VOID = frozenset({"meta", "br", "input", "rect"})

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
        self.text += [" "] if tag in ("td", "th") else []
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.broken.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        if not {"style", "script"} & set(self._open):
            self.text.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture
def folder(tmp_path: Path) -> ClassFolder:
    return a_class(tmp_path / "out", GRADES)


def words_of(folder: ClassFolder, grades: Sequence[FinalGrade], private: bool = True) -> str:
    return Parsed(render(folder, grades, private)).words


def test_the_page_is_written_whole_and_always_the_same(folder: ClassFolder) -> None:
    path = write_dashboard(folder, GRADES)
    first = path.read_bytes()
    assert path == folder.out / "index.html"
    assert write_dashboard(folder, GRADES).read_bytes() == first
    page = Parsed(first.decode())
    assert page.broken == []
    assert page.words.startswith("The class: minllama The class · minllama 8 submissions")
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {attributes["aria-controls"] for attributes in page.all("button") if "aria-controls" in attributes} <= set(
        ids
    )


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(folder: ClassFolder) -> None:
    html = render(folder, GRADES)
    policy = next(meta["content"] for meta in Parsed(html).all("meta") if "http-equiv" in meta) or ""
    for tag in ("style", "script"):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy and "base-uri 'none'; form-action 'none'" in policy
    assert not re.search(r"url\(|@import|fetch|XMLHttp|innerHTML|eval", (html[html.index("<style>") :]))


def test_the_numbers_at_the_top_are_right(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert (
        "8 submissions 5 graded 1 unreadable 1 ungraded: grader failed 1 waiting for review 2 late "
        "1 not graded yet 1 nothing handed in 1 not in the roster"
    ) in words
    assert "Letter as a bar Students A 1 A- 2 B+ 1 B or below 1 F 1 no letter 3" in words
    assert "Points of 42: median 39, from 0 to 42." in words


def test_checks_come_with_the_worst_first_and_skipped_ones_apart(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert (
        "Check as a bar Passed AdamW 3 of 5 RoPE 3 of 5 RoPE batch 4 of 5 layer 4 of 5 Students" in words
    )  # logits: nobody fails it
    assert "17 more are passed by everyone." in words
    skipping = [a_grade("a", checks={"RoPE": "skipped"}), a_grade("b", checks={"RoPE": "missing"})]
    assert "RoPE 0 of 1 + 1 waiting" in words_of(folder, skipping)
    assert "Everyone passes all 21." in words_of(folder, GRADES[:1])
    ours = a_grade("a", checks={"RoPE": "grader_error"})
    assert "Everyone passes all 20." in words_of(folder, [ours])


def test_misconceptions_come_with_the_most_common_first(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert (
        "2 students rope RoPE that rotates halves instead of adjacent pairs "
        "1 student adamw weight decay added to the gradient, as in Adam Checks"
    ) in words
    assert "No misconception was recognised." in words_of(folder, GRADES[:1])


def test_every_link_of_a_filter_leads_to_an_option_with_that_many_rows(folder: ClassFolder) -> None:
    grades = made_up_class(60)
    page = Parsed(render(a_class(folder.out, grades), grades))
    names: list[str | None] = []
    options: list[list[str | None]] = []
    for tag, attributes in page.elements:
        if tag == "select":
            names.append(attributes["name"])
            options.append([])
        if tag == "option":
            options[-1].append(attributes["value"])
    assert names == ["letter", "status", "only", "check", "misconception"]
    known = {(name, value) for name, values in zip(names, options, strict=True) for value in values}
    links = [link["href"] or "" for link in page.all("a") if (link["href"] or "").startswith("#")]
    assert len(links) > 20
    for link in links:
        name, _, value = unquote_plus(link[1:]).partition("=")
        assert (name, value) in known
    failing = [
        sum(status in FAILING for status in grade.row.summary.checks.values())
        for grade in grades
        if grade.row and grade.row.summary
    ]
    told = [len((body.get("data-check") or "").split()) for body in page.all("tbody") if body.get("data-status") == "1"]
    assert told == failing


def test_a_row_unfolds_to_the_steps_of_its_grade(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert (
        "How the grade came about The grader gives B or below, 34 of 42 points. B or below: because the rubric says so "
        "2.5 days late: a third of a letter down Entered: B or below, 34 points. "
        "Checks that do not pass wrong result: RoPE, RoPE batch stopped with an error: AdamW "
        "Misconceptions rope: RoPE that rotates halves instead of adjacent pairs "
        "adamw: weight decay added to the gradient, as in Adam Where it comes from Submission: ben.zip"
    ) in words
    assert "finn – unreadable How the grade came about finn.zip is no zip" in words
    assert "Entered: F, 0 points" in words
    assert "Where it comes from Submission: cleo.zip Roster: not in the roster" in words


def test_a_report_is_linked_only_where_reports_lie(folder: ClassFolder) -> None:
    for place, links in {"results/ada-0f": 1, "": 0, "../x": 0, "results/../x": 0, "javascript:alert(1)": 0}.items():
        grade = a_grade("ada")
        assert grade.row
        html = render(folder, [replace(grade, row=replace(grade.row, folder=place))])
        assert html.count("report.html") == links


def test_days_late_are_told_as_far_as_they_are_known(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert "ben Ben Lee B or below 34 graded 2.5 3 2 report" in words
    assert "dora Dora Lee A- 42 graded late report" in words
    assert "ada Ada Lee A 42 graded 1 report" in words


def test_times_and_crashes_are_told_with_the_worst_first(folder: ClassFolder) -> None:
    folder.timings.write_text(
        '{"name": "ada.zip", "seconds": 100, "stages": {}}\n'
        '{"name": "ben.zip", "seconds": 12.34, "stages": {"intake": 0.3, "checks": 12.04}}\n'
        '{"name": "ada.zip", "seconds": 7, "stages": {"checks": 7}}\n'
        '{"name": "gone.zip", "seconds": 500.0}\n'
        '[1]\n{"name": "cut", "sec',
        encoding="utf-8",
    )
    words = words_of(folder, GRADES)
    assert (
        "Slowest submissions Median 12.3 s a submission, 8 min 39 s all together. Student Time Of that "
        "gone.zip 8 min 20 s ben 12.3 s checks 12.0 s, intake 0.3 s ada 7.0 s checks 7.0 s"
    ) in words
    assert "Student Checks eve needed too much memory: layer; took too long: AdamW ben stopped with" in words
    folder.timings.unlink()
    assert "Slowest" not in words_of(folder, GRADES)
    many = [a_grade(f"s{place:02d}", checks={"RoPE": "error"}) for place in range(30)]
    assert "All 30 of them" in words_of(folder, many)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0.0 s"), (99.9, "99.9 s"), (99.96, "1 min 40 s"), (7500, "2 h 5 min")]
)
def test_a_duration_is_told_as_a_person_says_it(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_pairs_link_to_their_pages(folder: ClassFolder) -> None:
    assert "Similar" not in words_of(folder, GRADES)
    add_pairs(folder)
    assert "No pair is alike." in words_of(folder, GRADES)
    pair = {
        "one": "ada.zip",
        "two": "archive/2024/x.zip",
        "score": 3.2,
        "share": 0.871,
        "page": "similarity/pair-001.html",
    }
    add_pairs(folder, *[pair] * 51)
    page = Parsed(render(folder, GRADES))
    assert "ada and archive/2024/x.zip 87 % compare" in page.words
    assert "1 more in similarity/similarity.json" in page.words
    assert sum(link["href"] == "similarity/pair-001.html" for link in page.all("a")) == 50


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"format": 2, "pairs": []}',
        '{"format": 1, "pairs": [{"one": "a"}]}',
        '{"format": 1, "pairs": [{"one": "a", "two": "b", "score": 1, "share": 1, "page": "javascript:alert(1)"}]}',
        '{"format": 1, "pairs": [{"one": "a", "two": "b", "score": 1, "share": 1, "page": "similarity/../x.html"}]}',
        '{"format": 1, "pairs": [{"one": "a", "two": "b", "score": "high", "share": 1, "page": "similarity/a.html"}]}',
    ],
)
def test_a_damaged_list_of_pairs_is_named(folder: ClassFolder, content: str) -> None:
    folder.similarity.parent.mkdir()
    folder.similarity.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=r"similarity\.json cannot be used \(.*\): look for similar submissions again"):
        read_pairs(folder.similarity)


def test_with_a_damaged_list_of_pairs_the_rest_is_shown(folder: ClassFolder) -> None:
    folder.similarity.parent.mkdir()
    folder.similarity.write_text("{", encoding="utf-8")
    page = Parsed(render(folder, GRADES))
    assert page.broken == []
    assert "8 submissions 5 graded" in page.words
    assert "look for similar submissions again" in page.words and "No pair is alike" not in page.words


def test_a_group_hands_in_once_and_all_of_it_is_named(folder: ClassFolder) -> None:
    together = a_grade("ann").entry
    grades = [a_grade("ann"), a_grade("bea", entry=together), a_grade("cid")]
    add_pairs(folder, {"one": "ann.zip", "two": "cid.zip", "score": 1, "share": 1, "page": "similarity/p.html"})
    words = words_of(folder, grades)
    assert "2 submissions 2 graded 0 unreadable" in words
    assert "ann, bea and cid 100 % compare" in words


def test_nobody_else_can_read_the_page(folder: ClassFolder) -> None:
    assert write_dashboard(folder, GRADES).stat().st_mode & 0o777 == 0o600


def test_no_timings_are_no_error(tmp_path: Path) -> None:
    assert read_timings(tmp_path / "timings.jsonl") == []


def test_what_waits_for_a_person_is_listed(folder: ClassFolder) -> None:
    words = words_of(folder, GRADES)
    assert "Waiting for a person Decide in review.toml" in words
    assert "Student What to look at ada A+ is proposed: read the report" in words
    assert "Waiting for a person" not in words_of(folder, GRADES[1:])


def test_an_empty_class_has_a_page(folder: ClassFolder) -> None:
    words = words_of(folder, [])
    assert "0 submissions 0 graded" in words
    assert "There are no submissions." in words and "No check was run." in words and "Nothing matches." in words


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("private", [True, False])
def test_hostile_text_is_only_text(folder: ClassFolder, text: str, private: bool) -> None:
    add_pairs(folder, {"one": text, "two": text, "score": 1, "share": 1, "page": "similarity/pair-1.html"})
    folder.timings.write_text(json.dumps({"name": text, "seconds": 1, "stages": {text: 1}}), encoding="utf-8")
    html = render(folder, [poisoned(text)], private)
    harmless = render(folder, [poisoned("x")], private)
    page = Parsed(html)
    assert page.broken == []
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in Parsed(harmless).elements]
    for _, attributes in page.elements:
        assert not [
            name for name in attributes if name.startswith("on") or name in ("src", "srcdoc", "style", "action")
        ]
        assert re.match(r"#|results/|similarity/", attributes.get("href") or "#")
    assert not re.search(r"[\0\x1b\r\x80-\x9f\u202a-\u202e\u2066-\u2069\u200e\u200f\u061c\ud800-\udfff]", html)


def test_a_megabyte_of_text_leaves_a_small_page(folder: ClassFolder) -> None:
    assert len(render(folder, [poisoned("<&'\"word\n" * 100_000)])) < 200_000


def test_without_privacy_nothing_says_who_it_is_but_the_grade_itself(folder: ClassFolder) -> None:
    add_pairs(folder, {"one": "ada.zip", "two": "ben.zip", "score": 1, "share": 1, "page": "similarity/pair-1.html"})
    named = [replace(grade, student_id=f"student-{place}", student_name="") for place, grade in enumerate(GRADES)]
    html = render(folder, named, private=False)
    assert not re.search(
        r"\bada\b|\bben\b|cleo|dora|finn|\.zip|Lee", html[html.index("<body>") : html.index("<script>")]
    )
    page = Parsed(html)
    assert page.broken == []
    assert all((link["href"] or "").startswith("#") for link in page.all("a"))
    for word in ("Slowest", "Similar", "Submission:", "days late:", "proposed", "Report"):
        assert word not in page.words
    assert "student-1 B or below 34 graded 2.5 3 2" in page.words
    assert "student-4 needed too much memory: layer; took too long: AdamW" in page.words
    (folder.out / "class.json").unlink()  # not needed either
    assert render(folder, named, private=False) == html


def test_a_folder_without_a_class_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no class was graded into"):
        write_dashboard(ClassFolder(tmp_path), [])


def test_without_jinja_the_error_says_what_to_install(folder: ClassFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependency, match="the dashboard needs jinja2: run `pip install jinja2`"):
        write_dashboard(folder, GRADES)


def test_letters_are_sorted_as_grades_are() -> None:
    letters = ["none", "F", "B or below", "B", "B+", "A-", "A", "A+"]
    assert sorted(letters, key=letter_order) == letters[::-1]


def test_every_way_to_fail_has_its_own_words() -> None:
    assert set(CHECK_WORDS) == set(FAILING)
    assert len(set(CHECK_WORDS.values())) == len(FAILING)
    assert set(FAILING) | {"pass", "skipped", "grader_error"} == set(get_args(Status))


def tokens_of(style: str) -> list[dict[str, str]]:
    """Return the colours of a style, first light, then dark."""
    return [
        dict(re.findall(r"--(\w+): (#\w{6});", block)) for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    ]


def contrast(one: str, two: str) -> float:
    """Return the contrast of two colours, from 1 to 21, as the accessibility guidelines (WCAG 2) define it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_colours_are_those_of_the_reports_and_can_be_read() -> None:
    schemes = tokens_of((TEMPLATES / "index.css").read_text(encoding="utf-8"))
    assert schemes == tokens_of(REPORT.read_text(encoding="utf-8"))
    assert len(schemes) == 2
    for colours in schemes:
        for ink in ("text", "quiet", "link", "good", "bad", "wait"):
            for paper in ("page", "box", "teach"):
                assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)


# --- in a browser ---


def require(reason: str) -> None:
    """Skip the test for a reason; under CI, where everything must be there, fail."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(f"skipped: {reason}")


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    """Yield Debian's Chromium. Its event loop belongs to this module alone: nothing of it is left for other tests."""
    program = shutil.which("chromium")
    require("" if program else "needs a browser (`apt-get install chromium`)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        require("needs the package playwright")
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.getuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=program, args=arguments)
        yield chromium
        chromium.close()
    with pytest.raises(RuntimeError, match="no running event loop"):
        asyncio.get_running_loop()


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Yield what opens a page, and assert in the end that it showed no dialog, met no error and loaded nothing."""
    trouble: list[str] = []

    def dismiss(dialog: "Dialog") -> None:
        trouble.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def open_page(path: Path, view: str = "", **options: Any) -> "Page":
        page = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options).new_page()
        page.set_default_timeout(10_000)
        page.on("dialog", dismiss)
        page.on("pageerror", lambda error: trouble.append(f"error {error}"))
        page.on("console", lambda message: trouble.append(f"console {message.text}"))
        page.on("request", lambda request: None if request.is_navigation_request() else trouble.append(request.url))
        page.on("request", lambda request: None if request.url.startswith("file:") else trouble.append(request.url))
        page.goto(path.as_uri() + view)
        return page

    yield open_page
    for context in browser.contexts:
        context.close()
    assert trouble == []


@pytest.fixture
def index(folder: ClassFolder) -> Path:
    return write_dashboard(folder, GRADES)


def shown(page: "Page") -> list[str]:
    """Return the students whose rows are shown, in the order of the page."""
    rows = page.locator("#students tbody > tr:first-child:visible > th")
    return [text.strip() for text in rows.all_inner_texts()]


def header(page: "Page", name: str) -> Any:
    """Return the header of a column."""
    return page.locator("#students thead th").filter(has_text=re.compile(f"^{name}"))


EVERYONE = ["ada", "ben", "cleo", "dora", "eve", "finn", "gus", "hal", "ivy"]


@pytest.mark.slow
def test_a_header_sorts_and_says_so(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    assert shown(page) == EVERYONE
    assert page.locator("[aria-sort]").count() == 0
    header(page, "Points").get_by_role("button").click()
    assert header(page, "Points").get_attribute("aria-sort") == "descending"
    assert shown(page) == ["ada", "dora", "cleo", "eve", "ben", "ivy", "finn", "gus", "hal"]  # no points: last
    header(page, "Points").get_by_role("button").click()
    assert header(page, "Points").get_attribute("aria-sort") == "ascending"
    assert shown(page) == ["ivy", "ben", "eve", "cleo", "ada", "dora", "finn", "gus", "hal"]
    header(page, "Letter").get_by_role("button").click()
    assert page.locator("[aria-sort]").count() == 1
    assert shown(page) == ["ada", "dora", "eve", "cleo", "ben", "ivy", "finn", "gus", "hal"]
    header(page, "Days late").get_by_role("button").click()
    assert shown(page)[:3] == ["ben", "dora", "ada"]
    header(page, "Student").get_by_role("button").click()
    header(page, "Student").get_by_role("button").click()
    assert shown(page) == EVERYONE[::-1]


@pytest.mark.slow
def test_filters_choose_rows_together(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    count = page.get_by_role("status")
    page.get_by_role("combobox", name="Failing check").select_option("RoPE")
    assert shown(page) == ["ben", "cleo"] and count.inner_text() == "2 of 9 shown"
    page.get_by_role("combobox", name="Letter").select_option("B+")
    assert shown(page) == ["cleo"]
    page.get_by_role("combobox", name="Status").select_option("unreadable")
    assert shown(page) == [] and count.inner_text() == "0 of 9 shown"
    assert page.get_by_text("Nothing matches.").is_visible()
    page.get_by_role("button", name="Show all").click()
    assert shown(page) == EVERYONE and not page.get_by_text("Nothing matches.").is_visible()
    assert page.evaluate("location.hash") == ""
    for flag, students in {
        "review": ["ada"],
        "late": ["ben", "dora"],
        "crashed": ["ben", "eve"],
        "unmatched": ["cleo"],
    }.items():
        page.get_by_role("combobox", name="Only").select_option(flag)
        assert shown(page) == students
    page.get_by_role("combobox", name="Only").select_option("")
    page.get_by_role("combobox", name="Misconception").select_option(index=1)
    assert shown(page) == ["ben", "cleo"]


@pytest.mark.slow
def test_a_search_finds_words_wherever_they_stand(visit: Callable[..., "Page"], folder: ClassFolder) -> None:
    named = replace(GRADES[0], student_name="José Nguyễn")
    page = visit(write_dashboard(folder, [named, *GRADES[1:]]))
    for words, students in {
        "jose": ["ada"],
        "NGUYEN josé": ["ada"],
        "third of a letter": ["ben"],
        "lee cleo": ["cleo"],
        "sandbox": ["gus"],
        "ben cleo": [],
        "  ": EVERYONE,
    }.items():
        page.get_by_role("searchbox").fill(words)
        assert shown(page) == students, words


@pytest.mark.slow
def test_a_row_unfolds_and_stays_so_when_sorted(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    button = page.get_by_role("button", name="ben", exact=True)
    step = page.get_by_text("2.5 days late: a third of a letter down")
    assert button.get_attribute("aria-expanded") == "false" and not step.is_visible()
    button.click()
    assert button.get_attribute("aria-expanded") == "true" and step.is_visible()
    header(page, "Points").get_by_role("button").click()
    body = page.locator("#students tbody").nth(4)
    assert body.get_by_role("button").inner_text().strip() == "ben"
    assert body.get_by_text("2.5 days late: a third of a letter down").is_visible()
    button.click()
    assert button.get_attribute("aria-expanded") == "false" and not step.is_visible()


@pytest.mark.slow
def test_everything_can_be_done_with_the_keyboard(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    page.get_by_role("searchbox").focus()
    page.keyboard.type("b or below")
    assert shown(page) == ["ben"]
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    assert page.get_by_role("combobox", name="Letter").input_value() == "A" and shown(page) == []
    page.get_by_role("button", name="Show all").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")  # the box that scrolls
    assert page.evaluate("document.activeElement.getAttribute('role')") == "region"
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Space")
    assert shown(page) == EVERYONE[::-1]
    for _ in range(9):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "ivy"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    assert page.get_by_text("Entered: F, 0 points").is_visible()


@pytest.mark.slow
def test_a_report_is_one_click_away(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    assert page.get_by_role("link", name="report of").count() == 5 + 1  # one more for who waits for review
    page.get_by_role("link", name="report of cleo").click()
    assert page.title() == "a report"
    page.go_back()
    assert shown(page) == EVERYONE


@pytest.mark.slow
def test_a_view_is_in_the_address(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    page.get_by_role("combobox", name="Failing check").select_option("RoPE")
    header(page, "Failing checks").get_by_role("button").click()
    page.get_by_role("searchbox").fill("lee")
    address = page.evaluate("location.href")  # page.url lags behind
    assert address.endswith("#check=RoPE&q=lee&sort=-failing")
    page.reload()
    again = visit(index, address[address.index("#") :])
    for view in (page, again):
        assert shown(view) == ["ben", "cleo"]
        assert header(view, "Failing checks").get_attribute("aria-sort") == "descending"
        assert view.get_by_role("searchbox").input_value() == "lee"
    stale = visit(index, "#check=gone&letter=%22%3E&sort=--points&q=&other=1")
    assert shown(stale) == EVERYONE


@pytest.mark.slow
def test_a_name_in_the_overview_shows_whom_it_is_about(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index)
    page.get_by_role("link", name="AdamW", exact=True).click()
    assert shown(page) == ["ben", "eve"]
    assert page.get_by_role("combobox", name="Failing check").input_value() == "AdamW"
    assert page.evaluate("document.activeElement.id") == "class"
    page.get_by_role("link", name="2 late").click()
    assert shown(page) == ["ben", "dora"]
    page.go_back()
    assert shown(page) == ["ben", "eve"]
    page.get_by_role("link", name="RoPE that rotates halves").click()
    assert shown(page) == ["ben", "cleo"]
    page.get_by_role("link", name="B or below").click()
    assert shown(page) == ["ben"]


@pytest.mark.slow
def test_hostile_text_runs_nothing_and_loads_nothing(visit: Callable[..., "Page"], folder: ClassFolder) -> None:
    grades = [poisoned(text) for text in HOSTILE]
    add_pairs(
        folder, *({"one": text, "two": text, "score": 1, "share": 1, "page": "similarity/p.html"} for text in HOSTILE)
    )
    page = visit(write_dashboard(folder, grades))
    buttons = page.locator("#students tbody button")
    for place in range(len(HOSTILE)):
        buttons.nth(place).click()
    assert buttons.first.inner_text().strip() == HOSTILE[0]
    assert page.locator(".more").first.get_by_text(f"wrong result: {HOSTILE[0]} fail").is_visible()
    for link in page.locator("#checks + p ~ table a, .plain a").all()[:20]:
        link.click()
        assert len(shown(page)) == 1
    page.get_by_role("searchbox").fill(HOSTILE[0])
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, iframe, base, object, script").count() == 1  # the page's own


@pytest.mark.slow
def test_the_policy_stops_what_the_escaping_would_have_missed(browser: "Browser", index: Path) -> None:
    page = browser.new_page()
    loaded: list[str] = []
    page.on("requestfinished", lambda request: loaded.append(request.url))
    page.goto(index.as_uri())
    page.evaluate(
        """() => {
          const script = document.createElement("script");
          script.textContent = "window.hacked = 1";
          const holder = document.createElement("div");
          holder.innerHTML = `<img src="${location.pathname}" onerror="window.hacked = 2"><p style="color: red">`;
          document.body.append(script, holder);
        }"""
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.evaluate("getComputedStyle(document.querySelector('div > p[style]')).color") != "rgb(255, 0, 0)"
    assert loaded == [index.as_uri()]
    page.close()


@pytest.mark.slow
def test_dark_mode_has_other_colours(visit: Callable[..., "Page"], index: Path) -> None:
    colours = """() => {
      const style = getComputedStyle(document.documentElement);
      return [style.color, style.backgroundColor];
    }"""
    light = visit(index, color_scheme="light").evaluate(colours)
    dark = visit(index, color_scheme="dark").evaluate(colours)
    assert light == ["rgb(27, 31, 36)", "rgb(255, 255, 255)"]
    assert dark == ["rgb(231, 234, 238)", "rgb(20, 23, 27)"]


@pytest.mark.slow
def test_every_control_and_every_box_has_a_name(visit: Callable[..., "Page"], folder: ClassFolder) -> None:
    add_pairs(folder, {"one": "ada.zip", "two": "ben.zip", "score": 1, "share": 1, "page": "similarity/p.html"})
    page = visit(write_dashboard(folder, GRADES))
    page.get_by_role("button", name="ben", exact=True).click()
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    roles: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            roles.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("button", "link", "combobox", "searchbox", "region", "search", "columnheader", "rowheader", "heading"):
        assert roles[role] and all(name.strip() for name in roles[role]), (role, roles[role])
    assert roles["combobox"] == ["Letter", "Status", "Only", "Failing check", "Misconception"]
    assert roles["searchbox"] == ["Search"]
    assert "Failing checks" in roles["columnheader"]  # without the arrow that is only seen
    assert not set(roles) & {"image", "graphics-document"}  # the bars repeat what stands beside them


@pytest.mark.slow
def test_a_narrow_screen_scrolls_the_table_and_not_the_page(visit: Callable[..., "Page"], folder: ClassFolder) -> None:
    grades = [*GRADES, a_grade("a" * 200), poisoned("word" * 100)]
    page = visit(write_dashboard(folder, grades), viewport={"width": 360, "height": 640})
    wide = "element => element.scrollWidth > element.clientWidth"
    assert not page.evaluate(f"({wide})(document.documentElement)")
    assert page.locator("#students").locator("..").evaluate(wide)


@pytest.mark.slow
def test_on_paper_the_table_is_whole_and_has_no_tools(visit: Callable[..., "Page"], folder: ClassFolder) -> None:
    grades = made_up_class(60)
    page = visit(write_dashboard(a_class(folder.out, grades), grades))
    page.emulate_media(media="print")
    assert not page.get_by_role("searchbox").is_visible()
    box = page.locator("#students").locator("..")
    assert box.evaluate("element => element.scrollHeight <= element.clientHeight + 1")


@pytest.mark.slow
def test_without_a_script_the_page_shows_everything(visit: Callable[..., "Page"], index: Path) -> None:
    page = visit(index, java_script_enabled=False)
    assert page.get_by_text("2.5 days late: a third of a letter down").is_visible()
    assert not page.get_by_role("searchbox").is_visible()

"""result.json: it comes back as it was written, byte for byte, and another format is refused."""

import json
from pathlib import Path

import pytest

from autograder.result import CheckResult, Finding, Grade, OutputResult, Result, read_result
from errors import UsageError

RESULT = Result(
    submission="abc123",
    submission_sha256="0" * 64,
    edition="minllama",
    grader="0123456789ab",
    sandbox="none",
    seed="1" * 64,
    checkpoint="stories42M",
    grade=Grade("A-", ("every part is implemented",), ("a flag",)),
    points=1.5,
    max_points=2.0,
    checks=(CheckResult("RoPE", "rope", "fail", 0.0, 2.0, "turns pairs", "wrong", ("called x",), ("halves",)),),
    outputs=(OutputResult("sst-dev-prompting-output.txt", True, accuracy=0.25),),
    findings=(Finding("static", "flag", "imports transformers", file="llama.py", line=3),),
)


def test_a_result_comes_back_as_it_was_written() -> None:
    assert Result.from_json(RESULT.to_json()) == RESULT
    assert Result.from_json(RESULT.to_json()).to_json() == RESULT.to_json()


def test_the_file_names_its_format_and_holds_plain_json() -> None:
    content = json.loads(RESULT.to_json())
    assert content["format"] == 1
    assert content["checks"][0]["misconceptions"] == ["halves"]


@pytest.mark.parametrize("change", [{"format": 2}, {"format": None}])
def test_another_format_is_refused(change: dict[str, object]) -> None:
    text = json.dumps(json.loads(RESULT.to_json()) | change)
    with pytest.raises(ValueError, match="of result.json, expected 1"):
        Result.from_json(text)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"format": 1}', '{"format": 1, "grade": 3}', RESULT.to_json()[:200]]
)
def test_a_file_that_holds_no_result_is_named(text: str, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=r"result\.json is no result\.json of this grader"):
        read_result(file)


def test_a_result_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"result\.json cannot be read: No such file"):
        read_result(tmp_path / "result.json")

"""The benchmark of grading, with stand-ins for the commands: python -m pytest tests/test_benchmark_grade.py"""

import json
from pathlib import Path

import pytest

from benchmarks import grade
from errors import GraderError

ENTRIES = [{"name": "wrong.zip", "kind": "bug"}, {"name": "right.zip", "kind": "right"}]


class Commands:
    """Stands in for Python: notes the command lines, and makes what `simulate` would make."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, ...]] = []

    def __call__(self, *arguments: str) -> grade.Usage:
        self.lines.append(arguments)
        if arguments[2:3] == ("simulate",):
            made = Path(arguments[-1])
            made.with_name(f"{made.name}.truth.json").write_text(json.dumps({"entries": ENTRIES}), encoding="utf-8")
        seconds = {"-c": 2.0, "sanity_check.py": 3.0}.get(arguments[0], 8.0)
        return grade.Usage(seconds, seconds / 2)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    found = Commands()
    monkeypatch.setattr(grade, "_run", found)
    return found


def test_one_right_submission_is_graded_in_turns_and_then_the_class(commands: Commands) -> None:
    result = grade.measure(rounds=2, submissions=4)
    verbs = [line[2] if line[0] == "-m" else line[0] for line in commands.lines]
    turn = ["-c", "sanity_check.py", "grade"]
    assert verbs == ["simulate", *turn * 3, "batch", "truth"]  # the first turn is to warm up
    graded = [line for line in commands.lines if "grade" in line]
    assert all(Path(line[3]).name == "right.zip" for line in graded)
    assert len({line[5] for line in graded}) == 3  # a folder each: nothing is taken from the last time
    assert result["batch"] == {"submissions": 4, "seconds": 8.0, "processor_seconds": 4.0}
    assert [row["rounds"] for row in result["rows"]] == [[2.0] * 2, [3.0] * 2, [8.0] * 2]


def test_the_table_sets_everything_beside_importing_torch(commands: Commands) -> None:
    text = grade.table(grade.measure(rounds=2, submissions=4))
    assert text.startswith("## ")
    assert "| import torch | 2.0 | 1.0 | 1.00 |" in text
    assert "| autograder grade | 8.0 | 4.0 | 4.00 |" in text
    assert "| autograder batch, each of 4 | 2.0 | 1.0 | 1.00 |" in text
    assert "30.0 submissions a minute" in text


def test_without_a_right_submission_the_first_is_graded(tmp_path: Path) -> None:
    (tmp_path / "class.truth.json").write_text(json.dumps({"entries": ENTRIES[:1]}), encoding="utf-8")
    assert grade._a_right_one(tmp_path / "class") == "wrong.zip"


def test_a_command_is_timed_with_its_processor() -> None:
    usage = grade._run("-c", "sum(range(10**6))")
    assert usage.processor_seconds > 0 and usage.seconds > 0


def test_a_command_that_fails_is_named_with_its_last_line() -> None:
    code = "import sys; print('first', file=sys.stderr); sys.exit('last')"
    with pytest.raises(GraderError, match="^`python -c import sys.*` ended with status 1: last$"):
        grade._run("-c", code)
    with pytest.raises(GraderError, match=r"ended with status 3: told on stdout$"):
        grade._run("-c", "print('told on stdout'); raise SystemExit(3)")

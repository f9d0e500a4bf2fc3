"""The benchmark of start-up, at toy size: python -m pytest tests/test_benchmarks_load.py"""

import contextlib
import io
import json
from pathlib import Path

import pytest

from benchmarks import __main__ as command
from benchmarks import load
from errors import UsageError


def run_here(arguments: list[str]) -> str:
    """Run the code of a process in this one, which has imported everything already."""
    printed = io.StringIO()
    if arguments[0] == "-c" and "print" in arguments[1]:
        with contextlib.redirect_stdout(printed):
            exec(compile(arguments[1], "timed", "exec"), {})
    return printed.getvalue()


def test_a_run_writes_a_row_for_everybody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr(load, "_run", run_here)
    assert command.main(["load", "--size", "toy", "--rounds", "2", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "load.json").read_text(encoding="utf-8"))
    assert [row["command"] for row in result["commands"]] == list(load.COMMANDS)
    assert [row["contender"] for row in result["rows"]] == list(load.CONTENDERS)
    assert result["notes"] == []
    for row in result["rows"]:
        assert row["median"] > 0
        assert row["peak"] > 10  # MiB
        assert len(row["rounds"]) == 2
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "### From a checkpoint to the first logits, toy" in page
    assert page.count("| transformers, safetensors |") == 1


def test_what_cannot_be_written_is_left_out_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(size: str) -> None:
        raise UsageError("tokenizer.model is not here")

    monkeypatch.setattr(load, "tokenizer_of", nothing)
    monkeypatch.setattr(load, "_run", run_here)
    result = load.measure(sizes=["toy"], rounds=1)
    assert result["notes"] == ["The .bin of toy was left out: tokenizer.model is not here."]
    assert "ours, .bin" not in {row["contender"] for row in result["rows"]}
    assert result["notes"][0] in load.table(result)


def test_a_process_says_what_it_prints_or_why_it_failed() -> None:
    assert load._run(["-c", "print(7)"]) == "7\n"
    with pytest.raises(
        UsageError, match="a process that is timed has failed: ModuleNotFoundError: No module named 'no"
    ):
        load._run(["-c", "import nothing_of_this_name"])
    with pytest.raises(UsageError, match="failed: it says nothing. Run `./setup.sh --dev` if it lacks a package"):
        load._run(["-c", "import os; os._exit(1)"])


@pytest.mark.parametrize("name", ["python alone", load.HELP])
def test_commands_run_in_a_process(name: str) -> None:
    load._command(load.COMMANDS[name])()

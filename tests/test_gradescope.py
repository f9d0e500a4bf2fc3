"""What Gradescope gets: `results.json` by the contract, and the zip: `pytest tests/test_gradescope.py`."""

import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from autograder.checks.hidden import CHECKS
from autograder.gradescope import build as gradescope_zip
from autograder.gradescope import run as gradescope_run
from autograder.gradescope.build import build_zip
from autograder.gradescope.results import MOST_CHARACTERS, failure_json, results_json
from autograder.gradescope.run import Submission, find_submission, grade_command, main, run_with_deadline
from autograder.gradescope.settings import Settings, read_settings
from autograder.isolation.backends import why_no_bwrap
from autograder.result import Finding, Result
from errors import GraderError, UsageError
from tests.results import EDITION, NOTED, OURS, PASSED, RESULT, WRONG

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ROOT / "autograder" / "gradescope"
# The fields that the platform knows, and their types.
TOP = {
    "score": float,
    "execution_time": float,
    "output": str,
    "output_format": str,
    "test_output_format": str,
    "test_name_format": str,
    "visibility": str,
    "stdout_visibility": str,
    "extra_data": dict,
    "tests": list,
}
TEST = {
    "score": float,
    "max_score": float,
    "status": str,
    "name": str,
    "name_format": str,
    "number": str,
    "output": str,
    "output_format": str,
    "tags": list,
    "visibility": str,
    "extra_data": dict,
}
VISIBILITIES = {"hidden", "after_due_date", "after_published", "visible"}
FAILED = (
    "The grader itself failed, so there is no score. This is no fault of your submission: the course staff has it "
    "graded again, and you need not hand it in anew."
)


def parsed(text: str) -> dict[str, Any]:
    """Return results.json, after a check of every field against the contract."""
    content: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert text.isascii() and "\\u0000" not in text and len(text) <= MOST_CHARACTERS
    assert content.keys() <= TOP.keys()
    assert all(type(value) is TOP[name] for name, value in content.items())
    for test in content["tests"]:
        assert test.keys() <= TEST.keys()
        assert all(type(value) is TEST[name] for name, value in test.items())
        assert test.get("status") in ("passed", "failed", None)
        assert test.get("visibility", "visible") in VISIBILITIES
        assert ("score" in test) == ("max_score" in test)
        assert all(type(tag) is str for tag in test["tags"])
    return content


def graded(result: Result = RESULT, visibility: str = "visible") -> dict[str, Any]:
    return parsed(results_json(result, EDITION, 12.3456789, visibility))


def test_the_score_is_the_points_and_the_tests_add_up_to_it() -> None:
    content = graded(replace(RESULT, points=6.5))
    assert content["score"] == 6.5
    assert content["execution_time"] == 12.346
    scored = [test for test in content["tests"] if "score" in test]
    assert [test["number"] for test in scored] == ["1.1", "2.1", "3.1", "4.1", "5.1", "6.1", "7.1", "2.2"]
    assert sum(test["score"] for test in scored) == sum(check.points for check in RESULT.checks)
    assert sum(test["max_score"] for test in scored) == RESULT.max_points
    assert graded(replace(RESULT, points=0.1 + 0.2))["score"] == 0.3
    assert type(graded(replace(RESULT, points=7))["score"]) is float


def test_a_failing_check_reads_as_in_the_page() -> None:
    test = graded()["tests"][1]
    assert test == {
        "score": 0.0,
        "max_score": 2.0,
        "status": "failed",
        "name": "RoPE values",
        "number": "2.1",
        "tags": ["rope"],
        "visibility": "visible",
        "output": "Checked: apply_rotary_emb rotates adjacent pairs\n"
        "Outcome: wrong result: the query differs\n"
        "A likely reason: what your code gives equals RoPE that rotates halves instead of adjacent pairs.\n"
        "called apply_rotary_emb(query, key, head_dim=8)\n"
        "largest difference 1.2 at (0, 1, 2, 3): 0.4 instead of 1.6\n"
        "Next: In rope.py, find where your code does that, and compare it with the docstring.\n"
        "Then try it at home: python sanity_check.py RoPE",
    }


def test_the_status_is_passed_or_failed_whatever_ours_is() -> None:
    statuses = [test["status"] for test in graded()["tests"] if "score" in test]
    assert statuses == ["passed", *["failed"] * 6, "passed"]  # the last one is a note, which costs nothing
    noted = graded(replace(RESULT, checks=(NOTED,)))["tests"][0]
    assert "This is a note: it costs no points in this course." in noted["output"]


def test_output_files_and_findings_are_told_without_a_score() -> None:
    tests = [test for test in graded()["tests"] if "score" not in test]
    assert tests[0] == {
        "name": "sst-dev-finetuning-output.txt",
        "output": "Verdict: reaches the reference\n"
        "Yours: accuracy 0.412, running it again agrees on 99.8 %\n"
        "Needed: at least 0.364 (reference 0.414, margin 0.05)",
        "tags": ["outputs"],
        "status": "passed",
    }
    assert [test.get("status") for test in tests[:6]] == ["passed", "failed", "failed", "passed", None, "failed"]
    assert tests[6] == {
        "name": "The format of your submission",
        "status": "failed",
        "output": "Error: cfimdb-test-prompting-output.txt is missing What to do: run `python run_llama.py`",
        "tags": ["format"],
    }
    assert tests[7]["output"].startswith("A person looks at this: optimizer.py:3: torch.optim.AdamW is used")
    assert tests[9]["output"] == "Note: run_llama.py: it took 41 seconds"


def test_the_text_on_top_gives_the_letter_and_why() -> None:
    assert graded()["output"] == (
        "Min-LLaMA: build a small Llama\n\nGrade: B or below\n"
        "- some part is not implemented, or fails its test: rope, adamw\n\n"
        "Before this is final, a person looks at:\n- optimizer.py:3 uses torch.optim\n\n"
        "Points of the checks: 4.5 of 16.5\n\n"
        "Graded with 0123456789ab, sandbox: bwrap (root, setpriv), memory by cgroup v1"
    )


def test_hidden_checks_do_not_leak_through_the_text_on_top() -> None:
    while_running = Finding("checks", "note", "RoPE is slow")
    content = graded(replace(RESULT, findings=(*RESULT.findings, while_running)), "after_published")
    assert {test["visibility"] for test in content["tests"] if "score" in test} == {"after_published"}
    (told,) = [test for test in content["tests"] if "RoPE is slow" in test["output"]]
    assert told["visibility"] == "after_published"
    assert "B or below" not in content["output"] and "4.5" not in content["output"] and "rope" not in content["output"]
    assert "8 hidden checks ran. Their results, and with them the grade, are not shown yet" in content["output"]
    assert content["visibility"] == "visible" and content["stdout_visibility"] == "hidden"
    with pytest.raises(UsageError, match=r"^unknown visibility 'secret': choose from visible, hidden, after_due_date"):
        graded(visibility="secret")


def test_a_fault_of_the_grader_is_never_a_score() -> None:
    content = graded(replace(RESULT, checks=(PASSED, OURS)))
    assert content == {"output": FAILED, "output_format": "text", "tests": [], "execution_time": 12.346}
    assert parsed(failure_json(reason="It was too late.")) == {
        "output": f"{FAILED} It was too late.",
        "output_format": "text",
        "tests": [],
    }


def test_neither_the_seed_nor_a_control_character_gets_out() -> None:
    nasty = "\0\x1b[31mred\x1b[0m \u202egnorw \ud800<script>"
    checks = tuple(replace(check, output=nasty, message=nasty, name=nasty, region=nasty) for check in RESULT.checks)
    text = results_json(replace(RESULT, checks=checks, submission=nasty, sandbox=nasty), EDITION, 1.0)
    assert RESULT.seed not in text and "\\ud800" not in text and "\\u202e" not in text and "\\u001b" not in text
    assert parsed(text)["tests"][1]["name"] == "red gnorw <script>"


def test_a_flood_of_text_is_cut_before_the_platform_cuts_it() -> None:
    long = replace(WRONG, details=("é" * 1_000_000,), output="x" * 1_000_000)
    content = graded(replace(RESULT, checks=(long,)))
    assert len(content["tests"][0]["output"]) == 8000
    assert "[... the middle is left out ...]" in content["tests"][0]["output"]
    content = graded(replace(RESULT, checks=(long,) * 60))
    assert len(content["tests"]) == 60 + len(RESULT.outputs) + 4
    assert all(len(test["output"]) <= 1000 for test in content["tests"])
    with pytest.raises(GraderError, match=r"^results.json would have \d+ characters: run fewer checks$"):
        graded(replace(RESULT, checks=(WRONG,) * 500))
    told = graded(replace(RESULT, findings=(Finding("static", "flag", "a finding"),) * 50))["tests"][-1]
    assert told["output"].splitlines()[-1] == "and 10 more of this kind"


def test_a_number_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float values"):
        results_json(replace(RESULT, points=math.nan), EDITION, 1.0)


# ---------------------------------------------------------------------------------------------- the zip


@pytest.fixture(scope="module")
def platform_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("zip") / "build" / "autograder.zip"
    build_zip("minllama", target)
    return target


def test_the_zip_holds_the_scripts_at_its_root_and_what_grading_needs(platform_zip: Path) -> None:
    with zipfile.ZipFile(platform_zip) as archive:
        names = archive.namelist()
        modes = {entry.filename: stat.S_IMODE(entry.external_attr >> 16) for entry in archive.infolist()}
        settings = json.loads(archive.read("settings.json"))
        assert archive.read("run_autograder").startswith(b"#!/usr/bin/env bash\n")
    assert names[:3] == ["setup.sh", "run_autograder", "settings.json"]
    assert {modes[name] for name in ("setup.sh", "run_autograder", "minllama/setup.sh")} == {0o755}
    assert modes["minllama/llama.py"] == 0o644
    wanted = {path.name for path in ROOT.glob("*.py")} | {"constraints.txt", "pyproject.toml", "editions/minllama.toml"}
    wanted |= {"autograder/report/report.html", "autograder/sandboxed/worker.py", "data/sst-label-mapping.json"}
    wanted |= {f"checkpoints/storybook/{name}" for name in ("config.json", "model.safetensors", "tokenizer.model")}
    assert {f"minllama/{name}" for name in wanted} <= set(names)
    assert not [name for name in names if re.search(r"__pycache__|/\.|/tests/|\.pt$|stories42M|/build/|\.zip$", name)]
    assert settings == {
        "edition": "minllama",
        "deadline": 540.0,
        "visibility": "visible",
        "sandbox": "uid",
        "checkpoint": None,
    }


def small_repository(folder: Path) -> Path:
    """Make a repository that holds one file for each pattern."""
    files = ["llama.py", "autograder/grade.py", "autograder/__pycache__/grade.pyc", "editions/minllama.toml"]
    files += ["data/sst-label-mapping.json", "data/sst-dev.txt", "weights/stories260K/tok512.bin", "stories42M.pt"]
    files += [f"checkpoints/storybook/{name}" for name in ("config.json", "model.safetensors", "tokenizer.model")]
    for name in [*files, *gradescope_zip.NEEDED]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_the_same_files_make_the_same_bytes(tmp_path: Path) -> None:
    root = small_repository(tmp_path / "root")
    first = build_zip("minllama", tmp_path / "a.zip", root=root)
    for path in root.rglob("*"):
        os.utime(path, (1, 1))
        path.chmod(0o700)
    assert build_zip("minllama", tmp_path / "b.zip", root=root) == first
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    packed = [name.removeprefix("minllama/") for name in first[3:]]
    assert {"data/sst-dev.txt", "weights/stories260K/tok512.bin", "llama.py"} <= set(packed)
    assert "stories42M.pt" not in packed and not any("__pycache__" in name for name in packed)


def test_a_file_that_is_missing_is_named_and_no_zip_is_left(tmp_path: Path) -> None:
    root = small_repository(tmp_path / "root")
    (root / "constraints.txt").unlink()
    with pytest.raises(UsageError, match=r"root/constraints.txt is missing: build the zip from a complete checkout$"):
        build_zip("minllama", tmp_path / "a.zip", root=root)
    (root / "constraints.txt").touch()
    (root / "checkpoints/storybook/config.json").unlink()
    with pytest.raises(
        UsageError, match=r"root has no checkpoints/storybook/config.json: build the zip from a complete"
    ):
        build_zip("minllama", tmp_path / "a.zip", root=root)
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_a_zip_that_the_platform_would_not_take_is_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradescope_zip, "MOST_BYTES", 1000)
    with pytest.raises(UsageError, match=r"^the zip has 0 MB, and the platform takes 0: what is in data/ or weights/"):
        build_zip("minllama", tmp_path / "a.zip", root=small_repository(tmp_path / "root"))
    assert not (tmp_path / "a.zip").exists()


def test_a_course_may_bring_its_own_edition(tmp_path: Path) -> None:
    text = (ROOT / "editions" / "minllama.toml").read_text(encoding="utf-8")
    own = tmp_path / "whatever.toml"
    own.write_text(text.replace('name = "minllama"', 'name = "my-course"', 1), encoding="utf-8")
    root = small_repository(tmp_path / "root")
    names = build_zip(str(own), tmp_path / "a.zip", root=root, visibility="after_published", deadline=1000)
    assert "minllama/editions/my-course.toml" in names
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.read("minllama/editions/my-course.toml") == own.read_bytes()
        settings = json.loads(archive.read("settings.json"))
    assert (settings["edition"], settings["visibility"], settings["deadline"]) == ("my-course", "after_published", 1000)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"visibility": "secret"}, "unknown visibility 'secret': choose from visible, hidden, after_due_date"),
        ({"deadline": 5.0}, "the deadline is 5 seconds: choose 30 to 2400, below the platform's limit"),
        ({"sandbox": "none"}, "'none' is no sandbox for the platform: choose uid, or bwrap if it works there"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        build_zip("minllama", tmp_path / "a.zip", **setting)
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"edition": "minllama"} | setting))
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        read_settings(file)


@pytest.mark.parametrize("text", ["{", "[]", '{"colour": 1}', '{"edition": "minllama", "deadline": "soon"}', "\udcff"])
def test_settings_that_are_damaged_are_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match=r"settings.json cannot be read \(.+\): build the zip again$"):
        read_settings(file)


def test_an_edition_under_a_wrong_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradescope_zip, "read_edition", lambda name: EDITION)
    with pytest.raises(UsageError, match=r"editions/other.toml calls itself 'minllama': give it the name of its file$"):
        build_zip("other", tmp_path / "a.zip", root=small_repository(tmp_path / "root"))


# ---------------------------------------------------------------------------------------------- on the platform


def write_metadata(base: Path, *addresses: str) -> Path:
    """Write what the platform says about the submission."""
    users = [{"email": address, "id": number, "name": "A Student"} for number, address in enumerate(addresses)]
    path = base / "submission_metadata.json"
    path.write_text(json.dumps({"id": 1, "created_at": "2026-11-22T08:00:00", "users": users, "assignment_id": 2}))
    return path


@pytest.mark.parametrize(
    ("names", "path", "student_id"),
    [
        (["llama.py", "rope.py"], ".", "mail.name"),
        (["llama.py"], ".", "mail.name"),
        (["abc123/llama.py"], "abc123", "abc123"),
        (["abc123/llama.py", "__MACOSX/abc123/._llama.py", ".DS_Store"], "abc123", "abc123"),
        (["ABC123.ZIP"], "ABC123.ZIP", "abc123"),
        (["My homework.zip"], "My homework.zip", "mail.name"),
        (["My homework/llama.py"], "My homework", "mail.name"),
        (["abc123.zip", "abc124.zip"], ".", "mail.name"),
    ],
)
def test_the_submission_is_found_however_it_was_uploaded(
    names: list[str], path: str, student_id: str, tmp_path: Path
) -> None:
    folder = tmp_path / "submission"
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    metadata = write_metadata(tmp_path, "Mail.Name@ucsc.edu", "other@ucsc.edu")
    assert find_submission(folder, metadata) == Submission(folder / path, student_id)


@pytest.mark.parametrize("metadata", ["", "[]", '{"users": 3}', '{"users": [{"email": "../x@y"}]}', '{"users": [1]}'])
def test_odd_metadata_do_not_keep_anyone_from_being_graded(metadata: str, tmp_path: Path) -> None:
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "llama.py").touch()
    (tmp_path / "metadata.json").write_text(metadata)
    assert find_submission(folder, tmp_path / "metadata.json") == Submission(folder, "submission")


def test_a_link_is_no_submission(tmp_path: Path) -> None:
    folder = tmp_path / "submission"
    folder.mkdir()
    (folder / "abc123").symlink_to(ROOT)
    with pytest.raises(UsageError, match=r"submission holds no submission$"):
        find_submission(folder, tmp_path / "no metadata")


def test_the_command_that_grades_is_complete() -> None:
    submission = Submission(Path("/s/abc123"), "abc123")
    command = grade_command(submission, Settings("nlp244", checkpoint="storybook"), Path("/o"))
    assert command == [
        *(sys.executable, "-P", "-m", "autograder", "grade", "/s/abc123", "--edition", "nlp244"),
        *("--sandbox", "uid", "--id", "abc123", "-o", "/o", "--deadline", "515", "--checkpoint", "storybook"),
    ]
    assert "--checkpoint" not in grade_command(submission, Settings("nlp244"), Path("/o"))


def test_what_waits_beside_the_grader_holds_no_pytorch() -> None:
    code = "import sys, autograder.gradescope.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_at_the_deadline_the_grader_and_its_children_are_killed(tmp_path: Path) -> None:
    script = "sleep 60 & echo $!; wait"
    with (tmp_path / "log").open("wb") as log:
        assert run_with_deadline(["bash", "-c", script], 0.5, log) is None
    status = Path(f"/proc/{int((tmp_path / 'log').read_text())}/stat")

    def is_gone() -> bool:
        try:
            return status.read_text().split()[2] == "Z"
        except OSError:
            return True

    give_up = time.monotonic() + 20  # a busy machine may take a moment to carry the kill out; sleeping takes a minute
    while not is_gone() and time.monotonic() < give_up:
        time.sleep(0.01)
    assert is_gone()
    with (tmp_path / "log").open("wb") as log:
        assert run_with_deadline(["bash", "-c", "exit 3"], 10, log) == 3


Layout = Callable[[str], Path]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    """Return a function that lays a platform's folder out, with a stand-in for the grader, and returns it."""

    def lay_out(stand_in: str) -> Path:
        base = tmp_path / "autograder"
        for name in ("source", "submission/abc123", "results"):
            (base / name).mkdir(parents=True)
        (base / "submission/abc123/llama.py").touch()
        (base / "source/settings.json").write_text('{"edition": "minllama", "deadline": 30}')
        script = f"import sys, pathlib, time\nout = pathlib.Path(sys.argv[sys.argv.index('-o') + 1])\n{stand_in}"
        graded = replace(RESULT, checks=(PASSED, WRONG))
        (tmp_path / "result.json").write_text(graded.to_json())

        def command(submission: Submission, settings: Settings, out: Path) -> list[str]:
            rest = grade_command(submission, settings, out)[4:]
            return [sys.executable, "-c", script.replace("RESULT", repr(str(tmp_path / "result.json"))), *rest]

        monkeypatch.setattr(gradescope_run, "grade_command", command)
        return base

    return lay_out


def written(base: Path) -> dict[str, Any]:
    return parsed((base / "results/results.json").read_text())


GOOD = "(out / 'result.json').write_text(pathlib.Path(RESULT).read_text())"


def test_a_graded_submission_has_a_score(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    base = layout(f"{GOOD}\n(out / 'secret').write_text('s3cret')\nprint(sys.argv[1:4])")
    assert main([str(base)]) == 0
    assert written(base)["score"] == 4.5
    told = capsys.readouterr().out
    assert told.startswith("grading 'abc123' as abc123, edition minllama\n")
    assert f"['grade', '{base}/submission/abc123', '--edition']" in told
    assert "seed 5eed5eed5eed5eed, sandbox bwrap (root, setpriv), memory by cgroup v1, grader 0123456789ab" in told
    assert "secret s3cret (for --seed, to grade it again alike)" in told
    assert "s3cret" not in (base / "results/results.json").read_text()
    assert stat.S_IMODE((base / "results-private").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("stand_in", "told"),
    [
        ("print('boom'); sys.exit(3)", "boom\nerror: GraderError: the grader ended with status 3: see what it printed"),
        ("pass", "error: GraderError: the grader ended with status 0: see what it printed"),
        (f"{GOOD}; sys.exit(1)", "error: GraderError: the grader ended with status 1: see what it printed"),
        ("(out / 'result.json').write_text('{')", "error: JSONDecodeError: Expecting property name enclosed in"),
        ("(out / 'result.json').write_text('{}')", "error: ValueError: this is format None of result.json, expected 1"),
        ("import os; os.kill(os.getpid(), 9)", "error: GraderError: the grader ended with status -9: see what it"),
        ("print('\\x1b[2J' + 'x' * 10**6)", "x\n[... the middle is left out ...]\nx"),
    ],
)
def test_a_grader_that_dies_leaves_no_score(
    stand_in: str, told: str, layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    base = layout(stand_in)
    assert main([str(base)]) == 1
    content = written(base)
    assert content.pop("execution_time") < 30
    assert content == {"output": FAILED, "output_format": "text", "tests": []}
    output = capsys.readouterr().out
    assert told in output and "\x1b" not in output and len(output) < 25_000


def test_a_grader_that_is_too_slow_says_so(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = layout("print('half way', flush=True); time.sleep(100)")
    monkeypatch.setattr(gradescope_run, "read_settings", lambda path: Settings("minllama", deadline=6))
    assert main([str(base)]) == 1
    late = "It was still busy after 6 seconds, which is all the time it had."
    assert written(base)["output"] == f"{FAILED} {late}"
    assert f"half way\nerror: {late}" in capsys.readouterr().out


def test_a_submission_that_hangs_in_every_check_is_graded_before_the_deadline() -> None:
    others = 60  # seconds for all else: start, intake, outputs
    assert sum(check.seconds for check in CHECKS) + others < Settings("minllama").deadline < 600


def test_damaged_settings_and_wrong_arguments_are_told(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    base = layout(GOOD)
    (base / "source/settings.json").write_text('{"edition": "minllama", "color": 1}')
    assert main([str(base)]) == 1
    assert written(base)["output"] == FAILED
    assert "settings.json cannot be read (" in capsys.readouterr().out
    assert main([]) == 2
    assert capsys.readouterr().err == "usage: python -P -m autograder.gradescope.run /autograder\n"


def run_script(base: Path) -> "subprocess.CompletedProcess[str]":
    """Run run_autograder as the platform does."""
    environment = {"PATH": os.environ["PATH"], "AUTOGRADER_ROOT": str(base), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [base / "run_autograder"], cwd=base, env=environment, capture_output=True, text=True, check=False
    )


@pytest.fixture
def platform(tmp_path: Path, platform_zip: Path) -> Path:
    """Lay a folder out as the platform does, with this environment in the place of the one that setup.sh makes."""
    base = tmp_path / "autograder"
    for name in ("source", "submission", "results"):
        (base / name).mkdir(parents=True)
        (base / name).chmod(0o777)
    subprocess.run(
        [sys.executable, "-m", "zipfile", "-e", str(platform_zip), str(base / "source")], check=True, cwd=tmp_path
    )
    (base / "run_autograder").write_bytes((base / "source/run_autograder").read_bytes())
    (base / "run_autograder").chmod(0o755)
    (base / "source/minllama/.venv").symlink_to(sys.prefix)
    write_metadata(base, "abc123@ucsc.edu").chmod(0o644)
    return base


def test_run_autograder_leaves_a_result_whatever_happens(platform: Path) -> None:
    (platform / "source/minllama/.venv").unlink()
    planted = platform / "results/results.json"
    planted.symlink_to(platform / "elsewhere")
    done = run_script(platform)
    assert done.returncode != 0
    assert written(platform) == {"output": FAILED, "output_format": "text", "tests": []}
    assert not planted.is_symlink() and not (platform / "elsewhere").exists()


def test_run_autograder_locks_what_a_stranger_may_not_see(platform: Path) -> None:
    stand_in = f"""
import pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("-o") + 1])
from importlib.util import find_spec
print("master", find_spec("llama").origin, sys.flags.safe_path)
print([oct(pathlib.Path({str(platform)!r}, name).stat().st_mode & 0o777) for name in
      ("source", "results", "submission", "submission_metadata.json", "results-private")])
(out / "result.json").write_text({RESULT.to_json()!r})
"""
    (platform / "source/minllama/autograder/__main__.py").write_text(stand_in)
    (platform / "submission/llama.py").write_text("print('hijacked')")
    done = run_script(platform)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert f"master {platform}/source/minllama/llama.py True\n" in done.stdout
    assert "['0o700', '0o700', '0o700', '0o600', '0o700']" in done.stdout
    assert "hijacked" not in done.stdout
    assert "as abc123, edition minllama" in done.stdout
    assert written(platform)["score"] == 4.5


def make_environment(base: Path) -> str:
    """Lay an environment out that the platform's sandbox can use, and return the sandbox's name.

    An unused user must be able to read Python. Where this one lies in root's own folder, the system's takes its place;
    as an ordinary user, or without one of the system's, bubblewrap does.
    """
    link = base / "source/minllama/.venv"
    python = Path("/usr/bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    prefix = Path(sys.base_prefix).resolve()
    is_readable = all(folder.stat().st_mode & 0o001 for folder in (prefix, *prefix.parents))
    if os.geteuid() != 0 or not shutil.which("setpriv") or not (is_readable or python.exists()):
        if reason := why_no_bwrap():
            pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(f"skipped: {reason}")
        return "bwrap"
    if is_readable:
        return "uid"
    link.unlink()
    subprocess.run([python, "-m", "venv", "--without-pip", base / "environment"], check=True)
    (packages,) = (base / "environment/lib").glob("python*/site-packages")
    (packages / "ours.pth").write_text(sysconfig.get_path("purelib"))
    link.symlink_to(base / "environment")
    return "uid"


@pytest.mark.slow
def test_a_real_submission_is_graded_as_on_the_platform(platform: Path) -> None:
    kind = make_environment(platform)
    settings = platform / "source/settings.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"sandbox": kind}))
    folder = platform / "submission/abc123"
    folder.mkdir()
    for name in ("run_llama.py", "llama.py", "rope.py", "optimizer.py", "classifier.py"):
        (folder / name).write_bytes((ROOT / name).read_bytes())
    wrong = (folder / "rope.py").read_text().replace("### BEGIN SOLUTION rope", "return query, key", 1)
    (folder / "rope.py").write_text(wrong)
    done = run_script(platform)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    content = written(platform)
    assert f", sandbox {kind} (" in done.stdout
    assert re.search(r"^secret [0-9a-f]{64} \(for --seed", done.stdout, re.MULTILINE)
    tests = {test["name"]: test for test in content["tests"] if "score" in test}
    assert content["score"] == pytest.approx(sum(test["score"] for test in tests.values()))
    assert tests["RMSNorm"]["score"] == tests["RMSNorm"]["max_score"] > 0
    assert tests["RoPE"]["score"] == 0.0 and tests["RoPE"]["status"] == "failed"
    assert "Outcome: wrong result" in tests["RoPE"]["output"]
    assert "Outcome: waits for another check: needs" in tests["logits"]["output"]
    failed = {name for name, test in tests.items() if test["status"] == "failed"}
    assert not failed & {"RMSNorm", "attention", "GQA", "AdamW one step", "layer"}
    assert "Grade: B or below" in content["output"]
    assert not list((platform / "results").glob("*.tmp"))


def test_the_scripts_never_touch_the_python_of_the_platform() -> None:
    setup = (SCRIPTS / "setup.sh").read_text(encoding="utf-8")
    assert not re.search(
        r"update-alternatives|ln -s\S* .*bin/python|apt-get (?:remove|purge|upgrade)|(?<!-m )\bpip install", setup
    )
    for line in setup.splitlines():
        if "-m pip" in line:
            assert line.startswith(".venv/bin/python -m pip install -q")
    assert "--constraint constraints.txt --group grading" in setup
    for name in ("setup.sh", "run_autograder"):
        subprocess.run(["bash", "-n", str(SCRIPTS / name)], check=True)
        assert os.access(SCRIPTS / name, os.X_OK)

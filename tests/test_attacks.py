"""Submissions that attack the grader: none gets out, none is graded wrongly, and each costs its own check alone.

The table is in tests/attacks/table.py. It is run as whoever runs the tests, and, by root, as an ordinary user and with
the backend `uid`.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from autograder.isolation.sandbox import usable_backends
from tests.attacks import driver, elsewhere
from tests.attacks.table import ATTACKS

FAST = [attack for attack in ATTACKS if attack.fast]


def require(reason: str) -> None:
    """Skip the test for a reason; under CI, where everything must be there, fail."""
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason)
    if reason:
        pytest.skip(f"skipped: {reason}")


def needs_root() -> str:
    """Return why no mounts can be made here, or nothing; skip the test for an ordinary user."""
    if os.getuid() != 0:
        pytest.skip("skipped: only root can run the suite as another user")
    probe = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return "" if probe.returncode == 0 else "this container forbids mounts of its own"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Yield a folder that every user may enter."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_the_table_has_at_least_44_attacks_of_different_names() -> None:
    assert len({attack.name for attack in ATTACKS}) == len(ATTACKS) >= 44
    assert {"error", "crash", "timeout", "memory", "wrong", "right"} == set().union(*(a.outcomes for a in ATTACKS))


def test_the_most_telling_attacks_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(usable_backends()["bwrap"])
    monkeypatch.setenv(driver.SECRET_VARIABLE, "")  # so that it is gone afterwards
    assert driver.run_attacks("bwrap", tmp_path / "secrets", FAST) == []


@pytest.mark.slow
def test_the_driver_notices_an_attack_that_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(driver.SECRET_VARIABLE, "")
    wanted = {"reads a file of the judge", "not a number", "os._exit in a call"}
    rows = [attack for attack in ATTACKS if attack.name in wanted]
    complaints = driver.run_attacks("none", tmp_path / "secrets", rows)  # no wall: reading works there
    assert any("a secret was read" in text for text in complaints)
    assert {text.partition(":")[0] for text in complaints} == {"reads a file of the judge"}


@pytest.mark.slow
def test_no_attack_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require(usable_backends()["bwrap"])
    monkeypatch.setenv(driver.SECRET_VARIABLE, "")
    assert driver.run_attacks("bwrap", tmp_path / "secrets") == []


@pytest.mark.slow
def test_no_attack_succeeds_where_several_calls_share_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require(usable_backends()["bwrap"])
    monkeypatch.setenv(driver.SECRET_VARIABLE, "")
    assert driver.run_attacks("bwrap", tmp_path / "secrets", together=True) == []


@pytest.mark.slow
def test_no_attack_succeeds_where_an_ordinary_user_grades(open_folder: Path) -> None:
    require(needs_root() or usable_backends()["bwrap"])
    done = elsewhere.run_as_nobody(open_folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []


@pytest.mark.slow
def test_no_attack_succeeds_on_another_user_in_a_container(open_folder: Path) -> None:
    require(needs_root())
    done = elsewhere.run_as_other_user(open_folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == []

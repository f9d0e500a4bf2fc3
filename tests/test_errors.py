"""How commands tell what went wrong: run with `pytest tests/test_errors.py`."""

import pytest

from errors import UsageError, exit_status


def failing(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize("status", [0, 1, 141])
def test_a_command_s_own_status_is_returned(status: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: status) == status
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (UsageError("name a file"), 2, "error: name a file\n"),
        (
            FileNotFoundError(2, "No such file", "x"),
            2,
            "error: [Errno 2] No such file: 'x': check the path, its permissions, and the space on the disk\n",
        ),
        (KeyboardInterrupt(), 130, "\ninterrupted\n"),
    ],
)
def test_what_ends_a_command_is_told_in_a_line(
    error: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(lambda: failing(error)) == status
    assert capsys.readouterr().err == told


def test_a_command_may_say_what_an_interrupt_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: failing(KeyboardInterrupt()), "nothing was written") == 130
    assert capsys.readouterr().err == "\nnothing was written\n"


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        exit_status(lambda: failing(ZeroDivisionError()))

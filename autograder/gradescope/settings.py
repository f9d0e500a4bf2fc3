"""What an instructor chooses for Gradescope when the zip is built, and what `run_autograder` reads from it.

This file imports no PyTorch: on the platform it is read by a process that lives beside the grader and its sandbox, in
little memory.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from errors import UsageError

SETTINGS = "settings.json"  # at the root of the zip

# Who sees a test, and when. A student sees the total only if every test is visible.
Visibility = Literal["visible", "hidden", "after_due_date", "after_published"]


def check_visibility(visibility: str) -> None:
    """Raise UsageError for a visibility that the platform does not know."""
    if visibility not in get_args(Visibility):
        raise UsageError(f"unknown visibility '{visibility}': choose from {', '.join(get_args(Visibility))}")


@dataclass(frozen=True)
class Settings:
    """What an instructor chooses for the platform.

    `deadline` is in seconds, and must lie below the platform's own limit (600 unless you change it there): when that
    one strikes, the platform throws our results away and gives no points.
    """

    edition: str
    deadline: float = 540.0
    visibility: str = "visible"
    sandbox: str = "uid"
    checkpoint: str | None = None

    def check(self) -> None:
        """Raise UsageError for a value that cannot be."""
        check_visibility(self.visibility)
        if not 30 <= self.deadline <= 2400:
            raise UsageError(
                f"the deadline is {self.deadline:g} seconds: choose 30 to 2400, below the platform's limit"
            )
        if self.sandbox not in ("uid", "bwrap"):
            raise UsageError(f"'{self.sandbox}' is no sandbox for the platform: choose uid, or bwrap if it works there")


def read_settings(path: Path) -> Settings:
    """Return the settings in the zip. Raises UsageError if the file is damaged."""
    try:
        settings = Settings(**json.loads(path.read_text(encoding="utf-8")))
        settings.check()
    except (OSError, TypeError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): build the zip again") from error
    return settings

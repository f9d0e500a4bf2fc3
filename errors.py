"""Every error that a user of the assignment can cause, in one tree.

    MinLlamaError                 what commands catch: they print its text and exit with status 2
    ├── UsageError                options that contradict each other, a path that is not there
    ├── CheckpointError           a file of weights that cannot be used
    ├── TokenizerError            a tokenizer that cannot be read or does not fit the weights
    ├── DataError                 a line of a `label ||| sentence` file that breaks a rule
    ├── TrainingError             a training run that diverged, or cannot be resumed
    ├── AssetError                a download that failed, or an asset nobody lists
    ├── SubmissionError           a submission that cannot be read at all
    ├── HandoutError              a solution master that no hand-out can be made of
    ├── MissingDependency         an optional package that is not installed
    ├── SandboxError              no sandbox that could hold a stranger's code
    └── GraderError               the grader's own fault: never a score

The text of each says which file (and line), what is wrong, and what to do about it.
"""

import sys
from collections.abc import Callable

INTERRUPTED = 130  # the shell's status of a program that ctrl-C ended


def exit_status(run: Callable[[], int], interrupted: str = "interrupted") -> int:
    """Run a command and return its status: its own, or 2 after an error that says what to do, or 130 after ctrl-C.

    What went wrong is told in a line on the screen; after ctrl-C, it is `interrupted`.
    """
    try:
        return run()
    except MinLlamaError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}: check the path, its permissions, and the space on the disk", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\n{interrupted}", file=sys.stderr)
        return INTERRUPTED


class MinLlamaError(Exception):
    """Base of the errors whose message is meant for the person at the keyboard."""


class UsageError(MinLlamaError):
    """Options that contradict each other, or name something that does not exist."""


class CheckpointError(MinLlamaError):
    """A file of weights that is missing, damaged, or does not describe a Llama."""


class TokenizerError(MinLlamaError):
    """A tokenizer file that cannot be read, or whose vocabulary does not fit the weights."""


class DataError(MinLlamaError):
    """A data file that breaks a rule; the message starts with the file, and the line where there is one."""


class TrainingError(MinLlamaError):
    """A training run whose loss is no number any more, or whose saved state belongs to another run."""


class AssetError(MinLlamaError):
    """An external file that could not be fetched or verified, or a name that no list holds."""


class SubmissionError(MinLlamaError):
    """A submission folder or archive that cannot be read at all."""


class HandoutError(MinLlamaError):
    """A solution master that no hand-out can be made of, or a hand-out that is not what students may get."""


class SandboxError(MinLlamaError):
    """No sandbox of this machine could hold a stranger's code; the message names the remedy."""


class GraderError(MinLlamaError):
    """The grader itself failed. Nothing follows from it about the submission: never a score."""


class MissingDependency(MinLlamaError):
    """An optional package is needed here and is not installed."""

    def __init__(self, feature: str, *packages: str) -> None:
        """Say what needs the packages, and the line that installs them."""
        super().__init__(f"{feature} needs {' and '.join(packages)}: run `pip install {' '.join(packages)}`")

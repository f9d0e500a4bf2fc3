"""Every error that a user of the assignment can cause, in one tree.

    MinLlamaError                 what commands catch: they print its text and exit with status 2
    ├── UsageError                options that contradict each other, a path that is not there
    ├── CheckpointError           a file of weights that cannot be used
    ├── TokenizerError            a tokenizer that cannot be read or does not fit the weights
    ├── DataError                 a line of a `label ||| sentence` file that breaks a rule
    ├── TrainingError             a training run that diverged, or cannot be resumed
    ├── AssetError                a download that failed, or an asset nobody lists
    ├── SubmissionError           a submission that cannot be read at all
    └── MissingDependency         an optional package that is not installed

The text of each says which file (and line), what is wrong, and what to do about it.
"""


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


class MissingDependency(MinLlamaError):
    """An optional package is needed here and is not installed."""

    def __init__(self, feature: str, *packages: str) -> None:
        """Say what needs the packages, and the line that installs them."""
        super().__init__(f"{feature} needs {' and '.join(packages)}: run `pip install {' '.join(packages)}`")

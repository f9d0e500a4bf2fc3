"""Where does everything of a class lie? The one place that knows the names in OUT.

| in OUT | what it is |
|---|---|
| `class.json` | the entries with their keys, the edition, the options: written when a batch begins |
| `journal.jsonl` | one line a finished submission, never changed, only appended to |
| `results/NAME/` | `result.json` and `report.html` of each submission |
| `submissions/` | what lay in a platform's zip |
| `timings.jsonl` | how long everything took; nothing else in OUT has a clock |
| `secret` | what the hidden inputs are drawn from, unless --seed says it |
| `grades.csv canvas.csv unmatched.csv review.toml feedback.zip` | the gradebook |
| `class-file`, `review.toml.bak` | which class file was used last; the decisions before the last change |
| `anonymous.key`, `anonymous/` | the order of the anonymous students, and their tables |
| `similarity/` | `similarity.json` and its pages |
| `index.html` | the dashboard |

OUT is private: mode 0700.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autograder.batch.records import Entry
from errors import UsageError
from utils import atomic_path

FORMAT = 1  # of class.json
NO_KEYS: Mapping[str, str] = {}

Content = TypeVar("Content")


@dataclass(frozen=True)
class ClassFolder:
    """The folder OUT of a class."""

    out: Path

    @property
    def journal(self) -> Path:
        """Which submissions are done."""
        return self.out / "journal.jsonl"

    @property
    def timings(self) -> Path:
        """How long each took: one JSON object a line, with the entry's name, seconds, and the stages."""
        return self.out / "timings.jsonl"

    @property
    def similarity(self) -> Path:
        """The pairs that are alike, if somebody looked."""
        return self.out / "similarity" / "similarity.json"

    def make(self) -> None:
        """Make OUT, readable for its owner alone. Raises UsageError if that is not possible."""
        try:
            self.out.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.out.chmod(0o700)
        except OSError as error:
            raise UsageError(f"{self.out} cannot be used ({error.strerror}): name another folder with -o") from error

    def result_folder(self, name: str) -> str:
        """Return the folder of an entry's results, below OUT: readable, unique, and safe whatever the name is."""
        slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name.removesuffix(".zip")).strip("._-")[:60] or "submission"
        return f"results/{slug}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"

    def write_entries(
        self, entries: Sequence[Entry], edition: str, options: dict[str, Any], keys: Mapping[str, str] = NO_KEYS
    ) -> None:
        """Note what the class consists of, in the order of names; `keys` say which row is of which entry."""
        content = {
            "format": FORMAT,
            "edition": edition,
            "options": options,
            "entries": [vars(entry) for entry in sorted(entries, key=lambda entry: entry.name)],
            "keys": dict(sorted(keys.items())),
        }
        path = self.out / "class.json"
        with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
            json.dump(content, file, indent=1)  # piece by piece: the text of a large class is larger than all else here
            file.write("\n")

    def read_entries(self) -> tuple[list[Entry], str]:
        """Return the entries and the edition of the last batch. Raises UsageError if there was none here."""
        return self._read(lambda content: ([Entry(**entry) for entry in content["entries"]], content["edition"]))

    def read_keys(self) -> dict[str, str]:
        """Return the key of each entry of the last batch, empty if there is none. Raises UsageError as read_entries."""
        return self._read(
            lambda content: {
                entry["name"]: content.get("keys", {}).get(entry["name"], "") for entry in content["entries"]
            }
        )

    def _read(self, build: Callable[[Any], Content]) -> Content:
        """Return what is made of the content of `class.json`."""
        path = self.out / "class.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["format"] != FORMAT:
                raise UsageError(f"{path} has format {content['format']}, expected {FORMAT}: grade the class again")
            return build(content)
        except OSError as error:
            raise UsageError(f"no class was graded into {self.out}: `python -m autograder batch` does that") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is damaged ({error}): run the same batch again") from error

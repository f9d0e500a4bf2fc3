"""How is it written down what became of a submission? Its files first, then its row: whoever has one has the other."""

import json
import shutil
from types import TracebackType

from autograder.batch.folder import ClassFolder
from autograder.batch.journal import Journal, LineFile, State
from autograder.batch.judging import Judged
from autograder.batch.records import Entry, Row, summarise
from autograder.report.plain import one_line
from autograder.result import Result
from utils import write_text


class Records:
    """The records of a class, opened for writing: only one batch at a time can do that."""

    def __init__(self, folder: ClassFolder) -> None:
        """Open or make them. Raises UsageError if another batch has them open, or if they cannot be written."""
        self.folder = folder
        self._journal = Journal(folder.journal)
        self._timings = LineFile(folder.timings)

    def __enter__(self) -> "Records":
        """Return these records; leaving the block closes them."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others write."""
        self._timings.close()
        self._journal.close()

    def rows(self) -> dict[str, Row]:
        """Return the latest row of each entry, by its name."""
        return self._journal.rows()

    def states(self) -> dict[str, State]:
        """Return what the latest row of each entry says, by its name."""
        return self._journal.states()

    def note(self, entry: Entry, key: str, sha256: str, judged: Judged) -> Row:
        """Write down what became of an entry, and return its row."""
        result = Result.from_json(judged.result) if judged.result else None
        folder = self.folder.result_folder(entry.name)
        if result:
            for torn in (self.folder.out / folder).glob(".*.tmp"):
                torn.unlink()  # a batch was killed as it wrote this
            write_text(self.folder.out / folder / "report.html", judged.report)
            write_text(self.folder.out / folder / "result.json", judged.result)
        else:
            shutil.rmtree(self.folder.out / folder, ignore_errors=True)  # of what lay there before
        row = Row(
            name=entry.name,
            key=key,
            status=judged.status,
            student_id=result.submission if result else entry.student_id or _last_part(entry.name),
            sha256=sha256,
            reason=one_line(judged.reason, 2000),
            folder=folder if result else "",
            summary=summarise(result) if result and judged.status == "graded" else None,
        )
        self._journal.append(row)
        self._timings.append(json.dumps({"name": entry.name, **judged.timings}))
        return row


def _last_part(name: str) -> str:
    """Return the most likely ID of a student, of whose submission there is only a name."""
    return name.rpartition("/")[2].removesuffix(".zip")

"""Grades a class: every submission whose grade is not known yet, several at a time.

    status = run_batch(Path("submissions"), "minllama", Path("out"), BatchOptions(jobs=4), write_tables)

Only this process writes into OUT: the files of a submission first, then its line in the journal. So it can be ended at
any moment, in any way; the same command goes on where it was, and what comes out in the end is the same.
"""

import hashlib
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autograder.batch.folder import ClassFolder
from autograder.batch.found import find_entries
from autograder.batch.judging import JUDGE, Judged, Task
from autograder.batch.keys import digest, forced, key_of, terms_of
from autograder.batch.progress import Progress
from autograder.batch.recording import Records
from autograder.batch.records import Entry
from autograder.batch.workers import Threads, Workers
from autograder.editions import Edition, read_edition
from autograder.grade import Options, check_checkpoint, kept_secret
from autograder.isolation.backends import Backend
from autograder.isolation.sandbox import usable
from errors import MinLlamaError

ROOT = Path(__file__).resolve().parents[2]
UNGRADED, INTERRUPTED = 3, 130  # exit statuses
AHEAD = 2  # tasks for each worker that are handed out: nobody waits, and little is in memory
BACKSTOP, RERUN_BACKSTOP = 30 * 60.0, 12 * 3600.0  # seconds by the clock; what a submission may use is limited inside
TABLES = 30.0  # seconds between two times that the tables are made
TRIES = 2  # of a submission whose worker is lost
TURN = 1.0  # seconds between two looks, if nothing happens
SENT = ("backend", "seed", "checkpoint", "rerun", "rerun_arguments")  # options of each submission, as they are

Remake = Callable[[ClassFolder], None]


@dataclass(frozen=True)
class BatchOptions:
    """What an instructor may choose about a class; see `grade.Options` for what concerns each submission."""

    jobs: int | None = None  # submissions at a time; by default one a processor
    dask: str | None = None  # address of a cluster's scheduler, which grades instead
    regrade: tuple[str, ...] = ()  # names of entries, IDs of students, names of checks
    backend: Backend | None = None
    seed: str | None = None  # the secret; by default one is drawn and kept in OUT
    checkpoint: str | None = None
    data: Path = ROOT / "data"
    rerun: tuple[str, ...] = ()
    rerun_arguments: tuple[str, ...] = ()
    seconds: float | None = None  # by the clock, after which one submission is given up
    judge: str = JUDGE  # module:function that grades, for tests

    def of_each(self, secret: str | None) -> Options:
        """Return the options of each submission."""
        return Options(
            backend=self.backend,
            seed=secret,
            checkpoint=self.checkpoint,
            data=self.data.absolute(),
            rerun=self.rerun,
            rerun_arguments=self.rerun_arguments,
        )

    def told(self) -> dict[str, Any]:
        """Return what `class.json` says of them: never the secret."""
        kept = ("backend", "checkpoint", "rerun", "rerun_arguments")
        return {name: getattr(self, name) for name in kept}


def run_batch(folder: Path, edition_name: str, out: Path, options: BatchOptions, remake: Remake) -> int:
    """Grade a class; return the exit status: 0, 3 if the grader failed with some, 130 after ctrl-C.

    `remake` makes the tables of what is done; it is called now and then, and at the end. Raises MinLlamaError for what
    concerns the class as a whole; what concerns one submission is in its row.
    """
    edition = read_edition(edition_name)
    _check(edition, options)
    place = ClassFolder(out)
    place.make()
    with Records(place) as records:
        entries = find_entries(folder, out / "submissions")
        name = str(Path(edition_name).absolute()) if edition_name.endswith(".toml") else edition_name
        batch = _Batch(records, edition, options, entries, remake)
        place.write_entries(entries, name, options.told(), batch.keys())
        return batch.run()


def _check(edition: Edition, options: BatchOptions) -> None:
    """Raise MinLlamaError for what would go wrong with every submission."""
    check_checkpoint(edition, options.of_each(None))
    if not options.dask:
        usable(options.backend)


@dataclass(frozen=True)
class _Bytes:
    """What an entry consists of as the batch begins: its key, the SHA-256, and why it cannot be read, if so."""

    key: str
    sha256: str
    problem: str = ""


@dataclass
class _Todo:
    """A submission that is to be graded."""

    entry: Entry
    key: str
    task: Task
    tries: int = 0


class _Batch:
    """One run over a class."""

    def __init__(
        self, records: Records, edition: Edition, options: BatchOptions, entries: Sequence[Entry], remake: Remake
    ) -> None:
        """Find out what is to be done."""
        out = records.folder.out
        self._records, self._edition, self._options, self._remake = records, edition, options, remake
        self._each = options.of_each(options.seed or kept_secret(out))
        self._terms = terms_of(edition, self._each)
        self._place = hashlib.sha256(str(out.resolve()).encode()).hexdigest()[:12]
        self._running: dict[Future[Judged], _Todo] = {}
        self._again: list[_Todo] = []  # whose worker was lost
        self._next_tables = time.monotonic() + TABLES
        self._entries = entries
        self._bytes = {entry.name: self._look_at(entry) for entry in entries}
        self._todo = self._undone()
        self._progress = Progress(len(entries), len(entries) - len(self._todo), sys.stderr)

    def keys(self) -> dict[str, str]:
        """Return the key of each entry, by its name: a row of another key is not of what is there now."""
        return {name: found.key for name, found in self._bytes.items()}

    def run(self) -> int:
        """Grade what has to be graded; return the exit status."""
        try:
            self._grade()
        except KeyboardInterrupt:
            self._next_tables = 0.0
            self._make_tables()
            self._progress.close()
            self._progress.say("interrupted: what is graded is kept, and the same command goes on")
            return INTERRUPTED
        self._remake(self._records.folder)
        self._progress.close()
        states = self._records.states()
        return UNGRADED if any(states[entry.name].status == "ungraded" for entry in self._entries) else 0

    def _undone(self) -> list[Entry]:
        """Return the entries that have to be graded."""
        regrade = self._options.regrade
        again = forced(regrade, self._entries, self._records.rows(), self._edition) if regrade else set()
        done = {name: state.key for name, state in self._records.states().items() if state.status != "ungraded"}
        return [
            entry
            for entry in self._entries
            if entry.name in again or done.get(entry.name) != self._bytes[entry.name].key
        ]

    def _look_at(self, entry: Entry) -> _Bytes:
        """Read an entry's bytes."""
        sha256 = problem = ""
        if not entry.problem:
            try:
                sha256 = digest(Path(entry.path))
            except OSError as error:
                problem = f"{entry.path} cannot be read ({error.strerror}): mend its permissions"
        return _Bytes(key_of(entry, sha256, self._terms), sha256, problem)

    def _grade(self) -> None:
        """Have submissions graded until none is left, and note each as soon as it is done."""
        todo = filter(None, map(self._begin, self._todo))
        workers = self._workers()
        try:
            while self._fill(todo, workers) or self._running:
                done, _ = wait(self._running, timeout=TURN, return_when=FIRST_COMPLETED)
                self._collect(done)
                self._make_tables()
                self._progress.look(next((item.entry.name for item in self._running.values()), ""))
        finally:
            workers.stop(list(self._running))

    def _workers(self) -> Workers:
        """Return who grades."""
        if self._options.dask is None:
            return Threads(self._place, self._options.jobs)
        from autograder.batch.cluster import Cluster

        return Cluster(self._options.dask, self._place)

    def _fill(self, todo: Iterator[_Todo], workers: Workers) -> bool:
        """Hand out tasks, a few more than there are workers. Return whether some may be left."""
        for _ in range(AHEAD * workers.count() - len(self._running)):
            item = self._again.pop() if self._again else next(todo, None)
            if item is None:
                return False
            item.tries += 1
            self._running[workers.submit(item.task)] = item
        if not self._running:
            time.sleep(TURN)  # there are no workers just now
        return True

    def _begin(self, entry: Entry) -> _Todo | None:
        """Return what there is to do about an entry; nothing if it cannot even be read, which is noted."""
        found = self._bytes[entry.name]
        if entry.problem or found.problem:
            judged = Judged("unreadable", entry.problem) if entry.problem else Judged("ungraded", found.problem)
            self._progress.add(self._records.note(entry, found.key, "", judged))
            return None
        task = Task(
            name=entry.name,
            path=entry.path,
            sha256=found.sha256,
            place=self._place,
            grader=self._terms["grader"],
            edition=self._edition.model_dump_json(),
            options={name: getattr(self._each, name) for name in SENT}
            | {"student_id": entry.student_id, "data": str(self._each.data)},
            seconds=self._options.seconds or (RERUN_BACKSTOP if self._each.rerun else BACKSTOP),
            judge=self._options.judge,
        )
        return _Todo(entry, found.key, task)

    def _collect(self, done: "Collection[Future[Judged]]") -> None:
        """Note what has become of tasks. One whose worker is lost is handed out once more."""
        for future in done:
            item = self._running.pop(future)
            try:
                judged = future.result()
            except Exception as error:  # of the machinery between here and the judge, which is never a grade
                if item.tries < TRIES:
                    self._again.append(item)
                    continue
                judged = Judged("ungraded", f"its worker was lost: {type(error).__name__}: {error}")
            self._progress.add(self._records.note(item.entry, item.key, item.task.sha256, judged))

    def _make_tables(self) -> None:
        """Make the tables of what is done, if it is time. What a person has to mend there can wait until the end."""
        started = time.monotonic()
        if started < self._next_tables:
            return
        try:
            self._remake(self._records.folder)
        except MinLlamaError as error:
            self._progress.say(f"the tables cannot be made yet: {error}")
        now = time.monotonic()
        self._next_tables = now + max(TABLES, 20 * (now - started))

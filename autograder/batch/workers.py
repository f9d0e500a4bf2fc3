"""Who grades? Threads of this process, each with a judge process of its own; `cluster.py` has the others."""

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor

from autograder.batch.judging import Judged, Task, close_judges, judge_entry, stop_judges


class Workers(ABC):
    """Those who grade the submissions of a class, several at a time."""

    @abstractmethod
    def submit(self, task: Task) -> "Future[Judged]":
        """Have a submission graded as soon as somebody is free."""

    @abstractmethod
    def count(self) -> int:
        """Return how many submissions are graded at a time. Raises UsageError if nobody is left."""

    @abstractmethod
    def stop(self, running: "Collection[Future[Judged]]") -> None:
        """End at once what still runs, and clear up."""


class Threads(Workers):
    """Threads of this process. The judging is done by processes, so that one that dies takes nothing with it."""

    def __init__(self, place: str, jobs: int | None = None) -> None:
        """Prepare so many threads; by default as many as there are processors for us."""
        self._place = place
        self._jobs = jobs or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(self._jobs, thread_name_prefix="judge")

    def submit(self, task: Task) -> "Future[Judged]":
        """Have a submission graded as soon as a thread is free."""
        return self._pool.submit(judge_entry, task)

    def count(self) -> int:
        """Return the number of threads."""
        return self._jobs

    def stop(self, running: "Collection[Future[Judged]]") -> None:
        """Kill the judge processes, and wait for the threads, which then have nothing to do."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        stop_judges(self._place)
        while not all(future.done() for future in running):
            time.sleep(0.05)
            stop_judges(self._place)  # a thread may have been about to start one
        close_judges(self._place)

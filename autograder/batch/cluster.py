"""How is a class graded on several machines? By the workers of a Dask cluster, which see the same files.

    python -m autograder batch submissions -o out --dask tls://head:8786

Whoever reaches the ports of a cluster runs code on it as its owner: they need TLS, or must not leave the machine.
"""

import ipaddress
import json
import sys
import time
from collections.abc import Collection
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from autograder.batch.judging import Judged, Task, close_judges, judge_entry, stop_judges
from autograder.batch.workers import Workers
from autograder.report.plain import one_line
from autograder.version import grader_version
from errors import MissingDependency, UsageError

if TYPE_CHECKING:
    from distributed import Client

PATIENCE = 120.0  # seconds that all workers may be gone: a cluster may be about to start others
ANSWER = 20.0  # seconds that the scheduler may take to answer


class Cluster(Workers):
    """The workers of a Dask cluster."""

    def __init__(self, address: str, place: str) -> None:
        """Connect to the scheduler at an address, or to the one that a scheduler file names.

        Raises UsageError if it is not there, has no workers, or these are not ours.
        """
        self._place = place
        self._client = connect(address)
        self._executor = self._client.get_executor()
        self._seen = time.monotonic()
        try:
            _check_workers(self._client, address)
        except UsageError:
            self._client.close()
            raise

    def submit(self, task: Task) -> "Future[Judged]":
        """Have a submission graded as soon as a worker is free."""
        future: Future[Judged] = self._executor.submit(judge_entry, task)
        return future

    def count(self) -> int:
        """Return the number of threads of all workers; it may change. Raises UsageError if nobody is left."""
        try:
            threads: dict[str, int] = self._client.sync(self._client.scheduler.ncores, callback_timeout=ANSWER)
        except (OSError, TimeoutError, RuntimeError) as error:
            raise UsageError(f"the scheduler of the cluster is gone ({type(error).__name__}): {GO_ON}") from error
        count = sum(threads.values())
        if count:
            self._seen = time.monotonic()
        elif time.monotonic() - self._seen > PATIENCE:
            raise UsageError(f"all workers of the cluster have been gone for {PATIENCE:.0f} seconds: {GO_ON}")
        return count

    def stop(self, running: "Collection[Future[Judged]]") -> None:
        """Give up what still runs, and end the judge processes of this class."""
        try:
            self._executor.shutdown(wait=False)
            for end in (stop_judges, close_judges):
                self._client.run(end, self._place, on_error="ignore")
        except (OSError, TimeoutError, RuntimeError):
            pass  # a cluster that is gone has nothing to end
        self._client.close(timeout=ANSWER)


GO_ON = "what is graded is kept; start the cluster and run the same command again"


def connect(address: str) -> "Client":
    """Return a connection to a scheduler. Raises MissingDependency without Dask, and UsageError if nobody answers."""
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependency("a cluster", "distributed") from error
    try:
        if address.endswith(".json"):
            address = json.loads(Path(address).read_text(encoding="utf-8"))["address"]
        _warn_of_open_ports(address)
        return Client(address, timeout=ANSWER, set_as_default=False)
    except (OSError, ValueError, TypeError, KeyError) as error:
        what = f"no scheduler answers at {one_line(address, 200)} ({one_line(str(error), 300)})"
        raise UsageError(f"{what}: start one with `dask scheduler`, or grade on this machine with --jobs") from error


def _warn_of_open_ports(address: str) -> None:
    """Say so if what is sent to a cluster can be read, and forged, by whoever is on the way."""
    if "://" not in address or address.startswith("tls://"):
        return
    host = urlsplit(address).hostname or ""
    try:
        is_here = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = host == "localhost"
    if not is_here:
        what = f"warning: {one_line(address, 200)} is not encrypted, and whoever reaches its port runs code as you"
        print(f"{what}: use tls://, see autograder/README.md", file=sys.stderr)


def _check_workers(client: "Client", address: str) -> None:
    """Raise UsageError if there are no workers, or if some would grade otherwise than this process."""
    try:
        answers: dict[str, Any] = client.run(_who, on_error="return")
    except (OSError, TimeoutError, RuntimeError) as error:
        raise UsageError(f"the cluster does not answer ({type(error).__name__}): start it anew") from error
    if not answers:
        raise UsageError(f"the scheduler at {one_line(address, 200)} has no workers: start some with `dask worker`")
    for worker, told in sorted(answers.items()):
        if told != _who():
            what = (
                f"the worker {worker} has another grader or another Python: {one_line(str(told), 300)}, here {_who()}"
            )
            raise UsageError(f"{what}. Start it in the same repository, with PYTHONPATH, and after the last change")


def _who() -> tuple[str, str]:
    """Return the versions of the grader and of Python."""
    return grader_version(), sys.version.split()[0]

"""How much may a sandbox write where it has no file system of its own? A thread looks, and kills it beyond that."""

import contextlib
import errno
import os
import stat
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from autograder.isolation.memory import descendants

INTERVAL = 0.2  # seconds between two looks


class DiskWatch:
    """Adds up what lies in folders, and in files that are open and have no name any more."""

    def __init__(self, folders: Sequence[Path], user: int, most: int, process: int, kill: Callable[[], None]) -> None:
        """Begin to look; `kill` is called once if the user's files take more than `most` bytes."""
        self._folders, self._user, self._most, self._process, self._kill = folders, user, most, process, kill
        self._closed = threading.Event()
        self.has_killed = False
        threading.Thread(target=self._look, daemon=True, name="disk").start()

    def _look(self) -> None:
        """Add up until this is closed or there is too much."""
        while not self._closed.wait(INTERVAL):
            if used_bytes(self._folders, self._user, self._process) > self._most:
                self.has_killed = True
                self._kill()
                return

    def close(self) -> None:
        """Stop looking."""
        self._closed.set()


def used_bytes(folders: Sequence[Path], user: int, process: int) -> int:
    """Return what the files of a user take in folders, and what its processes hold open without a name."""
    total = 0
    waiting = list(folders)
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    facts = entry.stat(follow_symlinks=False)
                    if facts.st_uid == user:
                        total += facts.st_blocks * 512
                        waiting += [Path(entry.path)] if stat.S_ISDIR(facts.st_mode) else []
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # a place to hide in, built by hand
                return sys.maxsize
    for member in descendants(process):
        with contextlib.suppress(OSError), os.scandir(f"/proc/{member}/fd") as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    facts = entry.stat()
                    if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 0 and facts.st_uid == user:
                        total += facts.st_blocks * 512
    return total

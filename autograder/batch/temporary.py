"""Where is a submission unpacked while it is graded, and who clears up when everything is killed?

All judge processes of a class on one machine share a folder below the system's temporary one. Each holds a lock on it
as long as it lives, and whoever finds itself alone empties it. So what a killed batch has left is gone as soon as the
same class is graded again, and nothing is taken from one that is still at work.
"""

import contextlib
import fcntl
import os
import stat
import tempfile
from pathlib import Path

from autograder.sandboxed.cleaning import empty_folder, remove_folder
from errors import SandboxError


class SharedFolder:
    """A folder that is emptied by the first to come, and removed by the last to leave."""

    def __init__(self, name: str) -> None:
        """Make it or join those who use it. Raises SandboxError if somebody else has made it."""
        self.path = Path(tempfile.gettempdir(), f"minllama-batch-{os.getuid()}-{name}")
        while not self._enter():
            os.close(self._lock)

    def _enter(self) -> bool:
        """Take a share of the lock. Return whether the folder is still there, not just removed by the last to leave."""
        with contextlib.suppress(FileExistsError):
            self.path.mkdir(mode=0o700)
        facts = self.path.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
            raise SandboxError(f"{self.path} belongs to somebody else: remove it, or name another folder in TMPDIR")
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        os.fchmod(self._lock, 0o711)  # the users of sandboxes pass through, and see nothing
        if self._is_alone():
            empty_folder(self.path)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return self.path.exists() and os.path.samestat(self.path.lstat(), os.fstat(self._lock))

    def _is_alone(self) -> bool:
        """Take the whole lock if nobody else holds a share. Return whether that worked."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def leave(self) -> None:
        """Give the share back; the last one removes the folder."""
        if self._is_alone():
            remove_folder(self.path)
        os.close(self._lock)

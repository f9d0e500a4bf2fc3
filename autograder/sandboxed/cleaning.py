"""How is a stranger's folder removed? Without recursion and long paths, both of which it may be built to break."""

import os
from pathlib import Path


def empty_folder(folder: Path) -> bool:
    """Remove all that lies in a folder, however deep and whatever its permissions say. Return whether that worked.

    Links are removed and never followed. Nothing else may change the folder meanwhile.
    """
    waiting = [folder]
    moved = 0
    try:
        while waiting:
            current = waiting.pop()
            with os.scandir(current) as entries:
                found = list(entries)
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    Path(entry.path).unlink()
                    continue
                Path(entry.path).chmod(0o700)
                target = folder / f".removing-{moved}"
                while os.path.lexists(target):
                    moved += 1
                    target = folder / f".removing-{moved}"
                Path(entry.path).rename(target)  # up to the top, so that no path grows long
                waiting.append(target)
            if current != folder:
                current.rmdir()
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False


def remove_folder(folder: Path) -> bool:
    """Remove a folder with all that lies in it. Return whether that worked."""
    if not empty_folder(folder):
        return False
    try:
        folder.rmdir()
    except OSError:
        return False
    return True

"""How far is the batch? A bar where somebody watches, and else a line now and then."""

import time
from collections import Counter
from typing import TextIO

from tqdm import tqdm

from autograder.batch.records import Row
from autograder.report.plain import one_line

INTERVAL = 20.0  # seconds between two lines
NAMED = 3  # submissions that a reason names
TOLD = 20  # reasons that are told


class Progress:
    """Counts what is done, and tells it on a stream."""

    def __init__(self, total: int, done: int, stream: TextIO) -> None:
        """Begin where `done` of `total` submissions need no grading any more."""
        self._total, self._first = total, done
        self._stream = stream
        self._counts: Counter[str] = Counter()
        self._reasons: dict[str, list[str]] = {}
        self._started = self._told = time.monotonic()
        self._bar = tqdm(total=total, initial=done, file=stream, unit=" submissions") if stream.isatty() else None
        if done:
            self.say(f"{done} of {total} are graded already")

    def say(self, text: str) -> None:
        """Print a line of our own."""
        tqdm.write(text, file=self._stream)

    def add(self, row: Row) -> None:
        """Count one that is done."""
        self._counts[row.status] += 1
        if row.status != "graded":
            self._reasons.setdefault(f"{row.status}: {one_line(row.reason, 500)}", []).append(row.name)
        if self._bar is not None:
            self._bar.set_postfix_str(self._kinds(), refresh=False)
            self._bar.update()

    def look(self, oldest: str) -> None:
        """Tell how far we are, if it is time; `oldest` has been waiting or running longest."""
        now = time.monotonic()
        if self._bar is not None or now - self._told < INTERVAL:
            return
        self._told = now
        done = sum(self._counts.values())
        rate = done / (now - self._started)
        left = (self._total - self._first - done) / rate / 60 if rate else None
        ahead = "" if left is None else f", {60 * rate:.1f} a minute, {left:.0f} minutes left"
        longest = f"; longest at work: {one_line(oldest, 80)}" if oldest else ""
        self.say(f"{self._first + done} of {self._total}; in this run {self._kinds()}{ahead}{longest}")

    def close(self) -> None:
        """Tell what became of the class."""
        if self._bar is not None:
            self._bar.close()
        if self._counts:
            self.say(f"in this run: {self._kinds()}")
        common = sorted(self._reasons.items(), key=lambda item: (-len(item[1]), item[0]))
        for reason, names in common[:TOLD]:
            others = f" and {len(names) - NAMED} others" if len(names) > NAMED else ""
            self.say(f"{reason}\n    {', '.join(one_line(name, 80) for name in names[:NAMED])}{others}")
        if len(common) > TOLD:
            self.say(f"and {len(common) - TOLD} other reasons: they are in journal.jsonl")

    def _kinds(self) -> str:
        """Return how many ended how."""
        return ", ".join(f"{self._counts[status]} {status}" for status in ("graded", "unreadable", "ungraded"))

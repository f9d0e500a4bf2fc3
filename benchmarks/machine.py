"""What a figure was measured on, and how: the machine, the versions, and contenders that take turns."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from utils import progress

PACKAGES = ("torch", "transformers", "numpy")


@dataclass(frozen=True)
class Timing:
    """The seconds of one contender's rounds; the median, the fastest and the slowest; the very first time of all."""

    median: float
    fastest: float
    slowest: float
    first: float  # with whatever has to be prepared or compiled
    rounds: list[float]  # round i is a neighbour in time of every other contender's round i


def describe() -> dict[str, str | int]:
    """Return what a reader needs to know of the machine."""
    machine: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            machine[package] = "not installed"
    return machine


def take_turns(contenders: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, Timing]:
    """Time every contender once a round, in turns: what else the machine does falls on all of them alike."""
    first: dict[str, float] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, run in contenders.items():
        first[name], *_ = [_seconds(run) for _ in progress(range(warm_up), f"warming up {name}")]
    gc.collect()
    for _ in progress(range(rounds), "rounds"):
        for name, run in contenders.items():
            seconds[name].append(_seconds(run))
    return {
        name: Timing(statistics.median(taken), min(taken), max(taken), first[name], taken)
        for name, taken in seconds.items()
    }


def _seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")

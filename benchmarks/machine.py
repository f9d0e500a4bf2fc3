"""What a figure was measured on, and how: the machine, its limits, and contenders that take turns."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from pretrain.throughput import matmul_flops
from utils import progress

PACKAGES = ("torch", "transformers", "numpy", "xllamacpp")
CPU = torch.device("cpu")
GIBIBYTE = 2**30
COLUMNS = 2048  # of the matrix that is read


@dataclass(frozen=True)
class Timing:
    """The seconds of one contender's rounds; the median, the fastest and the slowest; the very first time of all."""

    median: float
    fastest: float
    slowest: float
    first: float  # with whatever has to be prepared or compiled
    rounds: list[float]  # round i is a neighbour in time of every other contender's round i


def describe(device: torch.device = CPU) -> dict[str, str | int]:
    """Return what a reader needs to know of the machine, and of the graphics card if `device` is one."""
    machine: dict[str, str | int] = {
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        machine["gpu"] = torch.cuda.get_device_name(device)
    for package in PACKAGES:
        try:
            machine[package] = version(package)
        except PackageNotFoundError:
            machine[package] = "not installed"
    return machine


# ---------------------------------------------------------------------------------------------------- time


def seconds(run: Callable[[], object]) -> float:
    """Return how long a call takes, a GPU's part of it included."""
    _wait()
    start = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - start


def take_turns(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    warm_up: int = 2,
    timer: Callable[[Callable[[], object]], float] = seconds,
) -> dict[str, Timing]:
    """Time every contender once a round, in turns: what else the machine does falls on all of them alike.

    `timer` runs a contender and says how long it took. Contenders that know themselves which part of a call counts
    return its seconds, and `timer` is `own_seconds`.
    """
    first: dict[str, float] = {}
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for name, run in contenders.items():
        first[name], *_ = [timer(run) for _ in progress(range(warm_up), f"warming up {name}")]
    gc.collect()
    for _ in progress(range(rounds), "rounds"):
        for name, run in contenders.items():
            taken[name].append(timer(run))
    return {
        name: Timing(statistics.median(times), min(times), max(times), first[name], times)
        for name, times in taken.items()
    }


def own_seconds(run: Callable[[], object]) -> float:
    """Return what the contender returns: the seconds that count."""
    result = run()
    if not isinstance(result, float):
        raise TypeError(f"a contender that times itself returns seconds, got {result!r}")
    return result


def _wait() -> None:
    """Wait for the GPU, if one is in use, which works ahead of the program."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


class StolenTime:
    """What the host of a virtual machine kept of its processors for others, from here on."""

    def __init__(self) -> None:
        """Start to count."""
        self._start = _ticks()

    def share(self) -> float | None:
        """Return the share of the processor time that was asked for here and not given; None where nobody counts."""
        end = _ticks()
        if self._start is None or end is None:
            return None
        stolen, wanted = (now - before for now, before in zip(end, self._start, strict=True))
        return stolen / wanted if wanted else 0.0


def _ticks(stat: Path = Path("/proc/stat")) -> tuple[int, int] | None:
    """Return the ticks since the start of the machine that were stolen, and those that were wanted (not idle)."""
    try:
        name, *fields = stat.read_text(encoding="utf-8").splitlines()[0].split()
    except OSError:  # not Linux
        return None
    if name != "cpu" or len(fields) < 8:
        return None
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen = map(int, fields[:8])
    return stolen, user + nice + system + interrupts + soft_interrupts + stolen


# ---------------------------------------------------------------------------------------------------- limits


def reading(size: int, device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> Callable[[], object]:
    """Return a call that reads a matrix of about `size` bytes once: a matrix-vector product.

    It is the least that decoding a token has to do with weights of so many bytes. Where they fit into a cache, both
    read the cache.
    """
    columns = min(COLUMNS, max(1, size // dtype.itemsize))
    rows = max(1, size // (columns * dtype.itemsize))
    matrix = torch.ones(rows, columns, device=device, dtype=dtype)
    vector = torch.ones(columns, device=device, dtype=dtype)
    return lambda: torch.mv(matrix, vector)


@cache
def bandwidth(device: torch.device = CPU, size: int = GIBIBYTE) -> float:
    """Measure the bytes a second that a large matrix-vector product reads: the best of several.

    A GiB is more than the caches of most processors hold; where it is not, it is the cache's speed that is measured.
    """
    run = reading(size, device)
    return size / min(seconds(run) for _ in range(8))


def matmul_rate(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> float:
    """Measure the floating-point operations a second of a large matrix product, afresh each time."""
    return matmul_flops.__wrapped__(device, dtype)


def best_matmul_rate(device: torch.device = CPU, dtype: torch.dtype = torch.float32) -> float:
    """Measure a large matrix product several times, and return the most operations a second: what can be reached."""
    return max(matmul_rate(device, dtype) for _ in range(5))


def _processor() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")

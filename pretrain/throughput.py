"""What the machine can do and what the run takes of it: matrix products a second, memory."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

MEBIBYTE = 2**20


@cache
def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the floating-point operations a second of a large matrix product: the best of a few, in some 0.3 s."""
    size = 1024 if device.type == "cpu" else 4096
    a = torch.randn(size, size, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        _synchronise(device)
        start = time.perf_counter()
        a @ a
        _synchronise(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def peak_memory(device: torch.device) -> float:
    """Return the most memory that was used so far, in MiB: the device's, or the process's on a CPU (0 on Windows)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEBIBYTE
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 1 if sys.platform == "darwin" else 1024  # Linux counts in KiB, macOS in bytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / MEBIBYTE


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Return the dtype of matrix products: bfloat16 where `auto` finds hardware for it, else float32."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    return torch.float32


class Meter:
    """Times the steps, and says what they took of the machine. What happens between two steps is not timed."""

    def __init__(
        self,
        *,
        tokens_per_step: int,
        flops_per_token: int,
        flops_per_second: float,
        device: torch.device,
        steps: int = 0,
        seconds: float = 0.0,
    ) -> None:
        """Start after `steps` steps that took `seconds`; `flops_per_second` is what the machine can do."""
        self.tokens_per_step, self.device = tokens_per_step, device
        self.flops_per_token, self.flops_per_second = flops_per_token, flops_per_second
        self.steps, self.seconds = steps, seconds
        self._last_row = steps, seconds

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Time one step."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start
        self.steps += 1

    def row(self) -> dict[str, float | int]:
        """Return what the log says of the steps since the last row, and begin the next interval."""
        steps, seconds = self._last_row
        self._last_row = self.steps, self.seconds
        speed = (self.steps - steps) * self.tokens_per_step / (self.seconds - seconds)
        return {
            "tokens": self.steps * self.tokens_per_step,
            "tokens_per_second": speed,
            "mfu": speed * self.flops_per_token / self.flops_per_second,
            "memory_mb": peak_memory(self.device),
            "seconds": self.seconds,
        }


def _synchronise(device: torch.device) -> None:
    """Wait for the GPU, which works ahead of the program."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)

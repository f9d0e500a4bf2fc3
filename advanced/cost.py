"""What a run costs: seconds, processor seconds and memory, measured on the run itself."""

import gc
import os
import sys
import time
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # proc(5): the peak starts again from what is in use now


class Meter:
    """Counts from its making on. Memory is the most that was held at a time, beyond what was held at the start."""

    def __init__(self, device: torch.device) -> None:
        """Start to count."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self._restart_peak()
        self._memory = _peak_bytes()
        self._seconds, self._cpu_seconds = time.monotonic(), time.process_time()

    def stop(self) -> dict[str, float | int | None]:
        """Return what the run took; `peak_bytes` is None where the system does not tell."""
        peak, before = _peak_bytes(), self._memory
        if self.device.type == "cuda":
            peak, before = torch.cuda.max_memory_allocated(self.device), 0
        return {
            "seconds": round(time.monotonic() - self._seconds, 1),
            "cpu_seconds": round(time.process_time() - self._cpu_seconds, 1),
            "peak_bytes": None if peak is None or before is None else peak - before,
        }

    @staticmethod
    def _restart_peak() -> None:
        """Forget the peak so far, where Linux allows it; elsewhere a process should measure one run."""
        try:
            CLEAR.write_text(RESET_PEAK)
        except OSError:
            return


def size_of(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()


def live_bytes() -> int:
    """Return the bytes of all tensors that exist in this process; what several of them share counts once."""
    gc.collect()
    storages = {}
    for found in gc.get_objects():
        if type(found) in (torch.Tensor, torch.nn.Parameter):
            for tensor in (found, found.grad if found.is_leaf else None):
                if tensor is None or tensor.layout != torch.strided:
                    continue
                try:
                    storage = tensor.untyped_storage()
                    storages[storage.data_ptr()] = storage.nbytes()
                except RuntimeError:  # a compiler's stand-in, which has no numbers
                    continue
    return sum(storages.values())


def _peak_bytes() -> int | None:
    """Return the most memory that this process held at a time; None on Windows, which does not say."""
    try:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        pass
    if os.name == "nt":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

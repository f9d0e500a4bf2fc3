"""The processes of a run: one, or as many as torchrun started."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist

from errors import UsageError
from utils import pick_device


@dataclass(frozen=True)
class World:
    """The process's place among all: its rank, their number, and the device that it computes on."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return self.rank == 0

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Return the mean of `value` over all processes."""
        return self.total(value) / self.size

    def total(self, value: torch.Tensor) -> torch.Tensor:
        """Return the sum of `value` over all processes."""
        value = value.clone()
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def on_main(self, action: Callable[[], None]) -> None:
        """Let the main process do something, and the others wait for it.

        If it fails there, its error is raised there, and the others leave without a word of their own.
        """
        error: Exception | None = None
        if self.is_main:
            try:
                action()
            except Exception as caught:  # whatever it is: the others must not wait for a process that is gone
                error = caught
        failed = self.total(torch.tensor(float(error is not None), device=self.device))
        if error is not None:
            raise error
        if failed > 0:
            raise SystemExit(2)


@contextmanager
def join_world(device: str) -> Iterator[World]:
    """Join the processes that torchrun started (NCCL between GPUs, gloo between CPUs), or be the only one.

    Raises UsageError if the device is not there, or there are more processes than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(rank=0, size=1, device=pick_device(device))
        return
    place = pick_device(device)
    local_rank = int(os.environ["LOCAL_RANK"])
    if place.type == "cuda":
        if local_rank >= torch.cuda.device_count():
            raise UsageError(
                f"process {local_rank} has no GPU of its own: this machine has {torch.cuda.device_count()}, "
                "so start at most that many (--nproc_per_node)"
            )
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
    elif place.type != "cpu":
        raise UsageError(f"several processes train on CPUs or NVIDIA GPUs, not on {place.type}: --set train.device=cpu")
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo")
    try:
        yield World(rank=dist.get_rank(), size=size, device=place)
    finally:
        dist.destroy_process_group()

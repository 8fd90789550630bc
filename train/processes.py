"""The processes that share a run: one, or as many as `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed

from scanline.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """This process among those that share each batch.

    Attributes:
        rank: its number, from 0; number 0 writes the files.
        count: how many there are.
        device: where this process computes.
    """

    rank: int
    count: int
    device: torch.device

    def share(self, batch: int) -> slice:
        """Give the part of a batch that this process takes; the parts are of one size."""
        size = batch // self.count
        return slice(self.rank * size, (self.rank + 1) * size)


@contextmanager
def join(device: str) -> Iterator[Processes]:
    """Join the processes of `torchrun`, which says so in the environment; without it there is one.

    Args:
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises:
        UsageError: CUDA was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; leave the option out to use the CPU")
    on_gpu = torch.cuda.is_available() and device != "cpu"
    chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" not in os.environ:
        yield Processes(rank=0, count=1, device=chosen)
        return
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size(), chosen)
    finally:
        distributed.destroy_process_group()

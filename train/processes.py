"""The processes that share a run: one, or as many as `torchrun` started."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import torch
from torch import distributed

from scanline.errors import UsageError

# what it tells each process, beside WORLD_SIZE
TORCHRUN: Final = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Processes:
    """This process among those that share each batch.

    Attributes:
        rank: its number, from 0; number 0 writes the files.
        count: how many there are.
        device: where this process computes.
        hosts: the processes as they talk about something else than tensors of the device, or None for one process.
    """

    rank: int
    count: int
    device: torch.device
    hosts: distributed.ProcessGroup | None = None

    def any_asks(self, *, asked: bool) -> bool:
        """Say whether any of the processes asks for something; all have to call this, and all get one answer."""
        if self.count == 1:
            return asked
        asks = torch.tensor(int(asked))
        distributed.all_reduce(asks, distributed.ReduceOp.MAX, group=self.hosts)
        return bool(asks)

    def average(self, value: torch.Tensor) -> None:
        """Make a value the mean of all the processes' in its place; all have to call this."""
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count

    def wait(self) -> None:
        """Wait until the device has done all that it was told to do: a GPU's host runs ahead of it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

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
        UsageError: CUDA was asked for and there is none, there are fewer GPUs than processes on this machine, or the
            environment has but a part of what `torchrun` says.
    """
    missing = [name for name in TORCHRUN if name not in os.environ]
    if missing and "WORLD_SIZE" in os.environ:
        raise UsageError(
            f"WORLD_SIZE is set, as torchrun does, but {missing[0]} is not: start several processes by torchrun, or "
            f"unset WORLD_SIZE for one"
        )
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: PyTorch finds no CUDA device here; leave the option out to use the CPU")
    on_gpu = torch.cuda.is_available() and device != "cpu"
    chosen = torch.device("cpu")
    if on_gpu:
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        if chosen.index >= torch.cuda.device_count():
            raise UsageError(
                f"process {chosen.index} of this machine has no GPU for itself: there are {torch.cuda.device_count()}; "
                f"start as many processes with --nproc-per-node, or use the CPU by --device cpu"
            )
        torch.cuda.set_device(chosen)
    if "WORLD_SIZE" not in os.environ:
        yield Processes(rank=0, count=1, device=chosen)
        return
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        hosts = distributed.new_group(backend="gloo")
        yield Processes(distributed.get_rank(), distributed.get_world_size(), chosen, hosts)
    finally:
        distributed.destroy_process_group()

"""Several processes that train one matcher under torchrun: who takes what, and how gradients become one."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed as dist
from torch import nn

from minima_core.tracking import NullTracker, Tracker

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    """The processes of a training; one alone is a group too.

    Every method but ``share`` and ``leave_to_leader`` has to be called by all of them, in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return what of a batch this process takes; nothing where there are fewer items than processes."""
        return items[self.rank :: self.size]

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the sums by name over all processes."""
        found: list[Mapping[str, float]] = [values]
        if self.size > 1:
            found = [{}] * self.size
            dist.all_gather_object(found, dict(values))
        sums: dict[str, float] = {}
        for some in found:
            for name, value in some.items():
                sums[name] = sums.get(name, 0.0) + value
        return sums

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Give all processes the sum of their gradients; a parameter that none has used stays without one."""
        if self.size == 1:
            return
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.int32, device=parameters[0].device)
        dist.all_reduce(used, dist.ReduceOp.MAX)
        for parameter, by_any in zip(parameters, used.tolist(), strict=True):
            if by_any:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                dist.all_reduce(parameter.grad)

    def follow(self, tensors: Iterable[torch.Tensor]) -> None:
        """Overwrite tensors with those of the leader: running statistics are each process's own."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def leave_to_leader(self) -> None:
        """End every other process: what follows is to be done once."""
        if not self.leads:
            raise SystemExit(0)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def leader_first(self) -> Iterator[None]:
        """Run a block in the leader before the others, which find what it wrote."""
        if not self.leads:
            self.wait()
        yield
        if self.leads:
            self.wait()


def group() -> Group:
    """Return the group that this process has joined, or one of its own."""
    return Group(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Group()


def start_on_every_gpu(module: str, device: str) -> None:
    """Go on as ``torchrun -m module`` with the same arguments, where the device is "cuda" and several are visible.

    The batch is the one of all processes, so that how many there are is no part of the settings.
    """
    gpus = torch.cuda.device_count() if device == "cuda" and "WORLD_SIZE" not in os.environ else 1
    if gpus > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={gpus}", "-m", module]
        os.execv(sys.executable, [sys.executable, *torchrun, *sys.argv[1:]])


@contextmanager
def joined(device: str, recorded: AbstractContextManager[Tracker]) -> Iterator[tuple[Group, Tracker]]:
    """Join the processes that torchrun has started, if it has; on GPUs, each takes the one of its local rank.

    Yields them and the tracker that ``recorded`` opens, which the leader alone does: the others get one that drops all.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        with recorded as tracker:
            yield Group(), tracker
        return
    if device.startswith("cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        found = group()
        with recorded if found.leads else nullcontext(NullTracker()) as tracker:
            yield found, tracker
    finally:
        dist.destroy_process_group()

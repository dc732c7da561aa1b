"""Distributed data-parallel training of one network: one process per GPU, on one machine or several.

Each process computes the gradients of its share of every batch, and a single all-reduce per step averages them,
together with the loss. Unlike that of torch's ``DistributedDataParallel``, it does not overlap with the backward pass;
in return, there is nothing to switch off for accumulated batches, and nothing around the network that a compiler or a
saved state would see.

The world size and rank come from the environment variables of torchrun or SLURM; without them, the first process starts
the others on its own machine, with its own command line.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.core import params
from pipeline.core.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class World:
    """The processes that train together, as seen from one of them.

    Attributes:
        rank: number of this process; rank 0 writes all files.
        size: number of processes (the world size).
        fabric: their connection; None for a single process.
    """

    rank: int = 0
    size: int = 1
    fabric: "Fabric | None" = None

    @property
    def is_main(self) -> bool:
        """Whether this process, of rank 0, writes all files."""
        return self.rank == 0

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type by their means over the processes, in a single all-reduce."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(one) for part, one in zip(parts, tensors, strict=True)])

    def whole_batch(self, own: Tensor) -> Tensor:
        """Rows of the whole batch, (B * size, ...), from this process's (B, ...), which alone keep their gradient."""
        parts = [torch.empty_like(own) for _ in range(self.size)]
        torch.distributed.all_gather(parts, own.detach().contiguous())
        parts[self.rank] = own
        return torch.stack(parts, dim=1).flatten(0, 1)

    def broadcast(self, network: nn.Module) -> None:
        """Copy the weights and batch-norm statistics of rank 0 to all processes."""
        if self.size > 1:
            for value in network.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def gather(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Concatenate the rows of all processes; each has every ``size``-th row, starting with its rank."""
        if self.size == 1:
            return rows
        parts: list[npt.NDArray[np.float32]] = [rows] * self.size
        torch.distributed.all_gather_object(parts, rows)
        whole = np.empty((sum(map(len, parts)), *rows.shape[1:]), rows.dtype)
        for rank, part in enumerate(parts):
            whole[rank :: self.size] = part
        return whole

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.fabric is not None:
            self.fabric.barrier()

    @contextmanager
    def explain_lost_process(self) -> Iterator[None]:
        """Explain the error that is raised in the block when another process is lost.

        Raises:
            InputError: in place of the error of the connection.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1:
                raise
            reason = str(error).splitlines()[0][:160]
            raise InputError(
                f"process {self.rank + 1} of {self.size} failed or lost the others ({reason}): "
                "see above for the error of the first one; the same command resumes from the last saved state"
            ) from error


SINGLE_PROCESS = World()


def join_for(model: params.Model, devices: int) -> World | None:
    """Join the processes that work on a model; None if this process is not needed.

    A closed-form head or a forest takes one process, also where torchrun or SLURM started several.

    Args:
        model: section of the model.
        devices: as for ``join``.
    """
    if isinstance(model, params.NetworkModel):
        return join(devices)
    slurm = os.environ.get("SLURM_PROCID", "0") if _slurm_tasks() > 1 else "0"
    return SINGLE_PROCESS if os.environ.get("RANK", slurm) == "0" else None


def join(devices: int) -> World:
    """Find or start the other processes, and connect to them.

    Args:
        devices: processes on this machine, if neither torchrun nor SLURM sets their number.

    Raises:
        InputError: ``devices`` exceeds the number of GPUs.
    """
    nodes, local, started = _layout(devices)
    if nodes * local == 1:
        return SINGLE_PROCESS
    # Imported here because it takes a second, and a single process does not need it.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment

    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=local,
        num_nodes=nodes,
        strategy="ddp",
        plugins=[] if started else [LightningEnvironment()],
    )
    if not started and os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    fabric.launch()
    return World(fabric.global_rank, fabric.world_size, fabric)


def _layout(devices: int) -> tuple[int, int, bool]:
    """Number of machines, processes on each, and whether a launcher (torchrun or SLURM) starts them."""
    if torchrun := os.environ.get("LOCAL_WORLD_SIZE"):
        return int(os.environ["WORLD_SIZE"]) // int(torchrun), int(torchrun), True
    if (tasks := _slurm_tasks()) > 1:
        nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
        return nodes, tasks // nodes, True
    gpus = torch.cuda.device_count() or int(torch.backends.mps.is_available())
    if gpus and devices > gpus:
        raise InputError(f"machine.devices in params.yaml is {devices}, but there are {gpus} GPUs: lower it")
    return 1, devices, False


def _slurm_tasks() -> int:
    """How many tasks SLURM started together; a single one may be an interactive shell."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))


def _end_with(parent: int) -> None:
    """End this process when its parent has ended: on GPUs, waiting for a lost process would take minutes."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

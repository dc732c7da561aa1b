"""The processes that train one network together: one a GPU, on one machine or several.

Each learns from its share of every batch, and the gradients are averaged. Which processes there are is found out from
torchrun's or SLURM's variables; without those, the first process starts the others on its machine by its own command.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class World:
    """This process among those that train together.

    Attributes:
        rank: its number; 0 is the one that writes.
        size: how many there are.
        fabric: what connects them; None where there is one alone.
    """

    rank: int = 0
    size: int = 1
    fabric: "Fabric | None" = None

    @property
    def is_main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def wrap(self, network: nn.Module) -> nn.Module:
        """The network whose backward pass averages the gradients."""
        if self.fabric is None:
            return network
        wrapped: nn.Module = self.fabric.setup_module(network)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Gradients of a loss that ``wrap``'s network led to."""
        if self.fabric is None:
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            self.fabric.backward(loss)

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """Average a tensor over the processes."""
        if self.fabric is None:
            return value
        reduced: Tensor = self.fabric.all_reduce(value, reduce_op="mean")  # type: ignore[assignment]
        return reduced

    def broadcast(self, network: nn.Module) -> None:
        """Give every process the first one's weights and statistics."""
        if self.size > 1:
            for value in network.state_dict().values():
                torch.distributed.broadcast(value, 0)

    def gather(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Put together what each process has of every ``size``-th row, from its own number on."""
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
        """Say what it means when another process is lost in the block.

        Raises:
            InputError: instead of the connection's own error.
        """
        try:
            yield
        except RuntimeError as error:
            if self.size == 1:
                raise
            reason = str(error).splitlines()[0][:160]
            raise InputError(
                f"process {self.rank + 1} of {self.size} failed or lost the others ({reason}): "
                "look above for what ended the first of them; the same command goes on from what was saved"
            ) from error


SINGLE_PROCESS = World()


def join(devices: int | Literal["auto"]) -> World:
    """Find or start the other processes, and connect to them.

    Args:
        devices: processes on this machine where neither torchrun nor SLURM says it; "auto" is one a GPU, or one.

    Raises:
        InputError: there are fewer GPUs.
    """
    nodes, local, started = _layout(devices)
    if nodes * local == 1:
        return SINGLE_PROCESS
    # A second of import that one process alone does not need.
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


def _layout(devices: int | Literal["auto"]) -> tuple[int, int, bool]:
    """Machines, processes on each, and whether somebody else starts them."""
    torchrun, slurm = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("SLURM_STEP_NUM_TASKS")
    if torchrun:
        return int(os.environ["WORLD_SIZE"]) // int(torchrun), int(torchrun), True
    if slurm and int(slurm) > 1:  # one task is a shell that somebody works in
        nodes = int(os.environ["SLURM_STEP_NUM_NODES"])
        return nodes, int(slurm) // nodes, True
    gpus = torch.cuda.device_count()
    if devices != "auto" and gpus and devices > gpus:
        raise InputError(f"machine.devices in params.yaml is {devices}, but there are {gpus} GPUs: lower it")
    return 1, max(gpus, 1) if devices == "auto" else devices, False


def _end_with(parent: int) -> None:
    # On GPUs, whoever waits for a lost process would wait for minutes.
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)

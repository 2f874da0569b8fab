"""One or several training processes: who this one is, what they tell each other, and how they are started."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from pipeline.contracts.errors import PipelineError
from pipeline.contracts.training_config import TrainingSection


@dataclass(frozen=True)
class World:
    """The processes that train one network together.

    Attributes:
        device: of this process.
        rank: number of this process, 0 writes every file.
        size: number of processes.
    """

    device: torch.device
    rank: int = 0
    size: int = 1

    def summed(self, values: Tensor) -> Tensor:
        """Sums over the processes, the same everywhere; NaN if one of them has NaN.

        Args:
            values: on the device, which is not waited for; overwritten.
        """
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def gather(self, value: Any) -> list[Any]:
        """What every process passes, by rank, on all of them."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        distributed.all_gather_object(found, value)
        return found

    def from_first(self, value: Any) -> Any:
        """What process 0 passes, on all of them."""
        found = [value]
        if self.size > 1:
            distributed.broadcast_object_list(found, src=0, device=self.device)
        return found[0]


def is_launched() -> bool:
    """True in a process that torchrun, or `launch`, started."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def joined_world(training: TrainingSection) -> Iterator[World]:
    """Threads and algorithms of this process, its device and its place among the processes.

    nccl between GPUs, gloo between CPUs. The device is the GPU of the local rank if there is one, else the CPU.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0")) if is_launched() else 0
    device = configure_torch(training.threads, training.deterministic, local_rank)
    if not is_launched():
        yield World(device)
        return
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield World(device, distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()


def configure_torch(threads: int, deterministic: bool = True, local_rank: int = 0) -> torch.device:
    """Set threads and algorithms for this process; return the GPU of a local rank if there is one, else the CPU."""
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        # cuBLAS is deterministic only with a fixed workspace; read when the GPU is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.backends.cudnn.benchmark = not deterministic
    # Convolutions in float32 would lose 13 bits of every product: scores of a GPU are to be those of a CPU.
    torch.backends.cudnn.allow_tf32 = False
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def on_host(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Numbers on their way to the host, and what to wait for before they are read; None if they are there."""
    if values.device.type != "cuda":
        return values, None
    arrived = values.to("cpu", non_blocking=True)
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return arrived, event


def launch(command: Sequence[str], processes: int) -> int:
    """Run a command as several processes of this machine that find each other, as torchrun does.

    Args:
        command: program and arguments.
        processes: how many.

    Returns:
        0, or the exit code of the process that failed first; that of a failure that may be tried again if this one
        was told to end.
    """
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        _, first = error.get_first_failure()
        return first.exitcode if first.exitcode > 0 else PipelineError.exit_code
    except SignalException:
        return PipelineError.exit_code
    return 0

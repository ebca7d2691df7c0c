"""Several processes in one training, each with its share of every batch: one for each GPU (NCCL), or on a CPU (gloo).

torch.multiprocessing starts them, DistributedDataParallel averages the gradients. accelerate would wrap these two calls
and be one more dependency; its launcher and torchrun work as well, for their processes are recognised.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from ddrep.device import count_gpus, set_threads
from ddrep.errors import UserError, complaint
from ddrep.gpus import claim
from ddrep.stopping import SIGNALS, Stopped


def rank() -> int:
    """Number of this process; 0 is the one that writes, and the only one outside of `in_processes`."""
    return dist.get_rank() if dist.is_initialized() else 0


def processes() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def share(batch: int) -> slice:
    """The images of a batch that this process computes. Raises UserError if some process would have none."""
    if batch < processes():
        raise UserError(f"a batch of {batch} images is too small for {processes()} processes; give --processes {batch}")
    return slice(batch * rank() // processes(), batch * (rank() + 1) // processes())


def mean(value: Tensor) -> Tensor:
    """Mean over the processes, equal in all of them."""
    if processes() > 1:
        dist.all_reduce(value)
        value /= processes()
    return value


def minimum(value: int, device: torch.device) -> int:
    """Minimum over the processes; nobody goes on before all have said theirs."""
    if processes() == 1:
        return value
    least = torch.tensor(value, device=device)
    dist.all_reduce(least, dist.ReduceOp.MIN)
    return int(least)


def in_processes(count: int | None, work: Callable[[dict[str, Any]], None], given: dict[str, Any]) -> None:
    """Call work(given) in `count` processes at once (None: one for each visible GPU, or one on a CPU).

    The first UserError of any of them is raised here. They end when this process does, however it ends.
    """
    if dist.is_torchelastic_launched():  # by torchrun or accelerate: this process is one of several already
        _join("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
        work(given)
        dist.destroy_process_group()
        return
    gpus = count_gpus()
    count = count or max(1, gpus)
    if gpus and count > gpus:
        raise UserError(f"--processes {count}: each takes a GPU of its own and {gpus} can be seen; give at most {gpus}")
    if gpus:
        claim(count, lambda: gpus)
    if count == 1:
        work(given)
    else:
        _start(count, work, given)


def _start(count: int, work: Callable[[dict[str, Any]], None], given: dict[str, Any]) -> None:
    threads = max(1, torch.get_num_threads() // count)
    errors: SimpleQueue[str] = mp.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        common = (count, os.getpid(), threads, f"file://{folder}/rendezvous", work, given, errors)
        logging.getLogger("torch.multiprocessing").setLevel(logging.ERROR)  # silent about ending the others
        try:
            mp.spawn(_process, common, nprocs=count)
        except KeyboardInterrupt:
            for process in mp.active_children():  # at a terminal they are told as well
                process.terminate()
            raise
        except mp.ProcessExitedException as e:
            if e.signal_name in {number.name for number in SIGNALS}:  # sent to them all, and met there first
                raise Stopped(e.signal_name) from None
            if errors.empty():
                raise
            raise UserError(errors.get()) from None


def _process(
    number: int, count: int, parent: int, threads: int, rendezvous: str,
    work: Callable[[dict[str, Any]], None], given: dict[str, Any], errors: SimpleQueue[str],
) -> None:  # fmt: skip
    # torch has SIGINT sent when the parent dies; the default action ends even a process that waits for the others.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if os.getppid() != parent:  # it died before this process could be told
        sys.exit(1)
    set_threads(threads)
    _join(rendezvous, number, count, number)
    try:
        work(given)
    except Exception as e:
        if not (message := complaint(e)):
            raise
        errors.put(message)
        sys.exit(2)
    dist.destroy_process_group()


def _join(rendezvous: str, number: int, count: int, device: int) -> None:
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", init_method=rendezvous, rank=number, world_size=count)

"""Where and how torch computes: device, precision, threads."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys

import torch
from threadpoolctl import threadpool_limits

from ddrep import gpus

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""From GNU's malloc.h: how much free memory the heap keeps at its top (-1: all), and how many blocks lie outside it."""


def pick_device() -> torch.device:
    """The first visible GPU, else the CPU.

    Where no scheduler has given this job its GPUs, it takes one that no other job holds and makes it the only visible
    one (ddrep.gpus).
    """
    gpus.claim(1, count_gpus)
    if torch.cuda.is_available():
        return torch.device("cuda")
    keep_freed_memory()
    return torch.device("cpu")


def count_gpus() -> int:
    """Number of GPUs that torch sees: those of CUDA_VISIBLE_DEVICES that are there, or all.

    torch asks the driver's management library, which leaves open what is visible. Where that one does not tell (it is
    not there, or parts of GPUs are listed) it asks CUDA, which fixes it: then another process is sent to ask.
    """
    parts = "MIG-" in os.environ.get(gpus.VISIBLE, "")
    if parts or (_library("libcuda.so.1") and not _library("libnvidia-ml.so.1")):
        code = "import torch; print(torch.cuda.device_count())"
        return int(subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=True).stdout)
    return torch.cuda.device_count()


def _library(name: str) -> bool:
    try:
        return bool(ctypes.CDLL(name))
    except OSError:
        return False


def keep_freed_memory() -> None:
    """Keep what tensors free for those that come next, where the C library is GNU's.

    By default it hands large blocks back to the kernel, and gets them again page by page, all zeroed: half of the
    processor time of sampling (benchmarks/freed_memory.py).
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision: "fp32", "bf16", or "auto" for bf16 where the hardware multiplies in it, else fp32."""
    enabled = precision == "bf16" or (precision == "auto" and multiplies_in_bf16(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def multiplies_in_bf16(device: torch.device) -> bool:
    """Whether the hardware has instructions for it; a processor without emulates them."""
    return device.type == "cuda" or "avx512_bf16" in cpu_info("flags")


def cpu_info(name: str) -> str:
    """What Linux says of the processor under a name that begins so; "" where it says nothing."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            return next((line.partition(":")[2].strip() for line in f if line.startswith(name)), "")
    except OSError:
        return ""


def set_threads(threads: int | None) -> None:
    """Hold torch, and numpy's and scipy's linear algebra, to `threads` cores; None takes OMP_NUM_THREADS or all.

    A process left at its default beside another slows both many times over.
    """
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)  # for libraries that are loaded later
    threadpool_limits(threads)  # for those that have been
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)

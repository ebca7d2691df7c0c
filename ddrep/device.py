"""Where and how torch computes: device, precision, threads."""

from __future__ import annotations

import os

import torch

from ddrep import gpus


def pick_device(wanted: int = 1) -> torch.device:
    """The first visible GPU, else the CPU.

    Where no scheduler has given this job its GPUs, it takes `wanted` that no other job holds and makes them the only
    visible ones (ddrep.gpus). torch counts devices without initialising CUDA, which would fix what is visible.
    """
    gpus.claim(wanted, torch.cuda.device_count)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Mixed precision: "fp32", "bf16", or "auto" for bf16 where the hardware multiplies in it, else fp32."""
    fast = device.type == "cuda" or "avx512_bf16" in _cpu_flags()
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" or (precision == "auto" and fast))


def _cpu_flags() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            return next((line for line in f if line.startswith("flags")), "")
    except OSError:
        return ""


def set_threads(threads: int | None) -> None:
    """Hold torch to `threads` cores; None takes OMP_NUM_THREADS or torch's default.

    A process left at its default beside another slows both many times over.
    """
    if threads is None:
        return
    os.environ["OMP_NUM_THREADS"] = str(threads)
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)

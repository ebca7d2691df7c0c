"""What keeping freed memory is worth: sampling on a CPU with the C library's defaults, and as ddrep sets it.

    python benchmarks/freed_memory.py [--images 250] [--rounds 5]

Reference: the same sampling in a process that leaves the C library's malloc alone. The processes are paired and
alternate; printed are medians of processor seconds (user and system) on one thread, and of the peak memory.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys

import torch

from ddrep.config import DenoiserFile, Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.sampling.sampler import sample


def measure(kept: bool, images: int) -> None:
    """Print processor seconds of sampling, and MB of memory at most."""
    set_threads(1)
    if kept:
        keep_freed_memory()
    model = Denoiser.load(DenoiserFile().path, torch.device("cpu"))
    sample(model, range(images), Sampling(steps=2, eta=0.0, guidance_scale=0.0))
    before = os.times()
    sample(model, range(images), Sampling(steps=12, eta=0.0, guidance_scale=0.0))
    after = os.times()
    seconds = after.user + after.system - before.user - before.system
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", choices=["default", "kept"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        measure(given.one == "kept", given.images)
        return
    found: dict[str, list[list[float]]] = {"default": [], "kept": []}
    for _ in range(given.rounds):
        for name, runs in found.items():
            command = [sys.executable, __file__, "--one", name, "--images", str(given.images)]
            runs.append([float(x) for x in subprocess.run(command, capture_output=True, check=True).stdout.split()])
    for name, runs in found.items():
        seconds, memory = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"{name:8} {seconds:6.2f} s  {memory:6.0f} MB")
    ratios = [kept[0] / default[0] for default, kept in zip(found["default"], found["kept"], strict=True)]
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"kept takes {statistics.median(ratios):.2f} of the default's processor time ({spread})")


if __name__ == "__main__":
    main()

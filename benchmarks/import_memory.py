"""What importing the ImageNet-64 checkpoint costs: peak memory as a multiple of the file's size, and seconds.

    python benchmarks/import_memory.py

Writes a file of the architecture of imagenet64_uncond_100M_1500K.pt with random weights, as the published code does
(torch.save of the state dict), and imports it by `ddrep import` in a process of its own. Expected: below 3 times the
file, in less than 20 s on 2 cores. Linux: peak memory is the resident set, the mapped file's pages included.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from ddrep.denoiser.unet import UNet, UNetConfig

MB = 2**20


def write_checkpoint(path: Path) -> None:
    """Random weights of the ImageNet-64 architecture."""
    with torch.device("meta"):
        state = UNet(UNetConfig(64, out_channels=6)).state_dict()
    torch.save({name: torch.randn(t.shape) for name, t in state.items()}, path)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint, out = Path(folder, "imagenet64.pt"), Path(folder, "denoiser.safetensors")
        # In a process of its own: Linux counts what its parent had in memory as the peak of a new process.
        writer = multiprocessing.get_context("spawn").Process(target=write_checkpoint, args=(checkpoint,))
        writer.start()
        writer.join()
        size = checkpoint.stat().st_size
        start = time.perf_counter()
        job = subprocess.Popen([sys.executable, "-m", "ddrep", "import", str(checkpoint), "--out", str(out)])
        _, status, usage = os.wait4(job.pid, 0)
        seconds = time.perf_counter() - start
        assert status == 0 and out.is_file(), "the import failed"
    peak = usage.ru_maxrss * 1024
    print(
        f"file {size / MB:.0f} MB; peak {peak / MB:.0f} MB, {peak / size:.2f} times the file; {seconds:.1f} s "
        f"({usage.ru_utime + usage.ru_stime:.1f} s of processor)"
    )


if __name__ == "__main__":
    main()

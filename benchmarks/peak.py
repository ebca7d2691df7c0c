"""How much of what this processor can multiply the networks use: arithmetic a second, beside a matrix multiplication's.

    python -m benchmarks.peak [--rounds 5]

One thread, fp32. Operations are counted by torch, so exact; times are processor seconds.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks import page
from benchmarks.kept_image import imagenet64, operations
from ddrep.config import DenoiserFile
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.classifiers import build_classifier, fit_to_size

REFERENCE = "matrix multiplication"
SIDE = 2048


def passes() -> dict[str, Callable[[], Any]]:
    """By name: the multiplication, and forward passes of batches that the package uses on a CPU."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    small, (_, large) = Denoiser.load(DenoiserFile().path), imagenet64()
    student: nn.Module = fit_to_size(build_classifier("resnet18", "small", 1, 10), 1, 28, 28).eval()
    batch, x16, x2 = torch.randn(64, 1, 28, 28), torch.randn(16, *small.image_shape), torch.randn(2, *large.image_shape)
    return {
        REFERENCE: lambda: a @ b,
        "embedded denoiser, 16 images": lambda: small.eps(x16, torch.full((16,), 500)),
        "ImageNet-64 architecture, 2 images": lambda: large.eps(x2, torch.full((2,), 2000)),
        "ResNet-18, 64 images of 28 pixels": lambda: student(batch),
    }


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    work = passes()
    counted = {name: operations(run) for name, run in work.items()}
    turns = [{name: page.processor_seconds(run) for name, run in work.items()} for _ in range(args.rounds + 1)][1:]
    speeds = {name: [n / turn[name] / 1e9 for turn in turns] for name, n in counted.items()}
    shares = {name: [own / most for own, most in zip(speeds[name], speeds[REFERENCE], strict=True)] for name in work}
    rows = page.compared("GFLOP a second", "", speeds) + page.compared("share of the peak", "", shares)
    page.record("Share of peak", ABOUT.format(**vars(args)), [row | {"ratio": 0.0} for row in rows])


ABOUT = """`python -m benchmarks.peak`: forward passes in fp32 on 1 thread, medians of {rounds} rounds, in brackets \
their range. The peak is that of a matrix multiplication of 2048 x 2048 in the same rounds."""

if __name__ == "__main__":
    main()

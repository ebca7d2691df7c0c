"""What an evaluation of the denoiser costs in fp32 and bf16, with weights as they are and channels last, here.

    python -m benchmarks.precision [--denoiser FILE] [--images 16] [--rounds 5]

A short probe, of a few forward passes of each kind that take turns, on the network and the machine at hand. It decides
nothing, for images must not depend on a clock. Times are processor seconds, or on a GPU seconds.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import page
from ddrep.config import DenoiserFile
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import autocast, keep_freed_memory, pick_device, set_threads

FORMATS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
REFERENCE = "fp32, contiguous"


def seconds(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cpu":
        return page.processor_seconds(run)
    torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    torch.cuda.synchronize(device)
    return time.perf_counter() - started


@torch.inference_mode()
def measured(file: Path, images: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, Tensor]]:
    """By kind of pass, seconds an image in each round, and what it gives."""
    device = pick_device()
    models = {form: Denoiser.load(file, device) for form in FORMATS}
    for name, model in models.items():
        model.net.to(memory_format=FORMATS[name])
    shape, steps = models["contiguous"].image_shape, models["contiguous"].schedule.num_steps
    x = torch.randn(images, *shape, generator=torch.Generator().manual_seed(0)).to(device)
    index = torch.full((images,), steps // 2, device=device)

    def eps(precision: str, form: str) -> Tensor:
        with autocast(precision, device):
            return models[form].eps(x.to(memory_format=FORMATS[form]), index).float()

    kinds = {
        f"{precision}, {form}": partial(eps, precision, form)
        for precision, form in itertools.product(("fp32", "bf16"), FORMATS)
    }
    given = {name: run() for name, run in kinds.items()}  # warms up as well
    turns = [{name: seconds(run, device) / images for name, run in kinds.items()} for _ in range(rounds)]
    return {name: [turn[name] for turn in turns] for name in kinds}, given


def rows_of(times: dict[str, list[float]], given: dict[str, Tensor]) -> list[dict[str, Any]]:
    milliseconds = {name: [1e3 * value for value in values] for name, values in times.items()}
    rows = page.compared("milliseconds an image", "", milliseconds)
    for name, eps in given.items():
        apart = float((eps - given[REFERENCE]).abs().max())
        rows.append({"name": name, "reference": REFERENCE, "quantity": "largest difference of eps", "unit": ""}
                    | {"value": apart, "low": apart, "high": apart, "ratio": 0.0})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--denoiser", type=Path, default=DenoiserFile().path)
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    page.record("Precision", ABOUT, rows_of(*measured(args.denoiser, args.images, args.rounds)))


ABOUT = """`python -m benchmarks.precision`: passes of the embedded denoiser in batches of 16, medians of the rounds, \
in brackets their range and how many times less than the reference."""

if __name__ == "__main__":
    main()

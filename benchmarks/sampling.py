"""What a candidate costs, and how near it is to the sampling ODE's solution: ours against the published recipe.

    python benchmarks/sampling.py [--images 50] [--rounds 5]

Reference, "published": DDIM of 100 steps, conditional and null estimates in two calls, features by whole forward passes
at t = 300 and 800. Ours: DPM-Solver++(2M) of 16 steps, both estimates in one call, features by the encoder alone. The
network is the embedded denoiser with an untrained label table (the cost is that of a trained one). The runs are paired
and alternate; medians are printed, then the RMS distance of both to 500 steps of DDIM from the same noise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ddrep.config import DenoiserFile, Features, Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.device import set_threads
from ddrep.sampling.guidance import classifier_free
from ddrep.sampling.sampler import ImageNoise, solve
from ddrep.training.finetune import with_labels

SCALE = 0.01


def published(model: Denoiser, base: Denoiser, y: Tensor, steps: int = 100) -> Tensor:
    null = torch.full_like(y, model.null_row)

    def eps(x: Tensor, index: Tensor) -> Tensor:
        return (1 + SCALE) * model.eps(x, index, y) - SCALE * model.eps(x, index, null)

    noise = ImageNoise(range(len(y)), model.image_shape, y.device)
    x = solve(eps, model.schedule, noise, Sampling(solver="ddim", steps=steps, eta=0.0))
    for t in Features().timesteps:
        base.net(x, torch.full((len(x),), t))
    return x


def ours(model: Denoiser, base: Denoiser, y: Tensor) -> Tensor:
    noise = ImageNoise(range(len(y)), model.image_shape, y.device)
    x = solve(classifier_free(model, y, SCALE), model.schedule, noise, Sampling(steps=16, eta=0.0))
    bottleneck_features(base, x, Features())
    return x


def timed(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    set_threads(args.threads)
    torch.manual_seed(0)
    base = Denoiser.load(DenoiserFile().path)
    model = with_labels(base, tuple("0123456789"), std=1.0)
    model.net.eval().requires_grad_(False)
    y = torch.arange(args.images) % 10
    with torch.inference_mode():
        ours(model, base, y)
        pairs = [
            (timed(lambda: published(model, base, y)), timed(lambda: ours(model, base, y))) for _ in range(args.rounds)
        ]
        exact = published(model, base, y, steps=500)
        errors = [float((run(model, base, y) - exact).square().mean().sqrt()) for run in (published, ours)]
    theirs, mine = (1000 * statistics.median(column) / args.images for column in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    print(
        f"published {theirs:.0f} ms a candidate, ours {mine:.0f} ms: {ratio:.1f} times faster (median of {args.rounds})"
    )
    print(f"RMS distance to 500 steps: published {errors[0]:.4f}, ours {errors[1]:.4f} (pixels in [-1, 1])")


if __name__ == "__main__":
    main()

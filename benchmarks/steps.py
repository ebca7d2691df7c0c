"""Evaluations against what comes of them: solvers, steps, grids, fresh noise, guidance, on the embedded denoiser.

    python -m benchmarks.steps [--results results/fashion-demo] [--candidates 240]

Of each way to draw, the share of the candidates that the rejection classifier keeps, how many of those are of their
class for the embedded evaluator, which had no part in making or judging them, and Fréchet's distance on its features
between all candidates and as many validation images. All draw the same seeds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import page
from ddrep.config import DenoiserFile, Sampling, Synthesis
from ddrep.data import embedded
from ddrep.data.embedded import FOLDER
from ddrep.data.idx import read_images
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, multiplies_in_bf16, set_threads
from ddrep.evaluation.frechet import frechet_distance
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator
from ddrep.sampling import time_grid
from ddrep.sampling.sampler import evaluations, image_seed, levels, sample

WHOLE, EARLY_HALF, MIDDLE = (0.0, 1.0), (0.0, 0.5), (0.25, 0.75)
TRIED = (
    *(Sampling(steps=steps, guidance_scale=0.5, guidance_interval=WHOLE) for steps in (12, 8, 6, 5)),
    *(Sampling(steps=6, guidance_scale=0.5, guidance_interval=interval) for interval in (EARLY_HALF, MIDDLE)),
    *(Sampling(steps=steps) for steps in (8, 6)),
    *(
        Sampling(steps=6, solver=solver, eta=0.0, guidance_scale=0.5, guidance_interval=WHOLE)
        for solver in ("dpm-solver++", "ipndm")
    ),
    *([Sampling(precision="bf16")] if multiplies_in_bf16(torch.device("cpu")) else []),
)
"""On each of the three grids: even, by log SNR, and fitted to the denoiser."""
AT_ONCE = 40


def name(cfg: Sampling) -> str:
    first, last = cfg.guidance_interval
    where = "" if (first, last) == (0, 1) or not cfg.guidance_scale else f" in [{first:g}, {last:g}]"
    grid = cfg.grid if isinstance(cfg.grid, str) else "fitted"
    bf16 = ", bf16" if cfg.precision == "bf16" else ""
    return f"{grid}: {cfg.solver}, {cfg.steps} steps, eta {cfg.eta:g}, w {cfg.guidance_scale:g}{where}{bf16}"


def ways(base: Denoiser) -> list[Sampling]:
    """What was tried, on each grid; those that are fitted are by the same trajectories."""
    teacher = time_grid.teacher_of(max(cfg.steps for cfg in TRIED), base.schedule)
    cost, visited = time_grid.mean_costs(base, teacher, 0), levels(base.schedule, teacher)
    fitted = {n: tuple(visited[i] for i in time_grid.best_path(cost, n)) for n in {cfg.steps for cfg in TRIED}}
    grids: list[dict[int, Any]] = [defaultdict(lambda: "even"), defaultdict(lambda: "log-snr"), fitted]
    return [cfg.model_copy(update={"grid": grid[cfg.steps]}) for grid in grids for cfg in TRIED]


def drawn(model: Denoiser, seeds: Sequence[int], cfg: Sampling, labels: np.ndarray) -> np.ndarray:
    """uint8 images (N, H, W, C), one a seed and label."""
    return sample(model, seeds, cfg, labels.tolist(), batch=AT_ONCE)


def real_features(evaluator: Evaluator) -> np.ndarray:
    """Of the embedded validation images, (N, D)."""
    return evaluator.features(read_images(embedded.path("validation", "images"))[..., None])


def row(
    cfg: Sampling, images: np.ndarray, labels: np.ndarray, judge: Judge, evaluator: Evaluator, real: np.ndarray
) -> dict[str, Any]:
    """Of images (N, H, W, C) drawn for labels (N,). real: the evaluator's features of the validation images."""
    kept = judge.probabilities(images)[np.arange(len(labels)), labels] >= Synthesis().threshold
    right = evaluator.probabilities(images).argmax(axis=1) == labels
    return {
        "name": name(cfg), "candidates": len(labels), "evaluations": evaluations(cfg), "kept": kept.mean(),
        "evaluations an image kept": evaluations(cfg) / max(kept.mean(), 1e-9),
        "right of those kept": right[kept].mean() if kept.any() else 0.0,
        "distance": frechet_distance(real, evaluator.features(images), 0, minimum=2),
    }  # fmt: skip


def rows_of(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row a quantity, as the page has them."""
    return [
        {"name": each["name"], "reference": name(Sampling()), "quantity": quantity, "unit": "", "value": float(value),
         "low": float(value), "high": float(value), "ratio": 0.0}
        for each in found
        for quantity, value in each.items()
        if quantity != "name"
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-demo"))
    parser.add_argument("--candidates", type=int, default=240)
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    folder = args.results / "subset0"
    model = Denoiser.load(folder / "finetuned.safetensors")
    judge = Judge.load(folder / "rejection/classifier.safetensors", DenoiserFile().path, torch.device("cpu"))
    evaluator = Evaluator.load(FOLDER / "evaluator.safetensors")
    real = real_features(evaluator)
    labels = np.arange(args.candidates) % len(model.classes)
    seeds = [image_seed(0, int(label), 3000, i // len(model.classes)) for i, label in enumerate(labels)]
    found = []
    for cfg in ways(Denoiser.load(DenoiserFile().path)):
        found.append(row(cfg, drawn(model, seeds, cfg, labels), labels, judge, evaluator, real))
        print(pd.DataFrame(found).iloc[-1].to_dict(), flush=True)
    page.record("Fewer evaluations", ABOUT, rows_of(found))


ABOUT = """`python -m benchmarks.steps`: of the same seeds, except as said. Kept: by the rejection classifier; right: \
of its class for the embedded evaluator; distance: Fréchet's, on its features, between all candidates and as many \
validation images (so few that it is for comparison alone). The standard error of a share is 0.03 at 240 candidates."""

if __name__ == "__main__":
    main()

"""Evaluations against what comes of them: solvers, steps, grids, fresh noise, guidance, on the embedded denoiser.

    python -m benchmarks.steps [--results results/fashion-demo] [--candidates 120]

Of each way to draw, the share of the candidates that the rejection classifier keeps, and how many of those are of their
class for the embedded evaluator, which had no part in making or judging them. All draw the same seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import page
from ddrep.config import DenoiserFile, Sampling, Synthesis
from ddrep.data.embedded import FOLDER
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator
from ddrep.sampling import time_grid
from ddrep.sampling.sampler import evaluations, image_seed, levels, sample

EARLY_HALF, MIDDLE = (0.0, 0.5), (0.25, 0.75)
WAYS = (
    Sampling(),
    *(Sampling(steps=steps) for steps in (8, 6)),
    *(Sampling(steps=8, guidance_interval=interval) for interval in (EARLY_HALF, MIDDLE)),
    *(Sampling(steps=steps, guidance_scale=0.0) for steps in (12, 8)),
    *(Sampling(solver=solver, steps=steps, eta=0.0) for steps in (12, 8, 6, 5) for solver in ("dpm-solver++", "ipndm")),
)
FITTED = (
    *(Sampling(steps=steps) for steps in (12, 8, 6)),
    Sampling(steps=8, guidance_interval=EARLY_HALF),
    *(Sampling(solver=solver, steps=steps, eta=0.0) for steps in (8, 6) for solver in ("dpm-solver++", "ipndm")),
)
"""Drawn on a grid that is fitted to the denoiser."""
AT_ONCE = 40


def name(cfg: Sampling) -> str:
    first, last = cfg.guidance_interval
    where = "" if (first, last) == (0, 1) or not cfg.guidance_scale else f" in [{first:g}, {last:g}]"
    grid = "" if cfg.grid == "even" else ", fitted grid"
    return f"{cfg.solver}, {cfg.steps} steps, eta {cfg.eta:g}, w {cfg.guidance_scale:g}{where}{grid}"


def fitted(base: Denoiser) -> list[Sampling]:
    """The ways of `FITTED`, each with its grid, all by the same trajectories."""
    teacher = time_grid.teacher_of(Sampling().steps, base.schedule)
    cost, visited = time_grid.mean_costs(base, teacher, 0), levels(base.schedule, teacher)
    grids = {steps: time_grid.best_path(cost, steps) for steps in {cfg.steps for cfg in FITTED}}
    return [cfg.model_copy(update={"grid": tuple(visited[i] for i in grids[cfg.steps])}) for cfg in FITTED]


def row(cfg: Sampling, images: np.ndarray, labels: np.ndarray, judge: Judge, evaluator: Evaluator) -> dict[str, Any]:
    """Of images (N, H, W, C) drawn for labels (N,)."""
    kept = judge.probabilities(images)[np.arange(len(labels)), labels] >= Synthesis().threshold
    right = evaluator.probabilities(images).argmax(axis=1) == labels
    return {
        "name": name(cfg), "candidates": len(labels), "evaluations": evaluations(cfg), "kept": kept.mean(),
        "evaluations an image kept": evaluations(cfg) / max(kept.mean(), 1e-9),
        "right of those kept": right[kept].mean() if kept.any() else 0.0,
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
    parser.add_argument("--candidates", type=int, default=120)
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    folder = args.results / "subset0"
    model = Denoiser.load(folder / "finetuned.safetensors")
    judge = Judge.load(folder / "rejection/classifier.safetensors", DenoiserFile().path, torch.device("cpu"))
    evaluator = Evaluator.load(FOLDER / "evaluator.safetensors")
    labels = np.arange(args.candidates) % len(model.classes)
    seeds = [image_seed(0, int(label), 3000, i // len(model.classes)) for i, label in enumerate(labels)]
    found = []
    for cfg in (*WAYS, *fitted(Denoiser.load(DenoiserFile().path))):
        parts = [slice(i, i + AT_ONCE) for i in range(0, len(seeds), AT_ONCE)]
        images = np.concatenate([sample(model, seeds[part], cfg, labels[part].tolist()) for part in parts])
        found.append(row(cfg, images, labels, judge, evaluator))
        print(pd.DataFrame(found).iloc[-1].to_dict(), flush=True)
    page.record("Fewer evaluations", ABOUT, rows_of(found))


ABOUT = """`python -m benchmarks.steps`: of the same seeds, except as said. Kept: by the rejection classifier; right: \
of its class for the embedded evaluator. The standard error of a share is 0.04 at 120 candidates."""

if __name__ == "__main__":
    main()

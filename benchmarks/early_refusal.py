"""What early refusal saves of the candidates that will be refused, and what it loses, on candidates no pilot has seen.

    python -m benchmarks.early_refusal [--results results/fashion-full] [--subsets 0 1 2] [--share 0.01]

Of each way to draw and each labelled subset: a pilot as a shard's job draws it chooses the checks; as many candidates
of other noise, all drawn to their end, then tell what these checks would have saved and lost. Beside it, how well p of
x0hat after each step tells which candidates are kept (area under the ROC curve).
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks import page
from ddrep.config import DenoiserFile, Sampling, Synthesis
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.judges import Judge
from ddrep.sampling import early
from ddrep.sampling.pool import Attempt
from ddrep.sampling.sampler import image_seed
from ddrep.sampling.slots import Slots

WAYS = {
    f"{Sampling().steps} steps by log SNR (default)": Sampling(),
    "the same without fresh noise": Sampling(eta=0.0),
}
FRESH = 10**5
"""The number of the fresh candidates' noise, which no shard has."""


def numbered(shard: int, attempt: Attempt) -> int:
    return image_seed(0, attempt[0], shard, attempt[1])


def told(folder: Path, cfg: Sampling, share: float) -> dict[str, list[float]]:
    """Percentages of one labelled subset, and the areas by step."""
    model = Denoiser.load(folder / "finetuned.safetensors")
    judge = Judge.load(folder / "rejection/classifier.safetensors", DenoiserFile().path, torch.device("cpu"))
    slots, classes, threshold = Slots(model, cfg), len(model.classes), Synthesis().threshold
    seen, fresh = (
        early.pilot(slots, judge, partial(numbered, shard), classes, threshold) for shard in (early.PILOT_SHARD, FRESH)
    )
    checks = early.calibrate(*seen, threshold, share)
    p, kept = fresh[0], fresh[1] >= threshold
    stopped = p[:, [step - 1 for step in checks.steps]] < checks.least
    saved = early.share_saved(stopped[~kept], checks.steps, cfg.steps) if checks.steps else 0.0
    return {
        "kept": [100 * float(kept.mean())],
        "first check after step": [float(min(checks.steps, default=0))],
        "saved of the refused": [100 * saved],
        "lost of the kept": [100 * float(stopped[kept].any(axis=1).mean())],
        **{f"area, step {step + 1}": [100 * roc_auc_score(kept, p[:, step])] for step in range(cfg.steps - 1)},
    }


def rows_of(name: str, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    return [
        {"name": name, "reference": name, "quantity": quantity, "unit": "%" if "step" not in quantity else "",
         "value": float(np.median(values)), "low": min(values), "high": max(values), "ratio": 0.0}
        for quantity, values in found.items()
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-full"))
    parser.add_argument("--subsets", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.01, help="of the kept ones that may be lost")
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    rows: list[dict[str, Any]] = []
    for name, cfg in WAYS.items():
        each = [told(args.results / f"subset{subset}", cfg, args.share) for subset in args.subsets]
        found = {quantity: [value for one in each for value in one[quantity]] for quantity in each[0]}
        print(name, found, flush=True)
        rows += rows_of(name, found)
    page.record("Early refusal", ABOUT.format(**vars(args)), rows)


ABOUT = """`python -m benchmarks.early_refusal`: medians of labelled subsets {subsets}, in brackets their range, of \
candidates that the pilot has not seen; at most {share:.0%} of the kept ones may be lost in the mean over pilots."""

if __name__ == "__main__":
    main()

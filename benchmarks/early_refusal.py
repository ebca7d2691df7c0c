"""What early refusal saves of the candidates that will be refused, and what it loses, on candidates no pilot has seen.

    python -m benchmarks.early_refusal [--results results/fashion-full] [--subsets 0 1 2] [--share 0.01]

Of each way to draw and each labelled subset: a pilot as a shard's job draws it chooses the checks; as many candidates
of other noise, all drawn to their end, then tell what these checks would have saved and lost. Beside it, how well p of
x0hat after each step tells which candidates are kept (area under the ROC curve). Last, for the default, what the best
of all predictors could save: one that knew of each candidate how probable it still is that it will be kept.
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
from ddrep.data.batches import to_uint8
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.judges import Judge
from ddrep.sampling import early
from ddrep.sampling.pool import Attempt
from ddrep.sampling.sampler import image_seed
from ddrep.sampling.slots import Slots
from ddrep.solvers import Estimate

DEFAULT = f"{Sampling().steps} steps by log SNR (default)"
WAYS = {
    DEFAULT: Sampling(),
    "the same without fresh noise": Sampling(eta=0.0),
}
FRESH = 10**5
"""The number of the fresh candidates' noise, which no shard has."""


def numbered(shard: int, attempt: Attempt) -> int:
    return image_seed(0, attempt[0], shard, attempt[1])


def networks(folder: Path) -> tuple[Denoiser, Judge]:
    judge = Judge.load(folder / "rejection/classifier.safetensors", DenoiserFile().path, torch.device("cpu"))
    return Denoiser.load(folder / "finetuned.safetensors"), judge


def told(folder: Path, cfg: Sampling, share: float) -> dict[str, list[float]]:
    """Percentages of one labelled subset, and the areas by step."""
    model, judge = networks(folder)
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


STATES, ENDS = 120, 16
"""Candidates, and the ends that each is given by noise of their own."""


@torch.no_grad()
def chances(folder: Path) -> np.ndarray:
    """After each step but the last the share of `ENDS` in which a candidate is kept, (steps - 1, STATES)."""
    model, judge = networks(folder)
    slots, found = Slots(model, Sampling()), []
    attempts = [(i % len(model.classes), i // len(model.classes)) for i in range(STATES)]
    for taken in range(1, slots.cfg.steps):
        slots.start(attempts, [numbered(FRESH, attempt) for attempt in attempts])
        for _ in range(taken):
            slots.advance()
        many(slots, ENDS)
        for _ in range(taken, slots.cfg.steps):
            slots.advance()
        labels = [label for label, _ in slots.attempts]
        p = early.stored_p(judge, to_uint8(slots.images, slots.denoiser.name), labels)
        slots.free(torch.ones(len(labels), dtype=torch.bool))
        found.append((p >= Synthesis().threshold).reshape(STATES, ENDS).mean(axis=1))
    return np.stack(found)


def many(slots: Slots, copies: int) -> None:
    """Put so many of each candidate in its place, alike but for the noise to come."""
    repeated = lambda t: t.repeat_interleave(copies, dim=0)  # noqa: E731
    slots.attempts = [attempt for attempt in slots.attempts for _ in range(copies)]
    slots.generators = [torch.Generator().manual_seed(i) for i in range(len(slots.attempts))]
    slots.x, slots.x0, slots.taken, slots.finite = map(repeated, (slots.x, slots.x0, slots.taken, slots.finite))
    slots.before = [Estimate(*map(repeated, each)) for each in slots.before]


def at_best(chance: np.ndarray, share: float) -> dict[str, list[float]]:
    """Upper bounds for any predictor, by step, and for any checks together.

    Of the candidates to be refused at most so many can be told after a step that no more than `share` of those to be
    kept are lost: those with the least chance. What looks at earlier steps know is known after later ones, so no checks
    refuse more by any step, and each one's saving is what is left of its steps. Chances are estimated, and the same
    ends say whom to refuse and what is lost, which makes the bounds too high rather than too low.
    """
    known, steps, saved = [0.0], len(chance) + 1, 0.0
    for taken, each in enumerate(np.sort(chance, axis=1), start=1):
        left = share * each.sum() - (np.cumsum(each) - each)  # before this one; of the last a part is told
        told = np.clip(left / np.maximum(each, 1e-9), 0, 1)
        known.append(max(known[-1], float(((1 - each) * told).sum() / (1 - each).sum())))
        saved += (known[-1] - known[-2]) * (steps - taken) / steps
    by_step = {f"told after step {taken}": [100 * each] for taken, each in enumerate(known[1:], start=1)}
    return {"saved of the refused": [100 * saved], **by_step}


def rows_of(name: str, found: dict[str, list[float]]) -> list[dict[str, Any]]:
    unit = lambda quantity: "" if quantity.startswith(("area", "first")) else "%"  # noqa: E731
    return [
        {"name": name, "reference": name, "quantity": quantity, "unit": unit(quantity),
         "value": float(np.median(values)), "low": min(values), "high": max(values), "ratio": 0.0}
        for quantity, values in found.items()
    ]  # fmt: skip


def together(each: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """The values of all labelled subsets."""
    return {quantity: [value for one in each for value in one[quantity]] for quantity in each[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-full"))
    parser.add_argument("--subsets", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--share", type=float, default=0.01, help="of the kept ones that may be lost")
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    folders = [args.results / f"subset{subset}" for subset in args.subsets]
    each = [at_best(chances(folder), args.share) for folder in folders]
    page.record(
        "Early refusal at best",
        ABOUT_BEST.format(**vars(args), states=STATES, ends=ENDS),
        rows_of(DEFAULT, together(each)),
    )
    rows: list[dict[str, Any]] = []
    for name, cfg in WAYS.items():
        rows += rows_of(name, together([told(folder, cfg, args.share) for folder in folders]))
    page.record("Early refusal", ABOUT.format(**vars(args)), rows)


ABOUT = """`python -m benchmarks.early_refusal`: medians of labelled subsets {subsets}, in brackets their range, of \
candidates that the pilot has not seen; at most {share:.0%} of the kept ones may be lost in the mean over pilots."""
ABOUT_BEST = """`python -m benchmarks.early_refusal`: upper bounds, reached by a predictor that knew of each candidate \
how probable it still is that it will be kept, where at most {share:.0%} of the kept ones may be lost: of {states} \
candidates of each of the labelled subsets {subsets}, drawn to {ends} ends each from every step on; medians, in \
brackets their range."""

if __name__ == "__main__":
    main()

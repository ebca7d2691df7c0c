"""How often the 95% intervals of Tables 3 and 4 hold the true difference, by design: subsets x seeds.

    python benchmarks/coverage.py

Simulated tables of two sources, of which the truth is known. Whether a run is right about an image hangs on the image's
difficulty, on the labelled subset (its images; its own noise and initialisation), on the seed, and on luck, some of
which the two runs of a pair share. Coverage has a standard error of 0.5 points at 2000 tables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

from ddrep.evaluation.bootstrap import Difference, paired_difference

DESIGNS = ((1, 1), (1, 2), (2, 1), (3, 2), (5, 2))
"""(subsets, seeds of each)."""
LUCK = {"image": 0.7, "pair": 0.05, "subset": 0.1, "run": 0.15}
"""Shares of the variance of a run's right answers on one image: what all runs have in common; what the two runs of a
pair, or the runs of a source on one subset, have; and the rest."""


@dataclass(frozen=True)
class World:
    """The truth. Accuracy and gain in percent, standard deviations in points of accuracy."""

    accuracy: float = 74.0
    gain: float = 2.0
    subset: float = 1.0
    """Of the labelled subsets, for both sources alike; as large again is what it does to one source alone."""
    seed: float = 0.5
    """Of the seeds, for each source."""

    def latent(self, points: float) -> float:
        """Points of accuracy as a shift of the standard normal variable that is positive where a run is right."""
        return points / 100 / float(norm.pdf(norm.ppf(self.accuracy / 100)))


def table(world: World, subsets: int, seeds: int, images: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """bool (2, runs, images), whether source and control are right; and the true difference that an interval is for:
    of the run where there is one, of the subset where there is one, else of all subsets."""
    start = norm.ppf(world.accuracy / 100) + np.array([world.latent(world.gain), 0.0])
    subset, seed = world.latent(world.subset), world.latent(world.seed)
    of_subset = rng.normal(0, subset, (1, subsets)) + rng.normal(0, subset, (2, subsets)) * [[1], [0]]
    of_seed = rng.normal(0, seed, (2, subsets, seeds))
    shift = (start[:, None, None] + of_subset[:, :, None] + of_seed)[..., None]
    luck = [
        rng.normal(0, np.sqrt(share), shape)
        for share, shape in zip(
            LUCK.values(),
            [(images,), (subsets, seeds, images), (2, subsets, 1, images), (2, subsets, seeds, images)],
            strict=True,
        )
    ]
    right = (shift + sum(luck) > 0).reshape(2, subsets * seeds, images)
    if subsets * seeds == 1:
        means, spread = shift.ravel(), np.zeros(2)
    elif subsets == 1:
        means, spread = start + of_subset[:, 0], np.full(2, seed**2)
    else:
        means, spread = start, seed**2 + subset**2 * np.array([2, 1])
    a, b = norm.cdf(means / np.sqrt(1 + spread))
    return right, float(a - b)


def intervals(
    world: World, subsets: int, seeds: int, images: int, tables: int, resamples: int, seed: int
) -> list[tuple[Difference, float]]:
    """Interval and truth of `tables` simulated tables."""
    rng, groups = np.random.default_rng(seed), np.arange(subsets).repeat(seeds)
    found = []
    for _ in range(tables):
        (a, b), truth = table(world, subsets, seeds, images, rng)
        found.append((paired_difference(a, b, groups, resamples, 0.95, 0), truth))
    return found


def coverage(found: list[tuple[Difference, float]]) -> float:
    """Share of the intervals that hold the truth."""
    return float(np.mean([difference.low <= truth <= difference.high for difference, truth in found]))


def main() -> None:
    print("| Subset sd | Seed sd | Images | Design | Coverage | Median width |")
    print("| --------: | ------: | -----: | -----: | -------: | -----------: |")
    for subset, seed in ((1.0, 0.5), (0.0, 0.0), (0.0, 1.0), (3.0, 1.0)):
        world = World(subset=subset, seed=seed)
        for images in (500, 5000):
            for design in DESIGNS:
                found = intervals(world, *design, images, 2000, 1000, 0)
                width = 100 * np.median([difference.high - difference.low for difference, _ in found])
                what = f"{subset:9.1f} | {seed:7.1f} | {images:6d} | {f'{design[0]} x {design[1]}':>6}"
                print(f"| {what} | {coverage(found):8.1%} | {width:12.1f} |", flush=True)


if __name__ == "__main__":
    main()

"""Paired bootstrap of a difference in accuracy over two things that were drawn: training subsets and test images."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """Accuracy of a less accuracy of b, as a fraction, and the ends of its interval."""

    value: float
    low: float
    high: float


def paired_difference(
    a: np.ndarray, b: np.ndarray, groups: np.ndarray, resamples: int, confidence: float, seed: int
) -> Difference:
    """Mean of a - b over runs and images, with a percentile interval for other subsets and other test images.

    a, b: bool (runs, images), whether a run is right about an image; row r of both has the same labelled subset and
    seed, column i the same image. groups: (runs,) the labelled subset of each run. resamples: at least 1;
    0 < confidence < 1.

    *Images* are resampled with all runs kept, and *subsets* with all images kept, and their deviations added: to
    resample both at once would count the noise of a single (run, image) three times instead of twice (Owen 2007, The
    pigeonhole bootstrap). Subsets are resampled whole, each with its seeds: the observed spread of subset means already
    holds the noise of the seeds, and resampling these too would count it twice (Davison and Hinkley 1997, 3.8). With
    one subset its seeds are resampled, and the interval is for that subset; with one run nothing but the images is.

    So few subsets need two corrections, without which the interval of 3 subsets that differ much holds the truth 80%
    of the time instead of 95%: k resampled subsets spread by sqrt((k - 1) / k) too little, and their spread is itself
    uncertain, chi-squared with k - 1 degrees of freedom (what turns a normal interval into Student's). Seeds get the
    first alone: their spread is mostly the noise of single images (Jordan 2023, Calibrated Chaos), counted already.
    """
    per_run = a.astype(np.float32) - b
    value = float(per_run.mean(dtype=np.float64))
    weights = _image_weights(per_run.shape[1], resamples, seed)
    deviation = weights @ per_run.mean(0) - value + _subset_deviation(per_run.mean(1), groups, resamples, seed)
    tail = (1 - confidence) / 2
    low, high = value + np.quantile(deviation, [tail, 1 - tail])
    return Difference(value, float(low), float(high))


@lru_cache(maxsize=2)
def _image_weights(images: int, resamples: int, seed: int) -> np.ndarray:
    """float32 (resamples, images): how often each image is drawn, over their number. Shared by all comparisons."""
    rng = np.random.default_rng((seed, 0))
    weights = np.empty((resamples, images), np.float32)
    for row in weights:
        row[:] = np.bincount(rng.integers(images, size=images), minlength=images)
    return weights / images


def _subset_deviation(differences: np.ndarray, groups: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """(runs,) mean differences -> (resamples,) deviations of their mean when subsets (or seeds) are drawn anew."""
    names, index = np.unique(groups, return_inverse=True)
    subsets = len(names) > 1
    index = index if subsets else np.arange(len(differences))
    k = int(index.max()) + 1
    if k == 1:
        return np.zeros(resamples)
    rng = np.random.default_rng((seed, 1, k))
    drawn = rng.multinomial(k, np.full(k, 1 / k), size=resamples)
    means = drawn @ np.bincount(index, differences) / (drawn @ np.bincount(index))
    uncertainty = (k - 1) / rng.chisquare(k - 1, size=resamples) if subsets else 1.0
    return (means - differences.mean()) * np.sqrt(k / (k - 1) * uncertainty)

"""The Fréchet distance between two sets of images by their features, compared at equal N."""

from __future__ import annotations

import numpy as np
import torch

from ddrep.errors import UserError

MINIMUM = 1000
"""Fewest images of a set. A covariance of D features wants N well above D (it is singular from N = D down), and the
distance is too large by about c/N for finite N: with 96 or 128 features 1,000 images are enough, fewer say little.
"""

SPLITS = 10
"""Splits of the real images that a floor is the mean of: one alone is off by up to a third."""


def frechet_distance(real: np.ndarray, generated: np.ndarray, seed: int, minimum: int = MINIMUM) -> float:
    """|mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)) of features (N, D) and (M, D), by torch-fidelity.

    Of the larger set as many rows as the smaller has are drawn by the seed, for the distance depends on N. `minimum` is
    there for the paper's Table 2, a FID of 500 images. Raises UserError for fewer.
    """
    n = min(len(real), len(generated))
    if n < minimum:
        raise UserError(
            f"Fréchet distance: {len(real)} real and {len(generated)} generated images, expected {minimum} of each "
            "at least, for fewer say little; generate more"
        )
    return _distance(_draw(real, n, seed), _draw(generated, n, seed))


def floor(real: np.ndarray, n: int, seed: int) -> tuple[float, float] | None:
    """Distance between real images and others of the same distribution, features (N, D), as if with n of each: mean and
    standard deviation over SPLITS.

    Measured between disjoint random sets of m = min(n, N // 2) real images. With fewer than 2 n real images m < n, and
    the figures are scaled by m / n: of one distribution the distance is all bias, which falls as 1/m. None where m is
    not above D, for that law does not hold there.
    """
    m = min(n, len(real) // 2)
    if m <= real.shape[1]:
        return None
    rng = np.random.default_rng(seed)
    orders = (rng.permutation(len(real)) for _ in range(SPLITS))
    values = [_distance(real[order[:m]], real[order[m : 2 * m]]) * m / n for order in orders]
    return float(np.mean(values)), float(np.std(values, ddof=1))


def _draw(features: np.ndarray, n: int, seed: int) -> np.ndarray:
    return features[np.sort(np.random.default_rng(seed).choice(len(features), n, replace=False))]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    from torch_fidelity import metric_fid  # and with it torchvision, for seconds: tables seldom want a distance

    first, second = (metric_fid.fid_features_to_statistics(torch.as_tensor(x, dtype=torch.float64)) for x in (a, b))
    return metric_fid.fid_statistics_to_metric(first, second, verbose=False)[metric_fid.KEY_METRIC_FID]

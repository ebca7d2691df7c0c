"""The paired bootstrap against scipy, closed forms and simulated truth."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.coverage import World, coverage, intervals
from ddrep.evaluation.bootstrap import paired_difference


def _predictions(rng, runs, images, accuracy):
    return rng.random((runs, images)) < accuracy


def test_value_is_the_difference_of_the_mean_accuracies():
    rng = np.random.default_rng(0)
    a, b = _predictions(rng, 6, 999, 0.8), _predictions(rng, 6, 999, 0.75)
    difference = paired_difference(a, b, np.repeat([0, 1, 2], 2), 100, 0.95, 0)
    assert difference.value == pytest.approx(a.mean() - b.mean(), abs=1e-12)
    assert difference.low < difference.value < difference.high


def test_one_run_agrees_with_scipy_paired_bootstrap():
    rng = np.random.default_rng(1)
    a, b = _predictions(rng, 1, 400, 0.8), _predictions(rng, 1, 400, 0.7)
    ours = paired_difference(a, b, np.array([0]), 20000, 0.9, 0)
    theirs = stats.bootstrap(
        (a[0], b[0]), lambda x, y, axis: np.mean(x, axis=axis) - np.mean(y, axis=axis), paired=True, vectorized=True,
        n_resamples=20000, confidence_level=0.9, method="percentile", rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    assert ours.low == pytest.approx(theirs.low, abs=2.6e-3)  # one image is 2.5e-3
    assert ours.high == pytest.approx(theirs.high, abs=2.6e-3)


def test_many_images_agree_with_the_normal_interval_of_paired_differences():
    rng = np.random.default_rng(3)
    common = rng.random((1, 8000))
    a, b = common < 0.8, (common < 0.75) ^ (rng.random((1, 8000)) < 0.05)
    d = a[0].astype(float) - b[0]
    half = 1.959964 * d.std(ddof=1) / np.sqrt(d.size)
    ours = paired_difference(a, b, np.array([0]), 4000, 0.95, 0)
    assert (ours.high - ours.low) / 2 == pytest.approx(half, rel=0.06)
    unpaired = 1.959964 * np.sqrt((a.var() + b.var()) / d.size)
    assert half < 0.8 * unpaired  # so that the line above tells paired from unpaired


def test_subsets_that_differ_give_students_interval():
    """With no noise from images the interval is that of the subset means: Student's t with k - 1 degrees."""
    rng = np.random.default_rng(4)
    accuracies = rng.normal(0.5, 0.04, 40)
    images = 4000
    a = np.arange(images)[None] < np.round(accuracies * images)[:, None]
    b = np.arange(images)[None] < np.full(40, images // 2)[:, None]
    ours = paired_difference(a, b, np.arange(40), 8000, 0.95, 0)
    d = a.mean(1) - b.mean(1)
    over_subsets = d.std(ddof=1) / np.sqrt(40)
    over_images = (a.astype(float) - b).mean(0).std() / np.sqrt(images)
    expected = stats.t.ppf(0.975, 39) * np.hypot(over_subsets, over_images)
    assert over_images < 0.5 * over_subsets
    assert (ours.high - ours.low) / 2 == pytest.approx(expected, rel=0.04)


def test_seeds_of_one_subset_are_not_independent_evidence():
    """Six equal seeds in each of three subsets say no more about other subsets than one seed in each."""
    a = np.random.default_rng(5).random((3, 2000)) < np.array([[0.7], [0.75], [0.8]])
    b = np.zeros_like(a)
    b[:, :1400] = True
    once = paired_difference(a, b, np.arange(3), 4000, 0.95, 0)
    repeated = paired_difference(a.repeat(6, 0), b.repeat(6, 0), np.arange(3).repeat(6), 4000, 0.95, 0)
    assert repeated == pytest.approx(once, abs=1e-6)
    as_if_independent = paired_difference(a.repeat(6, 0), b.repeat(6, 0), np.arange(18), 4000, 0.95, 0)
    assert as_if_independent.high - as_if_independent.low < 0.5 * (once.high - once.low)


@pytest.mark.parametrize(
    ("subset_sd", "shared", "at_most"), [(0.0, 1.0, 0.97), (0.1, 0.0, 0.98), (0.02, 0.5, 0.99), (0.0, 0.0, 1.0)]
)
def test_interval_holds_the_truth_as_often_as_it_says(subset_sd, shared, at_most):
    """3 subsets x 2 seeds x 400 images, true difference 0: 95% of the intervals, more where runs are mere noise.

    shared: the share of images about which all runs of a method say the same.
    """
    rng = np.random.default_rng(6)
    groups = np.repeat([0, 1, 2], 2)
    trials, held = 600, 0
    for _ in range(trials):
        luck = np.where(rng.random(400) < shared, rng.random((2, 1, 400)), rng.random((2, 6, 400)))
        subset = rng.normal(0, subset_sd, 3)[groups][:, None]
        difference = paired_difference(luck[0] < 0.7 + subset, luck[1] < 0.7, groups, 500, 0.95, 0)
        held += difference.low <= 0 <= difference.high
    assert 0.93 <= held / trials <= at_most


@pytest.mark.parametrize(
    ("subsets", "seeds", "at_most"), [(1, 1, 0.97), (1, 2, 0.98), (2, 1, 0.997), (3, 2, 0.997), (5, 2, 0.99)]
)
def test_designs_of_the_tables_hold_the_truth_as_often_as_they_say(subsets, seeds, at_most):
    """Known truth; subsets differ by 1 point, and by another for one source alone, seeds by half a point.

    400 tables: 95% has a standard error of 1.1. What is above is the noise of single images, which the spread of few
    subsets holds once more.
    """
    assert 0.93 <= coverage(intervals(World(), subsets, seeds, 1000, 400, 500, 1)) <= at_most


@pytest.mark.parametrize(("seeds", "at_least"), [(2, 0.91), (3, 0.935)])
def test_two_or_three_seeds_of_a_subset_are_few(seeds, at_least):
    """Seeds that differ by two points: without Student's tails 88 and 93% of these intervals hold the truth."""
    found = intervals(World(subset=0.0, seed=2.0), 1, seeds, 500, 1000, 500, 2)
    assert at_least <= coverage(found) <= 0.97


def test_same_seed_same_interval():
    rng = np.random.default_rng(7)
    a, b = _predictions(rng, 4, 300, 0.8), _predictions(rng, 4, 300, 0.7)
    groups = np.array([0, 0, 1, 1])
    first, other = (paired_difference(a, b, groups, 300, 0.95, seed) for seed in (0, 1))
    assert paired_difference(a, b, groups, 300, 0.95, 0) == first
    assert other.low != first.low

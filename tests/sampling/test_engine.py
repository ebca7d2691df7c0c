"""The engine with judges and draws made up: what no judge may accept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddrep.data.shards import read_shards
from ddrep.errors import UserError
from ddrep.sampling.engine import Engine, Tally, fill, hopeless
from ddrep.sampling.pool import Pool

KEYS = ("budget", "lower it")


def _engine(folder: Path, every: int) -> Engine:
    """Of each class every `every`-th attempt is of one level all over: black, grey, white in turn."""

    def draw(attempts):
        noise = np.random.default_rng(0).integers(0, 256, (len(attempts), 8, 8, 3), np.uint8)
        for image, (_, attempt) in zip(noise, attempts, strict=True):
            if attempt % every == 0:
                image[:] = (0, 128, 255)[attempt // every % 3]
        return noise

    return Engine(draw, Pool(folder, "key", 0, (3, 8, 8)), 100, 1)


def _sure(images):
    """A judge that takes everything for everything."""
    return np.ones((len(images), 2))


def test_an_image_of_one_level_is_accepted_at_no_threshold(tmp_path: Path) -> None:
    engine, tallies = _engine(tmp_path, 3), [Tally(0, 0.0), Tally(1, 1.0)]
    fill(tallies, 10, 100, lambda attempts: engine.judged(attempts, _sure), KEYS)
    engine.write_accepted(tallies, 10, 0, 0, ("a", "b"), tmp_path / "0.tar")
    images = read_shards([tmp_path / "0.tar"]).images
    assert len(images) == 20 and np.ptp(images.reshape(20, -1), axis=1).min() > 0
    rows = pd.read_parquet(tmp_path / "0.parquet")
    refused = rows["attempt"] % 3 == 0
    assert (rows["accepted"] == ~refused).all() and (rows["p"] == np.where(refused, -1.0, 1.0)).all()


def test_a_denoiser_that_gives_no_other_fills_no_shard(tmp_path: Path) -> None:
    engine, tallies = _engine(tmp_path, 1), [Tally(0, 0.0, "cat")]
    with pytest.raises(UserError, match=r"budget: classes cat \(0/30 = 0.0%\) accept too few"):
        fill(tallies, 10, 30, lambda attempts: engine.judged(attempts, _sure), KEYS)


@pytest.mark.parametrize("acceptance", [0.0, 0.002])
def test_a_class_that_accepts_next_to_nothing_is_given_up_before_the_budget_is_used_up(acceptance: float) -> None:
    """25 images within 1,000 attempts want an acceptance of 2.5%."""
    rng, tallies = np.random.default_rng(0), [Tally(0, 0.5, "cat"), Tally(1, 0.5, "dog")]
    p = np.stack([rng.random(1000) < acceptance, rng.random(1000) < 0.3]).astype(float)

    def judge(attempts: Sequence[tuple[int, int]]) -> list[float]:
        return [float(p[attempt]) for attempt in attempts]

    with pytest.raises(
        UserError, match=r"classes cat \(\d/400 = 0\.\d%\) accept too few for the 25 images .* 1000"
    ) as caught:
        fill(tallies, 25, 1000, judge, KEYS)
    assert "dog" not in str(caught.value) and len(tallies[0].p) == 400


@pytest.mark.parametrize(("accepted", "made"), [(0, 10), (0, 272), (0, 273), (2, 600), (20, 999), (24, 1000)])
def test_hopeless_is_a_binomial_tail(accepted: int, made: int) -> None:
    tail = sum(math.comb(made, k) * 0.025**k * 0.975 ** (made - k) for k in range(accepted + 1))
    assert hopeless(accepted, made, 25, 1000) == (tail < 1e-3 or made == 1000)


def test_hardly_a_class_is_given_up_that_would_have_filled_its_quota() -> None:
    """Of 2,000 classes that just about fill it, and as many with half as much again, looked at as `fill` does."""
    rng = np.random.default_rng(0)
    for rate in (0.025, 0.0375):
        lost = filled = 0
        for _ in range(2000):
            p = (rng.random(1000) < rate).astype(float)
            tally = Tally(0, 0.5)
            while not tally.given_up(25, 1000) and (wanted := tally.wanted(25, 1000)):
                tally.p.extend(p[wanted.start : wanted.stop])
            filled += p.sum() >= 25
            lost += p.sum() >= 25 and tally.accepted < 25
        assert filled > 900 and lost <= 3

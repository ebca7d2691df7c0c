"""The engine with judges and draws made up: what no judge may accept."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddrep.data.shards import read_shards
from ddrep.errors import UserError
from ddrep.sampling.engine import Engine, Tally, fill
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
    with pytest.raises(UserError, match=r"budget: classes cat \(0/30 = 0.0%\) accepted fewer"):
        fill(tallies, 10, 30, lambda attempts: engine.judged(attempts, _sure), KEYS)

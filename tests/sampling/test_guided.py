"""Shards of guided images: exact numbers, shared noise and candidates, and one line for what cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddrep.config import GuidedShard, Sampling, Stage
from ddrep.data.masks import MaskedImages, read_masked_shards, write_masked_shard
from ddrep.data.shards import read_shards
from ddrep.errors import UserError
from ddrep.sampling.guided import attribute_shard, mask_shard, noise_number

FAST = Sampling(steps=2, guidance_scale=0.0)


def draw(folder: Path, name: str, subset: int = 0, run: int = 0, batch: int = 4, **settings: float) -> Path:
    stage = Stage[GuidedShard](config=GuidedShard(sampling=FAST, images=3, **settings))
    out = folder / f"{name}.tar"
    attribute_shard(stage, folder / "d.safetensors", folder / "attribute", subset, run, folder / "pool", out, batch)
    return out


def test_as_many_of_each_target_from_the_same_noise(folder: Path) -> None:
    plain, guided = draw(folder, "plain"), draw(folder, "guided", scale=5.0)
    seeds = []
    for path in (plain, guided):
        shard, attempts = read_shards([path]), pd.read_parquet(path.with_suffix(".parquet"))
        assert np.bincount(shard.labels).tolist() == [3, 3]
        assert attempts["accepted"].all() and len(attempts) == 6
        seeds.append(attempts["seed"].tolist())
    assert seeds[0] == seeds[1]
    assert (read_shards([plain]).images != read_shards([guided]).images).any()


def test_runs_and_subsets_have_noise_of_their_own(folder: Path) -> None:
    pairs = [(subset, run) for subset in range(30) for run in range(30)]
    assert len({noise_number(*pair) for pair in pairs}) == len(pairs)
    drawn = [read_shards([draw(folder, f"{s}-{r}", s, r)]).images for s, r in ((0, 0), (1, 0), (0, 1))]
    assert (drawn[0] != drawn[1]).any() and (drawn[0] != drawn[2]).any() and (drawn[1] != drawn[2]).any()


def test_rejection_selects_among_the_unguided_candidates(folder: Path) -> None:
    draw(folder, "plain")
    pools = sorted(path.name for path in (folder / "pool").iterdir())
    tried = pd.read_parquet(folder / "plain.parquet")
    bar = float(tried.groupby("class")["p"].median().min())  # of one class a half, of the other all or more
    kept = pd.read_parquet(draw(folder, "kept", threshold=bar, max_attempts=200).with_suffix(".parquet"))
    assert (kept["p"][kept["accepted"]] >= bar).all() and len(kept) > kept["accepted"].sum() == 6
    assert sorted(path.name for path in (folder / "pool").iterdir()) == pools, "candidates are shared"
    with pytest.raises(UserError, match=r"table1.max_attempts: classes T-shirt/top \(\d/3 = .*lower table1.threshold"):
        draw(folder, "never", threshold=1.0)
    assert not (folder / "never.tar").exists()


def test_an_image_for_each_mask_in_order_whatever_the_batch(folder: Path) -> None:
    stage = Stage[GuidedShard](config=GuidedShard(sampling=FAST, scale=0.05, images=7))
    targets = read_masked_shards([folder / "masks.tar"])
    drawn = []
    for batch in (3, 12):
        out = folder / f"{batch}.tar"
        inputs = folder / "d.safetensors", folder / "mask", folder / "masks.tar"
        mask_shard(stage, *inputs, 0, 0, folder / f"pool{batch}", out, batch)
        drawn.append(read_masked_shards([out]))
        assert drawn[-1].classes == targets.classes
        np.testing.assert_array_equal(drawn[-1].masks, targets.masks[:7])
    assert np.abs(drawn[0].images.astype(int) - drawn[1].images).max() <= 1
    mask_shard(stage, *inputs, 1, 0, folder / "pool", folder / "next.tar", 12)  # the second of all runs
    following = read_masked_shards([folder / "next.tar"]).masks
    np.testing.assert_array_equal(following, targets.masks[[7, 8, 9, 10, 11, 0, 1]])


@pytest.mark.parametrize(
    ("size", "classes", "says"),
    [
        (6, ("dark", "bright"), r"targets.tar: masks of 6x6 pixels; the denoiser's images have 8x8"),
        (8, ("dark", "bright", "grey"), r"targets.tar: class 2 in a mask; the guide knows 0..1, and 255 for any"),
        (8, ("night", "day"), r"targets.tar: classes night, day, ...; the guide was trained on dark, bright"),
    ],
)
def test_masks_that_the_guide_cannot_follow_are_one_line(
    folder: Path, size: int, classes: tuple[str, ...], says: str
) -> None:
    masks = np.full((1, size, size), len(classes) - 1, np.uint8)
    images = np.zeros((1, size, size, 1), np.uint8)
    write_masked_shard(folder / "targets.tar", MaskedImages(images, masks, ["a"], classes))
    stage = Stage[GuidedShard](config=GuidedShard(sampling=FAST, scale=0.05))
    inputs = folder / "d.safetensors", folder / "mask", folder / "targets.tar"
    with pytest.raises(UserError, match=says) as caught:
        mask_shard(stage, *inputs, 0, 0, folder / "pool", folder / "out.tar", 4)
    assert "\n" not in str(caught.value) and not (folder / "out.tar").exists()

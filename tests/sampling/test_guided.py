"""Shards of guided images: exact numbers, shared noise and candidates, and one line for what cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from torch import Tensor

from ddrep.config import EvenSampling, Experiment, GuidedShard, Stage, Table2
from ddrep.data.masks import MaskedImages, read_masked_shards, write_masked_shard
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.derived import STAGES, guided_of
from ddrep.errors import UserError
from ddrep.sampling.guided import ROWS, attribute_shard, dealt, mask_shard, noise_number

FAST = EvenSampling(steps=2, eta=0.0, guidance_scale=0.0)


def draw(folder: Path, name: str, subset: int = 0, run: int = 0, batch: int = 4, **settings: float) -> Path:
    stage = Stage[GuidedShard](config=GuidedShard(sampling=FAST, images=3, **settings))
    out = folder / f"{name}.tar"
    attribute_shard(
        stage,
        denoiser=folder / "d.safetensors",
        guide=folder / "attribute",
        subset=subset,
        run_seed=run,
        pool=folder / "pool",
        out=out,
        batch=batch,
    )
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
    section = GuidedShard(sampling=FAST, scale=0.05, images=7)
    stage = Stage[GuidedShard](config=section)
    targets = read_masked_shards([folder / "masks.tar"])
    drawn = []
    for batch in (3, 12):
        out = folder / f"{batch}.tar"
        inputs = {"denoiser": folder / "d.safetensors", "guide": folder / "mask", "masks": folder / "masks.tar"}
        mask_shard(stage, **inputs, subset=0, run_seed=0, pool=folder / f"pool{batch}", out=out, batch=batch)
        drawn.append(read_masked_shards([out]))
        assert drawn[-1].classes == targets.classes
        np.testing.assert_array_equal(drawn[-1].masks, targets.masks[:7])
    np.testing.assert_array_equal(drawn[0].images, drawn[1].images)
    following = Stage[GuidedShard](config=section.model_copy(update={"first": 7}))
    again = [folder / "next.tar", folder / "afresh.tar"]
    for pool, out in zip((folder / "pool12", folder / "other pool"), again, strict=True):
        mask_shard(following, **inputs, subset=0, run_seed=0, pool=pool, out=out, batch=12)
        np.testing.assert_array_equal(read_masked_shards([out]).masks, targets.masks[[7, 8, 9, 10, 11, 0, 1]])
    assert again[0].read_bytes() == again[1].read_bytes(), "candidates for other targets are not taken from the pool"
    assert (read_masked_shards(again[:1]).images != drawn[1].images).any()


def test_the_denoiser_always_sees_as_many_images(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or an image would hang on its neighbours: of the embedded denoiser's, guided to masks in 50 steps, one in seven
    was another by 13 grey levels and more, up to 232, when it was drawn in batches of 7."""
    seen, eps = set(), Denoiser.eps

    def watched(self: Denoiser, x: Tensor, *more: Tensor) -> Tensor:
        seen.add(len(x))
        return eps(self, x, *more)

    monkeypatch.setattr(Denoiser, "eps", watched)
    for scale in (0.0, 5.0):
        draw(folder, f"{scale}", scale=scale)
        draw(folder, f"{scale}-1", run=1, batch=1, scale=scale)
    assert seen == {ROWS}


def test_another_version_takes_none_of_the_candidates_of_an_older_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Snakemake makes its results anew, which would be the old ones."""
    draw(folder, "old")
    before = set((folder / "pool").iterdir())
    monkeypatch.setitem(STAGES, "guided", replace(STAGES["guided"], version=99))
    draw(folder, "new")
    assert len(set((folder / "pool").iterdir()) - before) == 1


def settings() -> Iterator[tuple[list[int], list[int], int, int]]:
    """Subsets, seeds, images a run and target masks: the evidence's, those that were wrong, and many at random."""
    yield from (([0, 1, 2], [0], 100, 1000), ([0], [0, 1], 100, 1000), ([0, 1], [7, 3], 50, 20))
    rng = np.random.default_rng(0)
    for _ in range(300):
        subsets, seeds = (rng.choice(n, rng.integers(1, 5), replace=False).tolist() for n in (1000, 5000))
        yield subsets, seeds, int(rng.integers(1, 60)), int(rng.integers(1, 300))


def test_runs_share_no_target_until_all_are_used() -> None:
    """Each seed once drew the same masks, where 1000 times the number of images was a multiple of theirs."""
    for subsets, seeds, images, masks in settings():
        _share_no_target(subsets, seeds, images, masks)


def _share_no_target(subsets: list[int], seeds: list[int], images: int, masks: int) -> None:
    table = Table2(subsets=tuple(subsets), seeds=tuple(seeds), images=images)
    used = np.concatenate([dealt(table.first(subset, seed), images, masks) for seed in seeds for subset in subsets])
    times = np.bincount(used, minlength=masks)
    assert times.max() - times.min() <= 1
    one_more = table.model_copy(update={"seeds": (*table.seeds, 9999)})
    assert all(one_more.first(k, s) == table.first(k, s) for k in subsets for s in seeds)


def test_the_workflow_tells_each_run_its_first_target(folder: Path) -> None:
    """What the rule is told, and what the command makes of it: two seeds of 5 of the 12 masks share none."""
    raw = {"experiment": "e", "parts": ["masks"], "table2": {"images": 5, "seeds": [0, 1]}}
    e = Experiment.model_validate({**raw, "masks": {"sampling": {"solver": "ddim"}}})
    keys = []
    for seed in (0, 1):
        stage = Stage[GuidedShard](config=guided_of(e.masks, "ours", 2, e, e.table2.first(0, seed)))
        inputs = {"denoiser": folder / "d.safetensors", "guide": folder / "mask", "masks": folder / "masks.tar"}
        mask_shard(stage, **inputs, subset=0, run_seed=seed, pool=folder / "pool", out=folder / f"{seed}.tar", batch=12)
        keys += [key.split("-", 1)[1] for key in read_masked_shards([folder / f"{seed}.tar"]).keys]
    assert len(set(keys)) == len(keys) == 10
    with pytest.raises(UserError, match="table2: no run of subset 0 and seed 2; add them"):
        e.table2.first(0, 2)


def test_a_guide_of_the_other_kind_is_one_line(folder: Path) -> None:
    stage = Stage[GuidedShard](config=GuidedShard(sampling=FAST, scale=0.05))
    given: dict[str, Any] = {
        "denoiser": folder / "d.safetensors",
        "pool": folder / "pool",
        "out": folder / "o.tar",
        "batch": 4,
    }
    with pytest.raises(UserError, match="mask: a guide of mask; expected one of attribute; train it with `ddrep guide"):
        attribute_shard(stage, **given, guide=folder / "mask", subset=0, run_seed=0)
    with pytest.raises(UserError, match="attribute: a guide of attribute; expected one of mask"):
        mask_shard(stage, **given, guide=folder / "attribute", masks=folder / "masks.tar", subset=0, run_seed=0)


def test_runs_that_would_share_their_noise_are_refused() -> None:
    with pytest.raises(UserError, match=r"subset 1000, seed 0: expected a subset below 1000 and a seed below 4294967"):
        noise_number(1000, 0)
    with pytest.raises(UserError, match=r"subset 0, seed 4294968: expected"):  # which no generator takes as its seed
        noise_number(0, 4294968)
    np.random.RandomState(noise_number(999, 4294966))


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
    inputs = {"denoiser": folder / "d.safetensors", "guide": folder / "mask", "masks": folder / "targets.tar"}
    with pytest.raises(UserError, match=says) as caught:
        mask_shard(stage, **inputs, subset=0, run_seed=0, pool=folder / "pool", out=folder / "out.tar", batch=4)
    assert "\n" not in str(caught.value) and not (folder / "out.tar").exists()

"""Soft labels of images that are there, and of images that are drawn of no class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ddrep.config import Probe, Sampling, Shard, Stage, Synthesis
from ddrep.data.shards import read_shards, read_unlabelled, write_shard, write_unlabelled
from ddrep.errors import UserError
from ddrep.networks.judges import Judge
from ddrep.sampling import labelling, synthesis
from ddrep.sampling.sampler import sample
from ddrep.training import probe
from tests import tiny

PROBE = Probe(blocks=("middle", "up1"), timesteps=(50,), noises=1, strengths=(0.03,), folds=3, best=2)
DRAWN = Sampling(steps=3, guidance_scale=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("labelling")
    tiny.denoiser().save(made / "d.safetensors")
    write_shard(made / "train.tar", tiny.images())
    write_unlabelled(made / "unlabelled.tar", tiny.images(per_class=7))
    files = {"denoiser": made / "d.safetensors", "train": made / "train.tar"}
    probe.run(Stage[Probe](config=PROBE), **files, out=made / "probe.safetensors", report=made / "report.json")
    return made


@pytest.fixture
def judge(folder: Path) -> Judge:
    return Judge.load(folder / "probe.safetensors", folder / "d.safetensors", torch.device("cpu"))


def _label(folder: Path, images: str, index: int | None, out: Path) -> None:
    files = {"images": folder / images, "denoiser": folder / "d.safetensors", "judge": folder / "probe.safetensors"}
    stage = Stage[Synthesis](config=Synthesis(per_class=4, shards_per_scale=2))
    labelled = None if index is None else folder / "train.tar"
    labelling.run(stage, **files, index=index, labelled=labelled, out=out)


def test_labelled_images_keep_their_classes(folder: Path, judge: Judge, tmp_path: Path) -> None:
    _label(folder, "train.tar", None, tmp_path / "soft.tar")
    soft, hard = read_shards([tmp_path / "soft.tar"]), read_shards([folder / "train.tar"])
    assert soft.keys == hard.keys and (soft.labels == hard.labels).all() and (soft.images == hard.images).all()
    assert soft.soft is not None
    np.testing.assert_allclose(soft.soft, judge.probabilities(hard.images), atol=5e-4)


def test_a_judge_of_the_same_classes_in_another_order_is_refused(folder: Path, tmp_path: Path) -> None:
    """As many, so that each image would bear another class's probability."""
    images = read_shards([folder / "train.tar"])
    first, *others = images.classes
    turned = dataclasses.replace(images, labels=(images.labels - 1) % 3, classes=(*others, first))
    write_shard(tmp_path / "turned.tar", turned)
    with pytest.raises(UserError, match=rf"probe.safetensors: its class 0 is {first}, .*turned.tar has {others[0]} th"):
        _label(folder, str(tmp_path / "turned.tar"), None, tmp_path / "soft.tar")


def test_images_without_labels_come_in_parts(folder: Path, judge: Judge, tmp_path: Path) -> None:
    """21 images: parts of 6, of which the last would be cut short."""
    every = read_unlabelled(folder / "unlabelled.tar")
    for index in range(3):
        _label(folder, "unlabelled.tar", index, tmp_path / f"{index}.tar")
        part, rows = read_shards([tmp_path / f"{index}.tar"]), pd.read_parquet(tmp_path / f"{index}.parquet")
        wanted = slice(6 * index, 6 * index + 6)
        assert part.keys == every.keys[wanted] == rows["key"].tolist()
        p = judge.probabilities(every.images[wanted])
        assert part.labels.tolist() == p.argmax(axis=1).tolist() == rows["class"].tolist()
        np.testing.assert_allclose(np.stack(rows["probabilities"].tolist()), p, atol=5e-4)
        assert rows["accepted"].all() and not rows["evaluations"].any()
    with pytest.raises(UserError, match=r"unlabelled.tar: 21 images without labels, too few for shard 3 of 6"):
        _label(folder, "unlabelled.tar", 3, tmp_path / "3.tar")


def test_images_of_no_class_have_the_judges(folder: Path, judge: Judge, tmp_path: Path) -> None:
    """They are the pretrained denoiser's own, one evaluation a step, whatever the batch."""
    shard = Shard(sampling=DRAWN, synthesis=Synthesis(per_class=4, shards_per_scale=2, threshold=0), labels="soft")
    drawn = {}
    for batch in (4, 64):
        out, pool = tmp_path / f"{batch}.tar", tmp_path / f"pool{batch}"
        synthesis.run(
            Stage[Shard](seed=5, config=shard), finetuned=None, labelled=folder / "train.tar",
            pretrained=folder / "d.safetensors", judge=folder / "probe.safetensors", threshold_file=None, index=1,
            pool=pool, out=out, batch=batch,
        )  # fmt: skip
        drawn[batch] = read_shards([out])
    images, rows = drawn[64], pd.read_parquet(tmp_path / "64.parquet")
    assert len(images) == 6 and rows["key"].tolist() == [f"any-00001-{i:06d}" for i in range(6)]
    own = sample(tiny.denoiser(), rows["seed"].tolist(), DRAWN)
    by_key = dict(zip(images.keys, images.images, strict=True))
    assert all((by_key[key] == image).all() for key, image in zip(rows["key"], own, strict=True))
    p = judge.probabilities(own)
    assert rows["class"].tolist() == p.argmax(axis=1).tolist() and (rows["evaluations"] == DRAWN.steps).all()
    np.testing.assert_allclose(rows["p"], p.max(axis=1))
    assert drawn[4].keys == images.keys and abs(drawn[4].images.astype(int) - images.images).max() <= 1


def test_balance_goes_on_until_every_class_is_full(folder: Path, judge: Judge, tmp_path: Path) -> None:
    """The first of each class in the order of attempts, as they are told by hand."""
    settings = Synthesis(per_class=2, threshold=0, max_attempts=200, balance=True)
    shard = Shard(sampling=DRAWN, synthesis=settings, labels="soft")
    synthesis.run(
        Stage[Shard](seed=5, config=shard), finetuned=None, labelled=folder / "train.tar",
        pretrained=folder / "d.safetensors", judge=folder / "probe.safetensors", threshold_file=None, index=0,
        pool=tmp_path / "pool", out=tmp_path / "b.tar", batch=16,
    )  # fmt: skip
    rows, images = pd.read_parquet(tmp_path / "b.parquet"), read_shards([tmp_path / "b.tar"])
    assert np.bincount(images.labels, minlength=3).tolist() == [2, 2, 2]
    said = judge.probabilities(sample(tiny.denoiser(), rows["seed"].tolist(), DRAWN)).argmax(axis=1)
    first = [row for row in range(len(said)) if (said[:row] == said[row]).sum() < 2]
    assert rows.index[rows["accepted"]].tolist() == first and first[-1] == len(rows) - 1
    assert sorted(images.keys) == sorted(rows["key"][first])


def test_guidance_wants_classes(folder: Path, tmp_path: Path) -> None:
    for labelled, guided, message in (
        (None, 0.0, "expected --finetuned, or --labelled"),
        (folder / "train.tar", 0.5, r"sampling.guidance_scale: 0.5; expected 0"),
    ):
        stage = Stage[Shard](config=Shard(sampling=Sampling(steps=3, guidance_scale=guided)))
        with pytest.raises(UserError, match=message):
            synthesis.run(
                stage, finetuned=None, labelled=labelled, pretrained=folder / "d.safetensors",
                judge=folder / "probe.safetensors", threshold_file=None, index=0, pool=tmp_path / "pool",
                out=tmp_path / "out.tar", batch=8,
            )  # fmt: skip

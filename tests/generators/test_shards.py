"""Shards of a generator's images: exact numbers, only what is kept is drawn, and one line for what cannot be."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ddrep.config import EvenSampling, GeneratedMasks, GeneratedShard, LatentJudge, Stage
from ddrep.data.masks import IGNORE, MaskedImages, read_masked_shards, write_masked_shard
from ddrep.data.shards import LabelledImages, read_shards, write_shard
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.generators import judge
from ddrep.generators.diffae import DiffAE
from ddrep.generators.files import load_generator
from ddrep.generators.network import LatentJudgeFile
from ddrep.generators.shards import attribute_shard, mask_shard
from ddrep.sampling.guided import noise_number
from ddrep.sampling.sampler import image_seed
from ddrep.training.latent_judges import fit, run
from tests import tiny
from tests.generators.tiny_d2c import d2c
from tests.generators.tiny_diffae import diffae

FAST = EvenSampling(steps=2, eta=0.0, guidance_scale=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiffAE, examples of trousers and of shirts, and their judge."""
    path = tmp_path_factory.mktemp("generated")
    diffae().save(path / "g.safetensors")
    images = tiny.images(classes=2)
    names = ("not trousers", "trousers")
    write_shard(path / "examples.tar", LabelledImages(images.images, images.labels, images.keys, names))
    stage = Stage[LatentJudge](config=LatentJudge(steps=100))
    run(
        stage,
        generator=path / "g.safetensors",
        examples=path / "examples.tar",
        of="attribute",
        run_seed=0,
        out=path / "j.safetensors",
    )
    return path


def test_latents_of_a_d2c_are_judged_and_decoded_alike(folder: Path, tmp_path: Path) -> None:
    d2c().save(tmp_path / "g.safetensors")
    (tmp_path / "examples.tar").write_bytes((folder / "examples.tar").read_bytes())
    files = {"generator": tmp_path / "g.safetensors", "examples": tmp_path / "examples.tar"}
    run(
        Stage[LatentJudge](config=LatentJudge(steps=100)),
        **files,
        of="attribute",
        run_seed=0,
        out=tmp_path / "j.safetensors",
    )
    rows = draw(tmp_path, "kept", threshold=0.4)
    assert read_shards([tmp_path / "kept.tar"]).images.shape == (6, 8, 8, 1)
    assert rows["evaluations"].tolist() == [1 if kept else 0 for kept in rows["accepted"]], "a pass of the decoder"


def draw(folder: Path, name: str, batch: int = 4, pool: str = "pool", **settings: Any) -> pd.DataFrame:
    stage = Stage[GeneratedShard](config=GeneratedShard(sampling=FAST, latent_steps=4, images=3, **settings))
    files = {"generator": folder / "g.safetensors", "judge": folder / "j.safetensors", "pool": folder / pool}
    attribute_shard(stage, **files, subset=0, run_seed=0, out=folder / f"{name}.tar", batch=batch)
    return pd.read_parquet(folder / f"{name}.parquet")


def test_as_many_of_each_target_and_only_these_are_made_images(folder: Path) -> None:
    rows = draw(folder, "kept", threshold=0.4)
    shard = read_shards([folder / "kept.tar"])
    assert np.bincount(shard.labels).tolist() == [3, 3] and shard.classes == ("not trousers", "trousers")
    assert len(rows) > 6 == rows["accepted"].sum() and (rows["p"] >= 0.4).equals(rows["accepted"])
    assert rows["evaluations"].tolist() == [2 if kept else 0 for kept in rows["accepted"]]
    (pool,) = (folder / "pool").glob("*/00000")
    drawn = [np.load(path)["attempts"] for path in pool.glob("*.npz")]
    assert sum(map(len, drawn)) == 6


def test_whatever_the_batch_and_the_threshold_an_image_is_its_seeds(folder: Path) -> None:
    draw(folder, "one", batch=1, pool="one", threshold=0.4)
    draw(folder, "many", batch=50, pool="many", threshold=0.4)
    assert (folder / "one.tar").read_bytes() == (folder / "many.tar").read_bytes()
    model, every = load_generator(folder / "g.safetensors"), draw(folder, "every", threshold=0.0)
    shard, row = read_shards([folder / "every.tar"]), every.iloc[4]
    seeds = [int(row["seed"])]
    image = model.images(model.latents(seeds, 4), seeds, FAST)[0]
    np.testing.assert_array_equal(shard.images[shard.keys.index(row["key"])], image)


def test_a_used_up_budget_is_one_line(folder: Path) -> None:
    with pytest.raises(UserError, match=r"table1.max_attempts: classes .* \(0/6 = 0.0%\).*lower table1.threshold"):
        draw(folder, "never", threshold=1.0, max_attempts=2)
    assert not (folder / "never.tar").exists()


def test_the_judge_is_logistic_regression() -> None:
    """On latents whose classes two Gaussians of the same spread make, its direction is that of their means."""
    g = torch.Generator().manual_seed(0)
    y = torch.arange(2000) % 2
    latents = torch.randn(2000, 4, generator=g) + torch.tensor([1.0, 0.5, 0.0, -1.0]) * (y[:, None] - 0.5)
    meta = LatentJudgeFile(classes=("a", "b"), latent=4, generator_sha256="0" * 64)
    found = fit(meta, latents, y, LatentJudge(steps=600, batch=500, lr=0.02, weight_decay=0.0), seed=0)
    weight = found.net.weight[1] - found.net.weight[0]
    assert torch.allclose(weight, torch.tensor([1.0, 0.5, 0.0, -1.0]), atol=0.2)
    p = found.probabilities(latents)
    assert p.shape == (2000, 2) and np.allclose(p.sum(axis=1), 1) and (p.argmax(axis=1) == y.numpy()).mean() > 0.7
    with pytest.raises(UserError, match="not finite"):
        found.probabilities(latents / 0)


def test_a_judge_knows_its_generator(folder: Path, tmp_path: Path) -> None:
    loaded = judge.LatentJudge.load(folder / "j.safetensors", folder / "g.safetensors")
    assert loaded.meta.generator_sha256 == sha256(folder / "g.safetensors") and loaded.meta.latent == 8
    diffae(seed=1).save(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"trained with another generator than .*other"):
        judge.LatentJudge.load(folder / "j.safetensors", tmp_path / "other.safetensors")


def test_other_files_and_images_are_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("none")
    wrong = {
        folder / "j.safetensors": r"another format \(ddrep\.latent-judge/1\)",
        tmp_path / "text": "not a readable safetensors",
        tmp_path / "none": "no such file",
    }
    for path, said in wrong.items():
        with pytest.raises(UserError, match=said):
            load_generator(path)
    with pytest.raises(UserError, match="expected 8x8x1 uint8"):
        DiffAE.load(folder / "g.safetensors").encode(np.zeros((1, 9, 9, 1), np.uint8))
    with pytest.raises(UserError, match="latent_layers: 1; expected 2 or more"):
        DiffAE.load(_with_one_layer(tmp_path))


def _with_one_layer(folder: Path) -> Path:
    model = diffae()
    model.net.cfg = dataclasses.replace(model.net.cfg, latent_layers=1)
    model.save(folder / "one.safetensors")
    return folder / "one.safetensors"


def of_masks(size: int, latent: int = 8) -> judge.LatentJudge:
    """A judge of two classes a pixel, with weights drawn at random."""
    meta = LatentJudgeFile(classes=("dark", "bright"), latent=latent, size=size, generator_sha256="0" * 64)
    torch.manual_seed(1)
    return judge.LatentJudge(judge.build(meta).requires_grad_(False), meta)


def test_a_judge_of_masks_says_log_p_of_each_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of weights that are read off class by class and pixel by pixel, where the map is as large as the mask."""
    made, g = of_masks(4), torch.Generator().manual_seed(0)
    latents, masks = (
        torch.randn(3, 8, generator=g),
        torch.randint(0, 2, (3, 4, 4), generator=g).numpy().astype(np.uint8),
    )
    masks[0, 1, 2] = masks[0, 0, 0] = IGNORE
    masks[2] = IGNORE
    weight, bias = made.net.weight.double().view(2, 4, 4, 8), made.net.bias.double().view(2, 4, 4)
    logits = torch.einsum("cijl,nl->ncij", weight, latents.double()) + bias
    p = (logits.exp() / logits.exp().sum(dim=1, keepdim=True)).numpy()
    expected = [
        np.mean([np.log(p[n, masks[n, i, j], i, j]) for i in range(4) for j in range(4) if masks[n, i, j] != IGNORE])
        for n in range(2)
    ]
    found = made.log_likelihood(latents, masks)
    assert np.allclose(found[:2], expected, atol=1e-6) and found[2] == 0, "a mask that asks for nothing"
    monkeypatch.setattr(judge, "NUMBERS", 1)  # one latent at a time, where the maps of all would fill the memory
    assert np.allclose(made.log_likelihood(latents, masks), found, atol=1e-12)
    larger = of_masks(2).log_likelihood(latents, masks)  # of a map that is drawn out to the mask's size
    assert larger.shape == (3,) and (larger <= 0).all()
    with pytest.raises(UserError, match="not finite"):
        made.log_likelihood(latents / 0, masks)


def test_a_judge_of_masks_is_logistic_regression_a_pixel() -> None:
    """Of masks whose pixel i is told by the sign of latent i."""
    latents = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    y = (latents > 0).long().view(-1, 2, 2)
    y[:5] = IGNORE
    meta = LatentJudgeFile(classes=("dark", "bright"), latent=4, size=2, generator_sha256="0" * 64)
    found = fit(meta, latents, y, LatentJudge(steps=400, batch=100, lr=0.05, weight_decay=0.0), seed=0)
    weight = (found.net.weight[4:] - found.net.weight[:4]).abs()
    assert weight.argmax(dim=1).tolist() == [0, 1, 2, 3]
    right, wrong = (
        found.log_likelihood(latents[5:], y[5:].numpy()),
        found.log_likelihood(latents[5:], 1 - y[5:].numpy()),
    )
    assert (right > wrong).all()


@pytest.fixture(scope="module")
def masked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same DiffAE, five images with their bright pixels as masks, and its judge of them."""
    path = tmp_path_factory.mktemp("masked")
    (path / "g.safetensors").write_bytes((folder / "g.safetensors").read_bytes())
    images = tiny.images(per_class=2).images[:5]
    masks = (images[..., 0] > images.mean()).astype(np.uint8)
    write_masked_shard(path / "masks.tar", MaskedImages(images, masks, list("abcde"), ("dark", "bright")))
    files = {"generator": path / "g.safetensors", "examples": path / "masks.tar", "out": path / "j.safetensors"}
    run(Stage[LatentJudge](config=LatentJudge(steps=60)), of="mask", run_seed=0, **files)
    return path


def for_masks(folder: Path, name: str, batch: int = 4, **settings: Any) -> MaskedImages:
    told = Stage[GeneratedMasks](config=GeneratedMasks(sampling=FAST, latent_steps=4, **{"images": 6} | settings))
    files = {"generator": folder / "g.safetensors", "judge": folder / "j.safetensors", "masks": folder / "masks.tar"}
    mask_shard(told, **files, subset=0, run_seed=1, pool=folder / name, out=folder / f"{name}.tar", batch=batch)
    return read_masked_shards([folder / f"{name}.tar"])


def test_each_mask_has_the_image_of_the_latent_that_fits_it_best(masked: Path) -> None:
    drawn, targets = for_masks(masked, "drawn", first=2, candidates=7), read_masked_shards([masked / "masks.tar"])
    rows = [2, 3, 4, 0, 1, 2]
    np.testing.assert_array_equal(drawn.masks, targets.masks[rows])
    assert drawn.keys == [f"{i:05d}-{'abcde'[row]}" for i, row in enumerate(rows)]
    model = load_generator(masked / "g.safetensors")
    judged = judge.LatentJudge.load(masked / "j.safetensors", masked / "g.safetensors", "mask")
    assert judged.meta.size == 8 and judged.meta.classes == ("dark", "bright")
    for i, row in enumerate(rows):
        seeds = [image_seed(0, i, noise_number(0, 1), attempt) for attempt in range(7)]
        latents = model.latents(seeds, 4)
        best = int(judged.log_likelihood(latents, targets.masks[[row] * 7]).argmax())
        image = model.images(latents[[best]], [seeds[best]], FAST)[0]
        np.testing.assert_array_equal(drawn.images[i], image)


def test_images_for_masks_are_the_same_whatever_the_batch_and_only_they_are_drawn(masked: Path) -> None:
    one, many = for_masks(masked, "one", batch=1, candidates=3), for_masks(masked, "many", batch=50, candidates=3)
    assert (masked / "one.tar").read_bytes() == (masked / "many.tar").read_bytes() and len(one) == len(many) == 6
    (pool,) = (masked / "one").glob("*/01000")
    assert sum(len(np.load(path)["attempts"]) for path in pool.glob("*.npz")) == 6


def test_a_judge_of_something_else_and_other_masks_are_one_line(folder: Path, masked: Path, tmp_path: Path) -> None:
    generator = folder / "g.safetensors"
    with pytest.raises(UserError, match=r"j.safetensors: a judge of masks; expected one of attributes"):
        judge.LatentJudge.load(masked / "j.safetensors", masked / "g.safetensors")
    with pytest.raises(UserError, match=r"j.safetensors: a judge of an attribute; expected one of masks"):
        judge.LatentJudge.load(folder / "j.safetensors", generator, "mask")
    for name in ("g.safetensors", "j.safetensors"):
        (tmp_path / name).write_bytes((masked / name).read_bytes())
    images = np.zeros((1, 6, 6, 1), np.uint8)
    write_masked_shard(tmp_path / "masks.tar", MaskedImages(images, images[..., 0], ["a"], ("dark", "bright")))
    with pytest.raises(UserError, match=r"masks of 6x6 pixels; the denoiser's images have 8x8"):
        for_masks(tmp_path, "drawn")
    assert not (tmp_path / "drawn.tar").exists()

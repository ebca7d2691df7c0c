"""Scores of guided images on real ones, where the right answer is known; the guides on estimates of clean images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from ddrep.cli import main
from ddrep.config import AttributeImages, AttributeScores, MaskData, Robustness, Stage
from ddrep.data.attributes import attribute_images
from ddrep.data.batches import stratified
from ddrep.data.datasets import masked
from ddrep.data.embedded import FOLDER
from ddrep.data.masks import MaskedImages, write_masked_shard
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.evaluation.robustness import run, x0_hat
from ddrep.evaluation.scores import read_features, score_attribute, score_masks
from ddrep.files import sha256
from ddrep.networks.architectures import build
from ddrep.networks.guides import Guide
from ddrep.networks.metadata import GuideMeta
from tests import tiny
from tests.training.test_guides import train

EVALUATOR, SEGMENTER = FOLDER / "evaluator.safetensors", FOLDER / "segmenter.safetensors"
HAVING = ("Sandal", "Sneaker", "Ankle boot")
CELL: dict[str, Any] = {"method": "ours", "steps": 10, "subset": 0, "run_seed": 1}


def test_real_images_show_their_attribute_and_exchanged_ones_do_not(tmp_path: Path) -> None:
    images = attribute_images(AttributeImages(attribute="footwear", having=HAVING), "test", 0, 0, 0)
    stage = Stage[AttributeScores](config=AttributeScores(attribute="footwear", having=HAVING))
    shares = []
    for exchanged in (False, True):
        labels = 1 - images.labels[:200] if exchanged else images.labels[:200]
        shard = tmp_path / "0.tar"
        write_shard(shard, LabelledImages(images.images[:200], labels, images.keys[:200], images.classes))
        kept = pd.DataFrame({"key": images.keys[:200], "class": labels, "accepted": True})
        refused = pd.DataFrame({"key": ["a", "b", "c"], "class": [0, 1, 1], "accepted": False})
        pd.concat([kept, refused]).to_parquet(tmp_path / "0.parquet")
        score_attribute(
            stage,
            shard=shard,
            evaluator=EVALUATOR,
            inception=None,
            **CELL,
            out=tmp_path / "row",
            features_out=tmp_path / "f.npz",
        )
        rows = pd.read_parquet(tmp_path / "row").set_index("present")
        shares.append(rows["share"].to_dict())
        assert rows["n"].sum() == 200
        assert (rows["attempts"] - rows["n"]).to_dict() == {True: 2, False: 1}
    other = stage.model_copy(update={"config": AttributeScores(attribute="tops", having=("Shirt",))})
    files: dict[str, Any] = {
        "evaluator": EVALUATOR,
        "inception": None,
        "out": tmp_path / "row",
        "features_out": tmp_path / "f.npz",
    }
    with pytest.raises(UserError, match=r"0\.tar: images of footwear, to be scored as of tops; name their own"):
        score_attribute(other, shard=shard, **files, **CELL)
    assert min(shares[0].values()) > 98
    assert shares[1] == pytest.approx({key: 100 - shares[0][not key] for key in (True, False)})
    metric, features, labels = read_features(tmp_path / "f.npz")
    assert (
        metric == "FD-fashion-cnn" and features.shape == (200, 96) and labels.sum() == (1 - images.labels[:200]).sum()
    )


def test_real_images_agree_with_their_masks_and_shuffled_ones_do_not(tmp_path: Path) -> None:
    real = masked(MaskData(), "test", 0)
    scores = []
    for shift in (0, 1):
        masks = np.roll(real.masks[:100], shift, axis=0)  # the classes take turns
        write_masked_shard(tmp_path / "0.tar", MaskedImages(real.images[:100], masks, real.keys[:100], real.classes))
        score_masks(
            shard=tmp_path / "0.tar",
            segmenter=SEGMENTER,
            evaluator=EVALUATOR,
            inception=None,
            **CELL,
            out=tmp_path / "row",
            features_out=tmp_path / "f.npz",
        )
        scores.append(pd.read_parquet(tmp_path / "row")["miou"].item())
    assert scores[0] > 0.75 and scores[1] < 0.25


def test_an_evaluator_without_the_class_is_named(tmp_path: Path) -> None:
    stage = Stage[AttributeScores](config=AttributeScores(attribute="footwear", having=("Hat",)))
    images = attribute_images(AttributeImages(attribute="footwear", having=HAVING), "validation", 0, 0, 0)
    write_shard(tmp_path / "0.tar", images)
    with pytest.raises(UserError, match=r"evaluator.safetensors: knows no class Hat; it has T-shirt"):
        score_attribute(
            stage,
            shard=tmp_path / "0.tar",
            evaluator=EVALUATOR,
            inception=None,
            **CELL,
            out=tmp_path / "row",
            features_out=tmp_path / "f.npz",
        )
    assert not (tmp_path / "row").exists() and not (tmp_path / "f.npz").exists()


def test_estimates_are_the_image_itself_without_noise_and_worse_with_more() -> None:
    denoiser = Denoiser.load(FOLDER / "denoiser.safetensors")
    x0 = torch.as_tensor(masked(MaskData(), "test", 0).images[:20]).movedim(-1, 1).float() / 127.5 - 1
    errors = [(x0_hat(denoiser, x0, t, seed=0) - x0).square().mean().item() for t in (0, 300, 700)]
    assert errors[0] < 0.01 < errors[1] < errors[2]


def test_robustness_has_a_row_for_each_guide_and_timestep(tmp_path: Path) -> None:
    path = train(tmp_path, "attribute", None, steps=100, batch=60, hidden=32)
    test = attribute_images(AttributeImages(attribute="footwear", having=HAVING), "test", 0, 0, 0)
    write_shard(tmp_path / "test.tar", test)
    stage = Stage[Robustness](config=Robustness(timesteps=(0, 900), images=150))
    denoiser, test_shard = FOLDER / "denoiser.safetensors", tmp_path / "test.tar"
    inputs: dict[str, Any] = {"attribute": "footwear", "denoiser": denoiser, "guides": [path], "test": test_shard}
    run(stage, **inputs, subset=0, run_seed=1, out=tmp_path / "rows.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet").set_index("t")
    assert rows["reads"].tolist() == ["pixels"] * 2 and rows["n"].tolist() == [150] * 2
    of_all = Guide.load(path, FOLDER / "denoiser.safetensors", torch.device("cpu")).probabilities(test.images)
    chosen = stratified(test.labels, 150, seed=0)
    clean = of_all[chosen].argmax(1) == test.labels[chosen]
    assert rows["accuracy"][0] == pytest.approx(100 * clean.mean(), abs=1.5)
    assert rows["accuracy"][900] < rows["accuracy"][0]


def test_robustness_is_measured_on_all_classes_of_a_sorted_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A guide that sees the attribute everywhere is right as often as there is one: a third, not never."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "abc":
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(60 if split == "test" else 2):
                Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8)).save(tmp_path / split / name / f"{i}.png")
    folder = {"kind": "image-folder", "image_folder": {"root": str(tmp_path), "size": 8, "channels": 1}}
    section = AttributeImages.model_validate({"data": folder, "attribute": "c", "having": ["c"]})
    write_shard(tmp_path / "test.tar", attribute_images(section, "test", 0, 0, 0))
    tiny.denoiser().save(tmp_path / "d.safetensors")
    meta = GuideMeta(
        of="attribute", reads="pixels", taps=None, hidden=8, channels=1, classes=("not c", "c"), image_shape=(1, 8, 8),
        denoiser_sha256=sha256(tmp_path / "d.safetensors"),
    )  # fmt: skip
    net = build(meta).requires_grad_(False)
    net[-1].weight.zero_()
    net[-1].bias.copy_(torch.tensor([-1.0, 1.0]))
    Guide(net, meta, Denoiser.load(tmp_path / "d.safetensors")).save(tmp_path / "guide.safetensors")
    stage = json.dumps({"config": {"timesteps": [0, 500], "images": 100}})
    options = ["--denoiser", "d.safetensors", "--test", "test.tar", "--attribute", "c", "--out", "rows.parquet"]
    options = [str(tmp_path / word) if "." in word else word for word in options]
    assert main(["robustness", "--stage", stage, str(tmp_path / "guide.safetensors"), *options]) == 0
    assert (
        main(["robustness", "--stage", stage, str(tmp_path / "guide.safetensors"), *options, "--attribute", "b"]) == 2
    )
    assert "test.tar: of c, not of b; give images and guides of one attribute" in capsys.readouterr().err
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert (rows["n"] == 100).all() and rows["accuracy"].isin([33, 34]).all() and rows["accuracy"].nunique() == 1


def test_a_broken_denoiser_has_no_estimates() -> None:
    broken = tiny.denoiser()
    broken.net.out[-1].get_parameter("bias").fill_(torch.nan)
    with pytest.raises(UserError, match="gives values that are not finite"):
        x0_hat(broken, torch.zeros(2, 1, 8, 8), 300, seed=0)

"""Data sets for others, read by the libraries that others read them with."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import timm.data
import torchvision
import webdataset
from PIL import Image

from ddrep import cli
from ddrep.data.shards import read_shards
from tests.reporting.make_shards import write_synthetic

CLASSES = ("bag", "T-shirt/top")
P = np.array([[0.9, 0.1, 0.8], [0.2, 0.7, 0.6]])
Pairs = list[tuple[bytes, int]]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    return write_synthetic(tmp_path / "synthetic/ours/00000.tar", images, P, 0.5, CLASSES)


def pairs(path: Path) -> Pairs:
    """Pixels and label of each image, in any order."""
    images = read_shards([path])
    return sorted((image.tobytes(), int(label)) for image, label in zip(images.images, images.labels, strict=True))


def export(shard: Path, kind: str) -> Path:
    out = shard.parents[2] / kind
    assert cli.main(["export-data", str(shard), "--format", kind, "--licence", "MIT", "--out", str(out)]) == 0
    return out


def test_webdataset(shard: Path) -> None:
    out = export(shard, "webdataset")
    read = webdataset.WebDataset(str(out / "00000.tar"), shardshuffle=False).decode("pil").to_tuple("png", "cls")
    assert sorted((np.asarray(image).tobytes(), label) for image, label in read) == pairs(shard)
    timms = timm.data.create_dataset("wds/synthetic", root=str(out), split="1x", batch_size=4, num_samples=4)
    assert sum(1 for _ in timms) == 4


def test_image_folder(shard: Path) -> None:
    out = export(shard, "image-folder")
    read = torchvision.datasets.ImageFolder(str(out / "train"))
    assert read.classes == ["0-bag", "1-T-shirt_top"]
    assert sorted((np.asarray(image).tobytes(), label) for image, label in read) == pairs(shard)


def test_parquet(shard: Path) -> None:
    table = pq.read_table(export(shard, "parquet") / "data/train-00000-of-00001.parquet")
    pixels = [np.asarray(Image.open(io.BytesIO(each["bytes"]))) for each in table["image"].to_pylist()]
    assert sorted(zip([p.tobytes() for p in pixels], table["label"].to_pylist(), strict=True)) == pairs(shard)


def test_parquet_by_the_library_datasets(shard: Path) -> None:
    datasets = pytest.importorskip("datasets")
    out = export(shard, "parquet")
    read = datasets.load_dataset(str(out), split="train", cache_dir=str(shard.parent / "cache"))
    assert read.features["label"].names == list(CLASSES)
    assert sorted((np.asarray(row["image"]).tobytes(), row["label"]) for row in read) == pairs(shard)


@pytest.mark.parametrize("kind", ["webdataset", "image-folder", "parquet"])
def test_card_and_croissant(kind: str, shard: Path) -> None:
    out = export(shard, kind)
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "4 generated images of 8x8x3 in 2 classes, 2 a class: bag, T-shirt/top." in card
    assert "Kept of 6 candidates (67%)" in card
    assert "0.60 to 0.90" in card and "Licence of the training data: MIT." in card
    said = json.loads((out / "croissant.json").read_text(encoding="utf-8"))
    assert said["license"] == "MIT" and "drawn, not photographed" in said["description"]
    croissant = pytest.importorskip("mlcroissant")
    read = croissant.Dataset(jsonld=out / "croissant.json")
    assert not read.metadata.ctx.issues.errors
    if kind == "parquet":
        assert sorted(row["images/label"] for row in read.records("images")) == [0, 0, 1, 1]


def test_shards_of_two_sources_are_refused(shard: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = np.zeros((2, 3, 8, 8, 3), np.uint8)
    other = write_synthetic(tmp_path / "synthetic/classifier-free/00001.tar", images, P, 0.0, CLASSES)
    words = [str(shard), str(other), "--licence", "MIT", "--out", str(tmp_path / "new")]
    assert cli.main(["export-data", *words]) == 2 and "shards of one source" in capsys.readouterr().err
    assert cli.main(["export-data", str(shard), *words[:1], *words[2:]]) == 2
    assert "the same images twice" in capsys.readouterr().err and not (tmp_path / "new").exists()


@pytest.mark.parametrize("source, kind, there, not_there", [
    ("ours", "parquet", "Labels are what was asked for, confirmed by a judge that errs itself.", "no judge"),
    ("improved-ddpm", "parquet", "Labels are what was asked for; no judge has refused any image.", "confirmed"),
    ("unconditional-soft", "image-folder", "holds for the most probable: nothing was asked for.", "confirmed"),
    ("unlabelled-soft", "webdataset", "# Real images, source unlabelled-soft", "drawn, not photographed"),
])  # fmt: skip
def test_a_card_says_what_holds_for_its_source(
    source: str, kind: str, there: str, not_there: str, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8, 3), dtype=np.uint8)
    path = write_synthetic(tmp_path / f"synthetic/{source}/00000.tar", images, P, 0.5, CLASSES)
    card = (export(path, kind) / "README.md").read_text(encoding="utf-8")
    assert there in card and not_there not in card and "soft label" not in card

"""ddpm-segmentation's few-shot sets and CelebAMask-HQ, on replicas of their layouts."""

from __future__ import annotations

import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from PIL import Image
from torchvision.transforms import functional

from ddrep import cli, config
from ddrep.config.masks import CELEBA_19
from ddrep.data.datasets import masked
from ddrep.data.masks import MaskedImages, read_masked_shards
from ddrep.derived import stage_json
from ddrep.errors import UserError
from tests.data import replicas

FEW = {"train": 4, "test": 3, "size": 32}
HQ = {"images": 6, "train": 2, "test": 1, "size": 64}
G_MASK = (
    "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip", "hair",
    "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
"""label_list of the published g_mask.py."""


def few_data(root: Path, **more: Any) -> dict:
    return {"kind": "few-shot", "few_shot": {**FEW, "root": str(root), **more}}


def hq_data(root: Path, **more: Any) -> dict:
    return {"kind": "celebamask-hq", "celebamask_hq": {**HQ, "root": str(root), **more}}


def take(data: dict, split: str = "train") -> MaskedImages:
    return masked(config.MaskData.model_validate(data), split, 0)


def complaint(data: dict, out: Path, capsys: pytest.CaptureFixture[str], split: str = "train") -> str:
    """The command's only line of error; nothing is written."""
    out = out / "out.tar"
    assert cli.main(["masks", "--stage", json.dumps({"config": data}), "--split", split, "--out", str(out)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddrep: ")]
    assert len(errors) == 1 and not out.exists() and not list(out.parent.glob(".out*"))
    return errors[0]


# Few-shot sets


@pytest.fixture
def few(tmp_path: Path) -> Path:
    return replicas.few_shot(tmp_path / "celeba_19")


def by_stem(folder: Path) -> list[tuple[Path, np.ndarray]]:
    images = sorted(path for path in folder.iterdir() if path.suffix in (".jpg", ".png"))
    return [(path, np.load(path.with_suffix(".npy"))) for path in images]


def test_few_shot_defaults_are_the_published_set() -> None:
    cfg = config.FewShot(root=Path("x"))
    assert (len(cfg.classes), cfg.train, cfg.test, cfg.size, cfg.mask_size) == (19, 20, 500, 256, None)
    assert list(cfg.classes) == ["background", *sorted(G_MASK)]


@pytest.mark.parametrize("split", ["train", "test"])
def test_few_shot_in_its_own_size_is_exact(few: Path, split: str) -> None:
    data = take(few_data(few), split)
    expected = by_stem(few / "real" / split)
    np.testing.assert_array_equal(data.images, [np.asarray(Image.open(path).convert("RGB")) for path, _ in expected])
    np.testing.assert_array_equal(data.masks, [labels for _, labels in expected])
    assert data.masks.max() == 255 and data.masks[data.masks < 255].max() == 18 and data.classes == CELEBA_19
    assert data.keys[-1].startswith(f"{split}-") and len(data) == FEW[split]


def test_few_shot_resized(few: Path) -> None:
    data = take(few_data(few, size=16))
    for image, mask, (path, labels) in zip(data.images, data.masks, by_stem(few / "real/train"), strict=True):
        with Image.open(path) as opened:  # torchvision's Resize on the Pillow image, as in the published code
            np.testing.assert_array_equal(image, np.asarray(functional.resize(opened.convert("RGB"), [16, 16])))
        np.testing.assert_array_equal(mask, labels[::2, ::2])  # as cv2.resize takes them


def test_few_shot_masks_of_a_size_of_their_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = replicas.few_shot(tmp_path / "a", mask_size=16)
    assert "4 things are not as expected: 1.npy (16x16 pixels, expected 32x32 as its image)" in complaint(
        few_data(root), tmp_path, capsys
    )
    data = take(few_data(root, mask_size=16))
    np.testing.assert_array_equal(data.masks[:, ::2, ::2], [labels for _, labels in by_stem(root / "real/train")])
    assert "expected 8x8 as few_shot.mask_size" in complaint(few_data(root, mask_size=8), tmp_path, capsys)


def test_few_shot_other_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = replicas.few_shot(tmp_path / "a", classes=34)
    assert take(few_data(root, classes=[f"c{i}" for i in range(34)])).classes[33] == "c33"
    said = complaint(few_data(root), tmp_path, capsys)
    assert said.count(".npy (class ") == 4 and "expected 0..18, or 255 for pixels of no class" in said
    assert "classes: expected each name once" in complaint(few_data(root, classes=["a", "a"]), tmp_path, capsys)


class Harm:
    """What runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["object array", "pickle"])
def test_few_shot_pickles_are_never_loaded(few: Path, form: str, tmp_path: Path, capsys: Any) -> None:
    path, ran = few / "real/train/1.npy", tmp_path / "ran"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Harm(ran)))
    else:
        np.save(path, np.array([[Harm(ran)]], object), allow_pickle=True)
    said = complaint(few_data(few), tmp_path, capsys)
    assert "1.npy (pickled or not an .npy file, never loaded)" in said and not ran.exists()
    np.load(path, allow_pickle=True)  # it would have run
    assert ran.exists()


def test_few_shot_all_that_is_wrong_is_listed(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = few / "real/train"
    for name in ("a", "b", "c", "d", "e", "f"):
        replicas.shade(1, (32, 32)).save(folder / f"{name}.png")
    np.save(folder / "a.npy", np.zeros((32, 32)))
    np.save(folder / "b.npy", np.zeros((32, 32, 3), np.uint8))
    np.save(folder / "c.npy", np.full((32, 32), -1))
    with (folder / "d.npy").open("wb") as file:
        np.savez(file, np.zeros((32, 32), np.uint8), np.zeros(3))
    (folder / "e.npy").write_bytes((folder / "3.npy").read_bytes()[:300])
    (folder / "1.jpg").write_bytes((folder / "1.jpg").read_bytes()[:200])
    (folder / "alone.npy").write_bytes((folder / "3.npy").read_bytes())
    (folder / ".DS_Store").touch()
    said = complaint(few_data(few), tmp_path, capsys)
    for part in (
        "9 things are not as expected",
        "9 images with a mask, expected 4",
        "f.png (no mask f.npy)",
        "alone.npy (no image)",
        "1.jpg (",
        "a.npy (float64 (32, 32), expected integers (height, width))",
        "b.npy (uint8 (32, 32, 3), expected integers",
        "c.npy (class -1, expected 0..18",
        "d.npy (several arrays",
        "e.npy (",
    ):
        assert part in said
    replicas.shade(1, (32, 32)).save(few / "real/test/1.png")
    replicas.shade(1, (32, 30)).save(few / "real/test/img_0.v1.png")
    said = complaint(few_data(few), tmp_path, capsys, "test")
    assert "1.png (its mask is also that of 1.jpg)" in said and "img_0.v1.png (32x30 pixels, expected a square)" in said
    assert "no such folder; expected few_shot.root to hold" in complaint(few_data(few / "real"), tmp_path, capsys)


# CelebAMask-HQ


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return replicas.celebamask_hq(tmp_path_factory.mktemp("hq") / "CelebAMask-HQ")


@pytest.fixture
def hq(whole: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    for path in whole.rglob("*.*"):
        copy = tmp_path / "hq" / path.relative_to(whole)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return tmp_path / "hq"


def merged(i: int) -> np.ndarray:
    """(512, 512), as g_mask.py makes it: background, then each part in turn over those before."""
    base = np.zeros((512, 512))
    for number, part in enumerate(G_MASK, 1):
        if not (part == "eye_g" and i % 2) and not (part == "hat" and i != 2):
            base[replicas.face_part(part, i) != 0] = number
    return base


def test_hq_parts_are_merged_in_the_published_order(whole: Path) -> None:
    data = take(hq_data(whole, size=512), "oracle")
    assert data.classes == ("background", *G_MASK) and [key.split("-")[2] for key in data.keys] == ["2", "3", "4"]
    np.testing.assert_array_equal(data.masks, [merged(i) for i in (2, 3, 4)])
    assert len(set(data.masks[0].flat) - set(data.masks[1].flat)) >= 2  # hat and eye_g


def test_hq_splits_and_sizes(whole: Path) -> None:
    numbers = []
    for split in ("train", "oracle", "test"):
        data = take(hq_data(whole), split)
        numbers.append([int(key.split("-")[2]) for key in data.keys])
        for i, image, mask in zip(numbers[-1], data.images, data.masks, strict=True):
            with Image.open(whole / f"CelebA-HQ-img/{i}.jpg") as opened:
                np.testing.assert_array_equal(image, np.asarray(functional.resize(opened, [64, 64])))
            np.testing.assert_array_equal(mask, merged(i)[::8, ::8])
    assert numbers == [[0, 1], [2, 3, 4], [5]]
    cfg = config.CelebAMaskHQ(root=Path("x"))
    assert (cfg.images, cfg.train, cfg.test, cfg.size) == (30_000, 20, 500, 256)


def test_hq_masks_lie_in_folders_of_2000(hq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    annotations = hq / "CelebAMask-HQ-mask-anno"
    (annotations / "1").mkdir()
    (annotations / "0/00003_skin.png").rename(annotations / "1/00003_skin.png")
    (annotations / "0/00003_nose.png").rename(annotations / "1/02003_nose.png")
    (annotations / "0/00004_nose.png").rename(annotations / "0/00004_chin.png")
    (hq / "CelebA-HQ-img/1.jpg").unlink()
    for path in annotations.glob("0/00005_*.png"):
        path.unlink()
    said = complaint(hq_data(hq), tmp_path, capsys)
    for part in (
        "5 images in CelebA-HQ-img, expected 6",
        "0/00004_chin.png (no part of a face)",
        "1/00003_skin.png (expected in folder 0)",
        "1.jpg (missing)",
        "5.jpg (no mask)",
    ):
        assert part in said
    assert "5 things" in said  # 2003 takes the place of 5 in the count of masks
    assert "30000" in complaint(hq_data(hq, images=30_000), tmp_path, capsys)


def test_hq_all_broken_files_of_a_split_are_listed(hq: Path, tmp_path: Path, capsys: Any) -> None:
    images, annotations = hq / "CelebA-HQ-img", hq / "CelebAMask-HQ-mask-anno/0"
    (images / "2.jpg").write_bytes((images / "2.jpg").read_bytes()[:5000])
    replicas.shade(0, (512, 512)).save(images / "3.jpg")
    Image.new("L", (256, 256)).save(annotations / "00002_hair.png")
    (annotations / "00003_cloth.png").write_text("<html>")
    (annotations / "00003_neck.png").write_bytes((annotations / "00003_neck.png").read_bytes()[:60])
    said = complaint(hq_data(hq), tmp_path, capsys, "oracle")
    for part in (
        "5 files of the 3 images of oracle cannot be used",
        "2.jpg (",
        "3.jpg (512x512 pixels, expected 1024x1024)",
        "00002_hair.png (256x256 pixels, expected 512x512)",
        "00003_cloth.png (not an image)",
        "00003_neck.png (",
    ):
        assert part in said
    assert len(take(hq_data(hq), "test")) == 1  # what is wrong elsewhere does not stand in the way


@pytest.mark.parametrize("name", ["CelebA-HQ-img", "CelebAMask-HQ-mask-anno"])
def test_hq_missing_folder(hq: Path, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (hq / name).rename(tmp_path / "away")
    assert f"no folder {name}; expected CelebAMask-HQ" in complaint(hq_data(hq), tmp_path, capsys)


# The two together, and the command


def test_oracle_of_a_few_shot_set_is_renumbered_by_name(few: Path, whole: Path) -> None:
    data = few_data(few, size=64) | {"celebamask_hq": {**HQ, "root": str(whole)}}
    oracle, theirs = take(data, "oracle"), take(hq_data(whole), "oracle")
    assert oracle.classes == take(data).classes == CELEBA_19
    np.testing.assert_array_equal(np.array(CELEBA_19)[oracle.masks], np.array(theirs.classes)[theirs.masks])
    np.testing.assert_array_equal(oracle.images, theirs.images)


def test_a_few_shot_set_without_images_for_an_oracle(few: Path, whole: Path, tmp_path: Path, capsys: Any) -> None:
    said = complaint(few_data(few), tmp_path, capsys, "oracle")
    assert "split oracle: few_shot has no such images; add a table celebamask_hq" in said
    hq = {"celebamask_hq": {**HQ, "root": str(whole)}}
    said = complaint(few_data(few, size=64, classes=["skin", "tail"]) | hq, tmp_path, capsys, "oracle")
    assert "few_shot.classes: background, cloth" in said and "expected the same names" in said
    assert "celebamask_hq.size: expected 32 as in few_shot, got 64" in complaint(few_data(few) | hq, tmp_path, capsys)


@pytest.mark.parametrize("kind", ["embedded", "few-shot", "celebamask-hq"])
def test_the_verb_writes_a_shard_that_webdataset_reads(kind: str, few: Path, whole: Path, tmp_path: Path) -> None:
    data = {"embedded": {"kind": "embedded"}, "few-shot": few_data(few), "celebamask-hq": hq_data(whole)}[kind]
    stage = stage_json("masks", config.MaskData.model_validate(data), 0)
    out = tmp_path / "a" / "train.tar"
    assert cli.main(["masks", "--stage", stage, "--out", str(out)]) == 0
    expected, written = take(data), read_masked_shards([out])
    samples = list(webdataset.WebDataset(str(out), shardshuffle=False))
    assert [s["__key__"] for s in samples] == expected.keys == written.keys and expected.classes == written.classes
    masks, images = ([np.asarray(Image.open(io.BytesIO(s[e]))) for s in samples] for e in ("mask.png", "png"))
    np.testing.assert_array_equal(masks, expected.masks)
    np.testing.assert_array_equal(np.reshape(images, expected.images.shape), expected.images)
    np.testing.assert_array_equal(written.masks, expected.masks)


def test_subsets_of_published_sets(few: Path) -> None:
    with pytest.raises(UserError, match="subset 1: masks of kind few-shot have only subset 0"):
        masked(config.MaskData.model_validate(few_data(few)), "train", 1)

"""Tiny ImageNet, CelebA and WebDatasets, on replicas of their layouts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image
from torchvision.transforms import functional

from ddrep import cli, config
from ddrep.data.shards import read_shards, write_shard
from ddrep.errors import UserError
from tests.data import replicas
from tests.data.readers import complaint, take
from tests.data.replicas import TINY


def refused_by_the_verb(data: dict, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The command's only line of error; nothing is written."""
    assert cli.main(["data", "--stage", json.dumps({"config": data}), "--out", str(out)]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddrep: ")]
    assert len(errors) == 1 and not out.exists()
    return errors[0]


# Tiny ImageNet


@pytest.fixture(params=["folder", "zip"])
def tiny(request: pytest.FixtureRequest, tmp_path: Path) -> dict:
    root = replicas.tiny_imagenet(tmp_path)
    return {**TINY, "path": replicas.zipped(root) if request.param == "zip" else root}


def test_tiny_defaults_are_the_published_counts() -> None:
    cfg = config.TinyImageNet(path=Path("x"))
    assert (cfg.classes, cfg.train_per_class, cfg.test_per_class, cfg.size) == (200, 500, 50, 64)


def test_tiny_classes_are_sorted_and_named_by_words(tiny: dict) -> None:
    test = take("tiny-imagenet", tiny, "test")
    assert test.classes == ("goldfish", "crane (n02124075)", "crane (n03126707)")
    # labels of val come from val_annotations.txt alone: the pixels tell the class (place 1, 0, 2 in wnids.txt)
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(test.images[:, 0, 0, 0].astype(int), [110, 111, 100, 101, 120, 121], atol=2)
    assert test.images.shape == (6, 16, 16, 3)


def test_tiny_holds_out_of_train(tiny: dict) -> None:
    train, validation = take("tiny-imagenet", tiny, "train"), take("tiny-imagenet", tiny, "validation")
    assert np.bincount(train.labels).tolist() == [5] * 3 and np.bincount(validation.labels).tolist() == [1] * 3
    names = [{key.split("-", 2)[2] for key in part.keys} for part in (train, validation)]
    assert names[0] | names[1] == {f"{wnid}_{i}" for wnid in replicas.WNIDS for i in range(6)}
    assert not names[0] & names[1]
    assert take("tiny-imagenet", tiny, "validation").keys == validation.keys
    assert any(take("tiny-imagenet", tiny, "validation", seed).keys != validation.keys for seed in range(1, 5))


def test_tiny_zip_and_folder_give_the_same(tmp_path: Path) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    one, other = (take("tiny-imagenet", {**TINY, "path": path}, "train") for path in (root, replicas.zipped(root)))
    np.testing.assert_array_equal(one.images, other.images)
    assert one.keys == other.keys and one.classes == other.classes


def test_tiny_grey_images_become_rgb(tmp_path: Path) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    Image.new("L", (16, 16), 77).save(root / "val/images/val_1.JPEG")
    assert take("tiny-imagenet", {**TINY, "path": root}, "test").images[0, 0, 0].tolist() == [77, 77, 77]


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
@pytest.mark.parametrize("packed", [False, True])
def test_tiny_missing_list(tmp_path: Path, name: str, packed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    (root / name).unlink()
    path = replicas.zipped(root) if packed else root
    data = {"kind": "tiny-imagenet", "tiny_imagenet": {**TINY, "path": str(path)}}
    assert f"no {name}" in refused_by_the_verb(data, tmp_path / "out.tar", capsys)


def test_tiny_all_that_is_mislabelled_is_listed(tmp_path: Path) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    (root / "train/n01443537/images/n01443537_3.JPEG").unlink()
    (root / "train/n01111111/images").mkdir(parents=True)
    replicas.shade(0, (16, 16)).save(root / "train/n01111111/images/a.JPEG")
    (root / "val/images/val_0.JPEG").rename(root / "val/images/val_77.JPEG")
    notes = root / "val/val_annotations.txt"
    notes.write_text(notes.read_text().replace("val_4.JPEG\tn01443537", "val_4.JPEG\tn05555555"))
    message = complaint("tiny-imagenet", {**TINY, "path": root, "classes": 200}, "test")
    for part in (
        "wnids.txt (3 classes, expected 200)",
        "train/n01111111 (not in wnids.txt)",
        "n01443537 (5 images in train, expected 6)",
        "val/images/val_0.JPEG (listed, but missing)",
        "val/images/val_77.JPEG (not in val/val_annotations.txt)",
        "val_annotations.txt line 5 (no class of wnids.txt",
        "n01443537 (1 images in val, expected 2)",
        "n02124075 (1 images in val, expected 2)",
    ):
        assert part in message
    assert "8 things" in message


def test_tiny_all_broken_images_are_listed(tmp_path: Path) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    images = root / "train/n01443537/images"
    (images / "n01443537_0.JPEG").write_bytes((images / "n01443537_1.JPEG").read_bytes()[:200])
    (images / "n01443537_2.JPEG").write_text("<html>not found</html>")
    replicas.shade(3, (16, 12)).save(root / "train/n02124075/images/n02124075_4.JPEG")
    for path in (root, replicas.zipped(root)):
        table = {**TINY, "path": path}
        messages = complaint("tiny-imagenet", table, "train") + complaint_or_none(table, "validation")
        for part in ("n01443537_0.JPEG (", "n01443537_2.JPEG (not an image)", "16x12 pixels, expected 16x16"):
            assert part in messages


def complaint_or_none(table: dict, split: str) -> str:
    """What is held out may or may not be among the broken."""
    try:
        take("tiny-imagenet", table, split)
    except UserError as e:
        return str(e)
    return ""


def test_tiny_damaged_zip(tmp_path: Path) -> None:
    path = replicas.zipped(replicas.tiny_imagenet(tmp_path))
    content = path.read_bytes()
    path.write_bytes(content[:-300])
    assert "not a whole zip file" in complaint("tiny-imagenet", {**TINY, "path": path}, "test")
    at = content.index(b"\xff\xd8", content.index(b"val/images/val_0.JPEG"))  # one image's bytes, so its CRC is wrong
    path.write_bytes(content[: at + 100] + b"\0\0\0\0" + content[at + 104 :])
    assert "val_0.JPEG (Bad CRC-32" in complaint("tiny-imagenet", {**TINY, "path": path}, "test")
    assert "no such folder or zip" in complaint("tiny-imagenet", {**TINY, "path": tmp_path / "gone.zip"}, "test")


# WebDataset


@pytest.fixture
def wds(tmp_path: Path) -> dict:
    """20 training samples of each of 2 classes in two tars, 3 test samples; the red value is the sample's number."""
    for part in range(2):
        numbers = range(20 * part, 20 * part + 20)
        members = [
            (f"{i:04d}", {"jpg.txt": b"no image", "png": replicas.png(i), "cls": b"%d" % (i % 2)}) for i in numbers
        ]
        replicas.tar(tmp_path / f"train/{part}.tar", {f"a/{k}.{e}": c for k, v in members for e, c in v.items()})
    test = {f"{k}.{e}": c for k in "xyz" for e, c in (("cls", b" 1\n"), ("png", replicas.png(ord(k))))}
    return {"train": [str(tmp_path / "train")], "test": [str(replicas.tar(tmp_path / "test.tar", test))], "size": 8}


def test_webdataset_is_read_as_webdataset_reads_it(wds: dict, tmp_path: Path) -> None:
    train, held = take("webdataset", wds, "train"), take("webdataset", wds, "validation")
    assert np.bincount(train.labels).tolist() == [18, 18] and np.bincount(held.labels).tolist() == [2, 2]
    ours = {int(i[0, 0, 0]): int(c) for part in (train, held) for i, c in zip(part.images, part.labels, strict=True)}
    tars = [str(tmp_path / f"train/{part}.tar") for part in range(2)]
    theirs = webdataset.WebDataset(tars, shardshuffle=False).decode("pil").to_tuple("png", "cls")
    assert ours == {image.getpixel((0, 0))[0]: int(label) for image, label in theirs}
    assert len(ours) == 40


def test_webdataset_test_names_and_own_validation(wds: dict, tmp_path: Path) -> None:
    test = take("webdataset", {**wds, "classes": ["cat", "dog"], "channels": 1}, "test")
    assert test.classes == ("cat", "dog") and test.labels.tolist() == [1, 1, 1] and test.images.shape == (3, 8, 8, 1)
    own = {**wds, "validation": [shutil.copy(wds["test"][0], tmp_path / "validation.tar")]}
    assert len(take("webdataset", own, "train")) == 40 and len(take("webdataset", own, "validation")) == 3
    assert take("webdataset", wds, "test").classes == ("0", "1")


def test_webdataset_reads_our_own_shards(wds: dict, tmp_path: Path) -> None:
    train = take("webdataset", wds, "train")
    write_shard(tmp_path / "own.tar", train)
    validation = [shutil.copy(wds["test"][0], tmp_path / "validation.tar")]
    own = {**wds, "train": [str(tmp_path / "own.tar")], "validation": validation}
    np.testing.assert_array_equal(take("webdataset", own, "train").images, read_shards([tmp_path / "own.tar"]).images)


def test_webdataset_all_bad_samples_are_listed(wds: dict, tmp_path: Path) -> None:
    good = replicas.png(1)
    members = {
        "a.png": good,
        "b.cls": b"1",
        "c.png": good,
        "c.jpg": good,
        "c.cls": b"0",
        "d.cls": b"cat",
        "d.png": good,
    }
    message = complaint("webdataset", {**wds, "test": [str(replicas.tar(tmp_path / "bad.tar", members))]}, "test")
    for part in ("4 samples", ":a (no cls)", ":b (no image)", ":c (two images)", ":d (cls is b'cat', expected an"):
        assert part in message
    members = {"a.png": good, "a.cls": b"2", "b.png": good, "b.cls": b"-1", "c.png": good, "c.cls": b"0"}
    message = complaint("webdataset", {**wds, "test": [str(replicas.tar(tmp_path / "bad.tar", members))]}, "test")
    assert ":a (cls is 2, expected 0..1)" in message and ":b (cls is -1" in message and "2 samples" in message
    members = {"a.png": good[:40], "a.cls": b"1", "b.png": b"text", "b.cls": b"0", "c.png": good, "c.cls": b"0"}
    message = complaint("webdataset", {**wds, "test": [str(replicas.tar(tmp_path / "bad.tar", members))]}, "test")
    assert ":a (" in message and ":b (not an image)" in message and "2 of 3 files" in message


def test_webdataset_tars_and_classes_that_are_not_there(wds: dict, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes((tmp_path / "test.tar").read_bytes()[:700])
    assert "cut.tar (not a whole tar" in complaint("webdataset", {**wds, "test": [str(tmp_path / "cut.tar")]}, "test")
    (tmp_path / "empty").mkdir()
    assert "no *.tar in" in complaint("webdataset", {**wds, "test": [str(tmp_path / "empty")]}, "test")
    message = complaint("webdataset", {**wds, "test": ["p", "q"]}, "test")
    assert "2 paths cannot be used: p (no such file or directory), q (no such" in message
    message = complaint("webdataset", {**wds, "classes": ["cat", "dog", "eel", "fox"]}, "train")
    assert "2 classes have no image: eel, fox" in message


# CelebA


@pytest.fixture
def celeba(tmp_path: Path) -> dict:
    return {"root": replicas.celeba(tmp_path / "celeba"), "attribute": "Male", "partition": [6, 3, 4]}


def test_celeba_splits_and_labels(celeba: dict) -> None:
    parts = [take("celeba", celeba, split) for split in ("train", "validation", "test")]
    assert [[int(key.split("-")[2]) for key in part.keys] for part in parts] == [
        [1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11, 12, 13]
    ]  # fmt: skip
    assert [part.labels.tolist() for part in parts] == [[1, 0, 0, 1, 0, 0], [1, 0, 0], [1, 0, 0, 1]]
    assert parts[0].classes == ("not Male", "Male") and parts[0].images.shape == (6, 64, 64, 3)
    assert take("celeba", {**celeba, "attribute": "Smiling"}, "validation").labels.tolist() == [1, 0, 1]


def test_celeba_crop_and_resize_are_ddims(celeba: dict) -> None:
    """Of its code: crop to rows 57 to 185 and columns 25 to 153, then torchvision's Resize on the Pillow image."""
    train = take("celeba", celeba, "train")
    with Image.open(celeba["root"] / "img_align_celeba/000002.jpg") as image:
        expected = functional.resize(functional.crop(image, 57, 25, 128, 128), [64, 64])
    np.testing.assert_array_equal(train.images[1], np.asarray(expected))


def test_celeba_in_the_published_tree(celeba: dict) -> None:
    before, root = take("celeba", celeba, "test"), celeba["root"]
    for folder, name in (("Img", "img_align_celeba"), ("Anno", "list_attr_celeba.txt")):
        (root / folder).mkdir()
        (root / name).rename(root / folder / name)
    np.testing.assert_array_equal(take("celeba", celeba, "test").images, before.images)


@pytest.mark.parametrize("name", ["img_align_celeba", "list_attr_celeba.txt", "list_eval_partition.txt"])
def test_celeba_missing_part(celeba: dict, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (celeba["root"] / name).rename(tmp_path / name)
    data = {"kind": "celeba", "celeba": {**celeba, "root": str(celeba["root"])}}
    assert f"no {name} and no" in refused_by_the_verb(data, tmp_path / "out.tar", capsys)


def test_celeba_all_that_does_not_fit_is_listed(celeba: dict) -> None:
    root = celeba["root"]
    (root / "img_align_celeba/000012.jpg").unlink()
    attributes = root / "list_attr_celeba.txt"
    attributes.write_text(attributes.read_text().replace("000010.jpg  -1   1", "000010.jpg  -1   0"))
    partition = root / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace("000002.jpg 0", "000002.jpg 5"))
    message = complaint("celeba", celeba, "test")
    for part in (
        "list_attr_celeba.txt line 12 (expected a file name and 2 times",
        "list_eval_partition.txt line 2 (",
        "000012.jpg (not in img_align_celeba)",
        "000002.jpg (not in list_eval_partition.txt)",
        "000010.jpg (not in list_attr_celeba.txt)",
        "(5 images for train, expected 6)",
    ):
        assert part in message
    assert "6 things" in message


def test_celeba_broken_images_and_unknown_attribute(celeba: dict) -> None:
    images = celeba["root"] / "img_align_celeba"
    (images / "000010.jpg").write_bytes((images / "000010.jpg").read_bytes()[:900])
    replicas.shade(0, (64, 64)).save(images / "000013.jpg")
    message = complaint("celeba", celeba, "test")
    assert "2 of 4 files of test" in message and "000010.jpg (" in message
    assert "000013.jpg (64x64 pixels, expected 178x218)" in message
    message = complaint("celeba", {**celeba, "attribute": "Blond"}, "test")
    assert "Blond is not in" in message and "Smiling, Male" in message
    assert config.CelebA(root=Path("x"), attribute="Male").partition == (162770, 19867, 19962)

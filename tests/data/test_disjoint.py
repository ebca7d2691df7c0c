"""No image in two splits by its pixels, whatever it is called: when a split is written, and when two are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ddrep import cli
from ddrep.data.embedded import FOLDER
from ddrep.data.masks import read_masked_shards, write_masked_shard
from ddrep.data.shards import LabelledImages, read_shards, write_shard
from tests.data import replicas
from tests.data.replicas import save

SPLITS = ("test", "validation", "train")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """20 training and 3 test images of each of cat and dog, all different in their red value."""
    for label, name in enumerate(("cat", "dog")):
        for split, numbers in (("train", range(20)), ("test", range(100, 103))):
            for i in numbers:
                save(tmp_path / "set" / split / name / f"{i}.png", i + 30 * label)
    return tmp_path / "set"


def write(root: Path, split: str, *held_out: Path, verb: str = "data", data: dict | None = None) -> tuple[int, Path]:
    """Exit status of the command, and its shard."""
    out = root.parent / f"{verb}-{split}.tar"
    out.unlink(missing_ok=True)
    folder = {"kind": "image-folder", "image_folder": {"root": str(root), "size": 8}}
    stage = json.dumps({"config": data or folder})
    return cli.main([verb, "--stage", stage, "--split", split, "--out", str(out), *map(str, held_out)]), out


def write_all(root: Path) -> dict[str, LabelledImages]:
    """Test first, then what is kept apart from it."""
    shards: list[Path] = []
    for split in SPLITS:
        status, out = write(root, split, *shards)
        assert status == 0
        shards.append(out)
    return {split: read_shards([out]) for split, out in zip(SPLITS, shards, strict=True)}


def reds(images: LabelledImages) -> set[int]:
    return set(images.images[:, 0, 0, 0].tolist())


def warnings(capsys: pytest.CaptureFixture[str], words: str) -> list[str]:
    return [line for line in capsys.readouterr().err.splitlines() if words in line]


def test_copies_of_held_out_images_are_left_out_of_train(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = write_all(root)
    assert warnings(capsys, "left out") == []
    for i in range(3):
        save(root / "train/cat" / f"copy{i}.png", 100 + i)
    save(root / "train/dog/renamed.png", 101)  # of another class
    after = write_all(root)
    assert not reds(after["train"]) & reds(after["test"]) and not reds(after["validation"]) & reds(after["test"])
    np.testing.assert_array_equal(after["test"].images, before["test"].images)
    assert reds(after["train"]) | reds(after["validation"]) == reds(before["train"]) | reds(before["validation"])
    found = warnings(capsys, "images left out, as their pixels are those of held-out images: ")
    assert sum(int(line.split(": ")[1].split()[0]) for line in found) == 4
    assert any("train-0" in line and " = test-000001-101 of " in line for line in found)


def test_copies_within_train_are_not_held_out_and_trained_on(root: Path) -> None:
    for i in range(20):
        save(root / "train/cat" / f"again{i}.png", i)
    parts = write_all(root)
    assert not reds(parts["train"]) & reds(parts["validation"])
    assert len(parts["train"]) + len(parts["validation"]) < 60


def test_an_image_in_two_classes_stays_and_is_named(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(root / "train/dog/x.png", 3)
    status, out = write(root, "train")
    assert status == 0 and (read_shards([out]).images[:, 0, 0, 0] == 3).sum() == 2
    (line,) = warnings(capsys, "in two classes")
    assert "train: 1 images are in two classes, and stay there: train-0" in line
    assert "-3 (cat) = train-0" in line and "-x (dog)" in line


def test_a_class_without_images_of_its_own_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, test = write(root, "test")
    for path in (root / "train/cat").iterdir():
        path.unlink()
    for i in range(3):
        save(root / "train/cat" / f"{i}.png", 100 + i)
    capsys.readouterr()
    status, out = write(root, "train", test)
    (line,) = warnings(capsys, "ddrep: ")
    assert status == 2 and not out.exists() and "train: all images of cat are held-out images too (train-0" in line


def test_shards_of_another_size_are_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_shard(
        tmp_path / "t.tar", LabelledImages(np.zeros((1, 9, 9, 1), np.uint8), np.zeros(1, int), ["a"], ("a", "b"))
    )
    assert write(root, "train", tmp_path / "t.tar")[0] == 2
    assert len(warnings(capsys, "t.tar: images are 9x9x1, expected 8x8x3; make it with the same config")) == 1


def test_attributes_are_kept_apart_before_examples_are_drawn(root: Path) -> None:
    data = {"kind": "image-folder", "image_folder": {"root": str(root), "size": 8}}
    section = {"attribute": "feline", "having": ["cat"], "data": data}
    _, test = write(root, "test", verb="attribute", data=section)
    for i in range(3):
        save(root / "train/cat" / f"a{i}.png", 100 + i)
    status, out = write(root, "train", test, verb="attribute", data={**section, "examples": 18})
    train = read_shards([out])
    assert status == 0 and np.bincount(train.labels).tolist() == [18, 18]
    assert not reds(train) & reds(read_shards([test]))


def test_masks_are_kept_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = replicas.few_shot(tmp_path / "few")
    few = {"kind": "few-shot", "few_shot": {"root": str(root), "train": 4, "test": 3, "size": 32}}
    (root / "real/train/img_2.v1.png").write_bytes((root / "real/test/img_0.v1.png").read_bytes())
    _, test = write(root, "test", verb="masks", data=few)
    status, out = write(root, "train", test, verb="masks", data=few)
    train = read_masked_shards([out])
    assert status == 0 and [key.split("-", 2)[2] for key in train.keys] == ["1", "3", "img_0_v1"]
    assert len(warnings(capsys, "train: 1 images left out")) == 1
    write_masked_shard(test, train)
    assert write(root, "train", test, verb="masks", data=few)[0] == 0
    write_masked_shard(test, read_masked_shards([write(root, "train", verb="masks", data=few)[1]]))
    assert write(root, "train", test, verb="masks", data=few)[0] == 2


def test_the_embedded_set_stays_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards: list[Path] = []
    for split in SPLITS:
        out = tmp_path / f"{split}.tar"
        for apart, path in ((shards, out), ([], tmp_path / "alone.tar")):
            args = ["data", "--stage", "{}", "--split", split, "--out", str(path), *map(str, apart)]
            assert cli.main(args) == 0
        assert out.read_bytes() == (tmp_path / "alone.tar").read_bytes()
        shards.append(out)
    assert warnings(capsys, "left out") == warnings(capsys, "two classes") == []


def _classify(train: Path, test: Path, out: Path) -> list[str]:
    stage = json.dumps({"config": {"mixed": False}})
    outs = ["--out", f"{out}.parquet", "--predictions", f"{out}.p.parquet"]
    return ["classify", "--stage", stage, "--real", str(train), "--test", str(test), *outs]


def _finetune(train: Path, test: Path, out: Path) -> list[str]:
    outs = ["--out", f"{out}.safetensors", "--grid", f"{out}.png", "--history", f"{out}.parquet"]
    inputs = ["--denoiser", str(FOLDER / "denoiser.safetensors"), "--train", str(train), "--validation", str(test)]
    return ["finetune", "--stage", "{}", *inputs, *outs]


@pytest.mark.parametrize("command", [_classify, _finetune])
def test_shards_that_share_an_image_are_refused_when_they_are_read_together(
    command: Callable[[Path, Path, Path], list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28, 1), np.uint8)
    labels = np.array([0, 1, 0, 1, 0, 1])
    write_shard(tmp_path / "train.tar", LabelledImages(images, labels, list("abcdef"), ("x", "y")))
    write_shard(tmp_path / "test.tar", LabelledImages(images[[4, 3]], 1 - labels[[4, 3]], ["p", "q"], ("x", "y")))
    assert cli.main(command(tmp_path / "train.tar", tmp_path / "test.tar", tmp_path / "out")) == 2
    (line,) = warnings(capsys, "ddrep: ")
    assert "train.tar: 2 images are in " in line and "test.tar too, d = q first; make both again" in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.tar", "train.tar"]

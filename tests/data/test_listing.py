"""One listing a data set: no file in two splits or read twice, links followed, nothing passed over in silence."""

from __future__ import annotations

import os
import shutil
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddrep import config
from ddrep.data.readers import labelled
from ddrep.errors import UserError
from tests.data import replicas
from tests.data.readers import SPLITS, complaint, reds, take
from tests.data.replicas import TINY, save

# Folders of images


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """10 training and 2 test images of each of cat and dog; the red value is the number of the image."""
    for label, name in enumerate(("cat", "dog")):
        for i in range(10):
            save(tmp_path / "set/train" / name / f"{i}.png", 10 * label + i)
        for i in range(2):
            save(tmp_path / "set/test" / name / f"{i}.png", 100 + 10 * label + i)
    return tmp_path / "set"


def folder(root: Path) -> dict:
    return {"root": root, "size": 8}


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val", "VALID"])
def test_validation_folders_by_any_name(root: Path, name: str) -> None:
    save(root / name / "dog/7.png", 77)
    assert reds(take("image-folder", folder(root), "validation")) == [77]
    assert sorted(reds(take("image-folder", folder(root), "train"))) == list(range(20))


def test_two_validation_folders_are_one_line(root: Path) -> None:
    save(root / "val/dog/7.png", 77)
    save(root / "valid/dog/7.png", 78)
    assert "val and valid are both for validation; leave one" in complaint("image-folder", folder(root))


def test_what_else_lies_in_the_root_is_named(root: Path, log: Callable[[], list[str]]) -> None:
    take("image-folder", folder(root), "test")
    (root / ".DS_Store").touch()
    take("image-folder", folder(root), "test")
    assert log() == []
    save(root / "extra/dog/7.png", 7)
    (root / "README.txt").touch()
    take("image-folder", folder(root), "test")
    (message,) = log()
    assert "README.txt, extra/: not used; expected test/CLASS" in message


def test_a_folder_in_a_class_folder_is_one_line(root: Path) -> None:
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (root / split / name).rename(root / "away")
            (root / split / name).mkdir()
            (root / "away").rename(root / split / name / "images")
    said = complaint("image-folder", folder(root))
    assert "train/cat: holds a folder (images) and 0 files; expected the images themselves" in said
    assert "holds nothing" not in said


def test_names_composed_in_two_ways_are_one_class(root: Path) -> None:
    """macOS writes decomposed names: https://github.com/Garmelon/PFERD/pull/141"""
    composed, decomposed = (unicodedata.normalize(form, "Café") for form in ("NFC", "NFD"))
    for i in range(3):
        save(root / "train" / composed / f"{i}.png", 200 + i)
    save(root / "test" / decomposed / "0.png", 250)
    test = take("image-folder", folder(root), "test")
    assert test.classes == (composed, "cat", "dog") and reds(test)[0] == 250 and test.labels[0] == 0
    save(root / "train" / decomposed / "9.png", 209)
    assert f"two class folders are called {composed}" in complaint("image-folder", folder(root))


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_within_a_split_are_read_once(root: Path, link: Callable, log: Callable[[], list[str]]) -> None:
    before = {split: take("image-folder", folder(root), split).keys for split in SPLITS}
    link(root / "train/cat/3.png", root / "train/cat/zz.png")
    assert {split: take("image-folder", folder(root), split).keys for split in SPLITS} == before
    assert all("1 files are listed twice" in line and "train/cat/zz.png = train/cat/3.png" in line for line in log())


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_links_between_splits_or_classes_are_one_line(root: Path, link: Callable) -> None:
    link(root / "train/cat/3.png", root / "test/cat/9.png")
    for split in SPLITS:
        said = complaint("image-folder", folder(root), split)
        assert "1 files are listed twice: test/cat/9.png = train/cat/3.png (in test and train)" in said
    (root / "test/cat/9.png").rename(root / "train/dog/9b.png")
    assert "train/dog/9b.png = train/cat/3.png (of two classes)" in complaint("image-folder", folder(root))


def test_links_to_folders_are_followed(root: Path, tmp_path: Path) -> None:
    before = take("image-folder", folder(root), "train")
    (root / "train").rename(tmp_path / "disk")
    (root / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/cat").rename(tmp_path / "cats")
    (tmp_path / "disk/cat").symlink_to(tmp_path / "cats")
    np.testing.assert_array_equal(take("image-folder", folder(root), "train").images, before.images)
    (root / "test/cat").rename(root / "away")
    (root / "test/cat").symlink_to(tmp_path / "cats")
    assert "10 files are listed twice" in complaint("image-folder", folder(root))
    (tmp_path / "disk/loop").symlink_to(root)
    assert "train/loop: holds 3 folders (away, test, train)" in complaint("image-folder", folder(root))


def test_a_class_that_is_a_link_to_nothing_is_one_line(root: Path) -> None:
    (root / "train/eel").symlink_to("nowhere")
    said = complaint("image-folder", folder(root))
    assert "train: eel (no such file or directory) lies outside the class folders" in said


def test_only_regular_files_are_opened(root: Path) -> None:
    os.mkfifo(root / "test/cat/pipe.png")
    (root / "test/cat/gone.png").symlink_to("nowhere")
    (root / "test/cat/round.png").symlink_to("round.png")
    said = complaint("image-folder", folder(root), "test")
    for part in (
        "pipe.png (not a regular file)",
        "gone.png (no such file",
        "round.png (too many levels",
        "3 of 7 files",
    ):
        assert part in said


@pytest.mark.skipif(os.geteuid() != 0, reason="root gives up its rights for this")
def test_files_that_may_not_be_read_are_named(root: Path) -> None:
    for path in (root, *root.parents):
        path.chmod(path.stat().st_mode | 0o055)
    for locked, says in (
        ("test/cat/1.png", "test/cat/1.png (permission denied)"),
        ("test/dog", "test/dog: permission"),
    ):
        (root / locked).chmod(0)
        assert says in as_another_user(lambda: complaint("image-folder", folder(root), "test"))


def as_another_user(call: Callable[[], str]) -> str:
    """What `call` returns where root's rights are given up: in a fork, as the interpreter may be root's as well."""
    Image.init()
    there, here = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(here, call().encode())
        finally:
            os._exit(0)
    os.close(here)
    with open(there, "rb") as file:
        said = file.read().decode()
    os.waitpid(child, 0)
    return said


def test_a_file_taken_away_moves_no_image_between_train_and_test(root: Path) -> None:
    (root / "train/cat/4.png").unlink()
    parts = [reds(take("image-folder", folder(root), split)) for split in SPLITS]
    assert sorted(parts[0] + parts[1]) == sorted(set(range(20)) - {4}) and len(parts[1]) == 2
    assert parts[2] == [100, 101, 110, 111]


@pytest.mark.parametrize("size", [10**6, 10**18])
def test_sizes_beyond_the_memory_are_one_line(root: Path, size: int) -> None:
    """Which the settings refuse already; as for many images."""
    section = config.ImageFolder(root=root).model_copy(update={"size": size})
    with pytest.raises(UserError, match="choose a smaller size"):
        labelled(config.Data(kind="image-folder", image_folder=section), "test", 0, 0)


# Tiny ImageNet and CelebA


def test_tiny_with_linked_folders(tmp_path: Path) -> None:
    """https://github.com/cvg/Hierarchical-Localization/issues/283"""
    root = replicas.tiny_imagenet(tmp_path)
    before = take("tiny-imagenet", {**TINY, "path": root}, "train")
    (root / "train").rename(tmp_path / "disk")
    (root / "train").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / replicas.WNIDS[0]).rename(tmp_path / "class")
    (tmp_path / "disk" / replicas.WNIDS[0]).symlink_to(tmp_path / "class")
    (tmp_path / "class/round").symlink_to(root)
    np.testing.assert_array_equal(take("tiny-imagenet", {**TINY, "path": root}, "train").images, before.images)


@pytest.mark.parametrize("top", ["tiny-imagenet", "data/tiny-imagenet-200", ""])
def test_tiny_zips_with_any_top_folder(tmp_path: Path, top: str) -> None:
    """https://github.com/NingMiao/InstaAug/issues/1"""
    root = replicas.tiny_imagenet(tmp_path)
    before = take("tiny-imagenet", {**TINY, "path": root}, "test")
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, Path(top, file.relative_to(root)))
        archive.writestr("__MACOSX/._wnids.txt", b"\0\5\26\7")
    after = take("tiny-imagenet", {**TINY, "path": tmp_path / "t.zip"}, "test")
    np.testing.assert_array_equal(after.images, before.images)
    assert after.classes == before.classes


def test_tiny_zips_without_the_set_show_what_they_hold(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.writestr("tiny/a/b.txt", "x")
        archive.writestr("notes.txt", "x")
    assert "no wnids.txt in any folder" in (said := complaint("tiny-imagenet", {**TINY, "path": tmp_path / "t.zip"}))
    assert "it holds notes.txt, tiny/" in said


@pytest.mark.parametrize("name", ["wnids.txt", "words.txt", "val/val_annotations.txt"])
def test_tiny_zips_with_a_broken_list(tmp_path: Path, name: str) -> None:
    path = replicas.zipped(replicas.tiny_imagenet(tmp_path))
    content = path.read_bytes()
    at = content.index(name.encode()) + len(name)
    path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert f"{name} cannot be read (Bad CRC-32" in complaint("tiny-imagenet", {**TINY, "path": path})


def test_lists_with_a_byte_order_mark(tmp_path: Path) -> None:
    """https://github.com/kylebgorman/textgrid/pull/21"""
    root = replicas.celeba(tmp_path / "celeba")
    table = {"root": root, "attribute": "Male", "partition": [6, 3, 4]}
    images = replicas.tiny_imagenet(tmp_path)
    tiny = {**TINY, "path": images}
    before = [take("celeba", table, "test"), take("tiny-imagenet", tiny, "test")]
    lists = [root / name for name in ("list_attr_celeba.txt", "list_eval_partition.txt")]
    lists += [images / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt")]
    for path in lists:
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    after = [take("celeba", table, "test"), take("tiny-imagenet", tiny, "test")]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one.images, other.images)
        assert one.labels.tolist() == other.labels.tolist() and one.classes == other.classes
    lists[0].write_bytes(lists[0].read_text(encoding="utf-8-sig").encode("utf-16"))
    assert "list_attr_celeba.txt: not UTF-8 at byte 0; expected a text file in UTF-8" in complaint("celeba", table)


def test_celeba_files_that_are_one_or_in_no_list(tmp_path: Path, log: Callable[[], list[str]]) -> None:
    root = replicas.celeba(tmp_path / "celeba")
    table = {"root": root, "attribute": "Male", "partition": [6, 3, 4]}
    images = root / "img_align_celeba"
    shutil.copy(images / "000001.jpg", images / "extra.jpg")
    take("celeba", table, "test")
    assert "extra.jpg: in no list, and not used" in log()[0]
    (images / "000013.jpg").unlink()
    (images / "000013.jpg").symlink_to("000001.jpg")
    assert "000013.jpg = 000001.jpg (in test and train)" in complaint("celeba", table)


def test_every_image_of_a_folder_is_in_one_split(root: Path) -> None:
    keys = [
        key.split("-", 2)[2]
        for split in ("train", "validation")
        for key in take("image-folder", folder(root), split).keys
    ]
    assert Counter(keys) == Counter(str(i) for i in range(10) for _ in range(2))

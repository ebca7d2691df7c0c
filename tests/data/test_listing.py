"""One listing a data set: no file in two splits or read twice, links followed, nothing passed over in silence."""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddrep import cli, config
from ddrep.data.datasets import labelled
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError
from tests.data import replicas

SPLITS = ("train", "validation", "test")


def take(kind: str, table: dict, split: str, seed: int = 0) -> LabelledImages:
    data = config.Data.model_validate({"kind": kind, kind.replace("-", "_"): table})
    return labelled(data, split, 0, seed)


def complaint(kind: str, table: dict, split: str = "train") -> str:
    with pytest.raises(UserError) as e:
        take(kind, table, split)
    assert "\n" not in str(e.value)
    return str(e.value)


def reds(images: LabelledImages) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, "ddrep")

    def messages() -> list[str]:
        found = list(caplog.messages)
        caplog.clear()
        return found

    return messages


# Folders of images


def save(path: Path, red: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(replicas.png(red))
    return path


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
    assert "choose a smaller size" in complaint("image-folder", {"root": root, "size": size}, "test")


# WebDatasets


@pytest.fixture
def wds(tmp_path: Path) -> dict:
    """20 training samples in 2 tars, 4 test samples; the red value is the sample's number, the label its last bit."""
    for name, numbers in (("train/0", range(10)), ("train/1", range(10, 20)), ("test", range(100, 104))):
        members = {f"{i}.{e}": c for i in numbers for e, c in (("png", replicas.png(i)), ("cls", b"%d" % (i % 2)))}
        replicas.tar(tmp_path / f"{name}.tar", members)
    return {"train": [tmp_path / "train"], "test": [tmp_path / "test.tar"], "size": 8}


def test_a_tar_listed_twice_is_read_once(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    """https://github.com/webdataset/webdataset/issues/157 and 170"""
    before = {split: take("webdataset", wds, split) for split in SPLITS}
    (tmp_path / "other").mkdir()
    os.link(tmp_path / "train/1.tar", tmp_path / "other/hard.tar")
    (tmp_path / "soft.tar").symlink_to("train/0.tar")
    again = {
        "a folder and its tar": [tmp_path / "train/1.tar"],
        "another spelling": [tmp_path / "other/../train/0.tar", tmp_path / "train/./1.tar"],
        "relative": [Path(os.path.relpath(tmp_path / "train"))],
        "links": [tmp_path / "other", tmp_path / "soft.tar"],
    }
    for name, paths in again.items():
        for split in SPLITS:
            images = take("webdataset", {**wds, "train": [*wds["train"], *paths]}, split)
            np.testing.assert_array_equal(images.images, before[split].images, err_msg=name)
            np.testing.assert_array_equal(images.labels, before[split].labels, err_msg=name)
            assert any("read once" in line for line in log()), name


@pytest.mark.parametrize("other", ["test", "validation"])
def test_a_tar_in_two_splits_is_one_line(wds: dict, tmp_path: Path, other: str) -> None:
    table = {**wds, other: [*wds.get(other, []), tmp_path / "train/../train/1.tar"]}
    for split in SPLITS:
        said = complaint("webdataset", table, split)
        assert "train/../train/1.tar = " in said and f"(in {other} and train)" in said


def test_the_same_key_in_two_tars_is_two_samples(wds: dict, tmp_path: Path) -> None:
    replicas.tar(tmp_path / "train/2.tar", {"3.png": replicas.png(33), "3.cls": b"1"})
    parts = [reds(take("webdataset", wds, split)) for split in ("train", "validation")]
    assert sorted(parts[0] + parts[1]) == [*range(20), 33]


def linked(path: Path, **links: str) -> None:
    """Members a.png (of red 7), a.cls (1), and links of the given names."""
    with tarfile.open(path, "w") as tar:
        for name, content in (("a.png", replicas.png(7)), ("a.cls", b"1"), ("b.png", replicas.png(8))):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for name, target in links.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.type, info.linkname = (tarfile.SYMTYPE if target.startswith("./") else tarfile.LNKTYPE), target
            tar.addfile(info)


@pytest.mark.parametrize("target", ["a.cls", "./a.cls"])
def test_labels_may_be_links(wds: dict, tmp_path: Path, target: str) -> None:
    linked(tmp_path / "test.tar", b_cls=target)
    test = take("webdataset", wds, "test")
    assert reds(test) == [7, 8] and test.labels.tolist() == [1, 1]


def test_images_may_be_links_and_are_read_once(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    linked(tmp_path / "test.tar", b_cls="a.cls", c_png="a.png", c_cls="b.cls")
    assert reds(take("webdataset", wds, "test")) == [7, 8]
    assert "test.tar:c = " in log()[-1]
    linked(tmp_path / "test.tar", b_cls="nothing.cls")
    assert "b.cls (a link to nothing.cls, which is no file of the tar)" in complaint("webdataset", wds)


def test_names_with_dots_are_shown(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    dotted = {"cat.v1.png": replicas.png(1), "cat.v1.cls": b"0"}
    replicas.tar(tmp_path / "test.tar", dotted)
    said = complaint("webdataset", wds)
    assert "no samples" in said and "where KEY ends at the first dot; there are cat.v1.png, cat.v1.cls" in said
    replicas.tar(tmp_path / "test.tar", dotted | {"x.png": replicas.png(5), "x.cls": b"0", "x.json": b"{}"})
    assert reds(take("webdataset", wds, "test")) == [5]
    assert "2 files have neither an image nor a cls beside them: cat.v1.png, cat.v1.cls" in log()[-1]


def test_hidden_tars_and_members_are_passed_over(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    before = take("webdataset", wds, "train").keys
    for name in (".00001.4242.tar", "._1.tar"):
        shutil.copy(tmp_path / "train/1.tar", tmp_path / "train" / name)
    assert take("webdataset", wds, "train").keys == before
    members = {"._a.png": b"\0\5\26\7", "a.png": replicas.png(3), "._a.cls": b"\0\5\26\7", "a.cls": b"1"}
    replicas.tar(tmp_path / "test.tar", members)
    assert reds(take("webdataset", wds, "test")) == [3]
    assert log() == []


def test_what_is_no_tar_is_named(wds: dict, tmp_path: Path, log: Callable[[], list[str]]) -> None:
    (tmp_path / "train/2.tar.gz").touch()
    take("webdataset", wds, "train")
    assert "train/2.tar.gz: no tars, and not used" in log()[0]
    os.mkfifo(tmp_path / "train/z.tar")
    assert "z.tar (not a regular file)" in complaint("webdataset", wds)
    (tmp_path / "train/z.tar").unlink()
    (tmp_path / "only").mkdir()
    (tmp_path / "only/a.tgz").touch()
    said = complaint("webdataset", {**wds, "test": [tmp_path / "only"]})
    assert f"no *.tar in it, but {tmp_path}/only/a.tgz" in said


def test_gzipped_tars(wds: dict, tmp_path: Path) -> None:
    before = take("webdataset", wds, "test")
    with tarfile.open(tmp_path / "test.tar.gz", "w:gz") as tar, tarfile.open(tmp_path / "test.tar") as plain:
        for member in plain:
            tar.addfile(member, plain.extractfile(member))
    after = take("webdataset", {**wds, "test": [tmp_path / "test.tar.gz"]}, "test")
    np.testing.assert_array_equal(after.images, before.images)
    whole = (tmp_path / "test.tar.gz").read_bytes()
    (tmp_path / "test.tar.gz").write_bytes(whole[:-40])
    assert "not a whole tar" in complaint("webdataset", {**wds, "test": [tmp_path / "test.tar.gz"]})


def test_a_tar_cut_or_broken_anywhere_is_refused(wds: dict, tmp_path: Path) -> None:
    whole = (tmp_path / "test.tar").read_bytes()
    with tarfile.open(tmp_path / "test.tar") as tar:
        starts = [member.offset for member in tar]
    for length in (*starts[1:], starts[2] + 100, starts[2] + 600):
        (tmp_path / "test.tar").write_bytes(whole[:length])
        assert "test.tar (not a whole tar file" in complaint("webdataset", wds)
    (tmp_path / "test.tar").write_bytes(whole[: starts[4]] + b"\x99" * 512 + whole[starts[4] + 512 :])
    assert "test.tar (not a whole tar file: cut short or broken at byte" in complaint("webdataset", wds)


LABELS = {
    "1000000000000": "cls is 1000000000000, expected 0..2",
    "9" * 5000: "cls is of 5000 bytes, expected an integer",
}


@pytest.mark.parametrize("label", LABELS, ids=["10^12", "5000 digits"])
def test_absurd_labels_are_one_line(wds: dict, tmp_path: Path, label: str) -> None:
    members = {f"{i}.{e}": c for i in range(3) for e, c in (("png", replicas.png(i)), ("cls", b"%d" % (i % 2)))}
    replicas.tar(tmp_path / "train/0.tar", members | {"2.cls": label.encode()})
    (tmp_path / "train/1.tar").unlink()
    assert LABELS[label] in complaint("webdataset", wds)


@pytest.mark.parametrize("name", ["x.png", "x.cls"])
def test_sparse_members_are_not_read_whole(wds: dict, tmp_path: Path, name: str) -> None:
    """GNU tar's old sparse format: a header that says how much there would be."""
    with tarfile.open(tmp_path / "test.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for other, content in (("x.png", replicas.png(1)), ("x.cls", b"0")):
            info = tarfile.TarInfo(other)
            info.size = len(content)
            if other != name:
                tar.addfile(info, io.BytesIO(content))
                continue
            info.type, info.size = tarfile.GNUTYPE_SPARSE, 0
            header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
            header[483:495] = tarfile.itn(10**11, 12, tarfile.GNU_FORMAT)
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            tar.fileobj.write(bytes(header))
            tar.offset += 512
    said = complaint("webdataset", wds, "test")
    assert ("100000000000 bytes, expected at most" if name == "x.png" else "cls is of 100000000000 bytes") in said


# Tiny ImageNet and CelebA

TINY = {"size": 16, "classes": 3, "train_per_class": 6, "test_per_class": 2, "validation_per_class": 1}


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
    tiny = {**TINY, "path": replicas.tiny_imagenet(tmp_path)}
    before = [take("celeba", table, "test"), take("tiny-imagenet", tiny, "test")]
    lists = [root / name for name in ("list_attr_celeba.txt", "list_eval_partition.txt")]
    lists += [tiny["path"] / name for name in ("wnids.txt", "words.txt", "val/val_annotations.txt")]
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


# The embedded set, and all splits of each


def test_every_image_of_a_folder_is_in_one_split(root: Path) -> None:
    keys = [
        key.split("-", 2)[2]
        for split in ("train", "validation")
        for key in take("image-folder", folder(root), split).keys
    ]
    assert Counter(keys) == Counter(str(i) for i in range(10) for _ in range(2))


def test_a_bad_name_does_not_stop_the_log(wds: dict, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.makedirs(os.fsencode(tmp_path / "odd") + b"/\xe4")
    path = os.fsencode(tmp_path / "odd") + b"/\xe4/t.tar"
    shutil.copy(tmp_path / "test.tar", path)
    os.rename(tmp_path / "test.tar", tmp_path / "odd/test.tar")
    data = {k: [str(p) for p in v] if isinstance(v, list) else v for k, v in wds.items()}
    stage = json.dumps({"config": {"kind": "webdataset", "webdataset": {**data, "test": [os.fsdecode(path)[:-5]]}}})
    shutil.copy(path, path[:-5] + b"x.tar")
    with open(path[:-5] + b"bad.tar", "wb") as file:
        file.write(b"no tar")
    out, log = tmp_path / "o.tar", tmp_path / "o.log"
    assert cli.main(["data", "--stage", stage, "--split", "test", "--out", str(out), "--log", str(log)]) == 2
    assert (
        "bad.tar (not a whole tar file" in log.read_text(encoding="utf-8") and "Traceback" not in capfd.readouterr().err
    )

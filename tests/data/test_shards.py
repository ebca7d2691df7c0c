import contextlib
import dataclasses
import io
import json
import os
import resource
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm.data
import webdataset as wds
from PIL import Image

from ddrep.config import WebDatasetFiles
from ddrep.data.readers.webdataset import webdataset
from ddrep.data.shards import LabelledImages, read_shards, write_info, write_shard, write_with_attempts
from ddrep.data.tars import read_meta
from ddrep.errors import UserError
from ddrep.own_images.unpack import unpack
from tests.data.replicas import rewrite


def some(n: int, channels: int = 1, seed: int = 0, size: int = 9) -> LabelledImages:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, size, size, channels), np.uint8)
    return LabelledImages(images, rng.integers(0, 3, n), [f"{seed}-{i:03d}" for i in range(n)], ("a", "b/c", "größe"))


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path, channels) -> None:
    first, second = some(5, channels), some(4, channels, seed=1)
    write_shard(tmp_path / "0.tar", first)
    write_shard(tmp_path / "1.tar", second)
    back = read_shards([tmp_path / "0.tar", tmp_path / "1.tar"])
    np.testing.assert_array_equal(back.images, np.concatenate([first.images, second.images]))
    np.testing.assert_array_equal(back.labels, np.concatenate([first.labels, second.labels]))
    assert back.images.dtype == np.uint8 and back.labels.dtype == np.int64
    assert back.keys == first.keys + second.keys
    assert back.classes == ("a", "b/c", "größe")


@pytest.mark.parametrize(("channels", "decoder"), [(1, "l8"), (3, "rgb8")])
def test_webdataset_reads_it(tmp_path, channels, decoder) -> None:
    written = some(6, channels)
    write_shard(tmp_path / "0.tar", written)
    samples = list(wds.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).decode(decoder))
    assert [s["__key__"] for s in samples] == written.keys
    assert [s["cls"] for s in samples] == written.labels.tolist()
    assert {key for s in samples for key in s if not key.startswith("__")} == {"png", "cls"}
    read = np.stack([s["png"] for s in samples]).reshape(written.images.shape)
    np.testing.assert_array_equal(read, written.images)


@pytest.mark.parametrize("channels", [1, 3])
def test_timm_reads_the_nested_splits(tmp_path, channels) -> None:
    shards = [some(3 + i, channels, seed=i) for i in range(6)]
    paths = [tmp_path / f"{i:05d}.tar" for i in range(6)]
    for path, shard in zip(paths, shards, strict=True):
        write_shard(path, shard)
    write_info(tmp_path / "_info.json", paths, 2)
    for scale in (1, 2, 3):
        dataset = timm.data.create_dataset(
            "wds/synthetic", root=str(tmp_path), split=f"{scale}x", input_img_mode="L" if channels == 1 else "RGB"
        )
        expected = shards[: 2 * scale]
        assert len(dataset) == sum(map(len, expected))
        samples = [(np.asarray(image), target) for image, target in dataset]
        assert [target for _, target in samples] == np.concatenate([s.labels for s in expected]).tolist()
        read = np.stack([image for image, _ in samples]).reshape(-1, 9, 9, channels)
        np.testing.assert_array_equal(read, np.concatenate([s.images for s in expected]))
    with pytest.raises(RuntimeError, match="4x not found"):
        timm.data.create_dataset("wds/synthetic", root=str(tmp_path), split="4x")


def test_timm_trains_from_it(tmp_path) -> None:
    write_shard(tmp_path / "00000.tar", some(8, 3))
    write_info(tmp_path / "_info.json", [tmp_path / "00000.tar"], 1)
    dataset = timm.data.create_dataset("wds/", root=str(tmp_path), split="1x", is_training=True, batch_size=4)
    loader = timm.data.create_loader(
        dataset, (3, 9, 9), 4, is_training=True, num_workers=0, use_prefetcher=False, no_aug=True
    )
    batches = list(loader)
    assert [tuple(x.shape) for x, _ in batches] == [(4, 3, 9, 9)] * 2
    assert sorted(label for _, y in batches for label in y.tolist()) == sorted(some(8, 3).labels)


def test_equal_images_give_equal_bytes(tmp_path) -> None:
    write_shard(tmp_path / "a.tar", some(4))
    write_shard(tmp_path / "b.tar", some(4))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


@contextlib.contextmanager
def small_disk():
    """No file may grow past 8 kB, as on a full disk: write() fails with OSError.

    Only around the call under test: pytest's own report may go to a larger file.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failing_write_leaves_nothing(tmp_path) -> None:
    with pytest.raises(OSError, match="File too large"), small_disk():
        write_shard(tmp_path / "a.tar", some(20))
    assert list(tmp_path.iterdir()) == []


def test_a_failing_write_leaves_the_old_file(tmp_path) -> None:
    write_shard(tmp_path / "a.tar", some(2))
    before = (tmp_path / "a.tar").read_bytes()
    with pytest.raises(OSError, match="File too large"), small_disk():
        write_shard(tmp_path / "a.tar", some(20))
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]
    assert (tmp_path / "a.tar").read_bytes() == before


@pytest.mark.parametrize("keys", [["a", "a"], ["a", "b.c"], ["a", "b/c"], ["a", "__b"], ["a", ""]])
def test_keys_that_webdataset_would_lose_are_refused(tmp_path, keys) -> None:
    good = some(2)
    with pytest.raises(ValueError, match="keys"):
        write_shard(tmp_path / "a.tar", LabelledImages(good.images, good.labels, keys, good.classes))
    assert list(tmp_path.iterdir()) == []


def test_labels_must_be_classes() -> None:
    good = some(2)
    with pytest.raises(ValueError, match="labels"):
        LabelledImages(good.images, np.array([0, 3]), good.keys, good.classes)


def _png(mode: str, size: int = 9) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (size, size)).save(buffer, "PNG")
    return buffer.getvalue()


def _bomb() -> bytes:
    """A PNG whose header claims 900 million pixels."""
    whole = _png("L")
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + whole[24:29]
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def _replace(path: Path, name: str, content: bytes) -> None:
    """One member of the shard."""
    rewrite(path, lambda members: members.update({name: content}))


CHANGES = {
    r"0-001\.png is broken": lambda m: m.update({"0-001.png": m["0-001.png"][:60]}),
    r"0-002\.png is broken": lambda m: m.update({"0-002.png": b"no image"}),
    r"0-002\.png is broken \(mode RGBA": lambda m: m.update({"0-002.png": _png("RGBA")}),
    r"0-001\.cls is broken": lambda m: m.update({"0-001.cls": b"cat"}),
    r"0-001\.cls is 3, expected 0\.\.2": lambda m: m.update({"0-001.cls": b"3"}),
    r"0-001\.cls is -1, expected 0\.\.2": lambda m: m.update({"0-001.cls": b"-1"}),
    r"0-001\.png is \(8, 8, 1\), expected \(9, 9, 1\)": lambda m: m.update({"0-001.png": _png("L", 8)}),
    r"0-001 has only one of": lambda m: m.pop("0-001.cls"),
    r"2 images, expected 3": lambda m: [m.pop(f"0-001{x}") for x in (".png", ".cls")],
    r"no member __shard__": lambda m: m.pop("__shard__"),
    r"__shard__ is broken": lambda m: m.update({"__shard__": b"{"}),
    r"no member __shard__ with": lambda m: m.update({"__shard__": b"7"}),
    r"no member __shard__ with classes": lambda m: m.update({"__shard__": b'{"classes": null, "images": 3}'}),
    r"no member __shard__ with classes and": lambda m: m.update({"__shard__": b'{"classes": [[]], "images": 3}'}),
    r"no member __shard__ with classes and i": lambda m: m.update({"__shard__": b'{"classes": ["a"], "images": -1}'}),
    r"no member __shard__ with classes and im": lambda m: m.update({"__shard__": b'{"classes": [], "images": 3}'}),
    r"no member __shard__ with classes and ima": lambda m: m.update({"__shard__": b'{"classes": "abc", "images": 3}'}),
    r"__shard__ is broken \(maximum recursion": lambda m: m.update({"__shard__": b"[" * 100_000}),
    r"0-001\.png is broken \(Image size": lambda m: m.update({"0-001.png": _bomb()}),
}


@pytest.mark.parametrize("message", CHANGES)
def test_broken_members_are_named(tmp_path, message) -> None:
    write_shard(tmp_path / "a.tar", some(3))
    rewrite(tmp_path / "a.tar", CHANGES[message])
    with pytest.raises(UserError, match=r"a\.tar: " + message) as e:
        read_shards([tmp_path / "a.tar"])
    assert "\n" not in str(e.value)


def test_a_shard_cut_anywhere_is_refused(tmp_path) -> None:
    write_shard(tmp_path / "a.tar", some(3))
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        last = tar.getmembers()[-1]
    for length in range(0, last.offset_data, 256):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.tar: "):
            read_shards([tmp_path / "a.tar"])


def test_what_is_no_shard(tmp_path) -> None:
    (tmp_path / "b.tar").write_text("text")
    with pytest.raises(UserError, match=r"b\.tar: not a whole tar"):
        read_shards([tmp_path / "b.tar"])
    with pytest.raises(UserError, match=r"c\.tar: no such shard"):
        read_shards([tmp_path / "c.tar"])
    with pytest.raises(UserError, match="none given"):
        read_shards([])


@pytest.mark.parametrize("target", ["0-000.png", "nothing", "/etc/passwd"])
@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_no_members(tmp_path, kind, target) -> None:
    write_shard(tmp_path / "a.tar", some(2))
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        info = tarfile.TarInfo("x.png")
        info.type, info.linkname = kind, target
        tar.addfile(info)
    assert read_shards([tmp_path / "a.tar"]).keys == some(2).keys


def test_a_member_whose_size_leads_back_is_not_read_for_ever(tmp_path) -> None:
    """By tarfile it would be, and before a shard was known as broken."""
    for name in ("a.tar", "b.tar"):
        write_shard(tmp_path / name, some(2))
    last = tarfile.TarInfo("x")
    last.type, last.size = b"Z", -512
    whole = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    whole += bytes(-len(whole) % 512) + last.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    (tmp_path / "a.tar").write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.tar: not a whole tar file \(a size below 0"):
        read_shards([tmp_path / "a.tar"])
    cfg = WebDatasetFiles(train=(tmp_path / "a.tar",), test=(tmp_path / "b.tar",), size=9, channels=1)
    with pytest.raises(UserError, match=r"a\.tar \(not a whole tar file: a size below 0"):
        webdataset(cfg, 0)
    with pytest.raises(UserError, match=r"a\.tar: not a whole tar \(a size below 0"):
        unpack(".tar", [tmp_path / "a.tar"], tmp_path / "out")


def test_a_pipe_is_no_shard(tmp_path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(UserError, match=r"a\.tar: not a whole tar file \(not a regular file\)"):
        read_shards([tmp_path / "a.tar"])


def test_shards_must_agree(tmp_path) -> None:
    write_shard(tmp_path / "a.tar", some(3))
    write_shard(tmp_path / "b.tar", some(3, channels=3))
    with pytest.raises(UserError, match=r"b\.tar: has 3 classes \(a, b/c, größe.*9x9x3, but .*a\.tar .*9x9x1"):
        read_shards([tmp_path / "a.tar", tmp_path / "b.tar"])
    good = some(3)
    write_shard(tmp_path / "b.tar", LabelledImages(good.images, good.labels, good.keys, ("x", "y", "z")))
    with pytest.raises(UserError, match=r"b\.tar: .*\(x, y, z"):
        read_shards([tmp_path / "a.tar", tmp_path / "b.tar"])


def test_labels_of_one_class_are_refused(tmp_path) -> None:
    """A judge of one class keeps everything, and a classifier of one is always right."""
    alone = dataclasses.replace(some(5), labels=np.zeros(5, np.int64), classes=("a",))
    write_shard(tmp_path / "0.tar", alone)
    with pytest.raises(UserError, match=r"0\.tar: one class \(a\).*; expected 2 or more"):
        read_shards([tmp_path / "0.tar"])


def test_info_needs_whole_scales_beside_the_shards(tmp_path) -> None:
    paths = [tmp_path / "x" / f"{i}.tar" for i in range(3)]
    for path in paths:
        write_shard(path, some(2))
    with pytest.raises(UserError, match="3 shards are not a multiple of 2"):
        write_info(tmp_path / "x" / "_info.json", paths, 2)
    with pytest.raises(UserError, match="0 shards"):
        write_info(tmp_path / "x" / "_info.json", [], 2)
    (tmp_path / "y").mkdir()
    with pytest.raises(UserError, match=r"0\.tar: expected shards in the folder"):
        write_info(tmp_path / "y" / "_info.json", paths, 1)
    assert not list(tmp_path.rglob("_info.json"))
    write_info(tmp_path / "x" / "_info.json", paths, 3)
    info = json.loads((tmp_path / "x" / "_info.json").read_text())
    assert info["splits"].keys() == {"1x"} and info["splits"]["1x"]["filenames"] == ["0.tar", "1.tar", "2.tar"]


def soft(n: int, classes: int = 3) -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(classes), size=n).astype(np.float16)


def test_soft_labels_come_back_and_webdataset_reads_them(tmp_path: Path) -> None:
    plain = some(6)
    said = soft(6, len(plain.classes))
    images = dataclasses.replace(plain, soft=said)
    write_shard(tmp_path / "a.tar", images)
    write_shard(tmp_path / "b.tar", plain)
    back = read_shards([tmp_path / "a.tar"])
    assert back.soft is not None and np.array_equal(back.soft, said) and back.soft.dtype == np.float16
    assert np.allclose(back.targets.sum(axis=1), 1, atol=1e-6) and np.allclose(back.targets, said, atol=2e-3)
    samples = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False).decode())
    np.testing.assert_array_equal(np.stack([sample["soft.npy"] for sample in samples]), said)
    both = read_shards([tmp_path / "b.tar", tmp_path / "a.tar"])
    few = both.take([7, 2]).soft
    assert both.soft is not None and few is not None
    np.testing.assert_array_equal(both.soft[:6], np.eye(len(plain.classes))[plain.labels])
    np.testing.assert_array_equal(both.soft[6:], said)
    np.testing.assert_array_equal(few, both.soft[[7, 2]])
    assert read_shards([tmp_path / "b.tar"]).soft is None


def test_soft_labels_that_are_none_are_named(tmp_path: Path) -> None:
    images = some(2)
    for wrong in (np.full((2, 3), 0.5, np.float16), np.array([[1, 0, np.nan]] * 2, np.float16), soft(2, 2), soft(2)[0]):
        with pytest.raises(ValueError, match="soft: expected 2 rows of 3 probabilities"):
            dataclasses.replace(images, soft=wrong)
    write_shard(tmp_path / "a.tar", dataclasses.replace(images, soft=soft(2)))
    with tarfile.open(tmp_path / "a.tar") as tar, tarfile.open(tmp_path / "b.tar", "w") as less:
        for member in tar.getmembers()[:-1]:
            less.addfile(member, tar.extractfile(member))
    with pytest.raises(UserError, match=r"b.tar: .* has only one of .png and .soft.npy; delete the shard"):
        read_shards([tmp_path / "b.tar"])
    for row in (np.zeros(3, [("a", "<f4")]), np.array(["a", "b", "c"]), np.ones(3, int), np.array(0.5)):
        np.save(content := io.BytesIO(), row)
        write_shard(tmp_path / "c.tar", dataclasses.replace(images, soft=soft(2)))
        _replace(tmp_path / "c.tar", f"{images.keys[0]}.soft.npy", content.getvalue())
        with pytest.raises(UserError, match=r"c\.tar: "):
            read_shards([tmp_path / "c.tar"])


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b'{"classes": null, "images": 3}', b"\xff"])
def test_what_a_shard_says_of_itself_is_read_alone(content, tmp_path) -> None:
    write_shard(tmp_path / "0.tar", some(3))
    assert (read_meta(tmp_path / "0.tar").images, read_meta(tmp_path / "0.tar").classes) == (3, some(3).classes)
    rewrite(tmp_path / "0.tar", lambda m: m.update({"__shard__": content}))
    with pytest.raises(UserError, match=r"0\.tar: no member __shard__ with classes and images"):
        read_meta(tmp_path / "0.tar")


def test_images_of_a_shard_that_is_cut_between_two_members_are_not_counted(tmp_path) -> None:
    write_shard(tmp_path / "0.tar", some(3))
    with tarfile.open(tmp_path / "0.tar") as tar:
        last = tar.getmembers()[-2].offset
    whole = (tmp_path / "0.tar").read_bytes()
    (tmp_path / "0.tar").write_bytes(whole[:last])
    with pytest.raises(UserError, match=r"0\.tar: 2 members \.cls, expected 3"):
        write_info(tmp_path / "_info.json", [tmp_path / "0.tar"], 1)
    assert not (tmp_path / "_info.json").exists()


def attempts_of(images: LabelledImages) -> pd.DataFrame:
    """As many that were refused as were accepted."""
    kept = pd.DataFrame({"key": images.keys, "class": images.labels, "accepted": True})
    return pd.concat([kept, kept.assign(key="no-" + kept["key"], accepted=False)], ignore_index=True)


def altered(images: LabelledImages, kind: str) -> LabelledImages:
    """Another shard's content, or such as a failing disk leaves."""
    pixels, labels, keys, soft = images.images.copy(), images.labels.copy(), list(images.keys), images.soft
    if kind == "one pixel":
        pixels[2, 0, 0] ^= 1
    elif kind == "two images exchanged":
        pixels[[0, 1]] = pixels[[1, 0]]
    elif kind == "one label":
        labels[3] = (labels[3] + 1) % 3
    elif kind == "keys of another shard":
        keys[1] = "another"
    elif kind == "one soft label" and soft is not None:
        soft = np.roll(soft, 1, axis=1)
    return LabelledImages(pixels, labels, keys, images.classes, soft)


WRONG = {
    "one pixel": "image 0-002 is not the one",
    "two images exchanged": "image 0-000 is not the one",
    "one label": "image 0-003 is not the one",
    "keys of another shard": "image another is not the one",
    "one soft label": "image 0-000 is not the one",
    "cut short": "4 images, but 6 that 0.parquet beside it tells of",
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_shard_that_is_not_the_one_of_its_attempts_is_named(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    images = dataclasses.replace(some(6), soft=soft(6))
    write_with_attempts(path, images, attempts_of(images))
    back = read_shards([path])
    assert back.keys == images.keys and np.array_equal(back.images, images.images)
    write_shard(path, images.take(range(4)) if kind == "cut short" else altered(images, kind))
    with pytest.raises(UserError) as said:
        read_shards([path])
    assert str(said.value).startswith(f"{path}: {WRONG[kind]}") and "make them again" in str(said.value)
    if kind == "cut short":
        with pytest.raises(UserError, match=r"0\.tar: 4 images, but 6"):
            write_info(tmp_path / "_info.json", [path], 1)


def test_a_shard_of_before_the_digests_is_read_and_held_against_keys_and_classes(tmp_path: Path) -> None:
    path, images = tmp_path / "0.tar", some(6)
    write_shard(path, images)
    attempts_of(images).to_parquet(path.with_suffix(".parquet"))
    assert read_shards([path]).keys == images.keys
    write_shard(path, altered(images, "one label"))
    with pytest.raises(UserError, match="image 0-003 is not the one"):
        read_shards([path])


def test_attempts_that_are_none_are_named(tmp_path: Path) -> None:
    path, images = tmp_path / "0.tar", some(6)
    write_with_attempts(path, images, attempts_of(images))
    path.with_suffix(".parquet").write_bytes(path.with_suffix(".parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"0\.parquet: not a Parquet file"):
        read_shards([path])

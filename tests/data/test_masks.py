"""Images with masks, and the shards that hold them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from PIL import Image
from torch import from_numpy
from torch.nn.functional import interpolate

from ddrep.data.masks import MaskedImages, read_masked_shards, resized, write_masked_shard
from ddrep.data.shards import LabelledImages, read_shards, write_shard
from ddrep.data.tars import encode_png
from ddrep.errors import UserError
from tests.data.replicas import rewrite


def some(n: int, channels: int = 3, seed: int = 0, size: int = 9) -> MaskedImages:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, size, size + 1, channels), np.uint8)
    masks = rng.choice(np.array([0, 1, 2, 255], np.uint8), (n, size, size + 1))
    return MaskedImages(images, masks, [f"{seed}-{i:03d}" for i in range(n)], ("a", "b/c", "größe"))


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path: Path, channels: int) -> None:
    first, second = some(5, channels), some(4, channels, seed=1)
    write_masked_shard(tmp_path / "0.tar", first)
    write_masked_shard(tmp_path / "1.tar", second)
    back = read_masked_shards([tmp_path / "0.tar", tmp_path / "1.tar"])
    np.testing.assert_array_equal(back.images, np.concatenate([first.images, second.images]))
    np.testing.assert_array_equal(back.masks, np.concatenate([first.masks, second.masks]))
    assert back.images.dtype == back.masks.dtype == np.uint8
    assert back.keys == first.keys + second.keys and back.classes == ("a", "b/c", "größe") and len(back) == 9


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_webdataset_reads_it(tmp_path: Path, channels: int, mode: str) -> None:
    written = some(6, channels)
    write_masked_shard(tmp_path / "0.tar", written)
    samples = list(wds.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False))
    assert [s["__key__"] for s in samples] == written.keys
    assert {key for s in samples for key in s if not key.startswith("__")} == {"png", "mask.png"}
    images, masks = ([Image.open(io.BytesIO(s[name])) for s in samples] for name in ("png", "mask.png"))
    assert {image.mode for image in images} == {mode} and {mask.mode for mask in masks} == {"L"}
    np.testing.assert_array_equal(np.stack(list(map(np.asarray, images))).reshape(written.images.shape), written.images)
    np.testing.assert_array_equal(np.stack(list(map(np.asarray, masks))), written.masks)
    decoded = next(iter(wds.WebDataset(str(tmp_path / "0.tar"), shardshuffle=False).decode("l8")))
    np.testing.assert_array_equal(decoded["mask.png"], written.masks[0])


def test_equal_content_gives_equal_bytes(tmp_path: Path) -> None:
    write_masked_shard(tmp_path / "a.tar", some(4))
    write_masked_shard(tmp_path / "b.tar", some(4))
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in tar} == {(0, 0, 0, "", "", 0o644)}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"images": np.zeros((2, 9, 10, 2), np.uint8)}, "images: expected uint8"),
        ({"images": np.zeros((2, 9, 10, 3))}, "images: expected uint8"),
        ({"keys": ["a"]}, "2 images, 1 keys"),
        ({"masks": np.zeros((2, 9, 10), np.int64)}, r"masks: expected uint8 \(2, 9, 10\), got int64"),
        ({"masks": np.zeros((2, 10, 9), np.uint8)}, r"masks: expected uint8 \(2, 9, 10\), got uint8 \(2, 10, 9\)"),
        ({"masks": np.full((2, 9, 10), 3, np.uint8)}, r"class 3, expected 0\.\.2, or 255"),
        ({"classes": ()}, "classes: expected 1 to 255, got 0"),
        ({"classes": tuple(map(str, range(256)))}, "classes: expected 1 to 255, got 256"),
    ],
)
def test_what_does_not_fit_together(changes: dict, complaint: str) -> None:
    good = some(2)
    with pytest.raises(ValueError, match=complaint):
        MaskedImages(
            **{"images": good.images, "masks": good.masks, "keys": good.keys, "classes": ("a", "b", "c")} | changes
        )


def test_keys_that_webdataset_would_lose_are_refused(tmp_path: Path) -> None:
    good = some(2)
    with pytest.raises(ValueError, match="keys"):
        write_masked_shard(tmp_path / "a.tar", MaskedImages(good.images, good.masks, ["a", "b.c"], good.classes))
    assert list(tmp_path.iterdir()) == []


def _mask(*shape: int, value: int = 0) -> Callable[[dict[str, bytes]], object]:
    return lambda members: members.update({"0-001.mask.png": encode_png(np.full(shape, value, np.uint8))})


CHANGES = {
    r"0-001\.mask\.png is broken": lambda m: m.update({"0-001.mask.png": m["0-001.mask.png"][:60]}),
    r"0-001\.mask\.png is broken \(mode RGB, expected L": _mask(9, 10, 3),
    r"0-001\.mask\.png is wrong \(\(9, 9\), expected \(9, 10\)": _mask(9, 9),
    r"0-001\.mask\.png is wrong \(class 7, expected 0\.\.2": _mask(9, 10, value=7),
    r"0-002\.png is broken": lambda m: m.update({"0-002.png": b"no image"}),
    r"0-001 has only one of \.png and \.mask\.png": lambda m: m.pop("0-001.mask.png"),
    r"2 images, expected 3": lambda m: [m.pop(f"0-001{x}") for x in (".png", ".mask.png")],
    r"no member __shard__": lambda m: m.pop("__shard__"),
}


@pytest.mark.parametrize("message", CHANGES)
def test_broken_members_are_named(tmp_path: Path, message: str) -> None:
    write_masked_shard(tmp_path / "a.tar", some(3))
    rewrite(tmp_path / "a.tar", CHANGES[message])
    with pytest.raises(UserError, match=r"a\.tar: " + message) as e:
        read_masked_shards([tmp_path / "a.tar"])
    assert "\n" not in str(e.value)


def test_a_shard_cut_anywhere_is_refused(tmp_path: Path) -> None:
    write_masked_shard(tmp_path / "a.tar", some(3))
    whole = (tmp_path / "a.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        last = tar.getmembers()[-1]
    for length in range(0, last.offset_data, 256):
        (tmp_path / "a.tar").write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"a\.tar: "):
            read_masked_shards([tmp_path / "a.tar"])


def test_what_is_no_shard_of_masks(tmp_path: Path) -> None:
    masked = some(3)
    write_shard(tmp_path / "l.tar", LabelledImages(masked.images, np.arange(3), masked.keys, masked.classes))
    write_masked_shard(tmp_path / "m.tar", masked)
    with pytest.raises(UserError, match=r"l\.tar: 0-000 has only one of \.png and \.mask\.png"):
        read_masked_shards([tmp_path / "l.tar"])
    with pytest.raises(UserError, match=r"m\.tar: 0-000 has only one of \.png and \.cls"):
        read_shards([tmp_path / "m.tar"])
    with pytest.raises(UserError, match=r"gone\.tar: no such shard"):
        read_masked_shards([tmp_path / "gone.tar"])
    with pytest.raises(UserError, match="none given"):
        read_masked_shards([])
    write_masked_shard(tmp_path / "small.tar", some(3, size=8))
    with pytest.raises(UserError, match=r"small\.tar: has 3 classes .* 8x9x3, but .*m\.tar .* 9x10x3"):
        read_masked_shards([tmp_path / "m.tar", tmp_path / "small.tar"])


@pytest.mark.parametrize("size", [4, 7, 16, 31, 62, 75])
def test_masks_are_resized_as_by_the_published_opencv_call(size: int) -> None:
    """The oracle: torch's nearest, which is made to agree with cv2.INTER_NEAREST."""
    mask = np.random.default_rng(3).integers(0, 19, (31, 29)).astype(np.uint8)
    expected = interpolate(from_numpy(mask)[None, None], (size, size), mode="nearest")[0, 0].numpy()
    np.testing.assert_array_equal(resized(mask, size), expected)


def test_masks_of_512_pixels_keep_every_second_of_them() -> None:
    mask = np.arange(512 * 512).reshape(512, 512)
    np.testing.assert_array_equal(resized(mask, 256), mask[::2, ::2])


def test_masks_are_resized_with_opencvs_rounding() -> None:
    """Recorded from cv2.resize of versions 4.8.1 and 5.0.0: where x * 6 / 34 is whole, it may take the one before."""
    recorded = [0] * 6 + [1] * 6 + [2] * 6 + [3] * 5 + [4] * 6 + [5] * 5
    assert resized(np.arange(6)[None].repeat(6, 0), 34)[0].tolist() == recorded

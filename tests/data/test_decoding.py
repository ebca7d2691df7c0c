"""What all readers make of image files of every kind: against pixels that are known, or torchvision's decoder."""

from __future__ import annotations

import io
import logging
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms
from torchvision.io import ImageReadMode, decode_image

from ddrep import config
from ddrep.data.datasets import masked
from ddrep.data.readers import labelled
from ddrep.errors import UserError
from ddrep.sampling.by_hand import _mask
from tests.data import replicas

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
SIDE = 8
NOISE = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 4), np.uint8)
Read = Callable[[bytes, int], np.ndarray]


def in_folder(tmp_path: Path, content: bytes, channels: int) -> np.ndarray:
    for split, count in (("train", 2), ("test", 1)):
        for name in ("a", "b"):
            for i in range(count):
                path = tmp_path / split / name / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(replicas.png(10 * i + len(split), (SIDE, SIDE)))
    (tmp_path / "test/a/0.png").write_bytes(content)
    table = {"root": tmp_path, "size": SIDE, "channels": channels}
    return labelled(config.Data.model_validate({"kind": "image-folder", "image_folder": table}), "test", 0, 0).images[0]


def in_tar(tmp_path: Path, content: bytes, channels: int) -> np.ndarray:
    replicas.tar(tmp_path / "train.tar", replicas.samples(range(4)))
    replicas.tar(tmp_path / "test.tar", {"x.png": content, "x.cls": b"0"})
    table = {s: [tmp_path / f"{s}.tar"] for s in ("train", "test")} | {"size": SIDE, "channels": channels}
    return labelled(config.Data.model_validate({"kind": "webdataset", "webdataset": table}), "test", 0, 0).images[0]


@pytest.fixture(params=[in_folder, in_tar], ids=["image-folder", "webdataset"])
def read(request: pytest.FixtureRequest, tmp_path: Path) -> Read:
    return lambda content, channels: request.param(tmp_path, content, channels)


def saved(image: Image.Image, form: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **how)
    return buffer.getvalue()


def on_white(rgba: np.ndarray) -> np.ndarray:
    colours, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
    return np.round(colours * alpha + 255 * (1 - alpha))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(depth: int, colour: int, row: bytes, *more: bytes) -> bytes:
    """A PNG of equal rows, byte by byte."""
    header = struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)
    data = zlib.compress((b"\0" + row) * SIDE)
    parts = [chunk(b"IHDR", header), *more, chunk(b"IDAT", data), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


# Transparency


@pytest.mark.parametrize("form", ["PNG", "WEBP", "TIFF"])
def test_colours_beneath_transparent_pixels_are_never_seen(read: Read, form: str) -> None:
    alpha = np.where(np.arange(SIDE) < 4, 0, 255).astype(np.uint8)[None].repeat(SIDE, 0)
    drawing = np.full((SIDE, SIDE, 4), 90, np.uint8)
    seen = []
    for hidden in (0, 128, 255):
        drawing[:, :4, :3] = hidden
        drawing[..., 3] = alpha
        how = {"lossless": True, "exact": True} if form == "WEBP" else {}
        seen.append(read(saved(Image.fromarray(drawing), form, **how), 3))
    for image in seen:
        np.testing.assert_array_equal(image, on_white(drawing))


def test_half_transparent_pixels_are_mixed_with_white(read: Read) -> None:
    np.testing.assert_array_equal(read(saved(Image.fromarray(NOISE)), 3), on_white(NOISE))
    grey = NOISE[..., [0, 3]]
    np.testing.assert_array_equal(
        read(saved(Image.fromarray(grey, "LA")), 1), on_white(grey[..., [0, 0, 0, 1]])[..., :1]
    )


def test_palettes_with_transparency(read: Read) -> None:
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 70, 80, 90]))
    colours = np.array([[10, 20, 30, 0], [40, 50, 60, 128], [70, 80, 90, 255]], np.uint8)
    row = bytes([0, 1, 2, 0, 1, 2, 0, 1])
    expected = on_white(colours)[np.frombuffer(row, np.uint8)][None].repeat(SIDE, 0)
    np.testing.assert_array_equal(read(png(8, 3, row, palette, chunk(b"tRNS", bytes([0, 128]))), 3), expected)
    one = read(png(8, 3, row, palette, chunk(b"tRNS", bytes([255, 255, 0]))), 3)
    assert one[0, :3].tolist() == [[10, 20, 30], [40, 50, 60], [255, 255, 255]]
    gif = saved(Image.frombytes("P", (SIDE, SIDE), row * SIDE), "GIF", transparency=1)
    assert (read(gif, 3)[:, 1] == 255).all()


LEVELS = {
    # bits, colour type, a row, the transparent colour, and the grey levels or colours expected
    "1 bit": (1, 0, b"\x55", (0,), [255, 255] * 4),
    "2 bits": (2, 0, bytes([0b00011011] * 2), (1,), [0, 255, 170, 255] * 2),
    "4 bits": (4, 0, bytes([0x05, 0x5F] * 2), (5,), [0, 255, 255, 255] * 2),
    "8 bits": (8, 0, bytes([7, 9] * 4), (7,), [255, 9] * 4),
    "16 bits": (16, 0, struct.pack(">8H", *[0x1234, 0x1235] * 4), (0x1235,), [0x12, 255] * 4),
}


@pytest.mark.parametrize("name", LEVELS)
def test_one_transparent_level(read: Read, name: str) -> None:
    bits, colour, row, key, expected = LEVELS[name]
    image = read(png(bits, colour, row, chunk(b"tRNS", struct.pack(">H", *key))), 1)
    assert image[..., 0].tolist() == [expected] * SIDE


def test_one_transparent_colour(read: Read) -> None:
    row = bytes([1, 2, 3, 4, 5, 6] * 4)
    image = read(png(8, 2, row, chunk(b"tRNS", struct.pack(">3H", 4, 5, 6))), 3)
    assert image[0, :2].tolist() == [[1, 2, 3], [255, 255, 255]]
    deep = png(16, 2, struct.pack(">3H", 1, 2, 3) * SIDE, chunk(b"tRNS", struct.pack(">3H", 1, 2, 4)))
    with pytest.raises(UserError, match="16 bits a channel with a transparent colour; save it with an alpha channel"):
        read(deep, 3)


def test_how_many_are_transparent_is_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ddrep"):
        in_folder(tmp_path, saved(Image.fromarray(NOISE)), 3)
    assert "1 of 2 images of test have transparency; laid on white" in caplog.messages
    caplog.clear()
    with caplog.at_level(logging.INFO, "ddrep"):
        in_folder(tmp_path, saved(Image.fromarray(np.concatenate([NOISE[..., :3], NOISE[..., 3:] | 255], -1))), 3)
    assert not caplog.messages


# Depths and colour spaces


def test_sixteen_bits_lose_the_lower_eight(read: Read) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1021
    for form in ("PNG", "TIFF"):
        np.testing.assert_array_equal(read(saved(Image.fromarray(deep), form), 1)[..., 0], deep >> 8)
    colour = png(16, 2, b"".join(struct.pack(">3H", *deep[i, :3]) for i in range(8)))
    np.testing.assert_array_equal(read(colour, 3)[0], deep[:, :3] >> 8)
    pgm = b"P5 8 8 65535\n" + deep.astype(">u2").tobytes()
    np.testing.assert_array_equal(read(pgm, 1)[..., 0], deep >> 8)


def test_a_deep_tiff_whose_zero_is_white(read: Read) -> None:
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1021
    content = bytearray(saved(Image.fromarray(deep), "TIFF"))
    at = content.index(struct.pack("<HHIH", 262, 3, 1, 1))
    content[at + 8] = 0
    np.testing.assert_array_equal(read(bytes(content), 1)[..., 0], 255 - (deep >> 8))


@pytest.mark.parametrize("mode", ["F", "I"])
def test_more_bits_are_refused(read: Read, mode: str) -> None:
    with pytest.raises(UserError, match=rf"pixels of mode {mode}, expected 8 or 16 bits"):
        read(saved(Image.fromarray(NOISE[..., 0].astype({"F": np.float32, "I": np.int32}[mode])), "TIFF"), 1)


@pytest.mark.parametrize("inverted", [False, True])
def test_cmyk_as_torchvision_has_it(read: Read, inverted: bool) -> None:
    content = saved(Image.fromarray(NOISE, "CMYK"), "JPEG", quality=95)
    if inverted:  # as Adobe's programs write it: without their marker the same bytes mean the opposite
        at = content.index(b"Adobe") - 4
        content = content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]
    expected = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    np.testing.assert_allclose(read(content, 3).astype(int), expected.movedim(0, -1).int().numpy(), atol=2)


def test_lab_is_converted(read: Read) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.new("RGB", (SIDE, SIDE), (200, 100, 50)), to_lab)
    assert lab is not None
    np.testing.assert_allclose(read(saved(lab, "TIFF"), 3)[0, 0].astype(int), [200, 100, 50], atol=3)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_plain_images_as_torchvision_has_them(read: Read, form: str, mode: str) -> None:
    content = saved(Image.fromarray(NOISE[..., :3]).convert(mode), form)
    expected = decode_image(torch.frombuffer(bytearray(content), dtype=torch.uint8), ImageReadMode.RGB)
    np.testing.assert_allclose(read(content, 3).astype(int), expected.movedim(0, -1).int().numpy(), atol=2)


# Upright, the first of several, and whole


CORNERS = np.zeros((SIDE, SIDE), np.uint8)
CORNERS[0, 0], CORNERS[0, -1], CORNERS[-1, 0] = 250, 150, 50
TURNED = {  # how the camera held it: what was stored, from what is upright
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS),
    7: CORNERS[::-1, ::-1].T,
    8: np.rot90(CORNERS, -1),
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_images_are_set_upright_once(read: Read, form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    how = {"lossless": True} if form == "WEBP" else {}
    content = saved(Image.fromarray(TURNED[orientation].copy()), form, exif=exif, **how)
    np.testing.assert_array_equal(read(content, 1)[..., 0], CORNERS)


BROKEN_TAGS = {
    "a resolution of -1/0": struct.pack("<HHII", 0x011A, 5, 1, 42),
    "a maker beyond the end": struct.pack("<HHII", 0x010F, 2, 9, 9999),
    "an image length of -1": struct.pack("<HHIi", 0x0101, 9, 1, -1),
    "a resolution as text": struct.pack("<HHI4s", 0x011A, 2, 4, b"abc\0"),
}


@pytest.mark.parametrize("name", BROKEN_TAGS)
def test_an_orientation_among_broken_tags(read: Read, name: str) -> None:
    """https://github.com/python-pillow/Pillow/issues/8965, 8605 and 7839: the pixels are whole, and 6 is readable."""
    tags = BROKEN_TAGS[name] + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = (
        b"Exif\0\0II*\0"
        + struct.pack("<IH", 8, 2)
        + tags
        + struct.pack("<I", 0)
        + b"\0" * 4
        + struct.pack("<iI", -1, 0)
    )
    jpeg = saved(Image.fromarray(TURNED[6].copy()), "JPEG", quality=100)
    content = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    np.testing.assert_allclose(read(content, 1)[..., 0].astype(int), CORNERS, atol=12)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_images(read: Read, form: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), (value, value, value)) for value in (60, 120, 240)]
    how = {"lossless": True} if form == "WEBP" else {}
    content = saved(frames[0], form, save_all=True, append_images=frames[1:], **how)
    assert (read(content, 3) == 60).all()


def _eps() -> bytes:
    return b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


NO_IMAGES = {
    "an EPS": _eps(),
    "a cut PNG": replicas.png(1, (64, 64))[:100],
    "a text": b"<html>",
    "nothing": b"",
    "a bomb": png(8, 0, b"\0" * SIDE).replace(struct.pack(">II", SIDE, SIDE), struct.pack(">II", 30_000, 30_000)),
    "a broken JPEG": saved(Image.fromarray(NOISE[..., :3]), "JPEG").replace(
        b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x09"
    ),
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_is_named_in_one_line(
    read: Read, name: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(UserError, match=r"1 of \d files of test cannot be used: .*(a/0.png|test.tar:x) \(") as e:
        read(NO_IMAGES[name], 3)
    assert "\n" not in str(e.value) and not recwarn.list


def test_every_kind_of_exception_is_a_broken_file(read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise struct.error("required argument is not an integer")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fails)
    with pytest.raises(UserError, match="required argument is not an integer"):
        read(replicas.png(1), 3)


# The other readers


def test_sixteen_bits_in_tiny_imagenet_and_celeba(tmp_path: Path) -> None:
    root = replicas.tiny_imagenet(tmp_path)
    deep = np.arange(256, dtype=np.uint16).reshape(16, 16) * 255
    (root / "val/images/val_1.JPEG").write_bytes(saved(Image.fromarray(deep)))
    data = config.Data.model_validate({"kind": "tiny-imagenet", "tiny_imagenet": {**replicas.TINY, "path": root}})
    np.testing.assert_array_equal(labelled(data, "test", 0, 0).images[0], (deep >> 8)[..., None].repeat(3, -1))
    root = replicas.celeba(tmp_path / "celeba")
    (root / "img_align_celeba/000010.jpg").write_bytes(saved(Image.fromarray(np.full((218, 178), 0x4321, np.uint16))))
    table = {"root": root, "attribute": "Male", "partition": [6, 3, 4]}
    data = config.Data.model_validate({"kind": "celeba", "celeba": table})
    assert (labelled(data, "test", 0, 0).images[0] == 0x43).all()


def test_sixteen_bits_and_transparency_in_few_shot_sets(tmp_path: Path) -> None:
    root = replicas.few_shot(tmp_path / "few", size=SIDE, mask_size=SIDE)
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1021
    for name, image in (("1.jpg", Image.fromarray(deep)), ("3.jpg", Image.fromarray(NOISE))):
        (root / "real/train" / name).write_bytes(saved(image))
    few = {"root": root, "train": 4, "test": 3, "size": SIDE}
    images = masked(config.MaskData.model_validate({"kind": "few-shot", "few_shot": few}), "train", 0).images
    np.testing.assert_array_equal(images[0], (deep >> 8)[..., None].repeat(3, -1))
    np.testing.assert_array_equal(images[1], on_white(NOISE))


def test_masks_given_by_hand_start_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mask.png").write_bytes(_eps())
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    for name in ("gs", "gswin64c"):  # as where Ghostscript is installed
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    with pytest.raises(UserError, match=r"mask\.png: not a mask"):
        _mask(tmp_path / "mask.png", None)  # type: ignore[arg-type]

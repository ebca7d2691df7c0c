"""One way from the bytes of an image file to pixels, for all data sets."""

from __future__ import annotations

import io
import struct
import warnings
from contextlib import suppress

import numpy as np
from PIL import Image, ImageOps

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What is decoded, whatever a file is called. Others are no images here: EPS would start Ghostscript."""
BACKGROUND = (255, 255, 255)
"""What transparent pixels are laid on: white. The colours beneath them are arbitrary, and never seen."""
LAID = "laid on the background"
"""Set in the `info` of images that had transparent pixels."""
ORIENTATION, SHORT = 0x0112, 3
"""EXIF's tag, and the type of its value."""
WHITE_IS_ZERO, BITS = 262, 258
"""TIFF's tags PhotometricInterpretation (0: white is zero) and BitsPerSample."""


def decode(content: bytes) -> Image.Image:
    """The (first) image of a file: upright, grey ("L") or "RGB", of 8 bits, with nothing transparent.

    16 bits are scaled to 8 by leaving out the lower ones. Raises whatever Pillow raises for a broken file (any
    Exception), and ValueError for other pixels.
    """
    # Pillow warns of large images and odd EXIF; what matters is raised
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content), formats=FORMATS) as image:
        stored = image.tile[0][3] if image.format == "PNG" and image.tile else ""
        image.load()
        solid = _on_background(image, stored)
        solid.getexif()[ORIENTATION] = _orientation(image)  # by which Pillow turns it
        ImageOps.exif_transpose(solid, in_place=True)
        return solid


def _orientation(image: Image.Image) -> int:
    """EXIF's tag alone: the others may be broken where the pixels are whole. A TIFF is upright when it is loaded."""
    with suppress(Exception):
        if found := _tag(image.info["exif"].removeprefix(b"Exif\0\0")):
            return found
    with suppress(Exception):  # where it is not in EXIF's usual place
        return int(image.getexif().get(ORIENTATION, 1))
    return 1


def _tag(exif: bytes) -> int:
    """Orientation in EXIF's first directory, or 0: Pillow stops at the first broken tag. Raises struct.error."""
    order = ">" if exif.startswith(b"MM") else "<"
    (start,) = struct.unpack_from(f"{order}4xI", exif)
    (count,) = struct.unpack_from(f"{order}H", exif, start)
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from(f"{order}HHIH", exif, at)
        if (tag, kind, number) == (ORIENTATION, SHORT, 1):
            return value
    return 0


def _on_background(image: Image.Image, stored: object) -> Image.Image:
    """8 bits, L or RGB, transparent pixels laid on BACKGROUND; `stored` is Pillow's name of a PNG's samples."""
    levels, alpha = _eight_bits(image), None
    if "transparency" in image.info and image.mode.startswith(("1", "L", "RGB", "I")):
        alpha = _keyed(image, stored)
    elif image.has_transparency_data:
        levels = levels.convert("LA") if levels.mode == "La" else levels
        levels = levels.convert("RGBA")
        alpha = levels.getchannel("A")
    colours = levels.convert("L" if levels.mode in ("1", "L") else "RGB")
    colours.info = {}
    if alpha is None or alpha.getextrema()[0] == 255:
        return colours
    solid = Image.new("RGB", image.size, BACKGROUND)
    solid.paste(colours.convert("RGB"), mask=alpha)
    solid.info[LAID] = True
    return solid


def _eight_bits(image: Image.Image) -> Image.Image:
    """The image itself, or scaled where it is of 16 bits. Raises ValueError for 32 bits and floating point."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(BITS, (16,))[0]
        levels = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        return Image.fromarray(255 - levels if tags.get(WHITE_IS_ZERO) == 0 else levels)
    if image.mode in ("I", "F"):
        raise ValueError(f"pixels of mode {image.mode}, expected 8 or 16 bits")
    return image


def _keyed(image: Image.Image, stored: object) -> Image.Image:
    """What one transparent colour or level leaves opaque (255); a PNG gives it in the bits that it stores."""
    if stored == "RGB;16B":
        raise ValueError("16 bits a channel with a transparent colour; save it with an alpha channel")
    scale = {"1": 255, "L;2": 85, "L;4": 17}.get(str(stored), 1)
    key = np.minimum(np.asarray(image.info["transparency"]) * scale, 255 if image.mode == "1" else 65535)
    pixels = np.asarray(image.convert("L") if image.mode == "1" else image)
    other = pixels != key
    return Image.fromarray(np.where(other.any(-1) if other.ndim == 3 else other, 255, 0).astype(np.uint8))


def fitted(image: Image.Image, size: int, channels: int) -> np.ndarray:
    """uint8 (size, size, channels): the shorter side resized (bicubic), the middle cut out."""
    image = image.convert("L" if channels == 1 else "RGB")
    return np.asarray(ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)).reshape(size, size, channels)


def bilinear(image: Image.Image, size: int) -> np.ndarray:
    """uint8 (size, size, 3), with anti-aliasing: what torchvision's Resize does to a Pillow image."""
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR))


def exact_size(image: Image.Image, width: int, height: int) -> Image.Image:
    """The image itself. Raises ValueError if its size is another."""
    if image.size != (width, height):
        raise ValueError(f"{image.width}x{image.height} pixels, expected {width}x{height}")
    return image

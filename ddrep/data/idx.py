"""IDX files (LeCun's MNIST format), gzipped or not: the form Fashion-MNIST is published in."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ddrep.data.disk import opened, raw, reason
from ddrep.errors import UserError
from ddrep.files import written_whole

DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}
"""The two of the format's types that are used here: unsigned bytes (images, labels) and integers (indices)."""
RATIO = 1032
"""Of deflate at its best: no gzipped file holds more bytes for each of its own."""
CHUNK = 1 << 24
"""Bytes read at once: as much as a header claims may be more than there is, or than fits in memory."""


def read_idx(path: Path) -> np.ndarray:
    """uint8 or int32 array of any rank. Raises UserError if the file is missing, truncated or of another type."""
    try:
        with opened(raw(path)) as file:
            size = os.fstat(file.fileno()).st_size
            if path.suffix != ".gz":
                return _read(file, size)
            return _read(cast(BinaryIO, gzip.GzipFile(fileobj=file)), RATIO * size)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected an IDX file") from None
    except (ValueError, EOFError, OSError, struct.error, zlib.error, MemoryError) as e:
        raise UserError(
            f"{path}: not a whole IDX file of bytes or integers ({reason(e)}); fetch it again, or name another"
        ) from None


def read_images(path: Path) -> np.ndarray:
    """uint8 (N, H, W), or (N, H, W, 1 or 3), of square images. Raises UserError for any other file."""
    images = read_idx(path)
    shape = images.shape if images.ndim == 4 else (*images.shape, 1)
    if images.dtype != np.uint8 or len(shape) != 4 or not images.size or shape[1] != shape[2] or shape[3] not in (1, 3):
        raise UserError(
            f"{path}: {images.dtype} {images.shape}; expected an IDX file of bytes: square images (images, height, "
            "width), or with 1 or 3 channels"
        )
    return images


def _read(file: BinaryIO, most: int) -> np.ndarray:
    """The array, of which the header says how much to read, `most` at most: a file that goes on and on is given up."""
    zeros, kind, rank = struct.unpack(">HBB", start := file.read(4))
    if zeros or kind not in DTYPES:
        raise ValueError(f"starts with {start.hex()}, not with 000008 or 00000c and the rank")
    shape = struct.unpack(f">{rank}I", file.read(4 * rank))
    expected, content = math.prod(shape) * DTYPES[kind].itemsize, bytearray()
    if expected > most:  # not read until the memory is full
        raise ValueError(f"{most} bytes at most after the header, expected {expected}")
    while len(content) <= expected and (more := file.read(min(CHUNK, expected + 1 - len(content)))):
        content += more
    if len(content) != expected:
        found = f"{len(content)} bytes" if len(content) < expected else "more"
        raise ValueError(f"{found} after the header, expected {expected}")
    return np.frombuffer(content, DTYPES[kind]).reshape(shape).astype(DTYPES[kind].newbyteorder("="), copy=False)


def idx_bytes(array: np.ndarray) -> bytes:
    """The (uncompressed) IDX file of a uint8 or int32 array. Raises KeyError for other types."""
    kind = {np.dtype("u1"): 0x08, np.dtype("i4"): 0x0C}[array.dtype]
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return header + array.astype(DTYPES[kind]).tobytes()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 or int32 array, gzipped without a time stamp so that equal arrays give equal files."""
    with written_whole(path) as (draft,):
        draft.write_bytes(gzip.compress(idx_bytes(array), 9, mtime=0))

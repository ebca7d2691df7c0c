"""IDX files (LeCun's MNIST format), gzipped or not: the form Fashion-MNIST is published in."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from ddrep.errors import UserError
from ddrep.files import written_whole

DTYPES: dict[int, np.dtype[Any]] = {0x08: np.dtype("u1"), 0x0C: np.dtype(">i4")}
"""The two of the format's types that are used here: unsigned bytes (images, labels) and integers (indices)."""


def read_idx(path: Path) -> np.ndarray:
    """uint8 or int32 array of any rank. Raises UserError if the file is missing, truncated or of another type."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack(">HBB", raw[:4])
        if zeros or kind not in DTYPES:
            raise ValueError(f"starts with {raw[:4].hex()}, not with 000008 or 00000c and the rank")
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        expected = 4 + 4 * rank + math.prod(shape) * DTYPES[kind].itemsize
        if len(raw) != expected:
            raise ValueError(f"{len(raw)} bytes, expected {expected}")
        flat = np.frombuffer(raw, DTYPES[kind], offset=4 + 4 * rank)
        return flat.reshape(shape).astype(DTYPES[kind].newbyteorder("="))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected an IDX file") from None
    except (ValueError, EOFError, OSError, struct.error, zlib.error) as e:
        raise UserError(f"{path}: not a whole IDX file of bytes or integers ({e}); fetch it again") from None


def idx_bytes(array: np.ndarray) -> bytes:
    """The (uncompressed) IDX file of a uint8 or int32 array. Raises KeyError for other types."""
    kind = {np.dtype("u1"): 0x08, np.dtype("i4"): 0x0C}[array.dtype]
    header = struct.pack(f">HBB{array.ndim}I", 0, kind, array.ndim, *array.shape)
    return header + array.astype(DTYPES[kind]).tobytes()


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 or int32 array, gzipped without a time stamp so that equal arrays give equal files."""
    with written_whole(path) as (draft,):
        draft.write_bytes(gzip.compress(idx_bytes(array), 9, mtime=0))

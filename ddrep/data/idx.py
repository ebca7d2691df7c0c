"""IDX files (LeCun's MNIST format), gzipped or not: the form Fashion-MNIST is published in."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np

from ddrep.errors import UserError


def read_idx(path: Path) -> np.ndarray:
    """uint8 array of any rank. Raises UserError if the file is missing, truncated or of another type."""
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, rank = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{rank}I", raw[4 : 4 + 4 * rank])
        if (zeros, kind) != (0, 8):
            raise ValueError("not unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; expected an IDX file of Fashion-MNIST") from None
    except (ValueError, EOFError, OSError, struct.error) as e:
        raise UserError(f"{path}: not a whole IDX file of bytes ({e}); fetch it again") from None


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array, gzipped without a time stamp so that equal arrays give equal files."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + np.ascontiguousarray(array).tobytes(), 9, mtime=0))

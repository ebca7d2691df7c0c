"""What files say of themselves at their beginning; no weights are read, and no torch is imported."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from ddrep.denoiser.network import ScheduleConfig
from ddrep.errors import UserError
from ddrep.files import check_readable
from ddrep.solvers import SOLVERS


def most_steps(schedule: ScheduleConfig, solver: str) -> int:
    """ddrep.solvers.most_steps of ddrep.denoiser.schedule.Schedule, without torch."""
    n = schedule.num_steps
    if schedule.kind == "linear":
        betas = np.linspace(0.1 / n, 20 / n, n)
    else:
        f = np.cos((np.arange(n + 1) / n + 0.008) / 1.008 * math.pi / 2) ** 2
        betas = np.minimum(1 - f[1:] / f[:-1], 0.999)
    return SOLVERS[solver].most_steps(np.cumprod(1 - betas).tolist())


def pickled(path: Path) -> bool:
    """Whether a file begins as those of torch.save do, of any version."""
    with path.open("rb") as f:
        return f.read(2) in (b"PK", b"\x80\x02")


def idx_image(path: Path) -> tuple[int, int, int]:
    """Height, width and channels of an IDX file's images, gzipped or not. Raises UserError for any other file."""
    check_readable(path, "an IDX file of images, as Fashion-MNIST's")
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as f:
            zeros, kind, rank = struct.unpack(">HBB", f.read(4))
            shape = struct.unpack(f">{rank}I", f.read(4 * rank))
    except (OSError, EOFError, struct.error, zlib.error) as e:
        raise UserError(f"{path}: not an IDX file ({e}); expected one of images, as Fashion-MNIST's") from None
    if zeros or kind != 0x08 or rank not in (3, 4):
        raise UserError(f"{path}: not an IDX file of images; expected bytes of rank 3 (images, height, width) or 4")
    n, height, width, channels = shape if rank == 4 else (*shape, 1)
    if not n or height != width or not height or channels not in (1, 3):
        raise UserError(f"{path}: {n} images of {height}x{width}x{channels}; expected square ones, grey or RGB")
    return height, width, channels

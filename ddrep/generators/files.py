"""A generator of whatever kind its file is of."""

from __future__ import annotations

from pathlib import Path

import torch

from ddrep.files import read_metadata
from ddrep.generators.base import Generator
from ddrep.generators.d2c import D2C
from ddrep.generators.diffae import DiffAE
from ddrep.generators.nvae import NVAE

KINDS: dict[str, type[Generator]] = {kind.FILE.FORMAT: kind for kind in (DiffAE, D2C, NVAE)}
EXPECTED = "a generator's file, as `ddrep pretrain-diffae`, `pretrain-d2c`, `pretrain-nvae` or an import writes it"


def load_generator(path: Path, device: str | torch.device = "cpu") -> Generator:
    """In evaluation mode. Raises UserError for any other file."""
    return KINDS[read_metadata(path, KINDS, EXPECTED)["format"]].load(path, device)

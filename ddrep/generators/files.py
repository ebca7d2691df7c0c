"""A generator of whatever kind its file is of."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ddrep.errors import UserError
from ddrep.files import check_readable
from ddrep.generators.base import Generator
from ddrep.generators.d2c import D2C
from ddrep.generators.diffae import DiffAE
from ddrep.generators.nvae import NVAE

KINDS: tuple[type[Generator], ...] = (DiffAE, D2C, NVAE)
EXPECTED = "a generator's file, as `ddrep pretrain-diffae`, `pretrain-d2c`, `pretrain-nvae` or an import writes it"


def load_generator(path: Path, device: str | torch.device = "cpu") -> Generator:
    """In evaluation mode. Raises UserError for any other file."""
    check_readable(path, EXPECTED)
    try:
        with safe_open(path, framework="np") as f:
            form = (f.metadata() or {}).get("format", "unnamed")
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: not a readable safetensors file ({e}); expected {EXPECTED}") from None
    for kind in KINDS:
        if form == kind.FILE.FORMAT:
            return kind.load(path, device)
    raise UserError(f"{path}: of another format ({form}); expected {EXPECTED}")

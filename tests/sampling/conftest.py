"""What tests of guided sampling and of sampling by hand share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ddrep.config import Guide as Settings
from ddrep.config import GuideTraining, Stage, Taps
from ddrep.data.masks import MaskedImages, write_masked_shard
from ddrep.data.shards import write_shard
from ddrep.training.guides import run
from tests import tiny

TAPS = Taps(blocks=("middle",), timesteps=(500,))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A denoiser, and a guide of an attribute (class 1 against class 0) and one of masks (bright pixels)."""
    tiny.denoiser().save(tmp_path / "d.safetensors")
    images = tiny.images(classes=2, per_class=6)
    write_shard(tmp_path / "examples.tar", images)
    bright = (images.images[..., 0] > 60).astype(np.uint8)
    write_masked_shard(tmp_path / "masks.tar", MaskedImages(images.images, bright, images.keys, ("dark", "bright")))
    stage = Stage[Settings](config=Settings(taps=TAPS, training=GuideTraining(steps=2, hidden=8, batch=4)))
    run(
        stage,
        of="attribute",
        denoiser=tmp_path / "d.safetensors",
        examples=tmp_path / "examples.tar",
        run_seed=0,
        out=tmp_path / "attribute",
    )
    run(
        stage,
        of="mask",
        denoiser=tmp_path / "d.safetensors",
        examples=tmp_path / "masks.tar",
        run_seed=0,
        out=tmp_path / "mask",
    )
    return tmp_path

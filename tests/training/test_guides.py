"""Guides: they learn from a few examples, live in a file, and refuse what they were not trained for."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from ddrep.config import AttributeImages, Data, EmbeddedData, GuideTraining, MaskData, Stage, Taps
from ddrep.config import Guide as Settings
from ddrep.data.attributes import attribute_images
from ddrep.data.datasets import masked
from ddrep.data.masks import write_masked_shard
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import feature_maps
from ddrep.errors import UserError
from ddrep.networks.guides import Guide
from ddrep.training.guides import run
from tests import tiny

EMBEDDED = Path(__file__).resolve().parents[2] / "ddrep/data/embedded/denoiser.safetensors"
CPU = torch.device("cpu")
DATA = Data(embedded=EmbeddedData(per_class=50))
ATTRIBUTE = AttributeImages(data=DATA, attribute="footwear", having=("Sandal", "Sneaker", "Ankle boot"), examples=30)


def train(tmp_path: Path, of: Literal["attribute", "mask"], taps: Taps | None, **training: float) -> Path:
    if of == "attribute":
        write_shard(tmp_path / "examples.tar", attribute_images(ATTRIBUTE, "train", 0, 0, 0))
    else:
        write_masked_shard(tmp_path / "examples.tar", masked(MaskData(), "train", 0))
    stage = Stage[Settings](config=Settings(taps=taps, training=GuideTraining(**training)))
    out = tmp_path / f"{of}-{'features' if taps else 'pixels'}.safetensors"
    run(stage, of=of, denoiser=EMBEDDED, examples=tmp_path / "examples.tar", run_seed=0, out=out)
    return out


@pytest.mark.parametrize("taps", [Taps(blocks=("middle", "up2"), timesteps=(700,)), None])
def test_an_attributes_guide_learns_from_60_images(taps: Taps | None, tmp_path: Path) -> None:
    guide = Guide.load(train(tmp_path, "attribute", taps, steps=60, batch=30, hidden=32), EMBEDDED, CPU)
    test = attribute_images(ATTRIBUTE.model_copy(update={"examples": 0}), "test", 0, 0, 0)
    right = guide.probabilities(test.images[:200]).argmax(axis=1) == test.labels[:200]
    assert right.mean() > 0.85  # 0.7 are not footwear
    assert guide.classes == ("not footwear", "footwear")


def test_a_masks_guide_learns_from_20_images(tmp_path: Path) -> None:
    path = train(tmp_path, "mask", Taps(blocks=("up1", "up3"), timesteps=(500,)), steps=30, batch=10, lr=1e-2)
    guide, test = Guide.load(path, EMBEDDED, CPU), masked(MaskData(), "test", 0)
    labels = guide.probabilities(test.images[:50]).argmax(axis=1)
    assert ((labels > 0) == (test.masks[:50] > 0)).mean() > 0.85  # 0.5 of the pixels are background
    assert labels.shape == (50, 28, 28)


def test_equal_seeds_give_equal_files(tmp_path: Path) -> None:
    files = [train(tmp_path, "attribute", None, steps=3, batch=30, hidden=8).read_bytes() for _ in range(2)]
    assert files[0] == files[1]


def test_a_guide_of_another_denoiser_or_another_file_is_refused(tmp_path: Path) -> None:
    path = train(tmp_path, "attribute", None, steps=1, hidden=8)
    tiny.denoiser().save(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=r"attribute-pixels.*: trained with another denoiser than .*other.safetensors"):
        Guide.load(path, tmp_path / "other.safetensors", CPU)
    with pytest.raises(UserError, match=r"other.safetensors: of another format .*; expected a guide; train one"):
        Guide.load(tmp_path / "other.safetensors", EMBEDDED, CPU)


def test_an_unknown_block_and_images_of_another_size_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"blocks: no up4 in this denoiser; it has middle, up1, up2, up3, output_b"):
        train(tmp_path, "attribute", Taps(blocks=("up4",), timesteps=(700,)), steps=1)
    tiny.denoiser().save(tmp_path / "small.safetensors")
    stage = Stage[Settings](config=Settings(taps=None, training=GuideTraining()))
    with pytest.raises(UserError, match=r"examples.tar: images are \(28, 28, 1\); .*small.* expects \(8, 8, 1\)"):
        run(
            stage,
            of="attribute",
            denoiser=tmp_path / "small.safetensors",
            examples=tmp_path / "examples.tar",
            run_seed=0,
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_taps_are_the_blocks_they_name() -> None:
    """upL is what leaves decoder level L, as a hook on the network sees it."""
    model = Denoiser.load(EMBEDDED)
    seen: dict[str, torch.Tensor] = {}
    names = {
        "middle": model.net.middle_block,
        **{f"output_blocks.{i}": b for i, b in enumerate(model.net.output_blocks)},
    }
    for name, block in names.items():
        block.register_forward_hook(lambda _, __, out, name=name: seen.__setitem__(name, out))
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.eps(x, torch.full((2,), model.schedule.index(700)))
        found = feature_maps(model, x, Taps(blocks=("middle", "up1", "up2", "output_blocks.2"), timesteps=(700,)))
    last = [i for i in range(1, len(model.net.output_blocks)) if i % 2]  # one residual block and one more a level
    expected = ["middle", f"output_blocks.{last[0]}", f"output_blocks.{last[1]}", "output_blocks.2"]
    for name, tensor in zip(expected, found, strict=True):
        np.testing.assert_allclose(tensor, seen[name], rtol=1e-4, atol=1e-4)

"""The Python API: what `import ddrep` gives, held against the parts of the package that it is made of."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import ddrep
from ddrep.config import Features
from ddrep.data.embedded import FOLDER
from ddrep.denoiser.features import bottleneck_features

EVIDENCE = Path(__file__).resolve().parents[1] / "docs/evidence"
LIGHT = """
import sys
import ddrep
assert set(dir(ddrep)) >= set(ddrep.__all__)
assert not {"torch", "numpy", "pydantic"} & set(sys.modules), "import ddrep"
from ddrep.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
assert "torch" not in sys.modules, "ddrep --help"
"""


def test_to_import_it_or_to_ask_for_help_takes_no_torch() -> None:
    subprocess.run([sys.executable, "-c", LIGHT], check=True, stdout=subprocess.DEVNULL)


def test_every_name_is_there_and_says_what_it_is() -> None:
    assert all(getattr(ddrep, name).__doc__ for name in ddrep.__all__)
    with pytest.raises(AttributeError, match=r"^module ddrep has no attribute Denoizer; it has Denoiser, "):
        ddrep.Denoizer  # noqa: B018


@pytest.fixture(scope="module")
def denoiser() -> ddrep.Denoiser:
    return ddrep.Denoiser.load(str(FOLDER / "denoiser.safetensors"))


def test_features_are_those_that_judges_read(denoiser: ddrep.Denoiser) -> None:
    x = ddrep.to_unit(np.random.default_rng(0).integers(0, 256, (3, 28, 28), np.uint8))
    torch.testing.assert_close(denoiser.features(x), bottleneck_features(denoiser, x, Features()))
    both = denoiser.features(x, blocks=["middle", "up1"], timesteps=[50], noise="fixed")
    middle, up1 = (denoiser.features(x, [block], [50], "fixed") for block in ("middle", "up1"))
    assert up1.shape[-1] == 2 * middle.shape[-1]
    pooled = torch.nn.functional.avg_pool2d(up1, 2)
    unit = pooled / pooled.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
    torch.testing.assert_close(both, torch.cat([middle, unit], dim=1))


FEATURES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], dict[str, Any], str]] = {
    "levels": (lambda x: 127.5 * (x + 1), {}, r"images are in \[0, \d+\.?\d*\], expected clean ones in \[-1, 1\]"),
    "another size": (lambda x: x[..., 1:], {}, r"images are \(2, 1, 28, 27\) torch.float32; expected \(N, 1, 28, 28\)"),
    "no such block": (lambda x: x, {"blocks": ["up9"]}, "up9"),
    "no block's name": (lambda x: x, {"blocks": ["bottom"]}, "^features: blocks.0: String should match"),
    "no timestep": (lambda x: x, {"timesteps": [1000]}, "^features: timesteps.0: Input should be less"),
    "no such noise": (lambda x: x, {"noise": "some"}, "^features: noise: Input should be 'none' or 'fixed'"),
}


@pytest.mark.parametrize("of, options, complaint", FEATURES.values(), ids=FEATURES)
def test_features_of_what_is_none(
    denoiser: ddrep.Denoiser,
    of: Callable[[torch.Tensor], torch.Tensor],
    options: dict[str, Any],
    complaint: str,
) -> None:
    x = ddrep.to_unit(np.random.default_rng(0).integers(0, 256, (2, 28, 28), np.uint8))
    with pytest.raises(ddrep.UserError, match=complaint):
        denoiser.features(of(x), **options)


def test_a_sample_is_a_function_of_its_seed(denoiser: ddrep.Denoiser) -> None:
    cfg = ddrep.Sampling(steps=4)
    four = ddrep.sample(denoiser, range(4), cfg)
    assert four.shape == (4, 28, 28, 1) and four.dtype == np.uint8 and four.std() > 20
    some = ddrep.sample(denoiser, [3, 1, 0], cfg, batch=2)
    assert np.abs(some.astype(int) - four[[3, 1, 0]]).max() <= 1  # sums of other batches round otherwise


@pytest.mark.parametrize(
    "seeds, options, complaint",
    [
        ([], {}, "^seeds: none given"),
        ([1, 2], {"labels": [0]}, "^labels: 1 for 2 seeds"),
        ([1], {"labels": [0]}, "is unconditional$"),
        ([1], {"batch": 0}, "^batch: expected 1 image or more"),
    ],
)
def test_samples_of_what_is_none(
    denoiser: ddrep.Denoiser, seeds: list[int], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ddrep.UserError, match=complaint):
        ddrep.sample(denoiser, seeds, ddrep.Sampling(steps=2), **options)


def test_tables_are_read_by_name(tmp_path: Path) -> None:
    tables = ddrep.read_tables(str(EVIDENCE))
    assert {"table3", "table3-summary", "table4", "table4-summary", "costs"} <= set(tables)
    pd.testing.assert_frame_equal(tables["table4"], pd.read_parquet(EVIDENCE / "table4.parquet"))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/costs.parquet").write_bytes((EVIDENCE / "costs.parquet").read_bytes())
    (tmp_path / "attempts.parquet").touch()
    assert list(ddrep.read_tables(tmp_path)) == ["costs"]
    (tmp_path / "tables/broken.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        ddrep.UserError, match=r"tables/broken.parquet: not a readable Parquet file \(.+\); make it anew"
    ):
        ddrep.read_tables(tmp_path)
    with pytest.raises(ddrep.UserError, match="none: no tables"):
        ddrep.read_tables(tmp_path / "none")

"""Near copies, of sources that repeat their labelled images, or do not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.spatial.distance import cdist

from ddrep.config import Copies, Stage
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.errors import UserError
from ddrep.evaluation.copies import TEST, _features, run
from tests import tiny

CFG = Copies(block="up1", timestep=50, pool=2, images=40)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    sets = {"labelled": tiny.images(), "validation": tiny.images("validation"), "test": tiny.images("test")}
    sets["memoriser/00000"] = sets["labelled"].take(range(0, 60, 2))
    sets["honest/00000"] = tiny.images("test").take(range(30))
    tiny.denoiser().save(tmp_path / "d.safetensors")
    for name, images in sets.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_shard(tmp_path / f"{name}.tar", images)
    return {"denoiser": tmp_path / "d.safetensors"} | {name: tmp_path / f"{name}.tar" for name in sets}


def test_a_source_that_repeats_is_seen(files: dict[str, Path], tmp_path: Path) -> None:
    shards = [files.pop("memoriser/00000"), files.pop("honest/00000")]
    run(Stage[Copies](config=CFG), **files, shards=shards, subset=1, out=tmp_path / "rows.parquet")
    rows = {row["source"]: row for row in pd.read_parquet(tmp_path / "rows.parquet").to_dict("records")}
    assert set(rows) == {TEST, "memoriser", "honest"} and all(row["subset"] == 1 for row in rows.values())
    assert rows["memoriser"]["near_copies"] == 1 and rows["memoriser"]["least"] == pytest.approx(0, abs=1e-6)
    assert rows["memoriser"]["image"] == rows["memoriser"]["labelled_image"]
    assert rows["honest"]["near_copies"] < 0.2 and 0.5 < rows["honest"]["median"] < 2


def test_labelled_images_among_the_validation_images_are_named(files: dict[str, Path], tmp_path: Path) -> None:
    shards = [files.pop("memoriser/00000"), files.pop("honest/00000")]
    files["validation"] = files["labelled"]
    with pytest.raises(UserError, match=r"labelled.tar: 60 images are in \S+labelled.tar too"):
        run(Stage[Copies](config=CFG), **files, shards=shards, subset=1, out=tmp_path / "rows.parquet")
    assert not (tmp_path / "rows.parquet").exists()


def test_distances_are_those_of_other_code(files: dict[str, Path], tmp_path: Path) -> None:
    """All pairs, one by one, of standardised features."""
    shards = [files.pop("memoriser/00000"), files.pop("honest/00000")]
    everything = Copies(block="up1", timestep=50, pool=2, images=1000)
    run(Stage[Copies](config=everything), **files, shards=shards[1:], subset=0, out=tmp_path / "rows.parquet")
    rows = pd.read_parquet(tmp_path / "rows.parquet").set_index("source")
    model, known = tiny.denoiser(), _features(tiny.denoiser(), tiny.images(), everything)

    def nearest(images: LabelledImages) -> np.ndarray:
        features = _features(model, images, everything)
        return cdist(features / known.std(axis=0), known / known.std(axis=0)).min(axis=1)

    unseen, honest = nearest(tiny.images("validation")), nearest(tiny.images("test").take(range(30)))
    assert rows.loc["honest", "median"] == pytest.approx(np.median(honest) / np.median(unseen), rel=1e-4)
    assert rows.loc["honest", "near_copies"] == pytest.approx((honest < np.quantile(unseen, 0.01)).mean())

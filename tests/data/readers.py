"""What the tests of readers share: to read a split, and to be refused."""

from __future__ import annotations

import pytest

from ddrep import config
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError

SPLITS = ("train", "validation", "test")


def take(kind: str, table: dict, split: str, seed: int = 0) -> LabelledImages:
    data = config.Data.model_validate({"kind": kind, kind.replace("-", "_"): table})
    return labelled(data, split, 0, seed)


def complaint(kind: str, table: dict, split: str = "train") -> str:
    with pytest.raises(UserError) as e:
        take(kind, table, split)
    assert "\n" not in str(e.value)
    return str(e.value)


def reds(images: LabelledImages) -> list[int]:
    return images.images[:, 0, 0, 0].tolist()

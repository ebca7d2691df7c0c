"""Experiments that differ from the demo in a few settings, and what is complained of in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ddrep.checks import check
from ddrep.config import Experiment, merge, parse
from ddrep.errors import UserError
from tests import tiny

REPO = Path(__file__).resolve().parents[2]
TABLE = {"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 1],
         "subsets": [0], "seeds": [0]}  # fmt: skip
NONE = {"evaluator": None, "segmenter": None}


def folder(root: Path, train: dict[str, int], test: dict[str, int] | None = None) -> Path:
    """An image folder of empty files: nothing is opened."""
    for split, counts in {"train": train, "test": test or dict.fromkeys(train, 3)}.items():
        for name, n in counts.items():
            (root / split / name).mkdir(parents=True)
            for i in range(n):
                (root / split / name / f"{i}.png").touch()
    return root


def own_images(size: int = 28, channels: int = 1, root: str = "images") -> dict[str, Any]:
    data = {"kind": "image-folder", "image_folder": {"root": root, "size": size, "channels": channels}}
    return {"parts": ["augmentation"], "data": data, "figures": {"figure3_classes": [0, 1]}}


def experiment(*overlays: dict[str, Any]) -> Experiment:
    raw = yaml.safe_load((REPO / "config.yaml").read_text())
    for overlay in overlays:
        raw = merge(raw, overlay)
    return parse(raw)


def said(*overlays: dict[str, Any]) -> str:
    """The complaint about the demo with these settings."""
    with pytest.raises(UserError) as caught:
        check(experiment(*overlays))
    line = str(caught.value)
    assert "\n" not in line
    return line


def saved(path: str, **fields: Any) -> str:
    """A denoiser of a few random weights."""
    tiny.denoiser(**fields).save(Path(path))
    return path

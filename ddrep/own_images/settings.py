"""Settings that fit a set of own images, and the experiment file that says them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddrep.config import Experiment, Runs
from ddrep.own_images.looks import Look

SIZES = (28, 32, 48, 64, 96, 128, 192, 256)
"""Widths that are chosen from: each can be halved down to 6, 7 or 8 pixels, where attention is."""
WITHOUT_GPU = 64
"""Largest of them that is chosen for a CPU."""
PIECES = 400_000
"""Images that pretraining is to see, times two above 32 pixels: what the embedded denoiser has seen."""
PATIENCE = 2 * 3600
"""Seconds that pretraining may take on this machine."""
EPOCHS = (40, 20, 10)
"""Of the classifiers' training: the first (the paper's) with which an afternoon is enough, or else the last."""
AFTERNOON = 5 * 3600
"""Seconds on this machine."""
LEAST, MOST = 500, 40_000
"""Steps of pretraining."""


@dataclass(frozen=True)
class Images:
    """Of the set: names of the list and of its root, size and channels, classes, and training images of each."""

    listed: Path
    root: Path
    size: int
    channels: int
    train: dict[str, int]

    @property
    def data(self) -> dict[str, Any]:
        """The section of the settings that reads it."""
        listed = {"path": str(self.listed), "root": str(self.root), "size": self.size, "channels": self.channels}
        return {"kind": "csv", "csv": listed}


@dataclass(frozen=True)
class Denoiser:
    """A file of one; or else the data to pretrain on, for so many steps, and how many images without labels it has."""

    file: Path | None = None
    data: dict[str, Any] | None = None
    steps: int = 0
    unlabelled: int = 0


def size_of(looks: Sequence[Look], gpu: bool) -> int:
    """The largest width that three of four images have, of those that the machine is fast enough for."""
    shorter = np.quantile([min(look.size) for look in looks], 0.25)
    fitting = [size for size in SIZES if size <= shorter and (gpu or size <= WITHOUT_GPU)]
    return max(fitting, default=SIZES[0])


def channels_of(looks: Sequence[Look]) -> int:
    """1 where no image shows a colour."""
    return 1 if all(look.grey for look in looks) else 3


def network_of(size: int, gpu: bool) -> dict[str, Any]:
    """An ADM U-Net with levels down to 8 pixels or fewer, where attention is."""
    levels, smallest = 1, size
    while smallest > 8:
        levels, smallest = levels + 1, -(-smallest // 2)
    mult = {3: [1, 2, 2], 4: [1, 2, 2, 3], 5: [1, 1, 2, 2, 3], 6: [1, 1, 2, 2, 3, 3]}[levels]
    return {
        "model_channels": 96 if gpu else 32,
        "channel_mult": mult,
        "num_res_blocks": 2 if gpu else 1,
        "attention_sizes": [smallest],
        "num_heads": 2,
    }


def batch_of(size: int, gpu: bool) -> int:
    return 64 if gpu or size <= 32 else 32 if size <= 64 else 16


def steps_of(size: int, batch: int, seconds: float) -> int:
    """Of pretraining. seconds: of a step on this machine."""
    wanted = PIECES * (1 if size <= 32 else 2) // batch
    affordable = int(min(wanted, PATIENCE / seconds, MOST))
    return max(LEAST, affordable // 100 * 100)


def threshold_of(classes: int) -> float:
    """Well above chance, and no more than a classifier of few examples is sure of (paper: 0.2 for 200 classes)."""
    return 0.7 if classes == 2 else 0.5 if classes <= 20 else 0.3 if classes <= 100 else 0.2


def overlay(name: str, images: Images, denoiser: Denoiser, gpu: bool, epochs: int = EPOCHS[0]) -> dict[str, Any]:
    """What differs from config.yaml. epochs: of the classifiers."""
    per_class = int(np.clip(np.median(list(images.train.values())), 5, 100))
    batch = batch_of(images.size, gpu)
    scales = tuple(k for k in (1, 3, 5) if k * per_class * len(images.train) <= denoiser.unlabelled)
    return {
        "experiment": name,
        "parts": ["augmentation"],
        "data": images.data,
        "denoiser": _denoiser(images, denoiser, gpu),
        "finetune": {"batch": batch},
        "synthesis": {"per_class": per_class, "threshold": threshold_of(len(images.train))},
        **({"classifier": {"epochs": epochs}} if epochs != EPOCHS[0] else {}),
        **({"table4": _table4(scales)} if scales else {}),
    }


def _table4(scales: tuple[int, ...]) -> list[dict[str, Any]]:
    """config.yaml's runs, and the unlabelled images themselves with the judge's labels, which taught as much as drawn
    ones or more (docs/evidence)."""
    blocks = (*Experiment().table4, Runs(mix=(False,), sources=("unlabelled-soft",), scales=scales))
    return [block.model_dump(mode="json", exclude_defaults=True) for block in blocks]


def _denoiser(images: Images, denoiser: Denoiser, gpu: bool) -> dict[str, Any]:
    if denoiser.file:
        return {"kind": "file", "file": {"path": str(denoiser.file)}}
    pretrain = {
        "data": denoiser.data,
        "network": network_of(images.size, gpu),
        "steps": denoiser.steps,
        "batch": batch_of(images.size, gpu),
        "lr": 1.2e-3 if images.size <= 32 else 6e-4,
        "ema_decay": 0.99 if denoiser.steps < 2000 else 0.999,
    }
    return {"kind": "pretrain", "pretrain": pretrain}


COMMENTS = {
    "parts": "Tables 3 and 4; attributes (Table 1) and masks (Table 2) want settings of their own",
    "data.csv.path": "which images, of which class, in which split: as `ddrep init` made it, for you to edit",
    "data.csv.size": "pixels; images are resized and centre-cropped",
    "data.csv.channels": "1: grey; 3: colours",
    "denoiser.pretrain.network.attention_sizes": "pixels; a larger size wants another network",
    "denoiser.pretrain.steps": "enough, or as many as this machine does in two hours; more is better, to a point",
    "denoiser.pretrain.batch": "smaller for larger images",
    "denoiser.pretrain.ema_decay": "0.999 from 2,000 steps on",
    "synthesis.per_class": "1x: as many images a class as a class of train has",
    "synthesis.threshold": "higher keeps fewer and better candidates; a changed one draws nothing anew",
    "classifier.epochs": "fewer than the paper's 40, so that this machine is done in an afternoon",
    "table4": "as in config.yaml, and last the unlabelled images themselves, with the judge's labels",
}
"""Of settings, by their keys."""


def text_of(settings: dict[str, Any], head: Sequence[str]) -> str:
    """The experiment file: YAML with comments."""
    lines = [f"# {line}".rstrip() for line in head]
    for key, value in settings.items():
        entry = _entry(key, value, key, "")
        lines += [""] * (len(entry) > 1) + entry
    return "\n".join(lines) + "\n"


def _entry(key: str, value: Any, place: str, indent: str) -> list[str]:
    said = f" # {COMMENTS[place]}" if place in COMMENTS else ""
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [f"{indent}{key}:{said}", *(f"{indent}  - {json.dumps(one, ensure_ascii=False)}" for one in value)]
    if not isinstance(value, dict):
        return [f"{indent}{key}: {json.dumps(value, ensure_ascii=False)}{said}"]
    inner = [line for name, one in value.items() for line in _entry(name, one, f"{place}.{name}", indent + "  ")]
    return [f"{indent}{key}:{said}", *inner]

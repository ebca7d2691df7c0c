"""The labelled images that are nearest to generated ones, by the denoiser's features: is anything a copy?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddrep.config import Features
from ddrep.data.batches import to_unit
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.derived import network_path
from ddrep.device import pick_device
from ddrep.files import sha256, tensors_from_disk
from ddrep.networks.metadata import FeaturesFile
from ddrep.reporting.report.results import Results
from ddrep.reporting.report.walls import Sheet, sheet
from ddrep.sources import in_figure

CLASSES, IMAGES, NEAREST = 20, 4, 4
"""The first classes, generated images of each, and labelled images beside each."""
UNSEEN = 100
"""Test images of a class that are looked at, at most: as many as there are labelled ones, up to this."""
COPY = 0.5
"""Less than this share as far from a labelled image as from an unseen one: perhaps a copy."""


@dataclass(frozen=True)
class Neighbours:
    """Of a class: rows of a generated image, its nearest labelled ones, and the nearest test image, which no network
    has seen, in the order of the sheet."""

    name: str
    sheet: Sheet
    distances: list[list[float]]
    """Cosine distances of the features of each row's labelled images."""
    unseen: list[float]
    """Of each row's test image."""

    @property
    def copies(self) -> int:
        return sum(row[0] < COPY * other for row, other in zip(self.distances, self.unseen, strict=True))


def neighbours(results: Results) -> list[Neighbours]:
    """Of the classes that have both; nothing where the features or the denoiser that made them are not there."""
    shards = [path for name in in_figure(3) for path in results.files(f"subset*/synthetic/{name}/00000.tar")]
    if not shards:
        return []
    subset, denoiser = shards[0].parents[2], Path(network_path("denoiser", results.experiment))
    features, shown = subset / "rejection/features.safetensors", (subset / "real.tar", results.folder / "data/test.tar")
    if not all(path.is_file() for path in (features, denoiser, *shown)):
        return []
    stored, text = tensors_from_disk(features)
    about = FeaturesFile.parsed(features, text)
    if about.denoiser_sha256 != sha256(denoiser):
        return []
    model, made = Denoiser.load(denoiser, pick_device()), read_shards(shards[:1])
    labelled, test = (read_shards([path]) for path in shown)
    read = lambda images: unit(_features(model, images, about.settings))  # noqa: E731
    classes = range(len(labelled.classes))[:CLASSES]
    found = [_of_class(label, made, labelled, stored["features"], test, read) for label in classes]
    return [each for each in found if each is not None]


def _of_class(
    label: int, made: LabelledImages, labelled: LabelledImages, stored: np.ndarray, test: LabelledImages,
    read: Callable[[np.ndarray], np.ndarray],
) -> Neighbours | None:  # fmt: skip
    """stored: features of the labelled images; read: images -> features of length 1, (N, F)."""
    theirs, rows, unseen = (np.flatnonzero(images.labels == label) for images in (made, labelled, test))
    theirs = theirs[np.argsort(np.array(made.keys)[theirs], kind="stable")][:IMAGES]
    unseen = unseen[: min(len(rows), UNSEEN)]
    if not (len(theirs) and len(unseen)):
        return None
    drawn = read(made.images[theirs])
    near, far = 1 - drawn @ unit(stored[rows]).T, 1 - drawn @ read(test.images[unseen]).T
    order = np.argsort(near, axis=1, kind="stable")[:, :NEAREST]
    pictures: list[np.ndarray] = []
    for generated, nearest, other in zip(theirs, rows[order], unseen[far.argmin(axis=1)], strict=True):
        pictures += [made.images[generated], *labelled.images[nearest], test.images[other]]
    distances = [[round(float(d), 3) for d in row] for row in np.take_along_axis(near, order, axis=1)]
    of_unseen = [round(float(d), 3) for d in far.min(axis=1)]
    return Neighbours(made.classes[label], sheet(pictures, 2 + order.shape[1]), distances, of_unseen)


@torch.inference_mode()
def _features(model: Denoiser, images: np.ndarray, cfg: Features) -> np.ndarray:
    return bottleneck_features(model, to_unit(images, model.device), cfg).cpu().numpy()


def unit(features: np.ndarray) -> np.ndarray:
    """(N, ...) -> float64 (N, F) of length 1."""
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)


def as_json(found: Sequence[Neighbours]) -> list[dict[str, Any]]:
    """For the page's script."""
    return [
        {**each.sheet.__dict__, "name": each.name, "distances": each.distances, "unseen": each.unseen} for each in found
    ]

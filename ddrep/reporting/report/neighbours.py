"""The labelled images that are nearest to generated ones, by the denoiser's features: is anything a copy?"""

from __future__ import annotations

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
from ddrep.derived import denoiser_path
from ddrep.device import pick_device
from ddrep.files import sha256, tensors_from_disk
from ddrep.networks.metadata import FeaturesFile
from ddrep.reporting.report.results import Results
from ddrep.reporting.report.walls import Sheet, sheet
from ddrep.sources import in_figure

CLASSES, IMAGES, NEAREST = 20, 4, 4
"""The first classes, generated images of each, and labelled images beside each."""
COPY = 0.5
"""Nearer than this share of the distance at which labelled images of its class have each other: taken for a copy."""


@dataclass(frozen=True)
class Neighbours:
    """Of a class: rows of a generated image and its nearest labelled ones, in the order of the sheet."""

    name: str
    sheet: Sheet
    distances: list[list[float]]
    """Cosine distance of the features, a row for each generated image."""
    usual: float
    """Median distance of a labelled image to the nearest other one of its class."""

    @property
    def copies(self) -> int:
        return sum(row[0] < COPY * self.usual for row in self.distances)


def neighbours(results: Results) -> list[Neighbours]:
    """Of the classes that have both; nothing where the features or the denoiser that made them are not there."""
    shards = [path for name in in_figure(3) for path in results.files(f"subset*/synthetic/{name}/00000.tar")]
    if not shards:
        return []
    subset, denoiser = shards[0].parents[2], Path(denoiser_path(results.experiment))
    features, real = subset / "rejection/features.safetensors", subset / "real.tar"
    if not (features.is_file() and real.is_file() and denoiser.is_file()):
        return []
    stored, text = tensors_from_disk(features)
    about = FeaturesFile.parsed(features, text)
    if about.denoiser_sha256 != sha256(denoiser):
        return []
    model = Denoiser.load(denoiser, pick_device())
    labelled, made = read_shards([real]), read_shards(shards[:1])
    both = [label for label in range(len(labelled.classes))[:CLASSES] if label in made.labels]
    found = [_of_class(model, about.settings, label, labelled, stored["features"], made) for label in both]
    return [each for each in found if each is not None]


def _of_class(
    model: Denoiser, cfg: Features, label: int, labelled: LabelledImages, stored: np.ndarray, made: LabelledImages
) -> Neighbours | None:
    rows, theirs = np.flatnonzero(labelled.labels == label), np.flatnonzero(made.labels == label)
    theirs = theirs[np.argsort(np.array(made.keys)[theirs], kind="stable")][:IMAGES]
    if len(rows) < 2:
        return None
    real, drawn = unit(stored[rows]), unit(_features(model, made.images[theirs], cfg))
    distances, among = 1 - drawn @ real.T, 1 - real @ real.T
    np.fill_diagonal(among, np.inf)
    order = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
    pictures = [
        image
        for generated, nearest in zip(theirs, order, strict=True)
        for image in (made.images[generated], *labelled.images[rows[nearest]])
    ]
    said = [[round(float(row[i]), 3) for i in nearest] for row, nearest in zip(distances, order, strict=True)]
    usual = float(np.median(among.min(axis=1)))
    return Neighbours(labelled.classes[label], sheet(pictures, 1 + order.shape[1]), said, usual)


@torch.inference_mode()
def _features(model: Denoiser, images: np.ndarray, cfg: Features) -> np.ndarray:
    return bottleneck_features(model, to_unit(images, model.device), cfg).cpu().numpy()


def unit(features: np.ndarray) -> np.ndarray:
    """(N, ...) -> float64 (N, F) of length 1."""
    flat = np.asarray(features, np.float64).reshape(len(features), -1)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-12)


def as_json(found: list[Neighbours]) -> list[dict[str, Any]]:
    """For the page's script."""
    return [
        {**each.sheet.__dict__, "name": each.name, "distances": each.distances, "usual": round(each.usual, 3)}
        for each in found
    ]

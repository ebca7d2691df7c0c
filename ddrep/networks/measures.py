"""What measures generated images, and takes no part in making them: a classifier, and an oracle of pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ddrep.data.batches import finite
from ddrep.networks import architectures
from ddrep.networks.metadata import EvaluatorFile, EvaluatorMeta, MeasureMeta, SegmenterFile, SegmenterMeta
from ddrep.networks.network import Network
from ddrep.saved import load

Meta = TypeVar("Meta", bound=MeasureMeta)


@dataclass
class Measure(Network[Meta]):
    """A network that measures uint8 images by their pixels."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, by number."""
        return self.meta.classes

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.meta.image_shape
        return channels, height, width


@dataclass
class Evaluator(Measure[EvaluatorMeta]):
    """p(class | image) and the features behind it."""

    net: nn.Sequential

    @property
    def name(self) -> str:
        return f"evaluator {self.meta.name} (`ddrep evaluator` trains others)"

    @property
    def metric(self) -> str:
        """What a Fréchet distance on these features is called; FID is for Inception's alone."""
        return f"FD-{self.meta.name}"

    @property
    def file(self) -> EvaluatorFile:
        return EvaluatorFile(evaluator=self.meta)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Evaluator:
        """Read a file written by `save`, in evaluation mode. Raises UserError for any other file."""
        file, net = load(path, EvaluatorFile, lambda file: architectures.build(file.evaluator), device)
        return cls(net, file.evaluator)

    @torch.no_grad()
    def features(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> the last hidden layer (N, D) float64, non-negative. Raises UserError."""
        features = torch.cat([self.net[:-1](x).double().cpu() for x in self.batches(images, batch)])
        return finite(features, self.name).numpy()

    @torch.no_grad()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> (N, number of classes) float64, summing to 1. Raises UserError."""
        features = torch.from_numpy(self.features(images, batch))
        weight, bias = (p.double().cpu() for p in self.net[-1].parameters())
        logits = finite(F.linear(features, weight, bias), self.name)
        return F.softmax(logits, dim=1).numpy()


@dataclass
class Segmenter(Measure[SegmenterMeta]):
    """The class of every pixel (paper, 5.2)."""

    @property
    def name(self) -> str:
        return "segmenter (`ddrep segmenter` trains others)"

    @property
    def file(self) -> SegmenterFile:
        return SegmenterFile(segmenter=self.meta)

    @classmethod
    def load(cls, path: Path, device: str | torch.device = "cpu") -> Segmenter:
        """Read a file written by `save`, in evaluation mode. Raises UserError for any other file."""
        file, net = load(path, SegmenterFile, lambda file: architectures.build(file.segmenter), device)
        return cls(net, file.segmenter)

    @torch.no_grad()
    def label_maps(self, images: np.ndarray, batch: int = 50) -> np.ndarray:
        """uint8 images (N, H, W, C) -> uint8 (N, H, W), the likeliest class of each pixel. Raises UserError."""
        logits = (finite(self.net(x), self.name) for x in self.batches(images, batch))
        return torch.cat([each.argmax(1).to(torch.uint8).cpu() for each in logits]).numpy()

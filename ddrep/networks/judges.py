"""Networks that say what images show, and judges: p(class | image), by which candidates are accepted (paper, 4.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.data.batches import check_stored, finite, parts, to_unit
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks import architectures
from ddrep.networks.metadata import EvaluatorMeta, GuideMeta, JudgeMeta, SegmenterMeta
from ddrep.saved import load, save

M = TypeVar("M", JudgeMeta, GuideMeta, EvaluatorMeta, SegmenterMeta)


@dataclass
class Network(Generic[M]):
    """A network with what it must know to be used."""

    META: ClassVar[Any]
    """The model of `meta`."""
    net: nn.Module
    meta: M
    denoiser: Denoiser | None = None
    """The one it listens to, or whose samples it guides."""

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.meta.WHAT} of {self.denoiser.name}" if self.denoiser else self.meta.WHAT

    @property
    def image_shape(self) -> tuple[int, int, int] | None:
        """(C, H, W) of the images that it was trained on, if it is known."""
        return self.denoiser.image_shape if self.denoiser else self.meta.image_shape

    def inputs(self, x0: Tensor) -> Tensor:
        """What it reads of images (N, C, H, W) in [-1, 1], or of estimates of them. Raises UserError."""
        x = architectures.inputs(self.meta, self.denoiser, x0)
        if x.shape[1] != (expected := getattr(self.meta, "channels", x.shape[1])):
            raise UserError(
                f"{self.name}: reads {expected} channels of {self.meta.reads}, got {x.shape[1]}; {self.meta.HOW}"
            )
        return x

    def batches(self, images: np.ndarray, batch: int) -> Iterator[Tensor]:
        """What it reads of uint8 images (N, H, W, C), `batch` at a time; of none, a batch of none. Raises UserError."""
        if self.image_shape:
            check_stored(images, self.image_shape, self.name)
        device: torch.device = next(self.net.parameters()).device
        for part in parts(len(images), batch):
            yield self.inputs(to_unit(images[part], device))

    def save(self, path: Path) -> None:
        """Write weights and metadata to a safetensors file."""
        save(path, self.meta, self.net.state_dict())


@dataclass
class Judging(Network[M]):
    """A network that gives class probabilities, trained with a denoiser or on pixels alone."""

    @torch.no_grad()
    def probabilities(self, images: np.ndarray, batch: int = 250) -> np.ndarray:
        """uint8 images (N, H, W, C) -> float64 (N, classes), or (N, classes, H, W) for masks; classes sum to 1.

        Raises UserError for any others, and for a network that is broken.
        """
        logits = [self.net(x).double().cpu() for x in self.batches(images, batch)]
        return F.softmax(finite(torch.cat(logits), self.name), dim=1).numpy()

    @classmethod
    def load(cls, path: str | Path, denoiser: str | Path | None = None, device: str | torch.device = "cpu") -> Self:
        """Read one, with its denoiser: for one on pixels, none is wanted.

        Raises UserError for any other file, and if it was trained with another denoiser.
        """
        meta, net = load(Path(path), cls.META, architectures.build, device)
        if not meta.denoiser_sha256:
            return cls(net, meta)
        if denoiser is None:
            raise UserError(f"{path}: listens to a denoiser; name the one it was trained with")
        if meta.denoiser_sha256 != sha256(denoiser := Path(denoiser)):
            raise UserError(f"{path}: trained with another denoiser than {denoiser}; train it again with this one")
        return cls(net, meta, Denoiser.load(denoiser, device))


@dataclass
class Judge(Judging[JudgeMeta]):
    """p(class | image), by denoiser features or by pixels: a rejection classifier (paper, 4.2), or probes."""

    META = JudgeMeta

    @property
    def name(self) -> str:
        listens = f", listening to {self.denoiser.name}" if self.denoiser else ""
        kind = "the judge of probes" if self.meta.kind == "probe" else f"the rejection classifier on {self.meta.kind}"
        return f"{kind}{listens}"

    def check_classes(self, path: Path, classes: tuple[str, ...], whose: object) -> None:
        """Raise UserError unless it knows the classes of the file `whose`, by number: in another order, what it says of
        one would pass for what it says of another. path: its own file."""
        if (known := self.meta.num_classes) != len(classes):
            raise UserError(f"{path}: knows {known} classes, {whose} has {len(classes)}; train it on such labels")
        for number, (own, other) in enumerate(zip(self.meta.classes or classes, classes, strict=True)):
            if own != other:
                raise UserError(
                    f"{path}: its class {number} is {own}, {whose} has {other} there; train it on such labels"
                )

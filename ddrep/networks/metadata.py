"""What networks on top say of themselves in their files, and must know to be used.

Without torch, for settings are held against files before anything runs.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from annotated_types import MaxLen, MinLen
from pydantic import model_validator

from ddrep.config import Features, ProbeReading, Taps
from ddrep.config.base import Share
from ddrep.denoiser.network import Size
from ddrep.saved import Saved

Of = Literal["attribute", "mask"]
Reads = Literal["features", "pixels"]
Shape = tuple[Size, Size, Size]
Names = Annotated[tuple[str, ...], MinLen(1), MaxLen(2**16)]
"""Of classes, by number."""
WIDEST = 128
"""Most channels of any layer of what measures, so most features of an image: a Fréchet distance wants many more images
than features."""


class JudgeMeta(Saved):
    """Of a judge, which gives an image's class probabilities; it decides what is accepted."""

    KEY, FORMAT = "judge", "ddrep.judge/1"
    WHAT, HOW = "a rejection classifier", "train one with `ddrep rejection`"
    of: ClassVar = "class"
    kind: Literal["features", "pixels", "probe"]
    """What it reads; as probe, features of several blocks, each by a linear classifier of its own."""
    channels: Size
    """Of what it reads."""
    num_classes: Size
    hidden: Size | None = None
    """Width; a probe has none."""
    dropout: Share = 0.0
    features: Features | None = None
    """How those that it reads are made."""
    probes: ProbeReading | None = None
    """Of a probe, likewise."""
    denoiser_sha256: str | None = None
    """Of the denoiser that it listens to."""
    image_shape: Shape | None = None
    """(C, H, W), for pixels; older files have none."""
    widths: tuple[Size, ...] | None = None
    """Of a probe: features that each of its linear classifiers reads."""
    classes: Names | None = None
    """Their names, in its order; older files have none."""

    @model_validator(mode="after")
    def _reads_something(self) -> Self:
        if self.kind == "features" and (self.features is None or self.denoiser_sha256 is None):
            raise ValueError("of features: expected features and denoiser_sha256, which say of which")
        if self.kind == "probe" and (self.probes is None or self.widths is None or self.denoiser_sha256 is None):
            raise ValueError("of probes: expected probes, widths and denoiser_sha256, which say of which")
        if self.kind != "probe" and self.hidden is None:
            raise ValueError("expected hidden, its width")
        if self.classes and len(self.classes) != self.num_classes:
            raise ValueError(f"classes: expected {self.num_classes} (num_classes), got {len(self.classes)}")
        if self.widths and sum(self.widths) != self.channels:
            raise ValueError(f"widths: expected {self.channels} (channels) in all, got {sum(self.widths)}")
        return self

    @property
    def reads(self) -> str:
        return self.kind

    @property
    def settings(self) -> Features | ProbeReading | None:
        """How the features that it reads are made; None for pixels."""
        return self.probes or self.features


class GuideMeta(Saved):
    """Of a guide, a judge of an attribute or a mask with a gradient."""

    KEY, FORMAT = "guide", "ddrep.guide/1"
    WHAT, HOW = "a guide", "train one with `ddrep guide`"
    of: Of
    reads: Reads
    taps: Taps | None
    """How the features that it reads are made."""
    hidden: Size
    channels: Size
    """Of what it reads."""
    classes: Names
    image_shape: Shape
    """(C, H, W)."""
    denoiser_sha256: str
    """Of the one whose samples it guides; for features also the one it listens to."""

    @model_validator(mode="after")
    def _reads_something(self) -> Self:
        if self.reads == "features" and self.taps is None:
            raise ValueError("reads features: expected taps, which say of which blocks")
        return self

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def settings(self) -> Taps | None:
        """How the features that it reads are made; None for pixels."""
        return self.taps if self.reads == "features" else None


class MeasureMeta(Saved):
    """Base of those that measure generated images, by their pixels."""

    of: ClassVar[str]
    reads: ClassVar = "pixels"
    settings: ClassVar = None
    image_shape: Shape
    """(H, W, C)."""
    classes: Names
    width: Size
    """Channels at full resolution."""
    provenance: dict[str, Any] | None = None
    """Command, section, seed, data, accuracy."""

    @property
    def num_classes(self) -> int:
        return len(self.classes)


class EvaluatorMeta(MeasureMeta):
    """Of a classifier whose features Fréchet distances are taken on."""

    KEY, FORMAT = "evaluator", "ddrep.evaluator/1"
    WHAT, HOW = "an evaluator", "train one with `ddrep evaluator`"
    of = "evaluator"
    name: str


class SegmenterMeta(MeasureMeta):
    """Of an oracle that labels every pixel (paper, 5.2)."""

    KEY, FORMAT = "segmenter", "ddrep.segmenter/1"
    WHAT, HOW = "a segmenter", "train one with `ddrep segmenter`"
    of = "segmenter"


class ClassifierMeta(Saved):
    """Of a downstream classifier; its weights have timm's names and shapes."""

    KEY, FORMAT = "classifier", "ddrep.classifier/1"
    WHAT, HOW = "a classifier", "train one with `ddrep classify --weights`"
    architecture: str
    """timm's name."""
    stem: Literal["stock", "small"]
    """Whether the first layers are timm's own, or those for small images."""
    image_shape: Shape
    """(C, H, W) of the images that it was trained on, in [-1, 1]."""
    classes: Names


NetworkMeta = JudgeMeta | GuideMeta | EvaluatorMeta | SegmenterMeta


class FeaturesFile(Saved):
    """Of the features of images, on which judges are trained; their file has never named its format."""

    WHAT, HOW = "a features file", "make one with `ddrep features`"
    settings: Features
    denoiser_sha256: str
    """Of the denoiser that they are of."""
    images_sha256: str | None = None
    """Of the shard whose images they are of; older files have none."""

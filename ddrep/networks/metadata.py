"""What networks on top say of themselves in their files, and must know to be used.

Without torch, for settings are held against files before anything runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from annotated_types import MaxLen, MinLen
from pydantic import Field, model_validator

from ddrep.config import Features, Taps
from ddrep.config.base import Share
from ddrep.denoiser.network import Size
from ddrep.saved import Described, Saved

Of = Literal["attribute", "mask"]
Reads = Literal["features", "pixels"]
Shape = tuple[Size, Size, Size]
Names = Annotated[tuple[str, ...], MinLen(1), MaxLen(2**16)]
"""Of classes, by number."""
WIDEST = 128
"""Most channels of any layer of what measures, so most features of an image: a Fréchet distance wants many more images
than features."""


class NetworkMeta(Described):
    """Base of what a network knows of itself."""

    @property
    def key(self) -> tuple[str, str]:
        """What it is of, and what it reads: its entry in ddrep.networks.architectures."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, Any]:
        """The arguments of its architecture."""
        raise NotImplementedError

    @property
    def settings(self) -> Features | Taps | None:
        """How the features that it reads are made; None for pixels."""
        return None


class JudgeMeta(NetworkMeta):
    """Base of what all judges know: rejection classifiers, which give an image's class probabilities."""

    channels: Size
    """Of what it reads."""
    num_classes: Size
    hidden: Size
    dropout: Share

    @property
    def sizes(self) -> dict[str, Any]:
        sizes = {"channels": self.channels, "classes": self.num_classes}
        return sizes | {"hidden": self.hidden, "dropout": self.dropout}


class FeatureJudge(JudgeMeta):
    """Of denoiser features."""

    kind: Literal["features"] = "features"
    features: Features
    denoiser_sha256: str
    """Of the denoiser it listens to."""

    @property
    def key(self) -> tuple[str, str]:
        return "class", self.kind

    @property
    def settings(self) -> Features:
        return self.features


class PixelJudge(JudgeMeta):
    """The control, of pixels."""

    kind: Literal["pixels"] = "pixels"
    image_shape: Shape | None = None
    """(C, H, W); older files have none."""

    @property
    def key(self) -> tuple[str, str]:
        return "class", self.kind


class GuideMeta(NetworkMeta):
    """A guide gives the log-likelihood, with its gradient, of an attribute or of a mask."""

    of: Of
    reads: Reads
    taps: Taps | None
    """What it reads of the denoiser."""
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
    def key(self) -> tuple[str, str]:
        return self.of, self.reads

    @property
    def sizes(self) -> dict[str, Any]:
        return {"channels": self.channels, "classes": len(self.classes), "hidden": self.hidden}

    @property
    def settings(self) -> Taps | None:
        return self.taps if self.reads == "features" else None


class MeasureMeta(NetworkMeta):
    """Base of what measures generated images, by their pixels."""

    image_shape: Shape
    """(H, W, C)."""
    classes: Names
    width: Size
    """Channels at full resolution."""
    provenance: dict[str, Any] | None = None
    """Command, section, seed, data, accuracy."""

    @property
    def sizes(self) -> dict[str, Any]:
        return {"image_shape": self.image_shape, "classes": len(self.classes), "width": self.width}


class EvaluatorMeta(MeasureMeta):
    """A classifier whose features Fréchet distances are taken on."""

    name: str

    @property
    def key(self) -> tuple[str, str]:
        return "evaluator", "pixels"


class SegmenterMeta(MeasureMeta):
    """An oracle that labels every pixel (paper, 5.2)."""

    @property
    def key(self) -> tuple[str, str]:
        return "segmenter", "pixels"


class JudgeFile(Saved):
    """A judge's file."""

    FORMAT = "ddrep.judge/1"
    WHAT = "a rejection classifier"
    HOW = "train one with `ddrep rejection`"
    judge: Annotated[FeatureJudge | PixelJudge, Field(discriminator="kind")]


class GuideFile(Saved):
    """A guide's file."""

    FORMAT = "ddrep.guide/1"
    WHAT = "a guide"
    HOW = "train one with `ddrep guide`"
    guide: GuideMeta


class EvaluatorFile(Saved):
    """An evaluator's file."""

    FORMAT = "ddrep.evaluator/1"
    WHAT = "an evaluator"
    HOW = "train one with `ddrep evaluator`"
    evaluator: EvaluatorMeta


class SegmenterFile(Saved):
    """A segmenter's file."""

    FORMAT = "ddrep.segmenter/1"
    WHAT = "a segmenter"
    HOW = "train one with `ddrep segmenter`"
    segmenter: SegmenterMeta


class FeaturesFile(Saved):
    """What a file of features, on which judges are trained, says beside them. It has never named its format."""

    WHAT = "a features file"
    HOW = "make one with `ddrep features`"
    settings: Features
    denoiser_sha256: str
    """Of the denoiser that they are of."""

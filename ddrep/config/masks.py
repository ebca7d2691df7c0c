"""The images with segmentation masks: a section for each kind of data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Gt, Le, MaxLen, MinLen
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from ddrep.config.base import Choice, Pixels, Positive, Section

CELEBA_19 = (
    "background", "cloth", "ear_r", "eye_g", "hair", "hat", "l_brow", "l_ear", "l_eye", "l_lip", "mouth", "neck",
    "neck_l", "nose", "r_brow", "r_ear", "r_eye", "skin", "u_lip",
)  # fmt: skip
"""Classes of ddpm-segmentation's celeba_19 in the order of their labels: sorted names, not CelebAMask-HQ's order."""


class EmbeddedMasks(Section):
    """The foreground of the embedded images: background, and each garment a class."""

    train: Annotated[int, Gt(0), Le(500)] = 20
    """Images with masks that the guides learn from, of one labelled subset; the classes take turns."""
    test: Annotated[int, Gt(0), Le(5000)] = 1000
    """Target masks, of images of the test split; the classes take turns."""


class FewShot(Section):
    """A few-shot set of ddpm-segmentation: an image and a label map (.npy) of the same stem."""

    root: Annotated[Path, Field(examples=["path/to/few-shot"])]
    """Holds real/train and real/test."""
    classes: Annotated[tuple[str, ...], MinLen(2), MaxLen(255)] = CELEBA_19
    """Names in the order of the labels, which are 0, 1, ...; label 255 is of no class and does not count."""
    train: Positive = 20
    """Expected number of training images."""
    test: Positive = 500
    """Expected number of test images."""
    size: Pixels = 256
    """Width and height in pixels; images and masks, which must be square, are resized."""
    mask_size: Pixels | None = None
    """Width and height in pixels that all masks have; null: each its image's."""

    @field_validator("classes")
    @classmethod
    def _has_each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(given)) < len(given):
            raise ValueError("expected each name once")
        return given


class CelebAMaskHQ(Section):
    """CelebAMask-HQ as it is published: 1024x1024 images, and a 512x512 mask for each part of a face."""

    root: Annotated[Path, Field(examples=["path/to/CelebAMask-HQ"])]
    """Holds CelebA-HQ-img/ and CelebAMask-HQ-mask-anno/."""
    images: Positive = 30_000
    """Expected number of images."""
    train: Positive = 20
    """Images for training: the first ones."""
    test: Positive = 500
    """Images for testing: the last ones. Those between are for an oracle."""
    size: Pixels = 256
    """Width and height in pixels that images and masks are resized to."""

    @model_validator(mode="after")
    def _leaves_some_for_the_oracle(self) -> CelebAMaskHQ:
        if self.train + self.test >= self.images:
            raise ValueError(f"train and test: expected less than {self.images} (images) together")
        return self


class MaskData(Choice):
    """The images with segmentation masks (docs/data.md)."""

    kind: Literal["embedded", "few-shot", "celebamask-hq"] = "embedded"
    """The table that counts."""
    embedded: EmbeddedMasks = EmbeddedMasks()
    few_shot: FewShot | None = None
    celebamask_hq: CelebAMaskHQ | None = None
    """Beside few_shot: where that set's images for an oracle come from."""

    @model_validator(mode="after")
    def _oracle_is_of_one_size(self) -> MaskData:
        ours, oracle = self.few_shot, self.celebamask_hq
        if self.kind == "few-shot" and ours and oracle and ours.size != oracle.size:
            raise ValueError(f"celebamask_hq.size: expected {ours.size} as in few_shot, got {oracle.size}")
        return self

    @model_serializer(mode="wrap")
    def _only_what_counts(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # a table of another kind may change, and nothing is planned anew
        counts = {"kind", self.table} | ({"celebamask_hq"} if self.kind == "few-shot" and self.celebamask_hq else set())
        return {key: value for key, value in handler(self).items() if key in counts}

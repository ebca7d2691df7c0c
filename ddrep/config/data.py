"""The labelled images: a section for each kind of data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import (
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from ddrep.config.base import Channels, Choice, Pixels, Positive, Section


class EmbeddedData(Section):
    """The subset of Fashion-MNIST that comes with ddrep: 28x28x1, 10 classes."""

    per_class: Annotated[int, Gt(0), Le(50)] = 20
    """Labelled training images a class in each of the 3 disjoint subsets, at most 50."""
    test_images: Annotated[int, Gt(0), Le(5000)] = 5000
    """At most 5000."""


class ImageFolder(Section):
    """ROOT/train/CLASS/*, ROOT/test/CLASS/*, and ROOT/validation/CLASS/* (or valid, val) if you have it."""

    root: Annotated[Path, Field(examples=["path/to/images"])]
    size: Pixels = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Channels = 3


class TinyImageNet(Section):
    """Tiny ImageNet as published; its official validation images, which have labels, are the test split."""

    path: Annotated[Path, Field(examples=["path/to/tiny-imagenet-200.zip"])]
    """The zip, whatever its top folder is called, or the folder."""
    size: Pixels = 64
    """Width and height in pixels that all images must have."""
    classes: Annotated[int, Ge(2), Le(2**16)] = 200
    """Expected number of classes."""
    train_per_class: Annotated[int, Ge(2), Le(10**9)] = 500
    """Expected number of training images a class."""
    test_per_class: Positive = 50
    """Expected number of official validation images a class."""
    validation_per_class: Positive = 10
    """Training images of each class held out for validation; they are not in train."""

    @model_validator(mode="after")
    def _leaves_some_for_training(self) -> TinyImageNet:
        if self.validation_per_class >= self.train_per_class:
            raise ValueError("validation_per_class: expected less than train_per_class")
        return self


class WebDatasetFiles(Section):
    """Any WebDataset of images with `cls`: tars, or folders of tars, by split."""

    train: Annotated[tuple[Path, ...], MinLen(1), Field(examples=[("path/to/train",)])]
    test: Annotated[tuple[Path, ...], MinLen(1), Field(examples=[("path/to/test.tar",)])]
    validation: tuple[Path, ...] = ()
    """None given: a tenth of each class of train is held out."""
    classes: tuple[str, ...] = ()
    """Names in the order of cls; none given: cls itself, from 0 to the largest in train."""
    size: Pixels = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Channels = 3


class CelebA(Section):
    """CelebA's aligned images, with one attribute as the label."""

    root: Annotated[Path, Field(examples=["path/to/celeba"])]
    """Holds img_align_celeba/, list_attr_celeba.txt and list_eval_partition.txt, or these in Img/, Anno/ and Eval/."""
    attribute: Annotated[str, Field(examples=["Male"])]
    """Name in list_attr_celeba.txt, such as Male or Blond_Hair: class 1 has it, class 0 has not."""
    partition: tuple[Positive, Positive, Positive] = (162_770, 19_867, 19_962)
    """Expected numbers of training, validation and test images."""
    size: Pixels = 64
    """Width and height in pixels that the square crop is resized to."""


class CsvFile(Section):
    """A list of images: a CSV file with the columns path, label and split, as `ddrep init` writes it."""

    path: Annotated[Path, Field(examples=["path/to/images.csv"])]
    root: Path | None = None
    """Folder that the paths in it start from; null: the list's own."""
    size: Pixels = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Channels = 3


class Unlabelled(Section):
    """Images without labels, for denoiser.pretrain.data alone: all of a folder, at any depth, or those of a list."""

    path: Annotated[Path, Field(examples=["path/to/unlabelled"])]
    """The folder, or a CSV file with the column path."""
    root: Path | None = None
    """Folder that the paths in a list start from; null: the list's own."""
    size: Pixels = 64
    """Width and height in pixels; images are resized (shorter side) and centre-cropped."""
    channels: Channels = 3


TABLES: dict[str, type[Section]] = {}
"""Of `data`: name -> settings, of every reader (ddrep.data.readers) that is declared, here or elsewhere."""


class Data(Choice):
    """The labelled images (docs/data.md)."""

    kind: str = "embedded"
    """The table that counts: embedded, image-folder, tiny-imagenet, webdataset, celeba or csv."""
    labels: Positive | None = None
    """Training images of each class that count as labelled, of kinds other than embedded; null: all."""
    embedded: EmbeddedData = EmbeddedData()
    image_folder: ImageFolder | None = None
    tiny_imagenet: TinyImageNet | None = None
    webdataset: WebDatasetFiles | None = None
    celeba: CelebA | None = None
    csv: CsvFile | None = None
    unlabelled: Unlabelled | None = None

    _others: dict[str, Section] = PrivateAttr(default_factory=dict)
    """Tables of readers that are declared elsewhere."""

    @model_validator(mode="wrap")
    @classmethod
    def _with_others(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        others = {}
        if isinstance(given, dict):
            named = {key for key in given if key in TABLES and key not in cls.model_fields}
            others = {key: TABLES[key].model_validate(given[key]) for key in named if given[key] is not None}
            given = {key: value for key, value in given.items() if key not in named}
        data = handler(given)
        data._others |= others
        if data.labels and data.kind == "embedded":
            raise ValueError(f"labels: {data.labels}, of kind embedded; say so in embedded.per_class")
        if data.section is None:
            raise ValueError(data.without_table)
        return data

    @field_validator("kind")
    @classmethod
    def _is_known(cls, kind: str) -> str:
        own = [name.replace("_", "-") for name in cls.model_fields if name not in ("kind", "labels")]
        others = [name for name in TABLES if name not in cls.model_fields]
        if kind not in own and kind.replace("-", "_") not in others:
            names = ", ".join([*own, *(name.replace("_", "-") for name in others)])
            raise ValueError(f"no kind of data set {kind}; there are {names}")
        return kind

    @property
    def section(self) -> Any:
        """The table that counts."""
        return self._others[self.table] if self.table in self._others else getattr(self, self.table, None)

    def with_section(self, section: Section) -> Self:
        """The same with another table of the kind that counts."""
        if self.table in self._others:
            return self.model_validate({**self.model_dump(), self.table: section.model_dump()})
        return self.model_copy(update={self.table: section})

    @model_serializer(mode="wrap")
    def _without_empty_tables(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # image_folder stays, so that what was made before there were other kinds is not planned again
        tables = handler(self) | {key: section.model_dump(mode="json") for key, section in self._others.items()}
        return {key: value for key, value in tables.items() if value is not None or key == "image_folder"}

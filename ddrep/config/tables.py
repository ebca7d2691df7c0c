"""The sections of what is reported: which runs, tables and figures."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le, Lt, MinLen

from ddrep.config.base import Few, Name, Natural, Section, Seeds, Subsets
from ddrep.sources import SourceName, SyntheticName


class Runs(Section):
    """A block of Table 4: the product of its lists."""

    architectures: Annotated[tuple[Name, ...], MinLen(1)] = ("resnet18",)
    """timm's names."""
    mix: Annotated[tuple[bool, ...], MinLen(1)] = (False, True)
    sources: Annotated[tuple[SourceName, ...], MinLen(1)] = ("real", "ours")
    scales: Annotated[tuple[Annotated[int, Ge(0), Le(1000)], ...], MinLen(1)] = (0, 1, 2, 3)
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Table3(Section):
    """Classification accuracy score: one classifier on one source alone, at 1x."""

    architecture: Name = "resnet18"
    """timm's name."""
    sources: Annotated[tuple[SyntheticName, ...], MinLen(1)] = (
        "improved-ddpm", "classifier-free", "pixel-rejection", "ours"
    )  # fmt: skip
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Tables(Section):
    """What the tables are made with."""

    resamples: Annotated[int, Gt(0), Le(10**6)] = 2000
    """Of the bootstrap."""
    confidence: Annotated[float, Gt(0), Lt(1)] = 0.95
    """Of the intervals of differences."""


class AccuracyTable(Tables):
    """What Tables 3 and 4 are told: their section, and what follows from others."""

    paper: bool = True
    """Whether the paper's figures, which are of Tiny ImageNet, stand beside the measured ones."""


class Figure1(Section):
    """One class by several sources, of subset 0."""

    figure1_class: Natural = 0
    """Number of the class."""
    figure1_images: Few = 12
    """Attempts side by side."""


class Figure2(Section):
    """Images drawn for target masks."""

    figure2_images: Few = 12
    """Target masks side by side."""


class Figure3(Section):
    """Accepted images of several classes, of subset 0."""

    figure3_classes: Annotated[tuple[Natural, ...], MinLen(1)] | None = None
    """Numbers of the classes, e.g. [0, 5]; null: the first four there are."""
    figure3_images: Few = 12
    """Accepted images of each class."""


class Figures(Figure3, Figure2, Figure1):
    """What the figures show, each of which is told of its own keys alone."""

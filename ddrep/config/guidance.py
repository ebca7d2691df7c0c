"""Guidance by a few examples: attributes (paper, 5.1, Table 1) and masks (5.2, Table 2 and Figure 2)."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, MinLen
from pydantic import StringConstraints, model_validator

from ddrep.config.base import Once, Positive, Rate, Section, Seeds, Share, Subsets, Timestep
from ddrep.config.data import Data
from ddrep.config.masks import MaskData
from ddrep.config.stages import Sampling
from ddrep.errors import UserError
from ddrep.methods import MaskMethodName, MethodName
from ddrep.solvers import SolverName

Block = Annotated[str, StringConstraints(pattern=r"^(middle|up\d+|output_blocks\.\d+)$")]
AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
ClassNames = Annotated[tuple[str, ...], MinLen(1)]


class Taps(Section):
    """What is read from the unconditional denoiser: which blocks, told which timesteps, of which image."""

    blocks: Annotated[tuple[Block, ...], MinLen(1)]
    """middle, up1, up2, ... (the last block of each decoder level, counted from the bottleneck), output_blocks.N."""
    timesteps: Annotated[tuple[Timestep, ...], MinLen(1)]
    """In embedded units, 0..1000 whatever the schedule's number of steps."""
    noise: Literal["none", "fixed"] = "none"
    """Feed the clean image (the published code), or the image noised to t by one fixed noise."""


class GuideTraining(Section):
    """Training of a guide: the network whose log-likelihood steers sampling."""

    hidden: Positive = 64
    """Width."""
    steps: Positive = 100
    batch: Positive = 64
    """Images a step."""
    lr: Rate = 1e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-4


class Guided(Section):
    """How guided images are drawn."""

    solver: SolverName = "ddim"
    eta: Share = 0.0
    """Fresh noise in every step, as in `sampling`."""
    scale: Annotated[float, Ge(0)] = 1.0
    """lambda in eps - lambda sqrt(1 - abar) grad log p(y | x0hat) (paper, eq. 10 and 13); for masks of the sum over
    pixels."""


class Group(Section):
    """An attribute: an image has it if it is of one of these classes."""

    name: AttributeName
    having: ClassNames
    """Names of classes; of data of kind celeba, one name of list_attr_celeba.txt."""


class Attributes(Section):
    """Guidance by an attribute, such as footwear, and by its absence (paper, 5.1)."""

    groups: tuple[Group, ...] = ()
    examples: Positive = 50
    """Training images with the attribute, and as many without, that the guides learn from."""
    taps: Taps = Taps(blocks=("middle", "up2"), timesteps=(700,))
    """What the guide on features reads; DDIM-I's reads the image."""
    training: GuideTraining = GuideTraining()
    sampling: Guided = Guided()

    @model_validator(mode="after")
    def _names_each_once(self) -> Attributes:
        if len({group.name for group in self.groups}) < len(self.groups):
            raise ValueError("groups: expected each name once")
        return self

    @property
    def having(self) -> dict[str, tuple[str, ...]]:
        """Attribute -> names of the classes that have it."""
        return {group.name: group.having for group in self.groups}


class Masks(Section):
    """Guidance by a segmentation mask (paper, 5.2)."""

    data: MaskData = MaskData()
    taps: Taps = Taps(blocks=("up1", "up2", "up3"), timesteps=(500,))
    """What the guide on features reads; DDIM-I's reads the image."""
    training: GuideTraining = GuideTraining(steps=50, batch=4)
    sampling: Guided = Guided(scale=2e-4)


class Table1(Section):
    """How many images of each attribute, and of each absence, are drawn by each method, and in how many steps."""

    methods: Annotated[tuple[MethodName, ...], MinLen(1), Once] = ("unguided", "rejection", "ddim-i", "ours")
    steps: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1), Once] = (100,)
    images: Positive = 1000
    """With the attribute, and as many without, in each run; distances are of all runs' images together."""
    threshold: Share = 0.5
    """Method rejection keeps an image when the guide on features gives its target at least this probability."""
    max_attempts: Positive = 40
    """Budget: attempts for each image asked for."""
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Table2(Section):
    """How many images each method draws for target masks, one a mask, and in how many steps."""

    methods: Annotated[tuple[MaskMethodName, ...], MinLen(1), Once] = ("unguided", "ddim-i", "ours")
    steps: Annotated[tuple[Annotated[int, Ge(2)], ...], MinLen(1), Once] = (10,)
    images: Positive = 500
    """In each run; the runs deal the target masks out among them, and begin again when all are used."""
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)

    def first(self, subset: int, seed: int) -> int:
        """Where in the target masks the runs of a subset and seed begin: behind those of the subsets before it, and of
        all subsets of the seeds before it, so that one more seed leaves the others theirs. Raises UserError."""
        if subset not in self.subsets or seed not in self.seeds:
            raise UserError(f"table2: no run of subset {subset} and seed {seed}; add them to its subsets and seeds")
        return self.images * (self.seeds.index(seed) * len(self.subsets) + self.subsets.index(subset))


class AttributeImages(Section):
    """What an attribute's images are made of, beside split, subset and seed."""

    data: Data = Data()
    attribute: AttributeName = "attribute"
    """Its name in the shards."""
    having: ClassNames = ("",)
    """Names of the classes that have it."""
    examples: Annotated[int, Ge(0)] = 0
    """Images with the attribute, and as many without, chosen by the seed; 0 for all."""


class Guide(Section):
    """All that determines a guide, beside its inputs and seed."""

    taps: Taps | None = None
    """None for a guide on pixels."""
    training: GuideTraining = GuideTraining()


class GuidedShard(Section):
    """All that determines a shard of guided images, beside its inputs, subset and seed."""

    sampling: Sampling = Sampling()
    scale: Annotated[float, Ge(0)] = 0.0
    """lambda; 0 for none."""
    images: Positive = 1
    """Of an attribute, and as many of its absence; or for masks."""
    first: Annotated[int, Ge(0)] = 0
    """The target mask of the first image; the next ones follow, and begin again when all are used."""
    threshold: Share = 0.0
    """An image is kept when the guide gives its target at least this probability."""
    max_attempts: Positive = 1


class AttributeScores(Section):
    """How guided images of an attribute are scored, beside their inputs."""

    attribute: AttributeName = "attribute"
    having: ClassNames = ("",)
    """Names of the evaluator's classes that have the attribute."""


class GuidanceTable(Section):
    """What Tables 1 and 2 are told."""

    minimum: Annotated[int, Ge(2)] = 1000
    """Fewest images for a distance."""
    paper: bool = False
    """Whether the paper's figures, of CelebA-64 and CelebA-Mask, stand beside the measured ones."""


class Robustness(Section):
    """Where the guides' accuracy on estimates of the clean image is measured (paper, 4.1)."""

    timesteps: Annotated[tuple[Timestep, ...], MinLen(1)] = (100, 200, 300, 400, 500, 600, 700, 800, 900)
    """In embedded units, 0..1000."""
    images: Positive = 1000
    """Test images at most, of each class its share."""

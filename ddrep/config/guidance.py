"""Guidance by a few examples: attributes (paper, 5.1, Table 1) and masks (5.2, Table 2 and Figure 2)."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le, MinLen
from pydantic import StringConstraints, model_validator

from ddrep.config.base import (
    Attempts,
    Batch,
    Block,
    Natural,
    Noise,
    Once,
    Pixels,
    Positive,
    Rate,
    Section,
    Seeds,
    Share,
    SolverSteps,
    Steps,
    Subsets,
    Timesteps,
    WeightDecay,
)  # fmt: skip
from ddrep.config.data import Data
from ddrep.config.evaluation import Evaluation
from ddrep.config.masks import MaskData
from ddrep.config.stages import EvenSampling
from ddrep.errors import UserError
from ddrep.methods import MaskMethodName, MethodName
from ddrep.solvers import SolverName, check_eta

AttributeName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,99}$")]
ClassNames = Annotated[tuple[str, ...], MinLen(1)]


class Taps(Section):
    """What is read from the unconditional denoiser: which blocks, told which timesteps, of which image."""

    blocks: Annotated[tuple[Block, ...], MinLen(1)]
    """middle, up1, up2, ... (the last block of each decoder level), or output_blocks.N."""
    timesteps: Timesteps
    noise: Noise = "none"


class GuideTraining(Section):
    """Training of the guides, the networks whose log-likelihood steers sampling."""

    hidden: Pixels = 64
    """Width."""
    steps: Steps = 100
    batch: Batch = 64
    lr: Rate = 1e-3
    weight_decay: WeightDecay = 1e-4


class Guided(Section):
    """How guided images are drawn."""

    solver: SolverName = "dpm-solver++"
    """As in `sampling`."""
    eta: Share = 1.0
    """Fresh noise in every step, as in `sampling`."""
    scale: Annotated[float, Ge(0)] = 1.0
    """lambda in eps - lambda sqrt(1 - abar) grad log p(y | x0hat) (paper, eq. 10 and 13); for masks log p is the sum
    over pixels (paper: 2e-4 at 256x256)."""

    @model_validator(mode="after")
    def _fits(self) -> Guided:
        check_eta(self.solver, self.eta)
        return self


class Group(Section):
    """An attribute: an image has it if it is of one of these classes."""

    name: AttributeName
    having: ClassNames


class Attributes(Section):
    """Guidance by an attribute and by its absence, from a few examples (paper, 5.1)."""

    groups: tuple[Group, ...] = (
        Group(name="footwear", having=("Sandal", "Sneaker", "Ankle boot")),
        Group(name="long-sleeves", having=("Pullover", "Coat", "Shirt")),
    )
    """An image has an attribute if it is of one of these classes; of data of kind celeba, having is one name of
    list_attr_celeba.txt."""
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
    training: GuideTraining = GuideTraining(steps=50, batch=20, lr=1e-2)
    sampling: Guided = Guided(scale=0.15)


class Table1(Section):
    """Attributes: how many images of each, and of each absence, each method draws, and in how many steps."""

    methods: Annotated[tuple[MethodName, ...], MinLen(1), Once] = ("unguided", "rejection", "ddim-i", "ours")
    steps: Annotated[tuple[SolverSteps, ...], MinLen(1), Once] = (12,)
    images: Positive = 50
    """With the attribute, and as many without, in each run; distances are of all runs' images together."""
    threshold: Share = 0.5
    """Method rejection keeps an image when the guide on features gives its target at least this probability; diffae,
    d2c and nvae a latent, by the judge on latents."""
    max_attempts: Attempts = 60
    """Budget: attempts for each image asked for."""
    subsets: Subsets = (0,)
    seeds: Seeds = (0,)


class Table2(Section):
    """Masks: how many images each method draws, one for each target mask, and in how many steps."""

    methods: Annotated[tuple[MaskMethodName, ...], MinLen(1), Once] = ("unguided", "ddim-i", "ours")
    steps: Annotated[tuple[SolverSteps, ...], MinLen(1), Once] = (10, 50)
    images: Positive = 100
    """In each run; the runs deal the target masks out among them, and begin again when all are used."""
    candidates: Attempts = 100
    """Latents for each image, of methods that draw of a generator's: the one that fits its mask best is made it."""
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
    attribute: AttributeName
    """Its name in the shards."""
    having: ClassNames
    """Names of the classes that have it."""
    examples: Natural = 0
    """Images with the attribute, and as many without, chosen by the seed; 0 for all."""


class Guide(Section):
    """All that determines a guide, beside its inputs and seed."""

    taps: Taps | None
    """null for a guide on pixels."""
    training: GuideTraining


class GuidedShard(Section):
    """All that determines a shard of guided images, beside its inputs, subset and seed."""

    sampling: EvenSampling
    scale: Annotated[float, Ge(0)] = 0.0
    """lambda; 0 for none."""
    images: Positive = 1
    """Of an attribute, and as many of its absence; or for masks."""
    first: Natural = 0
    """The target mask of the first image; the next ones follow, and begin again when all are used."""
    threshold: Share = 0.0
    """An image is kept when the guide gives its target at least this probability."""
    max_attempts: Attempts = 1
    """Budget: attempts for each image asked for."""


class AttributeScores(Section):
    """How guided images of an attribute are scored, beside their inputs."""

    attribute: AttributeName
    having: ClassNames
    """Names of the evaluator's classes that have the attribute."""


class GuidanceTable(Section):
    """What Tables 1 and 2 are told."""

    minimum: Annotated[int, Ge(2), Le(10**9)] = Evaluation().minimum
    """Fewest images for a Fréchet distance."""
    paper: bool = True
    """Whether the paper's figures, of CelebA-64 and CelebA-Mask, stand beside the measured ones."""


class Robustness(Section):
    """The guides' accuracy on estimates of clean images, from late in sampling (small t) to early (paper, 4.1)."""

    timesteps: Timesteps = (100, 200, 300, 400, 500, 600, 700, 800, 900)
    images: Positive = 400
    """Test images at most, of each class its share."""

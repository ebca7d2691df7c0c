"""The sections that stages obey: denoiser, features and heads, sampling, downstream classifiers."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen, MultipleOf
from pydantic import Field, model_validator

from ddrep.config.base import (
    Attempts,
    Batch,
    Block,
    Clip,
    Epochs,
    Few,
    Flip,
    Level,
    Natural,
    Noise,
    Once,
    Pixels,
    Positive,
    Precision,
    Rate,
    Section,
    Share,
    SolverSteps,
    Steps,
    Timestep,
    Timesteps,
    Warmup,
    WeightDecay,
)
from ddrep.config.data import Data
from ddrep.solvers import SolverName, check_eta


class Network(Section):
    """An ADM U-Net (ddrep.denoiser.unet.UNetConfig); its size and channels are the images'."""

    model_channels: Pixels = 32
    channel_mult: Annotated[tuple[Few, ...], MaxLen(16)] = (1, 2, 2)
    """Width of each level, in model_channels."""
    num_res_blocks: Annotated[int, Gt(0), Le(100)] = 1
    """A level."""
    attention_sizes: Annotated[tuple[Pixels, ...], MaxLen(16)] = (7,)
    """In pixels."""
    num_heads: Few = 2


class UnlabelledImages(Section):
    """Base of the sections of training without labels: which images."""

    LATER = ("data",)
    images: Path | None = None
    """IDX file of unlabelled images, e.g. Fashion-MNIST's train-images-idx3-ubyte.gz."""
    data: Annotated[
        Data | None,
        Field(examples=["{kind: unlabelled, unlabelled: {path: path/to/unlabelled, size: 64, channels: 3}}"]),
    ] = None
    """Instead of an IDX file: the training images of any kind of data set, as in `data`, whose labels are not looked
    at; kind unlabelled is a folder of images."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Self:
        if self.images and self.data:
            raise ValueError("images, data: expected one of them; set the other to null")
        return self


class Pretrain(UnlabelledImages):
    """Unconditional training from scratch (AdamW, cosine decay of the learning rate)."""

    network: Network = Network()
    schedule: Literal["cosine", "linear"] = "cosine"
    """Of the noise."""
    num_steps: Annotated[int, Gt(0), Le(10**6)] = 1000
    """Of the diffusion."""
    steps: Steps = 6400
    """Of training."""
    batch: Batch = 64
    lr: Rate = 1.2e-3
    weight_decay: WeightDecay = 0.0
    warmup: Warmup = 200
    clip: Clip = 1.0
    ema_decay: Share = 0.999
    precision: Precision = "auto"


class DenoiserFile(Section):
    """A denoiser that is there already."""

    path: Path = Path("ddrep/data/embedded/denoiser.safetensors")


class DenoiserChoice(Section):
    """The unconditional denoiser everything starts from."""

    kind: Literal["file", "pretrain"] = "file"
    """The sub-table that counts: a file, or pretrain to train one here."""
    file: DenoiserFile = DenoiserFile()
    pretrain: Pretrain = Pretrain()


class FineTune(Section):
    """The whole denoiser made class-conditional by a label table (paper, 4.2, 5.3.1: 150,000 steps of 128 at 1e-4)."""

    steps: Steps = 400
    batch: Batch = 64
    lr: Rate = 1e-3
    warmup: Warmup = 50
    weight_decay: WeightDecay = 0.0
    embedding_std: Annotated[float, Ge(0)] = 1.0
    """Initial spread of the label table: near the time embedding's, so that labels are heard at once."""
    label_dropout: Share = 0.1
    """Share of labels replaced by the null row."""
    ema_decay: Share = 0.999
    clip: Clip = 1.0
    flip: Flip = False
    precision: Precision = "auto"


class Features(Section):
    """What the rejection classifier reads from the unconditional denoiser (paper, 5.3.1)."""

    timesteps: Timesteps = (300, 800)
    noise: Noise = "none"
    pool: Pixels | None = None
    """Average-pool features to this width and height; the paper's text has 4, its code none."""
    flip: bool = False
    """Read the mirrored images as well: the head then trains on random left-right flips."""


class Head(Section):
    """The rejection classifier, a small CNN on these features (published code's settings, but for epochs and batch)."""

    hidden: Pixels = 192
    """Width; 192 gives the paper's 1.2M parameters on 1024 channels and 200 classes."""
    dropout: Share = 0.2
    epochs: Epochs = 40
    """The best on the held-out images is kept."""
    batch: Batch = 64
    lr: Rate = 3e-4
    weight_decay: WeightDecay = 1e-4
    holdout: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Share of each class's training images held out to choose the best epoch by."""


class Probe(Section):
    """The judge `probe`: linear classifiers on decoder blocks that see the slightly noised image, the best averaged."""

    blocks: Annotated[tuple[Block, ...], MinLen(1), Once] = ("up1", "output_blocks.2", "up2")
    """Tried at every timestep: middle, up1, up2, ... (the last block of each decoder level), output_blocks.N."""
    timesteps: Annotated[Timesteps, Once] = (10, 50, 100, 200, 300)
    pool: Pixels = 3
    """Width and height that a block's features are averaged to."""
    noises: Few = 1
    """Fixed noises over which features are averaged: passes of the denoiser a timestep."""
    shift: Annotated[float, Ge(0), Le(0.5)] = 0.04
    """Each labelled image is also read moved up, down, left and right by this part of its side; 0: as it is alone."""
    strengths: Annotated[tuple[Rate, ...], MinLen(1), Once] = (0.003, 0.01, 0.03, 0.1, 0.3)
    """Inverse regularisation C tried for each block and timestep, on standardised features."""
    folds: Annotated[int, Ge(2), Le(1000)] = 5
    """Parts of the labelled images, on each of which the probes that are trained on the others are judged."""
    best: Few = 5
    """Probes that are averaged: those of least cross-entropy out of fold."""


class Tap(Section):
    """Where a probe reads: a block of the denoiser, told a timestep."""

    block: Block
    timestep: Timestep


class ProbeReading(Section):
    """What the probes of a judge read of an image."""

    taps: Annotated[tuple[Tap, ...], MinLen(1)]
    pool: Pixels
    noises: Few

    @property
    def timesteps(self) -> tuple[float, ...]:
        """Each once."""
        return tuple(dict.fromkeys(tap.timestep for tap in self.taps))


class PixelHead(Head):
    """The control: the same on pixels, which wants more and larger steps to be at its best."""

    epochs: Epochs = 60
    batch: Batch = 16
    lr: Rate = 1e-3
    flip: Flip = False


TEACHER = 60
"""Steps of the trajectories that a time grid is fitted to."""


Grid = Literal["log-snr", "even", "fitted"] | Annotated[tuple[Level, ...], MinLen(2)]


class Sampling(Section):
    """How candidates are drawn from the fine-tuned denoiser."""

    LATER: ClassVar[tuple[str, ...]] = ("precision",)
    solver: SolverName = "dpm-solver++"
    """dpm-solver++ (second order), ipndm (fourth order, for eta 0), or ddim."""
    steps: SolverSteps = 8
    eta: Share = 1.0
    """Fresh noise in every step: 0 is deterministic; 1 is DDPM's ancestral sampling, or SDE-DPM-Solver++."""
    guidance_scale: Annotated[float, Ge(0)] = 0.0
    """w in (1 + w) eps(x, t, y) - w eps(x, t) (paper: 0.01). Guidance has more candidates kept, for a second evaluation
    in each guided step, and students gain nothing by it (docs/engine.md)."""
    guidance_interval: tuple[Share, Share] = (0.25, 0.75)
    """Part of the steps, from noise to image, in which w counts (paper: [0, 1], all); outside it, and where w is 0,
    eps(x, t) is not computed (Kynkäänniemi et al. 2024)."""
    unconditional: Literal["row", "pretrained"] = "row"
    """Where eps(x, t) comes from: the fine-tuned network's null row, or the pretrained network."""
    grid: Grid = "log-snr"
    """The noise levels that are visited: evenly spaced by their log signal-to-noise ratio (DPM-Solver, Lu et al. 2022);
    even, as the solver cuts the schedule; fitted to the pretrained denoiser by `ddrep fit-grid` (GITS, Chen et al.
    2024); or a list of indices into the schedule, falling, one a step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """In which the network is evaluated: bf16 gives other images that are as good, and saves a third of the time and
    more where the hardware multiplies in it; other processors take many times as long (docs/engine.md)."""

    @model_validator(mode="after")
    def _fits(self) -> Sampling:
        check_eta(self.solver, self.eta)
        if not self.guidance_interval[0] < self.guidance_interval[1]:
            raise ValueError("guidance_interval: expected the first number below the second")
        given = self.grid if isinstance(self.grid, tuple) else ()
        if given and (len(given) != self.steps or any(a <= b for a, b in itertools.pairwise(given))):
            raise ValueError(f"grid: expected {self.steps} indices, as many as steps, each below the one before it")
        if self.grid == "fitted" and self.steps > TEACHER:
            raise ValueError(f"grid: fitted, but steps are {self.steps}; expected {TEACHER} at most, or even")
        return self

    def _left_out(self) -> set[str]:
        """Where w is 0, when it counts says nothing: a changed interval redraws no unguided image."""
        return super()._left_out() | (set() if self.guidance_scale else {"guidance_interval"})


class EvenSampling(Sampling):
    """How images are drawn that a guide steers, or another generator draws: the scale of guidance is tuned to it."""

    LATER = ("grid", "precision")
    steps: SolverSteps = 12
    guidance_interval: tuple[Share, Share] = (0.0, 1.0)
    grid: Grid = "even"


class FitGrid(Section):
    """All that determines a fitted time grid, beside its inputs and seed; see `Sampling`."""

    steps: Annotated[int, Ge(2), Le(TEACHER)] = Sampling().steps


class Synthesis(Section):
    """How many images, and which candidates are kept."""

    LATER = ("early_refusal", "balance")
    per_class: Positive = 20
    """Accepted images of each class in 1x."""
    shards_per_scale: Annotated[int, Gt(0), Le(10**4)] = 1
    """Shards that 1x is cut into, one job each."""
    threshold: Share = 0.5
    """A candidate is kept when p(its class) >= threshold (paper: 0.2 for 200 classes, 40 times chance)."""
    max_attempts: Attempts = 40
    """Budget: attempts a class for each accepted image asked for."""
    early_refusal: Share = 0.0
    """Largest share of acceptable candidates that may be lost to refusing by x0hat before the last step
    (docs/engine.md); 0: none is refused early."""
    balance: bool = False
    """Whether images that are drawn of no class are kept until there are as many of each, by the judge's most probable;
    else they come as they come."""

    @model_validator(mode="after")
    def _shards_are_equal(self) -> Synthesis:
        if self.per_class % self.shards_per_scale:
            raise ValueError("per_class: expected a multiple of shards_per_scale")
        return self


class Shard(Section):
    """All that determines a synthetic shard, beside its inputs, number and seed; by default, one of the source ours."""

    LATER = ("labels",)
    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()
    labels: Literal["hard", "soft"] = "hard"
    """Whether each image carries the judge's probabilities beside its class."""


class Mix(Section):
    """Mixup and CutMix as timm applies them, in runs with mix; the paper gives the probability, the alphas are ours."""

    prob: Share = 0.5
    """Of a batch being mixed."""
    switch_prob: Share = 0.5
    """Of CutMix instead of Mixup."""
    mixup_alpha: Annotated[float, Ge(0)] = 0.8
    cutmix_alpha: Annotated[float, Ge(0)] = 1.0

    @model_validator(mode="after")
    def _mixes_somehow(self) -> Mix:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixup_alpha, cutmix_alpha: expected one above 0; to mix nothing set mix: [false]")
        return self


class Classifier(Section):
    """Training of the downstream classifiers (paper, 5.3.2: 40 epochs of batch 256)."""

    LATER = ("label_smoothing", "synthetic_share")
    stem: Literal["stock", "small"] = "stock"
    """timm's stock first layers (7x7 stride 2 and pooling), or small: 3x3 stride 1 without pooling."""
    epochs: Epochs = 40
    min_steps: Steps = 125
    """Fewest steps of any run, however few its images: an under-trained classifier on the real images alone would show
    a gain that is longer training."""
    batch: Annotated[Batch, MultipleOf(2)] = 64
    """Even, for Mixup pairs images within a batch."""
    lr: Rate = 1e-3
    """Of Adam."""
    drops: tuple[Share, ...] = (0.5, 0.75)
    """Shares of the training after which the learning rate is divided by 10."""
    flip: Flip = False
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of every label that is spread evenly over the classes."""
    synthetic_share: Annotated[float, Gt(0), Lt(1)] | None = None
    """Of each batch, where there are real images as well; null: as many as of all images."""
    mix: Mix = Mix()
    precision: Precision = "auto"


class Training(Section):
    """All that determines a classifier, beside its inputs, architecture and seed; by default, an unmixed one."""

    classifier: Classifier = Classifier()
    mixed: bool = False
    """Whether Mixup and CutMix are used."""
    per_class: Natural = 0
    """Images a class in 1x, for the labelled images alone where they take as many steps as with scale x 1x others."""

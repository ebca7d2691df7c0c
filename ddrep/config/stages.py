"""The sections that stages obey: denoiser, features and heads, sampling, downstream classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MinLen, MultipleOf
from pydantic import model_validator

from ddrep.config.base import Positive, Precision, Rate, Section, Share, Timestep
from ddrep.solvers import SolverName


class Network(Section):
    """An ADM U-Net (ddrep.denoiser.unet.UNetConfig) to be trained from scratch; size and channels are the images'."""

    model_channels: Positive = 32
    channel_mult: tuple[Positive, ...] = (1, 2, 2)
    num_res_blocks: Positive = 1
    attention_sizes: tuple[Positive, ...] = (7,)
    num_heads: Positive = 2


class Pretrain(Section):
    """Unconditional training from scratch (AdamW, cosine decay of the learning rate)."""

    images: Path | None = None
    """IDX file of unlabelled images, e.g. Fashion-MNIST's train-images-idx3-ubyte.gz."""
    network: Network = Network()
    schedule: Literal["cosine", "linear"] = "cosine"
    num_steps: Positive = 1000
    steps: Positive = 6400
    batch: Positive = 64
    lr: Rate = 1.2e-3
    weight_decay: Annotated[float, Ge(0)] = 0.0
    warmup: Annotated[int, Ge(0)] = 200
    clip: Annotated[float, Ge(0)] = 1.0
    ema_decay: Share = 0.999
    precision: Precision = "auto"


class DenoiserFile(Section):
    """A denoiser that is there already."""

    path: Path = Path("ddrep/data/embedded/denoiser.safetensors")


class DenoiserChoice(Section):
    """The unconditional denoiser everything starts from. `kind` names the sub-table that counts."""

    kind: Literal["file", "pretrain"] = "file"
    file: DenoiserFile = DenoiserFile()
    pretrain: Pretrain = Pretrain()


class FineTune(Section):
    """Class-conditional fine-tuning of the whole network with a label table added (paper, 4.2 and 5.3.1)."""

    steps: Positive = 1200
    batch: Positive = 64
    lr: Rate = 1e-3
    warmup: Annotated[int, Ge(0)] = 50
    weight_decay: Annotated[float, Ge(0)] = 0.0
    embedding_std: Annotated[float, Ge(0)] = 1.0
    """Initial spread of the label table. Near the time embedding's own scale the labels are heard at once."""
    label_dropout: Share = 0.1
    """Share of labels replaced by the null row."""
    ema_decay: Share = 0.999
    clip: Annotated[float, Ge(0)] = 1.0
    flip: bool = False
    """Random left-right flips."""
    precision: Precision = "auto"


class Features(Section):
    """What is read from the unconditional denoiser for the rejection classifier (paper, 5.3.1)."""

    timesteps: Annotated[tuple[Timestep, ...], MinLen(1)] = (300, 800)
    """In embedded units, 0..1000 whatever the schedule's number of steps."""
    noise: Literal["none", "fixed"] = "none"
    """Feed the clean image (the published code), or the image noised to t by one fixed noise."""
    pool: Positive | None = None
    """Average-pool features to this width and height; the paper's text has 4, its code none."""
    flip: bool = False
    """Read the mirrored images as well: the head then trains on random left-right flips."""


class Head(Section):
    """Training of a rejection classifier (published code's settings)."""

    hidden: Positive = 192
    """Width of the CNN; 192 gives the paper's 1.2M parameters on 1024 channels and 200 classes."""
    dropout: Share = 0.2
    epochs: Positive = 30
    batch: Positive = 128
    lr: Rate = 3e-4
    weight_decay: Annotated[float, Ge(0)] = 1e-4
    holdout: Annotated[float, Gt(0), Le(0.5)] = 0.2
    """Share of each class's training images held out to choose the best epoch by."""


class PixelHead(Head):
    """Training of the control on pixels."""

    flip: bool = False
    """Random left-right flips."""


class Sampling(Section):
    """How candidates are drawn from the fine-tuned denoiser."""

    solver: SolverName = "dpm-solver++"
    steps: Annotated[int, Ge(2)] = 16
    eta: Share = 0.0
    """Fresh noise in every step: 0 is deterministic; 1 is DDPM's ancestral sampling, or SDE-DPM-Solver++."""
    guidance_scale: Annotated[float, Ge(0)] = 0.01
    """w in (1 + w) eps(x, t, y) - w eps(x, t); the source improved-ddpm has none."""
    unconditional: Literal["row", "pretrained"] = "row"
    """Where eps(x, t) comes from: the fine-tuned network's null row, or the pretrained network."""


class Synthesis(Section):
    """How many images, and which candidates are kept."""

    per_class: Positive = 50
    """Accepted images of each class in 1x."""
    shards_per_scale: Positive = 1
    """Shards that 1x is cut into, one job each."""
    threshold: Share = 0.2
    """A candidate is kept when p(its class) >= threshold."""
    max_attempts: Positive = 40
    """Budget: attempts a class for each accepted image asked for."""

    @model_validator(mode="after")
    def _shards_are_equal(self) -> Synthesis:
        if self.per_class % self.shards_per_scale:
            raise ValueError("per_class: expected a multiple of shards_per_scale")
        return self


class Shard(Section):
    """All that determines a synthetic shard, beside its inputs, number and the experiment's seed."""

    sampling: Sampling = Sampling()
    synthesis: Synthesis = Synthesis()


class Mix(Section):
    """Mixup and CutMix, as timm applies them; the paper gives the probability alone, the alphas are ours."""

    prob: Share = 0.5
    switch_prob: Share = 0.5
    mixup_alpha: Annotated[float, Ge(0)] = 0.8
    cutmix_alpha: Annotated[float, Ge(0)] = 1.0

    @model_validator(mode="after")
    def _mixes_somehow(self) -> Mix:
        if not self.mixup_alpha and not self.cutmix_alpha:
            raise ValueError("mixup_alpha, cutmix_alpha: expected one above 0; to mix nothing set mix: [false]")
        return self


class Classifier(Section):
    """Training of the downstream classifiers (paper, 5.3.2)."""

    stem: Literal["stock", "small"] = "stock"
    """timm's first layers (7x7 stride 2 and pooling), or 3x3 stride 1 without pooling for small images."""
    epochs: Positive = 40
    min_steps: Positive = 125
    """Fewest steps of any run, however few its images: an under-trained classifier on the real images alone would show
    a gain that is longer training."""
    batch: Annotated[int, Gt(0), MultipleOf(2)] = 256
    """Even, for Mixup pairs images within a batch."""
    lr: Rate = 1e-3
    drops: tuple[Share, ...] = (0.5, 0.75)
    """Shares of the training after which the learning rate is divided by 10 (epochs 20 and 30 of 40)."""
    flip: bool = False
    """Random left-right flips."""
    mix: Mix = Mix()
    precision: Precision = "auto"


class Training(Section):
    """All that determines a classifier, beside its inputs, architecture and seed."""

    classifier: Classifier = Classifier()
    mixed: bool = False
    """Whether Mixup and CutMix are used."""
    per_class: Annotated[int, Ge(0)] = 0
    """Images a class in 1x; real-equal-steps takes as many steps as real + scale x 1x images would."""

"""Generators beside the denoiser: their training, their files, and what is drawn of them (paper, 5.1's baselines)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, MaxLen, MinLen, MultipleOf
from pydantic import model_validator

from ddrep.config.base import (
    Attempts,
    Batch,
    Clip,
    Few,
    Natural,
    Pixels,
    Positive,
    Precision,
    Rate,
    Section,
    Share,
    SolverSteps,
    Steps,
    Warmup,
    WeightDecay,
)
from ddrep.config.stages import EvenSampling, Network, Pretrain, UnlabelledImages


class GeneratorFile(Section):
    """A generator that is there already, trained or imported."""

    path: Path | None = None


class GeneratorChoice(Section):
    """Where a generator comes from."""

    kind: Literal["file", "pretrain"] = "file"
    """The sub-table that counts: a file, or pretrain to train one here."""
    file: GeneratorFile


class AutoencoderNetwork(Network):
    """A DiffAE (ddrep.generators.network.DiffAEConfig); its size and channels are the images'."""

    channel_mult: Annotated[tuple[Few, ...], MaxLen(16)] = (1, 1, 2)
    """Width of each level, in model_channels."""
    encoder_mult: Annotated[tuple[Few, ...], MaxLen(16)] = (1, 1, 2)
    """Width of each level of the encoder, in model_channels."""
    encoder_res_blocks: Few = 1
    """A level of the encoder."""
    latent: Pixels = 64
    """Numbers in an image's latent (published: 512)."""
    embed_channels: Pixels = 128
    """Of the time's embedding (published: 512)."""
    latent_layers: Few = 6
    """Of the network that denoises latents (published: 10), and"""
    latent_width: Pixels = 256
    """units in each (published: 2048)."""


class LatentTraining(Section):
    """Training of the network that denoises latents (published: AdamW, L1 loss)."""

    steps: Steps = 6000
    batch: Batch = 128
    lr: Rate = 1e-3
    weight_decay: WeightDecay = 0.01
    ema_decay: Share = 0.999


class PretrainDiffAE(Pretrain):
    """Training of a DiffAE from scratch, without labels: the autoencoder, then what draws latents."""

    network: AutoencoderNetwork = AutoencoderNetwork()
    schedule: Literal["cosine", "linear"] = "linear"
    """Of the noise of images (published: linear)."""
    steps: Steps = 2300
    """Of training, of the autoencoder."""
    batch: Batch = 32
    lr: Rate = 1.5e-3
    warmup: Warmup = 100
    ema_decay: Share = 0.995
    latents: LatentTraining = LatentTraining()


class DiffAEChoice(GeneratorChoice):
    """The generator of method diffae (Preechakul et al. 2022)."""

    file: GeneratorFile = GeneratorFile(path=Path("ddrep/data/embedded/diffae.safetensors"))
    pretrain: PretrainDiffAE = PretrainDiffAE()
    latent_steps: SolverSteps = 200
    """DDIM steps in which a latent is drawn; those of images are table1.steps."""


class LatentMapNetwork(Network):
    """The U-Net of a D2C's latents, and its autoencoder (ddrep.generators.network.D2CConfig)."""

    model_channels: Pixels = 64
    channel_mult: Annotated[tuple[Few, ...], MaxLen(16)] = (1, 1)
    """Width of each level of the U-Net, in model_channels."""
    num_res_blocks: Annotated[int, Gt(0), Le(100)] = 2
    latent_channels: Pixels = 4
    """Of the map of latents (published for FFHQ: 8, of 32x32 pixels), and"""
    autoencoder_widths: Annotated[tuple[Pixels, ...], MinLen(1), MaxLen(16)] = (16, 32, 64)
    """channels of each level of encoder and decoder, full resolution first; each level but the last halves it."""
    autoencoder_blocks: Few = 1
    """A level."""


class Contrast(Section):
    """The contrastive part of a D2C's objective, as MoCo-v2 has it (Chen et al. 2020)."""

    weight: Annotated[float, Ge(0)] = 0.02
    """lambda of L_D2 + lambda L_C (Sinha et al. 2021), against a reconstruction error a pixel."""
    temperature: Rate = 0.2
    queue: Annotated[int, Gt(0), Le(2**20)] = 4096
    """Earlier images' keys, which the query is told apart from (published for FFHQ: 15000)."""
    momentum: Share = 0.99
    """With which the encoder of keys follows that of queries (published for FFHQ: 0.9999)."""
    width: Pixels = 128
    """Numbers in a projection, and in the hidden layer before it twice as many (published: 2048)."""


class LatentMapTraining(LatentTraining):
    """Training of the U-Net that denoises maps of latents (published: Adam at 2e-4)."""

    weight_decay: WeightDecay = 0.0


class PretrainD2C(Pretrain):
    """Training of a D2C from scratch, without labels: the autoencoder, then the U-Net of its latents."""

    network: LatentMapNetwork = LatentMapNetwork()
    schedule: Literal["cosine", "linear"] = "linear"
    """Of the noise of latents (published: linear)."""
    steps: Steps = 4000
    """Of training, of the autoencoder."""
    lr: Rate = 1e-3
    warmup: Warmup = 100
    ema_decay: Share = 0.995
    kl_weight: Annotated[float, Ge(0)] = 0.001
    """Of the latents' divergence from standard normal ones, against half of the squared error."""
    contrast: Contrast = Contrast()
    latents: LatentMapTraining = LatentMapTraining()

    @model_validator(mode="after")
    def _queue_has_room(self) -> PretrainD2C:
        if self.contrast.queue < self.batch:
            raise ValueError(f"contrast.queue: {self.contrast.queue}; expected a batch, {self.batch}, at least")
        return self


class D2CChoice(GeneratorChoice):
    """The generator of method d2c (Sinha et al. 2021); its latents are drawn in table1.steps."""

    file: GeneratorFile = GeneratorFile(path=Path("ddrep/data/embedded/d2c.safetensors"))
    pretrain: PretrainD2C = PretrainD2C()


class VAENetwork(Section):
    """An NVAE (ddrep.generators.network.NVAEConfig); its size and channels are the images'."""

    channels: Annotated[Pixels, MultipleOf(2)] = 16
    """At full resolution, and twice as many at each halving (published: 64)."""
    outer_blocks: Annotated[int, Gt(0), Le(8)] = 2
    """Halvings of the image before the first latents, and"""
    outer_cells: Annotated[int, Gt(0), Le(100)] = 1
    """cells in each (published: 2)."""
    groups: Annotated[tuple[Annotated[int, Gt(0), Le(100)], ...], MinLen(1), MaxLen(5)] = (2, 4)
    """Of latents on each scale, the coarsest first (published: 5, 10, 20)."""
    cells: Annotated[int, Gt(0), Le(100)] = 1
    """For each group, of the encoder and of the decoder (published: 2)."""
    latent: Pixels = 8
    """Channels of a group's latents (published: 20)."""
    mixtures: Annotated[int, Gt(0), Le(100)] = 5
    """Logistic distributions in what is said of a pixel (published: 10)."""


class PretrainNVAE(UnlabelledImages):
    """Training of an NVAE from scratch, without labels (AdaMax, cosine decay of the learning rate)."""

    network: VAENetwork = VAENetwork()
    steps: Steps = 6000
    batch: Batch = 32
    lr: Rate = 0.01
    weight_decay: WeightDecay = 3e-4
    warmup: Warmup = 200
    clip: Clip = 5.0
    ema_decay: Share = 0.999
    kl_warmup: Share = 0.3
    """Share of the steps in which the weight of the KL rises to 1, balanced over the groups meanwhile."""
    spectral: Annotated[float, Ge(0)] = 0.01
    """Of the largest singular value of every convolution, and of the largest scale of every batch norm, in the loss in
    nats an image (published: 0.1)."""
    temperature: Annotated[float, Gt(0), Le(2)] = 0.85
    """Factor on the deviation of every drawn latent (published: 0.6 to 1)."""
    precision: Precision = "fp32"


class NVAEChoice(GeneratorChoice):
    """The generator of method nvae (Vahdat & Kautz 2020)."""

    file: GeneratorFile = GeneratorFile(path=Path("ddrep/data/embedded/nvae.safetensors"))
    pretrain: PretrainNVAE = PretrainNVAE()


class LatentJudge(Section):
    """Training of the linear layer on latents that decides which are made images (paper, 5.1 and 5.2)."""

    steps: Steps = 300
    batch: Batch = 64
    lr: Rate = 0.01
    weight_decay: WeightDecay = 1e-4


class Generators(Section):
    """Generators beside the denoiser, for methods of Tables 1 and 2 that draw of one; they count where asked for."""

    diffae: DiffAEChoice = DiffAEChoice()
    d2c: D2CChoice = D2CChoice()
    nvae: NVAEChoice = NVAEChoice()
    judge: LatentJudge = LatentJudge()


class Generated(Section):
    """What determines any shard of a generator's images, beside its inputs, subset and seed."""

    sampling: EvenSampling = EvenSampling()
    """Of DiffAE's images; D2C and NVAE decode in one pass, and take nothing of it."""
    latent_steps: SolverSteps = 200
    """DDIM steps in which a latent is drawn."""
    images: Positive = 1
    """Of an attribute, and as many of its absence; or for masks."""


class GeneratedShard(Generated):
    """All that determines one of an attribute."""

    threshold: Share = 0.5
    """A latent is made an image when the judge gives its target at least this probability."""
    max_attempts: Attempts = 60
    """Budget: attempts for each image asked for."""


class GeneratedMasks(Generated):
    """All that determines one for masks."""

    first: Natural = 0
    """The target mask of the first image, as of guided ones."""
    candidates: Attempts = 100
    """Latents for each image, of which the one under which its mask is most probable is made it."""

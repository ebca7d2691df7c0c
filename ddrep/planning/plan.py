"""What a forecast is made with, and the rows that it is made of."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from ddrep.config import Experiment
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.planning.draws import Seen
from ddrep.planning.sizes import Sizes

DENOISER, ENCODER, JUDGE, PIXEL_JUDGE = "denoiser", "encoder", "rejection", "pixel-rejection"
EVALUATOR, SEGMENTER, INCEPTION = "evaluator", "segmenter", "inception"
"""Names of networks, beside those of the downstream classifiers and of the guides."""
TRAINING, PRETRAINING = "/training", "/pretraining"
"""Behind a network's name: passes with a backward pass each."""
WITHIN = "/within"
"""Behind a network's name: passes whose time is in that of another network's, which calls it."""
Job = Mapping[str, int]
"""Images that one job passes through each network."""


@dataclass(frozen=True, eq=False)
class Row:
    """The jobs of one rule, or of one kind (`what`) of a rule's jobs."""

    rule: str
    jobs: tuple[Job, ...]
    what: str = ""
    images: int = 0
    """Accepted images, generated."""
    disk: int = 0
    """Bytes of the outputs, at most."""
    threads: int = 1

    def passes(self, *networks: str) -> int:
        """Images through networks of these names, trained or not; without names through the classifiers."""
        every = [(key.split("/")[0], n) for job in self.jobs for key, n in job.items()]
        return sum(n for name, n in every if (name in networks if networks else name not in (DENOISER, ENCODER)))


@dataclass(frozen=True)
class Plan:
    """What is planned with: the settings, the sizes, the network if it is known, and what has been judged already."""

    experiment: Experiment
    sizes: Sizes
    network: UNetConfig | None
    cores: int = 1
    seen: Seen = field(default_factory=Seen)

    @property
    def waited_for(self) -> int:
        """Threads of the jobs that others wait for (Snakefile)."""
        return min(4, self.cores)

    @property
    def bottleneck(self) -> tuple[int, int, int]:
        """Channels, height and width of the features of one timestep; zeros where the network is not known."""
        if self.network is None:
            return 0, 0, 0
        levels = len(self.network.channel_mult)
        size = self.experiment.features.pool or math.ceil(self.network.image_size / 2 ** (levels - 1))
        return self.network.model_channels * self.network.channel_mult[-1], size, size


def in_tar(image: tuple[int, int, int]) -> int:
    """Bytes of one image and its label in a shard, at most: blocks of 512, and a PNG hardly larger than raw."""
    height, width, channels = image
    png = height * (width * channels + 1) + 100
    return 3 * 512 + 512 * math.ceil(png / 512)


def weights(network: UNetConfig | None) -> int:
    """Bytes of a denoiser's file; 0 where the network is not known."""
    if network is None:
        return 0
    with torch.device("meta"):
        return 4 * sum(p.numel() for p in UNet(network).parameters())

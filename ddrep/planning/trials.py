"""The trials that tell what an image costs: a pass of each network that the plan's jobs use, as the jobs make it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import inception_v3

from ddrep.config import Head, Oracle
from ddrep.config.base import Precision
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.denoiser.loss import denoising_loss
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import autocast
from ddrep.networks.architectures import ARCHITECTURES, build, inputs
from ddrep.networks.classifiers import build_classifier, fit_to_size
from ddrep.networks.guides import Guide
from ddrep.networks.metadata import GuideMeta
from ddrep.planning.guidance import BOTH, Part, Reads, guide, mask_classes, read, steered
from ddrep.planning.plan import (
    DENOISER,
    ENCODER,
    EVALUATOR,
    INCEPTION,
    JUDGE,
    PIXEL_JUDGE,
    PRETRAINING,
    SEGMENTER,
    TRAINING,
    Plan,
)
from ddrep.planning.stages import rows
from ddrep.runs import all_runs
from ddrep.sampling.guidance import guided
from ddrep.sampling.guided import CHECKPOINTED, PIXELS

SAMPLED_AT_ONCE = 250
ON_A_CPU = 64
"""Pixels of the sides of the largest images that denoisers are tried on on a CPU: what a step on 256x256 costs, which
takes minutes, is taken from these in proportion to the pixels."""
Pass = Callable[[int], None]
"""Passes a batch of so many images."""


@dataclass(frozen=True)
class Trial:
    """A network to be measured: how its passes are made, in batches of `smallest` to `batch` images."""

    network: str
    batch: int
    make: Callable[[], Pass]
    smallest: int = 1
    worth: float = 1.0
    """Images of the trial that one image of the jobs costs as much as."""


def trials(plan: Plan, device: torch.device) -> list[Trial]:
    """Those whose networks the plan's jobs use; the quick ones first, as others take the time that they leave."""
    used = {key for row in rows(plan) for job in row.jobs for key in job}
    every = list(_all_trials(plan, device))
    left = used - {trial.network for trial in every}  # what training tells as well
    return [t for t in every if t.network in used or t.network.removesuffix(TRAINING) in left]


def _all_trials(plan: Plan, device: torch.device) -> Iterator[Trial]:
    e, (height, width, channels) = plan.experiment, plan.sizes.image
    yield _head(PIXEL_JUDGE, e.pixel_rejection, (channels, height, width), plan, device)
    yield from _oracle_trials(plan, device)
    if plan.network is not None:
        channels, *size = plan.bottleneck
        yield _head(JUDGE, e.rejection, (channels * len(e.features.timesteps), *size), plan, device)
        denoiser, worth = _tried(plan.network, device)
        yield from _denoiser_trials(plan, denoiser, worth)
        yield from _guidance_trials(plan, denoiser, worth, "attributes")
        yield from _guidance_trials(plan, denoiser, worth, "masks")
    for name in dict.fromkeys(run.architecture for run in all_runs(e)):
        make = lambda name=name: _classifier(name, plan, device)  # noqa: E731
        yield Trial(name + TRAINING, e.classifier.batch, make, smallest=16)


def _denoiser_trials(plan: Plan, denoiser: Denoiser, worth: float) -> Iterator[Trial]:
    e, shape = plan.experiment, denoiser.image_shape
    one_time = e.features.model_copy(update={"timesteps": e.features.timesteps[:1]})

    def noise(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, *shape, device=denoiser.device)
        return x, torch.zeros(n, dtype=torch.long, device=denoiser.device)

    def forward() -> Pass:
        return _inference(lambda n: denoiser.eps(*noise(n)))

    def encode() -> Pass:
        return _inference(lambda n: bottleneck_features(denoiser, noise(n)[0].clamp(-1, 1), one_time))

    def train(precision: Precision) -> Callable[[], Pass]:
        loss = lambda n: denoising_loss(denoiser, *noise(n), noise(n)[0])  # noqa: E731
        return lambda: _training(denoiser.net, loss, precision)

    yield Trial(DENOISER, SAMPLED_AT_ONCE, forward, worth=worth)
    yield Trial(ENCODER, SAMPLED_AT_ONCE, encode, worth=worth)
    yield Trial(DENOISER + TRAINING, e.finetune.batch, train(e.finetune.precision), worth=worth)
    cfg = e.denoiser.pretrain
    yield Trial(DENOISER + PRETRAINING, cfg.batch, train(cfg.precision), worth=worth)


def _guidance_trials(plan: Plan, denoiser: Denoiser, worth: float, part: Part) -> Iterator[Trial]:
    """Of guides with and without what they read, of the features, and of whole guided steps."""
    section, (height, width, _) = getattr(plan.experiment, part), plan.sizes.image
    shape = denoiser.image_shape

    def untrained(reads: Reads) -> tuple[Guide, tuple[int, ...]]:
        """And the shape of what its network takes."""
        classes = ("",) * (2 if part == "attributes" else mask_classes(section.data))
        meta = GuideMeta(
            of="attribute" if part == "attributes" else "mask", reads=reads, taps=section.taps, classes=classes,
            hidden=section.training.hidden, channels=1, image_shape=shape, denoiser_sha256="",
        )  # fmt: skip
        with torch.no_grad():
            taken = inputs(meta, denoiser, torch.randn(1, *shape, device=denoiser.device)).shape[1:]
        meta.channels = taken[0]
        return Guide(build(meta).to(denoiser.device), meta, denoiser), taken

    def target(n: int) -> Tensor:
        size = shape[1:] if part == "masks" else ()
        return torch.zeros(n, *size, dtype=torch.long, device=denoiser.device)

    def learn(reads: Reads) -> Callable[[], Pass]:
        def make() -> Pass:
            made, taken = untrained(reads)
            loss = lambda n: F.cross_entropy(made.net(torch.randn(n, *taken, device=denoiser.device)), target(n))  # noqa: E731
            return _training(made.net, loss, "fp32")

        return make

    def look() -> Pass:
        made = untrained("features")[0]
        return _inference(lambda n: made.inputs(torch.randn(n, *shape, device=denoiser.device)))

    def steer(reads: Reads) -> Callable[[], Pass]:
        def make() -> Pass:
            made = untrained(reads)[0]
            made.net.eval().requires_grad_(False)
            denoiser.net.eval().gradient_checkpointing = width >= CHECKPOINTED

            def run(batch: int) -> None:
                x, y = torch.randn(batch, *shape, device=denoiser.device), target(batch)
                eps = guided(denoiser.eps, denoiser.schedule, lambda x0: made.log_likelihood(x0, y), scale=1.0)
                eps(x, torch.zeros(batch, dtype=torch.long, device=denoiser.device))

            return run

        return make

    yield from (Trial(guide(part, reads) + TRAINING, section.training.batch, learn(reads), 2, worth) for reads in BOTH)
    yield Trial(read(part), SAMPLED_AT_ONCE, look, worth=worth / len(section.taps.timesteps))
    at_once = max(1, PIXELS // (height * width))
    yield from (Trial(steered(part, reads), at_once, steer(reads), worth=worth) for reads in BOTH)


def _tried(cfg: UNetConfig, device: torch.device) -> tuple[Denoiser, float]:
    """A denoiser of images as trials have them, and how many of them one image is worth."""
    net = _without_weights(cfg, device)
    if device.type != "cpu" or cfg.image_size <= ON_A_CPU:
        return Denoiser(net, Schedule()), 1.0
    net.cfg = dataclasses.replace(cfg, image_size=ON_A_CPU)  # its blocks stay those of the whole size
    return Denoiser(net, Schedule()), (cfg.image_size / ON_A_CPU) ** 2


def _oracle_trials(plan: Plan, device: torch.device) -> Iterator[Trial]:
    """The networks that measure; those that are given as files are taken for ones as they would be trained."""
    cfg, (height, width, channels) = plan.experiment.evaluation, plan.sizes.image
    shape = (channels, height, width)

    def learn(of: str, section: Oracle, classes: int, size: tuple[int, ...]) -> Callable[[], Pass]:
        def make() -> Pass:
            net = ARCHITECTURES[of, "pixels"].make((height, width, channels), classes, section.width)
            net = net.to(device).to(memory_format=torch.channels_last)

            def loss(n: int) -> Tensor:
                y = torch.zeros(n, *size, dtype=torch.long, device=device)
                return F.cross_entropy(net(torch.randn(n, *shape, device=device)).float(), y)

            return _training(net, loss, section.precision)

        return make

    def look() -> Pass:
        net = inception_v3(init_weights=False).to(device).eval()
        return _inference(lambda n: net(torch.randn(n, 3, 299, 299, device=device)))

    section, judge = cfg.segmenter_training, cfg.evaluator_training
    classes = mask_classes(plan.experiment.masks.data)
    yield Trial(
        EVALUATOR + TRAINING, judge.batch, learn("evaluator", judge, max(2, plan.sizes.classes), ()), smallest=2
    )
    yield Trial(SEGMENTER + TRAINING, section.batch, learn("segmenter", section, classes, (height, width)), smallest=2)
    yield Trial(INCEPTION, 50, look)


def _head(name: str, cfg: Head, shape: tuple[int, ...], plan: Plan, device: torch.device) -> Trial:
    architecture = ARCHITECTURES["class", "pixels" if name == PIXEL_JUDGE else "features"]

    def make() -> Pass:
        net = architecture.make(shape[0], max(2, plan.sizes.classes), cfg.hidden, cfg.dropout).to(device)
        return _training(net, lambda n: _cross_entropy(net, torch.randn(n, *shape, device=device)), "fp32")

    return Trial(name + TRAINING, cfg.batch, make, smallest=2)  # for BatchNorm


def _classifier(name: str, plan: Plan, device: torch.device) -> Pass:
    (height, width, channels), cfg = plan.sizes.image, plan.experiment.classifier
    net = build_classifier(name, cfg.stem, channels, max(2, plan.sizes.classes))
    net = fit_to_size(net, channels, height, width).to(device)
    shape = (channels, height, width)
    return _training(net, lambda n: _cross_entropy(net, torch.randn(n, *shape, device=device)), cfg.precision)


def _cross_entropy(net: nn.Module, x: Tensor) -> Tensor:
    return F.cross_entropy(net(x).float(), torch.zeros(len(x), dtype=torch.long, device=x.device))


def _inference(passed: Callable[[int], Tensor]) -> Pass:
    @torch.inference_mode()
    def run(batch: int) -> None:
        passed(batch)

    return run


def _training(net: nn.Module, loss: Callable[[int], Tensor], precision: Precision) -> Pass:
    """Whole steps: forward, backward, and the optimiser."""
    optimizer = torch.optim.Adam(net.train().parameters(), fused=True)
    device = next(net.parameters()).device

    def run(batch: int) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(precision, device):
            value = loss(batch)
        value.backward()
        optimizer.step()

    return run


def _without_weights(cfg: UNetConfig, device: torch.device) -> UNet:
    """A U-Net of zeros, which takes no time to initialise and computes at the same speed."""
    with torch.device("meta"):
        net = UNet(cfg)
    net.to_empty(device=device)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return net

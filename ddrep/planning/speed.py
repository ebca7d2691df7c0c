"""What one image costs in each network on the device at hand, from some seconds of measurement.

On a CPU it is the processor time of one thread, so that other work beside it hardly matters: several threads, one
of them without a core, burn time in waiting for it. More threads are taken to be faster in proportion.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Head
from ddrep.config.base import Precision
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.denoiser.loss import denoising_loss
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import autocast, pick_device
from ddrep.errors import UserError
from ddrep.heads import build
from ddrep.planning.stages import DENOISER, ENCODER, JUDGE, PIXEL_JUDGE, PRETRAINING, TRAINING, Job, Plan
from ddrep.runs import all_runs
from ddrep.training.networks import build_classifier, fit_to_size

INFERENCE = 1 / 3
"""Of a training pass: the usual rule that a backward pass costs two forward passes."""
SAMPLED_AT_ONCE = 250
LONG, REPEATED = 0.5, 5
"""Seconds of a trial that need not be repeated; how often others are, at most."""
Pass = Callable[[int], None]
"""Passes a batch of so many images."""


@dataclass(frozen=True)
class Speeds:
    """Seconds an image by network, of one thread on a CPU; `startup`: seconds of each job before its work begins."""

    seconds: dict[str, float]
    startup: float
    device: torch.device

    def of(self, job: Job, threads: int) -> float:
        """Seconds of a job; networks that could not be measured take none."""
        work = sum(self.seconds.get(key, 0.0) * n for key, n in job.items())
        return self.startup + work / (threads if self.device.type == "cpu" else 1)


@dataclass(frozen=True)
class Trial:
    """A network to be measured: how its passes are made, in batches of `smallest` to `batch` images."""

    network: str
    batch: int
    make: Callable[[], Pass]
    smallest: int = 1


def measure(plan: Plan, startup: float, seconds: float) -> tuple[Speeds, list[str]]:
    """Speeds, and remarks on what could not be measured; in about `seconds`, but one pass of each network at least."""
    device, found, remarks = pick_device(), {}, []
    torch.set_num_threads(1)
    trials = _trials(plan, device)
    for trial in trials:
        try:
            found[trial.network] = _per_image(trial, device, seconds / len(trials))
        except UserError as e:
            remarks.append(f"time of {trial.network} left out: {e}")
    for key in [key for key in found if key.endswith(TRAINING)]:
        found.setdefault(key.removesuffix(TRAINING), INFERENCE * found[key])
    return Speeds(found, startup, device), remarks


def _trials(plan: Plan, device: torch.device) -> list[Trial]:
    """What the plan's jobs pass images through."""
    e, trials = plan.experiment, []
    if plan.network is not None:
        trials = _denoiser_trials(plan, Denoiser(_without_weights(plan.network, device), Schedule()))
        channels, *size = plan.bottleneck
        trials.append(_head(JUDGE, e.rejection, (channels * len(e.features.timesteps), *size), plan, device))
    height, width, channels = plan.sizes.image
    trials.append(_head(PIXEL_JUDGE, e.pixel_rejection, (channels, height, width), plan, device))
    for name in dict.fromkeys(run.architecture for run in all_runs(e)):
        make = lambda name=name: _classifier(name, plan, device)  # noqa: E731
        trials.append(Trial(name + TRAINING, e.classifier.batch, make, smallest=2))  # for BatchNorm
    return trials


def _denoiser_trials(plan: Plan, denoiser: Denoiser) -> list[Trial]:
    e = plan.experiment
    one_time = e.features.model_copy(update={"timesteps": e.features.timesteps[:1]})

    def noise(n: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(n, *denoiser.image_shape, device=denoiser.device)
        return x, torch.zeros(n, dtype=torch.long, device=denoiser.device)

    def forward() -> Pass:
        return _inference(lambda n: denoiser.eps(*noise(n)))

    def encode() -> Pass:
        return _inference(lambda n: bottleneck_features(denoiser, noise(n)[0], one_time))

    def train(precision: Precision) -> Callable[[], Pass]:
        loss = lambda n: denoising_loss(denoiser, *noise(n), noise(n)[0])  # noqa: E731
        return lambda: _training(denoiser.net, loss, precision)

    trials = [Trial(DENOISER, SAMPLED_AT_ONCE, forward), Trial(ENCODER, SAMPLED_AT_ONCE, encode)]
    trials.append(Trial(DENOISER + TRAINING, e.finetune.batch, train(e.finetune.precision)))
    if e.denoiser.kind == "pretrain":
        cfg = e.denoiser.pretrain
        trials.append(Trial(DENOISER + PRETRAINING, cfg.batch, train(cfg.precision)))
    return trials


def _head(name: str, cfg: Head, shape: tuple[int, ...], plan: Plan, device: torch.device) -> Trial:
    meta: dict[str, Any] = {
        "kind": "pixels" if name == PIXEL_JUDGE else "features",
        "channels": shape[0],
        "hidden": cfg.hidden,
    }
    meta |= {"num_classes": max(2, plan.sizes.classes), "dropout": cfg.dropout}

    def make() -> Pass:
        net = build(meta).to(device)
        return _training(net, lambda n: _cross_entropy(net, torch.randn(n, *shape, device=device)), "fp32")

    return Trial(name + TRAINING, cfg.batch, make, smallest=2)


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


def _per_image(trial: Trial, device: torch.device, seconds: float) -> float:
    """Seconds an image, at the largest batch for which there is time: it is doubled from one trial to the next."""
    clock = _clock(device)
    started, run, batch, costs = clock(), trial.make(), min(trial.smallest, trial.batch), []
    while True:
        before = clock()
        run(batch)
        costs.append(clock() - before)
        larger = min(2 * batch, trial.batch)
        fits = costs[-1] * larger / batch < seconds - (clock() - started)
        if len(costs) == REPEATED or (not fits and (len(costs) > 1 or costs[0] > LONG)):
            return min(costs) / batch  # the first at a size is the dearest, for kernels are chosen and memory taken
        if fits and larger > batch:
            batch, costs = larger, []


def _clock(device: torch.device) -> Callable[[], float]:
    """Seconds; on a CPU those for which this process has had a core."""
    if device.type == "cpu":
        return time.process_time

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def _without_weights(cfg: UNetConfig, device: torch.device) -> UNet:
    """A U-Net of zeros, which takes no time to initialise and computes at the same speed."""
    with torch.device("meta"):
        net = UNet(cfg)
    net.to_empty(device=device)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
    return net

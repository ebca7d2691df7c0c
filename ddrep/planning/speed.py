"""What one image costs in each network on the device at hand, from some seconds of measurement.

Measured are denoisers and classifiers; the small networks on top of them, which take little time, are left out.
On a CPU it is the processor time of one thread, so that other work beside it hardly matters: several threads, one
of them without a core, burn time in waiting for it. More threads are taken to be faster in proportion.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F

from ddrep.cost import DENOISER, ENCODER, GUIDED, TRAINING, Passes
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import autocast, pick_device
from ddrep.networks.classifiers import build_classifier, fit_to_size
from ddrep.planning.forecast import Plan

BACKWARD = 3
"""Forward passes that a pass with one backward costs: the usual rule that a backward pass costs two of them."""
PARTS = {ENCODER: 0.3, f"{ENCODER}/attributes": 1.0, f"{ENCODER}/masks": 1.0}
"""Of a denoiser's pass, at most (ddrep.denoiser.features)."""
SAMPLED, TRAINED = 250, 16
"""Most images that denoisers are tried on at once, and fewest that classifiers are."""
ON_A_CPU = 64
"""Width of the largest images that denoisers are tried on on a CPU; more takes minutes, and is told by the pixels."""
Pass = Callable[[int], object]  # of a batch of so many images


@dataclass(frozen=True)
class Speeds:
    """Seconds of an image forward, by network, and before a job's work begins."""

    seconds: dict[str, float]
    startup: float
    device: torch.device

    def of(self, passes: Passes, threads: int) -> float:
        """Seconds of a job; networks that were not measured take none."""
        work = 0.0
        for key, n in passes.items():
            network = key.removesuffix(TRAINING).removesuffix(GUIDED)
            work += n * self.seconds.get(network, 0.0) * (1 if network == key else BACKWARD)
        return self.startup + work / (threads if self.device.type == "cpu" else 1)


def measure(plan: Plan, startup: float, seconds: float) -> Speeds:
    """In about `seconds`, but one pass of each network at least."""
    torch.set_num_threads(1)
    found, device, batch = dict[str, float](), pick_device(), plan.experiment.classifier.batch
    names = sorted({job.wildcards["architecture"] for job in plan.jobs if job.verb == "classify"})
    clock = partial(_clock, device)
    ends = clock() + seconds
    if cfg := plan.network:
        size = min(cfg.image_size, ON_A_CPU) if device.type == "cpu" else cfg.image_size
        one = per_image(_denoiser(cfg, size, device), 1, SAMPLED, clock, ends - seconds * len(names) / (1 + len(names)))
        whole = one * (cfg.image_size / size) ** 2
        found |= {DENOISER: whole, **{part: share * whole for part, share in PARTS.items()}}
    for i, name in enumerate(names):
        until = clock() + (ends - clock()) / (len(names) - i)
        found[name] = per_image(_classifier(plan, name, device), TRAINED, batch, clock, until) / BACKWARD
    return Speeds(found, startup, device)


def _denoiser(cfg: UNetConfig, size: int, device: torch.device) -> Pass:
    """Forward passes of images of `size` pixels through a denoiser of zeros, which take no time to make."""
    with torch.device("meta"):
        net = UNet(cfg)
    net.to_empty(device=device)
    with torch.inference_mode():
        for p in net.parameters():
            p.zero_()

    @torch.inference_mode()
    def run(n: int) -> object:
        return net(torch.zeros(n, cfg.in_channels, size, size, device=device), torch.zeros(n, device=device))

    return run


def _classifier(plan: Plan, name: str, device: torch.device) -> Pass:
    """Whole steps of training: forward, backward, and the optimiser."""
    (height, width, channels), cfg = plan.sizes.image, plan.experiment.classifier
    net = build_classifier(name, cfg.stem, channels, max(2, plan.sizes.classes))
    net = fit_to_size(net, channels, height, width).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), fused=True)

    def run(n: int) -> object:
        optimizer.zero_grad(set_to_none=True)
        with autocast(cfg.precision, device):
            logits = net(torch.randn(n, channels, height, width, device=device))
        F.cross_entropy(logits.float(), torch.zeros(n, dtype=torch.long, device=device)).backward()
        return optimizer.step()

    return run


def per_image(run: Pass, smallest: int, batch: int, clock: Callable[[], float], ends: float) -> float:
    """Seconds an image in batches of `batch`, or of fewer if the clock would pass `ends` with these.

    The first pass is the dearest, for kernels are chosen and memory taken: short ones are repeated, and an image costs
    no more than in a smaller batch.
    """

    def timed() -> float:
        before = clock()
        run(n)
        return clock() - before

    least, n = float("inf"), min(smallest, batch)
    while True:
        took = timed()
        took = min(took, timed(), timed()) if took < 0.3 else took
        least, larger = min(least, took / n), min(4 * n, batch)
        if larger == n or clock() + took * larger / n > ends:
            return least
        n = larger


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU those for which this process has had a core."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()

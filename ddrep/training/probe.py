"""Train the judge `probe`: linear classifiers on several blocks and timesteps of the unconditional denoiser.

They are trained on the labelled images as they are and a little moved: few images do not tell that it makes no
difference. Which blocks, timesteps and regularisation, and how sure their mean is to be (a temperature), is decided by
cross-validation inside the labelled images alone. Sources: DDAE (Xiang et al. 2023), diffssl (Mukhopadhyay et al.
2023); temperature scaling: Guo et al. 2017.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ddrep.config import Probe, ProbeReading, Stage, Tap
from ddrep.cost import DENOISER, Cost, Job, Passes, costs, times
from ddrep.data.batches import finite, to_unit
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import tap_features
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.evaluation.judges import quality
from ddrep.files import sha256
from ddrep.networks.architectures import Probes
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import JudgeMeta
from ddrep.saved import write_json

log = logging.getLogger("ddrep")

READ_AT_ONCE = 250
"""Images from which features are read together."""
Folds = list[tuple[np.ndarray, np.ndarray]]
"""Rows (trained on, judged) of each fold."""
ITERATIONS = 500
"""Of L-BFGS, at most."""


@dataclass(frozen=True)
class Fitted:
    """One probe at its best strength C: what it says out of fold, and its weights when trained on all images."""

    tap: Tap
    strength: float
    top1: float
    """In percent, out of fold."""
    losses: dict[float, float]
    """Strength -> cross-entropy out of fold."""
    p: np.ndarray
    """Out of fold, (N, classes)."""
    weight: np.ndarray
    bias: np.ndarray


def run(stage: Stage[Probe], *, denoiser: Path, train: Path, out: Path, report: Path) -> None:
    """Train the probes on a shard; write the judge, and what each was worth out of fold. Raises UserError."""
    cfg, model, data = stage.config, Denoiser.load(denoiser, pick_device()), read_shards([train])
    folds = folds_of(data, cfg.folds, stage.seed)
    tried = list(_every(model, data, cfg, folds))
    fitted = sorted(tried, key=lambda each: each.losses[each.strength])[: cfg.best]
    p, labels = np.mean([each.p for each in fitted], axis=0), torch.as_tensor(data.labels)
    temperature = calibrated(p, data.labels)
    reading = ProbeReading(taps=tuple(each.tap for each in fitted), pool=cfg.pool, noises=cfg.noises)
    judge = _judge(fitted, temperature, reading, data.classes, sha256(denoiser))
    scaled = torch.as_tensor(p).clamp(min=1e-12).log().div(temperature).softmax(dim=1)
    found = quality(scaled, labels, len(data.classes)) | {"temperature": temperature}
    found |= {"probes": [_said(each) for each in fitted], "tried": [_said(each) for each in tried]}
    log.info("out of fold: top-1 %.1f of %d images, temperature %.2f", found["top1"], len(data), temperature)
    write_json(report, found)
    judge.save(out)


@costs("probe")
def cost(job: Job) -> Cost:
    """Each view of an image is read at every timestep with every noise; the judge will read at those of the best probes
    alone, of which it is not known yet how many there are."""
    cfg = job.config(Probe)
    looked_at = job.images("train") * (len(corners(job.network.image_size, cfg.shift)) if job.network else 1)
    look = Passes({DENOISER: cfg.noises * min(cfg.best, len(cfg.timesteps))})
    return Cost(times(looked_at, Passes({DENOISER: cfg.noises * len(cfg.timesteps)})), look)


def folds_of(data: LabelledImages, folds: int, seed: int) -> Folds:
    """Every class in each fold its share. Raises UserError for a class of one."""
    from sklearn.model_selection import StratifiedKFold  # a second, which those that read the cost alone do without

    counts = np.bincount(data.labels, minlength=len(data.classes))
    if counts.min() < 2:
        raise UserError(
            f"probe: class {data.classes[int(counts.argmin())]} has {counts.min()} labelled images; "
            "expected 2 or more, for what is trained on some is judged on others"
        )
    cut = StratifiedKFold(min(folds, int(counts.min())), shuffle=True, random_state=seed % 2**32)
    return list(cut.split(data.labels, data.labels))


def _every(model: Denoiser, data: LabelledImages, cfg: Probe, folds: Folds) -> Iterator[Fitted]:
    """A probe of each block at each timestep; features are in memory of one timestep at a time."""
    for t in cfg.timesteps:
        reading = ProbeReading(
            taps=tuple(Tap(block=block, timestep=t) for block in cfg.blocks), pool=cfg.pool, noises=cfg.noises
        )
        of_views = [read(model, view, reading) for view in views(data.images, cfg.shift)]
        for tap, *x in zip(reading.taps, *of_views, strict=True):
            yield (probe := fit(tap, np.stack(x), data.labels, cfg.strengths, folds))
            log.info("%s at t = %g, C = %g: %.1f%% right out of fold", tap.block, t, probe.strength, probe.top1)


def views(images: np.ndarray, shift: float) -> Iterator[np.ndarray]:
    """Square uint8 images (N, H, H, C) as they are, then moved up, down, left and right; edges are repeated."""
    side = images.shape[1]
    starts = corners(side, shift)
    margin = starts[0]
    padded = np.pad(images, ((0, 0), margin, margin, (0, 0)), mode="edge")
    return (padded[:, top : top + side, left : left + side] for top, left in starts)


def corners(side: int, shift: float) -> list[tuple[int, int]]:
    """Where the views begin in an image with a margin of `shift` of its side, (row, column); the unmoved one first."""
    margin = round(shift * side)
    middle = (margin, margin)
    return list(dict.fromkeys([middle, (2 * margin, margin), (0, margin), (margin, 2 * margin), (margin, 0)]))


@torch.inference_mode()
def read(model: Denoiser, images: np.ndarray, reading: ProbeReading) -> list[np.ndarray]:
    """Of each tap features (N, F) of uint8 images (N, H, W, C)."""
    batches = (to_unit(images[i : i + READ_AT_ONCE], model.device) for i in range(0, len(images), READ_AT_ONCE))
    by_batch = [tap_features(model, x, reading) for x in batches]
    return [finite(torch.cat(parts), model.name).cpu().numpy() for parts in zip(*by_batch, strict=True)]


def fit(tap: Tap, x: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...], folds: Folds) -> Fitted:
    """L2-regularised logistic regression on standardised features x (views, N, F), at the strength of least
    cross-entropy out of fold.

    Trained on all views, which together count as one image; judged by the first of them alone.
    """
    p = {strength: np.zeros((x.shape[1], labels.max() + 1)) for strength in strengths}
    for kept, judged in folds:
        seen, told = _together(x[:, kept], labels[kept])
        mean, scale = standard(seen)
        for strength in strengths:
            weight, bias = regression((seen - mean) / scale, told, strength / len(x))
            logits = torch.as_tensor((x[0, judged] - mean) / scale @ weight.T + bias)
            p[strength][judged] = logits.double().softmax(dim=1).numpy()
    rows = np.arange(len(labels))
    losses = {strength: float(-np.log(said[rows, labels].clip(1e-12)).mean()) for strength, said in p.items()}
    best = min(losses, key=lambda strength: losses[strength])
    seen, told = _together(x, labels)
    mean, scale = standard(seen)
    weight, bias = regression((seen - mean) / scale, told, best / len(x))
    top1 = 100 * float((p[best].argmax(axis=1) == labels).mean())
    return Fitted(tap, best, top1, losses, p[best], weight / scale, bias - weight @ (mean / scale))


def _together(x: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (views, N, F) and labels (N,) as rows: (views N, F), (views N,)."""
    return x.reshape(-1, x.shape[2]), np.tile(labels, len(x))


def standard(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature; 1 where it does not vary."""
    scale = x.std(axis=0)
    return x.mean(axis=0), np.where(scale > 0, scale, 1.0)


def regression(x: np.ndarray, labels: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
    """Weights (classes, F) and biases (classes,) of multinomial logistic regression."""
    from sklearn.linear_model import LogisticRegression

    made = LogisticRegression(C=strength, max_iter=ITERATIONS).fit(x, labels)
    if len(made.classes_) > 2:
        return made.coef_, made.intercept_
    # of two classes scikit-learn gives the log-odds of the second alone, regularised as half of their difference
    return np.concatenate([-made.coef_, made.coef_]) / 2, np.concatenate([-made.intercept_, made.intercept_]) / 2


def calibrated(p: np.ndarray, labels: np.ndarray) -> float:
    """The temperature, 0.05 to 20, over which log p (N, classes) has the least cross-entropy."""
    logs, y = torch.as_tensor(p).clamp(min=1e-12).log(), torch.as_tensor(labels)
    loss = lambda u: float(torch.nn.functional.cross_entropy(logs / np.exp(u), y))  # noqa: E731
    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded").x))


def _judge(
    fitted: list[Fitted], temperature: float, reading: ProbeReading, classes: tuple[str, ...], denoiser_sha256: str
) -> Judge:
    widths = tuple(each.weight.shape[1] for each in fitted)
    net = Probes(widths, len(classes))
    weights: dict[str, Tensor] = {"temperature": torch.tensor(temperature)}
    for i, each in enumerate(fitted):
        weights[f"linear.{i}.weight"], weights[f"linear.{i}.bias"] = map(torch.as_tensor, (each.weight, each.bias))
    net.load_state_dict(weights)
    meta = JudgeMeta(
        kind="probe", channels=sum(widths), num_classes=len(classes), probes=reading, denoiser_sha256=denoiser_sha256,
        widths=widths, classes=classes,
    )  # fmt: skip
    return Judge(net, meta)


def _said(each: Fitted) -> dict[str, Any]:
    """Of the report: what one probe was worth out of fold."""
    where = {"block": each.tap.block, "timestep": each.tap.timestep, "C": each.strength}
    return {**where, "top1": each.top1, "cross_entropy": each.losses}

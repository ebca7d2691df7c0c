"""Train the judge `probe`: linear classifiers on several blocks and timesteps of the unconditional denoiser.

Which blocks, timesteps and regularisation, and how sure their mean is to be (a temperature), is decided by
cross-validation inside the labelled images alone. Sources: DDAE (Xiang et al. 2023), diffssl (Mukhopadhyay et al.
2023); temperature scaling: Guo et al. 2017.
"""

from __future__ import annotations

import json
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
from ddrep.files import sha256, written_whole
from ddrep.networks.architectures import Probes
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import JudgeMeta

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
    found |= {
        "probes": [_said(each, data.labels) for each in fitted],
        "tried": [_said(each, data.labels) for each in tried],
    }
    log.info("out of fold: top-1 %.1f of %d images, temperature %.2f", found["top1"], len(data), temperature)
    with written_whole(report) as (draft,):
        draft.write_text(json.dumps(found, indent=1), encoding="utf-8")
    judge.save(out)


@costs("probe")
def cost(job: Job) -> Cost:
    """Each image is read at every timestep with every noise; the judge will read at those of the best probes alone, of
    which it is not known yet how many there are."""
    cfg = job.config(Probe)
    look = Passes({DENOISER: cfg.noises * min(cfg.best, len(cfg.timesteps))})
    return Cost(times(job.images("train"), Passes({DENOISER: cfg.noises * len(cfg.timesteps)})), look)


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
        taps = tuple(Tap(block=block, timestep=t) for block in cfg.blocks)
        parts = read(model, data, ProbeReading(taps=taps, pool=cfg.pool, noises=cfg.noises))
        for tap, x in zip(taps, parts, strict=True):
            yield (probe := fit(tap, x, data.labels, cfg.strengths, folds))
            right = 100 * float((probe.p.argmax(1) == data.labels).mean())
            log.info("%s at t = %g, C = %g: %.1f%% right out of fold", tap.block, t, probe.strength, right)


@torch.inference_mode()
def read(model: Denoiser, data: LabelledImages, reading: ProbeReading) -> list[np.ndarray]:
    """Of each tap features (N, F) of all images."""
    batches = (to_unit(data.images[i : i + READ_AT_ONCE], model.device) for i in range(0, len(data), READ_AT_ONCE))
    by_batch = [tap_features(model, x, reading) for x in batches]
    return [finite(torch.cat(parts), model.name).cpu().numpy() for parts in zip(*by_batch, strict=True)]


def fit(tap: Tap, x: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...], folds: Folds) -> Fitted:
    """L2-regularised logistic regression on standardised features x (N, F), at the strength of least cross-entropy out
    of fold."""
    p = {strength: np.zeros((len(x), labels.max() + 1)) for strength in strengths}
    for kept, judged in folds:
        mean, scale = standard(x[kept])
        for strength in strengths:
            weight, bias = regression((x[kept] - mean) / scale, labels[kept], strength)
            p[strength][judged] = softmax((x[judged] - mean) / scale @ weight.T + bias)
    rows = np.arange(len(x))
    losses = {strength: float(-np.log(said[rows, labels].clip(1e-12)).mean()) for strength, said in p.items()}
    best = min(losses, key=lambda strength: losses[strength])
    mean, scale = standard(x)
    weight, bias = regression((x - mean) / scale, labels, best)
    return Fitted(tap, best, losses, p[best], weight / scale, bias - weight @ (mean / scale))


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


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.as_tensor(logits).double().softmax(dim=1).numpy()


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


def _said(each: Fitted, labels: np.ndarray) -> dict[str, Any]:
    """Of the report: what one probe was worth out of fold."""
    top1 = 100 * float((each.p.argmax(axis=1) == labels).mean())
    where = {"block": each.tap.block, "timestep": each.tap.timestep, "C": each.strength}
    return {**where, "top1": top1, "cross_entropy": each.losses}

"""Train a downstream classifier from scratch and test it (paper, 5.3.2)."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from timm.data.mixup import Mixup
from torch import Tensor, nn

from ddrep.config import Classifier, Mix, Stage, Training
from ddrep.cost import TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, parts, steps_for, to_unit
from ddrep.data.disjoint import check_disjoint
from ddrep.data.shards import LabelledImages, read_shards, together
from ddrep.data.tars import check_alike
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.files import sha256, state_path, written_whole
from ddrep.graphs import captured
from ddrep.networks.classifiers import build_classifier, fit_to_size, timm_weights
from ddrep.networks.metadata import ClassifierMeta
from ddrep.runs import Run
from ddrep.saved import save
from ddrep.sources import SOURCES
from ddrep.training.loop import LoopConfig, step_seed, train

log = logging.getLogger("ddrep")
TEST_BATCH = 500


def run(
    stage: Stage[Training],
    *,
    real: Path | None,
    synthetic: list[Path],
    test: Path,
    subset: int,
    architecture: str,
    source: str,
    scale: int,
    train_seed: int,
    out: Path | None = None,
    predictions: Path | None = None,
    weights: Path | None = None,
) -> None:
    """Train a classifier and write what is wanted: its row, to `out`, its predictions of the test images, its weights,
    as timm reads them. Raises UserError."""
    if not (out or predictions or weights):
        raise UserError("classify: nothing to write; give --out and --predictions, or --weights")
    job = Run(subset, architecture, stage.config.mixed, source, scale, train_seed, real=real is not None)
    _check_options(stage, job, real, synthetic)
    images, n_real = training_images(real, synthetic)
    inputs = _digests([*([real] if real else []), *synthetic])
    if SOURCES[job.source].labels == "soft" and images.soft is None:
        raise UserError(f"{synthetic[0] if synthetic else real}: no soft labels; source {job.source} has the judge's")
    unseen = read_shards([test])
    check_alike(test, unseen, real or synthetic[0], images)
    for files, rows in (([real] if real else [], slice(n_real)), (synthetic, slice(n_real, None))):
        if files:
            check_disjoint(images, unseen, (files[0], test), rows)
    cfg = stage.config
    steps = steps_of(cfg, len(images), len(images.classes), job.scale if SOURCES[job.source].equal_steps else 0)
    log.info("%d real and %d synthetic images, %d steps", n_real, len(images) - n_real, steps)
    state = state_path("classifier", stage.model_dump_json(), job.architecture, str(job.seed), str(steps), *inputs)
    how: dict[str, Any] = {"n_real": n_real, "mixed": cfg.mixed, "steps": steps, "state": state}
    seed, device = run_seed(stage.seed, job.seed), pick_device()
    net = fit(images, job.architecture, cfg.classifier, seed=seed, device=device, **how)
    said = predict(net, unseen)
    counts = {"n_real": n_real, "n_synthetic": len(images) - n_real, "epochs": cfg.classifier.epochs, "steps": steps}
    row, meta = _row(job, said, counts), _meta(images, job.architecture, cfg.classifier.stem)
    writers: dict[Path | None, Callable[[Path], object]] = {
        out: lambda file: row.to_parquet(file, index=False),
        predictions: lambda file: said.to_parquet(file, index=False),
        weights: lambda file: save(file, meta, timm_weights(net)),
    }
    wanted = {path: write for path, write in writers.items() if path}
    with written_whole(*wanted) as drafts:
        for draft, write in zip(drafts, wanted.values(), strict=True):
            write(draft)
    state.unlink(missing_ok=True)


def _digests(shards: Sequence[Path]) -> list[str]:
    """Raise UserError for a shard that is given twice, by whatever name: its images would count double."""
    seen: dict[str, Path] = {}
    for path in shards:
        if (digest := sha256(path)) in seen:
            raise UserError(f"{path}: the same shard as {seen[digest]}; give each once")
        seen[digest] = path
    return list(seen)


def _row(job: Run, said: pd.DataFrame, counts: dict[str, int]) -> pd.DataFrame:
    """A run's row of the tables."""
    top1 = 100 * float((said["label"] == said["prediction"]).mean())
    log.info("top-1 %.2f%% of %d test images", top1, len(said))
    fields = ("subset", "architecture", "mix", "source", "scale", "seed")
    return pd.DataFrame([{name: getattr(job, name) for name in fields} | {"top1": top1} | counts])


def _meta(images: LabelledImages, architecture: str, stem: Literal["stock", "small"]) -> ClassifierMeta:
    _, height, width, channels = images.images.shape
    shape = channels, height, width
    return ClassifierMeta(architecture=architecture, stem=stem, image_shape=shape, classes=images.classes)


def steps_of(cfg: Training, images: int, classes: int, scale: int) -> int:
    """Steps of a run on so many images, and as if on 1x images of these classes `scale` times more."""
    seen = images + scale * cfg.per_class * classes
    return steps_for(cfg.classifier.epochs, seen, cfg.classifier.batch, cfg.classifier.min_steps)


@costs("classify")
def cost(job: Job) -> Cost:
    """Training and the test; the section has no `per_class` but for real-equal-steps."""
    cfg, name = job.config(Training), job.wildcards["architecture"]
    images, classes = job.images("real") + job.images(), len(job.of_class("test"))
    trained = steps_of(cfg, images, classes, int(job.wildcards["scale"])) * cfg.classifier.batch
    return Cost(Passes({name + TRAINING: trained, name: job.images("test")}), disk=32 * job.images("test"))


def training_images(real: Path | None, synthetic: list[Path]) -> tuple[LabelledImages, int]:
    """The images of all shards and the number of real ones, which come first.

    Raises UserError where synthetic images differ from the real ones in size, channels or classes.
    """
    if not (real and synthetic):
        images = read_shards([real] if real else synthetic)
        return images, len(images) if real else 0
    first, second = read_shards([real]), read_shards(synthetic)
    check_alike(synthetic[0], second, real, first)
    return together([first, second]), len(first)


def run_seed(*seeds: int) -> int:
    """One seed for the experiment's and the run's, 0..2^32-1."""
    return int(np.random.SeedSequence(seeds).generate_state(1)[0])


def lr_factor(step: int, steps: int, drops: tuple[float, ...]) -> float:
    """0.1 to the number of `drops` (shares of `steps`) that lie at or before the 0-based `step`."""
    return 0.1 ** sum(step >= round(drop * steps, 6) for drop in drops)


def fit(
    data: LabelledImages,
    architecture: str,
    cfg: Classifier,
    *,
    n_real: int = 0,
    mixed: bool,
    steps: int,
    seed: int,
    device: torch.device,
    state: Path | None = None,
    on_step: Callable[[int, nn.Module], None] | None = None,
) -> nn.Module:
    """Train from scratch with Adam for `steps` steps and return the network, fitted to the images' size.

    n_real: how many of the images, the first ones, are real.
    """
    torch.manual_seed(seed)
    _, height, width, channels = data.images.shape
    net = build_classifier(architecture, cfg.stem, channels, len(data.classes))
    net = fit_to_size(net, channels, height, width).to(device).train()
    optimizer = torch.optim.Adam(net.parameters(), cfg.lr, fused=True)
    images, targets = torch.as_tensor(data.images), torch.as_tensor(data.targets)
    mixup = make_mixup(cfg.mix, len(data.classes) if targets.ndim == 1 else cfg.batch) if mixed else None
    blank = torch.zeros(cfg.batch, height, width, channels, device=device).movedim(-1, 1)
    forward = captured(net, blank, precision=cfg.precision)

    def loss_at(step: int) -> Tensor:
        index = torch.as_tensor(batch_of(cfg, n_real, len(images), step, seed))
        batch, target = images[index], targets[index]
        if cfg.flip:
            batch = torch.where(torch.rand(len(batch), 1, 1, 1) < 0.5, batch.flip(2), batch)
        x, y = to_unit(batch, device), target.to(device)
        if mixup:
            np.random.seed(step_seed(seed, step) % 2**32)  # timm draws from numpy's global generator
            x, y = mix(mixup, x, y)
        return F.cross_entropy(forward(x).float(), y, label_smoothing=cfg.label_smoothing)

    started, loop = time.monotonic(), LoopConfig(steps=steps, seed=seed)
    factor = lambda step: lr_factor(step, steps, cfg.drops)  # noqa: E731
    net = train(net, optimizer, loss_at, loop, lr_factor=factor, state=state, on_step=on_step)
    log.info("trained %d steps in %.0f s", steps, time.monotonic() - started)
    return net


def batch_of(cfg: Classifier, n_real: int, n: int, step: int, seed: int) -> np.ndarray:
    """Indices (batch,) for a step into n images, of which the first n_real are real."""
    if cfg.synthetic_share is None or n_real in (0, n):
        return batch_indices(n, cfg.batch, step, seed)
    synthetic = min(max(1, round(cfg.synthetic_share * cfg.batch)), cfg.batch - 1)
    real = batch_indices(n_real, cfg.batch - synthetic, step, seed)
    return np.concatenate([real, n_real + batch_indices(n - n_real, synthetic, step, seed)])


def make_mixup(mix: Mix, num_classes: int) -> Mixup:
    """timm's Mixup and CutMix, one of the two and one lambda a batch; no label smoothing (default: 0.1)."""
    return Mixup(**mix.model_dump(), mode="batch", label_smoothing=0.0, num_classes=num_classes)


def mix(mixup: Mixup, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Images x (N, C, H, W), in place, and what they show: of labels y (N,), or soft ones (N, classes), (N, classes).

    timm mixes numbers of classes: told the images' numbers in the batch, as of N classes, it says how much of each is
    in each, which mixes their soft labels.
    """
    if y.ndim == 1:
        return mixup(x, y)
    x, shares = mixup(x, torch.arange(len(x), device=x.device))
    return x, shares @ y


@torch.inference_mode()
def predict(net: nn.Module, test: LabelledImages) -> pd.DataFrame:
    """A row a test image, in order: key, label, prediction, and p_label, the probability given to the label.

    In fp32 whatever the training was in: bf16's logits have ties, which fall to the lower class.
    """
    net.eval()
    device = next(net.parameters()).device
    probabilities = []
    for part in parts(len(test), TEST_BATCH):
        probabilities.append(net(to_unit(test.images[part], device)).softmax(1).cpu())
    p = torch.cat(probabilities).numpy()
    p_label = p[np.arange(len(test)), test.labels]
    return pd.DataFrame({"key": test.keys, "label": test.labels, "prediction": p.argmax(1), "p_label": p_label})


def _check_options(stage: Stage[Training], job: Run, real: Path | None, synthetic: list[Path]) -> None:
    """Raise UserError for options that contradict each other: a wrong row would be believed."""
    if not (real or synthetic):
        raise UserError("classify: no training images; give --real SHARD, synthetic shards, or both")
    source = SOURCES[job.source]
    if synthetic and not source.has_shards:
        raise UserError(f"--source {job.source}: is for real images alone; name the source of {synthetic[0]}")
    if source.has_shards and not synthetic:
        raise UserError(f"--source {job.source}: expected its shards after the options")
    if source.scaled != (job.scale > 0):
        expected = "1 or more" if source.scaled else "0"
        raise UserError(f"--source {job.source} --scale {job.scale}: expected scale {expected} for {job.source}")
    if source.equal_steps and not stage.config.per_class:
        raise UserError(f"--source {job.source}: per_class (images a class in 1x) is missing in the stage")

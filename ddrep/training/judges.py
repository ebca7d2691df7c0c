"""Train the rejection classifier on denoiser features, and its control on pixels."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddrep.config import Features, Head, PixelHead, Stage
from ddrep.cost import ENCODER, TRAINING, Cost, Job, Passes, costs, times
from ddrep.data import reading
from ddrep.data.batches import batch_indices, finite, steps_for, to_unit
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.evaluation.judges import quality
from ddrep.files import sha256, tensors_from_disk, tensors_on_disk, written_whole
from ddrep.networks import architectures
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import FeaturesFile, JudgeMeta
from ddrep.saved import write_json
from ddrep.training.loop import LoopConfig, train

log = logging.getLogger("ddrep")

READ_AT_ONCE = 250
"""Images from which features are read, and"""
JUDGED_AT_ONCE = 1000
"""held-out images that are judged, together."""
VIEWS = ("features", "mirrored")
View = np.ndarray | Tensor
"""Inputs (N, C, h, w), features or uint8 pixels; on disk or not, they are read by the batch."""


@torch.inference_mode()
def extract(stage: Stage[Features], *, denoiser: Path, images: Path, out: Path) -> None:
    """Write the features of a shard's images, in its order: `features` and, with flips, `mirrored`, both float32.

    They are never in memory all at once: those of Tiny ImageNet are 51 GB.
    """
    device, cfg = pick_device(), stage.config
    model, data = Denoiser.load(denoiser, device), read_shards([images])
    meta = FeaturesFile(settings=cfg, denoiser_sha256=sha256(denoiser), images_sha256=sha256(images)).text()
    names = VIEWS if cfg.flip else VIEWS[:1]
    with written_whole(out) as (draft,):
        stored: dict[str, np.memmap] = {}
        for start in range(0, len(data), READ_AT_ONCE):
            x = to_unit(data.images[start : start + READ_AT_ONCE], device)
            for name, view in zip(names, (x, x.flip(-1)), strict=False):
                part = finite(bottleneck_features(model, view, cfg), model.name).cpu().numpy()
                stored = stored or tensors_on_disk(draft, (len(data), *part.shape[1:]), *names, metadata=meta)
                stored[name][start : start + len(part)] = part
        for array in stored.values():
            array.flush()


def run_features(stage: Stage[Head], *, features: Path, train: Path, out: Path, report: Path) -> None:
    """Train the rejection CNN on a features file; write it, and its held-out accuracy, confusion and calibration."""
    data = read_shards([train])
    views, about = _read_features(features)
    if len(views[0]) != len(data):
        raise UserError(f"{features}: of {len(views[0])} images, {train} has {len(data)}; make it of that shard")
    if about.images_sha256 not in (None, sha256(train)):
        raise UserError(f"{features}: of the images of another shard than {train}; make it of that shard")
    listens = {"kind": "features", "features": about.settings, "denoiser_sha256": about.denoiser_sha256}
    _run(stage, listens, views, data, out, report)


def _read_features(path: Path) -> tuple[list[View], FeaturesFile]:
    """What `extract` wrote: the views (as they are, mirrored), and what they are of."""
    try:
        views, text = tensors_from_disk(path)
        first = views[VIEWS[0]]
        if any(view.ndim != 4 or view.shape != first.shape for view in views.values()):
            raise ValueError("expected shapes (N, C, h, w), the same for all")
    except (OSError, ValueError, KeyError) as e:
        raise UserError(f"{path}: not a readable features file ({e}); {FeaturesFile.HOW}") from None
    return [views[name] for name in VIEWS if name in views], FeaturesFile.parsed(path, text)


def run_pixels(stage: Stage[PixelHead], *, train: Path, out: Path, report: Path) -> None:
    """Train the control on a shard's pixels; write what `run_features` writes."""
    data = read_shards([train])
    x = np.moveaxis(data.images, -1, 1)
    views = [x, x[..., ::-1]] if stage.config.flip else [x]
    _run(stage, {"kind": "pixels", "image_shape": x.shape[1:]}, views, data, out, report)


@costs("rejection", "pixel-rejection")
def cost(job: Job) -> Cost:
    """The images held out of each class are looked at once an epoch and once in the end."""
    cfg, name = job.config(PixelHead), job.verb
    held_out = sum(reading.share(n, cfg.holdout) for n in job.of_class("train"))
    seen = steps_for(1, job.images("train") - held_out, cfg.batch) * cfg.epochs * cfg.batch
    passes = Passes({name + TRAINING: seen, name: (cfg.epochs + 1) * held_out})
    return Cost(passes, Passes({name: 1}) + job.look("features"))


@costs("features")
def cost_of_features(job: Job) -> Cost:
    """Each image is read at each timestep, mirrored as well where that is asked for."""
    cfg = job.config(Features)
    look = Passes({ENCODER: len(cfg.timesteps)})
    passes = times(job.images("images") * (1 + cfg.flip), look)
    values = job.network.widths[-1] * (cfg.pool or job.network.sizes[-1]) ** 2 if job.network else 0
    return Cost(passes, look, 4 * values * passes[ENCODER])


def _run(
    stage: Stage[Any], reads: dict[str, Any], views: Sequence[View], data: LabelledImages, out: Path, report: Path
) -> None:
    cfg: Head = stage.config
    labels, sizes = torch.as_tensor(data.labels), dict[str, Any](hidden=cfg.hidden, dropout=cfg.dropout)
    sizes |= {"channels": views[0].shape[1], "num_classes": len(data.classes)}
    meta = JudgeMeta(classes=data.classes, **sizes, **reads)
    net, held_out = train_head(meta, views, labels, cfg, seed=stage.seed, device=pick_device())
    write_json(report, assess(net, views[0], held_out, labels, meta.num_classes))
    Judge(net, meta).save(out)


def hold_out(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices (train, held out): `share` of each class, at least one image, chosen by the seed."""
    rng = np.random.default_rng(seed)
    kept, held = reading.hold_out(labels.numpy(), lambda n: reading.share(n, share), lambda _: rng)
    return torch.as_tensor(kept), torch.as_tensor(held)


def train_head(
    meta: JudgeMeta, views: Sequence[View], labels: Tensor, cfg: Head, *, seed: int, device: torch.device
) -> tuple[nn.Sequential, Tensor]:
    """Train a judge's network and return it as of its best epoch, with the indices held out to choose that.

    views: as they are and, if flips are wanted, mirrored; labels (N,). The best epoch is the one of least held-out
    cross-entropy, which fewer than a hundred images tell better apart than accuracy does.
    """
    torch.manual_seed(seed)
    net = architectures.build(meta).to(device)
    kept, held_out = hold_out(labels, cfg.holdout, seed)
    if not len(kept):
        raise UserError(
            f"holdout: of {len(labels)} images none is left to train on, for each class has one; add images"
        )
    per_epoch = steps_for(1, len(kept), cfg.batch)
    best = _Best(net, views[0], held_out, labels, per_epoch)
    optimizer = torch.optim.Adam(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)

    def loss_at(step: int) -> Tensor:
        rows = kept[batch_indices(len(kept), cfg.batch, step, seed)]
        which = torch.randint(len(views), (len(rows),))
        x = _inputs(views[0], rows)
        for number, view in enumerate(views[1:], start=1):
            x[which == number] = _inputs(view, rows[which == number])
        return F.cross_entropy(net(x.to(device)), labels[rows].to(device))

    loop = LoopConfig(steps=per_epoch * cfg.epochs, seed=seed, log_every=per_epoch * 10)
    train(net.train(), optimizer, loss_at, loop, on_step=best)
    net.load_state_dict(best.weights)
    return net.eval(), held_out


def _inputs(view: View, rows: Tensor) -> Tensor:
    """What a network takes of these rows of a view."""
    x = torch.as_tensor(np.ascontiguousarray(view[rows.numpy()]))
    return to_unit(x.movedim(1, -1)) if x.dtype == torch.uint8 else x


def _logits(net: nn.Module, view: View, rows: Tensor) -> Tensor:
    """Of these rows, on the CPU; so many at once that a GPU can judge them."""
    device = next(net.parameters()).device
    return torch.cat([net(_inputs(view, part).to(device)).cpu() for part in rows.split(JUDGED_AT_ONCE)])


class _Best:
    """Keeps the weights of the epoch with the least held-out cross-entropy."""

    def __init__(self, net: nn.Module, view: View, held_out: Tensor, labels: Tensor, per_epoch: int):
        self.view, self.held_out, self.y, self.per_epoch = view, held_out, labels[held_out], per_epoch
        self.loss, self.weights = float("inf"), copy.deepcopy(net.state_dict())

    @torch.no_grad()
    def __call__(self, step: int, net: nn.Module) -> None:
        if step % self.per_epoch:
            return
        net.eval()
        loss = F.cross_entropy(_logits(net, self.view, self.held_out), self.y).item()
        net.train()
        if loss < self.loss:
            log.info("epoch %d: held-out cross-entropy %.4f, the best so far", step // self.per_epoch, loss)
            self.loss, self.weights = loss, copy.deepcopy(net.state_dict())


@torch.inference_mode()
def assess(net: nn.Module, view: View, rows: Tensor, labels: Tensor, classes: int) -> dict[str, Any]:
    """`quality` of a network's probabilities on these rows of a view, whose images have labels (N,)."""
    report = quality(F.softmax(_logits(net, view, rows).double(), dim=1), labels[rows], classes)
    gap = report["expected_calibration_error"]
    log.info("held out: top-1 %.1f of %d images, calibration error %.3f", report["top1"], len(rows), gap)
    return report

"""Train what generated images are measured with: the evaluator on labels, the segmenter on masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ddrep import config
from ddrep.config import Stage
from ddrep.cost import TRAINING, Cost, Job, Passes, costs
from ddrep.data.batches import batch_indices, steps_for, to_unit
from ddrep.data.masks import IGNORE, MaskedImages, read_masked_shards
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.data.tars import check_alike
from ddrep.device import autocast, pick_device
from ddrep.evaluation.judges import quality
from ddrep.evaluation.segmentation import confusion, miou, pixel_accuracy
from ddrep.files import sha256, state_path
from ddrep.networks import architectures
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.networks.metadata import EvaluatorMeta, SegmenterMeta
from ddrep.training.loop import LoopConfig, cosine_with_warmup, train


def run_evaluator(stage: Stage[config.Evaluator], *, train: list[Path], validation: Path | None, out: Path) -> None:
    """Train an evaluator on labelled shards and write it, with its accuracy on `validation`. Raises UserError."""
    _run("evaluator", stage, (read_shards, train_evaluator, accuracy), train, validation, out)


def train_evaluator(
    data: LabelledImages, cfg: config.Evaluator, *, seed: int, device: torch.device, state: Path | None = None
) -> Evaluator:
    """An evaluator of `data`'s classes, in evaluation mode."""
    shape = data.images.shape[1:]
    meta = EvaluatorMeta(name=cfg.name, width=cfg.width, classes=data.classes, image_shape=shape)
    return Evaluator(_fit(meta, data.images, data.labels, cfg, seed, device, state), meta)


def accuracy(made: Evaluator, data: LabelledImages) -> dict[str, Any]:
    """n, top1 (percent), cross_entropy and expected_calibration_error on `data`."""
    p = torch.from_numpy(made.probabilities(data.images))
    report = quality(p, torch.as_tensor(data.labels), len(data.classes))
    return {name: report[name] for name in ("n", "top1", "cross_entropy", "expected_calibration_error")}


def run_segmenter(stage: Stage[config.Segmenter], *, train: list[Path], validation: Path | None, out: Path) -> None:
    """Train a segmenter on masked shards and write it, with its mIoU on `validation`. Raises UserError."""
    _run("segmenter", stage, (read_masked_shards, train_segmenter, agreement), train, validation, out)


def train_segmenter(
    data: MaskedImages, cfg: config.Segmenter, *, seed: int, device: torch.device, state: Path | None = None
) -> Segmenter:
    """A segmenter of `data`'s classes, in evaluation mode. Pixels of IGNORE teach it nothing."""
    meta = SegmenterMeta(width=cfg.width, classes=data.classes, image_shape=data.images.shape[1:])
    return Segmenter(_fit(meta, data.images, data.masks, cfg, seed, device, state), meta)


def agreement(made: Segmenter, data: MaskedImages) -> dict[str, Any]:
    """n, pixel_accuracy (percent) and miou (0..1) on `data`."""
    counts = confusion(made.label_maps(data.images), data.masks, len(data.classes))
    return {"n": len(data), "pixel_accuracy": 100 * pixel_accuracy(counts), "miou": miou(counts)}


@costs("evaluator", "segmenter")
def cost(job: Job) -> Cost:
    """Of training an evaluator or a segmenter."""
    cfg = job.config(config.Evaluator if job.verb == "evaluator" else config.Segmenter)
    seen = steps_for(cfg.epochs, job.images(), cfg.batch) * cfg.batch
    return Cost(Passes({job.verb + TRAINING: seen}))


def _run(
    verb: str, stage: Stage[Any], how: tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]],
    shards: list[Path], validation: Path | None, out: Path,
) -> None:  # fmt: skip
    """how: shards are read, a network is trained on their images, and measured on others."""
    read, fit, measure = how
    data, digests = read(shards), [sha256(path) for path in shards]
    state = state_path(verb, stage.model_dump_json(), *digests)
    provenance = {"command": f"ddrep {verb}", "seed": stage.seed, "shards_sha256": digests}
    provenance["section"] = stage.config.model_dump(mode="json")
    held_out = read([validation]) if validation else None
    if validation and held_out is not None:
        check_alike(validation, held_out, shards[0], data)
    made = fit(data, stage.config, seed=stage.seed, device=pick_device(), state=state)
    made.meta.provenance = provenance | ({"validation": measure(made, held_out)} if held_out else {})
    made.save(out)
    state.unlink(missing_ok=True)


def _fit(
    meta: EvaluatorMeta | SegmenterMeta,
    images: np.ndarray,
    targets: np.ndarray,
    cfg: config.Oracle,
    seed: int,
    device: torch.device,
    state: Path | None,
) -> Any:
    """The network of least cross-entropy against `targets`, classes of images (N,) or of pixels (N, H, W)."""
    torch.manual_seed(seed)
    x, y = torch.as_tensor(images), torch.as_tensor(targets)
    net = architectures.build(meta).to(device).to(memory_format=torch.channels_last).train()  # a third faster on a CPU
    optimizer = torch.optim.AdamW(net.parameters(), cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    steps = steps_for(cfg.epochs, len(images), cfg.batch)
    factor = cosine_with_warmup(steps, min(cfg.warmup, steps // 2))

    def loss_at(step: int) -> Tensor:
        index = torch.as_tensor(batch_indices(len(x), cfg.batch, step, seed))
        moved = moves(len(index), x.shape[1], x.shape[2], cfg.shift, cfg.flip)
        seen, target = to_unit(x[index][moved], device), y[index][moved] if y.ndim == 3 else y[index]
        with autocast(cfg.precision, device):
            logits = net(seen)
        return F.cross_entropy(logits.float(), target.to(device).long(), ignore_index=IGNORE)

    trained = train(net, optimizer, loss_at, LoopConfig(steps=steps, seed=seed), lr_factor=factor, state=state)
    return trained.to(memory_format=torch.contiguous_format).eval().requires_grad_(False)


def moves(n: int, height: int, width: int, shift: int, flip: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Indices with which tensors (n, height, width, ...) are shifted by at most `shift` pixels either way and, half of
    them, mirrored, at random for each of the n. Where nothing moves in, the edge's pixels are repeated.
    """
    rows = (torch.arange(height) + torch.randint(-shift, shift + 1, (n, 1))).clamp(0, height - 1)
    columns = (torch.arange(width) + torch.randint(-shift, shift + 1, (n, 1))).clamp(0, width - 1)
    if flip:
        columns = torch.where(torch.rand(n, 1) < 0.5, columns.flip(1), columns)
    return torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]

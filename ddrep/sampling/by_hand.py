"""Grids of samples by hand: unconditional, by class, by attribute, or for a mask; and an attempt, drawn again."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image

from ddrep.config import Sampling
from ddrep.data.batches import check_stored
from ddrep.data.decoding import FORMATS
from ddrep.data.disk import raw, read_bytes, reason
from ddrep.data.shards import read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import pick_device
from ddrep.errors import UserError
from ddrep.grids import save_grid
from ddrep.networks.guides import Guide
from ddrep.rows import read_rows
from ddrep.sampling.guided import check_masks, towards
from ddrep.sampling.sampler import draw, eps_of, image_seed, sample

log = logging.getLogger("ddrep")


def run(
    denoiser: Path, guide: Path | None, name: str | None, mask: Path | None, images: int, cfg: Sampling, scale: float,
    seed: int, out: Path,
) -> None:  # fmt: skip
    """Write a grid of `images` samples a row: of each class, or of class `name`; of a mask; or of nothing.

    Classes are those of the denoiser or, with a guide, the attribute and its absence. scale: lambda of the guide.
    Raises UserError.
    """
    device = pick_device()
    loaded = Guide.load(guide, denoiser, device) if guide else None
    model = loaded.denoiser if loaded else Denoiser.load(denoiser, device)
    if (mask is not None) != (loaded is not None and loaded.meta.of == "mask"):
        raise UserError(
            f"--mask: expected together with a guide of masks, got {mask or 'none'} and {guide or 'no guide'}"
        )
    classes = () if mask else loaded.classes if loaded else model.classes
    if cfg.guidance_scale and not classes:
        raise UserError(
            f"--guidance-scale: {cfg.guidance_scale:g}, but {denoiser} knows no classes to be guided to; give a guide, "
            "a fine-tuned denoiser, or no scale"
        )
    rows = _rows(denoiser if loaded is None else guide, classes, name)
    target = _mask(mask, loaded) if mask and loaded else None
    drawn = [_row(model, loaded, row, target, images, cfg, scale, seed) for row in rows]
    save_grid(np.concatenate(drawn), images, out)


def again(denoiser: Path, pretrained: Path | None, attempts: Path, row: int, out: Path) -> None:
    """Draw one attempt at an image once more, as a row beside its shard tells, and write it.

    pretrained: where eps(x, t) comes from, if it comes from there (`sampling.unconditional`). What the shard has of it,
    if it was kept, is compared: a warning says where they differ. Raises UserError.
    """
    expected = "the attempts beside a shard, written by `ddrep synthesize`"
    rows = read_rows(attempts, {"key": "text", "class": "whole", "seed": "whole", "accepted": "flag"}, expected)
    if row >= len(rows):
        raise UserError(f"--row: {row}, but {attempts} has rows 0..{len(rows) - 1}")
    cfg, one, device = _settings(attempts), rows.iloc[row], pick_device()
    model = Denoiser.load(denoiser, device)
    if (cfg.unconditional == "pretrained") != (pretrained is not None) and cfg.guidance_scale:
        raise UserError(f"--pretrained: expected where sampling.unconditional is pretrained; it is {cfg.unconditional}")
    other = Denoiser.load(pretrained, device) if pretrained else None
    image = sample(model, [int(one["seed"])], cfg, [int(one["class"])] if model.classes else None, other)
    save_grid(image, 1, out)
    shard = attempts.with_suffix(".tar")
    if one["accepted"] and shard.exists():
        kept = read_shards([shard])
        check_stored(kept.images, model.image_shape, model.name)
        most = int(abs(kept.images[kept.keys.index(one["key"])].astype(int) - image[0]).max())
        if most > 1:  # as rounding is another in another batch
            log.warning(
                "%s: %s differs by up to %d grey levels; was %s its denoiser?", shard, one["key"], most, denoiser
            )
        log.info("%s of %s, to within %d grey levels", one["key"], shard, most)


def _settings(attempts: Path) -> Sampling:
    """What the attempts were drawn by. Raises UserError."""
    told = (pq.read_schema(attempts).metadata or {}).get(b"PANDAS_ATTRS", b"{}")
    try:
        # those that do not tell these are from when there was the even grid alone, and w counted in every step
        return Sampling.model_validate({"grid": "even", "guidance_interval": (0.0, 1.0)} | json.loads(told)["sampling"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{attempts}: does not tell the settings of sampling, as those do that this version writes of images that "
            "no guide drew; make it again"
        ) from None


def _rows(file: Path | None, classes: tuple[str, ...], name: str | None) -> list[int | None]:
    """The classes to draw; None where there are none."""
    if name is not None and name not in classes:
        there = f"it has {', '.join(classes)}" if classes else "it has no classes"
        raise UserError(f"--name: no class {name} in {file}; {there}")
    return [classes.index(name)] if name is not None else list(range(len(classes))) or [None]


def _row(
    model: Denoiser, guide: Guide | None, label: int | None, mask: np.ndarray | None, images: int, cfg: Sampling,
    scale: float, seed: int,
) -> np.ndarray:  # fmt: skip
    seeds = [image_seed(seed, label or 0, 0, attempt) for attempt in range(images)]
    if guide is None:
        return draw(model, seeds, cfg, eps_of(model, cfg, None if label is None else [label] * images))
    goal = np.full(images, label) if mask is None else np.broadcast_to(mask, (images, *mask.shape))
    y = torch.as_tensor(goal.copy()).long().to(model.device)
    return draw(model, seeds, cfg, towards(guide, y, scale))


def _mask(path: Path, guide: Guide) -> np.ndarray:
    """A label map (H, W) from a .npy, or from a PNG whose grey levels (or palette numbers) are classes.

    Raises UserError.
    """
    try:
        content = io.BytesIO(read_bytes(raw(path)))
        if path.suffix == ".npy":
            found = np.lib.format.read_array(content, allow_pickle=False)
        else:
            with Image.open(content, formats=FORMATS) as image:
                found = np.asarray(image)
    except Exception as e:  # of arbitrary bytes numpy and Pillow make errors of many types
        said = reason(e)
        raise UserError(f"{path}: not a mask ({said}); expected a .npy of integers or a PNG of one channel") from None
    if found.ndim != 2 or not found.size or found.dtype.kind not in "ui" or found.min() < 0 or found.max() > 255:
        raise UserError(f"{path}: {found.dtype} {found.shape}; expected integers 0..255 of shape (height, width)")
    labels = found.astype(np.uint8)
    check_masks(path, labels[None], (), guide.meta.image_shape, guide.classes)
    return labels

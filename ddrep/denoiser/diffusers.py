"""Folders of Hugging Face's `diffusers` (UNet2DModel: config.json and safetensors) from and to Denoisers.

The blocks are those of the ADM U-Net, or of Ho's, under other names (diffusers_names.py). What UNet2DModel has and our
U-Net has not is refused by the name of the setting (diffusers_config.py). Nothing of diffusers is needed to run this.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors import safe_open
from torch import Tensor

from ddrep.config import explain
from ddrep.denoiser.checkpoints import DIFFUSERS, check_finite, read_weights
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.diffusers_config import Config, SchedulerConfig, config_of, network_of, schedule_of, scheduler_of
from ddrep.denoiser.diffusers_names import in_our_names, in_their_names, modern
from ddrep.denoiser.importers import Settings, differences, shapes
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.errors import UserError, some
from ddrep.files import save_tensors, sha256, written_whole

STEM, EMA = "diffusion_pytorch_model", "unet_ema"
CONFIG, WEIGHTS, SCHEDULER = "config.json", f"{STEM}.safetensors", "scheduler_config.json"
CLASSES = "ddrep.classes"
"""Entry of the safetensors metadata in which `export_folder` keeps the names of the classes; diffusers has no place."""
M = TypeVar("M", bound=BaseModel)
log = logging.getLogger("ddrep")


def import_folder(folder: Path, given: Settings | None = None) -> Denoiser:
    """The Denoiser of a UNet2DModel's folder, or of that of a pipeline or a checkpoint, in float32, in evaluation mode;
    of the EMA's weights where they are there. Raises UserError."""
    given = given or Settings()
    for coder in ("vae", "vqvae"):
        if (folder / coder).is_dir():
            raise UserError(f"{folder}: the pipeline has a {coder}: its denoiser is one of latents, not of images")
    unet = _unet_of(folder)
    cfg = network_of(unet / CONFIG, _read(unet / CONFIG, Config), given)
    schedule = _schedule(folder, cfg, given)
    file = _file_of(unet)
    weights, metadata = _read_weights(file)
    with torch.device("meta"):
        net = UNet(cfg)
        expected = shapes(in_their_names(net.state_dict(), cfg))
    if text := differences(shapes(weights), expected):
        raise UserError(f"{file}: not quite the UNet2DModel that {CONFIG} describes: {text}")
    check_finite(file, weights)
    ours = in_our_names(weights, cfg, shapes(net.state_dict()))
    net.load_state_dict({name: t.float() for name, t in ours.items()}, strict=True, assign=True)
    provenance = {
        "kind": "import",
        "file": unet.resolve().name if unet == folder else folder.resolve().name,
        "sha256": sha256(file),
        "format": "diffusers",
        "weights": str(file.relative_to(folder)) + (" (EMA)" if unet.name == EMA else ""),
        "given": {k: v for k, v in vars(given).items() if v is not None},
    }
    # As many names as rows says that there is no null row, for diffusers does not tell: see Denoiser.null_row.
    classes = _classes(file, metadata, cfg.num_classes) or tuple(map(str, range(cfg.num_classes)))
    return Denoiser(net.eval().requires_grad_(False), schedule, provenance, classes)


def _unet_of(folder: Path) -> Path:
    """The folder with the network: of the EMA's weights, as diffusers' trainers save it, before those as trained."""
    there = [folder / name for name in (EMA, "unet") if (folder / name).is_dir()]
    unet = there[0] if there else folder
    if not (unet / CONFIG).is_file():
        found = some(sorted(path.name for path in unet.iterdir())) or "nothing"
        raise UserError(
            f"{unet}: no {CONFIG}; expected the folder of a diffusers UNet2DModel, or of its pipeline; it holds {found}"
        )
    if len(there) > 1:
        log.info("%s: the EMA's weights, of %s; left: unet, those as trained", folder, EMA)
    if unet.resolve().name == "unet" and unet == folder and (unet.resolve().parent / EMA).is_dir():
        log.warning("%s: the weights as trained; their EMA is in %s beside it: better give that", folder, EMA)
    return unet


def _file_of(unet: Path) -> Path:
    """The file of weights: the plain one, or the only variant (diffusion_pytorch_model.VARIANT.safetensors)."""
    there = sorted(path.name for path in unet.glob(f"{STEM}*"))
    plain = [name for name in (WEIGHTS, f"{STEM}.bin") if name in there]
    variants = [name for name in there if re.fullmatch(re.escape(STEM) + r"\.[^.]+\.(safetensors|bin)", name)]
    best = plain[:1] or [name for name in variants if name.endswith(".safetensors")] or variants
    if len(best) == 1:
        if left := [name for name in there if name not in best]:
            log.info("%s: weights of %s; left: %s", unet, best[0], ", ".join(left))
        return unet / best[0]
    if best:
        raise UserError(f"{unet}: {some(best, 3)}: nothing tells which; name the one you want {WEIGHTS}")
    if there:
        how = (
            f"save them in one: UNet2DModel.from_pretrained({str(unet)!r}).save_pretrained(..., max_shard_size='99GB')"
        )
        raise UserError(f"{unet}: weights in several files ({some(there, 3)}); {how}")
    found = some(sorted(path.name for path in unet.iterdir()))
    raise UserError(f"{unet / WEIGHTS}: no such file; expected the weights; there are {found}")


def export_folder(*, denoiser: Path, out: Path) -> None:
    """Write a Denoiser's file as a folder that UNet2DModel, DDPMScheduler and DDIMScheduler of diffusers read.

    The folder is new, and is there whole or not at all. UserError names what diffusers cannot express.
    """
    made = Denoiser.load(denoiser)
    if out.exists():
        raise UserError(f"{out}: is there already; give the name of a new folder")
    configs = {
        CONFIG: config_of(denoiser, made.net.cfg),
        SCHEDULER: scheduler_of(denoiser, made.schedule, made.learns_variance),
    }
    weights = in_their_names(made.net.state_dict(), made.net.cfg)
    with written_whole(out) as (draft,):
        draft.mkdir()
        save_tensors(weights, draft / WEIGHTS, {"format": "pt", CLASSES: json.dumps(made.classes)})
        for name, config in configs.items():
            (draft / name).write_text(json.dumps(config.model_dump(by_alias=True), indent=2) + "\n", "utf-8")


def _schedule(folder: Path, cfg: UNetConfig, given: Settings) -> Schedule:
    """Of the folder's scheduler_config.json, unless the options say otherwise."""
    for path in (folder / SCHEDULER, folder / "scheduler" / SCHEDULER):
        if path.is_file():
            return schedule_of(path, _read(path, SchedulerConfig), cfg, given)
    if given.schedule is None or given.num_steps is None:
        raise UserError(f"{folder}: no {SCHEDULER}, here or in scheduler/; give --schedule and --num-steps")
    return Schedule(given.schedule, given.num_steps, bool(given.rescale_timesteps))


def _read(path: Path, kind: type[M]) -> M:
    """A JSON file as a model; UserError names the setting that stands in the way."""
    try:
        return kind.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as e:
        raise UserError(f"{path}: {explain(e)}") from None
    except (ValueError, RecursionError) as e:  # JSON's and Unicode's errors
        raise UserError(f"{path}: not valid JSON ({' '.join(str(e).split())}); fetch it again") from None


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under the names of today's diffusers, mapped from the file, and the file's metadata."""
    found = read_weights(path)
    if found.first != DIFFUSERS:
        raise UserError(f"{path}: {some(found.tensors, 3)}: not names of diffusers; give the file by itself")
    metadata: dict[str, Any] = {}
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
    return {modern(name): t for name, t in found.tensors.items()}, metadata


def _classes(path: Path, metadata: Mapping[str, str], rows: int) -> tuple[str, ...]:
    """The names of the classes that `export_folder` wrote; none where it did not."""
    try:
        names = TypeAdapter(tuple[str, ...]).validate_json(metadata.get(CLASSES, "[]"))
        if names and len(names) not in (rows, rows - 1):
            raise UserError(f"{path}: {CLASSES} of its metadata names {len(names)}, its table has {rows} rows")
        return names
    except ValidationError as e:
        raise UserError(f"{path}: {CLASSES} of its metadata: {explain(e)}; export it again") from None

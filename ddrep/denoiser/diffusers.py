"""Folders of Hugging Face's `diffusers` (UNet2DModel: config.json and safetensors) from and to Denoisers.

The blocks are those of the ADM U-Net, or of Ho's, under other names (diffusers_names.py). What UNet2DModel has and our
U-Net has not is refused by the name of the setting (diffusers_config.py). Nothing of diffusers is needed to run this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddrep.config import explain
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.diffusers_config import Config, SchedulerConfig, config_of, network_of, schedule_of, scheduler_of
from ddrep.denoiser.diffusers_names import in_our_names, in_their_names, modern
from ddrep.denoiser.importers import Settings, differences, shapes
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.errors import UserError
from ddrep.files import save_tensors, sha256, written_whole

CONFIG, WEIGHTS, SCHEDULER = "config.json", "diffusion_pytorch_model.safetensors", "scheduler_config.json"
CLASSES = "ddrep.classes"
"""Entry of the safetensors metadata in which `export_folder` keeps the names of the classes; diffusers has no place."""
M = TypeVar("M", bound=BaseModel)


def import_folder(folder: Path, given: Settings | None = None) -> Denoiser:
    """The Denoiser of a UNet2DModel's folder, or of a pipeline's, in float32, in evaluation mode. Raises UserError."""
    given = given or Settings()
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    if not (unet / CONFIG).is_file():
        raise UserError(f"{unet}: no {CONFIG}; expected the folder of a diffusers UNet2DModel, or of its pipeline")
    for coder in ("vae", "vqvae"):
        if (folder / coder).is_dir():
            raise UserError(f"{folder}: the pipeline has a {coder}: its denoiser is one of latents, not of images")
    cfg = network_of(unet / CONFIG, _read(unet / CONFIG, Config), given)
    schedule = _schedule(folder, cfg, given)
    weights, metadata = _read_weights(unet / WEIGHTS)
    _compare(unet / WEIGHTS, weights, cfg)
    with torch.device("meta"):
        net = UNet(cfg)
    ours = in_our_names(weights, cfg, shapes(net.state_dict()))
    net.load_state_dict({name: t.float() for name, t in ours.items()}, strict=True, assign=True)
    provenance = {
        "kind": "import",
        "file": unet.resolve().name if unet == folder else folder.resolve().name,
        "sha256": sha256(unet / WEIGHTS),
        "format": "diffusers",
        "given": {k: v for k, v in vars(given).items() if v is not None},
    }
    # As many names as rows says that there is no null row, for diffusers does not tell: see Denoiser.null_row.
    classes = json.loads(metadata.get(CLASSES, "null")) or map(str, range(cfg.num_classes))
    return Denoiser(net.eval().requires_grad_(False), schedule, provenance, tuple(classes))


def export_folder(file: Path, out: Path) -> None:
    """Write a Denoiser's file as a folder that UNet2DModel, DDPMScheduler and DDIMScheduler of diffusers read.

    The folder is new, and is there whole or not at all. UserError names what diffusers cannot express.
    """
    denoiser = Denoiser.load(file)
    if out.exists():
        raise UserError(f"{out}: is there already; give the name of a new folder")
    configs = {
        CONFIG: config_of(file, denoiser.net.cfg),
        SCHEDULER: scheduler_of(file, denoiser.schedule, denoiser.learns_variance),
    }
    weights = in_their_names(denoiser.net.state_dict(), denoiser.net.cfg)
    with written_whole(out) as (draft,):
        draft.mkdir()
        save_tensors(weights, draft / WEIGHTS, {"format": "pt", CLASSES: json.dumps(denoiser.classes)})
        for name, config in configs.items():
            (draft / name).write_text(json.dumps(config.model_dump(by_alias=True), indent=2) + "\n", encoding="utf-8")


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
    except ValueError as e:  # JSON's and Unicode's errors
        raise UserError(f"{path}: not valid JSON ({' '.join(str(e).split())}); fetch it again") from None


def _read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors under the names of today's diffusers, mapped from the file, and the file's metadata."""
    if not path.is_file():
        raise UserError(f"{path}: no such file; expected the weights as safetensors, in one file")
    try:
        with safe_open(path, framework="pt") as f:
            return {modern(name): f.get_tensor(name) for name in f.keys()}, f.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise UserError(f"{path}: truncated, or not a safetensors file ({e}); fetch it again") from None


def _compare(path: Path, weights: Mapping[str, Tensor], cfg: UNetConfig) -> None:
    """Raise UserError, with what differs, unless names and shapes are those that config.json describes."""
    with torch.device("meta"):
        expected = shapes(in_their_names(UNet(cfg).state_dict(), cfg))
    if text := differences(shapes(weights), expected):
        raise UserError(f"{path}: not quite the UNet2DModel that {CONFIG} describes: {text}")

"""A Denoiser: network, schedule and provenance, in one safetensors file."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from torch import Tensor

from ddrep.config import Features, Taps, explain
from ddrep.denoiser.network import MIDDLE, DenoiserFile
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet
from ddrep.device import autocast
from ddrep.errors import UserError
from ddrep.saved import load, save


@dataclass
class Denoiser:
    """eps(x_t, t), optionally of a class; everything about time and noise that sampling needs is in `schedule`."""

    net: UNet = field(repr=False)
    schedule: Schedule
    provenance: dict[str, Any] = field(default_factory=dict)
    """Where it came from: file, digest, the training section, images seen."""
    classes: tuple[str, ...] = ()
    """Names of the classes of a class-conditional denoiser, by label; the null row is not among them.

    As many names as the label table has rows: there is no null row, as in published class-conditional files.
    """
    path: Path | None = None
    """The file it was read from."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """In which eps is computed; bf16 by mixed precision, and given in that of the images."""

    @property
    def name(self) -> str:
        """What messages call it: its file, or the one that it was imported from."""
        return str(self.path or self.provenance.get("file") or "the denoiser")

    @property
    def device(self) -> torch.device:
        return next(self.net.parameters()).device

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        cfg = self.net.cfg
        return cfg.in_channels, cfg.image_size, cfg.image_size

    @property
    def null_row(self) -> int:
        """The label that stands for no class: the last row of the table. UserError if every row is a class."""
        if self.classes and len(self.classes) == self.net.cfg.num_classes:
            raise UserError(
                f"denoiser {self.provenance.get('file', '')}: all {len(self.classes)} rows of its label table are "
                "classes, but a row that stands for none is wanted; start from an unconditional denoiser"
            )
        return self.net.cfg.num_classes - 1

    @property
    def learns_variance(self) -> bool:
        return self.net.cfg.out_channels == 2 * self.net.cfg.in_channels

    def check(self, x: Tensor) -> None:
        """Raise UserError unless x are floats (N, C, H, W) of the denoiser's image shape; any other size would pass
        the convolutions, and give what nothing was trained for."""
        if x.shape[1:] != self.image_shape or not x.is_floating_point():
            expected = ", ".join(map(str, self.image_shape))
            raise UserError(
                f"{self.name}: images are {tuple(x.shape)} {x.dtype}; expected (N, {expected}) of floats in [-1, 1], "
                "as ddrep.to_unit makes of uint8"
            )

    def output(self, x: Tensor, index: Tensor, y: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """x_t (N, C, H, W), schedule indices (N,), labels (N,) -> eps, and the raw variance output if it is learned.

        Raises UserError for images of another shape, for labels that are wanting, and for those that none hears.
        """
        self.check(x)
        if (y is None) == bool(self.net.cfg.num_classes):
            wrong = "class-conditional, but no labels are given" if y is None else "unconditional, but labels are given"
            raise UserError(f"{self.name}: {wrong}; give a denoiser of the other kind, or see ddrep.sampling.guidance")
        out = self._passed(x, self.schedule.embedded(index).to(x.dtype), *([] if y is None else [y]))
        out = out.to(x.dtype) if self.precision == "bf16" else out
        if not self.learns_variance:
            return out, None
        eps, variance = out.chunk(2, dim=1)
        return eps, variance

    def _passed(self, *inputs: Tensor) -> Tensor:
        """Through the network; in fp32 what is around it decides on the precision: training's mixed precision does."""
        with autocast(self.precision, inputs[0].device) if self.precision == "bf16" else contextlib.nullcontext():
            out: Tensor = self.net(*inputs)
        return out

    def eps(self, x: Tensor, index: Tensor, y: Tensor | None = None) -> Tensor:
        """The noise estimate alone; see `output`."""
        return self.output(x, index, y)[0]

    def features(
        self,
        x0: Tensor,
        blocks: Sequence[str] = (MIDDLE,),
        timesteps: Sequence[float] = Features().timesteps,
        noise: Literal["none", "fixed"] = Features().noise,
    ) -> Tensor:
        """What it makes of clean images (N, C, H, W) in [-1, 1] on its own device: float32 (N, channels, h, w).

        By timestep, then by block, side by side, each at unit root mean square an image and averaged to the width of
        the smallest. The default is what the rejection classifier reads (paper, 5.3.1).

        blocks: middle, up1, up2, ... (the last block of each decoder level), output_blocks.N. timesteps: 0..999, in
        embedded units; a pass of the network each. noise: none feeds the clean image, fixed noises it to the timestep
        first. Gradients run through. Raises UserError for other images, and for blocks that the network has not.
        """
        from ddrep.denoiser.features import check_clean, pooled_features  # which are made of what is here

        self.check(x0)
        check_clean(self, x0)
        try:
            taps = Taps.model_validate({"blocks": blocks, "timesteps": timesteps, "noise": noise})
        except ValidationError as e:
            raise UserError(f"features: {explain(e)}") from None
        return pooled_features(self, x0, taps)

    def save(self, path: Path) -> None:
        """Write weights and metadata to `path`, whole or not at all."""
        content = DenoiserFile(
            network=self.net.cfg, schedule=self.schedule, provenance=self.provenance, classes=self.classes
        )
        save(path, content, self.net.state_dict())

    @classmethod
    def load(cls, path: str | Path, device: str | torch.device = "cpu") -> Denoiser:
        """Read a file written by `save`, in evaluation mode. Raises UserError for any other file."""
        content, net = load(path := Path(path), DenoiserFile, lambda content: UNet(content.network), device)
        schedule = Schedule(**dataclasses.asdict(content.schedule))
        return cls(net, schedule, content.provenance, content.classes, path)

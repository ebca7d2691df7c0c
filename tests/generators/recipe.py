"""How the stored outputs of the published DiffAE were made, so that anyone can make them again.

`BeatGANsAutoencModel` and `SpacedDiffusionBeatGans` of github.com/phizaz/diffae (MIT, commit 00c57d3) in float64, where
what that code casts to float32 (norms, softmax, times) is left in float64; weights of `weights`, inputs of `inputs`:
    z       encoder(x0)
    eps     model(x, t, x_start=x0).pred
    latent  latent_net(zt, t).pred
    drawn   its DDIM of latents from zt in 10 steps, const0.008, no clipping
    image   its DDIM of images from x, told z, in 5 steps, linear
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.denoiser.recipe import fill

SIZES: dict[str, Any] = {
    "image_size": 32, "model_channels": 32, "channel_mult": (1, 2), "num_res_blocks": 1, "encoder_mult": (1, 2, 2),
    "encoder_res_blocks": 2, "attention_sizes": (16,), "latent": 32, "embed_channels": 48, "latent_layers": 4,
    "latent_width": 64,
}  # fmt: skip
"""As `DiffAEConfig` calls them; one head, blocks that resample."""
LATENT_STEPS, STEPS = 10, 5


def inputs() -> dict[str, Tensor]:
    """x and x0 (2, 3, 32, 32), zt (2, 32), t (2,)."""
    rng, shape = np.random.default_rng(0), (2, 3, 32, 32)
    x, x0, zt = rng.standard_normal(shape), rng.uniform(-1, 1, shape), rng.standard_normal((2, 32))
    given = {"x": x, "x0": x0, "zt": zt, "t": np.array([300.0, 812.0])}
    return {name: torch.from_numpy(value) for name, value in given.items()}


def weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """By the published names; the layer that the published perceptron holds under two names is one."""
    made = fill(shapes)
    return {name: made[re.sub(r"cond_layers\.1\.", "linear_emb.", name)] for name in made}


def published_names(ours: Mapping[str, torch.Size]) -> dict[str, torch.Size]:
    """Names and shapes of the published state dict, of those of our network."""
    found: dict[str, torch.Size] = {}
    for name, shape in ours.items():
        theirs = re.sub(r"^unet\.time_embed\.", "time_embed.time_embed.", name).removeprefix("unet.")
        found[theirs] = shape
        if ".linear_emb." in name:
            found[theirs.replace(".linear_emb.", ".cond_layers.1.")] = shape
    return {name: shape for name, shape in found.items() if name not in ("latent_mean", "latent_std")}

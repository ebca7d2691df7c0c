"""How the stored outputs of the published NVAE were made, so that anyone can make them again.

`AutoEncoder` of github.com/NVlabs/NVAE (commit 9fc1a28, whose licence is for non-commercial use: nothing of it is here)
in float64 on a CPU, in evaluation mode, its `.cuda()` and the check for a GPU taken out; `ARGS`, weights of `weights`,
inputs of `inputs`, and in `distributions.sample_normal_jit` the noise of `inputs`, a group after the other:
    said    logits of model(x)
    kl      its kl_all, of which no reduction over images is made
    drawn   model.sample(2, TEMPERATURE)
    log_p   decoder_output(0.1 said).log_prob(x): so small that the published code approximates no probability
    mean    decoder_output(0.1 said).mean(), in [0, 1]
    names   of the state dict, but for buffers of integers and `weight_normalized`
Of images every eighth pixel of every eighth row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.denoiser.recipe import fill

ARGS: dict[str, Any] = {
    "dataset": "cifar10", "use_se": True, "res_dist": True, "num_x_bits": 8, "num_latent_scales": 2,
    "num_groups_per_scale": 3, "num_latent_per_group": 4, "ada_groups": True, "min_groups_per_scale": 2,
    "num_channels_enc": 8, "num_channels_dec": 8, "num_preprocess_blocks": 1, "num_preprocess_cells": 2,
    "num_cell_per_cond_enc": 2, "num_postprocess_blocks": 1, "num_postprocess_cells": 2, "num_cell_per_cond_dec": 2,
    "num_mixture_dec": 3, "num_nf": 1, "arch_instance": "res_mbconv",
}  # fmt: skip
"""Images of 32 pixels, two groups of 8x8 and three of 16x16, with flows."""
SHAPES = [(4, 8, 8)] * 2 + [(4, 16, 16)] * 3
TEMPERATURE = 0.7


def inputs() -> tuple[Tensor, list[Tensor]]:
    """Levels x (2, 3, 32, 32) in [0, 1], and noise of each group. The published code takes level 254 for the last one,
    so that its probabilities sum to more than 1: there is none."""
    rng = np.random.default_rng(0)
    levels = rng.integers(0, 256, (2, 3, 32, 32))
    levels[levels == 254] = 255
    return torch.from_numpy(levels / 255), [torch.from_numpy(rng.standard_normal((2, *shape))) for shape in SHAPES]


def weights(shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """By the published names; variances above 0, and norms of weights near 1."""
    made = fill(shapes)
    for name, t in made.items():
        if name.endswith("running_var"):
            made[name] = t.abs() + 0.5
        elif name.endswith("log_weight_norm"):
            made[name] = 0.1 * t
    return made

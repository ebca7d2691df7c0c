"""How the stored outputs of the published D2C's diffusion of latents were made, so that anyone can make them again.

`Model` and `generalized_steps` of d2c/diffusion in github.com/jiamings/d2c (MIT, commit ae3b0b9), in float64 with the
weights that `tests.denoiser.recipe.fill` gives its names (casts to "cuda" left out); inputs of `inputs`:
    eps     Model(x, t)
    latent  generalized_steps(x, `SEQUENCE`, ..., eta=0, last=True) with the linear betas 1e-4 to 0.02 on 1000 steps,
            then times `STD` plus `MEAN`, as the layer between diffusion and autoencoder has it
Of the autoencoder nothing was run or read: it is under another licence.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

SIDE, CHANNELS = 8, 4
MODEL = {"ch": 32, "out_ch": CHANNELS, "ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [4], "dropout": 0.1}
"""Of the published configuration; in_channels is CHANNELS, resamp_with_conv true, the type simple."""
SEQUENCE = [0, 200, 400, 600, 800]
"""The levels that our DDIM visits in five steps."""
MEAN, STD = [0.5, -1.0, 0.0, 2.0], [2.0, 0.5, 1.0, 0.25]


def inputs() -> dict[str, Tensor]:
    """x (2, 4, 8, 8), t (2,)."""
    x = np.random.default_rng(0).standard_normal((2, CHANNELS, SIDE, SIDE))
    return {"x": torch.from_numpy(x), "t": torch.tensor([300.0, 812.0], dtype=torch.float64)}

"""How the stored reference outputs were made, so that anyone can make them again.

Weights: for every name of the state dict, standard normal numbers of `numpy.random.default_rng(crc32(name))`, scaled
by 1/sqrt(fan-in) for matrices and kernels, by 0.1 for vectors, plus 1 for the weights of norms. So no layer is zero,
and an independent construction of the same names gives the same network. Input, times and labels: `inputs` below.
The outputs in `unet_reference.npz` are of `UNetModel` in openai/improved-diffusion (`improved_*`) and
openai/guided-diffusion (`guided_*`), in float64, with these weights, and of the output blocks named in `TAPS`.
"""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

CASES: dict[str, dict[str, Any]] = {
    "improved_scale_shift": {"num_heads": 2, "use_scale_shift_norm": True},
    "improved_classes": {"num_heads": 2, "use_scale_shift_norm": False, "num_classes": 5},
    "guided_updown": {"num_head_channels": 32, "resblock_updown": True, "use_scale_shift_norm": True},
    "guided_new_order": {
        "num_heads": 4,
        "use_new_attention_order": True,
        "use_scale_shift_norm": True,
        "num_classes": 5,
    },
}
COMMON: dict[str, Any] = {
    "in_channels": 3,
    "model_channels": 32,
    "out_channels": 6,
    "num_res_blocks": 1,
    "channel_mult": (1, 2),
}
SIZE, ATTENTION_AT = 16, 8
TAPS = (0, 1, 3)


def fill(shapes: Mapping[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Weights by name and shape, float64."""
    return {name: _tensor(name, shape) for name, shape in shapes.items()}


def _tensor(name: str, shape: torch.Size) -> torch.Tensor:
    values = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(tuple(shape))
    if len(shape) == 1:
        is_norm = name.endswith("weight")
        return torch.from_numpy(0.1 * values + is_norm)
    return torch.from_numpy(values / np.sqrt(np.prod(shape[1:])))


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x (2, 3, 16, 16), t (2,) in embedded units, y (2,)."""
    x = np.random.default_rng(0).standard_normal((2, 3, SIZE, SIZE))
    return torch.from_numpy(x), torch.tensor([300.0, 812.5], dtype=torch.float64), torch.tensor([1, 4])

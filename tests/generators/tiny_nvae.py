"""An NVAE of 8x8 images, small enough to be trained in a test, and its section."""

from __future__ import annotations

from typing import Any

import torch

from ddrep.config import PretrainNVAE
from ddrep.generators.network import nvae_of
from ddrep.generators.nvae import NVAE, NVAENetwork

NETWORK: dict[str, Any] = {"channels": 4, "outer_blocks": 1, "groups": [1, 2], "latent": 2, "mixtures": 2}


def section(**settings: Any) -> PretrainNVAE:
    return PretrainNVAE.model_validate({"network": NETWORK, "steps": 3, "batch": 8, "warmup": 1} | settings)


def nvae(size: int = 8, seed: int = 0, channels: int = 1) -> NVAE:
    """Weights from N(0, 0.3^2), so that no layer is zero, but norms as they are made; drawn of at temperature 0.7."""
    torch.manual_seed(seed)
    net = NVAENetwork(nvae_of(section().network, size, channels))
    for p in net.parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3)
    return NVAE(net.eval().requires_grad_(False), 0.7, provenance={"made": "at random"})

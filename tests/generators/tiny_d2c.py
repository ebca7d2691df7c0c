"""A D2C of 8x8 images, small enough to be trained in a test, and its section."""

from __future__ import annotations

from typing import Any

import torch

from ddrep.config import PretrainD2C
from ddrep.denoiser.schedule import Schedule
from ddrep.generators.d2c import D2C, D2CNetwork
from ddrep.generators.network import d2c_of

NETWORK: dict[str, Any] = {
    "model_channels": 32, "channel_mult": [1], "num_res_blocks": 1, "attention_sizes": [4], "num_heads": 1,
    "latent_channels": 2, "autoencoder_widths": [8, 16], "autoencoder_blocks": 1,
}  # fmt: skip
LATENTS = {"steps": 3, "batch": 8}
CONTRAST = {"queue": 16, "width": 8}


def section(**settings: Any) -> PretrainD2C:
    base = {"network": NETWORK, "steps": 3, "batch": 8, "warmup": 1, "precision": "fp32", "latents": LATENTS}
    return PretrainD2C.model_validate(base | {"contrast": CONTRAST} | settings)


def d2c(size: int = 8, seed: int = 0) -> D2C:
    """Weights from N(0, 0.1^2), so that no layer is zero; of grey images."""
    torch.manual_seed(seed)
    net = D2CNetwork(d2c_of(section().network, size, 1))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return D2C(net.eval().requires_grad_(False), Schedule("linear"), provenance={"made": "at random"})

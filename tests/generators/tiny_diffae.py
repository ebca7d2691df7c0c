"""A DiffAE of 8x8 images, small enough to be trained in a test, and its section."""

from __future__ import annotations

from typing import Any

import torch

from ddrep.config import PretrainDiffAE
from ddrep.denoiser.schedule import Schedule
from ddrep.generators.diffae import DiffAE, DiffAENetwork
from ddrep.generators.network import diffae_of

NETWORK: dict[str, Any] = {
    "model_channels": 32, "channel_mult": [1, 1], "num_res_blocks": 1, "attention_sizes": [4], "num_heads": 1,
    "encoder_mult": [1, 1], "latent": 8, "embed_channels": 16, "latent_layers": 3, "latent_width": 16,
}  # fmt: skip
LATENTS = {"steps": 3, "batch": 8}


def section(**settings: Any) -> PretrainDiffAE:
    base = {"network": NETWORK, "steps": 3, "batch": 8, "warmup": 1, "precision": "fp32", "latents": LATENTS}
    return PretrainDiffAE.model_validate(base | settings)


def diffae(size: int = 8, seed: int = 0, channels: int = 1) -> DiffAE:
    """Weights from N(0, 0.1^2), so that no layer is zero."""
    torch.manual_seed(seed)
    net = DiffAENetwork(diffae_of(section().network, size, channels))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return DiffAE(net.eval().requires_grad_(False), Schedule("linear"), provenance={"made": "at random"})

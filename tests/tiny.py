"""What several tests need: an 8x8 denoiser whose layers are all alive, and real images small enough for it."""

from typing import Any

import numpy as np
import torch

from ddrep import config
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig

CLASSES = ("T-shirt", "Trouser", "Pullover")


def denoiser(num_classes: int = 0, seed: int = 0, schedule: Schedule | None = None, **fields: Any) -> Denoiser:
    """Weights from N(0, 0.1^2), so that no layer is zero; `num_classes` rows in the table, the null row included."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"image_size": 8, "in_channels": 1, "out_channels": 1, "model_channels": 32}
    settings |= {"channel_mult": (1, 1)}
    settings |= {"num_res_blocks": 1, "attention_sizes": (4,), "num_heads": 2, "num_classes": num_classes}
    net = UNet(UNetConfig(**(settings | fields)))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    classes = tuple(f"class {i}" for i in range(num_classes - 1))
    return Denoiser(net.eval().requires_grad_(False), schedule or Schedule(), {"made": "at random"}, classes)


def images(split: str = "train", classes: int = 3, per_class: int = 20) -> LabelledImages:
    """The embedded set's first classes, every third pixel of its middle: uint8 (N, 8, 8, 1)."""
    whole = labelled(config.Data(), split, 0, 0)
    rows = np.concatenate([np.flatnonzero(whole.labels == c)[:per_class] for c in range(classes)])
    pixels = np.ascontiguousarray(whole.images[rows][:, 2:26:3, 2:26:3])
    return LabelledImages(pixels, whole.labels[rows], [whole.keys[i] for i in rows], whole.classes[:classes])

"""The paper's own figures (Graikos et al., BMVC 2023); of Tables 3 and 4 top-1 in percent on Tiny ImageNet."""

from __future__ import annotations

import math

TABLE3 = {"real": 52.24, "improved-ddpm": 35.37, "classifier-free": 36.12, "ours": 45.09}
"""ResNet-18 without mixing, on real images alone or on a source's images alone."""

TABLE4 = {
    ("resnet18", False): (52.24, 56.13, 58.13, 59.37),
    ("resnet18", True): (52.9, 58.9, 62.01, 62.75),
    ("wide_resnet50_2", False): (53.27, 58.57, 61.71, 62.82),
    ("wide_resnet50_2", True): (56.56, 62.71, 66.42, 66.82),
    ("resnext50_32x4d", False): (53.98, 59.33, 62.27, 63.15),
    ("resnext50_32x4d", True): (57.98, 64.4, 66.85, 67.05),
}
"""(timm's name, Mixup+CutMix) -> real, and real with 1x, 2x, 3x of the paper's images."""


def paper_top1(number: int, architecture: str, mix: bool, source: str, scale: int) -> float:
    """The paper's figure for a cell of Table 3 or 4; NaN where it has none."""
    if number == 3:
        return TABLE3.get(source, math.nan) if (architecture, mix) == ("resnet18", False) else math.nan
    row = TABLE4.get((architecture, mix), ())
    return row[scale] if source in ("real", "ours") and scale < len(row) else math.nan


TABLE1 = {
    "male": {"ours": 15.34, "diffae": 11.52, "d2c": 13.44, "ddim-i": 29.03, "nvae": 41.07},
    "female": {"ours": 9.94, "diffae": 7.29, "d2c": 9.51, "ddim-i": 15.17, "nvae": 16.57},
    "blond": {"ours": 13.07, "diffae": 16.10, "d2c": 17.61, "ddim-i": 29.09, "nvae": 31.24},
    "non-blond": {"ours": 10.97, "diffae": 8.48, "d2c": 8.94, "ddim-i": 19.76, "nvae": 16.73},
}
"""FID on CelebA-64 by class and method, by the methods' names here."""

TABLE2 = {"ddim-i": (0.28, 106.90), "diffae": (0.23, 87.68), "ours": (0.31, 74.74)}
"""mIoU and FID on 500 images of CelebA-Mask."""
NAMES = {"diffae": "DiffAE", "d2c": "D2C", "nvae": "NVAE"}
"""Of methods, as the paper writes them where that is otherwise."""
TABLE2_STEPS = 10
"""Of DDIM in which it was made."""
ATTRIBUTES = {
    ("male", True): "male",
    ("male", False): "female",
    ("blond", True): "blond",
    ("blond", False): "non-blond",
}
"""(attribute of the overlay celeba-64, present) -> the paper's class."""

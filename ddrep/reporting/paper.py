"""The paper's own figures (Graikos et al., BMVC 2023, Tables 3 and 4): top-1 in percent on Tiny ImageNet."""

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

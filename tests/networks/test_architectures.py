"""The architectures: their sizes, and that metadata build the one that they are of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from ddrep.config import Features, ProbeReading, Tap, Taps
from ddrep.networks.architectures import ARCHITECTURES, build, feature_cnn, pixel_cnn
from ddrep.networks.metadata import EvaluatorMeta, GuideMeta, JudgeMeta, NetworkMeta, SegmenterMeta


def test_the_feature_cnn_has_the_papers_size() -> None:
    with torch.device("meta"):
        sizes = {h: sum(p.numel() for p in feature_cnn(1024, 200, h, 0.2).parameters()) for h in (192, 256)}
    assert round(sizes[192] / 1e6, 1) == 1.2 and round(sizes[256] / 1e6, 2) == 2.09


@pytest.mark.parametrize(("make", "size"), [(feature_cnn, 7), (pixel_cnn, 28)])
def test_both_cnns_have_four_layers_and_a_logit_a_class(make: Callable[..., nn.Module], size: int) -> None:
    net = make(3, 5, 32, 0.2)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 4
    assert net(torch.zeros(2, 3, size, size)).shape == (2, 5)


SIZES: dict[str, Any] = {"channels": 3, "hidden": 8, "denoiser_sha256": ""}
TAPS = Taps(blocks=("middle",), timesteps=(500,))
PROBES = ProbeReading(taps=tuple(Tap(block=block, timestep=10) for block in ("middle", "up1")), pool=1, noises=1)
METAS: list[NetworkMeta] = [
    JudgeMeta(kind="features", num_classes=2, dropout=0.1, features=Features(), **SIZES),
    JudgeMeta(kind="pixels", num_classes=2, dropout=0.1, channels=3, hidden=8),
    JudgeMeta(kind="probe", num_classes=2, channels=7, widths=(3, 4), denoiser_sha256="", probes=PROBES),
    *(
        GuideMeta.model_validate(
            {"of": of, "reads": reads, "taps": TAPS, "classes": ("a", "b"), "image_shape": (3, 16, 16), **SIZES}
        )
        for of in ("attribute", "mask")
        for reads in ("features", "pixels")
    ),
    EvaluatorMeta(name="e", image_shape=(16, 16, 3), classes=("a", "b"), width=4),
    SegmenterMeta(image_shape=(16, 16, 3), classes=("a", "b"), width=4),
]


@pytest.mark.parametrize("meta", METAS, ids=lambda meta: f"{meta.of}-{meta.reads}")
def test_metadata_build_the_network_that_they_are_of(meta: NetworkMeta) -> None:
    y = build(meta).eval()(torch.zeros(2, 7) if meta.reads == "probe" else torch.zeros(2, 3, 16, 16))
    assert y.shape == ((2, 2, 16, 16) if meta.of in ("mask", "segmenter") else (2, 2))


def test_every_architecture_is_built_from_some_metadata() -> None:
    assert [(meta.of, meta.reads) for meta in METAS] == list(ARCHITECTURES)

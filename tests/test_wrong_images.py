"""Images that a network was not made for, and broken networks: one line, where there was some silent answer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ddrep.cli import main
from ddrep.config import Features, PixelHead, Sampling, Stage, Taps
from ddrep.data.batches import to_unit
from ddrep.data.shards import write_shard
from ddrep.denoiser.features import bottleneck_features, feature_maps, pixel_features, pooled_features
from ddrep.errors import UserError
from ddrep.networks.architectures import build
from ddrep.networks.guides import Guide
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.networks.metadata import EvaluatorMeta, GuideMeta, JudgeMeta, SegmenterMeta
from ddrep.sampling.sampler import sample
from ddrep.training.judges import run_pixels
from tests import tiny

CPU = torch.device("cpu")
TAPS = Taps(blocks=("middle", "up1"), timesteps=(500,))
GOOD = (2 * np.arange(128)).reshape(2, 8, 8, 1).astype(np.uint8)
STORED: dict[str, np.ndarray] = {
    "larger": np.zeros((2, 16, 16, 1), np.uint8),
    "oblong": np.zeros((2, 8, 12, 1), np.uint8),
    "in colour": np.zeros((2, 8, 8, 3), np.uint8),
    "floats": np.zeros((2, 8, 8, 1), np.float32),
    "16 bits": np.zeros((2, 8, 8, 1), np.uint16),
    "a single one": np.zeros((8, 8, 1), np.uint8),
}
TENSORS = {
    "larger": torch.zeros(2, 1, 16, 16),
    "smaller": torch.zeros(2, 1, 4, 4),
    "in colour": torch.zeros(2, 3, 8, 8),
    "uint8": torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
    "a single one": torch.zeros(1, 8, 8),
}


def judge(kind: str) -> Judge:
    sizes: dict[str, Any] = {"num_classes": 3, "hidden": 8, "dropout": 0.0}
    if kind == "pixels":
        on_pixels = JudgeMeta(kind="pixels", channels=1, image_shape=(1, 8, 8), **sizes)
        return Judge(build(on_pixels).eval().requires_grad_(False), on_pixels)
    meta = JudgeMeta(kind="features", channels=64, features=Features(), denoiser_sha256="", **sizes)
    return Judge(build(meta).eval().requires_grad_(False), meta, tiny.denoiser())


def guide(of: Any, reads: Any) -> Guide:
    meta = GuideMeta(
        of=of, reads=reads, taps=TAPS, hidden=8, channels=1 if reads == "pixels" else 64, classes=("a", "b"),
        image_shape=(1, 8, 8), denoiser_sha256="",
    )  # fmt: skip
    return Guide(build(meta).eval().requires_grad_(False), meta, tiny.denoiser())


def measuring(kind: str) -> Any:
    shown: dict[str, Any] = {"image_shape": (8, 8, 1), "classes": ("a", "b"), "width": 4}
    if kind == "evaluator":
        meta = EvaluatorMeta(name="tiny", **shown)
        return Evaluator(build(meta).eval().requires_grad_(False), meta)
    maps = SegmenterMeta(**shown)
    return Segmenter(build(maps).eval().requires_grad_(False), maps)


Asked = tuple[nn.Module, Callable[[np.ndarray], np.ndarray]]
"""A network, and what it is asked about stored images."""


def _judge(kind: str) -> Asked:
    made = judge(kind)
    return made.net, made.probabilities


def _guide(of: str, reads: str) -> Asked:
    made = guide(of, reads)
    return made.net, made.probabilities


JUDGES: dict[str, Callable[[], Asked]] = {
    **{f"judge on {kind}": partial(_judge, kind) for kind in ("features", "pixels")},
    **{
        f"guide of {of} on {reads}": partial(_guide, of, reads)
        for of in ("attribute", "mask")
        for reads in ("features", "pixels")
    },
    "evaluator": lambda: (e := measuring("evaluator"), (e.net, e.probabilities))[1],
    "features of the evaluator": lambda: (e := measuring("evaluator"), (e.net, e.features))[1],
    "segmenter": lambda: (s := measuring("segmenter"), (s.net, s.label_maps))[1],
}
"""Whatever judges stored images."""


@pytest.mark.parametrize("who", JUDGES)
@pytest.mark.parametrize("images", STORED)
def test_stored_images_of_another_kind_are_refused(who: str, images: str) -> None:
    ask = JUDGES[who]()[1]
    assert np.isfinite(ask(GOOD)).all(), "or nothing is tested here"
    with pytest.raises(UserError, match=r"images are .*, expected .*uint8") as said:
        ask(STORED[images])
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("who", JUDGES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_broken_network_judges_nothing(who: str, value: float) -> None:
    net, ask = JUDGES[who]()
    next(iter(net.parameters())).fill_(value)
    with pytest.raises(UserError, match="gives values that are not finite; its weights are broken") as said:
        ask(GOOD)
    assert "\n" not in str(said.value)


FEATURES: dict[str, Callable[[torch.Tensor], Any]] = {
    "eps": lambda x: tiny.denoiser().eps(x, torch.zeros(len(x), dtype=torch.long)),
    "bottleneck": lambda x: bottleneck_features(tiny.denoiser(), x, Features()),
    "maps": lambda x: feature_maps(tiny.denoiser(), x, TAPS),
    "pooled": lambda x: pooled_features(tiny.denoiser(), x, TAPS),
    "of pixels": lambda x: pixel_features(tiny.denoiser(), x, TAPS),
    "guide on features": lambda x: guide("attribute", "features").log_likelihood(x, torch.zeros(len(x)).long()),
    "guide on pixels": lambda x: guide("attribute", "pixels").log_likelihood(x, torch.zeros(len(x)).long()),
}


@pytest.mark.parametrize("who", FEATURES)
@pytest.mark.parametrize("images", TENSORS)
def test_tensors_of_another_shape_or_type_are_refused(who: str, images: str) -> None:
    FEATURES[who](torch.zeros(2, 1, 8, 8))
    with pytest.raises(UserError, match=r"images are .*, expected|images are .*; expected \(N, 1, 8, 8\)") as said:
        FEATURES[who](TENSORS[images])
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("scale", [255, 1.1, np.nan])
def test_clean_images_outside_their_range_are_refused(scale: float) -> None:
    with pytest.raises(UserError, match=r"images are in \[.*\], expected clean ones in \[-1, 1\]"):
        bottleneck_features(tiny.denoiser(), torch.linspace(0, scale, 64).reshape(1, 1, 8, 8), Features())
    for level in (0, 255):
        assert bottleneck_features(tiny.denoiser(), to_unit(np.full_like(GOOD, level)), Features()).isfinite().all()


def test_only_uint8_is_taken_for_levels() -> None:
    np.testing.assert_allclose(to_unit(np.array([[[0, 255]]], np.uint8)).numpy(), [[[[-1, 1]]]])
    for images in (np.zeros((1, 2, 2), np.float32), np.zeros((1, 2, 2), np.int64), np.zeros((2, 2), np.uint8)):
        with pytest.raises(UserError, match="expected uint8"):
            to_unit(images)


def test_the_control_notes_the_size_that_it_was_trained_on(tmp_path: Path) -> None:
    """A network that averages over the image takes any size, and would judge 16x16 by what it knows of 8x8."""
    tiny.denoiser().save(tmp_path / "d.safetensors")
    write_shard(tmp_path / "train.tar", tiny.images())
    outputs = tmp_path / "pixels.safetensors", tmp_path / "report.json"
    run_pixels(
        Stage[PixelHead](config=PixelHead(epochs=1, hidden=8)),
        train=tmp_path / "train.tar",
        out=outputs[0],
        report=outputs[1],
    )
    control = Judge.load(outputs[0], tmp_path / "d.safetensors", CPU)
    assert control.probabilities(GOOD).shape == (2, 3)
    with pytest.raises(UserError, match="the rejection classifier on pixels: images are 16x16x1 uint8, expected 8x8x1"):
        control.probabilities(STORED["larger"])


@pytest.mark.parametrize(
    ("classes", "labels", "says"),
    [
        (4, [0, 3], r"labels: 3 asked for, but the denoiser knows 0\.\.2"),  # 3 is the null row
        (4, [-1, 0], r"labels: -1 asked for, but the denoiser knows 0\.\.2"),
        (4, [0], "labels: 1 for 2 seeds; expected one for each"),
        (4, None, "the denoiser: class-conditional, but no labels are given"),
        (0, [0, 1], "labels: 0 asked for, but the denoiser is unconditional"),
    ],
)
@pytest.mark.parametrize("scale", [0.0, 0.5])
def test_labels_that_the_denoiser_has_not(classes: int, labels: list[int] | None, says: str, scale: float) -> None:
    with pytest.raises(UserError, match=says) as said:
        sample(tiny.denoiser(classes), [1, 2], Sampling(steps=2, guidance_scale=scale), labels)
    assert "\n" not in str(said.value)


def test_labels_that_nobody_hears_are_refused() -> None:
    x, index = torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.long)
    with pytest.raises(UserError, match="unconditional, but labels are given"):
        tiny.denoiser().eps(x, index, torch.tensor([0, 1]))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("solver", ["ddim", "dpm-solver++"])
def test_a_broken_denoiser_draws_nothing(tmp_path: Path, value: float, solver: str, capsys: Any) -> None:
    """Rounded, NaN is black; clipped, infinity is black or white."""
    broken = tiny.denoiser()
    broken.net.out[-1].get_parameter("bias").fill_(value)
    file = tmp_path / "broken.safetensors"
    broken.path = file
    with pytest.raises(UserError, match=r"broken\.safetensors: gave values that are not finite for 3 of 3 images"):
        sample(broken, [1, 2, 3], Sampling(solver=solver, steps=2))
    broken.save(file)
    options = ["--solver", solver, "--steps", "3", "--out", str(tmp_path / "grid.png")]
    assert main(["sample", str(file), *options]) == 2
    assert f"{file}: out.2.bias has values that are not finite" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "grid.png").exists()


def test_guidance_beyond_the_range_of_floats_draws_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite for 2 of 2 images.* guided too strongly \(lower the scale\)"):
        sample(tiny.denoiser(4), [1, 2], Sampling(steps=2, guidance_scale=1e300), [0, 1])

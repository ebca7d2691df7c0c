"""Settings that fit: valid experiments at every size, and the sizes that are chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ddrep.config import Experiment, Network, merge, parse
from ddrep.denoiser.network import network_of
from ddrep.own_images import settings
from ddrep.own_images.looks import Look


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize("size", [*settings.SIZES, 40, 72, 100, 200])
def test_networks_of_every_size_can_be_built(size: int, gpu: bool) -> None:
    network = network_of(Network(**settings.network_of(size, gpu)), size, 3)
    assert list(network.problems()) == [] and network.sizes[-1] <= 8 and network.sizes[-1] in network.attention_sizes


@pytest.mark.parametrize(
    "widths, gpu, size",
    [((28,), False, 28), ((20,), False, 28), ((64,), False, 64), ((3000,), False, 64), ((3000,), True, 256),
     ((30, 100, 100, 100, 100), False, 64), ((30, 30, 100, 100), False, 28), ((200,), True, 192)],
)  # fmt: skip
def test_sizes(widths: tuple[int, ...], gpu: bool, size: int) -> None:
    assert settings.size_of([Look(size=(width + 10, width)) for width in widths], gpu) == size


def test_steps_are_what_the_machine_does_in_two_hours_at_most() -> None:
    assert settings.steps_of(28, 64, seconds=0.01) == 6200
    assert settings.steps_of(64, 32, seconds=2.0) == 3600
    assert settings.steps_of(64, 32, seconds=60.0) == settings.LEAST


def images(classes: int) -> settings.Images:
    return settings.Images(Path("l.csv"), Path("a 'set': #1"), 64, 3, {f"c{i}": 3 + i for i in range(classes)})


@pytest.mark.parametrize("classes, threshold", [(2, 0.7), (10, 0.5), (50, 0.3), (200, 0.2)])
def test_the_text_says_the_settings(classes: int, threshold: float) -> None:
    data = {"kind": "unlabelled", "unlabelled": {"path": "ü.csv", "root": "b", "size": 64, "channels": 3}}
    chosen = settings.overlay("mine", images(classes), settings.Denoiser(None, data, 900, 10**5), gpu=False, epochs=20)
    text = settings.text_of(chosen, ["About", "it."])
    assert text.startswith("# About\n# it.\n") and yaml.safe_load(text) == chosen
    assert max(map(len, text.splitlines())) <= 120
    whole: dict[str, Any] = merge(Experiment().model_dump(mode="json"), yaml.safe_load(text))
    made = parse(whole)
    assert made.synthesis.threshold == threshold > 1 / classes
    assert made.classifier.epochs == 20
    assert made.data.section.root == Path("a 'set': #1") and made.denoiser.pretrain.steps == 900
    assert all(f"# {said}" in text for place, said in settings.COMMENTS.items())


def test_a_denoiser_of_ones_own() -> None:
    chosen = settings.overlay("mine", images(2), settings.Denoiser(file=Path("d.safetensors")), gpu=True)
    assert chosen["denoiser"] == {"kind": "file", "file": {"path": "d.safetensors"}}


@pytest.mark.parametrize("count, scales", [(3 * 10 * 5, (1, 3)), (3 * 10 * 5 - 1, (1,)), (49, None)])
def test_unlabelled_images_are_trained_on_too(count: int, scales: tuple[int, ...] | None) -> None:
    """As many as there are: here 1x is 5 images of each of 10 classes. All that config.yaml runs is run as well."""
    few = settings.Images(Path("l.csv"), Path("set"), 64, 3, {f"c{i}": 5 for i in range(10)})
    data = {"kind": "unlabelled", "unlabelled": {"path": "u.csv", "root": "b", "size": 64, "channels": 3}}
    chosen = settings.overlay("mine", few, settings.Denoiser(None, data, 900, count), gpu=False)
    made = parse(merge(Experiment().model_dump(mode="json"), yaml.safe_load(settings.text_of(chosen, []))))
    usual, more = made.table4[: len(Experiment().table4)], made.table4[len(Experiment().table4) :]
    assert usual == Experiment().table4
    assert [(block.sources, block.scales) for block in more] == [(("unlabelled-soft",), scales)] * bool(scales)

"""Settings that depend on the networks: the denoiser's blocks and schedule, Inception, timm's architectures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ddrep.checks import paths, sets
from ddrep.checks.facts import Facts
from ddrep.checks.headers import most_steps, pickled
from ddrep.config import Data, MaskData
from ddrep.errors import UserError
from ddrep.generators.network import GENERATORS
from ddrep.methods import METHODS
from ddrep.runs import judges_asked
from ddrep.saved import header
from ddrep.sources import PROBE

RESNETS = {
    *(f"resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    "wide_resnet50_2", "wide_resnet101_2", "resnext50_32x4d", "resnext101_32x8d",
}  # fmt: skip
"""Architectures that do for every stem and size; others are looked up in timm, whose import takes seconds."""


def unconditional(facts: Facts) -> Iterator[str]:
    if facts.denoiser and facts.denoiser.network.num_classes:
        yield (
            f"denoiser.file.path: {facts.experiment.denoiser.file.path} is class-conditional "
            f"({facts.denoiser.network.num_classes} rows in its label table); start from an unconditional one"
        )


def blocks(facts: Facts) -> Iterator[str]:
    """Guides, the judge of probes and the table of near copies read blocks that the denoiser has."""
    if not facts.denoiser:
        return
    e = facts.experiment
    guides = {"attributes": e.attributes.taps, "masks": e.masks.taps}
    asked = {f"{part}.taps.blocks": taps.blocks for part, taps in guides.items() if part in e.parts}
    if facts.augments:
        asked |= {"probe.blocks": e.probe.blocks} if any(judge is PROBE for _, judge in judges_asked(e)) else {}
        asked |= {"copies.block": (e.copies.block,)}
    for key, names in asked.items():
        try:
            facts.denoiser.network.block_numbers(names)
        except UserError as error:
            yield f"{key}: {str(error).removeprefix('blocks: ')}"


def pools(facts: Facts) -> Iterator[str]:
    """Features are averaged to a map of no more pixels than the images have."""
    e = facts.experiment
    asked = {"features": e.features.pool, "probe": e.probe.pool, "copies": e.copies.pool} if facts.augments else {}
    for key, pool in asked.items():
        if facts.denoiser and (pool or 0) > facts.denoiser.network.image_size:
            yield f"{key}.pool: {pool}; expected at most {facts.denoiser.network.image_size}, the width of the images"


def generators(facts: Facts) -> Iterator[str]:
    """Methods that draw of another generator have one of the images' size."""
    e = facts.experiment
    tables: list[tuple[int, Data | MaskData, bool, tuple[str, ...]]] = [
        (1, e.data, facts.attributes, e.table1.methods),
        (2, e.masks.data, facts.masks, e.table2.methods),
    ]
    said = dict[str, None]()  # each once, for a generator may be of both
    for number, data, used, methods in tables:
        for name in dict.fromkeys(METHODS[method].generator for method in methods if used):
            if name:
                of = f"table{number}.methods' {name}"
                said |= dict.fromkeys(_generator(facts, name, of, sets.image_shape(data), *GENERATORS[name]))
    yield from said


def _generator(
    facts: Facts, name: str, of: str, image: tuple[int, int, int], kind: Any, network_of: Callable[..., object]
) -> Iterator[str]:
    choice, key = getattr(facts.experiment.generators, name), f"generators.{name}"
    if choice.kind == "pretrain":
        if not choice.pretrain.images and not choice.pretrain.data:
            yield f"{key}.pretrain.images: none; name an IDX file of unlabelled images, or {key}.pretrain.data"
        try:
            network_of(choice.pretrain.network, image[0], image[2])
        except UserError as e:
            yield f"{key}.pretrain.{e}"
    elif choice.file.path is None:
        own = f"{kind.WHAT}'s file"
        yield f"{key}.file.path: none, of which {of} draws; give {own}, or set {key}.kind"
    elif paths.readable(facts.experiment, f"{key}.file.path"):
        try:
            network = header(choice.file.path, kind).network
        except UserError as e:
            yield f"{key}.file.path: {e}"
            return
        if (network.image_size, network.image_size, network.in_channels) != image:
            there = f"{network.image_size}x{network.image_size}x{network.in_channels}"
            yield f"{key}.file.path: draws images of {there}; the data's are {'x'.join(map(str, image))}: give another"


def steps(facts: Facts) -> Iterator[str]:
    """No solver takes more steps than the schedule has levels for it, and none that it has not."""
    e = facts.experiment
    listed = e.sampling.grid[0] if facts.augments and isinstance(e.sampling.grid, tuple) else 0
    if facts.denoiser and listed >= (levels := facts.denoiser.schedule.num_steps):
        yield f"sampling.grid: {listed}, but the denoiser's schedule has noise levels 0..{levels - 1}"
    asked = [
        (facts.augments, "sampling.steps", e.sampling.solver, e.sampling.steps),
        (facts.attributes, "table1.steps", e.attributes.sampling.solver, max(e.table1.steps)),
        (facts.masks, "table2.steps", e.masks.sampling.solver, max(e.table2.steps)),
    ]
    for used, key, solver, number in asked:
        by_snr = key == "sampling.steps" and e.sampling.grid == "log-snr"  # which begins where dpm-solver++ does
        cuts = "dpm-solver++" if by_snr else solver
        if used and facts.denoiser and number > (most := most_steps(facts.denoiser.schedule, cuts)):
            yield (
                f"{key}: {number}; with {'grid: log-snr' if by_snr else solver} the denoiser's schedule of "
                f"{facts.denoiser.schedule.num_steps} levels allows {most} at most"
            )


def inception(facts: Facts) -> Iterator[str]:
    path = facts.experiment.evaluation.inception if facts.attributes or facts.masks else None
    if path and paths.readable(facts.experiment, "evaluation.inception") and not pickled(path):
        yield f"evaluation.inception: {path} is no file of torch.save; expected torch-fidelity's weights"


def architectures(facts: Facts) -> Iterator[str]:
    """timm has the architectures of Tables 3 to 5, for such images, classes and stem."""
    e = facts.experiment
    asked = {e.table3.architecture: "table3.architecture"} if facts.augments else {}
    for number, block in enumerate(e.table4 if facts.augments else ()):
        asked |= {name: f"table4.{number}.architectures" for name in block.architectures if name not in asked}
    if facts.augments and e.table5.labels and e.table5.architecture not in asked:
        asked[e.table5.architecture] = "table5.architecture"
    unusual = {name: key for name, key in asked.items() if name not in RESNETS}
    if not unusual:
        return
    from ddrep.networks.classifiers import check_classifier

    classes = len(facts.data.classes) if facts.data else 2
    for name, key in unusual.items():
        try:
            check_classifier(name, e.classifier.stem, sets.image_shape(e.data), classes)
        except UserError as error:
            yield f"{key}: {error}"

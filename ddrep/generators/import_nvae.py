"""Published checkpoints of NVAE -> NVAE: github.com/NVlabs/NVAE's checkpoint.pt.

The file holds its hyper-parameters (`args`). Its names and layout are those of that code, whose licence is for
non-commercial use and goes with the published weights; of the code nothing is here. Weight normalisation and the masks
of flows are multiplied into the weights.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn

from ddrep.config import explain
from ddrep.denoiser.checkpoints import check_finite, check_plain, read_content
from ddrep.denoiser.importers import differences, shapes
from ddrep.device import pick_device
from ddrep.errors import UserError, some
from ddrep.files import sha256
from ddrep.generators.cells import DecoderCell, EncoderCell
from ddrep.generators.network import NVAEConfig
from ddrep.generators.nvae import NVAE, Group, NVAENetwork
from ddrep.generators.settling import readjust
from ddrep.saved import without_weights

log = logging.getLogger("ddrep")

EXPECTED = "a checkpoint.pt of NVlabs/NVAE, with state_dict and args"
SETTINGS: dict[str, Any] = {
    "arch_instance": "res_mbconv", "use_se": True, "res_dist": True, "num_x_bits": 8,
}  # fmt: skip
"""Of the published code: what this network has and no other."""
PAIRS = {
    "num_channels_enc": "num_channels_dec",
    "num_preprocess_blocks": "num_postprocess_blocks",
    "num_preprocess_cells": "num_postprocess_cells",
    "num_cell_per_cond_enc": "num_cell_per_cond_dec",
}
"""Settings of encoder and decoder, which are the same in all published configurations."""
OLD = {"ada_groups": False, "min_groups_per_scale": 1, "num_mixture_dec": 10, "num_x_bits": 8}
"""What older files do not say."""
SIZES = {"cifar10": 32}
"""Pixels of data sets whose names do not tell."""
LATENTS: dict[str, Callable[[torch.Size], Tensor]] = {"latent_mean": torch.zeros, "latent_std": torch.ones}
"""What is ours alone, until statistics are settled."""
MOST = 100
"""Of anything that `args` counts but channels."""
WEIGHT_EPS = 1e-5
COUNT = "num_batches_tracked"
"""Of a batch norm, which nothing depends on."""
BATCH, BATCHES = 16, 40
"""Images by which statistics of batch norms are settled (published: 500 batches)."""
DECODER = (
    ("norms.0", 0, ".bn"), ("expand", 1, ".conv.0"), ("norms.1", 1, ".conv.1"), ("depthwise", 2, ".conv.0"),
    ("norms.2", 2, ".conv.1"), ("reduce", 3, ""), ("norms.3", 4, ".bn"),
)  # fmt: skip
"""Layers of a decoder's cell: ours, and the number and the layer of theirs; behind a doubling all are one further."""
Pair = tuple[str, str]
"""Names of a layer: ours, theirs."""


def run(*, file: Path, temperature: float, half: bool, out: Path) -> None:
    """Import, settle statistics for a temperature, and write. Raises UserError."""
    model = import_nvae(file)
    model.net.to(pick_device())
    model.temperature = temperature
    torch.manual_seed(0)
    readjust(model, BATCH, BATCHES)
    model.save(out, torch.float16 if half else torch.float32)


def import_nvae(file: Path) -> NVAE:
    """The NVAE of a published checkpoint in float32, in evaluation mode, to be drawn of at temperature 1.

    Raises UserError.
    """
    content = read_content(file, inert="argparse.")
    if not isinstance(content, dict) or not isinstance(content.get("state_dict"), dict) or "args" not in content:
        holds = some(map(str, content), 3) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise UserError(f"{file}: holds {holds}; expected {EXPECTED}")
    cfg = config_of(file, vars(content["args"]) if hasattr(content["args"], "__dict__") else {})
    theirs = {str(name): t for name, t in content["state_dict"].items() if isinstance(t, Tensor)}
    check_plain(file, theirs)
    try:
        with without_weights(len(theirs)):
            net = NVAENetwork(cfg)
    except UserError as e:
        raise UserError(f"{file}: args: {e}; expected {EXPECTED}") from None
    weights = in_our_names(file, net, theirs)
    own = {name: shape for name, shape in shapes(net.state_dict()).items() if name not in LATENTS}
    if text := differences(shapes(weights), own):
        raise UserError(f"{file}: not quite an NVAE (names are ours): {text}")
    check_finite(file, weights)
    weights |= {name: make(net.get_buffer(name).shape) for name, make in LATENTS.items()}
    net.load_state_dict(weights, strict=True, assign=True)
    log.info("%s: an NVAE of %d pixels, %d groups of latents", file, cfg.image_size, len(net.groups))
    provenance = {"kind": "import", "file": file.name, "sha256": sha256(file), "format": "nvlabs-nvae"}
    return NVAE(net.eval().requires_grad_(False), 1.0, provenance=provenance)


def config_of(file: Path, args: Mapping[str, Any]) -> NVAEConfig:
    """Of the hyper-parameters. Raises UserError for those that make another network."""
    given = OLD | {name: value for name, value in args.items() if isinstance(value, bool | int | float | str)}
    odd = [f"{name} {given.get(name)}" for name, value in SETTINGS.items() if given.get(name) != value]
    unlike = ((one, two) for one, two in PAIRS.items() if given.get(one) != given.get(two))
    odd += [f"{one} {given.get(one)}, {two} {given.get(two)}" for one, two in unlike]
    size = _size_of(str(given.get("dataset")))
    odd += [] if size else [f"dataset {given.get('dataset')}"]
    if odd or given["num_mixture_dec"] == 1:
        raise UserError(f"{file}: args: {'; '.join(odd) or 'num_mixture_dec 1'}: another network than is made here")
    try:
        return TypeAdapter(NVAEConfig).validate_python({
            "image_size": size, "in_channels": 3, "channels": given["num_channels_enc"],
            "outer_blocks": given["num_preprocess_blocks"], "outer_cells": given["num_preprocess_cells"],
            "groups": _groups(given), "cells": given["num_cell_per_cond_enc"], "latent": given["num_latent_per_group"],
            "flows": given["num_nf"], "mixtures": given["num_mixture_dec"],
        })  # fmt: skip
    except ValueError as e:
        why = explain(e) if isinstance(e, ValidationError) else e
        raise UserError(f"{file}: args: {why}; expected {EXPECTED}") from None
    except KeyError as e:
        raise UserError(f"{file}: args has no {e.args[0]}; expected {EXPECTED}") from None


def _size_of(dataset: str) -> int:
    """Pixels a side, of a data set of colour images; 0 for others."""
    last = dataset.rpartition("_")[2]
    return SIZES.get(dataset, int(last) if last.isdecimal() and len(last) < 5 else 0)


def _groups(given: Mapping[str, Any]) -> tuple[int, ...]:
    """Of each scale, the coarsest first: as many on all, or half as many on each that is coarser."""
    names = "num_groups_per_scale", "num_latent_scales", "min_groups_per_scale"
    most, scales, least = (given[name] for name in names)
    if not all(isinstance(number, int) and 0 < number <= MOST for number in (most, scales, least)):
        raise ValueError(f"{', '.join(names)}: {most}, {scales}, {least}; expected 1 to {MOST}")
    halved = [max(least, most >> scale) for scale in range(scales)] if given["ada_groups"] else [most] * scales
    return tuple(reversed([most, *halved[1:]]))


def in_our_names(file: Path, net: NVAENetwork, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of each of our layers in float32. Raises UserError for one that is not there."""
    modules, found = dict(net.named_modules()), {"start": theirs.get("prior_ftr0", torch.zeros(0)).float()}
    try:
        for ours, name in layers(net):
            layer = modules[ours]
            if isinstance(layer, nn.Conv2d) and name.endswith("skip"):
                parts = [_convolution(theirs, f"{name}.conv_{corner}", None) for corner in (1, 2, 3, 4)]
                made = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
            elif isinstance(layer, nn.Conv2d):
                made = _convolution(theirs, name, _mask(layer, ours) if ".flows." in ours else None)
            else:
                made = {key: theirs[f"{name}.{key}"] for key in layer.state_dict() if key != COUNT}
            found |= {f"{ours}.{key}": t.float() for key, t in made.items()}
            if isinstance(layer, nn.BatchNorm2d):
                found[f"{ours}.{COUNT}"] = torch.tensor(0)
    except KeyError as e:
        raise UserError(f"{file}: no {e.args[0]} in it, which its args ask for; expected {EXPECTED}") from None
    except (RuntimeError, IndexError):
        raise UserError(f"{file}: {name}: of another shape than its args ask for; expected {EXPECTED}") from None
    return found


def _convolution(theirs: Mapping[str, Tensor], name: str, mask: Tensor | None) -> dict[str, Tensor]:
    weight = theirs[f"{name}.weight"].float()
    weight = weight if mask is None else weight * mask
    if (log_norm := theirs.get(f"{name}.log_weight_norm")) is not None:
        length = weight.flatten(1).norm(dim=1) + WEIGHT_EPS
        weight = weight * (log_norm.float().flatten().exp() / length).view(-1, 1, 1, 1)
    bias = theirs.get(f"{name}.bias")
    return {"weight": weight} | ({} if bias is None else {"bias": bias})


def _mask(layer: nn.Conv2d, ours: str) -> Tensor:
    """Of a flow's convolution, groups.G.flows.N.layers.L: 1 for the pixels before each, row by row, or behind it in
    every second flow; and of the pixel itself for the channels before, its own too but in the first convolution."""
    mirrored, own = int(ours.split(".")[3]) % 2 == 1, not ours.endswith(".0")
    mask, middle = torch.zeros(layer.weight.shape), layer.kernel_size[0] // 2
    mask[:, :, :middle] = 1
    mask[:, :, middle, :middle] = 1
    mask = mask.flip(2, 3) if mirrored else mask
    out, width = mask.shape[:2]
    if layer.groups > 1:
        mask[:, :, middle, middle] = float(own)
        return mask
    blocks = min(out, width)
    to, of = (torch.arange(count) // (count // blocks) for count in (out, width))
    mask[:, :, middle, middle] = (of <= to[:, None] if own else of < to[:, None]).float()
    return mask


def layers(net: NVAENetwork) -> Iterator[Pair]:
    """Every layer that has weights, in our names and theirs."""
    yield from (("stem", "stem"), ("groups.0.told.1", "enc0.1"), ("out.1", "image_conditional.1"))
    for ours, theirs in (("before", "pre_process"), ("after", "post_process")):
        for i, cell in enumerate(getattr(net, ours)):
            yield from _cell(cell, f"{ours}.{i}", f"{theirs}.{i}")
    up, down = 0, 0
    for number, group in reversed(list(enumerate(net.levels))):
        for i, cell in enumerate(group.encoder):
            yield from _cell(cell, f"groups.{number}.encoder.{i}", f"enc_tower.{up + i}")
        up += len(group.encoder)
        if number:
            yield f"groups.{number}.told", f"enc_tower.{up}.conv"
            up += 1
    for number, group in enumerate(net.levels):
        for i, cell in enumerate(group.decoder):
            yield from _cell(cell, f"groups.{number}.decoder.{i}", f"dec_tower.{down + i}")
        down += len(group.decoder) + 1
        yield f"groups.{number}.join", f"dec_tower.{down - 1}.conv"
        yield from _latents(group, number)


def _latents(group: Group, number: int) -> Iterator[Pair]:
    ours = f"groups.{number}"
    yield f"{ours}.posterior", f"enc_sampler.{number}"
    if number:
        yield f"{ours}.prior.1", f"dec_sampler.{number - 1}.1"
    for i in range(len(group.flows)):
        theirs = f"nf_cells.{(number * len(group.flows) + i) // 2}.cell{i % 2 + 1}"
        for layer, name in (0, "conv.convz.0"), (2, "conv.convz.2"), (5, "mu.conv_0"):
            yield f"{ours}.flows.{i}.layers.{layer}", f"{theirs}.{name}"


def _cell(cell: nn.Module, ours: str, theirs: str) -> Iterator[Pair]:
    yield from ((f"{ours}.squeeze.layers.{i}", f"{theirs}.se.se.{i}") for i in (0, 2))
    if isinstance(cell, EncoderCell):
        for i in (0, 1):
            yield f"{ours}.norms.{i}", f"{theirs}._ops.{i}.bn_act"
            yield f"{ours}.convs.{i}", f"{theirs}._ops.{i}.conv_0"
        if not isinstance(cell.skip, nn.Identity):
            yield f"{ours}.skip.conv", f"{theirs}.skip"
        return
    assert isinstance(cell, DecoderCell)
    for name, place, layer in DECODER:
        yield f"{ours}.{name}", f"{theirs}._ops.0.conv.{place + cell.doubles}{layer}"
    if cell.doubles:
        yield f"{ours}.skip.conv", f"{theirs}.skip.1"

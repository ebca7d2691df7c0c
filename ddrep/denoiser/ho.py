"""The DDPM U-Net in the layout of ermongroup/ddim, told in the names of our U-Net.

Its blocks are those of the ADM U-Net in the same order (Ho et al. 2020 came first), under other names, with q, k, v as
three layers. What differs in the computation is `UNetConfig.ho_details`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

IN_BLOCK = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "temb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "nin_shortcut": "skip_connection",
}
OUTER = {
    "temb.dense.0": "time_embed.0",
    "temb.dense.1": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid.block_1": "middle_block.0",
    "mid.attn_1": "middle_block.1",
    "mid.block_2": "middle_block.2",
    "norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = re.compile(r"(?:(?:down|up)\.\d+\.attn\.\d+|mid\.attn_1)\.")


def in_our_names(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network's tensors under our names; a name that is not of this layout stays as it is."""
    depth = 1 + max((int(m[1]) for name in weights if (m := re.match(r"down\.(\d+)\.", name))), default=0)
    blocks = len({m[1] for name in weights if (m := re.match(r"down\.0\.block\.(\d+)\.", name))})
    return {_name(name, weights, depth, blocks): t for name, t in _with_qkv(weights).items()}


def _with_qkv(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """q, k, v as one layer, in the order of one head, and attention's 1x1 convolutions without their second axis."""
    out: dict[str, Tensor] = {}
    for name, t in weights.items():
        stem, _, rest = name.rpartition(".")
        trio = [weights.get(f"{stem[:-1]}{letter}.{rest}") for letter in "qkv"]
        if not ATTENTION.match(name):
            out[name] = t
        elif stem.endswith((".q", ".k", ".v")) and all(part is not None for part in trio):
            if stem.endswith(".q"):
                out[f"{stem[:-1]}qkv.{rest}"] = torch.cat([_pointwise(part) for part in trio if part is not None])
        else:
            out[name] = _pointwise(t)
    return out


def _pointwise(t: Tensor) -> Tensor:
    """The weight of a 1x1 convolution for Conv1d."""
    return t.squeeze(-1) if t.ndim == 4 else t


def _name(name: str, weights: Mapping[str, Tensor], depth: int, blocks: int) -> str:
    for theirs, ours in OUTER.items():
        if name.startswith(theirs + "."):
            return _inner(ours, name[len(theirs) + 1 :])
    m = re.match(r"(down|up)\.(\d+)\.(?:(block|attn)\.(\d+)|downsample|upsample)\.(.+)", name)
    if not m:
        return name
    side, level, part, block = m[1], int(m[2]), m[3], int(m[4] or blocks)
    first = (level if side == "down" else depth - 1 - level) * (blocks + 1)
    number = f"input_blocks.{1 + first + block}" if side == "down" else f"output_blocks.{first + block}"
    if part:
        return _inner(f"{number}.{0 if part == 'block' else 1}", m[5])
    if side == "down":
        return f"{number}.0.{m[5].replace('conv', 'op')}"
    behind_attention = f"up.{level}.attn.0.q.weight" in weights
    return f"{number}.{2 if behind_attention else 1}.{m[5]}"


def _inner(block: str, rest: str) -> str:
    layer, _, kind = rest.rpartition(".")
    return f"{block}.{IN_BLOCK.get(layer, layer)}.{kind}" if layer else f"{block}.{kind}"

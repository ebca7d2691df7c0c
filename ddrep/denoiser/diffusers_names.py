"""The tensors of our U-Net under the names of diffusers' UNet2DModel, and back.

A level is one of their `down_blocks` or `up_blocks`, with lists of residual blocks and of attentions; ours numbers the
blocks through, as ADM does. Attention has q, k and v there as three linear layers, each with one head behind the other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from ddrep.denoiser.unet import UNetConfig

OUTER = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb": "class_embedding",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}
MIDDLE = ("resnets.0", "attentions.0", "resnets.1")
RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ATTENTION = {"norm": "group_norm", "qkv": "to_qkv", "proj_out": "to_out.0"}
"""`to_qkv` stands for to_q, to_k and to_v."""
RESAMPLING = {"op": "conv", "conv": "conv"}
INNER = RESIDUAL | ATTENTION | RESAMPLING
OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Attention's layers in files of 2022, as google/ddpm-cifar10-32."""


def modern(name: str) -> str:
    """A name of an old file as diffusers writes it today."""
    return re.sub(r"(?<=\.)(query|key|value|proj_attn)(?=\.(?:weight|bias)$)", lambda m: OLD[m[1]], name)


def their_name(name: str, blocks: int) -> str:
    """Our tensor's name under diffusers', where a level has `blocks` residual blocks."""
    layer, _, kind = name.rpartition(".")
    if layer in OUTER:
        return f"{OUTER[layer]}.{kind}"
    if m := re.fullmatch(r"middle_block\.(\d)\.(.+)", layer):
        return f"mid_block.{MIDDLE[int(m[1])]}.{INNER[m[2]]}.{kind}"
    m = re.fullmatch(r"(input|output)_blocks\.(\d+)\.(\d)\.(.+)", layer)
    assert m, name
    down, number, place, inner = m[1] == "input", int(m[2]), int(m[3]), m[4]
    level, block = divmod(number - 1 if down else number, blocks + 1)  # block 0 of the encoder is conv_in
    if inner in ATTENTION:
        part = f"attentions.{block}"
    elif down and block == blocks:
        part = "downsamplers.0"
    elif place:
        part = "upsamplers.0"
    else:
        part = f"resnets.{block}"
    return f"{'down' if down else 'up'}_blocks.{level}.{part}.{INNER[inner]}.{kind}"


def in_their_names(weights: Mapping[str, Tensor], cfg: UNetConfig) -> dict[str, Tensor]:
    """The state dict of our U-Net as UNet2DModel's."""
    out: dict[str, Tensor] = {}
    for name, t in weights.items():
        theirs = their_name(name, cfg.num_res_blocks)
        flat = t.squeeze(-1) if t.ndim == 3 else t  # attention's Conv1d is a Linear there
        if ".to_qkv." in theirs:
            for letter, part in zip("qkv", _split(flat, cfg), strict=True):
                out[theirs.replace("to_qkv", f"to_{letter}")] = part
        else:
            out[theirs] = flat
    return out


def in_our_names(
    weights: Mapping[str, Tensor], cfg: UNetConfig, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """UNet2DModel's state dict as that of our U-Net, whose names and shapes are `expected`."""
    out: dict[str, Tensor] = {}
    for name, shape in expected.items():
        theirs = their_name(name, cfg.num_res_blocks)
        if ".to_qkv." in theirs:
            trio = [weights[theirs.replace("to_qkv", f"to_{letter}")] for letter in "qkv"]
            out[name] = _joined(trio, cfg).reshape(shape)
        else:
            out[name] = weights[theirs].reshape(shape)
    return out


def _split(qkv: Tensor, cfg: UNetConfig) -> tuple[Tensor, ...]:
    """q, k, v, each (C, ...), of a qkv layer's (3C, ...) in either order."""
    if cfg.new_attention_order:
        return qkv.chunk(3)
    width = len(qkv) // 3
    heads = cfg.heads(width)
    return tuple(t.reshape(width, *qkv.shape[1:]) for t in qkv.unflatten(0, (heads, 3, width // heads)).unbind(1))


def _joined(trio: list[Tensor], cfg: UNetConfig) -> Tensor:
    """The inverse of `_split`."""
    if cfg.new_attention_order:
        return torch.cat(trio)
    return torch.stack([t.unflatten(0, (cfg.heads(len(t)), -1)) for t in trio], dim=1).flatten(0, 2)

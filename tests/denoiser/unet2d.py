"""Networks of diffusers with all layers alive, and folders of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import DDPMScheduler, UNet2DModel

from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.diffusers import export_folder
from tests.denoiser import recipe

HO = {"flip_sin_to_cos": False, "freq_shift": 1, "downsample_padding": 0, "norm_eps": 1e-6, "attention_head_dim": None}
ADM = {"resnet_time_scale_shift": "scale_shift", "attn_norm_num_groups": 32, "out_channels": 6}
AT_1 = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
BY_BLOCK = {"downsample_type": "resnet", "upsample_type": "resnet"}
CASES: dict[str, dict[str, Any]] = {
    "ho": {**HO, "layers_per_block": 2, "block_out_channels": (32, 64, 64),
           "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
           "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "UpBlock2D")},
    "defaults, grey, 3 blocks": {**AT_1, "layers_per_block": 3, "in_channels": 1, "out_channels": 1, "sample_size": 12},
    "scale and shift, classes": {**AT_1, **ADM, "attention_head_dim": 16, "num_class_embeds": 5},
    "one head of any width": {**ADM, "attention_head_dim": None, "down_block_types": ("AttnDownBlock2D",) * 2,
                              "up_block_types": ("AttnUpBlock2D",) * 2},
    "residual resampling": {**ADM, **BY_BLOCK, "block_out_channels": (32, 64, 64), "attention_head_dim": 32,
                            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
                            "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D")},
    "residual resampling, Ho's times": {**HO, **BY_BLOCK, "downsample_padding": 1,
                                        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
                                        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D")},
    "one level": {"block_out_channels": (64,), "down_block_types": ("DownBlock2D",), "up_block_types": ("UpBlock2D",)},
}  # fmt: skip


def reference(case: dict[str, Any]) -> UNet2DModel:
    """diffusers' network in float64, with the recipe's weights: no layer is zero."""
    settings = {"sample_size": 16, "block_out_channels": (32, 64), "layers_per_block": 1}
    net = UNet2DModel(**(settings | case)).double().eval()
    net.load_state_dict(recipe.fill({k: v.shape for k, v in net.state_dict().items()}))
    return net


def saved(net: UNet2DModel, folder: Path, **scheduler: Any) -> Path:
    """A pipeline's folder."""
    net.save_pretrained(folder / "unet")
    DDPMScheduler(**scheduler).save_pretrained(folder / "scheduler")
    return folder


def exported(denoiser: Denoiser, out: Path) -> Path:
    file = out.with_suffix(".safetensors")
    denoiser.save(file)
    export_folder(denoiser=file, out=out)
    return out

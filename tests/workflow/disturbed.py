"""A small experiment to be disturbed, and its jobs while they run."""

from __future__ import annotations

from pathlib import Path

import psutil

from ddrep.data.tars import encode_png
from tests import tiny
from tests.workflow.test_end_to_end import BOTH, SMALLEST
from tests.workflow.tree import Tree

EXPERIMENT = SMALLEST | {
    "experiment": "chaos",
    "data": {"kind": "image-folder", "image_folder": {"root": "images", "size": 8, "channels": 1}},
    "denoiser": {"kind": "file", "file": {"path": "denoiser.safetensors"}},
    "parts": ["augmentation"],
    "synthesis": SMALLEST["synthesis"] | {"shards_per_scale": 1},
    "table3": {"sources": ["ours"]},
    "table4": [{"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 1], **BOTH}],
}


def with_inputs(tree: Tree) -> None:
    """Images of 3 classes and 8 pixels, a denoiser, and settings that ask for little."""
    for split, per_class in {"train": 6, "validation": 3, "test": 5}.items():
        images = tiny.images(split, per_class=per_class)
        for key, label, image in zip(images.keys, images.labels, images.images, strict=True):
            folder = tree.path / f"images/{split}/{label}"
            folder.mkdir(parents=True, exist_ok=True)
            folder.joinpath(f"{key}.png").write_bytes(encode_png(image))
    tiny.denoiser().save(tree.path / "denoiser.safetensors")
    tree.configure(**EXPERIMENT)


def jobs(tree: Tree) -> list[psutil.Process]:
    """`ddrep` commands that run there, whoever has started them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(tree.path) and any(Path(word).name == "ddrep" for word in process.cmdline()[:3]):
                found.append(process)
        except psutil.Error:
            pass
    return found

"""Published data sets, folders of images and of diffusers in which a file or two are others: read, or one line.

See tests/test_fuzz.py.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddrep.config import Data, MaskData
from ddrep.data.datasets import masked
from ddrep.data.listing import read
from ddrep.data.readers import known, listing_of
from ddrep.denoiser.diffusers import import_folder
from tests.data import replicas
from tests.denoiser.unet2d import ADM, AT_1, reference, saved
from tests.fuzzing import changes, fuzzed, refused_in_one_line

NAMES = st.sampled_from([
    "._a.jpg", ".hidden.png", "a\nb.png", "é.png", "e\u0301.png", "\udcff.png", " .png", "x" * 200 + ".png", "a.eps",
    "-1.jpg", "00.jpg", "a.gif", "a.npy", "config.json", "Thumbs.db", "000001.jpg", "1.JPG", "a", "a.svg",
]) | st.text("ab.01_", min_size=1, max_size=6).filter(lambda name: name.strip("."))  # fmt: skip
ARRAYS: list[Any] = [
    np.zeros((8, 8)), np.zeros((32, 32), np.int8) - 1, np.full((32, 32), 2**40), np.zeros((32, 32, 1), np.uint8),
    np.zeros((0, 32), int), np.array(3), np.array([None]), np.array(["a"]), np.zeros((32, 32), bool),
    np.full((32, 32), 254, np.uint8), np.zeros((32, 32), np.uint64), np.zeros((4, 4), [("a", "i4")]),
]  # fmt: skip


def _of_labels(kind: str, **settings: Any) -> Callable[[Path], object]:
    """What `ddrep check`, and then `ddrep data`, do with a set."""

    def use(root: Path) -> None:
        key = "path" if kind in ("tiny-imagenet", "unlabelled") else "root"
        data = Data.model_validate({"kind": kind, kind.replace("-", "_"): {key: root, **settings}})
        try:
            known(data, 0)
        finally:
            listing = listing_of(data, 0)
            for split in listing.splits:
                read(listing, split)

    return use


def _of_masks(kind: str, **settings: Any) -> Callable[[Path], object]:
    def use(root: Path) -> None:
        for split in ("train", "test"):
            masked(
                MaskData.model_validate({"kind": kind, kind.replace("-", "_"): {"root": root, **settings}}), split, 0
            )

    return use


def _folder(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name in (f"{split}/{label}/{i}.png" for split in ("train", "test") for label in "ab" for i in range(3)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(root / name)


def _tiny_imagenet(root: Path) -> None:
    shutil.move(replicas.tiny_imagenet(root), root.with_name("moved"))
    root.rmdir()
    root.with_name("moved").rename(root)


def _diffusers(root: Path) -> None:
    saved(reference({**AT_1, **ADM, "block_out_channels": (32, 32)}), root)


TREES: dict[str, tuple[Callable[[Path], object], Callable[[Path], object], int]] = {
    "celeba": (replicas.celeba, _of_labels("celeba", attribute="Male", partition=(6, 3, 4), size=16), 30),
    "tiny-imagenet": (_tiny_imagenet, _of_labels("tiny-imagenet", classes=3, train_per_class=6, test_per_class=2,
                                                 validation_per_class=1, size=16), 30),
    "image-folder": (_folder, _of_labels("image-folder", size=8), 30),
    "unlabelled": (_folder, _of_labels("unlabelled", size=8), 20),
    "few-shot": (replicas.few_shot, _of_masks("few-shot", train=4, test=3, size=32), 30),
    "celebamask-hq": (lambda root: replicas.celebamask_hq(root, 3),
                      _of_masks("celebamask-hq", images=3, train=1, test=1, size=16), 5),
    "diffusers": (_diffusers, import_folder, 20),
}  # fmt: skip


def _spoil(data: st.DataObject, root: Path) -> None:
    """One file of a tree is another, no file at all, or has another name."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    how = data.draw(
        st.sampled_from(["changed", "changed", "text", "array", "swapped", "gone", "folder", "pipe", "link", "named"])
    )
    content, other = path.read_bytes(), data.draw(st.sampled_from(files)).read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(data.draw(changes())(content))
    elif how == "text":
        path.write_text(data.draw(st.text(max_size=40)), encoding="utf-8", errors="surrogatepass")
    elif how == "array":
        with path.open("wb") as file:  # by its name np.save would meet a folder of the name with .npy
            np.save(file, data.draw(st.sampled_from(ARRAYS)), allow_pickle=True)
    elif how == "swapped":
        path.write_bytes(other)
    elif how == "folder":
        path.mkdir()
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "link":
        path.symlink_to(data.draw(st.sampled_from([path.name, "gone", "/dev/zero", "/dev/full", "..", str(files[0])])))
    elif how == "named":
        path = path.with_name(data.draw(NAMES))
        if not path.exists():
            path.write_bytes(content)


@pytest.mark.parametrize("kind", TREES)
def test_a_tree_of_which_files_are_others_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    make, use, cases = TREES[kind]
    (whole := tmp_path / "whole").mkdir()
    make(whole)
    use(whole)

    @fuzzed(cases)
    @given(st.data())
    def one(data: st.DataObject) -> None:
        shutil.rmtree(here := tmp_path / "here", ignore_errors=True)
        shutil.copytree(whole, here, copy_function=os.link)
        for _ in range(data.draw(st.integers(1, 2))):
            _spoil(data, here)
        with refused_in_one_line(str(here), "data.", most=20_000):
            use(here)

    one()

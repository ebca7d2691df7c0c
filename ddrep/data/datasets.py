"""The images of an experiment, labelled or with masks, by split and subset, whatever data set they come from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ddrep.config import Data, EmbeddedMasks, ImageFolder, MaskData
from ddrep.data import embedded
from ddrep.data.celeba import celeba
from ddrep.data.celebamask_hq import celebamask_hq
from ddrep.data.few_shot import as_few_shot, few_shot
from ddrep.data.idx import read_idx
from ddrep.data.masks import MaskedImages
from ddrep.data.reading import BROKEN, complain, hold_out, key, read_image, reason, share
from ddrep.data.shards import LabelledImages
from ddrep.data.tiny_imagenet import tiny_imagenet
from ddrep.data.webdataset import webdataset
from ddrep.errors import UserError

SPLITS = ("train", "validation", "test")
MASK_SPLITS = ("train", "test", "oracle")


def labelled(cfg: Data, split: str, subset: int, seed: int) -> LabelledImages:
    """The images of `split`; `subset` says which labelled subset the training images are.

    `seed` decides which training images are held out where a data set has no validation images. Raises UserError.
    """
    if split not in SPLITS:
        raise UserError(f"split {split}: expected one of {', '.join(SPLITS)}")
    if cfg.kind == "embedded":
        train = cfg.embedded.per_class * len(embedded.CLASSES)
        return _embedded(split, subset, {"train": train, "validation": None, "test": cfg.embedded.test_images}[split])
    if subset:
        raise UserError(f"subset {subset}: data of kind {cfg.kind} has only subset 0; set subsets to [0]")
    if cfg.tiny_imagenet and cfg.kind == "tiny-imagenet":
        return tiny_imagenet(cfg.tiny_imagenet, split, seed)
    if cfg.webdataset and cfg.kind == "webdataset":
        return webdataset(cfg.webdataset, split, seed)
    if cfg.celeba and cfg.kind == "celeba":
        return celeba(cfg.celeba, split)
    assert cfg.image_folder is not None  # Data's validator
    return _from_folder(cfg.image_folder, split, seed)


def masked(cfg: MaskData, split: str, subset: int) -> MaskedImages:
    """The images of `split` with their masks; `subset` says which labelled subset the training images are of.

    Those of `oracle` are for a segmenter that is trained apart and judges. Raises UserError.
    """
    if split not in MASK_SPLITS:
        raise UserError(f"split {split}: expected one of {', '.join(MASK_SPLITS)}")
    if cfg.kind == "embedded":
        return _embedded_masks(cfg.embedded, split, subset)
    if subset:
        raise UserError(f"subset {subset}: masks of kind {cfg.kind} have only subset 0")
    ours = cfg.few_shot if cfg.kind == "few-shot" else None
    if ours and split != "oracle":
        return few_shot(ours, split)
    if cfg.celebamask_hq is None:
        raise UserError("split oracle: few_shot has no such images; add a table celebamask_hq, where they come from")
    images = celebamask_hq(cfg.celebamask_hq, split)
    return as_few_shot(ours, images) if ours else images


def _embedded_masks(cfg: EmbeddedMasks, split: str, subset: int) -> MaskedImages:
    from ddrep.data.foreground import garment_masks  # with scipy, which takes longer to import than the masks to make

    if split == "oracle":
        labelled_anyhow = [("train", k) for k in range(embedded.SUBSETS)] + [("validation", 0)]
        parts = [_embedded(each, k, None) for each, k in labelled_anyhow]
    else:
        parts = [_embedded(split, subset, cfg.train if split == "train" else cfg.test)]
    images = np.concatenate([part.images for part in parts])
    labels = np.concatenate([part.labels for part in parts])
    keys = [key for part in parts for key in part.keys]
    return MaskedImages(images, garment_masks(images[..., 0], labels), keys, ("background", *embedded.CLASSES))


def _embedded(split: str, subset: int, n: int | None) -> LabelledImages:
    """The first n images, or all; the classes take turns, so that they are balanced."""
    images, labels, indices = (read_idx(embedded.path(split, kind)) for kind in ("images", "labels", "indices"))
    if subset >= embedded.SUBSETS:
        raise UserError(f"subset {subset}: the embedded data set has 0 to {embedded.SUBSETS - 1}")
    if split == "train":
        images, labels, indices = images[subset], labels[subset], indices[subset]
    keys = [f"{embedded.PARTS[split]}-{i:05d}" for i in indices[:n]]
    return LabelledImages(images[:n, ..., None], labels[:n].astype(np.int64), keys, embedded.CLASSES)


def _from_folder(cfg: ImageFolder, split: str, seed: int) -> LabelledImages:
    files = files_of(cfg.root, split, seed)
    classes = classes_of(cfg.root)
    images, complaints = [], []
    for path in files:
        try:
            if path.parent.name not in classes:
                raise ValueError("its class is not under train")
            images.append(read_image(path, cfg.size, cfg.channels))
        except BROKEN as e:
            complaints.append(f"{path.relative_to(cfg.root)} ({reason(e)})")
    complain(
        cfg.root,
        complaints,
        f"of {len(files)} files of {split} cannot be used",
        "expected whole images in folders named as train's; mend or remove them",
    )
    labels = np.array([classes.index(path.parent.name) for path in files], np.int64)
    return LabelledImages(np.stack(images), labels, [key(split, i, path.stem) for i, path in enumerate(files)], classes)


def classes_of(root: Path) -> tuple[str, ...]:
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected data.image_folder.root to hold train/CLASS and test/CLASS")
    folder = root / "train"
    names = sorted(p.name for p in _entries(folder) if p.is_dir()) if folder.is_dir() else []
    if len(names) < 2:
        raise UserError(
            f"{folder}: {len(names)} class folders; expected a folder of images for each of 2 or more classes"
        )
    return tuple(names)


def _entries(folder: Path) -> Iterator[Path]:
    """What lies in a folder, hidden files (.DS_Store) apart."""
    return (p for p in folder.iterdir() if not p.name.startswith("."))


def _files(root: Path, split: str) -> dict[str, list[Path]]:
    """Files of a split by class folder, both sorted by name. Raises UserError if there are none or a class is empty."""
    folder = root / split
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected {split}/CLASS/* with images")
    files = {p.name: sorted(_entries(p)) for p in sorted(_entries(folder)) if p.is_dir()}
    loose = sorted(p.name for p in _entries(folder) if not p.is_dir())
    if loose:
        raise UserError(
            f"{folder}: {loose[0]} lies outside the class folders ({len(loose)} such files); move or remove it"
        )
    empty = [name for name, paths in files.items() if not paths]
    if empty or not files:
        raise UserError(f"{folder / empty[0] if empty else folder}: no images; add some or remove the folder")
    return files


def files_of(root: Path, split: str, seed: int) -> list[Path]:
    """Files of a split. Without a folder validation, a tenth of each class of train (at least one file) is held out."""
    classes_of(root)
    if split == "test" or (root / "validation").is_dir():
        return [path for paths in _files(root, split).values() for path in paths]
    chosen = []
    for number, (name, paths) in enumerate(_files(root, "train").items()):
        if len(paths) < 2:
            raise UserError(
                f"{root / 'train' / name}: one image; expected 2 or more, as some are held out for validation"
            )
        kept, held = hold_out(len(paths), share(len(paths)), seed, number)
        chosen += [paths[i] for i in (held if split == "validation" else kept)]
    return chosen

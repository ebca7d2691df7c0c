"""Tiny ImageNet from its folder or its original zip.

Its official validation images are the test split, as its test images have no labels. Their classes are read from
val_annotations.txt: their file names say nothing. Validation is held out of train.
"""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from ddrep.config import TinyImageNet
from ddrep.data.reading import complain, exact_size, hold_out, key, read_all
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
FOLDER = "tiny-imagenet-200/"
"""What all names in the zip begin with."""


@dataclass(frozen=True)
class _Files:
    """Relative names of all files, and what is in one."""

    names: frozenset[str]
    read: Callable[[str], bytes]

    def lines(self, name: str) -> list[str]:
        return [line for line in self.read(name).decode("utf-8", "replace").splitlines() if line.strip()]


def tiny_imagenet(cfg: TinyImageNet, split: str, seed: int) -> LabelledImages:
    """The images of a split; `seed` decides which training images are validation. Raises UserError."""
    with _opened(cfg.path) as files:
        missing = sorted({WNIDS, WORDS, ANNOTATIONS} - files.names)
        if missing:
            raise UserError(f"{cfg.path}: no {', no '.join(missing)}; expected the whole of tiny-imagenet-200")
        wnids = sorted({line.strip() for line in files.lines(WNIDS)})
        train = _train(files)
        test, complaints = _test(files, set(wnids))
        complaints += _miscounted(cfg, wnids, train, test)
        complain(cfg.path, complaints, "things are not as in tiny-imagenet-200", "mend them, or unpack it anew")
        chosen = [(name, wnid) for i, wnid in enumerate(wnids) for name in _of_class(cfg, split, seed, i, train, test)]
        images, broken = read_all(
            [name for name, _ in chosen], lambda name: _image(files.read(name), cfg.size), (cfg.size, cfg.size, 3)
        )
        complain(cfg.path, broken, f"of {len(chosen)} images of {split} cannot be used", "mend them, or unpack it anew")
        classes = _names(files, wnids)
    labels = np.array([wnids.index(wnid) for _, wnid in chosen], np.int64)
    keys = [key(split, i, PurePosixPath(name).stem) for i, (name, _) in enumerate(chosen)]
    return LabelledImages(images, labels, keys, classes)


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        found = (file for file in path.rglob("*") if file.is_file())
        yield _Files(
            frozenset(_seen(file.relative_to(path).as_posix() for file in found)),
            lambda name: (path / name).read_bytes(),
        )
        return
    if not path.is_file():
        raise UserError(f"{path}: no such folder or zip; expected tiny-imagenet-200, or tiny-imagenet-200.zip")
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as e:
        raise UserError(f"{path}: not a whole zip file ({e}); fetch it again") from None
    with archive:
        names = (name.removeprefix(FOLDER) for name in archive.namelist() if name.startswith(FOLDER))
        yield _Files(
            frozenset(_seen(name for name in names if not name.endswith("/"))), lambda name: archive.read(FOLDER + name)
        )


def _seen(names: Iterator[str]) -> Iterator[str]:
    """All but hidden files (.DS_Store)."""
    return (name for name in names if not PurePosixPath(name).name.startswith("."))


def _train(files: _Files) -> dict[str, list[str]]:
    """Images by class, sorted by name."""
    found: dict[str, list[str]] = {}
    for name in sorted(files.names):
        match name.split("/"):
            case ["train", wnid, "images", _]:
                found.setdefault(wnid, []).append(name)
    return found


def _test(files: _Files, wnids: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Official validation images by class, as val_annotations.txt has them, and what is wrong with it."""
    found: dict[str, list[str]] = {}
    complaints = []
    listed: Counter[str] = Counter()
    for number, line in enumerate(files.lines(ANNOTATIONS), 1):
        name, wnid = [*line.split("\t"), "", ""][:2]
        path = f"val/images/{name}"
        listed[path] += 1
        if not name or wnid.strip() not in wnids:
            complaints.append(f"{ANNOTATIONS} line {number} (no class of {WNIDS}: {line[:40]!r})")
        elif listed[path] > 1:
            complaints.append(f"{ANNOTATIONS} line {number} ({name} is listed twice)")
        elif path not in files.names:
            complaints.append(f"{path} (listed, but missing)")
        else:
            found.setdefault(wnid.strip(), []).append(path)
    there = (name for name in sorted(files.names) if name.startswith("val/images/"))
    complaints += [f"{name} (not in {ANNOTATIONS})" for name in there if name not in listed]
    return {wnid: sorted(names) for wnid, names in found.items()}, complaints


def _miscounted(
    cfg: TinyImageNet, wnids: list[str], train: dict[str, list[str]], test: dict[str, list[str]]
) -> list[str]:
    complaints = [f"{WNIDS} ({len(wnids)} classes, expected {cfg.classes})"] if len(wnids) != cfg.classes else []
    complaints += [f"train/{wnid} (not in {WNIDS})" for wnid in sorted(train.keys() - set(wnids))]
    for what, part, expected in (("train", train, cfg.train_per_class), ("val", test, cfg.test_per_class)):
        for wnid in wnids:
            if len(part.get(wnid, [])) != expected:
                complaints.append(f"{wnid} ({len(part.get(wnid, []))} images in {what}, expected {expected})")
    return complaints


def _of_class(
    cfg: TinyImageNet, split: str, seed: int, number: int, train: dict[str, list[str]], test: dict[str, list[str]]
) -> list[str]:
    wnid = sorted(train)[number]
    if split == "test":
        return test[wnid]
    kept, held = hold_out(len(train[wnid]), cfg.validation_per_class, seed, number)
    return [train[wnid][i] for i in (held if split == "validation" else kept)]


def _image(content: bytes, size: int) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:  # some are grey
        return np.asarray(exact_size(image, size, size))


def _names(files: _Files, wnids: list[str]) -> tuple[str, ...]:
    """The first name that words.txt has for each class; with the WordNet number where two classes share it."""
    words = dict(line.split("\t", 1) for line in files.lines(WORDS) if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True))

"""Any WebDataset of images with `cls`: tars in which KEY.jpg (or png, ...) and KEY.cls belong together."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ddrep.config import WebDatasetFiles
from ddrep.data.reading import BROKEN, complain, hold_out_by_class, key, read_image, reason
from ddrep.data.shards import LabelledImages
from ddrep.errors import UserError

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm")
ADVICE = "mend the tars or leave these samples out"


@dataclass
class _Sample:
    """`name` tar and key, `label` the content of cls, `image` where the image is."""

    name: str
    label: int | None = None
    image: tuple[Path, str] | None = None


def webdataset(cfg: WebDatasetFiles, split: str, seed: int) -> LabelledImages:
    """The images of a split; `seed` decides which images of train are held out if there are no tars for validation.

    Raises UserError.
    """
    train = _samples("train", cfg.train)
    classes = cfg.classes or tuple(map(str, range(1 + max(sample.label or 0 for sample in train))))
    _check_labels("train", train, classes)
    if split == "train" and cfg.validation:
        chosen = train
    elif split == "test" or cfg.validation:
        chosen = _samples(split, cfg.test if split == "test" else cfg.validation)
        _check_labels(split, chosen, classes)
    else:
        chosen = _held_out(train, split, seed)
    labels = np.array([sample.label for sample in chosen], np.int64)
    keys = [key(split, i, sample.name.rpartition(":")[2]) for i, sample in enumerate(chosen)]
    return LabelledImages(_images(cfg, split, chosen), labels, keys, classes)


def _tars(split: str, paths: Sequence[Path]) -> list[Path]:
    missing = [str(path) for path in paths if not path.exists()]
    complain(f"data.webdataset.{split}", missing, "paths are not there", "give tars, or folders of tars")
    tars = [tar for path in paths for tar in (sorted(path.glob("*.tar")) if path.is_dir() else [path])]
    if not tars:
        raise UserError(f"data.webdataset.{split}: no *.tar in {paths[0]}; give tars, or folders of tars")
    return tars


def _samples(split: str, paths: Sequence[Path]) -> list[_Sample]:
    """All samples in the order of the tars. Raises UserError naming all that are incomplete."""
    samples: list[_Sample] = []
    complaints: list[str] = []
    for tar in _tars(split, paths):
        here: dict[str, _Sample] = {}
        try:
            for name, content in _members(tar):
                _collect(tar, name, content, here, complaints)
        except (tarfile.TarError, OSError, EOFError) as e:
            complaints.append(f"{tar} (not a whole tar file: {e})")
        complaints += [f"{s.name} (no image)" for s in here.values() if s.image is None]
        complaints += [f"{s.name} (no cls)" for s in here.values() if s.label is None]
        samples += here.values()
    complain(f"data.webdataset.{split}", complaints, "samples cannot be used", ADVICE)
    if not samples:
        raise UserError(f"data.webdataset.{split}: no samples; expected KEY.cls with KEY.{{{','.join(IMAGES)}}}")
    return samples


def _members(path: Path) -> Iterator[tuple[str, bytes | None]]:
    """Name of each file in a tar, and the content if it is a cls; images are read when they are wanted."""
    with tarfile.open(path, "r:*") as tar:
        for member in tar:
            if member.isfile():
                file = tar.extractfile(member) if member.name.endswith(".cls") else None
                yield member.name, file.read() if file else None


def _collect(tar: Path, name: str, content: bytes | None, here: dict[str, _Sample], complaints: list[str]) -> None:
    folder, _, file = name.rpartition("/")
    stem, _, extension = file.partition(".")  # WebDataset's rule: the key ends at the first dot of the file's name
    if stem.startswith("__") or (extension != "cls" and extension.lower() not in IMAGES):
        return
    sample = here.setdefault(f"{folder}/{stem}", _Sample(f"{tar}:{stem}"))
    if content is None:
        if sample.image is not None:
            complaints.append(f"{sample.name} (two images)")
        sample.image = (tar, name)
    elif sample.label is not None:
        complaints.append(f"{sample.name} (two cls)")
    else:
        sample.label = -1
        try:
            sample.label = int(content)
        except ValueError:
            complaints.append(f"{sample.name} (cls is {content[:20]!r}, expected an integer)")


def _check_labels(split: str, samples: list[_Sample], classes: tuple[str, ...]) -> None:
    wrong = [
        f"{sample.name} (cls is {sample.label}, expected 0..{len(classes) - 1})"
        for sample in samples
        if sample.label is None or not 0 <= sample.label < len(classes)
    ]
    complain(f"data.webdataset.{split}", wrong, "samples are of no class", ADVICE)
    there = {sample.label for sample in samples}
    empty = [name for number, name in enumerate(classes) if number not in there]
    if split == "train":
        complain("data.webdataset.train", empty, "classes have no image", "add some, or mend data.webdataset.classes")
    if len(classes) < 2:
        raise UserError("data.webdataset.train: one class; expected 2 or more")


def _held_out(train: list[_Sample], split: str, seed: int) -> list[_Sample]:
    counts = np.bincount([sample.label or 0 for sample in train])
    few = [str(number) for number, count in enumerate(counts.tolist()) if count < 2]
    complain(
        "data.webdataset.train", few, "classes have one image", "add one, as some are held out, or give validation"
    )
    kept, held = hold_out_by_class((sample.label or 0 for sample in train), seed)
    return [train[i] for i in (held if split == "validation" else kept)]


def _images(cfg: WebDatasetFiles, split: str, samples: list[_Sample]) -> np.ndarray:
    """uint8 (N, size, size, channels). Raises UserError naming all that do not decode."""
    images = np.zeros((len(samples), cfg.size, cfg.size, cfg.channels), np.uint8)
    wanted = {sample.image: i for i, sample in enumerate(samples)}
    complaints = []
    for path in dict.fromkeys(sample.image[0] for sample in samples if sample.image):
        with tarfile.open(path, "r:*") as tar:
            for member in tar:
                i = wanted.get((path, member.name))
                file = tar.extractfile(member) if i is not None else None
                if i is None or file is None:
                    continue
                try:
                    images[i] = read_image(io.BytesIO(file.read()), cfg.size, cfg.channels)
                except BROKEN as e:
                    complaints.append(f"{samples[i].name} ({reason(e)})")
    complain(f"data.webdataset.{split}", complaints, f"of {len(samples)} images cannot be used", ADVICE)
    return images

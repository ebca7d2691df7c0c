"""Random small data sets, as folders and as tars: no image in two splits, as many as an independent walk finds, and the
pixels that an independent decoder gives."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.io import ImageReadMode, decode_image

from ddrep import config
from ddrep.data.disjoint import apart
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages, read_shards, write_shard
from ddrep.errors import UserError
from tests.data import replicas

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding and encoding:DeprecationWarning")
SIDE = 6
MODES = ("L", "RGB", "RGBA", "P", "I;16", "CMYK")
NAMES = st.text(st.characters(categories=("L", "N"), exclude_characters="\0/"), min_size=1, max_size=8)
DOTTED = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@dataclass(frozen=True)
class Picture:
    """`number` decides the pixels: two pictures of one number and mode are copies."""

    mode: str
    number: int

    @property
    def samples(self) -> np.ndarray:
        rng = np.random.default_rng((self.number, MODES.index(self.mode)))
        shape = {"RGB": (SIDE, SIDE, 3), "RGBA": (SIDE, SIDE, 4), "CMYK": (SIDE, SIDE, 4)}.get(self.mode, (SIDE, SIDE))
        return rng.integers(0, 65536 if self.mode == "I;16" else 256, shape).astype(
            np.uint16 if self.mode == "I;16" else np.uint8
        )

    @property
    def file(self) -> bytes:
        buffer = io.BytesIO()
        if self.mode == "P":
            image = Image.fromarray(self.samples, "P")
            image.putpalette(np.random.default_rng(self.number).integers(0, 256, 768, np.uint8).tobytes())
        else:
            image = Image.fromarray(self.samples, None if self.mode == "I;16" else self.mode)
        image.save(buffer, "JPEG" if self.mode == "CMYK" else "PNG", **({"quality": 95} if self.mode == "CMYK" else {}))
        return buffer.getvalue()

    @property
    def expected(self) -> np.ndarray:
        """(SIDE, SIDE, 3): of torchvision's decoder, or by hand where it has no such mode."""
        if self.mode == "I;16":
            return (self.samples >> 8)[..., None].repeat(3, -1)
        wanted = ImageReadMode.RGB_ALPHA if self.mode == "RGBA" else ImageReadMode.RGB
        pixels = decode_image(torch.frombuffer(bytearray(self.file), dtype=torch.uint8), wanted).movedim(0, -1).numpy()
        if self.mode != "RGBA":
            return pixels
        alpha = pixels[..., 3:] / 255
        return np.round(pixels[..., :3] * alpha + 255 * (1 - alpha))


PICTURES = st.builds(Picture, st.sampled_from(MODES), st.integers(0, 25))


@dataclass
class Set:
    """Pictures by split, class and name, and links: (split, class, name of the link, name of what it leads to)."""

    classes: list[str]
    pictures: dict[str, dict[str, dict[str, Picture]]]
    links: list[tuple[str, str, str, str]]
    hard: bool


@st.composite
def sets(draw: st.DrawFn) -> Set:
    by_nfc = lambda name: unicodedata.normalize("NFC", name).casefold()  # noqa: E731
    classes = draw(st.lists(NAMES, min_size=2, max_size=3, unique_by=by_nfc))
    splits = ["train", "test", *draw(st.sampled_from([[], ["validation"]]))]
    some = st.dictionaries(DOTTED, PICTURES, min_size=2, max_size=5)
    pictures = {split: {name: draw(some) for name in classes} for split in splits}
    links: list[tuple[str, str, str, str]] = []
    for _ in range(draw(st.integers(0, 2))):
        split, name = draw(st.sampled_from(splits)), draw(st.sampled_from(classes))
        links.append((split, name, f"link{len(links)}", draw(st.sampled_from(sorted(pictures[split][name])))))
    return Set(classes, pictures, links, draw(st.booleans()))


@contextmanager
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def check(data: dict[str, Any], found: dict[str, list[Picture]], where: Path) -> None:
    """`found`: what an independent walk finds in each split that is given, each file once."""
    cfg = config.Data.model_validate(data)
    parts = {split: labelled(cfg, split, 0, 0) for split in ("test", "validation", "train")}
    given = {split: [parts[split]] for split in found}
    if "validation" not in found:
        given["train"].append(parts["validation"])
    for split, read in given.items():
        assert sum(map(len, read)) == len(found[split])
        left = [picture.expected.astype(int) for picture in found[split]]
        for image in (image.astype(int) for part in read for image in part.images):
            at = next((i for i, other in enumerate(left) if np.abs(other - image).max() <= 2), None)
            assert at is not None, "no such picture, or not as often"
            left.pop(at)
    written: dict[str, LabelledImages] = {}
    for split, images in parts.items():
        try:
            written[split] = apart(images, split, [where / f"{name}.tar" for name in written], read_shards)
        except UserError:
            return  # all images of a class are held-out images too
        write_shard(where / f"{split}.tar", written[split])
    pixels = [{image.tobytes() for image in images.images} for images in written.values()]
    assert len(set.union(*pixels)) == sum(map(len, pixels))
    names = [key.split("-")[0] for images in written.values() for key in images.keys]
    assert set(names) == set(parts) and all(set(images.labels) <= {0, 1, 2} for images in written.values())


@FEW
@given(sets())
def test_folders(drawn: Set) -> None:
    with folder() as where:
        root = where / "set"
        for split, of_class in drawn.pictures.items():
            for name, files in of_class.items():
                (root / split / name).mkdir(parents=True)
                for file, picture in files.items():
                    (root / split / name / file).write_bytes(picture.file)
        for split, name, link, target in drawn.links:
            place = root / split / name
            (os.link if drawn.hard else os.symlink)(place / target, place / link)
        found = {}
        for split in drawn.pictures:
            found[split] = [picture for of_class in drawn.pictures[split].values() for picture in of_class.values()]
            walk = {os.stat(Path(at, file)).st_ino for at, _, files in os.walk(root / split) for file in files}
            assert len(walk) == len(found[split])
        check({"kind": "image-folder", "image_folder": {"root": root, "size": SIDE}}, found, where)


@FEW
@given(sets())
def test_tars(drawn: Set) -> None:
    with folder() as where:
        table: dict[str, Any] = {"size": SIDE, "classes": drawn.classes}
        found: dict[str, list[Picture]] = {}
        for split, of_class in drawn.pictures.items():
            table[split], found[split] = [], []
            for label, (name, files) in enumerate(of_class.items()):
                members: dict[str, bytes] = {}
                by_key = {file.replace(".", "_"): picture for file, picture in files.items()}
                for key, picture in by_key.items():
                    ending = "jpg" if picture.mode == "CMYK" else "png"
                    members |= {f"{name}/{key}.{ending}": picture.file, f"{name}/{key}.cls": b"%d" % label}
                table[split].append(replicas.tar(where / split / f"{name}.tar", members))
                found[split] += by_key.values()
        for split, name, link, _ in drawn.links:
            path = where / f"{link}.tar"
            (os.link if drawn.hard else os.symlink)(where / split / f"{name}.tar", path)
            table[split].append(path)
        check({"kind": "webdataset", "webdataset": table}, found, where)

"""Walls of samples: of each class and source what was kept and, beside it, what was refused."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddrep.data.shards import LabelledImages, read_shards
from ddrep.errors import UserError
from ddrep.files import read_arrays
from ddrep.reporting.report.answer import plain
from ddrep.reporting.report.results import ATTEMPTS, Results
from ddrep.sources import SOURCES, in_figure

BUDGET = 8_000_000
"""Bytes of all walls of a page, about."""
FEWEST, MOST = 4, 16
"""Images of a class that a source shows, of those kept and of those refused."""
COLUMNS = 8
"""Of a sheet."""
PIXELATED = 32
"""Up to this width images are stored as they are; larger ones as photographs are."""
Attempt = tuple[int, int]


@dataclass(frozen=True)
class Sheet:
    """Images of equal size in one picture (a data URI), in rows of `columns`."""

    picture: str
    width: int
    height: int
    columns: int
    count: int


@dataclass(frozen=True)
class Wall:
    """What a source has of a class: p of what was kept, then of what was refused, in the order of the sheet."""

    sheet: Sheet
    kept: list[float | None]
    refused: list[float]


@dataclass(frozen=True)
class Walls:
    """Of the sources that are there, by name, a wall for each class shown, None where it has no images."""

    classes: list[str]
    left_out: int
    """Classes for which the page has no room."""
    sources: dict[str, list[Wall | None]]


def sheet(images: Sequence[np.ndarray], columns: int = COLUMNS) -> Sheet:
    """uint8 images (H, W, C) -> their sheet, WebP; equal images give equal bytes."""
    height, width, channels = images[0].shape
    rows = -(-len(images) // columns)
    canvas = np.zeros((rows * height, min(columns, len(images)) * width, channels), np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * height, i % columns * width
        canvas[top : top + height, left : left + width] = image
    picture = Image.fromarray(canvas.squeeze(-1) if channels == 1 else canvas)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", lossless=width <= PIXELATED, quality=85, method=4)
    return Sheet(data_uri(buffer.getvalue(), "webp"), width, height, min(columns, len(images)), len(images))


def data_uri(content: bytes, kind: str) -> str:
    """An image as an address that holds it."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def walls(results: Results) -> Walls | None:
    """Of the first subset that has labelled images, and of each source's first shard."""
    real = results.labelled
    if real is None:
        return None
    subset = results.files("subset*/real.tar")[0].parent
    shards = {name: subset / "synthetic" / name / "00000.tar" for name, source in SOURCES.items() if source.has_shards}
    shards = {name: path for name, path in shards.items() if path.is_file()}
    classes, each = _room(real, len(shards) + 1)
    found: dict[str, list[Wall | None]] = {"real": [_real(real, label, each) for label in range(classes)]}
    found |= {name: _of_source(results, path, classes, each) for name, path in shards.items()}
    return Walls(list(real.classes[:classes]), len(real.classes) - classes, found)


def _room(real: LabelledImages, sources: int) -> tuple[int, int]:
    """Classes, and images of each: as many as the page has room for."""
    _, height, width, channels = real.images.shape
    size = height * width * channels * (0.7 if width <= PIXELATED else 0.15) * 2  # what is kept, and what is refused
    classes = min(len(real.classes), max(1, int(BUDGET / (size * sources * FEWEST))))
    return classes, int(np.clip(BUDGET / (size * sources * classes), FEWEST, MOST))


def _real(real: LabelledImages, label: int, each: int) -> Wall | None:
    rows = np.flatnonzero(real.labels == label)[:each]
    return Wall(sheet([real.images[i] for i in rows]), [None] * len(rows), []) if len(rows) else None


def _of_source(results: Results, path: Path, classes: int, each: int) -> list[Wall | None]:
    table = results.rows(path.with_suffix(".parquet"), {"key": "text", "attempt": "whole", **ATTEMPTS})
    if table is None:
        return [None] * classes
    images = read_shards([path])
    place = {key: i for i, key in enumerate(images.keys)}
    table = table[table["class"] < classes].sort_values(["class", "attempt"])
    columns = ["class", "attempt", "key", "p"]
    kept, refused = (
        [*table[mask].groupby("class").head(each)[columns].itertuples(index=False, name=None)]
        for mask in (table["accepted"], ~table["accepted"])
    )
    known = {(label, attempt): images.images[place[key]] for label, attempt, key, _ in kept if key in place}
    drawn = from_pool(results.folder / "pool", path.stem, known, [row[:2] for row in refused])
    return [_wall(label, (kept, known), (refused, drawn)) for label in range(classes)]


def _wall(label: int, *shown: tuple[list[tuple[Any, ...]], Mapping[Attempt, np.ndarray]]) -> Wall | None:
    """shown: class, attempt, key and p of what was kept, and of what was refused, with the images that are there."""
    kept, refused = (
        [(round(p, 3), there[of, attempt]) for of, attempt, _, p in rows if of == label and (of, attempt) in there]
        for rows, there in shown
    )
    if not (kept or refused):
        return None
    return Wall(sheet([image for _, image in kept + refused]), [p for p, _ in kept], [p for p, _ in refused])


def from_pool(
    pool: Path, shard: str, known: Mapping[Attempt, np.ndarray], wanted: Sequence[Attempt]
) -> dict[Attempt, np.ndarray]:
    """The images of attempts that were refused; none where the pool has been removed.

    A pool's folder is named by a digest of networks and settings. Which one belongs to a shard is seen by the images
    that both hold: `known` are the shard's.
    """
    if not known or not wanted:
        return {}
    for folder in sorted(pool.glob(f"*/{shard}")):
        asked = set(wanted) | set(known)
        there = {attempt: image for file in sorted(folder.glob("*.npz")) for attempt, image in _candidates(file, asked)}
        both = [attempt for attempt in known if attempt in there]
        if both and all(np.array_equal(there[attempt], known[attempt]) for attempt in both):
            return {attempt: there[attempt] for attempt in wanted if attempt in there}
    return {}


def _candidates(file: Path, asked: set[Attempt]) -> Iterator[tuple[Attempt, np.ndarray]]:
    try:
        numbers, images = read_arrays(file, ("attempts", "images"), "candidates")
        attempts = [(int(label), int(attempt)) for label, attempt in numbers]
    except (UserError, ValueError, TypeError):  # which the engine draws again when it wants them
        return
    yield from ((attempt, image) for attempt, image in zip(attempts, images, strict=False) if attempt in asked)


def as_json(found: Walls) -> dict[str, Any]:
    """For the page's script."""
    return {
        "classes": found.classes,
        "first": next((name for name in in_figure(3) if name in found.sources), "real"),
        "sources": [
            {"name": name, "about": plain(name), "filtered": SOURCES[name].filtered,
             "walls": [wall and vars(wall.sheet) | {"kept": wall.kept, "refused": wall.refused} for wall in of_class]}
            for name, of_class in found.sources.items()
        ],
    }  # fmt: skip

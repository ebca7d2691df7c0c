"""Samples: the sheet's tiles are the images, and those that were refused come from the right pool."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

from ddrep.reporting.report import walls
from ddrep.reporting.report.results import Results
from tests.reporting.report.make_results import CLASSES, THRESHOLD, candidates, labelled


def tiles(sheet: walls.Sheet) -> list[np.ndarray]:
    """As a browser shows them: grey as its first channel."""
    content = base64.b64decode(sheet.picture.partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))[..., :1]
    places = [divmod(i, sheet.columns) for i in range(sheet.count)]
    h, w = sheet.height, sheet.width
    return [pixels[row * h : (row + 1) * h, column * w : (column + 1) * w] for row, column in places]


def test_kept_beside_refused_with_p(small: Results) -> None:
    found = walls.walls(small)
    assert found and list(found.sources) == ["real", "ours"] and found.classes == list(CLASSES) and not found.left_out
    images, p = candidates()
    for label, wall in enumerate(found.sources["ours"]):
        order = [*np.flatnonzero(p[label] >= THRESHOLD), *np.flatnonzero(p[label] < THRESHOLD)]
        assert wall and [*wall.kept, *wall.refused] == p[label][order].tolist()
        assert len(wall.kept) == (p[label] >= THRESHOLD).sum()
        for tile, attempt in zip(tiles(wall.sheet), order, strict=True):
            np.testing.assert_array_equal(tile, images[label, attempt])


def test_real_images_have_no_p(small: Results) -> None:
    found = walls.walls(small)
    wall = found and found.sources["real"][1]
    assert wall and wall.kept == [None] * 4 and not wall.refused
    np.testing.assert_array_equal(tiles(wall.sheet), labelled(2).images[1::2])


def test_without_a_pool_what_was_kept_is_shown(small: Results) -> None:
    images, _ = candidates()
    known, wanted = {(0, 0): images[0, 0]}, [(0, 1)]
    (there,) = walls.from_pool(small.folder / "pool", "00000", known, wanted).items()
    assert there[0] == (0, 1) and np.array_equal(there[1], images[0, 1])
    assert walls.from_pool(small.folder / "gone", "00000", known, wanted) == {}
    assert walls.from_pool(small.folder / "pool", "00000", {(0, 0): images[0, 5]}, wanted) == {}


def test_a_broken_pool_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "key/00000").mkdir(parents=True)
    (tmp_path / "key/00000/a.npz").write_bytes(b"PK\x03\x04 cut short")
    images, _ = candidates()
    assert walls.from_pool(tmp_path, "00000", {(0, 0): images[0, 0]}, [(0, 1)]) == {}


def test_photographs_are_small_and_near() -> None:
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    sheet = walls.sheet([smooth] * 10)
    assert len(sheet.picture) < 10 * smooth.size / 10 and (sheet.columns, sheet.count) == (8, 10)

"""The masks of the embedded images: which pixels are the garment."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ddrep import config
from ddrep.data import embedded
from ddrep.data.datasets import masked
from ddrep.data.foreground import DARK, foreground
from ddrep.data.masks import MaskedImages
from ddrep.data.readers import labelled
from ddrep.errors import UserError

ALL = config.EmbeddedMasks(test=5000)


def take(split: str, subset: int = 0, **settings: int) -> MaskedImages:
    return masked(config.MaskData(embedded=config.EmbeddedMasks(**settings)), split, subset)


def drawn(picture: str) -> np.ndarray:
    """Rows of digits -> uint8 (1, H, W): 0 is black, 1 as bright as a halo gets, 9 bright."""
    values = {"0": 0, "1": DARK, "9": 200}
    return np.array([[values[c] for c in row] for row in picture.split()], np.uint8)[None]


def test_specks_seams_and_holes() -> None:
    image = drawn("""
        1000000009
        0099999900
        0099099900
        0099999900
        0099009900
        0099009900
        0099999900
        0000000000
        9999999999
        1111111119
    """)
    expected = drawn("""
        0000000000
        0099999900
        0099999900
        0099999900
        0099999900
        0099999900
        0099999900
        0099999900
        9999999999
        0000000009
    """)
    np.testing.assert_array_equal(foreground(image), expected > 0)


def test_only_small_holes_are_filled_and_only_small_specks_dropped() -> None:
    def ring(height: int, width: int) -> np.ndarray:
        image = np.zeros((1, 16, 16), np.uint8)
        image[0, 2 : 4 + height, 2 : 4 + width] = 255
        image[0, 3 : 3 + height, 3 : 3 + width] = 0
        return image

    assert foreground(ring(2, 2))[0, 3, 3]
    assert not foreground(ring(2, 3))[0, 3, 3]
    for length in (5, 6):
        line = np.zeros((1, 16, 16), np.uint8)
        line[0, range(length), range(length)] = 255  # regions join at their corners
        assert foreground(line).any() == (length == 6)


def test_an_image_does_not_hear_of_its_neighbours_in_the_stack() -> None:
    images = take("test").images[:50, ..., 0]
    together = foreground(images)
    np.testing.assert_array_equal(together, np.concatenate([foreground(image[None]) for image in images]))


def test_masks_are_the_garments() -> None:
    data = masked(config.MaskData(embedded=ALL), "test", 0)
    labels = labelled(config.Data(), "test", 0, 0)
    assert data.classes == ("background", *embedded.CLASSES) and data.keys == labels.keys
    np.testing.assert_array_equal(data.images, labels.images)
    garment = data.masks > 0
    numbers = (1 + labels.labels)[:, None, None] * garment
    np.testing.assert_array_equal(data.masks, numbers)
    share = garment.mean((1, 2))
    assert share.min() > 0.05 and share.max() < 0.98
    bright, dark = data.images[..., 0] > 32, data.images[..., 0] <= 2
    assert (garment & bright).sum() > 0.999 * bright.sum()
    assert (garment & dark).sum() < 0.02 * garment.sum()
    # an independent rule: a threshold, and what scipy's own operation fills of it
    filled = np.stack([ndimage.binary_fill_holes(image > 20) for image in data.images[..., 0]])
    overlap = (garment & filled).sum((1, 2)) / (garment | filled).sum((1, 2))
    assert np.median(overlap) > 0.97 and np.mean(overlap < 0.8) < 0.05


def test_train_is_drawn_from_the_labelled_subset() -> None:
    for k in range(3):
        few = take("train", k, train=20)
        whole = labelled(config.Data(), "train", k, 0)
        assert few.keys == whole.keys[:20] and len(few) == 20
        classes = few.masks.reshape(20, -1).max(1)
        assert np.bincount(classes, minlength=11).tolist() == [0] + [2] * 10
    assert np.bincount(take("test", test=500).masks.reshape(500, -1).max(1)).tolist() == [0] + [50] * 10


def test_oracle_is_what_is_labelled_and_not_in_test() -> None:
    oracle, test = take("oracle", train=3, test=7), masked(config.MaskData(embedded=ALL), "test", 0)
    assert len(oracle) == 3 * 500 + 1000 and len(set(oracle.keys)) == 2500
    pixels = {image.tobytes() for image in test.images}
    assert not any(image.tobytes() in pixels for image in oracle.images)
    assert set(take("train", 2).keys) <= set(oracle.keys)


def test_splits_and_subsets_that_are_not_there() -> None:
    with pytest.raises(UserError, match="split validation: expected one of train, test, oracle"):
        take("validation")
    with pytest.raises(UserError, match="subset 3: the embedded data set has 0 to 2"):
        take("train", 3)

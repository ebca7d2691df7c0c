"""Attributes as groups of classes, and the few examples that guides learn from."""

from __future__ import annotations

import numpy as np
import pytest

from ddrep.config import AttributeImages, Data, EmbeddedData
from ddrep.data.attributes import attribute_images
from ddrep.data.embedded import path
from ddrep.data.idx import read_idx
from ddrep.data.readers import labelled
from ddrep.errors import UserError

DATA = Data(embedded=EmbeddedData(per_class=50))
FOOTWEAR = AttributeImages(data=DATA, attribute="footwear", having=("Sandal", "Sneaker", "Ankle boot"))


def test_classes_of_the_group_have_the_attribute() -> None:
    images = attribute_images(FOOTWEAR, "validation", 0, 0, 0)
    official = read_idx(path("validation", "labels"))  # 5, 7 and 9 are Fashion-MNIST's numbers of these classes
    np.testing.assert_array_equal(images.labels, np.isin(official, [5, 7, 9]))
    assert images.classes == ("not footwear", "footwear")
    np.testing.assert_array_equal(images.images, labelled(Data(), "validation", 0, 0).images)


def test_examples_are_as_many_of_both_kinds_chosen_by_the_run() -> None:
    few = FOOTWEAR.model_copy(update={"examples": 50})
    first, again, other = (attribute_images(few, "train", 1, 0, run) for run in (0, 0, 1))
    assert np.bincount(first.labels).tolist() == [50, 50]
    assert first.keys == again.keys and set(first.keys) != set(other.keys)
    whole = attribute_images(FOOTWEAR, "train", 1, 0, 0)
    label = dict(zip(whole.keys, whole.labels, strict=True))
    assert [label[key] for key in first.keys] == first.labels.tolist()
    assert not set(first.keys) & set(attribute_images(few, "train", 0, 0, 0).keys)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"examples": 151}, r"attributes.examples: 151 of footwear asked for, train has 350 of not footwear, 150 of"),
        ({"having": ("Sandals",)}, r"attributes.groups.footwear: no class Sandals; expected some of T-shirt"),
    ],
)
def test_bad_attributes_are_one_line(changes: dict, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        attribute_images(FOOTWEAR.model_copy(update=changes), "train", 0, 0, 0)
    assert "\n" not in str(caught.value)

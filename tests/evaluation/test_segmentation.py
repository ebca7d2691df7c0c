"""Confusion and IoU of label maps against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from ddrep.evaluation.segmentation import confusion, iou, miou, pixel_accuracy


@pytest.fixture
def maps():
    """Predicted and target (7, 5, 6) of 4 classes, agreeing on about half the pixels; a tenth of the targets is 255."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 4, (7, 5, 6)).astype(np.uint8)
    predicted = np.where(rng.random(target.shape) < 0.5, target, rng.integers(0, 4, target.shape)).astype(np.uint8)
    target[rng.random(target.shape) < 0.1] = 255
    return predicted, target


def test_all_figures_are_scikit_learns_on_the_pixels_that_count(maps):
    predicted, target = maps
    counts = confusion(predicted, target, 4)
    y, p = target[target != 255], predicted[target != 255]
    np.testing.assert_array_equal(counts, metrics.confusion_matrix(y, p, labels=range(4)))
    np.testing.assert_allclose(iou(counts), metrics.jaccard_score(y, p, average=None))
    assert miou(counts) == pytest.approx(metrics.jaccard_score(y, p, average="macro"))
    assert pixel_accuracy(counts) == pytest.approx(metrics.accuracy_score(y, p))


def test_the_set_is_summed_before_anything_is_divided(maps):
    predicted, target = maps
    parts = [confusion(predicted[i : i + 1], target[i : i + 1], 4) for i in range(7)]
    whole = np.sum(parts, axis=0)
    np.testing.assert_array_equal(whole, confusion(predicted, target, 4))
    assert np.mean([miou(part) for part in parts]) != pytest.approx(miou(whole), abs=1e-3)


def test_classes_that_are_in_no_target_do_not_count(maps):
    """Nor is a prediction of one forgiven: it is a miss of the class it lies on."""
    predicted, target = maps
    absent = np.where(target == 3, 255, target).astype(np.uint8)
    counts = confusion(predicted, absent, 6)
    y, p = absent[absent != 255], predicted[absent != 255]
    assert (p == 3).any()
    np.testing.assert_allclose(iou(counts)[:3], metrics.jaccard_score(y, p, average=None, labels=range(3)))
    assert np.isnan(iou(counts)[3:]).all()
    assert miou(counts) == pytest.approx(metrics.jaccard_score(y, p, average="macro", labels=range(3)))
    assert np.isnan(miou(confusion(predicted, np.full_like(target, 255), 6)))


@pytest.mark.parametrize("wrong", ["target", "predicted", "ignored prediction", "shape"])
def test_labels_and_shapes_that_cannot_be_are_refused(maps, wrong):
    predicted, target = maps
    target[:] = np.where(target == 255, 0, target)
    if wrong == "target":
        target[0, 0, 0] = 4
    elif wrong != "shape":
        predicted[0, 0, 0] = 255 if wrong == "ignored prediction" else 4
    with pytest.raises(ValueError, match="shape" if wrong == "shape" else "expected below 4"):
        confusion(predicted[:, :4] if wrong == "shape" else predicted, target, 4)

"""How well label maps agree: the confusion of a whole set, and the mean intersection over union from it."""

from __future__ import annotations

import numpy as np

from ddrep.data.masks import IGNORE


def confusion(predicted: np.ndarray, target: np.ndarray, classes: int) -> np.ndarray:
    """Label maps, integers of any equal shapes -> pixel counts int64 (classes, classes): row target, column predicted.

    Target pixels of IGNORE are left out, whatever is predicted there. Raises ValueError for other labels that are
    not below `classes`, and for unequal shapes. Confusions of parts of a set add up to that of the set.
    """
    if predicted.shape != target.shape:
        raise ValueError(f"label maps of shape {predicted.shape} and {target.shape}: expected equal ones")
    counts = target != IGNORE
    rows, columns = target[counts].astype(np.int64), predicted[counts].astype(np.int64)
    if len(rows) and max(rows.max(), columns.max()) >= classes:
        raise ValueError(f"label {max(rows.max(), columns.max())}: expected below {classes}, or {IGNORE} in the target")
    return np.bincount(rows * classes + columns, minlength=classes**2).reshape(classes, classes)


def iou(counts: np.ndarray) -> np.ndarray:
    """Confusion (K, K) -> intersection over union of each class (K,) float64, nan for a class in no target."""
    right, targets = np.diag(counts).astype(float), counts.sum(1)
    union = targets + counts.sum(0) - right
    return np.where(targets > 0, right / np.maximum(union, 1), np.nan)


def miou(counts: np.ndarray) -> float:
    """Mean IoU over the classes that are in the targets, 0..1; nan if there are none.

    As in ddpm-segmentation's compute_iou, intersections and unions are summed over the whole set before they are
    divided, and classes count alike. It differs there in two points that matter on few images: a class in no target is
    a zero in its mean, and what is predicted on ignored pixels widens the union of the class predicted.
    """
    each = iou(counts)
    return float(np.nanmean(each)) if np.isfinite(each).any() else float("nan")


def pixel_accuracy(counts: np.ndarray) -> float:
    """Share of the pixels that count whose class is right, 0..1."""
    return float(np.trace(counts) / max(1, counts.sum()))

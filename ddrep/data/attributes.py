"""Images with and without an attribute: two classes out of any data set with labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ddrep.config import AttributeImages
from ddrep.data.disjoint import apart
from ddrep.data.readers import labelled, reader_of
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.errors import UserError


def attribute_images(
    cfg: AttributeImages, split: str, subset: int, seed: int, run: int, apart_from: Sequence[Path] = ()
) -> LabelledImages:
    """Images of `split` as classes 0 ("not X") and 1 ("X"); `run` chooses the examples where not all are asked for.

    `subset` and `seed` are those of ddrep.data.readers.labelled, `apart_from` the shards of ddrep.data.disjoint.apart.
    Raises UserError.
    """
    key = f"attributes.groups.{cfg.attribute}"
    data = cfg.data
    having = cfg.having
    by_attribute = reader_of(data).with_attribute
    if by_attribute:
        if len(having) > 1:
            raise UserError(f"{key}: expected one of the data set's attributes, got {', '.join(having)}")
        data = data.with_section(by_attribute(data.section, having[0]))
    images = labelled(data, split, subset, seed)
    if not by_attribute and (unknown := [name for name in having if name not in images.classes]):
        raise UserError(f"{key}: no class {unknown[0]}; expected some of {', '.join(images.classes)}")
    has = np.array([name in having for name in images.classes])[images.labels].astype(np.int64)
    names = (f"not {cfg.attribute}", cfg.attribute)
    renamed = apart(dataclasses.replace(images, labels=has, classes=names), split, apart_from, read_shards)
    return _examples(renamed, cfg.examples, run, split) if cfg.examples else renamed


def _examples(images: LabelledImages, count: int, run: int, split: str) -> LabelledImages:
    """`count` of each of the two classes, in random order. Raises UserError if there are fewer."""
    rng = np.random.default_rng((run, count))
    found = [np.flatnonzero(images.labels == label) for label in (0, 1)]
    if few := [images.classes[label] for label in (0, 1) if len(found[label]) < count]:
        there = ", ".join(f"{len(rows)} of {images.classes[label]}" for label, rows in enumerate(found))
        raise UserError(
            f"attributes.examples: {count} of {few[0]} asked for, {split} has {there}; "
            "ask for fewer, or choose another attribute"
        )
    rows = rng.permutation(np.concatenate([rng.permutation(rows)[:count] for rows in found]))
    return images.take(rows.tolist())

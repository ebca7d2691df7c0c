"""Splits held out by class and by group of near copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

HELD_OUT = {"test": 0.3, "validation": 0.1}
"""Share of each class, one image at least; a test set this large, for gains are read off it."""
FEWEST = {"train": 2, "validation": 1, "test": 1}
"""Images that a class must have in each split: of train one is held out to choose the rejection classifier by."""


def split(labels: Sequence[str], groups: Sequence[int], shares: Mapping[str, float], seed: int) -> list[str]:
    """The split of each image: `shares` of each class are held out, and no group is in two splits.

    The largest groups come first, each to the split that lacks most of what it is to have of the group's class.
    """
    counts = Counter(labels)
    wanted = {label: _quotas(n, shares) for label, n in counts.items()}
    members: dict[int, list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    shuffled = np.random.default_rng(seed).permutation(sorted(members)).tolist()
    chosen = [""] * len(labels)
    for group in sorted(shuffled, key=lambda group: -len(members[group])):
        of = Counter(labels[row] for row in members[group])
        lacks = wanted[min(of, key=lambda label: (-of[label], label))]
        where = max(lacks, key=lambda name: lacks[name])
        for row in members[group]:
            chosen[row] = where
            wanted[labels[row]][where] -= 1
    return chosen


def _quotas(n: int, shares: Mapping[str, float]) -> dict[str, int]:
    held = {name: max(1, round(share * n)) for name, share in shares.items()}
    return {"train": n - sum(held.values()), **held}


def short_of(labels: Sequence[str], splits: Sequence[str]) -> dict[str, str]:
    """Classes that have too few images in a split, and in which."""
    there = Counter(zip(labels, splits, strict=True))
    short: dict[str, str] = {}
    for label in sorted(set(labels)):
        lacks = [f"{there[label, name]} of {name}" for name, n in FEWEST.items() if there[label, name] < n]
        if lacks:
            short[label] = " and ".join(lacks)
    return short

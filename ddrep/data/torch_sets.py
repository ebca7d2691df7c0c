"""Shards as torch data sets: by number, for which all images are in memory, or one shard after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, get_worker_info

from ddrep.data.batches import to_unit
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.data.tars import read_meta
from ddrep.errors import UserError

Transform = Callable[[np.ndarray], Any]
Item = tuple[Any, Any]
"""What the transform makes of an image, and its label: an int or, where the shard has soft ones, float32 (classes,)."""


def unit(image: np.ndarray) -> Tensor:
    """uint8 (H, W, C) -> float32 (C, H, W) in [-1, 1], which all networks here are trained on."""
    return to_unit(image[None])[0]


class Shards(Dataset[Item]):
    """Labelled images of shards that ddrep wrote, as a data set for `torch.utils.data.DataLoader`.

    Indexed, it holds all images in memory, as uint8; iterated, those of one shard at a time (see `stream`). An item is
    an image, by default float32 (C, H, W) in [-1, 1], and its label: an int or, where a judge gave soft ones, float32
    (classes,), which sums to 1.
    """

    def __init__(self, path: str | Path | Sequence[str | Path], transform: Transform = unit) -> None:
        """path: a shard, several, or a folder whose shards are taken in the order of their names.

        transform: of a uint8 array (H, W, C), as torchvision's take it. Raises UserError where there is no shard, for a
        file that is none, and for shards of other classes than the first.
        """
        self.paths, self.transform = _shards(path), transform
        headers = [read_meta(path) for path in self.paths]
        self.classes: tuple[str, ...] = headers[0].classes
        """Names of the labels 0, 1, ..."""
        for path, header in zip(self.paths, headers, strict=True):
            if header.classes != self.classes:
                raise UserError(f"{path}: other classes than {self.paths[0]}; give shards of one experiment")
        self._length = sum(header.images for header in headers)

    @cached_property
    def images(self) -> LabelledImages:
        """All of them: `images` uint8 (N, H, W, C), `labels` int64 (N,), `keys`, `classes` and, where a judge gave any,
        `soft` float16 (N, classes). Raises UserError for a shard that is broken, or of another size than the first."""
        return read_shards(self.paths)

    @cached_property
    def _targets(self) -> np.ndarray:
        return self.images.targets

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Item:
        return self._item(self.images.images[index], self._targets[index])

    def __iter__(self) -> Iterator[Item]:
        return iter(self.stream())

    def stream(self) -> IterableDataset[Item]:
        """The same items, one shard after another: for more images than memory holds. The workers of a DataLoader share
        the shards among them. Raises UserError, when it comes to it, as `images` does."""
        return _Stream(self)

    def of(self, path: Path) -> Iterator[Item]:
        """The items of one shard."""
        part = read_shards([path])
        yield from map(self._item, part.images, part.targets)

    def _item(self, image: np.ndarray, target: np.ndarray) -> Item:
        return self.transform(image), target if target.ndim else int(target)


class _Stream(IterableDataset[Item]):
    def __init__(self, shards: Shards) -> None:
        self.shards = shards

    def __iter__(self) -> Iterator[Item]:
        worker = get_worker_info()
        paths = self.shards.paths[worker.id :: worker.num_workers] if worker else self.shards.paths
        for path in paths:
            yield from self.shards.of(path)


def _shards(path: str | Path | Sequence[str | Path]) -> list[Path]:
    given = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    found = [shard for each in given for shard in (sorted(each.glob("*.tar")) if each.is_dir() else [each])]
    if not found:
        raise UserError(f"{', '.join(map(str, given)) or 'shards'}: no .tar there; make some with `ddrep data`")
    return found

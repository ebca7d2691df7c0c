"""Choose the embedded subset from Fashion-MNIST's own files: `python tools/embedded_data.py FOLDER`.

FOLDER holds the official IDX files, as Debian's package dataset-fashion-mnist installs them.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np

from ddrep.data.embedded import CLASSES, FOLDER, PARTS, SUBSETS, file_name
from ddrep.data.idx import idx_bytes, read_idx, write_idx
from ddrep.errors import UserError
from ddrep.files import written_whole

SEED = 2023
PER_CLASS = 50
VALIDATION_PER_CLASS, TEST_PER_CLASS = 100, 500


def shuffled(indices: np.ndarray, official: str, label: int) -> np.ndarray:
    """`indices` in the order of random 64-bit numbers, a stream for each official split and class.

    Raw output of PCG64 is the part of NumPy's generators that is promised never to change; permutation() is not.
    """
    stream = np.random.PCG64([SEED, sorted(set(PARTS.values())).index(official), label])
    return indices[np.argsort(stream.random_raw(len(indices)), kind="stable")]


def choose(labels: np.ndarray, official: str) -> dict[str, np.ndarray]:
    """Official labels (N,) -> int32 indices of each of our splits, the classes taking turns, so that any first
    10 n images hold n of each class.

    In a class's shuffled order, 3 x 50 training images come first, then 100 for validation; of the test split, 500.
    """
    ordered = np.stack(
        [shuffled(np.flatnonzero(labels == c), official, c)[:TEST_PER_CLASS] for c in range(len(CLASSES))]
    )
    turns = ordered.T.astype(np.int32)  # (place in the class's order, class)
    if official == "t10k":
        return {"test": turns.ravel()}
    labelled, rest = turns[: SUBSETS * PER_CLASS], turns[SUBSETS * PER_CLASS :]
    return {"train": labelled.reshape(SUBSETS, -1), "validation": rest[:VALIDATION_PER_CLASS].ravel()}


def build(source: Path, out: Path) -> None:
    """Write all files of the embedded set, and SHA256SUMS of their uncompressed content, to `out`. Raises UserError."""
    sums = {}
    for official, size in {"train": 60_000, "t10k": 10_000}.items():
        images = read_idx(source / f"{official}-images-idx3-ubyte.gz")
        labels = read_idx(source / f"{official}-labels-idx1-ubyte.gz")
        if images.shape != (size, 28, 28) or labels.shape != (size,):
            raise UserError(
                f"{source}: {official} is {images.shape} and {labels.shape}, expected Fashion-MNIST's {size} images"
            )
        for split, indices in choose(labels, official).items():
            for kind, array in {"images": images[indices], "labels": labels[indices], "indices": indices}.items():
                name = file_name(split, kind)
                write_idx(out / name, array)
                sums[name.removesuffix(".gz")] = hashlib.sha256(idx_bytes(array)).hexdigest()
    with written_whole(out / "SHA256SUMS") as (draft,):
        draft.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())), encoding="utf-8")


def main(args: list[str]) -> int:
    """`FOLDER [OUT]`; OUT is ddrep/data/embedded by default."""
    if len(args) not in (1, 2):
        print("usage: python tools/embedded_data.py FOLDER [OUT]", file=sys.stderr)
        return 2
    try:
        build(Path(args[0]), Path(args[1]) if len(args) == 2 else FOLDER)
    except UserError as e:
        print(f"build: {e}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

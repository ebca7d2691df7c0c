"""Synthetic shards with their attempts beside them, as the synthesis stage writes them."""

from pathlib import Path

import numpy as np
import pandas as pd

from ddrep.data.shards import LabelledImages, write_shard


def write_synthetic(
    path: Path, images: np.ndarray, p: np.ndarray, threshold: float, classes: tuple[str, ...], seed: int = 0
) -> Path:
    """images uint8 (classes, attempts, H, W, C), p (classes, attempts). Returns `path`."""
    rows = [
        {"key": f"{c:04d}-00000-{a:06d}", "class": c, "attempt": a, "seed": seed + 1000 * c + a, "p": p[c, a]}
        for c in range(p.shape[0])
        for a in range(p.shape[1])
    ]
    attempts = pd.DataFrame(rows).assign(accepted=p.ravel() >= threshold)
    kept = attempts[attempts["accepted"]].sample(frac=1, random_state=np.random.RandomState(0))
    pixels = np.stack([images[c, a] for c, a in zip(kept["class"], kept["attempt"], strict=True)])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, LabelledImages(pixels, kept["class"].to_numpy(np.int64), list(kept["key"]), classes))
    attempts.to_parquet(path.with_suffix(".parquet"), index=False)
    return path

"""Which judge tells good candidates from bad: the rejection classifier on denoiser features, or its control on pixels?

    python benchmarks/judges.py results/fashion-full

Of the candidates that both judged, those count as good whose class the embedded evaluator sees too; it had no part in
making or judging them. Prints for each labelled subset the area under the ROC curve of p(its class), and the share of
good candidates among the better 3/4 and the better half. Last comes the ratio of the mean areas, features to pixels.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from ddrep.data.embedded import FOLDER
from ddrep.data.shards import read_shards
from ddrep.networks.measures import Evaluator
from ddrep.sampling.pool import Pool

SHARDS = 3
SHARES = (0.75, 0.5)


def judged(results: Path, subset: int) -> pd.DataFrame:
    """One row a candidate that both judged: class, attempt, shard, p by features, p_pixels, and its image."""
    parts = []
    for index in range(SHARDS):
        files = [results / f"subset{subset}/synthetic/{source}/{index:05d}" for source in ("ours", "pixel-rejection")]
        ours, pixels = (pd.read_parquet(file.with_suffix(".parquet")).set_index("key") for file in files)
        both = ours.join(pixels[["p"]].rename(columns={"p": "p_pixels"}), how="inner")
        pool = pool_of(results / "pool", files[0].with_suffix(".tar"), index)
        images = [pool.images[int(c), int(a)] for c, a in zip(both["class"], both["attempt"], strict=True)]
        both["image"] = pd.Series(images, index=both.index, dtype=object)
        parts.append(both)
    return pd.concat(parts)


def pool_of(root: Path, shard: Path, index: int) -> Pool:
    """The pool that the shard's images were selected from."""
    images = read_shards([shard])
    label, _, attempt = map(int, images.keys[0].split("-"))
    height, width, channels = images.images.shape[1:]
    for folder in sorted(root.iterdir()):
        if (folder / f"{index:05d}").is_dir():
            pool = Pool(root, folder.name, index, (channels, height, width))
            pool.refresh()
            drawn = pool.images.get((label, attempt))
            if drawn is not None and np.array_equal(drawn, images.images[0]):
                return pool
    raise SystemExit(f"{root}: no candidates of {shard}; expected the results of a whole run")


def main(results: Path) -> None:
    evaluator = Evaluator.load(FOLDER / "evaluator.safetensors")
    areas = []
    for folder in sorted(results.glob("subset*")):
        table = judged(results, int(folder.name.removeprefix("subset")))
        good = evaluator.probabilities(np.stack(table["image"].tolist())).argmax(axis=1) == table["class"].to_numpy()
        line = [f"{folder.name}: {len(table)} candidates, {good.mean():.1%} good"]
        for name, p in (("features", table["p"].to_numpy()), ("pixels", table["p_pixels"].to_numpy())):
            best = [f"{good[p >= np.quantile(p, 1 - share)].mean():.1%} of the better {share:.0%}" for share in SHARES]
            areas.append(roc_auc_score(good, p))
            line.append(f"{name} {areas[-1]:.3f}, {', '.join(best)}")
        print("; ".join(line))
    print(f"ratio {np.mean(areas[::2]) / np.mean(areas[1::2]):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

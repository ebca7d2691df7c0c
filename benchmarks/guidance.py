"""How much guidance, and in which steps: what is kept of the candidates, and what they cost.

    python -m benchmarks.guidance [--results results/fashion-full] [--subsets 0 1 2] [--candidates 480]

The measures are those of benchmarks.steps. All ways draw the same seeds, in each labelled subset by its own fine-tuned
denoiser and judge.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks import page
from benchmarks.steps import drawn, name, real_features, row
from ddrep.config import DenoiserFile, Sampling
from ddrep.data.embedded import FOLDER
from ddrep.denoiser.denoiser import Denoiser
from ddrep.device import keep_freed_memory, set_threads
from ddrep.networks.judges import Judge
from ddrep.networks.measures import Evaluator
from ddrep.sampling.sampler import image_seed

ALL, HALF, THIRD, ONE = (0.0, 1.0), (0.25, 0.75), (0.3, 0.6), (0.3, 0.4)
"""Parts of the steps: of 6 all, the middle three, the middle two, and the third."""
TRIED = (
    *(Sampling(steps=6, guidance_scale=w, guidance_interval=ALL) for w in (0.5, 0.0)),
    *(Sampling(steps=6, guidance_scale=w, guidance_interval=HALF) for w in (0.5, 0.75, 1.0)),
    *(Sampling(steps=6, guidance_scale=w, guidance_interval=THIRD) for w in (0.75, 1.0, 1.5)),
    *(Sampling(steps=6, guidance_scale=w, guidance_interval=ONE) for w in (1.0, 2.0)),
)
SHARD = 4000
"""The number of the candidates' noise, which no shard has."""


def of_subset(folder: Path, subset: int, candidates: int, evaluator: Evaluator) -> list[dict[str, Any]]:
    """A row of `benchmarks.steps` for each way."""
    model = Denoiser.load(folder / f"subset{subset}/finetuned.safetensors")
    judge = Judge.load(
        folder / f"subset{subset}/rejection/classifier.safetensors", DenoiserFile().path, torch.device("cpu")
    )
    labels, real = np.arange(candidates) % len(model.classes), real_features(evaluator)
    seeds = [image_seed(100 + subset, int(label), SHARD, i // len(model.classes)) for i, label in enumerate(labels)]
    found = []
    for cfg in TRIED:
        found.append(row(cfg, drawn(model, seeds, cfg, labels), labels, judge, evaluator, real))
        print(subset, found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-full"))
    parser.add_argument("--subsets", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--candidates", type=int, default=480)
    args = parser.parse_args()
    set_threads(1)
    keep_freed_memory()
    evaluator = Evaluator.load(FOLDER / "evaluator.safetensors")
    found = pd.DataFrame(
        [each for n in args.subsets for each in of_subset(args.results, n, args.candidates, evaluator)]
    )
    ways = {str(way): of_way for way, of_way in found.groupby("name", sort=False)}
    rows = [
        {
            "name": way, "reference": name(TRIED[0]), "quantity": quantity, "unit": "", "value": float(values.mean()),
            "low": float(values.min()), "high": float(values.max()), "ratio": 0.0,
        }
        for way, of_way in ways.items()
        for quantity, values in of_way.drop(columns="name").items()
    ]  # fmt: skip
    page.record("Guidance", ABOUT.format(n=len(args.subsets)), rows)


ABOUT = """`python -m benchmarks.guidance`: means over {n} labelled subsets, each with its fine-tune and judge, in \
brackets their range; w counts in the part of the steps that is named, and elsewhere the null estimate is not \
computed. The quantities are those of *Fewer evaluations*, each of as many candidates as the table says."""

if __name__ == "__main__":
    main()

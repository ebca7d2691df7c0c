"""When in sampling does a guide earn its keep: the guide on denoiser features, or DDIM-I's on pixels?

    python benchmarks/when_guided.py results/fashion-full [--images 60] [--steps 50]

Draws Table 1's images again, from the same noise and by the same guides, guided throughout, early alone (t >= 500) or
late alone, and prints the share that shows what it was to show, by the embedded evaluator: the mean over the labelled
subsets, each attribute and its absence. Last come the ratios of the shares, features to pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ddrep.config import Experiment, load
from ddrep.data.embedded import FOLDER
from ddrep.derived import guided_of
from ddrep.device import pick_device
from ddrep.networks.guides import Guide
from ddrep.networks.measures import Evaluator
from ddrep.runs import GuidedRun, table1_runs
from ddrep.sampling.guidance import guided
from ddrep.sampling.guided import noise_number
from ddrep.sampling.sampler import draw, image_seed

WHEN = {"throughout": (0, 1000), "early": (500, 1000), "late": (0, 500)}
"""From t to below t, in embedded units."""
METHODS = ("ours", "ddim-i")


def share(e: Experiment, run: GuidedRun, guide: Guide, present: int, images: int, when: str, judge: Evaluator) -> float:
    """Percent of a run's first images that show the attribute, or do not, guided in this time alone."""
    denoiser, cfg = guide.denoiser, guided_of(e.attributes, run.method, run.steps, e)
    y = torch.full((images,), present, device=denoiser.device)
    steered = guided(denoiser.eps, denoiser.schedule, lambda x0: guide.log_likelihood(x0, y), cfg.scale)
    low, high = WHEN[when]

    def eps(x: Tensor, index: Tensor) -> Tensor:
        return steered(x, index) if low <= denoiser.schedule.embedded(index)[0] < high else denoiser.eps(x, index)

    number = noise_number(run.subset, run.seed)
    seeds = [image_seed(e.seed, present, number, attempt) for attempt in range(images)]
    with torch.no_grad():
        p = judge.probabilities(draw(denoiser, seeds, cfg.sampling, eps))
    having = [judge.classes.index(name) for name in e.attributes.having[str(run.attribute)]]
    return 100 * float(((p[:, having].sum(axis=1) > 0.5) == bool(present)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--steps", type=int, default=50)
    given = parser.parse_args()
    e = load(Path("config.yaml"), Path("workflow/experiments/fashion-full.yaml"))
    runs = [run for run in table1_runs(e) if run.steps == given.steps and run.method in METHODS]
    judge, device = Evaluator.load(FOLDER / "evaluator.safetensors"), pick_device()
    found: dict[tuple[str, int, str, str], list[float]] = {}
    for run in runs:
        guide = Guide.load(given.results / run.guide, e.denoiser.file.path, device)
        for present in (1, 0):
            for when in WHEN:
                value = share(e, run, guide, present, given.images, when, judge)
                found.setdefault((str(run.attribute), present, when, run.method), []).append(value)
    print(f"{'':20} {'':11} {'features':>8} {'pixels':>8}")
    ratios: dict[str, list[float]] = {when: [] for when in WHEN}
    for attribute in e.attributes.having:
        for present in (1, 0):
            for when in WHEN:
                ours, pixels = (float(np.mean(found[attribute, present, when, method])) for method in METHODS)
                ratios[when].append(ours / pixels)
                name = attribute if present else f"not {attribute}"
                print(f"{name:20} {when:11} {ours:8.1f} {pixels:8.1f}")
    for when, of_all in ratios.items():
        print(f"ratio {when}: {np.mean(of_all):.3f}")


if __name__ == "__main__":
    main()

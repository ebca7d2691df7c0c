"""What a candidate costs, and an image that is kept: ours against the published procedure (benchmarks/published.py).

    python -m benchmarks.kept_image [--results results/fashion-demo] [--candidates 40] [--rounds 7]

Costs are told in whole forward passes of the network (floating-point operations, counted by torch, so exact) and in
processor seconds. All steps of a sampler cost the same: one step of each kind and one reading of features of each kind
are counted and, taking turns, timed, and multiplied by how often they come. With the results of a run of the demo, its
fine-tuned denoiser and its judge say how many candidates are kept; without them costs are those of a candidate. The
second table is of the ImageNet-64 architecture with random weights.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import page, published
from ddrep.config import DenoiserFile, EvenSampling, Features, Sampling, Synthesis
from ddrep.data.batches import to_uint8
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import keep_freed_memory, multiplies_in_bf16, set_threads
from ddrep.networks.judges import Judge
from ddrep.sampling.guidance import classifier_free
from ddrep.sampling.rows import rows_at_once
from ddrep.sampling.sampler import ImageNoise, evaluations, image_seed, sample
from ddrep.training.finetune import with_labels

REFERENCE = "published"
IMAGENET64 = UNetConfig(image_size=64, out_channels=6)
"""Of improved-diffusion's imagenet64_uncond_100M_1500K.pt."""
Pieces = dict[str, Callable[[], Any]]
"""What a candidate's cost is made of, by name."""


@dataclass(frozen=True)
class Contestant:
    """A way to draw: which pieces a candidate's cost is made of, and how often each comes."""

    sampling: Sampling | None
    """By which candidates are drawn to see which are kept; None: by the plain reference."""
    pieces: Mapping[str, int]

    def of(self, piece: dict[str, float]) -> float:
        """Its candidate's cost, given each piece's."""
        return sum(times * piece[name] for name, times in self.pieces.items())


def ours(sampling: Sampling) -> Contestant:
    twice, suffix = evaluations(sampling) - sampling.steps, ", bf16" if sampling.precision == "bf16" else ""
    steps = {f"one call{suffix}": twice, f"one estimate{suffix}": sampling.steps - twice}
    return Contestant(sampling, {name: times for name, times in steps.items() if times} | {"encoder": 1})


DEFAULT = Sampling()
OURS = {
    "the same, by our engine": EvenSampling(
        solver="ddim", steps=published.STEPS, eta=0.0, guidance_scale=published.SCALE
    ),
    "12 even steps, w = 0.5": EvenSampling(guidance_scale=0.5),
    "8 steps, w = 0.75 in half of them": Sampling(steps=8, guidance_scale=0.75),
    f"{DEFAULT.steps} steps, w = {DEFAULT.guidance_scale:g} (default)": DEFAULT,
    "6 steps, w = 0": Sampling(steps=6),
}
if multiplies_in_bf16(torch.device("cpu")):
    OURS |= {
        f"{name}, bf16": each.model_copy(update={"precision": "bf16"})
        for name, each in OURS.items()
        if each.grid == DEFAULT.grid
    }
CONTESTANTS = {
    REFERENCE: Contestant(None, {"two calls": published.STEPS, "whole passes": 1}),
    **{name: ours(sampling) for name, sampling in OURS.items()},
}


def pieces(model: Denoiser, base: Denoiser, images: int) -> Pieces:
    """One step of each kind and one reading of features of each kind, of so many candidates."""
    x = torch.randn(images, *base.image_shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    y, index = torch.zeros(images, dtype=torch.long), torch.full((images,), base.schedule.num_steps // 2)
    null, fast = torch.full_like(y, model.null_row), replace(model, precision="bf16")
    both, both_fast = (classifier_free(each, y, published.SCALE) for each in (model, fast))
    return {
        "two calls": lambda: [model.eps(x, index, labels) for labels in (y, null)],
        "one call": lambda: both(x, index),
        "one estimate": lambda: model.eps(x, index, y),
        "one call, bf16": lambda: both_fast(x, index),
        "one estimate, bf16": lambda: fast.eps(x, index, y),
        "whole passes": lambda: published.features(base, x),
        "encoder": lambda: bottleneck_features(base, x, Features()),
    }


def operations(run: Callable[[], Any]) -> int:
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def costs(model: Denoiser, base: Denoiser, rounds: int) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Passes of each piece for a candidate, and its processor seconds in each round, the pieces taking turns."""
    x, index = torch.zeros(1, *base.image_shape), torch.zeros(1, dtype=torch.long)
    images = rows_at_once(x)
    used = {piece for each in CONTESTANTS.values() for piece in each.pieces}
    one, many = ({name: run for name, run in pieces(model, base, n).items() if name in used} for n in (1, images))
    whole = operations(lambda: base.eps(x, index))
    counted = {name: operations(run) / whole for name, run in one.items()}
    turns = [{name: page.processor_seconds(run) / images for name, run in many.items()} for _ in range(rounds + 1)]
    return counted, turns[1:]  # the first warms up


def networks(results: Path) -> tuple[Denoiser, Denoiser, Judge | None]:
    """Conditional and unconditional denoiser, and the judge if the demo has been run."""
    base, folder = Denoiser.load(DenoiserFile().path), results / "subset0"
    file = folder / "rejection/classifier.safetensors"
    if not file.is_file():
        return with_labels(base, tuple("0123456789"), std=1.0), base, None
    judge = Judge.load(file, DenoiserFile().path, torch.device("cpu"))
    return Denoiser.load(folder / "finetuned.safetensors"), base, judge


def share_kept(model: Denoiser, judge: Judge, contestant: Contestant, candidates: int) -> float:
    """Of so many candidates, whose classes take turns."""
    labels = [i % len(model.classes) for i in range(candidates)]
    seeds = [image_seed(0, label, 10**6, i) for i, label in enumerate(labels)]
    if contestant.sampling:
        images = sample(model, seeds, contestant.sampling, labels)
    else:
        noise = ImageNoise(seeds, model.image_shape, torch.device("cpu")).draw()
        images = to_uint8(published.draw(model, torch.tensor(labels), noise), model.name)
    p = judge.probabilities(images)[np.arange(candidates), labels]
    return float((p >= Synthesis().threshold).mean())


def rows_of(
    counted: dict[str, float], turns: Sequence[dict[str, float]], shares: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Of all contestants: costs of a candidate and, where it is known which share is kept, of an image that is."""
    quantities: dict[str, dict[str, list[float]]] = {}
    for name, contestant in CONTESTANTS.items():
        count, seconds = contestant.of(counted), [contestant.of(turn) for turn in turns]
        quantities[name] = {"passes a candidate": [count], "seconds a candidate": seconds}
        if share := shares.get(name):
            kept = {"passes an image kept": [count / share], "seconds an image kept": [s / share for s in seconds]}
            quantities[name] |= {"kept": [share], **kept}
    return [
        {
            "name": name, "reference": REFERENCE, "quantity": quantity, "unit": "", "value": statistics.median(values),
            "low": min(values), "high": max(values),
            "ratio": statistics.median(
                b / a for a, b in zip(values, quantities[REFERENCE][quantity], strict=True)
            ) if quantity != "kept" else 0.0,
        }
        for name, found in quantities.items()
        for quantity, values in found.items()
    ]  # fmt: skip


def features(counted: dict[str, float], turns: Sequence[dict[str, float]]) -> list[dict[str, Any]]:
    """Of reading the features at both timesteps: as published, and as `ddrep.denoiser.features` does it."""
    names = {REFERENCE: "whole passes", "ddrep": "encoder"}
    passes = {name: [counted[piece]] for name, piece in names.items()}
    seconds = {name: [1e3 * turn[piece] for turn in turns] for name, piece in names.items()}
    return page.compared("passes", "", passes) + page.compared("milliseconds an image", "", seconds)


def imagenet64() -> tuple[Denoiser, Denoiser]:
    """Conditional and unconditional denoiser of random weights."""
    torch.manual_seed(0)
    base = Denoiser(UNet(IMAGENET64), Schedule("cosine", 4000))
    return with_labels(base, tuple(map(str, range(200))), std=1.0), base


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-demo"))
    parser.add_argument("--candidates", type=int, default=40, help="of each contestant, drawn to see which are kept")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    set_threads(args.threads)
    keep_freed_memory()
    with torch.inference_mode():
        model, base, judge = networks(args.results)
        model.net.eval().requires_grad_(False)
        judged = CONTESTANTS if judge and args.candidates else {}
        shares = {name: share_kept(model, judge, each, args.candidates) for name, each in judged.items() if judge}
        counted, turns = costs(model, base, args.rounds)
        rows = rows_of(counted, turns, shares)
        page.record("Cost of a kept image, embedded denoiser", ABOUT.format(**vars(args)), rows)
        page.record("Features, embedded denoiser", ABOUT_FEATURES, features(counted, turns))
        model, base = imagenet64()
        counted, turns = costs(model, base, min(args.rounds, 3))
        page.record("Cost of a candidate, ImageNet-64 architecture", ABOUT_IMAGENET, rows_of(counted, turns, {}))
        page.record("Features, ImageNet-64 architecture", ABOUT_FEATURES, features(counted, turns))


ABOUT = """`python -m benchmarks.kept_image`: medians of {rounds} rounds, {threads} thread(s); in brackets the range \
of the rounds, and how many times less than the reference. Passes are whole forward passes of the network. Kept: of \
{candidates} candidates, so with a standard error of up to half of one over their root."""
ABOUT_FEATURES = """The same script: an image's bottleneck features at both timesteps, by whole passes as published \
and by ours, which end at the bottleneck."""
ABOUT_IMAGENET = """The same script: random weights, as many candidates at once as the engine draws."""

if __name__ == "__main__":
    main()

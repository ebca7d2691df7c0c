"""What a GPU makes of it: forward passes, candidates, training steps, and what compiling and bf16 are worth.

    python -m benchmarks.gpu [candidates] [classifier] [forward] [fine-tune]

Needs torch and this package's light dependencies alone, and takes some minutes. Parts run in the order given. Times are
of the GPU, by its own events: medians of the rounds, in which the contestants take turns, after a warm-up. Peak is what
a product of two bf16 matrices of 8192 a side reaches in the same run.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import page, published
from benchmarks.kept_image import imagenet64
from ddrep import graphs
from ddrep.config import Classifier, Data, DenoiserFile, EmbeddedData, Features, FineTune, Sampling
from ddrep.data.readers import labelled
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.device import autocast
from ddrep.sampling.guidance import classifier_free
from ddrep.sampling.rows import FixedRows
from ddrep.training import classifier
from ddrep.training.finetune import with_labels
from ddrep.training.objective import COMPILE_STEPS, loss_in_parts

DEVICE = torch.device("cuda")
ROUNDS = 5
Run = Callable[[], Any]
PARTS = ("candidates", "classifier", "forward", "fine-tune")


def milliseconds(run: Run) -> float:
    """Of the GPU, from the first kernel that `run` starts to the last."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def turns(contestants: Mapping[str, Run], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Milliseconds of each in every round, after one that warms up, or compiles."""
    taken = [{name: milliseconds(run) for name, run in contestants.items()} for _ in range(rounds + 2)]
    return {name: [turn[name] for turn in taken[2:]] for name in contestants}


def peak() -> float:
    """Floating-point operations a second of a product of random bf16 matrices."""
    n = 8192
    a, b = (torch.randn(n, n, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    return 2 * n**3 / (1e-3 * statistics.median(turns({"product": lambda: a @ b})["product"]))


def rows_of(times: dict[str, list[float]], quantities: Mapping[str, Callable[[float], float]]) -> list[dict[str, Any]]:
    """What follows from each contestant's milliseconds, and how many times faster it is than the first."""
    reference = next(iter(times))
    rows: list[dict[str, Any]] = []
    for name, (quantity, of) in itertools.product(times, quantities.items()):
        values = [of(each) for each in times[name]]
        faster = statistics.median(b / a for a, b in zip(times[name], times[reference], strict=True))
        rows.append({
            "name": name, "reference": reference, "quantity": quantity, "unit": "", "value": statistics.median(values),
            "low": min(values), "high": max(values), "ratio": faster,
        })  # fmt: skip
    return rows


def forward(part: str, base: Denoiser, images: int, best: float) -> None:
    """Passes of a network in every way to compute them."""
    x = torch.randn(images, *base.image_shape, device=DEVICE).clamp(-1, 1)
    index = torch.full((images,), base.schedule.num_steps // 2, device=DEVICE)
    last = Denoiser(copy.deepcopy(base.net).to(memory_format=torch.channels_last), base.schedule)
    compiled = Denoiser(copy.deepcopy(last.net), base.schedule)
    compiled.net.compile(mode="reduce-overhead", dynamic=False)  # which makes a CUDA graph of it
    rows = x.to(memory_format=torch.channels_last)

    def ran(model: Denoiser, x: Tensor, bf16: bool) -> Run:
        def run() -> None:
            with autocast("bf16" if bf16 else "fp32", DEVICE):
                model.eps(x, index)

        return run

    contestants = {
        "fp32 (TF32 convolutions)": ran(base, x, False),
        "fp32, channels last": ran(last, rows, False),
        "bf16": ran(base, x, True),
        "bf16, channels last": ran(last, rows, True),
        "bf16, channels last, compiled": ran(compiled, rows, True),
    }
    with FlopCounterMode(display=False) as counter:
        base.eps(x[:1], index[:1])
    operations = counter.get_total_flops() * images
    page.record(part, ABOUT_FORWARD.format(images=images, gflops=operations / images / 1e9, peak=best / 1e12), rows_of(
        turns(contestants),
        {"images a second": lambda ms: 1e3 * images / ms, "share of peak": lambda ms: operations / ms * 1e3 / best},
    ))  # fmt: skip


def candidates(part: str, model: Denoiser, base: Denoiser, images: int, steps_of_reference: int) -> None:
    """Candidates with their features: the published procedure and ours, at the number of images given."""
    shape = (images, *base.image_shape)
    x, y = torch.randn(shape, device=DEVICE), torch.zeros(images, dtype=torch.long, device=DEVICE)
    index, default = torch.full_like(y, base.schedule.num_steps // 2), Sampling()

    def reference() -> None:
        published.draw(model, y, x, steps=steps_of_reference)

    def ours(w: float, precision: Literal["fp32", "bf16"]) -> Run:
        eps = classifier_free(FixedRows(**vars(model) | {"precision": precision}), y, w)
        return lambda: [eps(x, index) for _ in range(steps_of_reference)]

    step = {
        "guided": ours(published.SCALE, "fp32"),
        "unguided": ours(0.0, "fp32"),
        "unguided, bf16": ours(0.0, "bf16"),
    }
    half = default.steps // 2
    ways = {
        "published": {"published": published.STEPS},
        f"{default.steps} steps (default)": {"unguided": default.steps},
        f"{default.steps} steps, bf16": {"unguided, bf16": default.steps},
        f"{default.steps} steps, half of them guided": {"guided": half, "unguided": default.steps - half},
    }
    read = {
        "whole passes": lambda: published.features(base, x.clamp(-1, 1)),
        "encoder": lambda: bottleneck_features(base, x.clamp(-1, 1), Features()),
    }
    steps, features = turns({"published": reference, **step}, rounds=3), turns(read, rounds=3)
    times = {
        name: [
            sum(n / steps_of_reference * steps[kind][i] for kind, n in made_of.items()) + reading
            for i, reading in enumerate(features["whole passes" if name == "published" else "encoder"])
        ]
        for name, made_of in ways.items()
    }
    page.record(part, ABOUT_CANDIDATES, rows_of(times, {"candidates a second": lambda ms: 1e3 * images / ms}))


def training_step(model: Denoiser, batch: int, precision: str, how: str) -> Run:
    """One step of a fine-tune, as ddrep.training.finetune does it: plain, its passes as graphs, or compiled."""
    net = copy.deepcopy(model.net).train().requires_grad_(True)
    mine = Denoiser(net, model.schedule, classes=model.classes)
    steps = COMPILE_STEPS if how == "compiled" else 1
    cfg = FineTune.model_validate({"batch": batch, "precision": precision, "steps": steps})
    with mock.patch.object(graphs, "LARGEST", graphs.LARGEST if how == "as graphs" else 0):
        loss = loss_in_parts(mine, cfg, batch)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-4, fused=True)
    x0, y = torch.randn(batch, *model.image_shape, device=DEVICE).clamp(-1, 1), torch.arange(batch, device=DEVICE) % 10
    index, noise = y * 50, torch.randn_like(x0)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in loss(x0, index, noise, y):
            part.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()

    return step


def training(part: str, model: Denoiser, batch: int, ways: Sequence[str]) -> None:
    """Steps in fp32 and bf16, plain, and in these ways."""
    contestants = {
        f"{precision}, {how}": training_step(model, batch, precision, how)
        for how, precision in [("plain", "fp32"), ("plain", "bf16"), *((way, "bf16") for way in ways)]
    }
    about = f"Steps of a fine-tune of batch {batch}; fp32 is with TF32 convolutions."
    page.record(part, about, rows_of(turns(contestants), {"steps a second": lambda ms: 1e3 / ms}))


def classifiers(steps: int = 60) -> None:
    """Steps of a ResNet-18 of batch 64 on 28 pixels: wall clock, for the host feeds the GPU."""
    images = labelled(Data(embedded=EmbeddedData(per_class=50)), "train", 0, 0)
    x, y = torch.as_tensor(images.images).permute(0, 3, 1, 2).float() / 127.5 - 1, torch.as_tensor(images.labels)

    def textbook() -> list[float]:
        import timm

        net = timm.create_model("resnet18", num_classes=10, in_chans=1).to(DEVICE)
        optimizer, times = torch.optim.Adam(net.parameters(), 1e-3), list[float]()
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), 64, shuffle=True, drop_last=True)
        while len(times) < steps:
            for images, labels in loader:
                optimizer.zero_grad()
                loss = F.cross_entropy(net(images.to(DEVICE)), labels.to(DEVICE))
                loss.backward()
                optimizer.step()
                loss.item()
                times.append(time.perf_counter())
        return times

    def ours(precision: str) -> list[float]:
        times: list[float] = []
        cfg = Classifier.model_validate({"batch": 64, "precision": precision})
        classifier.fit(images, "resnet18", cfg, mixed=False, steps=steps, seed=0, device=DEVICE,
                       on_step=lambda step, net: times.append(time.perf_counter()))  # fmt: skip
        return times

    found: dict[str, list[float]] = {"textbook loop": [], "ddrep, fp32": [], "ddrep, bf16": []}
    for _ in range(3):
        for name, run in zip(found, (textbook, lambda: ours("fp32"), lambda: ours("bf16")), strict=True):
            found[name].append(1e3 * statistics.median(b - a for a, b in itertools.pairwise(run()[10:])))
    about = "Steps of a ResNet-18 of batch 64 on 28 pixels, images in memory."
    page.record("GPU: classifier", about, rows_of(found, {"steps a second": lambda ms: 1e3 / ms}))


ABOUT_FORWARD = """Passes of {images} images; {gflops:.3g} GFLOP each; peak {peak:.0f} TFLOP/s."""
ABOUT_CANDIDATES = """A candidate with its features, as `kept_image.py` has it on a CPU: the published procedure \
beside ours, in fp32 with TF32 convolutions where nothing else is said. Steps of one kind cost the same: some are \
timed, and multiplied."""


def main() -> None:
    torch.manual_seed(0)
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parts = parser.parse_args().parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))}: expected of {', '.join(PARTS)}")
    best, classes = peak(), tuple("0123456789")
    small, (_, large) = Denoiser.load(DenoiserFile().path, DEVICE), imagenet64()
    networks = {
        "embedded denoiser": (small, 512, 256, ["as graphs"]),
        "ImageNet-64 architecture": (Denoiser(large.net.to(DEVICE), large.schedule), 128, 128, ["compiled"]),
    }
    for part, (name, (base, drawn, passed, ways)) in itertools.product(parts, networks.items()):
        told, title = with_labels(base, classes, std=1.0), f"GPU: {part}, {name}"
        with torch.inference_mode(part != "fine-tune"):
            if part == "candidates":
                fixed = dataclasses.replace(told, net=copy.deepcopy(told.net).eval().requires_grad_(False))
                candidates(title, fixed, base, drawn, 10)
            elif part == "forward":
                forward(title, base, passed, best)
            elif part == "fine-tune":
                training(title, told, 64, ways)
    if "classifier" in parts:
        classifiers()


if __name__ == "__main__":
    main()

"""A classifier's training steps: ddrep's against a textbook PyTorch loop on the same images in memory.

    python -m benchmarks.classifier_training [--architecture resnet18] [--batch 64] [--rounds 5]

The textbook loop is timm's network, default Adam, fp32, and a DataLoader over decoded float images. The contestants
take turns within each round; the first steps of each are not counted.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from unittest import mock

import timm
import torch
import torch.nn.functional as F

from benchmarks import page
from ddrep.config import Classifier, Data, EmbeddedData
from ddrep.data.batches import to_unit
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages
from ddrep.device import multiplies_in_bf16
from ddrep.training import classifier

REFERENCE = "textbook loop"
Contestant = Callable[[LabelledImages, str, int, int], list[float]]


def textbook(images: LabelledImages, architecture: str, batch: int, steps: int) -> list[float]:
    """Processor time in seconds at the end of each step."""
    net = timm.create_model(architecture, num_classes=len(images.classes), in_chans=images.images.shape[-1])
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    data = torch.utils.data.TensorDataset(to_unit(images.images).contiguous(), torch.as_tensor(images.labels))
    loader = torch.utils.data.DataLoader(data, batch, shuffle=True, drop_last=True)
    times: list[float] = []
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            optimizer.step()
            times.append(time.process_time())
            if len(times) == steps:
                return times


def ours(precision: str, fitted: bool) -> Contestant:
    """ddrep's own training, with or without SmallMapConv, as `textbook`."""

    def contestant(images: LabelledImages, architecture: str, batch: int, steps: int) -> list[float]:
        times: list[float] = []
        cfg = Classifier(batch=batch, precision=precision)
        keep = mock.patch.object(classifier, "fit_to_size", classifier.fit_to_size if fitted else lambda net, *_: net)
        with keep:
            classifier.fit(
                images, architecture, cfg, mixed=False, steps=steps, seed=0, device=torch.device("cpu"),
                on_step=lambda step, net: times.append(time.process_time()),
            )  # fmt: skip
        return times

    return contestant


def contestants() -> dict[str, Contestant]:
    """In bf16 as well where the processor multiplies in it."""
    kinds = ["fp32", *["bf16"] * multiplies_in_bf16(torch.device("cpu"))]
    names = {f"ddrep, {kind}{plain}": ours(kind, not plain) for kind in kinds for plain in (", plain convolutions", "")}
    return {REFERENCE: textbook, **names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="of each contestant in a round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = labelled(Data(embedded=EmbeddedData(per_class=50)), "train", 0, 0)
    all_ = contestants()
    seconds: dict[str, list[float]] = {name: [] for name in all_}
    for _ in range(args.rounds):
        for name, contestant in all_.items():
            times = contestant(images, args.architecture, args.batch, args.steps)
            seconds[name].append(statistics.median(b - a for a, b in itertools.pairwise(times)))
    rows = page.compared("a step", "milliseconds", {name: [1e3 * s for s in each] for name, each in seconds.items()})
    page.record("Classifier training", ABOUT.format(**vars(args)), rows)


ABOUT = """`python -m benchmarks.classifier_training`: {architecture}, batches of {batch} images of 28x28 pixels in \
memory, 1 thread; medians of {rounds} rounds of {steps} steps, in brackets the range of the rounds and how many times \
less than the reference, a textbook PyTorch loop."""

if __name__ == "__main__":
    main()

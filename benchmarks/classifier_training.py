"""Where a classifier run's time goes: ddrep's training against a textbook PyTorch loop on the same images.

    python benchmarks/classifier_training.py --architecture resnet18 --batch 64 --rounds 5

One thread; processor time, for the clock of a busy machine says little. The contestants take turns within each round,
and what is printed is the median over the rounds of the ratio to the textbook loop (timm's network, default Adam, fp32,
DataLoader over decoded float images). The same network is trained by all; bf16 is told apart from the rest.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from unittest import mock

import timm
import torch
import torch.nn.functional as F

from ddrep.config import Classifier, Data, EmbeddedData
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages
from ddrep.training import classifier
from ddrep.training.pretrain import to_unit


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


def ours(precision: str, fitted: bool) -> Callable[..., list[float]]:
    """ddrep's own training, with or without SmallMapConv, as `textbook`."""

    def contestant(images: LabelledImages, architecture: str, batch: int, steps: int) -> list[float]:
        times: list[float] = []
        cfg = Classifier(batch=batch, precision=precision)
        keep = mock.patch.object(classifier, "fit_to_size", classifier.fit_to_size if fitted else lambda net, *_: net)
        with keep:
            classifier.fit(
                images,
                architecture,
                cfg,
                mixed=False,
                steps=steps,
                seed=0,
                device=torch.device("cpu"),
                on_step=lambda step, net: times.append(time.process_time()),
            )
        return times

    return contestant


CONTESTANTS = {
    "textbook": textbook,
    "ours, fp32, plain convolutions": ours("fp32", fitted=False),
    "ours, fp32": ours("fp32", fitted=True),
    "ours, bf16, plain convolutions": ours("bf16", fitted=False),
    "ours, bf16": ours("bf16", fitted=True),
}


def compare(images: LabelledImages, architecture: str, batch: int, rounds: int, steps: int) -> None:
    """Print milliseconds a step and the ratio to the textbook loop, for each contestant."""
    seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(rounds):
        for name, contestant in CONTESTANTS.items():
            times = contestant(images, architecture, batch, steps)
            seconds[name].append(statistics.median(b - a for a, b in itertools.pairwise(times)))
    print(f"{architecture}, batch {batch}, {rounds} rounds of {steps} steps")
    for name, mine in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(mine, seconds["textbook"], strict=True))
        print(f"{name:32} {1e3 * statistics.median(mine):8.1f} ms a step   {ratio:.2f} of the textbook loop")


def start_up(rounds: int) -> None:
    """Print the processor time of the imports a run needs."""
    commands = ["import torch", "import timm", "import ddrep.cli, ddrep.training.classifier"]
    seconds: dict[str, list[float]] = {command: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run([sys.executable, "-c", command], check=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds[command].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    for command in commands:
        print(f"{command:48} {statistics.median(seconds[command]):5.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=8, help="steps of each contestant a round")
    args = parser.parse_args()
    torch.set_num_threads(1)
    images = labelled(Data(embedded=EmbeddedData(per_class=50)), "train", 0, 0)
    compare(images, args.architecture, args.batch, args.rounds, args.steps)
    start_up(args.rounds)


if __name__ == "__main__":
    main()

"""Every image that passes a network, counted while stages run for real."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from ddrep.cost import DENOISER, ENCODER
from ddrep.denoiser.unet import UNet
from ddrep.networks import architectures
from ddrep.planning.forecast import Step
from ddrep.sampling import rows
from ddrep.training import classifier

Counts = dict[str, int]


class Meter:
    """Counts images on their way into networks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.counts: Counter[str] = Counter()
        monkeypatch.setattr(rows, "MOST", {"cpu": (1, 1)})  # rows that fill up are no images
        for name in ("encode", "decode"):
            monkeypatch.setattr(UNet, name, self.counting(name, getattr(UNet, name)))
        build, fit = architectures.build, classifier.fit_to_size
        monkeypatch.setattr(architectures, "build", lambda meta: self.watched(build(meta)))
        # behind fit_to_size, which looks at the network's sizes with images of its own
        monkeypatch.setattr(classifier, "fit_to_size", lambda *args: self.watched(fit(*args)))

    def counting(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(net: UNet, x: torch.Tensor, *rest: Any, **more: Any) -> Any:
            self.counts[name] += 0 if "stop" in more else len(x)  # a decoder that stops is part of reading features
            return method(net, x, *rest, **more)

        return counted

    def watched(self, net: Any) -> Any:
        first = next(module for module in net.modules() if not list(module.children()))  # some use a part of the net
        first.register_forward_pre_hook(lambda _, inputs: self.counts.update(classifiers=len(inputs[0])))
        return net

    def of(self, stage: Callable[..., Any], *arguments: Any) -> Counts:
        """Passes that a stage makes."""
        self.counts.clear()
        stage(*arguments)
        whole = self.counts["decode"]
        return {DENOISER: whole, ENCODER: self.counts["encode"] - whole, "classifiers": self.counts["classifiers"]}


def passes(step: Step) -> Counts:
    """The same of a forecast."""
    return {DENOISER: step.through(DENOISER), ENCODER: step.through(ENCODER), "classifiers": step.through()}


def spread(judge: Any, images: np.ndarray) -> None:
    """Make a hardly trained judge opinionated, so that it accepts some images of every class and refuses others."""
    last: Any = judge.net[-1]
    logits: list[torch.Tensor] = []
    hook = last.register_forward_hook(lambda _, inputs, output: logits.append(output))
    judge.probabilities(images)
    hook.remove()
    scale = 2 / torch.cat(logits).std(dim=0)
    last.bias.sub_(torch.cat(logits).mean(dim=0)).mul_(scale)
    last.weight.mul_(scale[:, None])

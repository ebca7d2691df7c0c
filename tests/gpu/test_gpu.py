"""What a GPU computes, against the CPU: `pytest -m gpu`. Without a GPU these tests are skipped.

They need torch and the package's light dependencies alone, and take about a minute.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from ddrep import gpus, stopping
from ddrep.config import Classifier, Data, EmbeddedData, FineTune, PretrainD2C, Sampling, Taps
from ddrep.config import DenoiserFile as Shipped
from ddrep.data.batches import to_unit
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import pooled_features
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.device import autocast
from ddrep.sampling.guidance import guided
from ddrep.sampling.pool import Attempt
from ddrep.sampling.rows import heard, in_rows
from ddrep.sampling.sampler import image_seed, sample
from ddrep.sampling.slots import Slots
from ddrep.training import classifier, d2c, objective
from ddrep.training.finetune import finetune, with_labels

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU that torch can use"),
]
CLASSES = tuple(map(str, range(10)))
SHARP = Sampling(steps=12, eta=0.0, guidance_scale=0.5)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Single precision in full: by default a GPU's convolutions round to TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(scope="module")
def images() -> LabelledImages:
    """20 a class."""
    return labelled(Data(embedded=EmbeddedData(per_class=20)), "train", 0, 0)


def shipped(device: str) -> Denoiser:
    return Denoiser.load(Shipped().path, device)


def conditional(device: str) -> Denoiser:
    """With a label table whose rows are far apart."""
    torch.manual_seed(0)
    model = with_labels(shipped("cpu"), CLASSES, std=1.0)
    model.net.eval().requires_grad_(False).to(device)
    return model


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of b from a, by the length of a."""
    a, b = a.detach().double().cpu(), b.detach().double().cpu()
    return float((a - b).norm() / a.norm())


@torch.no_grad()
def test_the_noise_estimate_is_the_cpus_and_nearly_so_in_bf16(images):
    x = to_unit(images.images[:32])
    index = torch.arange(32) * 30
    expected = shipped("cpu").eps(x, index)
    model = shipped("cuda")
    assert distance(expected, model.eps(x.cuda(), index.cuda())) < 1e-5
    with autocast("bf16", x.cuda().device):
        assert 1e-6 < distance(expected, model.eps(x.cuda(), index.cuda())) < 0.03
    model.net.to(memory_format=torch.channels_last)
    assert distance(expected, model.eps(x.cuda(), index.cuda())) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("noise", ["none", "fixed"])
def test_features_are_the_cpus(images, noise):
    x = to_unit(images.images[:32])
    taps = {"blocks": ("middle", "up1", "output_blocks.1"), "timesteps": (50.0, 300.0, 800.0), "noise": noise}
    assert distance(shipped("cpu").features(x, **taps), shipped("cuda").features(x.cuda(), **taps)) < 1e-4


def test_the_gradient_that_guides_is_the_cpus(images):
    x, index = to_unit(images.images[:8]), torch.full((8,), 500)

    def steered(device: str) -> torch.Tensor:
        model = shipped(device)

        def log_likelihood(x0: torch.Tensor) -> torch.Tensor:
            return pooled_features(model, x0, Taps(blocks=("middle",), timesteps=(300.0,))).mean(dim=(1, 2, 3))

        listen = guided(model.eps, model.schedule, log_likelihood, scale=100.0)
        return listen(x.to(device), index.to(device))

    assert distance(shipped("cpu").eps(x, index), steered("cpu")) > 0.01, "the guide steers"
    assert distance(steered("cpu"), steered("cuda")) < 1e-3


def test_an_image_of_a_seed_is_the_cpus_but_for_rounding():
    seeds, labels = [image_seed(0, label, 0, 0) for label in range(10)], list(range(10))
    ours, theirs = (sample(conditional(device), seeds, SHARP, labels).astype(int) for device in ("cpu", "cuda"))
    assert np.abs(ours - theirs).mean() < 0.05 and (np.abs(ours - theirs) <= 2).mean() > 0.995


@torch.no_grad()
def test_an_image_is_bit_for_bit_its_own_whatever_slots_are_beside_it():
    model, attempts = conditional("cuda"), [(i % 10, i // 10) for i in range(50)]

    def drawn(most: int, attempts: list[Attempt]) -> dict[Attempt, torch.Tensor]:
        slots, waiting = Slots(model, Sampling(steps=4)), list(attempts)
        found: dict[Attempt, torch.Tensor] = {}
        while waiting or slots.attempts:
            now, waiting = waiting[: most - len(slots.attempts)], waiting[most - len(slots.attempts) :]
            slots.start(now, [image_seed(0, label, 0, number) for label, number in now])
            slots.advance()
            done = slots.taken == 4
            found |= {slots.attempts[i]: slots.images[i].clone() for i in done.nonzero()[:, 0].tolist()}
            slots.free(done)
        return found

    together = drawn(50, attempts)
    for other in (drawn(7, attempts), drawn(1, attempts[:2])):
        assert all(torch.equal(x, together[attempt]) for attempt, x in other.items())


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_pass_launched_as_a_graph_is_the_plain_one(images, precision, monkeypatch):
    """Of a class and of none, with other weights in the same place, and with the same ones elsewhere."""
    x, index = to_unit(images.images).cuda(), torch.arange(len(images.images), device="cuda") % 1000
    captured, capture = list[object](), torch.cuda.CUDAGraph

    def counted() -> torch.cuda.CUDAGraph:
        captured.append(graph := capture())
        return graph

    monkeypatch.setattr(torch.cuda, "CUDAGraph", counted)
    for model, y in ((conditional("cuda"), index % 10), (shipped("cuda"), None)):
        captured.clear()
        plain = dataclasses.replace(model, precision=precision)
        fast = heard(model, Sampling(precision=precision))

        def same(x=x, y=y, plain=plain, fast=fast) -> bool:
            expected = in_rows(plain.eps, x, index, *([] if y is None else [y]))
            with torch.inference_mode():
                there = fast.eps(x, index, y)
            return torch.equal(expected, fast.eps(x, index, y)) and torch.equal(expected, there)

        assert same() and same(x=x.flip(0)) and len(captured) == 1
        for p in model.net.parameters():
            p.mul_(0.9)
        assert same() and len(captured) == 1
        for p in model.net.parameters():
            p.data = p.data * 1.1
        assert same() and len(captured) == 2
        with torch.enable_grad():
            assert fast.eps(x[:2].requires_grad_(), index[:2], None if y is None else y[:2]).requires_grad
        assert len(captured) == 2


def section(**settings: object) -> FineTune:
    return FineTune.model_validate({"steps": 30, "batch": 32, "lr": 1e-3, "warmup": 2, "precision": "fp32"} | settings)


def test_a_fine_tune_that_was_stopped_goes_on_where_it_was(images, tmp_path):
    cfg, state = section(), tmp_path / "state"
    whole = finetune(shipped("cuda"), images, cfg, seed=1).net.state_dict()

    def stop(step: int, _: Denoiser) -> None:
        if step == 12:
            signal.raise_signal(signal.SIGTERM)

    with stopping.heard(), pytest.raises(stopping.Stopped):
        finetune(shipped("cuda"), images, cfg, seed=1, state=state, on_step=stop)
    assert torch.load(state, weights_only=True)["step"] == 12
    seen: list[int] = []
    resumed = finetune(shipped("cuda"), images, cfg, seed=1, state=state, on_step=lambda step, _: seen.append(step))
    assert seen == list(range(13, 31))
    start = with_labels(shipped("cpu"), images.classes, cfg.embedding_std).net.state_dict()
    moved = max(float((whole[k].cpu() - start[k]).abs().max()) for k in whole if k != "label_emb.weight")
    apart = max(float((whole[k] - v).abs().max()) for k, v in resumed.net.state_dict().items())
    assert apart < 0.05 * moved, "a GPU adds in no fixed order"


def test_compiled_steps_are_those_of_the_plain_network(images):
    x, noise = to_unit(images.images[:32]).cuda(), torch.randn(32, 1, 28, 28, device="cuda")
    index, plain = torch.arange(32, device="cuda") * 30, shipped("cuda")
    compiled = Denoiser(copy.deepcopy(plain.net), plain.schedule)
    objective.compile_where_it_pays(compiled.net, plain.device, objective.COMPILE_STEPS)

    def gradient(model: Denoiser) -> torch.Tensor:
        model.net.requires_grad_(True).zero_grad()
        (model.eps(x, index) - noise).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in model.net.parameters() if p.grad is not None])

    assert distance(gradient(plain), gradient(compiled)) < 1e-3


def test_a_batch_that_does_not_fit_is_computed_in_parts():
    """On a card that is nearly full."""
    torch.manual_seed(0)
    net = UNet(UNetConfig(image_size=64, model_channels=128))
    model = Denoiser(net.cuda(), Schedule())
    room = torch.cuda.get_device_properties(0).total_memory
    full = torch.empty(int(0.9 * room) - 2**32, dtype=torch.uint8, device="cuda")
    x = torch.randn(256, 3, 64, 64, device="cuda").clamp(-1, 1)
    losses = []
    for part in objective.loss_in_parts(model, section(batch=256, steps=1))(
        x, torch.zeros(256, device="cuda").long(), x
    ):
        part.backward()
        losses.append(part.detach())
    assert len(losses) > 1 and torch.stack(losses).isfinite().all()
    del full


def test_a_classifier_learns_its_images_in_either_precision(images):
    for precision in ("fp32", "bf16"):
        cfg = Classifier.model_validate({"precision": precision})
        net = classifier.fit(
            images, "resnet18", cfg, mixed=False, steps=120, seed=0, device=torch.device("cuda")
        )  # fmt: skip
        said = classifier.predict(net, images)
        assert (said["label"] == said["prediction"]).mean() > 0.9


def test_steps_launched_as_graphs_are_those_of_the_plain_network(images, monkeypatch):
    """A classifier's, whose statistics follow its batches, and a fine-tune's."""

    def weights() -> list[torch.Tensor]:
        cfg = Classifier.model_validate({"precision": "fp32"})
        net = classifier.fit(images, "resnet18", cfg, mixed=True, steps=12, seed=0, device=torch.device("cuda"))
        tuned = finetune(shipped("cuda"), images, section(steps=12), seed=1).net
        return [torch.cat([v.flatten().float() for v in n.state_dict().values()]) for n in (net, tuned)]

    fast, count = weights(), list[int]()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *_, **__: count.append(1))
    assert all(distance(a, b) < 1e-3 for a, b in zip(weights(), fast, strict=True)) and len(count) == 2


def test_a_d2cs_steps_launched_as_graphs_are_the_plain_ones(images, monkeypatch):
    """Of both trainings: the first has an encoder of keys and a queue, which change between its steps."""
    settings = {"steps": 8, "batch": 16, "precision": "fp32", "warmup": 2, "latents": {"steps": 8, "batch": 16}}
    cfg = PretrainD2C.model_validate(settings | {"contrast": {"queue": 32}})

    def weights() -> torch.Tensor:
        net = d2c.pretrain(images.images, cfg, seed=0, device=torch.device("cuda")).net
        return torch.cat([v.flatten() for v in net.state_dict().values()])

    fast, count = weights(), list[int]()
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", lambda *_, **__: count.append(1))
    assert distance(weights(), fast) < 1e-2 and len(count) == 2


WAITS = """
import sys, time
from pathlib import Path
from ddrep.device import count_gpus, pick_device
from ddrep import gpus
gpus.lock_folder = lambda: Path(sys.argv[1])
device = pick_device()
print(time.time(), device)
time.sleep(float(sys.argv[2]))
print(time.time())
"""


def test_two_jobs_take_turns_at_one_gpu(tmp_path):
    if torch.cuda.device_count() > 1:
        pytest.skip("several GPUs: each job has its own")
    free = {name: value for name, value in os.environ.items() if name != gpus.VISIBLE}
    first, second = (
        subprocess.Popen([sys.executable, "-c", WAITS, tmp_path, "3"], stdout=subprocess.PIPE, text=True, env=free)
        for _ in range(2)
    )
    told = [job.communicate(timeout=120)[0].split() for job in (first, second)]
    assert [each[1] for each in told] == ["cuda", "cuda"]
    (_, _, end), (start, _, _) = sorted(told, key=lambda each: float(each[0]))
    assert float(start) >= float(end), f"both at once at {time.ctime(float(start))}"

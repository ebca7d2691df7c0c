"""The judge of probes against scikit-learn's own pipeline, and what its choices may hang on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ddrep.config import Data, EmbeddedData, Probe, ProbeReading, Stage, Tap
from ddrep.data.batches import to_unit
from ddrep.data.embedded import FOLDER
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.denoiser.features import tap_features
from ddrep.denoiser.schedule import add_noise
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks.judges import Judge
from ddrep.training.probe import calibrated, fit, folds_of, read, run, views
from tests import tiny

CPU = torch.device("cpu")
SMALL = Probe(blocks=("middle", "up1"), timesteps=(50, 300), noises=2, strengths=(0.01, 0.1), folds=3, best=3)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    tiny.denoiser().save(tmp_path / "d.safetensors")
    write_shard(tmp_path / "train.tar", tiny.images())
    return tmp_path


def trained(files: Path, name: str = "probe", cfg: Probe = SMALL, seed: int = 3) -> Judge:
    outputs = {"out": files / f"{name}.safetensors", "report": files / f"{name}.json"}
    run(Stage[Probe](seed=seed, config=cfg), denoiser=files / "d.safetensors", train=files / "train.tar", **outputs)
    return Judge.load(outputs["out"], files / "d.safetensors", CPU)


def test_features_are_the_mean_over_noises_of_pooled_blocks() -> None:
    """By hand, with the network's own parts."""
    model, x0 = tiny.denoiser(), to_unit(tiny.images(per_class=2).images)
    reading = ProbeReading(taps=(Tap(block="up1", timestep=300), Tap(block="middle", timestep=50)), pool=2, noises=3)
    up, middle = tap_features(model, x0, reading)
    for found, block, t in ((up, "up1", 300), (middle, "middle", 50)):
        index, wanted = torch.full((len(x0),), model.schedule.index(t)), []
        for seed in range(3):
            z = torch.randn(x0.shape[1:], generator=torch.Generator().manual_seed(seed))
            x = add_noise(x0, z[None], model.schedule.abar_at(index, x0))
            emb = model.net.embed(model.schedule.embedded(index).float(), None)
            h, skips = model.net.encode(x, emb)
            if block == "up1":
                (number,) = model.net.cfg.block_numbers(("up1",))
                assert number is not None
                h = model.net.decode(h, skips, emb, [number], stop=number)[1][number]
            n, c, height, width = h.shape
            wanted.append(h.reshape(n, c, 2, height // 2, 2, width // 2).mean(dim=(3, 5)).flatten(1))
        assert torch.allclose(found, torch.stack(wanted).mean(dim=0), atol=1e-5)


def test_a_probe_is_scikit_learns_regression_on_standardised_features() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    x = rng.normal(size=(90, 7)) * [1, 5, 0.1, 1, 1, 3, 0] + labels[:, None] * [1, 0, 0.1, 0, 0.5, 0, 0]
    data = LabelledImages(np.zeros((90, 1, 1, 1), np.uint8), labels, [str(i) for i in range(90)], ("a", "b", "c"))
    folds = folds_of(data, 5, seed=1)
    assert sorted(i for _, judged in folds for i in judged) == list(range(90))
    found = fit(Tap(block="up1", timestep=10), x[None], labels, (0.01, 1.0), folds)
    for strength in (0.01, 1.0):
        p = np.zeros((90, 3))
        for kept, judged in folds:
            made = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=1000))
            p[judged] = made.fit(x[kept], labels[kept]).predict_proba(x[judged])
        assert found.losses[strength] == pytest.approx(-np.log(p[np.arange(90), labels]).mean(), abs=1e-4)
    assert found.strength == min(found.losses, key=found.losses.__getitem__)
    whole = make_pipeline(StandardScaler(), LogisticRegression(C=found.strength, max_iter=1000)).fit(x, labels)
    logits = torch.as_tensor(x @ found.weight.T + found.bias)
    assert np.allclose(logits.softmax(1).numpy(), whole.predict_proba(x), atol=1e-4)


def test_views_are_the_image_moved_each_way_with_its_edge_repeated() -> None:
    image = np.arange(16, dtype=np.uint8).reshape(1, 4, 4, 1)
    whole, *moved = (view[0, :, :, 0] for view in views(image, 0.25))
    assert np.array_equal(whole, image[0, :, :, 0])
    for found, axis, by in zip(moved, (0, 0, 1, 1), (-1, 1, -1, 1), strict=True):
        wanted = np.roll(whole, by, axis)
        np.moveaxis(wanted, axis, 0)[0 if by == 1 else -1] = np.moveaxis(whole, axis, 0)[0 if by == 1 else -1]
        assert np.array_equal(found, wanted)
    assert len(list(views(image, 0))) == len(list(views(image, 0.1))) == 1, "less than half a pixel is none"


def test_views_are_trained_on_together_and_judged_by_the_first() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    x = rng.normal(size=(3, 60, 5)) + labels[:, None] * [1, 0, 0.5, 0, 0]
    data = LabelledImages(np.zeros((60, 1, 1, 1), np.uint8), labels, [str(i) for i in range(60)], ("a", "b", "c"))
    folds = folds_of(data, 5, seed=1)
    found = fit(Tap(block="up1", timestep=10), x, labels, (0.3,), folds)
    p = np.zeros((60, 3))
    for kept, judged in folds:
        made = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
        p[judged] = made.fit(np.concatenate(x[:, kept]), np.tile(labels[kept], 3)).predict_proba(x[0][judged])
    assert found.losses[0.3] == pytest.approx(-np.log(p[np.arange(60), labels]).mean(), abs=1e-4)
    whole = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    whole.fit(np.concatenate(x), np.tile(labels, 3))
    logits = torch.as_tensor(x[1] @ found.weight.T + found.bias)
    assert np.allclose(logits.softmax(1).numpy(), whole.predict_proba(x[1]), atol=1e-4)


def test_two_classes_are_told_as_scikit_learn_tells_them() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    x = rng.normal(size=(40, 4)) + labels[:, None]
    data = LabelledImages(np.zeros((40, 1, 1, 1), np.uint8), labels, [str(i) for i in range(40)], ("a", "b"))
    found = fit(Tap(block="up1", timestep=10), x[None], labels, (0.1,), folds_of(data, 4, seed=0))
    made = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)).fit(x, labels)
    p = torch.as_tensor(x @ found.weight.T + found.bias).softmax(1).numpy()
    assert np.allclose(p, made.predict_proba(x), atol=1e-4)


def test_the_temperature_is_that_of_least_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    truth = rng.dirichlet([1, 1, 1], size=4000)
    labels = np.array([rng.choice(3, p=row) for row in truth])
    sharp = truth**3 / (truth**3).sum(axis=1, keepdims=True)
    assert calibrated(sharp, labels) == pytest.approx(3, rel=0.1), "what was made three times as sure"
    assert calibrated(truth, labels) == pytest.approx(1, rel=0.1)


def test_the_judge_is_the_mean_of_its_probes_and_the_report_says_which(files: Path) -> None:
    judge, images = trained(files), tiny.images("test", per_class=5)
    reading: Any = judge.meta.probes
    assert judge.denoiser
    report = json.loads((files / "probe.json").read_text())
    assert len(report["probes"]) == 3 and report["n"] == 60
    tried = [(each["block"], each["timestep"]) for each in report["tried"]]
    assert sorted(tried) == [(block, t) for block in ("middle", "up1") for t in (50, 300)]
    best = min(report["tried"], key=lambda each: min(each["cross_entropy"].values()))
    assert report["probes"][0] == best and 0 <= best["top1"] <= 100
    losses = [min(each["cross_entropy"].values()) for each in report["probes"]]
    assert losses == sorted(losses)
    assert [(t.block, t.timestep) for t in reading.taps] == [
        (each["block"], each["timestep"]) for each in report["probes"]
    ]  # fmt: skip
    parts = read(judge.denoiser, images.images, reading)
    linear: Any = judge.net.linear
    each = [torch.softmax(one(torch.as_tensor(x)), dim=1) for one, x in zip(linear, parts, strict=True)]
    p = torch.stack(each).mean(dim=0) ** (1 / report["temperature"])
    assert np.allclose(judge.probabilities(images.images), p / p.sum(dim=1, keepdim=True), atol=1e-5)
    assert (judge.probabilities(images.images).argmax(1) == images.labels).mean() > 0.5, "of three classes"


def test_equal_calls_give_equal_bytes_and_another_seed_others(files: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        trained(files, name, seed=seed)
    a, b, c = (sha256(files / f"{name}.safetensors") for name in "abc")
    assert a == b != c


def test_no_test_image_has_a_part_in_its_choices(files: Path) -> None:
    """Of another test split the labelled images are the same, and so is all that is made of them."""
    shards = []
    for n in (50, 5000):
        data = labelled(Data(embedded=EmbeddedData(per_class=3, test_images=n)), "train", 0, 0)
        write_shard(files / f"{n}.tar", data)
        shards.append((files / f"{n}.tar").read_bytes())
    assert shards[0] == shards[1]
    outputs = {"out": files / "p", "report": files / "r"}
    assert {"train", "denoiser"} == set(run.__annotations__) - {"stage", "return", *outputs}, "nothing else is read"


def test_a_class_of_one_image_is_named(files: Path) -> None:
    images = tiny.images()
    write_shard(files / "train.tar", images.take([*range(41)]))
    with pytest.raises(UserError, match=r"class Pullover has 1 labelled images; expected 2 or more"):
        trained(files)
    assert not (files / "probe.safetensors").exists() and not (files / "probe.json").exists()
    write_shard(files / "train.tar", images.take([*range(42)]))
    assert trained(files).probabilities(images.images[:3]).shape == (3, 3), "two are enough"


def test_another_denoisers_judge_is_refused(files: Path) -> None:
    trained(files)
    tiny.denoiser(seed=1).save(files / "other.safetensors")
    with pytest.raises(UserError, match="trained with another denoiser"):
        Judge.load(files / "probe.safetensors", files / "other.safetensors", CPU)


def test_it_knows_more_than_chance_of_the_embedded_images(tmp_path: Path) -> None:
    """Few settings and images, for time; docs/evidence has the real figures."""
    write_shard(tmp_path / "train.tar", labelled(Data(embedded=EmbeddedData(per_class=5)), "train", 0, 0))
    denoiser = FOLDER / "denoiser.safetensors"
    cfg = Probe(blocks=("up1",), timesteps=(50,), noises=1, strengths=(0.1,), best=1)
    outputs = {"out": tmp_path / "p.safetensors", "report": tmp_path / "r.json"}
    run(Stage[Probe](config=cfg), denoiser=denoiser, train=tmp_path / "train.tar", **outputs)
    test = labelled(Data(embedded=EmbeddedData(test_images=200)), "test", 0, 0)
    p = Judge.load(outputs["out"], denoiser, CPU).probabilities(test.images)
    assert (p.argmax(1) == test.labels).mean() > 0.6

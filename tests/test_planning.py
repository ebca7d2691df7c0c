"""The forecast against what the stages do: every image that passes a network is counted while they run for real."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddrep import heads
from ddrep.config import Experiment, Stage, load, shard_of, training_of
from ddrep.data.datasets import labelled
from ddrep.data.shards import read_shards, write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.planning.draws import Seen, attempts, draws_of, read_verdicts
from ddrep.planning.plan import Plan, Row
from ddrep.planning.report import elapsed
from ddrep.planning.sizes import Sizes, denoiser_of, sizes_of
from ddrep.planning.speed import Speeds, _per_image
from ddrep.planning.stages import rows
from ddrep.planning.trials import Trial
from ddrep.runs import all_runs
from ddrep.sampling import synthesis
from ddrep.sampling.sampler import sample
from ddrep.training import classifier, finetune
from ddrep.training import heads as training
from tests.meter import Counts, Meter, passes, spread
from tests.overlays import overlays

REPO = Path(__file__).resolve().parents[1]
NETWORK = UNetConfig(28, 1, 1, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_sizes=())
BLOCK = {"architectures": ["resnet18"], "mix": [False], "subsets": [0], "seeds": [0]}
SMALL = {
    "experiment": "small",
    "parts": ["augmentation"],
    "data": {"kind": "embedded", "embedded": {"per_class": 10, "test_images": 40}},
    "denoiser": {"kind": "file", "file": {"path": "denoiser.safetensors"}},
    "finetune": {"steps": 3, "batch": 4},
    "features": {"timesteps": [300, 800], "flip": True},
    "rejection": {"epochs": 2, "hidden": 16, "batch": 16},
    "pixel_rejection": {"epochs": 2, "hidden": 16, "batch": 7},
    "sampling": {"steps": 2, "guidance_scale": 0.5},
    "synthesis": {"per_class": 4, "shards_per_scale": 2, "threshold": 0.05, "max_attempts": 100},
    "classifier": {"epochs": 1, "min_steps": 1, "batch": 16},
    "table4": [
        {**BLOCK, "sources": ["real"], "scales": [0]},
        {**BLOCK, "sources": ["real-equal-steps", "ours"], "scales": [2]},
    ],
}  # fmt: skip


def small() -> Experiment:
    return Experiment.model_validate(SMALL)


def run_stages(meter: Meter, e: Experiment, results: Path) -> dict[tuple[str, str], Counts]:
    """Everything that passes networks, in the forecast's order; what was counted by rule and kind."""
    subset, data, base = results / "subset0", results / "data", e.denoiser.file.path
    real, tuned = subset / "real.tar", subset / "finetuned.safetensors"
    ours, pixels = (subset / kind / "classifier.safetensors" for kind in ("rejection", "pixel-rejection"))
    features, threshold = subset / "rejection/features.safetensors", subset / "pixel-rejection/threshold.json"
    for split, path in {"train": real, "validation": data / "validation.tar", "test": data / "test.tar"}.items():
        write_shard(path, labelled(e.data, split, 0, e.seed))

    def stage(config: Any) -> Any:
        return Stage[type(config)](seed=e.seed, config=config)  # type: ignore[misc]

    def shards(source: str, scale: int) -> Callable[[], None]:
        def make() -> None:
            judge = (pixels, threshold) if source == "pixel-rejection" else (ours, None)
            for index in range(scale * e.synthesis.shards_per_scale):
                out = subset / f"synthetic/{source}/{index:05d}.tar"
                synthesis.run(stage(shard_of(source, e)), tuned, base, *judge, index, results / "pool", out, 64)

        return make

    def classify(real_too: bool) -> Callable[[], None]:
        def make() -> None:
            for run in all_runs(e):
                if run.real == real_too:
                    tars = [
                        subset / f"synthetic/{run.source}/{index:05d}.tar"
                        for index in range(run.scale * e.synthesis.shards_per_scale)
                        if run.source != "real-equal-steps"
                    ]
                    section = stage(training_of(run.source, run.mix, e))
                    outs = results / run.path, results / run.predictions
                    classifier.run(section, run, real if real_too else None, tars, data / "test.tar", *outs)

        return make

    def spread_judges() -> None:
        images = sample(Denoiser.load(tuned), range(100), e.sampling, [i % 10 for i in range(100)])
        for path in (ours, pixels):
            judge = heads.Judge.load(path, base, torch.device("cpu"))
            spread(judge, images)
            judge.save(path)

    shard = stage(shard_of("pixel-rejection", e))
    outs = subset / "finetuned.png", subset / "finetuned.parquet"
    jobs: dict[tuple[str, str], Callable[[], Any]] = {
        ("finetune", ""): lambda: finetune.run(stage(e.finetune), base, real, data / "validation.tar", tuned, *outs),
        ("features", ""): lambda: training.extract(stage(e.features), base, real, features),
        ("rejection", ""): lambda: training.run_features(stage(e.rejection), features, real, ours, subset / "a.json"),
        ("pixel_rejection", ""): lambda: training.run_pixels(stage(e.pixel_rejection), real, pixels, subset / "b.json"),
        ("", ""): spread_judges,
        ("synthesis", "improved-ddpm"): shards("improved-ddpm", 1),
        ("synthesis", "classifier-free"): shards("classifier-free", 1),
        ("pixel_threshold", ""): lambda: synthesis.match_threshold(
            shard, tuned, base, ours, pixels, results / "pool", threshold, 64
        ),
        ("synthesis", "ours"): shards("ours", 2),
        ("synthesis", "pixel-rejection"): shards("pixel-rejection", 1),
        ("classifier", "resnet18"): classify(True),
        ("classifier_on_synthetic_alone", "resnet18"): classify(False),
    }
    return {name: count for name, job in jobs.items() for count in [meter.of(job)] if any(name)}


def test_what_is_forecast_is_what_passes_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Denoiser(UNet(NETWORK).eval().requires_grad_(False), Schedule()).save(Path("denoiser.safetensors"))
    e, results = small(), Path("results/small")
    sizes, remarks = sizes_of(e)
    network, more = denoiser_of(e, sizes.image)
    assert network == NETWORK and remarks == more == []
    before = {(row.rule, row.what): row for row in rows(Plan(e, sizes, network))}
    counted = run_stages(Meter(monkeypatch), e, results)
    after = {(row.rule, row.what): row for row in rows(Plan(e, sizes, network, seen=read_verdicts(e)))}
    refusing = {("synthesis", "pixel-rejection"), ("synthesis", "ours")}
    assert {name: passes(after[name]) for name in counted} == counted
    assert {name: passes(before[name]) for name in counted if name not in refusing} == {
        name: count for name, count in counted.items() if name not in refusing
    }
    assert {name for name, row in before.items() if any(passes(row).values())} == set(counted)
    refused = counted["synthesis", "ours"]["classifiers"] - 10 * 4 * 2
    assert refused > 20, "some were refused, or nothing here is tested"
    for name, row in after.items():
        if name[0] == "synthesis":
            folder = results / "subset0/synthetic" / name[1]
            made = [len(part) for path in sorted(folder.glob("*.tar")) for part in [read(path)]]
            assert (len(row.jobs), row.images) == (len(made), sum(made))
    disk = {"finetune": [results / "subset0/finetuned.safetensors"], "features": [*results.rglob("features.*")]}
    disk |= {"labelled_images": [results / "subset0/real.tar"], "held_out_images": [*results.glob("data/*.tar")]}
    for rule, files in disk.items():
        size = sum(path.stat().st_size for path in files)
        assert 0.5 * after[rule, ""].disk < size < 1.1 * after[rule, ""].disk, rule
    made_here = sum(path.stat().st_size for path in [*results.rglob("synthetic/**/*.tar"), *results.rglob("*.npz")])
    assert 0.3 < made_here / sum(row.disk for name, row in after.items() if name[0] == "synthesis") < 1.2


def read(path: Path) -> list[str]:
    return read_shards([path]).keys


def test_attempts_are_the_engines() -> None:
    assert attempts([True] * 5, quota=5, budget=50) == 5
    # 2 wanted, 1 accepted; then (1 missing) / (2 / 3) -> 2 more
    assert attempts([True, False, True], quota=2, budget=50) == 4
    assert attempts([False] * 10, quota=2, budget=10) == 10


@pytest.mark.parametrize("acceptance", [0.3, 0.5, 0.8])
def test_draws_at_an_acceptance(acceptance: float) -> None:
    """Somewhat above quota / acceptance: the last round asks for what should do, and must be made whole."""
    e = load(REPO / "config.yaml")
    draws = draws_of(e, 10, Seen(), acceptance)
    ours = np.mean([draw.judged for (_, source, _), draw in draws.items() if source == "ours"]) / 10
    assert 20 / acceptance * 0.95 < ours < 20 / acceptance * 1.3
    assert draws[0, "classifier-free", 0].drawn == draws[0, "classifier-free", 0].judged == 200
    assert draws[0, "improved-ddpm", 0].drawn == 200, "without guidance it shares nothing"
    shared = [draws[0, source, 0] for source in ("classifier-free", "pixel-rejection", "ours")]
    assert max(d.judged for d in shared) <= sum(d.drawn for d in shared) < sum(d.judged for d in shared)


def test_sizes_of_each_kind_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def sized(kind: str, **table: Any) -> tuple[Sizes, list[str]]:
        return sizes_of(Experiment.model_validate({"experiment": "e", "data": {"kind": kind, **table}}))

    assert sized("embedded", embedded={"per_class": 7, "test_images": 90})[0] == Sizes((28, 28, 1), (7,) * 10, 1000, 90)
    tiny = sized("tiny-imagenet", tiny_imagenet={"path": "gone.zip"})
    assert tiny[0] == Sizes((64, 64, 3), (490,) * 200, 2000, 10_000)
    assert tiny[1] == ["data.tiny_imagenet: gone.zip is not there yet"]
    faces = sized("celeba", celeba={"root": ".", "attribute": "Male"})
    assert faces == (Sizes((64, 64, 3), (81_385, 81_385), 19_867, 19_962), [])
    missing, remarks = sized("image-folder", image_folder={"root": "images", "size": 8})
    assert missing == Sizes((8, 8, 3)) and "images: no such folder" in remarks[0]
    for split, label, n in [("train", "a", 20), ("train", "b", 10), ("test", "a", 2), ("test", "b", 3)]:
        folder = tmp_path / "images" / split / label
        folder.mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (8, 8)).save(folder / f"{i}.png")
    assert sized("image-folder", image_folder={"root": "images", "size": 8}) == (Sizes((8, 8, 3), (18, 9), 3, 5), [])


def test_sizes_that_only_made_shards_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"train": ["train.tar"], "test": ["test.tar"], "size": 28, "channels": 1}
    data = {"kind": "webdataset", "webdataset": table}
    e = Experiment.model_validate({"experiment": "e", "parts": ["augmentation"], "data": data})
    sizes, remarks = sizes_of(e)
    assert sizes == Sizes((28, 28, 1)) and "make results/e/subset0/real.tar and" in remarks[0]
    assert sum(row.images for row in rows(Plan(e, sizes, None))) == 0
    for name, split in {"subset0/real": "train", "data/validation": "validation", "data/test": "test"}.items():
        write_shard(Path(f"results/e/{name}.tar"), labelled(small().data, split, 0, 0))
    assert sizes_of(e) == (Sizes((28, 28, 1), (10,) * 10, 1000, 40), [])


def test_a_missing_denoiser(tmp_path: Path) -> None:
    def planned(path: str) -> tuple[UNetConfig | None, list[str]]:
        settings = {"experiment": "e", "denoiser": {"file": {"path": str(tmp_path / path)}}}
        return denoiser_of(Experiment.model_validate(settings), (64, 64, 3))

    network, remarks = planned("imagenet64.safetensors")
    assert network is not None
    with torch.device("meta"):
        assert sum(p.numel() for p in UNet(network).parameters()) == 121_063_942  # method.md: the published file's
    assert "no such file" in remarks[0] and "imagenet64_uncond_100M_1500K.pt" in remarks[0]
    assert planned("mine.safetensors")[0] is None


def test_speed_of_a_pass_of_known_cost() -> None:
    def burn(images: int) -> None:
        ends = time.process_time() + 0.02 + 0.001 * images
        while time.process_time() < ends:
            pass

    for batch in (1, 16, 4096):
        measured = _per_image(Trial("x", batch, lambda: burn), time.process_time, time.process_time() + 0.2)
        assert measured == pytest.approx(0.001 + 0.02 / batch, rel=0.2)


def test_memory_that_a_large_batch_has_for_the_first_time_does_not_count() -> None:
    def burn(images: int) -> None:
        ends = time.process_time() + 0.001 * images * (3 if images == 256 else 1)
        while time.process_time() < ends:
            pass

    measured = _per_image(Trial("x", 256, lambda: burn), time.process_time, time.process_time() + 5)
    assert measured == pytest.approx(0.001, rel=0.2)


def test_elapsed_is_bounded_by_cores_gpus_and_the_longest_chain() -> None:
    speeds = Speeds({"n": 1.0}, startup=2.0, light_startup=0.5, device=torch.device("cpu"))
    plan = Plan(small(), Sizes((28, 28, 1)), None, cores=4)
    stages = [
        Row("finetune", ({"n": 8},), threads=4),
        Row("synthesis", ({"n": 3}, {"n": 8})),
        Row("classifier", ({"n": 18},) * 3),
        Row("table", ({}, {})),
        Row("all", ({},)),
    ]
    # 4 threads do the fine-tune's 8 in 2
    assert elapsed(plan, stages, speeds, gpus=0) == (2 + 2) + 10 + 20  # one after another; the cores need less
    assert elapsed(plan, stages, speeds, gpus=1) == (2 + 2) + (5 + 10) + 3 * 20
    plan = dataclasses.replace(plan, cores=2)
    assert elapsed(plan, stages, speeds, gpus=0) == ((2 + 2) * 4 + (5 + 10) + 3 * 20 + 2 * 0.5) / 2


def test_the_papers_counts(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text((REPO / "config.yaml").read_text())
    files = [f"--configfile={path}" for path in overlays("tiny-imagenet at 7x", tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "ddrep", "plan", *files, "--cores", "16", "--gpus", "4"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    table = {line[0]: line[1:] for line in lines}
    assert table["synthesis ours"][:2] == ["70", "700,000"]
    for source in ("improved-ddpm", "classifier-free", "pixel-rejection"):
        assert table[f"synthesis {source}"][:2] == ["10", "100,000"]
    assert table["synthesis improved-ddpm"][2] == f"{100_000 * 100:,}"
    assert table["total"][1] == "1,000,000"
    # 150,000 steps of 128; 750 margins of 256 images, 6 passes each; a grid of 20 x 10 images in 16 steps
    assert table["finetune"][2] == f"{150_000 * 128 + 750 * 256 * 6 + 20 * 10 * 16:,}"
    assert table["features"][3] == f"{98_000 * 2 * 2:,}"
    for name in ("resnet18", "wide_resnet50_2", "resnext50_32x4d"):
        assert table[f"classifier {name}"][0] == "16", "real, and 1x to 7x, with and without Mixup+CutMix"
    assert "16 cores and 4 GPUs" in done.stdout
    said = " ".join(done.stdout.split())
    assert "imagenet64.safetensors: no such file" in said and "imagenet64_uncond_100M_1500K.pt" in said
    assert "tiny-imagenet-200.zip is not there yet" in said
    assert not (tmp_path / "results").exists()

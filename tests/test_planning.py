"""The forecast against what the workflow's own commands do: every image that passes a network is counted."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ddrep import cli
from ddrep.checks.sets import mask_counts
from ddrep.config import Experiment, Sampling, load
from ddrep.cost import Job, Passes
from ddrep.data import embedded
from ddrep.data.datasets import masked
from ddrep.data.readers import labelled
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig, bytes_of
from ddrep.networks.guides import Guide
from ddrep.networks.judges import Judge
from ddrep.planning import dag
from ddrep.planning.draws import ASSUMED, read_verdicts
from ddrep.planning.forecast import Plan, Step, elapsed, forecast
from ddrep.planning.sizes import Sizes, denoiser_of, sizes_of
from ddrep.planning.speed import Speeds, per_image
from ddrep.sampling.engine import attempts
from ddrep.sampling.sampler import sample
from tests.meter import Counts, Meter, passes, spread
from tests.overlays import overlays
from tests.workflow.tree import copy_workflow

REPO = Path(__file__).resolve().parents[1]
NETWORK = UNetConfig(28, 1, 1, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_sizes=())
BLOCK = {"architectures": ["resnet18"], "mix": [False], "subsets": [0], "seeds": [0]}
DRAWN: dict[str, Any] = {"solver": "ddim", "eta": 1.0}
SMALL: dict[str, Any] = {
    "experiment": "small",
    "parts": ["augmentation", "attributes", "masks"],
    "data": {"kind": "embedded", "embedded": {"per_class": 10, "test_images": 40}},
    "denoiser": {"kind": "file", "file": {"path": "denoiser.safetensors"}},
    "finetune": {"steps": 3, "batch": 4},
    "features": {"timesteps": [300, 800], "flip": True},
    "rejection": {"epochs": 2, "hidden": 16, "batch": 16},
    "pixel_rejection": {"epochs": 2, "hidden": 16, "batch": 7},
    "sampling": {"steps": 2, "guidance_scale": 0.5},
    "synthesis": {"per_class": 4, "shards_per_scale": 2, "threshold": 0.05, "max_attempts": 100},
    "classifier": {"epochs": 1, "min_steps": 1, "batch": 16},
    "table3": {"sources": ["improved-ddpm", "classifier-free", "pixel-rejection", "ours"]},
    "table4": [
        {**BLOCK, "sources": ["real"], "scales": [0]},
        {**BLOCK, "sources": ["real-equal-steps", "ours"], "scales": [2]},
    ],
    "attributes": {
        "groups": [
            {"name": "shoes", "having": ["Sandal", "Sneaker", "Ankle boot"]},
            {"name": "tops", "having": ["Shirt", "T-shirt/top"]},
        ],
        "examples": 6,
        "taps": {"blocks": ["middle", "up1"], "timesteps": [300, 700]},
        "training": {"hidden": 8, "steps": 3, "batch": 5},
        "sampling": DRAWN,
    },
    "masks": {
        "data": {"kind": "embedded", "embedded": {"train": 7, "test": 20}},
        "taps": {"blocks": ["up1"], "timesteps": [500]},
        "training": {"hidden": 8, "steps": 2, "batch": 3},
        "sampling": DRAWN,
    },
    "evaluation": {
        "evaluator": None,
        "segmenter": None,
        "evaluator_training": {"epochs": 1, "batch": 32, "width": 4},
        "segmenter_training": {"epochs": 1, "batch": 500, "width": 4},
    },
    "robustness": {"timesteps": [200, 900], "images": 30},
    "table1": {"steps": [2, 3], "images": 4, "max_attempts": 100},
    "table2": {"steps": [3], "images": 9},
}
GIVEN = {name: f"{embedded.FOLDER}/{name}.safetensors" for name in ("evaluator", "segmenter")}


def small(path: Path, **settings: Any) -> Experiment:
    """The small experiment in a copy of the workflow, with a denoiser that has learned nothing."""
    copy_workflow(path)
    (path / "config.yaml").write_text(yaml.safe_dump({**SMALL, **settings}))
    torch.manual_seed(0)
    Denoiser(UNet(NETWORK).eval().requires_grad_(False), Schedule()).save(path / "denoiser.safetensors")
    return load(path / "config.yaml")


def planned(e: Experiment, jobs: list[Job], assumed: float = ASSUMED) -> list[Step]:
    sizes, remarks = sizes_of(e)
    network, more = denoiser_of(e, sizes.image)
    assert (network, remarks, more) == (NETWORK, [], [])
    return forecast(Plan(e, jobs, sizes, network, read_verdicts(jobs)), assumed)


def by_row(steps: list[Step], count: Callable[[Step], Counts]) -> dict[str, Counts]:
    """What is not nothing."""
    rows: dict[str, Counter[str]] = {}
    for step in steps:
        rows.setdefault(step.row, Counter()).update(count(step))
    return {row: dict(+counts) for row, counts in rows.items() if +counts}


def commands_of(e: Experiment, monkeypatch: pytest.MonkeyPatch) -> dict[Job, list[str]]:
    """The jobs, and the arguments of `ddrep` with which Snakemake would run them."""
    commands: dict[Job, list[str]] = {}
    made = dag._job

    def noted(job: Any, *rest: Any) -> Job:
        commands[found := made(job, *rest)] = shlex.split(job.shellcmd or "")[1:]
        return found

    monkeypatch.setattr(dag, "_job", noted)
    return {job: commands[job] for job in dag.jobs_of(e, cores=1)}


def make_opinionated(job: Job) -> None:
    """What has hardly been trained refuses some candidates, not all or none."""
    path, base = Path(*job.outputs["out"]), Path("denoiser.safetensors")
    cfg = Sampling(solver="ddim", steps=3, eta=1, guidance_scale=0)
    images = sample(Denoiser.load(base), range(100), cfg)
    load_judge: Any = Guide.load if job.verb == "guide" else Judge.load
    judge = load_judge(path, base, torch.device("cpu"))
    spread(judge, images)
    judge.save(path)


@pytest.mark.parametrize("given", [{}, GIVEN], ids=["trained", "given"])
def test_what_is_forecast_is_what_passes_the_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ddrep.device.set_threads", lambda threads: None)  # once in a process is all that torch allows
    monkeypatch.setattr(logging.getLogger("ddrep"), "handlers", [])
    parts = {} if not given else {"parts": ["attributes", "masks"]}
    e = small(tmp_path, evaluation=SMALL["evaluation"] | given, **parts)
    commands, meter = commands_of(e, monkeypatch), Meter(monkeypatch)
    jobs = list(commands)
    before = planned(e, jobs)
    counted: dict[Job, Counts] = {}
    for job in jobs:
        if job.gpus or job.verb in ("data", "attribute", "masks"):
            counted[job] = meter.of(cli.main, commands[job])
        if job.verb in ("rejection", "pixel-rejection") or (job.verb == "guide" and job.part == "attributes"):
            make_opinionated(job)
    after = planned(e, jobs)
    assert by_row(after, passes) == by_row(after, lambda step: counted.get(step.job, {}))
    refusing = {step.row for step in before if step.job.refuses}
    first, last = (
        {row: n for row, n in by_row(steps, passes).items() if row not in refusing} for steps in (before, after)
    )
    assert first == last, "what refuses nothing is exact before anything is made"
    refused = sum(step.job.judged - step.images for step in after if step.row in refusing and step.images)
    assert refused > 20, "some were refused, or nothing here is tested"
    for step in after:
        for path in map(Path, (p for p in step.job.outputs.get("out", ()) if p.endswith(".tar"))):
            assert path.stat().st_size < step.disk + 20_480, path  # a tar's own ends
    with_files = {"features": "subset0/rejection/features.safetensors", "finetune": "subset0/finetuned.safetensors"}
    for step in after:
        if step.row in with_files:
            size = Path("results/small", with_files[step.row]).stat().st_size
            assert 0.9 * step.disk < size < 1.1 * step.disk


def test_attempts_are_the_engines() -> None:
    assert attempts([True] * 5, quota=5, budget=50) == 5
    # 2 wanted, 1 accepted; then (1 missing) / (2 / 3) -> 2 more
    assert attempts([True, False, True], quota=2, budget=50) == 4
    assert attempts([False] * 10, quota=2, budget=10) == 10


def test_candidates_are_shared_and_what_refuses_draws_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    e = small(tmp_path)
    jobs = dag.jobs_of(e, cores=1)
    for acceptance in (0.8, 0.5, 0.3):
        made = {step.job: (step.job.judged, step.job.drawn) for step in planned(e, jobs, acceptance)}
        ours = [judged for job, (judged, _) in made.items() if job.wildcards.get("source") == "ours" and judged]
        # somewhat above quota / acceptance: the last round asks for what should do, and must be made whole
        assert 2 / acceptance * 0.8 < np.mean(ours) / 10 < 2 / acceptance * 1.6
    drawing = {job: n for job, n in made.items() if any(n)}
    shards = {job.outputs["out"][0].removeprefix("results/small/subset0/"): n for job, n in drawing.items()}
    assert shards["synthetic/classifier-free/00000.tar"] == (20, 20)
    assert shards["synthetic/improved-ddpm/00000.tar"] == (20, 20), "without guidance it shares nothing"
    judged, drawn = shards["synthetic/ours/00000.tar"]
    assert judged > 20 and drawn == judged - 20
    assert shards["attributes/shoes/0/unguided/2.tar"] == shards["attributes/shoes/0/unguided/3.tar"] == (8, 8)
    assert shards["attributes/tops/0/unguided/3.tar"] == (8, 0), "the same noise in as many steps"
    assert shards["masks/0/unguided/3.tar"][1] == 9 - 4, "of which the images of class 0 are there"
    assert shards["masks/0/ours/3.tar"][1] == 9 and shards["attributes/tops/0/ours/3.tar"] == (8, 8)
    judged, drawn = shards["attributes/shoes/0/rejection/2.tar"]
    assert judged > 8 and drawn == judged - 8


def test_sizes_of_each_kind_of_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def sized(kind: str, **table: Any) -> tuple[Sizes, list[str]]:
        return sizes_of(Experiment.model_validate({"experiment": "e", "data": {"kind": kind, **table}}))

    def splits(train: tuple[int, ...], validation: tuple[int, ...], test: tuple[int, ...]) -> dict[str, Any]:
        return {"train": train, "validation": validation, "test": test}

    images, _ = sized("embedded", embedded={"per_class": 7, "test_images": 90})
    assert images == Sizes((28, 28, 1), splits((7,) * 10, (100,) * 10, (9,) * 10))
    tiny = sized("tiny-imagenet", tiny_imagenet={"path": "gone.zip"})
    assert tiny == (Sizes((64, 64, 3), splits((490,) * 200, (10,) * 200, (50,) * 200)), [])
    faces = sized("celeba", celeba={"root": ".", "attribute": "Male"})
    assert faces == (Sizes((64, 64, 3), splits((81_385,) * 2, (9934, 9933), (9981,) * 2)), [])
    missing, remarks = sized("image-folder", image_folder={"root": "images", "size": 8})
    assert missing == Sizes((8, 8, 3)) and "images: no such folder" in remarks[0]
    for split, label, n in [("train", "a", 20), ("train", "b", 10), ("test", "a", 2), ("test", "b", 3)]:
        folder = tmp_path / "images" / split / label
        folder.mkdir(parents=True)
        for i in range(n):
            Image.new("RGB", (8, 8)).save(folder / f"{i}.png")
    folder_of_images = sized("image-folder", image_folder={"root": "images", "size": 8})
    # of what is held out the classes are taken for equally large
    assert folder_of_images == (Sizes((8, 8, 3), splits((18, 9), (2, 1), (3, 2))), [])


def test_sizes_that_only_made_shards_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    table = {"train": ["train.tar"], "test": ["test.tar"], "size": 28, "channels": 1}
    e = Experiment.model_validate({"experiment": "e", "data": {"kind": "webdataset", "webdataset": table}})
    sizes, remarks = sizes_of(e)
    assert sizes == Sizes((28, 28, 1)) and "make results/e/subset0/real.tar and" in remarks[0]
    small_data = Experiment.model_validate({**SMALL}).data
    for name, split in {"subset0/real": "train", "data/validation": "validation", "data/test": "test"}.items():
        write_shard(Path(f"results/e/{name}.tar"), labelled(small_data, split, 0, 0))
    found, remarks = sizes_of(e)
    assert {split: sum(n) for split, n in found.splits.items()} == {"train": 100, "validation": 1000, "test": 40}
    assert found.classes == 10 and remarks == []


def test_images_with_masks_are_counted_without_making_them() -> None:
    data = Experiment.model_validate(SMALL).masks.data
    assert mask_counts(data) == {split: len(masked(data, split, 0)) for split in ("train", "test", "oracle")}


def test_a_missing_denoiser(tmp_path: Path) -> None:
    def planned_with(path: str) -> tuple[UNetConfig | None, list[str]]:
        settings = {"experiment": "e", "denoiser": {"file": {"path": str(tmp_path / path)}}}
        return denoiser_of(Experiment.model_validate(settings), (64, 64, 3))

    network, remarks = planned_with("imagenet64.safetensors")
    assert bytes_of(network) == 4 * 121_063_942  # method.md: the published file's
    assert "no such file" in remarks[0] and "imagenet64_uncond_100M_1500K.pt" in remarks[0]
    assert planned_with("mine.safetensors")[0] is None


@pytest.mark.parametrize("dearer", [1, 3], ids=["even", "memory that a large batch has for the first time"])
def test_speed_of_a_pass_of_known_cost(dearer: int) -> None:
    def burn(images: int) -> None:
        ends = time.process_time() + 0.01 + 0.001 * images * (dearer if images == 256 else 1)
        while time.process_time() < ends:
            pass

    for batch in (1, 16, 256):
        measured = per_image(burn, 1, batch, time.process_time, time.process_time() + 5)
        cheapest = batch if dearer == 1 else min(batch, 64)
        assert measured == pytest.approx(0.001 + 0.01 / cheapest, rel=0.2)


def test_elapsed_is_bounded_by_cores_gpus_and_the_longest_chain() -> None:
    speeds = Speeds({"n": 1.0}, 2.0, torch.device("cpu"))

    def step(n: int, threads: int = 1, after: tuple[Step, ...] = ()) -> Step:
        job = Job("r", "v", {}, {}, {}, {}, threads, int(n > 0), 0, tuple(other.job for other in after))
        return Step(job, "r", Passes({"n": n} if n else {}), 0, 0)

    first = step(8, threads=4)  # 4 threads do its 8 in 2
    second = [step(3, after=(first,)), step(8, after=(first,))]
    steps = [first, *second, *(step(18, after=(second[1],)) for _ in range(3)), step(0), step(0)]
    seconds = lambda s: speeds.of(s.passes, s.job.threads)  # noqa: E731
    assert elapsed(steps, seconds, cores=4, gpus=0) == (2 + 2) + 10 + 20  # one after another; the cores need less
    assert elapsed(steps, seconds, cores=4, gpus=1) == (2 + 2) + (5 + 10) + 3 * 20
    assert elapsed(steps, seconds, cores=2, gpus=0) == ((2 + 2) * 4 + (5 + 10) + 3 * 20 + 2 * 2) / 2
    trained, guided = (speeds.of(Passes({f"n/{kind}": 5}), 1) for kind in ("training", "guided"))
    assert trained == guided == 2 + 3 * 5


def test_the_papers_counts(tmp_path: Path) -> None:
    copy_workflow(tmp_path)
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
    assert "no file or folder tiny-imagenet-200.zip" in said
    assert not (tmp_path / "results").exists()


def test_without_a_workflow_it_says_where_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match="Snakefile: not in this folder"):
        dag.jobs_of(Experiment.model_validate(SMALL), 1)

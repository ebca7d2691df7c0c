"""The forecast of guidance against what its stages do: every image that passes a network is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from ddrep.config import (
    Experiment,
    Sampling,
    Stage,
    attribute_images_of,
    guide_of,
    guided_of,
    scores_of,
)
from ddrep.data import embedded
from ddrep.data.attributes import attribute_images
from ddrep.data.datasets import masked
from ddrep.data.masks import write_masked_shard
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.denoiser.unet import UNet, UNetConfig
from ddrep.evaluation import robustness, scores
from ddrep.guides import Guide
from ddrep.planning.draws import read_verdicts
from ddrep.planning.guidance import guided_draws, mask_images
from ddrep.planning.plan import Plan
from ddrep.planning.sizes import denoiser_of, sizes_of
from ddrep.planning.stages import rows
from ddrep.runs import table1_runs, table2_runs
from ddrep.sampling import guided
from ddrep.sampling.sampler import sample
from ddrep.training import evaluators, guides
from tests.meter import Counts, Meter, passes, spread

NETWORK = UNetConfig(28, 1, 1, model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_sizes=())
TRAINED, GIVEN = "trained", "given"
SMALL: dict[str, Any] = {
    "experiment": "small",
    "parts": ["attributes", "masks"],
    "data": {"kind": "embedded", "embedded": {"per_class": 10, "test_images": 40}},
    "denoiser": {"kind": "file", "file": {"path": "denoiser.safetensors"}},
    "attributes": {
        "groups": [
            {"name": "shoes", "having": ["Sandal", "Sneaker", "Ankle boot"]},
            {"name": "tops", "having": ["Shirt", "T-shirt/top"]},
        ],
        "examples": 6,
        "taps": {"blocks": ["middle", "up1"], "timesteps": [300, 700]},
        "training": {"hidden": 8, "steps": 3, "batch": 5},
        "sampling": {"solver": "ddim", "eta": 1.0},
    },
    "masks": {
        "data": {"kind": "embedded", "embedded": {"train": 7, "test": 20}},
        "taps": {"blocks": ["up1"], "timesteps": [500]},
        "training": {"hidden": 8, "steps": 2, "batch": 3},
        "sampling": {"solver": "ddim", "eta": 1.0},
    },
    "evaluation": {
        "evaluator_training": {"epochs": 1, "batch": 32, "width": 4},
        "segmenter_training": {"epochs": 1, "batch": 500, "width": 4},
    },
    "robustness": {"timesteps": [200, 900], "images": 30},
    "table1": {"steps": [2, 3], "images": 4, "max_attempts": 100},
    "table2": {"steps": [3], "images": 9},
}


def small(networks: str) -> Experiment:
    files = {name: f"{embedded.FOLDER}/{name}.safetensors" for name in ("evaluator", "segmenter")}
    evaluation = SMALL["evaluation"] | (files if networks == GIVEN else dict.fromkeys(files))
    return Experiment.model_validate({**SMALL, "evaluation": evaluation})


def run_stages(meter: Meter, e: Experiment, results: Path) -> dict[tuple[str, str], Counts]:
    """Everything that passes networks, as the workflow's rules do it; what was counted by rule and method."""
    counted: dict[tuple[str, str], Counter[str]] = {}
    base, pool = e.denoiser.file.path, results / "pool"

    def stage(config: Any) -> Any:
        return Stage[type(config)](seed=e.seed, config=config)  # type: ignore[misc]

    def count(rule: str, method: str, job: Callable[..., Any], *arguments: Any) -> None:
        counted.setdefault((rule, method), Counter()).update(meter.of(job, *arguments))

    def learn(folder: Path, section: Any, of: str, examples: Path, rule: str) -> None:
        for reads in ("features", "pixels"):
            settings = stage(guide_of(section, reads))
            count(rule, "", guides.run, settings, of, base, examples, 0, folder / f"{reads}.safetensors")

    evaluator, segmenter = e.evaluation.evaluator, e.evaluation.segmenter
    for name in e.attributes.having:
        folder, every = results / "subset0/attributes" / name / "0", attribute_images_of(name, False, e)
        tars = {split: results / f"attributes/{name}/{split}.tar" for split in ("train", "test")}
        for split, path in tars.items():
            write_shard(path, attribute_images(every, split, 0, e.seed, 0))
        few = attribute_images(attribute_images_of(name, True, e), "train", 0, e.seed, 0)
        write_shard(folder / "examples.tar", few)
        learn(folder, e.attributes, "attribute", folder / "examples.tar", "attribute_guide")
        made = Guide.load(folder / "features.safetensors", base, torch.device("cpu"))
        spread(made, sample(Denoiser.load(base), range(100), Sampling(solver="ddim", steps=3, eta=1, guidance_scale=0)))
        made.save(folder / "features.safetensors")
        judge = evaluator or results / f"attributes/{name}/evaluator.safetensors"
        real = tars["test"].with_suffix(".npz")
        if evaluator is None:
            training = stage(e.evaluation.evaluator_training)
            count("attribute_evaluator", "", evaluators.run_evaluator, training, [tars["train"]], None, judge)
        count("attribute_real_features", "", scores.real_features, tars["test"], "attribute", judge, None, real)
        for run in (run for run in table1_runs(e) if run.attribute == name):
            section, out = stage(guided_of(e.attributes, run.method, run.steps, e)), results / run.shard
            count(
                "attribute_shard",
                run.method,
                guided.attribute_shard,
                section,
                base,
                results / run.guide,
                0,
                0,
                pool,
                out,
            )
            cell, outs = scores.Cell(run.method, run.steps, 0, 0), (results / run.score, results / run.features)
            section = stage(scores_of(name, e))
            count("attribute_score", "", scores.score_attribute, section, out, judge, None, cell, *outs)
        both = [folder / f"{reads}.safetensors" for reads in ("features", "pixels")]
        inputs = (name, base, both, tars["test"], 0, 0, folder / "robustness.parquet")
        count("robustness", "", robustness.run, stage(e.robustness), *inputs)
    folder = results / "subset0/masks/0"
    paths = {"train": "subset0/masks/examples", "test": "masks/test", "oracle": "masks/oracle"}
    tars = {split: results / f"{path}.tar" for split, path in paths.items()}
    for split, path in tars.items():
        write_masked_shard(path, masked(e.masks.data, split, 0))
    learn(folder, e.masks, "mask", tars["train"], "mask_guide")
    oracle = segmenter or results / "masks/segmenter.safetensors"
    if segmenter is None:
        training = stage(e.evaluation.segmenter_training)
        count("mask_segmenter", "", evaluators.run_segmenter, training, [tars["oracle"]], None, oracle)
    real = results / "masks/test.npz"
    count("mask_real_features", "", scores.real_features, tars["test"], "mask", evaluator, None, real)
    for run in table2_runs(e):
        section, out = stage(guided_of(e.masks, run.method, run.steps, e)), results / run.shard
        inputs = (base, results / run.guide, tars["test"], 0, 0, pool, out)
        count("mask_shard", run.method, guided.mask_shard, section, *inputs)
        cell, outs = scores.Cell(run.method, run.steps, 0, 0), (results / run.score, results / run.features)
        count("mask_score", "", scores.score_masks, out, oracle, evaluator, None, cell, *outs)
    return {name: dict(count) for name, count in counted.items()}


@pytest.mark.parametrize("networks", [TRAINED, GIVEN])
def test_what_is_forecast_is_what_passes_the_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, networks: str
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    Denoiser(UNet(NETWORK).eval().requires_grad_(False), Schedule()).save(Path("denoiser.safetensors"))
    e, results = small(networks), Path("results/small")
    sizes, _ = sizes_of(e)
    network, _ = denoiser_of(e, sizes.image)
    before = {(row.rule, row.what): row for row in rows(Plan(e, sizes, network))}
    counted = run_stages(Meter(monkeypatch), e, results)
    after = {(row.rule, row.what): row for row in rows(Plan(e, sizes, network, seen=read_verdicts(e)))}
    # unguided images of both attributes and the masks are shared, whichever job comes to draw them
    shared = [("attribute_shard", "unguided"), ("attribute_shard", "rejection"), ("mask_shard", "unguided")]

    def together(of: dict[tuple[str, str], Counts]) -> Counts:
        return dict(sum((Counter(of[name]) for name in shared), Counter()))

    forecast = {name: passes(row) for name, row in after.items() if any(passes(row).values())}
    assert together(forecast) == together(counted)
    alone = {name: count for name, count in counted.items() if name not in shared and any(count.values())}
    assert {name: count for name, count in forecast.items() if name not in shared} == alone
    first = {name: passes(row) for name, row in before.items() if any(passes(row).values())}
    assert {name: count for name, count in first.items() if name not in shared} == alone
    attempts = [pd.read_parquet(path) for path in results.rglob("rejection/*.parquet") if "score" not in path.name]
    assert sum(map(len, attempts)) > 2 * 2 * 2 * 4 + 10, "some were refused, or nothing here is tested"
    for name, row in after.items():
        if name[0].endswith("_shard"):
            assert row.images == len(row.jobs) * (8 if name[0] == "attribute_shard" else 9)


def test_unguided_images_are_drawn_once() -> None:
    e = small(GIVEN)
    draws = guided_draws(e, seen=read_verdicts(e), assumed=0.5)
    of = {(run.attribute, run.method, run.steps): draw for run, draw in draws.items()}
    assert of["shoes", "unguided", 2].drawn == of["shoes", "unguided", 3].drawn == 8
    assert of["tops", "unguided", 3].drawn == 0, "the same noise in as many steps"
    assert of[None, "unguided", 3].drawn == 9 - 4, "of which the images of class 0 are there"
    assert of[None, "ours", 3].drawn == 9 and of["tops", "ours", 3].drawn == 8
    refused = of["shoes", "rejection", 2]
    assert refused.judged > 16 > refused.judged - refused.drawn == 8


def test_images_with_masks_are_counted_without_making_them() -> None:
    data = small(GIVEN).masks.data
    assert mask_images(data) == tuple(len(masked(data, split, 0)) for split in ("train", "test", "oracle"))

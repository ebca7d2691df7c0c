"""What each stage is told follows from the experiment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ddrep.config import Data, Experiment, Mix, Section, Shard, Training, parse, subset_seed
from ddrep.derived import data_of, shard_of, told, training_of
from ddrep.runs import table1_runs


def experiment(**settings: Any) -> Experiment:
    return parse({"experiment": "a", **settings})


def test_seeds_are_the_subsets_where_they_are_its_own() -> None:
    e = experiment(seed=3)
    seeds = {stage: json.loads(told(stage, e, {"subset": "2"}))["seed"] for stage in ("finetune", "features")}
    assert seeds == {"finetune": subset_seed(3, 2), "features": 3}


def test_pretraining_is_told_of_the_data_that_it_reads_alone() -> None:
    """Of IDX files as before there was other data, or finished work would be planned again."""
    data = {"kind": "csv", "csv": {"path": "list.csv"}}
    unused = {**data, "unlabelled": {"path": "images"}}
    idx, listed, more = (
        told("pretrain", experiment(denoiser={"pretrain": pretrain}), {})
        for pretrain in ({"images": "a.gz"}, {"data": data}, {"data": unused})
    )
    assert "data" not in json.loads(idx)["config"] and json.loads(idx)["config"]["images"] == "a.gz"
    assert listed == more and json.loads(listed)["config"]["data"]["csv"]["path"] == "list.csv"


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_figure_is_told_of_its_own_keys_alone(number: int) -> None:
    config = json.loads(told(f"figure{number}", experiment(), {}))["config"]
    figures = experiment().figures.model_dump(mode="json")
    assert config == {key: value for key, value in figures.items() if key.startswith(f"figure{number}_")}
    assert json.loads(told("figure4", experiment(), {}))["config"] == Section().model_dump()


def test_unfiltered_sources_do_not_hear_of_the_threshold() -> None:
    low, high = (experiment(synthesis={"threshold": value}, sampling={"guidance_scale": 0.3}) for value in (0.2, 0.9))
    for source in ("improved-ddpm", "classifier-free"):
        assert shard_of(source, low) == shard_of(source, high)
    for source in ("pixel-rejection", "ours"):
        assert shard_of(source, low) != shard_of(source, high)
    assert shard_of("improved-ddpm", low).sampling.guidance_scale == 0
    assert shard_of("classifier-free", low).sampling.guidance_scale == 0.3
    unguided = experiment(sampling={"guidance_scale": 0.0})
    assert shard_of("classifier-free", unguided).sampling.guidance_scale == 0.75, "without it, it were improved-ddpm"
    assert shard_of("ours", unguided).sampling.guidance_scale == 0


def test_runs_hear_of_what_concerns_them() -> None:
    plain, other = experiment(), experiment(classifier={"mix": {"prob": 0.9}}, synthesis={"per_class": 7})
    assert training_of("ours", False, plain) == training_of("ours", False, other)
    assert training_of("ours", True, other).classifier.mix == Mix(prob=0.9)
    assert training_of("ours", True, other).per_class == 0
    assert training_of("real-equal-steps", False, other).per_class == 7


def test_a_sub_table_that_does_not_count_is_left_out() -> None:
    folder = {"root": "images"}
    assert data_of(experiment(data={"image_folder": folder})) == data_of(experiment())
    chosen = {"kind": "image-folder", "image_folder": folder}
    assert data_of(experiment(data={**chosen, "embedded": {"per_class": 3}})) == data_of(experiment(data=chosen))


def test_what_came_later_is_not_told_at_its_default() -> None:
    """So that what was made before there were such settings is not planned again."""
    training, shard = Training(), Shard()
    assert not {"label_smoothing", "synthetic_share"} & set(training.model_dump(mode="json")["classifier"])
    assert "labels" not in shard.model_dump(mode="json") and "labels" not in Data().model_dump(mode="json")
    given = Training.model_validate({"classifier": {"label_smoothing": 0.1}})
    assert given.model_dump(mode="json")["classifier"]["label_smoothing"] == 0.1
    assert Training.model_validate(given.model_dump(mode="json")) == given


def test_a_generator_without_steps_draws_once() -> None:
    asked = experiment(table1={"methods": ["d2c", "nvae"], "steps": [5, 10]})
    runs = {(run.method, run.steps) for run in table1_runs(asked)}
    assert runs == {("d2c", 5), ("d2c", 10), ("nvae", 5)}


@pytest.mark.parametrize("grid, steps", [("log-snr", 6), ("even", 12), ("fitted", 6), ([900, 3], 2)])
def test_a_shard_is_told_its_grid_whatever_the_default_is(grid: Any, steps: int) -> None:
    shard = shard_of("ours", experiment(sampling={"grid": grid, "steps": steps}))
    written = json.loads(
        told("synthesis", experiment(sampling={"grid": grid, "steps": steps}), {"source": "ours", "subset": "0"})
    )
    assert written["config"]["sampling"]["grid"] == grid
    assert Shard.model_validate(written["config"]) == shard

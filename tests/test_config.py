"""The typed configuration: reading, merging, complaints, and the JSON that a stage is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from snakemake.utils import update_config

from ddrep import config
from ddrep.config import Experiment, Mix, data_of, load, merge, parse, shard_of, stage_json, training_of
from ddrep.errors import UserError
from ddrep.runs import Run, shard_paths, shards_asked, table3_runs, table4_runs

REPO = Path(__file__).resolve().parents[1]


def test_the_demo_and_the_overlays_are_valid() -> None:
    overlays = sorted((REPO / "workflow/experiments").glob("*.yaml"))
    names = [load(REPO / "config.yaml", *files).experiment for files in ([], *([each] for each in overlays))]
    assert overlays and len(set(names)) == len(names), "every overlay sets a name of its own"


def test_the_evidence_has_what_was_asked_for() -> None:
    runs = table4_runs(load(REPO / "config.yaml", REPO / "workflow/experiments/fashion-full.yaml"))
    resnet = {(run.source, run.scale, run.mix, run.subset) for run in runs if run.architecture == "resnet18"}
    for mix in (False, True):
        for subset in range(3):
            assert ("real", 0, mix, subset) in resnet
            for source in ("improved-ddpm", "classifier-free", "pixel-rejection", "ours", "real-equal-steps"):
                assert {(source, scale, mix, subset) for scale in (1, 2, 3)} <= resnet
    assert {("ours", scale, False, subset) for scale in range(4, 8) for subset in range(3)} <= resnet
    for architecture in ("wide_resnet50_2", "resnext50_32x4d"):
        others = {(run.source, run.scale) for run in runs if run.architecture == architecture}
        assert {("real", 0), ("ours", 3)} <= others
    assert len({run.seed for run in runs}) >= 2


@pytest.mark.parametrize(
    "base, overlay",
    [
        ({"a": 1}, {"a": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"d": [1]}}, "e": {}}),
        ({"a": [1, 2]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": 5}),
        ({"a": 5}, {"a": {"b": 1}}),
    ],
)
def test_merge_is_snakemakes(base: dict[str, Any], overlay: dict[str, Any]) -> None:
    theirs = json.loads(json.dumps(base))
    update_config(theirs, overlay)
    assert merge(base, overlay) == theirs


def test_numbers_that_yaml_reads_as_strings(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("experiment: a\nfinetune: {lr: 1e-4}\n")
    assert load(file).finetune.lr == 1e-4


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("experiment: a\nfinetune: {stepz: 1}", "finetune.stepz: unknown key"),
        ("experiment: a\nfinetune: {steps: many}", "finetune.steps: Input should be a valid integer"),
        ("experiment: a\nsampling: {solver: euler}", "sampling.solver: Input should be 'ddim' or 'dpm-solver++'"),
        ("experiment: a\nsynthesis: {per_class: 5, shards_per_scale: 2}", "multiple of shards_per_scale"),
        ("experiment: a\ntable4: [{scales: [-1]}]", "table4.0.scales.0: Input should be greater than or equal to 0"),
        ("experiment: a\nfinetune: {lr: 0, steps: 0}", "finetune.steps"),
        ("seed: 1", "experiment: missing"),
        ("experiment: ../up", "experiment: "),
        ("- a", "expected a table"),
        ("a: [", "not valid YAML"),
    ],
)
def test_complaints_are_one_line_with_file_and_key(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file)
    said = str(caught.value)
    assert complaint in said and str(file) in said and "\n" not in said


def test_no_such_file() -> None:
    with pytest.raises(UserError, match=r"gone\.yaml: no such configuration file"):
        load(Path("gone.yaml"))


def experiment(**settings: Any) -> Experiment:
    return parse({"experiment": "a", **settings})


def test_stage_json_is_canonical_and_is_read_back() -> None:
    written = stage_json("finetune", experiment().finetune, 3)
    assert written == stage_json("finetune", experiment(finetune={"lr": "1e-3"}).finetune, 3)
    assert written != stage_json("finetune", experiment(finetune={"lr": 2e-3}).finetune, 3)
    assert json.dumps(json.loads(written), sort_keys=True, separators=(",", ":")) == written
    stage = config.Stage[config.FineTune].model_validate_json(written)
    assert (stage.config, stage.seed) == (experiment().finetune, 3)


def test_unfiltered_sources_do_not_hear_of_the_threshold() -> None:
    low, high = (experiment(synthesis={"threshold": value}, sampling={"guidance_scale": 0.3}) for value in (0.2, 0.9))
    for source in ("improved-ddpm", "classifier-free"):
        assert shard_of(source, low) == shard_of(source, high)
    for source in ("pixel-rejection", "ours"):
        assert shard_of(source, low) != shard_of(source, high)
    assert shard_of("improved-ddpm", low).sampling.guidance_scale == 0
    assert shard_of("classifier-free", low).sampling.guidance_scale == 0.3


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


def test_runs_are_enumerated_once() -> None:
    blocks = [
        {"architectures": ["resnet18"], "mix": [False], "sources": ["real", "ours"], "scales": [0, 1]},
        {"architectures": ["resnet18"], "mix": [False], "sources": ["real", "real-equal-steps"], "scales": [0, 2]},
    ]
    made = experiment(table4=blocks, table3={"sources": ["ours", "ours"]})
    ran = {(run.source, run.scale) for run in table4_runs(made)}
    assert ran == {("real", 0), ("ours", 1), ("real-equal-steps", 2)}
    assert len(table4_runs(made)) == 3
    assert [(run.source, run.real) for run in table3_runs(made)] == [("real", True), ("ours", False)]


def test_paths_of_runs_and_shards() -> None:
    run = Run(1, "resnet18", True, "ours", 2, 4)
    assert str(run.path) == "subset1/classifiers/resnet18/mix/ours/2x/4.parquet"
    assert str(run.predictions) == "subset1/classifiers/resnet18/mix/ours/2x/4.predictions.parquet"
    assert [str(path) for path in shard_paths(1, "ours", 2, 2)] == [
        f"subset1/synthetic/ours/{index:05d}.tar" for index in range(4)
    ]
    assert shard_paths(1, "real-equal-steps", 2, 2) == []


def test_shards_are_asked_to_the_largest_scale() -> None:
    block = {"mix": [False], "sources": ["ours", "real-equal-steps"], "scales": [1, 5], "subsets": [0, 2]}
    asked = shards_asked(experiment(table4=[block], table3={"sources": ["pixel-rejection"]}))
    assert asked == {
        (0, "improved-ddpm"): 1,
        (0, "classifier-free"): 1,
        (0, "pixel-rejection"): 1,
        (0, "ours"): 5,
        (2, "ours"): 5,
    }

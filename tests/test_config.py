"""The typed configuration: reading, merging, complaints, and the JSON that a stage is told."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from snakemake.utils import update_config

from ddrep import config
from ddrep.config import Experiment, load, merge, parse
from ddrep.derived import data_of, stage_json
from ddrep.errors import UserError
from ddrep.runs import Run, shard_paths, shards_asked, table3_runs, table4_runs
from ddrep.sources import SOURCES

REPO = Path(__file__).resolve().parents[1]


def test_the_demo_and_the_overlays_are_valid() -> None:
    overlays = sorted((REPO / "workflow/experiments").glob("*.yaml"))
    whole = [[each] for each in overlays if not each.stem.endswith("-toy")]
    toys = [[each.with_name(each.name.replace("-toy", "")), each] for each in overlays if each.stem.endswith("-toy")]
    names = [load(REPO / "config.yaml", *files).experiment for files in ([], *whole, *toys)]
    assert overlays and len(set(names)) == len(names), "every overlay sets a name of its own"


def test_the_evidence_has_what_was_asked_for() -> None:
    runs = table4_runs(load(REPO / "config.yaml", REPO / "workflow/experiments/fashion-full.yaml"))
    resnet = {(run.source, run.scale, run.mix, run.subset) for run in runs if run.architecture == "resnet18"}
    for subset in range(3):
        assert {(source, 3, False, subset) for source in SOURCES if SOURCES[source].scaled} <= resnet
        for source in ("real-equal-steps", "real-soft", "ours", "probe-soft", "unconditional-soft"):
            assert {(source, scale, False, subset) for scale in (1, 3, 7)} <= resnet
        for mix in (False, True):
            assert {("real", 0, mix, subset), ("ours", 3, mix, subset), ("real-soft", 3, mix, subset)} <= resnet
    for architecture in ("wide_resnet50_2", "resnext50_32x4d"):
        others = {(run.source, run.scale) for run in runs if run.architecture == architecture}
        assert {("real", 0), ("ours", 3)} <= others
    assert len({run.seed for run in runs}) >= 2


def test_tiny_imagenet_is_the_papers() -> None:
    """Section 5.3 of the paper, and its published code where it says nothing."""
    cfg = load(REPO / "config.yaml", REPO / "workflow/experiments/tiny-imagenet.yaml")
    assert (cfg.finetune.steps, cfg.finetune.batch, cfg.finetune.lr) == (150_000, 128, 1e-4)
    assert (cfg.features.timesteps, cfg.features.noise, cfg.features.flip) == ((300, 800), "none", True)
    head = cfg.rejection
    assert (head.lr, head.weight_decay, head.batch, head.epochs, head.dropout) == (3e-4, 1e-4, 128, 30, 0.2)
    sampling = cfg.sampling
    assert (sampling.solver, sampling.steps, sampling.eta, sampling.guidance_scale) == ("ddim", 100, 0, 0.01)
    assert cfg.synthesis.threshold == 0.2 and cfg.synthesis.shards_per_scale == 10
    assert cfg.data.tiny_imagenet and cfg.synthesis.per_class * cfg.data.tiny_imagenet.classes == 100_000
    downstream = cfg.classifier
    assert (downstream.epochs, downstream.batch, downstream.lr) == (40, 256, 1e-3)
    assert [share * downstream.epochs for share in downstream.drops] == [20, 30]
    assert downstream.mix.prob == 0.5
    architectures = ("resnet18", "wide_resnet50_2", "resnext50_32x4d")
    cells = {(a, mix, scale) for a in architectures for mix in (False, True) for scale in range(4)}
    ran = {(run.architecture, run.mix, run.scale) for run in table4_runs(cfg) if run.source in ("real", "ours")}
    assert cells == ran
    assert {run.source for run in table3_runs(cfg)} >= {"real", "improved-ddpm", "classifier-free", "ours"}


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


def leaves(content: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for key, value in content.items():
        yield from leaves(value, *above, key) if isinstance(value, dict) else [(*above, key)]


def test_of_a_table_given_in_part_the_rest_is_as_in_config_yaml() -> None:
    """Whether an overlay is laid over config.yaml or read without it."""
    base = yaml.safe_load((REPO / "config.yaml").read_text())
    paths = list(leaves(base))
    for path in paths:
        value: Any = base
        for key in path:
            value = value[key]
        value = value * 2 if isinstance(value, int | float) and not isinstance(value, bool) else value
        overlay = value
        for key in reversed(path):
            overlay = {key: overlay}
        try:
            expected = parse(merge(base, overlay))
        except UserError:  # out of its range
            continue
        assert parse(overlay) == expected, path
    assert len(paths) > 120


def test_numbers_that_yaml_reads_as_strings(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("experiment: a\nfinetune: {lr: 1e-4}\n")
    assert load(file).finetune.lr == 1e-4


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("experiment: a\nfinetune: {stepz: 1}", "finetune.stepz: unknown key"),
        ("experiment: a\nfinetune: {steps: many}", "finetune.steps: Input should be a valid integer"),
        ("experiment: a\nsampling: {solver: euler}", "sampling.solver: no solver euler; there are ddim, dpm-solver++"),
        (
            "experiment: a\nsynthesis: {per_class: 5, shards_per_scale: 2}",
            "multiple of shards_per_scale, got per_class 5, shards_per_scale 2",
        ),
        ("experiment: a\ntable4: [{scales: [-1]}]", "table4.0.scales.0: Input should be greater than or equal to 0"),
        ("experiment: a\nfinetune: {lr: 0, steps: 0}", "finetune.steps"),
        ("data: {kind: celeba, celeba: {root: a}}", "data.celeba.attribute: missing; add it"),
        ("experiment: ../up", "experiment: "),
        ("synthesis: {threshold: yes}", "synthesis: threshold: expected no truth value"),
        ("finetune: {flip: 1, steps: off}", "finetune: steps: expected no truth value"),
        (f"experiment: {'a' * 300}", "experiment: "),
        ("parts: []", "parts: Tuple should have at least 1 item"),
        ("- a", "expected a table"),
        ("a: [", "not valid YAML"),
        ("seed: !!int", "not valid YAML"),
        ("seed: !!float []", "not valid YAML"),
        ("seed: !!timestamp x", "not valid YAML"),
        (r'"\ud800": "\ud800"', r"\ud800: a character that no text"),
        (r'sampling: {solver: "\udcff"}', r"\udcff"),
    ],
)
def test_complaints_are_one_line_with_file_and_key(text: str, complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        load(file)
    said = str(caught.value)
    assert complaint in said and str(file) in said and "\n" not in said


BOMB = "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
BOMB += "\n".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10))
TABLE_BOMB = "t0: &t0 {x: 1}\n" + "\n".join(f"t{i}: &t{i} {{x: *t{i - 1}, y: *t{i - 1}}}" for i in range(1, 40))
HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "aliases for 10^10 items": (f"{BOMB}\nseed: *a9", "aliases that stand for more than"),
    "aliases in a list of runs": (f"{BOMB}\ntable4: *a9", "aliases that stand for more than"),
    "aliases of tables": (f"{TABLE_BOMB}\ndata: *t39", "aliases that stand for more than"),
    "a list in itself": ("seed: &a [*a]", "nested deeper than"),
    "deep lists": ("seed: " + "[" * 20_000, "nested deeper than"),
    "deep tables": ("seed: " + "{a: " * 5000, "nested deeper than"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(100)), "nested deeper than"),
    "a number of 5000 digits": ("seed: 0x" + "f" * 5000, "a number of 5002 characters"),
    "a number in base 60": ("seed: " + "9:" * 5000 + "1", "a number of 10001 characters"),
    "a number beyond 2^63": ("seed: 0x" + "f" * 180, "seed: .*, got a number of 720 bits"),
    "no day": ("seed: 2001-02-30", "day is out of range"),
    "no float": ("seed: !!float x", "could not convert string to float"),
    "an object of Python": ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
    "a key given twice": ("seed: 1\nseed: 2", "seed is given twice"),
    "steps in base 60": ("finetune: {steps: 1:30}", "1:30 is 90 to YAML; write a decimal number, line 1"),
    "a fraction in base 60": ("finetune: {lr: 1:30.5}", "1:30.5 is 90.5 to YAML"),
    "a number in base 8": ("seed: 012", "012 is 10 to YAML"),
    "a key given twice within": ("finetune: {lr: 1, steps: 3, lr: 2}", "lr is given twice"),
    "tabs": ("finetune:\n\tlr: 1", "cannot start any token"),
    "UTF-16": ("seed: 1".encode("utf-16"), "not UTF-8 at byte 0"),
    "Latin-1": ("experiment: ä".encode("latin-1"), "not UTF-8 at byte 12"),
    "NUL": (b"seed: \0", "unacceptable character"),
    "NUL in a name": ('denoiser: {file: {path: "a\\0b"}}', "denoiser.file: path: a character that no text"),
    "half a surrogate": ('data: {webdataset: {train: ["\\ud800"], test: [a]}}', "train: a character that no text"),
    "two documents": ("seed: 1\n---\nseed: 2", "expected a single document"),
    "infinity": ("finetune: {lr: 1e400}", "finetune.lr: Input should be a finite number"),
    "infinity by name": ("sampling: {guidance_scale: .inf}", "guidance_scale: Input should be a finite number"),
    "thousands of unknown keys": ("\n".join(f"k{i}: 1" for i in range(300)), "; and 280 more"),
    "a long name": ("data: {kind: " + "a" * 100_000 + "}", "data.kind: "),
    "too large": ("#" * 2**19, "expected settings, of at most"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_settings_are_one_short_line_at_once(kind: str, tmp_path: Path) -> None:
    content, complaint = HOSTILE[kind]
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    started = time.process_time()
    with pytest.raises(UserError, match=complaint) as caught:
        load(file)
    said = str(caught.value)
    assert str(file) in said and "\n" not in said and len(said) < 2500 and time.process_time() - started < 2


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_of_settings(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "mine.yaml")
    with pytest.raises(UserError, match=r"mine\.yaml: is a folder, a pipe or a device"):
        load(tmp_path / "mine.yaml")


def test_anchors_aliases_and_merged_tables_are_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("rejection: &head {epochs: 3, lr: 2e-3}\npixel_rejection: {<<: *head, lr: 1e-3}\n")
    read = load(file)
    assert (read.rejection.lr, read.pixel_rejection.epochs, read.pixel_rejection.lr) == (2e-3, 3, 1e-3)


def integers(schema: Any, key: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every whole number in a JSON schema, wherever in it."""
    if isinstance(schema, dict):
        if schema.get("type") == "integer" and not {"enum", "const"} & schema.keys():
            yield key, schema
        for name, part in schema.items():
            yield from integers(part, f"{key}.{name}")
    elif isinstance(schema, list):
        for part in schema:
            yield from integers(part, key)


def test_every_whole_number_has_bounds() -> None:
    found = dict(integers(Experiment.model_json_schema()))
    lower, upper = {"minimum", "exclusiveMinimum"}, {"maximum", "exclusiveMaximum"}
    assert (
        len(found) > 80
        and [key for key, schema in found.items() if not (lower & schema.keys() and upper & schema.keys())] == []
    )


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


TABLES: dict[str, dict[str, Any]] = {
    "embedded": {"per_class": 7},
    "image-folder": {"root": "images"},
    "tiny-imagenet": {"path": "tiny.zip"},
    "webdataset": {"train": ["a"], "test": ["b"]},
    "celeba": {"root": "celeba", "attribute": "Male"},
    "csv": {"path": "list.csv"},
    "unlabelled": {"path": "images"},
}


@pytest.mark.parametrize("kind", TABLES)
def test_only_the_table_of_the_kind_counts(kind: str) -> None:
    table = kind.replace("-", "_")
    others = {other.replace("-", "_"): content for other, content in TABLES.items() if other != kind}
    alone = experiment(data={"kind": kind, table: TABLES[kind]})
    written = stage_json("data", data_of(alone), 0)
    assert written == stage_json("data", data_of(experiment(data={"kind": kind, table: TABLES[kind], **others})), 0)
    assert config.Stage[config.Data].model_validate_json(written).config == data_of(alone)
    cfg = getattr(alone.data, table)
    for name, value in cfg:  # and each of its keys does
        changed = cfg.model_copy(update={name: Path("other") if isinstance(value, Path) else 99})
        data = alone.data.model_copy(update={table: changed})
        with warnings.catch_warnings(action="ignore"):
            assert stage_json("data", data, 0) != written, name


MASKS: dict[str, dict[str, Any]] = {
    "embedded": {"train": 10},
    "few-shot": {"root": "celeba_19"},
    "celebamask-hq": {"root": "CelebAMask-HQ"},
}


@pytest.mark.parametrize("kind", MASKS)
def test_only_the_tables_of_the_kind_of_masks_count(kind: str) -> None:
    tables = {name.replace("-", "_"): content for name, content in MASKS.items()}
    own = {kind.replace("-", "_")} | ({"celebamask_hq"} if kind == "few-shot" else set())
    alone = config.MaskData.model_validate({"kind": kind, **{name: tables[name] for name in own}})
    beside = config.MaskData.model_validate({"kind": kind, **tables})
    written = stage_json("masks", beside, 0)
    assert written == stage_json("masks", alone, 0)
    assert set(json.loads(written)["config"]) == {"kind", *own}
    read = config.Stage[config.MaskData].model_validate_json(written).config
    assert stage_json("masks", read, 0) == written
    for table in own:
        for name in type(getattr(alone, table)).model_fields:
            cfg = getattr(alone, table).model_copy(update={name: "changed"})
            with warnings.catch_warnings(action="ignore"):
                assert stage_json("masks", alone.model_copy(update={table: cfg}), 0) != written, name


def test_masks_need_the_table_of_their_kind() -> None:
    for given, said in (
        ({"kind": "few-shot"}, "kind is few-shot: expected a table few_shot"),
        ({"kind": "celebamask-hq"}, "kind is celebamask-hq: expected a table celebamask_hq"),
        (
            {"kind": "celebamask-hq", "celebamask_hq": {"root": "a", "images": 520}},
            "train and test: expected less than",
        ),
    ):
        with pytest.raises(ValidationError, match=said):
            config.MaskData.model_validate(given)


def test_stages_of_the_first_kinds_read_as_they_always_did() -> None:
    """Or finished experiments would be planned again."""
    assert json.loads(stage_json("data", data_of(experiment()), 0))["config"] == {
        "embedded": {"per_class": 20, "test_images": 5000},
        "image_folder": None,
        "kind": "embedded",
    }
    folder = experiment(data={"kind": "image-folder", "image_folder": {"root": "images"}})
    assert json.loads(stage_json("data", data_of(folder), 0))["config"] == {
        "embedded": {"per_class": 50, "test_images": 5000},
        "image_folder": {"channels": 3, "root": "images", "size": 64},
        "kind": "image-folder",
    }


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
    two = experiment(synthesis={"shards_per_scale": 2})
    assert [str(path) for path in shard_paths("1", "ours", 2, two)] == [
        f"subset1/synthetic/ours/{index:05d}.tar" for index in range(4)
    ]
    assert shard_paths("1", "real-equal-steps", 2, two) == []


def test_shards_are_asked_to_the_largest_scale() -> None:
    block = {"mix": [False], "sources": ["ours", "real-equal-steps"], "scales": [1, 5], "subsets": [0, 2]}
    asked = shards_asked(experiment(table4=[block], table3={"sources": ["pixel-rejection"]}))
    assert asked == {
        ("0", "improved-ddpm"): 1,
        ("0", "classifier-free"): 1,
        ("0", "pixel-rejection"): 1,
        ("0", "ours"): 5,
        ("2", "ours"): 5,
    }


@pytest.mark.parametrize("sampling", [{}, {"grid": "even"}, {"steps": 2, "grid": [900, 3]}])
def test_an_experiment_is_read_back_as_it_was(sampling: dict[str, Any]) -> None:
    """As `ddrep plan` does; a table whose default here is not its class's is written whole."""
    e = experiment(sampling=sampling)
    assert parse(json.loads(e.model_dump_json())) == e == parse(e.model_dump(mode="json"))

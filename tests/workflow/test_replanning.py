"""What is planned again after a change: the stage whose setting it is, what follows from it, and nothing else.

The tree is made by the real rules with a `ddrep` that writes empty files, for planning looks at names, times and params
alone.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddrep.config import Experiment, Section, load, merge, parse
from ddrep.errors import UserError
from ddrep.methods import for_masks, generated, generators
from tests.workflow.tree import REPO, Job, Tree, copy_workflow, link_networks

TABLE4 = [
    {"architectures": ["resnet18"], "mix": [False, True], "sources": ["real", "real-equal-steps", "real-soft", "ours"],
     "scales": [0, 1], "subsets": [0], "seeds": [0]},
    {"architectures": ["resnet18"], "mix": [False], "sources": ["ours"],
     "scales": [2, 3], "subsets": [0], "seeds": [0]},
]  # fmt: skip
GUIDED = {"attribute_guide", "attribute_shard", "robustness", "mask_guide", "mask_shard"}
LISTENING = {"probe", "synthesis", "labelled_shard", "soft_labels", "judge_score", "copies"}
DRAWN = {"attribute_shard", "attribute_generated"}
GENERATED = {"attribute_latent_judge", "attribute_generated"}
FOR_MASKS = {"mask_latent_judge", "mask_generated"}
MEASURED = {"attribute_score", "attribute_real_features", "mask_score", "mask_real_features"}
FOLLOWS = {
    "labelled_images": {
        "finetune",
        "features",
        "rejection",
        "pixel_rejection",
        "probe",
        "classifier",
        "synthesis",
        "soft_labels",
        "unlabelled_images",
        "copies",
    },
    "held_out_images": {
        "labelled_images",
        "unlabelled_images",
        "finetune",
        "classifier",
        "classifier_on_synthetic_alone",
        "judge_score",
        "copies",
    },
    "unlabelled_images": {"labelled_shard"},
    "labelled_shard": {"shard_info", "classifier", "classifier_on_synthetic_alone", "copies"},
    "pretrain": {"finetune", "features", "fitted_grid", "pixel_threshold", *LISTENING, *GUIDED},
    "pretrain_generator": GENERATED | FOR_MASKS,
    "finetune": {"pixel_threshold", "synthesis"},
    "fitted_grid": {"pixel_threshold", "synthesis"},
    "features": {"rejection"},
    "rejection": {"pixel_threshold", "synthesis", "judge_score"},
    "pixel_rejection": {"pixel_threshold", "synthesis", "judge_score"},
    "probe": {"synthesis", "labelled_shard", "soft_labels", "judge_score", "probe_figure"},
    "pixel_threshold": {"synthesis"},
    "synthesis": {"shard_info", "classifier", "classifier_on_synthetic_alone", "figure1", "figure3", "copies"},
    "soft_labels": {"classifier"},
    "judge_score": {"judges_table"},
    "judges_table": {"table", "labels_table"},
    "copies": {"copies_table"},
    "labels_table": {"figure5"},
    "classifier": {"table", "labels_table"},
    "classifier_on_synthetic_alone": {"table"},
    "table": {"figure4"},
    "attribute_images": {"attribute_examples", "attribute_evaluator", "attribute_real_features", "robustness"},
    "attribute_examples": {"attribute_guide", "attribute_latent_judge"},
    "attribute_latent_judge": {"attribute_generated"},
    "attribute_generated": {"attribute_score"},
    "attribute_guide": {"attribute_shard", "robustness"},
    "attribute_shard": {"attribute_score"},
    "attribute_evaluator": {"attribute_score", "attribute_real_features"},
    "attribute_real_features": {"table1"},
    "attribute_score": {"table1"},
    "robustness": {"robustness_table"},
    "robustness_table": {"robustness_figure"},
    "mask_images": {"mask_examples", "mask_shard", "mask_generated", "mask_real_features", "mask_segmenter"},
    "mask_examples": {"mask_guide", "mask_latent_judge"},
    "mask_latent_judge": {"mask_generated"},
    "mask_generated": {"mask_score", "figure2"},
    "mask_guide": {"mask_shard"},
    "mask_shard": {"mask_score", "figure2"},
    "mask_segmenter": {"mask_score"},
    "mask_real_features": {"table2"},
    "mask_score": {"table2"},
}
"""Costs and the report follow whatever is made, and are left out here."""
LAST = {"costs", "report"}
SAMPLED = {"pixel_threshold", "synthesis", "shard_info"}
TRAINED = {"classifier", "classifier_on_synthetic_alone"}
NEW = TRAINED | {"synthesis", "labelled_shard", "shard_info", "copies"}
OWN = {
    "data": {"labelled_images", "held_out_images", "unlabelled_images", "attribute_images", "attribute_examples"},
    "data.image_folder": {"labelled_images", "held_out_images", "attribute_images", "attribute_examples"},
    "denoiser.pretrain": {"pretrain"},
    "denoiser.file": {"finetune", "features", "pixel_threshold", *LISTENING, *GUIDED},
    "finetune": {"finetune"},
    "features": {"features"},
    "rejection": {"rejection"},
    "pixel_rejection": {"pixel_rejection"},
    "probe": {"probe"},
    "sampling": SAMPLED,
    "sampling.grid": SAMPLED | {"fitted_grid"},
    "sampling.guidance_interval": SAMPLED - {"pixel_threshold"},  # of the one source that is guided
    "synthesis": SAMPLED,
    "synthesis.balance": {"synthesis", "shard_info"},
    "synthesis.per_class": SAMPLED | {"classifier", "labelled_shard"},
    "classifier": TRAINED,
    "classifier.mix": {"classifier"},
    "attributes.groups": {"table1", "robustness_table", "costs"},
    "attributes.examples": {"attribute_examples"},
    "attributes.taps": {"attribute_guide"},
    "attributes.training": {"attribute_guide"},
    "attributes.sampling": DRAWN,
    "attributes.sampling.scale": {"attribute_shard"},
    "generators.diffae.file": GENERATED | FOR_MASKS,
    "generators.diffae.pretrain": {"pretrain_generator"},
    "generators.diffae.latent_steps": {"attribute_generated", "mask_generated"},
    "generators.d2c.file": GENERATED,
    "generators.d2c.pretrain": {"pretrain_generator"},
    "generators.nvae.file": GENERATED,
    "generators.nvae.pretrain": {"pretrain_generator"},
    "generators.judge": {"attribute_latent_judge", "mask_latent_judge"},
    "masks.data": {"mask_images", "mask_examples"},
    "masks.taps": {"mask_guide"},
    "masks.training": {"mask_guide"},
    "masks.sampling": {"mask_shard", "mask_generated"},
    "masks.sampling.scale": {"mask_shard"},
    "table2.candidates": {"mask_generated"},
    "evaluation.inception": MEASURED,
    "evaluation.evaluator": MEASURED,
    "evaluation.segmenter": {"mask_score"},
    "evaluation.minimum": {"table1", "table2"},
    "evaluation.evaluator_training": {"attribute_evaluator"},
    "evaluation.segmenter_training": {"mask_segmenter"},
    "robustness": {"robustness"},
    "table1": {"table1", "costs"},
    "table1.images": DRAWN,
    "table1.threshold": DRAWN,
    "table1.max_attempts": DRAWN,
    "table2": {"table2", "costs"},
    "table2.images": {"mask_shard"},
    "table3": {"table", "costs"},
    "table4": {"table", "costs"},
    "table5": {"labels_table", "costs"},
    "tables": {"table", "labels_table"},
    "tables.judged": {"table", "labels_table", "judge_score"},
    "copies": {"copies"},
    "figures.figure1": {"figure1"},
    "figures.figure2": {"figure2"},
    "figures.figure3": {"figure3"},
}
"""Rules with work of their own when a key that starts so is changed; the longest such start counts."""
MORE = {
    "synthesis.shards_per_scale": TRAINED | {"synthesis", "labelled_shard", "costs", "figure1", "figure3", "copies"},
    "attributes.groups": {
        "attribute_images",
        "attribute_examples",
        "attribute_real_features",
        "attribute_score",
        "attribute_guide",
        "attribute_latent_judge",
        "robustness",
        *DRAWN,
    },
    "table1": {
        "attribute_examples",
        "attribute_guide",
        "attribute_latent_judge",
        *DRAWN,
        "attribute_score",
        "robustness",
        "robustness_table",
    },
    "table2": {"mask_examples", "mask_guide", "mask_shard", "mask_score", "figure2", *FOR_MASKS},
    "sampling": {"fitted_grid"},
    "table3": NEW,
    "table4": NEW,
    "table5": NEW | {"labelled_images", "finetune", "features", "rejection"},
}
"""Rules that may have work of their own as well: runs and shards that are new."""
SHARED = {
    "table3.subsets",
    "table4.0.subsets",
    "table4.1.subsets",
    "table5.subsets",
    "data.labels",
    "data.kind",
    "denoiser.kind",
    "masks.data.kind",
    "generators.diffae.kind",
    "generators.d2c.kind",
    "generators.nvae.kind",
    "experiment",
    "seed",
    "digest",
    "parts",
}
"""Keys on which almost everything hangs: tested by themselves."""


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of each key of a configuration."""
    if isinstance(value, Section):
        for name in type(value).model_fields:
            yield from leaves(getattr(value, name), (*path, name))
    elif isinstance(value, tuple) and value and isinstance(value[0], Section):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    else:
        yield path


def other_values(value: Any) -> list[Any]:
    """Values to try in the place of `value`; the first that the configuration accepts is taken."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        return [value + 1, value * 2, value / 2, value - 1, 0.5, 1]
    if isinstance(value, list):
        more = [item for first in value[:1] for item in other_values(first) if item not in value]
        ends = [[*value[:-1], last / 2] for last in value[-1:] if isinstance(last, float)]
        return [[*value, item] for item in more] + [value[:-1], [*value, 5], *ends]
    names = ["image-folder", "pretrain", "linear", "cosine", "fixed", "ddim", "pretrained", "small", "fp32", "bf16"]
    return ["other.file", *names, "fitted", "classifier-free", "middle", 4, 0.5, [0]]


def changed(raw: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    """An overlay that changes the key at `path` alone."""
    before = parse(raw)
    found: Any = before  # not its JSON, which leaves out some keys at their defaults
    for key in path:
        found = found[key] if isinstance(key, int) else getattr(found, key)
    for value in other_values(list(found) if isinstance(found, tuple) else found):
        overlay = _overlay(before.model_dump(mode="json"), path, value)
        try:
            after = parse(merge(raw, overlay))
        except UserError:
            continue
        if after != before:
            return overlay
    raise AssertionError(f"{path}: no other value found for {found!r}; add one to other_values")


def _overlay(content: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """An overlay that sets the key at `path`; a list is given whole, for overlays replace lists."""
    place = copy.deepcopy(content)
    holder: Any = place
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    whole = next((path[:i] for i, key in enumerate(path) if isinstance(key, int)), path)
    overlay: Any = place
    for key in whole:
        overlay = overlay[key]
    for key in reversed(whole):
        overlay = {key: overlay}
    return dict(overlay)


def base(kind: str) -> dict[str, Any]:
    """The demo with a smaller Table 4 and more sources, on the kinds of data and denoiser whose sub-tables count."""
    raw: dict[str, Any] = yaml.safe_load((REPO / "config.yaml").read_text())
    raw |= {"table4": TABLE4, "table5": {"labels": [10], "sources": ["ours"], "scale": 1}}
    raw["table3"]["sources"] += ["probe-rejection"] + ["unlabelled-soft"] * (kind == "as it is")
    raw["table1"]["methods"] += generated()
    raw["table2"]["methods"] = list(for_masks())
    raw = merge(raw, {"generators": {name: {"file": {"path": f"{name}.safetensors"}} for name in generators()}})
    if kind == "made here":
        return merge(raw, {"data": {"kind": "image-folder", "image_folder": {"root": "images", "size": 32}},
                           "denoiser": {"kind": "pretrain"},
                           "generators": {name: {"kind": "pretrain"} for name in generators()},
                           "sampling": {"grid": "fitted"},
                           "evaluation": {"evaluator": None, "segmenter": None}})  # fmt: skip
    return raw


def keys(kind: str) -> list[tuple[str | int, ...]]:
    # tables of other kinds are not in the JSON at all (tests/test_config.py)
    others = ("tiny_imagenet", "webdataset", "celeba", "csv", "unlabelled", "few_shot", "celebamask_hq", "data")
    every = [path for path in leaves(parse(base(kind))) if path[-1] not in others and dotted(path) not in SHARED]
    here = ("image_folder", "pretrain", "evaluator_training", "segmenter_training")
    return [path for path in every if _counts(path, here, kind)]


def _counts(path: tuple[str | int, ...], here: tuple[str, ...], kind: str) -> bool:
    """Whether a key matters under a kind: that of a sub-table where it is used, any other as it is."""
    if path[0] == "generators" and path[1] in generators():
        return (path[2] == "pretrain") == (kind == "made here")
    if path == ("sampling", "steps"):  # to which a grid is fitted
        return True
    if path[0] in ("data", "denoiser") or any(key in here for key in path[1:2]):
        return (path[1] in here) == (kind == "made here")
    return kind == "as it is"


def dotted(path: tuple[str | int, ...]) -> str:
    return ".".join(map(str, path))


def rules(jobs: list[Job]) -> set[str]:
    return {job.rule for job in jobs}


def downstream(started: set[str]) -> set[str]:
    reached = started | LAST
    while more := {rule for each in reached for rule in FOLLOWS.get(each, set())} - reached:
        reached |= more
    return reached


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Tree]:
    """Of each kind one in which everything has been made."""
    return functools.cache(lambda kind: finish(tmp_path_factory.mktemp("tree"), base(kind)))


@pytest.fixture(params=["as it is", "made here"])
def finished(request: pytest.FixtureRequest, trees: Callable[[str], Tree]) -> tuple[str, Tree]:
    return request.param, trees(request.param)


def finish(path: Path, config: dict[str, Any]) -> Tree:
    link_networks(path)
    for name in ("other.file", *(f"{name}.safetensors" for name in generators())):
        (path / name).touch()
    tree = copy_workflow(path, checked=False)  # one key is changed at a time, and files are empty
    tree.configure(**config)
    done = tree.snakemake("--cores", "4", "--quiet", "all", path=str(Path(__file__).parent / "bin"))
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def test_every_key_replans_its_own_stage_and_what_follows(finished: tuple[str, Tree]) -> None:
    kind, tree = finished
    paths = keys(kind)
    assert len(paths) > (5 if kind == "made here" else 60)
    plans = tree.plans([{}, *(changed(base(kind), path) for path in paths)])
    assert not [job for job in plans[0] if job.pending], "nothing changed, yet something is planned"
    wrong = []
    for path, jobs in zip(paths, plans[1:], strict=True):
        own = OWN[max((start for start in OWN if dotted(path).startswith(start)), key=len)]
        started = rules([job for job in jobs if job.pending and not job.status.startswith("ok")])
        pending = rules([job for job in jobs if job.pending])
        more = max((start for start in MORE if dotted(path).startswith(start)), key=len, default="")
        may = own | MORE.get(more, set()) | LAST
        if not (started and started <= may and own <= pending <= downstream(may)):
            wrong.append(
                f"{dotted(path)}: started {sorted(started)}, planned {sorted(pending)}, expected {sorted(own)}"
            )
    assert not wrong, "\n".join(wrong)


@pytest.fixture
def demo(trees: Callable[[str], Tree]) -> Tree:
    return trees("as it is")


def test_a_finished_experiment_plans_no_job(demo: Tree) -> None:
    done = demo.snakemake("--dry-run")
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout + done.stderr


def test_learning_rate_of_the_fine_tune(demo: Tree) -> None:
    jobs = demo.plans([{"finetune": {"lr": 2e-3}}])[0]
    kept = {job.output.split("/", 2)[2] for job in jobs if not job.pending}
    assert {"subset0/rejection/classifier.safetensors", "subset0/pixel-rejection/classifier.safetensors"} <= kept
    assert "subset0/classifiers/resnet18/plain/real/0x/0.parquet" in kept
    assert "subset0/classifiers/resnet18/plain/real-equal-steps/1x/0.parquet" in kept
    assert rules([job for job in jobs if job.pending]) == downstream({"finetune"})


def test_parts_leave_the_others_aside(demo: Tree) -> None:
    done = demo.snakemake("--dry-run", "--forceall", "--quiet", "rules", "--config", 'parts=["masks"]')
    planned = {line.split()[0] for line in done.stdout.splitlines() if line.strip()}
    assert {"mask_shard", "table2", "figure2"} <= planned
    assert not {"finetune", "classifier", "attribute_shard", "table", "table1"} & planned


def test_scale_3_to_7_plans_only_what_is_new(demo: Tree) -> None:
    blocks = [TABLE4[0], {**TABLE4[1], "scales": [2, 3, 4, 5, 6, 7]}]
    jobs = demo.plans([{"table4": blocks}])[0]
    pending = [job for job in jobs if job.pending]
    shards = {job.output[-9:] for job in pending if job.rule == "synthesis" and job.output.endswith(".tar")}
    rows = {job.output.split("/")[-2] for job in pending if job.rule == "classifier"}
    assert shards == {f"{index:05d}.tar" for index in range(3, 7)}
    assert rows == {"4x", "5x", "6x", "7x"}
    others = {job.output.split("/", 2)[2] for job in pending if job.rule not in ("synthesis", "classifier")}
    assert {name for name in others if "table3" in name} == set()
    assert rules(pending) == {"synthesis", "classifier", "shard_info", "table", "figure4", *LAST}
    assert [job.output for job in pending if job.rule == "shard_info"] == [
        "results/fashion-demo/subset0/synthetic/ours/_info.json"
    ]


def test_threshold_and_guidance_leave_the_sources_without_them(demo: Tree) -> None:
    guidance = {"guidance_scale": 0.3}, {"guidance_interval": [0, 0.5]}
    plans = demo.plans([{"synthesis": {"threshold": 0.6}}, *({"sampling": each} for each in guidance)])
    sources = [{job.output.split("/")[4] for job in jobs if job.pending and job.rule == "synthesis"} for jobs in plans]
    assert sources[0] == {"ours", "pixel-rejection", "probe-rejection"}
    assert sources[1] == sources[0] | {"classifier-free", "probe-soft"} and sources[2] == {"classifier-free"}


def test_a_fitted_grid_is_of_all_that_is_drawn(demo: Tree) -> None:
    jobs = demo.plans([{"sampling": {"grid": "fitted"}}])[0]
    pending = [job for job in jobs if job.pending]
    assert [job.output for job in pending if job.rule == "fitted_grid"] == ["results/fashion-demo/grid.json"]
    drawn = {job.output.split("/")[4] for job in pending if job.rule == "synthesis"}
    assert {"ours", "improved-ddpm", "pixel-rejection", "unconditional-soft"} <= drawn


def test_mix_settings_leave_unmixed_runs(demo: Tree) -> None:
    jobs = demo.plans([{"classifier": {"mix": {"prob": 0.9}}}])[0]
    assert {job.output.split("/")[5] for job in jobs if job.pending and job.rule == "classifier"} == {"mix"}


def test_seed_name_and_labelled_subset(demo: Tree) -> None:
    again, renamed, subset = demo.plans([{"seed": 1}, {"experiment": "other"}, {"table3": {"subsets": [0, 1]}}])
    assert all(job.pending for job in again)
    assert all(job.pending and "results/other/" in job.output for job in renamed)
    assert {job.output.split("/")[2] for job in subset if job.rule in ("finetune", "synthesis") and job.pending} == {
        "subset1"
    }


def test_one_more_seed_leaves_the_others_their_targets(demo: Tree) -> None:
    seed, subset = demo.plans([{"table2": {"seeds": [0, 1]}}, {"table2": {"seeds": [0, 1], "subsets": [0, 1]}}])
    drawn = [{job.output.split("/", 2)[2] for job in jobs if job.pending and job.rule == "mask_shard"}
             for jobs in (seed, subset)]  # fmt: skip
    names = {f"{method}/{steps}.tar" for method in ("unguided", "ddim-i", "ours") for steps in (10, 50)}
    assert drawn[0] == {f"subset0/masks/1/{name}" for name in names}
    assert drawn[1] == {f"subset{k}/masks/{r}/{name}" for k, r in ((1, 0), (0, 1), (1, 1)) for name in names}


def test_settings_that_do_not_count_plan_nothing(demo: Tree) -> None:
    """Sub-tables of other kinds; and every key of config.yaml has been met above."""
    plans = demo.plans([{"denoiser": {"pretrain": {"lr": 3e-3}}}, {"data": {"image_folder": {"root": "elsewhere"}}}])
    assert not [job for jobs in plans for job in jobs if job.pending and job.rule not in LAST]


def test_config_yaml_names_every_key() -> None:
    """config.yaml is complete: leaving it to a default would hide a key from the reader."""
    raw = yaml.safe_load((REPO / "config.yaml").read_text())
    for path in leaves(load(REPO / "config.yaml")):
        if "data" in path and path[-1] not in ("kind", "labels", "per_class", "test_images", "train", "test"):
            continue  # tables that are there as comments: tests/config reads those
        found: Any = raw
        for key in path:
            there = isinstance(found, list) or key in found
            assert there, dotted(path)
            found = found[key]
    assert set(raw) == set(Experiment.model_fields)


def test_snakemakes_own_report_holds_tables_and_figures_with_captions(demo: Tree) -> None:
    done = demo.snakemake("--report", "own.html")
    assert done.returncode == 0, done.stderr
    text = (demo.path / "own.html").read_text(encoding="utf-8")
    names = [f"table{number}-summary.md" for number in (1, 2, 3, 4)] + [
        f"figure{number}.png" for number in (1, 2, 3, 4)
    ]
    assert [name for name in (*names, "finetuned.png", "report.html") if name not in text] == []
    assert "Images drawn for segmentation masks" in text and "A table of the experiment" not in text

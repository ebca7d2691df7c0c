"""A source, a solver and a reader, each declared by one file outside the package, and run."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from ddrep import cli, config
from ddrep.checks import check
from ddrep.config import Experiment, Stage
from ddrep.config.data import TABLES
from ddrep.data.digest import digest, places
from ddrep.data.readers import READERS, labelled
from ddrep.data.shards import write_shard
from ddrep.denoiser.schedule import Schedule
from ddrep.derived import data_of, shard_of, stage_json, told
from ddrep.errors import UserError
from ddrep.registry import FILES, Registry
from ddrep.reporting.figures import figure4
from ddrep.reporting.tables import run as make_table
from ddrep.runs import Run, shards_asked
from ddrep.sampling.sampler import ImageNoise, solve
from ddrep.solvers import SOLVERS
from ddrep.sources import SOURCES, Source, Style
from tests import tiny
from tests.reporting.make_runs import write_run


@pytest.fixture
def member(request: pytest.FixtureRequest) -> Iterator[None]:
    """Imports the file of tests/members that the test names, and forgets what it declared."""
    before = {id(registry): dict(registry) for registry in (SOURCES, SOLVERS, READERS)}
    tables = dict(TABLES)
    runpy.run_path(str(Path(__file__).parent / f"members/{request.param}.py"))
    yield
    for registry in (
        SOURCES,
        SOLVERS,
        READERS,
    ):
        registry.clear()
        dict.update(registry, before[id(registry)])
    TABLES.clear()
    TABLES.update(tables)


@pytest.mark.parametrize("member", ["a_source"], indirect=True)
def test_a_source(
    member: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "rejection-w2"
    block: dict[str, Any] = {"sources": ["real", name], "scales": [0, 1], "mix": [False]}
    experiment = config.parse({"experiment": "x", "table4": [block], "table3": {"sources": [name]}})
    assert shards_asked(experiment)["0", name] == 1
    shard = shard_of(name, experiment)
    assert shard.sampling.guidance_scale == 2 and shard.synthesis == experiment.synthesis
    assert Stage[config.Shard].model_validate_json(stage_json("synthesis", shard, 0)).config == shard
    rows = []
    for seed in range(2):
        for source, scale, correct in (("real", 0, 60), (name, 1, 70), ("ours", 1, 75)):
            right = np.arange(100) < correct
            rows.append(write_run(tmp_path, Run(0, "resnet18", False, source, scale, seed), right))
    outputs = [tmp_path / f"table4{suffix}" for suffix in (".parquet", "-summary.parquet", ".md")]
    make_table(
        Stage[config.AccuracyTable](config=config.AccuracyTable()),
        number=4,
        rows=rows,
        judges=None,
        **dict(zip(("out", "summary", "markdown"), outputs, strict=True)),
    )
    cells = pd.read_parquet(outputs[1]).set_index("source")
    assert list(cells.index) == ["real", "ours", name], "in the order of declaration"
    assert cells.loc[name, "vs_real"] == pytest.approx(10) and cells.loc[name, "vs_ours"] == pytest.approx(-5)
    assert f"| {name}" in capsys.readouterr().out
    drawn: list[Figure] = []
    monkeypatch.setattr("ddrep.reporting.figures.save", lambda figure, out: drawn.append(figure))
    figure4(table=outputs[0], out=tmp_path / "figure4.png")
    (legend,) = drawn[0].legends
    assert {name, "ours"} <= {text.get_text() for text in legend.get_texts()}


def test_the_workflow_and_its_jobs_know_a_source_of_its_own(tmp_path: Path) -> None:
    """Whatever its name: digits had no file that a rule makes."""
    root = Path(__file__).parents[1]
    env = {**os.environ, FILES: str(root / "tests/members/a_source.py"), "PYTHONPATH": str(root)}
    settings = {"experiment": "x", "parts": ["augmentation"], "table3": {"sources": ["rejection-w2"]}}
    (tmp_path / "x.yaml").write_text(json.dumps(settings), encoding="utf-8")
    call = ["--configfile", str(tmp_path / "x.yaml"), "--cores", "1", "--dry-run", "--printshellcmds"]
    run = partial(subprocess.run, env=env, capture_output=True, text=True, check=False)
    plan = run([sys.executable, "-m", "snakemake", *call], cwd=root)
    assert plan.returncode == 0, plan.stderr
    assert '"guidance_scale":2.0' in plan.stdout and "synthetic/rejection-w2/00000.tar" in plan.stdout
    write_shard(tmp_path / "s.tar", tiny.images(per_class=2))
    write_shard(tmp_path / "test.tar", tiny.images("test", per_class=1))
    stage = Stage[config.Training](config=config.Training(classifier=config.Classifier(epochs=1, min_steps=1)))
    words = shlex.split("--subset 0 --architecture resnet18 --source rejection-w2 --scale 1 --train-seed 0")
    files = ["--test", "test.tar", "--out", "row.parquet", "--stage", stage.model_dump_json(), "s.tar"]
    done = run([sys.executable, "-m", "ddrep", "classify", *words, *files], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list(pd.read_parquet(tmp_path / "row.parquet")["source"]) == ["rejection-w2"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (None, "No such file or directory; expected a file that declares members"),
        ("1 / 0", "ZeroDivisionError: division by zero; expected a file that declares members"),
    ],
)
def test_a_file_that_declares_nothing_is_one_line(
    text: str | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.py"
    if text:
        file.write_text(text, encoding="utf-8")
    monkeypatch.setenv(FILES, str(file))
    assert cli.main(["--version"]) == 2 and capsys.readouterr().err == f"ddrep: {FILES}: {file}: {line}\n"


def test_a_name_is_one_for_files() -> None:
    with pytest.raises(ValueError, match=r"source 'a/b': expected letters, digits"):
        SOURCES.add(Source("a/b", "about", Style("#000000")))


@pytest.mark.parametrize("member", ["a_solver"], indirect=True)
def test_a_solver_equals_ddim_of_the_same_grid(member: None) -> None:
    """In sigma and x / sqrt(abar), a step of DDIM is one of Euler's (Song et al. 2021, 4.3)."""
    schedule, denoiser = Schedule(), tiny.denoiser()
    noise = lambda: ImageNoise([1, 2], denoiser.image_shape, torch.device("cpu"))  # noqa: E731
    drawn = {
        name: solve(denoiser.eps, schedule, noise(), config.EvenSampling(solver=name, steps=1000, eta=0.0))
        for name in ("euler", "ddim")
    }
    assert torch.allclose(drawn["euler"], drawn["ddim"], atol=1e-3)
    assert config.parse({"experiment": "x", "sampling": {"solver": "euler"}}).sampling.solver == "euler"


@pytest.mark.parametrize("member", ["a_reader"], indirect=True)
def test_a_reader(member: None, tmp_path: Path) -> None:
    images = tiny.images(classes=3, per_class=20)
    held_out = tiny.images("test", classes=3, per_class=5)
    for split, part in (("train", images), ("test", held_out)):
        np.savez(tmp_path / f"{split}.npz", images=part.images[..., 0], labels=part.labels)
    raw = {"experiment": "x", "data": {"kind": "arrays", "arrays": {"root": str(tmp_path)}}, "parts": ["augmentation"]}
    experiment = config.parse(raw)
    planned = told("data", experiment, {})
    stage = Stage[config.Data].model_validate_json(planned)
    assert stage.config == data_of(experiment) and digest(places(stage.config), "times") == stage.files
    test = labelled(stage.config, "test", 0, stage.seed)
    assert np.array_equal(test.images, held_out.images) and np.array_equal(test.labels, held_out.labels)
    parts = [labelled(stage.config, split, 0, stage.seed) for split in ("train", "validation")]
    together = np.concatenate([part.images for part in parts])
    assert sorted(x.tobytes() for x in together) == sorted(x.tobytes() for x in images.images)
    tiny.denoiser().save(tmp_path / "d.safetensors")
    check(config.parse(raw | {"denoiser": {"file": {"path": str(tmp_path / "d.safetensors")}}}))
    wrong = raw | {"data": {"kind": "arrays", "arrays": {"root": str(tmp_path / "gone")}}}
    with pytest.raises(UserError, match=r"data\.arrays\.root: no folder"):
        check(config.parse(wrong))
    with pytest.raises(UserError, match=r"data.*roof: unknown key"):
        config.parse(raw | {"data": {"kind": "arrays", "arrays": {"roof": "x"}}})


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        ({"sampling": {"solver": "ddym"}}, "sampling.solver: no solver ddym; did you mean ddim?"),
        ({"table3": {"sources": ["our"]}}, "table3.sources.0: no source our; did you mean ours?"),
        ({"table3": {"sources": ["real"]}}, "table3.sources.0: real has no images beside"),
        ({"table1": {"methods": ["ddim"]}}, "table1.methods.0: no method ddim; did you mean ddim-i?"),
        ({"table2": {"methods": ["rejection"]}}, "table2.methods.0: rejection does not draw for masks"),
        ({"data": {"kind": "folder"}}, "data.kind: no kind of data set folder"),
        (
            {"data": {"kind": "image_folder", "image_folder": {"root": "x"}}},
            "data.kind: no kind of data set image_folder; there are embedded, image-folder",
        ),
    ],
)
def test_an_unknown_name_is_one_line_with_the_near_ones(raw: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as caught:
        config.parse({"experiment": "x"} | raw)
    assert line in str(caught.value) and "\n" not in str(caught.value)


def test_readme_lists_the_sources_as_they_are_declared() -> None:
    readme = Path(__file__).parents[1].joinpath("README.md").read_text(encoding="utf-8")
    listed = [line for line in readme.splitlines() if line.startswith("| `")]
    assert listed[: len(SOURCES)] == [f"| `{name}` | {source.about} |" for name, source in SOURCES.items()]


def test_a_name_is_declared_once() -> None:
    with pytest.raises(ValueError, match="source ours: declared twice"):
        SOURCES.add(SOURCES["ours"])
    assert isinstance(SOURCES, Registry) and Experiment(experiment="x").sampling.solver in SOLVERS
    with pytest.raises(UserError, match="no source nobody's; there are real, "):
        SOURCES["nobody's"]

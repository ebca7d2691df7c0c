"""The engine against an oracle that draws every attempt in one batch and reads the quota off by hand."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ddrep.cli import main
from ddrep.config import Experiment, Features, Sampling, Shard, Stage, Synthesis
from ddrep.data.shards import LabelledImages, read_shards
from ddrep.denoiser.denoiser import Denoiser
from ddrep.derived import STAGES, shard_of
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.networks.architectures import build
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import JudgeMeta
from ddrep.sampling import synthesis
from ddrep.sampling.engine import Tally, check_full, fill
from ddrep.sampling.sampler import image_seed, levels, sample
from ddrep.sampling.synthesis import KEYS, drawer_of, engine_of, match_threshold, matched, run
from tests import tiny

CLASSES, ATTEMPTS, SEED, INDEX, QUOTA = 3, 60, 7, 2, 6
SAMPLING = Sampling(steps=4, eta=1.0, guidance_scale=0.5, guidance_interval=(0, 1), grid="even")
COLUMNS = {"key", "class", "attempt", "seed", "p", "accepted", "evaluations", "digest"}


@dataclass
class World:
    """Files of a small experiment, and what the oracle drew: p (CLASSES, ATTEMPTS) and images by class and attempt."""

    finetuned: Path
    pretrained: Path
    judge: Path
    pixel_judge: Path
    p: np.ndarray
    pixel_p: np.ndarray
    images: np.ndarray

    def threshold(self, share: float) -> float:
        """Accepts about `share` of all attempts; lies in the widest gap thereabouts, so that rounding is no matter."""
        p = np.sort(self.p.ravel())
        near = round((1 - share) * len(p)) + np.arange(-8, 8)
        at = near[np.argmax(p[near + 1] - p[near])]
        return float((p[at] + p[at + 1]) / 2)

    def needed(self, threshold: float, quota: int = QUOTA) -> list[tuple[int, int]]:
        """(class, attempt) of every attempt up to the one that fills the quota."""
        ends = [np.flatnonzero(p >= threshold)[quota - 1] for p in self.p]
        return [(c, a) for c, end in enumerate(ends) for a in range(end + 1)]


def _attempts() -> list[tuple[int, int]]:
    return [(c, a) for c in range(CLASSES) for a in range(ATTEMPTS)]


def _judge(path: Path, denoiser: Path, kind: str, images: np.ndarray) -> np.ndarray:
    """Save an untrained judge whose p spreads over `images`; return their p (N, CLASSES)."""
    sizes = {"num_classes": CLASSES, "hidden": 16, "dropout": 0.2}
    meta = JudgeMeta(kind="pixels", channels=1, **sizes)
    if kind == "features":
        listens = {"features": Features(), "denoiser_sha256": sha256(denoiser)}
        meta = JudgeMeta(kind="features", channels=64, **listens, **sizes)
    torch.manual_seed(5)
    net = build(meta).eval().requires_grad_(False)
    judge = Judge(net, meta, Denoiser.load(denoiser) if kind == "features" else None)
    logits = torch.from_numpy(np.log(judge.probabilities(images))).float()
    last = net[-1]
    last.weight.sub_(last.weight.mean(dim=0))  # which softmax cannot see
    last.bias.zero_()
    logits = torch.from_numpy(np.log(judge.probabilities(images)))
    logits = (logits - logits.mean(dim=1, keepdim=True)).float()
    scale = 2 / logits.std(dim=0)
    last.weight.mul_(scale[:, None])
    last.bias.copy_(-logits.mean(dim=0) * scale)
    judge.save(path)
    return judge.probabilities(images)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    folder = tmp_path_factory.mktemp("world")
    finetuned, pretrained = tiny.denoiser(CLASSES + 1, seed=1), tiny.denoiser()
    finetuned.save(folder / "finetuned.safetensors")
    pretrained.save(folder / "pretrained.safetensors")
    seeds = [image_seed(SEED, c, INDEX, a) for c, a in _attempts()]
    images = sample(finetuned, seeds, SAMPLING, [c for c, _ in _attempts()])
    own = np.arange(len(images)), [c for c, _ in _attempts()]
    p, pixel_p = (
        _judge(folder / f"{kind}.safetensors", folder / "pretrained.safetensors", kind, images)[own].reshape(
            CLASSES, -1
        )
        for kind in ("features", "pixels")
    )
    assert images.std(axis=0).mean() > 10 and 0.05 < p.mean() < 0.9 and p.std() > 0.1, "nothing here is degenerate"
    return World(
        folder / "finetuned.safetensors", folder / "pretrained.safetensors", folder / "features.safetensors",
        folder / "pixels.safetensors", p, pixel_p, images.reshape(CLASSES, ATTEMPTS, 8, 8, 1),
    )  # fmt: skip


@pytest.fixture
def drawn(monkeypatch) -> list[int]:
    """Seeds of the images drawn, in order."""
    seeds: list[int] = []

    def counting(denoiser, batch, *args):
        seeds.extend(batch)
        return sample(denoiser, batch, *args)

    monkeypatch.setattr(synthesis, "sample", counting)
    return seeds


def _stage(threshold: float, sampling: Sampling = SAMPLING, **settings) -> Stage[Shard]:
    section = Synthesis(**({"per_class": QUOTA, "threshold": threshold, "max_attempts": 10} | settings))
    return Stage[Shard](seed=SEED, config=Shard(sampling=sampling, synthesis=section))


def _make(world: World, stage: Stage[Shard], out: Path, pool: Path | None = None, batch: int = 64, **changed):
    """Run the command; return its shard, by key, and its table."""
    args: dict[str, Any] = {"finetuned": world.finetuned, "pretrained": world.pretrained, "judge": world.judge}
    args |= {"labelled": None, "threshold_file": None, "index": INDEX, "pool": pool or out.parent / "pool"} | changed
    run(stage, **args, out=out, batch=batch)
    return read_shards([out]), pd.read_parquet(out.with_suffix(".parquet"))


def _by_attempt(shard: LabelledImages) -> dict[tuple[int, int], np.ndarray]:
    parts = [key.split("-") for key in shard.keys]
    assert [int(c) for c, _, _ in parts] == shard.labels.tolist()
    return {(int(c), int(a)): image for (c, _, a), image in zip(parts, shard.images, strict=True)}


def _assert_is_the_oracles(world: World, shard: LabelledImages, rows: pd.DataFrame, threshold: float) -> None:
    needed = world.needed(threshold)
    assert list(zip(rows["class"], rows["attempt"], strict=True)) == needed
    assert rows["seed"].tolist() == [image_seed(SEED, c, INDEX, a) for c, a in needed]
    p = np.array([world.p[attempt] for attempt in needed])
    np.testing.assert_allclose(rows["p"], p, atol=1e-4)
    assert rows["accepted"].tolist() == (p >= threshold).tolist()
    images = _by_attempt(shard)
    assert images.keys() == {attempt for attempt in needed if world.p[attempt] >= threshold}
    assert len(images) == CLASSES * QUOTA and np.bincount(shard.labels).tolist() == [QUOTA] * CLASSES
    for attempt, image in images.items():
        assert np.abs(image.astype(int) - world.images[attempt]).max() <= 1


def test_a_shard_holds_the_quota_of_every_class_whatever_the_batch(world, tmp_path):
    threshold = world.threshold(0.4)
    made = {n: _make(world, _stage(threshold), tmp_path / f"{n}" / "00002.tar", batch=n) for n in (8, 64)}
    for shard, rows in made.values():
        assert set(rows.columns) == COLUMNS and rows["key"].is_unique
        _assert_is_the_oracles(world, shard, rows, threshold)
        assert shard.classes == tuple(f"class {i}" for i in range(CLASSES))
        assert (np.diff(shard.labels) < 0).any(), "classes are shuffled"
    (small, small_rows), (large, large_rows) = made[8], made[64]
    exact = ["key", "class", "attempt", "seed", "accepted"]
    pd.testing.assert_frame_equal(small_rows[exact], large_rows[exact])
    assert small.keys == large.keys and np.abs(small.images.astype(int) - large.images).max() <= 1
    np.testing.assert_allclose(small_rows["p"], large_rows["p"], atol=1e-4)


def test_p_is_that_of_the_stored_image(world, tmp_path):
    shard, rows = _make(world, _stage(world.threshold(0.4)), tmp_path / "00002.tar")
    judge = Judge.load(world.judge, world.pretrained, torch.device("cpu"))
    p = judge.probabilities(shard.images)[np.arange(len(shard)), shard.labels]
    of_key = rows.set_index("key")["p"]
    np.testing.assert_allclose([of_key[key] for key in shard.keys], p, atol=1e-5)


def test_the_same_command_again_gives_the_same_bytes_and_draws_nothing(world, tmp_path, drawn):
    out = tmp_path / "00002.tar"
    _make(world, _stage(world.threshold(0.4)), out)
    before, count = [sha256(out), sha256(out.with_suffix(".parquet"))], len(drawn)
    _make(world, _stage(world.threshold(0.4)), out)
    assert [sha256(out), sha256(out.with_suffix(".parquet"))] == before and len(drawn) == count > 0


def test_a_raised_threshold_draws_the_shortfall_and_a_lowered_one_nothing(world, tmp_path, drawn):
    low, high = world.threshold(0.5), world.threshold(0.25)

    def make(threshold: float, folder: str, pool: str) -> list[int]:
        """Attempts of each class drawn for it."""
        drawn.clear()
        shard, rows = _make(world, _stage(threshold), tmp_path / folder / "00002.tar", tmp_path / pool)
        _assert_is_the_oracles(world, shard, rows, threshold)
        seeds = [{image_seed(SEED, c, INDEX, a) for a in range(ATTEMPTS)} for c in range(CLASSES)]
        assert len(set(drawn)) == len(drawn)
        return [sum(seed in of_class for seed in drawn) for of_class in seeds]

    fresh = {t: make(t, f"fresh {t}", f"pool {t}") for t in (low, high)}
    assert make(low, "low", "pool") == fresh[low]
    assert make(high, "high", "pool") == [max(0, b - a) for a, b in zip(fresh[low], fresh[high], strict=True)]
    assert sum(fresh[high]) > sum(fresh[low])
    assert make(low, "low again", "pool") == [0] * CLASSES
    assert sha256(tmp_path / "low" / "00002.tar") == sha256(tmp_path / "low again" / "00002.tar")


class Killed(Exception):
    pass


def test_a_killed_commands_candidates_are_found_again(world, tmp_path, monkeypatch):
    threshold, out = world.threshold(0.4), tmp_path / "00002.tar"
    seeds: list[int] = []

    def dying(denoiser, batch, *args):
        if len(seeds) == 12 and batch[0] not in seeds and not died:
            died.append(True)
            raise Killed
        seeds.extend(batch)
        return sample(denoiser, batch, *args)

    died: list[bool] = []
    monkeypatch.setattr(synthesis, "sample", dying)
    with pytest.raises(Killed):
        _make(world, _stage(threshold), out, batch=4)
    assert [p.name for p in tmp_path.iterdir()] == ["pool"]
    shard, rows = _make(world, _stage(threshold), out, batch=4)
    assert len(set(seeds)) == len(seeds) > 12, "no image is drawn twice"
    _assert_is_the_oracles(world, shard, rows, threshold)


def test_a_broken_pool_file_is_drawn_again(world, tmp_path, drawn):
    threshold, out = world.threshold(0.4), tmp_path / "00002.tar"
    _make(world, _stage(threshold), out, batch=8)
    before, file = sha256(out), next(iter(sorted(tmp_path.glob("pool/*/*/*.npz"))))
    with np.load(file) as content:
        lost = {image_seed(SEED, int(c), INDEX, int(a)) for c, a in content["attempts"]}
    file.write_bytes(file.read_bytes()[:-40])
    drawn.clear()
    _make(world, _stage(threshold), out, batch=8)
    assert set(drawn) == lost and len(drawn) == len(lost) and sha256(out) == before


def test_too_small_a_budget_names_the_classes_and_leaves_no_output(world, tmp_path, drawn, caplog):
    threshold = world.threshold(0.15)
    accepted = (world.p[:, : 2 * QUOTA] >= threshold).sum(axis=1)
    assert (accepted < QUOTA).all()
    with caplog.at_level("INFO"), pytest.raises(UserError) as caught:
        _make(world, _stage(threshold, max_attempts=2), tmp_path / "00002.tar")
    rates = ", ".join(f"class {c} ({n}/{2 * QUOTA} = {n / (2 * QUOTA):.1%})" for c, n in enumerate(accepted))
    line = f"classes {rates} accept too few for the {QUOTA} images asked for in {2 * QUOTA} attempts"
    assert f"synthesis.max_attempts: {line}; raise" in str(caught.value)
    assert "\n" not in str(caught.value) and [p.name for p in tmp_path.iterdir()] == ["pool"]
    assert len(drawn) == CLASSES * 2 * QUOTA
    (table,) = [record.getMessage() for record in caplog.records if "median p" in record.getMessage()]
    rows = [line.split() for line in table.splitlines()[2:]]
    for c, row in enumerate(rows):
        p = world.p[c, : 2 * QUOTA]
        assert row[:2] == [str(2 * QUOTA), str(accepted[c])] and row[5:7] == ["class", str(c)]
        assert [float(row[3]), float(row[4])] == pytest.approx([np.median(p), np.quantile(p, 0.9)], abs=1e-3)
    assert len(rows) == CLASSES
    would = float(str(caught.value).rpartition("at a synthesis.threshold of ")[2].partition(" ")[0])
    assert ((world.p[:, : 2 * QUOTA] >= would).sum(axis=1) >= QUOTA).all()
    assert not ((world.p[:, : 2 * QUOTA] >= would + 0.001).sum(axis=1) >= QUOTA).all(), "and no higher one"
    drawn.clear()
    _make(world, _stage(would, max_attempts=2), tmp_path / "00002.tar")
    assert not drawn, "which draws nothing anew"


@pytest.mark.parametrize("setting", ["", "synthesis.threshold"])
def test_only_a_threshold_that_is_a_setting_is_told(setting):
    tallies = [Tally(0, 0.9, "a", [0.95, 0.4, 0.3]), Tally(1, 0.9, "b", [0.95, 0.95, 0.1])]
    with pytest.raises(
        UserError, match=r"a \(1/3 = 33\.3%\) accept too few for the 2 images asked for in 3 attempts;"
    ) as caught:
        check_full(tallies, 2, 3, ("synthesis.max_attempts", "fine-tune longer"), setting)
    assert ("at a synthesis.threshold of 0.4 the attempts" in str(caught.value)) == bool(setting)
    assert ("the attempts made" in str(caught.value)) == bool(setting)


def test_what_is_accepted_is_said_as_it_comes(world, tmp_path, caplog):
    with caplog.at_level("INFO"):
        _make(world, _stage(world.threshold(0.4)), tmp_path / "00002.tar", batch=8)
    said = [record.getMessage() for record in caplog.records]
    rounds = [line for line in said if "attempts accepted" in line]
    first = (world.p[:, :QUOTA] >= world.threshold(0.4)).sum(axis=1)
    least = int(first.argmin())
    assert rounds[0] == (
        f"{first.sum()} of {CLASSES * QUOTA} attempts accepted ({first.sum() / (CLASSES * QUOTA):.0%}); "
        f"{(first >= QUOTA).sum()} of {CLASSES} classes have their {QUOTA} images; "
        f"least: class {least} ({first[least]}/{QUOTA} = {first[least] / QUOTA:.1%})"
    )
    assert f"{CLASSES} of {CLASSES} classes have their {QUOTA} images" in rounds[-1]
    assert f"8 of {CLASSES * QUOTA} candidates drawn" in said


def test_of_many_classes_the_first_are_named(caplog):
    tallies = [Tally(label, 0.5, f"n{label:08d}") for label in range(200)]
    with caplog.at_level("INFO"), pytest.raises(UserError) as caught:
        fill(tallies, 4, 8, lambda attempts: [0.1] * len(attempts), KEYS)
    assert "n00000009 (0/8 = 0.0%) and 190 more (the log has a table) accept too few" in str(caught.value)
    assert len(str(caught.value)) < 500 and "n00000199 (4 missing)" in caplog.text


def test_only_the_classes_that_fall_short_are_named():
    p = {0: [0.9] * 8, 1: [0.9, 0.1, 0.1, 0.1] * 2, 2: [0.1] * 4 + [0.9] * 4}
    asked: list[tuple[int, int]] = []

    def judge(attempts):
        asked.extend(attempts)
        return [p[label][attempt] for label, attempt in attempts]

    tallies = [Tally(label, 0.5) for label in p]
    with pytest.raises(UserError, match=r"classes 1 \(2/8 = 25\.0%\) accept too few"):
        fill(tallies, 4, 8, judge, KEYS)
    assert len(set(asked)) == len(asked) and max(attempt for _, attempt in asked) == 7
    assert sum(label == 0 for label, _ in asked) == 4, "a class that accepts everything is asked for its quota alone"


@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
def test_a_tally_asks_on_from_where_it_is_within_its_budget(rate):
    rng = np.random.default_rng(0)
    for _ in range(50):
        quota, budget = int(rng.integers(1, 20)), int(rng.integers(20, 200))
        tally, stream = Tally(0, 0.5), (rng.random(budget) < rate).astype(float)
        while len(wanted := tally.wanted(quota, budget)):
            assert wanted.start == len(tally.p) and wanted.stop <= budget
            tally.p.extend(stream[wanted.start : wanted.stop])
        hits = np.flatnonzero(stream[: len(tally.p)])
        assert tally.accepted == len(hits)
        assert len(hits) >= quota or len(tally.p) == budget
        assert tally.needed(quota) == (hits[quota - 1] + 1 if len(hits) >= quota else budget)


def test_sources_share_their_starting_noise(world, tmp_path):
    experiment = Experiment(
        experiment="e", sampling=Sampling(steps=8, guidance_scale=0.01), synthesis=Synthesis(per_class=8)
    )
    made = {}
    for source in ("improved-ddpm", "classifier-free"):
        stage = Stage[Shard](seed=SEED, config=shard_of(source, experiment))
        made[source] = _make(world, stage, tmp_path / source / "00002.tar", tmp_path / "pool")
    plain, guided = (made[s][0] for s in ("improved-ddpm", "classifier-free"))
    assert plain.keys == guided.keys and (made["improved-ddpm"][1]["seed"] == made["classifier-free"][1]["seed"]).all()
    one, other = (s.images.reshape(24, -1).astype(float) for s in (plain, guided))
    correlation = np.corrcoef(one, other)[:24, 24:]
    assert np.diag(correlation).min() > 0.98 and not np.array_equal(one, other)
    assert np.abs(correlation[~np.eye(24, dtype=bool)]).mean() < 0.9, "pictures of other noise differ"
    assert len(list((tmp_path / "pool").iterdir())) == 2, "guidance makes other candidates of the same noise"


def test_ours_and_classifier_free_share_their_candidates(world, tmp_path, drawn):
    everything = _stage(0.0)
    _make(world, everything, tmp_path / "classifier-free" / "00002.tar", tmp_path / "pool")
    assert len(drawn) == CLASSES * QUOTA
    _make(world, _stage(world.threshold(0.4)), tmp_path / "ours" / "00002.tar", tmp_path / "pool")
    assert len(set(drawn)) == len(drawn)


@pytest.mark.parametrize("who", ["finetuned", "judge"])
def test_broken_networks_make_no_images(world, tmp_path, who):
    """At threshold 0 every NaN was kept, as a black image."""
    finetuned, judge = Denoiser.load(world.finetuned), Judge.load(world.judge, world.pretrained, torch.device("cpu"))
    for p in (finetuned if who == "finetuned" else judge).net.parameters():
        p.fill_(3e38)  # finite, or it would not load
    file = tmp_path / f"{who}.safetensors"
    (finetuned if who == "finetuned" else judge).save(file)
    with pytest.raises(UserError, match="values that are not finite") as said:
        _make(world, _stage(0.0), tmp_path / "00002.tar", **{who: file})
    assert "\n" not in str(said.value) and not list(tmp_path.glob("*.tar")) and not list(tmp_path.glob("*.parquet"))
    assert bool(list(tmp_path.glob("pool/*/*/*.npz"))) == (who == "judge"), "a broken image is nowhere kept"


def test_a_pool_is_of_all_that_determines_an_image_and_of_nothing_else(world, tmp_path):
    def folder(stage: Stage[Shard], finetuned: Path = world.finetuned, pretrained: Path = world.pretrained) -> str:
        engine = engine_of(drawer_of(stage, finetuned, pretrained), stage, INDEX, tmp_path / "pool", 8)
        return engine.pool.folder.parent.name

    other = tmp_path / "other.safetensors"
    tiny.denoiser(CLASSES + 1, seed=9).save(other)
    base = tmp_path / "base.safetensors"
    tiny.denoiser(seed=9).save(base)
    mixing = SAMPLING.model_copy(update={"unconditional": "pretrained"})
    kept = folder(_stage(0.2))
    assert folder(_stage(0.9, per_class=50, max_attempts=3)) == kept == folder(_stage(0.2), pretrained=base)
    changed = [
        folder(_stage(0.2, SAMPLING.model_copy(update={"steps": 5}))),
        folder(_stage(0.2).model_copy(update={"seed": SEED + 1})),
        folder(_stage(0.2), finetuned=other),
        folder(_stage(0.2, mixing)),
        folder(_stage(0.2, mixing), pretrained=base),
    ]
    assert len({kept, *changed}) == 6


def test_candidates_of_another_grid_are_not_taken_from_the_pool(world, tmp_path, monkeypatch):
    """The same settings mean other images where the steps are cut from the schedule in another way."""
    ddim = _stage(0.2, SAMPLING.model_copy(update={"solver": "ddim", "steps": 12}))
    folders = set()
    for grid in (levels, lambda schedule, cfg: list(range(0, 1000, 1000 // cfg.steps))[: cfg.steps][::-1]):
        monkeypatch.setattr(synthesis, "levels", grid)
        drawer = drawer_of(ddim, world.finetuned, world.pretrained)
        engine = engine_of(drawer, ddim, INDEX, tmp_path / "pool", 8)
        folders.add(engine.pool.folder.parent.name)
    assert len(folders) == 2


FITTED = _stage(0.0, SAMPLING.model_copy(update={"grid": "fitted"}))


def _grid(path, denoiser, levels=(980, 700, 300, 40)):
    path.write_text(json.dumps({"levels": levels, "cost": 1.0, "cost_even": 2.0, "denoiser_sha256": sha256(denoiser)}))
    return path


def test_a_shard_of_a_fitted_grid_tells_its_levels_and_is_drawn_again_by_them(world, tmp_path, capsys):
    grid = _grid(tmp_path / "grid.json", world.pretrained)
    listed = _stage(0.0, SAMPLING.model_copy(update={"grid": (980, 700, 300, 40)}))
    fitted, same, even = (
        _make(world, stage, tmp_path / f"{name}/00002.tar", grid=grid)[0].images
        for name, stage in (("fitted", FITTED), ("listed", listed), ("even", _stage(0.0)))
    )
    assert (fitted == same).all() and (fitted != even).any()
    call = ["--from", str(tmp_path / "fitted/00002.parquet"), "--row", "3", "--out", str(tmp_path / "again.png")]
    assert main(["sample", str(world.finetuned), *call]) == 0
    assert re.search("to within [01] grey levels", capsys.readouterr().err)


def test_attempts_from_before_there_were_grids_and_intervals_are_drawn_again_as_they_were(world, tmp_path, capsys):
    _make(world, _stage(0.0), tmp_path / "00002.tar")
    table = pq.read_table(file := tmp_path / "00002.parquet")
    told = json.loads(table.schema.metadata[b"PANDAS_ATTRS"])
    assert told["sampling"].pop("grid") == "even" and told["sampling"].pop("guidance_interval") == [0, 1]
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"PANDAS_ATTRS": json.dumps(told)}), file)
    call = ["--from", str(file), "--row", "3", "--out", str(tmp_path / "again.png")]
    assert main(["sample", str(world.finetuned), *call]) == 0
    assert re.search("to within [01] grey levels", capsys.readouterr().err)


def test_a_fitted_grid_is_of_this_denoiser_and_of_as_many_steps(world, tmp_path):
    other, out = _grid(tmp_path / "other.json", world.finetuned), tmp_path / "00002.tar"
    short = _grid(tmp_path / "short.json", world.pretrained, levels=(980, 700, 300))
    (empty := tmp_path / "empty.json").write_text("{}")
    for grid, complaint in (
        (None, r"sampling\.grid: fitted, but no grid is given; .*ddrep fit-grid"),
        (other, r"other\.json: fitted to another denoiser than .*pretrained"),
        (short, r"short\.json: .*expected 4 indices, as many as steps"),
        (empty, r"empty\.json: levels: missing"),
    ):
        with pytest.raises(UserError, match=complaint):
            _make(world, FITTED, out, grid=grid)
    assert not out.exists()


def test_more_steps_than_noise_levels_are_said_before_anything_is_drawn(world, tmp_path):
    many = _stage(0.2, SAMPLING.model_copy(update={"solver": "ddim", "steps": 1001, "grid": "even"}))
    with pytest.raises(UserError, match="steps: 1001, but ddim takes 1 to 1000"):
        _make(world, many, tmp_path / "00002.tar")
    assert not list(tmp_path.iterdir())


def test_another_shard_has_other_images_and_does_not_depend_on_the_first(world, tmp_path):
    stage = _stage(0.0)
    first, _ = _make(world, stage, tmp_path / "00000.tar", index=0)
    second, rows = _make(world, stage, tmp_path / "00001.tar", index=1)
    _make(world, stage, tmp_path / "alone" / "00001.tar", tmp_path / "another pool", index=1)
    assert sha256(tmp_path / "alone" / "00001.tar") == sha256(tmp_path / "00001.tar")
    assert not {image.tobytes() for image in first.images} & {image.tobytes() for image in second.images}
    assert set(first.keys).isdisjoint(second.keys) and rows["seed"].is_unique


@pytest.mark.parametrize("seed", range(5))
def test_matched_is_the_largest_threshold_that_accepts_the_share(seed):
    rng = np.random.default_rng(seed)
    p = rng.random(40).round(1 if seed % 2 else 6)  # with ties and without
    for k in range(1, 41):
        expected = max(t for t in p if (p >= t).mean() >= k / 40)
        assert matched(p, k / 40) == expected
        assert matched(p, k / 40) == np.quantile(p, 1 - k / 40, method="higher") or seed % 2 == 0
    assert matched(p, 0.0) == p.max()


def test_the_control_accepts_as_many_as_the_rejection_classifier(world, tmp_path):
    threshold = world.threshold(0.4)
    stage, out = _stage(threshold, per_class=20), tmp_path / "threshold.json"
    match_threshold(
        stage,
        finetuned=world.finetuned,
        pretrained=world.pretrained,
        judge=world.judge,
        pixel_judge=world.pixel_judge,
        pool=tmp_path / "pool",
        out=out,
        batch=16,
    )
    content = json.loads(out.read_text())
    # of shard 0, so drawn here by hand
    attempts = [(c, a) for c in range(CLASSES) for a in range(20)]
    seeds = [image_seed(SEED, c, 0, a) for c, a in attempts]
    images = sample(Denoiser.load(world.finetuned), seeds, SAMPLING, [c for c, _ in attempts])
    own = np.arange(60), [c for c, _ in attempts]
    ours, pixels = (
        Judge.load(path, world.pretrained, torch.device("cpu")).probabilities(images)[own]
        for path in (world.judge, world.pixel_judge)
    )
    count = int((ours >= threshold).sum())
    assert 0 < count < 60 and content["n"] == 60
    assert content["acceptance"] == content["pixel_acceptance"] == pytest.approx(count / 60)
    assert content["threshold"] == pytest.approx(np.sort(pixels)[::-1][count - 1], abs=1e-4)


def test_the_control_takes_its_own_judge_and_threshold_file(world, tmp_path):
    p = np.sort(world.pixel_p.ravel())
    threshold = float((p[100] + p[101]) / 2)
    file = tmp_path / "threshold.json"
    file.write_text(json.dumps({"threshold": threshold}))
    _, rows = _make(world, _stage(1.0), tmp_path / "00002.tar", judge=world.pixel_judge, threshold_file=file)
    expected = np.array([world.pixel_p[c, a] for c, a in zip(rows["class"], rows["attempt"], strict=True)])
    np.testing.assert_allclose(rows["p"], expected, atol=1e-4)
    assert (rows["accepted"] == (rows["p"] >= threshold)).all() and not rows["accepted"].all()


def test_another_version_takes_none_of_the_candidates_of_an_older_one(world, tmp_path, monkeypatch):
    pools = []
    for version in (STAGES["synthesis"].version, 98, 99):
        monkeypatch.setitem(STAGES, "synthesis", replace(STAGES["synthesis"], version=version))
        stage = _stage(0.2)
        engine = engine_of(drawer_of(stage, world.finetuned, world.pretrained), stage, 0, tmp_path / "pool", 8)
        pools.append(engine.pool.folder)
    assert len(set(pools)) == 3


def test_a_judge_of_other_classes_and_an_unconditional_denoiser_are_refused(world, tmp_path):
    tiny.denoiser(6).save(tmp_path / "five.safetensors")
    with pytest.raises(UserError, match=r"features\.safetensors: knows 3 classes, .*five\.safetensors has 5"):
        _make(world, _stage(0.2), tmp_path / "00002.tar", finetuned=tmp_path / "five.safetensors")
    with pytest.raises(UserError, match=r"pretrained\.safetensors: an unconditional denoiser; .*ddrep finetune"):
        _make(world, _stage(0.2), tmp_path / "00002.tar", finetuned=world.pretrained)
    with pytest.raises(UserError, match="another denoiser"):
        _make(world, _stage(0.2), tmp_path / "00002.tar", pretrained=world.finetuned)
    assert not list(tmp_path.glob("00002*"))


def test_soft_labels_are_what_the_judge_says_of_the_stored_images(world: World, tmp_path: Path) -> None:
    config = Shard(sampling=SAMPLING, synthesis=Synthesis(per_class=QUOTA, threshold=0.0), labels="soft")
    options: dict[str, Any] = {"finetuned": world.finetuned, "pretrained": world.pretrained, "judge": world.judge}
    options |= {"labelled": None, "threshold_file": None, "index": INDEX, "pool": tmp_path / "pool", "batch": 8}
    run(Stage[Shard](seed=SEED, config=config), **options, out=tmp_path / "soft.tar")
    shard = read_shards([tmp_path / "soft.tar"])
    p = Judge.load(world.judge, world.pretrained, torch.device("cpu")).probabilities(shard.images)
    assert shard.soft is not None and np.allclose(shard.soft, p, atol=1e-3)
    rows = pd.read_parquet(tmp_path / "soft.parquet").set_index("key")
    assert rows["accepted"].all() and len(rows) == CLASSES * QUOTA == len(shard)
    np.testing.assert_array_equal(np.stack(rows.loc[shard.keys, "probabilities"].tolist()), shard.soft)
    hard = config.model_copy(update={"labels": "hard"})
    run(Stage[Shard](seed=SEED, config=hard), **options, out=tmp_path / "hard.tar")
    assert read_shards([tmp_path / "hard.tar"]).soft is None
    assert "probabilities" not in pd.read_parquet(tmp_path / "hard.parquet")
    assert "labels" not in hard.model_dump() and config.model_dump()["labels"] == "soft"


def test_an_attempt_is_drawn_again(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Kept or not."""
    out = tmp_path / "00002.tar"
    _, rows = _make(world, _stage(world.threshold(0.4)), out)
    call = [
        "sample",
        str(world.finetuned),
        "--from",
        str(out.with_suffix(".parquet")),
        "--out",
        str(tmp_path / "a.png"),
    ]
    for row in (0, int(rows["accepted"].idxmax()), len(rows) - 1):
        assert main([*call, "--row", str(row)]) == 0
        with Image.open(tmp_path / "a.png") as sheet:
            image = np.asarray(sheet)[::2, ::2, None][2:10, 2:10]
        expected = world.images[rows["class"][row], rows["attempt"][row]]
        assert np.abs(image.astype(int) - expected).max() <= 1
    assert main([*call, "--row", str(len(rows))]) == 2
    tiny.denoiser(4, image_size=16, attention_sizes=()).save(tmp_path / "larger.safetensors")
    call[1] = str(tmp_path / "larger.safetensors")
    assert main([*call, "--row", str(int(rows["accepted"].idxmax()))]) == 2
    assert "images are 8x8x1 uint8, expected 16x16x1" in capsys.readouterr().err
    older = out.with_name("older.parquet")
    pd.DataFrame(rows.to_dict("list")).to_parquet(older)  # without settings
    assert main(["sample", str(world.finetuned), "--from", str(older), "--out", str(tmp_path / "a.png")]) == 2

"""Early refusal: what it may lose, what it saves, and that all else is as without it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from ddrep.config import Shard, Stage, Synthesis
from ddrep.errors import UserError
from ddrep.networks.judges import Judge
from ddrep.sampling import early
from ddrep.sampling.early import Checks, Filling, Outcome, calibrate
from ddrep.sampling.engine import Tally
from ddrep.sampling.sampler import evaluations
from tests.sampling import test_synthesis as plain

world = plain.world
QUOTA, CLASSES, SAMPLING = plain.QUOTA, plain.CLASSES, plain.SAMPLING


def candidates(rng: np.random.Generator, n: int, steps: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """p after each of the steps and in the end: a walk that settles."""
    walk = np.cumsum(rng.normal(size=(n, steps)) / np.arange(1, steps + 1), axis=1) + rng.normal(0.5, 1, (n, 1))
    p = 1 / (1 + np.exp(-3 * walk))
    return p, p[:, -1]


def test_no_more_is_lost_than_allowed_in_the_mean_over_pilots():
    rng = np.random.default_rng(0)
    fresh, final = candidates(rng, 20_000)
    lost, saved = [], []
    for _ in range(100):
        checks = calibrate(*candidates(rng, 600), threshold=0.5, share=0.02)
        least = fresh[:, [step - 1 for step in checks.steps]].min(axis=1)
        lost.append((least[final >= 0.5] < checks.least).mean())
        saved.append(checks.saved)
    assert 0.01 < np.mean(lost) < 0.02 + 3 * np.std(lost) / 10 and np.mean(saved) > 0.1


def test_the_saving_is_that_of_the_steps_not_taken():
    half = [[0.6, 0.9, 0.9, 0.9]] * 100 + [[0.6, 0.1, 0.1, 0.1]] * 25 + [[0.6, 0.6, 0.1, 0.1]] * 25
    sharp = np.array(half * 3)
    checks = calibrate(sharp, sharp[:, -1], threshold=0.5, share=0.02)
    assert checks == Checks((2, 3), 0.5, 450, 300, (0.5 + 0.25) / 2), "least is the threshold at most"


@pytest.mark.parametrize("kept", [0, 50, 300])
def test_where_too_little_is_known_nothing_is_refused_early(kept):
    final = np.random.default_rng(0).permutation(np.repeat([0.9, 0.1], [kept, 300 - kept]))
    checks = calibrate(np.repeat(final[:, None], 4, axis=1), final, threshold=0.5, share=0.01)
    assert checks == Checks(pilot=300, kept=kept)


@pytest.mark.parametrize("rate", [0.1, 0.7, 1.0])
def test_as_many_are_on_their_way_as_are_wanted_if_all_are_accepted(rate):
    rng = np.random.default_rng(1)
    filling = Filling([Tally(0, 0.5), Tally(1, 0.5)], 20, 1000)
    on_their_way: list[tuple[int, int]] = []
    while (attempt := filling.next()) is not None or on_their_way:
        if attempt is not None:
            on_their_way.append(attempt)
        if attempt is None or len(on_their_way) > 13:
            filling.ended(on_their_way.pop(int(rng.integers(len(on_their_way)))), Outcome(float(rng.random() < rate)))
    filling.tell()
    assert [t.accepted for t in filling.tallies] == [20, 20]


def make(world: plain.World, out: Path, share: float, batch: int = 64, per_class: int = QUOTA, most: int = 10):
    section = Synthesis(per_class=per_class, threshold=world.threshold(0.4), max_attempts=most, early_refusal=share)
    stage = Stage[Shard](seed=plain.SEED, config=Shard(sampling=SAMPLING, synthesis=section))
    return plain._make(world, stage, out, batch=batch)


@pytest.fixture
def small(monkeypatch):
    """A pilot of few candidates, and an audit of many."""
    monkeypatch.setattr(early, "KEPT", 40)
    monkeypatch.setattr(early, "AT_ONCE", 32)
    monkeypatch.setattr(early, "AUDITED", 4)


def test_a_shard_is_as_without_but_for_what_is_refused_early(world, tmp_path, small):
    shard, rows = make(world, tmp_path / "00002.tar", 0.1)
    threshold = world.threshold(0.4)
    (file,) = tmp_path.glob("pool/*/checks.json")
    assert json.loads(file.read_text())["kept"] >= 40 and len(shard) == CLASSES * QUOTA
    stopped = (rows["refused_at"] > 0) & ~rows["audited"]
    assert stopped.any() and (rows["p"][stopped] < threshold).all()
    whole = evaluations(SAMPLING)
    assert (rows["evaluations"] + rows["saved"] == whole).all() and (rows["saved"] > 0).equals(stopped)
    assert (rows["evaluations"][stopped] == 2 * rows["refused_at"][stopped]).all()
    assert (rows["audited"] == (rows["attempt"] % 4 == 3)).all()
    for row in rows[~stopped].itertuples():
        assert row.p == pytest.approx(world.p[row[2], row.attempt], abs=0.02)
    for (label, attempt), image in plain._by_attempt(shard).items():
        assert np.abs(image.astype(int) - world.images[label, attempt]).max() <= 1


def test_checks_that_are_none_are_one_line(world, tmp_path, small):
    make(world, tmp_path / "00002.tar", 0.1)
    (file,) = tmp_path.glob("pool/*/checks.json")
    for content in ("", "[]", '{"steps": "two"}', "{"):
        file.write_text(content)
        with pytest.raises(UserError, match=r"checks.json: .*expected checks as a pilot leaves them; remove it"):
            make(world, tmp_path / "00002.tar", 0.1)


def test_neither_slots_nor_what_was_drawn_before_change_a_byte(world, tmp_path, small):
    made = [make(world, tmp_path / str(batch) / "00002.tar", 0.1, batch) for batch in (5, 64)]
    again = make(world, tmp_path / "5" / "00002.tar", 0.1, 9)
    first = (tmp_path / "5" / "00002.tar").read_bytes()
    assert first == (tmp_path / "64" / "00002.tar").read_bytes()
    for _, rows in (made[1], again):
        pd.testing.assert_frame_equal(made[0][1], rows)


def test_an_image_of_one_level_is_accepted_at_no_threshold(world, tmp_path, small, monkeypatch):
    """As without early refusal: a denoiser that gives black images fills no shard, whatever the judge says of black."""
    monkeypatch.setattr(early, "MOST", 64)
    monkeypatch.setattr(early, "to_uint8", lambda x, whose: np.zeros((len(x), 8, 8, 1), np.uint8))
    monkeypatch.setattr(world, "threshold", lambda share: 1e-9)
    with pytest.raises(UserError, match=r"classes class 0 \(0/\d+ = 0.0%\), .* accept too few for the 6 images"):
        make(world, tmp_path / "00002.tar", 0.1)


def test_a_judge_that_gives_what_is_not_finite_is_an_error(world):
    loaded = Judge.load(world.judge, world.pretrained)
    loaded.net.get_submodule("7").get_parameter("bias")[0] = torch.inf
    with pytest.raises(UserError, match=r"the rejection classifier on features.*: gives values that are not finite"):
        early.stored_p(loaded, world.images[0], [0] * len(world.images[0]))


def test_a_class_that_accepts_too_few_ends_in_the_budgets_line(world, tmp_path, small):
    with pytest.raises(
        UserError, match=r"synthesis\.max_attempts: classes .* accept too few for the 6 images"
    ) as caught:
        make(world, tmp_path / "00002.tar", 0.1, most=1)
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*.tar"))
    assert "attempts made" not in str(caught.value), "what was stopped has no p of an image"


def test_off_is_left_out_of_what_a_stage_is_told():
    assert "early_refusal" not in Synthesis().model_dump()
    assert Synthesis(early_refusal=0.01).model_dump()["early_refusal"] == 0.01

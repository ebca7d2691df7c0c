"""A fitted time grid: the dynamic programming against brute force, closed forms, and diff-sampler's published code."""

from __future__ import annotations

import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ddrep.config import EvenSampling, Experiment, FitGrid, Sampling, Stage
from ddrep.denoiser.schedule import Schedule
from ddrep.derived import shard_of
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.sampling import time_grid
from ddrep.sampling.sampler import ImageNoise, levels, sample
from ddrep.sampling.slots import Slots
from ddrep.sampling.time_grid import best_path, costs_of, run, sigmas, teacher_of, trajectory, weighted
from tests import tiny

CPU = torch.device("cpu")


def some_cost(nodes: int) -> np.ndarray:
    i, j = np.meshgrid(*[np.arange(nodes)] * 2, indexing="ij")
    return np.where(j > i, abs(j - i) ** 1.5 * (2 + np.sin(3 * i) + np.cos(2 * j)), np.inf)


@pytest.mark.parametrize("weight", [0.8, 1.0, 1.15])
def test_no_grid_costs_less(weight: float) -> None:
    cost = some_cost(9)
    for steps in range(2, 9):
        best = min(weighted(cost, [0, *between], weight) for between in itertools.combinations(range(1, 8), steps - 1))
        found = best_path(cost, steps, weight)
        assert len(found) == steps and weighted(cost, found, weight) == pytest.approx(best)


@pytest.mark.parametrize("weight, lengths", [(1.0, [7, 7, 7]), (2.0, [12, 6, 3]), (0.5, [3, 6, 12])])
def test_of_quadratic_costs_each_step_is_shorter_by_its_weight(weight: float, lengths: list[int]) -> None:
    """weight^k length_k is the same for all k where the sum of weight^k length_k^2 is least."""
    i, j = np.meshgrid(*[np.arange(22)] * 2, indexing="ij")
    cost = np.where(j > i, (j - i) ** 2.0, np.inf)
    assert np.diff([*best_path(cost, 3, weight), 21]).tolist() == lengths


PUBLISHED = {
    0.8: {2: [0, 2], 3: [0, 2, 4], 5: [0, 1, 2, 4, 8], 8: [0, 1, 2, 3, 4, 5, 6, 8]},
    1.0: {2: [0, 2], 3: [0, 2, 8], 5: [0, 1, 2, 4, 8], 8: [0, 1, 2, 3, 4, 5, 6, 8]},
    1.15: {2: [0, 8], 3: [0, 2, 8], 5: [0, 2, 5, 6, 8], 8: [0, 1, 2, 3, 4, 5, 6, 8]},
}
"""By diff-sampler's `dp` (commit 68d5ce4), of the same costs, without the last node."""


@pytest.mark.parametrize("weight", PUBLISHED)
def test_grids_are_those_of_the_published_code(weight: float) -> None:
    assert {steps: best_path(some_cost(12), steps, weight) for steps in PUBLISHED[weight]} == PUBLISHED[weight]


PUBLISHED_COSTS = (
    [0.9440, 1.0035, 1.4784, 0.7935, 2.9313], [-0.5288, -0.3481, -1.1801, 0.8107],
    [0.0392, -0.6531, 1.4775], [-0.8078, 1.2071], [1.9029],
)  # fmt: skip
"""By its `cal_deviation`, as its `get_dp_list` subtracts it."""


def test_costs_are_those_of_the_published_code() -> None:
    sigma = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.0])
    k, n, d = torch.meshgrid(torch.arange(6.0), torch.arange(3.0), torch.arange(4.0), indexing="ij")
    x = sigma[:, None, None] * torch.cos(n * 4 + d) + torch.sin(k * (n + 1) + d)
    eps = torch.cos(n * 4 + d) + 0.3 * torch.sin(2 * k + n - d)
    cost = costs_of(sigma, list(x), list(eps[:5]))
    assert np.isinf(cost[np.tril_indices(6)]).all()
    assert cost[np.triu_indices(6, 1)] == pytest.approx(np.concatenate(PUBLISHED_COSTS), abs=1e-4)


def test_towards_one_image_trajectories_are_straight_and_all_steps_free() -> None:
    """eps of data that are one image is constant along a trajectory: Euler's step is exact, however long."""
    schedule, image = Schedule(), torch.tensor([0.5, -0.25]).reshape(2, 1, 1)
    teacher = teacher_of(12, schedule)

    def eps(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        abar = schedule.abar_at(index, x)
        return (x - abar.sqrt() * image) / (1 - abar).sqrt()

    x, slopes = trajectory(eps, schedule, ImageNoise(range(5), (2, 1, 1), CPU), teacher)
    sigma = sigmas(schedule, teacher)
    assert len(x) == len(sigma) == 61 and len(slopes) == 60
    torch.testing.assert_close(x[-1], image.flatten().expand(5, 2), rtol=0, atol=1e-5)
    for here, after, slope, length in zip(x[:-1], x[1:], slopes, sigma.diff(), strict=True):
        torch.testing.assert_close(after, here + length.float() * slope, rtol=1e-3, atol=1e-3)
    assert costs_of(sigma, x, slopes)[np.triu_indices(61, 1)] == pytest.approx(0, abs=1e-3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for name, classes, seed in (("pretrained", 0, 0), ("other", 0, 1), ("finetuned", 4, 1)):
        tiny.denoiser(classes, seed=seed).save(folder / f"{name}.safetensors")
    return folder


def fit(
    folder: Path, name: str, monkeypatch: pytest.MonkeyPatch, of: str = "pretrained", steps: int = 5
) -> dict[str, Any]:
    for constant, value in (("TEACHER", 12), ("TRAJECTORIES", 8), ("AT_ONCE", 4)):
        monkeypatch.setattr(time_grid, constant, value)
    stage = Stage[FitGrid](seed=3, config=FitGrid(steps=steps))
    run(stage, denoiser=folder / f"{of}.safetensors", out=folder / name)
    return dict(json.loads((folder / name).read_text()))


def test_a_grid_is_fitted_and_fitted_again_the_same(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fit(files, "a.json", monkeypatch)
    assert first == fit(files, "b.json", monkeypatch)
    assert first["denoiser_sha256"] == sha256(files / "pretrained.safetensors")
    assert Sampling(steps=5, grid=tuple(first["levels"])).grid == tuple(first["levels"])
    assert first["levels"][0] == 995 and first["cost"] <= first["cost_even"]
    assert fit(files, "c.json", monkeypatch, of="other")["cost"] != first["cost"], "it is fitted to what is drawn"


def test_what_no_grid_can_be_fitted_to(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="a class-conditional denoiser; expected an unconditional one"):
        fit(files, "d.json", monkeypatch, of="finetuned")
    with pytest.raises(UserError, match=r"sampling\.steps: 13, but the denoiser's schedule allows a fitted grid 12"):
        fit(files, "d.json", monkeypatch, steps=13)
    for model in (FitGrid, partial(Sampling, grid="fitted")):
        with pytest.raises(ValueError, match=r"grid: fitted, but steps are 61; expected 60 at most|equal to 60"):
            model(steps=61)
    assert not (files / "d.json").exists()


@pytest.mark.parametrize("cfg", [Sampling(steps=4), Sampling(solver="ipndm", steps=6, eta=0.0)], ids=str)
def test_the_even_grid_as_a_list_is_the_same_bit_for_bit(cfg: Sampling) -> None:
    model = tiny.denoiser(4)
    listed = cfg.model_copy(update={"grid": tuple(levels(model.schedule, cfg))})
    drawn = [sample(model, [1, 2, 3], each, [0, 1, 2]) for each in (cfg, listed)]
    assert (drawn[0] == drawn[1]).all()
    other = listed.model_copy(update={"grid": (990, *listed.grid[1:])})
    assert (sample(model, [1, 2, 3], other, [0, 1, 2]) != drawn[0]).any()
    assert Slots(model, other).grid.tolist() == [*other.grid, -1]


@pytest.mark.parametrize("grid", [(5, 4, 3), (5, 4, 4, 3), (5, 4, 3, 6), (5, 4, 3, -1)])
def test_what_is_no_grid_is_refused(grid: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"grid: expected 4 indices|greater than or equal to 0"):
        Sampling(steps=4, grid=grid)


def test_a_grid_beyond_the_schedule_or_not_yet_fitted_is_one_line() -> None:
    with pytest.raises(UserError, match=r"sampling\.grid: 1000, but the denoiser's schedule has noise levels 0\.\.999"):
        levels(Schedule(), Sampling(steps=2, grid=(1000, 3)))
    with pytest.raises(UserError, match=r"sampling\.grid: fitted, but no grid is given; .*ddrep fit-grid"):
        levels(Schedule(), Sampling(grid="fitted"))


def test_all_that_is_drawn_is_drawn_on_it() -> None:
    e = Experiment(sampling=Sampling(grid="fitted"))
    sources = ("ours", "improved-ddpm", "unconditional-soft")
    assert {shard_of(source, e).sampling.grid for source in sources} == {"fitted"}
    assert Sampling().model_dump()["grid"] == "log-snr" and Sampling(grid="fitted").model_dump()["grid"] == "fitted"
    assert "grid" not in EvenSampling().model_dump(), "guided images were drawn on it when there was no other"

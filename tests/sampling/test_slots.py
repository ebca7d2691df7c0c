"""Slots: an image is bit for bit its own, and that of the plain loop but for rounding."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
import torch

from ddrep.config import Sampling
from ddrep.data.batches import to_uint8
from ddrep.sampling.pool import Attempt
from ddrep.sampling.rows import MOST, FixedRows, in_rows
from ddrep.sampling.sampler import image_seed, sample
from ddrep.sampling.slots import Slots
from tests import tiny

ATTEMPTS: list[Attempt] = [(i % 3, i // 3) for i in range(40)]
SETTINGS = [
    Sampling(steps=4, eta=1.0, guidance_scale=0.5, guidance_interval=(0, 1)),
    Sampling(solver="ddim", steps=5, eta=0.7, guidance_scale=0.0),
    Sampling(steps=4, eta=0.0, guidance_scale=0.5, unconditional="pretrained", guidance_interval=(0.25, 0.75)),
    Sampling(solver="ipndm", steps=6, eta=0.0, guidance_scale=0.5, guidance_interval=(0.3, 1.0)),
]


def seed(attempt: Attempt) -> int:
    return image_seed(0, attempt[0], 0, attempt[1])


@torch.no_grad()
def drawn(cfg: Sampling, most: int, attempts: list[Attempt], stopped: Collection[Attempt] = ()):
    """x of each attempt by way of so many slots; of `stopped`, which leave after two steps, none."""
    slots = Slots(tiny.denoiser(4), cfg, tiny.denoiser(seed=1) if cfg.unconditional != "row" else None)
    found: dict[Attempt, torch.Tensor] = {}
    waiting = list(attempts)
    while waiting or slots.attempts:
        now, waiting = waiting[: most - len(slots.attempts)], waiting[most - len(slots.attempts) :]
        slots.start(now, [seed(attempt) for attempt in now])
        assert len(slots.attempts) == most or not waiting, "no slot is idle"
        slots.advance()
        done = slots.taken == cfg.steps
        found |= {slots.attempts[i]: slots.images[i].clone() for i in done.nonzero()[:, 0].tolist()}
        early = [a in stopped and taken == 2 for a, taken in zip(slots.attempts, slots.taken.tolist(), strict=True)]
        slots.free(done | torch.tensor(early))
    return found


@pytest.mark.parametrize("cfg", SETTINGS, ids=["dpm", "ddim", "pretrained", "ipndm"])
def test_an_image_is_bit_for_bit_its_own_whatever_else_is_drawn(cfg):
    together = drawn(cfg, 40, ATTEMPTS)
    assert set(together) == set(ATTEMPTS)
    stopped = set(ATTEMPTS[::5])
    others = [drawn(cfg, 7, ATTEMPTS), drawn(cfg, 1, ATTEMPTS[:2]), drawn(cfg, 17, ATTEMPTS[::-1], stopped)]
    assert set(others[2]) == set(ATTEMPTS) - stopped
    for other in others:
        assert all(torch.equal(x, together[attempt]) for attempt, x in other.items())


@pytest.mark.parametrize("cfg", SETTINGS, ids=["dpm", "ddim", "pretrained", "ipndm"])
def test_slots_draw_what_the_plain_loop_draws(cfg):
    model, base = tiny.denoiser(4), tiny.denoiser(seed=1)
    plain = sample(model, [seed(a) for a in ATTEMPTS], cfg, [label for label, _ in ATTEMPTS], base)
    found = drawn(cfg, 7, ATTEMPTS)
    by_slots = to_uint8(torch.stack([found[attempt] for attempt in ATTEMPTS]), "slots")
    assert np.array_equal(plain, by_slots) and plain.std() > 10


def test_a_network_always_sees_as_many_rows():
    seen: list[int] = []

    def network(x, y):
        seen.append(len(x))
        return x * y

    rows, pixels = MOST["cpu"]
    x, y = torch.randn(rows + 3), torch.randn(rows + 3)
    assert torch.equal(in_rows(network, x, y), x * y) and seen == [rows, rows]
    side = int((pixels // 4) ** 0.5)  # of larger images there are fewer
    assert len(in_rows(network, *torch.randn(2, 5, 1, side, side))) == 5 and seen[2:] == [4, 4]


def test_an_image_is_the_same_bits_alone_and_in_bf16_another_as_good():
    model, fp32 = tiny.denoiser(4), Sampling(steps=4)
    seeds, labels = list(range(20)), [i % 3 for i in range(20)]
    images = {}
    for cfg in (fp32, Sampling(steps=4, precision="bf16")):
        images[cfg.precision] = sample(model, seeds, cfg, labels)
        for i in (0, 17):
            assert np.array_equal(sample(model, [i], cfg, [labels[i]])[0], images[cfg.precision][i])
    apart = np.abs(images["fp32"].astype(int) - images["bf16"])
    assert 0 < apart.mean() < 3, "bf16 has 8 significant bits, of which an image's levels are 8"
    assert "precision" not in fp32.model_dump(), "what was drawn before there was a choice stays"


def test_what_is_not_finite_stays_so():
    model = FixedRows(**vars(tiny.denoiser(4)))
    slots = Slots(model, SETTINGS[0])
    slots.start([(0, 0), (1, 0)], [1, 2])
    slots.x[0] = torch.nan
    with torch.no_grad():
        slots.advance()
    assert slots.images[0].isnan().all() and slots.images[1].isfinite().all()

"""Training a generator by its verb: killed and begun again, it comes to the same file, which names no folder."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ddrep.config import Stage
from ddrep.data.idx import write_idx
from ddrep.files import sha256
from ddrep.generators.files import load_generator
from ddrep.training import loop
from ddrep.training.generators import TRAININGS, run
from tests import tiny
from tests.generators import tiny_d2c, tiny_diffae, tiny_nvae

TINY = {"diffae": tiny_diffae, "d2c": tiny_d2c, "nvae": tiny_nvae}


class Killed(Exception):
    pass


def test_every_training_is_tried_here() -> None:
    assert {training.name for training in TRAININGS.values()} == set(TINY)


@pytest.mark.parametrize("made", TINY.values(), ids=TINY)
def test_a_killed_command_goes_on_to_the_same_file(
    made: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed once in each of its trainings; none of their steps is done again."""
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "images.gz", tiny.images().images[..., 0])
    section = made.section(images=tmp_path / "images.gz")
    parts = len(TRAININGS[type(section)].parts)
    stage = Stage[Any](seed=3, config=section)
    real, steps, died = loop._update, list[int](), list[int]()

    def dying(net, optimizer, loss_at, step, clip):
        if len(died) < parts and len(steps) == 2 * (len(died) + 1):
            died.append(step)
            raise Killed
        steps.append(step)
        return real(net, optimizer, loss_at, step, clip)

    clock = iter(range(0, 10**6, 100))  # so that every step is past the time for a checkpoint
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    run(stage, out=tmp_path / "whole.safetensors", grid=tmp_path / "grid.png")
    monkeypatch.setattr(loop, "_update", dying)
    for _ in range(parts):
        with pytest.raises(Killed):
            run(stage, out=tmp_path / "broken.safetensors", grid=None)
    run(stage, out=tmp_path / "broken.safetensors", grid=None)
    assert steps == [0, 1, 2] * parts and died == [2, 1][:parts]
    assert sha256(tmp_path / "broken.safetensors") == sha256(tmp_path / "whole.safetensors")
    provenance = load_generator(tmp_path / "whole.safetensors").provenance
    assert provenance["images_sha256"] == sha256(tmp_path / "images.gz")
    assert str(tmp_path) not in str(provenance), "a file that travels names no folder of this machine"
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (2 * (8 * 10 + 2), 2 * (8 * 10 + 2)) and np.asarray(grid).std() > 0
    assert not list(tmp_path.glob(".ddrep/state/*.pt"))

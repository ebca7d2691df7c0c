from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ddrep.config import Network, Pretrain, Stage
from ddrep.data.batches import to_unit
from ddrep.data.idx import write_idx
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.loss import denoising_loss
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.training import loop
from ddrep.training.pretrain import pretrain, run
from tests import tiny

NETWORK = Network(model_channels=32, channel_mult=(1, 1), num_res_blocks=1, attention_sizes=(4,))


def _section(**settings) -> Pretrain:
    base = {
        "network": NETWORK,
        "steps": 40,
        "batch": 16,
        "lr": 3e-3,
        "warmup": 5,
        "ema_decay": 0.9,
        "precision": "fp32",
    }
    return Pretrain(**(base | settings))


def _loss(denoiser: Denoiser, images: np.ndarray) -> float:
    g = torch.Generator().manual_seed(0)
    x0 = to_unit(images)
    index, noise = torch.randint(1000, (len(x0),), generator=g), torch.randn(x0.shape, generator=g)
    with torch.no_grad():
        return denoising_loss(denoiser, x0, index, noise).item()


def test_it_learns_to_denoise_images_it_has_not_seen():
    trained = pretrain(tiny.images().images, _section(), seed=0, device=torch.device("cpu"))
    unseen = tiny.images("validation", per_class=60).images
    # a network that says eps = 0 has a loss of 1, and so has the untrained one
    assert _loss(trained, unseen) < 0.6
    assert not trained.net.training and not trained.net.cfg.num_classes and trained.schedule.num_steps == 1000


def test_the_seed_decides_the_weights():
    images, cfg = tiny.images().images[..., 0], _section(steps=2)
    one, again, other = (pretrain(images, cfg, seed=s, device=torch.device("cpu")) for s in (1, 1, 2))
    for name, value in one.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name])
    last, others = (made.net.out[-1].get_parameter("weight") for made in (one, other))
    assert not torch.equal(last, others)


class Killed(Exception):
    pass


def test_a_killed_command_goes_on_to_the_same_file(tmp_path, monkeypatch):
    write_idx(tmp_path / "images.gz", tiny.images().images[..., 0])
    stage = Stage[Pretrain](seed=3, config=_section(images=tmp_path / "images.gz", steps=8))
    real = loop._update
    steps: list[int] = []
    died: list[int] = []

    def dying(net, optimizer, loss_at, step, clip):
        if step == 5 and not died:
            died.append(step)
            raise Killed
        steps.append(step)
        return real(net, optimizer, loss_at, step, clip)

    clock = iter(range(0, 10**6, 100))  # so that every step is past the time for a checkpoint
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    monkeypatch.chdir(tmp_path)
    run(stage, out=tmp_path / "whole.safetensors", grid=None)
    monkeypatch.setattr(loop, "_update", dying)
    with pytest.raises(Killed):
        run(stage, out=tmp_path / "broken.safetensors", grid=None)
    assert not (tmp_path / "broken.safetensors").exists()
    run(stage, out=tmp_path / "broken.safetensors", grid=None)
    assert steps == list(range(8)), "five steps before the kill and three after"
    assert sha256(tmp_path / "broken.safetensors") == sha256(tmp_path / "whole.safetensors")


def test_the_command_writes_a_denoiser_with_its_provenance_and_a_grid(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_idx(tmp_path / "images.gz", tiny.images().images[..., 0])
    stage = Stage[Pretrain](seed=3, config=_section(images=tmp_path / "images.gz", steps=2, schedule="linear"))
    run(stage, out=tmp_path / "d.safetensors", grid=tmp_path / "grid.png")
    made = Denoiser.load(tmp_path / "d.safetensors")
    assert made.schedule.kind == "linear" and made.image_shape == (1, 8, 8)
    assert made.provenance["images_sha256"] == sha256(tmp_path / "images.gz")
    assert made.provenance["section"]["steps"] == 2 and made.provenance["seed"] == 3
    assert str(tmp_path) not in str(made.provenance), "a file that travels names no folder of this machine"
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.size == (2 * (8 * 10 + 2), 2 * (8 * 10 + 2))


def unlabelled(root: Path, pixels: np.ndarray) -> dict[str, Any]:
    """A folder of images, two deep, and the section that names it."""
    for i, image in enumerate(pixels):
        path = root / f"part{i % 2}" / f"{i:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(path)
    channels = 3 if pixels.ndim == 4 and pixels.shape[-1] == 3 else 1
    table = {"path": str(root), "size": pixels.shape[1], "channels": channels}
    return {"kind": "unlabelled", "unlabelled": table}


def test_a_folder_gives_what_the_same_images_of_an_idx_file_give(tmp_path, monkeypatch):
    """The batches are the same, in the order of the files' names."""
    monkeypatch.chdir(tmp_path)
    images = tiny.images().images[..., 0]
    data = unlabelled(tmp_path / "images", images)
    write_idx(tmp_path / "images.gz", np.concatenate([images[::2], images[1::2]]))
    for name, source in (("folder", {"data": data}), ("idx", {"images": tmp_path / "images.gz"})):
        run(
            Stage[Pretrain](seed=3, config=_section(steps=2, **source)), out=tmp_path / f"{name}.safetensors", grid=None
        )
    folder, idx = (Denoiser.load(tmp_path / f"{name}.safetensors") for name in ("folder", "idx"))
    for name, value in folder.net.state_dict().items():
        assert torch.equal(value, idx.net.state_dict()[name])
    assert folder.provenance["section"]["data"] == {"kind": "unlabelled", "images": len(images)}
    assert str(tmp_path) not in str(folder.provenance)


@pytest.mark.parametrize("size, channels", [(28, 1), (64, 3), (256, 3)])
def test_sizes_and_channels(tmp_path, monkeypatch, size, channels):
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, channels), np.uint8)
    network = Network(model_channels=32, channel_mult=(1,) * 4, num_res_blocks=1, attention_sizes=())
    cfg = _section(data=unlabelled(tmp_path / "images", pixels), network=network, steps=1, batch=1)
    run(Stage[Pretrain](config=cfg), out=tmp_path / "d.safetensors", grid=None)
    assert Denoiser.load(tmp_path / "d.safetensors").image_shape == (channels, size, size)


def test_held_out_images_are_not_trained_on(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    known = tiny.images(per_class=4)
    data = unlabelled(tmp_path / "images", np.concatenate([known.images[..., 0], known.images[:1, ::-1, :, 0]]))
    write_shard(tmp_path / "test.tar", known.take(range(1, len(known))))
    stage = Stage[Pretrain](config=_section(data=data, steps=1))
    run(stage, apart_from=[tmp_path / "test.tar"], out=tmp_path / "d.safetensors", grid=None)
    assert "11 images left out" in caplog.text
    assert Denoiser.load(tmp_path / "d.safetensors").provenance["section"]["data"]["images"] == 2


def test_any_reader_gives_its_training_images(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cfg = _section(data={"kind": "embedded", "embedded": {"per_class": 1}}, steps=1, network=Network())
    run(Stage[Pretrain](config=cfg), out=tmp_path / "d.safetensors", grid=None)
    assert Denoiser.load(tmp_path / "d.safetensors").provenance["section"]["data"] == {"kind": "embedded", "images": 10}


def test_images_come_from_one_place():
    with pytest.raises(ValueError, match="images, data: expected one of them"):
        _section(images=Path("a.gz"), data={"kind": "embedded"})


def test_missing_images_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"denoiser\.pretrain\.images: missing"):
        run(Stage[Pretrain](config=_section()), out=tmp_path / "d.safetensors", grid=None)
    with pytest.raises(UserError, match=r"none\.gz: no such file"):
        run(Stage[Pretrain](config=_section(images=tmp_path / "none.gz")), out=tmp_path / "d.safetensors", grid=None)
    assert list(tmp_path.iterdir()) == []

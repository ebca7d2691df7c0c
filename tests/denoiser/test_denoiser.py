import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ddrep import saved
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.schedule import Schedule
from ddrep.errors import UserError
from tests import tiny


@pytest.mark.parametrize(
    "made",
    [
        tiny.denoiser(),
        tiny.denoiser(4, schedule=Schedule("linear", 4000, False)),
        tiny.denoiser(
            3, in_channels=3, out_channels=6, num_head_channels=16, resblock_updown=True, new_attention_order=True
        ),
    ],
    ids=["unconditional", "linear", "learned variance"],
)
def test_a_file_brings_back_all_of_it(made, tmp_path):
    made.provenance = {"from": {"lr": 1e-3, "classes": ["Jäckchen", "\u2603"]}, "seen": 3}
    if made.classes:
        made.classes = ("Jäckchen", *made.classes[1:])
    made.save(tmp_path / "d.safetensors")
    again = Denoiser.load(tmp_path / "d.safetensors")
    assert again.net.cfg == made.net.cfg and again.schedule == made.schedule
    assert again.provenance == made.provenance and again.classes == made.classes
    c = made.image_shape[0]
    x, index = torch.randn(2, c, 8, 8), torch.tensor([3, 700])
    y = torch.tensor([0, made.null_row]) if made.classes else None
    for ours, theirs in zip(made.output(x, index, y), again.output(x, index, y), strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or theirs is None or torch.equal(ours, theirs)
    assert not again.net.training and not any(p.requires_grad for p in again.net.parameters())
    assert [p.name for p in tmp_path.iterdir()] == ["d.safetensors"]


def test_the_output_is_the_networks_at_embedded_times_split_in_eps_and_variance():
    made = tiny.denoiser(in_channels=3, out_channels=6, schedule=Schedule(num_steps=4000))
    x, index = torch.randn(2, 3, 8, 8), torch.tensor([1200, 4])
    whole = made.net(x, torch.tensor([300.0, 1.0]))
    eps, variance = made.output(x, index)
    assert made.learns_variance and variance is not None
    torch.testing.assert_close(torch.cat([eps, variance], dim=1), whole)
    assert torch.equal(made.eps(x, index), eps) and not tiny.denoiser().learns_variance


def test_the_null_row_is_the_tables_last():
    made = tiny.denoiser(4)
    assert made.null_row == 3 == len(made.classes) and made.net.label_emb.weight.shape[0] == 4


def _broken(tmp_path, kind: str):
    path = tmp_path / "d.safetensors"
    if kind in ("truncated", "no header"):
        tiny.denoiser().save(path)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if kind == "truncated" else content[:5])
    elif kind == "foreign":
        save_file({"weight": torch.zeros(2)}, path)
    elif kind == "another of ours":
        save_file({"weight": torch.zeros(2)}, path, metadata={"format": "ddrep.judge/1"})
    elif kind == "pickle":
        torch.save(tiny.denoiser().net.state_dict(), path)
    elif kind == "folder":
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file; expected a denoiser"),
        ("truncated", "not a readable safetensors file"),
        ("no header", "not a readable safetensors file"),
        ("pickle", "not a readable safetensors file"),
        ("folder", "is a folder; expected a denoiser"),
        ("foreign", "of another format (unnamed)"),
        ("another of ours", "of another format (ddrep.judge/1)"),
    ],
)
def test_another_file_is_refused_in_one_line_that_names_it(kind, says, tmp_path):
    path = _broken(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        Denoiser.load(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {says}") and "\n" not in message


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "d.safetensors"
    tiny.denoiser(seed=1).save(path)
    before = path.read_bytes()

    def disk_full(weights, draft, metadata):
        save_file(dict(list(weights.items())[:3]), draft, metadata)
        raise OSError("no space left on device")

    monkeypatch.setattr(saved, "save_tensors", disk_full)
    with pytest.raises(OSError, match="no space"):
        tiny.denoiser(seed=2).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_file_holds_the_plain_state_dict(tmp_path):
    made = tiny.denoiser(4)
    made.save(tmp_path / "d.safetensors")
    stored = load_file(tmp_path / "d.safetensors")
    assert stored.keys() == made.net.state_dict().keys()
    for name, value in made.net.state_dict().items():
        np.testing.assert_array_equal(stored[name], value)

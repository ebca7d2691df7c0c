import dataclasses
import json

import pandas as pd
import pytest
import torch
from PIL import Image

from ddrep.config import FineTune, Stage
from ddrep.data.batches import to_unit
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.files import sha256
from ddrep.training import finetune as module
from ddrep.training import loop
from ddrep.training.finetune import finetune, label_margin, run, with_labels
from tests import tiny


def _section(**settings) -> FineTune:
    base = {"steps": 6, "batch": 8, "lr": 1e-3, "warmup": 2, "ema_decay": 0.5, "precision": "fp32"}
    return FineTune(**(base | settings))


def test_labels_add_a_table_and_nothing_else():
    base = tiny.denoiser(schedule=tiny.Schedule("linear", 4000))
    torch.manual_seed(0)
    model = with_labels(base, tuple(map(str, range(200))), std=0.7)
    ours, theirs = model.net.state_dict(), base.net.state_dict()
    table = ours.pop("label_emb.weight")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
    assert table.shape == (201, 128) and not table[-1].any()
    assert table[:-1].std().item() == pytest.approx(0.7, rel=0.02) and abs(table[:-1].mean().item()) < 0.02
    assert model.schedule == base.schedule and model.classes[199] == "199" and model.null_row == 200
    assert dataclasses.replace(model.net.cfg, num_classes=0) == base.net.cfg
    assert model.net.training and all(p.requires_grad for p in model.net.parameters())
    assert not any(p.requires_grad for p in base.net.parameters()), "the unconditional one stays as it was"


def test_the_null_row_starts_as_the_pretrained_network():
    base = tiny.denoiser()
    model = with_labels(base, tiny.CLASSES, std=1.0)
    x, index = torch.randn(4, 1, 8, 8), torch.tensor([0, 100, 500, 999])
    with torch.no_grad():
        assert torch.equal(model.eps(x, index, torch.full((4,), 3)), base.eps(x, index))
        assert not torch.allclose(model.eps(x, index, torch.zeros(4, dtype=torch.long)), base.eps(x, index), atol=1e-3)


def test_a_conditional_denoiser_is_refused():
    with pytest.raises(UserError, match="class-conditional already"):
        with_labels(tiny.denoiser(4), tiny.CLASSES, std=1.0)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
def test_dropped_labels_train_the_null_row_and_the_others_their_own(dropout):
    data, base, cfg = tiny.images(), tiny.denoiser(), _section(label_dropout=dropout, clip=0.0)
    torch.manual_seed(5)
    start = with_labels(base, data.classes, cfg.embedding_std).net.label_emb.weight.detach().clone()
    table = finetune(base, data, cfg, seed=5).net.label_emb.weight
    moved = (table != start).any(dim=1).tolist()
    assert moved == ([False] * 3 + [True] if dropout else [True] * 3 + [False])


def test_a_few_steps_train_the_whole_network_for_the_images_and_their_labels():
    data, base = tiny.images(), tiny.denoiser()
    model = finetune(base, data, _section(steps=60, batch=16, lr=3e-3, embedding_std=1.0, ema_decay=0.9), seed=0)
    unchanged = [k for k, v in base.net.state_dict().items() if torch.equal(v, model.net.state_dict()[k])]
    assert unchanged == [] and not model.net.training and model.classes == data.classes
    unseen = tiny.images("validation", per_class=60)
    x0, y = to_unit(unseen.images), torch.as_tensor(unseen.labels)
    untrained = label_margin(with_labels(base, data.classes, 1.0), x0, y)
    assert label_margin(model, x0, y) > max(0.6, untrained + 0.05)


def test_labels_that_are_not_heard_have_a_margin_of_a_half():
    model = tiny.denoiser(4)
    unseen = tiny.images("validation")
    x0, y = to_unit(unseen.images), torch.as_tensor(unseen.labels)
    with torch.no_grad():
        model.net.label_emb.weight[:] = model.net.label_emb.weight[0]
    assert label_margin(model, x0, y) == 0.5


def test_the_margin_is_the_share_of_images_that_their_own_label_helps():
    # against a loop over single images; the other label is any but the own and the null row
    model, unseen = tiny.denoiser(3), tiny.images("validation", classes=2, per_class=6)
    x0, y = to_unit(unseen.images), torch.as_tensor(unseen.labels)
    torch.manual_seed(1)
    margin = label_margin(model, x0, y, timesteps=(500,))
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(1))), "draws from elsewhere"
    g = torch.Generator().manual_seed(0)
    torch.randint(1, 2, y.shape, generator=g)
    noise, abar = torch.randn(x0.shape, generator=g), model.schedule.abar[500].float()
    wins = 0
    for i in range(len(y)):
        x, t = abar.sqrt() * x0[i : i + 1] + (1 - abar).sqrt() * noise[i : i + 1], torch.tensor([500.0])
        errors = [(model.net(x, t, label) - noise[i]).square().mean() for label in (y[i : i + 1], 1 - y[i : i + 1])]
        wins += bool(errors[0] < errors[1])
    assert margin == wins / len(y) and 0 < wins < len(y)
    assert margin == label_margin(model, x0, y, timesteps=(500,))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Arguments of `run`, apart from the stage."""
    monkeypatch.chdir(tmp_path)
    tiny.denoiser(dropout=0.3).save(tmp_path / "base.safetensors")
    write_shard(tmp_path / "train.tar", tiny.images())
    write_shard(tmp_path / "validation.tar", tiny.images("validation", per_class=5))
    monkeypatch.setattr(module, "MARGIN_EVERY", 2)
    clock = iter(range(0, 10**7, 100))  # every step is past the time for a checkpoint
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(clock))
    inputs = {"denoiser": "base.safetensors", "train": "train.tar", "validation": "validation.tar"}
    outputs = {"out": ".safetensors", "grid": ".png", "history": ".parquet"}
    return lambda name: {
        option: tmp_path / file for option, file in (inputs | {o: name + end for o, end in outputs.items()}).items()
    }


class Killed(Exception):
    pass


@pytest.mark.parametrize("ema_decay", [0.5, 0.0])
def test_a_killed_command_goes_on_to_the_same_files(files, ema_decay, monkeypatch):
    stage = Stage[FineTune](seed=4, config=_section(ema_decay=ema_decay))
    made = lambda name: [files(name)[option] for option in ("out", "grid", "history")]  # noqa: E731
    run(stage, **files("whole"))
    real = loop._update
    died: list[int] = []

    def dying(net, optimizer, loss_at, step, clip):
        if step == 5 and not died:
            died.append(step)
            raise Killed
        return real(net, optimizer, loss_at, step, clip)

    monkeypatch.setattr(loop, "_update", dying)
    with pytest.raises(Killed):
        run(stage, **files("broken"))
    assert not any(path.exists() for path in made("broken"))
    run(stage, **files("broken"))
    whole, broken = made("whole"), made("broken")
    assert [sha256(p) for p in broken[:2]] == [sha256(p) for p in whole[:2]]
    history = pd.read_parquet(broken[2])
    assert history.columns.tolist() == ["step", "loss", "label_margin"]
    assert history["step"].tolist() == [2, 4, 6] and history.equals(pd.read_parquet(whole[2]))
    assert list(whole[0].parent.glob(".ddrep/state/*")) == []


def test_measuring_the_margin_does_not_change_the_result(files, monkeypatch):
    stage = Stage[FineTune](seed=4, config=_section(ema_decay=0.0))  # so that the network measured is the one trained
    run(stage, **files("often"))
    monkeypatch.setattr(module, "MARGIN_EVERY", 1000)
    run(stage, **files("seldom"))
    assert sha256(files("often")["out"]) == sha256(files("seldom")["out"])


def test_the_margin_is_measured_on_all_classes_of_sorted_images(files, monkeypatch):
    paths = files("out")
    seen: list[tuple[int, torch.Tensor]] = []
    write_shard(paths["validation"], tiny.images("validation", per_class=100))

    def margin(model, x0, y):
        seen.append((len(x0), y))
        return 0.5

    monkeypatch.setattr(module, "label_margin", margin)
    run(Stage[FineTune](config=_section(steps=2)), **paths)
    assert seen and all(n == 256 and sorted(y.bincount().tolist()) == [85, 85, 86] for n, y in seen)


def test_the_history_has_the_mean_loss_since_the_row_before(files):
    stage = Stage[FineTune](seed=4, config=_section(steps=5))
    run(stage, **files("out"))
    losses = torch.empty(5, dtype=torch.float64)
    finetune(tiny.denoiser(dropout=0.3), tiny.images(), stage.config, seed=4, losses=losses)
    history = pd.read_parquet(files("out")["history"])
    assert history["step"].tolist() == [2, 4, 5]
    assert history["loss"].tolist() == [losses[:2].mean(), losses[2:4].mean(), losses[4]]
    assert history["label_margin"].between(0, 1).all()


def test_grids_beside_the_log_do_not_change_the_result(files, tmp_path, monkeypatch):
    stage = Stage[FineTune](seed=4, config=_section(steps=4, ema_decay=0.0))  # so that it samples from what is trained
    monkeypatch.setattr(module, "GRID_EVERY", 2)
    run(stage, **files("plain"))
    run(stage, **files("watched"), previews=tmp_path / "logs" / "subset0")
    assert sha256(files("plain")["out"]) == sha256(files("watched")["out"])
    grids = sorted((tmp_path / "logs").iterdir())
    assert [path.name for path in grids] == ["subset0-000002.png", "subset0-000004.png"]
    assert sha256(grids[0]) != sha256(grids[1]) == sha256(files("watched")["grid"]), "the last is of the result"


def test_the_command_says_where_the_denoiser_came_from_and_draws_a_row_a_class(files):
    stage = Stage[FineTune](seed=4, config=_section(steps=2))
    paths = files("out")
    run(stage, **paths)
    made = Denoiser.load(paths["out"])
    assert made.classes == tiny.images().classes and made.null_row == 3
    assert made.provenance["denoiser_sha256"] == sha256(paths["denoiser"]) and made.provenance["from"] == {
        "made": "at random"
    }
    assert made.provenance["train_sha256"] == sha256(paths["train"])
    assert made.provenance["stage"] == json.loads(stage.model_dump_json())
    with Image.open(paths["grid"]) as grid:
        assert grid.size == (2 * (10 * 10 + 2), 2 * (3 * 10 + 2))


def test_images_of_another_size_are_refused_before_training(files, tmp_path):
    tiny.denoiser(image_size=16).save(tmp_path / "base.safetensors")
    with pytest.raises(
        UserError, match=r"train\.tar: images are \(8, 8, 1\); .*base\.safetensors expects \(16, 16, 1\)"
    ):
        run(Stage[FineTune](config=_section()), **files("out"))

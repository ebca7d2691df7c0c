import json

import numpy as np
import pytest
import torch
from sklearn import metrics

from ddrep.config import Features, Head, PixelHead, Stage
from ddrep.data.batches import to_unit
from ddrep.data.shards import read_shards, write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.features import bottleneck_features
from ddrep.errors import UserError
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import JudgeMeta
from ddrep.training import judges
from ddrep.training.judges import assess, extract, hold_out, run_features, run_pixels, train_head
from tests import tiny

CPU = torch.device("cpu")
SIZES = {"channels": 6, "num_classes": 3, "hidden": 16, "dropout": 0.2}
META = JudgeMeta(kind="features", features=Features(), denoiser_sha256="", **SIZES)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.01])
def test_the_same_share_of_every_class_is_held_out(share):
    labels = torch.tensor([0] * 30 + [1] * 10 + [2] * 3)[torch.randperm(43, generator=torch.Generator().manual_seed(0))]
    kept, held = hold_out(labels, share, seed=1)
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(43))
    assert np.bincount(labels[held]).tolist() == [max(1, round(share * n)) for n in (30, 10, 3)]
    assert torch.equal(held, hold_out(labels, share, seed=1)[1])
    assert not torch.equal(held, hold_out(labels, share, seed=2)[1])


def _separable(n: int, seed: int, spread: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Features (n, 6, 4, 4) whose first three channels are raised by the class, and the classes."""
    g = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    raised = torch.eye(6)[labels][:, :, None, None]
    return raised + spread * torch.randn(n, 6, 4, 4, generator=g), labels


def test_separable_classes_are_told_apart():
    x, y = _separable(90, seed=0)
    net, held = train_head(META, [x], y, Head(epochs=8, batch=32, lr=3e-3), seed=0, device=CPU)
    assert (net(x[held]).argmax(1) == y[held]).double().mean() > 0.95
    new, labels = _separable(90, seed=1)
    assert (net(new).argmax(1) == labels).double().mean() > 0.95 and not net.training


def test_the_best_epoch_on_the_held_out_images_is_returned(monkeypatch):
    x, y = _separable(60, seed=0, spread=3.0)
    y = torch.where(torch.rand(60, generator=torch.Generator().manual_seed(2)) < 0.4, (y + 1) % 3, y)  # to overfit
    losses: list[float] = []
    real = judges.train

    def spy(net, optimizer, loss_at, cfg, on_step):
        def follow(step, ema):
            on_step(step, ema)
            if step % (cfg.steps // 12) == 0:
                net.eval()
                with torch.no_grad():
                    p = net(x[held]).double().softmax(1).numpy()
                losses.append(metrics.log_loss(y[held], p, labels=[0, 1, 2]))
                net.train()

        return real(net, optimizer, loss_at, cfg, on_step=follow)

    held = hold_out(y, 0.2, 0)[1]
    monkeypatch.setattr(judges, "train", spy)
    cfg = Head(epochs=12, batch=16, lr=1e-2, dropout=0.0)
    net, held_out = train_head(META.model_copy(update={"dropout": 0.0}), [x], y, cfg, seed=0, device=CPU)
    assert torch.equal(held, held_out) and len(losses) == 12
    p = net(x[held]).double().softmax(1).detach().numpy()
    assert metrics.log_loss(y[held], p, labels=[0, 1, 2]) == pytest.approx(min(losses), rel=1e-5)
    assert losses[-1] > 1.05 * min(losses), "the last epoch is not the best, or this test shows nothing"


def test_held_out_images_are_never_trained_on(monkeypatch):
    x, y = _separable(60, seed=0)
    held = hold_out(y, 0.2, 0)[1]
    spoilt = x.clone()
    spoilt[held] = torch.nan

    class NoBest:  # which reads the held-out images
        def __init__(self, net, *_):
            self.weights = net.state_dict()

        def __call__(self, *_):
            pass

    monkeypatch.setattr(judges, "_Best", NoBest)
    net, _ = train_head(META, [spoilt, spoilt.flip(-1)], y, Head(epochs=2, batch=16), seed=0, device=CPU)
    assert all(torch.isfinite(v).all() for v in net.state_dict().values())


def test_the_report_is_scikit_learns(monkeypatch):
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2 * 3, 4)).requires_grad_(False)
    x, y = 3 * torch.randn(200, 2, 3, 1), torch.randint(4, (200,))
    monkeypatch.setattr(judges, "JUDGED_AT_ONCE", 150)
    report = assess(net, x, torch.arange(200), y, classes=4)
    p = net(x).double().softmax(1).numpy()
    guess, top = p.argmax(1), p.max(1)
    assert report["n"] == 200 and report["top1"] == pytest.approx(100 * metrics.accuracy_score(y, guess))
    assert report["cross_entropy"] == pytest.approx(metrics.log_loss(y, p, labels=range(4)), rel=1e-6)
    np.testing.assert_array_equal(report["confusion"], metrics.confusion_matrix(y, guess, labels=range(4)))
    bins, right, gap = np.minimum((top * 10).astype(int), 9), guess == y.numpy(), 0.0
    expected = []
    for b in np.unique(bins):
        here = bins == b
        expected.append((here.sum(), top[here].mean(), right[here].mean()))
        gap += here.mean() * abs(top[here].mean() - right[here].mean())
    assert len(expected) > 4
    assert [tuple(c.values()) for c in report["calibration"]] == [pytest.approx(e) for e in expected]
    assert report["expected_calibration_error"] == pytest.approx(gap) and json.dumps(report)


@pytest.fixture
def files(tmp_path):
    tiny.denoiser().save(tmp_path / "base.safetensors")
    write_shard(tmp_path / "train.tar", tiny.images())
    return tmp_path


def _trained(folder, kind: str, cfg: Features | None = None) -> Judge:
    out, report = folder / f"{kind}.safetensors", folder / f"{kind}.json"
    if kind == "features":
        extract(
            Stage[Features](config=cfg or Features()),
            denoiser=folder / "base.safetensors", images=folder / "train.tar", out=folder / "f.safetensors",
        )  # fmt: skip
        head = Stage[Head](config=Head(hidden=16, epochs=3, batch=16))
        run_features(head, features=folder / "f.safetensors", train=folder / "train.tar", out=out, report=report)
    else:
        run_pixels(
            Stage[PixelHead](config=PixelHead(hidden=16, epochs=3, batch=16)),
            train=folder / "train.tar",
            out=out,
            report=report,
        )
    return Judge.load(out, folder / "base.safetensors", CPU)


def test_a_judge_wants_its_denoiser_where_it_listens_to_one(files):
    images = read_shards([files / "train.tar"]).images
    on_pixels = _trained(files, "pixels")
    again = Judge.load(str(files / "pixels.safetensors"))
    np.testing.assert_array_equal(again.probabilities(images, batch=7), on_pixels.probabilities(images, batch=7))
    _trained(files, "features")
    with pytest.raises(UserError, match=r"features.safetensors: listens to a denoiser; name the one"):
        Judge.load(files / "features.safetensors")
    with pytest.raises(UserError, match=r"^batch: expected 1 image or more at a time, got -1"):
        again.probabilities(images, batch=-1)


@pytest.mark.parametrize(
    "cfg", [Features(), Features(noise="fixed", pool=2, timesteps=(50, 300, 800), flip=True)], ids=["default", "other"]
)
def test_a_judge_of_features_hears_what_it_was_trained_on(files, cfg):
    judge, data = _trained(files, "features", cfg), read_shards([files / "train.tar"])
    base = Denoiser.load(files / "base.safetensors")
    features = bottleneck_features(base, to_unit(data.images), cfg)
    # its own report, made from the features of the file, is that of the pipeline from stored images
    held = hold_out(torch.as_tensor(data.labels), 0.2, 0)[1].numpy()
    p = judge.probabilities(data.images[held])
    report = json.loads((files / "features.json").read_text())
    assert report["n"] == len(held) == 12
    assert report["cross_entropy"] == pytest.approx(metrics.log_loss(data.labels[held], p, labels=range(3)), rel=1e-4)
    with torch.no_grad():
        expected = judge.net(features).double().softmax(1).numpy()
    np.testing.assert_allclose(judge.probabilities(data.images), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["features", "pixels"])
def test_p_of_an_image_does_not_depend_on_its_batch(files, kind):
    judge, images = _trained(files, kind), tiny.images("validation", per_class=3).images
    p = judge.probabilities(images)
    assert p.shape == (9, 3) and p.dtype == np.float64 and np.ptp(p, axis=0).max() > 1e-3
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(judge.probabilities(images, batch=2), p, atol=1e-5)
    np.testing.assert_allclose(judge.probabilities(images[::-1].copy())[::-1], p, atol=1e-5)
    assert judge.probabilities(images[:0]).shape == (0, 3)


def test_a_judge_of_pixels_is_its_network_on_pixels(files):
    judge, data = _trained(files, "pixels"), tiny.images("validation", per_class=3)
    assert judge.denoiser is None
    x = torch.from_numpy(data.images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = judge.net(x).double().softmax(1).numpy()
    np.testing.assert_allclose(judge.probabilities(data.images), expected, atol=1e-6)
    report = json.loads((files / "pixels.json").read_text())
    assert np.sum(report["confusion"]) == report["n"] == 12


def test_mirrored_features_are_those_of_mirrored_images(files):
    from safetensors.torch import load_file

    extract(
        Stage[Features](config=Features(flip=True)),
        denoiser=files / "base.safetensors",
        images=files / "train.tar",
        out=files / "f",
    )
    tensors = load_file(files / "f")
    mirrored = to_unit(tiny.images().images).flip(-1)
    expected = bottleneck_features(tiny.denoiser(), mirrored, Features())
    torch.testing.assert_close(tensors["mirrored"], expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(tensors["mirrored"], tensors["features"].flip(-1), atol=1e-2)


def test_pixels_are_read_mirrored_half_of_the_time(files, monkeypatch):
    seen = []
    real = judges._inputs

    def spy(view, rows):
        x = real(view, rows)
        seen.append((x.clone(), rows))  # into which the mirrored ones are written
        return x

    monkeypatch.setattr(judges, "_inputs", spy)
    cfg = Stage[PixelHead](config=PixelHead(hidden=16, epochs=1, batch=48, flip=True))
    run_pixels(cfg, train=files / "train.tar", out=files / "out.safetensors", report=files / "out.json")
    x = to_unit(read_shards([files / "train.tar"]).images)
    (plain, rows), (mirrored, chosen) = seen[:2]
    torch.testing.assert_close(plain, x[rows], rtol=0, atol=0)
    torch.testing.assert_close(mirrored, x[chosen].flip(-1), rtol=0, atol=0)
    assert len(rows) == 48 and 12 < len(chosen) < 36


def test_saving_and_loading_changes_nothing(files):
    judge = _trained(files, "features")
    judge.save(files / "again.safetensors")
    again = Judge.load(files / "again.safetensors", files / "base.safetensors", CPU)
    assert again.meta == judge.meta and not again.net.training
    images = tiny.images("test", per_class=2).images
    np.testing.assert_array_equal(again.probabilities(images), judge.probabilities(images))


def test_a_judge_of_another_denoiser_is_refused(files):
    _trained(files, "features")
    tiny.denoiser(seed=1).save(files / "other.safetensors")
    with pytest.raises(UserError, match=r"features\.safetensors: trained with another denoiser than .*other"):
        Judge.load(files / "features.safetensors", files / "other.safetensors", CPU)


@pytest.mark.parametrize("kind", ["missing", "denoiser", "garbage"])
def test_a_file_that_is_no_judge_is_named(files, kind):
    path = files / "base.safetensors" if kind == "denoiser" else files / kind
    if kind == "garbage":
        path.write_bytes(b"garbage" * 10)
    with pytest.raises(
        UserError, match=rf"{path.name}: (no such|not a readable|of another) .*ddrep rejection"
    ) as caught:
        Judge.load(path, files / "base.safetensors", CPU)
    assert "\n" not in str(caught.value)


def test_features_of_other_images_or_none_are_refused(files):
    head = Stage[Head](config=Head(epochs=1))
    extract(
        Stage[Features](config=Features()),
        denoiser=files / "base.safetensors",
        images=files / "train.tar",
        out=files / "f",
    )
    write_shard(files / "fewer.tar", tiny.images(per_class=5))
    outputs = files / "out.safetensors", files / "out.json"
    with pytest.raises(UserError, match=r"f: of 60 images, .*fewer\.tar has 15"):
        run_features(head, features=files / "f", train=files / "fewer.tar", out=outputs[0], report=outputs[1])
    write_shard(files / "others.tar", tiny.images("test"))
    with pytest.raises(UserError, match=r"f: of the images of another shard than .*others\.tar; make it of that shard"):
        run_features(head, features=files / "f", train=files / "others.tar", out=outputs[0], report=outputs[1])
    for name in ("none", "base.safetensors", "fewer.tar"):
        with pytest.raises(UserError, match=rf"{name}: not a readable features file .*ddrep features"):
            run_features(head, features=files / name, train=files / "train.tar", out=outputs[0], report=outputs[1])
    assert not any(path.exists() for path in outputs)


def test_one_image_of_each_class_leaves_none_to_train_on() -> None:
    x, labels = torch.zeros(3, 8, 2, 2), torch.arange(3)
    meta = JudgeMeta(kind="pixels", channels=8, num_classes=3, hidden=4, image_shape=(8, 2, 2))
    with pytest.raises(UserError, match=r"holdout: of 3 images none is left to train on"):
        train_head(meta, [x], labels, Head(), seed=0, device=torch.device("cpu"))

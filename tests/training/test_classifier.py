"""The downstream classifiers: networks against their plain form, training against hand-computed numbers."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from sklearn.metrics import accuracy_score
from torch import nn

from ddrep.cli import main
from ddrep.config import Classifier, Data, EmbeddedData, Mix
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages, read_shards, write_shard, write_with_attempts
from ddrep.errors import UserError
from ddrep.networks.classifiers import SmallMapConv, build_classifier, fit_to_size, load_classifier, sees_all
from ddrep.networks.metadata import ClassifierMeta
from ddrep.saved import header, save
from ddrep.training import classifier
from ddrep.training.loop import LoopConfig
from ddrep.training.pretrain import to_unit

CPU = torch.device("cpu")
ARCHITECTURES = ("resnet18", "wide_resnet50_2", "resnext50_32x4d")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def embedded(split: str) -> LabelledImages:
    return labelled(Data(embedded=EmbeddedData(per_class=50)), split, 0, 0)


def some(split: str, classes: tuple[int, ...], per_class: int, stride: int = 1) -> LabelledImages:
    """The first images of some classes, relabelled 0, 1, ..., every `stride`-th pixel, classes taking turns."""
    whole = embedded(split)
    index = np.stack([np.flatnonzero(whole.labels == c)[:per_class] for c in classes], axis=1).reshape(-1)
    labels = np.tile(np.arange(len(classes)), per_class)
    names = tuple(whole.classes[c] for c in classes)
    return LabelledImages(whole.images[index, ::stride, ::stride], labels, [whole.keys[i] for i in index], names)


# Networks


@pytest.mark.parametrize(("stem", "size"), [("stock", 7), ("small", 28)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_papers_architectures(architecture: str, stem: str, size: int) -> None:
    net = build_classifier(architecture, stem, 1, 7).eval()  # type: ignore[arg-type]
    first_stage: list[torch.Size] = []
    net.get_submodule("layer1").register_forward_hook(lambda module, inputs, output: first_stage.append(output.shape))
    x = torch.randn(2, 1, 28, 28)
    with torch.inference_mode():
        plain = net(x)
        fitted = fit_to_size(net, 1, 28, 28)(x)
    assert plain.shape == (2, 7)
    assert first_stage[0][2:] == (size, size)
    torch.testing.assert_close(fitted, plain, rtol=1e-4, atol=1e-5)
    has_small_maps = any(isinstance(module, SmallMapConv) for module in net.modules())
    assert has_small_maps == (stem == "stock")  # small: 28, 14, 7, 4 pixels wide


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "size"),
    [
        (3, 1, 1, (1, 1)),
        (3, 2, 1, (1, 1)),
        (3, 2, 1, (2, 2)),
        (3, 1, 1, (2, 2)),
        (3, 1, 1, (2, 1)),
        (1, 1, 0, (1, 1)),
        (1, 2, 0, (2, 2)),
        (2, 1, 0, (2, 2)),
        (5, 1, 2, (3, 2)),
    ],
)
def test_small_maps(kernel: int, stride: int, padding: int, size: tuple[int, int]) -> None:
    conv = nn.Conv2d(4, 6, kernel, stride, padding, bias=stride == 2).double()
    x = torch.randn(5, 4, *size, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    out_size = (y.shape[2], y.shape[3])
    assert sees_all(conv, size, out_size)
    mine = SmallMapConv(conv, size, out_size)
    torch.testing.assert_close(mine(x), y)
    target = torch.randn_like(y)
    expected_x, expected_weight = torch.autograd.grad((y * target).sum(), [x, conv.weight])
    got_x, got_weight = torch.autograd.grad((mine(x) * target).sum(), [x, mine.weight])
    torch.testing.assert_close(got_x, expected_x)
    rows, columns = zip(*mine.taps, strict=True)
    torch.testing.assert_close(F.conv2d(x, mine.kernel(), mine.bias, stride, padding), y)
    kept = expected_weight[:, :, rows, columns]
    torch.testing.assert_close(got_weight, kept.permute(2, 1, 0))
    assert expected_weight.count_nonzero() == kept.numel()  # the taps left out have no gradient, the others have


def test_other_convolutions_stay() -> None:
    others = [
        nn.Conv2d(2, 2, 3, padding=1),  # of 4x4 pixels: corners do not see each other
        nn.Conv2d(2, 2, 3, stride=2, padding=1),
        nn.Conv2d(2, 2, 3, padding=2, dilation=2),
        nn.Conv2d(2, 2, 7, padding="same"),
        nn.Conv2d(2, 2, 7, padding=3, padding_mode="circular"),
        nn.Conv2d(2, 2, 7, padding=3, groups=2),
    ]
    for conv in others:
        net = fit_to_size(nn.Sequential(conv), 2, 4, 4)
        assert net[0] is conv  # type: ignore[index]
    assert isinstance(fit_to_size(nn.Sequential(nn.Conv2d(2, 2, 7, padding=3)), 2, 4, 4)[0], SmallMapConv)  # type: ignore[index]


def test_a_network_for_another_size() -> None:
    with pytest.raises(UserError, match="takes no images of 2x2"):
        fit_to_size(nn.Conv2d(1, 1, 3), 1, 2, 2)


# Training


def test_learning_rate_drops() -> None:
    factors = [classifier.lr_factor(step, 40, (0.5, 0.75)) for step in range(40)]
    assert factors == pytest.approx([1.0] * 20 + [0.1] * 10 + [0.01] * 10)
    assert classifier.lr_factor(2, 30, (0.1,)) == 1 and classifier.lr_factor(3, 30, (0.1,)) == pytest.approx(0.1)


def test_batches_are_full_and_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """65 images and batch 64: textbook epochs would end with a batch of one, which BatchNorm cannot take."""
    images = some("train", (0, 1, 2, 3, 4), 13, stride=2)
    batches: list[np.ndarray] = []

    def seen_to_unit(batch: torch.Tensor, device: torch.device) -> torch.Tensor:
        batches.append(batch.numpy())
        return to_unit(batch)

    monkeypatch.setattr(classifier, "to_unit", seen_to_unit)
    cfg = Classifier(batch=64, flip=True)
    classifier.fit(images, "resnet18", cfg, mixed=False, steps=4, seed=0, device=CPU)
    originals = {image.tobytes() for image in images.images}
    mirrored = {image[:, ::-1].tobytes() for image in images.images}
    seen = [image.tobytes() for batch in batches for image in batch]
    assert [len(batch) for batch in batches] == [64] * 4
    assert set(seen) <= originals | mirrored
    assert 85 < sum(image in mirrored for image in seen) < 171  # of 256, at probability 1/2: 5 standard deviations


@pytest.mark.parametrize("cutmix", [False, True])
def test_mixing_weights_labels_as_pixels(cutmix: bool) -> None:
    """Images of all ones and all zeros take turns: what is in a mixed image is the share of the label."""
    mix = Mix(prob=1.0, switch_prob=float(cutmix))
    images = torch.tensor([1.0, 1.0, 0.0, 0.0])[:, None, None, None].expand(4, 1, 28, 28).clone()
    labels = torch.tensor([1, 1, 0, 0])
    np.random.seed(3)
    x, y = classifier.make_mixup(mix, 3)(images, labels)
    share = x.mean((1, 2, 3))
    assert 0 < share[0] < 1
    assert set(x.unique().tolist()) <= {0.0, 1.0} or not cutmix
    torch.testing.assert_close(y, torch.stack([1 - share, share, torch.zeros(4)], 1))  # no smoothing: class 2 is 0


def test_a_run_learns() -> None:
    """Trousers, sandals and bags, 50 images each: over 98% with any of 4 seeds, chance is 33%."""
    train, test = some("train", (1, 5, 8), 50, stride=2), some("validation", (1, 5, 8), 60, stride=2)
    net = classifier.fit(train, "resnet18", Classifier(batch=32), mixed=False, steps=80, seed=0, device=CPU)
    predictions = classifier.predict(net, test)
    assert accuracy_score(predictions["label"], predictions["prediction"]) > 0.9


def test_predictions_are_the_networks() -> None:
    test = some("test", (0, 1, 2), 5)
    net = build_classifier("resnet18", "stock", 1, 3)
    predictions = classifier.predict(net, test)
    with torch.inference_mode():
        p = torch.softmax(net.eval()(to_unit(test.images)), 1).numpy()
    assert predictions["key"].tolist() == test.keys
    assert predictions["prediction"].tolist() == p.argmax(1).tolist()
    np.testing.assert_allclose(predictions["p_label"], p[range(15), test.labels], rtol=1e-5)


class Killed(Exception):
    pass


def test_a_killed_run_resumes_bitwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "LoopConfig", functools.partial(LoopConfig, save_every=0))
    images, state = some("train", (0, 1), 10, stride=2), tmp_path / "state.pt"

    def kill(step: int, net: nn.Module) -> None:
        if step == 4:
            raise Killed

    fit = functools.partial(
        classifier.fit,
        images,
        "resnet18",
        Classifier(batch=8, flip=True, drops=(0.5,)),
        mixed=True,
        steps=6,
        seed=1,
        device=CPU,
    )
    unbroken = fit().state_dict()
    with pytest.raises(Killed):
        fit(state=state, on_step=kill)
    assert torch.load(state)["step"] == 3
    resumed = fit(state=state).state_dict()
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


# The command


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """real.tar and synthetic-{0,1}.tar (20 images of 2 classes each), test.tar (30), in the current folder."""
    monkeypatch.chdir(tmp_path)
    write_shard(Path("real.tar"), some("train", (0, 1), 10, stride=2))
    synthetic = some("validation", (0, 1), 10, stride=2)
    write_shard(Path("synthetic-0.tar"), synthetic)
    write_shard(Path("synthetic-1.tar"), dataclasses.replace(synthetic, images=synthetic.images[:, :, ::-1]))
    write_shard(Path("test.tar"), some("test", (0, 1), 15, stride=2))
    return tmp_path


def classify(*options: str, **training: object) -> int:
    config = {"classifier": {"batch": 8, "epochs": 2, "min_steps": 1}, **training}
    files = ["--test", "test.tar", "--out", "row.parquet", "--predictions", "row.predictions.parquet"]
    return main(["classify", "--stage", json.dumps({"config": config}), *files, *options])


@pytest.mark.parametrize(
    ("options", "training", "n_real", "n_synthetic", "steps"),
    [
        (["--real", "real.tar"], {}, 20, 0, 5),  # 2 epochs x 20 images / 8
        (
            ["--real", "real.tar", "--source", "ours", "--scale", "2", "synthetic-0.tar", "synthetic-1.tar"],
            {},
            20,
            40,
            15,
        ),
        (["--real", "real.tar", "--source", "real-equal-steps", "--scale", "2"], {"per_class": 10}, 20, 0, 15),
        (["--source", "ours", "--scale", "1", "synthetic-0.tar"], {"mixed": True}, 0, 20, 5),
    ],
)
def test_rows(
    shards: Path, options: list[str], training: dict[str, object], n_real: int, n_synthetic: int, steps: int
) -> None:
    assert classify(*options, "--subset", "1", "--train-seed", "3", **training) == 0
    row = pd.read_parquet("row.parquet")
    predictions = pd.read_parquet("row.predictions.parquet")
    assert list(row.columns) == [
        "subset",
        "architecture",
        "mix",
        "source",
        "scale",
        "seed",
        "top1",
        "n_real",
        "n_synthetic",
        "epochs",
        "steps",
    ]
    values = row.iloc[0]
    assert (values["subset"], values["architecture"], values["seed"], values["epochs"]) == (1, "resnet18", 3, 2)
    assert (values["n_real"], values["n_synthetic"], values["steps"]) == (n_real, n_synthetic, steps)
    assert values["mix"] == training.get("mixed", False)
    assert values["top1"] == pytest.approx(100 * accuracy_score(predictions["label"], predictions["prediction"]))
    assert predictions["label"].tolist() == [0, 1] * 15
    assert predictions["p_label"].dtype == np.float32
    assert sorted(path.name for path in shards.rglob("*.pt")) == []  # nothing is left of a finished run


def test_weights_alone_can_be_asked_for_but_not_nothing(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stage = json.dumps({"config": {"classifier": {"batch": 8, "epochs": 1, "min_steps": 1}}})
    call = ["classify", "--stage", stage, "--test", "test.tar", "--real", "real.tar"]
    assert main(call) == 2
    assert "classify: nothing to write; give --out and --predictions, or --weights" in capsys.readouterr().err
    before = set(shards.iterdir())
    assert main([*call, "--weights", "net.safetensors"]) == 0
    assert {path.name for path in set(shards.iterdir()) - before} == {"net.safetensors"}


@pytest.mark.parametrize("stem", ["stock", "small"])
def test_weights_that_are_kept_are_read_by_timm(shards: Path, stem: str) -> None:
    """With stem stock the last stages see 1 pixel, and are trained as matrix products."""
    options = ["--real", "real.tar", "--weights", "net.safetensors"]
    assert (
        classify(*options, classifier={"batch": 8, "min_steps": 3, "epochs": 1, "stem": stem, "precision": "fp32"}) == 0
    )
    test, known = read_shards([Path("test.tar")]), pd.read_parquet("row.predictions.parquet")
    net, meta = load_classifier("net.safetensors")
    assert (meta.architecture, meta.stem, meta.image_shape) == ("resnet18", stem, (1, 14, 14))
    assert meta.classes == test.classes
    nets = [net]
    if stem == "stock":
        nets.append(timm.create_model("resnet18", num_classes=2, in_chans=1, checkpoint_path="net.safetensors").eval())
    for each in nets:
        with torch.inference_mode():
            p = each(to_unit(test.images)).softmax(1).numpy()
        np.testing.assert_allclose(p[range(len(test)), test.labels], known["p_label"], atol=1e-4)


WRONG_WEIGHTS = (
    ("broken", "no tensor fc.bias"),
    ("bare", "of another format"),
    ("wide", "no tensor cls_token|more layers by the header"),
    ("nan", "fc.bias has values that are not finite"),
    ("blank", "all weights are 0"),
)


def test_a_file_that_holds_no_classifier(shards: Path) -> None:
    assert classify("--real", "real.tar", "--weights", "net.safetensors") == 0
    tensors = load_file("net.safetensors")
    meta = header(Path("net.safetensors"), ClassifierMeta)
    save(Path("broken.safetensors"), meta, {name: t for name, t in tensors.items() if name != "fc.bias"})
    save_file(tensors, "bare.safetensors")
    meta = header(Path("net.safetensors"), ClassifierMeta)
    save(Path("wide.safetensors"), meta.model_copy(update={"architecture": "vit_giant_patch14_224"}), tensors)
    save(Path("nan.safetensors"), meta, load_file("net.safetensors") | {"fc.bias": torch.full((2,), torch.nan)})
    save(Path("blank.safetensors"), meta, {name: torch.zeros_like(t) for name, t in tensors.items()})
    for name, complaint in WRONG_WEIGHTS:
        with pytest.raises(UserError, match=rf"^{name}.safetensors: {complaint}.*; train one with `ddrep classify"):
            load_classifier(f"{name}.safetensors")


@pytest.mark.parametrize(
    ("options", "training", "complaint"),
    [
        (["--real", "real.tar", "--architecture", "resnet81"], {}, "did you mean resnet18"),
        (["--real", "real.tar", "--architecture", "convnext_atto"], {"classifier": {"stem": "small"}}, "for ResNets"),
        (["--real", "none.tar"], {}, "none.tar: no such shard"),
        (
            ["--real", "wide.tar", "--source", "ours", "--scale", "1", "synthetic-0.tar"],
            {},
            "images 14x14x1, but wide.tar has",
        ),
        (["--real", "named.tar"], {}, "test.tar: has 2 classes (T-shirt/top, Trouser, ...)"),
        ([], {}, "no training images"),
        (["--real", "real.tar", "synthetic-0.tar"], {}, "--source real: is for real images alone"),
        (["--real", "real.tar", "--source", "ours", "--scale", "1"], {}, "--source ours: expected its shards"),
        (["--real", "real.tar", "--scale", "1"], {}, "expected scale 0 for real"),
        (["--real", "real.tar", "--source", "real-equal-steps", "--scale", "1"], {"per_class": 0}, "per_class"),
        (["--real", "real.tar"], {"classifier": {"batch": 7}}, "batch: Input should be a multiple of 2"),
        (["--real", "real.tar"], {"classifier": {"mix": {"mixup_alpha": 0, "cutmix_alpha": 0}}}, "one above 0"),
    ],
)
def test_user_errors(
    shards: Path, options: list[str], training: dict[str, object], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    real = some("train", (0, 1), 2, stride=2)
    write_shard(Path("named.tar"), LabelledImages(real.images, real.labels, real.keys, ("a", "b")))
    write_shard(Path("wide.tar"), LabelledImages(real.images.repeat(2, axis=2), real.labels, real.keys, real.classes))
    assert classify(*options, **training) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ddrep: ") and complaint in last
    assert not list(shards.glob("*.parquet"))


def test_a_swapped_shard_is_not_trained_on(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same keys and classes, of another denoiser's images."""
    images = some("validation", (0, 1), 10, stride=2)
    attempts = pd.DataFrame({"key": images.keys, "class": images.labels, "accepted": True})
    write_with_attempts(Path("synthetic-0.tar"), images, attempts)
    write_shard(Path("synthetic-0.tar"), dataclasses.replace(images, images=255 - images.images))
    assert classify("--source", "ours", "--scale", "1", "synthetic-0.tar") == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"ddrep: synthetic-0.tar: image {images.keys[0]} is not the one that synthetic-0.parquet")
    assert not list(shards.glob("row*"))


def test_soft_labels_that_are_sure_train_as_hard_ones_do() -> None:
    """One is a cross-entropy with class numbers, the other with probabilities: equal up to rounding."""
    hard = some("train", (0, 1, 2), 4)
    soft = dataclasses.replace(hard, soft=np.eye(len(hard.classes), dtype=np.float16)[hard.labels])
    cfg = Classifier(stem="small", batch=8, precision="fp32")
    for mixed in (False, True):
        nets = [
            classifier.fit(data, "resnet18", cfg, mixed=mixed, steps=2, seed=0, device=CPU) for data in (hard, soft)
        ]
        a, b = (torch.cat([p.flatten() for p in net.parameters()]) for net in nets)
        assert torch.allclose(a, b, atol=2e-3), mixed


def test_soft_labels_are_mixed_as_the_images_are() -> None:
    """timm's own mixture of class numbers is the oracle."""
    labels, soft = torch.tensor([0, 2, 1, 1]), torch.eye(3)[torch.tensor([0, 2, 1, 1])]
    images = torch.rand(4, 1, 8, 8)
    for seed in range(6):
        np.random.seed(seed)
        x, y = classifier.make_mixup(Mix(prob=1.0), 3)(images.clone(), labels)
        np.random.seed(seed)
        same, mixed = classifier.mix(classifier.make_mixup(Mix(prob=1.0), 4), images.clone(), soft)
        assert torch.equal(x, same) and torch.allclose(y, mixed)


def test_the_share_of_synthetic_images_in_a_batch() -> None:
    """Of 10 real and 70 others: as they are, or a quarter; each part is visited evenly."""
    plain, quarter = Classifier(batch=8), Classifier(batch=8, synthetic_share=0.25)
    assert (classifier.batch_of(plain, 10, 80, 3, 5) == classifier.batch_indices(80, 8, 3, 5)).all()
    assert (classifier.batch_of(quarter, 80, 80, 3, 5) == classifier.batch_indices(80, 8, 3, 5)).all()
    seen = np.stack([classifier.batch_of(quarter, 10, 80, step, 5) for step in range(35)])
    assert ((seen >= 10).sum(axis=1) == 2).all()
    visits = np.bincount(seen.ravel(), minlength=80)
    assert set(visits[:10]) == {21} and set(visits[10:]) == {1}


def test_label_smoothing_is_told_to_the_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of hard labels, and of soft ones that are sure, which are spread in the same way."""
    data, losses = some("train", (0, 1), 8), []
    wanted = torch.nn.functional.cross_entropy

    def loss(*args: Any, **options: Any) -> Any:
        losses.append(options["label_smoothing"])
        return wanted(*args, **options)

    monkeypatch.setattr(torch.nn.functional, "cross_entropy", loss)
    cfg = Classifier(batch=4, label_smoothing=0.2)
    certain = dataclasses.replace(data, soft=np.eye(2, dtype=np.float16)[data.labels])
    nets = [classifier.fit(each, "resnet18", cfg, mixed=False, steps=1, seed=0, device=CPU) for each in (data, certain)]
    assert losses == [0.2, 0.2]
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("shard, said", [
    ("test.tar", "images are in copy.tar too|images are in test.tar too"),
    ("real.tar", "real.tar: the same shard as real.tar; give each once"),
    ("copy.tar", "copy.tar: the same shard as synthetic-0.tar; give each once"),
])  # fmt: skip
def test_shards_that_would_make_a_wrong_row(
    shard: str, said: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy("synthetic-0.tar", "copy.tar")
    assert classify("--real", "real.tar", "--source", "ours", "--scale", "1", "synthetic-0.tar", shard) == 2
    assert re.search(said, capsys.readouterr().err) and not Path("row.parquet").exists()

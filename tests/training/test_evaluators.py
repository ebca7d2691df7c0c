"""Training of the evaluator and the segmenter: what is learned, what is passed over, and that it repeats itself."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics

from ddrep import cli, config
from ddrep.data import embedded
from ddrep.data.foreground import garment_masks
from ddrep.data.idx import write_idx
from ddrep.data.masks import IGNORE, MaskedImages, write_masked_shard
from ddrep.data.readers import labelled
from ddrep.data.shards import LabelledImages, write_shard
from ddrep.errors import UserError
from ddrep.evaluation.segmentation import confusion, miou
from ddrep.networks.measures import Evaluator, Segmenter
from ddrep.training.evaluators import accuracy, agreement, moves, train_evaluator, train_segmenter
from tests import tiny
from tools import embedded_evaluators as script

CPU = torch.device("cpu")
SHORT = {"width": 8, "epochs": 1, "batch": 20, "warmup": 5, "precision": "fp32"}


def masks(split: str = "train", per_class: int = 20) -> MaskedImages:
    """The tiny images with the masks of their garments."""
    return with_masks(tiny.images(split, per_class=per_class))


def test_moves_are_all_shifts_and_flips_and_no_others():
    image = torch.arange(1, 31, dtype=torch.uint8).reshape(5, 6, 1)
    torch.manual_seed(0)
    moved = image.expand(400, 5, 6, 1)[moves(400, 5, 6, shift=1, flip=True)]
    padded = torch.nn.functional.pad(image.permute(2, 0, 1)[None].float(), (1, 1, 1, 1), mode="replicate")[0, 0]
    expected = {
        tuple(turned.flatten().tolist())
        for y in range(3)
        for x in range(3)
        for turned in (padded[y : y + 5, x : x + 6], padded[y : y + 5, x : x + 6].flip(1))
    }
    assert {tuple(each.flatten().tolist()) for each in moved} == expected and len(expected) == 18
    assert torch.equal(image.expand(3, 5, 6, 1)[moves(3, 5, 6, shift=0, flip=False)], image.expand(3, 5, 6, 1))


def test_an_image_and_its_mask_move_together():
    index = moves(50, 7, 5, shift=2, flip=True)
    image = torch.randint(255, (50, 7, 5))
    assert torch.equal(image[..., None][index][..., 0], image[index])


def whole(split: str, per_class: int) -> LabelledImages:
    """Three kinds of garment that are easily told apart, at their full size."""
    data = labelled(config.Data(embedded=config.EmbeddedData(per_class=50)), split, 0, 0)
    kinds = {"Trouser": 1, "Sneaker": 7, "Bag": 8}
    rows = np.concatenate([np.flatnonzero(data.labels == number)[:per_class] for number in kinds.values()])
    labels = np.repeat(np.arange(3), per_class)
    return LabelledImages(data.images[rows], labels, [data.keys[i] for i in rows], tuple(kinds))


def test_an_evaluator_learns_the_classes():
    cfg = config.Evaluator(width=4, epochs=10, batch=30, warmup=5, precision="fp32")
    made, test = train_evaluator(whole("train", 50), cfg, seed=0, device=CPU), whole("test", 100)
    p = made.probabilities(test.images)
    report = accuracy(made, test)
    assert report["n"] == 300 and report["top1"] > 90
    assert report["top1"] == pytest.approx(100 * metrics.accuracy_score(test.labels, p.argmax(1)))
    assert report["cross_entropy"] == pytest.approx(metrics.log_loss(test.labels, p), rel=1e-6)


def test_a_segmenter_learns_the_pixels_that_count():
    """With every other pixel ignored, at random, it learns as much, for what lies under them is never seen."""
    cfg = config.Segmenter(width=4, epochs=24, batch=30, warmup=5, precision="fp32")
    train, test = with_masks(whole("train", 50)), with_masks(whole("test", 100))
    train.masks[np.random.default_rng(0).random(train.masks.shape) < 0.5] = IGNORE
    made = train_segmenter(train, cfg, seed=0, device=CPU)
    report = agreement(made, test)
    assert report["n"] == 300 and report["miou"] > 0.7 and report["pixel_accuracy"] > 90
    counts = confusion(made.label_maps(test.images), test.masks, 4)
    assert report["miou"] == pytest.approx(miou(counts))


def with_masks(data: LabelledImages) -> MaskedImages:
    masks = garment_masks(data.images[..., 0], data.labels)
    return MaskedImages(data.images, masks, data.keys, ("background", *data.classes))


@pytest.mark.parametrize("kind", ["evaluator", "segmenter"])
def test_the_same_seed_gives_the_same_weights(kind):
    data: Any = tiny.images() if kind == "evaluator" else masks()
    fit: Any = train_evaluator if kind == "evaluator" else train_segmenter
    section = config.Evaluator if kind == "evaluator" else config.Segmenter
    cfg = section(**SHORT)
    first, again, other = (fit(data, cfg, seed=seed, device=CPU).net.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def _call(tmp_path: Path, verb: str, *more: str) -> int:
    settings = [f"--stage.config.{name}={value}" for name, value in SHORT.items()]
    files = ["--out", str(tmp_path / "out.safetensors"), "--log", str(tmp_path / "log")]
    return cli.main([verb, *settings, *files, *more])


def test_both_verbs_train_on_several_shards(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "a.tar", tiny.images())
    write_shard(tmp_path / "b.tar", tiny.images("validation", per_class=10))
    assert _call(tmp_path, "evaluator", "--stage.config.name=mine", "--validation", "b.tar", "a.tar", "b.tar") == 0
    made = Evaluator.load(tmp_path / "out.safetensors")
    assert made.metric == "FD-mine" and made.meta.image_shape == (8, 8, 1) and made.meta.width == 8
    provenance = made.meta.provenance
    assert provenance is not None
    assert len(provenance["shards_sha256"]) == 2 and provenance["validation"]["n"] == 30
    write_masked_shard(tmp_path / "c.tar", masks())
    assert _call(tmp_path, "segmenter", "--validation", "c.tar", "c.tar") == 0
    provenance = Segmenter.load(tmp_path / "out.safetensors").meta.provenance
    assert provenance is not None and provenance["validation"]["n"] == 60
    json.dumps(provenance)


@pytest.mark.parametrize("wrong", ["classes", "size", "kind"])
def test_shards_that_do_not_fit_are_one_line(tmp_path, monkeypatch, capsys, wrong):
    monkeypatch.chdir(tmp_path)
    write_shard(tmp_path / "a.tar", tiny.images())
    other = {"classes": tiny.images(classes=2), "size": whole("test", 2), "kind": None}[wrong]
    write_masked_shard(tmp_path / "b.tar", masks()) if other is None else write_shard(tmp_path / "b.tar", other)
    assert _call(tmp_path, "evaluator", "--validation", "b.tar", "a.tar") == 2
    said = capsys.readouterr().err
    assert "b.tar: " in said and said.count("\n") == 1 and not (tmp_path / "out.safetensors").exists()


def test_the_script_builds_both_files_again_to_the_byte(tmp_path, monkeypatch, capsys):
    """On a miniature of Fashion-MNIST's folder, with the settings of the real run but for the length."""
    monkeypatch.chdir(tmp_path)
    data = labelled(config.Data(), "test", 0, 0)
    for split, rows in {"train": slice(0, 60), "t10k": slice(60, 90)}.items():
        write_idx(tmp_path / f"{split}-images-idx3-ubyte.gz", data.images[rows, ..., 0])
        write_idx(tmp_path / f"{split}-labels-idx1-ubyte.gz", data.labels[rows].astype(np.uint8))
    for name in ("EVALUATOR", "SEGMENTER"):
        short = getattr(script, name).model_copy(update={"epochs": 1, "batch": 20, "width": 4})
        monkeypatch.setattr(script, name, short)
    monkeypatch.setattr(script, "set_threads", lambda _: None)  # once in a process
    for out in ("a", "b"):
        assert script.main([str(tmp_path), str(tmp_path / out)]) == 0
    for name in ("evaluator", "segmenter"):
        first, again = ((tmp_path / out / f"{name}.safetensors").read_bytes() for out in "ab")
        assert first == again
    made = Evaluator.load(tmp_path / "a" / "evaluator.safetensors")
    assert made.classes == embedded.CLASSES
    assert made.meta.provenance is not None and made.meta.provenance["images"] == 60
    assert script.main([str(tmp_path / "none"), str(tmp_path / "c")]) == 2
    assert "train-images-idx3-ubyte.gz: no such file" in capsys.readouterr().err


def test_a_size_that_is_not_trained_on_is_refused():
    made = train_evaluator(tiny.images(), config.Evaluator(**SHORT), seed=0, device=CPU)
    with pytest.raises(UserError, match="images are 28x28x1 uint8, expected 8x8x1"):
        accuracy(made, whole("test", 2))

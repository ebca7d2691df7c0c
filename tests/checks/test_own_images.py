"""Settings that are wrong for data of one's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from ddrep.checks import check
from ddrep.checks.sets import mask_classes
from ddrep.config import Data, MaskData, merge
from ddrep.data import embedded
from ddrep.data.readers import known, labelled
from ddrep.data.shards import write_shard
from ddrep.networks.architectures import build
from ddrep.networks.measures import Segmenter
from ddrep.networks.metadata import SegmenterMeta
from tests.checks.experiments import NONE, experiment, folder, own_images, said, saved
from tests.data import replicas


def test_two_classes_and_the_demos_figures(here: Path) -> None:
    """With figures of four classes, everything was computed up to Figure 3, which stopped the workflow."""
    folder(here / "images", {"cat": 5, "dog": 5})
    check(experiment(own_images()))
    line = said(own_images(), {"figures": {"figure3_classes": [0, 1, 2, 3]}})
    assert line == "figures.figure3_classes: no class 2, 3; expected 0..1 (0 cat, 1 dog)"


def test_own_images_with_the_demos_garments(here: Path) -> None:
    folder(here / "images", {"cat": 80, "dog": 80})
    own = merge(own_images(), {"parts": ["augmentation", "attributes"]})
    line = said(own)
    assert "attributes.groups.footwear: no class Sandal; the data has cat, dog: name groups of its classes" in line
    assert "or set parts: [augmentation]" in line
    mine = {"attributes": {"groups": [{"name": "cats", "having": ["cat"]}]}}
    assert "evaluation.evaluator: knows no class cat of attributes.groups.cats; it has T-shirt/top" in said(own, mine)
    check(experiment(own, mine, {"evaluation": NONE}))


def test_a_denoiser_of_another_size(here: Path) -> None:
    """The embedded denoiser with 64x64 colour images passed."""
    folder(here / "images", {"cat": 5, "dog": 5})
    line = "denoiser.file: a denoiser of 28x28x1 images, data.image_folder gives {}; expected both alike"
    assert said(own_images(64, 3)) == line.format("64x64x3")
    assert said(own_images(28, 3)) == line.format("28x28x3")
    colour = {"denoiser": {"file": {"path": saved("d.safetensors", image_size=64, in_channels=3, out_channels=3)}}}
    check(experiment(own_images(64, 3), colour))


def test_masks_of_another_size_than_the_denoiser(here: Path) -> None:
    replicas.few_shot(here / "celeba_19")
    few = {"kind": "few-shot", "few_shot": {"root": "celeba_19", "train": 4, "test": 3, "size": 32}}
    masks = {"parts": ["masks"], "masks": {"data": few}, "evaluation": NONE}
    line = said(masks)
    assert "denoiser.file: a denoiser of 28x28x1 images, masks.data.few_shot gives 32x32x3" in line
    assert "masks.data.celebamask_hq: none, where the oracle's images come from" in line
    colour = {"denoiser": {"file": {"path": saved("d.safetensors", image_size=32, in_channels=3, out_channels=3)}}}
    taps = {"masks": {"taps": {"blocks": ["up1"]}}}
    assert said(masks, colour, taps).count("; ") == 1
    segmenter_of(mask_classes(MaskData.model_validate(few)), (32, 32, 3)).save(Path("segmenter.safetensors"))
    check(experiment(masks, colour, taps, {"evaluation": {"segmenter": "segmenter.safetensors"}}))
    assert "real/test: 3 images with a mask; masks.data.few_shot.test says 500" in said(
        masks, colour, taps, {"masks": {"data": {"few_shot": {"test": 500}}}}
    )
    embedded_one = {"evaluation": {"segmenter": "ddrep/data/embedded/segmenter.safetensors"}}
    line = said(masks, colour, taps, embedded_one)
    assert "evaluation.segmenter: takes 28x28x1 images, these are 32x32x3" in line
    assert "evaluation.segmenter: its classes are background, T-shirt/top" in line


def segmenter_of(classes: tuple[str, ...], image: tuple[int, int, int]) -> Segmenter:
    meta = SegmenterMeta(width=4, image_shape=image, classes=classes)
    return Segmenter(build(meta), meta)


def test_names_of_an_oracle_that_are_other_ones(here: Path) -> None:
    replicas.few_shot(here / "set", classes=3)
    replicas.celebamask_hq(here / "hq")
    few = {"root": "set", "train": 4, "test": 3, "size": 32, "classes": ["a", "b", "skin"]}
    hq = {"root": "hq", "images": 6, "train": 1, "test": 1, "size": 32}
    data = {"masks": {"data": {"kind": "few-shot", "few_shot": few, "celebamask_hq": hq}}}
    line = said({"parts": ["masks"], "evaluation": NONE}, data)
    assert "masks.data.few_shot.classes: a, b, background, cloth" in line
    assert "celebamask_hq.images says" not in line
    more = {"masks": {"data": {"celebamask_hq": {"images": 7}}}}
    assert "hq/CelebA-HQ-img: 6 images; masks.data.celebamask_hq.images says 7" in said(
        data, more, {"evaluation": NONE}
    )
    assert "celebamask_hq.images says" not in said(data, more), "with a segmenter of one's own"


def test_garments_beside_own_images_are_a_warning(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder(here / "images", {"cat": 5, "dog": 5})
    check(experiment(own_images(), {"parts": ["augmentation", "masks"]}))
    assert capsys.readouterr().err.startswith("ddrep: warning: masks.data: the masks are of the embedded garments")
    check(experiment(own_images(), {"parts": ["masks"]}))
    assert capsys.readouterr().err == ""


def test_a_class_conditional_denoiser(here: Path) -> None:
    settings = {"denoiser": {"file": {"path": saved("d.safetensors", num_classes=4, image_size=28)}}}
    assert "denoiser.file.path: d.safetensors is class-conditional (4 rows in its label table)" in said(settings)


def test_image_folders_that_are_none(here: Path) -> None:
    folder(here / "one", {"cat": 5})
    assert "one/train: 1 class folders" in said(own_images(root="one"))
    folder(here / "other", {"cat": 5, "dog": 5}, {"cat": 1, "cow": 1})
    line = said(own_images(root="other"))
    assert "cow" in line and "not under train" in line
    folder(here / "untested", {"cat": 5, "dog": 5})
    shutil.rmtree(here / "untested/test")
    assert "untested/test: no such folder" in said(own_images(root="untested"))
    folder(here / "few", {"cat": 5, "dog": 1})
    line = said(own_images(root="few"))
    assert "dog" in line and "held out" in line and "rejection" not in line
    (here / "few/validation/cat").mkdir(parents=True)
    (here / "few/validation/cat/0.png").touch()
    assert said(own_images(root="few")).startswith("rejection.holdout: fewer than 2 training images of dog")
    (here / "loop").symlink_to("gone")
    assert "data.image_folder.root: a link that leads nowhere: loop" in said(own_images(root="loop"))


def test_only_subset_0_of_own_images(here: Path) -> None:
    folder(here / "images", {"cat": 5, "dog": 5})
    line = said(own_images(), {"table3": {"subsets": [0, 1]}})
    assert line == "table3.subsets: no subset 1; data of kind image-folder has only subset 0"


def test_tiny_imagenet(here: Path) -> None:
    root = replicas.tiny_imagenet(here)
    for path in (root, replicas.zipped(root)):
        table = {**replicas.TINY, "path": str(path), "size": 28}
        settings = {"parts": ["augmentation"], "data": {"kind": "tiny-imagenet", "tiny_imagenet": table}}
        more = {"figures": {"figure3_classes": [2]}}
        line = said(settings, more)
        assert line.startswith("denoiser.file: a denoiser of 28x28x1 images, data.tiny_imagenet gives 28x28x3")
        assert line.count("; ") == 1, line
        assert "figures.figure3_classes: no class 3;" in said(settings, {"figures": {"figure3_classes": [3]}})
        wrong = {"data": {"tiny_imagenet": {"classes": 200}}}
        assert "3 classes" in said(settings, more, wrong)
    with zipfile.ZipFile("other.zip", "w") as archive:
        archive.writestr("a", "b")
    assert "other.zip: no wnids.txt" in said(settings, {"data": {"tiny_imagenet": {"path": "other.zip"}}})


def test_webdatasets(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = Data.model_validate({"embedded": {"per_class": 3, "test_images": 20}})
    for split in ("train", "test"):
        write_shard(Path(f"{split}.tar"), labelled(data, split, 0, 0))
    table: dict[str, Any] = {"train": ["train.tar"], "test": ["test.tar"], "size": 28, "channels": 1}
    own = {"parts": ["augmentation"], "data": {"kind": "webdataset", "webdataset": table}}
    found = known(experiment(own).data, 0)
    assert found and (found.classes, found.train) == (tuple("0123456789"), (2,) * 10), "a tenth, one at least, held out"
    check(experiment(own))
    assert "figures.figure1_class: no class 10" in said(own, {"figures": {"figure1_class": 10}})
    empty = Path("empty")
    empty.mkdir()
    line = said(own, {"data": {"webdataset": {"test": ["empty"]}}})
    assert line.startswith("data.webdataset.test: ") and "no *.tar" in line and "empty" in line
    # too large to be read through: as many classes as are named, or who knows
    monkeypatch.setattr("ddrep.data.readers.webdataset.CHEAP", 1000)
    check(experiment(own, {"figures": {"figure1_class": 10}}))
    named = {"data": {"webdataset": {"classes": list("abcdefghij")}}}
    assert "figures.figure1_class: no class 10" in said(own, named, {"figures": {"figure1_class": 10}})


def test_celeba(here: Path) -> None:
    replicas.celeba(here / "celeba", (24, 6, 12))
    faces = {"root": "celeba", "attribute": "Male", "partition": [24, 6, 12], "size": 28}
    attributes = {"groups": [{"name": "smile", "having": ["Smiling"]}], "examples": 12}
    own: dict[str, Any] = {
        "parts": ["attributes"], "data": {"kind": "celeba", "celeba": faces}, "attributes": attributes,
        "denoiser": {"file": {"path": saved("d.safetensors", image_size=28, in_channels=3, out_channels=3)}},
        "evaluation": NONE,
    }  # fmt: skip
    own["attributes"] |= {"taps": {"blocks": ["middle", "up2"]}}
    check(experiment(own))
    line = said(own, {"attributes": {"examples": 13}})
    assert line.startswith("attributes.examples: 13 with smile and 13 without asked for, train has 12 and 12")
    other = {"attributes": {"groups": [{"name": "hat", "having": ["Hat"]}]}}
    assert "attributes.groups.hat: Hat is not in celeba/list_attr_celeba.txt; it has Smiling, Male" in said(own, other)
    both = {"attributes": {"groups": [{"name": "both", "having": ["Male", "Smiling"]}]}}
    assert "attributes.groups.both: expected one of the data set's attributes, got Male, Smiling" in said(own, both)
    assert "Hat is not in celeba/list_attr" in said(own, {"data": {"celeba": {"attribute": "Hat"}}})


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_what_may_not_be_read(here: Path) -> None:
    """By another user, for root reads everything; outside of pytest's folders, which are closed to others."""
    code = (
        "import os, sys, json\n"
        "from ddrep.checks import check\nfrom ddrep.config import parse\n"
        "raw = json.load(sys.stdin)\nos.setuid(65534)\n"
        "try: check(parse(raw))\nexcept Exception as e: print(repr(e))\n"
    )
    with tempfile.TemporaryDirectory() as open_to_all:
        place = Path(open_to_all)
        place.chmod(0o755)
        folder(place / "images", {"cat": 5, "dog": 5}).chmod(0o700)
        shutil.copy(embedded.FOLDER / "denoiser.safetensors", place / "d.safetensors")
        (place / "d.safetensors").chmod(0o600)
        denoiser = {"denoiser": {"file": {"path": str(place / "d.safetensors")}}}
        raw = json.dumps(experiment(own_images(root=str(place / "images")), denoiser).model_dump(mode="json"))
        done = subprocess.run([sys.executable, "-P", "-c", code], input=raw, capture_output=True, text=True)
    assert "images is a folder that may not be read; expected a folder" in done.stdout, done.stdout + done.stderr
    assert "d.safetensors is a file that may not be read; expected a file" in done.stdout

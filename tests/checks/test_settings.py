"""Experiments that are wrong in one thing: what is complained of before anything runs."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ddrep.checks import check
from ddrep.config import Experiment, merge
from ddrep.data import embedded
from ddrep.data.idx import write_idx
from ddrep.errors import UserError
from tests.checks.experiments import TABLE, experiment, own_images, said

PRETRAIN: dict[str, Any] = {"denoiser": {"kind": "pretrain", "pretrain": {"images": "images-idx3-ubyte"}}}


def pretrained_on(path: str) -> dict[str, Any]:
    data = {"kind": "unlabelled", "unlabelled": {"path": path}}
    return {"denoiser": {"kind": "pretrain", "pretrain": {"data": data}}}


def diffae(**settings: Any) -> dict[str, Any]:
    """Table 1 with method diffae."""
    return {"table1": {"methods": ["unguided", "diffae"]}, "generators": {"diffae": settings}}


def d2c(**settings: Any) -> dict[str, Any]:
    """Table 1 with method d2c."""
    return {"table1": {"methods": ["unguided", "d2c"]}, "generators": {"d2c": settings}}


def nvae(**settings: Any) -> dict[str, Any]:
    """Table 1 with method nvae."""
    return {"table1": {"methods": ["unguided", "nvae"]}, "generators": {"nvae": settings}}


def network(**settings: Any) -> dict[str, Any]:
    return merge(PRETRAIN, {"denoiser": {"pretrain": {"network": settings}}})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no denoiser": (
        {"denoiser": {"file": {"path": "gone.safetensors"}}},
        "denoiser.file.path: no file gone.safetensors; give a denoiser's .safetensors, or set denoiser.kind",
    ),
    "a folder as denoiser": (
        {"denoiser": {"file": {"path": "ddrep"}}},
        "denoiser.file.path: ddrep is a folder; expected a file",
    ),
    "an evaluator as denoiser": (
        {"denoiser": {"file": {"path": "ddrep/data/embedded/evaluator.safetensors"}}},
        "of another format (ddrep.evaluator/1); expected a denoiser",
    ),
    "something else as denoiser": (
        {"denoiser": {"file": {"path": "ddrep/data/embedded/README.md"}}},
        "denoiser.file.path: ddrep/data/embedded/README.md: not a readable safetensors file",
    ),
    "no evaluator": (
        {"evaluation": {"evaluator": "gone.safetensors"}},
        "evaluation.evaluator: no file gone.safetensors; give one, or null",
    ),
    "a denoiser as evaluator": (
        {"evaluation": {"evaluator": "ddrep/data/embedded/denoiser.safetensors"}},
        "of another format (ddrep.denoiser/1); expected an evaluator; train one with `ddrep evaluator`",
    ),
    "an evaluator as segmenter": (
        {"evaluation": {"segmenter": "ddrep/data/embedded/evaluator.safetensors"}},
        "of another format (ddrep.evaluator/1); expected a segmenter; train one with `ddrep segmenter`",
    ),
    "no weights of inception": (
        {"evaluation": {"inception": "ddrep/data/embedded/README.md"}},
        "evaluation.inception: ddrep/data/embedded/README.md is no file of torch.save",
    ),
    "a missing root": (
        own_images(root="gone"),
        "data.image_folder.root: no folder gone; it holds train/CLASS/* and test/CLASS/*",
    ),
    "a file as root": (
        own_images(root="ddrep/data/embedded/README.md"),
        "data.image_folder.root: ddrep/data/embedded/README.md is a file; expected a folder",
    ),
    "a missing zip": (
        {"data": {"kind": "tiny-imagenet", "tiny_imagenet": {"path": "gone.zip"}}},
        "data.tiny_imagenet.path: no file or folder gone.zip",
    ),
    "no zip": (
        {"data": {"kind": "tiny-imagenet", "tiny_imagenet": {"path": "ddrep/data/embedded/README.md"}}},
        "data.tiny_imagenet: ddrep/data/embedded/README.md: not a whole zip file",
    ),
    "missing tars": (
        {"data": {"kind": "webdataset", "webdataset": {"train": ["a.tar"], "test": ["b.tar"]}}},
        "data.webdataset.train: no file or folder a.tar; give tars, or folders of tars; data.webdataset.test: no file",
    ),
    "missing masks": (
        {"masks": {"data": {"kind": "few-shot", "few_shot": {"root": "gone"}}}},
        "masks.data.few_shot.root: no folder gone; it holds real/train and real/test",
    ),
    "nothing to pretrain on": (
        {"denoiser": {"kind": "pretrain"}},
        "denoiser.pretrain.images: none; name an IDX file of unlabelled images",
    ),
    "no data to pretrain on": (
        pretrained_on("gone"),
        "denoiser.pretrain.data.unlabelled.path: no file or folder gone; give a folder of images, or a CSV file",
    ),
    "data without images to pretrain on": (
        pretrained_on("ddrep"),
        "denoiser.pretrain.data: ddrep: no images (.bmp",
    ),
    "data without classes": (
        {"data": {"kind": "unlabelled", "unlabelled": {"path": "gone"}}},
        "data.kind: unlabelled images have no classes; name them in denoiser.pretrain.data, labelled ones here",
    ),
    "a folder to pretrain on": (
        merge(PRETRAIN, {"denoiser": {"pretrain": {"images": "ddrep"}}}),
        "denoiser.pretrain.images: ddrep is a folder; expected a file",
    ),
    "no IDX file to pretrain on": (
        merge(PRETRAIN, {"denoiser": {"pretrain": {"images": "ddrep/data/embedded/README.md"}}}),
        "denoiser.pretrain.images: ddrep/data/embedded/README.md: not an IDX file of images",
    ),
    "labels to pretrain on": (
        merge(PRETRAIN, {"denoiser": {"pretrain": {"images": "ddrep/data/embedded/test-labels-idx1-ubyte.gz"}}}),
        "not an IDX file of images; expected bytes of rank 3",
    ),
    "attention at no level": (
        network(attention_sizes=[8]),
        "denoiser.pretrain.network.attention_sizes: no level of 8 pixels; with 28 pixels and 3 levels it has 28, 14, 7",
    ),
    "channels that no group fits": (
        network(model_channels=10),
        "denoiser.pretrain.network.model_channels x channel_mult: 10, 20 channels; expected multiples of 32",
    ),
    "heads that do not divide": (
        network(num_heads=5),
        "denoiser.pretrain.network.num_heads: 5 does not divide the 64 channels where attention is",
    ),
    "no DiffAE": (
        diffae(file={"path": None}),
        "generators.diffae.file.path: none, of which table1.methods' diffae draws; give a DiffAE's file, or set",
    ),
    "a missing DiffAE": (
        diffae(file={"path": "gone.safetensors"}),
        "generators.diffae.file.path: no file gone.safetensors; give one's .safetensors, or set generators.diffae.kind",
    ),
    "a denoiser as a DiffAE": (
        diffae(file={"path": "ddrep/data/embedded/denoiser.safetensors"}),
        "generators.diffae.file.path: ddrep/data/embedded/denoiser.safetensors: of another format (ddrep.denoiser/1)",
    ),
    "nothing to train a DiffAE on": (
        diffae(kind="pretrain"),
        "generators.diffae.pretrain.images: none; name an IDX file of unlabelled images, or generators.diffae.pretrain",
    ),
    "a DiffAE that is no network": (
        diffae(kind="pretrain", pretrain={"network": {"encoder_mult": [1, 2, 2, 2]}}),
        "generators.diffae.pretrain.network.encoder: image_size: 28; 7 pixels cannot be halved by such a network",
    ),
    "no D2C": (
        d2c(file={"path": None}),
        "generators.d2c.file.path: none, of which table1.methods' d2c draws; give a D2C's file, or set generators.d2c",
    ),
    "a denoiser as a D2C": (
        d2c(file={"path": "ddrep/data/embedded/denoiser.safetensors"}),
        "generators.d2c.file.path: ddrep/data/embedded/denoiser.safetensors: of another format (ddrep.denoiser/1)",
    ),
    "nothing to train a D2C on": (
        d2c(kind="pretrain"),
        "generators.d2c.pretrain.images: none; name an IDX file of unlabelled images, or generators.d2c.pretrain",
    ),
    "a D2C that is no network": (
        d2c(kind="pretrain", pretrain={"network": {"autoencoder_widths": [16, 32, 64, 64]}}),
        "generators.d2c.pretrain.network.autoencoder_widths: 4 levels; 28 pixels cannot be halved 3 times",
    ),
    "no NVAE": (
        nvae(file={"path": None}),
        "generators.nvae.file.path: none, of which table1.methods' nvae draws; give an NVAE's file, or set",
    ),
    "a denoiser as an NVAE": (
        nvae(file={"path": "ddrep/data/embedded/denoiser.safetensors"}),
        "generators.nvae.file.path: ddrep/data/embedded/denoiser.safetensors: of another format (ddrep.denoiser/1)",
    ),
    "nothing to train an NVAE on": (
        nvae(kind="pretrain"),
        "generators.nvae.pretrain.images: none; name an IDX file of unlabelled images, or generators.nvae.pretrain",
    ),
    "an NVAE that is no network": (
        nvae(kind="pretrain", pretrain={"network": {"outer_blocks": 8, "groups": [1] * 5}}),
        "generators.nvae.pretrain.network.groups: 12 halvings of 28 pixels",
    ),
    "no levels": (network(channel_mult=[]), "denoiser.pretrain.network.channel_mult: empty"),
    "no images without labels": (
        {**own_images(root="gone"), "table3": {"sources": ["unlabelled-soft"]}},
        "table3.sources, table4: unlabelled-soft, but data of kind image-folder has no images without",
    ),
    "too few images without labels": (
        {"synthesis": {"per_class": 50}, "table4": [{"sources": ["real", "unlabelled-soft"], "scales": [0, 2, 3]}]},
        "table4: 3x of unlabelled-soft are 1500 images, but there are 1300 without labels; give more, or ask for",
    ),
    "more labels a class than there are": (
        {"table5": {"labels": [10, 60]}},
        "table5.labels: per_class: Input should be less than or equal to 50, got 60",
    ),
    "a subset of Table 5 that is not there": (
        {"table5": {"labels": [10], "subsets": [3]}},
        "table5.subsets: no subset 3; data of kind embedded has subsets 0..2",
    ),
    "labels a class of the embedded set": (
        {"data": {"labels": 10}},
        "data: labels: 10, of kind embedded; say so in embedded.per_class",
    ),
    "a block of the copies that is not there": (
        {"copies": {"block": "up9"}},
        "copies.block: no up9 in this denoiser; it has middle, up1, up2, up3, output_blocks.0 to 5",
    ),
    "features averaged to more than the images have": (
        {"copies": {"pool": 29}},
        "copies.pool: 29; expected at most 28, the width of the images",
    ),
    "a probe's block that is not there": (
        {"table3": {"sources": ["probe-soft"]}, "probe": {"blocks": ["up1", "up4"]}},
        "probe.blocks: no up4 in this denoiser; it has middle, up1, up2, up3, output_blocks.0 to 5",
    ),
    "attributes' block of a deeper network": (
        {"attributes": {"taps": {"blocks": ["middle", "up4"]}}},
        "attributes.taps.blocks: no up4 in this denoiser; it has middle, up1, up2, up3, output_blocks.0 to 5",
    ),
    "masks' block of a larger network": (
        {"masks": {"taps": {"blocks": ["output_blocks.99"]}}},
        "masks.taps.blocks: no output_blocks.99 in this denoiser",
    ),
    "more steps than the schedule has": (
        {"sampling": {"solver": "ddim", "steps": 1200}},
        "sampling.steps: 1200; with grid: log-snr the denoiser's schedule of 1000 levels allows 995 at most",
    ),
    "a level that the schedule has not": (
        {"sampling": {"steps": 2, "grid": [1000, 20]}},
        "sampling.grid: 1000, but the denoiser's schedule has noise levels 0..999",
    ),
    "more steps than the solver has": (
        {"sampling": {"steps": 1000, "grid": "even"}},
        "sampling.steps: 1000; with dpm-solver++ the denoiser's schedule of 1000 levels allows 995 at most",
    ),
    "more guided steps than the schedule has": (
        {"table1": {"steps": [12, 1001]}, "attributes": {"sampling": {"solver": "ddim"}}},
        "table1.steps: 1001; with ddim",
    ),
    "more steps for masks than there are": ({"table2": {"steps": [5000]}}, "table2.steps: 5000; with dpm-solver"),
    "a class that Figure 1 has not": (
        {"figures": {"figure1_class": 10}},
        "figures.figure1_class: no class 10; expected 0..9 (0 T-shirt/top, 1 Trouser,",
    ),
    "classes that Figure 3 has not": (
        {"figures": {"figure3_classes": [0, 10, 12]}},
        "figures.figure3_classes: no class 10, 12; expected 0..9",
    ),
    "an architecture with a hyphen": (
        {"table3": {"architecture": "resnet-18"}},
        "table3.architecture: architecture resnet-18: timm has no such model; did you mean resnet",
    ),
    "a path as architecture": (
        {"table4": [TABLE, {**TABLE, "architectures": ["resnet18", "../../x"]}]},
        "table4.1.architectures: architecture ../../x: timm has no such model",
    ),
    "no name as architecture": (
        {"table4": [{**TABLE, "architectures": [""]}]},
        "table4.0.architectures.0: String should have at least 1 character",
    ),
    "a small stem where there is none": (
        {"table3": {"architecture": "mobilenetv3_small_100"}, "classifier": {"stem": "small"}},
        "table3.architecture: architecture mobilenetv3_small_100: stem small is for ResNets",
    ),
    "an architecture for larger images": (
        {"table4": [{**TABLE, "architectures": ["vit_tiny_patch16_224"]}]},
        "table4.0.architectures: architecture VisionTransformer: takes no images of 28x28 pixels",
    ),
    "a subset that Table 1 has not": (
        {"table1": {"subsets": [0, 3]}},
        "table1.subsets: no subset 3; data of kind embedded has subsets 0..2",
    ),
    "a subset that Table 2 has not": ({"table2": {"subsets": [7]}}, "table2.subsets: no subset 7"),
    "a subset that Table 3 has not": ({"table3": {"subsets": [3]}}, "table3.subsets: no subset 3"),
    "a subset that Table 4 has not": ({"table4": [TABLE, {**TABLE, "subsets": [3]}]}, "table4.1.subsets: no subset 3"),
    "an empty Table 4": ({"table4": []}, "table4: empty; expected a block of runs"),
    "a block without runs": (
        {"table4": [TABLE, {**TABLE, "sources": ["real"], "scales": [1, 2]}]},
        "table4.1: no runs; scale 0 belongs to source real, the others to all but real",
    ),
    "more examples than there are": (
        {"attributes": {"examples": 61}},
        "attributes.examples: 61 with footwear and 61 without asked for, train has 60 and 140",
    ),
    "an attribute of all classes": (
        {"attributes": {"groups": [{"name": "any", "having": list(embedded.CLASSES)}]}},
        "attributes.examples: 50 with any and 50 without asked for, train has 200 and 0",
    ),
    "an attribute of no class": (
        {"attributes": {"groups": [{"name": "hats", "having": ["Hat"]}]}},
        "attributes.groups.hats: no class Hat; the data has T-shirt/top, Trouser,",
    ),
}  # fmt: skip


@pytest.mark.parametrize("overlay, complaint", WRONG.values(), ids=WRONG)
def test_the_demo_with_one_thing_wrong(overlay: dict[str, Any], complaint: str, here: Path) -> None:
    write_idx(Path("images-idx3-ubyte.gz"), np.zeros((2, 28, 28), np.uint8))
    Path("images-idx3-ubyte").write_bytes(gzip.decompress(Path("images-idx3-ubyte.gz").read_bytes()))
    assert complaint in said(overlay)


def test_all_complaints_are_in_one_line(here: Path) -> None:
    line = said({"figures": {"figure1_class": 10}, "table3": {"subsets": [3]}, "sampling": {"steps": 5000}})
    assert [key for key in ("figures.figure1_class: ", "table3.subsets: ", "sampling.steps: ") if key in line]
    assert line.count("; ") >= 2


@pytest.mark.parametrize("part", ["augmentation", "attributes", "masks"])
def test_what_no_part_wants_is_not_looked_at(part: str, here: Path) -> None:
    overlays: dict[str, dict[str, Any]] = {
        "augmentation": {"table4": [], "figures": {"figure1_class": 99}, "sampling": {"steps": 5000},
                         "table3": {"architecture": "none", "subsets": [9]}},
        "attributes": {"attributes": {"groups": [{"name": "a", "having": ["b"]}], "taps": {"blocks": ["up9"]}},
                       "table1": {"subsets": [9], "steps": [5000]}},
        "masks": {"masks": {"data": {"kind": "few-shot", "few_shot": {"root": "gone"}}, "taps": {"blocks": ["up9"]}},
                  "table2": {"subsets": [9], "steps": [5000]}},
    }  # fmt: skip
    others = [overlay for name, overlay in overlays.items() if name != part]
    check(experiment({"parts": [part]}, *others))
    assert said({"parts": [part]}, overlays[part]).count("; ") >= 2


@pytest.mark.parametrize("threshold, warned", [(0.09, True), (0.1, False), (0.5, False)])
def test_a_threshold_below_chance_is_a_warning(
    threshold: float, warned: bool, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check(experiment({"synthesis": {"threshold": threshold}}))
    line = "ddrep: warning: synthesis.threshold: 0.09 is below chance, which is 0.1 for 10 classes: "
    told = capsys.readouterr().err
    assert told.startswith(line) and told.count("\n") == 1 if warned else told == ""


@pytest.mark.parametrize("name", ["results", "results/fashion-demo"])
@pytest.mark.parametrize("link", [False, True])
def test_what_lies_where_results_go(name: str, link: bool, here: Path) -> None:
    (here / name).parent.mkdir(exist_ok=True)
    (here / name).symlink_to("gone") if link else (here / name).touch()
    with pytest.raises(UserError, match=f"^{name}: a file, or a link to nothing, where results are to be written"):
        check(Experiment())

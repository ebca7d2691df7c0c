"""The segmenter: what it computes, its file, and the one that comes with ddrep."""

import numpy as np
import pytest
import torch

from ddrep.config import EmbeddedMasks, MaskData
from ddrep.data import embedded
from ddrep.data.datasets import masked
from ddrep.errors import UserError
from ddrep.evaluation.segmentation import confusion, miou, pixel_accuracy
from ddrep.networks.architectures import SegmentationNet, build
from ddrep.networks.measures import Segmenter
from ddrep.networks.metadata import SegmenterMeta
from tests import tiny

SHIPPED = embedded.FOLDER / "segmenter.safetensors"


def _untrained(image_shape=(8, 8, 1), width=6) -> Segmenter:
    torch.manual_seed(0)
    meta = SegmenterMeta(image_shape=image_shape, classes=("none", *tiny.CLASSES), width=width)
    return Segmenter(build(meta).eval().requires_grad_(False), meta)


def test_label_maps_are_the_likeliest_classes():
    segmenter, images = _untrained(), tiny.images("test", per_class=4).images
    x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        bias = segmenter.net.get_parameter("last.1.bias")
        bias.sub_(segmenter.net(x).mean((0, 2, 3)))  # or one class would win everywhere
        expected = segmenter.net(x).numpy().argmax(1)
    found = segmenter.label_maps(images, batch=5)
    assert found.dtype == np.uint8 and len(np.unique(found)) > 2
    np.testing.assert_array_equal(found, expected)
    assert segmenter.label_maps(images[:0]).shape == (0, 8, 8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (50, 37, 3), (256, 256, 3)])
def test_every_pixel_sees_the_whole_image_at_any_size(shape):
    """The gradient of a corner's logit reaches the opposite corner."""
    torch.manual_seed(0)
    net = SegmentationNet(shape, num_classes=3, width=4).eval()
    x = torch.randn(1, shape[2], *shape[:2], requires_grad=True)
    out = net(x)
    assert out.shape == (1, 3, *shape[:2])
    out[0, 0, 0, 0].backward()
    assert x.grad is not None and x.grad[0, :, -3:, -3:].abs().max() > 0


def test_saving_and_loading_changes_nothing(tmp_path):
    segmenter, images = _untrained(), tiny.images("test", per_class=2).images
    segmenter.save(tmp_path / "a.safetensors")
    again = Segmenter.load(tmp_path / "a.safetensors")
    assert again.meta == segmenter.meta and not again.net.training and again.classes == ("none", *tiny.CLASSES)
    np.testing.assert_array_equal(again.label_maps(images), segmenter.label_maps(images))


@pytest.mark.parametrize("kind", ["missing", "evaluator", "garbage"])
def test_a_file_that_is_no_segmenter_is_named(tmp_path, kind):
    path = embedded.FOLDER / "evaluator.safetensors" if kind == "evaluator" else tmp_path / kind
    if kind == "garbage":
        path.write_bytes(b"garbage" * 10)
    with pytest.raises(UserError, match=rf"{kind}.*: .* expected a segmenter; .*`ddrep segmenter`") as said:
        Segmenter.load(path)
    assert "\n" not in str(said.value)


def test_images_of_another_size_are_refused():
    with pytest.raises(UserError, match="images are 28x28x1 uint8, expected 8x8x1") as said:
        _untrained().label_maps(np.zeros((2, 28, 28, 1), np.uint8))
    assert "\n" not in str(said.value)


def test_the_shipped_one_finds_the_garments():
    """Its agreement with the masks of all 10,000 official test images is in its metadata; ours are 5,000 of them."""
    segmenter, test = Segmenter.load(SHIPPED), masked(MaskData(embedded=EmbeddedMasks(test=1000)), "test", 0)
    assert segmenter.classes == test.classes
    provenance = segmenter.meta.provenance
    assert provenance is not None
    said = provenance["validation"]
    assert said["n"] == 10_000 and said["miou"] > 0.85 and said["pixel_accuracy"] > 94
    counts = confusion(segmenter.label_maps(test.images), test.masks, len(test.classes))
    assert miou(counts) == pytest.approx(said["miou"], abs=0.03)
    assert 100 * pixel_accuracy(counts) == pytest.approx(said["pixel_accuracy"], abs=2)


def test_the_shipped_one_tells_where_it_comes_from():
    provenance = Segmenter.load(SHIPPED).meta.provenance
    assert provenance is not None and provenance["images"] == 60_000
    assert provenance["command"] == "python -m ddrep.data.embedded.evaluators"

"""The evaluator: what it computes, its file, and the one that comes with ddrep."""

import numpy as np
import pytest
import torch
from sklearn import metrics

from ddrep.config import Data
from ddrep.data import embedded
from ddrep.data.readers import labelled
from ddrep.errors import UserError
from ddrep.evaluation.frechet import MINIMUM
from ddrep.networks.architectures import build, evaluator_cnn
from ddrep.networks.measures import Evaluator
from ddrep.networks.metadata import EvaluatorMeta
from tests import tiny

SHIPPED = embedded.FOLDER / "evaluator.safetensors"


def _untrained(image_shape=(8, 8, 1), width=6) -> Evaluator:
    torch.manual_seed(0)
    meta = EvaluatorMeta(name="tiny", image_shape=image_shape, classes=tiny.CLASSES, width=width)
    return Evaluator(build(meta).eval().requires_grad_(False), meta)


def test_features_are_what_the_classes_are_told_by():
    evaluator, images = _untrained(), tiny.images("test", per_class=4).images
    x = torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        expected = evaluator.net(x).double().softmax(1).numpy()
    features, p = evaluator.features(images, batch=5), evaluator.probabilities(images)
    assert features.shape == (12, 6) and features.dtype == p.dtype == np.float64
    assert features.std(0).max() > 1e-3
    np.testing.assert_allclose(p, expected, atol=1e-6)
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-12)
    weight, bias = (evaluator.net[-1].get_parameter(name).double().numpy() for name in ("weight", "bias"))
    logits = features @ weight.T + bias
    np.testing.assert_allclose(p, torch.from_numpy(logits).softmax(1).numpy(), atol=1e-12)


def test_no_image_is_no_row():
    evaluator = _untrained()
    none = np.zeros((0, 8, 8, 1), np.uint8)
    assert evaluator.features(none).shape == (0, 6) and evaluator.probabilities(none).shape == (0, 3)


@pytest.mark.parametrize("shape", [(28, 28, 1), (64, 64, 3), (218, 178, 3), (256, 256, 3)])
def test_any_size_has_far_fewer_features_than_the_fewest_images(shape):
    net = evaluator_cnn(shape, num_classes=2, width=24)
    last = net[-1]
    assert isinstance(last, torch.nn.Linear) and last.in_features <= MINIMUM / 7
    with torch.device("meta"):
        hidden = net.to("meta")[:-3](torch.zeros(1, shape[2], *shape[:2]))
    assert min(hidden.shape[2:]) in range(4, 9)


def test_saving_and_loading_changes_nothing(tmp_path):
    evaluator, images = _untrained(), tiny.images("test", per_class=2).images
    evaluator.save(tmp_path / "a.safetensors")
    again = Evaluator.load(tmp_path / "a.safetensors")
    assert again.meta == evaluator.meta and not again.net.training
    assert again.metric == "FD-tiny" and again.classes == tiny.CLASSES
    np.testing.assert_array_equal(again.features(images), evaluator.features(images))
    again.save(tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize("kind", ["missing", "denoiser", "garbage"])
def test_a_file_that_is_no_evaluator_is_named(tmp_path, kind):
    path = tmp_path / kind
    if kind == "denoiser":
        tiny.denoiser().save(path)
    elif kind == "garbage":
        path.write_bytes(b"garbage" * 10)
    with pytest.raises(UserError, match=rf"{kind}: .* expected an evaluator; train one with `ddrep evaluator`") as said:
        Evaluator.load(path)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (2, 8, 8, 3)])
def test_images_of_another_size_are_refused(shape):
    for ask in (_untrained().features, _untrained().probabilities):
        with pytest.raises(UserError, match=r"images are .* expected 8x8x1 uint8") as said:
            ask(np.zeros(shape, np.uint8))
        assert "\n" not in str(said.value)


def test_the_shipped_one_knows_the_test_images():
    """Its accuracy on all 10,000 official test images is in its metadata; ours are 5,000 of them."""
    evaluator, test = Evaluator.load(SHIPPED), labelled(Data(), "test", 0, 0)
    assert evaluator.metric == "FD-fashion-cnn" and evaluator.classes == test.classes
    p = evaluator.probabilities(test.images)
    provenance = evaluator.meta.provenance
    assert provenance is not None
    said = provenance["validation"]
    assert said["n"] == 10_000 and said["top1"] > 92
    assert metrics.accuracy_score(test.labels, p.argmax(1)) == pytest.approx(said["top1"] / 100, abs=0.01)
    assert metrics.log_loss(test.labels, p) == pytest.approx(said["cross_entropy"], abs=0.02)
    assert said["expected_calibration_error"] < 0.03


def test_the_shipped_one_tells_where_it_comes_from():
    provenance = Evaluator.load(SHIPPED).meta.provenance
    assert provenance is not None and provenance["command"] == "python -m ddrep.data.embedded.evaluators"
    assert provenance["images"] == 60_000 and len(provenance["sha256"]) == 2
    assert SHIPPED.stat().st_size < 1_000_000

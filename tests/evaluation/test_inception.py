"""Inception through torch-fidelity: with random weights in its own format, for the published ones cannot be shipped."""

import hashlib

import numpy as np
import pytest
import torch
from torch_fidelity import feature_extractor_inceptionv3 as theirs

from ddrep.errors import UserError
from ddrep.evaluation import inception
from ddrep.evaluation.inception import Inception
from tests import tiny


class Untrained(theirs.FeatureExtractorInceptionV3):
    """torch-fidelity's network with the weights it is initialised with: it has no other way to be made."""

    def load_state_dict(self, *_, **__):
        pass


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    torch.manual_seed(0)
    net = Untrained("x", ["2048"], feature_extractor_weights_path=str(folder / "none.pth"))
    torch.save(net.state_dict(), folder / "random.pth")
    return folder / "random.pth"


@pytest.fixture(autouse=True)
def _no_download(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(theirs, "load_state_dict_from_url", refuse)


def test_grey_and_coloured_images_have_torch_fidelitys_features(weights):
    extractor = theirs.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(weights))
    net = Inception.load(weights)
    grey = tiny.images("test", per_class=1).images
    coloured = np.concatenate([grey, 255 - grey, grey // 2], axis=3)
    for images in (grey, coloured):
        rgb = torch.from_numpy(np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2).copy())
        expected = extractor(rgb)[0].numpy()
        found = net.features(images, batch=2)
        assert found.shape == (3, 2048) and found.dtype == np.float64 and found.std(axis=0).max() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert net.features(grey[:0]).shape == (0, 2048)


def test_the_distance_is_called_fid_with_the_published_weights_alone(weights, monkeypatch):
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert Inception.load(weights).metric == f"FD-inception-{digest[:8]}"
    monkeypatch.setattr(inception, "PUBLISHED", digest)
    assert Inception.load(weights).metric == "FID"


class Runs:
    """A pickle that makes a file when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("kind", ["missing", "garbage", "other", "code"])
def test_another_file_is_one_line_and_runs_nothing(tmp_path, kind):
    path, sign = tmp_path / f"{kind}.pth", tmp_path / "ran"
    if kind == "garbage":
        path.write_bytes(b"garbage" * 10)
    elif kind != "missing":
        torch.save({"weight": torch.zeros(3)} if kind == "other" else Runs(sign), path)
    with pytest.raises(UserError, match=rf"{kind}\.pth: no.*expected torch-fidelity's weights-inception") as said:
        Inception.load(path)
    assert "\n" not in str(said.value) and not sign.exists()


def test_what_is_loaded_is_what_was_looked_at(weights, tmp_path, monkeypatch):
    """A link that leads elsewhere from the second look on."""
    sign, looked = tmp_path / "ran", torch.load
    torch.save(Runs(sign), tmp_path / "code.pth")
    (tmp_path / "link.pth").symlink_to(weights)

    def look(*args, **options):
        found = looked(*args, **options)
        (tmp_path / "link.pth").unlink(missing_ok=True)
        (tmp_path / "link.pth").symlink_to(tmp_path / "code.pth")
        return found

    monkeypatch.setattr(torch, "load", look)
    assert (
        Inception.load(tmp_path / "link.pth").metric
        == f"FD-inception-{hashlib.sha256(weights.read_bytes()).hexdigest()[:8]}"
    )
    assert not sign.exists()

"""The Fréchet distance against closed forms, scipy's square root of a matrix, and torch-fidelity from end to end."""

import numpy as np
import pytest
import torch
import torch_fidelity
from scipy.linalg import sqrtm
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from ddrep.config import Data
from ddrep.data import embedded
from ddrep.data.readers import labelled
from ddrep.errors import UserError
from ddrep.evaluation.frechet import MINIMUM, SPLITS, floor, frechet_distance
from ddrep.networks.measures import Evaluator

SHIPPED = embedded.FOLDER / "evaluator.safetensors"


def _normal(rng: np.random.Generator, n: int, mean: np.ndarray, root: np.ndarray) -> np.ndarray:
    """n samples whose sample mean and covariance are exactly `mean` and root @ root.T."""
    x = rng.standard_normal((n, len(mean)))
    x -= x.mean(0)
    white = np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False)))
    return mean + x @ white.T @ root.T


def test_gaussians_with_commuting_covariances_have_the_closed_form():
    """|m1 - m2|^2 + sum (s1 - s2)^2 for standard deviations s along common axes."""
    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    means, deviations = rng.standard_normal((2, 6)), rng.uniform(0.2, 3, (2, 6))
    a, b = (_normal(rng, 1000, m, axes * s) for m, s in zip(means, deviations, strict=True))
    expected = ((means[0] - means[1]) ** 2).sum() + ((deviations[0] - deviations[1]) ** 2).sum()
    assert frechet_distance(a, b, seed=0) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(a, a, seed=0) == pytest.approx(0, abs=1e-9)


def test_any_covariances_give_scipys_formula():
    rng = np.random.default_rng(1)
    a, b = (_normal(rng, 1200, rng.standard_normal(20), rng.standard_normal((20, 20))) for _ in range(2))
    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    cross = np.trace(sqrtm(first @ second)).real
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * cross
    assert frechet_distance(a, b, seed=0) == pytest.approx(expected, rel=1e-8)


class Shipped(FeatureExtractorBase):
    """The shipped evaluator as torch-fidelity wants it: uint8 (N, C, H, W) in, a tuple of float32 features out."""

    def __init__(self, name, features_list, **_):
        super().__init__(name, features_list)
        self.evaluator = Evaluator.load(SHIPPED)

    def forward(self, x):
        return (torch.from_numpy(self.evaluator.features(x.permute(0, 2, 3, 1).numpy())).float(),)

    @staticmethod
    def get_provided_features_list():
        return ("hidden",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "hidden"

    @staticmethod
    def can_be_compiled():
        return False


class Images(torch.utils.data.Dataset):
    def __init__(self, images):
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return self.images[i]


def test_images_give_what_torch_fidelity_says_of_them():
    images = labelled(Data(), "test", 0, 0).images[:2000]
    dark = (images[1000:] * 0.8).astype(np.uint8)
    torch_fidelity.register_feature_extractor("shipped", Shipped)
    said = torch_fidelity.calculate_metrics(
        input1=Images(images[:1000]), input2=Images(dark), fid=True, feature_extractor="shipped", cuda=False,
        cache=False, save_cpu_ram=True, verbose=False, batch_size=250,
    )["frechet_inception_distance"]  # fmt: skip
    evaluator = Evaluator.load(SHIPPED)
    ours = frechet_distance(evaluator.features(images[:1000]), evaluator.features(dark), seed=0)
    assert ours == pytest.approx(said, rel=1e-4) and said > 1e-3


def test_the_larger_set_is_cut_to_the_smaller():
    rng = np.random.default_rng(2)
    many, few = rng.standard_normal((3000, 4)), rng.standard_normal((1500, 4)) + 0.3
    there, back = frechet_distance(many, few, seed=0), frechet_distance(few, many, seed=0)
    assert there == pytest.approx(back, rel=1e-9)
    assert there == frechet_distance(many, few, seed=0)
    assert there != frechet_distance(many, few, seed=1)


def test_rows_are_drawn_without_repetition():
    """Of 21 rows 20 are drawn: it is the distance of all but one of them."""
    rng = np.random.default_rng(3)
    many, few = rng.standard_normal((21, 2)), rng.standard_normal((20, 2))
    all_but_one = [frechet_distance(np.delete(many, i, 0), few, seed=0, minimum=20) for i in range(21)]
    drawn = {frechet_distance(many, few, seed, minimum=20) for seed in range(5)}
    assert len(drawn) > 1 and all(min(abs(v - w) for w in all_but_one) < 1e-12 for v in drawn)


@pytest.mark.parametrize("sizes", [(MINIMUM - 1, 5000), (5000, MINIMUM - 1)])
def test_too_few_images_are_refused(sizes):
    a, b = (np.random.default_rng(n).standard_normal((n, 3)) for n in sizes)
    with pytest.raises(UserError, match=f"{sizes[0]} real and {sizes[1]} generated images, expected {MINIMUM}") as said:
        frechet_distance(a, b, seed=0)
    assert "\n" not in str(said.value)
    assert frechet_distance(a, b, seed=0, minimum=500) > 0


def _floor(real: np.ndarray, n: int, seed: int) -> tuple[float, float]:
    """Of enough images."""
    found = floor(real, n, seed)
    assert found is not None
    return found


def test_the_floor_is_the_distance_of_disjoint_sets_of_real_images():
    real = np.random.default_rng(3).standard_normal((3000, 8))
    rng = np.random.default_rng(0)
    values = []
    for _ in range(SPLITS):
        rows = rng.permutation(3000)[:2400].reshape(2, 1200)
        values.append(frechet_distance(real[rows[0]], real[rows[1]], seed=0))
    value, spread = _floor(real, 1200, seed=0)
    assert SPLITS > 2
    assert value == pytest.approx(np.mean(values), rel=1e-9)
    assert spread == pytest.approx(np.std(values, ddof=1), rel=1e-6)
    assert 0 < value < 0.1 * frechet_distance(real[:1200], real[1200:] + 0.3, seed=0)


def test_the_floor_of_gaussians_is_its_leading_term():
    """Identity covariance, D features, n samples: 2 D / n from the means and D (D + 1) / (2 n) from the covariances."""
    n, d = 2000, 12
    floors = [_floor(np.random.default_rng(seed).standard_normal((2 * n, d)), n, seed) for seed in range(4)]
    expected = 2 * d / n + d * (d + 1) / (2 * n)
    assert np.mean([value for value, _ in floors]) == pytest.approx(expected, rel=0.05)
    assert np.mean([spread for _, spread in floors]) < 0.3 * expected


@pytest.mark.parametrize("of", ["normal", "fashion"])
def test_the_floor_of_few_real_images_is_scaled_to_the_number_compared(of):
    """Twice 500 real images tell what twice 1500 say, on Gaussians and on the shipped evaluator's features."""
    if of == "normal":
        real = np.random.default_rng(4).standard_normal((3000, 20)) * np.linspace(0.1, 2, 20)
    else:
        real = Evaluator.load(SHIPPED).features(labelled(Data(), "test", 0, 0).images[:3000])
    measured, _ = _floor(real, 1500, seed=0)
    some = [np.random.default_rng(seed).choice(real, 1000, replace=False) for seed in range(16)]
    scaled = [_floor(part, 1500, seed) for seed, part in enumerate(some)]
    assert np.mean([value for value, _ in scaled]) == pytest.approx(measured, rel=0.1)


def test_there_is_no_floor_where_it_obeys_no_law():
    """Its bias falls as 1/n only well above as many images as features, in the sets compared and in the halves."""
    real = np.random.default_rng(5).standard_normal((200, 20))
    assert floor(real[:40], 1500, seed=0) is None, "too few real images"
    assert floor(real, 20, seed=0) is None, "too few images compared, which was told when all had been drawn"
    assert floor(real[:42], 21, seed=0) is not None

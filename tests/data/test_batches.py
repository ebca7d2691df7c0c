import numpy as np
import pytest
import torch

from ddrep.data.batches import batch_indices, steps_for, stratified, to_unit


@pytest.mark.parametrize(("n", "batch"), [(10, 4), (7, 7), (3, 8), (100, 32), (1, 2), (65, 64)])
def test_every_batch_is_full_and_no_image_is_favoured(n, batch):
    counts = np.zeros(n, int)
    for step in range(3 * n):
        rows = batch_indices(n, batch, step, seed=5)
        assert rows.shape == (batch,)
        np.add.at(counts, rows, 1)
        assert counts.max() - counts.min() <= 1, step


def test_an_epoch_is_a_permutation_and_epochs_and_seeds_differ():
    epochs = [np.concatenate([batch_indices(50, 10, 5 * e + i, seed=1) for i in range(5)]) for e in range(3)]
    assert all(sorted(e) == list(range(50)) for e in epochs)
    assert len({e.tobytes() for e in epochs}) == 3
    assert not np.array_equal(epochs[0][:10], batch_indices(50, 10, 0, seed=2))


def test_a_step_is_known_without_those_before_it():
    in_order = [batch_indices(30, 7, step, seed=3) for step in range(20)]
    for step in reversed(range(20)):
        np.testing.assert_array_equal(batch_indices(30, 7, step, seed=3), in_order[step])


@pytest.mark.parametrize("sizes", [(60, 60, 60), (1, 500, 3, 96), (1,) * 7, (50,), (0, 9, 2)], ids=str)
def test_each_class_has_its_share_of_a_stratified_draw(sizes):
    labels, total = np.repeat(np.arange(len(sizes)), sizes), sum(sizes)
    for order in (labels, np.random.default_rng(1).permutation(labels)):
        for n in range(total + 2):
            rows = stratified(order, n, seed=n)
            assert len(rows) == min(n, total) and (np.diff(rows) > 0).all(), "in order, none twice"
            got = np.bincount(order[rows], minlength=len(sizes))
            share = min(n, total) * np.array(sizes) / total
            assert ((np.floor(share) <= got) & (got <= np.ceil(share))).all()


def test_the_seed_chooses_the_images_and_whose_share_is_rounded_up():
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    drawn = [stratified(labels, 7, seed) for seed in range(2000)]
    np.testing.assert_array_equal(drawn[5], stratified(labels, 7, 5))
    often = np.bincount(np.concatenate(drawn), minlength=100) / 2000
    assert abs(often - 0.07).max() < 0.03, "every image is as likely as any other"
    counts = {tuple(np.bincount(labels[rows], minlength=3)) for rows in drawn}
    assert counts == {(3, 2, 2), (4, 2, 1), (3, 3, 1)}, "shares of 3.5, 2.1 and 1.4"


@pytest.mark.parametrize(
    ("epochs", "n", "batch", "steps"), [(1, 64, 64, 1), (1, 65, 64, 2), (40, 500, 64, 313), (0.5, 10, 100, 1)]
)
def test_steps_in_which_every_image_is_seen_that_often(epochs, n, batch, steps):
    assert steps_for(epochs, n, batch) == steps
    assert steps * batch >= epochs * n and (steps == 1 or (steps - 1) * batch < epochs * n)


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1), (2, 4, 5, 3)])
def test_pixels_are_in_minus_one_to_one_channels_first(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images.flat[:2] = 0, 255
    x = to_unit(images)
    assert x.dtype == torch.float32 and x.shape == (2, shape[3] if len(shape) == 4 else 1, 4, 5)
    expected = images.reshape(2, 4, 5, -1).transpose(0, 3, 1, 2) / 127.5 - 1
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert x.min() == -1 and x.max() == 1

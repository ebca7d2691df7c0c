"""Shards as torch data sets, by number and as a stream, with what webdataset reads of the same files as the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset as wds
from torch.utils.data import DataLoader

import ddrep
from ddrep.data.shards import LabelledImages, write_shard
from tests import tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three shards of 7 images each."""
    whole = tiny.images(per_class=7)
    for k in range(3):
        write_shard(tmp_path / f"{k}.tar", whole.take(range(k, 21, 3)))
    return tmp_path


def webdataset(folder: Path) -> list[tuple[np.ndarray, int]]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    pairs = wds.WebDataset(urls, shardshuffle=False).decode("l8").to_tuple("png", "cls")
    return [(np.asarray(image), int(label)) for image, label in pairs]


def test_by_number_and_as_a_stream_it_is_what_webdataset_reads(folder: Path) -> None:
    shards, known = ddrep.Shards(str(folder)), webdataset(folder)
    assert len(shards) == len(known) == 21 and shards.classes == tiny.images().classes
    for items in ([shards[i] for i in range(21)], list(shards), list(shards.stream())):
        assert [label for _, label in items] == [label for _, label in known]
        for (image, _), (pixels, _) in zip(items, known, strict=True):
            assert image.shape == (1, 8, 8) and image.dtype == torch.float32
            np.testing.assert_allclose((image[0].numpy() + 1) * 127.5, pixels, atol=1e-4)
    with pytest.raises(IndexError):
        shards[21]


def test_a_loader_shuffles_it_and_workers_share_a_stream(folder: Path) -> None:
    shards = ddrep.Shards(folder, transform=lambda image: int(image.astype(int).sum()))
    plain = sorted((image, label) for image, label in shards)
    shuffled = DataLoader(shards, batch_size=4, shuffle=True, generator=torch.Generator().manual_seed(0))
    streamed = DataLoader(shards.stream(), batch_size=4, num_workers=2)
    for loader in (shuffled, streamed):
        found = [pair for images, labels in loader for pair in zip(images.tolist(), labels.tolist(), strict=True)]
        assert sorted(found) == plain
    (images, labels) = next(iter(DataLoader(ddrep.Shards(folder), batch_size=4)))
    assert images.shape == (4, 1, 8, 8) and labels.dtype == torch.int64


def test_soft_labels_are_probabilities(tmp_path: Path) -> None:
    hard = tiny.images(per_class=2)
    soft = np.random.default_rng(0).dirichlet(np.ones(3), 6).astype(np.float16)
    write_shard(tmp_path / "a.tar", LabelledImages(hard.images, hard.labels, hard.keys, hard.classes, soft))
    shards = ddrep.Shards(tmp_path / "a.tar")
    for items in ([shards[i] for i in range(6)], list(shards)):
        said = np.stack([label for _, label in items])
        assert said.dtype == np.float32
        np.testing.assert_allclose(said, soft, atol=1e-3)
        np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-6)


def test_what_is_no_set_of_shards(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, complaint in (
        ([], "^shards: no .tar there"),
        (tmp_path / "empty", "empty: no .tar there; make some with `ddrep data`"),
        (tmp_path / "none.tar", "none.tar: no such shard"),
    ):
        with pytest.raises(ddrep.UserError, match=complaint):
            ddrep.Shards(path)
    other = tiny.images(classes=2)
    write_shard(folder / "3.tar", other)
    with pytest.raises(ddrep.UserError, match=r"3.tar: other classes than .*0.tar"):
        ddrep.Shards(folder)
    (folder / "3.tar").write_bytes((folder / "2.tar").read_bytes()[:8000])
    cut = ddrep.Shards(folder)
    for read in (lambda: cut[0], lambda: list(cut)):
        with pytest.raises(ddrep.UserError, match=r"3.tar: .*; (make it again|delete)"):
            read()

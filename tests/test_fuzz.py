"""Files changed at random: each is read, or refused in one line that names it.

Few cases here, for the CI; `DDREP_FUZZ=100000 pytest tests/test_fuzz*.py` for as many as there is time for.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ddrep.config import CsvFile, Experiment, TinyImageNet, WebDatasetFiles, load, parse
from ddrep.data.decoding import fitted
from ddrep.data.idx import idx_bytes, read_idx, write_idx
from ddrep.data.listing import decoded, read
from ddrep.data.masks import MaskedImages, read_masked_shards, write_masked_shard
from ddrep.data.readers.csv_file import csv_file
from ddrep.data.readers.tiny_imagenet import tiny_imagenet
from ddrep.data.readers.webdataset import webdataset
from ddrep.data.shards import LabelledImages, read_shards, write_shard, write_with_attempts
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.importers import Settings, import_checkpoint
from ddrep.evaluation.scores import read_features, save_features
from ddrep.generators.files import load_generator
from ddrep.generators.import_nvae import import_nvae
from ddrep.generators.importers import import_diffae
from ddrep.own_images.unpack import unpack
from ddrep.reporting.probes import figure
from ddrep.rows import read_rows, read_table
from ddrep.sampling.pool import Pool
from ddrep.sampling.synthesis import TimeGrid
from ddrep.saved import read_json
from ddrep.training.loop import LoopConfig, train
from tests import tiny
from tests.fuzzing import changed_tree, changes, fuzzed, refused_in_one_line
from tests.generators.test_diffae import checkpoint as published_diffae
from tests.generators.test_nvae import checkpoint as published_nvae
from tests.generators.tiny_d2c import d2c

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
KEYS = [f"k{i}" for i in range(6)]
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def _config(path: Path) -> None:
    """The beginning of config.yaml."""
    lines = Path(__file__).parents[1].joinpath("config.yaml").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:60]), encoding="utf-8")


def labelled(soft: bool = False) -> LabelledImages:
    said = np.full((6, 2), 0.5, np.float16) if soft else None
    return LabelledImages(IMAGES, np.arange(6) % 2, KEYS, ("a", "b"), said)


def _shard(path: Path) -> None:
    write_shard(path, labelled())


def _attempts(path: Path) -> None:
    rows = {"key": KEYS, "class": np.arange(6) % 2, "accepted": True}
    write_with_attempts(path.with_suffix(".tar"), labelled(soft=True), pd.DataFrame(rows))


def masks(path: Path) -> None:
    write_masked_shard(path, MaskedImages(IMAGES, IMAGES[..., 0] // 90, KEYS, ("a", "b", "c")))


def _webdataset(path: Path) -> object:
    if not (test := path.with_name("test.tar")).exists():
        write_shard(test, LabelledImages(255 - IMAGES, np.arange(6) % 2, KEYS, ("a", "b")))
    cfg = WebDatasetFiles(train=(path,), test=(test,), size=8, channels=1)
    return read(webdataset(cfg, 0), "train")


def _pool(path: Path) -> object:
    pool = Pool(path.parent, "pool", 0, (1, 8, 8))
    path.rename(pool.folder / "0.npz")
    pool.refresh()
    return pool.images


def imported(path: Path) -> object:
    return import_checkpoint(path, Settings(8, 2, None, False, "cosine", 1000, True))


def checkpoint(path: Path) -> None:
    torch.save(tiny.denoiser(in_channels=3, out_channels=3).net.state_dict(), path)


def _figure(path: Path) -> None:
    figure(reports=[path], out=path.with_name("f.png"))


def _list(path: Path) -> None:
    names = [f"{split}-{label}.png" for split in ("train", "validation", "test") for label in "ab"]
    for name, image in zip(names, IMAGES, strict=True):
        Image.fromarray(image[..., 0]).save(path.with_name(name))
    rows = (f"{name},{name[-5]},{name.partition('-')[0]}\n" for name in names)
    path.write_text("path,label,split\n" + "".join(rows), encoding="utf-8")


def _zip(path: Path) -> None:
    """A Tiny ImageNet of two classes."""
    content, names = io.BytesIO(), ("n1", "n2")
    Image.fromarray(IMAGES[0, ..., 0]).save(content, "PNG")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("t/wnids.txt", "n1\nn2\n")
        archive.writestr("t/words.txt", "n1\ta\nn2\tb\n")
        archive.writestr("t/val/val_annotations.txt", "v1.png\tn1\nv2.png\tn2\n")
        for name in (*(f"train/{name}/images/{i}.png" for name in names for i in (1, 2)), "val/images/v1.png"):
            archive.writestr(f"t/{name}", content.getvalue())
        archive.writestr("t/val/images/v2.png", content.getvalue()[:-9])


def _unzipped(path: Path) -> object:
    of = {"classes": 2, "train_per_class": 2, "validation_per_class": 1, "test_per_class": 1, "size": 8}
    return read(tiny_imagenet(TinyImageNet(path=path, **of), 0), "test")


def _hugging_face(path: Path) -> None:
    """As the library datasets writes it: images as {bytes, path}, and a class by number."""
    buffer = io.BytesIO()
    Image.fromarray(IMAGES[0, ..., 0]).save(buffer, "PNG")
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    table = pa.table({"image": [{"bytes": buffer.getvalue(), "path": None}] * 4, "label": [0, 1, 0, 1]})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)


def _unpacked(path: Path) -> object:
    shutil.rmtree(out := path.with_name("out"), ignore_errors=True)
    return unpack(path.suffix, [path], out)


def state(path: Path, steps: int = 3) -> torch.nn.Module:
    """A training that keeps its state behind each step, and goes on where one is there."""
    torch.manual_seed(0)
    net = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(net.parameters(), 0.1)
    cfg = LoopConfig(steps=steps, seed=0, ema_decay=0.9, save_every=0 if steps == 3 else 9)
    return train(net, optimizer, lambda step: net(torch.ones(4, 3)).square().mean(), cfg, state=path)


ROWS = {"name": ["a", "b"], "n": [1, 2], "p": [0.5, 0.25], "good": [True, False]}
KINDS: dict[str, Any] = {"name": "text", "n": "whole", "p": "number", "good": "flag"}
PROBES = {"tried": [{"block": "up1", "timestep": 100, "top1": 50.0}, {"block": "up2", "timestep": 9, "top1": 40.0}]}
GRID = {"levels": [900, 500, 100], "cost": 1.0, "cost_even": 2.0, "denoiser_sha256": "0" * 64}
READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object], int]] = {
    "config": ("c.yaml", _config, load, 10),
    "idx": ("a.idx", lambda p: p.write_bytes(idx_bytes(IMAGES[..., 0])), read_idx, 40),
    "gzipped idx": ("a.gz", lambda p: write_idx(p, IMAGES[..., 0]), read_idx, 40),
    "shard": ("s.tar", _shard, lambda p: read_shards([p]), 40),
    "soft labels": ("s.tar", lambda p: write_shard(p, labelled(soft=True)), lambda p: read_shards([p]), 20),
    "masks": ("m.tar", masks, lambda p: read_masked_shards([p]), 20),
    "attempts": ("s.parquet", _attempts, lambda p: read_shards([p.with_suffix(".tar")]), 20),
    "webdataset": ("w.tar", _shard, _webdataset, 40),
    "list": ("l.csv", _list, lambda p: read(csv_file(CsvFile(path=p, size=8, channels=1), 0), "train"), 20),
    "zip": ("t.zip", _zip, _unzipped, 20),
    "packed tar": ("s.tar", _shard, _unpacked, 20),
    "hugging face": ("t.parquet", _hugging_face, _unpacked, 20),
    "arrow": ("t.arrow", _hugging_face, _unpacked, 20),
    "rows": ("r.parquet", lambda p: pd.DataFrame(ROWS).to_parquet(p), lambda p: read_rows(p, KINDS, "rows"), 40),
    "table": ("r.parquet", lambda p: pd.DataFrame(ROWS).to_parquet(p), read_table, 20),
    "features": ("f.npz", lambda p: save_features(p, "x", np.ones((4, 3)), np.arange(4)), read_features, 40),
    "pool": ("0.npz", lambda p: np.savez(p, attempts=np.zeros((6, 2), int), images=IMAGES), _pool, 20),
    "json": ("g.json", lambda p: p.write_text(json.dumps(GRID)), lambda p: read_json(p, TimeGrid, "a grid"), 20),
    "probes": ("p.json", lambda p: p.write_text(json.dumps(PROBES)), _figure, 3),
    "denoiser": ("d.safetensors", lambda p: tiny.denoiser().save(p), Denoiser.load, 15),
    "generator": ("g.safetensors", lambda p: d2c().save(p), load_generator, 10),
    "checkpoint": ("d.pt", checkpoint, imported, 15),
    "diffae checkpoint": ("last.ckpt", published_diffae, import_diffae, 5),
    "nvae checkpoint": ("checkpoint.pt", published_nvae, import_nvae, 5),
    "state": ("s.pt", state, lambda p: state(p, 4), 15),
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_a_changed_file_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    name, write, reader, cases = READERS[kind]
    write(tmp_path / name)
    whole = (tmp_path / name).read_bytes()
    if kind != "config":  # whose end is missing
        reader(tmp_path / name)

    @fuzzed(cases)
    @given(changes())
    def one(changed: Callable[[bytes], bytes]) -> None:
        path = tmp_path / name
        path.write_bytes(changed(whole))
        with refused_in_one_line(name, path.with_suffix("").name + ".", "data.webdataset"):
            reader(path)

    one()


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_image_is_pixels_or_one_complaint(form: str) -> None:
    content = io.BytesIO()
    Image.fromarray(IMAGES[0, ..., 0]).save(content, form)

    @fuzzed(20)
    @given(changes())
    def one(changed: Callable[[bytes], bytes]) -> None:
        spoilt = changed(content.getvalue())
        contents = [(0, lambda: spoilt)]
        pixels, complaints = decoded("here", "train", ["x"], contents, lambda image: fitted(image, 8, 1), (8, 8, 1))
        assert pixels.shape == (1, 8, 8, 1) and len(complaints) < 2 and not any("\n" in said for said in complaints)

    one()


@fuzzed(60)
@given(st.data())
def test_settings_of_any_value_are_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """A value anywhere in the tree of settings, as Snakemake hands it over."""
    with refused_in_one_line(most=20_000):
        parse(changed_tree(data, Experiment().model_dump(mode="json")))

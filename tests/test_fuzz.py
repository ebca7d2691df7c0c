"""Files changed at random: each is read, or refused in one line that names it.

Few cases here, for the CI; `DDREP_FUZZ=100000 pytest tests/test_fuzz.py` for as many as there is time for.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ddrep.config import WebDatasetFiles, load
from ddrep.data.decoding import fitted
from ddrep.data.idx import idx_bytes, read_idx, write_idx
from ddrep.data.listing import decoded, read
from ddrep.data.readers.webdataset import webdataset
from ddrep.data.shards import LabelledImages, read_shards, write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.denoiser.importers import Settings, import_checkpoint
from ddrep.errors import UserError
from ddrep.evaluation.scores import read_features, save_features
from ddrep.rows import read_rows
from ddrep.sampling.pool import Pool
from tests import tiny

CASES = int(os.environ.get("DDREP_FUZZ", "0"))
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1), np.uint8)
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")


def _fuzzed(cases: int) -> Callable[[Any], Any]:
    quiet = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=CASES or cases, deadline=None, derandomize=not CASES, suppress_health_check=quiet)


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Some bytes of a file replaced, its end cut off, a piece of it twice."""
    at = st.floats(0, 1, exclude_max=True)
    bytes_at = draw(st.lists(st.tuples(at, st.integers(0, 255)), max_size=8))
    begins, cut = draw(st.lists(st.tuples(st.integers(0, 511), st.integers(0, 255)), max_size=4)), draw(st.none() | at)
    twice = draw(st.none() | st.tuples(at, at))

    def changed(content: bytes) -> bytes:
        spoilt = bytearray(content)
        for where, byte in [(int(share * len(content)), byte) for share, byte in bytes_at] + begins:
            if where < len(spoilt):
                spoilt[where] = byte
        if twice:
            start, end = sorted(int(share * len(content)) for share in twice)
            spoilt[end:end] = spoilt[start : min(end, start + 4096)]
        return bytes(spoilt if cut is None else spoilt[: int(cut * len(spoilt))])

    return changed


def _config(path: Path) -> None:
    """The beginning of config.yaml."""
    lines = Path(__file__).parents[1].joinpath("config.yaml").read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(lines[:60]), encoding="utf-8")


def _shard(path: Path) -> None:
    write_shard(path, LabelledImages(IMAGES, np.arange(6) % 2, [f"k{i}" for i in range(6)], ("a", "b")))


def _webdataset(path: Path) -> object:
    if not (test := path.with_name("test.tar")).exists():
        other = LabelledImages(255 - IMAGES, np.arange(6) % 2, [f"k{i}" for i in range(6)], ("a", "b"))
        write_shard(test, other)
    cfg = WebDatasetFiles(train=(path,), test=(test,), size=8, channels=1)
    return read(webdataset(cfg, 0), "train")


def _pool(path: Path) -> object:
    pool = Pool(path.parent, "pool", 0, (1, 8, 8))
    path.rename(pool.folder / "0.npz")
    pool.refresh()
    return pool.images


def _imported(path: Path) -> object:
    return import_checkpoint(path, Settings(image_size=8, num_heads=2, schedule="cosine", num_steps=1000))


ROWS = {"name": ["a", "b"], "n": [1, 2], "p": [0.5, 0.25], "good": [True, False]}
KINDS: dict[str, Any] = {"name": "text", "n": "whole", "p": "number", "good": "flag"}
READERS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], object], int]] = {
    "config": ("c.yaml", _config, load, 10),
    "idx": ("a.idx", lambda p: p.write_bytes(idx_bytes(IMAGES[..., 0])), read_idx, 40),
    "gzipped idx": ("a.gz", lambda p: write_idx(p, IMAGES[..., 0]), read_idx, 40),
    "shard": ("s.tar", _shard, lambda p: read_shards([p]), 40),
    "webdataset": ("w.tar", _shard, _webdataset, 40),
    "rows": ("r.parquet", lambda p: pd.DataFrame(ROWS).to_parquet(p), lambda p: read_rows(p, KINDS, "rows"), 40),
    "features": ("f.npz", lambda p: save_features(p, "x", np.ones((4, 3)), np.arange(4)), read_features, 40),
    "pool": ("0.npz", lambda p: np.savez(p, attempts=np.zeros((6, 2), int), images=IMAGES), _pool, 20),
    "denoiser": ("d.safetensors", lambda p: tiny.denoiser().save(p), Denoiser.load, 15),
    "checkpoint": ("d.safetensors", lambda p: tiny.denoiser().save(p), _imported, 10),
}  # fmt: skip


@pytest.mark.parametrize("kind", READERS)
def test_a_changed_file_is_read_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    name, write, reader, cases = READERS[kind]
    write(tmp_path / name)
    whole = (tmp_path / name).read_bytes()

    @_fuzzed(cases)
    @given(changes())
    def one(changed: Callable[[bytes], bytes]) -> None:
        path = tmp_path / name
        path.write_bytes(changed(whole))
        try:
            reader(path)
        except UserError as e:
            assert "\n" not in str(e) and len(str(e)) < 5000 and (name in str(e) or "data.webdataset" in str(e))

    one()


@pytest.mark.parametrize("form", FORMATS)
def test_a_changed_image_is_pixels_or_one_complaint(form: str) -> None:
    content = io.BytesIO()
    Image.fromarray(IMAGES[0, ..., 0]).save(content, form)

    @_fuzzed(20)
    @given(changes())
    def one(changed: Callable[[bytes], bytes]) -> None:
        spoilt = changed(content.getvalue())
        contents = [(0, lambda: spoilt)]
        pixels, complaints = decoded("here", "train", ["x"], contents, lambda image: fitted(image, 8, 1), (8, 8, 1))
        assert pixels.shape == (1, 8, 8, 1) and len(complaints) < 2 and not any("\n" in said for said in complaints)

    one()


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just(10**400)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


VALUES = st.recursive(SCALARS, _containers, max_leaves=6)


@_fuzzed(60)
@given(st.data())
def test_settings_of_any_value_are_read_or_refused_in_one_line(data: st.DataObject) -> None:
    """A value anywhere in the tree of settings, as Snakemake hands it over."""
    from ddrep.config import Experiment, parse

    tree: Any = Experiment().model_dump(mode="json")
    at, path = tree, list[Any]()
    while isinstance(at, dict | list) and at and (not path or data.draw(st.integers(0, 3))):
        path.append(data.draw(st.sampled_from(list(at) if isinstance(at, dict) else range(len(at)))))
        at = at[path[-1]]
    inner = tree
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = data.draw(VALUES)
    try:
        parse(tree)
    except UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 20_000

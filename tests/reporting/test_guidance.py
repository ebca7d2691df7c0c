"""Tables 1 and 2 from score files and features whose distances are known in closed form."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ddrep.config import Figure2, GuidanceTable, Stage
from ddrep.data.masks import MaskedImages, write_masked_shard
from ddrep.errors import UserError
from ddrep.evaluation.scores import read_features, save_features
from ddrep.methods import METHODS
from ddrep.reporting import guidance, guidance_figures, paper

SHIFT = {"unguided": 3.0, "ours": 1.0}
"""How far a method's features are from the real ones: the Fréchet distance of two sets that differ by a shift alone is
its square."""


def files(
    folder: Path, n: int = 400, runs: int = 3, features: int = 4, more_real: int = 0
) -> tuple[list[Path], list[Path]]:
    """Scores and features of one attribute, two methods and `runs` subsets, n images of each target in all."""
    rng = np.random.default_rng(0)
    base = rng.normal(size=(n, features))
    known = np.concatenate([base, rng.normal(size=(more_real, features))])
    real = folder / "attributes/footwear/test.npz"
    save_features(real, "FD-x", np.concatenate([known + 50, known]), np.repeat([0, 1], len(known)))
    rows = []
    for subset in range(runs):
        for method, shift in SHIFT.items():
            path = folder / f"subset{subset}/attributes/footwear/0/{method}/20.score.parquet"
            path.parent.mkdir(parents=True)
            part = base[subset::runs] + shift * np.eye(1, features)
            both = np.concatenate([part + 50, part])
            save_features(path.with_name("20.npz"), "FD-x", both, np.repeat([0, 1], len(part)))
            row = {"attribute": "footwear", "method": method, "steps": 20, "subset": subset, "seed": 0, "n": len(part)}
            row |= {"share": 10.0 * subset + (40 if method == "ours" else 0), "attempts": 2 * len(part)}
            pd.DataFrame([{**row, "present": present} for present in (True, False)]).to_parquet(path)
            rows.append(path)
    return rows, [real]


def table_of(
    number: int, scores: list[Path], real: list[Path], minimum: int, outputs: tuple[Path, ...], paper: bool = False
):
    stage = Stage[GuidanceTable](config=GuidanceTable(minimum=minimum, paper=paper))
    named = dict(zip(("out", "summary", "markdown"), outputs, strict=True))
    guidance.run(stage, files=[*scores, *real], number=number, **named)


def made(tmp_path: Path, minimum: int = 300, beside_paper: bool = True) -> tuple[pd.DataFrame, str]:
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    table_of(1, *files(tmp_path), minimum, outputs, beside_paper)
    assert len(pd.read_parquet(outputs[0])) == 12
    return pd.read_parquet(outputs[1]), outputs[2].read_text()


def test_table_1_means_spreads_and_distances_of_all_runs_together(tmp_path: Path) -> None:
    cells, text = made(tmp_path)
    assert cells["present"].tolist() == [True, True, False, False]
    assert cells["method"].tolist() == ["unguided", "ours"] * 2
    assert cells["share"].tolist() == [10, 50] * 2
    assert cells["std"].to_numpy() == pytest.approx(10)
    assert cells["distance"].to_numpy() == pytest.approx([9.0, 1.0] * 2, rel=1e-5)
    assert (cells["distance_n"] == 400).all() and (cells["attempts_per_image"] == 2).all()
    assert (cells["floor"] > 0).all() and (cells["floor"] < 0.5).all()
    assert (cells["floor_std"] > 0).all() and f"{cells['floor'][0]:.2f} ± {cells['floor_std'][0]:.2f}" in text
    assert "FD-x" in text and "50.0 ± 10.0" in text and "DiffAE" in text and "not footwear" in text


def test_too_few_images_give_no_distance_and_say_so(tmp_path: Path) -> None:
    cells, text = made(tmp_path, minimum=1000)
    assert cells["distance"].isna().all()
    assert "No FD-x: it wants 1,000 images of each set, and at most 400 are here." in " ".join(text.split())


@pytest.mark.parametrize("more_real", [0, 400])
def test_too_few_images_for_a_floor_say_so_and_have_their_distance(tmp_path: Path, more_real: int) -> None:
    """FID with 1,000 to 2,048 images once failed when all were drawn; here 300 features, of 250 images."""
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    table_of(1, *files(tmp_path, n=250, features=300, more_real=more_real), 200, outputs)
    cells, text = pd.read_parquet(outputs[1]), " ".join(outputs[2].read_text().split())
    assert cells["floor"].isna().all() and cells["floor_std"].isna().all()
    assert (cells["distance"] > 0).all()
    if not more_real:
        assert cells["distance"].to_numpy() == pytest.approx([9.0, 1.0] * 2, rel=1e-4)
    assert "Where no floor is shown there are too few images for one" in text and "(2,048 of Inception" in text


def test_a_run_given_twice_is_refused(tmp_path: Path) -> None:
    """By its name, or as a copy: it would count as two."""
    rows, real = files(tmp_path, n=9)
    copy = tmp_path / "copy/20.score.parquet"
    shutil.copytree(rows[0].parent, copy.parent)
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    for again in (rows[0], copy):
        with pytest.raises(UserError, match=r"20\.score\.parquet: .*give it once"):
            table_of(1, [*rows, again], real, 300, outputs)
    assert not any(path.exists() for path in outputs)


SCORES: dict[str, Any] = {
    "share": "high", "n": -1, "attempts": None, "present": "yes", "method": 3, "steps": 0.5, "subset": "a", "seed": None
}  # fmt: skip


@pytest.mark.parametrize("column", SCORES)
def test_scores_that_are_none_are_one_line(column: str, tmp_path: Path) -> None:
    rows, real = files(tmp_path, n=9)
    pd.read_parquet(rows[0]).assign(**{column: SCORES[column]}).to_parquet(rows[0])
    with pytest.raises(UserError, match=rf"20\.score\.parquet: column {column} .*score them anew"):
        table_of(1, rows, real, 300, (tmp_path / "t", tmp_path / "s", tmp_path / "m"))


@pytest.mark.parametrize("change", [lambda rows: rows[:0], lambda rows: rows.assign(n=0)])
def test_scores_of_no_images_are_one_line(change: Any, tmp_path: Path) -> None:
    rows, real = files(tmp_path, n=9)
    change(pd.read_parquet(rows[0])).to_parquet(rows[0])
    with pytest.raises(UserError, match=r"20\.score\.parquet: (scores of no images|column .* holds null)"):
        table_of(1, rows, real, 300, (tmp_path / "t", tmp_path / "s", tmp_path / "m"))


def _arrays(**changed: Any) -> dict[str, np.ndarray]:
    return {"metric": np.array("FD-x"), "features": np.ones((4, 2), np.float32), "labels": np.arange(4) // 2} | changed


FEATURES: dict[str, Any] = {
    "not a number": _arrays(features=np.full((4, 2), np.nan, np.float32)),
    "of rank 1": _arrays(features=np.ones(4, np.float32)),
    "of other labels": _arrays(labels=np.arange(3)),
    "complex": _arrays(features=np.ones((4, 2), complex)),
    "text": _arrays(features=np.full((4, 2), "a")),
    "without a name": _arrays(metric=np.array(3)),
    "one array less": {"metric": np.array("FD-x")},
    "pickled": _arrays(labels=np.array([{}] * 4, object)),
    "empty": b"",
    "cut": ...,
    "an npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999,), }",
}


@pytest.mark.parametrize("kind", FEATURES)
def test_features_that_are_none_are_one_line(kind: str, tmp_path: Path) -> None:
    path, content = tmp_path / "f.npz", FEATURES[kind]
    np.savez(path, **(content if isinstance(content, dict) else _arrays()))
    if content is ...:
        content = path.read_bytes()[:-30]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"f\.npz: .*expected features of images; make them anew") as said:
        read_features(path)
    assert "\n" not in str(said.value)


def test_features_that_claim_more_than_there_is_memory_are_not_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "f.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("features.npy", b"")
        archive.infolist()[0].file_size = 2**40
    with pytest.raises(UserError, match=r"f\.npz: .*more than \d+ bytes"):
        read_features(tmp_path / "f.npz")


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    rows, real = files(tmp_path)
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    with pytest.raises(UserError, match="no features of real images of footwear; give") as said:
        table_of(1, rows, real[:0], 300, outputs)
    assert "\n" not in str(said.value) and not any(path.exists() for path in outputs)


def test_scores_say_themselves_what_they_are_of(tmp_path: Path) -> None:
    """Wherever they lie, with their features beside them."""
    rows, real = files(tmp_path)
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    table_of(1, rows, real, 300, outputs)
    before = pd.read_parquet(outputs[1])
    moved = tmp_path / "elsewhere/99.score.parquet"
    moved.parent.mkdir()
    rows[0].rename(moved)
    rows[0].with_name("20.npz").rename(moved.with_name("99.npz"))
    table_of(1, [moved, *rows[1:]], real, 300, outputs)
    pd.testing.assert_frame_equal(pd.read_parquet(outputs[1]), before)


def test_beside_other_images_the_papers_figures_do_not_stand(tmp_path: Path) -> None:
    _, text = made(tmp_path, beside_paper=False)
    assert "paper" not in text.lower() and "DiffAE" not in text and "CelebA" not in text
    runs = [{"method": "ours", "steps": 10, "subset": 0, "seed": 0, "miou": 0.5, "n": 9}]
    assert guidance.summarise(pd.DataFrame(runs), 2)[["paper_miou", "paper_fid"]].isna().all(axis=None)
    faces = [{"attribute": "male", "present": True, "method": "ours", "steps": 10, "share": 9.0, "n": 9, "attempts": 9}]
    assert guidance.summarise(pd.DataFrame(faces), 1)["paper_fid"].isna().all()
    assert guidance.summarise(pd.DataFrame(faces), 1, beside_paper=True)["paper_fid"].tolist() == [15.34]


def test_the_papers_classes_stand_beside_the_overlays() -> None:
    assert guidance.paper_fid("male", False, "ours") == 9.94
    assert guidance.paper_fid("blond", True, "ddim-i") == 29.09
    assert np.isnan(guidance.paper_fid("footwear", True, "ours"))
    assert guidance.paper_fid("male", True, "diffae") == 11.52 and guidance.paper_masks("diffae", 10) == (0.23, 87.68)
    assert guidance.paper_masks("ours", 10) == (0.31, 74.74)
    named = {*paper.TABLE2, *(name for row in paper.TABLE1.values() for name in row)}
    assert named | {"unguided", "rejection"} == set(METHODS), "a name that no method has stands beside none"
    assert np.isnan(guidance.paper_masks("ours", 50)).all() and np.isnan(guidance.paper_masks("unguided", 10)).all()


def test_the_papers_figures_are_in_the_rows_of_its_number_of_steps() -> None:
    runs = [{"method": m, "steps": steps, "subset": 0, "seed": 0, "miou": 0.5, "n": 9}
            for m in ("unguided", "ours") for steps in (10, 50)]  # fmt: skip
    unknown: dict[str, Any] = {"metric": "FD-x", "distance": np.nan, "distance_n": 9}
    unknown |= {"floor": np.nan, "floor_std": np.nan}
    cells = guidance.summarise(pd.DataFrame(runs), 2, beside_paper=True).assign(minimum=1000, **unknown)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in guidance.as_markdown(cells, 2).splitlines()]
    assert ["Method", "Steps", "mIoU", "Paper's mIoU (CelebA-Mask)", "Paper's FID (CelebA-Mask)"] in lines
    assert ["ours", "10", "0.500", "0.31", "74.74"] in lines and ["ours", "50", "0.500", "", ""] in lines


def test_features_of_another_kind_are_refused(tmp_path: Path) -> None:
    rows, real = files(tmp_path)
    save_features(real[0], "FID", np.zeros((800, 4)), np.repeat([0, 1], 400))
    outputs = tmp_path / "t.parquet", tmp_path / "s.parquet", tmp_path / "t.md"
    with pytest.raises(UserError, match=r"20.npz: features for FD-x, the real images' are for FID; make them anew"):
        table_of(1, rows, real, 300, outputs)
    assert not any(path.exists() for path in outputs)


def test_figure_2_has_a_row_for_the_targets_and_each_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    masks = (np.arange(5)[:, None, None] % 3 * np.ones((1, 6, 6))).astype(np.uint8)
    shards = []
    for name in ("ours/10.tar", "ddim-i/10.tar"):
        images = rng.integers(0, 256, (5, 6, 6, 1), np.uint8)
        write_masked_shard(tmp_path / name, MaskedImages(images, masks, list("abcde"), ("bg", "x", "y")))
        shards.append(images)
    seen = []
    monkeypatch.setattr(guidance_figures, "tile_grid", lambda *given: seen.append(given))
    monkeypatch.setattr(guidance_figures, "save", lambda figure, out: None)
    paths = [tmp_path / "ours/10.tar", tmp_path / "ddim-i/10.tar"]
    stage = Stage[Figure2](config=Figure2(figure2_images=3))
    guidance_figures.figure2(stage, shards=paths, out=tmp_path / "figure2.png")
    names, rows, columns, *_ = seen[0]
    assert names == ["target", "ours, 10 steps", "ddim-i, 10 steps"] and columns == 3
    np.testing.assert_array_equal(rows[1][1], shards[0][1])
    assert rows[0][0].shape == (6, 6, 3) and (rows[0][0] == 0).all() and rows[0][2].any()


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 9, "other columns"])
def test_rows_of_robustness_that_are_none_are_one_line(tmp_path: Path, content: bytes | str | None) -> None:
    path, out = tmp_path / "rows.parquet", tmp_path / "r.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        pd.DataFrame({"x": [1]}).to_parquet(path)
    with pytest.raises(UserError, match=r"rows\.parquet: .*expected rows of `ddrep robustness`"):
        guidance.robustness(rows=[path], out=out, markdown=tmp_path / "r.md")
    with pytest.raises(UserError, match=r"rows\.parquet: .*expected the table .* of `ddrep robustness-table`"):
        guidance_figures.robustness(table=path, out=tmp_path / "r.png")
    assert not out.exists() and not list(tmp_path.glob("*.png"))

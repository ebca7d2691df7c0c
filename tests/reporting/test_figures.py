"""Figures: the pixels and points that must be there, equal bytes, and what is said of files that do not fit."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ddrep.cli import main
from ddrep.config import Figures, Stage
from ddrep.errors import UserError
from ddrep.reporting import figures
from ddrep.reporting.figures import figure1, figure3, figure4
from tests.reporting.make_shards import write_synthetic

CLASSES = ("cat", "dog", "ox")
P = np.array([[0.9, 0.03, 0.6, 0.8], [0.5, 0.7, 0.1, 0.9], [0.9, 0.9, 0.9, 0.9]])


def _stage(**settings: Any) -> Stage[Any]:
    """For any of the figures: each takes a part of the section."""
    return Stage[Figures](config=Figures(**settings))


def _images(channels: int, offset: int = 0) -> np.ndarray:
    """Attempt a of class c: a flat square whose level is its own."""
    levels = 20 * (1 + np.arange(12).reshape(3, 4)) + offset
    return np.broadcast_to(levels[:, :, None, None, None], (3, 4, 8, 8, channels)).astype(np.uint8)


@pytest.fixture(params=[1, 3], ids=["grey", "RGB"])
def shards(request, tmp_path):
    images = _images(request.param)
    thresholds = {"improved-ddpm": 0.0, "classifier-free": 0.0, "ours": 0.4}
    return [
        write_synthetic(tmp_path / source / "00000.tar", images - 5 * (source[0] == "i"), P, threshold, CLASSES)
        for source, threshold in thresholds.items()
    ]


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that were saved."""
    saved: list[Figure] = []
    real = figures.save

    def save(figure: Figure, out: Path) -> None:
        saved.append(figure)
        real(figure, out)

    monkeypatch.setattr(figures, "save", save)
    return saved


def _tiles(figure: Figure) -> dict[tuple[int, int], int]:
    """(row, column) -> level of its image."""
    images = figure.axes[0].get_images()
    return {(int(i.get_extent()[3]), int(i.get_extent()[0])): int(np.asarray(i.get_array())[0, 0, 0]) for i in images}


def test_figure1_has_one_attempt_a_column_and_p_where_it_was_refused(shards, tmp_path, drawn):
    figure1(_stage(figure1_class=0, figure1_images=3), shards=shards, out=tmp_path / "figure1.png")
    expected = {(0, 0): 15, (0, 1): 35, (0, 2): 55, (1, 0): 20, (1, 1): 40, (1, 2): 60, (2, 0): 20, (2, 2): 60}
    assert _tiles(drawn[0]) == expected
    texts = {(t.get_position()[1], t.get_text()) for t in drawn[0].axes[0].texts}
    assert {(0.5, "improved-ddpm"), (1.5, "classifier-free"), (2.5, "ours"), (2.5, "p = 0.03")} == texts
    (tile,) = drawn[0].axes[0].patches
    assert int(tile.get_x()) == 1 and int(tile.get_y()) == 2 and tile.get_hatch()
    assert (tmp_path / "figure1.pdf").read_bytes().startswith(b"%PDF")
    assert Image.open(tmp_path / "figure1.png").width > 900


@pytest.mark.parametrize("like", ["classifier-free", "improved-ddpm", ""])
def test_figure1_says_whose_candidates_were_refused(like, tmp_path, drawn):
    """Those of improved-ddpm without guidance, of classifier-free with it, of neither with settings of one's own."""
    rows = {"improved-ddpm": 0, "classifier-free": 5}
    levels = rows | {"ours": rows.get(like, 9)}
    paths = [
        write_synthetic(tmp_path / name / "0.tar", _images(1, level), P, 0.4 * (name == "ours"), CLASSES)
        for name, level in levels.items()
    ]
    figure1(_stage(figure1_class=0, figure1_images=3), shards=paths, out=tmp_path / "figure1.png")
    whose = f"ours draws {like}'s candidates; " if like else ""
    assert drawn[0].texts[1].get_text() == f"{whose}hatched: refused, with the probability p of its class"


def test_figure3_has_the_first_accepted_of_each_class(shards, tmp_path, drawn):
    figure3(_stage(figure3_classes=(2, 0), figure3_images=3), shard=shards[2], out=tmp_path / "figure3.png")
    assert _tiles(drawn[0]) == {(0, 0): 180, (0, 1): 200, (0, 2): 220, (1, 0): 20, (1, 1): 60, (1, 2): 80}
    assert {t.get_text() for t in drawn[0].axes[0].texts} == {"ox", "cat"}


def test_figure3_has_the_first_four_classes_there_are(shards, tmp_path, drawn):
    figure3(_stage(figure3_images=1), shard=shards[2], out=tmp_path / "figure3.png")
    assert [t.get_text() for t in drawn[0].axes[0].texts] == list(CLASSES)
    names = tuple("abcdef")
    many = write_synthetic(tmp_path / "six/00000.tar", _images(1)[[0] * 6], np.ones((6, 4)), 0.5, names)
    figure3(_stage(figure3_images=1), shard=many, out=tmp_path / "figure3.png")
    assert [t.get_text() for t in drawn[1].axes[0].texts] == list("abcd")


NAMES = ("$$", "a$b$c_{", "$5 and $10 notes", "$\\frac{$", "_hidden", "<b>&amp;</b>", "x^2_3", "~#%{}")


def _named(tmp_path, source: str, names: tuple[str, ...]):
    images = np.zeros((len(names), 2, 8, 8, 1), np.uint8)
    return write_synthetic(tmp_path / source / "00000.tar", images, np.full((len(names), 2), 0.9), 0.5, names)


def _texts(figure: Figure) -> list[str]:
    return [t.get_text() for t in [*figure.texts, *figure.axes[0].texts]]


def test_class_names_are_text_and_never_markup(tmp_path, drawn):
    """Saved as PNG and PDF, which is where markup would be read."""
    shards = [_named(tmp_path, source, NAMES) for source in ("improved-ddpm", "ours")]
    figure3(_stage(figure3_classes=tuple(range(len(NAMES))), figure3_images=1), shard=shards[1], out=tmp_path / "f.png")
    assert set(NAMES) <= set(_texts(drawn[0]))
    for label, name in enumerate(NAMES):
        figure1(_stage(figure1_class=label, figure1_images=1), shards=shards, out=tmp_path / "f.png")
        assert f"{name}: the first 1 attempts, one starting noise a column" in _texts(drawn[-1])
    assert not [t for figure in drawn for t in figure.findobj(Text) if t.get_text() and t.get_parse_math()]


def test_names_of_any_length_leave_room_for_the_images(tmp_path, drawn):
    shard = _named(tmp_path, "ours", ("x" * 300, "wide 木" * 60, "a\nb\tc"))
    figure3(_stage(figure3_images=1), shard=shard, out=tmp_path / "f.png")
    long, wide, odd = (t.get_text() for t in drawn[0].axes[0].texts)
    assert long == f"{'x' * 21}…{'x' * 10}" and odd == "a\ufffdb\ufffdc"
    assert wide in ("class 1", "wide 木wide 木wi…wide 木") or len(wide) < 32
    assert min(drawn[0].get_size_inches()) > 1


def test_a_name_that_no_font_has_is_said_once_and_gives_way_to_its_number(
    tmp_path, drawn, monkeypatch, caplog, recwarn
):
    monkeypatch.setattr("ddrep.reporting.lettering.font_manager.findSystemFonts", list)
    shard = _named(tmp_path, "ours", ("cat", "猫", "犬"))
    with caplog.at_level("INFO"):
        figure3(_stage(figure3_images=1), shard=shard, out=tmp_path / "f.png")
    assert [t.get_text() for t in drawn[0].axes[0].texts] == ["cat", "class 1", "class 2"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "猫 is shown as class 1, 犬 is shown as class 2" in line and "fonts-noto-cjk" in line
    assert not list(recwarn)


def test_an_installed_font_is_found_for_the_names_that_want_it(tmp_path):
    """A font of one character, a black box at U+F0000 (private use, in no system font), where users install fonts."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 1000), (1000, 1000), (1000, 0)):
        pen.lineTo(corner)
    pen.closePath()
    font = FontBuilder(1000)
    font.setupGlyphOrder([".notdef", "box"])
    font.setupCharacterMap({0xF0000: "box"})
    font.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "box": pen.glyph()})
    font.setupHorizontalMetrics({".notdef": (1000, 0), "box": (1000, 0)})
    font.setupHorizontalHeader(ascent=1000, descent=0)
    font.setupNameTable({"familyName": "Boxes", "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    (tmp_path / "fonts").mkdir()
    font.save(tmp_path / "fonts/boxes.ttf")
    shard, out = _named(tmp_path, "ours", ("\U000f0000" * 8, "b")), tmp_path / "f.png"
    command = [sys.executable, "-m", "ddrep", "figure3", "--shard", str(shard), "--out", str(out)]
    env = os.environ | {"XDG_DATA_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and "no installed font" not in done.stderr and "Warning" not in done.stderr
    dark = np.asarray(Image.open(out).convert("L"))[60:, :220] < 128  # left of the images, below the heading
    assert dark.sum() > 8 * 15 * 15, "eight boxes of 10 points at 150 dots an inch have 8 * 20 * 20 pixels"


def test_the_users_own_settings_of_matplotlib_change_nothing(shards, table4, tmp_path):
    def made(folder: str) -> list[bytes]:
        figure3(_stage(figure3_images=1), shard=shards[2], out=tmp_path / folder / "figure3.png")
        figure4(table=table4, out=tmp_path / folder / "figure4.png")
        return [(tmp_path / folder / f"figure{n}.png").read_bytes() for n in (3, 4)]

    before = made("before")
    with matplotlib.rc_context({"text.usetex": True, "font.size": 30, "axes.facecolor": "pink"}):
        assert made("after") == before


def test_a_home_that_cannot_be_written_in_is_not_remarked_on():
    """matplotlib says where it keeps its cache instead."""
    code, there = "import ddrep.reporting.figures", os.environ | {"MPLCONFIGDIR": "/proc/x"}
    done = subprocess.run([sys.executable, "-c", code], env=there, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_equal_inputs_give_equal_bytes(tmp_path, table4):
    shard = write_synthetic(tmp_path / "ours/00000.tar", _images(3), P, 0.4, CLASSES)
    for folder in ("a", "b"):
        figure1(_stage(figure1_images=3), shards=[shard], out=tmp_path / folder / "figure1.png")
        figure4(table=table4, out=tmp_path / folder / "figure4.png")
    for name in ("figure1.png", "figure1.pdf", "figure4.png", "figure4.pdf"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_a_class_that_is_not_there_names_the_key(shards, tmp_path):
    with pytest.raises(UserError, match=r"figures\.figure1_class: no class 3; expected 0\.\.2: 0 \(cat\), .*2 \(ox\)$"):
        figure1(_stage(figure1_class=3), shards=shards, out=tmp_path / "f.png")
    with pytest.raises(UserError, match=r"figures\.figure3_classes: no class 7"):
        figure3(_stage(figure3_classes=(0, 7)), shard=shards[2], out=tmp_path / "f.png")
    assert not list(tmp_path.glob("*.p*"))


def test_shards_that_do_not_belong_together(shards, tmp_path):
    other = write_synthetic(tmp_path / "other/ours/00000.tar", _images(1), P, 0.4, CLASSES, seed=5)
    with pytest.raises(UserError, match="other seeds than"):
        figure1(_stage(), shards=[*shards[:2], other], out=tmp_path / "f.png")
    attempts = other.with_suffix(".parquet")
    pd.read_parquet(attempts).assign(accepted=True).to_parquet(attempts)
    with pytest.raises(UserError, match=r"00000\.tar: 10 images, but 12 that 00000\.parquet beside it tells of"):
        figure3(_stage(figure3_classes=(0,)), shard=other, out=tmp_path / "f.png")
    attempts.unlink()
    with pytest.raises(UserError, match=r"00000\.parquet: .*expected the attempts"):
        figure3(_stage(figure3_classes=(0,)), shard=other, out=tmp_path / "f.png")


@pytest.fixture
def table4(tmp_path):
    rows = [(k, "resnet18", False, "real", 0, 0, 70.0 + k, 0) for k in (0, 1)]
    rows += [
        (k, "resnet18", False, "ours", scale, 0, 70.0 + 2 * scale + k, 50 * scale) for scale in (1, 3) for k in (0, 1)
    ]
    rows += [(0, "resnet18", False, "real-equal-steps", 3, 0, 71.0, 0)]
    rows += [(0, "resnext50_32x4d", True, "real", 0, 0, 75.0, 0)]
    names = ["subset", "architecture", "mix", "source", "scale", "seed", "top1", "n_synthetic"]
    path = tmp_path / "table4.parquet"
    pd.DataFrame(rows, columns=names).assign(n_real=50, epochs=1, steps=1).to_parquet(path)
    return path


def test_figure4_draws_means_spread_and_runs(table4, tmp_path, drawn):
    figure4(table=table4, out=tmp_path / "figure4.png")
    plain, mixed = drawn[0].axes
    lines = {line.get_linestyle(): line.get_xydata() for line in plain.lines if line.get_linestyle() != "None"}
    np.testing.assert_allclose(lines["-"], [(0, 70.5), (1, 72.5), (3, 76.5)])
    np.testing.assert_allclose(lines["--"][:, 1], [70.5, 71.0])  # matplotlib calls any dashes --
    points = np.concatenate([line.get_xydata() for line in plain.lines if line.get_marker() == "."])
    wanted = [(0, 70), (0, 71), (1, 72), (1, 73), (3, 76), (3, 77)]
    assert sorted(map(tuple, points)) == wanted
    (band,) = (np.asarray(c.get_paths()[0].vertices) for c in plain.collections if isinstance(c, PolyCollection))
    at_1 = band[np.isclose(band[:, 0], 1), 1]
    np.testing.assert_allclose([at_1.min(), at_1.max()], 72.5 + np.std([72, 73], ddof=1) * np.array([-1, 1]))
    assert [(0, 75)] in [list(map(tuple, line.get_xydata())) for line in mixed.lines]
    (counts,) = plain.child_axes
    assert [tick.get_text() for tick in counts.get_xticklabels()] == ["50", "150"]
    assert not [t for t in drawn[0].findobj(Text) if t.get_text() and t.get_parse_math()]
    assert plain.get_xlabel() == "synthetic images (1x = 50 images)" and mixed.get_xlabel() == "synthetic images"


def test_figure4_says_no_number_where_runs_do_not_agree_on_1x(table4, tmp_path, drawn):
    rows = pd.read_parquet(table4)
    rows.loc[rows["n_synthetic"] == 150, "n_synthetic"] = 120
    rows.to_parquet(table4)
    figure4(table=table4, out=tmp_path / "figure4.png")
    assert drawn[0].axes[0].get_xlabel() == "synthetic images (multiples of 1x)" and not drawn[0].axes[0].child_axes


@pytest.mark.parametrize("change", [{"mix": "no"}, {"top1": "high"}, {"n_real": 0}, None], ids=str)
def test_a_table_that_is_none_is_one_line(table4, tmp_path, change):
    rows = pd.read_parquet(table4)
    (rows.assign(**change) if change else rows.head(0)).to_parquet(table4)
    with pytest.raises(UserError, match=r"table4\.parquet: .*expected Table 4"):
        figure4(table=table4, out=tmp_path / "f.png")


@pytest.mark.parametrize("change", [{"accepted": "yes"}, {"p": "a"}, {"attempt": "b"}, {"p": np.nan}], ids=str)
def test_attempts_that_are_none_are_one_line(shards, tmp_path, change):
    file = shards[2].with_suffix(".parquet")
    pd.read_parquet(file).assign(**change).to_parquet(file)
    with pytest.raises(UserError, match=r"00000\.parquet: .*expected the attempts"):
        figure1(_stage(), shards=shards, out=tmp_path / "f.png")


def test_command_lines(shards, table4, tmp_path, capsys):
    commands = [
        (["figure1", *map(str, shards)], {"figure1_images": 3}),
        (["figure3", "--shard", str(shards[2])], {"figure3_classes": [0], "figure3_images": 2}),
        (["figure4", "--table", str(table4)], {}),
    ]
    for command, config in commands:
        out = tmp_path / f"{command[0]}.png"
        assert main([*command, "--stage", json.dumps({"config": config}), "--out", str(out)]) == 0
        assert out.exists() and out.with_suffix(".pdf").exists()
    assert main(["figure4", "--table", str(tmp_path / "no.parquet"), "--out", str(tmp_path / "no.png")]) == 2
    assert "no.parquet: no such file; expected Table 4" in capsys.readouterr().err

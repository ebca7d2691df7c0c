"""Table 5: what a source is worth in labelled images, of runs whose accuracies are known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddrep.config import AccuracyTable, Stage
from ddrep.errors import UserError
from ddrep.reporting.labels import figure5, run, worth
from ddrep.runs import Run
from tests.reporting.make_runs import write_run

IMAGES = 1000
TOP1 = {
    ("real", 100): 60,
    ("real", 200): 70,
    ("real", 400): 80,
    ("ours", 100): 65,
    ("ours", 200): 75,
    ("ours", 400): 90,
}


def _right(percent: float, seed: int) -> np.ndarray:
    """The same images are hard for all runs, but for as many others as the seed says."""
    return np.roll(np.arange(IMAGES) < percent / 100 * IMAGES, seed)


@pytest.fixture
def rows(tmp_path: Path) -> list[Path]:
    return [
        write_run(
            tmp_path,
            Run(subset, "resnet18", False, source, 3 if source == "ours" else 0, 0, labels=n // 10),
            _right(percent, subset),
            n_real=n,
        )
        for (source, n), percent in TOP1.items()
        for subset in range(3)
    ]


def test_worth_is_read_off_the_line_of_real_alone() -> None:
    labels, curve = np.array([100, 200, 400]), np.array([[60.0, 70, 80]])
    for reached, expected in ((59, 0), (60, 100), (65, 100 * 2**0.5), (70, 200), (75, 200 * 2**0.5), (81, np.inf)):
        assert worth(labels, curve, np.array([float(reached)]))[0] == pytest.approx(expected)


def test_worth_of_a_line_that_falls_is_where_it_is_first_reached() -> None:
    assert worth(np.array([1, 2, 4]), np.array([[60.0, 50, 80]]), np.array([65.0]))[0] == pytest.approx(2 * 2**0.5)


def test_table_5(rows: list[Path], tmp_path: Path) -> None:
    outputs = {name: tmp_path / name for name in ("out.parquet", "summary.parquet", "table.md")}
    keys = dict(zip(("out", "summary", "markdown"), outputs.values(), strict=True))
    run(Stage[AccuracyTable](config=AccuracyTable(resamples=200)), rows=rows, judges=None, **keys)
    cells = {(row["source"], row["n_real"]): row for row in pd.read_parquet(keys["summary"]).to_dict("records")}
    assert {cell: row["mean"] for cell, row in cells.items()} == pytest.approx(TOP1)
    ours = cells["ours", 100]
    assert ours["gain"] == pytest.approx(5) and np.isnan(cells["real", 100]["gain"])
    assert ours["worth"] == pytest.approx(100 * 2**0.5)
    assert ours["worth_low"] < 100 * 2**0.5 < ours["worth_high"]
    assert np.isinf(cells["ours", 400]["worth"])
    text = keys["markdown"].read_text("utf-8")
    assert "| ours 3x | 65.0 ± 0.0 (+5.0 [" in text and "| ours 3x | 141 [" in text and "> 400 [" in text
    figure5(table=keys["summary"], out=tmp_path / "figure5.png")
    assert (tmp_path / "figure5.png").stat().st_size > 5000
    pd.read_parquet(keys["summary"]).drop(columns="gain").to_parquet(keys["summary"])  # as Table 4's
    with pytest.raises(UserError, match=r"gain missing .*expected the summary of Table 5"):
        figure5(table=keys["summary"], out=tmp_path / "figure5.png")


def test_a_source_that_is_not_declared_is_one_line(rows: list[Path], tmp_path: Path) -> None:
    pd.read_parquet(rows[-1]).assign(source="gone").to_parquet(rows[-1])
    outputs = {name: tmp_path / name for name in ("out", "summary", "markdown")}
    with pytest.raises(UserError, match="no source gone"):
        run(Stage[AccuracyTable](config=AccuracyTable()), rows=rows, judges=None, **outputs)

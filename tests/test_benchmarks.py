"""The suite of benchmarks: its parts are there, and what one measures goes to the page beside its reference."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import memory, page, shards
from benchmarks.__main__ import OF_A_RUN, PARTS


@pytest.mark.parametrize("part", PARTS)
def test_the_page_has_each_part_with_its_reference(part: str) -> None:
    assert importlib.util.find_spec(f"benchmarks.{part}")
    assert f"`python -m benchmarks.{part}`" in page.PAGE.read_text(encoding="utf-8")
    assert set(OF_A_RUN) < set(PARTS)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(page, "RESULTS", tmp_path / "results.parquet")
    monkeypatch.setattr(page, "PAGE", tmp_path / "README.md")
    return tmp_path


def test_a_part_replaces_its_own_section(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (elsewhere / "README.md").write_text("# Benchmarks\n\n## Shards\n\nold\n\n## Others\n\nkept\n")
    monkeypatch.setattr(sys, "argv", ["shards", "--images", "20", "--rounds", "2"])
    shards.main()
    text, rows = (elsewhere / "README.md").read_text(), pd.read_parquet(elsewhere / "results.parquet")
    assert "old" not in text and "| ddrep | " in text and text.index("## Shards") < text.index("## Others\n\nkept")
    assert set(rows["quantity"]) == {"writing", "reading"} and set(rows["reference"]) == {shards.PLAIN}
    assert (rows[rows["name"] == shards.PLAIN]["ratio"] == 1).all()


def test_without_a_finished_run_nothing_is_written(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["memory", "--results", str(elsewhere)])
    memory.main()
    assert "no finished run of the demo" in capsys.readouterr().out and not list(elsewhere.iterdir())


def test_ratios_are_of_the_same_rounds() -> None:
    a, b = page.compared("time", "s", {"theirs": [2.0, 8.0, 6.0], "ours": [1.0, 2.0, 6.0]})
    assert a["ratio"] == 1 and (b["value"], b["low"], b["high"]) == (2, 1, 6)
    assert b["ratio"] == 2, "the median of 2, 4 and 1"

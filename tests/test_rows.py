"""Tables are read by column and kind; whatever else a file holds is one line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddrep.errors import UserError
from ddrep.reporting import copies, guidance, judges
from ddrep.rows import Kind, gathered, read_rows

KINDS: dict[str, Kind] = {"name": "text", "good": "flag", "n": "whole", "p": "number", "miou": "number or nan"}
GOOD: dict[str, list[Any]] = {
    "name": ["a", "b"],
    "good": [True, False],
    "n": [0, 2**62],
    "p": [0.5, 1],
    "miou": [0, np.nan],
}
EXPECTED = "rows; make them anew"


def written(path: Path, **changed: Any) -> Path:
    pd.DataFrame({**GOOD, "more": [[1], [2]], **changed}).to_parquet(path)
    return path


def test_the_columns_that_are_wanted_as_pandas_reads_them(tmp_path: Path) -> None:
    path = written(tmp_path / "r.parquet")
    pd.testing.assert_frame_equal(read_rows(path, KINDS, EXPECTED), pd.read_parquet(path, columns=list(KINDS)))
    backwards: dict[str, Kind] = dict(reversed(KINDS.items()))
    assert list(read_rows(path, {**backwards, "old": "text"}, EXPECTED, optional=["old"])) == list(backwards)


WRONG: dict[str, dict[str, list[Any]]] = {
    "name": {"numbers": [1, 2], "a gap": ["a", None], "lists": [["a"], ["b"]], "bytes": [b"a", b"b"]},
    "good": {"numbers": [0, 1], "text": ["True", "False"], "a gap": [True, None]},
    "n": {"text": ["1", "2"], "negative": [0, -1], "fractions": [0.5, 1], "a gap": [1, None], "flags": [True, False]},
    "p": {
        "text": ["a", "b"],
        "nan": [0.5, np.nan],
        "infinite": [0.5, np.inf],
        "lists": [[0.5], [1.0]],
        "huge": [1e308, -1e308],
    },
    "miou": {"text": ["a", "b"], "times": list(pd.to_datetime(["2020-01-01"] * 2)), "infinite": [np.nan, np.inf]},
}


@pytest.mark.parametrize(("column", "fault"), [(column, fault) for column in WRONG for fault in WRONG[column]])
def test_a_column_of_another_kind_is_named(column: str, fault: str, tmp_path: Path) -> None:
    path = written(tmp_path / "r.parquet", **{column: WRONG[column][fault]})
    with pytest.raises(UserError, match=rf"r\.parquet: column {column} (holds|has) .*; expected {EXPECTED}") as said:
        read_rows(path, KINDS, EXPECTED)
    assert "\n" not in str(said.value)


CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "text": b"hello" * 20,
    "a footer of nothing": b"PAR1" + b"x" * 60 + b"\x14\0\0\0PAR1",
    "a footer that is too long": b"PAR1" + b"\xff\xff\xff\x7fPAR1",
}


@pytest.mark.parametrize("kind", [*CONTENTS, "nothing", "a folder", "a pipe", "a loop", "other columns"])
def test_what_is_no_such_file_is_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    makers = {"nothing": lambda: None, "a folder": path.mkdir, "a pipe": lambda: os.mkfifo(path)}
    makers |= {
        "a loop": lambda: path.symlink_to(path),
        "other columns": lambda: pd.DataFrame({"x": [1]}).to_parquet(path),
    }
    makers.get(kind, lambda: path.write_bytes(CONTENTS[kind]))()
    with pytest.raises(UserError, match=rf"r\.parquet: .*; expected {EXPECTED}") as said:
        read_rows(path, KINDS, EXPECTED)
    assert "\n" not in str(said.value) and len(str(said.value)) < 500


def test_what_claims_more_rows_than_there_is_memory_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"n": pa.array([7] * 1000)}), tmp_path / "r.parquet")
    monkeypatch.setattr("ddrep.rows.MOST", 999)
    with pytest.raises(UserError, match="says that it has 1000 rows"):
        read_rows(tmp_path / "r.parquet", {"n": "whole"}, EXPECTED)


@pytest.mark.parametrize("notes", [b"\x80", b"{", b"[" * 10**5, b"null"])
def test_notes_of_pandas_are_not_read(notes: bytes, tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": [7]}).replace_schema_metadata({"pandas": notes}), tmp_path / "r.parquet")
    assert read_rows(tmp_path / "r.parquet", {"n": "whole"}, EXPECTED).to_dict("list") == {"n": [7]}


def test_text_that_is_no_utf8_is_one_line(tmp_path: Path) -> None:
    text = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    pq.write_table(pa.table({"name": text}), tmp_path / "r.parquet")
    with pytest.raises(UserError, match=r"r\.parquet: not a Parquet file .*; expected rows"):
        read_rows(tmp_path / "r.parquet", {"name": "text"}, EXPECTED)


def test_rows_of_several_files_are_there_once(tmp_path: Path) -> None:
    def read(path: Path) -> pd.DataFrame:
        return read_rows(path, KINDS, EXPECTED)

    one, two = written(tmp_path / "1.parquet"), written(tmp_path / "2.parquet", name=["a", "c"], n=[1, 2])
    assert list(gathered([one, two], read, ("name", "n"))["name"]) == ["a", "b", "a", "c"]
    with pytest.raises(UserError, match=r"2\.parquet: a row of name a was given before; give it once"):
        gathered([one, two], read, ["name"])
    with pytest.raises(UserError, match=r"1\.parquet: a row of name a, n 0 was given before"):
        gathered([two, one, one], read, ("name", "n"))
    with pytest.raises(UserError, match="rows: expected at least one"):
        gathered([], read, ("name",))


OF_SUBSETS: dict[str, tuple[Any, dict[str, Any]]] = {
    "judges": (judges.run, {"judge": "probe", "subset": 0, "n": 9, "top1": 50.0, "expected_calibration_error": 0.1,
                            "cross_entropy": 1.0}),
    "copies": (copies.run, {"subset": 0, "source": "ours", "n": 9, "median": 1.0, "near_copies": 0.1, "least": 0.5,
                            "image": "a", "labelled_image": "b"}),
    "robustness": (guidance.robustness, {"reads": "pixels", "t": 100.0, "accuracy": 50.0, "n": 9, "attribute": "x",
                                         "subset": 0, "seed": 0}),
}  # fmt: skip


@pytest.mark.parametrize("table", OF_SUBSETS)
def test_a_table_of_a_row_given_twice_is_not_written(table: str, tmp_path: Path) -> None:
    """It would count as another subset's, of the same value: a spread of 0."""
    run, row = OF_SUBSETS[table]
    paths = [tmp_path / "1.parquet", tmp_path / "2.parquet"]
    for subset, path in enumerate(paths):
        pd.DataFrame([row | {"subset": subset}]).to_parquet(path)
    run(rows=paths, out=tmp_path / "out.parquet", markdown=tmp_path / "out.md")
    assert len(pd.read_parquet(tmp_path / "out.parquet")) == 2
    with pytest.raises(UserError, match=r"1\.parquet: a row of .* was given before; give it once"):
        run(rows=[*paths, paths[0]], out=tmp_path / "again.parquet", markdown=tmp_path / "again.md")
    assert not list(tmp_path.glob("again*"))

"""Tables of ours (Parquet): read with the columns that are wanted, each of its kind, or refused in one line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ddrep.errors import UserError
from ddrep.files import check_readable, written_whole

Kind = Literal["text", "flag", "whole", "number", "number or nan"]
"""Of a column: strings, booleans, integers from 0, numbers up to LARGEST, or such of which some may be unknown."""
MOST = 10**8
"""Rows: more than any table of ours has, and as many as fit in memory."""
LARGEST = 1e12
"""Of numbers: more than anything that is measured, and few enough digits for sums, squares and axes."""
LONGEST = 200
"""Characters that a message quotes of what the library says."""


def read_rows(path: Path, columns: Mapping[str, Kind], expected: str, optional: Collection[str] = ()) -> pd.DataFrame:
    """These columns of a file, in this order; of `optional` ones those that are there.

    Raises UserError naming the file and the column; `expected` says what it should be and how to make it.
    """
    check_readable(path, expected)
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > MOST:
                raise ValueError(f"says that it has {file.metadata.num_rows} rows")
            there = [name for name in columns if name in file.schema_arrow.names]
            if missing := [name for name in columns if name not in there and name not in optional]:
                raise ValueError(f"{', '.join(missing)} missing of the columns {', '.join(columns)}")
            # what pandas notes there may be anything; the columns say their types themselves
            content = file.read(there, use_threads=False).select(there).replace_schema_metadata(None)
            content.validate(full=True)
    except Exception as e:  # of arbitrary bytes the library makes errors of many types
        said = str(e) if type(e) is ValueError else f"not a Parquet file ({' '.join(str(e).split())[:LONGEST]})"
        raise UserError(f"{path}: {said}; expected {expected}") from None
    for name in there:
        if fault := _fault(content[name], columns[name]):
            raise UserError(f"{path}: column {name} {fault}; expected {expected}")
    return content.to_pandas()


def gathered(paths: Sequence[Path], read: Callable[[Path], pd.DataFrame], key: Sequence[str]) -> pd.DataFrame:
    """The rows of all files, as `read` gives them; the index begins with the file.

    Raises UserError where there is no file, and for a row with the same `key` as one before: it would count as two.
    """
    if not paths:
        raise UserError("rows: expected at least one .parquet")
    table = pd.concat([read(path) for path in paths], keys=paths)
    twice = table[table.duplicated([*key])]
    for (path, _), row in zip(twice.index, twice.to_dict("records"), strict=True):
        same = ", ".join(f"{name} {row[name]}" for name in key)
        raise UserError(f"{path}: a row of {same} was given before; give it once")
    return table


def _fault(column: pa.ChunkedArray, kind: Kind) -> str:
    """Why a column is not of the kind; empty if it is."""
    of, numeric = column.type, pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    fits = {
        "text": pa.types.is_string(of) or pa.types.is_large_string(of),
        "flag": pa.types.is_boolean(of),
        "whole": pa.types.is_integer(of),
    }
    if not fits.get(kind, numeric):
        return f"holds {of}, not {kind}"
    numbers = column.to_numpy().astype(float) if kind.startswith("number") else np.zeros(0)
    if kind != "number or nan" and (column.null_count or not np.isfinite(numbers).all()):
        return "has gaps, or numbers that are not finite"
    if (np.abs(numbers) > LARGEST).any():
        return f"has numbers beyond {LARGEST:g}"
    if kind == "whole" and len(column) and pc.min(column).as_py() < 0:
        return "has negative numbers"
    return ""


def in_order(table: pd.DataFrame, by: Sequence[str], **orders: Sequence[object]) -> pd.DataFrame:
    """Sorted by columns, of which some have orders of their own: what is not in these comes last."""
    ranks = {column: {name: i for i, name in enumerate(order)} for column, order in orders.items()}
    key = lambda values: values.map(ranks[values.name]) if values.name in ranks else values  # noqa: E731
    return table.sort_values([*by], key=key)


def write_rows(contents: Mapping[Path, pd.DataFrame | str]) -> None:
    """Tables, and what is said of them as text: all files or none."""
    with written_whole(*contents) as drafts:
        for draft, content in zip(drafts, contents.values(), strict=True):
            if isinstance(content, str):
                draft.write_text(content, encoding="utf-8")
            else:
                content.to_parquet(draft, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A Parquet file as it is. Raises UserError for one that is broken."""
    try:
        return pd.read_parquet(path)
    except Exception as e:  # of arbitrary bytes the library makes errors of many types
        raise UserError(
            f"{path}: not a readable Parquet file ({' '.join(str(e).split())[:LONGEST]}); make it anew"
        ) from None


def read_tables(results: str | Path) -> dict[str, pd.DataFrame]:
    """Every table of an experiment, by name: table3 and table4, a row a run; table4-summary, a row a cell; costs; ...

    results: the experiment's folder, results/NAME, or a folder of such tables. top1 is in percent, differences are in
    points, costs in seconds. Raises UserError where there is none, and for one that is broken.
    """
    folder = Path(results)
    folder = folder / "tables" if folder.joinpath("tables").is_dir() else folder
    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise UserError(f"{folder}: no tables (.parquet); expected results/NAME of an experiment that has written some")
    return {path.stem: read_table(path) for path in paths}

"""A list of images: a CSV file with the columns path, label and split."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ddrep.config import CsvFile
from ddrep.data.decoding import fitted
from ddrep.data.listing import SPLITS, Entry, Listing, drawn, from_disk, listed
from ddrep.data.lists import files, places, rows
from ddrep.data.readers import READERS, Named, Reader
from ddrep.data.reading import complain
from ddrep.errors import UserError

COLUMNS = ("path", "label", "split")
ADVICE = "mend them, or make the list again with `ddrep init`"
TWICE = "an image is expected in one row: leave one of the two out"


def csv_file(cfg: CsvFile, seed: int) -> Listing:
    """Classes are numbered in the order of their sorted names, those of train. Raises UserError."""
    where = str(cfg.path)
    table = rows(cfg.path, COLUMNS)
    strange = [f"{row['path']} (split {row['split']})" for row in table if row["split"] not in SPLITS]
    complain(where, strange, "rows are of no split", f"expected {', '.join(SPLITS)}")
    classes = tuple(sorted({row["label"] for row in table if row["split"] == "train"}))
    if len(classes) < 2:
        raise UserError(f"{where}: {len(classes)} classes in train; expected 2 or more")
    unknown = [f"{row['path']} (label {row['label']})" for row in table if row["label"] not in classes]
    complain(where, unknown, "rows are of a class that train has not", "give train some, or remove them")
    given: dict[str, list[Entry]] = {}
    complaints: dict[str, list[str]] = {}
    number = {name: label for label, name in enumerate(classes)}
    for split in SPLITS:
        mine = [row for row in table if row["split"] == split]
        found = files(cfg.path, cfg.root, [row["path"] for row in mine])
        of_split = ((row["path"], number[row["label"]], each) for row, each in zip(mine, found, strict=True))
        given[split], complaints[split] = listed(of_split)
    if not given["test"]:
        raise UserError(f"{where}: no rows of split test; {ADVICE}")
    if not given["validation"] and not complaints["validation"]:
        del given["validation"]
    splits = drawn(where, classes, given, seed, TWICE)
    pixels, shape = partial(fitted, size=cfg.size, channels=cfg.channels), (cfg.size, cfg.size, cfg.channels)
    return Listing(where, classes, splits, shape, from_disk, pixels, ADVICE, complaints)


def _paths(cfg: CsvFile) -> Iterator[Named]:
    yield Named("path", cfg.path, "file", "give a CSV file with the columns path, label and split")
    if cfg.root:
        yield Named("root", cfg.root, "folder", "the paths in the list start from it")


READERS.add(Reader("csv", CsvFile, csv_file, paths=_paths, places=lambda cfg: places(cfg.path, cfg.root)))

"""Lists of images: CSV files whose rows name an image, its class, and its split."""

from __future__ import annotations

import csv
import io
import itertools
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from ddrep.data.disk import Found, look, raw, read_text
from ddrep.data.reading import complain
from ddrep.errors import UserError, some
from ddrep.files import written_whole

COLUMNS = {
    "path": ("path", "file_name", "filename", "file", "image", "image_path"),
    "label": ("label", "class", "category", "class_name"),
    "split": ("split", "subset", "set"),
}
"""What each column may be called, in large or small letters."""


def rows(path: Path, wanted: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a list, by COLUMNS' names; separated by commas, semicolons or tabs. Raises UserError.

    wanted: columns that it must have, with something in every row.
    """
    text = read_text(raw(path))
    first = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=first.count)
    table = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    try:
        head, *lines = [line for line in table if any(cell.strip() for cell in line)] or [[]]
    except csv.Error as e:
        raise UserError(f"{path}: not a CSV file ({e}); mend line {table.line_num}") from None
    places = _places(head)
    if missing := [name for name in wanted if name not in places]:
        names = some([name.strip() for name in head])
        raise UserError(f"{path}: no column {missing[0]}; its first line names {names}: name one {missing[0]}")
    more = [any(cell.strip() for cell in line[len(head) :]) for line in lines]
    longer = [f"row {number + 2}" for number, is_longer in enumerate(more) if is_longer]
    complain(path, longer, "rows have more cells than the first line", "put quotes around what holds a separator")
    cells = [{name: _cell(name, line[i]) if i < len(line) else "" for name, i in places.items()} for line in lines]
    empty = [f"row {number + 2}" for number, row in enumerate(cells) if not all(row[name].strip() for name in wanted)]
    complain(path, empty, f"rows lack {' or '.join(wanted)}", "complete or remove them")
    if not cells:
        raise UserError(f"{path}: no rows; expected an image in each line below the first")
    return cells


def _cell(column: str, said: str) -> str:
    """A path as it is written, for names may begin or end with blanks; others in Unicode's composed form (NFC)."""
    return said if column == "path" else unicodedata.normalize("NFC", said.strip())


def _places(head: Sequence[str]) -> dict[str, int]:
    """Number of each known column."""
    there = {name.strip().lower(): i for i, name in reversed(list(enumerate(head)))}
    found = {name: next((there[each] for each in names if each in there), None) for name, names in COLUMNS.items()}
    return {name: i for name, i in found.items() if i is not None}


def files(path: Path, root: Path | None, names: Sequence[str]) -> Iterator[Found]:
    """What the paths of a list lead to; they start from `root`, or from the list's own folder."""
    folder = path.parent if root is None else root
    return (look(raw(folder / name), name) for name in (_file(folder, each) for each in names))


def _file(folder: Path, name: str) -> str:
    """A path as it is written or, where nothing is there, without blanks around it."""
    return name if name == name.strip() or look(raw(folder / name)).exists else name.strip()


def places(path: Path, root: Path | None) -> Iterator[Path]:
    """A list, if there is one, and the files that it names: not their folder, in which results may lie as well."""
    yield path
    if path.is_file():
        folder = path.parent if root is None else root
        yield from (folder / _file(folder, row["path"]) for row in rows(path, ("path",)))


def write_rows(path: Path, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Write a list, whole or not at all."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(itertools.chain([columns], lines))
    with written_whole(path) as (draft,):
        draft.write_bytes(text.getvalue().encode("utf-8", "surrogateescape"))

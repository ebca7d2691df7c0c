"""What a verb writes is declared with its options, and can be written: this is seen to before any work."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel

from ddrep.data.disk import raw
from ddrep.errors import UserError


@dataclass(frozen=True)
class Output:
    """Marks an option's type: the path is of what the verb writes."""

    kind: Literal["file", "log", "folder", "new folder"] = "file"
    """A log may be a device; a folder may be there already."""
    suffixes: tuple[str, ...] = ()
    """Those by which the writer chooses its format; any, where it does not."""
    beside: str = ""
    """Suffix of a second file, of the same name."""

    def places(self, path: Path) -> list[Path]:
        return [path, path.with_suffix(self.beside)] if self.beside and path.name else [path]


OutputFile = Annotated[Path, Output()]
OutputArrays = Annotated[Path, Output(suffixes=(".npz",))]
OutputImage = Annotated[Path, Output(suffixes=(".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))]
OutputFigure = Annotated[Path, Output(suffixes=(".png",), beside=".pdf")]
OutputWithAttempts = Annotated[Path, Output(beside=".parquet")]
OutputFolder = Annotated[Path, Output("folder")]
NewFolder = Annotated[Path, Output("new folder")]


def check_outputs(verb: BaseModel, *names: str) -> None:
    """Raise UserError where one of the options `names` is of no place to write in, or of a place that another option
    of the verb, or a setting within it, names as well."""
    given = {name: (getattr(verb, name), mark) for name, mark in marks(verb) if getattr(verb, name) is not None}
    places = [(option, place) for option, (path, mark) in given.items() for place in mark.places(path)]
    inputs = {
        os.path.realpath(raw(p)) for name in type(verb).model_fields if name not in given for p in _paths(verb, name)
    }
    for name in [name for name in names if name in given]:
        path, mark = given[name]
        fault = _fault(path, mark)
        for place in [] if fault else mark.places(path):
            same = [option for option, other in places if os.path.realpath(raw(other)) == os.path.realpath(raw(place))]
            if len(same) > 1:
                other = next((option for option in same if option != name), name)
                fault = f"{_option(other)} writes {place} too; give another name"
            elif os.path.realpath(raw(place)) in inputs:
                fault = f"{place} is read as well, and would be replaced; give another name"
        if fault:
            raise UserError(f"{_option(name)} {path}: {fault}")


def marks(verb: BaseModel) -> Iterator[tuple[str, Output]]:
    """The options that say where to write."""
    for name, field in type(verb).model_fields.items():
        yield from ((name, mark) for mark in _within(field.annotation, *field.metadata) if isinstance(mark, Output))


def to_lock(verb: BaseModel, *kinds: str) -> list[Path]:
    """The places of options of these kinds that are a verb's alone while it runs."""
    given = [(getattr(verb, name), mark) for name, mark in marks(verb) if mark.kind in kinds]
    places = [place for path, mark in given if path is not None for place in mark.places(path)]
    return [place for place in places if place.is_file() or not os.path.lexists(place)]


def _within(*types: Any) -> Iterator[Any]:
    """The types and marks of `Annotated[Path, mark] | None`, and of what is simpler."""
    for kind in types:
        yield kind
        yield from _within(*get_args(kind), *getattr(kind, "__metadata__", ()))


def _paths(verb: BaseModel, name: str) -> Iterator[Path]:
    """Paths in an option, wherever in it."""
    found: list[Any] = [verb.model_dump(include={name})]
    while found:
        value = found.pop()
        if isinstance(value, Path):
            yield value
        elif isinstance(value, dict | list | tuple):
            found += value.values() if isinstance(value, dict) else value


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _fault(path: Path, mark: Output) -> str:
    """Why nothing can be written there; empty if it can."""
    for place in mark.places(path):
        try:
            there = place.stat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            there = 0
        except OSError as e:
            return f"{str(e.strerror).lower()}; give another name"
        if fault := _in_the_way(place, there, mark):
            return fault
    if mark.suffixes and path.suffix.lower() not in mark.suffixes:
        return f"expected a name that ends in {mark.suffixes[0]}, which says the format"
    return _no_folder(path / "any" if mark.kind == "folder" else path)


def _in_the_way(place: Path, there: int, mark: Output) -> str:
    if there and mark.kind == "new folder":
        return "is there already; give the name of a new folder"
    if stat.S_ISDIR(there) and mark.kind != "folder":
        return f"{place} is a folder; expected the name of a file"
    if there and not stat.S_ISDIR(there) and mark.kind == "folder":
        return "is not a folder; give the name of one"
    stream = place.is_symlink() and os.readlink(place).startswith("/proc/")  # as /dev/stdout, which may lead to a file
    if there and (stream or not stat.S_ISREG(there)) and mark.kind == "file":
        return f"{place} is a device or a pipe, which would be replaced; expected the name of a file"
    return ""


def _no_folder(path: Path) -> str:
    """Why no file can be made in the path's folder, or no folder where that one would be."""
    folder = next(p for p in path.parents if os.path.lexists(p))
    if not folder.is_dir():
        return f"{folder} is not a folder; give another name"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as e:
        return f"nothing can be written in {folder} ({str(e.strerror).lower()}); give another folder"
    return ""

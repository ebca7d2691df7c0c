"""Tiny ImageNet from its folder or its original zip.

Its official validation images are the test split, as its test images have no labels. Their classes are read from
val_annotations.txt: their file names say nothing. Validation is held out of train.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from ddrep.config import TinyImageNet
from ddrep.data.decoding import exact_size
from ddrep.data.disk import Found, as_text, below, check_size, look, opened, raw, read_bytes, reason
from ddrep.data.listing import Contents, Entry, Listing, drawn, from_disk, listed
from ddrep.data.readers import CHEAP, READERS, Known, Named, Reader
from ddrep.data.reading import complain
from ddrep.errors import UserError, some
from ddrep.files import is_zip

WNIDS, WORDS, ANNOTATIONS = "wnids.txt", "words.txt", "val/val_annotations.txt"
ADVICE = "mend them, or unpack it anew"
EXPECTED = "expected the whole of tiny-imagenet-200"


@dataclass(frozen=True)
class _Files:
    """The files of a set by their names in tiny-imagenet-200, each with its place and path (see Entry)."""

    where: str
    names: Mapping[str, tuple[tuple[Any, ...], Any]]
    read: Callable[[Any], bytes]
    contents: Callable[[Sequence[Entry]], Contents]

    def lines(self, name: str) -> list[str]:
        try:
            text = as_text(self.read(self.names[name][1]))
        except Exception as e:  # zipfile and zlib raise many kinds
            raise UserError(f"{self.where}: {name} cannot be read ({reason(e)}); {ADVICE}") from None
        return [line for line in text.splitlines() if line.strip()]


def tiny_imagenet(cfg: TinyImageNet, seed: int) -> Listing:
    """Classes are numbered in the order of their sorted WordNet ids. Raises UserError."""
    with _opened(cfg.path) as files:
        missing = sorted({WNIDS, WORDS, ANNOTATIONS} - files.names.keys())
        if missing:
            there = some(_tops(files.names))
            raise UserError(f"{cfg.path}: no {', no '.join(missing)}; {EXPECTED}; it holds {there}")
        wnids = sorted({line.strip() for line in files.lines(WNIDS)})
        train = _train(files)
        test, complaints = _test(files, set(wnids))
        classes = _names(files, wnids)
    complaints += _miscounted(cfg, wnids, train, test)
    complain(cfg.path, complaints, "things are not as in tiny-imagenet-200", ADVICE)
    given = {split: _entries(files, wnids, part) for split, part in (("train", train), ("test", test))}
    splits = drawn(files.where, classes, given, seed, ADVICE, cfg.validation_per_class)
    pixels = partial(_pixels, size=cfg.size)
    return Listing(files.where, classes, splits, (cfg.size, cfg.size, 3), files.contents, pixels, ADVICE)


def _entries(files: _Files, wnids: Sequence[str], part: Mapping[str, list[str]]) -> list[Entry]:
    return [
        Entry(name, PurePosixPath(name).stem, label, *files.names[name])
        for label, wnid in enumerate(wnids)
        for name in part[wnid]
    ]


def _pixels(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(exact_size(image, size, size).convert("RGB"))  # some are grey


@contextmanager
def _opened(path: Path) -> Iterator[_Files]:
    """Raises UserError for what is no folder and no zip, or has no list of classes anywhere."""
    found, where = look(raw(path)), str(path)
    if found.is_folder:
        there = {each.name: each for each in below(found.path)}
        top = _top(where, there)
        inner = ((name.removeprefix(top), 0, each) for name, each in there.items() if name.startswith(top))
        entries, broken = listed(inner)
        complain(where, broken, "files cannot be used", ADVICE)
        names = {entry.name: (entry.place, entry.path) for entry in entries}
        yield _Files(where, names, read_bytes, from_disk)
        return
    with _zip(where, found) as archive:
        members = [name for name in archive.namelist() if not name.endswith("/") and "/." not in f"/{name}"]
        top = _top(where, members)
        names = {name.removeprefix(top): ((*found.place, name), name) for name in members if name.startswith(top)}
        yield _Files(where, names, partial(_unzipped, archive), partial(_from_zip, where, found))


@contextmanager
def _zip(where: str, found: Found) -> Iterator[zipfile.ZipFile]:
    try:
        file = opened(found.path)
    except (OSError, ValueError) as e:
        raise UserError(f"{where}: no such folder or zip ({reason(e)}); {EXPECTED}, or its zip") from None
    with file:
        try:
            archive = zipfile.ZipFile(file)
        except Exception as e:
            raise UserError(f"{where}: not a whole zip file ({reason(e)}); fetch it again") from None
        yield archive


def _from_zip(where: str, found: Found, entries: Sequence[Entry]) -> Contents:
    with _zip(where, found) as archive:
        for i, entry in enumerate(entries):
            yield i, partial(_unzipped, archive, entry.path)


def _unzipped(archive: zipfile.ZipFile, name: str) -> bytes:
    check_size(archive.getinfo(name).file_size)  # of which zipfile unpacks no more
    return archive.read(name)


def _tops(names: Iterable[str]) -> list[str]:
    return sorted({name.partition("/")[0] + "/" * ("/" in name) for name in names})


def _top(where: str, names: Collection[str]) -> str:
    """The folder that holds the list of classes, with a slash: the zip's may have another name, or none."""
    tops = [name.removesuffix(WNIDS) for name in names if f"/{name}".endswith(f"/{WNIDS}")]
    if not tops:
        raise UserError(f"{where}: no {WNIDS} in any folder; {EXPECTED}; it holds {some(_tops(names))}")
    if len(tops) > 1:
        raise UserError(f"{where}: {len(tops)} sets, in {some([top or '.' for top in tops])}; expected one")
    return tops[0]


def _train(files: _Files) -> dict[str, list[str]]:
    """Images by class, sorted by name."""
    found: dict[str, list[str]] = {}
    for name in sorted(files.names):
        match name.split("/"):
            case ["train", wnid, "images", _]:
                found.setdefault(wnid, []).append(name)
    return found


def _test(files: _Files, wnids: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Official validation images by class, as val_annotations.txt has them, and what is wrong with it."""
    found: dict[str, list[str]] = {}
    complaints = []
    listed: Counter[str] = Counter()
    for number, line in enumerate(files.lines(ANNOTATIONS), 1):
        name, wnid = [*line.split("\t"), "", ""][:2]
        path = f"val/images/{name}"
        listed[path] += 1
        if not name or wnid.strip() not in wnids:
            complaints.append(f"{ANNOTATIONS} line {number} (no class of {WNIDS}: {line[:40]!r})")
        elif listed[path] > 1:
            complaints.append(f"{ANNOTATIONS} line {number} ({name} is listed twice)")
        elif path not in files.names:
            complaints.append(f"{path} (listed, but missing)")
        else:
            found.setdefault(wnid.strip(), []).append(path)
    there = (name for name in sorted(files.names) if name.startswith("val/images/"))
    complaints += [f"{name} (not in {ANNOTATIONS})" for name in there if name not in listed]
    return {wnid: sorted(names) for wnid, names in found.items()}, complaints


def _miscounted(
    cfg: TinyImageNet, wnids: list[str], train: dict[str, list[str]], test: dict[str, list[str]]
) -> list[str]:
    complaints = [f"{WNIDS} ({len(wnids)} classes, expected {cfg.classes})"] if len(wnids) != cfg.classes else []
    complaints += [f"train/{wnid} (not in {WNIDS})" for wnid in sorted(train.keys() - set(wnids))]
    for what, part, expected in (("train", train, cfg.train_per_class), ("val", test, cfg.test_per_class)):
        for wnid in wnids:
            if len(part.get(wnid, [])) != expected:
                complaints.append(f"{wnid} ({len(part.get(wnid, []))} images in {what}, expected {expected})")
    return complaints


def _names(files: _Files, wnids: list[str]) -> tuple[str, ...]:
    """The first name that words.txt has for each class; with the WordNet number where two classes share it."""
    words = dict(line.split("\t", 1) for line in files.lines(WORDS) if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    count = Counter(names)
    return tuple(name if count[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True))


def _expected(cfg: TinyImageNet) -> Known:
    held_out, test = (cfg.classes * n for n in (cfg.validation_per_class, cfg.test_per_class))
    train = (cfg.train_per_class - cfg.validation_per_class,) * cfg.classes
    return Known(tuple(map(str, range(cfg.classes))), train, held_out, test)


def _known(cfg: TinyImageNet, seed: int) -> Known:
    """The number of images is what the configuration expects: the listing holds it against what is there."""
    if cfg.path.is_file() and not is_zip(cfg.path):
        raise UserError(f"{cfg.path}: not a whole zip file; fetch it again")
    expected, wnids = _expected(cfg), cfg.path / WNIDS
    names = expected.classes
    if wnids.is_file():
        names = tuple(wnids.read_text(encoding="utf-8", errors="replace").split())
    elif cfg.path.is_dir() or cfg.path.stat().st_size <= CHEAP:
        names = tiny_imagenet(cfg, 0).classes
    if len(names) != cfg.classes:
        raise UserError(f"{cfg.path}: {len(names)} classes; data.tiny_imagenet.classes says {cfg.classes}, mend one")
    return replace(expected, classes=names)


def _places(cfg: TinyImageNet) -> list[Path]:
    parts = ("train", "val", WNIDS, WORDS)
    return [cfg.path / name for name in parts] if look(raw(cfg.path)).is_folder else [cfg.path]


READERS.add(
    Reader(
        "tiny-imagenet",
        TinyImageNet,
        tiny_imagenet,
        paths=lambda cfg: [Named("path", cfg.path, "file or folder", "give tiny-imagenet-200, or its zip")],
        places=_places,
        expected=_expected,
        known=_known,
        paper=(3, 4),
    )
)

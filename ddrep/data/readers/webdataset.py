"""Any WebDataset of images with `cls`: tars in which KEY.jpg (or png, ...) and KEY.cls belong together."""

from __future__ import annotations

import posixpath
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ddrep.config import WebDatasetFiles
from ddrep.data.decoding import fitted
from ddrep.data.disk import inside, look, names_in, opened, raw, reason
from ddrep.data.listing import Contents, Entry, Listing, drawn, listed, once
from ddrep.data.readers import CHEAP, READERS, Known, Named, Reader, counted, square
from ddrep.data.reading import complain, warn
from ddrep.data.tars import content_of, forward
from ddrep.errors import UserError, some

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "ppm", "pgm")
EXPECTED = f"expected KEY.cls with KEY.{{{','.join(IMAGES)}}}, where KEY ends at the first dot"
ADVICE = "mend the tars or leave these samples out"
TWICE = "leave one of the two out"
LABEL_BYTES = 64
"""Of a label: more than any number of a class has."""
PACKED: dict[bytes, Any] = {b"\x1f\x8b": "r:gz", b"BZ": "r:bz2", b"\xfd7": "r:xz"}
"""How a file begins -> tarfile's mode of what is packed so. tarfile itself would try them in turn, and xz takes endless
zeros for its own."""
MAX_LINKS = 8
"""That are followed from one to the next."""


@dataclass
class _Sample:
    """`name` is tar and key; `image` the member with its bytes."""

    name: str
    stem: str
    label: int | None = None
    image: tarfile.TarInfo | None = None


def webdataset(cfg: WebDatasetFiles, seed: int) -> Listing:
    """Classes are numbered as cls has them. Raises UserError."""
    paths = {"train": cfg.train, "validation": cfg.validation, "test": cfg.test}
    tars = {split: _tars(split, given) for split, given in paths.items() if given}
    read = {split: _samples(split, given) for split, given in once("data.webdataset", tars, TWICE).items()}
    # every class needs an image in train: a label beyond their number is wrong, and need not be counted up to
    count = min(1 + max(entry.label for entry in read["train"]), len(read["train"]))
    classes = cfg.classes or tuple(map(str, range(count)))
    for split, entries in read.items():
        _check_labels(split, entries, classes)
    splits = drawn("data.webdataset", classes, read, seed, TWICE)
    pixels = partial(fitted, size=cfg.size, channels=cfg.channels)
    return Listing("data.webdataset", classes, splits, square(cfg), _contents, pixels, ADVICE)


def _tars(split: str, paths: Sequence[Path]) -> list[Entry]:
    """The tars that the setting names, those of a folder sorted by name."""
    where = f"data.webdataset.{split}"
    tars: list[Entry] = []
    wrong, unused = [], []
    for path in paths:
        found = look(raw(path), str(path))
        inner = [each._replace(name=f"{path}/{each.name}") for each in inside(found.path)] if found.is_folder else []
        chosen = [each for each in inner if each.name.endswith(".tar")] if found.is_folder else [found]
        unused += [each.name for each in inner if each not in chosen]
        if not chosen:
            wrong.append(f"{path} (no *.tar in it, but {some([each.name for each in inner])})")
        entries, broken = listed((each.name, 0, each) for each in chosen)
        tars += entries
        wrong += broken
    complain(where, wrong, "paths cannot be used", "give tars, or folders of tars")
    if unused:
        warn(f"{where}: {some(unused)}: no tars, and not used")
    return tars


def _samples(split: str, tars: Sequence[Entry]) -> list[Entry]:
    """All samples in the order of the tars. Raises UserError naming all that are incomplete."""
    where = f"data.webdataset.{split}"
    entries: list[Entry] = []
    complaints: list[str] = []
    unused: list[str] = []
    for tar in tars:
        try:
            members, small = _scanned(tar.path)
        except Exception as e:  # of tarfile and of what unpacks
            complaints.append(f"{tar.name} (not a whole tar file: {reason(e)})")
            continue
        samples, others = _collected(tar, members, small, complaints)
        unused += others
        complaints += [f"{s.name} (no image)" for s in samples if s.image is None]
        complaints += [f"{s.name} (no cls)" for s in samples if s.label is None]
        for s in samples:
            if s.image and s.label is not None:
                place = s.image.offset_data
                entries.append(Entry(s.name, s.stem, s.label, (*tar.place, place), (tar.path, place)))
    complain(where, complaints, "samples cannot be used", ADVICE)
    if not entries:
        raise UserError(f"{where}: no samples; {EXPECTED}; there are {some(unused)}")
    if unused:
        warn(f"{where}: {len(unused)} files have neither an image nor a cls beside them: {some(unused)}; {EXPECTED}")
    return entries


@contextmanager
def _opened(path: bytes) -> Iterator[tarfile.TarFile]:
    with opened(path) as file:
        mode = PACKED.get(file.read(2), "r:")
        file.seek(0)
        with tarfile.open(fileobj=file, mode=mode, encoding="utf-8") as tar:
            yield tar


def _scanned(path: bytes) -> tuple[list[tarfile.TarInfo], dict[int, bytes]]:
    """All members, and the contents of those that are small enough for a label, by their places.

    Images are read when they are wanted. Raises ValueError where tarfile takes a broken archive for its end.
    """
    members, small = [], {}
    with _opened(path) as tar:
        for member in forward(tar):
            members.append(member)
            if member.isreg() and member.size <= LABEL_BYTES:
                small[member.offset_data] = content_of(tar, member)
        assert tar.fileobj is not None
        tar.fileobj.seek(tar.offset)
        if tar.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise ValueError(f"cut short or broken at byte {tar.offset}")
    return members, small


def _collected(
    tar: Entry, members: Sequence[tarfile.TarInfo], small: Mapping[int, bytes], complaints: list[str]
) -> tuple[list[_Sample], list[str]]:
    """The samples of a tar, and the names of files that belong to none."""
    by_name = {posixpath.normpath(member.name): member for member in members}
    here: dict[str, _Sample] = {}
    others: dict[str, list[str]] = {}
    for member in members:
        folder, _, file = member.name.rpartition("/")
        stem, _, extension = file.partition(".")  # WebDataset's rule: the key ends at the first dot of the file's name
        if not stem or stem.startswith("__") or not (member.isreg() or member.islnk() or member.issym()):
            continue
        key = f"{folder}/{stem}"
        if extension != "cls" and extension.lower() not in IMAGES:
            others.setdefault(key, []).append(file)
            continue
        sample = here.setdefault(key, _Sample(f"{tar.name}:{stem}", stem))
        target = _target(member, by_name)
        if target is None:
            complaints.append(f"{tar.name}:{file} (a link to {member.linkname}, which is no file of the tar)")
        if extension == "cls":
            _set_label(sample, target, small, complaints)
        elif sample.image is not None:
            complaints.append(f"{sample.name} (two images)")
        else:
            sample.image = target
    return list(here.values()), [file for key, files in others.items() if key not in here for file in files]


def _target(member: tarfile.TarInfo, by_name: Mapping[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The member with the content: itself, or what a link leads to."""
    found: tarfile.TarInfo | None = member
    for _ in range(MAX_LINKS):
        if found is None or found.isreg():
            return found
        folder = posixpath.dirname(found.name) if found.issym() else ""
        found = by_name.get(posixpath.normpath(posixpath.join(folder, found.linkname)))
    return None


def _set_label(
    sample: _Sample, target: tarfile.TarInfo | None, small: Mapping[int, bytes], complaints: list[str]
) -> None:
    if sample.label is not None:
        complaints.append(f"{sample.name} (two cls)")
        return
    sample.label = -1
    if target is None:
        return
    content = small.get(target.offset_data)
    try:
        sample.label = int(content or b"")
    except ValueError:
        found = f"of {target.size} bytes" if content is None else repr(content[:20])
        complaints.append(f"{sample.name} (cls is {found}, expected an integer)")


def _check_labels(split: str, entries: Sequence[Entry], classes: tuple[str, ...]) -> None:
    wrong = [
        f"{entry.name} (cls is {entry.label}, expected 0..{len(classes) - 1})"
        for entry in entries
        if not 0 <= entry.label < len(classes)
    ]
    complain(f"data.webdataset.{split}", wrong, "samples are of no class", ADVICE)
    there = {entry.label for entry in entries}
    empty = [name for number, name in enumerate(classes) if number not in there]
    if split == "train":
        complain("data.webdataset.train", empty, "classes have no image", "add some, or mend data.webdataset.classes")
        if len(classes) < 2:
            raise UserError("data.webdataset.train: one class; expected 2 or more")


def _contents(entries: Sequence[Entry]) -> Contents:
    """Each tar is read once, from its beginning. What it turns out not to hold is not yielded."""
    wanted: dict[bytes, dict[int, int]] = {}
    for i, entry in enumerate(entries):
        path, place = entry.path
        wanted.setdefault(path, {})[place] = i
    for path, rows in wanted.items():
        with suppress(tarfile.TarError, OSError, EOFError, zlib.error), _opened(path) as tar:
            for member in forward(tar):
                if member.isreg() and member.offset_data in rows:
                    yield rows.pop(member.offset_data), partial(content_of, tar, member)
                if not rows:
                    break


def _paths(cfg: WebDatasetFiles) -> Iterator[Named]:
    for split, paths in (("train", cfg.train), ("validation", cfg.validation), ("test", cfg.test)):
        for path in paths:
            yield Named(split, path, "file or folder", "give tars, or folders of tars")


def _places(cfg: WebDatasetFiles) -> Iterator[Path]:
    for path in (*cfg.train, *cfg.validation, *cfg.test):
        yield from [path / name for name in names_in(path) if name.endswith(".tar")] or [path]


def _known(cfg: WebDatasetFiles, seed: int) -> Known | None:
    if sum(path.stat().st_size for path in _places(cfg) if path.exists()) > CHEAP:
        return Known(cfg.classes) if cfg.classes else None
    return counted(webdataset(cfg, seed))


READERS.add(Reader("webdataset", WebDatasetFiles, webdataset, paths=_paths, places=_places, known=_known))

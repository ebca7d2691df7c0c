"""What lies at a path: the files of a set of images, with the classes and splits that their places tell."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ddrep.data.disk import Found, below, inside, raw
from ddrep.data.lists import files, rows
from ddrep.data.readers.image_folder import SPLIT_OF
from ddrep.data.readers.unlabelled import is_image
from ddrep.errors import UserError, printable, some

LISTS = (".csv", ".tsv")


@dataclass(frozen=True)
class Picture:
    """A file that may be an image, called by its path from the set's root."""

    found: Found
    label: str = ""
    split: str = ""
    """train, validation or test; empty where nothing says it."""

    @property
    def name(self) -> str:
        return self.found.name


@dataclass(frozen=True)
class Pictures:
    """A set of images. `root` is where their names start, `kind` what it was taken for, `remarks` what is odd."""

    root: Path
    kind: str
    pictures: list[Picture]
    classes: tuple[str, ...] = ()
    """Sorted, those without an image as well."""
    remarks: list[str] = field(default_factory=list)

    @property
    def splits(self) -> frozenset[str]:
        """Those that there are; none, where they are still to be made."""
        return frozenset(each.split for each in self.pictures if each.split)


def labelled(path: Path) -> Pictures:
    """A folder of classes, one of splits of classes, or a list. Raises UserError for anything else."""
    if path.is_dir():
        lists = [each for each in inside(raw(path)) if each.name.lower() in ("metadata.csv", "metadata.tsv")]
        return _listed(path / lists[0].name) if lists else _of_folder(path)
    if path.suffix.lower() in LISTS:
        return _listed(path)
    there = "no image set" if path.exists() else "nothing there"
    expected = "a folder of images, a CSV file of paths and labels, WebDataset tars, or Parquet files"
    raise UserError(f"{path}: {there}; expected {expected}")


def unlabelled(path: Path) -> Pictures:
    """All images of a folder, at any depth, or those of a list. Raises UserError."""
    if path.is_dir():
        there = list(below(raw(path)))
        images = [Picture(each) for each in there if is_image(each)]
        return Pictures(path, "folder", images, remarks=_others([each for each in there if not is_image(each)]))
    if path.suffix.lower() not in LISTS:
        raise UserError(f"{path}: expected a folder of images, or a CSV file with the column path")
    names = [row["path"] for row in rows(path, ("path",))]
    return Pictures(path.parent, "list", [Picture(each) for each in files(path, None, names)])


def _listed(path: Path) -> Pictures:
    table = rows(path, ("path", "label"))
    names, said = [row["path"] for row in table], [row.get("split", "").lower() for row in table]
    if strange := sorted({split for split in said if split and split not in SPLIT_OF}):
        raise UserError(f"{path}: splits {some(strange)}; expected train, validation and test")
    if any(said) and (bare := [f"row {number + 2}" for number, split in enumerate(said) if not split]):
        raise UserError(f"{path}: {len(bare)} rows have no split, others have: {some(bare)}; give all one, or none")
    each = zip(files(path, None, names), table, said, strict=True)
    pictures = [Picture(found, row["label"], SPLIT_OF.get(split, "")) for found, row, split in each]
    return _with_splits(Pictures(path.parent, "list", pictures, tuple(sorted({row["label"] for row in table}))))


def _of_folder(root: Path) -> Pictures:
    there = inside(raw(root))
    folders = [each for each in there if each.is_folder]
    of_split = {each.name: split for each in folders if (split := SPLIT_OF.get(each.name.lower()))}
    split_folders = bool(of_split) and all(SPLIT_OF.get(each.name.lower()) for each in folders)
    if not split_folders and {"train", "test"} <= set(of_split.values()):
        others = some([each.name for each in folders if each.name not in of_split])
        raise UserError(f"{root}: {some(list(of_split))} are of splits, {others} of none; move it into them, or away")
    outside = [each for each in there if not each.is_folder]
    remarks = _others([each for each in outside if not is_image(each)])
    remarks += _others([each for each in outside if is_image(each)], "outside the class folders")
    found: list[tuple[str, str, Found]] = []
    if split_folders:
        for each in folders:
            inner = inside(each.path)
            loose = [one._replace(name=f"{each.name}/{one.name}") for one in inner if not one.is_folder]
            remarks += _others(loose, "outside the class folders")
            found += [(f"{each.name}/{one.name}", of_split[each.name], one) for one in inner if one.is_folder]
    else:
        found = [(each.name, "", each) for each in folders]
    if not found:
        loose_images = sum(map(is_image, there))
        said = f"{loose_images} images that lie in no class folders" if loose_images else "no class folders"
        raise UserError(f"{root}: {said}; expected CLASS/*, train/CLASS/* and test/CLASS/*, or a CSV file of labels;"
                        " images without labels are named by --unlabelled")  # fmt: skip
    pictures = [each for place, split, folder in found for each in _of_class(place, split, folder, remarks)]
    classes = tuple(sorted({_class(folder) for _, _, folder in found}))
    return _with_splits(Pictures(root, "folder", pictures, classes, remarks))


def _of_class(place: str, split: str, folder: Found, remarks: list[str]) -> list[Picture]:
    """The images of a class, at any depth of its folder."""
    there = [each._replace(name=f"{place}/{each.name}") for each in below(folder.path)]
    remarks += _others([each for each in there if not is_image(each)])
    return [Picture(each, _class(folder), split) for each in there if is_image(each)]


def _class(folder: Found) -> str:
    """In Unicode's composed form (NFC), for macOS writes some names decomposed, and without blanks around it."""
    return unicodedata.normalize("NFC", folder.name).strip() or "unnamed"


def _with_splits(pictures: Pictures) -> Pictures:
    """Without its splits, where there are not both train and test: all images are then split anew."""
    if not pictures.splits or pictures.splits >= {"train", "test"}:
        return pictures
    missing = " and ".join(sorted({"train", "test"} - pictures.splits))
    remark = f"no split {missing}: its splits do not count, and all images are split anew"
    bare = [Picture(each.found, each.label) for each in pictures.pictures]
    return replace(pictures, pictures=bare, remarks=[*pictures.remarks, remark])


def _others(found: Sequence[Found], why: str = "not called images") -> list[str]:
    names = [printable(each.name) for each in found]
    return [f"{len(names)} files {why}, and not used: {some(names)}"] if names else []

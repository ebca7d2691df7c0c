"""The files and folders that an experiment names: that they are there, and of the kind that is claimed."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ddrep.config import Data, Experiment
from ddrep.data.readers import Named, reader_of
from ddrep.runs import generators_asked


def named(e: Experiment) -> list[Named]:
    """Those that the experiment's parts read, each once."""
    found = list(_network(e.denoiser, "denoiser", "a denoiser's"))
    for name in generators_asked(e):
        found += _network(getattr(e.generators, name), f"generators.{name}", "one's")
    found += _evaluation(e)
    found += _of(e.data, "data") if {"augmentation", "attributes"} & set(e.parts) else []
    found += _masks(e) if "masks" in e.parts else []
    return found


def _network(choice: Any, key: str, whose: str) -> Iterator[Named]:
    """The file of a denoiser or another generator, or else the images that it is trained on."""
    if choice.kind == "file":
        if choice.file.path:
            yield Named(f"{key}.file.path", choice.file.path, "file", f"give {whose} .safetensors, or set {key}.kind")
    elif choice.pretrain.images:
        advice = f"give an IDX file of images, or name a folder of them in {key}.pretrain.data"
        yield Named(f"{key}.pretrain.images", choice.pretrain.images, "file", advice)
    elif choice.pretrain.data:
        yield from _of(choice.pretrain.data, f"{key}.pretrain.data")


def _evaluation(e: Experiment) -> Iterator[Named]:
    section, guided = e.evaluation, bool({"attributes", "masks"} & set(e.parts))
    wanted = {"inception": guided, "evaluator": guided, "segmenter": "masks" in e.parts}
    for name, used in wanted.items():
        if used and (path := getattr(section, name)):
            yield Named(f"evaluation.{name}", path, "file", "give one, or null (docs/evaluation.md)")


def _of(data: Data, key: str) -> Iterator[Named]:
    for it in reader_of(data).paths(data.section):
        yield replace(it, key=f"{key}.{data.table}.{it.key}")


def _masks(e: Experiment) -> Iterator[Named]:
    data = e.masks.data
    if data.kind == "few-shot" and data.few_shot:
        yield Named("masks.data.few_shot.root", data.few_shot.root, "folder", "it holds real/train and real/test")
    asked = data.kind == "celebamask-hq" or (data.kind == "few-shot" and e.evaluation.segmenter is None)
    if asked and data.celebamask_hq:
        advice = "it holds CelebA-HQ-img/ and CelebAMask-HQ-mask-anno/"
        yield Named("masks.data.celebamask_hq.root", data.celebamask_hq.root, "folder", advice)


def results(e: Experiment) -> Iterator[str]:
    """A folder, or nothing, lies where results are written."""
    for path in (Path("results"), Path("results", e.experiment)):
        if os.path.lexists(path) and not path.is_dir():
            yield f"{path}: a file, or a link to nothing, where results are to be written; move it away"


def absent(e: Experiment) -> Iterator[str]:
    """A complaint for each path at which there is nothing."""
    for it in named(e):
        if _found(it.path) in ("nothing", "a broken link"):
            what = f"no {it.kind}" if _found(it.path) == "nothing" else "a link that leads nowhere:"
            yield f"{it.key}: {what} {it.path}; {it.advice}"


def unlike(e: Experiment) -> Iterator[str]:
    """A complaint for each path that cannot be read as what it is to be."""
    for it in named(e):
        found = _found(it.path)
        if found in ("nothing", "a broken link") or found.removeprefix("a ") in it.kind.split(" or "):
            continue
        yield f"{it.key}: {it.path} is {found}; expected a {it.kind}: {it.advice}"


def readable(e: Experiment, key: str) -> bool:
    """Whether all paths of keys that begin so are there, as what they are to be."""
    mine = [it for it in named(e) if it.key.startswith(key)]
    return all(_found(it.path).removeprefix("a ") in it.kind.split(" or ") for it in mine)


def _found(path: Path) -> str:
    """What is at a path: nothing, a broken link, a file, a folder, or why it cannot be used."""
    try:
        mode = path.stat().st_mode
    except OSError as e:
        if e.errno in (errno.ENOENT, errno.ENOTDIR):
            return "a broken link" if path.is_symlink() else "nothing"
        return f"out of reach ({e.strerror})"
    if stat.S_ISDIR(mode):
        return "a folder" if os.access(path, os.R_OK | os.X_OK) else "a folder that may not be read"
    if not stat.S_ISREG(mode):
        return "neither file nor folder"
    return "a file" if os.access(path, os.R_OK) else "a file that may not be read"

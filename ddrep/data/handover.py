"""Kept images as a data set for others: a WebDataset, a folder by class, or Parquet; with a card and Croissant.

Croissant is MLCommons' description of a data set in JSON-LD (version 1.0).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

import ddrep
from ddrep.data.shards import LabelledImages, read_shards, write_info, write_shard
from ddrep.data.tars import encode_png
from ddrep.errors import UserError, some
from ddrep.files import sha256, written_whole
from ddrep.rows import Kind, read_rows
from ddrep.sources import SOURCES

Format = Literal["webdataset", "image-folder", "parquet"]
ATTEMPTS: dict[str, Kind] = {"key": "text", "class": "whole", "seed": "whole", "p": "number", "accepted": "flag"}
NAMED = 100
"""Classes that a card names."""
CARD, CROISSANT = "README.md", "croissant.json"


@dataclass(frozen=True)
class Kept:
    """Images to hand on, with what is known of how they were made."""

    images: LabelledImages
    attempts: pd.DataFrame
    source: str


def run(*, shards: Sequence[Path], format: Format, licence: str, out: Path) -> None:
    """Write a new folder with all images of a source's shards. Raises UserError.

    licence: of the images that the denoiser and the judge were trained on, as its holder puts it; derived images may be
    bound by it.
    """
    kept = read(shards)
    with written_whole(out) as (draft,):
        draft.mkdir(parents=True)
        files = WRITERS[format](kept.images, draft)
        draft.joinpath(CARD).write_text(card(kept, licence, format), encoding="utf-8")
        content = json.dumps(croissant(kept, licence, format, draft, files), indent=1, ensure_ascii=False)
        draft.joinpath(CROISSANT).write_text(content + "\n", encoding="utf-8")


def read(shards: Sequence[Path]) -> Kept:
    """The images of shards of one source, .../synthetic/SOURCE/INDEX.tar, and their attempts beside them."""
    images = read_shards(shards)
    names = {path.resolve().parent.name for path in shards}
    if len(names) > 1 or not names <= set(SOURCES):
        raise UserError(f"{shards[0]}: expected shards of one source, in a folder of its name; got {sorted(names)}")
    if len(set(images.keys)) < len(images):
        raise UserError(f"{shards[0]}: the same images twice; give each shard of one labelled subset once")
    parts = [read_rows(path.with_suffix(".parquet"), ATTEMPTS, f"the attempts of {path}") for path in shards]
    return Kept(images, pd.concat(parts, ignore_index=True), names.pop())


def _webdataset(images: LabelledImages, folder: Path) -> list[Path]:
    """One tar, which timm reads as split 1x."""
    write_shard(folder / "00000.tar", images)
    write_info(folder / "_info.json", [folder / "00000.tar"], 1)
    return [folder / "00000.tar"]


def _image_folder(images: LabelledImages, folder: Path) -> list[Path]:
    """train/CLASS/KEY.png, as torchvision and timm read it; a class's folder begins with its number, which keeps the
    order and names apart that a file system would not."""
    width = len(str(len(images.classes) - 1))
    names = [f"{i:0{width}d}-{_safe(name)}" for i, name in enumerate(images.classes)]
    paths = []
    for key, label, image in zip(images.keys, images.labels, images.images, strict=True):
        paths.append(folder / "train" / names[label] / f"{key}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        paths[-1].write_bytes(encode_png(image))
    return paths


def _safe(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_ " else "_" for c in name).strip() or "class"


def _parquet(images: LabelledImages, folder: Path) -> list[Path]:
    """data/train-00000-of-00001.parquet, with the names of the classes where the library datasets looks for them."""
    features: dict[str, Any] = {
        "image": {"_type": "Image"},
        "label": {"names": list(images.classes), "_type": "ClassLabel"},
        "key": {"dtype": "string", "_type": "Value"},
    }
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    pixels = zip(map(encode_png, images.images), images.keys, strict=True)
    columns = {
        "image": pa.array([{"bytes": png, "path": f"{key}.png"} for png, key in pixels], struct),
        "label": pa.array(images.labels, pa.int64()),
        "key": pa.array(images.keys),
    }
    if images.soft is not None:
        features["soft"] = {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"}
        columns["soft"] = pa.array(list(images.soft.astype(np.float32)), pa.list_(pa.float32()))
    told = json.dumps({"info": {"features": features}}, ensure_ascii=False)
    path = folder / "data/train-00000-of-00001.parquet"
    path.parent.mkdir()
    pq.write_table(pa.table(columns).replace_schema_metadata({"huggingface": told}), path)
    return [path]


WRITERS: dict[str, Callable[[LabelledImages, Path], list[Path]]] = {
    "webdataset": _webdataset,
    "image-folder": _image_folder,
    "parquet": _parquet,
}


def facts(kept: Kept, format: str) -> list[str]:
    """Sentences that hold for the images, in plain text."""
    images, attempts = kept.images, kept.attempts
    height, width, channels = images.images.shape[1:]
    counts = np.bincount(images.labels, minlength=len(images.classes))
    accepted = attempts[attempts["accepted"]]
    drawn = SOURCES[kept.source].origin != "unlabelled"
    kind = "generated" if drawn else "real"
    made = "An image is a function of its seed, denoiser and sampling settings; its key is CLASS-SHARD-ATTEMPT."
    said = [
        f"{len(images):,} {kind} images of {width}x{height}x{channels} in {len(images.classes)} classes, "
        f"{_range(int(counts.min()), int(counts.max()))} a class: {some(images.classes, NAMED)}.",
        f"Source {kept.source}: {SOURCES[kept.source].about.replace('*', '')}.",
        f"Kept of {len(attempts):,} candidates ({len(accepted) / len(attempts):.0%}); the judge's p of the class is "
        f"{accepted['p'].min():.2f} to {accepted['p'].max():.2f}.",
        *[made] * drawn,
    ]
    if images.soft is not None and format != "image-folder":
        said.append("Each image carries the judge's probabilities of all classes as a soft label.")
    return said


def _range(low: int, high: int) -> str:
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def limits(kept: Kept) -> list[str]:
    """Sentences about what not to expect."""
    source = SOURCES[kept.source]
    if source.origin != "finetuned":
        labels = "the class that a judge, which errs, holds for the most probable: nothing was asked for"
    elif source.filtered:
        labels = "what was asked for, confirmed by a judge that errs itself"
    else:
        labels = "what was asked for; no judge has refused any image"
    drawn = "The images are drawn, not photographed: they show what the denoiser learned, with its gaps and its biases."
    return [
        *[drawn] * (source.origin != "unlabelled"),
        f"Labels are {labels}.",
        "Images may come close to those that the denoiser or the judge was trained on.",
        "They are for training classifiers; accuracy is to be measured on real images.",
    ]


def card(kept: Kept, licence: str, format: str) -> str:
    """README.md, with the front matter that the Hugging Face Hub reads."""
    front = ["---", "task_categories: [image-classification]", "tags: [synthetic]", f"pretty_name: {_title(kept)}"]
    front += [
        "configs:", "- config_name: default", "  data_files: [{split: train, path: data/train-*.parquet}]"
    ] if format == "parquet" else []  # fmt: skip
    parts = ["\n".join([*front, "---"]), f"# {_title(kept)}", *facts(kept, format)]
    parts += [f"Made by ddrep {ddrep.__version__} after Graikos et al., BMVC 2023."]
    listed = "\n".join(f"- {said}" for said in limits(kept))
    parts += [f"Licence of the training data: {licence}.", "## Known limits", listed]
    return "\n\n".join(parts) + "\n"


def _title(kept: Kept) -> str:
    return f"{'Real' if SOURCES[kept.source].origin == 'unlabelled' else 'Synthetic'} images, source {kept.source}"


def croissant(kept: Kept, licence: str, format: str, folder: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Croissant 1.0: what the data set is, its files with their digests and, of Parquet, its fields."""
    content: dict[str, Any] = {
        "@context": CONTEXT, "@type": "sc:Dataset", "name": f"synthetic-{kept.source}",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "description": " ".join([*facts(kept, format), *limits(kept)]),
        "license": licence, "version": "1.0.0",
        "citeAs": "Graikos et al.: Conditional Generation from Unconditional Diffusion Models using Denoiser "
        "Representations. BMVC 2023",
    }  # fmt: skip
    if format == "image-folder":
        pngs = {"encodingFormat": "image/png", "includes": "train/*/*.png"}
        return content | {"distribution": [{"@type": "cr:FileSet", "@id": "images", "name": "images", **pngs}]}
    content["distribution"] = [_file(path, folder) for path in files]
    if format == "parquet":
        content["recordSet"] = [_records(files[0].relative_to(folder).as_posix())]
    return content


def _file(path: Path, folder: Path) -> dict[str, Any]:
    kind = {".tar": "application/x-tar", ".parquet": "application/x-parquet"}[path.suffix]
    name = path.relative_to(folder).as_posix()
    return {"@type": "cr:FileObject", "@id": name, "name": name, "contentUrl": name, "encodingFormat": kind,
            "sha256": sha256(path)}  # fmt: skip


def _records(file: str) -> dict[str, Any]:
    """The fields of the Parquet file."""
    kinds = {"image": "sc:ImageObject", "label": "sc:Integer", "key": "sc:Text"}
    sources = {name: {"fileObject": {"@id": file}, "extract": {"column": name}} for name in kinds}
    sources["image"]["transform"] = {"jsonPath": "bytes"}
    fields = [
        {"@type": "cr:Field", "@id": f"images/{name}", "name": name, "dataType": kind, "source": sources[name]}
        for name, kind in kinds.items()
    ]
    return {"@type": "cr:RecordSet", "@id": "images", "name": "images", "field": fields}


CONTEXT: dict[str, Any] = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"}, "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/", "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract",
    "field": "cr:field", "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet",
    "format": "cr:format", "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath",
    "key": "cr:key", "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/", "recordSet": "cr:recordSet", "references": "cr:references",
    "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace", "sc": "https://schema.org/",
    "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField", "transform": "cr:transform",
}  # fmt: skip
"""Croissant 1.0's, as its specification gives it."""

"""Sets in archives as folders of images, SPLIT/CLASS/FILE: WebDataset tars, Hugging Face's Parquet or Arrow files."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddrep.data.disk import below, check_size, raw, reason
from ddrep.data.lists import COLUMNS
from ddrep.data.readers.unlabelled import SUFFIXES
from ddrep.data.tars import forward
from ddrep.errors import UserError
from ddrep.files import LONGEST_NAME, written_whole
from ddrep.own_images.found import SPLIT_OF

KINDS = {".tar": "WebDataset", ".parquet": "Hugging Face data set (Parquet)", ".arrow": "Hugging Face data set (Arrow)"}
Sample = tuple[str, str, bytes]
"""Class, a name, and the file of an image."""


def archives(path: Path) -> tuple[str, list[Path]]:
    """Suffix and files of the archives at a path or below it; none, where there are none."""
    if path.suffix in KINDS and path.is_file():
        return path.suffix, [path]
    there = [path / each.name for each in below(raw(path))] if path.is_dir() else []
    for suffix in KINDS:
        if found := sorted(each for each in there if each.suffix == suffix):
            return suffix, found
    return "", []


def unpack(suffix: str, files: list[Path], out: Path) -> int:
    """Write every image as out/[SPLIT/]CLASS/FILE, the folder whole or not at all; how many. Raises UserError."""
    count = 0
    with written_whole(out) as (draft,):
        for number, file in enumerate(files):
            split = _split_of(file)
            samples = _of_tar(file) if suffix == ".tar" else _of_table(file)
            for row, (label, name, content) in enumerate(samples):
                folder = draft / split / _safe(file, label)
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{number:03d}-{row:06d}{name}").write_bytes(content)
                count += 1
        if not count:
            raise UserError(f"{files[0]}: no images with a class in it; expected an image and its class in each sample")
    return count


def _split_of(file: Path) -> str:
    """What the names of a file and its folders say, as train-00000-of-00002.parquet or train/00000.tar do."""
    words = [*re.split(r"[^A-Za-z]+", file.stem), *reversed(file.parts[-3:-1])]
    return next((split for word in words if (split := SPLIT_OF.get(word.lower()))), "")


def _safe(file: Path, label: str) -> str:
    """The name of a class's folder. Raises UserError for what is no name."""
    name = label.replace("/", "_").replace("\0", "_").strip(". ") or "unnamed"
    if len(name.encode()) > LONGEST_NAME:
        raise UserError(f"{file}: a class {name[:50]}..., of {len(name)} characters; expected a number or a name")
    return name


def _of_tar(file: Path) -> Iterator[Sample]:
    """Samples of an image and KEY.cls; of neighbours, as webdataset groups them."""
    key, image, label = "", None, None
    try:
        with tarfile.open(file) as tar:
            for member in forward(tar):
                name = PurePath(member.name).name
                if not member.isreg() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                if (at := f"{PurePath(member.name).parent}/{stem}") != key:
                    key, image, label = at, None, None
                content = tar.extractfile(member)
                assert content
                check_size(member.size)
                if ending == "cls":
                    label = content.read().decode("utf-8", "replace").strip()
                elif f".{ending}".lower() in SUFFIXES:
                    image = f".{ending}", content.read()
                if image and label is not None:
                    yield label, *image
                    image, label = None, None
    except Exception as e:  # of tarfile and of what unpacks
        raise UserError(f"{file}: not a whole tar ({reason(e)}); fetch it again") from None


def _of_table(file: Path) -> Iterator[Sample]:
    """Rows of an image, as bytes or as {bytes, path}, and a class, by number or name."""
    try:
        schema, batches = _batches(file)
        image, label = _columns(file, schema)
        names = _class_names(schema, label)
        for batch in batches:
            batch.validate(full=True)  # offsets of a broken file lead out of its memory, and the process dies of it
            for row in batch.select([image, label]).to_pylist():
                content = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                if content is not None and row[label] is not None:
                    yield names[row[label]] if names else str(row[label]), ".png", content
    except UserError:
        raise
    except Exception as e:  # of arbitrary bytes the library makes errors of many types
        raise UserError(f"{file}: not a whole table of images ({reason(e)}); fetch it again") from None


def _batches(file: Path) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    if file.suffix == ".parquet":
        table = pq.ParquetFile(file)
        return table.schema_arrow, table.iter_batches(256)
    stream = pa.ipc.open_stream(pa.memory_map(str(file)))
    return stream.schema, iter(stream)


def _columns(file: Path, schema: pa.Schema) -> tuple[str, str]:
    """Names of the columns of the images and of their classes."""

    def holds_bytes(kind: Any) -> bool:
        inner = kind.field("bytes").type if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else kind
        return pa.types.is_binary(inner) or pa.types.is_large_binary(inner)

    images = [each.name for each in schema if holds_bytes(each.type)]
    labels = [name for name in schema.names if name.lower() in COLUMNS["label"]]
    labels += _features(schema, "ClassLabel")
    if not images or not labels:
        missing = "images (bytes)" if not images else "classes (label)"
        raise UserError(f"{file}: no column of {missing}; it has {', '.join(schema.names)}")
    return images[0], labels[0]


def _class_names(schema: pa.Schema, label: str) -> list[str]:
    """Of numbered classes, as Hugging Face's metadata have them."""
    return _features(schema, "ClassLabel").get(label, {}).get("names", [])


def _features(schema: pa.Schema, kind: str) -> dict[str, Any]:
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = said.get("info", {}).get("features", {})
    return {name: each for name, each in features.items() if isinstance(each, dict) and each.get("_type") == kind}

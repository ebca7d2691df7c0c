"""Sets in archives as folders of images with a list: WebDataset tars, Hugging Face's Parquet or Arrow files."""

from __future__ import annotations

import json
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ddrep.data.disk import below, raw, reason
from ddrep.data.lists import COLUMNS, write_rows
from ddrep.data.readers.image_folder import SPLIT_OF
from ddrep.data.readers.unlabelled import SUFFIXES
from ddrep.data.tars import content_of, forward
from ddrep.errors import UserError, some
from ddrep.files import LONGEST_NAME, written_whole

KINDS = {".tar": "WebDataset", ".parquet": "Hugging Face data set (Parquet)", ".arrow": "Hugging Face data set (Arrow)"}
LIST = "metadata.csv"
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


def unpack(suffix: str, files: list[Path], out: Path) -> tuple[int, list[str]]:
    """Write every image as out/[SPLIT/]CLASS/FILE and a list with the classes' own names, out/metadata.csv, all or
    nothing. How many there are, and what is left out, in words. Raises UserError."""
    splits = {file: _split_of(file) for file in files}
    if bare := [file.name for file, split in splits.items() if not split and any(splits.values())]:
        raise UserError(
            f"{files[0].parent}: the names of {some(bare)} tell no split, those of others do; "
            "name all after their splits, or none"
        )
    rows, folders, left = list[tuple[str, str, str]](), dict[str, str](), Counter[str]()
    with written_whole(out) as (draft,):
        for number, file in enumerate(files):
            samples = _of_tar(file, left) if suffix == ".tar" else _of_table(file, left)
            for row, (said, name, content) in enumerate(samples):
                label = _label(file, said)
                place = f"{splits[file]}/{folders.setdefault(label, f'{len(folders):03d}-{_safe(label)}')}".strip("/")
                (draft / place).mkdir(parents=True, exist_ok=True)
                rows.append((f"{place}/{number:03d}-{row:06d}{name}", label, splits[file]))
                (draft / rows[-1][0]).write_bytes(content)
        if not rows:
            raise UserError(f"{files[0]}: no images with a class in it; expected an image and its class in each sample")
        write_rows(draft / LIST, ("path", "label", "split"), rows)
    return len(rows), [f"{n:,} {what}, left out" for what, n in left.items()]


def _split_of(file: Path) -> str:
    """What the names of a file and its folders say, as train-00000-of-00002.parquet or train/00000.tar do."""
    words = [*re.split(r"[^A-Za-z]+", file.stem), *reversed(file.parts[-3:-1])]
    return next((split for word in words if (split := SPLIT_OF.get(word.lower()))), "")


def _label(file: Path, said: str) -> str:
    """In Unicode's composed form (NFC). Raises UserError for what is no name."""
    label = unicodedata.normalize("NFC", said.replace("\0", "_")).strip() or "unnamed"
    if len(label.encode("utf-8", "replace")) > LONGEST_NAME:
        raise UserError(f"{file}: a class {label[:50]}..., of {len(label)} characters; expected a number or a name")
    return label


def _safe(label: str) -> str:
    """For the name of a class's folder, behind its number."""
    return re.sub(r"\W+", "_", label)[:40]


def _of_tar(file: Path, left: Counter[str]) -> Iterator[Sample]:
    """Samples of an image and KEY.cls; of neighbours, as webdataset groups them. left: what is not among them."""
    key, image, label = "", None, None
    images = samples = 0
    try:
        with tarfile.open(file) as tar:
            for member in forward(tar):
                name = PurePath(member.name).name
                if not member.isreg() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                if (at := f"{PurePath(member.name).parent}/{stem}") != key:
                    key, image, label = at, None, None
                if ending == "cls":
                    label = content_of(tar, member).decode("utf-8", "replace").strip()
                elif f".{ending}".lower() in SUFFIXES:
                    image = f".{ending}", content_of(tar, member)
                images += PurePath(name).suffix.lower() in SUFFIXES
                if image and label is not None:
                    yield label, *image
                    samples += 1
                    image, label = None, None
    except Exception as e:  # of tarfile and of what unpacks
        raise UserError(f"{file}: not a whole tar ({reason(e)}); fetch it again") from None
    if images > samples:
        left["images beside no KEY.cls of the same KEY, which ends at a file's first dot"] += images - samples


def _of_table(file: Path, left: Counter[str]) -> Iterator[Sample]:
    """Rows of an image, as bytes or as {bytes, path}, and a class, by number or name. left: what is not among them."""
    try:
        schema, batches = _batches(file)
        image, label = _columns(file, schema)
        names = _numbered(schema).get(label, {}).get("names", [])
        for batch in batches:
            batch.validate(full=True)  # offsets of a broken file lead out of its memory, and the process dies of it
            for row in batch.select([image, label]).to_pylist():
                content = row[image]["bytes"] if isinstance(row[image], dict) else row[image]
                said = row[label]
                if content is None or said is None or said == -1:
                    left["rows without an image" if content is None else "rows without a class (none, or -1)"] += 1
                elif names and isinstance(said, int) and said not in range(len(names)):
                    raise UserError(f"{file}: a class {said}, but names of {len(names)}; mend the column {label}")
                else:
                    yield names[said] if names and isinstance(said, int) else str(said), ".png", content
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
    labels += _numbered(schema)
    if not images or not labels:
        missing = "images (bytes)" if not images else "classes (label)"
        raise UserError(f"{file}: no column of {missing}; it has {', '.join(schema.names)}")
    return images[0], labels[0]


def _numbered(schema: pa.Schema) -> dict[str, Any]:
    """The columns of numbered classes, as Hugging Face's metadata have them, with the `names` of these."""
    said = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    each = said.get("info", {}).get("features", {}).items()
    return {name: kind for name, kind in each if isinstance(kind, dict) and kind.get("_type") == "ClassLabel"}

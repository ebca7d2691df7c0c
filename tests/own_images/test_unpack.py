"""Archives of images: WebDataset tars, and Hugging Face's Parquet and Arrow files as `datasets` writes them."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddrep.data.shards import write_shard
from ddrep.errors import UserError
from ddrep.own_images.found import labelled
from ddrep.own_images.unpack import archives, unpack
from tests import tiny
from tests.own_images.folders import noise


def png() -> bytes:
    content = io.BytesIO()
    noise().save(content, "PNG")
    return content.getvalue()


def unpacked(path: Path, out: Path) -> dict[tuple[str, str], set[bytes]]:
    """Images by split and class."""
    suffix, files = archives(path)
    count, _ = unpack(suffix, files, out)
    found: dict[tuple[str, str], set[bytes]] = {}
    for each in labelled(out).pictures:
        found.setdefault((each.split, each.label), set()).add((out / each.name).read_bytes())
    assert sum(map(len, found.values())) == count
    return found


def hugging_face(root: Path, splits: dict[str, list[tuple[int, bytes]]], suffix: str) -> Path:
    """As `datasets` writes an image and a ClassLabel: push_to_hub's Parquet, or save_to_disk's Arrow."""
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", kind), ("label", pa.int64())])
    schema = schema.with_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    for split, rows in splits.items():
        images = [{"bytes": content, "path": None} for _, content in rows]
        table = pa.table({"image": images, "label": [label for label, _ in rows]}, schema)
        if suffix == ".parquet":
            (root / "data").mkdir(parents=True, exist_ok=True)
            pq.write_table(table, root / f"data/{split}-00000-of-00001.parquet")
            continue
        (root / split).mkdir(parents=True)
        with pa.ipc.new_stream(str(root / split / "data-00000-of-00001.arrow"), schema) as stream:
            stream.write_table(table)
    return root


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_hugging_face(tmp_path: Path, suffix: str) -> None:
    splits = {split: [(i % 2, png()) for i in range(6)] for split in ("train", "validation", "test")}
    found = unpacked(hugging_face(tmp_path / "set", splits, suffix), tmp_path / "out")
    for split, rows in splits.items():
        for label, name in enumerate(("cat", "dog")):
            assert found[split, name] == {content for number, content in rows if number == label}


def test_a_shard_of_ddrep(tmp_path: Path) -> None:
    images = tiny.images(per_class=5)
    write_shard(tmp_path / "set/train.tar", images)
    write_shard(tmp_path / "set/test.tar", tiny.images("test", per_class=2))
    found = unpacked(tmp_path / "set", tmp_path / "out")
    assert {key: len(each) for key, each in found.items()} == {
        **{("train", str(i)): 5 for i in range(3)}, **{("test", str(i)): 2 for i in range(3)}
    }  # fmt: skip


def test_a_tar_without_splits_and_samples_that_are_not_whole(tmp_path: Path) -> None:
    first, other = png(), png()
    members = {
        "a.cls": b"0",
        "a.png": first,
        "b.png": png(),
        "c.cls": b"1",
        "d.json": b"{}",
        "d.PNG": other,
        "d.cls": b"7\n",
    }
    with tarfile.open(tmp_path / "all.tar", "w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(f"x/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert unpacked(tmp_path / "all.tar", tmp_path / "out") == {("", "0"): {first}, ("", "7"): {other}}


WRONG: dict[str, tuple[Any, str]] = {
    "a broken tar": (("a.tar", b"no tar at all"), "a.tar: not a whole tar"),
    "an empty tar": (("a.tar", b""), "a.tar: not a whole tar .file could not be opened successfully: - method gz"),
    "a broken table": (("a.parquet", b"PAR1"), "a.parquet: not a whole table of images"),
}


@pytest.mark.parametrize("file, said", WRONG.values(), ids=WRONG.keys())
def test_broken_archives(tmp_path: Path, file: tuple[str, bytes], said: str) -> None:
    (tmp_path / file[0]).write_bytes(file[1])
    with pytest.raises(UserError, match=said):
        unpacked(tmp_path / file[0], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "said", ["{", "[]", '{"info": 1}', '{"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}']
)
def test_a_table_that_says_what_none_does_is_one_line(tmp_path: Path, said: str) -> None:
    table = pa.table({"image": [png()], "label": [0]}).replace_schema_metadata({"huggingface": said})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: not a whole table of images"):
        unpacked(tmp_path / "a.parquet", tmp_path / "out")


def test_offsets_that_lead_out_of_an_arrow_file_are_one_line(tmp_path: Path) -> None:
    """The library takes them on trust, and the process would die of them."""
    content = png()
    hugging_face(tmp_path, {"train": [(0, content)] * 4}, ".arrow")
    file = next(tmp_path.rglob("*.arrow"))
    whole, right = file.read_bytes(), struct.pack("<5i", *(i * len(content) for i in range(5)))
    assert whole.count(right) == 1
    file.write_bytes(whole.replace(right, struct.pack("<5i", *(i * 2**28 for i in range(5)))))
    with pytest.raises(UserError, match=r"arrow: not a whole table of images"):
        unpacked(file, tmp_path / "out")


def test_a_class_whose_name_no_folder_has_is_one_line(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png()], "label": ["x" * 300]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a.parquet: a class x{50}\.\.\., of 300 characters; expected a number"):
        unpacked(tmp_path / "a.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_table_without_images(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), tmp_path / "train.parquet")
    with pytest.raises(UserError, match=r"no column of images \(bytes\); it has text, label"):
        unpacked(tmp_path / "train.parquet", tmp_path / "out")

"""Archives of images: WebDataset tars, and Hugging Face's Parquet and Arrow files as `datasets` writes them."""

from __future__ import annotations

import io
import json
import struct
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
from tests.data.replicas import tar
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
    tar(tmp_path / "all.tar", {f"x/{name}": content for name, content in members.items()})
    assert unpacked(tmp_path / "all.tar", tmp_path / "out") == {("", "0"): {first}, ("", "7"): {other}}


def test_members_that_are_not_read_may_be_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = png()
    monkeypatch.setattr("ddrep.data.disk.MAX_BYTES", len(image))
    tar(tmp_path / "all.tar", {"a.cls": b"0", "a.mp4": bytes(len(image) + 1), "a.png": image})
    assert unpacked(tmp_path / "all.tar", tmp_path / "out") == {("", "0"): {image}}


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


def left_out(path: Path, out: Path) -> list[str]:
    return unpack(*archives(path), out)[1]


def test_rows_without_a_class_are_counted(tmp_path: Path) -> None:
    """Hugging Face's test splits have -1 for a label that is kept back; it is not the last class."""
    rows = [(0, png()), (1, png()), (-1, png()), (-1, png())]
    root = hugging_face(tmp_path / "set", {"train": rows}, ".parquet")
    assert left_out(root, tmp_path / "out") == ["2 rows without a class (none, or -1), left out"]
    found = {each.label: each for each in labelled(tmp_path / "out").pictures}
    assert len(found) == 2 and sorted(found) == ["cat", "dog"]


def test_a_class_beyond_its_names_is_one_line(tmp_path: Path) -> None:
    root = hugging_face(tmp_path / "set", {"train": [(0, png()), (7, png())]}, ".parquet")
    with pytest.raises(UserError, match=r"parquet: a class 7, but names of 2; mend the column label"):
        unpacked(root, tmp_path / "out")


def test_images_of_keys_with_dots_are_counted(tmp_path: Path) -> None:
    tar(tmp_path / "a.tar", {"1.v1.png": png(), "1.v1.cls": b"0", "2.png": png(), "2.cls": b"1"})
    (said,) = left_out(tmp_path / "a.tar", tmp_path / "out")
    assert said.startswith("1 images beside no KEY.cls of the same KEY")


@pytest.mark.parametrize("names", [("a/b", "a_b"), ("train", "test"), (".a", "a")])
def test_classes_keep_their_names(names: tuple[str, str], tmp_path: Path) -> None:
    table = pa.table({"image": [png(), png()], "label": list(names)})
    pq.write_table(table, tmp_path / "a.parquet")
    assert set(unpacked(tmp_path / "a.parquet", tmp_path / "out")) == {("", name) for name in names}


def test_files_of_which_some_tell_a_split_are_one_line(tmp_path: Path) -> None:
    table = pa.table({"image": [png(), png()], "label": ["a", "b"]})
    for name in ("train-0", "test-0", "more"):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    with pytest.raises(UserError, match=r"the names of more.parquet tell no split, those of others do; name all"):
        unpacked(tmp_path, tmp_path / "out")

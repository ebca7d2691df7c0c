"""The readers of lists: CSV files of labelled images, and unlabelled ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddrep import config
from ddrep.data.digest import digest, places
from ddrep.data.lists import rows, write_rows
from ddrep.errors import UserError
from tests.data.readers import complaint, take

ROWS = [
    ("a.png", "cat", "train"),
    ("b.png", "dog", "train"),
    ("in/c.png", "cat", "test"),
    ("d.png", "dog", "validation"),
]


def made(root: Path, lines: Sequence[tuple[str, ...]] = ROWS, head: str = "path,label,split") -> dict[str, object]:
    """Images of one red level each, in the order of the lines, and a list of them."""
    for i, (name, *_) in enumerate(lines):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4), (i, 0, 0)).save(root / name)
    write_rows(root / "list.csv", head.split(","), lines)
    return {"path": root / "list.csv", "size": 4}


def test_a_list_says_class_and_split(tmp_path: Path) -> None:
    table = made(tmp_path)
    found = {split: take("csv", table, split) for split in ("train", "validation", "test")}
    levels = {split: images.images[:, 0, 0, 0].tolist() for split, images in found.items()}
    assert levels == {"train": [0, 1], "validation": [3], "test": [2]}
    assert found["train"].classes == ("cat", "dog") and found["train"].labels.tolist() == [0, 1]
    assert found["test"].labels.tolist() == [0] and found["train"].images.shape == (2, 4, 4, 3)


def test_paths_start_from_the_root(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "list.csv").rename(tmp_path / "elsewhere/list.csv")
    table = {"path": tmp_path / "elsewhere/list.csv", "root": tmp_path, "size": 4, "channels": 1}
    assert take("csv", table, "train").images.shape == (2, 4, 4, 1)


def test_without_validation_a_tenth_is_held_out(tmp_path: Path) -> None:
    lines = [(f"{name}{i}.png", name, "train" if i else "test") for name in ("cat", "dog") for i in range(4)]
    table = made(tmp_path, lines)
    assert [len(take("csv", table, split)) for split in ("train", "validation", "test")] == [4, 2, 2]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_what_spreadsheets_write(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "l.csv"
    line = f"File_Name{separator}note{separator}CLASS\r\n\r\nx.png{separator}{separator} a, b \r\n"
    path.write_bytes(b"\xef\xbb\xbf" + (line.replace(" a, b ", '"a, b"') if separator == "," else line).encode())
    assert rows(path, ("path", "label")) == [{"path": "x.png", "label": "a, b"}]


WRONG = {
    "no split": (("a.png", "cat"), "path,label", "no column split; its first line names path, label"),
    "a strange split": (("a.png", "cat", "dev"), "path,label,split", "a.png (split dev); expected train, validation"),
    "no label": (("a.png", "", "train"), "path,label,split", "1 rows lack path or label or split: row 6"),
    "an unknown class": (("z.png", "cow", "test"), "path,label,split", "z.png (label cow); give train some"),
    "a file twice": (("a.png", "dog", "train"), "path,label,split", "a.png = a.png (of two classes)"),
    "in two splits": (("a.png", "cat", "test"), "path,label,split", "a.png = a.png (in test and train)"),
}


@pytest.mark.parametrize("line, head, said", WRONG.values(), ids=WRONG.keys())
def test_wrong_lists_are_one_line(tmp_path: Path, line: tuple[str, ...], head: str, said: str) -> None:
    number = head.count(",") + 1
    assert said in complaint("csv", made(tmp_path, [*(each[:number] for each in ROWS), line], head))


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    table = made(tmp_path)
    (tmp_path / "a.png").unlink()
    (tmp_path / "b.png").write_bytes(b"no image")
    said = complaint("csv", table)
    assert "2 of 2 files of train cannot be used: b.png (not an image), a.png (no such file or directory)" in said
    assert len(take("csv", table, "test")) == 1


def test_a_null_character_is_in_no_name(tmp_path: Path) -> None:
    table = made(tmp_path)
    list_ = tmp_path / "list.csv"
    list_.write_text(list_.read_text() + "a\0.png,cat,train\n")
    assert r"a\x00.png (a null character in its name)" in complaint("csv", table)


def test_a_list_alone_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("path,label,split\n")
    assert "empty.csv: no rows" in complaint("csv", {"path": tmp_path / "empty.csv"})
    (tmp_path / "nothing.csv").touch()
    assert "nothing.csv: no column path; its first line names nothing" in complaint(
        "csv", {"path": tmp_path / "nothing.csv"}
    )
    with pytest.raises(UserError, match="no rows of split test"):
        take("csv", made(tmp_path, ROWS[:2]), "train")


def test_a_changed_image_changes_the_digest_and_other_files_do_not(tmp_path: Path) -> None:
    data = config.Data.model_validate({"kind": "csv", "csv": made(tmp_path)})
    where = places(data)
    assert [path.name for path in where] == ["list.csv", "a.png", "b.png", "c.png", "d.png"]
    before = digest(where, "contents")
    (tmp_path / "results").touch()
    digest.cache_clear()
    assert digest(places(data), "contents") == before
    (tmp_path / "d.png").write_bytes(b"other")
    digest.cache_clear()
    assert digest(places(data), "contents") != before


def test_unlabelled_images_of_a_folder_and_of_a_list(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    made(tmp_path / "images")
    (tmp_path / "images/notes.txt").touch()
    table = {"path": tmp_path / "images", "size": 4, "channels": 1}
    found = take("unlabelled", table, "train")
    assert found.classes == ("unlabelled",) and found.images.shape == (4, 4, 4, 1)
    assert "list.csv, notes.txt: not used" in caplog.text
    listed = take("unlabelled", table | {"path": tmp_path / "images/list.csv"}, "train")
    assert sorted(map(bytes, listed.images)) == sorted(map(bytes, found.images))
    assert len(take("unlabelled", table, "test")) == 0
    (tmp_path / "images/b.png").write_bytes(b"broken")
    assert "1 of 4 files of train cannot be used: b.png (not an image); mend or remove" in complaint(
        "unlabelled", table
    )
    (tmp_path / "none").mkdir()
    assert "none: no images (.bmp" in complaint("unlabelled", {"path": tmp_path / "none"})


def test_written_lists_are_read_back(tmp_path: Path) -> None:
    odd = [("a,b.png", 'the "cat"', "train"), ("line\nbreak.png", "dog", "test"), ("ü.png", "é", "train")]
    write_rows(tmp_path / "l.csv", ("path", "label", "split"), odd)
    assert [tuple(row.values()) for row in rows(tmp_path / "l.csv", ("path",))] == odd
    assert np.all([row.keys() == {"path", "label", "split"} for row in rows(tmp_path / "l.csv", ("path",))])


def test_rows_with_more_cells_than_columns_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("path,label\na.png,Dog, big\nb.png,Dog, small\nc.png,Cat,\n")
    with pytest.raises(UserError, match=r"2 rows have more cells than the first line: row 2, row 3; put quotes around"):
        rows(path, ("path", "label"))


def test_labels_of_two_unicode_forms_are_one_class(tmp_path: Path) -> None:
    path = tmp_path / "l.csv"
    path.write_text("path,label\na.png,caf\u00e9\nb.png,cafe\u0301\n", encoding="utf-8")
    assert {row["label"] for row in rows(path, ("path", "label"))} == {"caf\u00e9"}


def test_names_of_files_may_begin_with_a_blank(tmp_path: Path) -> None:
    lines = [(f" {name}{i}.png", name, "train" if i else "test") for name in ("cat", "dog") for i in range(4)]
    assert len(take("csv", made(tmp_path, lines), "train")) == 4
    text = (tmp_path / "list.csv").read_text().replace(" cat1", " cat1 ")
    (tmp_path / "list.csv").write_text(text)
    (tmp_path / " cat1.png").rename(tmp_path / "cat1 .png")
    assert len(take("csv", {"path": tmp_path / "list.csv", "size": 4}, "train")) == 4, "blanks behind a comma"

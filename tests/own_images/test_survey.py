"""What is said of a set of images, and what is made of it: above all of bad ones."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from ddrep.data.lists import write_rows
from ddrep.errors import UserError
from ddrep.own_images.found import labelled, unlabelled
from ddrep.own_images.looks import THUMB, near, near_any
from ddrep.own_images.splits import HELD_OUT, split
from ddrep.own_images.survey import Survey, survey, survey_unlabelled
from tests.own_images.folders import folder, noise, save


def of(root: Path) -> Survey:
    return survey(labelled(root), 0)


def counts(found: Survey) -> dict[str, dict[str, int]]:
    """Images of each split, by class."""
    there = Counter((each.label, each.split) for each in found.chosen)
    return {label: {name: there[label, name] for name in ("train", "validation", "test")} for label in found.classes}


def test_a_folder_of_classes_is_split(tmp_path: Path) -> None:
    found = of(folder(tmp_path / "set", {"cat": 20, "dog": 10}))
    assert counts(found) == {
        "cat": {"train": 12, "validation": 2, "test": 6},
        "dog": {"train": 6, "validation": 1, "test": 3},
    }
    assert "set: folder of 30 images in 2 classes" in found.text
    assert "| cat   |    20 |    12 |          2 |    6 |" in found.text
    assert "- sizes: all 32x32" in found.text and "- modes: 30 RGB; 0 images without any colour" in found.text
    assert "9 test images: an accuracy is known to about 33 points either way" in found.text
    again = of(tmp_path / "set")
    assert [each.name for each in again.chosen] == [each.name for each in found.chosen]
    assert [each.split for each in again.chosen] == [each.split for each in found.chosen]


def test_an_empty_class(tmp_path: Path) -> None:
    found = of(folder(tmp_path, {"cat": 5, "dog": 5, "cow": 0}))
    assert "- 1 classes without an image: cow" in found.text and found.classes == ["cat", "dog"]
    assert "| cow   |     0 |     0 |" in found.text


def test_one_image(tmp_path: Path) -> None:
    found = of(folder(tmp_path, {"cat": 1}))
    assert "folder of 1 images in 1 classes" in found.text and not found.chosen
    assert "1 class left out, with too few images that can be used: cat (0 of train and 0 of" in found.text


def test_many_copies_of_one_image_are_named_in_few_words(tmp_path: Path) -> None:
    """As of a page that says that a picture is gone: in one class, and in two."""
    folder(tmp_path, {"cat": 5, "dog": 5})
    same, both = noise(), noise()
    for i in range(50):
        save(tmp_path / f"cat/same{i:02d}.png", same)
        save(tmp_path / f"{'cat' if i % 2 else 'dog'}/both{i:02d}.png", both)
    said = "\n".join(of(tmp_path).said)
    assert "used once: cat/same00.png = cat/same01.png = cat/same02.png = cat/same03.png = 46 more" in said
    assert "1 image in two classes, left out of all: " in said and "(cat) = 46 more" in said


def test_an_image_beside_the_classes_and_a_class_of_control_characters(tmp_path: Path) -> None:
    """What terminals obey is shown, in one row of the table."""
    folder(tmp_path, {"cat": 5, "r\x1b[31med\nx": 5})
    save(tmp_path / "cover.png")
    (tmp_path / "notes.txt").write_text("")
    text = of(tmp_path).text
    assert "- 1 files not called images, and not used: notes.txt" in text
    assert "- 1 files outside the class folders, and not used: cover.png" in text
    assert "| r\\x1b[31med x |     5 |" in text and "\x1b" not in text


def test_three_broken_of_a_hundred(tmp_path: Path) -> None:
    folder(tmp_path, {"cat": 50, "dog": 50})
    (tmp_path / "cat/00.png").write_bytes((tmp_path / "cat/00.png").read_bytes()[:60])
    (tmp_path / "cat/01.png").write_bytes(b"")
    (tmp_path / "dog/00.png").unlink()
    (tmp_path / "dog/00.png").symlink_to("gone")
    found = of(tmp_path)
    (line,) = [each for each in found.said if "broken" in each]
    assert line.startswith("broken, and left out: 3 of 100 files: cat/00.png (")
    assert "cat/01.png (not an image), dog/00.png (no such file or directory)" in line
    assert len(found.chosen) == 97


def test_mixed_sizes_and_modes(tmp_path: Path) -> None:
    folder(tmp_path, {"cat": 10, "dog": 4})
    save(tmp_path / "dog/cmyk.jpg", noise((64, 48), "CMYK"))
    save(tmp_path / "dog/deep.png", Image.fromarray(np.arange(0, 51200, 50, dtype=np.uint16).reshape(32, 32)))
    clear = noise().convert("RGBA")
    clear.putalpha(noise().convert("L"))
    save(tmp_path / "dog/clear.png", clear)
    save(tmp_path / "dog/moves.gif", noise(), save_all=True, append_images=[noise()])
    save(tmp_path / "dog/grey.png", noise((28, 28), "L"))
    text = of(tmp_path).text
    assert "- sizes: from 28x28 to 64x48, median 32x32" in text
    assert "- modes: 14 RGB, " in text and "; 2 images without any colour" in text
    for said in (
        "1 of CMYK or another colour space, converted",
        "1 of 16 bits, scaled to 8",
        "1 with transparency, laid on white",
        "1 animated or of several pages, of which the first counts",
    ):
        assert f"- {said}\n" in text


def test_a_class_in_one_split_only(tmp_path: Path) -> None:
    splits = {"train/cat": 9, "train/dog": 9, "test/cat": 3, "test/dog": 3}
    found = of(folder(tmp_path, {**splits, "train/cow": 9, "test/owl": 4}))
    assert found.classes == ["cat", "dog"]
    assert "cow (0 of test), owl (0 of train and 0 of validation); needed are" in found.text
    assert counts(found)["cat"] == {"train": 8, "validation": 1, "test": 3}
    assert "no split validation: a tenth of each class of train is held out" in found.text


def test_ten_thousand_classes(tmp_path: Path) -> None:
    """Of which nearly all have an image that is not there: the summary is short all the same."""
    folder(tmp_path, {"big": 30, "large": 20})
    there = [(f"{path.parent.name}/{path.name}", path.parent.name) for path in tmp_path.glob("*/*.png")]
    gone = [(f"{number}.png", f"c{number:05d}") for number in range(10_000)]
    write_rows(tmp_path / "all.csv", ("path", "label"), [*there, *gone])
    found = of(tmp_path / "all.csv")
    assert "in 10,002 classes" in found.text and len(found.text.splitlines()) < 30 and len(found.text) < 4000
    assert "(9,990 more)" in found.text and found.classes == ["big", "large"]
    assert "broken, and left out: 10,000 of 10,050 files" in found.text and "and 9,990 more" in found.text


def test_the_same_image_in_two_classes(tmp_path: Path) -> None:
    folder(tmp_path, {"cat": 10, "dog": 10})
    same = noise()
    for name in ("cat/x.png", "dog/y.bmp"):
        save(tmp_path / name, same)
    save(tmp_path / "cat/copy.bmp", Image.open(tmp_path / "cat/03.png"))
    found = of(tmp_path)
    assert "- 1 image in two classes, left out of all: cat/x.png (cat) = dog/y.bmp (dog)" in found.text
    assert "- 1 image there several times, used once: cat/03.png = cat/copy.bmp" in found.text
    assert len(found.chosen) == 20


def test_copies_across_given_splits_stay_where_they_are_held_out(tmp_path: Path) -> None:
    folder(tmp_path, {f"{split}/{name}": 8 for split in ("train", "val", "test") for name in ("cat", "dog")})
    save(tmp_path / "train/cat/copy.png", Image.open(tmp_path / "test/cat/00.png"))
    dark = ImageEnhance.Brightness(Image.open(tmp_path / "val/dog/00.png")).enhance(0.9)
    save(tmp_path / "train/dog/dark.jpg", dark, quality=90)
    found = of(tmp_path)
    assert "1 of them across splits, where the held-out one stays: test/cat/00.png = train/cat/copy.png" in found.text
    assert "1 near copies of held-out images left out of the other splits" in found.text
    names = {each.name for each in found.chosen}
    assert {"test/cat/00.png", "val/dog/00.png"} <= names and len(names) == 48


def test_near_copies_are_in_one_split(tmp_path: Path) -> None:
    """Bursts of a camera: of each image one that is saved again, larger and darker."""
    folder(tmp_path, {"cat": 12, "dog": 12})
    for path in sorted(tmp_path.glob("*/*.png")):
        image = Image.open(path).resize((48, 48), Image.Resampling.BILINEAR)
        save(path.with_suffix(".jpg"), ImageEnhance.Brightness(image).enhance(0.8), quality=80)
    found = of(tmp_path)
    where = {each.name: each.split for each in found.chosen}
    assert len(where) == 48 and "48 images are near copies of others (groups: 24, 0 of them" in found.text
    assert all(where[name] == where[name.replace(".png", ".jpg")] for name in where)
    assert counts(found)["cat"] == {"train": 16, "validation": 2, "test": 6}


def test_groups_are_those_of_a_plain_comparison_of_all_with_all() -> None:
    """Of brightness alone, where no colours are."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (40, THUMB, THUMB))
    grey = np.concatenate([base, np.clip(base + rng.normal(0, 12, base.shape), 0, 255), np.full_like(base[:2], 7)])
    thumbs = np.stack([grey, np.full_like(grey, 128), np.full_like(grey, 128)], axis=-1).astype(np.uint8)
    flat = thumbs[:80, ..., 0].reshape(80, -1)
    alike = {(i, j) for i in range(80) for j in range(i) if np.corrcoef(flat[i], flat[j])[0, 1] >= 0.985}
    assert 10 < len(alike) <= 40
    groups = near(thumbs)
    assert {(i, j) for i in range(82) for j in range(i) if groups[i] == groups[j]} == alike
    assert near_any(thumbs[40:], thumbs[:40]).tolist() == [(i, i - 40) in alike for i in range(40, 82)]


@pytest.mark.parametrize("seed", range(20))
def test_splits_keep_groups_and_shares(seed: int) -> None:
    rng = random.Random(seed)
    groups = [group for group in range(60) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    labels = [rng.choice("abc") for _ in groups]
    splits = split(labels, groups, HELD_OUT, seed)
    assert len(set(zip(groups, splits, strict=True))) == 60, "each group is in one split"
    for label, n in Counter(labels).items():
        there = Counter(name for name, of in zip(splits, labels, strict=True) if of == label)
        assert abs(there["test"] - 0.3 * n) <= 3 and abs(there["validation"] - 0.1 * n) <= 3


def test_lists_say_label_and_perhaps_split(tmp_path: Path) -> None:
    root = folder(tmp_path / "set", {"x": 24})
    lines = [(f"x/{i:02d}.png", "ab"[i % 2], "test" if i % 4 < 2 else "train") for i in range(24)]
    write_rows(root / "metadata.csv", ("file_name", "label", "split"), lines)
    assert counts(of(root))["a"] == {"train": 5, "validation": 1, "test": 6}
    write_rows(root / "mine.csv", ("image", "class"), [line[:2] for line in lines])
    assert counts(of(root / "mine.csv"))["b"] == {"train": 7, "validation": 1, "test": 4}


def test_a_train_folder_alone_is_split_anew(tmp_path: Path) -> None:
    found = of(folder(tmp_path, {"train/cat": 10, "train/dog": 10}))
    assert "no split test: its splits do not count" in found.text
    assert counts(found)["cat"] == {"train": 6, "validation": 1, "test": 3}


WRONG = {"nothing": ({}, "no class folders"), "loose": ({".": 3}, "3 images that lie in no class folders")}


@pytest.mark.parametrize("there, said", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_set(tmp_path: Path, there: dict[str, int], said: str) -> None:
    with pytest.raises(UserError, match=said):
        of(folder(tmp_path, there))
    with pytest.raises(UserError, match="nothing there; expected a folder of images, a CSV file"):
        of(tmp_path / "gone")


def test_unlabelled_images_like_held_out_ones_are_left_out(tmp_path: Path) -> None:
    found = of(folder(tmp_path / "set", {"cat": 10, "dog": 10}))
    held_out = found.of("test")
    more = folder(tmp_path / "more", {"a/b": 6, "c": 3})
    save(more / "test.jpg", Image.open(tmp_path / "set" / held_out[0].name), quality=70)
    save(more / "c/again.png", Image.open(more / "c/00.png"))
    (more / "broken.png").write_bytes(b"no")
    seen = survey_unlabelled(unlabelled(more), held_out)
    assert sorted(each.name for each in seen.chosen) == [f"a/b/{i:02d}.png" for i in range(6)] + [
        f"c/{i:02d}.png" for i in range(3)
    ]
    assert "1 copies of others, left out" in seen.text
    assert "1 copies or near copies of held-out images, left out: test.jpg" in seen.text
    (tmp_path / "one").mkdir()
    (tmp_path / "one/a.png").write_bytes(b"no")
    with pytest.raises(UserError, match="none of 1 images can be used"):
        survey_unlabelled(unlabelled(tmp_path / "one"), [])


def test_folders_of_which_some_are_splits_are_one_line(tmp_path: Path) -> None:
    folder(tmp_path, {"train/a": 3, "train/b": 3, "test/a": 3, "test/b": 3, "extra/a": 3})
    with pytest.raises(UserError, match=r"test, train are of splits, extra of none; move it into them, or away"):
        labelled(tmp_path)
    folder(tmp_path / "vehicles", {"train": 3, "car": 3})
    assert labelled(tmp_path / "vehicles").classes == ("car", "train"), "which may be a class"


def test_rows_of_which_some_have_a_split_are_one_line(tmp_path: Path) -> None:
    lines = [(f"{i}.png", "ab"[i % 2], "train" if i < 3 else "") for i in range(4)]
    write_rows(tmp_path / "list.csv", ("path", "label", "split"), lines)
    with pytest.raises(UserError, match=r"list\.csv: 1 rows have no split, others have: row 5; give all one, or none"):
        labelled(tmp_path / "list.csv")


def test_a_row_that_is_there_twice_counts_once(tmp_path: Path) -> None:
    folder(tmp_path, {"a": 8, "b": 8})
    lines = [(f"{label}/{i:02d}.png", label) for label in "ab" for i in range(8)]
    write_rows(tmp_path / "list.csv", ("path", "label"), lines + lines)
    found = of(tmp_path / "list.csv")
    assert len(found.chosen) == 16 and any("16 images there several times" in line for line in found.said)


def test_a_class_whose_folder_begins_with_a_blank(tmp_path: Path) -> None:
    folder(tmp_path, {" a": 5, "b": 5})
    found = of(tmp_path)
    assert found.classes == ["a", "b"] and {each.name.partition("/")[0] for each in found.chosen} == {" a", "b"}

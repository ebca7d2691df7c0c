import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from ddrep import cli, config
from ddrep.data import embedded
from ddrep.data.idx import read_idx
from ddrep.data.readers import labelled
from ddrep.data.shards import read_shards
from ddrep.derived import stage_json
from ddrep.errors import UserError
from tools import embedded_data as build

OFFICIAL = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
SPLITS = ("train", "validation", "test")


def take(split: str, subset: int = 0, **settings: int):
    return labelled(config.Data(embedded=config.EmbeddedData(**({"per_class": 50} | settings))), split, subset, 0)


# The embedded data set


def test_content_is_as_recorded() -> None:
    lines = (line.split() for line in (embedded.FOLDER / "SHA256SUMS").read_text().splitlines())
    sums = {name: digest for digest, name in lines}
    files = {p.name.removesuffix(".gz"): p for p in embedded.FOLDER.glob("*.gz")}
    assert sums.keys() == files.keys() and len(files) == 9
    for name, digest in sums.items():
        assert hashlib.sha256(gzip.decompress(files[name].read_bytes())).hexdigest() == digest, name
    assert sum(p.stat().st_size for p in files.values()) < 6e6


@pytest.mark.parametrize(
    ("split", "subset", "per_class"), [*(("train", k, 50) for k in range(3)), ("validation", 0, 100), ("test", 0, 500)]
)
def test_size_and_balance(split, subset, per_class) -> None:
    data = take(split, subset)
    assert data.images.shape == (10 * per_class, 28, 28, 1) and data.images.dtype == np.uint8
    assert np.bincount(data.labels).tolist() == [per_class] * 10
    assert len(data.classes) == 10 and data.classes[9] == "Ankle boot"
    assert len(set(data.keys)) == len(data)


def test_splits_and_subsets_share_no_image() -> None:
    parts = [take("train", 0), take("train", 1), take("train", 2), take("validation"), take("test")]
    keys = [key for part in parts for key in part.keys]
    pixels = [image.tobytes() for part in parts for image in part.images]
    assert len(keys) == len(set(keys)) == len(set(pixels)) == 7500


@pytest.mark.parametrize("n", [10, 1230, 1234, 5000])
def test_fewer_images_are_the_first_and_balanced(n) -> None:
    fewer, whole = take("test", test_images=n), take("test")
    assert fewer.keys == whole.keys[:n]
    counts = np.bincount(fewer.labels, minlength=10)
    assert counts.sum() == n and counts.max() - counts.min() <= 1


def test_per_class_takes_the_first_of_each_class() -> None:
    few, whole = take("train", 1, per_class=20), take("train", 1)
    for c in range(10):
        np.testing.assert_array_equal(few.images[few.labels == c], whole.images[whole.labels == c][:20])


def test_labels_match_the_pictures() -> None:
    # the nearest class mean knows two thirds of Fashion-MNIST (10% by chance); mismatched labels would show
    train = [take("train", k) for k in range(3)]
    images = np.concatenate([t.images for t in train]).reshape(1500, -1) / 255
    labels = np.concatenate([t.labels for t in train])
    means = np.stack([images[labels == c].mean(0) for c in range(10)])
    for split in ("validation", "test"):
        data = take(split)
        x = data.images.reshape(len(data), -1) / 255
        nearest = ((x[:, None] - means) ** 2).sum(-1).argmin(1)
        assert (nearest == data.labels).mean() > 0.6


def test_subset_and_split_out_of_range() -> None:
    with pytest.raises(UserError, match="subset 3: the embedded data set has 0 to 2"):
        take("train", 3)
    with pytest.raises(UserError, match="split dev: expected one of train, validation, test"):
        take("dev")


def test_choice_takes_turns_and_is_disjoint() -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 600))
    chosen = build.choose(labels, "train")
    together = np.concatenate([chosen["train"].ravel(), chosen["validation"]])
    assert len(set(together.tolist())) == len(together) == 2500
    assert (labels[together].reshape(-1, 10) == np.arange(10)).all()
    assert chosen["train"].shape == (3, 500)


def test_build_names_what_is_missing(tmp_path, capsys) -> None:
    assert build.main([str(tmp_path), str(tmp_path / "out")]) == 2
    assert "train-images-idx3-ubyte.gz: no such file" in capsys.readouterr().err
    assert build.main([]) == 2


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="apt-get install dataset-fashion-mnist for the official files")
def test_rebuild_is_bit_for_bit(tmp_path) -> None:
    assert build.main([str(OFFICIAL), str(tmp_path)]) == 0
    assert (tmp_path / "SHA256SUMS").read_text() == (embedded.FOLDER / "SHA256SUMS").read_text()
    for path in tmp_path.glob("*.gz"):
        assert gzip.decompress(path.read_bytes()) == gzip.decompress((embedded.FOLDER / path.name).read_bytes())
    for split, official in embedded.PARTS.items():
        for kind, rank in (("images", 3), ("labels", 1)):
            source = read_idx(OFFICIAL / f"{official}-{kind}-idx{rank}-ubyte.gz")
            indices = read_idx(embedded.path(split, "indices"))
            np.testing.assert_array_equal(read_idx(embedded.path(split, kind)), source[indices])


def test_the_verb_writes_the_shard(tmp_path) -> None:
    stage = stage_json("data", config.Data(embedded=config.EmbeddedData(per_class=3)), 0)
    out = tmp_path / "a" / "train.tar"
    assert cli.main(["data", "--stage", stage, "--split", "train", "--subset", "2", "--out", str(out)]) == 0
    written, expected = read_shards([out]), take("train", 2, per_class=3)
    np.testing.assert_array_equal(written.images, expected.images)
    assert written.keys == expected.keys and written.classes == expected.classes


# A folder of images


def save(path: Path, value: int, size: tuple[int, int] = (12, 10), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 255 - value)).save(path)


@pytest.fixture
def root(tmp_path) -> Path:
    """20 training and 3 test images of each of cat and dog; the red value is the number of the image."""
    for name in ("dog", "cat"):
        for i in range(20):
            save(tmp_path / "train" / name / f"{i:02d}.v1.png", i)
        for i in range(3):
            save(tmp_path / "test" / name / f"{i}.png", 100 + i)
    return tmp_path


def folder(root: Path, split: str, subset: int = 0, seed: int = 0, size: int = 8, channels: int = 3):
    image_folder = config.ImageFolder(root=root, size=size, channels=channels)
    return labelled(config.Data(kind="image-folder", image_folder=image_folder), split, subset, seed)


def test_classes_are_sorted_names(root) -> None:
    test = folder(root, "test")
    assert test.classes == ("cat", "dog") and test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert test.images[:, 0, 0, 0].tolist() == [100, 101, 102] * 2
    assert test.images.shape == (6, 8, 8, 3)
    assert folder(root, "test", channels=1).images.shape == (6, 8, 8, 1)


def test_a_tenth_is_held_out_of_train(root) -> None:
    train, validation = folder(root, "train"), folder(root, "validation")
    assert np.bincount(train.labels).tolist() == [18, 18] and np.bincount(validation.labels).tolist() == [2, 2]
    for c in (0, 1):
        values = [d.images[d.labels == c][:, 0, 0, 0].tolist() for d in (train, validation)]
        assert sorted(values[0] + values[1]) == list(range(20))
    assert folder(root, "validation").keys == validation.keys
    assert any(folder(root, "validation", seed=s).keys != validation.keys for s in (1, 2))


def test_own_validation_leaves_train_whole(root) -> None:
    save(root / "validation" / "dog" / "7.png", 7)
    assert np.bincount(folder(root, "train").labels).tolist() == [20, 20]
    assert folder(root, "validation").labels.tolist() == [1]


def test_written_and_read_as_a_shard(root, tmp_path) -> None:
    stage = json.dumps({"config": {"kind": "image-folder", "image_folder": {"root": str(root), "size": 8}}})
    assert cli.main(["data", "--stage", stage, "--split", "train", "--out", str(tmp_path / "t.tar")]) == 0
    np.testing.assert_array_equal(read_shards([tmp_path / "t.tar"]).images, folder(root, "train").images)


@pytest.mark.parametrize(("width", "height"), [(64, 32), (32, 48), (8, 8), (4, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_resize_and_crop_are_torchvisions(root, width, height, channels) -> None:
    y, x = np.mgrid[:height, :width]
    picture = np.stack([128 + 100 * np.sin(x / 9 + y / 7), 128 + 100 * np.cos(y / 8), 4 * x], -1).clip(0, 255)
    Image.fromarray(picture.astype(np.uint8)).save(root / "test" / "cat" / "0.png")
    read = folder(root, "test", channels=channels).images[0]
    tensor = torch.from_numpy(picture.astype(np.uint8)).movedim(-1, 0)
    tensor = v2.functional.rgb_to_grayscale(tensor) if channels == 1 else tensor
    resized = v2.functional.resize(tensor, 8, v2.InterpolationMode.BICUBIC, antialias=True)
    # sizes at which torchvision, too, need not round the long side and the margin to whole pixels
    expected = v2.functional.center_crop(resized, 8).movedim(0, -1).numpy()
    np.testing.assert_allclose(read.astype(int), expected.astype(int), atol=2)


def test_sixteen_bits_are_scaled_and_cameras_are_turned(root) -> None:
    Image.fromarray(np.full((8, 8), 0x8000, np.uint16)).save(root / "test" / "cat" / "0.png")
    turned = Image.fromarray(np.repeat(np.array([[255, 0]], np.uint8), 8, 0).repeat(4, 1))  # left half is white
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees clockwise to see it upright": left becomes top
    turned.save(root / "test" / "cat" / "1.png", exif=exif)
    images = folder(root, "test", channels=1).images
    assert (images[0] == 0x80).all()
    assert (images[1][:4] == 255).all() and (images[1][4:] == 0).all()


def test_all_bad_files_are_named_together(root) -> None:
    good = (root / "test" / "cat" / "0.png").read_bytes()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "test" / "cat" / "1.png")
    (root / "test" / "cat" / "1.png").write_bytes((root / "test" / "cat" / "1.png").read_bytes()[:5000])
    (root / "test" / "dog" / "notes.txt").write_text("to do")
    (root / "test" / "eel").mkdir()
    (root / "test" / "eel" / "0.png").write_bytes(good)
    (root / "test" / "cat" / ".DS_Store").write_text("ignored")
    with pytest.raises(UserError) as e:
        folder(root, "test")
    message = str(e.value)
    assert "3 of 8 files of test" in message and "\n" not in message
    for part in (
        "cat/1.png (image file is truncated",
        "dog/notes.txt (not an image)",
        "eel/0.png (its class is not under train)",
    ):
        assert part in message
    for i in range(10):
        (root / "test" / "eel" / f"x{i}.png").write_bytes(good)
    with pytest.raises(UserError, match=r"13 of 18 files.* and 3 more"):
        folder(root, "test")


def test_bad_file_ends_the_command_in_one_line(root, tmp_path, capsys) -> None:
    (root / "train" / "cat" / "00.v1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    save(root / "validation" / "cat" / "0.png", 0)
    stage = json.dumps({"config": {"kind": "image-folder", "image_folder": {"root": str(root)}}})
    assert cli.main(["data", "--stage", stage, "--out", str(tmp_path / "t.tar")]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ddrep: ")]
    assert len(errors) == 1 and "00.v1.png" in errors[0]
    assert not list(tmp_path.glob("*.tar"))


def _no_test(root: Path) -> None:
    (root / "test").rename(root / "elsewhere")


def _one_class(root: Path) -> None:
    (root / "train" / "dog").rename(root / "dog")


def _empty_class(root: Path) -> None:
    (root / "test" / "dog" / "x").mkdir(parents=True)
    (root / "test" / "ant").mkdir()


def _loose_file(root: Path) -> None:
    save(root / "test" / "0.png", 0)


def _single_image(root: Path) -> None:
    save(root / "train" / "ant" / "0.png", 0)


WRONG = {
    "test: no such folder; expected test/CLASS": (_no_test, "test"),
    r"train: 1 class folders \(cat\); expected 2 or more": (_one_class, "test"),
    "test/ant: no images": (_empty_class, "test"),
    "test: 0.png lies outside the class folders": (_loose_file, "test"),
    "1 classes have too few images: ant; some are held out: add": (_single_image, "train"),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_layouts(root, message) -> None:
    change, split = WRONG[message]
    change(root)
    with pytest.raises(UserError, match=message):
        folder(root, split)


def test_missing_root_and_other_subsets(root) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        folder(root / "nowhere", "train")
    with pytest.raises(UserError, match=r"test/train: no such folder; expected .*test holds cat, dog"):
        folder(root / "test", "train")
    with pytest.raises(UserError, match="subset 1: data of kind image-folder has only subset 0"):
        folder(root, "train", subset=1)

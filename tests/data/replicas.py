"""Small replicas of published data sets, in their true on-disk layouts."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

WNIDS = ("n02124075", "n01443537", "n03126707")
"""Not in the order of their names, as in the published wnids.txt. Two of them share their first name."""
TINY = {"size": 16, "classes": 3, "train_per_class": 6, "test_per_class": 2, "validation_per_class": 1}
"""Settings of such a set."""
WORDS = "n01443537\tgoldfish, Carassius auratus\nn02124075\tcrane\nn03126707\tcrane, hoist\nn09999999\tunused\n"


def shade(number: int, size: tuple[int, int]) -> Image.Image:
    return Image.new("RGB", size, (number, 255 - number, 7))


def tiny_imagenet(folder: Path, train: int = 6, test: int = 2, size: int = 16) -> Path:
    """tiny-imagenet-200: the red value is 10 x (place of the class in wnids.txt) + number, plus 100 in val."""
    root = folder / "tiny-imagenet-200"
    (root / "val/images").mkdir(parents=True)
    (root / "test/images").mkdir(parents=True)
    shade(0, (size, size)).save(root / "test/images/test_0.JPEG")
    (root / "wnids.txt").write_text("".join(f"{wnid}\n" for wnid in WNIDS))
    (root / "words.txt").write_text(WORDS)
    notes = []
    for place, wnid in enumerate(WNIDS):
        images = root / "train" / wnid / "images"
        images.mkdir(parents=True)
        for i in range(train):
            shade(10 * place + i, (size, size)).save(images / f"{wnid}_{i}.JPEG", quality=100, subsampling=0)
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    for i in range(test * len(WNIDS)):  # the classes take turns, as in the published file they are in no order
        place = i % len(WNIDS)
        image = shade(100 + 10 * place + i // len(WNIDS), (size, size))
        image.save(root / f"val/images/val_{i}.JPEG", quality=100, subsampling=0)
        notes.append(f"val_{i}.JPEG\t{WNIDS[place]}\t0\t0\t{size}\t{size}\n")
    (root / "val/val_annotations.txt").write_text("".join(notes))
    return root


def zipped(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(root.rglob("*")):
            archive.write(file, file.relative_to(root.parent).as_posix() + ("/" if file.is_dir() else ""))
    return path


def png(number: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    shade(number, size).save(buffer, "PNG")
    return buffer.getvalue()


def save(path: Path, red: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(red))
    return path


def samples(numbers: Iterable[int]) -> dict[str, bytes]:
    """Members of a WebDataset: the red value is the sample's number, the label its last bit."""
    return {
        f"{i}.{ending}": content for i in numbers for ending, content in (("png", png(i)), ("cls", b"%d" % (i % 2)))
    }


def tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def rewrite(path: Path, change: Callable[[dict[str, bytes]], object]) -> None:
    """Write a tar again with its members changed."""
    with tarfile.open(path) as archive:
        members = {m.name: file.read() for m in archive if (file := archive.extractfile(m))}
    change(members)
    tar(path, members)


def celeba(root: Path, partition: tuple[int, int, int] = (6, 3, 4)) -> Path:
    """The flat layout; image i is Male when i is divisible by 3, Smiling when it is even. Pixels are noise."""
    images = root / "img_align_celeba"
    images.mkdir(parents=True)
    n = sum(partition)
    rng = np.random.default_rng(0)
    lines, parts = [f"{n}", "Smiling Male "], []
    for i in range(n):
        name = f"{i + 1:06d}.jpg"
        coarse = Image.fromarray(rng.integers(0, 256, (28, 23, 3), np.uint8))
        coarse.resize((178, 218), Image.Resampling.BICUBIC).save(images / name)
        lines.append(f"{name} {'  1' if i % 2 == 0 else ' -1'} {'  1' if i % 3 == 0 else ' -1'}")
        parts.append(f"{name} {np.searchsorted(np.cumsum(partition), i, side='right')}")
    (root / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    (root / "list_eval_partition.txt").write_text("\n".join(parts) + "\n")
    return root


def few_shot(root: Path, train: int = 4, test: int = 3, size: int = 32, mask_size: int = 32, classes: int = 19) -> Path:
    """A set of ddpm-segmentation: noise, and label maps of various integer types with every class and 255."""
    rng = np.random.default_rng(1)
    for split, count in (("train", train), ("test", test)):
        folder = root / "real" / split
        folder.mkdir(parents=True)
        for i in range(count):
            name, dtype = (f"{i}.jpg", np.int64) if i % 2 else (f"img_{i}.v1.png", np.uint8)
            Image.fromarray(rng.integers(0, 256, (size, size, 3), np.uint8)).save(folder / name)
            labels = rng.integers(0, classes + 1, (mask_size, mask_size)).astype(dtype)
            labels[labels == classes] = 255
            np.save((folder / name).with_suffix(".npy"), labels)
    return root


def celebamask_hq(root: Path, images: int = 6) -> Path:
    """The published tree. Images are coarse noise; eye_g is absent in odd images, hat in all but image 2."""
    folder, annotations = root / "CelebA-HQ-img", root / "CelebAMask-HQ-mask-anno"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2)
    for i in range(images):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8))
        coarse.resize((1024, 1024), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg")
        (annotations / str(i // 2000)).mkdir(parents=True, exist_ok=True)
        for part in FACE:
            if not (part == "eye_g" and i % 2) and not (part == "hat" and i != 2):
                mode = "RGB" if part == "skin" else "L"  # the published files are of more than one mode
                mask = Image.fromarray(face_part(part, i)).convert(mode)
                mask.save(annotations / str(i // 2000) / f"{i:05d}_{part}.png")
    return root


FACE = ("cloth", "ear_r", "eye_g", "hair", "hat", "l_brow", "l_ear", "l_eye", "l_lip", "mouth", "neck", "neck_l",
        "nose", "r_brow", "r_ear", "r_eye", "skin", "u_lip")  # fmt: skip


def face_part(part: str, i: int) -> np.ndarray:
    """uint8 (512, 512), 255 in the part: overlapping rectangles, different in each image."""
    top, left, height, width = np.random.default_rng([FACE.index(part), i]).integers(20, 240, 4)
    mask = np.zeros((512, 512), np.uint8)
    mask[top : top + height, left : left + width] = 255
    return mask

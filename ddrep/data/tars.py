"""The tars of all shards: for each key an image (KEY.png) and one more member, readable by webdataset as they are."""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge, MinLen
from PIL import Image
from pydantic import BaseModel, ValidationError

from ddrep.data.disk import check_size, opened, raw, reason
from ddrep.errors import UserError
from ddrep.files import written_whole

META = "__shard__"
"""First member: JSON with the class names and the number of images. WebDataset skips members named __*__."""
KEY = re.compile(r"(?!__)[^./]+")
"""What a key may look like: WebDataset ends it at the first dot, and reads slashes as folders."""
AGAIN = "delete the shard and make it again"
NO_META = f"no member {META} with classes and images; expected a shard made by ddrep"


class ShardMeta(BaseModel):
    """What a shard says of itself."""

    classes: Annotated[tuple[str, ...], MinLen(1)]
    """Names."""
    images: Annotated[int, Ge(0)]


class Images:
    """What the contents of all shards have: images uint8 (N, H, W, 1 or 3), a key for each, and names of classes."""

    images: np.ndarray
    keys: list[str]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


P = TypeVar("P", bound=Images)


def most_bytes(image: tuple[int, int, int]) -> int:
    """Of an image (height, width, channels) and its label in a tar, at most: blocks of 512, and a PNG hardly larger
    than raw."""
    height, width, channels = image
    png = height * (width * channels + 1) + 100
    return 3 * 512 + 512 * math.ceil(png / 512)


def check_images(images: np.ndarray, keys: Sequence[str]) -> None:
    """Raise ValueError unless `images` are uint8 (N, H, W, 1 or 3) and `keys` N."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
        raise ValueError(f"images: expected uint8 (N, H, W, 1 or 3), got {images.dtype} {images.shape}")
    if len(keys) != len(images):
        raise ValueError(f"{len(images)} images, {len(keys)} keys: expected as many of each")


def write_tar(
    path: Path, classes: Sequence[str], keys: Sequence[str], images: np.ndarray, others: Mapping[str, Iterable[bytes]]
) -> None:
    """Write each image as KEY.png, and by their endings `others` of each as KEY.ENDING, whole or not at all.

    Equal content gives equal bytes. Raises ValueError for keys that WebDataset would lose.
    """
    wrong = [key for key in keys if not KEY.fullmatch(key)]
    if wrong or len(set(keys)) < len(keys):
        raise ValueError(
            f"keys: expected each once, without dot, slash or leading __; got {wrong[:3] or 'a key twice'}"
        )
    meta = json.dumps({"classes": list(classes), "images": len(images)}, ensure_ascii=False)
    with written_whole(path) as (draft,), tarfile.open(draft, "w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, META, meta.encode())
        for key, image, *more in zip(keys, images, *others.values(), strict=True):
            _add(tar, f"{key}.png", encode_png(image))
            for ending, other in zip(others, more, strict=True):
                _add(tar, f"{key}.{ending}", other)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # time stamp 0, owner 0, mode 0644: the same bytes whoever writes, and when
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def encode_png(image: np.ndarray) -> bytes:
    """uint8 (H, W, 1 or 3) -> PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(content: bytes, modes: tuple[str, ...] = ("L", "RGB")) -> np.ndarray:
    """PNG of one of Pillow's `modes` -> (H, W, C). Raises OSError, SyntaxError or ValueError."""
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode not in modes:
            raise ValueError(f"mode {image.mode}, expected {' or '.join(modes)}")
        return np.asarray(image).reshape(image.height, image.width, -1)


def forward(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Its members. Raises tarfile.ReadError for one of a size that leads back in the file: tarfile would go round."""
    for member in tar:
        if tar.offset <= member.offset:
            raise tarfile.ReadError(f"a size below 0 at byte {member.offset}")
        yield member


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a regular member. Raises ValueError for more than MAX_BYTES."""
    check_size(member.size)
    file = tar.extractfile(member)
    assert file is not None
    return file.read()


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each file in a shard. Raises UserError if it is missing or no tar."""
    try:
        with opened(raw(path)) as whole, tarfile.open(fileobj=whole, mode="r:", encoding="utf-8") as tar:
            for member in forward(tar):
                if member.isreg():
                    yield member.name, content_of(tar, member)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such shard; make it with `ddrep data`, `ddrep masks` or `ddrep synthesize`"
        ) from None
    except (tarfile.TarError, OSError, ValueError) as e:
        if path.is_dir():
            raise UserError(f"{path}: a folder; expected a shard; give the .tar files in it") from None
        raise UserError(f"{path}: not a whole tar file ({reason(e)}); delete it and make it again") from None


def read_tar(
    path: Path, decode: Mapping[str, Callable[[bytes], Any]], optional: Collection[str] = ()
) -> tuple[np.ndarray, dict[str, list[Any]], list[str], tuple[str, ...]]:
    """Images (N, H, W, C), by ending the N decoded members KEY.ENDING, the keys, the class names.

    Every image has a member of each ending; of an `optional` one all have it, or none, which gives an empty list. A
    decoder raises any Exception for a broken member. Raises UserError naming file and member.
    """
    meta: ShardMeta | None = None
    pngs: dict[str, np.ndarray] = {}
    others: dict[str, dict[str, Any]] = {ending: {} for ending in decode}
    for name, content in members(path):
        key, _, ending = name.partition(".")
        try:
            if name == META:
                meta = ShardMeta.model_validate(json.loads(content))
            elif ending == "png":
                pngs[key] = decode_png(content)
            elif ending in decode:
                others[ending][key] = decode[ending](content)
        except ValidationError:
            raise UserError(f"{path}: {NO_META}") from None
        except Exception as e:  # whatever a decoder raises for bytes that it did not expect
            raise UserError(f"{path}: {name} is broken ({reason(e)}); {AGAIN}") from None
    if meta is None:
        raise UserError(f"{path}: {NO_META}")
    for ending, found in others.items():
        alone = sorted(pngs.keys() ^ found.keys()) if found or ending not in optional else []
        if alone:
            raise UserError(f"{path}: {alone[0]} has only one of .png and .{ending}; {AGAIN}")
    # tarfile takes an archive cut between two members for a whole one
    if len(pngs) != meta.images or not pngs:
        raise UserError(f"{path}: {len(pngs)} images, expected {meta.images or 'some'}; {AGAIN}")
    ordered = {ending: [found[key] for key in pngs if key in found] for ending, found in others.items()}
    return _stacked(path, pngs), ordered, list(pngs), meta.classes


def read_meta(path: Path) -> ShardMeta:
    """What a shard says of itself; no image is read. Raises UserError."""
    try:
        return ShardMeta.model_validate_json(next((content for _, content in members(path)), b""))
    except ValidationError:
        raise UserError(f"{path}: {NO_META}") from None


def counted(path: Path, ending: str) -> int:
    """Members KEY.ENDING of a shard. Raises UserError unless there is one for each of its images: tarfile takes an
    archive cut between two members for a whole one."""
    n, expected = sum(name.endswith(f".{ending}") for name, _ in members(path)), read_meta(path).images
    if n != expected:
        raise UserError(f"{path}: {n} members .{ending}, expected {expected}; {AGAIN}")
    return n


def _stacked(path: Path, pngs: dict[str, np.ndarray]) -> np.ndarray:
    first = next(iter(pngs.values()))
    for key, image in pngs.items():
        if image.shape != first.shape:
            raise UserError(f"{path}: {key}.png is {image.shape}, expected {first.shape} as the first; {AGAIN}")
    return np.stack(list(pngs.values()))


def read_alike(paths: Sequence[Path], read: Callable[[Path], P]) -> list[P]:
    """The contents of all shards. Raises UserError if one differs from the first in size, channels or class names."""
    if not paths:
        raise UserError("shards: none given; expected at least one .tar")
    parts = [read(path) for path in paths]
    for path, part in zip(paths, parts, strict=True):
        check_alike(path, part, paths[0], parts[0])
    return parts


def check_alike(path: Path, part: Images, first_path: Path, first: Images) -> None:
    """Raise UserError unless the content of a shard has the size, channels and class names of the first."""
    if part.classes != first.classes or part.images.shape[1:] != first.images.shape[1:]:
        raise UserError(f"{path}: {_describe(part)}, but {first_path} {_describe(first)}; make them with one config")


def _describe(part: Images) -> str:
    height, width, channels = part.images.shape[1:]
    return (
        f"has {len(part.classes)} classes ({', '.join(part.classes[:3])}, ...) and images {height}x{width}x{channels}"
    )

"""`ddrep sample`: what is in the grid, and one line for what cannot be drawn."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ddrep.cli import main
from ddrep.config import Sampling
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.networks.guides import Guide
from ddrep.sampling.by_hand import _mask
from ddrep.sampling.sampler import image_seed, sample
from tests import tiny

FAST = ["--steps", "2", "--images", "3"]


def cells(path: Path) -> list[np.ndarray]:
    """The images of a grid, row by row; each pixel is drawn twice as wide and high, two pixels apart."""
    sheet = np.asarray(Image.open(path))[::2, ::2]
    rows, columns = sheet.shape[0] // 10, sheet.shape[1] // 10
    return [sheet[10 * r + 2 : 10 * r + 10, 10 * c + 2 : 10 * c + 10] for r in range(rows) for c in range(columns)]


def test_an_unconditional_grid_holds_the_samples_of_its_seed(folder: Path) -> None:
    out = folder / "grid.png"
    assert main(["sample", str(folder / "d.safetensors"), *FAST, "--seed", "5", "--out", str(out)]) == 0
    seeds = [image_seed(5, 0, 0, i) for i in range(3)]
    expected = sample(Denoiser.load(folder / "d.safetensors"), seeds, Sampling(steps=2, eta=1.0, guidance_scale=0.0))
    np.testing.assert_array_equal(cells(out), expected[..., 0])


def test_rows_are_classes_and_a_name_is_one_of_them(tmp_path: Path) -> None:
    tiny.denoiser(3).save(tmp_path / "d.safetensors")
    command = ["sample", str(tmp_path / "d.safetensors"), *FAST, "--guidance-scale", "0.5", "--out"]
    assert (
        main([*command, str(tmp_path / "all.png")])
        == main([*command, str(tmp_path / "1.png"), "--name", "class 1"])
        == 0
    )
    assert len(cells(tmp_path / "all.png")) == 6
    np.testing.assert_array_equal(cells(tmp_path / "all.png")[3:], cells(tmp_path / "1.png"))


def test_by_attribute_and_by_mask(folder: Path) -> None:
    command = ["sample", str(folder / "d.safetensors"), *FAST]
    attribute = [*command, "--guide", str(folder / "attribute"), "--guidance-scale", "20"]
    assert main([*attribute, "--out", str(folder / "a.png")]) == 0
    assert len(cells(folder / "a.png")) == 6
    mask = np.zeros((8, 8), np.uint8)
    mask[2:6] = 1
    np.save(folder / "m.npy", mask)
    Image.fromarray(mask).save(folder / "m.png")
    for kind in ("npy", "png"):
        masked = [*command, "--guide", str(folder / "mask"), "--mask", str(folder / f"m.{kind}")]
        assert main([*masked, "--out", str(folder / f"{kind}.png")]) == 0
    np.testing.assert_array_equal(cells(folder / "npy.png"), cells(folder / "png.png"))
    assert len(cells(folder / "npy.png")) == 3


MASKS: dict[str, bytes | Callable[[Path], object]] = {
    "empty.npy": b"",
    "none.npy": lambda path: np.save(path, np.zeros((0, 0), np.uint8)),
    "several.npy": lambda path: np.savez(path.open("wb"), a=np.zeros(3)),
    "huge.npy": b"\x93NUMPY\x01\x00v\x00"
    + b"{'descr': '|u1', 'fortran_order': False, 'shape': (10000000, 10000000), }".ljust(118),
    "below.npy": lambda path: np.save(path, np.full((8, 8), -1)),
    "cut.png": lambda path: path.write_bytes(_png()[:45]),
    "large.png": lambda path: path.write_bytes(_png(2**16)),
    "eps.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    "pipe.png": os.mkfifo,
    "folder.npy": Path.mkdir,
    "endless.npy": lambda path: path.symlink_to("/dev/zero"),
    "sparse.png": lambda path: os.truncate(path.open("w").name, 2**40),
}


def _png(claimed: int = 8) -> bytes:
    """Of 8x8 pixels; its header claims `claimed` in width and height."""
    content = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(content, "PNG")
    head = b"IHDR" + struct.pack(">II", claimed, claimed) + content.getvalue()[24:29]
    return content.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + content.getvalue()[33:]


def test_masks_that_are_none_are_one_line(folder: Path) -> None:
    guide = Guide.load(folder / "mask", folder / "d.safetensors", torch.device("cpu"))
    for name, make in MASKS.items():
        path = folder / name
        path.write_bytes(make) if isinstance(make, bytes) else make(path)
        with pytest.raises(UserError, match=f"{name}: ") as said:
            _mask(path, guide)
        assert "\n" not in str(said.value), name


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--name", "cat"], "--name: no class cat in"),
        (["--guide", "attribute", "--name", "cat"], "attribute; it has T-shirt/top, Trouser"),
        (["--guide", "mask"], "--mask: expected together with a guide of masks, got none"),
        (["--mask", "big.npy"], "--mask: expected together with a guide of masks"),
        (["--guide", "mask", "--mask", "big.npy"], "big.npy: masks of 9x9 pixels; the denoiser's images have 8x8"),
        (["--guide", "mask", "--mask", "pickled.npy"], "pickled.npy: not a mask"),
        (["--guide", "mask", "--mask", "real.npy"], "real.npy: float64 (8, 8); expected integers"),
        (
            ["--solver", "ddim", "--steps", "1200"],
            "steps: 1200, but a grid by log SNR takes 1 to 995 on this denoiser's cosine",
        ),
        (["--guidance-scale", "2"], "--guidance-scale: 2, but d.safetensors knows no classes"),
        (["--row", "3"], "--row: expected together with --from"),
        (["--pretrained", "d.safetensors"], "--pretrained: expected together with --from"),
        (["--steps", "996"], "steps: 996, but a grid by log SNR takes 1 to 995 on this denoiser's cosine"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(
    folder: Path,
    options: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    np.save("big.npy", np.zeros((9, 9), np.int64))
    np.save("pickled.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save("real.npy", np.zeros((8, 8)))
    assert main(["sample", "d.safetensors", *([] if "--steps" in options else FAST), *options, "--out", "out.png"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("ddrep: ") and says in said
    assert not Path("out.png").exists()

"""Makes the two sets of images on which the order of sources is tried besides Fashion-MNIST, from public packages.

Letters, grey: A to J in Debian's fonts, as notMNIST has them. No family of fonts is in the test images and in others.

    apt-get download $(apt-cache pkgnames fonts- | sort); for deb in *.deb; do dpkg-deb -x $deb fonts; done
    python docs/evidence/sets.py letters fonts letters

Emoji, colour, classes of uneven size: three vendors' drawings by Unicode's categories. No emoji is in the test images
and in others, whoever drew it.

    for name in emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0 emojione@2.2.7; do
        mkdir ${name%@*}; tar xzf $(npm pack $name) -C ${name%@*}; done
    python docs/evidence/sets.py emoji . emoji
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fontTools.ttLib import TTFont, TTLibError
from PIL import Image, ImageDraw, ImageFont

LETTERS = "ABCDEFGHIJ"
SKIN = {"1F3FB", "1F3FC", "1F3FD", "1F3FE", "1F3FF"}
VENDORS = {
    "google": "emoji-datasource-google/package/img/google/64",
    "twitter": "emoji-datasource-twitter/package/img/twitter/64",
    "emojione": "emojione/package/assets/png",
}


class Drawn(NamedTuple):
    """An image, its class, and the group whose images are all test images or none is."""

    name: str
    label: str
    group: str
    image: Image.Image


def glyph(font: Path, letter: str, size: int = 28, margin: int = 2) -> Image.Image:
    """A letter, white on black, that fills its square but for a margin."""
    large = ImageFont.truetype(str(font), 8 * size)
    left, top, right, bottom = large.getbbox(letter)
    side = max(right - left, bottom - top)
    image = Image.new("L", (int(side), int(side)))
    ImageDraw.Draw(image).text(((side - right - left) / 2, (side - bottom - top) / 2), letter, fill=255, font=large)
    square = Image.new("L", (size, size))
    square.paste(image.resize((size - 2 * margin,) * 2, Image.Resampling.BOX), (margin, margin))
    return square


def letters(fonts: Path) -> Iterator[Drawn]:
    """Each letter of each font that has Latin ones; fonts that cannot be read are named."""
    for path in sorted([*fonts.rglob("*.ttf"), *fonts.rglob("*.otf")]):
        try:
            known = TTFont(path, lazy=True).getBestCmap() or {}
            if all(ord(letter) in known for letter in LETTERS):
                family = path.stem.split("-")[0].lower()[:6]
                yield from (Drawn(f"{path.stem}-{each}", each, family, glyph(path, each)) for each in LETTERS)
        except (TTLibError, OSError, ValueError, SystemError) as error:
            print(f"{path.name}: {error}", file=sys.stderr)


def emoji(packages: Path) -> Iterator[Drawn]:
    """Each vendor's drawing of each emoji, on white, without skin tones: those are near copies."""
    for entry in json.loads((packages / "emoji-datasource-google/package/emoji.json").read_text()):
        code, label = entry["image"].removesuffix(".png"), entry["category"].lower().replace(" & ", "-")
        if SKIN & set(entry["unified"].split("-")):
            continue
        for vendor, folder in VENDORS.items():
            plain = code.replace("-fe0f", "").replace("-200d", "") if vendor == "emojione" else code
            if (file := packages / folder / f"{plain}.png").exists():
                drawn = Image.open(file).convert("RGBA").resize((64, 64), Image.Resampling.LANCZOS)
                white = Image.new("RGBA", drawn.size, "white")
                yield Drawn(f"{code}-{vendor}", label, code, Image.alpha_composite(white, drawn).convert("RGB"))


SETS = {"letters": (letters, 0.25, 0.02), "emoji": (emoji, 0.3, 0.06)}
"""How a set is drawn, the share of its groups that is tested on, and the share of its images that is labelled."""


def share(name: str) -> float:
    """A number in [0, 1) that a name alone decides."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) / 2**32


def main(kind: str, source: str, out: str) -> None:
    """Write a set: `labelled/train/CLASS`, `labelled/test/CLASS` and `unlabelled`."""
    draw, test, labelled = SETS[kind]
    counts: Counter[str] = Counter()
    for name, label, group, image in draw(Path(source)):
        split = "test" if share(group) < test else "train" if share(name) < labelled / (1 - test) else ""
        where = f"labelled/{split}/{label}" if split else "unlabelled"
        folder = Path(out) / where
        folder.mkdir(parents=True, exist_ok=True)
        image.save(folder / f"{name}.png")
        counts[where] += 1
    for where, count in sorted(counts.items()):
        print(f"{count:6,} {where}")


if __name__ == "__main__":
    main(*sys.argv[1:])

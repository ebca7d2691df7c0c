"""Names in figures: text, never markup, in a font that has their characters."""

from __future__ import annotations

import contextlib
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import matplotlib
from matplotlib import font_manager, style
from matplotlib.ft2font import FT2Font

log = logging.getLogger("ddrep")

LONGEST = 32
"""Columns of a name; of a longer one the middle is left out."""
PACKAGES = "fonts-noto-cjk for Chinese, Japanese and Korean, fonts-noto-core for other scripts, fonts-symbola for emoji"
"""Debian's, that bring fonts."""


@contextlib.contextmanager
def lettering() -> Iterator[None]:
    """Within it figures look as matplotlib makes them by default, whatever the user's settings are, and no text is
    taken for markup: `$` is a dollar. A decorator, too."""
    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    fonts.setLevel(logging.ERROR)  # it warns of each font that has no bold face
    try:
        with style.context(["default", {"text.parse_math": False, "font.family": ["DejaVu Sans"]}]):
            yield
    finally:
        fonts.setLevel(level)


def legible(names: Sequence[str], stand_ins: Sequence[str]) -> list[str]:
    """The names as they can be drawn within `lettering`, which takes fonts for them from those installed.

    A name of which no installed font has every character gives way to its stand-in, and the log says so. Long names
    lose their middle, and what cannot be printed becomes U+FFFD.
    """
    shown = [_shortened(_printable(name)) for name in names]
    lacking = _add_fonts(set("".join(shown)))
    unfit = [(name, stand_in) for name, stand_in in zip(shown, stand_ins, strict=True) if lacking & set(name)]
    if unfit:
        said = ", ".join(f"{name} is shown as {stand_in}" for name, stand_in in unfit)
        log.warning("no installed font has all characters of these names: %s; install one (%s)", said, PACKAGES)
    return [stand_in if lacking & set(name) else name for name, stand_in in zip(shown, stand_ins, strict=True)]


def columns(text: str) -> int:
    """Width in the columns of a terminal: 2 for each wide character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _printable(name: str) -> str:
    """Without marks that have no shape of their own: of direction, of joining, of emoji's variants."""
    seen = (c for c in name if unicodedata.category(c) != "Cf" and not 0xFE00 <= ord(c) <= 0xFE0F)
    return "".join(c if c.isprintable() else "\ufffd" for c in seen)


def _shortened(name: str) -> str:
    if columns(name) <= LONGEST:
        return name
    kept = len(name)
    while columns(short := f"{name[: kept - kept // 3]}…{name[len(name) - kept // 3 :]}") > LONGEST:
        kept -= 1
    return short


def _add_fonts(characters: set[str]) -> set[str]:
    """Add to the current fonts those that have more of the characters; return the characters that none has."""
    own = [Path(matplotlib.get_data_path(), "fonts/ttf", f"DejaVuSans{face}.ttf") for face in ("", "-Bold")]
    lacking = {c for c in characters if any(ord(c) not in FT2Font(str(path)).get_charmap() for path in own)}
    families = list(matplotlib.rcParams["font.family"])
    for path in _installed() if lacking else []:
        try:
            font = FT2Font(path)
            found = {c for c in lacking if ord(c) in font.get_charmap()} if font.scalable else set()
        except (RuntimeError, OSError, ValueError):  # not a font, or broken
            continue
        if found:
            font_manager.fontManager.addfont(path)  # its own list may be older than the font
            families.append(font.family_name)
            lacking -= found
        if not lacking:
            break
    matplotlib.rcParams["font.family"] = families
    return lacking


def _installed() -> list[str]:
    """Files of the installed fonts, upright ones without serifs first. Coloured pictures cannot be drawn."""

    def rank(path: str) -> tuple[bool, bool, str]:
        name = Path(path).stem.lower()
        return "sans" not in name, "regular" not in name, path

    files = [path for path in font_manager.findSystemFonts() if "color" not in Path(path).stem.lower()]
    return sorted(files, key=rank)

"""The configurations that come with the project, by name."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

EXPERIMENTS = Path(__file__).resolve().parents[1] / "workflow/experiments"


def seven_times(overlay: Path) -> str:
    """The overlay's commented block of Table 4, with the blocks before it, as another overlay."""
    text = overlay.read_text()
    block = "".join(f"{line[4:]}\n" for line in text.splitlines() if re.match(r"  # (- |  )", line))
    return yaml.safe_dump({"table4": yaml.safe_load(text)["table4"] + yaml.safe_load(block)})


def overlays(name: str, folder: Path) -> list[Path]:
    if name == "demo":
        return []
    files = [EXPERIMENTS / f"{name.removesuffix(' at 7x')}.yaml"]
    if name.endswith("7x"):
        files.append(folder / "seven.yaml")
        files[1].write_text(seven_times(files[0]))
    return files

"""What a gain is measured against: the labelled images alone, trained as long, and labelled as softly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ddrep.sources import controls

Cell = Mapping[Any, Any]
"""A row of a summary (ddrep.reporting.tables)."""


ENDS = ("", "_low", "_high", "_pairs")
"""Of the names of a difference's columns: its value, its interval, and how many pairs of runs it is of."""


def versus(reference: str) -> str:
    """Name of the column with the difference from a reference."""
    return f"vs_{reference.replace('-', '_')}"


def ends(cell: Cell, reference: str) -> list[float]:
    """Difference from a reference, ends of its interval, and pairs of runs; NaN where it is not there."""
    return [cell.get(f"{versus(reference)}{suffix}", math.nan) for suffix in ENDS]


def known(cell: Cell) -> list[str]:
    """The controls that a cell is compared with."""
    return [name for name in controls(cell["source"]) if not math.isnan(ends(cell, name)[0])]


def headline(cell: Cell) -> dict[str, Any]:
    """Columns vs_control (_low, _high, _pairs): the difference of a source's cell from the strongest of its controls;
    and control, which that is ("": none).

    Of equal runs the strongest control is the one of higher mean accuracy; where runs are missing, it is the one from
    which the paired difference is smaller. To pick it by the same test images is conservative for a gain: the larger of
    two noisy means is on average above the larger of the true ones, so that the difference is too small. For a loss it
    is not, which is why `sure` asks all controls.
    """
    paired = [name for name in controls(cell["source"]) if cell[f"{versus(name)}_pairs"]]
    control = min(paired, key=lambda name: cell[versus(name)], default="")
    found = ends(cell, control) if control else [math.nan, math.nan, math.nan, 0]
    return {"control": control} | {f"vs_control{end}": value for end, value in zip(ENDS, found, strict=True)}


def sure(cell: Cell, reference: str) -> bool:
    """Whether zero is outside the interval; from a control only if it is the strongest one, and for all controls."""
    asked = [reference]
    if cell["control"] and reference in controls(cell["source"]):
        if reference != cell["control"]:
            return False
        asked = known(cell)
    found = [ends(cell, name) for name in asked]
    return all(low > 0 for _, low, _, _ in found) or all(high < 0 for _, _, high, _ in found)

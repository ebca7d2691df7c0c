"""Where all benchmarks write: benchmarks/results.parquet, and its part of benchmarks/README.md.

A row is one quantity of one contestant beside its reference: part, name, reference, quantity, unit, value (the median),
low and high (of the rounds), ratio (reference / value), and what it was measured at: commit, machine, load, date.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ddrep.files import written_whole

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results.parquet", HERE / "README.md"


def processor_seconds(run: Callable[[], Any]) -> float:
    started = time.process_time()
    run()
    return time.process_time() - started


def conditions() -> dict[str, Any]:
    """Commit, machine and how busy it is."""
    asked = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    except OSError:
        model = None
    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_available() else ""
    return {
        "commit": subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "machine": f"{gpu}{os.cpu_count()} x {model[1] if model else platform.processor()}, torch {torch.__version__}",
        "load": round(os.getloadavg()[0], 1),
        "date": datetime.date.today().isoformat(),
    }


def compared(quantity: str, unit: str, values: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Rows of a quantity: of each contestant its values in the rounds, of which the first one's are the reference."""
    reference = next(iter(values))
    return [
        {"name": name, "reference": reference, "quantity": quantity, "unit": unit, "value": statistics.median(mine),
         "low": min(mine), "high": max(mine),
         "ratio": statistics.median(theirs / own for theirs, own in zip(values[reference], mine, strict=True))}
        for name, mine in values.items()
    ]  # fmt: skip


def record(part: str, about: str, rows: Sequence[dict[str, Any]]) -> None:
    """Replace a part's rows in the Parquet file and its section of the page; print the section.

    about: Markdown above the section's table, which a blank line ends.
    """
    new = pd.DataFrame([{"part": part, **row, **conditions()} for row in rows])
    if RESULTS.is_file():
        old = pd.read_parquet(RESULTS)
        new = pd.concat([old[old["part"] != part], new], ignore_index=True)
    mine = new[new["part"] == part]
    section = f"## {part}\n\n{about.strip()}\n\n{table(mine)}\n"
    text = PAGE.read_text(encoding="utf-8").rstrip("\n") + "\n\n" if PAGE.is_file() else ""
    found = re.compile(rf"^## {re.escape(part)}\n.*?(?=^## |\Z)", re.M | re.S)
    text = found.sub(lambda _: section + "\n", text) if found.search(text) else text + section
    with written_whole(RESULTS, PAGE) as (results, page):
        new.to_parquet(results, index=False)
        page.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    print(section)


def table(rows: pd.DataFrame) -> str:
    """Contestants down, quantities across: median [range of the rounds], and how many times less than the reference.

    Below stands what each was measured at; rows that were added later say theirs.
    """
    measured = rows.drop_duplicates(["machine", "commit", "date"])
    stamps = [f"{each.machine}; load {each.load}; commit {each.commit}; {each.date}." for each in measured.itertuples()]
    stamps[1:] = [f"From *{name}* on: {said}" for name, said in zip(measured["name"][1:], stamps[1:], strict=True)]
    quantities = list(dict.fromkeys(zip(rows["quantity"], rows["unit"], strict=True)))
    head = ["", *(f"{quantity}, {unit}" if unit else quantity for quantity, unit in quantities)]
    lines = [" | ".join(head), " | ".join(["---"] * len(head))]
    for name in dict.fromkeys(rows["name"]):
        mine = rows[rows["name"] == name].set_index("quantity")
        lines.append(" | ".join([name, *(_cell(mine, quantity) for quantity, _ in quantities)]))
    lines = [f"| {line} |" for line in lines]
    return "\n".join([*lines, "", " ".join(stamps)])


def _cell(rows: pd.DataFrame, quantity: str) -> str:
    if quantity not in rows.index:
        return ""
    row = rows.loc[quantity]
    spread = f" [{row.low:.3g}, {row.high:.3g}]" if row.high > row.low else ""
    return f"{row.value:.3g}{spread}" + (f" ({row.ratio:.1f}x)" if row.ratio > 0 and row.ratio != 1 else "")

"""Memory of a shard's job against its number of images: `ddrep synthesize`, of few and of many.

    python -m benchmarks.memory [--results results/fashion-demo]

Two steps a candidate and a threshold of 0, for memory does not ask how good images are. The peak is the resident set's,
the interpreter and its libraries included; what an image adds is the difference from the first row, by images.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import page
from benchmarks.growth import METER
from ddrep.config import DenoiserFile

PER_CLASS = (5, 20, 80)


def peak(results: Path, per_class: int, out: Path) -> float:
    """MiB of a job that draws so many images of each of ten classes."""
    subset = results / "subset0"
    stage = {"config": {"sampling": {"steps": 2}, "synthesis": {"per_class": per_class, "threshold": 0.0}}}
    call = ["-m", "ddrep", "synthesize", "--stage", json.dumps(stage), "--threads", "1", "--index", "0"]
    call += ["--pretrained", str(DenoiserFile().path), "--finetuned", str(subset / "finetuned.safetensors")]
    call += ["--judge", str(subset / "rejection/classifier.safetensors"), "--pool", str(out.parent / "pool")]
    done = subprocess.run(
        [sys.executable, "-c", METER, sys.executable, *call, "--out", str(out)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout.split()[-1]) / 1024


def rows(results: Path) -> list[dict[str, Any]]:
    found = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        peaks = {10 * n: peak(results, n, Path(folder, f"{n}.tar")) for n in PER_CLASS}
    (fewest, least), *_ = peaks.items()
    for images, value in peaks.items():
        each = 1024 * (value - least) / (images - fewest) if images > fewest else 0.0
        for quantity, unit, number in (("peak", "MiB", value), ("an image more", "KiB", each)):
            found.append({"name": f"{images} images", "reference": f"{fewest} images", "quantity": quantity}
                         | {"unit": unit, "value": number, "low": number, "high": number, "ratio": 0.0})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-demo"))
    args = parser.parse_args()
    if not (args.results / "subset0/rejection/classifier.safetensors").is_file():
        print(f"{args.results}: no finished run of the demo, so no memory of a shard's job; make demo")
        return
    page.record("Memory of a shard's job", ABOUT, rows(args.results))


ABOUT = """`python -m benchmarks.memory`: `ddrep synthesize` of 28x28 pixels, with its libraries; 2 steps a candidate, \
none refused."""

if __name__ == "__main__":
    main()

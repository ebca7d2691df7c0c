"""The digest of a data set's files, which every call of the workflow takes, against `find` printing the same facts.

    python benchmarks/digest.py [--files 1000000] [--rounds 3]

Prints the seconds of both, median and range of the rounds, and their ratio. The files are empty, in folders of 1,000.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from ddrep.data.digest import digest


def ours(root: Path) -> None:
    digest.cache_clear()
    digest((root,), "times")


def find(root: Path) -> None:
    command = f"find -L '{root}' -type f -printf '%P %s %T@\\n' | sort | sha256sum"
    subprocess.run(["bash", "-c", command], check=True, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for first in range(0, options.files, 1000):
            (Path(folder) / f"{first:07d}").mkdir()
            for number in range(first, min(first + 1000, options.files)):
                (Path(folder) / f"{first:07d}" / f"{number:07d}.png").touch()
        times: dict[str, list[float]] = {"digest": [], "find": []}
        for _ in range(options.rounds):
            for name, call in (("digest", ours), ("find", find)):
                started = time.perf_counter()
                call(Path(folder))
                times[name].append(time.perf_counter() - started)
    for name, seconds in times.items():
        print(f"{name:8} {statistics.median(seconds):6.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    ratios = [a / b for a, b in zip(times["digest"], times["find"], strict=True)]
    print(f"digest takes {statistics.median(ratios):.2f} times find's time for {options.files} files")


if __name__ == "__main__":
    main()

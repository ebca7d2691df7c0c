"""All that is measured on a CPU in about ten minutes, one part after the other, into benchmarks/README.md.

    python -m benchmarks [--results results/fashion-demo]

Each part is a script of its own as well (`python -m benchmarks.PART --help`). What takes longer, or is measured for one
decision alone, is not among them: see the page's first lines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

PARTS = {
    "kept_image": ["--rounds", "3", "--candidates", "20"],
    "peak": [],
    "classifier_training": ["--rounds", "3"],
    "shards": ["--rounds", "3"],
    "growth": [],
    "memory": [],
}
"""Name -> its settings, so that all end in time."""
OF_A_RUN = ("kept_image", "memory")
"""Those that look at a finished run."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("results/fashion-demo"))
    args = parser.parse_args()
    for part, settings in PARTS.items():
        of_a_run = ["--results", str(args.results)] if part in OF_A_RUN else []
        subprocess.run([sys.executable, "-m", f"benchmarks.{part}", *settings, *of_a_run], check=True)


if __name__ == "__main__":
    main()

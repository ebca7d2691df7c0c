"""Snakemake on an experiment whose files need not be what it says: tests of what is planned look at names alone.

Usage: python unchecked.py ARGUMENTS, as of snakemake; or, imported, `unchecked()` before Snakemake's main.
"""

from __future__ import annotations

import sys

from ddrep import checks


def unchecked() -> None:
    """From now on in this process nothing is held against files, data and networks."""
    checks.check = lambda *_, **__: None


if __name__ == "__main__":
    from snakemake.cli import main

    unchecked()
    sys.argv[0] = "snakemake"
    main(sys.argv[1:])

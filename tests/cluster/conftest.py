"""A SLURM cluster for the tests, where one can be had. It installs packages, so it has to be asked for."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CANNOT_BE_HAD = 3


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    """Two nodes of two stand-in GPUs each, an account `lab` and a partition `gpu`."""
    if os.environ.get("DDREP_CLUSTER_TESTS") != "1":
        pytest.skip("DDREP_CLUSTER_TESTS=1 is not set: the test installs SLURM (Debian 12, as root) and starts it")
    try:
        up = subprocess.run([HERE / "up.sh"], capture_output=True, text=True, timeout=600)
        if up.returncode == CANNOT_BE_HAD:
            pytest.skip(up.stderr.splitlines()[-1])
        assert up.returncode == 0, up.stderr
        yield
    finally:
        subprocess.run([HERE / "down.sh"], timeout=600, check=True)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.tree import Tree, copy_workflow


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The workflow as it is, with a file where the embedded denoiser belongs; enough for planning."""
    (tmp_path / "ddrep/data/embedded").mkdir(parents=True)
    (tmp_path / "ddrep/data/embedded/denoiser.safetensors").touch()
    return copy_workflow(tmp_path)

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflow.tree import Tree, copy_workflow, link_networks


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """The workflow as it is, with the embedded networks."""
    link_networks(tmp_path)
    return copy_workflow(tmp_path)

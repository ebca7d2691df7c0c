from __future__ import annotations

from pathlib import Path

import pytest

from ddrep.data import embedded


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the embedded networks where config.yaml has them."""
    (tmp_path / "ddrep/data").mkdir(parents=True)
    (tmp_path / "ddrep/data/embedded").symlink_to(embedded.FOLDER)
    monkeypatch.chdir(tmp_path)
    return tmp_path

from pathlib import Path

import pytest

from ddrep.reporting.report.results import Results
from tests.reporting.report.make_results import write_all


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A small experiment, complete but for figures; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("report")
    return write_all(folder)

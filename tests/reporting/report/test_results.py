"""Which files of an experiment's folder the report is about."""

from pathlib import Path

import pandas as pd

from ddrep.config import Experiment
from ddrep.reporting.report.results import Results


def test_labelled_sets_of_other_sizes_are_left_out(tmp_path: Path) -> None:
    """Those of Table 5, whose folders are subset0-10 and the like."""
    for of in ("subset0", "subset0-10", "subset1"):
        folder = tmp_path / of / "synthetic/ours"
        folder.mkdir(parents=True)
        rows = pd.DataFrame({"class": [0, 1], "p": [0.4, 0.6], "accepted": [False, True]})
        rows.to_parquet(folder / "00000.parquet", index=False)
    results = Results(Experiment(), tmp_path)
    assert [path.parts[-4] for path in results.files("subset*/synthetic/*/*.parquet")] == ["subset0", "subset1"]
    assert results.attempts["subset"].tolist() == [0, 0, 1, 1]

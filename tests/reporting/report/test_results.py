"""Which files of an experiment's folder the report is about."""

from pathlib import Path

import pandas as pd
import pytest

from ddrep.config import Experiment
from ddrep.errors import UserError
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
    assert results.attempts["accepted"].tolist() == [False, True] * 2


@pytest.mark.parametrize("content", ["[]", "{", '{"n": "many"}', '{"calibration": [{"n": 1}]}', '{"tried": [1]}'])
def test_a_report_that_is_none_is_one_line(content: str, tmp_path: Path) -> None:
    (path := tmp_path / "subset0/probe/report.json").parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match=r"report.json: .*expected the report of a judge; make it anew"):
        _ = Results(Experiment(), tmp_path).reports
    path.write_text('{"n": 3, "more": [null]}')
    assert Results(Experiment(), tmp_path).reports == {path: {"n": 3}}

"""The heat map of probes: what it shows, and reports that are none."""

import json
from pathlib import Path

import pytest

from ddrep.errors import UserError
from ddrep.reporting import probes


def test_heat_map_is_the_mean_over_subsets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for subset, best in enumerate((70.0, 80.0)):
        tried = [{"block": "up1", "timestep": t, "top1": best - t / 10} for t in (300, 10)]
        tried.append({"block": "middle", "timestep": 10, "top1": 50.0})
        (tmp_path / f"{subset}.json").write_text(json.dumps({"tried": tried}))
    saved = []
    monkeypatch.setattr(probes, "save", lambda drawn, out: saved.append(drawn))
    probes.figure(reports=[tmp_path / "0.json", tmp_path / "1.json"], out=tmp_path / "probe.png")
    axes = saved[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["10", "300"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["up1", "middle"]
    assert [text.get_text() for text in axes.texts] == ["74.0", "45.0", "50.0"]


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('{"top1": 3}')
    with pytest.raises(UserError, match=r"r.json: .*the report of a judge of probes"):
        probes.figure(reports=[tmp_path / "r.json"], out=tmp_path / "probe.png")

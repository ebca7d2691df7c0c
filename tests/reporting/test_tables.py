"""Tables against pandas and NumPy by hand, and what is said of files that do not fit together."""

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ddrep.cli import main
from ddrep.config import AccuracyTable, Stage
from ddrep.errors import UserError
from ddrep.evaluation.bootstrap import paired_difference
from ddrep.reporting.markdown import as_markdown
from ddrep.reporting.paper import TABLE4, paper_top1
from ddrep.reporting.tables import read_runs, run, summarise
from ddrep.runs import Run
from tests.reporting.make_runs import believable_right, write_run

SETTINGS = AccuracyTable(resamples=200, paper=False)
IMAGES = 300


def _runs() -> list[Run]:
    """2 subsets x 2 seeds; ours at 2x lacks one run, classifier-free has 1x alone; another network has one run."""
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1)]
    cells = [("real", 0), ("real-equal-steps", 1), ("classifier-free", 1), ("ours", 1), ("ours", 2)]
    runs = [Run(k, "resnet18", False, source, scale, s) for source, scale in cells for k, s in pairs]
    return [*runs[:-1], Run(0, "mobilenetv3_small_050", True, "ours", 1, 0)]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[list[Run], list[Path]]:
    root, runs = tmp_path_factory.mktemp("runs"), _runs()
    return runs, [write_run(root, r, believable_right(r, IMAGES), per_scale=100, n_real=100) for r in runs]


@pytest.fixture(scope="module")
def summary(written) -> pd.DataFrame:
    table, correct = read_runs(written[1])
    return summarise(table, correct, SETTINGS, 0, 4).set_index(["architecture", "mix", "source", "scale"])


def test_table_is_a_row_a_run_in_the_papers_order_whatever_the_order_of_files(written):
    runs, paths = written
    shuffled = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    table, correct = read_runs(shuffled)
    assert list(table.columns) == [
        "subset", "architecture", "mix", "source", "scale", "seed", "top1", "n_real", "n_synthetic", "epochs", "steps"
    ]  # fmt: skip
    rows = zip(table.subset, table.architecture, table.mix, table.source, table.scale, table.seed, strict=True)
    assert [Run(*row) for row in rows] == runs
    np.testing.assert_allclose(100 * correct.mean(1), table.top1)
    np.testing.assert_array_equal(correct, [believable_right(r, IMAGES) for r in runs])


def test_means_and_spreads(summary):
    top1 = [
        100 * believable_right(Run(k, "resnet18", False, "ours", 1, s), IMAGES).mean() for k in (0, 1) for s in (0, 1)
    ]
    cell = summary.loc["resnet18", False, "ours", 1]
    assert cell["mean"] == pytest.approx(np.mean(top1))
    assert cell["std"] == pytest.approx(math.sqrt(np.sum((np.array(top1) - np.mean(top1)) ** 2) / 3))
    assert (cell["n"], cell["n_real"], cell["n_synthetic"], cell["steps"]) == (4, 100, 100, 640)
    alone = summary.loc["mobilenetv3_small_050", True, "ours", 1]
    assert alone["n"] == 1 and math.isnan(alone["std"]) and math.isnan(alone["paper_top1"])


def test_differences_are_of_runs_of_the_same_subset_and_seed(summary):
    pairs = [(0, 0), (0, 1), (1, 0)]  # the runs of ours at 2x
    a = np.stack([believable_right(Run(k, "resnet18", False, "ours", 2, s), IMAGES) for k, s in pairs])
    b = np.stack([believable_right(Run(k, "resnet18", False, "real", 0, s), IMAGES) for k, s in pairs])
    cell = summary.loc["resnet18", False, "ours", 2]
    assert cell["vs_real"] == pytest.approx(100 * (a.mean() - b.mean()))
    assert cell["vs_real_pairs"] == 3
    expected = paired_difference(a, b, np.array([0, 0, 1]), 200, 0.95, 0)
    assert (cell["vs_real_low"], cell["vs_real_high"]) == pytest.approx((100 * expected.low, 100 * expected.high))


def test_what_is_not_there_is_not_compared(summary):
    at_2x, real = summary.loc["resnet18", False, "ours", 2], summary.loc["resnet18", False, "real", 0]
    alone = summary.loc["mobilenetv3_small_050", True, "ours", 1]
    missing = [(at_2x, "classifier_free"), (at_2x, "pixel_rejection"), (real, "real"), (alone, "real")]
    for cell, reference in missing:
        assert all(math.isnan(cell[f"vs_{reference}{end}"]) for end in ("", "_low", "_high"))
        assert cell[f"vs_{reference}_pairs"] == 0
    at_1x = summary.loc["resnet18", False, "ours", 1]
    assert at_1x["vs_classifier_free_pairs"] == at_1x["vs_real_equal_steps_pairs"] == 4


def _controlled(
    tmp_path: Path, right: dict[tuple[str, int], list[float]], steps: dict[tuple[str, int], int] | None = None
):
    """The summary of runs with so many percent right: (source, scale) -> one run a seed, of 1,000 images."""
    paths = []
    for (source, scale), percents in right.items():
        for seed, percent in enumerate(percents):
            run = Run(0, "resnet18", False, source, scale, seed)
            difficulty = np.random.default_rng(seed).permutation(1000)
            paths.append(write_run(tmp_path, run, difficulty < 10 * percent))
            if steps and (source, scale) in steps:
                _change(paths[-1], steps=steps[source, scale])
    table, correct = read_runs(paths)
    cells = summarise(table, correct, SETTINGS, 0, 4)
    return cells.set_index(["source", "scale"]), as_markdown(table, cells, 4, 1000, 0.95)


def test_the_headline_is_against_the_better_control(tmp_path):
    right: dict[tuple[str, int], list[float]] = {
        ("real", 0): [70, 72], ("real-equal-steps", 1): [69, 71], ("real-equal-steps", 2): [74, 75],
        ("ours", 1): [75, 77], ("ours", 2): [80, 82], ("ours", 3): [81, 83],
    }  # fmt: skip
    cells, text = _controlled(tmp_path, right)
    assert cells["control"].to_dict() == {
        ("real", 0): "", ("real-equal-steps", 1): "", ("real-equal-steps", 2): "",
        ("ours", 1): "real", ("ours", 2): "real-equal-steps", ("ours", 3): "real",
    }  # fmt: skip
    assert cells["vs_control"].dropna().tolist() == pytest.approx([76 - 71, 81 - 74.5, 82 - 71])
    for scale, control in ((1, "real"), (2, "real_equal_steps"), (3, "real")):
        cell = cells.loc["ours", scale]
        for end in ("", "_low", "_high", "_pairs"):
            assert cell[f"vs_control{end}"] == cell[f"vs_{control}{end}"]
    assert cells.loc["real", 0]["vs_control_pairs"] == 0
    rows = [[x.strip() for x in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| ours  ")]
    bold = {row[1]: [("**" in x) for x in row[3:5]] for row in rows}
    assert bold == {"1x": [True, False], "2x": [False, True], "3x": [True, False]}
    assert "Of the two controls, real and real-equal-steps" in _words(text)
    assert "Where real-equal-steps is not there, a gain over real may be that of longer training." in _words(text)


def _words(text: str) -> str:
    return " ".join(text.split())


def test_a_gain_that_longer_training_explains_is_said_and_not_bold(tmp_path):
    """A run on other people's digits: real alone was trained for 57 steps, and what it gains by more is not ours."""
    right: dict[tuple[str, int], list[float]] = {
        ("real", 0): [33.2, 48.5], ("real-equal-steps", 1): [80, 82], ("real-equal-steps", 3): [89.3, 87.9],
        ("ours", 1): [81, 82], ("ours", 3): [90.3, 90.1],
    }  # fmt: skip
    steps = {("real", 0): 57, ("real-equal-steps", 1): 120, ("real-equal-steps", 3): 249, ("ours", 3): 249}
    cells, text = _controlled(tmp_path, right, steps)
    assert cells.loc["ours", 3]["vs_real"] == pytest.approx(49.35)
    assert cells.loc["ours", 3]["vs_control"] == pytest.approx(1.6)
    assert (
        "**resnet18: most of the gain is longer training.** ours at 3x is 49.4 points above real, but real alone was "
        "trained for 57 steps and gains 47.8 points from longer training alone: raise classifier.min_steps to at least "
        "249 and run again." in _words(text)
    )
    assert text.index("most of the gain") < text.index("## Differences"), "under the table"
    (line,) = [line for line in text.splitlines() if line.startswith("| ours ") and " 3x " in line]
    assert "**" not in line.split("vs real")[0].split("|")[4], "+49.3 over real is not bold"
    assert max(map(len, text.split("##")[0].splitlines())) <= 100


@pytest.mark.parametrize(
    ("longer", "ours", "said"),
    [(72.4, 74, True), (71.9, 74, False), (70.9, 74, False), (73, 71, True), (73, 69, False), (70.1, 70.15, False)],
)
def test_longer_training_is_named_where_it_is_more_than_half_of_a_gain(tmp_path, longer, ours, said):
    _, text = _controlled(tmp_path, {("real", 0): [70], ("real-equal-steps", 1): [longer], ("ours", 1): [ours]})
    assert ("most of the gain is longer training" in text) == said


def test_bold_survives_both_controls(tmp_path):
    """A loss against the better control alone is no loss: picking it by its accuracy favours losses."""
    right = {("real", 0): [70.0] * 2, ("real-equal-steps", 1): [76.0] * 2, ("ours", 1): [72.0] * 2}
    cells, text = _controlled(tmp_path, right)
    cell = cells.loc["ours", 1]
    assert cell["control"] == "real-equal-steps" and cell["vs_control_high"] < 0 < cell["vs_real_low"]
    (line,) = [line for line in text.splitlines() if line.startswith("| ours ") and " 1x " in line]
    assert "**" not in line
    right[("ours", 1)] = [60.0] * 2
    _, text = _controlled(tmp_path / "loss", right)
    (line,) = [line for line in text.splitlines() if line.startswith("| ours ") and " 1x " in line]
    assert line.count("**") == 2


def test_the_papers_figures_stand_beside_comparable_images_alone(written):
    table, correct = read_runs(written[1])
    beside = SETTINGS.model_copy(update={"paper": True})
    assert summarise(table, correct, SETTINGS, 0, 4)["paper_top1"].isna().all()
    known = summarise(table, correct, beside, 0, 4).set_index(["architecture", "mix", "source", "scale"])["paper_top1"]
    assert known["resnet18", False, "real", 0] == 52.24 and known["resnet18", False, "ours", 2] == 58.13


def test_the_papers_figures():
    """Graikos et al., Tables 3 and 4; every row rises with scale and with mixing, as 5.3.3 and 5.3.4 say."""
    assert paper_top1(3, "resnet18", False, "ours", 1) == 45.09
    assert paper_top1(3, "resnet18", False, "classifier-free", 1) == 36.12
    assert math.isnan(paper_top1(3, "resnet18", True, "ours", 1))
    assert paper_top1(4, "resnext50_32x4d", False, "ours", 3) == 63.15
    assert paper_top1(4, "wide_resnet50_2", True, "real", 0) == 56.56
    assert math.isnan(paper_top1(4, "resnet18", False, "classifier-free", 1))
    assert math.isnan(paper_top1(4, "resnet18", False, "ours", 4))
    assert all(list(row) == sorted(row) for row in TABLE4.values())
    for architecture in {name for name, _ in TABLE4}:
        assert all(np.array(TABLE4[architecture, True]) > TABLE4[architecture, False])


def _copy(written, tmp_path: Path, count: int = 2) -> list[Path]:
    copies = []
    for i, path in enumerate(written[1][:count]):
        for suffix in (".parquet", ".predictions.parquet"):
            shutil.copy(path.with_suffix(suffix), tmp_path / f"{i}{suffix}")
        copies.append(tmp_path / f"{i}.parquet")
    return copies


def _change(path: Path, **columns) -> None:
    pd.read_parquet(path).assign(**columns).to_parquet(path, index=False)


@pytest.mark.parametrize("column", ["key", "label"])
def test_other_test_images_name_both_files(written, tmp_path, column):
    paths = _copy(written, tmp_path)
    file = tmp_path / "1.predictions.parquet"
    values = pd.read_parquet(file)[column].to_numpy().copy()
    values[[3, 4]] = values[[4, 3]]
    _change(file, **{column: values})
    with pytest.raises(UserError, match="test images") as error:
        read_runs(paths)
    assert str(tmp_path / "0.predictions.parquet") in str(error.value)
    assert str(file) in str(error.value)


def test_predictions_of_another_run_are_noticed(written, tmp_path):
    paths = _copy(written, tmp_path)
    _change(paths[1], top1=12.5)
    with pytest.raises(UserError, match=r"1\.predictions\.parquet: .*12\.50"):
        read_runs(paths)


def test_a_run_given_twice_a_missing_and_a_broken_file(written, tmp_path):
    paths = _copy(written, tmp_path)
    with pytest.raises(UserError, match=r"0\.parquet: .*before"):
        read_runs([*paths, paths[0]])
    (tmp_path / "1.predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"1\.predictions\.parquet: not a Parquet file"):
        read_runs(paths)
    (tmp_path / "1.predictions.parquet").unlink()
    with pytest.raises(UserError, match=r"1\.predictions\.parquet: no such file"):
        read_runs(paths)
    pd.read_parquet(paths[1]).drop(columns="steps").to_parquet(paths[1])
    with pytest.raises(UserError, match=r"1\.parquet: .*steps missing"):
        read_runs(paths)


def test_runs_of_the_other_table_are_refused(tmp_path):
    """Of Table 3 synthetic images alone, of the others real ones too: by the file's name nothing would tell."""
    real, both, alone = (
        write_run(tmp_path, run, believable_right(run, 100))
        for run in (
            Run(0, "resnet18", False, "real", 0, 0),
            Run(0, "resnet18", False, "ours", 1, 0),
            Run(0, "resnet18", False, "ours", 1, 0, real=False),
        )
    )
    assert [len(read_runs([real, both])[0]), len(read_runs([real, alone], alone=True)[0])] == [2, 2]
    with pytest.raises(UserError, match=rf"{alone}: a run of ours on synthetic images alone; expected runs on real"):
        read_runs([real, alone])
    with pytest.raises(UserError, match=rf"{both}: a run of ours on real images too; expected runs on synthetic ones"):
        read_runs([real, both], alone=True)


def test_command_line_writes_what_run_writes_and_prints_it(written, tmp_path, capsys):
    stage = {"config": {"resamples": 200, "paper": False}}
    outs = [tmp_path / name for name in ("table4.parquet", "table4-summary.parquet", "table4-summary.md")]
    paths = [str(path) for path in written[1]]
    named = ["--out", str(outs[0]), "--summary", str(outs[1]), "--markdown", str(outs[2])]
    status = main(["table", "--stage", json.dumps(stage), "--number", "4", *named, *paths])
    assert status == 0
    assert capsys.readouterr().out.strip() == outs[2].read_text().strip()
    again = [tmp_path / "again" / path.name for path in outs]
    run(
        Stage[AccuracyTable](config=SETTINGS),
        number=4,
        rows=written[1],
        judges=None,
        **dict(zip(("out", "summary", "markdown"), again, strict=True)),
    )
    assert [a.read_bytes() for a in again] == [o.read_bytes() for o in outs]


def test_failed_command_leaves_nothing(written, tmp_path, capsys):
    paths = _copy(written, tmp_path)
    _change(paths[1], top1=12.5)
    out = tmp_path / "out"
    named = ["--out", str(out / "t.parquet"), "--summary", str(out / "s.parquet"), "--markdown", str(out / "s.md")]
    assert main(["table", "--number", "4", *named, *map(str, paths)]) == 2
    *_, message = capsys.readouterr().err.strip().splitlines()
    assert message.startswith("ddrep: ") and "12.50" in message
    assert not out.exists() or not list(out.iterdir())


def test_tables_start_without_torch():
    code = "import sys, ddrep.cli, ddrep.reporting.tables, ddrep.reporting.figures; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

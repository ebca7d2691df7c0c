"""The answer's sentence and verdict."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from ddrep.reporting.report.answer import answers, main_cell
from ddrep.reporting.report.results import Results
from tests.reporting.report.make_results import RIGHT, experiment, write_tables

VERDICTS = {
    "gain": (RIGHT, "The gain survives both controls"),
    "unsure": ({**RIGHT, "real-equal-steps": 0.805}, "this may be chance"),
    "loss": ({**RIGHT, "ours": 0.30}, "do harm"),
}


def test_the_sentence_has_the_numbers_of_the_runs(small: Results) -> None:
    """Which the fixture chose: 320 to 322 of 400 images against 240 to 242, and 248 to 250."""
    (found,) = answers(small)
    assert found.tone == "gain" and "500 synthetic images (ours) added to 500 labelled ones" in found.sentence
    assert "80.2% of the test images" in found.sentence and "3 paired runs" in found.sentence
    for difference, control in (("+20.0 points", "the real images alone;"), ("+18.0 points", "trained as long")):
        before, _, after = found.sentence.partition(difference)
        assert before and control in after
    assert (
        found.about == "ours: the fine-tuned denoiser, and rejection by a CNN on denoiser features: the paper's method."
    )


@pytest.mark.parametrize("tone", VERDICTS)
def test_verdicts(tone: str, tmp_path: Path) -> None:
    right, said = VERDICTS[tone]
    write_tables(tmp_path, experiment(), right)
    (found,) = answers(Results(experiment(), tmp_path))
    assert found.tone == tone and said in found.verdict


def test_a_gain_without_equal_steps_is_not_believed(tmp_path: Path) -> None:
    block = experiment().table4[0].model_copy(update={"sources": ("real", "ours")})
    write_tables(tmp_path, experiment().model_copy(update={"table4": (block,)}))
    (found,) = answers(Results(experiment(), tmp_path))
    assert found.tone == "unsure" and "longer training" in found.verdict


def test_no_result_chooses_the_cell(small: Results) -> None:
    """Neither the accuracy nor the difference: more controls, more runs, then the larger scale."""
    (row,) = (
        pd.read_parquet(small.folder / "tables/table4-summary.parquet").query("source == 'ours'").to_dict("records")
    )
    rows = [row, {**row, "scale": 2, "mean": 0.0}, {**row, "scale": 3, "n": 1}, {**row, "scale": 9, "source": "real"}]
    rows.append({**row, "scale": 7, "vs_real": float("nan")})
    chosen = main_cell(pd.DataFrame(rows), "ours")
    assert chosen and chosen["scale"] == 2


def test_without_table_4_there_is_no_answer(tmp_path: Path) -> None:
    assert [each.tone for each in answers(Results(experiment(), tmp_path))] == ["open"]
    masks = experiment().model_copy(update={"parts": ("masks",)})
    assert "trains no classifiers" in answers(Results(masks, tmp_path))[0].sentence


def test_what_did_best_elsewhere_comes_first_whatever_it_did_here(tmp_path: Path) -> None:
    """An answer of each headline, judged against its own controls: with soft labels three."""
    names = ("real", "real-equal-steps", "real-soft", "ours", "unlabelled-soft", "probe-soft", "unconditional-soft")
    e = experiment().model_copy(update={"table4": (experiment().table4[0].model_copy(update={"sources": names}),)})
    soft = {"real-soft": 0.7, "unlabelled-soft": 0.5, "probe-soft": 0.99, "unconditional-soft": 0.5}
    write_tables(tmp_path, e, {**RIGHT, **soft})
    first, second, third = answers(Results(e, tmp_path))
    assert (first.source, first.tone) == ("unlabelled-soft", "loss") and "-20.0 points" in first.sentence
    assert "500 real images without labels (unlabelled-soft) added to 500 labelled ones" in first.sentence
    assert first.sentence.count("against") == 3 and "judge's labels" in first.sentence
    assert [(each.source, each.tone) for each in (second, third)] == [("unconditional-soft", "loss"), ("ours", "gain")]

"""What is said of a judge, against a count by hand, and Brier's and Guo's definitions."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import confusion_matrix, log_loss

from ddrep.config import JudgeScore, Stage
from ddrep.data.shards import write_shard
from ddrep.evaluation.judges import quality, run
from ddrep.networks.architectures import build
from ddrep.networks.judges import Judge
from ddrep.networks.metadata import JudgeMeta
from tests import tiny


def test_quality_is_that_of_other_code() -> None:
    rng = np.random.default_rng(0)
    p, labels = rng.dirichlet(np.ones(4), 500), rng.integers(4, size=500)
    found = quality(torch.as_tensor(p), torch.as_tensor(labels), 4)
    assert found["top1"] == pytest.approx(100 * (p.argmax(1) == labels).mean())
    assert found["cross_entropy"] == pytest.approx(log_loss(labels, p))
    assert found["confusion"] == confusion_matrix(labels, p.argmax(1)).tolist()
    bins = np.minimum((p.max(1) * 10).astype(int), 9)
    right = p.argmax(1) == labels
    gaps = [abs(p.max(1)[bins == b].sum() - right[bins == b].sum()) for b in range(10)]
    assert found["expected_calibration_error"] == pytest.approx(sum(gaps) / 500)


def test_the_row_is_of_what_the_judge_says(tmp_path) -> None:
    images = tiny.images("test")
    meta = JudgeMeta(kind="pixels", channels=1, num_classes=3, hidden=8, dropout=0.0, image_shape=(1, 8, 8))
    torch.manual_seed(0)
    judge = Judge(build(meta).eval(), meta)
    judge.save(tmp_path / "judge.safetensors")
    write_shard(tmp_path / "test.tar", images)
    files = {"judge": tmp_path / "judge.safetensors", "denoiser": tmp_path / "none", "test": tmp_path / "test.tar"}
    stage = Stage[JudgeScore](config=JudgeScore(images=len(images)))
    run(stage, **files, name="pixel-rejection", subset=2, out=tmp_path / "row.parquet")
    (row,) = pd.read_parquet(tmp_path / "row.parquet").to_dict("records")
    p = judge.probabilities(images.images)
    assert row["top1"] == pytest.approx(100 * (p.argmax(1) == images.labels).mean())
    assert row["cross_entropy"] == pytest.approx(log_loss(images.labels, p))
    assert (row["judge"], row["subset"], row["n"]) == ("pixel-rejection", 2, len(images))

"""Costs: what is put together from benchmarks and attempts, and sums by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from ddrep.cli import main
from ddrep.cli.base import log_to
from ddrep.errors import UserError
from ddrep.reporting.costs import PEAK, run
from ddrep.sampling.engine import Engine
from ddrep.sampling.pool import Pool
from ddrep.training.loop import LoopConfig, train

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def _benchmark(path, *rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{s}\t0:00:12\t{rss}\t0\t0\t0\t0\t0\t0\t0\n" for s, rss in rows))
    return path


def _attempts(path, accepted, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"key": [str(i) for i in range(len(accepted))], "accepted": accepted, **columns}).to_parquet(path)
    return path


@pytest.fixture
def results(tmp_path):
    root = tmp_path / "benchmarks" / "results" / "x"  # a folder of the same name must not confuse
    benchmarks = [
        _benchmark(root / "benchmarks/synthesis/subset1/synthetic/ours/00002.tsv", (30.0, 812.5)),
        _benchmark(root / "benchmarks/finetune/subset1.tsv", (100.0, 900.0), (120.0, 950.0)),
        _benchmark(root / "benchmarks/tables/table4.tsv", (0.4, "NA")),
        _benchmark(root / "benchmarks/figures/figure4.tsv", (0.5, "-")),
        _benchmark(root / "benchmarks/guided/subset2/long-sleeves-1-ddim-i-12.tsv", (6.0, 700.0)),
        _benchmark(root / "benchmarks/guided/subset0/masks/0-ours-10.tsv", (7.0, 700.0)),
    ]
    attempts = [
        _attempts(root / "subset1/synthetic/ours/00002.parquet", [True, False, True, True, False], evaluations=24),
        _attempts(root / "subset0/synthetic/pixel-rejection/00000.parquet", [False, True]),
        _attempts(root / "subset2/attributes/long-sleeves/1/ddim-i/12.parquet", [True] * 4, evaluations=12),
    ]
    return attempts, benchmarks


def test_a_row_a_job(results, tmp_path):
    out = tmp_path / "costs.parquet"
    run(files=[*results[0], *results[1]], out=out)
    costs = pd.read_parquet(out)
    assert list(costs.columns) == [
        "stage", "subset", "job", "seconds", "max_rss_mb", "partial", "source", "attempts", "accepted", "acceptance",
        "attempts_per_accepted", "seconds_per_accepted", "network_evaluations_per_accepted", "early_saved",
        "early_lost",
    ]  # fmt: skip
    assert len(costs) == 7
    by_job: Any = costs.set_index(["stage", "job"])
    shard = by_job.loc["synthesis", "subset1/ours/00002"]
    assert (shard["subset"], shard["source"], shard["attempts"], shard["accepted"]) == (1, "ours", 5, 3)
    assert (shard["seconds"], shard["max_rss_mb"]) == (30.0, 812.5)
    assert shard["acceptance"] == pytest.approx(0.6)
    assert shard["attempts_per_accepted"] == pytest.approx(5 / 3)
    assert shard["seconds_per_accepted"] == pytest.approx(10) and costs["partial"].isna().all(), "no logs are there"
    assert shard["network_evaluations_per_accepted"] == pytest.approx(5 * 24 / 3)
    unmeasured = by_job.loc["synthesis", "subset0/pixel-rejection/00000"]
    assert unmeasured["acceptance"] == 0.5 and unmeasured[["seconds", "seconds_per_accepted"]].isna().all()
    assert pd.isna(unmeasured["network_evaluations_per_accepted"]), "a shard made before evaluations were counted"
    guided = by_job.loc["guided", "subset2/long-sleeves-1-ddim-i-12"]
    assert (guided["subset"], guided["source"], guided["accepted"]) == (2, "ddim-i", 4)
    assert guided["seconds_per_accepted"] == 1.5 and guided["network_evaluations_per_accepted"] == 12
    assert by_job.loc["guided", "subset0/masks/0-ours-10"]["seconds"] == 7
    finetune = by_job.loc["finetune", "subset1"]
    assert (finetune["subset"], finetune["seconds"], finetune["max_rss_mb"]) == (1, 110.0, 950.0)
    assert finetune[["source", "attempts", "acceptance"]].isna().all()
    assert pd.isna(by_job.loc["tables", "table4"]["subset"]) and pd.isna(by_job.loc["tables", "table4"]["max_rss_mb"])
    assert pd.isna(by_job.loc["figures", "figure4"]["max_rss_mb"])


@pytest.fixture
def logged():
    yield log_to
    log_to(None)


def _train(state, until=6):
    net = torch.nn.Linear(1, 1)

    def loss_at(step):
        if step == until:
            raise KeyboardInterrupt
        return net(torch.ones(1)).sum()

    train(net, torch.optim.SGD(net.parameters()), loss_at, LoopConfig(6, 0, save_every=-1.0), state=state)


def test_seconds_of_a_job_that_did_not_do_all_of_its_work_are_said_to_be_partial(tmp_path, logged):
    """The real loop and the real pool, with their logs where the workflow has them."""
    root, stages = tmp_path / "results/benchmarks", ("finetune", "pretrain", "synthesis", "guided")
    names = {"finetune": "subset0", "pretrain": "denoiser", "synthesis": "subset0/synthetic/ours/00000"}
    names |= {"guided": "subset0/footwear-0-ours-12"}
    logs = {stage: tmp_path / "results/logs" / stage / f"{names[stage]}.log" for stage in stages}
    logged(logs["finetune"])
    _train(tmp_path / "whole.pt")
    logged(logs["pretrain"])
    with pytest.raises(KeyboardInterrupt):
        _train(tmp_path / "killed.pt", until=4)
    logged(logs["pretrain"])
    _train(tmp_path / "killed.pt")

    def draw(attempts):
        return np.zeros((len(attempts), 2, 2, 1), np.uint8)

    first, later = [(0, i) for i in range(4)], [(0, i) for i in range(6)]
    logged(logs["synthesis"])
    Engine(draw, Pool(tmp_path / "pool", "k", 0, (1, 2, 2)), 4, 1).candidates(first)
    logged(logs["guided"])
    Engine(draw, Pool(tmp_path / "pool", "k", 0, (1, 2, 2)), 4, 1).candidates(later)

    benchmarks = [_benchmark(root / stage / f"{names[stage]}.tsv", (30.0, 1.0)) for stage in stages]
    attempts = [
        _attempts(tmp_path / "results/subset0/synthetic/ours/00000.parquet", [True] * 3),
        _attempts(tmp_path / "results/subset0/attributes/footwear/0/ours/12.parquet", [True] * 3),
    ]
    run(files=[*attempts, *benchmarks], out=tmp_path / "costs.parquet")
    costs: Any = pd.read_parquet(tmp_path / "costs.parquet").set_index("stage")
    assert costs["partial"].to_dict() == {"finetune": False, "pretrain": True, "synthesis": False, "guided": True}
    assert (costs["seconds"] == 30).all() and (costs.loc[["synthesis", "guided"], "accepted"] == 3).all()
    assert costs.loc["synthesis", "seconds_per_accepted"] == 10
    assert pd.isna(costs.loc["guided", "seconds_per_accepted"]), "what its candidates took is not known"


def test_command_line_sorts_the_files_by_kind(results, tmp_path):
    attempts, benchmarks = results
    mixed = [str(path) for pair in zip(attempts[:2], benchmarks[:2], strict=True) for path in pair]
    assert main(["costs", "--out", str(tmp_path / "costs.parquet"), *mixed]) == 0
    assert len(pd.read_parquet(tmp_path / "costs.parquet")) == 3


def test_files_that_are_something_else(results, tmp_path):
    (attempts, *_), (benchmark, *_) = results
    out = tmp_path / "costs.parquet"
    stray = tmp_path / "00000.parquet"
    with pytest.raises(UserError, match=r"00000\.parquet: expected .*SOURCE"):
        run(files=[stray], out=out)
    with pytest.raises(UserError, match=r"x\.tsv: expected .*STAGE"):
        run(files=[tmp_path / "x.tsv"], out=out)
    with pytest.raises(UserError, match=r"00002\.tsv: the job synthesis/subset1/ours/00002 was given before"):
        run(files=[benchmark, benchmark], out=out)
    for content in (b"", b"\x9f\x00\xff"):
        benchmark.write_bytes(content)
        with pytest.raises(UserError, match="expected a benchmark"):
            run(files=[benchmark], out=out)
    _benchmark(benchmark, ("soon", 3.0))
    with pytest.raises(UserError, match=r"00002\.tsv: expected numbers"):
        run(files=[benchmark], out=out)
    benchmark.write_text("a\tb\n1\t2\n")
    with pytest.raises(UserError, match="s and max_rss"):
        run(files=[benchmark], out=out)
    pd.DataFrame({"p": [0.1]}).to_parquet(attempts)
    with pytest.raises(UserError, match="column accepted"):
        run(files=[attempts], out=out)
    _attempts(attempts, ["yes", "no"])
    with pytest.raises(UserError, match="column accepted"):
        run(files=[attempts], out=out)
    assert not out.exists()


def test_early_refusal_is_what_it_saved_and_what_its_audit_lost(tmp_path):
    columns = {
        "evaluations": [24, 24, 24, 8, 24, 16],
        "saved": [0, 0, 0, 16, 0, 8],
        "refused_at": [0, 4, 0, 4, 4, 8],
        "audited": [True, True, False, False, True, False],
    }
    shard = _attempts(
        tmp_path / "subset0/synthetic/ours/00000.parquet", [True, True, True, False, False, False], **columns
    )
    run(files=[shard], out=tmp_path / "costs.parquet")
    (row,) = pd.read_parquet(tmp_path / "costs.parquet").to_dict("records")
    assert row["early_saved"] == pytest.approx(24 / 72) and row["early_lost"] == pytest.approx(1 / 2)
    assert row["network_evaluations_per_accepted"] == pytest.approx(120 / 3)


@pytest.mark.parametrize(
    ("seen", "logged", "expected"), [(31.5, 1234, 1234), (1500.5, 1234, 1500.5), ("NA", 1234, 1234)]
)
def test_the_memory_of_a_forked_job_is_its_own(tmp_path, seen, logged, expected):
    """Snakemake sees that of the command which waits for it."""
    file = _benchmark(tmp_path / "benchmarks/finetune/subset1.tsv", (3.0, seen))
    log = tmp_path / "logs/finetune/subset1.log"
    log.parent.mkdir(parents=True)
    log.write_text(
        f"12:00:00 ddrep finetune\n12:00:03 peak memory {logged} MB\n12:00:03 all is written\n", encoding="utf-8"
    )
    run(files=[file], out=tmp_path / "costs.parquet")
    assert list(pd.read_parquet(tmp_path / "costs.parquet")["max_rss_mb"]) == [expected]


def test_a_command_tells_its_peak_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["config", "--out", "c.yaml", "--log", "log"]) == 0
    (told,) = PEAK.findall((tmp_path / "log").read_text(encoding="utf-8"))
    (kept,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    assert int(told) == pytest.approx(int(kept) / 1024, rel=0.05), "as the kernel has it"

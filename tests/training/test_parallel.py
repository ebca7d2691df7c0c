import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

from ddrep.cli import main
from ddrep.config import FineTune, Stage
from ddrep.data.shards import write_shard
from ddrep.denoiser.denoiser import Denoiser
from ddrep.errors import UserError
from ddrep.training import parallel
from tests import tiny


def _command(folder: Path, name: str, cfg: FineTune, *more: str) -> list[str]:
    """Arguments of `ddrep finetune`, its inputs made if they are not there."""
    if not (folder / "train.tar").exists():
        tiny.denoiser(model_channels=64, dropout=0.3).save(folder / "base.safetensors")
        write_shard(folder / "train.tar", tiny.images())
        write_shard(folder / "validation.tar", tiny.images("validation", per_class=5))
    inputs = ["--denoiser", "base.safetensors", "--train", "train.tar", "--validation", "validation.tar"]
    outputs = ["--out", f"{name}.safetensors", "--grid", f"{name}.png", "--history", f"{name}.parquet"]
    stage = Stage[FineTune](seed=4, config=cfg).model_dump_json()
    return ["finetune", "--stage", stage, *inputs, *outputs, "--log", f"{name}.log", *more]


def test_two_processes_give_the_result_of_one(tmp_path, monkeypatch):
    """Shares of 4 and 5 images, parts of 3, noise, flips, dropped labels and dropout all in play.

    Tolerance: gradients are summed in another order, 1e-7 of them, and Adam's first steps are of the size of lr (1e-3)
    whatever the gradient's, so that where it almost vanishes the weights may come to differ by more than that: by a
    tenth of lr at most, and in the root mean square by a thousandth of what was learned.
    """
    monkeypatch.chdir(tmp_path)
    cfg = FineTune(steps=5, batch=9, lr=1e-3, warmup=2, ema_decay=0.5, flip=True, clip=0.5, precision="fp32")
    assert main(_command(tmp_path, "one", cfg)) == 0
    assert main(_command(tmp_path, "two", cfg, "--processes", "2", "--micro-batch", "3")) == 0
    one, two = (Denoiser.load(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    base = Denoiser.load(tmp_path / "base.safetensors").net.state_dict()
    for name, value in one.net.state_dict().items():
        difference = two.net.state_dict()[name] - value
        assert difference.abs().max() <= 1e-4
        if name in base:
            learned = (value - base[name]).norm()
            assert difference.norm() <= 1e-3 * learned and learned > 1e-4 * value.numel() ** 0.5, name
    assert two.provenance == one.provenance
    pd.testing.assert_frame_equal(pd.read_parquet("one.parquet"), pd.read_parquet("two.parquet"), rtol=1e-5)
    assert "the own label helps" in (tmp_path / "two.log").read_text()
    assert list(tmp_path.glob(".ddrep/state/*")) == []


def test_what_one_of_several_processes_complains_of_is_one_line(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    command = _command(tmp_path, "out", FineTune(batch=1), "--processes", "2")
    assert main(command) == 2
    line = "ddrep: a batch of 1 images is too small for 2 processes; give --processes 1\n"
    assert capfd.readouterr().err == line
    log = (tmp_path / "out.log").read_text().splitlines()
    assert len(log) == 2 and log[1].endswith(line.strip())


def test_the_processes_end_when_their_parent_is_killed(tmp_path):
    # a worker that has begun its work is past its imports, for only then torch has tied it to its parent
    work = f"import os, pathlib, time; pathlib.Path({str(tmp_path)!r}, str(os.getpid())).touch(); time.sleep(100)"
    call = f"from ddrep.training.parallel import in_processes; in_processes(2, exec, {work!r})"
    parent = subprocess.Popen([sys.executable, "-c", call], env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    deadline = time.monotonic() + 120
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = [psutil.Process(int(file.name)) for file in tmp_path.iterdir()]
    assert parent.poll() is None and len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert psutil.wait_procs(workers, timeout=60)[1] == []


def test_shares_are_disjoint_and_make_up_the_batch(monkeypatch):
    for batch, count in [(8, 1), (9, 2), (128, 3), (5, 5)]:
        monkeypatch.setattr(parallel, "processes", lambda count=count: count)
        rows: list[int] = []
        for number in range(count):
            monkeypatch.setattr(parallel, "rank", lambda number=number: number)
            rows += range(batch)[parallel.share(batch)]
            assert len(range(batch)[parallel.share(batch)]) in (batch // count, -(-batch // count))
        assert rows == list(range(batch))
    with pytest.raises(UserError, match="batch of 4 images is too small for 5 processes"):
        parallel.share(4)


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=r"--processes 3: each takes a GPU of its own and 2 can be seen"):
        parallel.in_processes(3, print, {})
